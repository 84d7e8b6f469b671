//! What is on sale: reads a definition, says whether it is in the page's ranges, and what follows
//! from it: blocks, names of seats, fares, homes, the initial split.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use crate::bytes::{Cursor, Hash, Malformed};
use crate::ids;

/// The most seats that the coaches of one timetable have together.
const SEATS_MAX: usize = 16_384;
/// The highest amount of a fare.
const AMOUNT_MAX: u64 = 1_000_000_000_000;
/// Texts of a definition are read at any length: one out of range does not make it unreadable.
const ANY: RangeInclusive<usize> = 0..=usize::MAX;

/// All that a ledger sells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The ledger's name.
    pub ledger: String,
    /// Three letters.
    pub currency: String,
    /// Where its times are.
    pub time_zone: String,
    /// How many shares.
    pub shares: u16,
    /// How much of each run and class starts in the pool.
    pub buffer_percent: u8,
    /// The most seats of a block.
    pub block_seats: u16,
    /// Stops, classes and coaches that runs have in common.
    pub timetables: Vec<Timetable>,
    /// The runs.
    pub runs: Vec<Run>,
}

/// Stops, classes and coaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timetable {
    /// Its name.
    pub name: String,
    /// 2 to 128.
    pub stops: Vec<Stop>,
    /// 1 to 16.
    pub classes: Vec<Class>,
    /// 1 to 64.
    pub coaches: Vec<Coach>,
}

/// One stop of a timetable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Unique in its timetable.
    pub code: String,
    /// For people.
    pub name: String,
    /// Minutes from midnight.
    pub arrives: Option<u16>,
    /// Minutes from midnight.
    pub departs: Option<u16>,
}

/// A class and what it costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Unique in its timetable.
    pub name: String,
    /// What one passenger pays.
    pub fare: Fare,
}

/// What one passenger pays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fare {
    /// The same for any journey.
    Flat(u64),
    /// A sum over legs.
    PerLeg(Vec<u64>),
}

impl Fare {
    /// The price of a journey; `None` where it leaves the run.
    #[must_use]
    pub fn price(&self, from: u8, to: u8) -> Option<u128> {
        match self {
            Self::Flat(amount) => Some(u128::from(*amount)),
            Self::PerLeg(amounts) => amounts
                .get(usize::from(from)..usize::from(to))
                .map(|legs| legs.iter().map(|amount| u128::from(*amount)).sum()),
        }
    }
}

/// One coach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coach {
    /// For people.
    pub name: String,
    /// Index of its class.
    pub class: u8,
    /// How many seats.
    pub seats: u16,
    /// Letters of a row, with `-` for the aisle.
    pub layout: String,
}

impl Coach {
    /// How many seats a full row has; at least 1, since a layout ends with letters.
    fn row(&self) -> u16 {
        let letters = self.layout.bytes().filter(|b| *b != b'-').count();
        u16::try_from(letters).unwrap_or(u16::MAX).max(1)
    }
}

/// One train on one date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The train's name.
    pub train: String,
    /// `YYYY-MM-DD`.
    pub date: String,
    /// Index of its timetable.
    pub timetable: u16,
    /// On how many shares it lives.
    pub homes: u16,
    /// Whether no new orders are to be taken for it.
    pub withdrawn: bool,
}

/// A block as the definition cuts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Class of all its seats.
    pub class: u8,
    /// First seat.
    pub first: u16,
    /// Behind the last seat.
    pub end: u16,
    /// Seats of a full row.
    pub row: u16,
}

impl Cut {
    /// How many seats.
    #[must_use]
    pub const fn seats(&self) -> u16 {
        self.end - self.first
    }
}

impl Timetable {
    /// How many legs.
    #[must_use]
    pub fn legs(&self) -> u8 {
        self.stop_count().saturating_sub(1)
    }

    /// How many stops; at most 128 by the page.
    #[must_use]
    pub fn stop_count(&self) -> u8 {
        u8::try_from(self.stops.len()).unwrap_or(u8::MAX)
    }

    /// The place of a stop.
    #[must_use]
    pub fn stop(&self, code: &str) -> Option<u8> {
        let at = self.stops.iter().position(|stop| stop.code == code)?;
        u8::try_from(at).ok()
    }

    /// The place of a class.
    #[must_use]
    pub fn class(&self, name: &str) -> Option<u8> {
        let at = self.classes.iter().position(|class| class.name == name)?;
        u8::try_from(at).ok()
    }

    /// All seats of all coaches.
    #[must_use]
    pub fn seats(&self) -> usize {
        self.coaches.iter().map(|coach| usize::from(coach.seats)).sum()
    }

    /// The blocks in the order of their index.
    #[must_use]
    pub fn blocks(&self, block_seats: u16) -> Vec<Cut> {
        let mut cuts = Vec::new();
        let mut first = 0;
        for coach in &self.coaches {
            let row = coach.row();
            let step = (block_seats / row).max(1) * row;
            let behind = first + coach.seats;
            while first < behind {
                let end = first.saturating_add(step).min(behind);
                cuts.push(Cut { class: coach.class, first, end, row });
                first = end;
            }
        }
        cuts
    }

