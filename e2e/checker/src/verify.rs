//! `verify`: reads a whole ledger and says whether every promise holds.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::answers::Told;
use crate::audit::{self, Audit};
use crate::entry::Block;
use crate::pool::{self, At, Founding, Pool};
use crate::report::{Findings, Promise, Report};
use crate::seats::{self, Balance};
use crate::share::{self, Fault, Share, State};
use crate::soldout::{self, History};
use crate::source::{Ledger, Part, Unreadable};
use crate::words::Place;

/// How long before a "sold out" a seat must have been free at least to make it a lie: 1.5 s, which
/// is how old a proof may be when it is found, 0.8 s, which is how long it may then wait for a
/// lease, and 5 s, after which no buyer waits any more.
pub const MARGIN_MS: u64 = 8_000;

/// What to look at besides the ledger.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// The ledger's name, if its container does not know it.
    pub name: Option<String>,
    /// Whether nobody sells any more, so that what is free now can be listed and bought, and what
    /// buyers heard is judged by all that happened.
    pub at_rest: bool,
    /// See `MARGIN_MS`.
    pub margin_ms: u64,
}

/// What `verify` found.
#[derive(Debug)]
pub struct Verified {
    /// Figures and broken promises.
    pub report: Report,
    /// Free stretches, of a ledger at rest.
    pub free: Vec<Value>,
}

/// Counts of records by what they did.
#[derive(Debug, Default)]
struct Tally {
    records: u64,
    accepted: u64,
    void: BTreeMap<&'static str, u64>,
    faults: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn pool(&mut self, at: Place, verdict: &pool::Verdict, findings: &mut Findings) {
        self.records += 1;
        match verdict {
            pool::Verdict::Accepted { .. } => self.accepted += 1,
            pool::Verdict::Void(void) => {
                *self.void.entry(void.word()).or_default() += 1;
            }
            pool::Verdict::Fault(why) => {
                *self.faults.entry(why.word()).or_default() += 1;
                findings.add(Promise::Fault, &[at], || format!("freezes the pool: {why}"));
            }
        }
    }

    fn share(&mut self, at: Place, verdict: share::Verdict, findings: &mut Findings) {
        self.records += 1;
        match verdict {
            share::Verdict::Accepted => self.accepted += 1,
            share::Verdict::Void(void) => {
                *self.void.entry(void.word()).or_default() += 1;
            }
            share::Verdict::Fault(fault) => {
                *self.faults.entry(fault.word()).or_default() += 1;
                // What follows the first fault of a share is its consequence.
                if fault != Fault::Frozen {
                    findings.add(Promise::Fault, &[at], || fault.says());
                }
            }
        }
    }
}

/// What is done with each record of the pool.
pub type EachOfPool<'a> = dyn FnMut(Place, &[u8], &pool::Verdict) -> Result<(), Unreadable> + 'a;

/// Folds partition 0.
pub fn read_pool(
    ledger: &mut dyn Ledger,
    name: Option<String>,
    each: &mut EachOfPool<'_>,
) -> Result<Pool, Unreadable> {
    let name = name.or_else(|| ledger.name().map(str::to_owned));
    let mut pool = Pool::new(name);
    ledger.read(Part::Pool, &mut |at, _, record| {
        let verdict = pool.fold(at.offset, record);
        each(at, record, &verdict)
    })?;
    Ok(pool)
}

/// The shares before their first record.
pub fn start(founding: &Founding) -> Vec<Share> {
    let mut blocks: BTreeMap<u16, Vec<Block>> = BTreeMap::new();
    for (run, index, _, _, at) in founding.blocks() {
        if let (At::Start(share), Some(block)) = (at, audit::block(founding, run, index)) {
            blocks.entry(share).or_default().push(block);
        }
    }
    (1..=founding.definition.shares)
        .map(|number| {
            let mine = blocks.get(&number).map_or(&[][..], Vec::as_slice);
            Share::new(founding.ledger, number, mine)
        })
        .collect()
}

/// Reads and judges.
pub fn verify(
    ledger: &mut dyn Ledger,
    told: &[Told],
    wishes: &Wishes,
) -> Result<Verified, Unreadable> {
    let mut tally = Tally::default();
    let mut findings = Findings::default();
    let pool = read_pool(ledger, wishes.name.clone(), &mut |at, _, verdict| {
        tally.pool(at, verdict, &mut findings);
        Ok(())
    })?;
    let founding = pool.founding().ok_or(Unreadable::NoGenesis)?;
    let shares_due = founding.definition.shares;
    let partitions = ledger.partitions();
    if partitions <= shares_due {
        return Err(Unreadable::Partitions { shares: shares_due, partitions });
    }
    let settled = (0..partitions).map(|partition| ledger.settled(partition)).collect();
    let mut audit = Audit::new(founding, settled, told);
    audit.findings = findings;
    if wishes.at_rest {
        audit.history = History::new(told, founding);
    }
    let mut shares = start(founding);
    let mut beyond = 0u64;
    ledger.read(Part::Shares, &mut |at, appended, record| {
        audit.appended = appended;
        match shares.get_mut(usize::from(at.partition).wrapping_sub(1)) {
            Some(share) => {
                let verdict = share.fold(at.offset, record, &mut audit);
                tally.share(at, verdict, &mut audit.findings);
            }
            None => beyond += 1,
        }
        Ok(())
    })?;

    let mut report = Report::default();
    if beyond > 0 {
        report.notes.push(format!("{beyond} records lie in partitions that no share has"));
    }
    records(&mut report, &tally, &audit);
    orders(&mut report, &shares);
    lapsed(&mut report, &mut audit.late_ms);
    stock(&mut report, founding, &shares, &mut audit);
    promises(&mut report, told, founding, &mut audit);
    let mut free = Vec::new();
    if wishes.at_rest {
        let findings = &mut audit.findings;
        let wrong = soldout::judge(told, founding, &audit.history, wishes.margin_ms, findings);
        report.figure("answers.sold-out-wrongly", wrong);
        free = seats::free(founding, &shares, pool.frozen());
    }
    for promise in Promise::ALL {
        report.figure(format!("broken.{}", promise.word()), audit.findings.count(promise));
    }
    report.findings = audit.findings;
    Ok(Verified { report, free })
}

