//! The fold of partition 0: what there is to sell, and which share was given which block.

use foldhash::HashMap;

use crate::bytes::{Hash, Malformed};
use crate::definition::{Cut, Definition, Fare};
use crate::entry::{self, Policy, PoolEntry};
use crate::frame::{self, Header, NotWhole};
use crate::ids;

/// The most blocks that a Take may name.
const TAKE_MAX: usize = 256;

/// What a record of the pool did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// At least one entry counts. The others, by their place in the record, did not.
    Accepted {
        /// Place and reason of each entry that does not count.
        passed_over: Vec<(usize, &'static str)>,
    },
    /// Changes nothing.
    Void(Void),
    /// Freezes the pool.
    Fault(Fault),
}

/// What nobody may write to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A format that this fold does not know: it may mean anything.
    #[error("format {0} is not known here")]
    Format(u16),
    /// Its entries cannot be read.
    #[error("its entries cannot be read: {0}")]
    Unreadable(Malformed),
}

impl Fault {
    /// The word for figures.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Format(_) => "format",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

/// Why a record of the pool changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Void {
    /// The pool was frozen before.
    Frozen,
    /// No whole frame.
    NotWhole(NotWhole),
    /// Another partition's or ledger's.
    Foreign,
    /// None of its entries counts.
    NothingCounts(Vec<(usize, &'static str)>),
}

impl Void {
    /// The word for figures.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::NotWhole(why) => why.word(),
            Self::Foreign => "foreign",
            Self::NothingCounts(_) => "nothing-counts",
        }
    }
}

/// Where a block is by the pool's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Still to be drawn.
    Pool,
    /// On this share from the start.
    Start(u16),
    /// Given to this share by the Take at this offset.
    Given(u16, u64),
}

/// What a Take gave to one share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gift {
    /// The Take's offset in partition 0.
    pub take: u64,
    /// The blocks as (run, index).
    pub blocks: Vec<(u16, u16)>,
}

/// What Genesis and its Amends laid down.
#[derive(Clone, Debug)]
pub struct Founding {
    /// The ledger's id.
    pub ledger: Hash,
    /// The key of all its hashes.
    pub key: ids::Key,
    /// The definition in force.
    pub definition: Definition,
    /// Its version; 1 is Genesis.
    pub version: u64,
    /// The blocks of each timetable.
    pub cuts: Vec<Vec<Cut>>,
    /// The fares that a class of a timetable ever had.
    pub fares: HashMap<(u16, u8), Vec<Fare>>,
    /// Where each block of each run is.
    pub places: Vec<Vec<At>>,
    /// What each share was given, in the order of the Takes.
    pub gifts: HashMap<u16, Vec<Gift>>,
    /// Blocks that an Amend added: the run, the first of them, the Amend's time.
    pub grown: Vec<(u16, u16, u64)>,
    /// The policies in the order in which they came into force.
    pub policies: Vec<Policy>,
    assign: u64,
    policy: u64,
}

impl Founding {
    /// The blocks of a run.
    #[must_use]
    pub fn cuts_of(&self, run: u16) -> &[Cut] {
        let timetable = self.definition.runs.get(usize::from(run)).map(|run| run.timetable);
        timetable.and_then(|at| self.cuts.get(usize::from(at))).map_or(&[], Vec::as_slice)
    }

    /// Every block with its run, index, number of stops and place.
    pub fn blocks(&self) -> impl Iterator<Item = (u16, u16, Cut, u8, At)> {
        let runs = u16::try_from(self.places.len()).unwrap_or(u16::MAX);
        (0..runs).flat_map(|run| self.blocks_of(run))
    }

    /// When a block was added to its run; 0 if it was there from the start.
    #[must_use]
    pub fn added(&self, run: u16, index: u16) -> u64 {
        let mine = self.grown.iter().filter(|(r, first, _)| *r == run && *first <= index);
        mine.map(|(_, _, now)| *now).max().unwrap_or(0)
    }

    /// The same of one run.
    pub fn blocks_of(&self, run: u16) -> impl Iterator<Item = (u16, u16, Cut, u8, At)> {
        let stops = self.definition.run(run).map_or(0, |(_, table)| table.stop_count());
        let places = self.places.get(usize::from(run)).map_or(&[][..], Vec::as_slice);
        (0..=u16::MAX)
            .zip(self.cuts_of(run).iter().zip(places))
            .map(move |(index, (cut, at))| (run, index, *cut, stops, *at))
    }

    fn remember_fares(&mut self) {
        for (at, table) in (0..).zip(&self.definition.timetables) {
            for (class, offer) in (0..).zip(&table.classes) {
                let fares = self.fares.entry((at, class)).or_default();
                if !fares.contains(&offer.fare) {
                    fares.push(offer.fare.clone());
                }
            }
        }
    }

    fn cut(&mut self) {
        let block_seats = self.definition.block_seats;
        self.cuts = self.definition.timetables.iter().map(|t| t.blocks(block_seats)).collect();
    }
}

/// The fold.
#[derive(Clone, Debug)]
pub struct Pool {
    name: Option<String>,
    frozen: bool,
    founding: Option<Founding>,
}

impl Pool {
    /// Starts before the first record. Without a name, the first Genesis whose header fits its
    /// own words gives the ledger its name.
    #[must_use]
    pub const fn new(name: Option<String>) -> Self {
        Self { name, frozen: false, founding: None }
    }

    /// Whether a fault froze the pool.
    #[must_use]
    pub const fn frozen(&self) -> bool {
        self.frozen
    }

    /// What Genesis laid down, once it was accepted.
    #[must_use]
    pub const fn founding(&self) -> Option<&Founding> {
        self.founding.as_ref()
    }

