//! What a ledger sells: the content of Genesis, and what follows from it alone.
//!
//! Everything here is pure and frozen: the same definition gives the same seats, blocks and
//! split for ever, since folds of old records depend on it. A better rule is a new
//! [`SPLIT_VERSION`], never a changed one.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::legs::STOPS_MAX;
use crate::stock::{Block, BlockId};
use crate::words::{ClassId, RunId, ShareId};

/// How blocks are cut and divided. Written into Genesis; old values are understood for ever.
pub const SPLIT_VERSION: u8 = 1;

/// Seats of one block at most: a group's largest size with room to choose.
pub const BLOCK_SEATS_MAX: u16 = 16;
/// Shares of one ledger at most: librdkafka and brokers carry a thousand partitions with ease.
pub const SHARES_MAX: u16 = 1024;
/// Runs of one ledger at most, so that a run fits 16 bits with room for Amends.
pub const RUNS_MAX: usize = 20_000;
/// An amount of a fare at most, in minor units: any train, any currency, and sixteen times its
/// sum over all legs still fits 64 bits.
pub const AMOUNT_MAX: u64 = 1_000_000_000_000;
/// Seats of one run at most: far above any train (a 16-coach double set has about 2,400).
pub const RUN_SEATS_MAX: u32 = 16_384;

/// All that a ledger sells, and how its stock is divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The ledger's name, such as `tickets.spring-2027`; also its topic.
    pub ledger: String,
    /// ISO 4217 code of all amounts.
    pub currency: String,
    /// IANA name of the zone that stop times are in.
    pub time_zone: String,
    /// How many shares there are, `1..=SHARES_MAX`; fixed for the ledger.
    pub shares: u16,
    /// How many percent of each class's blocks stay in the pool at first, `0..=100`.
    pub buffer_percent: u8,
    /// Seats of a block at most, `1..=BLOCK_SEATS_MAX`; a row is never cut.
    pub block_seats: u16,
    /// Timetables, in the order of the TrainSale.
    pub timetables: Vec<Timetable>,
    /// Runs: only ever appended.
    pub runs: Vec<Run>,
}

/// Stops, classes and coaches that runs have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timetable {
    /// Its name within the TrainSale.
    pub name: String,
    /// Stops in travel order, `2..=STOPS_MAX`.
    pub stops: Vec<StopTime>,
    /// Classes with their fares; a [`ClassId`] is an index here.
    pub classes: Vec<Class>,
    /// Coaches in train order; only ever appended.
    pub coaches: Vec<Coach>,
}

/// A stop of a timetable. Times are minutes from midnight of the run's date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopTime {
    /// The station's code, unique within the timetable.
    pub code: String,
    /// What people call it; may be empty.
    pub name: String,
    /// When the train arrives; none at the first stop.
    pub arrives: Option<u16>,
    /// When it departs; none at the last stop.
    pub departs: Option<u16>,
}

/// A class of seats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Its name, unique within the timetable.
    pub name: String,
    /// What a journey costs.
    pub fare: Fare,
}

/// What a journey costs per passenger, in minor units of the currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fare {
    /// One amount for every journey.
    Flat(u64),
    /// An amount for each leg; a journey costs the sum of its legs.
    PerLeg(Vec<u64>),
}

/// A coach: whole rows of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coach {
    /// Its name on the ticket.
    pub name: String,
    /// The class of all its seats.
    pub class: ClassId,
    /// How many seats it has; the last row may be short.
    pub seats: u16,
    /// Letters of a row with `-` for an aisle, such as `ABC-DF`.
    pub row_layout: String,
}

/// One train on one date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The train's number, such as `G1`.
    pub train: String,
    /// The date of its first departure, `YYYY-MM-DD`.
    pub date: String,
    /// Index of its timetable.
    pub timetable: u16,
    /// On how many shares it lives; frozen when it enters. See [`homes_of`].
    pub homes: u16,
    /// Whether it is off sale: no new orders. What was sold stays sold.
    pub withdrawn: bool,
}

/// A definition that cannot be sold. The path names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct BadDefinition {
    /// Where, such as `timetables[0].stops[2].arrives`.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

