//! The fold of a share's partition: which frames count, and what stock and orders follow.
//!
//! It keeps what the verdicts need and nothing else; what an auditor wants to know beyond them
//! goes to a `Witness` while the records pass by.

use std::collections::{BTreeMap, HashSet, VecDeque};

use foldhash::{HashMap, HashMapExt};

use crate::bytes::{Hash, Malformed};
use crate::entry::{self, Block, Entry, Request};
use crate::frame::{self, Header, NotWhole};
use crate::kept::{Index, Kept, Keyed};
use crate::words::{OrderId, Seats, Why, legs};

/// How long an order that is over stays known.
const FORGOTTEN_AFTER_MS: u64 = 86_400_000;
/// The kind byte of a Claim.
const CLAIM: u8 = 1;

/// What a record of a share did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was admitted and all of it applied.
    Accepted,
    /// It changes nothing at all.
    Void(Void),
    /// It froze the share, or came behind what did.
    Fault(Fault),
}

/// Why a record changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Void {
    /// No whole frame.
    NotWhole(NotWhole),
    /// Another partition's or ledger's.
    Foreign,
    /// A first frame that is no Claim of the next epoch.
    Claim,
    /// Its writer does not own the share.
    Writer,
    /// The owner's, but not the next.
    Seq,
}

impl Void {
    /// The word for figures.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::NotWhole(why) => why.word(),
            Self::Foreign => "foreign",
            Self::Claim => "claim",
            Self::Writer => "writer",
            Self::Seq => "seq",
        }
    }
}

/// What an owner never writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A format that this fold does not know: it may mean anything.
    Format(u16),
    /// `previous` is not the checksum of the writer's preceding frame.
    Chain,
    /// Its time is before the writer's.
    Clock,
    /// Its entries cannot be read.
    Unreadable(Malformed),
    /// The share was frozen before.
    Frozen,
    /// An entry's requirement is not met: its place in the frame, and which.
    Impossible(usize, &'static str),
}

impl Fault {
    /// The word for figures.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Format(_) => "format",
            Self::Chain => "chain",
            Self::Clock => "clock",
            Self::Unreadable(_) => "unreadable",
            Self::Frozen => "frozen",
            Self::Impossible(..) => "impossible",
        }
    }

    /// What is wrong.
    #[must_use]
    pub fn says(self) -> String {
        match self {
            Self::Format(format) => format!("format {format} is not known here"),
            Self::Chain => "`previous` is not the writer's preceding checksum".to_owned(),
            Self::Clock => "its time goes back".to_owned(),
            Self::Unreadable(why) => format!("its entries cannot be read: {why}"),
            Self::Frozen => "the share was frozen before".to_owned(),
            Self::Impossible(at, why) => format!("entry {at}: {why}"),
        }
    }
}

/// An entry that an admitted frame says.
#[derive(Debug)]
pub struct Said<'a> {
    /// The share.
    pub share: u16,
    /// Offset in its partition.
    pub offset: u64,
    /// The frame's header.
    pub header: &'a Header,
    /// The entry.
    pub entry: &'a Entry<'a>,
    /// Whether the fold took it. What was said and not taken is part of a fault.
    pub applied: bool,
    /// The order was not known, nor forgotten by this very frame while it was Seeking.
    pub fresh: bool,
    /// The attempt that the order is at, after this entry.
    pub attempt: Option<u16>,
}

/// Hears what admitted frames say, in the order of the log.
pub trait Witness {
    /// One entry.
    fn hear(&mut self, said: &Said<'_>);
}

/// Where an order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Holds seats here until its deadline.
    Held,
    /// Paid; holds seats here.
    Paid,
    /// Over.
    Ended(Why),
    /// Its home asks another share.
    Sent,
    /// Its home may ask another share.
    Seeking,
    /// Another share holds its seats.
    Placed {
        /// Whether home has learnt that it was paid.
        paid: bool,
    },
    /// Over, on the other share.
    Closed,
}

/// An order as a share knows it.
#[derive(Clone, Debug)]
pub struct Order {
    /// The order.
    pub id: OrderId,
    key: Hash,
    /// Seats held here, while it is Held or Paid.
    seats: Seats,
    /// The frame's time that made it Ended, Closed or Seeking.
    over: u64,
    run: u16,
    attempt: u16,
    class: u8,
    from: u8,
    to: u8,
    /// Where it is.
    pub state: State,
}