    /// Reads the next record.
    pub fn fold(&mut self, offset: u64, record: &[u8]) -> Verdict {
        if self.frozen {
            return Verdict::Void(Void::Frozen);
        }
        let (header, body) = match frame::read(record) {
            Ok(whole) => whole,
            Err(NotWhole::Format(format)) => {
                self.frozen = true;
                return Verdict::Fault(Fault::Format(format));
            }
            Err(why) => return Verdict::Void(Void::NotWhole(why)),
        };
        let foreign = self.founding.as_ref().is_some_and(|f| f.ledger != header.ledger);
        if header.share != 0 || foreign {
            return Verdict::Void(Void::Foreign);
        }
        let entries = match entry::of_pool(header.count, body) {
            Ok(entries) => entries,
            Err(why) => {
                self.frozen = true;
                return Verdict::Fault(Fault::Unreadable(why));
            }
        };
        let count = entries.len();
        let mut passed_over = Vec::new();
        for (place, entry) in entries.into_iter().enumerate() {
            if let Err(why) = self.count(offset, &header, entry) {
                passed_over.push((place, why));
            }
        }
        if passed_over.len() < count {
            Verdict::Accepted { passed_over }
        } else {
            Verdict::Void(Void::NothingCounts(passed_over))
        }
    }

    fn count(
        &mut self,
        offset: u64,
        header: &Header,
        entry: PoolEntry<'_>,
    ) -> Result<(), &'static str> {
        let Some(founding) = &mut self.founding else {
            let PoolEntry::Genesis { topic, definition } = entry else {
                return Err("before Genesis");
            };
            if self.name.as_ref().is_some_and(|name| *name != definition.ledger) {
                return Err("a Genesis of another name");
            }
            definition.within_ranges()?;
            let key = ids::Key::of(&topic, &definition.ledger);
            if key.ledger() != header.ledger {
                return Err("a Genesis whose header has another ledger id");
            }
            self.founding = Some(found(header.ledger, key, *definition));
            return Ok(());
        };
        match entry {
            PoolEntry::Genesis { .. } => Err("a second Genesis"),
            PoolEntry::Amend { version, definition } => {
                founding.amend(version, *definition, header.now)
            }
            PoolEntry::Take { share, blocks, .. } => founding.take(offset, share, &blocks),
            PoolEntry::Assign { version, .. } => next(&mut founding.assign, version),
            PoolEntry::Policy { version, policy } => {
                next(&mut founding.policy, version)?;
                founding.policies.push(policy);
                Ok(())
            }
        }
    }
}

fn next(present: &mut u64, version: u64) -> Result<(), &'static str> {
    if present.checked_add(1) != Some(version) {
        return Err("its version is not the next");
    }
    *present = version;
    Ok(())
}

fn found(ledger: Hash, key: ids::Key, definition: Definition) -> Founding {
    let mut founding = Founding {
        ledger,
        key,
        definition,
        version: 1,
        cuts: Vec::new(),
        fares: HashMap::default(),
        places: Vec::new(),
        gifts: HashMap::default(),
        grown: Vec::new(),
        policies: Vec::new(),
        assign: 0,
        policy: 0,
    };
    founding.cut();
    founding.remember_fares();
    let definition = &founding.definition;
    founding.places = definition
        .runs
        .iter()
        .map(|run| {
            let cuts = founding.cuts.get(usize::from(run.timetable));
            let split = definition.split(run, cuts.map_or(&[], Vec::as_slice));
            split
                .iter()
                .map(|share| if *share == 0 { At::Pool } else { At::Start(*share) })
                .collect()
        })
        .collect();
    founding
}

impl Founding {
    fn amend(&mut self, version: u64, new: Definition, now: u64) -> Result<(), &'static str> {
        if self.version.checked_add(1) != Some(version) {
            return Err("its version is not the next");
        }
        new.within_ranges()?;
        if let Some(why) = self.definition.amends_wrongly(&new) {
            return Err(why);
        }
        self.version = version;
        self.definition = new;
        self.cut();
        self.remember_fares();
        self.places.resize(self.definition.runs.len(), Vec::new());
        for (at, (run, places)) in (0..).zip(self.definition.runs.iter().zip(&mut self.places)) {
            let blocks = self.cuts.get(usize::from(run.timetable)).map_or(0, Vec::len);
            if let Some(first) = u16::try_from(places.len()).ok().filter(|_| blocks > places.len())
            {
                self.grown.push((at, first, now));
            }
            places.resize(blocks, At::Pool);
        }
        Ok(())
    }

    fn take(&mut self, offset: u64, share: u16, blocks: &[(u16, u16)]) -> Result<(), &'static str> {
        if !(1..=self.definition.shares).contains(&share) {
            return Err("a Take for a share that is not there");
        }
        if blocks.len() > TAKE_MAX {
            return Err("a Take of more blocks than one may name");
        }
        let mut given = Vec::new();
        for (run, index) in blocks {
            let place =
                self.places.get_mut(usize::from(*run)).and_then(|p| p.get_mut(usize::from(*index)));
            if let Some(place) = place.filter(|place| **place == At::Pool) {
                *place = At::Given(share, offset);
                given.push((*run, *index));
            }
        }
        if given.is_empty() {
            return Ok(());
        }
        let gifts = self.gifts.entry(share).or_default();
        match gifts.last_mut().filter(|gift| gift.take == offset) {
            // The Takes of one record have its offset in common, so that one Accept repeats both.
            Some(gift) => gift.blocks.extend(given),
            None => gifts.push(Gift { take: offset, blocks: given }),
        }
        Ok(())
    }
}
