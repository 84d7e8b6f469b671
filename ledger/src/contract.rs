//! What every implementation of [`Log`] must do, as one suite that all of them pass.
//!
//! A subject is a way to make handles on a fresh, empty log of [`PARTITIONS`] partitions.
//! [`ledger_contract!`](crate::ledger_contract) makes one test of each promise,
//! [`every_promise`] tries them one after the other.

#![expect(clippy::missing_panics_doc, reason = "these are tests: a panic is their answer")]

use std::{
    collections::HashSet,
    future::poll_fn,
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use crate::{FRAME_BYTES_MAX, Fate, IN_FLIGHT_MAX, Log, Partition, Record, Refused, Slip, Tail};

/// How many partitions a subject has.
pub const PARTITIONS: u16 = 4;

/// After this a promise counts as broken. A busy machine needs seconds for what takes
/// milliseconds; nothing here takes longer when it works.
const PATIENCE: Duration = Duration::from_secs(60);

const P0: Partition = Partition(0);
const P1: Partition = Partition(1);

/// Makes a module of one test for each promise. `$subject` is an expression that is evaluated
/// anew for each test, inside a current-thread runtime, and yields a `Fn() -> impl Log`.
#[macro_export]
macro_rules! ledger_contract {
    (@promises $then:ident { $($words:tt)* }) => {
        $crate::ledger_contract! { @$then { $($words)* }
            offsets_are_dense_from_0_in_each_partition
            frames_come_back_unchanged
            frames_of_one_handle_keep_their_order
            two_handles_interleave_and_each_hears_its_own_fates
            a_tail_reads_history_and_then_follows
            a_record_is_readable_when_its_fate_is_told
            two_tails_of_one_partition_read_the_same
            a_tail_may_be_dropped_and_opened_anywhere
            a_tail_from_the_end_skips_history
            a_tail_from_behind_the_end_is_torn
            the_end_is_behind_every_fate_told
            a_full_queue_refuses_and_then_takes_again
            a_frame_too_long_is_refused
            a_partition_that_does_not_exist_is_refused
        }
    };
    (@tests $subject:tt $($promise:ident)*) => {
        $( $crate::ledger_contract! { @test $subject $promise } )*
    };
    (@test { $subject:expr } $promise:ident) => {
        #[test]
        fn $promise() {
            let runtime = ::tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let subject = $subject;
                $crate::contract::$promise(&subject).await;
            });
        }
    };
    (@calls { $found:ident } $($promise:ident)*) => {
        $(
            let started = ::std::time::Instant::now();
            $crate::contract::$promise(&$found().await).await;
            println!("{} after {:?}", stringify!($promise), started.elapsed());
        )*
    };
    ($subject:expr) => {
        $crate::ledger_contract! { @promises tests { $subject } }
    };
}

/// Tries every promise, each on what `found` makes anew; for subjects that are too dear to
/// have a test for each. Panics at the first that is broken, behind a line for each that holds.
pub async fn every_promise<L: Log, S: Fn() -> L>(found: impl AsyncFn() -> S) {
    crate::ledger_contract! { @promises calls { found } }
}

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Appends, fetching fates into `fates` whenever the queue is full.
async fn append<L: Log>(
    log: &mut L,
    fates: &mut Vec<(Slip, Fate)>,
    to: Partition,
    slip: Slip,
    frame: &[u8],
) {
    loop {
        match log.append(to, slip, frame) {
            Ok(()) => return,
            Err(Refused::Full) => {
                in_time("a fate", poll_fn(|cx| log.poll_fates(cx, fates))).await;
            }
            Err(refused) => panic!("append to {to:?}: {refused}"),
        }
    }
}

/// Fetches fates until there are `count`.
async fn fates_until<L: Log>(log: &mut L, fates: &mut Vec<(Slip, Fate)>, count: usize) {
    while fates.len() < count {
        in_time("a fate", poll_fn(|cx| log.poll_fates(cx, fates))).await;
    }
    assert_eq!(fates.len(), count, "more fates than appends");
}

