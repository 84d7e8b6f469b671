//! Orders that travel: whether both ends of each attempt say the same.
//!
//! An attempt is remembered from both sides as the records pass by, in any order of partitions,
//! and judged when all are read.

use foldhash::HashMap;

use crate::entry::{Entry, Request};
use crate::report::{Findings, Promise};
use crate::share::Said;
use crate::words::{OrderId, Place, Seats, Why};

/// A share may forget an order this long after it ended, and refuse it then.
const FORGOTTEN_AFTER_MS: u64 = 86_400_000;

/// What one entry said of an attempt, and where.
#[derive(Clone, Debug)]
struct Word<T> {
    at: Place,
    /// Whether this reading holds all that the record may refer to.
    settled: bool,
    says: T,
}

/// A Held on a share that is not the order's home.
#[derive(Clone, Debug)]
struct Guest {
    request: Request,
    seats: Seats,
    deadline: u64,
    paid: Option<Place>,
    ended: Option<(Place, Why, u64)>,
}

/// One try to place an order on another share.
#[derive(Clone, Debug, Default)]
struct Attempt {
    // Said at home. An attempt's number is used once, so more than one Sent is a defect.
    sent: Vec<Word<(u16, Request)>>,
    placed: Option<Word<(Seats, u64)>>,
    returned: Option<Word<()>>,
    paid: Option<Word<()>>,
    closed: Option<Word<Why>>,
    // Said elsewhere.
    guests: Vec<Word<Guest>>,
    refused: Vec<Word<u64>>,
}

/// All attempts.
#[derive(Debug, Default)]
pub struct Travels {
    attempts: HashMap<(OrderId, u16), Attempt>,
}

impl Travels {
    /// Takes note of an entry that was applied.
    pub fn hear(&mut self, said: &Said<'_>, settled: bool) {
        let at = Place { partition: said.share, offset: said.offset };
        let now = said.header.now;
        match said.entry {
            Entry::Held { order, attempt, request, seats, deadline } if *attempt > 0 => {
                let (seats, deadline) = (seats.clone(), *deadline);
                let says = Guest { request: *request, seats, deadline, paid: None, ended: None };
                self.attempt(*order, *attempt).guests.push(Word { at, settled, says });
            }
            Entry::Sent { order, attempt, to, request } => {
                let says = (*to, *request);
                self.attempt(*order, *attempt).sent.push(Word { at, settled, says });
            }
            Entry::Placed { order, attempt, seats, deadline } => {
                let says = (seats.clone(), *deadline);
                self.attempt(*order, *attempt).placed = Some(Word { at, settled, says });
            }
            Entry::Returned { order, attempt } => {
                self.attempt(*order, *attempt).returned = Some(Word { at, settled, says: () });
            }
            Entry::Closed { order, attempt, why } => {
                self.attempt(*order, *attempt).closed = Some(Word { at, settled, says: *why });
            }
            Entry::Refused { order, attempt } => {
                self.attempt(*order, *attempt).refused.push(Word { at, settled, says: now });
            }
            Entry::Paid { order, .. } => {
                let Some(attempt) = said.attempt.filter(|attempt| *attempt > 0) else { return };
                let known = self.attempt(*order, attempt);
                if order.home == said.share {
                    known.paid = Some(Word { at, settled, says: () });
                } else if let Some(guest) = known.guest(said.share) {
                    guest.paid = Some(at);
                }
            }
            Entry::Ended { order, why } if order.home != said.share => {
                let Some(attempt) = said.attempt else { return };
                if let Some(guest) = self.attempt(*order, attempt).guest(said.share) {
                    guest.ended = Some((at, *why, now));
                }
            }
            _ => {}
        }
    }

    fn attempt(&mut self, order: OrderId, attempt: u16) -> &mut Attempt {
        self.attempts.entry((order, attempt)).or_default()
    }

