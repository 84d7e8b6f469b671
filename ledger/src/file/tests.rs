use std::{
    collections::BTreeMap,
    future::poll_fn,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
};

use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq};
use tempfile::TempDir;

use super::*;
use crate::contract::PARTITIONS;

const IDENTITY: Identity = Identity(*b"sixteen bytes id");
const P0: Partition = Partition(0);
const P1: Partition = Partition(1);

fn count(partitions: u16) -> NonZeroU16 {
    NonZeroU16::new(partitions).expect("some")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder for the test")
}

fn found(folder: &TempDir) -> FileLedger {
    FileLedger::found(&folder.path().join("ledger"), IDENTITY, count(PARTITIONS)).expect("founded")
}

fn open(folder: &TempDir) -> Result<FileLedger, FileError> {
    FileLedger::open(&folder.path().join("ledger"))
}

crate::ledger_contract! {{
    let folder = folder();
    let ledger = found(&folder);
    move || {
        assert!(folder.path().exists());
        ledger.handle()
    }
}}

async fn append(log: &mut FileLog, to: Partition, frame: &[u8]) -> Fate {
    log.append(to, Slip(9), frame).expect("room");
    let mut fates = Vec::new();
    poll_fn(|cx| log.poll_fates(cx, &mut fates)).await;
    assert_eq!(fates.len(), 1);
    fates[0].1
}

/// All frames of an open ledger, by partition.
fn frames(ledger: &FileLedger) -> Vec<Vec<Vec<u8>>> {
    let log = ledger.handle();
    let all = |partition| {
        let mut tail = log.tail(Partition(partition), 0);
        let mut records = Vec::new();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(read) = tail.poll_records(&mut cx, &mut records) {
            read.expect("a readable record");
        }
        records.into_iter().map(|record| record.bytes).collect()
    };
    (0..ledger.partitions()).map(all).collect()
}

/// The bytes of a ledger whose records came in these batches, as a crash would leave it.
struct Image {
    bytes: Vec<u8>,
    /// Where each record begins, with its partition and frame.
    records: Vec<(u64, u16, Vec<u8>)>,
    last_batch: u64,
}

fn image(batches: &[Vec<(u16, Vec<u8>)>]) -> Image {
    let mut bytes = Header { identity: IDENTITY, partitions: PARTITIONS }.bytes().to_vec();
    let mut records = Vec::new();
    let mut next = [0; PARTITIONS as usize];
    let mut last_batch = HEADER_BYTES as u64;
    for batch in batches {
        let start = bytes.len() as u64;
        last_batch = start;
        let mut written = Vec::new();
        for (partition, frame) in batch {
            let of = usize::from(*partition);
            let name = (Partition(*partition), next[of]);
            let place = format::push_record(&mut written, IDENTITY, start, name, frame);
            next[of] += 1;
            records.push((place.position, *partition, frame.clone()));
        }
        bytes.extend(written);
    }
    Image { bytes, records, last_batch }
}

impl Image {
    /// The frames of the records that begin before `position`, by partition.
    fn frames_before(&self, position: u64) -> Vec<Vec<Vec<u8>>> {
        let mut frames = vec![Vec::new(); usize::from(PARTITIONS)];
        for (start, partition, frame) in &self.records {
            if *start < position {
                frames[usize::from(*partition)].push(frame.clone());
            }
        }
        frames
    }

    /// The first position of the record that holds the byte at `position`.
    fn record_of(&self, position: u64) -> u64 {
        let starts = self.records.iter().map(|(start, ..)| *start);
        starts.take_while(|start| *start <= position).last().expect("a record")
    }

    fn write(&self, folder: &TempDir) {
        std::fs::write(folder.path().join("ledger"), &self.bytes).expect("written");
    }
}

fn two_batches() -> Image {
    image(&[
        vec![(0, b"first".to_vec()), (1, b"second".to_vec())],
        vec![(1, b"third".to_vec()), (0, Vec::new()), (2, b"fifth, the last".to_vec())],
    ])
}

