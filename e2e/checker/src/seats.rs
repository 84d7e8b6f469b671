//! Where every seat is: blocks in exactly one place, legs accounted for each once, what is free.

use std::collections::BTreeMap;

use foldhash::HashMap;
use serde_json::{Value, json};

use crate::audit::{Audit, Entered};
use crate::pool::{At, Founding};
use crate::report::{Findings, Promise};
use crate::share::Share;
use crate::words::{Place, legs, stretches};

/// Legs of seats, by where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// By the definition in force.
    pub total: u64,
    /// Of paid orders.
    pub sold: u64,
    /// Of orders that wait for payment.
    pub held: u64,
    /// Free in shares.
    pub free: u64,
    /// In the pool.
    pub pool: u64,
    /// Given to a share that has not accepted them.
    pub under_way: u64,
    /// Free in shares that a fault froze; counted in `free` as well.
    pub stranded: u64,
}

impl Balance {
    /// What is there beyond the definition, or less than it.
    #[must_use]
    pub fn difference(&self) -> i128 {
        let there = [self.sold, self.held, self.free, self.pool, self.under_way];
        there.iter().map(|legs| i128::from(*legs)).sum::<i128>() - i128::from(self.total)
    }
}

/// Whether a block that was given to a share is still to be accepted.
fn under_way(share: Option<&Share>, take: u64) -> bool {
    share.and_then(Share::accepted).is_none_or(|accepted| accepted < take)
}

/// Finds blocks in no place or in two.
pub fn conserve(
    founding: &Founding,
    shares: &[Share],
    entered: &mut [Entered],
    findings: &mut Findings,
) {
    entered.sort_unstable();
    let mut rest = &*entered;
    for (run, index, cut, _, at) in founding.blocks() {
        let before = rest.iter().take_while(|e| (e.run, e.index) < (run, index)).count();
        rest = &rest[before..];
        let here = rest.iter().take_while(|e| (e.run, e.index) == (run, index)).count();
        let (accepts, behind) = rest.split_at(here);
        rest = behind;
        let elsewhere = match at {
            At::Pool | At::Start(_) => true,
            At::Given(share, take) => under_way(share_of(shares, share), take),
        };
        let places = here + usize::from(elsewhere);
        if places == 1 {
            continue;
        }
        let at: Vec<Place> = accepts.iter().map(|e| e.at).collect();
        findings.add(Promise::Stock, &at, || {
            let run = founding.definition.run_name(run);
            let seats = format!("seats {}..{}", cut.first, cut.end);
            format!("block {index} of {run} ({seats}) is in {places} places")
        });
    }
}

fn share_of(shares: &[Share], number: u16) -> Option<&Share> {
    shares.get(usize::from(number).checked_sub(1)?)
}

/// Adds up the legs of all seats, and compares free and held legs of every seat of every share.
pub fn balance(founding: &Founding, shares: &[Share], audit: &mut Audit<'_>) -> Balance {
    let mut sum = Balance::default();
    let mut taken: HashMap<(u16, u16, u8, u16), u128> = HashMap::default();
    for live in audit.book.live() {
        let legs_held = live.seat_legs();
        *(if live.paid { &mut sum.sold } else { &mut sum.held }) += legs_held;
        for seat in live.seats.all() {
            let at = (live.held.partition, live.run, live.class, *seat);
            *taken.entry(at).or_default() |= legs(live.from, live.to);
        }
    }
    for run in 0..founding.places.len() {
        let table = u16::try_from(run).ok().and_then(|run| founding.definition.run(run));
        sum.total += table.map_or(0, |(_, t)| t.seats() as u64 * u64::from(t.legs()));
    }
    for (_, _, cut, stops, at) in founding.blocks() {
        let legs = u64::from(cut.seats()) * u64::from(stops.saturating_sub(1));
        match at {
            At::Pool => sum.pool += legs,
            At::Given(share, take) if under_way(share_of(shares, share), take) => {
                sum.under_way += legs;
            }
            At::Start(_) | At::Given(..) => {}
        }
    }
    for (number, share) in (1..).zip(shares) {
        let free = seats_of(number, share, &mut taken, &mut audit.findings);
        sum.free += free;
        sum.stranded += if share.frozen() { free } else { 0 };
    }
    for (share, run, _, seat) in taken.keys() {
        audit.findings.add(Promise::Balance, &[], || {
            format!("share {share} holds seat {seat} of run {run}, which it does not have")
        });
    }
    let difference = sum.difference();
    if difference != 0 {
        audit.findings.add(Promise::Balance, &[], || {
            format!("{difference} legs of seats more than the definition has")
        });
    }
    sum
}

