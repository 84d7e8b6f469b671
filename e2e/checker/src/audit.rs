//! What the folds do not check: hears every entry that counts, and compares it with the
//! definition, the pool, and what was said before.

use std::collections::BTreeMap;

use foldhash::{HashMap, HashSet};

use crate::answers::Told;
use crate::book::Book;
use crate::entry::{Block, Entry, Request};
use crate::pool::Founding;
use crate::report::{Findings, Promise};
use crate::share::{Said, Witness};
use crate::soldout::History;
use crate::source::Appended;
use crate::told::Watched;
use crate::travel::Travels;
use crate::words::{OrderId, Place, Why};

/// A frame's time is fixed when its first entry is said, and the frame may then wait for the ones
/// in flight: 30 seconds at most, after which their writer gives up, and two to notice.
const EXPIRY_EARLY_MS: u64 = 32_000;
/// Numbers of one epoch are dense, so they are remembered as bits, this many to a word.
const BITS: u32 = 64;

/// A block that entered a share by an Accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entered {
    /// Index of the run.
    pub run: u16,
    /// Place among the run's blocks.
    pub index: u16,
    /// The Accept.
    pub at: Place,
}

/// The witness of a whole ledger.
#[derive(Debug)]
pub struct Audit<'a> {
    founding: &'a Founding,
    settled: Vec<u64>,
    // Before any policy is in force nothing is sold; the least grace of all is the earliest end.
    grace_ms: u64,
    claims: HashMap<u16, u32>,
    claimed: HashSet<(u16, u32)>,
    gifts_seen: HashMap<u16, usize>,
    numbers: HashMap<(u16, u32), BTreeMap<u32, u64>>,
    /// How many entries counted, by name.
    pub said: BTreeMap<&'static str, u64>,
    /// Blocks that entered shares by Accepts.
    pub entered: Vec<Entered>,
    /// Live orders.
    pub book: Book,
    /// Orders that travel.
    pub travels: Travels,
    /// Orders that buyers heard of.
    pub watched: Watched,
    /// The past of seats that somebody was told are sold out.
    pub history: History,
    /// How late each hold that lapsed was ended, behind deadline and grace, in milliseconds by its
    /// writer's clock.
    pub late_ms: Vec<u32>,
    /// When the record that is being heard was appended.
    pub appended: Appended,
    /// What is broken.
    pub findings: Findings,
}

impl<'a> Audit<'a> {
    /// Starts before the first record of a share. `settled` is by partition.
    #[must_use]
    pub fn new(founding: &'a Founding, settled: Vec<u64>, told: &[Told]) -> Self {
        let grace_ms = founding.policies.iter().map(|p| u64::from(p.grace_ms)).min();
        Self {
            founding,
            settled,
            grace_ms: grace_ms.unwrap_or(0),
            claims: HashMap::default(),
            claimed: HashSet::default(),
            gifts_seen: HashMap::default(),
            numbers: HashMap::default(),
            said: BTreeMap::new(),
            entered: Vec::new(),
            book: Book::default(),
            travels: Travels::default(),
            watched: Watched::new(told),
            history: History::default(),
            late_ms: Vec::new(),
            appended: None,
            findings: Findings::default(),
        }
    }

    /// How many claims were accepted.
    #[must_use]
    pub fn claims(&self) -> usize {
        self.claimed.len()
    }

    fn claim(&mut self, said: &Said<'_>, at: Place) {
        let epoch = said.header.epoch;
        let last = self.claims.insert(said.share, epoch).unwrap_or(0);
        if !self.claimed.insert((said.share, epoch)) || last.checked_add(1) != Some(epoch) {
            self.findings.add(Promise::Epoch, &[at], || {
                format!("epoch {epoch} of share {} does not follow {last}", said.share)
            });
        }
    }

    fn accept(&mut self, at: Place, now: u64, take: u64, blocks: &[Block]) {
        let share = at.partition;
        let enters = |block: &Block| Entered { run: block.run, index: block.index, at };
        for entered in blocks.iter().map(enters) {
            self.history.entered(&entered, now);
            self.entered.push(entered);
        }
        let gifts = self.founding.gifts.get(&share).map_or(&[][..], Vec::as_slice);
        let seen = self.gifts_seen.entry(share).or_default();
        let from = Place { partition: 0, offset: take };
        let mut broken = |says: &str| {
            self.findings.add(Promise::Stock, &[at, from], || says.to_owned());
        };
        let Some(ahead) = gifts[*seen..].iter().position(|gift| gift.take == take) else {
            return broken("Accept of a Take that gave this share nothing new");
        };
        if ahead > 0 {
            broken("Accept leaves out an earlier Take");
        }
        let gift = &gifts[*seen + ahead];
        *seen += ahead + 1;
        let due: Vec<_> =
            gift.blocks.iter().map(|(run, index)| block(self.founding, *run, *index)).collect();
        if due.len() != blocks.len() || !due.iter().zip(blocks).all(|(d, b)| *d == Some(*b)) {
            broken("Accept does not repeat what its Take gave");
        }
    }