#[tokio::test]
async fn what_was_appended_is_there_after_opening_again_and_offsets_go_on() {
    let folder = folder();
    let ledger = found(&folder);
    let mut log = ledger.handle();
    assert_eq!(append(&mut log, P1, b"one").await, Fate::At(0));
    assert_eq!(append(&mut log, P1, b"two").await, Fate::At(1));
    ledger.close().expect("closed");
    let ledger = open(&folder).expect("opened");
    assert_eq!((ledger.identity(), ledger.partitions()), (IDENTITY, PARTITIONS));
    assert_eq!(ledger.cut(), None);
    assert_eq!(append(&mut ledger.handle(), P1, b"three").await, Fate::At(2));
    assert_eq!(append(&mut ledger.handle(), P0, b"pool").await, Fate::At(0));
    drop(ledger);
    let ledger = open(&folder).expect("opened");
    assert_eq!(frames(&ledger)[1], [&b"one"[..], b"two", b"three"]);
}

#[tokio::test]
async fn a_closed_ledger_refuses_appends_and_ends_tails_but_loses_nothing_accepted() {
    let folder = folder();
    let ledger = found(&folder);
    let mut log = ledger.handle();
    let mut tail = log.tail(P0, 0);
    for slip in 0..100 {
        log.append(P0, Slip(slip), b"accepted").expect("room");
    }
    ledger.close().expect("closed");
    assert!(matches!(log.append(P0, Slip(1), b"late"), Err(Refused::Closed(_))));
    let mut fates = Vec::new();
    poll_fn(|cx| log.poll_fates(cx, &mut fates)).await;
    assert_eq!(fates.len(), 100);
    assert!(fates.iter().all(|(_, fate)| matches!(fate, Fate::At(_))));
    let mut records = Vec::new();
    poll_fn(|cx| tail.poll_records(cx, &mut records)).await.expect("the records");
    assert_eq!(records.len(), 100);
    let end = poll_fn(|cx| tail.poll_records(cx, &mut records)).await;
    assert!(matches!(end, Err(Torn::Failed(_))));
    // The tail and the handle still live, and yet the lock was given back.
    assert_eq!(frames(&open(&folder).expect("opened"))[0].len(), 100);
}

#[test]
fn founding_never_replaces_a_file_and_opening_never_makes_one() {
    let folder = folder();
    let path = folder.path().join("ledger");
    assert!(matches!(open(&folder), Err(FileError::Missing(_))));
    found(&folder).close().expect("closed");
    let before = std::fs::read(&path).expect("read");
    let again = FileLedger::found(&path, Identity([0; 16]), count(1));
    assert!(matches!(again, Err(FileError::Exists(_))));
    assert_eq!(std::fs::read(&path).expect("read"), before);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "no draft is left");
}

#[test]
fn a_draft_left_by_a_crash_does_not_hinder_founding() {
    let folder = folder();
    std::fs::write(folder.path().join("ledger.founding"), b"half a head").expect("written");
    found(&folder).close().expect("closed");
    assert!(frames(&open(&folder).expect("opened")).iter().all(Vec::is_empty));
}

#[test]
fn a_tail_torn_at_any_length_is_cut_to_the_last_whole_record() {
    let whole = two_batches();
    for length in HEADER_BYTES..=whole.bytes.len() {
        let folder = folder();
        let torn = Image { bytes: whole.bytes[..length].to_vec(), ..two_batches() };
        torn.write(&folder);
        let ledger = open(&folder).expect("a torn tail is no damage");
        // A record is whole iff the next one's beginning is still there.
        let starts = whole.records.iter().map(|(start, ..)| *start);
        let mut ends = starts.skip(1).chain([whole.bytes.len() as u64]);
        let end = ends.rfind(|end| *end <= length as u64).unwrap_or(HEADER_BYTES as u64);
        assert_eq!(frames(&ledger), whole.frames_before(end), "cut to {length} bytes");
        let bytes = length as u64 - end;
        assert_eq!(ledger.cut(), (bytes > 0).then_some(Cut { position: end, bytes }));
        // What was cut does not come back.
        drop(ledger);
        let again = open(&folder).expect("opened");
        assert_eq!((frames(&again), again.cut()), (whole.frames_before(end), None));
    }
    for length in 0..HEADER_BYTES {
        let folder = folder();
        std::fs::write(folder.path().join("ledger"), &whole.bytes[..length]).expect("written");
        assert!(matches!(open(&folder), Err(FileError::Header { .. })), "{length} bytes");
    }
}