/// The free legs of a share. Each seat's free and held legs are all of its legs, each once.
fn seats_of(
    number: u16,
    share: &Share,
    taken: &mut HashMap<(u16, u16, u8, u16), u128>,
    findings: &mut Findings,
) -> u64 {
    let mut sum = 0;
    for (run, class, stock) in share.stock() {
        let whole = stock.whole();
        for (first, block) in &stock.blocks {
            for seat in *first..block.end {
                let at = usize::from(seat - first);
                let free = block.seats().and_then(|s| s.get(at)).copied().unwrap_or(whole);
                let held = taken.remove(&(number, run, class, seat)).unwrap_or(0);
                sum += u64::from(free.count_ones());
                if free & held != 0 || free | held != whole {
                    findings.add(Promise::Balance, &[], || {
                        format!(
                            "seat {seat} of run {run} on share {number}: free {free:#b}, held \
                             {held:#b}"
                        )
                    });
                }
            }
        }
    }
    sum
}

/// How many seats are free on exactly these legs and no further.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    shares: u64,
    pool: u64,
    under_way: u64,
    frozen: u64,
}

/// Every maximal stretch that is free, with its seats, as JSON lines.
#[must_use]
pub fn free(founding: &Founding, shares: &[Share], pool_frozen: bool) -> Vec<Value> {
    let mut counts: BTreeMap<(u16, u8, u8, u8), Count> = BTreeMap::new();
    for share in shares {
        for (run, class, stock) in share.stock() {
            for (first, block) in &stock.blocks {
                for at in 0..usize::from(block.end - first) {
                    let touched = block.seats().and_then(|seats| seats.get(at));
                    let mask = touched.copied().unwrap_or_else(|| stock.whole());
                    for (from, to) in stretches(mask) {
                        let count = counts.entry((run, class, from, to)).or_default();
                        *(if share.frozen() { &mut count.frozen } else { &mut count.shares }) += 1;
                    }
                }
            }
        }
    }
    for (run, _, cut, stops, at) in founding.blocks() {
        let count = counts.entry((run, cut.class, 0, stops.saturating_sub(1))).or_default();
        let seats = u64::from(cut.seats());
        match at {
            At::Pool if pool_frozen => count.frozen += seats,
            At::Pool => count.pool += seats,
            At::Given(share, take) => {
                let share = share_of(shares, share);
                if under_way(share, take) {
                    let frozen = share.is_some_and(Share::frozen);
                    *(if frozen { &mut count.frozen } else { &mut count.under_way }) += seats;
                }
            }
            At::Start(_) => {}
        }
    }
    let some = |count: &Count| count.shares + count.pool + count.under_way + count.frozen > 0;
    counts.retain(|_, count| some(count));
    counts.into_iter().map(|(at, count)| line(founding, at, count)).collect()
}

fn line(founding: &Founding, (run, class, from, to): (u16, u8, u8, u8), count: Count) -> Value {
    let table = founding.definition.run(run).map(|(_, table)| table);
    let class_name = table.and_then(|t| t.classes.get(usize::from(class))).map(|c| &c.name);
    let code = |stop: u8| table.and_then(|t| t.stops.get(usize::from(stop))).map(|s| &s.code);
    json!({
        "run": founding.definition.run_name(run),
        "class": class_name,
        "from": code(from),
        "to": code(to),
        "fromStop": from,
        "toStop": to,
        "seats": count.shares + count.pool + count.under_way,
        "inShares": count.shares,
        "inPool": count.pool,
        "underWay": count.under_way,
        "frozen": count.frozen,
    })
}
