//! The state of one share: its stock, and the whole life of its orders.
//!
//! [`ShareState::decide`] says what a command would write, [`ShareState::apply`] is the only
//! thing that changes anything. An owner decides and applies, a successor applies: so memory
//! equals the fold of the log by construction.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use crate::allocate::{PARTY_MAX, Seats, Wish, choose};
use crate::catalogue::Catalogue;
use crate::definition::{Definition, Place};
use crate::entry::{End, Entry, Held, OrderRequest, Policy, SaleState, Sent};
use crate::fold::{Admission, Fault, Writer};
use crate::legs::{Journey, Legs};
use crate::orders::{Orders, Slot};
use crate::stock::{Stock, StockError};
use crate::teeth::{self, Bug};
use crate::wire::{Chain, Frame, Header};
use crate::words::{
    Address, Attempt, BodyHash, BuyerHash, ClassId, Digest128, KeyHash, Millis, NodeId, Offset,
    OrderId, RunId, ShareId,
};

/// How long an ended order's key is remembered: a day, as long as a client may sensibly retry.
pub const ENDED_KEPT_MS: u64 = 24 * 60 * 60 * 1_000;

/// An entry that contradicts what the log said before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// The stock forbids it.
    #[error("{0}")]
    Stock(#[from] StockError),
    /// There is no stock of that run and class here.
    #[error("no stock of run {0} class {1}")]
    NoStock(RunId, ClassId),
    /// The order does not exist.
    #[error("order {0} is unknown")]
    Unknown(OrderId),
    /// The order exists, and not in a state that allows this.
    #[error("order {0} is in another state")]
    State(OrderId),
    /// The order's home and share do not fit.
    #[error("order {0} does not belong here")]
    Home(OrderId),
    /// Its key belongs to another order.
    #[error("the key of order {0} belongs to another")]
    Key(OrderId),
    /// The try was refused before.
    #[error("try {1} of order {0} was refused")]
    Refused(OrderId, Attempt),
    /// The Take was accepted before, or out of order.
    #[error("take {0} was accepted before")]
    Take(Offset),
    /// The number of seats is not the number of passengers, or a seat is named twice.
    #[error("the seats of order {0} do not fit its passengers")]
    Party(OrderId),
    /// A Claim in the middle of a frame.
    #[error("a claim that is not alone")]
    Claim,
}

/// Seats of an order that is kept: those of a small party take no room of their own.
pub type KeptSeats = SmallVec<[u16; 8]>;

/// Where an order is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderState {
    /// It came back without seats; its key may try again.
    Seeking {
        /// The last try.
        attempt: Attempt,
        /// When it came back.
        since: Millis,
    },
    /// It is on its way to another share.
    Sent {
        /// Which one.
        to: ShareId,
        /// Which try.
        attempt: Attempt,
    },
    /// It lives on another share.
    Placed {
        /// Which one.
        to: ShareId,
        /// The try that placed it.
        attempt: Attempt,
        /// Its seats there.
        seats: KeptSeats,
        /// Until when it is held there.
        deadline: Millis,
        /// Whether its payment passed through here.
        paid: bool,
    },
    /// It lived on another share and ended there.
    Closed {
        /// How it ended.
        why: End,
        /// Its seats there.
        seats: KeptSeats,
    },
    /// It holds seats here.
    Held {
        /// The try by which it came; 0 at home.
        attempt: Attempt,
        /// Its seats.
        seats: KeptSeats,
        /// Until when.
        deadline: Millis,
    },
    /// It is paid, and holds seats here.
    Paid {
        /// The try by which it came; 0 at home.
        attempt: Attempt,
        /// Its seats.
        seats: KeptSeats,
        /// The payment, hashed.
        payment: Digest128,
    },
    /// It is over; its legs are free.
    Ended {
        /// The try by which it came; 0 at home.
        attempt: Attempt,
        /// The seats that it had.
        seats: KeptSeats,
        /// How it ended.
        why: End,
        /// The payment that it had, hashed: the provider may tell of it again.
        payment: Option<Digest128>,
    },
}

/// An order, at its home or at the share where it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Who asked.
    pub buyer: BuyerHash,
    /// Its key.
    pub key: KeyHash,
    /// What the body said.
    pub body: BodyHash,
    /// Its run.
    pub run: RunId,
    /// Its class.
    pub class: ClassId,
    /// From where to where.
    pub journey: Journey,
    /// How many passengers.
    pub party: u8,
    /// The whole price, in minor units.
    pub price: u64,
    /// Where it is in its life.
    pub state: OrderState,
    /// Payments that were returned.
    pub returned: Box<[Digest128]>,
}

/// A seat's free legs before and after an entry: what the digest has to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Which run.
    pub run: RunId,
    /// Which class.
    pub class: ClassId,
    /// Free legs before.
    pub before: Legs,
    /// Free legs after.
    pub after: Legs,
}