    /// How many attempts there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.attempts.len()
    }

    /// How many attempts home has not learnt the outcome of.
    #[must_use]
    pub fn unresolved(&self) -> usize {
        let open = |a: &&Attempt| !a.sent.is_empty() && a.placed.is_none() && a.returned.is_none();
        self.attempts.values().filter(open).count()
    }

    /// Judges every attempt.
    pub fn judge(&self, findings: &mut Findings) {
        let mut all: Vec<_> = self.attempts.iter().collect();
        all.sort_unstable_by_key(|(id, _)| **id);
        for ((order, number), attempt) in all {
            let mut broken = |at: &[Place], says: &str| {
                findings.add(Promise::Travel, at, || format!("order {order}/{number}: {says}"));
            };
            attempt.judge_elsewhere(&mut broken);
            attempt.judge_home(&mut broken);
        }
    }
}

impl Attempt {
    fn guest(&mut self, share: u16) -> Option<&mut Guest> {
        self.guests.iter_mut().find(|g| g.at.partition == share).map(|g| &mut g.says)
    }

    fn judge_elsewhere(&self, broken: &mut dyn FnMut(&[Place], &str)) {
        if let [first, second, ..] = &self.sent[..] {
            broken(&[first.at, second.at], "sent twice");
        }
        if let [first, second, ..] = &self.guests[..] {
            broken(&[first.at, second.at], "held twice");
        }
        for guest in &self.guests {
            let here = guest.at.partition;
            match self.sent.first() {
                None if guest.settled => broken(&[guest.at], "held, but home never sent it"),
                Some(sent) if sent.says.0 != here => {
                    broken(&[sent.at, guest.at], "held on another share than it was sent to");
                }
                Some(sent) if !same(&sent.says.1, &guest.says.request) => {
                    broken(&[sent.at, guest.at], "held otherwise than home asked");
                }
                _ => {}
            }
            for refused in &self.refused {
                let forgotten = refused.at.partition == here
                    && guest.says.ended.is_some_and(|(ended, _, now)| {
                        ended.offset < refused.at.offset
                            && now.saturating_add(FORGOTTEN_AFTER_MS) <= refused.says
                    });
                if !forgotten {
                    broken(&[guest.at, refused.at], "both held and refused");
                }
            }
        }
    }

    fn judge_home(&self, broken: &mut dyn FnMut(&[Place], &str)) {
        let to = self.sent.first().map(|sent| sent.says.0);
        let guest = self.guests.iter().find(|guest| Some(guest.at.partition) == to);
        if let Some(placed) = &self.placed {
            match guest {
                None if placed.settled => broken(&[placed.at], "placed, but not held there"),
                None => {}
                Some(guest) => {
                    let says = &guest.says;
                    if says.seats != placed.says.0 {
                        broken(&[placed.at, guest.at], "placed with other seats than are held");
                    }
                    // Where it was paid or over before home learnt of it, Placed has home's time.
                    let moved_on = says.paid.is_some() || says.ended.is_some();
                    if says.deadline != placed.says.1 && !moved_on {
                        broken(&[placed.at, guest.at], "placed with another deadline");
                    }
                }
            }
        }
        if let (Some(returned), Some(guest)) = (&self.returned, self.guests.first()) {
            broken(&[returned.at, guest.at], "returned, but held there");
        }
        if let Some(paid) = self.paid.as_ref().filter(|paid| paid.settled)
            && guest.is_some_and(|guest| guest.says.paid.is_none())
        {
            broken(&[paid.at], "paid at home, but not there");
        }
        if let (Some(closed), Some(guest)) = (&self.closed, guest) {
            match guest.says.ended {
                None if closed.settled => {
                    broken(&[closed.at, guest.at], "closed at home, but live there");
                }
                Some((ended, why, _)) if why != closed.says => {
                    broken(&[closed.at, ended], "closed for another reason than it ended");
                }
                _ => {}
            }
        }
    }
}

/// Whether a Held is what home asked for. Either price is looked at by itself: fares may have
/// changed in between.
fn same(sent: &Request, held: &Request) -> bool {
    Request { price: held.price, ..*sent } == *held
}
