//! Live orders as the log says them, and from them alone: who sits where.
//!
//! This is the check beside the fold. It keeps no masks of free legs and asks no fold; it lays the
//! journeys of all live orders side by side and looks for two that overlap on one seat.

use crate::bytes::Hash;
use crate::entry::Entry;
use crate::kept::{Kept, Keyed};
use crate::report::{Findings, Promise};
use crate::share::Said;
use crate::words::{OrderId, Place, Seats};

/// An order that holds seats.
#[derive(Clone, Debug)]
pub struct Live {
    /// The order.
    pub id: OrderId,
    /// Its Held.
    pub held: Place,
    /// The key under which it was asked for.
    pub key: Hash,
    /// Index of the run.
    pub run: u16,
    /// Index of the class.
    pub class: u8,
    /// Stop.
    pub from: u8,
    /// Stop.
    pub to: u8,
    /// Its seats.
    pub seats: Seats,
    /// Until when payment is awaited.
    pub deadline: u64,
    /// Whether it was paid.
    pub paid: bool,
}

impl Live {
    /// How many legs of seats it holds.
    #[must_use]
    pub fn seat_legs(&self) -> u64 {
        u64::from(self.to - self.from) * self.seats.all().len() as u64
    }
}

impl Keyed for Live {
    type Key = (u16, OrderId);

    fn key(&self) -> (u16, OrderId) {
        (self.held.partition, self.id)
    }
}

/// All live orders of all shares.
#[derive(Debug, Default)]
pub struct Book {
    live: Kept<Live>,
    // What a faulty frame said was held. A share takes nothing after its first fault, so these are
    // no more than fit one frame for each share.
    untaken: Vec<Live>,
}

impl Book {
    /// Takes note of an entry. Gives back the order that it ended.
    pub fn hear(&mut self, said: &Said<'_>) -> Option<Live> {
        match said.entry {
            Entry::Held { order, request, seats, deadline, .. } => {
                let live = Live {
                    id: *order,
                    held: Place { partition: said.share, offset: said.offset },
                    key: request.key,
                    run: request.run,
                    class: request.class,
                    from: request.from,
                    to: request.to,
                    seats: seats.clone(),
                    deadline: *deadline,
                    paid: false,
                };
                if said.applied {
                    self.live.insert(live);
                } else {
                    self.untaken.push(live);
                }
                None
            }
            Entry::Paid { order, .. } if said.applied => {
                if let Some(live) = self.live.get_mut(&(said.share, *order)) {
                    live.paid = true;
                }
                None
            }
            Entry::Ended { order, .. } if said.applied => self.live.remove(&(said.share, *order)),
            _ => None,
        }
    }

    /// An order that is live on a share.
    #[must_use]
    pub fn get(&self, share: u16, order: OrderId) -> Option<&Live> {
        self.live.get(&(share, order))
    }

    /// All live orders.
    pub fn live(&self) -> impl Iterator<Item = &Live> {
        self.live.iter()
    }

    /// Finds legs of seats that two orders hold, and says how many.
    pub fn sold_twice(&self, findings: &mut Findings) -> u64 {
        let mut sold: Vec<(u16, u16, u8, &Live)> = Vec::new();
        for live in self.live.iter().chain(&self.untaken) {
            sold.extend(live.seats.all().iter().map(|seat| (live.run, *seat, live.from, live)));
        }
        sold.sort_unstable_by_key(|(run, seat, from, live)| (*run, *seat, *from, live.held));
        let mut twice = 0;
        let mut before: Option<(u16, u16, &Live)> = None;
        let mut counted = 0;
        for (run, seat, from, live) in sold {
            let last = before.filter(|(r, s, _)| (*r, *s) == (run, seat)).map(|(_, _, last)| last);
            if let Some(last) = last.filter(|last| from < last.to) {
                let behind = live.to.min(last.to);
                twice += u64::from(behind.saturating_sub(from.max(counted)));
                counted = counted.max(behind);
                findings.add(Promise::SoldTwice, &[last.held, live.held], || {
                    format!(
                        "seat {seat} of run {run} on legs {from}..{behind} is held for orders {} \
                         and {}",
                        last.id, live.id
                    )
                });
            }
            if last.is_none() {
                counted = 0;
            }
            if last.is_none_or(|last| live.to > last.to) {
                before = Some((run, seat, live));
            }
        }
        twice
    }

    /// Finds keys with two live orders, and orders that are live on two shares.
    pub fn doubled(&self, findings: &mut Findings) -> (u64, u64) {
        let mut all: Vec<&Live> = self.live.iter().collect();
        all.sort_unstable_by_key(|live| (live.id, live.held));
        let mut orders = 0;
        for two in all.windows(2).filter(|two| two[0].id == two[1].id) {
            orders += 1;
            findings.add(Promise::LiveTwice, &[two[0].held, two[1].held], || {
                format!("order {} is live on two shares", two[0].id)
            });
        }
        all.sort_unstable_by_key(|live| (live.key, live.id, live.held));
        let mut keys = 0;
        let two_orders = |two: &&[&Live]| two[0].key == two[1].key && two[0].id != two[1].id;
        for two in all.windows(2).filter(two_orders) {
            keys += 1;
            findings.add(Promise::KeyTwice, &[two[0].held, two[1].held], || {
                format!("orders {} and {} are live under one key", two[0].id, two[1].id)
            });
        }
        (keys, orders)
    }
}