/// On how many shares a run with `seats` lives: one per 64 seats, so that a share holds enough
/// for groups and long journeys, and at most all `shares`.
#[must_use]
pub fn homes_of(seats: u32, shares: u16) -> u16 {
    u16::try_from(seats / 64).unwrap_or(u16::MAX).clamp(1, shares)
}

/// Where a seat is within its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// By the window.
    Window,
    /// By the aisle.
    Aisle,
    /// Neither.
    Middle,
}

impl Coach {
    fn letters(&self) -> impl Iterator<Item = char> + '_ {
        self.row_layout.chars().filter(|c| *c != '-')
    }

    /// Seats of a full row.
    #[must_use]
    pub fn row_seats(&self) -> u16 {
        u16::try_from(self.letters().count()).unwrap_or(u16::MAX)
    }

    /// The number on the seat with index `seat` of this coach, such as `12F`.
    #[must_use]
    pub fn number(&self, seat: u16) -> String {
        let width = self.row_seats();
        let letter = self.letters().nth(usize::from(seat % width)).unwrap_or('?');
        format!("{}{letter}", seat / width + 1)
    }

    /// Where the seat with index `seat` of this coach is within its row.
    #[must_use]
    pub fn place(&self, seat: u16) -> Place {
        let width = self.row_seats();
        let at = usize::from(seat % width);
        if at == 0 || at + 1 == usize::from(width) {
            return Place::Window;
        }
        let layout = self.row_layout.as_bytes();
        let byte = layout.iter().enumerate().filter(|(_, b)| **b != b'-').nth(at).map(|(i, _)| i);
        let aisle = byte.is_some_and(|i| layout[i - 1] == b'-' || layout.get(i + 1) == Some(&b'-'));
        if aisle { Place::Aisle } else { Place::Middle }
    }
}

impl Timetable {
    /// Seats of one run.
    #[must_use]
    pub fn seats(&self) -> u32 {
        self.coaches.iter().map(|c| u32::from(c.seats)).sum()
    }

    /// The coach of a seat of the run, and the seat's index within it.
    #[must_use]
    pub fn coach_of(&self, seat: u16) -> Option<(&Coach, u16)> {
        let mut left = seat;
        self.coaches.iter().find_map(|coach| {
            if left < coach.seats {
                return Some((coach, left));
            }
            left -= coach.seats;
            None
        })
    }

    /// The index of the stop with this code.
    #[must_use]
    pub fn stop(&self, code: &str) -> Option<u8> {
        self.stops.iter().position(|s| s.code == code).and_then(|i| u8::try_from(i).ok())
    }

    /// The class with this name.
    #[must_use]
    pub fn class(&self, name: &str) -> Option<ClassId> {
        let index = self.classes.iter().position(|c| c.name == name)?;
        u8::try_from(index).ok().map(ClassId)
    }

    /// Ranges of seats that travel as one block, in seat order: whole adjacent rows of one
    /// coach, as many as fit `block_seats`, at least one.
    pub fn blocks(&self, block_seats: u16) -> impl Iterator<Item = (ClassId, Range<u16>, u16)> {
        let mut first = 0;
        self.coaches.iter().flat_map(move |coach| {
            let start = first;
            first += coach.seats;
            let row = coach.row_seats();
            let step = (block_seats / row).max(1) * row;
            (start..start + coach.seats)
                .step_by(usize::from(step))
                .map(move |s| (coach.class, s..(s + step).min(start + coach.seats), row))
        })
    }

    /// What a journey costs per passenger.
    #[must_use]
    pub fn fare(&self, class: ClassId, from: u8, to: u8) -> Option<u64> {
        match &self.classes.get(usize::from(class.0))?.fare {
            Fare::Flat(amount) => Some(*amount),
            Fare::PerLeg(legs) => Some(legs.get(usize::from(from)..usize::from(to))?.iter().sum()),
        }
    }
}

impl Definition {
    /// The timetable of a run.
    #[must_use]
    pub fn timetable(&self, run: RunId) -> Option<&Timetable> {
        let run = self.runs.get(usize::from(run.0))?;
        self.timetables.get(usize::from(run.timetable))
    }

    /// Whether a run is off sale.
    #[must_use]
    pub fn is_withdrawn(&self, run: RunId) -> bool {
        self.runs.get(usize::from(run.0)).is_some_and(|run| run.withdrawn)
    }

