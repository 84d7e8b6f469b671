//! The file of local mode, written here by the page's section 13, and the program's exit status.

#![allow(clippy::unwrap_used, reason = "what cannot be built or read is a failure")]

mod lab;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use checker::file::FileLedger;
use checker::source::{Ledger, Part, Unreadable};
use lab::{Ask, Lab, START, buyer_at, held, home};

const IDENTITY: [u8; 16] = [0xab; 16];

/// Writes a file ledger record by record.
struct Container(Vec<u8>);

impl Container {
    fn new(partitions: u16) -> Self {
        let mut bytes = b"STNLEDGR".to_vec();
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(partitions.to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend(IDENTITY);
        bytes.extend([0; 28]);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(crc.to_le_bytes());
        Self(bytes)
    }

    fn record(&mut self, partition: u16, offset: u64, synced: u64, frame: &[u8]) {
        let at = self.0.len() as u64;
        let mut head = Vec::new();
        head.extend(u32::try_from(frame.len()).unwrap().to_le_bytes());
        head.extend(partition.to_le_bytes());
        head.extend([0; 2]);
        head.extend(offset.to_le_bytes());
        head.extend(synced.to_le_bytes());
        let all = [&IDENTITY[..], &at.to_le_bytes(), &head, frame].concat();
        self.0.extend([0xf5, 0x52, 0xc1, 0x0a]);
        self.0.extend(crc32c::crc32c(&all).to_le_bytes());
        self.0.extend(head);
        self.0.extend(frame);
    }

    /// All records of a lab, each a batch of its own, between two marks.
    fn of(lab: &Lab) -> Self {
        let mut file = Self::new(lab::SHARES + 1);
        file.record(u16::MAX, 0, 64, &[]);
        let mut next = [0; 1 + lab::SHARES as usize];
        for (partition, frame) in &lab.records {
            let at = file.0.len() as u64;
            file.record(*partition, next[usize::from(*partition)], at, frame);
            next[usize::from(*partition)] += 1;
        }
        file
    }
}

fn one_sold() -> Lab {
    let mut lab = Lab::founded();
    let first = home(0);
    lab.claim(first);
    let ask = Ask::new(&buyer_at(first, 0), "k", (0, 3));
    lab.frame(first, &[held((first, 1, 1), 0, &ask, &[2], START + 900_000)]);
    lab
}

fn written(folder: &Path, bytes: &[u8]) -> PathBuf {
    let path = folder.join("ledger");
    fs::write(&path, bytes).unwrap();
    path
}

fn checker(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_checker")).args(args).output().unwrap()
}

fn verify(path: &Path, more: &[&str]) -> (Option<i32>, String) {
    let address = format!("file:{}", path.display());
    let out = checker(&[&["verify", &address][..], more].concat());
    (out.status.code(), String::from_utf8(out.stdout).unwrap())
}

fn records(path: &Path) -> Result<usize, Unreadable> {
    let mut ledger = FileLedger::open(path.to_str().unwrap())?;
    let mut count = 0;
    for part in [Part::Pool, Part::Shares] {
        ledger.read(part, &mut |_, _, _| {
            count += 1;
            Ok(())
        })?;
    }
    Ok(count)
}

#[test]
fn a_file_ledger_is_judged_and_its_status_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = one_sold();
    let path = written(folder.path(), &Container::of(&lab).0);
    let (status, out) = verify(&path, &[]);
    assert_eq!(status, Some(0), "{out}");
    assert!(out.contains("\nseat-legs.held 3\n"), "{out}");
    assert!(out.ends_with("all promises hold\n"), "{out}");

    let (_, out) = verify(&path, &["--json", "--at-rest"]);
    let lines: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["holds"], true);
    assert_eq!(lines[0]["figures"]["seat-legs.free"], 33);
    assert_eq!((&lines[1]["from"], &lines[1]["seats"]), (&"A".into(), &11.into()));

    let first = home(0);
    let ask = Ask::new(&buyer_at(first, 1), "k", (0, 3));
    lab.frame(first, &[held((first, 1, 2), 0, &ask, &[2], START + 900_000)]);
    let path = written(folder.path(), &Container::of(&lab).0);
    let (status, out) = verify(&path, &[]);
    assert_eq!(status, Some(1), "{out}");
    let names = format!("broken sold-twice: {first}@1 {first}@2 ");
    assert!(out.contains(&names), "{out}");
}

