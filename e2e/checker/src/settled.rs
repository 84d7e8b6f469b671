//! Whether the topic of orders tells every change of the ledger once and in order. Written from
//! `docs/orders-topic.md` and `docs/ledger-format.md` alone.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;

use serde_json::{Value, json};

use crate::definition::Definition;
use crate::entry::{Entry, Request};
use crate::share::{Said, Verdict, Witness};
use crate::source::{Ledger, Part, Unreadable};
use crate::verify::{read_pool, start};
use crate::words::{OrderId, Seats};

/// Where the ledger says something: share, record, entry.
pub type Version = (u16, u64, usize);

/// What the topic must say of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The order.
    pub order: OrderId,
    /// The middle of `ce_type`.
    pub what: &'static str,
    /// The order's fields that must be there.
    pub fields: BTreeMap<&'static str, Value>,
}

/// A record of the topic.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Its key.
    pub key: String,
    /// Its headers.
    pub headers: HashMap<String, String>,
    /// Its value.
    pub value: Vec<u8>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Settled {
    /// Changes in the ledger.
    pub changes: u64,
    /// Records in the topic.
    pub told: u64,
    /// Changes that are not told.
    pub missing: u64,
    /// Changes that are told again.
    pub duplicated: u64,
    /// Records that tell what the ledger does not say.
    pub alien: u64,
    /// Records that differ from the change that they tell.
    pub wrong: u64,
    /// Records behind a later change of their order.
    pub disordered: u64,
    /// Some of what is wrong, in words.
    pub words: Vec<String>,
}

const WORDS_MAX: usize = 20;

impl Settled {
    fn find(&mut self, words: impl FnOnce() -> String) {
        if self.words.len() < WORDS_MAX {
            self.words.push(words());
        }
    }

    /// Whether the topic is as it must be.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.missing + self.duplicated + self.alien + self.wrong + self.disordered == 0
    }

    /// One JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "changes": self.changes, "told": self.told, "missing": self.missing,
            "duplicated": self.duplicated, "alien": self.alien, "wrong": self.wrong,
            "disordered": self.disordered, "words": self.words, "holds": self.holds(),
        })
    }

    /// For people.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(
            out,
            "{} changes in the ledger, {} records in the topic\nmissing {}, duplicated {}, alien \
             {}, wrong {}, out of order {}",
            self.changes,
            self.told,
            self.missing,
            self.duplicated,
            self.alien,
            self.wrong,
            self.disordered
        )?;
        self.words.iter().try_for_each(|words| writeln!(out, "{words}"))
    }
}

struct Known {
    run: u16,
    class: u8,
    from: u8,
    to: u8,
    price: u64,
    seats: Seats,
    lives: bool,
}

/// Gathers what one record says, until it is known whether it counts.
struct Hearing<'a> {
    definition: &'a Definition,
    known: &'a mut HashMap<(u16, OrderId), Known>,
    entry: usize,
    said: Vec<(Version, Change)>,
}

impl Hearing<'_> {
    fn fields(&self, known: &Known, state: Option<&str>) -> BTreeMap<&'static str, Value> {
        let mut fields = BTreeMap::new();
        fields.insert("priceMinor", json!(known.price));
        if let Some(state) = state {
            fields.insert("state", json!(state));
        }
        let run = &self.definition.runs[usize::from(known.run)];
        let timetable = &self.definition.timetables[usize::from(run.timetable)];
        let stop = |at: u8| json!(timetable.stops[usize::from(at)].code);
        fields.insert("run", json!(format!("{}/{}", run.train, run.date)));
        fields.insert("from", stop(known.from));
        fields.insert("to", stop(known.to));
        fields.insert("class", json!(timetable.classes[usize::from(known.class)].name));
        fields.insert("currency", json!(self.definition.currency));
        if known.lives {
            fields.insert("seats", json!(known.seats.all().len()));
        }
        fields
    }

    fn learn(&mut self, share: u16, order: OrderId, request: &Request, seats: Option<&Seats>) {
        let known = Known {
            run: request.run,
            class: request.class,
            from: request.from,
            to: request.to,
            price: request.price,
            seats: seats.cloned().unwrap_or_else(Seats::none),
            lives: seats.is_some(),
        };
        self.known.insert((share, order), known);
    }
}

impl Witness for Hearing<'_> {
    fn hear(&mut self, said: &Said<'_>) {
        let version = (said.share, said.offset, self.entry);
        self.entry += 1;
        if !said.applied {
            return;
        }
        let (order, what, state) = match said.entry {
            Entry::Held { order, request, seats, .. } => {
                self.learn(said.share, *order, request, Some(seats));
                (*order, "held", Some("held"))
            }
            Entry::Sent { order, request, .. } => {
                return self.learn(said.share, *order, request, None);
            }
            Entry::Paid { order, .. } => (*order, "paid", Some("paid")),
            Entry::Ended { order, why } => (*order, why.word(), Some(why.word())),
            Entry::Refunded { order, .. } => (*order, "payment-returned", None),
            _ => return,
        };
        let Some(known) = self.known.get(&(said.share, order)) else { return };
        // Where it does not live, only a payment's return is told.
        if known.lives || state.is_none() {
            let fields = self.fields(known, state);
            self.said.push((version, Change { order, what, fields }));
        }
    }
}

