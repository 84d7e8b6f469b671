//! Settling: what readers outside the fleet are told of orders, each change once.
//!
//! A settler folds the shares that it is given, each from its first record on, and tells what
//! changed behind the place up to which others were told before. Told and place are written
//! together (by the executor, in one transaction): a settler that is lost in between is as if it
//! had never read. A record that does not count tells nothing. A record that cannot be applied
//! ends its share's telling in front of it, since a later version may read more in it.
//!
//! All changes of an order come from the share where it lives, in the order of that share's
//! partition. What its home says of it meanwhile (`Sent`, `Placed`, `Closed`) is how shares find
//! each other, not what became of it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use crate::entry::{End, Entry};
use crate::fold::{Verdict, fold_with};
use crate::owner::OrderView;
use crate::state::{OrderState, ShareState};
use crate::stock::Block;
use crate::words::{Digest128, Millis, Offset, ShareId};

/// What happened to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It has seats, until it is paid or its deadline has passed.
    Held,
    /// It is paid.
    Paid,
    /// It is over; its seats are free.
    Ended(End),
    /// A payment that came late, or twice, goes back. The order is as it was.
    PaymentReturned,
}

impl What {
    /// Its name, of words with `-`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Paid => "paid",
            Self::Ended(why) => why.into(),
            Self::PaymentReturned => "payment-returned",
        }
    }
}

/// Where the ledger says something: it names a change for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The share, which is the partition.
    pub share: ShareId,
    /// The record.
    pub offset: Offset,
    /// Which entry of it, from 0 on.
    pub entry: usize,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.share, self.offset.0, self.entry)
    }
}

/// A change, and the order behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which one.
    pub version: Version,
    /// What it is.
    pub what: What,
    /// When its owner wrote it.
    pub at: Millis,
    /// The order as it was then.
    pub view: OrderView,
}

/// Why a share's telling went no further. The others go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// A record was skipped: what was folded is not the ledger.
    #[error("share {share}: expected record {expected}, got {got}")]
    Gap {
        /// The share.
        share: ShareId,
        /// The record that should have come.
        expected: Offset,
        /// The one that came.
        got: Offset,
    },
    /// A record cannot be applied.
    #[error("share {share}: record {at}: {why}", at = .at.0)]
    Frozen {
        /// The share.
        share: ShareId,
        /// The record.
        at: Offset,
        /// Why.
        why: String,
    },
}

#[derive(Debug)]
struct Followed {
    state: ShareState,
    /// Records before this one were told of before.
    from: Offset,
    /// Records before this one are written to the topic, or have nothing to tell. None until
    /// that was said by this settler: a share that nothing is said of looks forgotten.
    written: Option<Offset>,
    /// Records before this one were read.
    read: Offset,
    /// What they have to tell and is not written yet.
    untold: VecDeque<Change>,
    halted: bool,
}

/// What is to be written together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The changes, those of a share in their order.
    pub changes: Vec<Change>,
    /// Behind what record of each share it ends.
    pub places: Vec<(ShareId, Offset)>,
}

/// The shares that one settle node tells of.
#[derive(Debug, Default)]
pub struct Settler {
    shares: BTreeMap<ShareId, Followed>,
}

impl Settler {
    /// Begins with a share: `initial` is the stock that Genesis gave it, and `from` is the first
    /// record that nobody was told of. Its records are to be handed in from the first one on.
    pub fn give(&mut self, ledger: Digest128, share: ShareId, initial: &[Block], from: Offset) {
        let state = ShareState::new(ledger, share, initial);
        let (written, read) = (None, Offset(0));
        let followed =
            Followed { state, from, written, read, untold: VecDeque::new(), halted: false };
        self.shares.insert(share, followed);
    }

    /// Another settles the share from now on: what is not written yet is theirs to tell.
    pub fn take(&mut self, share: ShareId) {
        self.shares.remove(&share);
    }