#[test]
fn answers_are_read_and_a_torn_last_line_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), &Container::of(&one_sold()).0);
    let answers = folder.path().join("answers");
    let answers = answers.to_str().unwrap();
    let first = home(0);
    let line = |number: u32| format!(r#"{{"at":1,"status":201,"order":"{first}-1-{number}"}}"#);
    fs::write(answers, format!("{}\n{{\"at\":1,\"sta", line(1))).unwrap();
    let (status, out) = verify(&path, &["--answers", answers]);
    assert_eq!(status, Some(0), "{out}");
    assert!(out.contains("note: 1 files of answers end in a torn line"), "{out}");
    fs::write(answers, format!("{}\n{}\n", line(1), line(2))).unwrap();
    let (status, out) = verify(&path, &["--answers", answers]);
    assert_eq!(status, Some(1), "{out}");
    assert!(out.contains("\nanswers.confirmed-missing 1\n"), "{out}");
    fs::write(answers, "nothing\n").unwrap();
    assert_eq!(verify(&path, &["--answers", answers]).0, Some(2));
}

#[test]
fn every_record_is_printed_on_a_line_with_what_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = one_sold();
    lab.push(home(0), b"void".to_vec());
    let path = written(folder.path(), &Container::of(&lab).0);
    let out = checker(&["cat", &format!("file:{}", path.display())]);
    let out = String::from_utf8(out.stdout).unwrap();
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 5, "{out}");
    let first = home(0);
    assert!(lines[0].starts_with("0@0 accepted | share 0 "), "{out}");
    assert!(lines[2].starts_with(&format!("{first}@0 accepted | share {first} epoch 1 seq 0")));
    assert!(lines[3].contains(&format!(" | Held {first}-1-1/0 run 0 class 0 stops 0..3")), "{out}");
    assert!(lines[4].starts_with(&format!("{first}@2 void (short) | 4 bytes")), "{out}");
}

#[test]
fn a_torn_tail_is_left_out_wherever_it_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let whole = Container::of(&one_sold()).0;
    let mut last = Vec::new();
    for length in 64..=whole.len() {
        let count = records(&written(folder.path(), &whole[..length])).unwrap();
        last.push(count);
    }
    assert!(last.is_sorted());
    assert_eq!((last[0], last[last.len() - 1]), (0, 4));
    for length in 0..64 {
        let path = written(folder.path(), &whole[..length]);
        assert!(matches!(records(&path), Err(Unreadable::NotALedger { .. })), "{length}");
    }
}

#[test]
fn damage_behind_which_something_durable_lies_is_no_torn_tail() {
    let folder = tempfile::tempdir().unwrap();
    let whole = Container::of(&one_sold()).0;
    // The last record says that all in front of it was durable, so only its own bytes may tear.
    let last = whole.len() - one_sold().records[3].1.len() - 32;
    for at in 64..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        let read = records(&written(folder.path(), &bytes));
        // Two bytes of each head are ignored by the page, though its checksum covers them.
        let torn = at >= last;
        assert_eq!(read.is_ok(), torn, "byte {at}: {read:?}");
    }
    let (status, _) = verify(&written(folder.path(), &[&whole[..70], &whole[71..]].concat()), &[]);
    assert_eq!(status, Some(2));
}

#[test]
fn records_out_of_their_place_are_damage() {
    let folder = tempfile::tempdir().unwrap();
    for (partition, offset) in [(0, 1), (lab::SHARES + 1, 0)] {
        let mut file = Container::new(lab::SHARES + 1);
        file.record(partition, offset, 64, b"frame");
        let read = records(&written(folder.path(), &file.0));
        assert!(matches!(read, Err(Unreadable::Damaged { .. })), "{read:?}");
    }
}

#[test]
fn an_address_or_a_file_that_is_not_there_is_unreadable() {
    for address in ["ledger", "file:/nowhere/at/all", "other:x", "kafka:nowhere"] {
        assert_eq!(checker(&["verify", address]).status.code(), Some(2), "{address}");
    }
    assert_eq!(checker(&["verify"]).status.code(), Some(2));
}