    /// The run of this train on this date.
    #[must_use]
    pub fn run(&self, train: &str, date: &str) -> Option<RunId> {
        let index = self.runs.iter().position(|r| r.train == train && r.date == date)?;
        u16::try_from(index).ok().map(RunId)
    }

    /// All runs' ids, in order.
    pub fn run_ids(&self) -> impl Iterator<Item = RunId> + use<> {
        (0..u16::try_from(self.runs.len()).unwrap_or(u16::MAX)).map(RunId)
    }

    /// The blocks of a run, in seat order. A block's id is its place here.
    pub fn blocks(&self, run: RunId) -> impl Iterator<Item = Block> + '_ {
        self.timetable(run).into_iter().flat_map(move |timetable| {
            let stops = u8::try_from(timetable.stops.len()).unwrap_or(u8::MAX);
            (0..).zip(timetable.blocks(self.block_seats)).map(
                move |(index, (class, seats, row))| Block {
                    id: BlockId { run, index },
                    class,
                    seats,
                    row,
                    stops,
                },
            )
        })
    }

    /// Where each block of a run of Genesis starts: split version 1. Per class, the last
    /// `buffer_percent` of its blocks (rounded down) stay in the pool; the others go in
    /// contiguous ranges, as even as can be, to the run's home shares.
    #[must_use]
    pub fn initial_split(&self, run: RunId) -> Vec<(ShareId, Block)> {
        let blocks: Vec<Block> = self.blocks(run).collect();
        let classes: BTreeSet<ClassId> = blocks.iter().map(|b| b.class).collect();
        let mut split = Vec::with_capacity(blocks.len());
        for class in classes {
            let of_class: Vec<&Block> = blocks.iter().filter(|b| b.class == class).collect();
            let buffer = of_class.len() * usize::from(self.buffer_percent) / 100;
            let shared = of_class.len() - buffer;
            let homes: Vec<ShareId> = self.homes(run).collect();
            for (at, block) in of_class.into_iter().enumerate() {
                // Rounding by multiplication spreads the remainder over the homes.
                let share =
                    if at < shared { homes[at * homes.len() / shared] } else { ShareId::POOL };
                split.push((share, block.clone()));
            }
        }
        split
    }

    /// A number that places a run's first home; stable for a ledger.
    pub(crate) fn run_hash(&self, run: RunId) -> u64 {
        let run = &self.runs[usize::from(run.0)];
        let mut hasher = blake3::Hasher::new_derive_key("stationmaster 2026 run home");
        for part in [&self.ledger, &run.train, &run.date] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        let mut eight = [0; 8];
        eight.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_le_bytes(eight)
    }

    /// The shares on which a run lives, in order.
    pub fn homes(&self, run: RunId) -> impl Iterator<Item = ShareId> + use<> {
        self.homes_from(self.run_hash(run), run)
    }

    pub(crate) fn homes_from(
        &self,
        first: u64,
        run: RunId,
    ) -> impl Iterator<Item = ShareId> + use<> {
        let (count, shares) = (self.runs[usize::from(run.0)].homes, u64::from(self.shares));
        (0..u64::from(count)).map(move |i| share_at(first.wrapping_add(i), shares))
    }

    /// The home share of a buyer's orders for a run:
    /// `(hash(run) + hash(buyer) mod m) mod S + 1`.
    #[must_use]
    pub fn home(&self, run: RunId, buyer: crate::words::BuyerHash) -> ShareId {
        self.home_from(self.run_hash(run), run, buyer)
    }

    pub(crate) fn home_from(
        &self,
        first: u64,
        run: RunId,
        buyer: crate::words::BuyerHash,
    ) -> ShareId {
        let count = u64::from(self.runs[usize::from(run.0)].homes);
        let mut eight = [0; 8];
        eight.copy_from_slice(&buyer.0[..8]);
        let step = u64::from_le_bytes(eight) % count;
        share_at(first.wrapping_add(step), u64::from(self.shares))
    }

    /// Whether this can be sold at all.
    ///
    /// # Errors
    /// [`BadDefinition`] names the first field that is out of its range.
    pub fn check(&self) -> Result<(), BadDefinition> {
        range("ledger", self.ledger.len(), 1..=249)?;
        range("currency", self.currency.len(), 3..=3)?;
        range("time_zone", self.time_zone.len(), 1..=64)?;
        range("shares", usize::from(self.shares), 1..=usize::from(SHARES_MAX))?;
        range("buffer_percent", usize::from(self.buffer_percent), 0..=100)?;
        range("block_seats", usize::from(self.block_seats), 1..=usize::from(BLOCK_SEATS_MAX))?;
        range("timetables", self.timetables.len(), 1..=1_000)?;
        range("runs", self.runs.len(), 1..=RUNS_MAX)?;
        for (i, timetable) in self.timetables.iter().enumerate() {
            timetable.check(&format!("timetables[{i}]"))?;
        }
        let mut seen = BTreeSet::new();
        for (i, run) in self.runs.iter().enumerate() {
            let at = |field: &str| format!("runs[{i}].{field}");
            range(&at("train"), run.train.len(), 1..=16)?;
            range(&at("date"), run.date.len(), 10..=10)?;
            if !seen.insert((&run.train, &run.date)) {
                return Err(bad(at("train"), format!("{} {} is there twice", run.train, run.date)));
            }
            if usize::from(run.timetable) >= self.timetables.len() {
                return Err(bad(at("timetable"), "no such timetable"));
            }
            range(&at("homes"), usize::from(run.homes), 1..=usize::from(self.shares))?;
        }
        Ok(())
    }

    /// Whether `new` may follow this one in an Amend: things are added, times and fares may
    /// change, runs are withdrawn and come back, and nothing that was sold moves.
    ///
    /// # Errors
    /// [`BadDefinition`] names the field that would change what was sold.
    pub fn allows(&self, new: &Self) -> Result<(), BadDefinition> {
        new.check()?;
        same("ledger", &self.ledger, &new.ledger)?;
        same("currency", &self.currency, &new.currency)?;
        same("time_zone", &self.time_zone, &new.time_zone)?;
        same("shares", &self.shares, &new.shares)?;
        same("buffer_percent", &self.buffer_percent, &new.buffer_percent)?;
        same("block_seats", &self.block_seats, &new.block_seats)?;
        if new.timetables.len() < self.timetables.len() {
            return Err(bad("timetables", "a timetable was removed"));
        }
        for (i, (old, new)) in self.timetables.iter().zip(&new.timetables).enumerate() {
            old.allows(new, &format!("timetables[{i}]"))?;
        }
        if new.runs.len() < self.runs.len() {
            return Err(bad("runs", "a run was removed"));
        }
        for (i, (old, new)) in self.runs.iter().zip(&new.runs).enumerate() {
            let on_sale = |run: &Run| Run { withdrawn: false, ..run.clone() };
            same(&format!("runs[{i}]"), &on_sale(old), &on_sale(new))?;
        }
        Ok(())
    }
}