fn records(report: &mut Report, tally: &Tally, audit: &Audit<'_>) {
    report.figure("records", tally.records);
    report.figure("records.accepted", tally.accepted);
    report.figure("records.void", tally.void.values().sum::<u64>());
    for (why, count) in &tally.void {
        report.figure(format!("records.void.{why}"), *count);
    }
    report.figure("records.fault", tally.faults.values().sum::<u64>());
    for (why, count) in &tally.faults {
        report.figure(format!("records.fault.{why}"), *count);
    }
    report.figure("chains.broken", tally.faults.get("chain").copied().unwrap_or(0));
    report.figure("entries", audit.said.values().sum::<u64>());
    for (name, count) in &audit.said {
        report.figure(format!("entries.{name}"), *count);
    }
    report.figure("epochs", audit.claims());
}

fn orders(report: &mut Report, shares: &[Share]) {
    let mut states: BTreeMap<String, u64> = BTreeMap::new();
    for share in shares {
        for order in share.orders() {
            let guest = if order.id.home == share.number() { "" } else { "guest." };
            let state = match order.state {
                State::Held => "held",
                State::Paid => "paid",
                State::Ended(why) => why.word(),
                State::Sent => "sent",
                State::Seeking => "seeking",
                State::Placed { paid: false } => "placed",
                State::Placed { paid: true } => "placed-paid",
                State::Closed => "closed",
            };
            *states.entry(format!("orders.{guest}{state}")).or_default() += 1;
        }
    }
    report.figure("orders", states.values().sum::<u64>());
    for (state, count) in states {
        report.figure(state, count);
    }
    report.figure("shares", shares.len());
    report.figure("shares.claimed", shares.iter().filter(|s| s.epoch() > 0).count());
    report.figure("shares.frozen", shares.iter().filter(|s| s.frozen()).count());
}

/// How late holds were ended. A node that took a share over waits, so only a quiet ledger tells
/// what its nodes can do.
fn lapsed(report: &mut Report, late_ms: &mut [u32]) {
    late_ms.sort_unstable();
    let rank = |percent: usize| (late_ms.len() * percent).div_ceil(100).max(1) - 1;
    for (name, percent) in [("p50", 50), ("p99", 99), ("max", 100)] {
        if let Some(late) = late_ms.get(rank(percent)) {
            report.figure(format!("holds.late-ms.{name}"), *late);
        }
    }
}

fn stock(report: &mut Report, founding: &Founding, shares: &[Share], audit: &mut Audit<'_>) {
    let mut entered = std::mem::take(&mut audit.entered);
    seats::conserve(founding, shares, &mut entered, &mut audit.findings);
    let balance: Balance = seats::balance(founding, shares, audit);
    report.figure("seat-legs", balance.total);
    report.figure("seat-legs.sold", balance.sold);
    report.figure("seat-legs.held", balance.held);
    report.figure("seat-legs.free", balance.free);
    report.figure("seat-legs.pool", balance.pool);
    report.figure("seat-legs.under-way", balance.under_way);
    report.figure("seat-legs.difference", balance.difference());
    report.figure("seat-legs.stranded", balance.stranded);
}

fn promises(report: &mut Report, told: &[Told], founding: &Founding, audit: &mut Audit<'_>) {
    report.figure("seat-legs.sold-twice", audit.book.sold_twice(&mut audit.findings));
    let (keys, orders) = audit.book.doubled(&mut audit.findings);
    report.figure("keys.two-live-orders", keys);
    report.figure("orders.live-twice", orders);
    report.figure("travel.attempts", audit.travels.count());
    report.figure("travel.unresolved", audit.travels.unresolved());
    audit.travels.judge(&mut audit.findings);
    audit.watched.judge(told, founding, &audit.book, &mut audit.findings);
    report.figure("answers", told.len());
    report.figure("answers.confirmed", told.iter().filter(|t| t.confirms.is_some()).count());
    let missing = audit.findings.count(Promise::ConfirmedMissing);
    report.figure("answers.confirmed-missing", missing);
    report.figure("answers.sold-out", told.iter().filter(|t| soldout::is_sold_out(t)).count());
}