/// A block in a share's stock. Until one of its seats is held, only its range is kept, so that
/// a forged Accept of a million blocks costs no more memory than its own bytes.
#[derive(Clone, Debug)]
pub struct Stocked {
    /// Behind its last seat.
    pub end: u16,
    touched: Vec<u128>,
}

impl Stocked {
    /// The free legs of its seats, from the first on; `None` where no seat was ever touched.
    #[must_use]
    pub fn seats(&self) -> Option<&[u128]> {
        if self.touched.is_empty() { None } else { Some(&self.touched) }
    }
}

/// The seats of one run and class on a share.
#[derive(Clone, Debug)]
pub struct Stock {
    /// Stops of the run.
    pub stops: u8,
    /// Blocks by their first seat.
    pub blocks: BTreeMap<u16, Stocked>,
}

impl Stock {
    /// All legs of a seat.
    #[must_use]
    pub fn whole(&self) -> u128 {
        legs(0, self.stops.saturating_sub(1))
    }

    fn has(&self, seat: u16) -> bool {
        self.blocks.range(..=seat).next_back().is_some_and(|(_, block)| seat < block.end)
    }

    fn meets(&self, first: u16, end: u16) -> bool {
        self.blocks.range(..end).next_back().is_some_and(|(_, block)| first < block.end)
    }

    fn free(&self, seat: u16) -> Option<u128> {
        let (first, block) = self.blocks.range(..=seat).next_back()?;
        if seat >= block.end {
            return None;
        }
        let touched = block.touched.get(usize::from(seat - first));
        Some(touched.map_or_else(|| self.whole(), |free| *free))
    }

    fn change(&mut self, seat: u16, change: impl FnOnce(&mut u128)) {
        let whole = self.whole();
        let Some((first, block)) = self.blocks.range_mut(..=seat).next_back() else { return };
        if block.touched.is_empty() {
            let seats = usize::from(block.end - first);
            block.touched = vec![whole; seats];
        }
        if let Some(free) = block.touched.get_mut(usize::from(seat - first)) {
            change(free);
        }
    }
}

/// The fold.
#[derive(Clone, Debug)]
pub struct Share {
    ledger: Hash,
    number: u16,
    epoch: u32,
    incarnation: Option<u64>,
    // Wider than a seq, so that what follows the last seq is none that a frame can have.
    next: u64,
    chain: Hash,
    now: u64,
    frozen: bool,
    accepted: Option<u64>,
    stock: HashMap<(u16, u8), Stock>,
    orders: Kept<Order>,
    // Of orders whose home this is.
    keys: Index,
    refused: HashSet<(OrderId, u16), foldhash::fast::RandomState>,
    // Times never go back within a share, so the queue is in their order.
    over: VecDeque<(u64, OrderId)>,
    forgotten_seeking: Vec<OrderId>,
}

impl Share {
    /// Starts before the first record, with the blocks of the initial split.
    #[must_use]
    pub fn new(ledger: Hash, number: u16, start: &[Block]) -> Self {
        let mut share = Self {
            ledger,
            number,
            epoch: 0,
            incarnation: None,
            next: 0,
            chain: [0; 16],
            now: 0,
            frozen: false,
            accepted: None,
            stock: HashMap::new(),
            orders: Kept::default(),
            keys: Index::default(),
            refused: HashSet::default(),
            over: VecDeque::new(),
            forgotten_seeking: Vec::new(),
        };
        for block in start {
            share.enter(block);
        }
        share
    }

    /// Its number, which is its partition.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// Whether a fault froze the share.
    #[must_use]
    pub const fn frozen(&self) -> bool {
        self.frozen
    }

    /// The epoch of its last Claim; 0 before the first.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The Take that it accepted last.
    #[must_use]
    pub const fn accepted(&self) -> Option<u64> {
        self.accepted
    }

    /// Its seats, by run and class.
    pub fn stock(&self) -> impl Iterator<Item = (u16, u8, &Stock)> {
        self.stock.iter().map(|((run, class), stock)| (*run, *class, stock))
    }