#[test]
fn a_last_batch_that_lost_any_page_is_cut_before_its_first_bad_record() {
    // A machine that loses power may keep the later of two pages and not the earlier.
    let whole = two_batches();
    let in_last = |start: &u64| *start >= whole.last_batch;
    for start in whole.records.iter().map(|(start, ..)| *start).filter(in_last) {
        let folder = folder();
        let mut torn = two_batches();
        torn.bytes[start as usize..start as usize + RECORD_HEADER_BYTES].fill(0);
        torn.write(&folder);
        let ledger = open(&folder).expect("nobody was told of it");
        assert_eq!(frames(&ledger), whole.frames_before(start));
        let bytes = whole.bytes.len() as u64 - start;
        assert_eq!(ledger.cut(), Some(Cut { position: start, bytes }));
    }
}

#[test]
fn zeros_behind_the_records_are_cut() {
    let folder = folder();
    let mut grown = two_batches();
    grown.bytes.resize(grown.bytes.len() + 3_000_000, 0);
    grown.write(&folder);
    let ledger = open(&folder).expect("opened");
    assert_eq!(frames(&ledger), grown.frames_before(u64::MAX));
    assert_eq!(ledger.cut().map(|cut| cut.bytes), Some(3_000_000));
}

#[test]
fn after_an_orderly_close_no_damage_is_taken_for_a_torn_tail() {
    let folder = folder();
    two_batches().write(&folder);
    open(&folder).expect("opened").close().expect("closed");
    let path = folder.path().join("ledger");
    let whole = std::fs::read(&path).expect("read");
    for (start, ..) in two_batches().records {
        let mut bad = whole.clone();
        bad[start as usize + 8] ^= 1;
        std::fs::write(&path, &bad).expect("written");
        match open(&folder) {
            Err(FileError::Damaged { position, .. }) => assert_eq!(position, start),
            other => panic!("damage at {start} was not refused: {other:?}"),
        }
        assert_eq!(std::fs::read(&path).expect("read"), bad, "a refused file is left as it was");
    }
}

#[test]
fn a_records_bytes_at_another_place_or_of_another_ledger_are_no_record() {
    let folder = folder();
    let mut doubled = two_batches();
    let copy = doubled.bytes[HEADER_BYTES..].to_vec();
    doubled.bytes.extend(copy);
    doubled.write(&folder);
    let ledger = open(&folder).expect("opened");
    assert_eq!(frames(&ledger), doubled.frames_before(u64::MAX));
    drop(ledger);

    let mut foreign = two_batches();
    let other = Header { identity: Identity([7; 16]), partitions: PARTITIONS };
    foreign.bytes[..HEADER_BYTES].copy_from_slice(&other.bytes());
    foreign.write(&folder);
    assert!(frames(&open(&folder).expect("opened")).iter().all(Vec::is_empty));
}

#[test]
fn an_unknown_version_is_refused_by_name() {
    let folder = folder();
    let mut newer = two_batches();
    newer.bytes[8] = 2;
    newer.write(&folder);
    let error = open(&folder).expect_err("refused").to_string();
    assert!(error.contains("version 2"), "{error}");
}

#[test]
fn a_whole_record_with_a_wrong_offset_is_damage() {
    let folder = folder();
    let mut wrong = two_batches();
    let end = wrong.bytes.len() as u64;
    let mut record = Vec::new();
    format::push_record(&mut record, IDENTITY, end, (P0, 17), b"from nowhere");
    wrong.bytes.extend(record);
    wrong.write(&folder);
    match open(&folder) {
        Err(FileError::Damaged { position, why, .. }) => {
            assert_eq!(position, end);
            assert!(why.contains("offset 17 instead of 2"), "{why}");
        }
        other => panic!("not refused: {other:?}"),
    }
}

fn any_batches() -> impl Strategy<Value = Vec<Vec<(u16, Vec<u8>)>>> {
    let frame = proptest::collection::vec(any::<u8>(), 0..40);
    let batch = proptest::collection::vec((0..PARTITIONS, frame), 1..5);
    proptest::collection::vec(batch, 1..6)
}