/// Appends one frame and returns its offset.
async fn append_at<L: Log>(log: &mut L, to: Partition, frame: &[u8]) -> u64 {
    let mut fates = Vec::new();
    append(log, &mut fates, to, Slip(u64::MAX), frame).await;
    fates_until(log, &mut fates, 1).await;
    match fates[0] {
        (Slip(u64::MAX), Fate::At(offset)) => offset,
        other => panic!("a lone append had the fate {other:?}"),
    }
}

/// Reads until there are `count` records, and checks that they are dense.
async fn read_until<T: Tail>(tail: &mut T, count: usize) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    while records.len() < count {
        let read = in_time("a record", poll_fn(|cx| tail.poll_records(cx, &mut records))).await;
        read.expect("a tail that is not torn");
    }
    assert_eq!(records.len(), count, "more records than appends");
    for pair in records.windows(2) {
        assert_eq!(pair[1].offset, pair[0].offset + 1, "offsets are dense");
        assert_eq!(pair[1].partition, pair[0].partition);
    }
    records
}

/// # Promise
/// Each partition counts its own records from 0, without a gap.
pub async fn offsets_are_dense_from_0_in_each_partition<L: Log>(subject: &impl Fn() -> L) {
    let mut log = subject();
    for expected in 0..5 {
        for partition in 0..PARTITIONS {
            let at = append_at(&mut log, Partition(partition), b"frame").await;
            assert_eq!(at, expected, "partition {partition}");
        }
    }
}

/// # Promise
/// Any bytes of any length come back as they were.
pub async fn frames_come_back_unchanged<L: Log>(subject: &impl Fn() -> L) {
    let mut log = subject();
    let lengths = [0, 1, 2, 255, 256, 1_200, 65_537, FRAME_BYTES_MAX];
    let frame = |length: usize| -> Vec<u8> {
        // Every byte value, at changing distances.
        (0..length).map(|i| (i * 31 + i / 256 + length) as u8).collect()
    };
    let mut fates = Vec::new();
    for (slip, length) in (0..).zip(lengths) {
        append(&mut log, &mut fates, P1, Slip(slip), &frame(length)).await;
    }
    fates_until(&mut log, &mut fates, lengths.len()).await;
    let records = read_until(&mut log.tail(P1, 0), lengths.len()).await;
    for (record, length) in records.iter().zip(lengths) {
        assert!(record.bytes == frame(length), "the frame of {length} bytes came back changed");
    }
}

/// # Promise
/// Frames of one handle to one partition lie in the order of the calls, however many wait.
pub async fn frames_of_one_handle_keep_their_order<L: Log>(subject: &impl Fn() -> L) {
    let mut log = subject();
    let count = 3 * IN_FLIGHT_MAX as u64;
    let mut fates = Vec::new();
    for i in 0..count {
        append(&mut log, &mut fates, P1, Slip(i), &i.to_le_bytes()).await;
    }
    fates_until(&mut log, &mut fates, count as usize).await;
    fates.sort_unstable_by_key(|(slip, _)| *slip);
    for (i, fate) in (0..).zip(&fates) {
        assert_eq!(*fate, (Slip(i), Fate::At(i)));
    }
    for (i, record) in (0..count).zip(read_until(&mut log.tail(P1, 0), count as usize).await) {
        assert_eq!((record.offset, &record.bytes[..]), (i, &i.to_le_bytes()[..]));
    }
}

/// # Promise
/// Two handles share a partition: no offset twice, none missing, and each hears of its own.
pub async fn two_handles_interleave_and_each_hears_its_own_fates<L: Log>(subject: &impl Fn() -> L) {
    let (mut a, mut b) = (subject(), subject());
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    const EACH: u64 = 500;
    for i in 0..EACH {
        append(&mut a, &mut of_a, P1, Slip(i), format!("a{i}").as_bytes()).await;
        append(&mut b, &mut of_b, P1, Slip(i), format!("b{i}").as_bytes()).await;
    }
    fates_until(&mut a, &mut of_a, EACH as usize).await;
    fates_until(&mut b, &mut of_b, EACH as usize).await;
    let records = read_until(&mut a.tail(P1, 0), 2 * EACH as usize).await;
    let mut seen = HashSet::new();
    for (name, fates) in [("a", of_a), ("b", of_b)] {
        for (Slip(i), fate) in fates {
            let Fate::At(offset) = fate else { panic!("{name}{i}: {fate:?}") };
            assert!(seen.insert(offset), "offset {offset} was told twice");
            let record = &records[usize::try_from(offset).expect("small")];
            assert_eq!(record.bytes, format!("{name}{i}").into_bytes());
        }
    }
    assert_eq!(seen.len() as u64, 2 * EACH);
}

