//! One share: claim, confirm, answer from memory.
//!
//! One seat, two buyers, processes that claim (a process started anew is one more). The network
//! may keep every frame as long as it likes, lose one, and tell the writer nothing, or no
//! offset. There is no crash: a process that died is one that never moves again, and one that
//! was paused is one that moves late. No reason to claim is asked for: whoever likes claims, so
//! that nothing here rests on who believes whom to be dead.
//!
//! One model is tried in two sizes. `Share<false>` is about what is written: three processes,
//! three epochs, every fault, and owners sell at once. `Share<true>` is about what memory
//! answers: two processes, the board, and time; a tick is the length of a lease, and is needed
//! for one thing only, to say how old an answer may be.

use arrayvec::ArrayVec;
use stateright::{Model, Property};

use crate::check::Subject;

const PROCESSES_MAX: usize = 3;
const BUYERS: usize = 2;
/// Three Claims, a seat that is sold, given back and sold again, and one frame more.
const RECORDS_MAX: usize = 7;
/// A beat for each epoch, and one more for an owner that wakes.
const BEATS_MAX: usize = 4;
/// Three ticks: one in which an owner is told, one in which its lease ends, one after.
const TICKS_MAX: usize = 3;
const LEASE_TICKS: usize = 1;
/// As the product has it.
const FLIGHTS_MAX: usize = 2;

/// A rule to leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Without {
    /// Admission looks at epoch and writer.
    Epochs,
    /// A Claim is of the next epoch.
    NextEpoch,
    /// Admission looks at the seq.
    Seqs,
    /// A frame is confirmed at the anchor + 1, or by reading back.
    Anchor,
    /// Memory answers under a lease.
    Lease,
    /// Memory answers behind what is in flight.
    Patience,
    /// An answer behind a frame needs a lease as well: the frame may be old.
    LeaseOfRiders,
    /// An owner sells only after the board has told of its Claim.
    Told,
    /// A restarted process claims; without this it goes on as the one that it was.
    NewIncarnation,
}

/// What becomes of a buyer's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Order {
    #[default]
    None,
    Held,
    Ended,
}

/// All orders; the seat is free if none is held.
type Orders = [Order; BUYERS];

fn is_free(orders: &Orders) -> bool {
    !orders.contains(&Order::Held)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Entry {
    Claim,
    Held(u8),
    Ended(u8),
}

/// A frame. `hand` stands for what makes its checksum unlike any other's: who really wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Record {
    hand: u8,
    writer: u8,
    epoch: u8,
    seq: u8,
    entry: Entry,
}

/// The log, read up to some record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Fold {
    epoch: u8,
    writer: u8,
    next: u8,
    orders: Orders,
    /// An accepted frame contradicted what was there.
    fault: bool,
}

impl Fold {
    fn admits(&self, record: &Record, without: Option<Without>) -> bool {
        if record.entry == Entry::Claim {
            let next = record.epoch == self.epoch + 1;
            return next || without == Some(Without::NextEpoch);
        }
        let of_writer = record.epoch == self.epoch && record.writer == self.writer;
        match without {
            Some(Without::Epochs) => true,
            Some(Without::Seqs) => of_writer,
            _ => of_writer && record.seq == self.next,
        }
    }

    /// Whether the record counts; if so, it happens.
    fn read(&mut self, record: &Record, without: Option<Without>) -> bool {
        if !self.admits(record, without) {
            return false;
        }
        (self.epoch, self.writer, self.next) = (record.epoch, record.writer, record.seq + 1);
        self.fault |= !apply(&mut self.orders, record.entry);
        true
    }
}

/// Lets an entry happen. False if it contradicts.
fn apply(orders: &mut Orders, entry: Entry) -> bool {
    let free = is_free(orders);
    match entry {
        Entry::Claim => true,
        Entry::Held(buyer) => {
            let order = &mut orders[usize::from(buyer)];
            let sound = free && *order == Order::None;
            *order = Order::Held;
            sound
        }
        Entry::Ended(buyer) => {
            let order = &mut orders[usize::from(buyer)];
            let sound = *order == Order::Held;
            *order = Order::Ended;
            sound
        }
    }
}