proptest::proptest! {
    #[test]
    fn a_flipped_bit_is_refused_or_cut_and_never_read(
        batches in any_batches(), at in any::<proptest::sample::Index>(), bit in 0..8_u8,
    ) {
        let folder = folder();
        let whole = image(&batches);
        let at = at.index(whole.bytes.len());
        let mut bad = image(&batches);
        bad.bytes[at] ^= 1_u8 << bit;
        bad.write(&folder);
        let at = at as u64;
        match open(&folder) {
            Err(FileError::Header { .. }) => prop_assert!(at < HEADER_BYTES as u64),
            Err(FileError::Damaged { position, .. }) => {
                prop_assert!(HEADER_BYTES as u64 <= at && at < whole.last_batch);
                prop_assert_eq!(position, whole.record_of(at));
            }
            Err(other) => panic!("{other}"),
            Ok(ledger) => {
                prop_assert!(at >= whole.last_batch);
                prop_assert_eq!(frames(&ledger), whole.frames_before(whole.record_of(at)));
            }
        }
    }
}

proptest::proptest! {
    // Each case syncs dozens of times, and the flipped bits above are the finer net.
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    #[test]
    fn a_file_torn_and_continued_many_times_keeps_what_it_had(
        rounds in proptest::collection::vec((1..30_usize, any::<proptest::sample::Index>()), 1..6),
    ) {
        let folder = folder();
        let path = folder.path().join("ledger");
        found(&folder).close().expect("closed");
        let mut expected: Vec<Vec<u8>> = Vec::new();
        for (round, (appends, tear)) in rounds.into_iter().enumerate() {
            let ledger = open(&folder).expect("opened");
            prop_assert_eq!(&frames(&ledger)[1], &expected);
            let start = std::fs::metadata(&path).expect("a file").len();
            let mut log = ledger.handle();
            for i in 0..appends {
                let frame = format!("{round} {i}").into_bytes();
                log.append(P1, Slip(0), &frame).expect("room");
                expected.push(frame);
            }
            ledger.close().expect("closed");
            // Tears what this round wrote, wherever the index says.
            let size = std::fs::metadata(&path).expect("a file").len();
            let keep = start + tear.index((size - start) as usize) as u64;
            let file = File::options().write(true).open(&path).expect("opened");
            file.set_len(keep).expect("torn");
            let ledger = open(&folder).expect("opened");
            let kept = frames(&ledger)[1].len();
            prop_assert!(kept <= expected.len());
            expected.truncate(kept);
        }
    }
}

/// A disk whose syncs wait for the test's word, and which fails when told so.
struct Staged {
    file: File,
    at_sync: Sender<()>,
    go: Receiver<Result<(), ()>>,
    /// How many bytes may still be written before the disk is full.
    room: usize,
}

impl Disk for Staged {
    fn write_all_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        let fits = bytes.len().min(self.room);
        FileExt::write_all_at(&self.file, &bytes[..fits], position)?;
        self.room -= fits;
        match fits == bytes.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let _ = self.at_sync.send(());
        match self.go.recv() {
            Ok(Err(())) => Err(io::Error::other("the disk is gone")),
            _ => self.file.sync_data(),
        }
    }

    fn unlock(&mut self) {
        Disk::unlock(&mut self.file);
    }
}

struct Stage {
    ledger: FileLedger,
    at_sync: Receiver<()>,
    go: Sender<Result<(), ()>>,
}

/// A ledger on a staged disk; opening it makes two syncs, which are let go here.
fn staged(folder: &TempDir, room: usize) -> Stage {
    found(folder).close().expect("closed");
    let path = folder.path().join("ledger");
    let file = File::options().read(true).write(true).open(&path).expect("opened");
    lock(&file, &path).expect("locked");
    let (at_sync, seen) = channel();
    let (go, wait) = channel();
    go.send(Ok(())).expect("sent");
    go.send(Ok(())).expect("sent");
    let disk = Staged { file: file.try_clone().expect("cloned"), at_sync, go: wait, room };
    let ledger = FileLedger::start_on(&path, file, disk).expect("started");
    for _ in 0..2 {
        seen.recv().expect("a sync of the opening");
    }
    Stage { ledger, at_sync: seen, go }
}

fn fates_now(log: &mut FileLog) -> Vec<(Slip, Fate)> {
    let mut fates = Vec::new();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let _ = log.poll_fates(&mut cx, &mut fates);
    fates
}