/// Orders that one list names: the newest ones. Far more than the limits let a buyer have on the
/// runs of one share, and few enough for one answer.
pub const LIST_MAX: usize = 64;

/// What is asked of a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Buy seats. `price` is ignored and worked out from the definition.
    Place(OrderRequest),
    /// Pay for an order.
    Pay {
        /// Which one.
        order: OrderId,
        /// Its buyer; none where the provider says it, who does not know buyers.
        buyer: Option<BuyerHash>,
        /// The provider's payment, hashed.
        payment: Digest128,
        /// In minor units.
        amount: u64,
    },
    /// Cancel a held order, give a paid one back.
    Cancel {
        /// Which one.
        order: OrderId,
        /// Its buyer.
        buyer: BuyerHash,
    },
    /// Look at an order.
    Read {
        /// Which one.
        order: OrderId,
        /// Its buyer.
        buyer: BuyerHash,
    },
    /// Name a buyer's orders whose home is here.
    List {
        /// Whose.
        buyer: BuyerHash,
    },
    /// Another share's order asks for seats here.
    Host(Sent),
    /// Another share asks what became of its order here; forbids it if it never came.
    Resolve {
        /// Which one.
        order: OrderId,
        /// Which try.
        attempt: Attempt,
    },
}

/// What a command comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This is to be written; the answer is the order as it is then.
    Write(Entry, OrderId),
    /// Nothing is to be written: the order is known, as it is.
    Known(OrderId),
    /// These orders are the buyer's, newest first.
    Listed(Vec<OrderId>),
    /// The order is on its way; the answer comes with its fate.
    Wait(OrderId),
    /// The order lives on that share, which answers.
    Relay(ShareId, OrderId),
    /// No seats here; `retry` is the order that the key has named before.
    NoMatch {
        /// The order to go on with, if the key is known.
        retry: Option<(OrderId, Attempt)>,
    },
    /// No.
    Refuse(Refusal),
}

/// Why a command is refused. Nothing was written for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Refusal {
    /// The sale is not open yet; from when on it is, if that is known.
    NotOpen(Option<Millis>),
    /// The sale is suspended.
    Suspended,
    /// The sale is over.
    Closed,
    /// The key was used with another body.
    KeyReused,
    /// No such run, class or journey.
    NoSuchTrip,
    /// The run is off sale.
    Withdrawn,
    /// More passengers than one order may have.
    PartyTooLarge(u8),
    /// The buyer holds as many unpaid orders on this run as allowed.
    TooManyHolds(u16),
    /// The buyer has as many orders on this run as allowed.
    TooManyOrders(u16),
    /// No such order of this buyer.
    NotFound,
    /// The amount is not the price.
    WrongAmount(u64),
    /// The order's state does not allow it.
    Conflict,
    /// The try found no seats, and never will.
    No,
    /// The share is frozen by a record that this version cannot read.
    Frozen,
}

impl Refusal {
    /// Whether the definition and the policy alone say so, whatever the share holds.
    #[must_use]
    pub fn is_of_the_sale(self) -> bool {
        matches!(
            self,
            Self::NotOpen(_)
                | Self::Suspended
                | Self::Closed
                | Self::NoSuchTrip
                | Self::Withdrawn
                | Self::PartyTooLarge(_)
        )
    }
}

/// What an order costs in all, in minor units.
#[must_use]
pub fn price(definition: &Definition, request: &OrderRequest) -> Option<u64> {
    let (from, to) = (request.journey.from(), request.journey.to());
    let fare = definition.timetable(request.run)?.fare(request.class, from, to)?;
    fare.checked_mul(u64::from(request.party()))
}

fn second(time: Millis) -> u64 {
    time.0.div_ceil(1_000)
}

fn release(holds: &mut BTreeMap<u64, u32>, deadline: Millis, party: u8) {
    let second = second(deadline);
    if let Some(seats) = holds.get_mut(&second) {
        *seats = seats.saturating_sub(u32::from(party));
        if *seats == 0 {
            holds.remove(&second);
        }
    }
}

/// When holds end, earliest first, and of those that end together the lowest slot.
#[derive(Debug, Clone, Default)]
struct Timers(BTreeMap<Millis, SmallVec<[Slot; 4]>>);

impl Timers {
    fn set(&mut self, at: Millis, slot: Slot) {
        // Usually the last: what is held later ends later.
        let slots = match self.0.last_entry().filter(|last| *last.key() == at) {
            Some(last) => last.into_mut(),
            None => self.0.entry(at).or_default(),
        };
        let place = if slots.last() < Some(&slot) {
            slots.len()
        } else {
            slots.partition_point(|s| *s < slot)
        };
        slots.insert(place, slot);
    }

