//! The product's folds and the checker's, over the same records.
//!
//! The checker reads `docs/ledger-format.md`, the product wrote it; both must say the same of
//! every record that anyone could append, and be in the same state behind it.

use std::collections::{BTreeMap, BTreeSet};

use checker::share::{Said, State, Witness};
use inventory::entry::{Entry, Genesis, PoolEntry};
use inventory::fold::{Verdict, fold};
use inventory::pool::{Pool, PoolVerdict, ledger_id};
use inventory::state::{OrderState, ShareState};
use inventory::wire::{Chain, Header};
use inventory::words::{Digest128, Epoch, Incarnation, Millis, Offset, Seq};

use crate::dice::Dice;
use crate::say;

/// Records of one history at most: enough for a few orders' lives and a change of owners.
const RECORDS_MAX: u64 = 60;

/// What a record means, as far as both say it with one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Accepted,
    Void,
    Fault,
}

#[derive(Debug, Clone)]
struct Silent;

impl Witness for Silent {
    fn hear(&mut self, _: &Said<'_>) {}
}

/// One share, folded twice.
#[derive(Debug, Clone)]
pub struct Shares {
    product: ShareState,
    judge: checker::share::Share,
    at: u64,
    now: Millis,
}

impl Shares {
    /// A share of a small ledger, before its first record.
    ///
    /// # Panics
    /// If the two do not begin with the same.
    #[must_use]
    pub fn new() -> Self {
        let mut pools = Pools::new();
        pools.found();
        let founding = pools.judge.founding().expect("it was founded");
        let judge = checker::verify::start(founding).swap_remove(usize::from(say::HERE.0) - 1);
        let ledger = pools.product.ledger().expect("it was founded");
        let product = ShareState::new(ledger, say::HERE, &pools.product.initial(say::HERE));
        let shares = Self { product, judge, at: 0, now: Millis(1_000_000) };
        shares.agree();
        shares
    }

    /// A history by dice: each record is what an owner would write, or something damaged. What
    /// would freeze the share is mostly looked at and dropped, so that the history goes on. Tells
    /// what was to be seen on the way.
    pub fn live(&mut self, dice: &mut Dice<'_>) -> BTreeSet<&'static str> {
        let (mut former, mut seen) = (Vec::<Vec<u8>>::new(), BTreeSet::new());
        while !dice.are_out() && self.at < RECORDS_MAX {
            self.now = say::time(dice, self.now);
            let record = match dice.below(8) {
                0 if !former.is_empty() => dice.of(&former).clone(),
                1 => {
                    let mut record = self.record(dice);
                    say::damage(dice, &mut record);
                    record
                }
                _ => self.record(dice),
            };
            let mut next = self.clone();
            let word = next.fold(&record);
            if word != Word::Fault || dice.seldom(200) {
                *self = next;
                former.push(record);
                seen.extend(self.sights());
            }
        }
        seen
    }

    /// States of orders that are in it now, and what else became of it.
    fn sights(&self) -> BTreeSet<&'static str> {
        let mut words: BTreeSet<_> = self.picture().orders.into_values().collect();
        words.extend(self.product.frozen().map(|_| "frozen"));
        words.extend(self.product.accepted_take().map(|_| "accepted"));
        words.extend((self.product.writer().epoch() > Epoch(1)).then_some("taken over"));
        words.extend(self.product.yielded().map(|_| "yielded"));
        words
    }

    fn record(&self, dice: &mut Dice<'_>) -> Vec<u8> {
        let writer = self.product.writer();
        let header = writer.next_header(self.now).filter(|_| !dice.seldom(12));
        let Some(mut header) = header else {
            let header = writer.claim_header(Incarnation(dice.number()), self.now);
            return say::frame(&header, &[say::claim(dice)]).unwrap_or_default();
        };
        self.disguise(dice, &mut header);
        let entries: Vec<Entry> = (0..=dice.below(3)).map(|_| say::entry(dice, self.now)).collect();
        say::frame(&header, &entries).unwrap_or_default()
    }

    /// Seldom, a header that is not the next one's.
    fn disguise(&self, dice: &mut Dice<'_>, header: &mut Header) {
        match dice.byte() {
            1 => header.seq = Seq(header.seq.0.wrapping_add(1)),
            2 => header.seq = Seq(0),
            3 => header.epoch = Epoch(header.epoch.0.wrapping_add(1)),
            4 => header.incarnation = Incarnation(dice.number()),
            5 => header.previous = Chain::default(),
            6 => header.now = Millis(self.now.0.saturating_sub(10_000_000)),
            7 => header.ledger = Digest128::default(),
            8 => header.share.0 += 1,
            9 => header.seq = Seq(u32::MAX),
            10 => header.now = Millis(dice.number()),
            _ => {}
        }
    }