#[tokio::test]
async fn appends_that_arrive_during_a_sync_share_the_next_one() {
    let folder = folder();
    let Stage { ledger, at_sync, go } = staged(&folder, usize::MAX);
    let mut logs = [ledger.handle(), ledger.handle()];
    logs[0].append(P0, Slip(0), b"first").expect("room");
    at_sync.recv().expect("a sync");
    for log in &mut logs {
        for slip in 1..=100 {
            log.append(P1, Slip(slip), b"while it syncs").expect("room");
        }
        assert!(fates_now(log).is_empty(), "a fate was told before its sync");
    }
    let mut tail = ledger.handle().tail(P0, 0);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(tail.poll_records(&mut cx, &mut Vec::new()).is_pending(), "read before its sync");
    go.send(Ok(())).expect("sent");
    at_sync.recv().expect("the one sync of all 200");
    go.send(Ok(())).expect("sent");
    for (log, expected) in logs.iter_mut().zip([101, 100]) {
        let mut fates = Vec::new();
        while fates.len() < expected {
            poll_fn(|cx| log.poll_fates(cx, &mut fates)).await;
        }
    }
    assert!(at_sync.try_recv().is_err(), "there was another sync");
    go.send(Ok(())).expect("sent");
    ledger.close().expect("closed");
}

#[tokio::test]
async fn after_a_failed_sync_fates_are_unknown_and_nothing_more_is_written() {
    let folder = folder();
    let Stage { ledger, at_sync, go } = staged(&folder, usize::MAX);
    let mut log = ledger.handle();
    let mut tail = log.tail(P0, 0);
    log.append(P0, Slip(1), b"kept").expect("room");
    at_sync.recv().expect("a sync");
    go.send(Ok(())).expect("sent");
    let mut fates = Vec::new();
    poll_fn(|cx| log.poll_fates(cx, &mut fates)).await;
    assert_eq!(fates, [(Slip(1), Fate::At(0))]);

    log.append(P0, Slip(2), b"perhaps").expect("room");
    at_sync.recv().expect("a sync");
    log.append(P0, Slip(3), b"never tried").expect("room");
    go.send(Err(())).expect("sent");
    fates.clear();
    while fates.len() < 2 {
        poll_fn(|cx| log.poll_fates(cx, &mut fates)).await;
    }
    assert_eq!(fates, [(Slip(2), Fate::Unknown), (Slip(3), Fate::Unknown)]);
    let error = ledger.close().expect_err("it failed").to_string();
    assert!(error.contains("could not sync") && error.contains("the disk is gone"), "{error}");
    assert!(matches!(log.append(P0, Slip(4), b"late"), Err(Refused::Closed(_))));
    assert!(at_sync.try_recv().is_err(), "it synced again after a failed sync");

    let mut records = Vec::new();
    poll_fn(|cx| tail.poll_records(cx, &mut records)).await.expect("what was durable");
    assert_eq!(records.len(), 1);
    assert!(matches!(
        poll_fn(|cx| tail.poll_records(cx, &mut records)).await,
        Err(Torn::Failed(_))
    ));
    let found = frames(&open(&folder).expect("opened"));
    assert_eq!(found[0][0], b"kept");
}

#[tokio::test]
async fn a_full_disk_closes_the_log_and_opening_cuts_the_half_written_record() {
    let folder = folder();
    let mark_bytes = RECORD_HEADER_BYTES;
    let Stage { ledger, .. } = staged(&folder, mark_bytes + RECORD_HEADER_BYTES + 3);
    let mut log = ledger.handle();
    assert_eq!(append(&mut log, P0, b"does not fit").await, Fate::Unknown);
    assert!(ledger.close().is_err());
    let ledger = open(&folder).expect("opened");
    assert!(frames(&ledger)[0].is_empty());
    assert_eq!(ledger.cut().map(|cut| cut.bytes), Some(RECORD_HEADER_BYTES as u64 + 3));
}

#[test]
fn a_second_opening_is_refused_and_names_the_holder() {
    let folder = folder();
    let ledger = found(&folder);
    let error = open(&folder).expect_err("held");
    assert!(matches!(&error, FileError::Held { .. }));
    assert!(error.to_string().ends_with("in use by this process"), "{error}");
    drop(ledger);
    open(&folder).expect("free again");
}