    /// The orders that it knows.
    pub fn orders(&self) -> impl Iterator<Item = &Order> {
        self.orders.iter()
    }

    /// Reads the next record.
    pub fn fold(&mut self, offset: u64, record: &[u8], witness: &mut impl Witness) -> Verdict {
        let (header, body) = match frame::read(record) {
            Ok(whole) => whole,
            Err(NotWhole::Format(format)) => {
                self.frozen = true;
                return Verdict::Fault(Fault::Format(format));
            }
            Err(why) => return Verdict::Void(Void::NotWhole(why)),
        };
        let first = body.first().copied();
        if let Err(why) = self.admit(&header, first) {
            return Verdict::Void(why);
        }
        let expected = if header.seq == 0 { [0; 16] } else { self.chain };
        let before = self.now;
        self.epoch = header.epoch;
        self.incarnation = Some(header.incarnation);
        self.next = u64::from(header.seq) + 1;
        self.chain = header.checksum;
        self.now = before.max(header.now);

        let was_frozen = self.frozen;
        let entries = entry::of_share(header.count, body);
        let fault = if header.previous != expected {
            Some(Fault::Chain)
        } else if header.seq != 0 && header.now < before {
            Some(Fault::Clock)
        } else if let Err(why) = entries {
            Some(Fault::Unreadable(why))
        } else if was_frozen && first != Some(CLAIM) {
            Some(Fault::Frozen)
        } else {
            None
        };
        let entries = entries.unwrap_or_default();
        let fault = match fault {
            Some(fault) => {
                self.tell(offset, &header, &entries, witness, was_frozen);
                Some(fault)
            }
            None => self.apply(offset, &header, &entries, witness),
        };
        fault.map_or(Verdict::Accepted, |fault| {
            self.frozen = true;
            Verdict::Fault(fault)
        })
    }

    /// Looks at the header and the first byte behind it only.
    fn admit(&self, header: &Header, first: Option<u8>) -> Result<(), Void> {
        if header.ledger != self.ledger || header.share != self.number {
            return Err(Void::Foreign);
        }
        if header.seq == 0 {
            let claims = header.count == 1
                && first == Some(CLAIM)
                && self.epoch.checked_add(1) == Some(header.epoch);
            return if claims { Ok(()) } else { Err(Void::Claim) };
        }
        if self.incarnation != Some(header.incarnation) || self.epoch != header.epoch {
            return Err(Void::Writer);
        }
        if self.next == u64::from(header.seq) { Ok(()) } else { Err(Void::Seq) }
    }