    /// Folds a record on both sides.
    fn fold(&mut self, record: &[u8]) -> Word {
        let before = self.clone();
        let product = fold(&mut self.product, Offset(self.at), record);
        let judge = self.judge.fold(self.at, record, &mut Silent);
        self.at += 1;
        let words = (word(&product), word_of_judge(&judge));
        assert_eq!(words.0, words.1, "product: {product:?}, checker: {judge:?}");
        self.agree();
        match words.0 {
            Word::Void => {
                assert_eq!(before.picture(), self.picture(), "what is void changes nothing");
            }
            Word::Fault => assert!(self.product.frozen().is_some(), "a fault freezes"),
            Word::Accepted => {}
        }
        words.0
    }

    fn agree(&self) {
        assert_eq!(self.picture(), self.picture_of_judge());
    }

    fn picture(&self) -> Picture {
        let share = &self.product;
        let stock = share.stock().iter().flat_map(|((run, class), stock)| {
            let seats = stock.seats().iter().zip(stock.free_legs());
            seats.map(move |(seat, free)| ((run.0, class.0, *seat), free.bits()))
        });
        // Behind a fault the rest of a frame is lost, and no state is promised.
        let frozen = share.frozen().is_some();
        Picture {
            frozen,
            epoch: share.writer().epoch().0,
            accepted: share.accepted_take().filter(|_| !frozen).map(|at| at.0),
            stock: stock.filter(|_| !frozen).collect(),
            orders: share
                .orders()
                .iter()
                .filter(|_| !frozen)
                .map(|(id, order)| ((id.home.0, id.epoch.0, id.number), state(&order.state)))
                .collect(),
        }
    }

    fn picture_of_judge(&self) -> Picture {
        let share = &self.judge;
        let frozen = share.frozen();
        let mut stock = BTreeMap::new();
        for (run, class, there) in share.stock().filter(|_| !frozen) {
            for (first, block) in &there.blocks {
                for seat in *first..block.end {
                    let touched = block.seats().map(|seats| seats[usize::from(seat - first)]);
                    stock.insert((run, class, seat), touched.unwrap_or_else(|| there.whole()));
                }
            }
        }
        Picture {
            frozen,
            epoch: share.epoch(),
            accepted: share.accepted().filter(|_| !frozen),
            stock,
            orders: share
                .orders()
                .filter(|_| !frozen)
                .map(|o| ((o.id.home, o.id.epoch, o.id.number), state_of_judge(o.state)))
                .collect(),
        }
    }
}

impl Default for Shares {
    fn default() -> Self {
        Self::new()
    }
}

/// What both must agree on.
#[derive(Debug, PartialEq, Eq)]
struct Picture {
    frozen: bool,
    epoch: u32,
    accepted: Option<u64>,
    stock: BTreeMap<(u16, u8, u16), u128>,
    orders: BTreeMap<(u16, u32, u32), &'static str>,
}

fn word(verdict: &Verdict) -> Word {
    match verdict {
        Verdict::Accepted => Word::Accepted,
        Verdict::Void(_) => Word::Void,
        Verdict::Fault(_) => Word::Fault,
    }
}

fn word_of_judge(verdict: &checker::share::Verdict) -> Word {
    match verdict {
        checker::share::Verdict::Accepted => Word::Accepted,
        checker::share::Verdict::Void(_) => Word::Void,
        checker::share::Verdict::Fault(_) => Word::Fault,
    }
}

fn state(state: &OrderState) -> &'static str {
    match state {
        OrderState::Seeking { .. } => "seeking",
        OrderState::Sent { .. } => "sent",
        OrderState::Placed { paid: false, .. } => "placed",
        OrderState::Placed { paid: true, .. } => "placed and paid",
        OrderState::Closed { .. } => "closed",
        OrderState::Held { .. } => "held",
        OrderState::Paid { .. } => "paid",
        OrderState::Ended { .. } => "ended",
    }
}

fn state_of_judge(state: State) -> &'static str {
    match state {
        State::Seeking => "seeking",
        State::Sent => "sent",
        State::Placed { paid: false } => "placed",
        State::Placed { paid: true } => "placed and paid",
        State::Closed => "closed",
        State::Held => "held",
        State::Paid => "paid",
        State::Ended(_) => "ended",
    }
}