// The tests below need another process. It is this test program, told by this variable to
// run one of the `as_child_` tests, which do nothing without it.
const CHILD: &str = "LEDGER_TEST_CHILD_FILE";

fn child(test: &str, path: &Path) -> std::process::Child {
    let program = std::env::current_exe().expect("this program");
    Command::new(program)
        .args(["--exact", &format!("file::tests::{test}"), "--nocapture"])
        .env(CHILD, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child process")
}

#[test]
fn as_child_that_holds_the_ledger() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let ledger = FileLedger::open(Path::new(&path)).expect("opened");
    println!("\nready");
    // Until the parent goes or says so.
    let _ = std::io::stdin().read_line(&mut String::new());
    drop(ledger);
}

#[test]
fn another_process_that_has_it_open_is_named() {
    let folder = folder();
    found(&folder).close().expect("closed");
    let mut child = child("as_child_that_holds_the_ledger", &folder.path().join("ledger"));
    let out = BufReader::new(child.stdout.take().expect("its output"));
    let ready = out.lines().find(|line| line.as_ref().is_ok_and(|line| line == "ready"));
    assert!(ready.is_some(), "the child opened the ledger");
    let error = open(&folder).expect_err("held").to_string();
    assert!(error.contains(&format!("process {}", child.id())), "{error}");
    child.kill().expect("killed");
    child.wait().expect("gone");
    open(&folder).expect("a dead process holds nothing");
}

#[test]
fn as_child_that_appends_until_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let ledger = FileLedger::open(Path::new(&path)).expect("opened");
    let writers: Vec<_> = (0..PARTITIONS)
        .map(|partition| {
            let mut log = ledger.handle();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                runtime.expect("a runtime").block_on(async {
                    for slip in 0.. {
                        // Several wait at a time, so that batches hold many.
                        let frame = format!("{partition} {slip} {}", "x".repeat(slip % 3_000));
                        log.append(Partition(partition), Slip(slip as u64), frame.as_bytes())
                            .expect("room");
                        if slip % 16 != 15 {
                            continue;
                        }
                        let mut fates = Vec::new();
                        while fates.len() < 16 {
                            poll_fn(|cx| log.poll_fates(cx, &mut fates)).await;
                        }
                        let told: String = fates
                            .iter()
                            .map(|(Slip(slip), fate)| match fate {
                                Fate::At(at) => format!("told {partition} {at} {slip} .\n"),
                                other => panic!("{other:?}"),
                            })
                            .collect();
                        let _ = std::io::stdout().lock().write_all(told.as_bytes());
                    }
                });
            })
        })
        .collect();
    for writer in writers {
        let _ = writer.join();
    }
}

#[test]
fn every_fate_told_before_a_kill_is_kept() {
    let folder = folder();
    found(&folder).close().expect("closed");
    let mut told: BTreeMap<(usize, usize), String> = BTreeMap::new();
    for round in 1..=4 {
        let mut child = child("as_child_that_appends_until_killed", &folder.path().join("ledger"));
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut heard = 0;
        while let Some(Ok(line)) = lines.next() {
            // The harness prints lines as well, and a kill may cut the last one.
            let Some(words) = line.strip_prefix("told ") else { continue };
            let words: Vec<&str> = words.split(' ').collect();
            let [partition, at, slip, "."] = words[..] else { continue };
            let (Ok(of), Ok(at)) = (partition.parse(), at.parse()) else { continue };
            told.insert((of, at), format!("{partition} {slip} "));
            heard += 1;
            if heard == round * 700 {
                child.kill().expect("killed");
            }
        }
        child.wait().expect("gone");
        assert!(heard >= round * 700, "the child died early: {heard}");
        let frames = frames(&open(&folder).expect("a kill is no damage"));
        for ((of, at), begins) in &told {
            let frame = frames[*of].get(*at).unwrap_or_else(|| panic!("{of} {at} is lost"));
            let frame = String::from_utf8_lossy(frame);
            assert!(frame.starts_with(begins.as_str()), "{of} {at} is {frame:?}");
        }
    }
    println!("{} fates told before 4 kills, all kept", told.len());
}