    /// Applies entries up to the first that is impossible.
    fn apply(
        &mut self,
        offset: u64,
        header: &Header,
        entries: &[Entry<'_>],
        witness: &mut impl Witness,
    ) -> Option<Fault> {
        let was_frozen = self.frozen;
        self.forget();
        for (place, entry) in entries.iter().enumerate() {
            let order = entry.order();
            let fresh = order.is_some_and(|order| {
                self.orders.slot(&order).is_none() && !self.forgotten_seeking.contains(&order)
            });
            if let Err(why) = self.entry(header, entry) {
                self.tell(offset, header, &entries[place..], witness, was_frozen);
                return Some(Fault::Impossible(place, why));
            }
            let attempt = order.and_then(|order| self.orders.get(&order)).map(|o| o.attempt);
            let share = self.number;
            witness.hear(&Said { share, offset, header, entry, applied: true, fresh, attempt });
        }
        None
    }

    /// Lets the witness hear what was said and not taken; nothing once the share was frozen.
    fn tell(
        &self,
        offset: u64,
        header: &Header,
        entries: &[Entry<'_>],
        witness: &mut impl Witness,
        was_frozen: bool,
    ) {
        for entry in entries.iter().filter(|_| !was_frozen) {
            witness.hear(&Said {
                share: self.number,
                offset,
                header,
                entry,
                applied: false,
                fresh: false,
                attempt: None,
            });
        }
    }

    fn forget(&mut self) {
        self.forgotten_seeking.clear();
        while let Some((over, id)) = self.over.front().copied() {
            if over.saturating_add(FORGOTTEN_AFTER_MS) > self.now {
                return;
            }
            self.over.pop_front();
            // An order that was Seeking may have gone on, and even have become so again.
            let Some(order) = self.orders.get(&id) else { continue };
            let state = order.state;
            let is_over = matches!(state, State::Ended(_) | State::Closed | State::Seeking);
            if !is_over || order.over != over {
                continue;
            }
            let key = order.key;
            if let Some(slot) = self.orders.slot(&id) {
                self.keys.remove(slot, &key);
            }
            self.orders.remove(&id);
            if state == State::Seeking {
                self.forgotten_seeking.push(id);
            }
        }
    }

    fn entry(&mut self, header: &Header, entry: &Entry<'_>) -> Result<(), &'static str> {
        match entry {
            Entry::Claim { .. } => require(header.seq == 0, "a Claim in the middle of an epoch"),
            Entry::Accept { take, blocks } => self.accept(*take, blocks),
            Entry::Held { order, attempt, request, seats, .. } => {
                self.held(*order, *attempt, request, seats)
            }
            Entry::Paid { order, .. } => self.paid(*order),
            Entry::Refunded { order, .. } => {
                require(self.orders.get(order).is_some(), "Refunded of an order not known")
            }
            Entry::Ended { order, why } => self.ended(*order, *why),
            Entry::Sent { order, attempt, to, request } => {
                require(order.home == self.number, "Sent away from the order's home")?;
                require(*to != self.number, "Sent to itself")?;
                require(*attempt != 0, "Sent as attempt 0")?;
                self.place_for(*order, request)?;
                self.know(known(*order, request, *attempt, Seats::none(), State::Sent));
                Ok(())
            }
            Entry::Placed { order, attempt, .. } => {
                self.moves(*order, *attempt, State::Sent, State::Placed { paid: false })
            }
            Entry::Returned { order, attempt } => {
                self.moves(*order, *attempt, State::Sent, State::Seeking)
            }
            Entry::Closed { order, attempt, .. } => {
                self.moves(*order, *attempt, State::Placed { paid: false }, State::Closed)
            }
            Entry::Refused { order, attempt } => {
                require(order.home != self.number, "Refused at the order's home")?;
                require(self.orders.get(order).is_none(), "Refused of an order known here")?;
                self.refused.insert((*order, *attempt));
                Ok(())
            }
            Entry::Yield { .. } => {
                self.incarnation = None;
                Ok(())
            }
        }
    }

    fn accept(&mut self, take: u64, blocks: &[Block]) -> Result<(), &'static str> {
        require(self.accepted.is_none_or(|last| take > last), "Accept of an earlier Take")?;
        // An impossible entry changes nothing, so its blocks are looked at before any enters.
        let mut stops: HashMap<(u16, u8), u8> = HashMap::new();
        let mut ranges: Vec<((u16, u8), u16, u16)> = Vec::new();
        for block in blocks {
            let of = (block.run, block.class);
            let stocked = self.stock.get(&of);
            let have = stocked.map_or(block.stops, |stock| stock.stops);
            let have = *stops.entry(of).or_insert(have);
            require(have == block.stops, "Accept of a block with other stops")?;
            let meets = stocked.is_some_and(|stock| stock.meets(block.first, block.end));
            require(!meets, "Accept of a seat that is here already")?;
            ranges.push((of, block.first, block.end));
        }
        ranges.sort_unstable();
        let twice = ranges.windows(2).any(|two| two[0].0 == two[1].0 && two[1].1 < two[0].2);
        require(!twice, "Accept of a seat twice")?;
        for block in blocks {
            self.enter(block);
        }
        self.accepted = Some(take);
        Ok(())
    }

    fn enter(&mut self, block: &Block) {
        let fresh = || Stock { stops: block.stops, blocks: BTreeMap::new() };
        let stock = self.stock.entry((block.run, block.class)).or_insert_with(fresh);
        stock.blocks.insert(block.first, Stocked { end: block.end, touched: Vec::new() });
    }

    fn held(
        &mut self,
        id: OrderId,
        attempt: u16,
        request: &Request,
        seats: &Seats,
    ) -> Result<(), &'static str> {
        let home = id.home == self.number;
        require((attempt == 0) == home, "Held with the attempt of another share")?;
        if home {
            self.place_for(id, request)?;
        } else {
            require(self.orders.get(&id).is_none(), "Held for an order known here")?;
            require(!self.refused.contains(&(id, attempt)), "Held for an attempt refused here")?;
        }
        let all = seats.all();
        require(request.party > 0, "Held for nobody")?;
        require(all.len() == usize::from(request.party), "Held with other than a seat each")?;
        let twice = (1..all.len()).any(|at| all[..at].contains(&all[at]));
        require(!twice, "Held with one seat twice")?;
        let mask = legs(request.from, request.to);
        let stock = self.stock.get_mut(&(request.run, request.class));
        let stock = stock.ok_or("Held of a seat that is not here")?;
        require(all.iter().all(|seat| stock.has(*seat)), "Held of a seat that is not here")?;
        let free = |seat: &u16| stock.free(*seat).is_some_and(|free| free & mask == mask);
        require(all.iter().all(free), "Held of a seat that is not free")?;
        for seat in all {
            stock.change(*seat, |free| *free &= !mask);
        }
        self.know(known(id, request, attempt, seats.clone(), State::Held));
        Ok(())
    }

    /// An order is known from here on; its key too, if this is its home.
    fn know(&mut self, order: Order) {
        let home = order.id.home == self.number;
        let slot = self.orders.insert(order);
        if home {
            self.keys.insert(&self.orders, slot, |order| order.key);
        }
    }

    /// The order is Seeking with this key, or neither it nor its key is known.
    fn place_for(&self, id: OrderId, request: &Request) -> Result<(), &'static str> {
        let Some(order) = self.orders.get(&id) else {
            let taken = self.keys.find(&self.orders, &request.key, |order| order.key);
            return require(taken.is_none(), "the key has an order already");
        };
        require(order.state == State::Seeking, "the order is known and not Seeking")?;
        require(order.key == request.key, "the order goes on under another key")
    }