/// # Promise
/// A tail gives what was there and then what comes, once each.
pub async fn a_tail_reads_history_and_then_follows<L: Log>(subject: &impl Fn() -> L) {
    let mut log = subject();
    for i in 0..10_u64 {
        append_at(&mut log, P0, &i.to_le_bytes()).await;
    }
    let mut tail = log.tail(P0, 4);
    assert_eq!(read_until(&mut tail, 6).await[0].offset, 4);
    for i in 10..40_u64 {
        // Waiting is begun before the record comes, so that it is the wake that is tested.
        let mut none = Vec::new();
        let pending = poll_fn(|cx| Poll::Ready(tail.poll_records(cx, &mut none))).await;
        assert!(pending.is_pending(), "there is nothing to read at {i}");
        append_at(&mut log, P0, &i.to_le_bytes()).await;
        let record = read_until(&mut tail, 1).await.remove(0);
        assert_eq!((record.partition, record.offset), (P0, i));
        assert_eq!(record.bytes, i.to_le_bytes());
    }
}

/// # Promise
/// Whoever acts on a fate finds the record.
pub async fn a_record_is_readable_when_its_fate_is_told<L: Log>(subject: &impl Fn() -> L) {
    let mut log = subject();
    for i in 0..20_u64 {
        let at = append_at(&mut log, P1, &i.to_le_bytes()).await;
        assert_eq!(read_until(&mut log.tail(P1, at), 1).await[0].bytes, i.to_le_bytes());
    }
}

/// # Promise
/// Readers do not disturb each other.
pub async fn two_tails_of_one_partition_read_the_same<L: Log>(subject: &impl Fn() -> L) {
    let mut log = subject();
    let (mut first, mut second) = (log.tail(P1, 0), log.tail(P1, 0));
    for i in 0..50_u64 {
        append_at(&mut log, P1, &i.to_le_bytes()).await;
    }
    let one = read_until(&mut first, 50).await;
    let mut third = log.tail(P1, 0);
    assert_eq!(one, read_until(&mut second, 50).await);
    drop(first);
    assert_eq!(one, read_until(&mut third, 50).await);
    append_at(&mut log, P1, b"more").await;
    assert_eq!(read_until(&mut second, 1).await, read_until(&mut third, 1).await);
}

/// # Promise
/// Opening a tail costs no other tail anything, and one opened again begins where it is told.
pub async fn a_tail_may_be_dropped_and_opened_anywhere<L: Log>(subject: &impl Fn() -> L) {
    let mut log = subject();
    for i in 0..20_u64 {
        append_at(&mut log, P1, &i.to_le_bytes()).await;
    }
    for round in 0..3 {
        for from in [19, 0, 7] {
            let mut tail = log.tail(P1, from);
            if round == 1 {
                // One that was polled but never read to the end.
                let mut some = Vec::new();
                let _ = poll_fn(|cx| Poll::Ready(tail.poll_records(cx, &mut some))).await;
                continue;
            }
            let records = read_until(&mut tail, 20 - from as usize).await;
            assert_eq!(records[0].offset, from);
        }
        drop(log.tail(P1, 3));
    }
}

/// # Promise
/// A tail from the end reads nothing that was durable before, and is dense from its first on.
pub async fn a_tail_from_the_end_skips_history<L: Log>(subject: &impl Fn() -> L) {
    let mut log = subject();
    for i in 0..10_u64 {
        append_at(&mut log, P0, &i.to_le_bytes()).await;
    }
    let mut tail = log.tail_from_end(P0);
    // The leader's word may come after some of these; it does come.
    let mut records = Vec::new();
    let mut at = 9;
    let began = std::time::Instant::now();
    while records.is_empty() {
        at = append_at(&mut log, P0, b"live").await;
        let read = poll_fn(|cx| Poll::Ready(tail.poll_records(cx, &mut records))).await;
        if let Poll::Ready(read) = read {
            read.expect("a tail that is not torn");
        }
        assert!(began.elapsed() < PATIENCE, "the tail never gave a record");
        tokio::task::yield_now().await;
    }
    assert!(records[0].offset >= 10, "it gave the old record {}", records[0].offset);
    while records.last().is_some_and(|last| last.offset < at) {
        let read = in_time("a record", poll_fn(|cx| tail.poll_records(cx, &mut records))).await;
        read.expect("a tail that is not torn");
    }
    for pair in records.windows(2) {
        assert_eq!(pair[1].offset, pair[0].offset + 1, "offsets are dense");
    }
}