    fn clear(&mut self, at: Millis, slot: Slot) {
        let Some(slots) = self.0.get_mut(&at) else { return };
        if let Ok(place) = slots.binary_search(&slot) {
            slots.remove(place);
        }
        if slots.is_empty() {
            self.0.remove(&at);
        }
    }

    fn iter(&self) -> impl Iterator<Item = (Millis, Slot)> {
        self.0.iter().flat_map(|(at, slots)| slots.iter().map(|slot| (*at, *slot)))
    }
}

/// What a decision needs to know beside the share.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// What is sold.
    pub definition: &'a Catalogue,
    /// Whether and how; none before the first.
    pub policy: Option<&'a Policy>,
}

/// One share, folded up to some offset.
#[derive(Debug, Clone)]
pub struct ShareState {
    share: ShareId,
    writer: Writer,
    owner: Option<(NodeId, Address)>,
    yielded: Option<Option<NodeId>>,
    /// The offset of the next record to fold.
    position: Offset,
    /// The time of the frame that is being applied.
    now: Millis,
    frozen: Option<(Offset, String)>,
    stock: BTreeMap<(RunId, ClassId), Stock>,
    orders: Orders,
    /// When holds end here, and which: those of one frame end together.
    timers: Timers,
    /// When to ask the share where an unpaid order lives what became of it.
    asks: BTreeSet<(Millis, OrderId)>,
    /// When an order may be forgotten.
    ended: BTreeSet<(Millis, OrderId)>,
    refused: BTreeSet<(OrderId, Attempt)>,
    /// Seats held and not paid, by the second in which they end.
    holds: BTreeMap<(RunId, ClassId), BTreeMap<u64, u32>>,
    accepted_take: Option<Offset>,
    /// Seats asked of other shares by orders on their way.
    outstanding: BTreeMap<(RunId, ClassId, ShareId), u32>,
    changes: Vec<Change>,
}

impl ShareState {
    /// The share before its first record, with the stock that Genesis gave it.
    #[must_use]
    pub fn new(ledger: Digest128, share: ShareId, initial: &[crate::stock::Block]) -> Self {
        let mut state = Self {
            share,
            writer: Writer::new(ledger, share),
            owner: None,
            yielded: None,
            position: Offset(0),
            now: Millis(0),
            frozen: None,
            stock: BTreeMap::new(),
            orders: Orders::default(),
            timers: Timers::default(),
            asks: BTreeSet::new(),
            ended: BTreeSet::new(),
            refused: BTreeSet::new(),
            holds: BTreeMap::new(),
            accepted_take: None,
            outstanding: BTreeMap::new(),
            changes: Vec::new(),
        };
        for block in initial {
            let stock = state.stock_entry(block);
            stock.enter(block).expect("Genesis splits disjoint blocks");
        }
        state
    }

    fn stock_entry(&mut self, block: &crate::stock::Block) -> &mut Stock {
        let key = (block.id.run, block.class);
        self.stock.entry(key).or_insert_with(|| Stock::new(block.stops))
    }

    // What the fold does around entries.

    pub(crate) fn passed(&mut self, at: Offset) {
        self.position = Offset(at.0 + 1);
    }

    pub(crate) fn follow(&mut self, how: Admission, frame: &Frame<'_>) -> Result<(), Fault> {
        self.writer.follow(how, frame)
    }

    pub(crate) fn freeze(&mut self, at: Offset, why: &Fault) {
        self.frozen.get_or_insert_with(|| (at, why.to_string()));
    }

    /// Forgets what ended long before `now`, the time of the frame that begins. Part of the
    /// fold: every reader forgets at the same record.
    pub(crate) fn begin_frame(&mut self, now: Millis) {
        self.changes.clear();
        self.now = now;
        while let Some(&(at, id)) = self.ended.first() {
            if at.plus(ENDED_KEPT_MS) > now {
                break;
            }
            self.ended.pop_first();
            self.orders.remove(id);
        }
    }