/// Partition 0, folded twice.
#[derive(Debug, Clone)]
pub struct Pools {
    product: Pool,
    judge: checker::pool::Pool,
    at: u64,
}

impl Pools {
    /// Before the first record.
    #[must_use]
    pub fn new() -> Self {
        let judge = checker::pool::Pool::new(Some(say::LEDGER.to_owned()));
        Self { product: Pool::new(say::LEDGER), judge, at: 0 }
    }

    fn header() -> Header {
        say::pool_header(ledger_id(say::LEDGER, say::TOPIC))
    }

    fn found(&mut self) {
        let definition = say::definition(2);
        let genesis = Genesis { topic_id: say::TOPIC, definition };
        let entry = PoolEntry::Genesis(Box::new(genesis));
        let record = say::pool_frame(&Self::header(), &[entry]).expect("a small definition fits");
        assert_eq!(self.fold(&record), Word::Accepted);
    }

    /// A history by dice, as for a share.
    pub fn live(&mut self, dice: &mut Dice<'_>) {
        let mut former: Vec<Vec<u8>> = Vec::new();
        while !dice.are_out() && self.at < RECORDS_MAX {
            if self.at == 0 && !dice.seldom(8) {
                self.found();
                continue;
            }
            let record = match dice.below(8) {
                0 if !former.is_empty() => dice.of(&former).clone(),
                1 => {
                    let mut record = self.record(dice);
                    say::damage(dice, &mut record);
                    record
                }
                _ => self.record(dice),
            };
            let mut next = self.clone();
            let word = next.fold(&record);
            if word != Word::Fault || dice.seldom(200) {
                *self = next;
                former.push(record);
            }
        }
    }

    fn record(&self, dice: &mut Dice<'_>) -> Vec<u8> {
        let pool = &self.product;
        let versions = [pool.definition_version(), pool.assign().version, pool.policy_version()];
        let mut header = Self::header();
        match dice.byte() {
            1 => header.ledger = Digest128::default(),
            2 => header.share.0 = 1,
            3 => header.now = Millis(dice.number()),
            _ => {}
        }
        let entries: Vec<PoolEntry> =
            (0..=dice.below(3)).map(|_| say::pool_entry(dice, versions)).collect();
        say::pool_frame(&header, &entries).unwrap_or_default()
    }

    /// Folds a record on both sides.
    fn fold(&mut self, record: &[u8]) -> Word {
        let product = self.product.fold(Offset(self.at), record);
        let judge = self.judge.fold(self.at, record);
        self.at += 1;
        let words = (
            match &product {
                PoolVerdict::Accepted(_) => Word::Accepted,
                PoolVerdict::Void(_) => Word::Void,
                PoolVerdict::Fault(_) => Word::Fault,
            },
            match &judge {
                checker::pool::Verdict::Accepted { .. } => Word::Accepted,
                // A frozen pool says fault here and void there; what it means is the same.
                checker::pool::Verdict::Void(checker::pool::Void::Frozen) => Word::Fault,
                checker::pool::Verdict::Void(_) => Word::Void,
                checker::pool::Verdict::Fault(_) => Word::Fault,
            },
        );
        assert_eq!(words.0, words.1, "product: {product:?}, checker: {judge:?}");
        assert_eq!(self.product.frozen().is_some(), self.judge.frozen());
        self.agree();
        words.0
    }

    fn agree(&self) {
        let Some(founding) = self.judge.founding() else {
            assert!(self.product.definition().is_none(), "the checker has no Genesis");
            return;
        };
        assert_eq!(self.product.definition_version(), founding.version);
        assert_eq!(self.product.ledger().map(|l| l.0), Some(founding.ledger));
        assert_eq!(self.product.policy_version(), founding.policies.len() as u64);
        for share in self.product.shares() {
            let takes = self.product.takes_after(share, None).map(|(at, blocks)| {
                (at.0, blocks.iter().map(|b| (b.id.run.0, b.id.index)).collect::<Vec<_>>())
            });
            let gifts = founding.gifts.get(&share.0).into_iter().flatten();
            let gifts = gifts.map(|gift| (gift.take, gift.blocks.clone()));
            assert_eq!(takes.collect::<Vec<_>>(), gifts.collect::<Vec<_>>());
        }
    }
}

impl Default for Pools {
    fn default() -> Self {
        Self::new()
    }
}