/// # Promise
/// An offset that the log has not reached is no place to wait at: the log was cut, or is
/// another one.
pub async fn a_tail_from_behind_the_end_is_torn<L: Log>(subject: &impl Fn() -> L) {
    let mut log = subject();
    append_at(&mut log, P1, b"only").await;
    let mut tail = log.tail(P1, 7);
    for _ in 0..2 {
        let mut none = Vec::new();
        let read = in_time("a tear", poll_fn(|cx| tail.poll_records(cx, &mut none))).await;
        assert_eq!(read, Err(crate::Torn::OutOfRange { partition: P1, from: 7 }));
        assert!(none.is_empty());
    }
}

/// # Promise
/// The end is behind every record whose fate was told before the question.
pub async fn the_end_is_behind_every_fate_told<L: Log>(subject: &impl Fn() -> L) {
    let mut log = subject();
    assert_eq!(in_time("the end", log.end(P1)).await, Ok(0));
    for i in 0..20_u64 {
        let at = append_at(&mut log, P1, b"frame").await;
        assert_eq!(at, i);
        assert_eq!(in_time("the end", log.end(P1)).await, Ok(i + 1));
    }
    assert_eq!(in_time("the end", log.end(P0)).await, Ok(0));
}

/// # Promise
/// Beyond [`IN_FLIGHT_MAX`] a handle refuses without losing anything, and takes again once
/// fates were fetched.
pub async fn a_full_queue_refuses_and_then_takes_again<L: Log>(subject: &impl Fn() -> L) {
    let mut log = subject();
    for slip in 0..IN_FLIGHT_MAX as u64 {
        log.append(P1, Slip(slip), b"frame").expect("room");
    }
    assert_eq!(log.append(P1, Slip(0), b"frame"), Err(Refused::Full));
    let mut fates = Vec::new();
    fates_until(&mut log, &mut fates, IN_FLIGHT_MAX).await;
    // Every slip came back once, so the refused one did not come back as well.
    let slips: HashSet<Slip> = fates.iter().map(|(slip, _)| *slip).collect();
    assert_eq!(slips.len(), IN_FLIGHT_MAX);
    let at = append_at(&mut log, P1, b"one more").await;
    assert_eq!(at, IN_FLIGHT_MAX as u64, "what was refused was not written");
}

/// # Promise
/// A frame that could never be written is refused at once.
pub async fn a_frame_too_long_is_refused<L: Log>(subject: &impl Fn() -> L) {
    let mut log = subject();
    let bytes = FRAME_BYTES_MAX + 1;
    let refused = log.append(P1, Slip(1), &vec![7; bytes]);
    assert_eq!(refused, Err(Refused::TooLarge { bytes }));
    assert_eq!(append_at(&mut log, P1, b"short").await, 0);
}

/// # Promise
/// A partition that does not exist refuses appends and tears tails, and harms no other.
pub async fn a_partition_that_does_not_exist_is_refused<L: Log>(subject: &impl Fn() -> L) {
    let mut log = subject();
    let none = Partition(PARTITIONS);
    assert_eq!(log.append(none, Slip(1), b"frame"), Err(Refused::NoPartition(none)));
    for mut tail in [log.tail(none, 0), log.tail_from_end(none)] {
        let mut records = Vec::new();
        let read = poll_fn(|cx| tail.poll_records(cx, &mut records));
        assert!(in_time("a tear", read).await.is_err());
    }
    assert!(in_time("the end", log.end(none)).await.is_err());
    assert_eq!(append_at(&mut log, P1, b"frame").await, 0);
    // No fate of the refused append came with it.
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut fates = Vec::new();
    assert!(pin!(poll_fn(|cx| log.poll_fates(cx, &mut fates))).poll(&mut cx).is_pending());
}
