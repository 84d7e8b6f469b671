//! Runs and what is free on them: from the board and the pool, never from an owner's path.

use std::borrow::Cow;
use std::fmt::Write as _;

use arrayvec::ArrayString;
use bytes::Bytes;
use hyper::Request;
use inventory::definition::{Definition, StopTime, Timetable};
use inventory::legs::Journey;
use inventory::words::{ClassId, Millis, RunId};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::orders::journey;
use super::pages::Dated;
use super::problem::Problem;
use super::{Reply, Shop};
use crate::station::World;

/// A few letters on their way into an answer, without an allocation. Text that is longer than it can
/// be is cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Letters<const N: usize>(ArrayString<N>);

impl<const N: usize> Letters<N> {
    pub(crate) fn of(what: impl std::fmt::Display) -> Self {
        let mut letters = ArrayString::new();
        // What does not fit is an error, and what did is there.
        let _ = write!(letters, "{what}");
        Self(letters)
    }
}

impl<const N: usize> std::ops::Deref for Letters<N> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> Serialize for Letters<N> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self)
    }
}

/// A time as RFC 3339 in UTC, to the millisecond: `2027-02-01T08:00:00.000Z`, in a year that jiff
/// knows.
pub(crate) fn time(at: Millis) -> Letters<32> {
    let at = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(Letters::default, |t| Letters::of(format_args!("{t:.3}")))
}

/// All runs that serve a journey.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RunsBody<'a> {
    runs: Vec<RunBody<'a>>,
}

/// A run, and what is free on a journey of it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RunBody<'a> {
    /// `TRAIN/DATE`: how an order names it.
    run: String,
    /// Where it stops, in order.
    stops: Vec<StopBody<'a>>,
    /// Its classes.
    classes: Vec<ClassBody<'a>>,
    /// Whether the run is off sale: no new orders are taken.
    withdrawn: bool,
    /// When the sale opens, if that is set.
    opens: Option<String>,
    /// When the sale closes, if that is set.
    closes: Option<String>,
    /// When this was so, RFC 3339.
    #[serde(rename = "asOf")]
    as_of: String,
}

impl Dated for RunsBody<'_> {
    fn date(&mut self, time: &str) {
        self.runs.iter_mut().for_each(|run| run.date(time));
    }
}

impl Dated for RunBody<'_> {
    fn date(&mut self, time: &str) {
        time.clone_into(&mut self.as_of);
    }
}

/// A stop.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StopBody<'a> {
    /// How an order names it.
    code: &'a str,
    /// How people name it.
    name: &'a str,
    /// `HH:MM` from midnight of the run's date in the sale's time zone; may pass 24:00.
    #[schemars(with = "Option<String>")]
    arrives: Option<Clock>,
    /// As `arrives`.
    #[schemars(with = "Option<String>")]
    departs: Option<Clock>,
}

/// Minutes from midnight.
#[derive(Debug, Clone, Copy)]
struct Clock(u16);

impl Serialize for Clock {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:02}:{:02}", self.0 / 60, self.0 % 60))
    }
}

/// A class, and what is free in it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClassBody<'a> {
    /// How an order names it.
    name: &'a str,
    /// Seats that are free on the whole journey, each for one passenger.
    available: u32,
    /// Whether that is all; else at least so many, since part of the fleet was not heard of.
    complete: bool,
    /// What one passenger pays, in minor units.
    price_minor: Option<u64>,
    /// The currency of the price, ISO 4217.
    currency: &'a str,
}

/// `GET /v1/runs?from=&to=&date=`
pub(crate) fn list(shop: &Shop, request: &Request<Bytes>) -> Result<Reply, Problem> {
    let world = shop.station.world.borrow();
    shop.pages.give(request, shop.station.now(), || {
        let asked = Asked::read(request.uri().query().unwrap_or(""))?;
        let definition = world.pool().definition().ok_or_else(|| Problem::busy("starting"))?;
        let mut runs = Vec::new();
        for id in definition.run_ids() {
            let Some(timetable) = definition.timetable(id) else { continue };
            let run = &definition.runs[usize::from(id.0)];
            if asked.date.as_ref().is_some_and(|date| *date != run.date) {
                continue;
            }
            // A run that does not serve the stops in this order is simply not in the list.
            let Ok(journey) = asked.journey(timetable) else { continue };
            runs.push(describe(&world, definition, id, journey)?);
        }
        Ok(RunsBody { runs })
    })
}