    /// Seat changes since the frame began; taking them clears them.
    pub(crate) fn take_changes(&mut self) -> std::vec::Drain<'_, Change> {
        self.changes.drain(..)
    }

    /// Looks where [`ShareState::apply`] will look for what these entries bring.
    pub(crate) fn look_ahead(&self, entries: &[Entry]) {
        for entry in entries {
            match entry {
                Entry::Held(Held { request, .. }) | Entry::Sent(Sent { request, .. }) => {
                    self.orders.look_ahead(request.key, request.buyer);
                }
                Entry::Paid { order, .. } | Entry::Ended { order, .. } => {
                    std::hint::black_box(self.orders.get(*order).map(|known| known.party));
                }
                _ => {}
            }
        }
    }

    // The only mutator.

    /// Lets an entry happen.
    ///
    /// # Errors
    /// [`Impossible`]; nothing changed.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), Impossible> {
        match entry {
            Entry::Claim { node, address } => {
                self.owner = Some((*node, *address));
                self.yielded = None;
                Ok(())
            }
            Entry::Accept { take, blocks } => self.apply_accept(*take, blocks),
            Entry::Held(held) => self.apply_held(held),
            Entry::Paid { order, payment, .. } => self.apply_paid(*order, *payment),
            Entry::Refunded { order, payment, .. } => {
                let order = self.orders.get_mut(*order).ok_or(Impossible::Unknown(*order))?;
                order.returned = [&order.returned[..], &[*payment]].concat().into();
                Ok(())
            }
            Entry::Ended { order, why } => self.apply_ended(*order, *why),
            Entry::Sent(sent) => self.apply_sent(sent),
            Entry::Placed { order, attempt, seats, deadline } => {
                self.apply_placed(*order, *attempt, seats, *deadline)
            }
            Entry::Returned { order, attempt } => self.apply_returned(*order, *attempt),
            Entry::Closed { order, attempt, why } => self.apply_closed(*order, *attempt, *why),
            Entry::Refused { order, attempt } => {
                if order.home == self.share {
                    return Err(Impossible::Home(*order));
                }
                if self.orders.get(*order).is_some() {
                    return Err(Impossible::State(*order));
                }
                self.refused.insert((*order, *attempt));
                Ok(())
            }
            Entry::Yield { to } => {
                self.yielded = Some(*to);
                self.writer.close();
                Ok(())
            }
        }
    }

    fn apply_accept(
        &mut self,
        take: Offset,
        blocks: &[crate::stock::Block],
    ) -> Result<(), Impossible> {
        if self.accepted_take.is_some_and(|last| last >= take) {
            return Err(Impossible::Take(take));
        }
        // On copies, so that a block that cannot enter leaves nothing behind.
        let mut entered: BTreeMap<(RunId, ClassId), Stock> = BTreeMap::new();
        for block in blocks {
            let key = (block.id.run, block.class);
            let stock = entered.entry(key).or_insert_with(|| {
                self.stock.get(&key).cloned().unwrap_or_else(|| Stock::new(block.stops))
            });
            stock.enter(block)?;
        }
        for block in blocks {
            let after = Legs::all(block.stops);
            let (run, class) = (block.id.run, block.class);
            let change = Change { run, class, before: Legs::NONE, after };
            self.changes.extend(block.seats.clone().map(|_| change));
        }
        self.stock.extend(entered);
        self.accepted_take = Some(take);
        Ok(())
    }

    /// Where an order whose key tries again lies; `None` if it is new here.
    fn vacant(&self, id: OrderId, request: &OrderRequest) -> Result<Option<Slot>, Impossible> {
        let slot = self.orders.slot(id);
        match slot.and_then(|slot| self.orders.at(slot)) {
            Some((_, Order { state: OrderState::Seeking { .. }, key, .. }))
                if *key == request.key =>
            {
                Ok(slot)
            }
            Some(_) => Err(Impossible::State(id)),
            None if self.orders.of_key(request.key).is_some() => Err(Impossible::Key(id)),
            None => Ok(None),
        }
    }

    /// Puts an order where it lies already, or where there was none.
    fn put_order(
        &mut self,
        id: OrderId,
        known: Option<Slot>,
        request: &OrderRequest,
        state: OrderState,
    ) -> Slot {
        let order = Order {
            buyer: request.buyer,
            key: request.key,
            body: request.body,
            run: request.run,
            class: request.class,
            journey: request.journey,
            party: request.party(),
            price: request.price,
            state,
            returned: Box::default(),
        };
        let known = known.and_then(|slot| Some((slot, self.orders.at_mut(slot)?)));
        let Some((slot, old)) = known else {
            return self.orders.insert(id, order, id.home == self.share);
        };
        if let OrderState::Seeking { since, .. } = old.state {
            self.ended.remove(&(since, id));
        }
        *old = order;
        slot
    }

    fn apply_held(&mut self, held: &Held) -> Result<(), Impossible> {
        let (id, request) = (held.order, &held.request);
        let at_home = id.home == self.share;
        if at_home != (held.attempt == Attempt(0)) {
            return Err(Impossible::Home(id));
        }
        let known = if at_home {
            self.vacant(id, request)?
        } else if self.orders.get(id).is_some() {
            return Err(Impossible::State(id));
        } else if self.refused.contains(&(id, held.attempt)) {
            return Err(Impossible::Refused(id, held.attempt));
        } else {
            None
        };
        let twice = (1..held.seats.len()).any(|at| held.seats[..at].contains(&held.seats[at]));
        let party = held.request.passengers.len();
        if party == 0 || twice || held.seats.len() != party {
            return Err(Impossible::Party(id));
        }
        let key = (request.run, request.class);
        let stock = self.stock.get_mut(&key).ok_or(Impossible::NoStock(key.0, key.1))?;
        let legs = Legs::of(request.journey);
        // All before the first is taken; one is checked when it is.
        if held.seats.len() > 1 {
            held.seats.iter().try_for_each(|seat| stock.check(*seat, legs))?;
        }
        for seat in &held.seats {
            let (before, after) = stock.take(*seat, legs)?;
            self.changes.push(Change { run: key.0, class: key.1, before, after });
        }
        let ends = self.holds.entry(key).or_default().entry(second(held.deadline)).or_default();
        *ends += u32::from(request.party());
        let state = OrderState::Held {
            attempt: held.attempt,
            seats: KeptSeats::from_slice(&held.seats),
            deadline: held.deadline,
        };
        let slot = self.put_order(id, known, request, state);
        self.timers.set(held.deadline, slot);
        Ok(())
    }

    fn apply_paid(&mut self, id: OrderId, payment: Digest128) -> Result<(), Impossible> {
        let slot = self.orders.slot(id).ok_or(Impossible::Unknown(id))?;
        let order = self.orders.at_mut(slot).ok_or(Impossible::Unknown(id))?;
        match &mut order.state {
            OrderState::Held { attempt, seats, deadline } => {
                self.timers.clear(*deadline, slot);
                let of_class = self.holds.entry((order.run, order.class)).or_default();
                release(of_class, *deadline, order.party);
                order.state = OrderState::Paid { attempt: *attempt, seats: seats.clone(), payment };
            }
            OrderState::Placed { paid, deadline, .. } if !*paid => {
                self.asks.remove(&(*deadline, id));
                *paid = true;
            }
            _ => return Err(Impossible::State(id)),
        }
        Ok(())
    }

    fn apply_ended(&mut self, id: OrderId, why: End) -> Result<(), Impossible> {
        let slot = self.orders.slot(id).ok_or(Impossible::Unknown(id))?;
        let order = self.orders.at_mut(slot).ok_or(Impossible::Unknown(id))?;
        let (attempt, seats, payment) = match (&order.state, why) {
            (
                OrderState::Held { attempt, seats, deadline },
                End::Cancelled | End::Expired | End::Withdrawn,
            ) => {
                self.timers.clear(*deadline, slot);
                let of_class = self.holds.entry((order.run, order.class)).or_default();
                release(of_class, *deadline, order.party);
                (*attempt, seats.clone(), None)
            }
            (OrderState::Paid { attempt, seats, payment }, End::Refunded | End::Withdrawn) => {
                (*attempt, seats.clone(), Some(*payment))
            }
            _ => return Err(Impossible::State(id)),
        };
        let key = (order.run, order.class);
        let stock = self.stock.get_mut(&key).ok_or(Impossible::NoStock(key.0, key.1))?;
        let legs = Legs::of(order.journey);
        for seat in &seats {
            let (before, after) = stock.free(*seat, legs)?;
            self.changes.push(Change { run: key.0, class: key.1, before, after });
        }
        order.state = OrderState::Ended { attempt, seats, why, payment };
        self.ended.insert((self.now, id));
        Ok(())
    }

    fn apply_sent(&mut self, sent: &Sent) -> Result<(), Impossible> {
        let (id, request) = (sent.order, &sent.request);
        if id.home != self.share || sent.to == self.share || sent.attempt == Attempt(0) {
            return Err(Impossible::Home(id));
        }
        let known = self.vacant(id, request)?;
        let state = OrderState::Sent { to: sent.to, attempt: sent.attempt };
        self.put_order(id, known, request, state);
        let asked = self.outstanding.entry((request.run, request.class, sent.to)).or_default();
        *asked += u32::from(request.party());
        Ok(())
    }

    /// The order that is on its way by this try; it stops being so.
    fn arrived(&mut self, id: OrderId, attempt: Attempt) -> Result<&mut Order, Impossible> {
        let order = self.orders.get_mut(id).ok_or(Impossible::Unknown(id))?;
        let OrderState::Sent { to, attempt: sent } = order.state else {
            return Err(Impossible::State(id));
        };
        if sent != attempt {
            return Err(Impossible::State(id));
        }
        let key = (order.run, order.class, to);
        if let Some(asked) = self.outstanding.get_mut(&key) {
            *asked = asked.saturating_sub(u32::from(order.party));
            if *asked == 0 {
                self.outstanding.remove(&key);
            }
        }
        Ok(order)
    }

    fn apply_placed(
        &mut self,
        id: OrderId,
        attempt: Attempt,
        seats: &Seats,
        deadline: Millis,
    ) -> Result<(), Impossible> {
        let order = self.arrived(id, attempt)?;
        let OrderState::Sent { to, .. } = order.state else { return Err(Impossible::State(id)) };
        let seats = KeptSeats::from_slice(seats);
        order.state = OrderState::Placed { to, attempt, seats, deadline, paid: false };
        self.asks.insert((deadline, id));
        Ok(())
    }

    fn apply_returned(&mut self, id: OrderId, attempt: Attempt) -> Result<(), Impossible> {
        let since = self.now;
        let order = self.arrived(id, attempt)?;
        order.state = OrderState::Seeking { attempt, since };
        self.ended.insert((since, id));
        Ok(())
    }

    fn apply_closed(&mut self, id: OrderId, attempt: Attempt, why: End) -> Result<(), Impossible> {
        let order = self.orders.get_mut(id).ok_or(Impossible::Unknown(id))?;
        let OrderState::Placed { attempt: placed, seats, deadline, .. } = &order.state else {
            return Err(Impossible::State(id));
        };
        if *placed != attempt {
            return Err(Impossible::State(id));
        }
        self.asks.remove(&(*deadline, id));
        order.state = OrderState::Closed { why, seats: seats.clone() };
        self.ended.insert((self.now, id));
        Ok(())
    }

    // Deciding.

    /// What `command` comes to, at `now`. `fresh` is the id that a new order would get.
    #[must_use]
    pub fn decide(
        &self,
        now: Millis,
        rules: Rules<'_>,
        fresh: OrderId,
        command: &Command,
    ) -> Decision {
        if self.frozen.is_some() {
            return Decision::Refuse(Refusal::Frozen);
        }
        match command {
            Command::Place(request) => self.decide_place(now, rules, fresh, request),
            Command::Pay { order, buyer, payment, amount } => {
                self.decide_pay(*order, *buyer, *payment, *amount)
            }
            Command::Cancel { order, buyer } => self.decide_cancel(*order, *buyer),
            Command::Read { order, buyer } => match self.of_buyer(*order, *buyer) {
                None => Decision::Refuse(Refusal::NotFound),
                Some(Order { state: OrderState::Placed { to, .. }, .. }) => {
                    Decision::Relay(*to, *order)
                }
                Some(_) => Decision::Known(*order),
            },
            Command::List { buyer } => Decision::Listed(
                self.orders.of_buyer(*buyer).map(|(id, _)| id).take(LIST_MAX).collect(),
            ),
            Command::Host(sent) => self.decide_host(now, rules, sent),
            Command::Resolve { order, attempt } => self.decide_resolve(*order, *attempt),
        }
    }

    fn of_buyer(&self, id: OrderId, buyer: BuyerHash) -> Option<&Order> {
        self.orders.get(id).filter(|o| o.buyer == buyer)
    }

    fn decide_place(
        &self,
        now: Millis,
        rules: Rules<'_>,
        fresh: OrderId,
        request: &OrderRequest,
    ) -> Decision {
        let mut retry = None;
        if let Some((id, order)) = self.orders.of_key(request.key) {
            if order.body != request.body {
                return Decision::Refuse(Refusal::KeyReused);
            }
            match order.state {
                OrderState::Seeking { attempt, .. } => retry = Some((id, attempt)),
                OrderState::Sent { .. } => return Decision::Wait(id),
                OrderState::Placed { to, .. } => return Decision::Relay(to, id),
                _ => return Decision::Known(id),
            }
        }
        if let Err(refusal) = self.may_place(now, rules, request) {
            return Decision::Refuse(refusal);
        }
        let held = self.hold(now, rules, retry.map_or(fresh, |(id, _)| id), Attempt(0), request);
        match held {
            Some(held) => Decision::Write(Entry::Held(held), retry.map_or(fresh, |(id, _)| id)),
            None => Decision::NoMatch { retry },
        }
    }

    fn may_place(
        &self,
        now: Millis,
        rules: Rules<'_>,
        request: &OrderRequest,
    ) -> Result<(), Refusal> {
        let policy = rules.policy.ok_or(Refusal::NotOpen(None))?;
        match policy.state {
            SaleState::Suspended => return Err(Refusal::Suspended),
            SaleState::Stopped => return Err(Refusal::Closed),
            SaleState::Active => {}
        }
        if policy.open.is_some_and(|open| now < open) {
            return Err(Refusal::NotOpen(policy.open));
        }
        if policy.close.is_some_and(|close| now >= close) {
            return Err(Refusal::Closed);
        }
        let most = policy.limits.passengers_per_order.min(PARTY_MAX as u8);
        if request.passengers.is_empty() || request.passengers.len() > usize::from(most) {
            return Err(Refusal::PartyTooLarge(most));
        }
        let timetable = rules.definition.timetable(request.run).ok_or(Refusal::NoSuchTrip)?;
        if rules.definition.is_withdrawn(request.run) && !teeth::has(Bug::SellWithdrawn) {
            return Err(Refusal::Withdrawn);
        }
        if rules.definition.home(request.run, request.buyer) != self.share {
            return Err(Refusal::Conflict);
        }
        let known = usize::from(request.class.0) < timetable.classes.len();
        if !known || usize::from(request.journey.to()) >= timetable.stops.len() {
            return Err(Refusal::NoSuchTrip);
        }
        let (holds, orders) = self.counts(request.buyer, request.run);
        if orders >= usize::from(policy.limits.orders) {
            return Err(Refusal::TooManyOrders(policy.limits.orders));
        }
        if holds >= usize::from(policy.limits.live_holds) {
            return Err(Refusal::TooManyHolds(policy.limits.live_holds));
        }
        Ok(())
    }

    /// Unpaid holds, and all live orders, of a buyer on a run.
    fn counts(&self, buyer: BuyerHash, run: RunId) -> (usize, usize) {
        let (mut holds, mut orders) = (0, 0);
        for (_, order) in self.orders.of_buyer(buyer) {
            let (hold, live) = match order.state {
                OrderState::Held { .. } | OrderState::Sent { .. } => (1, 1),
                OrderState::Placed { paid, .. } => (usize::from(!paid), 1),
                OrderState::Paid { .. } => (0, 1),
                _ => (0, 0),
            };
            if order.run == run {
                holds += hold;
                orders += live;
            }
        }
        (holds, orders)
    }

    fn hold(
        &self,
        now: Millis,
        rules: Rules<'_>,
        order: OrderId,
        attempt: Attempt,
        request: &OrderRequest,
    ) -> Option<Held> {
        let stock = self.stock.get(&(request.run, request.class))?;
        let timetable = rules.definition.timetable(request.run)?;
        let place_of = |seat| timetable.coach_of(seat).map_or(Place::Middle, |(c, at)| c.place(at));
        let party = request.party();
        let wish = Wish { journey: request.journey, party, prefer: request.prefer };
        let seats = choose(stock, &wish, place_of)?;
        let price = price(rules.definition, request)?;
        let payment_ms = rules.policy.map_or(0, |p| u64::from(p.limits.payment_ms));
        Some(Held {
            order,
            attempt,
            request: OrderRequest { price, ..request.clone() },
            seats,
            // By this owner's clock alone: a former owner's that ran ahead must not hold seats.
            deadline: now.plus(payment_ms),
        })
    }

    fn decide_pay(
        &self,
        id: OrderId,
        buyer: Option<BuyerHash>,
        payment: Digest128,
        amount: u64,
    ) -> Decision {
        let order = self.orders.get(id).filter(|o| buyer.is_none_or(|b| o.buyer == b));
        let Some(order) = order else {
            return Decision::Refuse(Refusal::NotFound);
        };
        if order.returned.contains(&payment) {
            return Decision::Known(id);
        }
        let give_back = Entry::Refunded { order: id, payment, amount };
        match &order.state {
            OrderState::Placed { to, .. } => Decision::Relay(*to, id),
            OrderState::Held { .. } if amount != order.price => {
                Decision::Refuse(Refusal::WrongAmount(order.price))
            }
            OrderState::Held { .. } => {
                Decision::Write(Entry::Paid { order: id, payment, amount }, id)
            }
            OrderState::Paid { payment: first, .. } if *first == payment => Decision::Known(id),
            OrderState::Ended { payment: Some(first), .. } if *first == payment => {
                Decision::Known(id)
            }
            OrderState::Paid { .. } | OrderState::Ended { .. } | OrderState::Closed { .. } => {
                Decision::Write(give_back, id)
            }
            // Its buyer may know that it is held there before this home does.
            OrderState::Sent { .. } => Decision::Wait(id),
            OrderState::Seeking { .. } => Decision::Refuse(Refusal::Conflict),
        }
    }

    fn decide_cancel(&self, id: OrderId, buyer: BuyerHash) -> Decision {
        let Some(order) = self.of_buyer(id, buyer) else {
            return Decision::Refuse(Refusal::NotFound);
        };
        let end = |why| Decision::Write(Entry::Ended { order: id, why }, id);
        match &order.state {
            OrderState::Held { .. } => end(End::Cancelled),
            OrderState::Paid { .. } => end(End::Refunded),
            OrderState::Placed { to, .. } => Decision::Relay(*to, id),
            OrderState::Ended { .. } | OrderState::Closed { .. } => Decision::Known(id),
            // Its buyer may know that it is held there before this home does.
            OrderState::Sent { .. } => Decision::Wait(id),
            OrderState::Seeking { .. } => Decision::Refuse(Refusal::Conflict),
        }
    }

    fn decide_host(&self, now: Millis, rules: Rules<'_>, sent: &Sent) -> Decision {
        let ours = sent.to == self.share && sent.order.home != self.share;
        let sound = sent.attempt != Attempt(0) && !sent.request.passengers.is_empty();
        if !ours || !sound || self.refused.contains(&(sent.order, sent.attempt)) {
            return Decision::Refuse(Refusal::No);
        }
        if self.orders.get(sent.order).is_some() {
            return Decision::Known(sent.order);
        }
        if rules.definition.is_withdrawn(sent.request.run) {
            return Decision::Refuse(Refusal::No);
        }
        match self.hold(now, rules, sent.order, sent.attempt, &sent.request) {
            Some(held) => Decision::Write(Entry::Held(held), sent.order),
            None => Decision::Refuse(Refusal::No),
        }
    }

    fn decide_resolve(&self, id: OrderId, attempt: Attempt) -> Decision {
        if id.home == self.share {
            return Decision::Refuse(Refusal::Conflict);
        }
        match self.orders.get(id).map(|o| &o.state) {
            Some(
                OrderState::Held { attempt: came, .. }
                | OrderState::Paid { attempt: came, .. }
                | OrderState::Ended { attempt: came, .. },
            ) if *came == attempt => Decision::Known(id),
            _ if self.refused.contains(&(id, attempt)) => Decision::Refuse(Refusal::No),
            Some(_) => Decision::Refuse(Refusal::Conflict),
            None if teeth::has(Bug::DropRefused) => Decision::Refuse(Refusal::No),
            None => Decision::Write(Entry::Refused { order: id, attempt }, id),
        }
    }

    // Looking.

    /// Which share this is.
    #[must_use]
    pub fn share(&self) -> ShareId {
        self.share
    }

    /// Whose frames count.
    #[must_use]
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Follows a frame that the owner itself has just sealed.
    pub(crate) fn sealed(&mut self, header: &Header, chain: Chain) {
        self.writer.sealed(header, chain);
    }

    /// The time of the last frame that was begun.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.now
    }

    /// The last claimant.
    #[must_use]
    pub fn owner(&self) -> Option<(NodeId, Address)> {
        self.owner
    }

    /// The owner gave the share up, perhaps to a node that it named.
    #[must_use]
    pub fn yielded(&self) -> Option<Option<NodeId>> {
        self.yielded
    }

    /// The offset of the next record to fold.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.position
    }

    /// The record that froze the share, and why.
    #[must_use]
    pub fn frozen(&self) -> Option<&(Offset, String)> {
        self.frozen.as_ref()
    }

    /// The stock, by run and class.
    #[must_use]
    pub fn stock(&self) -> &BTreeMap<(RunId, ClassId), Stock> {
        &self.stock
    }

    /// An order.
    #[must_use]
    pub fn order(&self, id: OrderId) -> Option<&Order> {
        self.orders.get(id)
    }

    /// All orders that this share knows.
    #[must_use]
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// When unpaid orders that live elsewhere should have ended, earliest first.
    pub fn asks(&self) -> impl Iterator<Item = (Millis, OrderId)> + '_ {
        self.asks.iter().copied()
    }

    /// When holds end here, earliest first.
    pub fn timers(&self) -> impl Iterator<Item = (Millis, OrderId)> + '_ {
        self.timers.iter().filter_map(|(at, slot)| Some((at, self.orders.at(slot)?.0)))
    }

    /// The last Take that was accepted.
    #[must_use]
    pub fn accepted_take(&self) -> Option<Offset> {
        self.accepted_take
    }

    /// Seats of a class that are held and not paid, and when the first of these holds ends.
    #[must_use]
    pub fn holds(&self, run: RunId, class: ClassId) -> (u32, Option<Millis>) {
        let Some(holds) = self.holds.get(&(run, class)) else { return (0, None) };
        let first = holds.first_key_value();
        let first = first.map(|(second, _)| Millis(second.saturating_mul(1_000)));
        (holds.values().sum(), first)
    }

    /// Orders that are on their way, whose fate has to be asked for after a take-over.
    pub fn on_their_way(&self) -> impl Iterator<Item = (OrderId, ShareId, Attempt)> + '_ {
        self.orders.iter().filter_map(|(id, order)| match order.state {
            OrderState::Sent { to, attempt } => Some((id, to, attempt)),
            _ => None,
        })
    }

    /// Seats that orders on their way ask of `to`.
    #[must_use]
    pub fn outstanding(&self, run: RunId, class: ClassId, to: ShareId) -> u32 {
        self.outstanding.get(&(run, class, to)).copied().unwrap_or(0)
    }
}