    /// An order as it was asked for: at its home, and wherever it holds seats.
    fn request(&mut self, at: Place, order: OrderId, request: &Request) {
        let founding = self.founding;
        let Some((run, table)) = founding.definition.run(request.run) else {
            return self.journey(at, order, "its run is not in the definition");
        };
        if usize::from(request.class) >= table.classes.len() || request.to > table.legs() {
            return self.journey(at, order, "its run has no such class or stop");
        }
        if founding.definition.home_of(request.run, &request.buyer) != Some(order.home) {
            self.journey(at, order, "its home is not that of its buyer and run");
        }
        let fares = founding.fares.get(&(run.timetable, request.class));
        let party = u128::from(request.party);
        let due = |price: u128| price * party == u128::from(request.price);
        let mut prices = fares.into_iter().flatten().map(|f| f.price(request.from, request.to));
        if !prices.any(|price| price.is_some_and(due)) {
            self.findings.add(Promise::Price, &[at], || {
                format!("order {order}: {} is no fare for {party}", request.price)
            });
        }
    }

    fn journey(&mut self, at: Place, order: OrderId, says: &str) {
        self.findings.add(Promise::Journey, &[at], || format!("order {order}: {says}"));
    }

    /// The first time that a home says an order's id.
    fn id(&mut self, said: &Said<'_>, at: Place, order: OrderId) {
        let mut broken = |says: &str| {
            self.findings.add(Promise::OrderId, &[at], || format!("order {order}: {says}"));
        };
        if order.epoch != said.header.epoch {
            broken("its epoch is not the one that made it");
        }
        if order.number == 0 {
            broken("numbers begin at 1");
        }
        let words = self.numbers.entry((order.home, order.epoch)).or_default();
        let word = words.entry(order.number / BITS).or_default();
        let bit = 1 << (order.number % BITS);
        if *word & bit != 0 {
            broken("its id was made before");
        }
        *word |= bit;
    }

    fn ended(&mut self, said: &Said<'_>, at: Place, why: Why) {
        let Some(live) = self.book.hear(said) else { return };
        // A frame's time is that of its first entry, and it may have waited for the one before it:
        // nobody else could know that the seats are free before the log had it.
        let known = self.appended.unwrap_or(0).max(said.header.now);
        self.history.changed(&live, known, true);
        let due = live.deadline.saturating_add(self.grace_ms);
        if why == Why::Expired && said.header.now.saturating_add(EXPIRY_EARLY_MS) < due {
            self.findings.add(Promise::Expiry, &[live.held, at], || {
                format!("order {} expired {} ms early", live.id, due - said.header.now)
            });
        }
        if why == Why::Expired {
            let late = said.header.now.saturating_sub(due);
            self.late_ms.push(u32::try_from(late).unwrap_or(u32::MAX));
        }
    }
}

impl Witness for Audit<'_> {
    fn hear(&mut self, said: &Said<'_>) {
        if !said.applied {
            self.book.hear(said);
            return;
        }
        let at = Place { partition: said.share, offset: said.offset };
        *self.said.entry(name(said.entry)).or_default() += 1;
        self.watched.hear(said);
        let settled = self.settled.get(usize::from(said.share)).is_none_or(|s| said.offset < *s);
        self.travels.hear(said, settled);
        match said.entry {
            Entry::Claim { .. } => self.claim(said, at),
            Entry::Accept { take, blocks } => self.accept(at, said.header.now, *take, blocks),
            Entry::Held { order, request, .. } | Entry::Sent { order, request, .. } => {
                if said.fresh && order.home == said.share {
                    self.id(said, at, *order);
                }
                self.request(at, *order, request);
                if matches!(said.entry, Entry::Held { .. }) {
                    self.book.hear(said);
                    if let Some(live) = self.book.get(said.share, *order) {
                        self.history.changed(live, said.header.now, false);
                    }
                }
            }
            Entry::Ended { why, .. } => self.ended(said, at, *why),
            Entry::Paid { .. } => {
                self.book.hear(said);
            }
            _ => {}
        }
    }
}

/// A block as the definition cuts it, in the words of an Accept.
#[must_use]
pub fn block(founding: &Founding, run: u16, index: u16) -> Option<Block> {
    let (_, table) = founding.definition.run(run)?;
    let cut = founding.cuts_of(run).get(usize::from(index))?;
    Some(Block {
        run,
        index,
        class: cut.class,
        first: cut.first,
        end: cut.end,
        row: cut.row,
        stops: table.stop_count(),
    })
}

/// An entry's name, in the words of figures.
#[must_use]
pub const fn name(entry: &Entry<'_>) -> &'static str {
    match entry {
        Entry::Claim { .. } => "claim",
        Entry::Accept { .. } => "accept",
        Entry::Held { .. } => "held",
        Entry::Paid { .. } => "paid",
        Entry::Refunded { .. } => "refunded",
        Entry::Ended { .. } => "ended",
        Entry::Sent { .. } => "sent",
        Entry::Placed { .. } => "placed",
        Entry::Returned { .. } => "returned",
        Entry::Closed { .. } => "closed",
        Entry::Refused { .. } => "refused",
        Entry::Yield { .. } => "yield",
    }
}
