//! What a ledger sells, in JSON: a mirror of [`inventory::definition`], which knows no serde.
//!
//! The two are the same field by field; only reading can fail, since what is read must also be
//! possible to sell.

use inventory::definition as of;
use inventory::words::ClassId;
use serde::{Deserialize, Serialize};

/// All that a ledger sells. See [`of::Definition`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Definition {
    /// The ledger's name; also its topic.
    pub ledger: String,
    /// ISO 4217 code of all amounts.
    pub currency: String,
    /// IANA name of the zone that stop times are in.
    pub time_zone: String,
    /// How many shares there are.
    pub shares: u16,
    /// How many percent of each class's blocks stay in the pool at first.
    pub buffer_percent: u8,
    /// Seats of a block at most.
    pub block_seats: u16,
    /// Timetables, in order.
    pub timetables: Vec<Timetable>,
    /// Runs, in the order in which they entered.
    pub runs: Vec<Run>,
}

/// Stops, classes and coaches. See [`of::Timetable`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Timetable {
    /// Its name.
    pub name: String,
    /// Stops in travel order.
    pub stops: Vec<Stop>,
    /// Classes with their fares.
    pub classes: Vec<Class>,
    /// Coaches in train order.
    pub coaches: Vec<Coach>,
}

/// A stop; times are minutes from midnight of the run's date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stop {
    /// The station's code.
    pub code: String,
    /// What people call it; may be empty.
    pub name: String,
    /// When the train arrives.
    pub arrives: Option<u16>,
    /// When it departs.
    pub departs: Option<u16>,
}

/// A class of seats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// What a journey costs.
    pub fare: Fare,
}

/// What a journey costs per passenger, in minor units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Fare {
    /// One amount for every journey.
    Flat(u64),
    /// An amount for each leg.
    PerLeg(Vec<u64>),
}

/// A coach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Coach {
    /// Its name on the ticket.
    pub name: String,
    /// Index of its class in the timetable.
    pub class: u8,
    /// How many seats it has.
    pub seats: u16,
    /// Letters of a row with `-` for an aisle.
    pub row_layout: String,
}

/// One train on one date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Run {
    /// The train's number.
    pub train: String,
    /// `YYYY-MM-DD`.
    pub date: String,
    /// Index of its timetable.
    pub timetable: u16,
    /// On how many shares it lives.
    pub homes: u16,
    /// Whether it is off sale; absent from what an older operator says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withdrawn: bool,
}

