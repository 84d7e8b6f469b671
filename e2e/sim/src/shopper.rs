//! A buyer with one wish: presses, waits, presses again with the same key, pays or does not.

use inventory::entry::{End, OrderRequest};
use inventory::legs::Journey;
use inventory::owner::{Answer, OrderView, Status};
use inventory::pool::Pool;
use inventory::state::{Command, Refusal};
use inventory::words::{ClassId, OrderId, RunId, ShareId};

use crate::rng::Rng;
use crate::scenario::{Purchase, Then};

/// What a buyer is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Place,
    Pay,
    Cancel,
    Read,
    Done,
}

/// One buyer's wish, and how far it is.
#[derive(Debug)]
pub(crate) struct Shopper {
    pub(crate) wish: Purchase,
    pub(crate) stage: Stage,
    pub(crate) run: RunId,
    pub(crate) class: ClassId,
    pub(crate) journey: Journey,
    /// The order of which this buyer was told.
    pub(crate) order: Option<OrderId>,
    price: u64,
    pub(crate) rng: Rng,
    /// Refusals that may be over soon.
    refusals: u32,
    /// What it came to.
    pub(crate) end: Option<&'static str>,
}

/// What a buyer does after an answer: press again after so many milliseconds, if at all.
pub(crate) type Next = Option<u64>;

impl Shopper {
    pub(crate) fn new(wish: Purchase, runs: usize, classes: usize) -> Self {
        let index = |n: u16, of: usize| n % u16::try_from(of).unwrap_or(1).max(1);
        let class = u8::try_from(index(wish.class.into(), classes)).unwrap_or(0);
        let journey = Journey::new(wish.from, wish.from + wish.legs);
        Self {
            wish,
            stage: Stage::Place,
            run: RunId(index(wish.run, runs)),
            class: ClassId(class),
            journey: journey.unwrap_or_else(|| unreachable!("a journey has at least a leg")),
            order: None,
            price: 0,
            rng: Rng::new(wish.salt, 9),
            refusals: 0,
            end: None,
        }
    }

    /// What pressing now means, and for which share, as the node's HTTP layer works it out.
    pub(crate) fn command(&self, pool: &Pool, at: usize) -> Option<(ShareId, Command)> {
        let (definition, secret) = (pool.definition()?, pool.key()?);
        let buyer = secret.buyer(&format!("buyer {}", self.wish.buyer));
        let order = self.order;
        let command = match self.stage {
            Stage::Place => {
                definition.timetable(self.run)?;
                let key = format!("key {at}");
                let documents: Vec<String> =
                    (0..self.wish.party).map(|i| format!("passenger {at} {i}")).collect();
                let body = format!("{self_:?}", self_ = (self.run, self.class, self.journey));
                let mut parts = vec![body.as_bytes()];
                parts.extend(documents.iter().map(String::as_bytes));
                let request = OrderRequest {
                    key: secret.key(buyer, self.run, &key),
                    body: secret.body(&parts),
                    buyer,
                    run: self.run,
                    class: self.class,
                    journey: self.journey,
                    prefer: None,
                    passengers: documents.iter().map(|d| secret.passenger(d)).collect(),
                    price: 0,
                };
                return Some((definition.home(self.run, buyer), Command::Place(request)));
            }
            Stage::Pay => {
                let payment = secret.hash(5, &[format!("payment {at}").as_bytes()]);
                Command::Pay { order: order?, buyer: Some(buyer), payment, amount: self.price }
            }
            Stage::Cancel => Command::Cancel { order: order?, buyer },
            Stage::Read => Command::Read { order: order?, buyer },
            Stage::Done => return None,
        };
        Some((order?.home, command))
    }

    /// What looking at one's order again means, and for which share.
    pub(crate) fn look(&self, pool: &Pool) -> Option<(ShareId, Command)> {
        let buyer = pool.key()?.buyer(&format!("buyer {}", self.wish.buyer));
        let order = self.order?;
        Some((order.home, Command::Read { order, buyer }))
    }

    fn finish(&mut self, end: &'static str) -> Next {
        self.stage = Stage::Done;
        self.end = Some(end);
        None
    }

    fn again(&mut self) -> Next {
        Some(self.rng.within(150, 1_200))
    }

    /// No answer came.
    pub(crate) fn hears_nothing(&mut self) -> Next {
        if self.stage == Stage::Done { None } else { self.again() }
    }

    /// An answer to what this stage asked. True in the second place: the order that this buyer
    /// was told of is denied.
    pub(crate) fn hears(&mut self, answer: &Answer) -> (Next, bool) {
        let denied = matches!(
            answer,
            Answer::Refused(Refusal::NotFound | Refusal::Conflict) if self.order.is_some()
        );
        let next = match answer {
            Answer::Order { view, .. } => self.hears_order(view),
            Answer::SoldOut { .. } if self.wish.salt.is_multiple_of(3) && self.refusals < 3 => {
                // Somebody may not pay: this one comes back.
                self.refusals += 1;
                Some(self.rng.within(2_000, 6_000))
            }
            Answer::SoldOut { .. } => self.finish("sold out"),
            Answer::GroupTooLarge(_) => self.finish("group too large"),
            Answer::Busy(_) | Answer::Unknown => self.again(),
            Answer::Refused(Refusal::Withdrawn) => self.finish("withdrawn"),
            Answer::Refused(Refusal::TooManyHolds(_) | Refusal::TooManyOrders(_)) => {
                self.finish("too many")
            }
            Answer::Refused(
                Refusal::NotOpen(_) | Refusal::Suspended | Refusal::Closed | Refusal::NoSuchTrip,
            ) => self.again(),
            // No buyer here asks for a list.
            Answer::Refused(_) | Answer::Orders(_) => self.finish("refused"),
        };
        (next, denied)
    }

    fn hears_order(&mut self, view: &OrderView) -> Next {
        match (self.stage, view.status) {
            (Stage::Place, Status::Held(_)) => {
                self.order = Some(view.order);
                self.price = view.price;
                let (stage, wait) = match self.wish.then {
                    Then::Pays | Then::PaysAndReturns => (Stage::Pay, self.rng.within(50, 2_000)),
                    Then::PaysLate => (Stage::Pay, self.rng.within(3_500, 30_000)),
                    Then::Cancels => (Stage::Cancel, self.rng.within(50, 4_000)),
                    Then::Leaves => (Stage::Read, self.rng.within(50, 9_000)),
                };
                self.stage = stage;
                Some(wait)
            }
            (_, Status::Seeking | Status::Sent) => self.again(),
            (Stage::Pay, Status::Paid) if self.wish.then == Then::PaysAndReturns => {
                self.stage = Stage::Cancel;
                Some(self.rng.within(50, 3_000))
            }
            (Stage::Pay, Status::Held(_)) | (Stage::Cancel, Status::Held(_) | Status::Paid) => {
                self.again()
            }
            (_, Status::Paid) => self.finish("paid"),
            (_, Status::Ended(End::Cancelled)) => self.finish("cancelled"),
            (_, Status::Ended(End::Refunded)) => self.finish("refunded"),
            (_, Status::Ended(_)) => self.finish("expired"),
            (_, Status::Held(_)) => self.finish("left"),
        }
    }
}