fn share_at(position: u64, shares: u64) -> ShareId {
    let index = u16::try_from(position % shares).unwrap_or(0);
    ShareId(index + 1)
}

impl Timetable {
    fn check(&self, path: &str) -> Result<(), BadDefinition> {
        let at = |field: &str| format!("{path}.{field}");
        range(&at("name"), self.name.len(), 1..=63)?;
        range(&at("stops"), self.stops.len(), 2..=usize::from(STOPS_MAX))?;
        range(&at("classes"), self.classes.len(), 1..=16)?;
        range(&at("coaches"), self.coaches.len(), 1..=64)?;
        self.check_stops(path)?;
        let mut names = BTreeSet::new();
        for (i, class) in self.classes.iter().enumerate() {
            range(&at(&format!("classes[{i}].name")), class.name.len(), 1..=63)?;
            if !names.insert(&class.name) {
                return Err(bad(at(&format!("classes[{i}].name")), "is there twice"));
            }
            let amounts = match &class.fare {
                Fare::Flat(amount) => std::slice::from_ref(amount),
                Fare::PerLeg(legs) => legs.as_slice(),
            };
            if amounts.iter().any(|amount| *amount > AMOUNT_MAX) {
                let message = format!("an amount is above {AMOUNT_MAX}");
                return Err(bad(at(&format!("classes[{i}].fare")), message));
            }
            if let Fare::PerLeg(legs) = &class.fare
                && legs.len() + 1 != self.stops.len()
            {
                return Err(bad(
                    at(&format!("classes[{i}].fare")),
                    format!("has {} amounts for {} legs", legs.len(), self.stops.len() - 1),
                ));
            }
        }
        for (i, coach) in self.coaches.iter().enumerate() {
            let field = |name: &str| at(&format!("coaches[{i}].{name}"));
            range(&field("name"), coach.name.len(), 1..=16)?;
            range(&field("seats"), usize::from(coach.seats), 1..=1_000)?;
            if usize::from(coach.class.0) >= self.classes.len() {
                return Err(bad(field("class"), "no such class"));
            }
            let ok = coach.row_layout.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
            if !ok || coach.row_layout.starts_with('-') || coach.row_layout.ends_with('-') {
                return Err(bad(field("row_layout"), "must be letters A to Z, '-' between them"));
            }
            range(&field("row_layout"), usize::from(coach.row_seats()), 1..=12)?;
        }
        let seats = usize::try_from(self.seats()).unwrap_or(usize::MAX);
        range(&at("coaches"), seats, 1..=RUN_SEATS_MAX as usize)
    }