    /// The next record of a share. Those of shares that were not given, or are halted, are passed
    /// over.
    ///
    /// # Errors
    /// [`Halt`], once.
    pub fn read(&mut self, share: ShareId, at: Offset, record: &[u8]) -> Result<(), Halt> {
        let Some(followed) = self.shares.get_mut(&share).filter(|f| !f.halted) else {
            return Ok(());
        };
        // Clients show a record again now and then, when their group changes.
        if at < followed.read {
            return Ok(());
        }
        if at > followed.read {
            followed.halted = true;
            return Err(Halt::Gap { share, expected: followed.read, got: at });
        }
        let told = followed.untold.len();
        let untold = &mut followed.untold;
        let tell = at >= followed.from;
        let verdict = fold_with(&mut followed.state, at, record, |entry, what, state| {
            if tell {
                let version = Version { share, offset: at, entry };
                untold.extend(change(version, what, state));
            }
        });
        if let Verdict::Fault(fault) = verdict {
            followed.untold.truncate(told);
            followed.halted = true;
            return Err(Halt::Frozen { share, at, why: fault.to_string() });
        }
        followed.read = Offset(at.0 + 1);
        Ok(())
    }

    /// How many changes wait to be written.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shares.values().map(|f| f.untold.len()).sum()
    }

    /// How many shares were given.
    #[must_use]
    pub fn shares(&self) -> usize {
        self.shares.len()
    }

    /// The shares that are not halted, with the next record of each to be read.
    pub fn following(&self) -> impl Iterator<Item = (ShareId, Offset)> + '_ {
        let going = self.shares.iter().filter(|(_, followed)| !followed.halted);
        going.map(|(share, followed)| (*share, followed.read))
    }

    /// What may be written now: about `most` changes, records whole. What is written may be
    /// nothing but places. None if nothing was read since the last one.
    #[must_use]
    pub fn batch(&self, most: usize) -> Option<Batch> {
        let mut batch = Batch::default();
        for (share, followed) in &self.shares {
            let room = most.saturating_sub(batch.changes.len());
            let place = match followed.untold.get(room) {
                None => followed.read,
                // The record that does not fit whole waits, unless it would for ever.
                Some(next) if room > 0 && batch.changes.is_empty() => {
                    Offset(next.version.offset.0 + 1)
                }
                Some(next) => next.version.offset,
            };
            let place = place.max(followed.written.unwrap_or(followed.from));
            if followed.written == Some(place) {
                continue;
            }
            let fits = followed.untold.iter().take_while(|c| c.version.offset < place);
            batch.changes.extend(fits.cloned());
            batch.places.push((*share, place));
        }
        (!batch.places.is_empty()).then_some(batch)
    }

    /// A batch was written.
    pub fn written(&mut self, places: &[(ShareId, Offset)]) {
        for (share, place) in places {
            let Some(followed) = self.shares.get_mut(share) else { continue };
            followed.written = Some(*place);
            let keep = followed.untold.iter().position(|c| c.version.offset >= *place);
            followed.untold.drain(..keep.unwrap_or(followed.untold.len()));
        }
    }
}

