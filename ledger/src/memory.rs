//! Partitions in the memory of this process: the board of local mode, and tests.
//!
//! An append is written when the call returns, and is lost with the process. With a bound on
//! the records of a partition the oldest go first, as a topic's retention would have it.

use std::{
    collections::VecDeque,
    num::{NonZeroU16, NonZeroUsize},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::{
    FRAME_BYTES_MAX, Fate, IN_FLIGHT_MAX, Log, Partition, Record, Refused, Slip, Tail, Torn,
    waiting::{Seat, Waiting},
};

#[expect(
    clippy::disallowed_types,
    reason = "not on an order's path; held for a push or a bounded copy, never over a wait, and \
              without a thread of its own this log is as deterministic as its callers"
)]
type Lock<T> = std::sync::Mutex<T>;

// A reader that is far behind gives way after this many records to what else runs on its core.
const RECORDS_PER_POLL_MAX: usize = 256;

/// A log in memory. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryLedger {
    partitions: Arc<[Lock<State>]>,
    retain: Option<NonZeroUsize>,
}

#[derive(Debug, Default)]
struct State {
    /// The offset of the oldest record that is kept.
    first: u64,
    records: VecDeque<Box<[u8]>>,
    waiting: Waiting,
}

impl State {
    fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }
}

impl MemoryLedger {
    /// An empty log that keeps everything.
    #[must_use]
    pub fn new(partitions: NonZeroU16) -> MemoryLedger {
        MemoryLedger::with(partitions, None)
    }

    /// An empty log that keeps the newest `retain` records of each partition.
    #[must_use]
    pub fn retaining(partitions: NonZeroU16, retain: NonZeroUsize) -> MemoryLedger {
        MemoryLedger::with(partitions, Some(retain))
    }

    fn with(partitions: NonZeroU16, retain: Option<NonZeroUsize>) -> MemoryLedger {
        let partitions = (0..partitions.get()).map(|_| Lock::default()).collect();
        MemoryLedger { partitions, retain }
    }

    /// A handle of its own fates on this log.
    #[must_use]
    pub fn handle(&self) -> MemoryLog {
        MemoryLog { ledger: self.clone(), fates: VecDeque::new(), task: None }
    }

    fn locked<R>(&self, of: Partition, work: impl FnOnce(&mut State) -> R) -> Option<R> {
        let lock = self.partitions.get(usize::from(of.0))?;
        // A panic under the lock would be one of push or clone, which leave the state whole.
        let mut state = lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Some(work(&mut state))
    }

    fn open(&self, of: Partition, from: impl FnOnce(&State) -> u64) -> MemoryTail {
        let place = self.locked(of, |state| (from(state), state.waiting.enter()));
        let (next, seat) = place.map_or((0, None), |(next, seat)| (next, Some(seat)));
        MemoryTail { ledger: self.clone(), of, next, seat, torn: None }
    }
}

/// A handle on a log in memory.
#[derive(Debug)]
pub struct MemoryLog {
    ledger: MemoryLedger,
    /// Fates that the caller has not fetched yet; at most [`IN_FLIGHT_MAX`].
    fates: VecDeque<(Slip, Fate)>,
    task: Option<Waker>,
}

impl Log for MemoryLog {
    type Tail = MemoryTail;

    fn append(&mut self, to: Partition, slip: Slip, frame: &[u8]) -> Result<(), Refused> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(Refused::TooLarge { bytes: frame.len() });
        }
        if self.fates.len() >= IN_FLIGHT_MAX {
            return Err(Refused::Full);
        }
        let retain = self.ledger.retain;
        let at = self.ledger.locked(to, |state| {
            let at = state.end();
            state.records.push_back(frame.into());
            if retain.is_some_and(|retain| state.records.len() > retain.get()) {
                state.records.pop_front();
                state.first += 1;
            }
            state.waiting.wake_all();
            at
        });
        let at = at.ok_or(Refused::NoPartition(to))?;
        self.fates.push_back((slip, Fate::At(at)));
        if let Some(task) = self.task.take() {
            task.wake();
        }
        Ok(())
    }

    fn poll_fates(&mut self, cx: &mut Context<'_>, out: &mut Vec<(Slip, Fate)>) -> Poll<()> {
        if self.fates.is_empty() {
            self.task = Some(cx.waker().clone());
            return Poll::Pending;
        }
        out.extend(self.fates.drain(..));
        Poll::Ready(())
    }

    fn tail(&self, of: Partition, from: u64) -> MemoryTail {
        self.ledger.open(of, |_| from)
    }

    fn tail_from_end(&self, of: Partition) -> MemoryTail {
        self.ledger.open(of, State::end)
    }

    fn end(
        &self,
        of: Partition,
    ) -> impl Future<Output = Result<u64, Torn>> + Send + 'static + use<> {
        let end = self.ledger.locked(of, |state| state.end());
        std::future::ready(end.ok_or_else(|| no_partition(of)))
    }
}