    fn check_stops(&self, path: &str) -> Result<(), BadDefinition> {
        let mut codes = BTreeSet::new();
        let mut earlier = 0;
        for (i, stop) in self.stops.iter().enumerate() {
            let at = |field: &str| format!("{path}.stops[{i}].{field}");
            range(&at("code"), stop.code.len(), 1..=16)?;
            range(&at("name"), stop.name.len(), 0..=100)?;
            if !codes.insert(&stop.code) {
                return Err(bad(at("code"), format!("{} is there twice", stop.code)));
            }
            for (field, time) in [("arrives", stop.arrives), ("departs", stop.departs)] {
                let Some(time) = time else { continue };
                if time < earlier {
                    return Err(bad(at(field), "is before the time in front of it"));
                }
                earlier = time;
            }
        }
        Ok(())
    }

    fn allows(&self, new: &Self, path: &str) -> Result<(), BadDefinition> {
        let at = |field: &str| format!("{path}.{field}");
        same(&at("name"), &self.name, &new.name)?;
        let codes = |t: &Self| t.stops.iter().map(|s| s.code.clone()).collect::<Vec<_>>();
        same(&at("stops"), &codes(self), &codes(new))?;
        let names = |t: &Self| t.classes.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
        let known = self.classes.len().min(new.classes.len());
        same(&at("classes"), &names(self), &names(new)[..known].to_vec())?;
        if new.coaches.len() < self.coaches.len() {
            return Err(bad(at("coaches"), "a coach was removed"));
        }
        for (i, (old, new)) in self.coaches.iter().zip(&new.coaches).enumerate() {
            same(&at(&format!("coaches[{i}]")), old, new)?;
        }
        Ok(())
    }
}

fn bad(path: impl Into<String>, message: impl Into<String>) -> BadDefinition {
    BadDefinition { path: path.into(), message: message.into() }
}

fn range(
    path: &str,
    value: usize,
    of: std::ops::RangeInclusive<usize>,
) -> Result<(), BadDefinition> {
    if of.contains(&value) {
        return Ok(());
    }
    Err(bad(path, format!("must be {} to {}, is {value}", of.start(), of.end())))
}