    /// The coach and number by which people call a seat.
    #[must_use]
    pub fn seat_name(&self, seat: u16) -> Option<(&str, String)> {
        let mut within = seat;
        for coach in &self.coaches {
            if let Some(next) = within.checked_sub(coach.seats) {
                within = next;
                continue;
            }
            let row = coach.row();
            let mut letters = coach.layout.chars().filter(|c| *c != '-');
            let letter = letters.nth(usize::from(within % row))?;
            return Some((&coach.name, format!("{}{letter}", within / row + 1)));
        }
        None
    }
}

impl Definition {
    /// Reads a definition. Its values may still be out of their ranges.
    pub fn read(at: &mut Cursor<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            ledger: at.text(ANY)?.to_owned(),
            currency: at.text(ANY)?.to_owned(),
            time_zone: at.text(ANY)?.to_owned(),
            shares: at.u16()?,
            buffer_percent: at.u8()?,
            block_seats: at.u16()?,
            timetables: at.list(timetable)?,
            runs: at.list(run)?,
        })
    }

    /// Whether all values are in the page's ranges.
    pub fn within_ranges(&self) -> Result<(), &'static str> {
        let texts = [(&self.ledger, 1..=249), (&self.currency, 3..=3), (&self.time_zone, 1..=64)];
        require(
            texts.iter().all(|(text, range)| range.contains(&text.len())),
            "a text of the definition is too short or too long",
        )?;
        require(
            (1..=1024).contains(&self.shares)
                && self.buffer_percent <= 100
                && (1..=16).contains(&self.block_seats),
            "shares, buffer or block seats are out of range",
        )?;
        require((1..=1_000).contains(&self.timetables.len()), "too few or many timetables")?;
        require((1..=20_000).contains(&self.runs.len()), "too few or many runs")?;
        self.timetables.iter().try_for_each(Timetable::within_ranges)?;
        let mut seen = HashSet::new();
        for run in &self.runs {
            require(
                (1..=16).contains(&run.train.len()) && run.date.len() == 10,
                "a run's train or date is too short or too long",
            )?;
            require(
                usize::from(run.timetable) < self.timetables.len()
                    && (1..=self.shares).contains(&run.homes),
                "a run has an unknown timetable or wrong homes",
            )?;
            require(seen.insert((&run.train, &run.date)), "two runs have one train and date")?;
        }
        Ok(())
    }

    /// A run and its timetable.
    #[must_use]
    pub fn run(&self, run: u16) -> Option<(&Run, &Timetable)> {
        let run = self.runs.get(usize::from(run))?;
        Some((run, self.timetables.get(usize::from(run.timetable))?))
    }

    /// The runs by their `train/date`.
    #[must_use]
    pub fn by_name(&self) -> HashMap<String, u16> {
        (0..=u16::MAX).zip(&self.runs).map(|(run, _)| (self.run_name(run), run)).collect()
    }

    /// A run as `train/date`; a number where the definition has no such run.
    #[must_use]
    pub fn run_name(&self, run: u16) -> String {
        self.runs
            .get(usize::from(run))
            .map_or_else(|| format!("run {run}"), |run| format!("{}/{}", run.train, run.date))
    }

    /// The share that is home number `j` of a run.
    #[must_use]
    pub fn home(&self, run: &Run, j: u64) -> u16 {
        let hash = ids::run_hash(&self.ledger, &run.train, &run.date);
        let share = hash.wrapping_add(j) % u64::from(self.shares);
        u16::try_from(share).unwrap_or(0) + 1
    }

    /// The share that is home to a buyer's orders of a run.
    #[must_use]
    pub fn home_of(&self, run: u16, buyer: &Hash) -> Option<u16> {
        let (run, _) = self.run(run)?;
        let (head, _) = buyer.split_first_chunk::<8>()?;
        Some(self.home(run, u64::from_le_bytes(*head) % u64::from(run.homes.max(1))))
    }

    /// Where each block of a run starts by the split of Genesis: a share, or 0 for the pool.
    #[must_use]
    pub fn split(&self, run: &Run, cuts: &[Cut]) -> Vec<u16> {
        let mut places = vec![0; cuts.len()];
        for class in 0..=u8::MAX {
            let mine: Vec<_> = (0..cuts.len()).filter(|at| cuts[*at].class == class).collect();
            if mine.is_empty() {
                continue;
            }
            let shared = mine.len() - mine.len() * usize::from(self.buffer_percent) / 100;
            for (place, block) in mine.iter().take(shared).enumerate() {
                let number = place * usize::from(run.homes) / shared;
                places[*block] = self.home(run, number as u64);
            }
        }
        places
    }

    /// Why a definition may not replace this one; `None` where it may.
    #[must_use]
    pub fn amends_wrongly(&self, new: &Self) -> Option<&'static str> {
        let fixed = |d: &Self| (d.shares, d.buffer_percent, d.block_seats);
        if (&self.ledger, &self.currency, &self.time_zone)
            != (&new.ledger, &new.currency, &new.time_zone)
            || fixed(self) != fixed(new)
        {
            return Some("changes what is fixed");
        }
        if new.timetables.len() < self.timetables.len()
            || !self.timetables.iter().zip(&new.timetables).all(|(old, new)| old.grows_to(new))
        {
            return Some("changes a timetable");
        }
        let kept =
            |(old, new): (&Run, &Run)| *old == Run { withdrawn: old.withdrawn, ..new.clone() };
        if new.runs.len() < self.runs.len() || !self.runs.iter().zip(&new.runs).all(kept) {
            return Some("changes a run");
        }
        None
    }
}