/// What an entry that was just applied did to an order that lives here.
fn change(version: Version, entry: &Entry, state: &ShareState) -> Option<Change> {
    let (id, what) = match entry {
        Entry::Held(held) => (held.order, What::Held),
        Entry::Paid { order, .. } => (*order, What::Paid),
        Entry::Ended { order, why } => (*order, What::Ended(*why)),
        Entry::Refunded { order, .. } => (*order, What::PaymentReturned),
        Entry::Claim { .. }
        | Entry::Accept { .. }
        | Entry::Sent(_)
        | Entry::Placed { .. }
        | Entry::Returned { .. }
        | Entry::Closed { .. }
        | Entry::Refused { .. }
        | Entry::Yield { .. } => return None,
    };
    let order = state.order(id)?;
    // A home may write that it passed a payment on.
    if what == What::Paid && !matches!(order.state, OrderState::Paid { .. }) {
        return None;
    }
    let mut view = OrderView::of(id, order);
    view.position = Some((version.share, version.offset));
    Some(Change { version, what, at: state.writer().now(), view })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::allocate::Seats;
    use crate::entry::{Held, OrderRequest};
    use crate::legs::Journey;
    use crate::owner::Status;
    use crate::stock::BlockId;
    use crate::wire::{Draft, FRAME_BYTES_MAX};
    use crate::words::{Attempt, ClassId, Epoch, Incarnation, OrderId, RunId};

    const LEDGER: Digest128 = Digest128([7; 16]);
    const SHARE: ShareId = ShareId(3);

    /// A partition as its one owner writes it.
    struct Log {
        state: ShareState,
        records: Vec<Vec<u8>>,
    }

    fn stock() -> Vec<Block> {
        let id = BlockId { run: RunId(0), index: 0 };
        vec![Block { id, class: ClassId(0), seats: 0..10, row: 5, stops: 4 }]
    }

    fn id(number: u32) -> OrderId {
        OrderId { home: SHARE, epoch: Epoch(1), number }
    }

    fn request(number: u32) -> OrderRequest {
        let hash = |tag: u8| {
            let mut bytes = [tag; 16];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            Digest128(bytes)
        };
        OrderRequest {
            key: hash(1),
            body: hash(2),
            buyer: hash(3),
            run: RunId(0),
            class: ClassId(0),
            journey: Journey::new(0, 2).unwrap(),
            prefer: None,
            passengers: [hash(4)].into_iter().collect(),
            price: 100,
        }
    }

    fn held(number: u32, seat: u16) -> Entry {
        Entry::Held(Held {
            order: id(number),
            attempt: Attempt(0),
            request: request(number),
            seats: Seats::from_iter([seat]),
            deadline: Millis(50),
        })
    }

    impl Log {
        fn claimed() -> Self {
            let mut log =
                Self { state: ShareState::new(LEDGER, SHARE, &stock()), records: Vec::new() };
            let header = log.state.writer().claim_header(Incarnation(1), Millis(10));
            let (node, address) = ("n".parse().unwrap(), "n:1".parse().unwrap());
            log.put(&header, &[Entry::Claim { node, address }]);
            log
        }

        fn put(&mut self, header: &crate::wire::Header, entries: &[Entry]) {
            let mut draft = Draft::new(FRAME_BYTES_MAX);
            for entry in entries {
                draft.push(entry).unwrap();
            }
            let record = draft.seal(header).0;
            let at = Offset(self.records.len() as u64);
            fold_with(&mut self.state, at, &record, |_, _, _| ());
            self.records.push(record);
        }

        fn write(&mut self, entries: &[Entry]) {
            let header = self.state.writer().next_header(Millis(20)).unwrap();
            self.put(&header, entries);
        }

        /// Two orders: one paid and given back, one that nobody pays; and a payment too late.
        fn of_two_orders() -> Self {
            let mut log = Self::claimed();
            log.write(&[held(1, 0), held(2, 1)]);
            let payment = |order| Entry::Paid { order: id(order), payment: LEDGER, amount: 100 };
            log.write(&[payment(1)]);
            // Of nobody's: void.
            log.records.push(b"noise".to_vec());
            log.state.passed(Offset(3));
            let ended = |order, why| Entry::Ended { order: id(order), why };
            log.write(&[ended(1, End::Refunded), ended(2, End::Expired)]);
            log.write(&[Entry::Refunded { order: id(2), payment: LEDGER, amount: 100 }]);
            log
        }

        fn read(&self, settler: &mut Settler, records: std::ops::Range<usize>) {
            for at in records {
                settler.read(SHARE, Offset(at as u64), &self.records[at]).unwrap();
            }
        }
    }

    fn told(changes: &[Change]) -> Vec<(String, &'static str, u32)> {
        let one = |c: &Change| (c.version.to_string(), c.what.name(), c.view.order.number);
        changes.iter().map(one).collect()
    }

    #[test]
    fn each_change_is_told_with_its_place_and_the_order_as_it_was_then() {
        let log = Log::of_two_orders();
        let mut settler = Settler::default();
        settler.give(LEDGER, SHARE, &stock(), Offset(0));
        log.read(&mut settler, 0..log.records.len());
        let batch = settler.batch(100).unwrap();
        assert_eq!(
            told(&batch.changes),
            [
                ("3-1-0".to_owned(), "held", 1),
                ("3-1-1".to_owned(), "held", 2),
                ("3-2-0".to_owned(), "paid", 1),
                ("3-4-0".to_owned(), "refunded", 1),
                ("3-4-1".to_owned(), "expired", 2),
                ("3-5-0".to_owned(), "payment-returned", 2),
            ]
        );
        assert_eq!(batch.places, [(SHARE, Offset(6))]);
        let states: Vec<Status> = batch.changes.iter().map(|c| c.view.status).collect();
        assert_eq!(states[0], Status::Held(Millis(50)));
        assert_eq!(states[3..5], [Status::Ended(End::Refunded), Status::Ended(End::Expired)]);
        assert_eq!(batch.changes[0].at, Millis(20));
        settler.written(&batch.places);
        assert_eq!(settler.batch(100), None, "nothing is told again");
    }

    #[test]
    fn a_record_that_cannot_be_applied_tells_nothing_and_ends_the_telling() {
        let mut log = Log::claimed();
        log.write(&[held(1, 0)]);
        // The second one wants the first one's seat.
        log.write(&[held(2, 1), held(3, 0)]);
        let mut settler = Settler::default();
        settler.give(LEDGER, SHARE, &stock(), Offset(0));
        log.read(&mut settler, 0..2);
        let halt = settler.read(SHARE, Offset(2), &log.records[2]).unwrap_err();
        assert!(matches!(halt, Halt::Frozen { at: Offset(2), .. }), "{halt}");
        assert_eq!(settler.read(SHARE, Offset(3), b""), Ok(()), "said once");
        let batch = settler.batch(100).unwrap();
        assert_eq!(told(&batch.changes), [("3-1-0".to_owned(), "held", 1)]);
        assert_eq!(batch.places, [(SHARE, Offset(2))], "a later version reads it again");
    }

    #[test]
    fn a_skipped_record_is_noticed_and_a_repeated_one_passed_over() {
        let log = Log::of_two_orders();
        let mut settler = Settler::default();
        settler.give(LEDGER, SHARE, &stock(), Offset(0));
        log.read(&mut settler, 0..1);
        log.read(&mut settler, 0..1);
        let halt = settler.read(SHARE, Offset(2), &log.records[2]).unwrap_err();
        assert_eq!(halt, Halt::Gap { share: SHARE, expected: Offset(1), got: Offset(2) });
    }

    proptest! {
        /// Settlers come and go at any time, with small batches and lost transactions: what is
        /// committed is what one settler would have told in one go.
        #[test]
        fn whoever_settles_tells_each_change_once(
            steps in prop::collection::vec((0usize..4, 1usize..5, any::<bool>()), 1..60)
        ) {
            let log = Log::of_two_orders();
            let (mut topic, mut place) = (Vec::new(), Offset(0));
            let (mut settler, mut read) = (Settler::default(), 0);
            settler.give(LEDGER, SHARE, &stock(), place);
            let rest = (0..40).map(|_| (1, 1, true));
            for (step, size, commits) in steps.into_iter().chain(rest) {
                if step == 0 {
                    settler.take(SHARE);
                    settler.give(LEDGER, SHARE, &stock(), place);
                    read = 0;
                }
                let end = log.records.len().min(read + size);
                log.read(&mut settler, read..end);
                read = end;
                let Some(batch) = settler.batch(size).filter(|_| commits) else { continue };
                topic.extend(batch.changes.clone());
                place = batch.places[0].1;
                settler.written(&batch.places);
            }
            let mut whole = Settler::default();
            whole.give(LEDGER, SHARE, &stock(), Offset(0));
            log.read(&mut whole, 0..log.records.len());
            prop_assert_eq!(topic, whole.batch(100).unwrap().changes);
        }
    }
}