/// `GET /v1/runs/{train}/{date}?from=&to=`
pub(crate) fn one(
    shop: &Shop,
    request: &Request<Bytes>,
    train: &str,
    date: &str,
) -> Result<Reply, Problem> {
    let world = shop.station.world.borrow();
    shop.pages.give(request, shop.station.now(), || {
        let asked = Asked::read(request.uri().query().unwrap_or(""))?;
        if asked.date.is_some() {
            return Err(Problem::invalid("date: the path has it"));
        }
        let definition = world.pool().definition().ok_or_else(|| Problem::busy("starting"))?;
        let (train, date) = (decoded(train)?, decoded(date)?);
        let id = definition.run(&train, &date);
        let id = id.ok_or_else(|| Problem::no_such_trip(format!("no run {train}/{date}")))?;
        let timetable = definition.timetable(id).ok_or_else(|| Problem::busy("starting"))?;
        let journey = asked.journey(timetable)?;
        describe(&world, definition, id, journey)
    })
}

/// The run of a query that may have one and nothing else.
pub(crate) fn run_of(query: &str) -> Result<Option<String>, Problem> {
    let mut run = None;
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name != "run" {
            return Err(Problem::invalid(format!("{name}: no such parameter")));
        }
        if run.replace(decoded(value)?.into_owned()).is_some() {
            return Err(Problem::invalid("run: given twice"));
        }
    }
    Ok(run)
}

/// Text of a path or query without its escapes (RFC 3986 2.1).
fn decoded(text: &str) -> Result<Cow<'_, str>, Problem> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded.map_err(|_| Problem::invalid("the address is not UTF-8"))
}

#[derive(Debug, Default)]
struct Asked<'a> {
    from: Option<Cow<'a, str>>,
    to: Option<Cow<'a, str>>,
    date: Option<Cow<'a, str>>,
}

impl<'a> Asked<'a> {
    fn read(query: &'a str) -> Result<Self, Problem> {
        let mut asked = Self::default();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let field = match name {
                "from" => &mut asked.from,
                "to" => &mut asked.to,
                "date" => &mut asked.date,
                other => return Err(Problem::invalid(format!("{other}: no such parameter"))),
            };
            if field.replace(decoded(value)?).is_some() {
                return Err(Problem::invalid(format!("{name}: given twice")));
            }
        }
        Ok(asked)
    }

    /// The journey asked for: from the first stop and to the last one, unless others are named.
    fn journey(&self, timetable: &Timetable) -> Result<Journey, Problem> {
        let code = |at: Option<&StopTime>| at.map_or_else(String::new, |stop| stop.code.clone());
        let first = || code(timetable.stops.first()).into();
        let last = || code(timetable.stops.last()).into();
        let from = self.from.clone().unwrap_or_else(first);
        journey(timetable, &from, &self.to.clone().unwrap_or_else(last))
    }
}

fn describe<'a>(
    world: &World,
    definition: &'a Definition,
    id: RunId,
    journey: Journey,
) -> Result<RunBody<'a>, Problem> {
    let run = &definition.runs[usize::from(id.0)];
    let timetable = definition.timetable(id).ok_or_else(|| Problem::busy("starting"))?;
    let mut classes = Vec::new();
    for (class, of_class) in (0..).map(ClassId).zip(&timetable.classes) {
        let counted = world.board().as_ref().map(|b| b.count(world.pool(), id, class, journey));
        // While some share was not heard of, the count is a lower bound and says so.
        let (available, complete) = counted.unwrap_or((0, false));
        let (available, complete) = if run.withdrawn { (0, true) } else { (available, complete) };
        classes.push(ClassBody {
            name: &of_class.name,
            available,
            complete,
            price_minor: timetable.fare(class, journey.from(), journey.to()),
            currency: &definition.currency,
        });
    }
    let policy = world.pool().policy();
    Ok(RunBody {
        run: format!("{}/{}", run.train, run.date),
        stops: timetable.stops.iter().map(stop).collect(),
        classes,
        withdrawn: run.withdrawn,
        opens: policy.and_then(|p| p.open).map(|at| time(at).to_string()),
        closes: policy.and_then(|p| p.close).map(|at| time(at).to_string()),
        as_of: String::new(),
    })
}

fn stop(stop: &StopTime) -> StopBody<'_> {
    StopBody {
        code: &stop.code,
        name: &stop.name,
        arrives: stop.arrives.map(Clock),
        departs: stop.departs.map(Clock),
    }
}