/// An answer that writes nothing and waits for a frame: what memory was, and when it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Rider {
    memory: Orders,
    asked: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Flight {
    record: Record,
    rider: Option<Rider>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Owner {
    /// The incarnation that its frames name; its own, unless a rule is left out.
    writer: u8,
    epoch: u8,
    anchor: u8,
    next: u8,
    memory: Orders,
    flights: ArrayVec<Flight, FLIGHTS_MAX>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Role {
    Idle,
    Claiming(u8),
    Owner(Owner),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Beat {
    hand: u8,
    writer: u8,
    epoch: u8,
    sent: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Process {
    role: Role,
    /// How much of the board it has read.
    heard: u8,
    /// The highest epoch on the board so far, and whose.
    top: (u8, u8),
    /// When the last own beat that came back was sent.
    vouch: Option<u8>,
}

/// What a buyer was told in the last step and should not have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Lie {
    /// Of an order that the log does not have.
    Confirmed,
    /// From memory, what was false for longer than a lease.
    Stale,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    log: ArrayVec<Record, RECORDS_MAX>,
    /// Frames on their way.
    net: ArrayVec<Record, RECORDS_MAX>,
    board: ArrayVec<Beat, BEATS_MAX>,
    processes: [Process; PROCESSES_MAX],
    /// Records in the log when each tick began.
    ticks: ArrayVec<u8, TICKS_MAX>,
    may_lose: bool,
    may_hide_offset: bool,
    may_stay_unknown: bool,
    lie: Option<Lie>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// With the offset.
    At,
    /// Written, the offset untold.
    Somewhere,
    /// Never told.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// A process appends a Claim of the epoch behind the one that it has folded.
    Claim(u8),
    /// A process goes on as the incarnation that it was before it was started anew.
    GoOn(u8),
    /// The oldest frame of a process's epoch lands in the log.
    Land(u8, u8),
    /// It never will.
    Lose(u8, u8),
    /// A claimant reads the log.
    ReadClaim(u8),
    /// An owner holds the seat for a buyer.
    Hold(u8, u8),
    /// An owner ends a buyer's order.
    End(u8, u8),
    /// Somebody asks an owner for what its memory has.
    Ask(u8),
    /// An owner hears of its oldest frame.
    Deliver(u8, Fate),
    /// An owner tells the board.
    Beat(u8),
    /// A process reads the next beat.
    Hear(u8),
    /// Time passes.
    Tick,
}

/// The model, perhaps without one rule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share<const LEASES: bool> {
    without: Option<Without>,
}

impl<const LEASES: bool> Share<LEASES> {
    /// Owner and rival; and what is written needs a rival that was itself replaced.
    const PROCESSES: u8 = if LEASES { 2 } else { 3 };
    const EPOCHS: u8 = if LEASES { 2 } else { 3 };
    const RECORDS: usize = if LEASES { 4 } else { RECORDS_MAX };

    fn is_without(&self, rule: Without) -> bool {
        self.without == Some(rule)
    }

    fn fold(&self, log: &[Record]) -> Fold {
        let mut fold = Fold::default();
        for record in log {
            fold.read(record, self.without);
        }
        fold
    }

    /// Whether the record at `at` counts.
    fn counts(&self, log: &[Record], at: usize) -> bool {
        self.fold(&log[..at]).admits(&log[at], self.without)
    }

    fn is_told(process: &Process, owner: &Owner) -> bool {
        process.top == (owner.epoch, owner.writer)
    }

    fn has_lease(state: &State, process: &Process, owner: &Owner) -> bool {
        let now = state.ticks.len() - 1;
        let fresh = process.vouch.is_some_and(|sent| usize::from(sent) + LEASE_TICKS >= now);
        fresh && Self::is_told(process, owner)
    }

    fn may_sell(&self, process: &Process, owner: &Owner) -> bool {
        !LEASES || Self::is_told(process, owner) || self.is_without(Without::Told)
    }

    /// Whether the log, at some time since `asked` less a lease, was what memory says.
    fn was_true(&self, state: &State, memory: &Orders, asked: usize) -> bool {
        let since = state.ticks[asked.saturating_sub(LEASE_TICKS)];
        (usize::from(since)..=state.log.len())
            .any(|upto| self.fold(&state.log[..upto]).orders == *memory)
    }

    fn owner(state: &mut State, process: u8) -> Option<&mut Owner> {
        match &mut state.processes[usize::from(process)].role {
            Role::Owner(owner) => Some(owner),
            _ => None,
        }
    }

    fn write(state: &mut State, process: u8, entry: Entry) {
        let Some(owner) = Self::owner(state, process) else { return };
        let (writer, epoch, seq) = (owner.writer, owner.epoch, owner.next);
        let record = Record { hand: process, writer, epoch, seq, entry };
        owner.next += 1;
        apply(&mut owner.memory, entry);
        owner.flights.push(Flight { record, rider: None });
        state.net.push(record);
    }

    fn read_claim(&self, state: &mut State, process: u8, epoch: u8) {
        let mine = |r: &Record| r.hand == process && r.entry == Entry::Claim && r.epoch == epoch;
        let at = state.log.iter().position(mine);
        state.processes[usize::from(process)].role = match at {
            Some(at) if self.counts(&state.log, at) => {
                let memory = self.fold(&state.log[..=at]).orders;
                let flights = ArrayVec::new();
                let anchor = at as u8;
                Role::Owner(Owner { writer: process, epoch, anchor, next: 1, memory, flights })
            }
            _ => Role::Idle,
        };
    }

    fn go_on(&self, state: &mut State, process: u8) {
        let fold = self.fold(&state.log);
        let anchor = state.log.len() as u8 - 1;
        let Fold { epoch, writer, next, orders: memory, .. } = fold;
        let flights = ArrayVec::new();
        let owner = Owner { writer, epoch, anchor, next, memory, flights };
        state.processes[usize::from(process)].role = Role::Owner(owner);
    }

    fn ask(&self, state: &mut State, process: u8) {
        let asked = state.ticks.len() - 1;
        let Some(owner) = Self::owner(state, process) else { return };
        let memory = owner.memory;
        let patient = !self.is_without(Without::Patience);
        if let Some(last) = owner.flights.last_mut().filter(|_| patient) {
            last.rider = Some(Rider { memory, asked: asked as u8 });
            return;
        }
        state.lie = (!self.was_true(state, &memory, asked)).then_some(Lie::Stale);
    }

    fn deliver(&self, state: &mut State, process: u8, fate: Fate) {
        match fate {
            Fate::At => {}
            Fate::Somewhere => state.may_hide_offset = false,
            Fate::Unknown => {
                state.may_stay_unknown = false;
                state.processes[usize::from(process)].role = Role::Idle;
                return;
            }
        }
        let log = state.log.clone();
        let Some(owner) = Self::owner(state, process) else { return };
        let Some(front) = owner.flights.first() else { return };
        let Some(at) = log.iter().position(|r| *r == front.record) else { return };
        let behind_anchor = at == usize::from(owner.anchor) + 1 && fate == Fate::At;
        if behind_anchor || self.is_without(Without::Anchor) {
            owner.anchor = at as u8;
            self.confirm(state, process, at);
            return;
        }
        let upto = if fate == Fate::At { at } else { log.len() - 1 };
        self.read_back(state, process, upto);
    }

    /// Reads from behind the anchor up to `upto`, by headers alone, as the owner does.
    fn read_back(&self, state: &mut State, process: u8, upto: usize) {
        loop {
            let log = state.log.clone();
            let Some(owner) = Self::owner(state, process) else { return };
            let at = usize::from(owner.anchor) + 1;
            if at > upto {
                return;
            }
            owner.anchor = at as u8;
            let (epoch, writer) = (owner.epoch, owner.writer);
            let next = owner.flights.first().map_or(owner.next, |f| f.record.seq);
            let confirmed = Fold { epoch, writer, next, ..Fold::default() };
            if !confirmed.admits(&log[at], self.without) {
                continue;
            }
            let own = owner.flights.first().is_some_and(|f| f.record == log[at]);
            if !own {
                // Outclaimed, or the log contradicts memory.
                state.processes[usize::from(process)].role = Role::Idle;
                return;
            }
            self.confirm(state, process, at);
        }
    }

    fn confirm(&self, state: &mut State, process: u8, at: usize) {
        let Some(owner) = Self::owner(state, process) else { return };
        let Some(flight) = owner.flights.pop_at(0) else { return };
        if !self.counts(&state.log, at) {
            state.lie = Some(Lie::Confirmed);
            return;
        }
        let Some(rider) = flight.rider else { return };
        let there = &state.processes[usize::from(process)];
        let Role::Owner(owner) = &there.role else { return };
        if !self.is_without(Without::LeaseOfRiders) && !Self::has_lease(state, there, owner) {
            // Its buyer hears "busy".
            return;
        }
        if !self.was_true(state, &rider.memory, usize::from(rider.asked)) {
            state.lie = Some(Lie::Stale);
        }
    }

    fn hear(state: &mut State, process: u8) {
        let there = &mut state.processes[usize::from(process)];
        let beat = state.board[usize::from(there.heard)];
        there.heard += 1;
        if beat.epoch >= there.top.0 {
            there.top = (beat.epoch, beat.writer);
        }
        if beat.hand == process {
            there.vouch = Some(beat.sent);
        }
    }

    fn owner_actions(&self, state: &State, p: u8, owner: &Owner, actions: &mut Vec<Action>) {
        let there = &state.processes[usize::from(p)];
        let room = state.log.len() + state.net.len() < Self::RECORDS;
        if room && !owner.flights.is_full() && self.may_sell(there, owner) {
            for buyer in 0..BUYERS as u8 {
                let order = owner.memory[usize::from(buyer)];
                if order == Order::None && is_free(&owner.memory) && Self::may_buy(state, buyer) {
                    actions.push(Action::Hold(p, buyer));
                }
                if order == Order::Held {
                    actions.push(Action::End(p, buyer));
                }
            }
        }
        if let Some(front) = owner.flights.first() {
            if state.log.contains(&front.record) {
                actions.push(Action::Deliver(p, Fate::At));
                if state.may_hide_offset {
                    actions.push(Action::Deliver(p, Fate::Somewhere));
                }
            }
            if state.may_stay_unknown {
                actions.push(Action::Deliver(p, Fate::Unknown));
            }
        }
        if !LEASES {
            return;
        }
        if self.may_ask(state, there, owner) {
            actions.push(Action::Ask(p));
        }
        if !state.board.is_full() {
            actions.push(Action::Beat(p));
        }
        if usize::from(there.heard) < state.board.len() {
            actions.push(Action::Hear(p));
        }
    }

    /// Of two buyers who are alike, the first in the history is the first.
    fn may_buy(state: &State, buyer: u8) -> bool {
        let lost = !LEASES && !state.may_lose;
        let mut frames = state.log.iter().chain(&state.net);
        buyer == 0 || lost || frames.any(|r| r.entry == Entry::Held(0))
    }

    fn may_ask(&self, state: &State, there: &Process, owner: &Owner) -> bool {
        let leased = Self::has_lease(state, there, owner) || self.is_without(Without::Lease);
        let rides = owner.flights.last().is_some_and(|f| f.rider.is_none());
        let answers = if self.is_without(Without::Patience) {
            leased
        } else {
            rides || owner.flights.is_empty() && leased
        };
        answers && self.may_sell(there, owner)
    }

    fn idle_actions(&self, state: &State, p: u8, actions: &mut Vec<Action>) {
        let room = state.log.len() + state.net.len() < Self::RECORDS;
        // Of the two that have not begun, either may be the first: it makes no difference.
        let waits = p == 2 && state.processes[1].is_new() && self.without.is_none();
        if room && !waits && self.fold(&state.log).epoch < Self::EPOCHS {
            actions.push(Action::Claim(p));
        }
        if p > 0 && self.is_without(Without::NewIncarnation) {
            actions.push(Action::GoOn(p));
        }
    }
}

impl State {
    /// Of the frames on their way.
    fn oldest(&self, hand: u8, epoch: u8) -> Option<usize> {
        self.net.iter().position(|r| r.hand == hand && r.epoch == epoch)
    }

    fn owners(&self) -> impl Iterator<Item = (&Process, &Owner)> {
        self.processes.iter().filter_map(|p| match &p.role {
            Role::Owner(owner) => Some((p, owner)),
            _ => None,
        })
    }
}

impl Process {
    fn new() -> Self {
        Self { role: Role::Idle, heard: 0, top: (0, 0), vouch: None }
    }

    fn is_new(&self) -> bool {
        *self == Self::new()
    }
}

impl<const LEASES: bool> Model for Share<LEASES> {
    type State = State;
    type Action = Action;

    /// The first process owns the share and sells: how it came to that is how the others do.
    fn init_states(&self) -> Vec<State> {
        let claim = Record { hand: 0, writer: 0, epoch: 1, seq: 0, entry: Entry::Claim };
        let beat = Beat { hand: 0, writer: 0, epoch: 1, sent: 0 };
        let mut processes = [Process::new(), Process::new(), Process::new()];
        let owner = Owner {
            writer: 0,
            epoch: 1,
            anchor: 0,
            next: 1,
            memory: Orders::default(),
            flights: ArrayVec::new(),
        };
        processes[0] = Process { role: Role::Owner(owner), heard: 1, top: (1, 0), vouch: Some(0) };
        vec![State {
            log: std::iter::once(claim).collect(),
            net: ArrayVec::new(),
            board: std::iter::once(beat).collect(),
            processes,
            ticks: std::iter::once(0).collect(),
            may_lose: !LEASES,
            may_hide_offset: !LEASES,
            may_stay_unknown: !LEASES,
            lie: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for p in 0..Self::PROCESSES {
            let frames = state.net.iter().filter(|r| r.hand == p);
            let epochs: ArrayVec<u8, RECORDS_MAX> = frames.map(|r| r.epoch).collect();
            for (at, epoch) in epochs.iter().enumerate() {
                if epochs[..at].contains(epoch) {
                    continue;
                }
                actions.push(Action::Land(p, *epoch));
                if state.may_lose {
                    actions.push(Action::Lose(p, *epoch));
                }
            }
            match &state.processes[usize::from(p)].role {
                Role::Idle => self.idle_actions(state, p, actions),
                Role::Claiming(epoch) if self.fold(&state.log).epoch >= *epoch => {
                    actions.push(Action::ReadClaim(p));
                }
                Role::Claiming(_) => {}
                Role::Owner(owner) => self.owner_actions(state, p, owner, actions),
            }
        }
        if LEASES && !state.ticks.is_full() {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        state.lie = None;
        match action {
            Action::Claim(p) => {
                let epoch = self.fold(&state.log).epoch + 1;
                state.processes[usize::from(p)].role = Role::Claiming(epoch);
                state.net.push(Record { hand: p, writer: p, epoch, seq: 0, entry: Entry::Claim });
            }
            Action::GoOn(p) => self.go_on(&mut state, p),
            Action::Land(p, epoch) => {
                let at = state.oldest(p, epoch)?;
                let record = state.net.remove(at);
                state.log.push(record);
            }
            Action::Lose(p, epoch) => {
                let at = state.oldest(p, epoch)?;
                state.net.remove(at);
                state.may_lose = false;
            }
            Action::ReadClaim(p) => {
                let Role::Claiming(epoch) = state.processes[usize::from(p)].role else {
                    return None;
                };
                self.read_claim(&mut state, p, epoch);
            }
            Action::Hold(p, buyer) => Self::write(&mut state, p, Entry::Held(buyer)),
            Action::End(p, buyer) => Self::write(&mut state, p, Entry::Ended(buyer)),
            Action::Ask(p) => {
                self.ask(&mut state, p);
                // An answer that was true leaves nothing behind.
                if state == *last {
                    return None;
                }
            }
            Action::Deliver(p, fate) => self.deliver(&mut state, p, fate),
            Action::Beat(p) => {
                let sent = state.ticks.len() as u8 - 1;
                let owner = Self::owner(&mut state, p)?;
                let beat = Beat { hand: p, writer: owner.writer, epoch: owner.epoch, sent };
                state.board.push(beat);
            }
            Action::Hear(p) => Self::hear(&mut state, p),
            Action::Tick => state.ticks.push(state.log.len() as u8),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(ONE_OWNER, |m: &Self, s: &State| !m.fold(&s.log).fault),
            Property::always(CONFIRMED, |_, s: &State| s.lie != Some(Lie::Confirmed)),
            Property::sometimes("a former owner's frame is void", |m: &Self, s: &State| {
                m.has_void(s, |entry| entry != Entry::Claim)
            }),
            Property::sometimes("the last epoch sells", |m: &Self, s: &State| {
                let fold = m.fold(&s.log);
                fold.epoch == Self::EPOCHS && fold.next > 1
            }),
        ];
        properties.extend(if LEASES { self.of_memory() } else { self.of_writing() });
        properties
    }
}

impl<const LEASES: bool> Share<LEASES> {
    fn has_void(&self, state: &State, of: impl Fn(Entry) -> bool) -> bool {
        let void = |at: &usize| of(state.log[*at].entry) && !self.counts(&state.log, *at);
        (0..state.log.len()).any(|at| void(&at))
    }

    fn of_writing(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_CLAIM, |m: &Self, s: &State| {
                let claims = (0..s.log.len()).filter(|at| s.log[*at].entry == Entry::Claim);
                let epochs = claims.filter(|at| m.counts(&s.log, *at)).map(|at| s.log[at].epoch);
                epochs.zip(1..).all(|(epoch, next)| epoch == next)
            }),
            Property::sometimes("a seat that came back is sold again", |m: &Self, s: &State| {
                m.fold(&s.log).orders == [Order::Ended, Order::Held]
            }),
            Property::sometimes("a Claim comes too late", |m: &Self, s: &State| {
                m.has_void(s, |entry| entry == Entry::Claim)
            }),
            Property::sometimes("a frame is confirmed over a foreign one", |_, s: &State| {
                s.owners().any(|(_, o)| {
                    let at = usize::from(o.anchor);
                    at > 0 && s.log[at].hand != s.log[at - 1].hand && s.log[at].seq > 0
                })
            }),
            Property::sometimes(
                "a frame of a process comes after its next Claim",
                |_, s: &State| {
                    let of = |hand| s.log.iter().filter(move |r| r.hand == hand);
                    (0..Self::PROCESSES).any(|p| !of(p).is_sorted_by_key(|r| r.epoch))
                },
            ),
        ]
    }

    fn of_memory(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(FRESH, |_, s: &State| s.lie != Some(Lie::Stale)),
            Property::sometimes("memory answers under a lease", |m: &Self, s: &State| {
                s.owners().any(|(p, o)| o.flights.is_empty() && m.may_ask(s, p, o))
            }),
            Property::sometimes("memory answers behind a frame", |_, s: &State| {
                s.owners().any(|(p, o)| {
                    let front = o.flights.first();
                    let told = front.is_some_and(|f| s.log.contains(&f.record));
                    told && front.is_some_and(|f| f.rider.is_some()) && Self::has_lease(s, p, o)
                })
            }),
            Property::sometimes(
                "an owner wakes replaced, without a lease",
                |m: &Self, s: &State| {
                    let epoch = m.fold(&s.log).epoch;
                    s.owners().any(|(p, o)| o.epoch < epoch && !Self::has_lease(s, p, o))
                },
            ),
            Property::sometimes("a replaced owner still has a lease", |m: &Self, s: &State| {
                let epoch = m.fold(&s.log).epoch;
                s.owners().any(|(p, o)| o.epoch < epoch && Self::has_lease(s, p, o))
            }),
        ]
    }
}

const ONE_OWNER: &str = "no frame that counts contradicts another: one live order per seat";
const ONE_CLAIM: &str = "every epoch has one Claim that counts";
const CONFIRMED: &str = "what a buyer was told is in the log";
const FRESH: &str = "an answer from memory was true at most a lease ago";

impl Subject for Share<false> {
    type Without = Without;
    const NAME: &'static str = "share: what is written";
    const RULES: &'static [(Without, &'static str)] =
        &[(Without::Epochs, ONE_OWNER), (Without::Seqs, ONE_OWNER), (Without::Anchor, CONFIRMED)];

    fn without(rule: Option<Without>) -> Self {
        Self { without: rule }
    }
}

impl Subject for Share<true> {
    type Without = Without;
    const NAME: &'static str = "share: what memory answers";
    const RULES: &'static [(Without, &'static str)] = &[
        (Without::Lease, FRESH),
        (Without::Patience, FRESH),
        (Without::LeaseOfRiders, FRESH),
        (Without::Told, FRESH),
        (Without::NewIncarnation, FRESH),
    ];

    fn without(rule: Option<Without>) -> Self {
        Self { without: rule }
    }
}