/// Everything that the topic must tell, of the part of the ledger that is there now.
///
/// # Errors
/// What keeps the ledger from being read.
pub fn changes(
    ledger: &mut dyn Ledger,
    name: Option<String>,
) -> Result<BTreeMap<Version, Change>, Unreadable> {
    let pool = read_pool(ledger, name, &mut |_, _, _| Ok(()))?;
    let founding = pool.founding().ok_or(Unreadable::NoGenesis)?;
    let definition = &founding.definition;
    let mut shares = start(founding);
    let mut known = HashMap::new();
    let mut changes = BTreeMap::new();
    ledger.read(Part::Shares, &mut |at, _, record| {
        let Some(share) = shares.get_mut(usize::from(at.partition) - 1) else { return Ok(()) };
        let mut hearing = Hearing { definition, known: &mut known, entry: 0, said: Vec::new() };
        if share.fold(at.offset, record, &mut hearing) == Verdict::Accepted {
            changes.extend(hearing.said);
        }
        Ok(())
    })?;
    Ok(changes)
}

/// Judges records of a topic, those of a partition in their order.
#[derive(Debug)]
pub struct Judge {
    changes: BTreeMap<Version, (Change, u64)>,
    last: HashMap<OrderId, Version>,
    settled: Settled,
}

impl Judge {
    /// Of a ledger that says this.
    #[must_use]
    pub fn new(changes: BTreeMap<Version, Change>) -> Self {
        let settled = Settled { changes: changes.len() as u64, ..Settled::default() };
        let changes = changes.into_iter().map(|(version, change)| (version, (change, 0))).collect();
        Self { changes, last: HashMap::new(), settled }
    }

    /// The next record.
    pub fn hear(&mut self, told: &Told) {
        self.settled.told += 1;
        let id = told.headers.get("ce_id").map(String::as_str).unwrap_or_default();
        let Some((version, (change, times))) =
            version(id).and_then(|v| self.changes.get_mut(&v).map(|found| (v, found)))
        else {
            self.settled.alien += 1;
            return self.settled.find(|| format!("alien: {id:?} of order {:?}", told.key));
        };
        *times += 1;
        if *times > 1 {
            self.settled.duplicated += 1;
            return self.settled.find(|| format!("again: {id} of order {}", told.key));
        }
        if let Err(why) = fits(told, change) {
            self.settled.wrong += 1;
            self.settled.find(|| format!("wrong: {id} of order {}: {why}", told.key));
        }
        if change.what != "payment-returned" {
            let last = self.last.insert(change.order, version);
            if last.is_some_and(|last| last > version) {
                self.settled.disordered += 1;
                self.settled.find(|| format!("out of order: {id} of order {}", told.key));
            }
        }
    }

    /// What was found.
    #[must_use]
    pub fn end(mut self) -> Settled {
        for ((share, offset, entry), (change, _)) in self.changes.iter().filter(|(_, c)| c.1 == 0) {
            self.settled.missing += 1;
            self.settled.find(|| {
                format!("missing: {share}-{offset}-{entry}: {} is {}", change.order, change.what)
            });
        }
        self.settled
    }
}

fn version(id: &str) -> Option<Version> {
    let mut parts = id.split('-');
    let version =
        (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(version)
}

fn fits(told: &Told, change: &Change) -> Result<(), String> {
    let order = change.order.to_string();
    let header = |name: &str, is: &str| match told.headers.get(name) {
        Some(has) if has == is => Ok(()),
        has => Err(format!("{name} is {has:?}, not {is:?}")),
    };
    header("ce_specversion", "1.0")?;
    header("ce_subject", &order)?;
    header("ce_type", &format!("dev.stationmaster.order.{}.v1", change.what))?;
    header("content-type", "application/json")?;
    if told.key != order {
        return Err(format!("its key is {:?}", told.key));
    }
    let value: Value = serde_json::from_slice(&told.value).map_err(|why| why.to_string())?;
    if value["id"] != json!(order) {
        return Err(format!("its id is {}", value["id"]));
    }
    for (name, is) in &change.fields {
        let has = match *name {
            "seats" => json!(value["seats"].as_array().map_or(0, Vec::len)),
            name => value[name].clone(),
        };
        if has != *is {
            return Err(format!("{name} is {has}, not {is}"));
        }
    }
    Ok(())
}