    fn paid(&mut self, id: OrderId) -> Result<(), &'static str> {
        let order = self.orders.get_mut(&id).ok_or("Paid of an order not known")?;
        order.state = match order.state {
            State::Held => State::Paid,
            State::Placed { paid: false } => State::Placed { paid: true },
            _ => return Err("Paid of an order that is not waiting for it"),
        };
        Ok(())
    }

    fn ended(&mut self, id: OrderId, why: Why) -> Result<(), &'static str> {
        let order = self.orders.get_mut(&id).ok_or("Ended of an order not known")?;
        let fits = match order.state {
            State::Held => why != Why::Refunded,
            State::Paid => matches!(why, Why::Refunded | Why::Withdrawn),
            _ => return Err("Ended of an order that holds nothing here"),
        };
        require(fits, "Ended for a reason that does not fit its state")?;
        order.state = State::Ended(why);
        order.over = self.now;
        let mask = legs(order.from, order.to);
        let seats = std::mem::replace(&mut order.seats, Seats::none());
        let of = (order.run, order.class);
        self.over.push_back((self.now, id));
        if let Some(stock) = self.stock.get_mut(&of) {
            for seat in seats.all() {
                stock.change(*seat, |free| *free |= mask);
            }
        }
        Ok(())
    }

    /// A step of an order that travels, said at its home.
    fn moves(
        &mut self,
        id: OrderId,
        attempt: u16,
        from: State,
        to: State,
    ) -> Result<(), &'static str> {
        let order = self.orders.get_mut(&id).ok_or("a step of an order not known")?;
        let same = std::mem::discriminant(&order.state) == std::mem::discriminant(&from);
        require(same && order.attempt == attempt, "a step that the order is not at")?;
        order.state = to;
        if matches!(to, State::Closed | State::Seeking) {
            order.over = self.now;
            self.over.push_back((self.now, id));
        }
        Ok(())
    }
}

impl Keyed for Order {
    type Key = OrderId;

    fn key(&self) -> OrderId {
        self.id
    }
}

fn require(met: bool, why: &'static str) -> Result<(), &'static str> {
    if met { Ok(()) } else { Err(why) }
}

fn known(id: OrderId, request: &Request, attempt: u16, seats: Seats, state: State) -> Order {
    Order {
        id,
        key: request.key,
        seats,
        over: 0,
        run: request.run,
        attempt,
        class: request.class,
        from: request.from,
        to: request.to,
        state,
    }
}