impl From<of::Definition> for Definition {
    fn from(d: of::Definition) -> Self {
        Self {
            ledger: d.ledger,
            currency: d.currency,
            time_zone: d.time_zone,
            shares: d.shares,
            buffer_percent: d.buffer_percent,
            block_seats: d.block_seats,
            timetables: d.timetables.into_iter().map(Into::into).collect(),
            runs: d.runs.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<Definition> for of::Definition {
    type Error = of::BadDefinition;

    fn try_from(d: Definition) -> Result<Self, of::BadDefinition> {
        let definition = Self {
            ledger: d.ledger,
            currency: d.currency,
            time_zone: d.time_zone,
            shares: d.shares,
            buffer_percent: d.buffer_percent,
            block_seats: d.block_seats,
            timetables: d.timetables.into_iter().map(Into::into).collect(),
            runs: d.runs.into_iter().map(Into::into).collect(),
        };
        definition.check()?;
        Ok(definition)
    }
}

impl From<of::Timetable> for Timetable {
    fn from(t: of::Timetable) -> Self {
        Self {
            name: t.name,
            stops: t.stops.into_iter().map(Into::into).collect(),
            classes: t.classes.into_iter().map(Into::into).collect(),
            coaches: t.coaches.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Timetable> for of::Timetable {
    fn from(t: Timetable) -> Self {
        Self {
            name: t.name,
            stops: t.stops.into_iter().map(Into::into).collect(),
            classes: t.classes.into_iter().map(Into::into).collect(),
            coaches: t.coaches.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<of::StopTime> for Stop {
    fn from(s: of::StopTime) -> Self {
        Self { code: s.code, name: s.name, arrives: s.arrives, departs: s.departs }
    }
}

impl From<Stop> for of::StopTime {
    fn from(s: Stop) -> Self {
        Self { code: s.code, name: s.name, arrives: s.arrives, departs: s.departs }
    }
}

impl From<of::Class> for Class {
    fn from(c: of::Class) -> Self {
        let fare = match c.fare {
            of::Fare::Flat(amount) => Fare::Flat(amount),
            of::Fare::PerLeg(amounts) => Fare::PerLeg(amounts),
        };
        Self { name: c.name, fare }
    }
}

impl From<Class> for of::Class {
    fn from(c: Class) -> Self {
        let fare = match c.fare {
            Fare::Flat(amount) => of::Fare::Flat(amount),
            Fare::PerLeg(amounts) => of::Fare::PerLeg(amounts),
        };
        Self { name: c.name, fare }
    }
}

impl From<of::Coach> for Coach {
    fn from(c: of::Coach) -> Self {
        Self { name: c.name, class: c.class.0, seats: c.seats, row_layout: c.row_layout }
    }
}

impl From<Coach> for of::Coach {
    fn from(c: Coach) -> Self {
        Self { name: c.name, class: ClassId(c.class), seats: c.seats, row_layout: c.row_layout }
    }
}

impl From<of::Run> for Run {
    fn from(r: of::Run) -> Self {
        let of::Run { train, date, timetable, homes, withdrawn } = r;
        Self { train, date, timetable, homes, withdrawn }
    }
}

impl From<Run> for of::Run {
    fn from(r: Run) -> Self {
        let Run { train, date, timetable, homes, withdrawn } = r;
        Self { train, date, timetable, homes, withdrawn }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One run of 90 seats and two legs, with both kinds of fare.
    pub(crate) fn small() -> of::Definition {
        let stop = |code: &str, arrives, departs| of::StopTime {
            code: code.into(),
            name: String::new(),
            arrives,
            departs,
        };
        let class = |name: &str, fare| of::Class { name: name.into(), fare };
        let coach = |name: &str, class, seats| of::Coach {
            name: name.into(),
            class: ClassId(class),
            seats,
            row_layout: "ABC-DF".into(),
        };
        of::Definition {
            ledger: "tickets.demo".into(),
            currency: "CNY".into(),
            time_zone: "UTC".into(),
            shares: 4,
            buffer_percent: 20,
            block_seats: 8,
            timetables: vec![of::Timetable {
                name: "g101".into(),
                stops: vec![
                    stop("BJP", None, Some(420)),
                    stop("JNK", Some(502), Some(505)),
                    stop("SHH", Some(760), None),
                ],
                classes: vec![
                    class("First", of::Fare::PerLeg(vec![30_000, 60_000])),
                    class("Second", of::Fare::Flat(55_300)),
                ],
                coaches: vec![coach("1", 0, 30), coach("2", 1, 60)],
            }],
            runs: vec![of::Run {
                train: "G101".into(),
                date: "2027-02-01".into(),
                timetable: 0,
                homes: 1,
                withdrawn: false,
            }],
        }
    }

    #[test]
    fn a_definition_survives_the_way_through_json() {
        let json = serde_json::to_string(&Definition::from(small())).unwrap();
        let back: Definition = serde_json::from_str(&json).unwrap();
        assert_eq!(of::Definition::try_from(back).unwrap(), small());
    }

    #[test]
    fn what_cannot_be_sold_is_refused_when_it_is_read() {
        let mut definition = Definition::from(small());
        definition.runs[0].timetable = 7;
        let error = of::Definition::try_from(definition).unwrap_err();
        assert_eq!(error.path, "runs[0].timetable");
    }
}