impl Timetable {
    fn grows_to(&self, new: &Self) -> bool {
        let codes = |t: &Self| t.stops.iter().map(|stop| stop.code.clone()).collect::<Vec<_>>();
        let classes = |t: &Self| t.classes.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
        self.name == new.name
            && codes(self) == codes(new)
            && classes(new).starts_with(&classes(self))
            && new.coaches.starts_with(&self.coaches)
    }
}

impl Timetable {
    fn within_ranges(&self) -> Result<(), &'static str> {
        require((1..=63).contains(&self.name.len()), "a timetable's name is too short or long")?;
        require((2..=128).contains(&self.stops.len()), "too few or many stops")?;
        require((1..=16).contains(&self.classes.len()), "too few or many classes")?;
        require((1..=64).contains(&self.coaches.len()), "too few or many coaches")?;
        let mut seen = HashSet::new();
        for stop in &self.stops {
            require(
                (1..=16).contains(&stop.code.len()) && stop.name.len() <= 100,
                "a stop's code or name is too short or too long",
            )?;
            require(seen.insert(&stop.code), "two stops have one code")?;
        }
        let times: Vec<_> =
            self.stops.iter().flat_map(|stop| [stop.arrives, stop.departs]).flatten().collect();
        require(times.is_sorted(), "times go back")?;
        seen.clear();
        for class in &self.classes {
            require((1..=63).contains(&class.name.len()), "a class' name is too short or long")?;
            require(seen.insert(&class.name), "two classes have one name")?;
            let amounts = match &class.fare {
                Fare::Flat(amount) => std::slice::from_ref(amount),
                Fare::PerLeg(amounts) => amounts,
            };
            let legs = usize::from(self.legs());
            require(
                matches!(class.fare, Fare::Flat(_)) || amounts.len() == legs,
                "a fare has not one amount for each leg",
            )?;
            require(amounts.iter().all(|amount| *amount <= AMOUNT_MAX), "an amount is too high")?;
        }
        self.coaches.iter().try_for_each(|coach| coach.within_ranges(self.classes.len()))?;
        require(self.seats() <= SEATS_MAX, "a timetable has too many seats")
    }
}

impl Coach {
    fn within_ranges(&self, classes: usize) -> Result<(), &'static str> {
        require((1..=16).contains(&self.name.len()), "a coach's name is too short or too long")?;
        require(usize::from(self.class) < classes, "a coach has an unknown class")?;
        require((1..=1_000).contains(&self.seats), "a coach has too few or many seats")?;
        let layout = &self.layout;
        let letters = layout.bytes().filter(u8::is_ascii_uppercase).count();
        require(
            (1..=12).contains(&letters)
                && layout.bytes().all(|b| b.is_ascii_uppercase() || b == b'-')
                && !layout.starts_with('-')
                && !layout.ends_with('-'),
            "a row layout is not letters and aisles",
        )
    }
}

fn require(met: bool, why: &'static str) -> Result<(), &'static str> {
    if met { Ok(()) } else { Err(why) }
}

fn timetable(at: &mut Cursor<'_>) -> Result<Timetable, Malformed> {
    Ok(Timetable {
        name: at.text(ANY)?.to_owned(),
        stops: at.list(stop)?,
        classes: at.list(class)?,
        coaches: at.list(coach)?,
    })
}

fn stop(at: &mut Cursor<'_>) -> Result<Stop, Malformed> {
    Ok(Stop {
        code: at.text(ANY)?.to_owned(),
        name: at.text(ANY)?.to_owned(),
        arrives: at.option(Cursor::u16)?,
        departs: at.option(Cursor::u16)?,
    })
}

fn class(at: &mut Cursor<'_>) -> Result<Class, Malformed> {
    let name = at.text(ANY)?.to_owned();
    let fare = match at.u8()? {
        1 => Fare::Flat(at.u64()?),
        2 => Fare::PerLeg(at.list(Cursor::u64)?),
        _ => return Err(Malformed("unknown fare type")),
    };
    Ok(Class { name, fare })
}

fn coach(at: &mut Cursor<'_>) -> Result<Coach, Malformed> {
    Ok(Coach {
        name: at.text(ANY)?.to_owned(),
        class: at.u8()?,
        seats: at.u16()?,
        layout: at.text(ANY)?.to_owned(),
    })
}

fn run(at: &mut Cursor<'_>) -> Result<Run, Malformed> {
    Ok(Run {
        train: at.text(ANY)?.to_owned(),
        date: at.text(ANY)?.to_owned(),
        timetable: at.u16()?,
        homes: at.u16()?,
        withdrawn: false,
    })
}