fn no_partition(of: Partition) -> Torn {
    Torn::Failed(Refused::NoPartition(of).to_string())
}

/// A reader of a log in memory.
#[derive(Debug)]
pub struct MemoryTail {
    ledger: MemoryLedger,
    of: Partition,
    next: u64,
    /// None if the partition does not exist.
    seat: Option<Seat>,
    torn: Option<Torn>,
}

impl Tail for MemoryTail {
    fn poll_records(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<Record>,
    ) -> Poll<Result<(), Torn>> {
        if let Some(torn) = &self.torn {
            return Poll::Ready(Err(torn.clone()));
        }
        let (of, from) = (self.of, self.next);
        let Some(seat) = self.seat else {
            return Poll::Ready(Err(no_partition(of)));
        };
        let read = self.ledger.locked(of, |state| {
            if from < state.first || from > state.end() {
                return Err(Torn::OutOfRange { partition: of, from });
            }
            let skip = usize::try_from(from - state.first).unwrap_or(usize::MAX);
            let found = state.records.iter().skip(skip).take(RECORDS_PER_POLL_MAX);
            let before = out.len();
            out.extend((from..).zip(found).map(|(offset, bytes)| Record {
                partition: of,
                offset,
                bytes: bytes.to_vec(),
            }));
            if out.len() == before {
                state.waiting.wait(seat, cx);
            }
            Ok(out.len() - before)
        });
        match read {
            Some(Ok(0)) => Poll::Pending,
            Some(Ok(moved)) => {
                self.next += moved as u64;
                Poll::Ready(Ok(()))
            }
            Some(Err(torn)) => {
                self.torn = Some(torn.clone());
                Poll::Ready(Err(torn))
            }
            None => Poll::Ready(Err(no_partition(of))),
        }
    }
}

impl Drop for MemoryTail {
    fn drop(&mut self) {
        if let Some(seat) = self.seat {
            self.ledger.locked(self.of, |state| state.waiting.leave(seat));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::contract::PARTITIONS;

    crate::ledger_contract! {{
        let ledger = MemoryLedger::new(NonZeroU16::new(PARTITIONS).expect("some"));
        move || ledger.handle()
    }}

    #[tokio::test]
    async fn a_reader_behind_the_retained_records_is_torn() {
        let one = NonZeroU16::MIN;
        let ledger = MemoryLedger::retaining(one, NonZeroUsize::new(3).expect("some"));
        let mut log = ledger.handle();
        let (mut slow, mut quick) = (log.tail(Partition(0), 0), log.tail(Partition(0), 2));
        for i in 0..5_u8 {
            log.append(Partition(0), Slip(0), &[i]).expect("room");
        }
        let mut records = Vec::new();
        let torn = poll_fn(|cx| slow.poll_records(cx, &mut records)).await;
        assert_eq!(torn, Err(Torn::OutOfRange { partition: Partition(0), from: 0 }));
        poll_fn(|cx| quick.poll_records(cx, &mut records)).await.expect("kept records");
        let kept: Vec<_> = records.iter().map(|r| (r.offset, r.bytes[0])).collect();
        assert_eq!(kept, [(2, 2), (3, 3), (4, 4)]);
    }

    #[tokio::test]
    async fn handles_of_other_threads_wake_a_tail() {
        let ledger = MemoryLedger::new(NonZeroU16::MIN);
        let mut tail = ledger.handle().tail_from_end(Partition(0));
        let mut log = ledger.handle();
        let writer = std::thread::spawn(move || log.append(Partition(0), Slip(0), b"beat"));
        let mut records = Vec::new();
        poll_fn(|cx| tail.poll_records(cx, &mut records)).await.expect("a beat");
        assert_eq!(records[0].bytes, b"beat");
        writer.join().expect("no panic").expect("room");
    }
}
