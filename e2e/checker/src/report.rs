//! What was found: figures, broken promises with the records that break them, and notes.

use std::io::Write;

use serde_json::{Map, Value, json};

use crate::words::Place;

/// How many broken promises of a kind are spelled out. One defect repeated a million times is
/// counted a million times, and a hundred are enough to see what it is.
const SPELLED_OUT_MAX: usize = 100;

/// What must hold of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// No seat is sold twice on one leg.
    SoldTwice,
    /// What a buyer was told of is in the ledger.
    ConfirmedMissing,
    /// It is there as the buyer was told.
    ConfirmedDiffers,
    /// No key has two live orders.
    KeyTwice,
    /// No order is live on two shares.
    LiveTwice,
    /// Every block is in one place, and Accept repeats its Take.
    Stock,
    /// The legs of all seats are accounted for, each once.
    Balance,
    /// No owner writes what the fold cannot take; the pool neither.
    Fault,
    /// Both ends of a travelling order agree.
    Travel,
    /// One Claim for each share and epoch.
    Epoch,
    /// Order ids are made once, by their home, in its epoch.
    OrderId,
    /// Orders are of runs, classes and journeys that there are.
    Journey,
    /// A price is a fare times the passengers.
    Price,
    /// Nothing expires before its time.
    Expiry,
    /// Nobody hears "sold out" while a seat is free.
    SoldOut,
}

impl Promise {
    /// All of them, in the order of a report.
    pub const ALL: [Self; 15] = [
        Self::SoldTwice,
        Self::ConfirmedMissing,
        Self::ConfirmedDiffers,
        Self::KeyTwice,
        Self::LiveTwice,
        Self::Stock,
        Self::Balance,
        Self::Fault,
        Self::Travel,
        Self::Epoch,
        Self::OrderId,
        Self::Journey,
        Self::Price,
        Self::Expiry,
        Self::SoldOut,
    ];

    /// The word for figures.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::SoldTwice => "sold-twice",
            Self::ConfirmedMissing => "confirmed-missing",
            Self::ConfirmedDiffers => "confirmed-differs",
            Self::KeyTwice => "key-twice",
            Self::LiveTwice => "live-twice",
            Self::Stock => "stock",
            Self::Balance => "balance",
            Self::Fault => "fault",
            Self::Travel => "travel",
            Self::Epoch => "epoch",
            Self::OrderId => "order-id",
            Self::Journey => "journey",
            Self::Price => "price",
            Self::Expiry => "expiry",
            Self::SoldOut => "sold-out",
        }
    }
}

/// A promise that is broken, and where.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which.
    pub promise: Promise,
    /// The records that show it; none where it is the lack of one.
    pub at: Vec<Place>,
    /// What is wrong.
    pub says: String,
}

/// All findings, each counted, the first of each kind spelled out.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    counts: [u64; Promise::ALL.len()],
    kept: Vec<Finding>,
}

impl Findings {
    /// Adds one.
    pub fn add(&mut self, promise: Promise, at: &[Place], says: impl FnOnce() -> String) {
        let count = &mut self.counts[promise as usize];
        *count += 1;
        if *count <= SPELLED_OUT_MAX as u64 {
            self.kept.push(Finding { promise, at: at.to_vec(), says: says() });
        }
    }

    /// How many there are of a kind.
    #[must_use]
    pub const fn count(&self, promise: Promise) -> u64 {
        self.counts[promise as usize]
    }

    /// Those that are spelled out.
    #[must_use]
    pub fn kept(&self) -> &[Finding] {
        &self.kept
    }

    /// Whether there is none.
    #[must_use]
    pub fn none(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }
}

/// The result of `verify`.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Names and values, in reading order.
    pub figures: Vec<(String, i64)>,
    /// Broken promises.
    pub findings: Findings,
    /// What a reader should know, though it breaks no promise.
    pub notes: Vec<String>,
}

impl Report {
    /// Adds a figure. A count that no `i64` holds does not occur: it would need that many records.
    pub fn figure(&mut self, name: impl Into<String>, value: impl TryInto<i64>) {
        self.figures.push((name.into(), value.try_into().unwrap_or(i64::MAX)));
    }

    /// A figure by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<i64> {
        self.figures.iter().find(|(have, _)| have == name).map(|(_, value)| *value)
    }

    /// Whether every promise holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.findings.none()
    }

    /// One figure a line, then notes, then what is broken.
    pub fn write(&self, to: &mut dyn Write) -> std::io::Result<()> {
        for (name, value) in &self.figures {
            writeln!(to, "{name} {value}")?;
        }
        for note in &self.notes {
            writeln!(to, "note: {note}")?;
        }
        for finding in self.findings.kept() {
            write!(to, "broken {}:", finding.promise.word())?;
            for at in &finding.at {
                write!(to, " {at}")?;
            }
            writeln!(to, " {}", finding.says)?;
        }
        writeln!(to, "{}", if self.holds() { "all promises hold" } else { "promises are broken" })
    }

    /// The same as one JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        let figures: Map<_, _> =
            self.figures.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let broken: Vec<_> = self
            .findings
            .kept()
            .iter()
            .map(|f| json!({"promise": f.promise.word(), "at": f.at, "says": f.says}))
            .collect();
        let holds = self.holds();
        json!({"holds": holds, "figures": figures, "broken": broken, "notes": self.notes})
    }
}