fn same<T: PartialEq>(path: &str, old: &T, new: &T) -> Result<(), BadDefinition> {
    if old == new { Ok(()) } else { Err(bad(path, "cannot change once the ledger is founded")) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::words::Digest128;

    /// A ledger with one run of `coaches` coaches of 90 seats and `stops` stops.
    pub(crate) fn one_run(stops: u8, coaches: u16, shares: u16, buffer_percent: u8) -> Definition {
        let timetable = Timetable {
            name: "t".into(),
            stops: (0..stops)
                .map(|i| StopTime {
                    code: format!("S{i}"),
                    name: String::new(),
                    arrives: Some(u16::from(i) * 10),
                    departs: Some(u16::from(i) * 10 + 2),
                })
                .collect(),
            classes: vec![Class { name: "Second".into(), fare: Fare::Flat(100) }],
            coaches: (0..coaches)
                .map(|i| Coach {
                    name: format!("{i}"),
                    class: ClassId(0),
                    seats: 90,
                    row_layout: "ABC-DF".into(),
                })
                .collect(),
        };
        let homes = homes_of(timetable.seats(), shares);
        Definition {
            ledger: "test".into(),
            currency: "CNY".into(),
            time_zone: "UTC".into(),
            shares,
            buffer_percent,
            block_seats: 10,
            timetables: vec![timetable],
            runs: vec![Run {
                train: "G1".into(),
                date: "2027-02-01".into(),
                timetable: 0,
                homes,
                withdrawn: false,
            }],
        }
    }

    #[test]
    fn every_seat_is_in_exactly_one_block_of_the_split() {
        for (coaches, shares, buffer) in
            [(1, 1, 0), (1, 16, 20), (8, 16, 20), (16, 4, 100), (3, 2, 7)]
        {
            let definition = one_run(20, coaches, shares, buffer);
            definition.check().unwrap();
            let split = definition.initial_split(RunId(0));
            let mut seats: Vec<u16> = split.iter().flat_map(|(_, b)| b.seats.clone()).collect();
            seats.sort_unstable();
            assert_eq!(seats, (0..coaches * 90).collect::<Vec<_>>());
            let homes: BTreeSet<ShareId> = definition.homes(RunId(0)).collect();
            assert!(split.iter().all(|(s, _)| *s == ShareId::POOL || homes.contains(s)));
        }
    }

    #[test]
    fn a_buyer_s_home_is_one_of_the_run_s_homes() {
        let definition = one_run(3, 16, 16, 20);
        let homes: BTreeSet<ShareId> = definition.homes(RunId(0)).collect();
        assert_eq!(homes.len(), 16);
        let met: BTreeSet<ShareId> =
            (0..=255).map(|b| definition.home(RunId(0), Digest128([b; 16]))).collect();
        assert_eq!(met, homes);
    }

    #[test]
    fn seats_are_numbered_by_row_and_letter() {
        let definition = one_run(3, 2, 1, 0);
        let timetable = &definition.timetables[0];
        let label = |seat| {
            let (coach, at) = timetable.coach_of(seat).unwrap();
            (coach.name.clone(), coach.number(at), coach.place(at))
        };
        assert_eq!(label(0), ("0".into(), "1A".into(), Place::Window));
        assert_eq!(label(2), ("0".into(), "1C".into(), Place::Aisle));
        assert_eq!(label(3), ("0".into(), "1D".into(), Place::Aisle));
        assert_eq!(label(1), ("0".into(), "1B".into(), Place::Middle));
        assert_eq!(label(94), ("1".into(), "1F".into(), Place::Window));
        assert!(timetable.coach_of(180).is_none());
    }

    #[test]
    fn an_amend_adds_and_never_moves_what_was_sold() {
        let old = one_run(5, 2, 4, 20);
        let edit = |f: &dyn Fn(&mut Definition)| {
            let mut new = old.clone();
            f(&mut new);
            old.allows(&new).err().map(|b| b.path)
        };
        assert_eq!(edit(&|d| d.timetables[0].stops[1].departs = Some(13)), None);
        assert_eq!(edit(&|d| d.runs.push(Run { train: "G2".into(), ..d.runs[0].clone() })), None);
        let coach = |d: &mut Definition| {
            let next = Coach { name: "x".into(), ..d.timetables[0].coaches[0].clone() };
            d.timetables[0].coaches.push(next);
        };
        assert_eq!(edit(&coach), None);
        let refused = |f: &dyn Fn(&mut Definition)| edit(f).unwrap_or_default();
        assert_eq!(refused(&|d| d.timetables[0].stops[1].code = "X".into()), "timetables[0].stops");
        assert_eq!(refused(&|d| d.timetables[0].coaches[0].seats = 80), "timetables[0].coaches[0]");
        assert_eq!(refused(&|d| d.shares = 5), "shares");
        assert_eq!(refused(&|d| d.runs.clear()), "runs");
        assert_eq!(refused(&|d| d.runs[0].homes = 3), "runs[0]");
        assert_eq!(
            refused(&|d| d.timetables[0].stops[1].arrives = Some(0)),
            "timetables[0].stops[1].arrives"
        );
    }
}
