//! Owning a share: claim it, decide in memory, answer when the log has accepted.
//!
//! A [`Candidate`] folds a share's partition and claims it; only its own accepted Claim makes
//! an [`Owner`]. Both are machines without I/O: inputs in, outputs out, time handed in. The
//! rules that the order of the log imposes are all here:
//!
//! - What writes is answered when its frame is confirmed: delivered at the anchor + 1, or read
//!   back through the admission of every record up to it.
//! - What writes nothing is answered behind a frame that is still to be handed to the log, or
//!   under a lease when the last frame in flight is confirmed.
//! - When a frame's fate stays unknown, the owner stops and forgets; whoever waited hears
//!   "unknown", never "failed" and never "sold out".

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::allocate::Seats;
use crate::board::{Board, Row, STALL_MS, Search, ShareBeat, ShareStage, Sought};
use crate::codec::Malformed;
use crate::digest::Digest;
use crate::entry::{End, Entry, OrderRequest, Sent};
use crate::fold::{Admission, Fault, Verdict, Writer, fold};
use crate::legs::Journey;
use crate::pool::Pool;
use crate::state::{
    Change, Command, Decision, Order, OrderState, Refusal, Rules, ShareState, price,
};
use crate::teeth::{self, Bug};
use crate::wire::{Chain, Draft, FRAME_BYTES_MAX, Frame};
use crate::words::{
    Address, Attempt, ClassId, Digest128, Epoch, Incarnation, Millis, NodeId, Offset, OrderId,
    RunId, Seq, ShareId,
};

/// Frames in flight. Two: a third would wait behind the second at the broker anyway, and its
/// buyers would join those who hear "unknown" if this node dies.
pub const FRAMES_IN_FLIGHT_MAX: usize = 2;

/// A frame that is worth its own way whatever is in front of it, far below what a frame can hold:
/// nobody must hear that it is full while it might go.
const LARGE_FRAME_BYTES: usize = FRAME_BYTES_MAX / 4;

/// Requests that wait for a draw or for the board. At 20,000 requests a second and a beat
/// every 50 ms a share sees 1,000 of them; more means that the board stands still.
pub const PARKED_MAX: usize = 1_024;

/// How long a request waits for a draw or for the board before it hears "busy". A beat comes
/// within 200 ms and a draw takes a few, so that longer means trouble.
const PARK_MS: u64 = 800;

/// After this long a buyer hears "unknown, retry with the same key" rather than nothing.
const PATIENCE_MS: u64 = 3_000;

/// No hold ends for so long after a take-over or a slow delivery: its buyer may have paid, and
/// the webhook had nobody to talk to.
pub const TAKEOVER_GRACE_MS: u64 = 15_000;

/// A delivery slower than this is slow enough that payments may have been kept waiting.
const SLOW_DELIVERY_MS: u64 = 2_000;

/// How long to wait before asking once more what became of an order elsewhere.
const RESOLVE_MS: u64 = 500;

/// How long after its deadline an order that lives elsewhere is asked after.
const ASK_AFTER_MS: u64 = 5_000;

/// Holds that end in one turn at most, so that a wave of expiries does not starve buyers.
const EXPIRIES_MAX: usize = 256;

/// Blocks of one draw at most: a share of a hot run empties one in a few milliseconds.
const DRAW_BLOCKS: u32 = 3;

/// How long a draw may take before it is tried again.
const DRAW_MS: u64 = 500;

/// Two clocks, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Time of day: deadlines. May jump.
    pub wall: Millis,
    /// Monotonic: leases and patience. Never compared between nodes.
    pub mono: Millis,
}

/// Who waits for an answer; given and understood by the caller of [`Owner::handle`] alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caller(pub u64);

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Written at this offset.
    At(Offset),
    /// Written; the offset was not told.
    Somewhere,
    /// It may or may not be written, and no further word will come.
    Unknown,
}

/// What the owner knows beside its share.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Partition 0 as this core has folded it.
    pub pool: &'a Pool,
    /// The board as this core has heard it.
    pub board: &'a Board,
}

/// What happens to an owner.
#[derive(Debug)]
pub enum Input<'a> {
    /// A request for this share.
    Command(Caller, &'a Command),
    /// The fate of one of its frames.
    Delivered(Seq, Fate),
    /// A record of its partition that it asked to read back.
    Record(Offset, &'a [u8]),
    /// Partition 0 ended at this offset after the Claim was accepted.
    PoolEnd(Offset),
    /// The pool or the board moved on.
    Moved,
    /// What another share said to an order of this one: see [`Output::Travel`].
    Reply(OrderId, Attempt, Reply),
    /// What another share answered to a relayed command: see [`Output::Relay`].
    Relayed(Caller, OrderId, Answer),
    /// A timer that it asked for, or simply time.
    Tick,
    /// Give the share up, to that node if one is named.
    Yield(Option<NodeId>),
    /// Stop at once: part of the board was not heard.
    Deaf,
}

/// What an owner wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Tell the caller.
    Answer(Caller, Answer),
    /// Draw blocks of the class from the pool for this share.
    Draw {
        /// Which run.
        run: RunId,
        /// Which class.
        class: ClassId,
        /// How many.
        blocks: u32,
    },
    /// Ask share `to` on behalf of an order, once; the answer comes back as [`Input::Reply`].
    Travel {
        /// Whom to ask.
        to: ShareId,
        /// Which order.
        order: OrderId,
        /// Which try.
        attempt: Attempt,
        /// What to ask.
        command: Command,
    },
    /// Pass the command to share `to`; the answer comes back as [`Input::Relayed`].
    Relay {
        /// Who waits.
        caller: Caller,
        /// Which order.
        order: OrderId,
        /// Whom to ask.
        to: ShareId,
        /// What to ask.
        command: Command,
    },
    /// This share is no longer owned here: find its owner for the caller. Nothing was written.
    Rehome(Caller, Command),
    /// Read the partition from `from` up to and including `upto` (to its present end if none),
    /// as [`Input::Record`]s.
    ReadBack {
        /// The first offset.
        from: Offset,
        /// The last offset.
        upto: Option<Offset>,
    },
    /// The owner is no more; drop it.
    Stop(Stopped),
}

/// What another share said to an order on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The order as it is there.
    Order(OrderView),
    /// No, and never by this try.
    No,
    /// Nothing certain was heard.
    Unknown,
}

/// Why an owner stopped. Variants are metric labels; waiting buyers hear "retry, same key".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Stopped {
    /// Another process claimed the share.
    #[error("epoch {0} was claimed by another")]
    Outclaimed(Epoch),
    /// A frame may or may not be written.
    #[error("frame {0} may or may not be written")]
    FateUnknown(Seq),
    /// The board broke off: a successor may have come and gone unheard.
    #[error("the board broke off")]
    Deaf,
    /// The share was given up.
    #[error("given up")]
    Yielded,
    /// What was read back contradicts what was written: a defect, or a damaged log.
    #[error("the log contradicts memory at offset {0}")]
    Contradiction(Offset),
}

/// Where an order is, as its buyer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Status {
    /// Seats are held until the deadline.
    Held(Millis),
    /// It is paid.
    Paid,
    /// It is over.
    Ended(End),
    /// It came back without seats; the same key may try again.
    Seeking,
    /// It is on its way to another share.
    Sent,
}

/// An order as it was when the answer was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderView {
    /// Which one.
    pub order: OrderId,
    /// Whose.
    pub buyer: Digest128,
    /// Its run.
    pub run: RunId,
    /// Its class.
    pub class: ClassId,
    /// From where to where.
    pub journey: Journey,
    /// Its seats, one for each passenger of the request.
    pub seats: Seats,
    /// The whole price, in minor units.
    pub price: u64,
    /// Where it is in its life.
    pub status: Status,
    /// A payment was, or is to be, returned.
    pub returned: bool,
    /// Where the log says so at the latest.
    pub position: Option<(ShareId, Offset)>,
}

impl OrderView {
    /// An order as a share knows it.
    #[must_use]
    pub fn of(id: OrderId, order: &Order) -> Self {
        let (seats, status) = match &order.state {
            OrderState::Held { seats, deadline, .. } => (&seats[..], Status::Held(*deadline)),
            OrderState::Paid { seats, .. } => (&seats[..], Status::Paid),
            OrderState::Ended { seats, why, .. } | OrderState::Closed { seats, why } => {
                (&seats[..], Status::Ended(*why))
            }
            OrderState::Placed { seats, deadline, paid, .. } => {
                let status = if *paid { Status::Paid } else { Status::Held(*deadline) };
                (&seats[..], status)
            }
            OrderState::Seeking { .. } => (&[][..], Status::Seeking),
            OrderState::Sent { .. } => (&[][..], Status::Sent),
        };
        Self {
            order: id,
            buyer: order.buyer,
            run: order.run,
            class: order.class,
            journey: order.journey,
            seats: seats.iter().copied().collect(),
            price: order.price,
            status,
            returned: !order.returned.is_empty(),
            position: None,
        }
    }
}

/// What a caller hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The order; `new` if this very command made it.
    Order {
        /// As it is.
        view: OrderView,
        /// Whether this command wrote it.
        new: bool,
    },
    /// The buyer's orders whose home is this share, newest first.
    Orders(Vec<OrderId>),
    /// No, and why.
    Refused(Refusal),
    /// Proven: no seat is free on the journey.
    SoldOut {
        /// By the owner's clock: a seat whose freeing was confirmed before this time has been sold
        /// again. What was freed later may be free by now.
        as_of: Millis,
        /// Seats that are held and may come back.
        held: u32,
        /// When the first of these holds ends.
        next_end: Option<Millis>,
    },
    /// Proven: no share has so many seats together; the largest group that fits.
    GroupTooLarge(u32),
    /// Not now, try again; the text is a metric label.
    Busy(&'static str),
    /// It may or may not have happened; try again with the same key.
    Unknown,
}

/// Folds a share's partition, and claims it.
#[derive(Debug, Clone)]
pub struct Candidate {
    state: ShareState,
    node: NodeId,
    address: Address,
    incarnation: Incarnation,
    claimed: Option<Epoch>,
}

/// How far a candidate is after a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Go on reading.
    Reading,
    /// The record was its own Claim, and it was accepted.
    Owns,
    /// Its Claim came too late: another has the epoch.
    Lost,
}

impl Candidate {
    /// A reader of a share from its first record on.
    #[must_use]
    pub fn new(
        pool: &Pool,
        share: ShareId,
        node: NodeId,
        address: Address,
        incarnation: Incarnation,
    ) -> Option<Self> {
        let state = ShareState::new(pool.ledger()?, share, &pool.initial(share));
        Some(Self { state, node, address, incarnation, claimed: None })
    }

    /// The share as folded so far.
    #[must_use]
    pub fn state(&self) -> &ShareState {
        &self.state
    }

    /// A Claim of the next epoch, to be appended to the share's partition. Only for a share
    /// that was folded to its end.
    pub fn claim(&mut self, now: Millis) -> Vec<u8> {
        let header = self.state.writer().claim_header(self.incarnation, now);
        self.claimed = Some(header.epoch);
        let mut draft = Draft::new(FRAME_BYTES_MAX);
        let claim = Entry::Claim { node: self.node, address: self.address };
        draft.push(&claim).expect("a claim fits an empty frame");
        draft.seal(&header).0
    }

    /// Folds the next record.
    pub fn read(&mut self, at: Offset, record: &[u8]) -> (Verdict, Progress) {
        let before = self.state.writer().epoch();
        let verdict = fold(&mut self.state, at, record);
        let writer = self.state.writer();
        let moved = writer.epoch() != before;
        let progress = if !moved || self.claimed.is_none_or(|c| writer.epoch() < c) {
            Progress::Reading
        } else if writer.incarnation() == Some(self.incarnation) {
            Progress::Owns
        } else {
            self.claimed = None;
            Progress::Lost
        };
        (verdict, progress)
    }

    /// The owner that the accepted Claim makes. To be called after [`Progress::Owns`] only.
    #[must_use]
    pub fn into_owner(self, now: Now) -> Owner {
        let state = self.state;
        let anchor = Offset(state.position().0 - 1);
        let digests = state.stock().iter().map(|(key, s)| (*key, Digest::of(s))).collect();
        let resolves = state.on_their_way().map(|(id, ..)| (id, now.mono)).collect();
        Owner {
            confirmed: state.writer().clone(),
            epoch: state.writer().epoch(),
            confirmed_take: state.accepted_take(),
            digests,
            dirty: BTreeSet::new(),
            anchor,
            state,
            claimed_at: now.mono,
            slow_at: None,
            pool_end: None,
            numbers: 0,
            draft: Draft::new(FRAME_BYTES_MAX),
            open: Open::default(),
            flights: VecDeque::new(),
            reading: None,
            parked: VecDeque::new(),
            unleased: VecDeque::new(),
            drawing: BTreeMap::new(),
            travellers: BTreeMap::new(),
            tried: BTreeMap::new(),
            resolves,
            asked: BTreeMap::new(),
            yielding: None,
            stopped: false,
        }
    }
}

/// What will happen when a frame is confirmed.
#[derive(Debug, Default)]
struct Open {
    answers: Vec<(Caller, Answer)>,
    /// Answers that write nothing and were asked for when the frame had been handed over: it may
    /// be older than the question, so that these need a lease as well.
    riders: Vec<(Caller, Answer)>,
    changes: Vec<Change>,
    departures: Vec<Sent>,
    accepted_take: Option<Offset>,
    /// When the first entry was said, on the monotonic clock; for patience.
    since: Option<Millis>,
}

/// A frame that was handed to the log.
#[derive(Debug)]
struct Flight {
    seq: Seq,
    chain: Chain,
    sealed_at: Millis,
    fate: Option<Fate>,
    yields: bool,
    then: Open,
}

#[derive(Debug)]
struct Parked {
    until: Millis,
    caller: Caller,
    command: Command,
    why: &'static str,
}

/// The single writer of a share, as long as the log says so.
#[derive(Debug)]
pub struct Owner {
    state: ShareState,
    epoch: Epoch,
    /// Admission of records up to the anchor; memory runs ahead of it by the frames in flight.
    confirmed: Writer,
    /// The last verified offset; first one's own Claim.
    anchor: Offset,
    /// What is free at the anchor: what the board may tell.
    digests: BTreeMap<(RunId, ClassId), Digest>,
    dirty: BTreeSet<(RunId, ClassId)>,
    confirmed_take: Option<Offset>,
    claimed_at: Millis,
    slow_at: Option<Millis>,
    /// Where partition 0 ended after the Claim; nothing is sold before it was folded up to there.
    pool_end: Option<Offset>,
    numbers: u32,
    draft: Draft,
    open: Open,
    flights: VecDeque<Flight>,
    /// Reading back: up to where, or to the end.
    reading: Option<Option<Offset>>,
    parked: VecDeque<Parked>,
    /// Answers that write nothing and wait for a lease.
    unleased: VecDeque<(Millis, Caller, Answer)>,
    drawing: BTreeMap<(RunId, ClassId), Millis>,
    /// Callers that wait for an order on its way, and since when.
    travellers: BTreeMap<OrderId, Vec<(Millis, Caller, Command)>>,
    /// Shares that said no to an order, and since when; forgotten when its caller is gone.
    tried: BTreeMap<OrderId, (Millis, Vec<ShareId>)>,
    /// When to ask what became of an order on its way.
    resolves: BTreeMap<OrderId, Millis>,
    /// When an order that lives elsewhere was last asked after.
    asked: BTreeMap<OrderId, Millis>,
    yielding: Option<Option<NodeId>>,
    stopped: bool,
}

impl Owner {
    /// Lets something happen. What has to be done about it is appended to `out`.
    pub fn handle(&mut self, now: Now, view: View<'_>, input: Input<'_>, out: &mut Vec<Output>) {
        if self.stopped {
            if let Input::Command(caller, command) = input {
                out.push(Output::Rehome(caller, command.clone()));
            }
            return;
        }
        // A pool that is read anew is behind what was obeyed already: a sale that was suspended, a
        // run that was withdrawn.
        if let Some(end) = &mut self.pool_end {
            *end = view.pool.position().max(*end);
        }
        match input {
            Input::Command(caller, command) => self.command(now, view, caller, command, out),
            Input::Delivered(seq, fate) => self.delivered(now, view, seq, fate, out),
            Input::Record(at, record) => self.read_back(now, view, at, record, out),
            Input::PoolEnd(end) => {
                self.pool_end = Some(end).max(self.pool_end);
                self.moved(now, view, out);
            }
            Input::Moved => self.moved(now, view, out),
            Input::Reply(order, attempt, reply) => {
                self.reply(now, view, order, attempt, reply, out);
            }
            Input::Relayed(caller, order, answer) => {
                self.relayed(now, caller, order, answer, out);
            }
            Input::Tick => self.tick(now, view, out),
            Input::Yield(to) => self.begin_yield(to, out),
            Input::Deaf => self.stop(Stopped::Deaf, out),
        }
    }

    /// Since when something waits to be said that there is a place in the window for, on the
    /// monotonic clock; the last word of an epoch for ever.
    #[must_use]
    pub fn waits_since(&self) -> Option<Millis> {
        if self.stopped || !self.has_place() {
            return None;
        }
        let last_word = self.yielding.is_some() && self.flights.is_empty();
        if self.draft.is_empty() { last_word.then_some(Millis(0)) } else { self.open.since }
    }

    /// Whether the next frame may go: alone, or behind one that brings no more, or when it is large.
    /// A small one would cost as much as a large one, and what it brings is soon part of one
    /// (Nagle's rule, RFC 896).
    fn has_place(&self) -> bool {
        let Some(last) = self.flights.back() else { return true };
        let large = self.open.answers.len() >= last.then.answers.len()
            || self.draft.bytes() >= LARGE_FRAME_BYTES;
        large && self.flights.len() < FRAMES_IN_FLIGHT_MAX
    }

    /// Frames that were handed over and of which nothing was heard yet.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.flights.iter().filter(|flight| flight.fate.is_none()).count()
    }

    /// The next frame to append, if there is something to say and a place in the window.
    pub fn seal(&mut self, now: Now) -> Option<(Seq, Vec<u8>)> {
        if self.stopped || !self.has_place() {
            return None;
        }
        let mut yields = false;
        if self.draft.is_empty() {
            // The last word of the epoch goes alone, when all before it is confirmed.
            let to = self.yielding.filter(|_| self.flights.is_empty())?;
            self.draft.push(&Entry::Yield { to }).expect("a yield fits an empty frame");
            self.state.begin_frame(now.wall.max(self.state.now()));
            yields = true;
        }
        let header = self.state.writer().next_header(self.state.now())?;
        let (record, chain) = self.draft.seal(&header);
        self.state.sealed(&header, chain);
        let then = std::mem::take(&mut self.open);
        let (seq, sealed_at) = (header.seq, now.mono);
        self.flights.push_back(Flight { seq, chain, sealed_at, fate: None, yields, then });
        Some((seq, record))
    }

    // Commands.

    fn command(
        &mut self,
        now: Now,
        view: View<'_>,
        caller: Caller,
        command: &Command,
        out: &mut Vec<Output>,
    ) {
        if self.yielding.is_some() {
            out.push(Output::Rehome(caller, command.clone()));
            return;
        }
        if !self.is_ready(view) {
            self.park(now, caller, command, "recovering", out);
            return;
        }
        self.decide(now, view, caller, command, None, out);
    }

    /// Whether partition 0 was folded up to its end after the Claim, and as far as it was ever
    /// obeyed, and the board has told the former owner of the Claim.
    fn is_ready(&self, view: View<'_>) -> bool {
        let folded = self.pool_end.is_some_and(|end| view.pool.position() >= end)
            || teeth::has(Bug::SellBeforePool);
        let told = view.board.is_told(self.state.share(), self.epoch);
        folded && told && view.pool.frozen().is_none()
    }

    fn rules<'a>(view: View<'a>) -> Option<Rules<'a>> {
        let definition = view.pool.definition()?;
        Some(Rules { definition, policy: view.pool.policy() })
    }

    /// Decides a command; `since` is when it was parked first, so that it is not parked anew.
    fn decide(
        &mut self,
        now: Now,
        view: View<'_>,
        caller: Caller,
        command: &Command,
        since: Option<Millis>,
        out: &mut Vec<Output>,
    ) {
        let Some(rules) = Self::rules(view) else {
            out.push(Output::Answer(caller, Answer::Busy("pool")));
            return;
        };
        self.open_frame(now);
        let fresh = self.fresh();
        match self.state.decide(now.wall, rules, fresh, command) {
            Decision::Write(entry, id) => {
                if !self.write(now, &entry) {
                    out.push(Output::Answer(caller, Answer::Busy("full")));
                    return;
                }
                let answer = match entry {
                    Entry::Refused { .. } => Answer::Refused(Refusal::No),
                    _ => self.known(id, true),
                };
                self.open.answers.push((caller, answer));
            }
            Decision::Known(id) => {
                let answer = self.known(id, false);
                self.later(now, view, caller, answer, out);
            }
            Decision::Listed(ids) => self.later(now, view, caller, Answer::Orders(ids), out),
            Decision::Wait(id) => {
                let waiting = (now.mono, caller, command.clone());
                self.travellers.entry(id).or_default().push(waiting);
            }
            Decision::Relay(to, order) => {
                let command = match command {
                    Command::Place(request) => Command::Read { order, buyer: request.buyer },
                    other => other.clone(),
                };
                out.push(Output::Relay { caller, order, to, command });
            }
            Decision::NoMatch { retry } => {
                self.no_match(now, view, caller, command, retry, since, out);
            }
            // What the sale itself forbids needs no memory, and so no lease.
            Decision::Refuse(refusal) if refusal.is_of_the_sale() => {
                out.push(Output::Answer(caller, Answer::Refused(refusal)));
            }
            Decision::Refuse(refusal) => {
                self.later(now, view, caller, Answer::Refused(refusal), out);
            }
        }
    }

    fn fresh(&self) -> OrderId {
        OrderId { home: self.state.share(), epoch: self.epoch, number: self.numbers + 1 }
    }

    /// Fixes the time of the next frame and forgets what is old by then, before anything is
    /// decided on it: so memory and fold forget the same orders.
    fn open_frame(&mut self, now: Now) {
        if self.draft.is_empty() {
            self.state.begin_frame(now.wall.max(self.state.now()));
        }
    }

    /// Says an entry that was decided, and lets it happen in memory. False if there is no room,
    /// or the share is frozen.
    fn write(&mut self, now: Now, entry: &Entry) -> bool {
        self.open_frame(now);
        if self.state.frozen().is_some() || self.draft.push(entry).is_err() {
            return false;
        }
        if let Err(why) = self.state.apply(entry) {
            // Only what the log says can be so: a Take that clashes with what was accepted.
            // Selling on would build on it, so the share stands still and says so.
            self.draft.undo();
            self.state.freeze(self.anchor, &Fault::Impossible { index: 0, why });
            return false;
        }
        if let Entry::Held(crate::entry::Held { order, .. }) | Entry::Sent(Sent { order, .. }) =
            entry
            && *order == self.fresh()
        {
            self.numbers += 1;
        }
        self.open.changes.extend(self.state.take_changes());
        self.open.since.get_or_insert(now.mono);
        if let Entry::Accept { take, .. } = entry {
            self.open.accepted_take = Some(*take);
        }
        if let Entry::Sent(sent) = entry {
            self.open.departures.push(sent.clone());
        }
        true
    }

    fn known(&self, id: OrderId, new: bool) -> Answer {
        match self.view(id) {
            Some(view) => Answer::Order { view, new },
            None => Answer::Refused(Refusal::NotFound),
        }
    }

    fn view(&self, id: OrderId) -> Option<OrderView> {
        self.state.order(id).map(|order| OrderView::of(id, order))
    }

    /// An answer that writes nothing: behind what memory has seen and the log has not, and under
    /// a lease unless that is still to be written.
    fn later(
        &mut self,
        now: Now,
        view: View<'_>,
        caller: Caller,
        answer: Answer,
        out: &mut Vec<Output>,
    ) {
        if !self.draft.is_empty() {
            self.open.answers.push((caller, answer));
        } else if let Some(last) = self.flights.back_mut() {
            last.then.riders.push((caller, answer));
        } else {
            self.under_lease(now, view, caller, answer, out);
        }
    }

    /// An answer that the log confirms up to some record, and a lease up to now.
    fn under_lease(
        &mut self,
        now: Now,
        view: View<'_>,
        caller: Caller,
        answer: Answer,
        out: &mut Vec<Output>,
    ) {
        if self.has_lease(now, view) {
            out.push(Output::Answer(caller, answer));
        } else if self.unleased.len() < PARKED_MAX {
            self.unleased.push_back((now.mono.plus(PARK_MS), caller, answer));
        } else {
            out.push(Output::Answer(caller, Answer::Busy("lease")));
        }
    }

    fn has_lease(&self, now: Now, view: View<'_>) -> bool {
        view.board.has_lease(now.mono, self.state.share(), self.epoch)
            || teeth::has(Bug::AnswerWithoutLease)
    }

    fn park(
        &mut self,
        now: Now,
        caller: Caller,
        command: &Command,
        why: &'static str,
        out: &mut Vec<Output>,
    ) {
        if self.parked.len() >= PARKED_MAX {
            out.push(Output::Answer(caller, Answer::Busy(why)));
            return;
        }
        let until = now.mono.plus(PARK_MS);
        self.parked.push_back(Parked { until, caller, command: command.clone(), why });
    }

    /// No seats in memory: draw, travel, prove, or wait for what is missing.
    #[expect(clippy::too_many_arguments, reason = "one decision's whole context")]
    fn no_match(
        &mut self,
        now: Now,
        view: View<'_>,
        caller: Caller,
        command: &Command,
        retry: Option<(OrderId, Attempt)>,
        since: Option<Millis>,
        out: &mut Vec<Output>,
    ) {
        let Command::Place(request) = command else {
            out.push(Output::Answer(caller, Answer::Refused(Refusal::No)));
            return;
        };
        let (run, class) = (request.run, request.class);
        if view.pool.has_blocks(run, class) {
            self.draw(now, run, class, out);
            self.wait(now, caller, command, "draw", since, out);
            return;
        }
        let tried = retry.and_then(|(id, _)| self.tried.get(&id));
        let tried = tried.map_or(&[][..], |(_, shares)| shares.as_slice());
        let sought = Sought {
            run,
            class,
            journey: request.journey,
            party: u32::from(request.party()),
            home: self.state.share(),
            tried,
        };
        let asked = |to| self.state.outstanding(run, class, to);
        match view.board.search(now.mono, view.pool, &sought, asked) {
            Search::Travel(to) => {
                let price = view.pool.definition().and_then(|d| price(d, request)).unwrap_or(0);
                let request = OrderRequest { price, ..request.clone() };
                self.send(now, caller, command, request, retry, to, out);
            }
            // A proof rests on what shares have confirmed, and not on what memory has seen since:
            // behind a frame it would only grow old.
            Search::Proven { largest, .. } if largest > 0 => {
                self.under_lease(now, view, caller, Answer::GroupTooLarge(largest), out);
            }
            Search::Proven { since, held, next_end, .. } => {
                let as_of = Millis(now.wall.0.saturating_sub(now.mono.since(since)));
                let answer = Answer::SoldOut { as_of, held, next_end };
                self.under_lease(now, view, caller, answer, out);
            }
            Search::Unproven(why) => self.wait(now, caller, command, why, since, out),
        }
    }

    /// Parks a request, or puts one that was parked before back with its old patience.
    fn wait(
        &mut self,
        now: Now,
        caller: Caller,
        command: &Command,
        why: &'static str,
        until: Option<Millis>,
        out: &mut Vec<Output>,
    ) {
        match until {
            None => self.park(now, caller, command, why, out),
            Some(until) if until <= now.mono => out.push(Output::Answer(caller, Answer::Busy(why))),
            Some(until) => {
                let command = command.clone();
                self.parked.push_back(Parked { until, caller, command, why });
            }
        }
    }

    fn draw(&mut self, now: Now, run: RunId, class: ClassId, out: &mut Vec<Output>) {
        let since = self.drawing.get(&(run, class));
        if since.is_some_and(|at| now.mono.since(*at) < DRAW_MS) {
            return;
        }
        self.drawing.insert((run, class), now.mono);
        out.push(Output::Draw { run, class, blocks: DRAW_BLOCKS });
    }

    #[expect(clippy::too_many_arguments, reason = "one decision's whole context")]
    fn send(
        &mut self,
        now: Now,
        caller: Caller,
        command: &Command,
        request: OrderRequest,
        retry: Option<(OrderId, Attempt)>,
        to: ShareId,
        out: &mut Vec<Output>,
    ) {
        let (order, attempt) = match retry {
            Some((order, Attempt(last))) => (order, Attempt(last.saturating_add(1))),
            None => (self.fresh(), Attempt(1)),
        };
        let sent = Sent { order, attempt, to, request };
        if !self.write(now, &Entry::Sent(sent)) {
            out.push(Output::Answer(caller, Answer::Busy("full")));
            return;
        }
        let waiting = (now.mono, caller, command.clone());
        self.travellers.entry(order).or_default().push(waiting);
    }

    // Confirming.

    fn delivered(&mut self, now: Now, view: View<'_>, seq: Seq, fate: Fate, out: &mut Vec<Output>) {
        let Some(flight) = self.flights.iter_mut().find(|f| f.seq == seq) else { return };
        let delivered = fate == Fate::Unknown && teeth::has(Bug::UnknownIsDelivered);
        flight.fate = Some(if delivered { Fate::At(Offset(self.anchor.0 + 1)) } else { fate });
        let sealed_at = flight.sealed_at;
        self.took(now, sealed_at);
        self.confirm(now, view, out);
    }

    /// Notes how long a frame took until something was heard of it.
    fn took(&mut self, now: Now, sealed_at: Millis) {
        if now.mono.since(sealed_at) >= SLOW_DELIVERY_MS {
            self.slow_at = Some(now.mono);
        }
    }

    /// Confirms from the front what is delivered right behind the anchor; asks to read back
    /// where something lies between.
    fn confirm(&mut self, now: Now, view: View<'_>, out: &mut Vec<Output>) {
        while let Some(fate) = self.flights.front().and_then(|f| f.fate) {
            match fate {
                Fate::Unknown => {
                    let seq = self.flights[0].seq;
                    self.stop(Stopped::FateUnknown(seq), out);
                    return;
                }
                Fate::At(at) if at.0 == self.anchor.0 + 1 || teeth::has(Bug::ConfirmOnDelivery) => {
                    self.anchor = at;
                    let Some(flight) = self.flights.pop_front() else { return };
                    self.confirmed_advance(&flight);
                    // A delivery may overtake what was being read back.
                    if self.reading.is_some_and(|upto| upto.is_some_and(|u| at >= u)) {
                        self.reading = None;
                    }
                    self.settle(now, view, flight, out);
                    if self.stopped {
                        return;
                    }
                }
                Fate::At(at) if at <= self.anchor => {
                    // The anchor was moved over it by reading back, and it was not admitted.
                    self.stop(Stopped::Contradiction(at), out);
                    return;
                }
                Fate::At(at) => {
                    self.ask_to_read(Some(at), out);
                    return;
                }
                Fate::Somewhere => {
                    self.ask_to_read(None, out);
                    return;
                }
            }
        }
    }

    fn confirmed_advance(&mut self, flight: &Flight) {
        if let Some(header) = self.confirmed.next_header(self.state.now()) {
            self.confirmed.sealed(&header, flight.chain);
        }
    }

    fn ask_to_read(&mut self, upto: Option<Offset>, out: &mut Vec<Output>) {
        if self.reading.is_none() {
            self.reading = Some(upto);
            out.push(Output::ReadBack { from: Offset(self.anchor.0 + 1), upto });
        }
    }

    fn read_back(
        &mut self,
        now: Now,
        view: View<'_>,
        at: Offset,
        record: &[u8],
        out: &mut Vec<Output>,
    ) {
        if at.0 != self.anchor.0 + 1 {
            return;
        }
        let Some(upto) = self.reading else { return };
        self.anchor = at;
        let frame = Frame::read(record);
        if matches!(frame, Err(Malformed::Unknown { .. })) {
            self.stop(Stopped::Contradiction(at), out);
            return;
        }
        let frame = frame.ok();
        let admission = frame.as_ref().map(|f| self.confirmed.admit(f));
        match (frame, admission) {
            (Some(frame), Some(Admission::Claim)) => {
                self.stop(Stopped::Outclaimed(frame.header.epoch), out);
                return;
            }
            (Some(frame), Some(Admission::Next)) => {
                let own = self.flights.pop_front().filter(|f| f.chain == frame.chain);
                let Some(flight) = own else {
                    self.stop(Stopped::Contradiction(at), out);
                    return;
                };
                self.confirmed_advance(&flight);
                self.took(now, flight.sealed_at);
                self.settle(now, view, flight, out);
            }
            _ => {}
        }
        if self.stopped {
            return;
        }
        // What was delivered somewhere is found when it comes; what has an offset, at it.
        let done = upto.map_or(self.flights.front().is_none_or(|f| f.fate.is_none()), |u| at >= u);
        if done {
            self.reading = None;
            self.confirm(now, view, out);
        }
    }

    /// Lets happen what waited for a frame.
    fn settle(&mut self, now: Now, view: View<'_>, flight: Flight, out: &mut Vec<Output>) {
        let position = (self.state.share(), self.anchor);
        let mut low = BTreeSet::new();
        for change in flight.then.changes {
            let key = (change.run, change.class);
            self.digests.entry(key).or_default().change(change.before, change.after);
            self.dirty.insert(key);
            low.insert(key);
        }
        self.confirmed_take = flight.then.accepted_take.or(self.confirmed_take);
        let placed = |mut answer: Answer| {
            if let Answer::Order { view, .. } = &mut answer {
                view.position = Some(position);
            }
            answer
        };
        for (caller, answer) in flight.then.answers {
            out.push(Output::Answer(caller, placed(answer)));
        }
        for (caller, answer) in flight.then.riders {
            self.under_lease(now, view, caller, placed(answer), out);
        }
        for sent in flight.then.departures {
            self.resolves.insert(sent.order, now.mono.plus(PATIENCE_MS));
            let (to, order, attempt) = (sent.to, sent.order, sent.attempt);
            out.push(Output::Travel { to, order, attempt, command: Command::Host(sent) });
        }
        if flight.yields {
            self.stop(Stopped::Yielded, out);
            return;
        }
        for (run, class) in low {
            self.draw_if_low(now, view, run, class, out);
        }
    }

    fn draw_if_low(
        &mut self,
        now: Now,
        view: View<'_>,
        run: RunId,
        class: ClassId,
        out: &mut Vec<Output>,
    ) {
        let Some(low) = view.pool.policy().map(|p| u32::from(p.limits.low_water_seats)) else {
            return;
        };
        let withdrawn = view.pool.definition().is_some_and(|d| d.is_withdrawn(run));
        if withdrawn || !view.pool.has_blocks(run, class) {
            return;
        }
        let Some(stock) = self.state.stock().get(&(run, class)) else { return };
        let Some(whole) = Journey::new(0, stock.stops() - 1) else { return };
        if self.digests.get(&(run, class)).is_none_or(|d| d.seats(whole) < low) {
            self.draw(now, run, class, out);
        }
    }

    fn stop(&mut self, why: Stopped, out: &mut Vec<Output>) {
        self.stopped = true;
        let flights = std::mem::take(&mut self.flights);
        let in_flight =
            flights.into_iter().flat_map(|f| f.then.answers.into_iter().chain(f.then.riders));
        let open = std::mem::take(&mut self.open).answers;
        for (caller, _) in in_flight.chain(open) {
            out.push(Output::Answer(caller, Answer::Unknown));
        }
        for (_, caller, _) in std::mem::take(&mut self.travellers).into_values().flatten() {
            out.push(Output::Answer(caller, Answer::Unknown));
        }
        for (_, caller, _) in std::mem::take(&mut self.unleased) {
            out.push(Output::Answer(caller, Answer::Busy("moved")));
        }
        for parked in std::mem::take(&mut self.parked) {
            out.push(Output::Rehome(parked.caller, parked.command));
        }
        out.push(Output::Stop(why));
    }

    // What moves on outside.

    fn moved(&mut self, now: Now, view: View<'_>, out: &mut Vec<Output>) {
        // An owner without anything in flight would not find its successor's Claim by itself.
        if let Some(epoch) = view.board.highest(self.state.share()).filter(|e| *e > self.epoch) {
            self.stop(Stopped::Outclaimed(epoch), out);
            return;
        }
        if !self.is_ready(view) || self.yielding.is_some() {
            return;
        }
        self.accept_takes(now, view);
        if self.has_lease(now, view) {
            for (_, caller, answer) in std::mem::take(&mut self.unleased) {
                out.push(Output::Answer(caller, answer));
            }
        }
        self.retry_parked(now, view, out);
    }

    fn accept_takes(&mut self, now: Now, view: View<'_>) {
        let share = self.state.share();
        while let Some((take, blocks)) =
            view.pool.takes_after(share, self.state.accepted_take()).next()
        {
            let accept = Entry::Accept { take: *take, blocks: blocks.clone() };
            if !self.write(now, &accept) {
                // The frame is full; the next turn goes on.
                return;
            }
            for block in blocks {
                self.drawing.remove(&(block.id.run, block.class));
            }
        }
    }

    fn retry_parked(&mut self, now: Now, view: View<'_>, out: &mut Vec<Output>) {
        for parked in std::mem::take(&mut self.parked) {
            self.decide(now, view, parked.caller, &parked.command, Some(parked.until), out);
        }
    }

    // Orders that live elsewhere.

    fn reply(
        &mut self,
        now: Now,
        view: View<'_>,
        id: OrderId,
        attempt: Attempt,
        reply: Reply,
        out: &mut Vec<Output>,
    ) {
        let Some(order) = self.state.order(id) else { return };
        match (&order.state, reply) {
            (OrderState::Sent { attempt: sent, to }, reply) if *sent == attempt => {
                let to = *to;
                self.arrived(now, view, (id, attempt, to), reply, out);
            }
            (OrderState::Placed { attempt: placed, .. }, Reply::Order(there))
                if *placed == attempt =>
            {
                self.learn(now, id, &there);
            }
            // It held seats there, so it can only have ended and been forgotten.
            (OrderState::Placed { attempt: placed, paid, .. }, Reply::No) if *placed == attempt => {
                let why = if *paid { End::Refunded } else { End::Expired };
                self.write(now, &Entry::Closed { order: id, attempt, why });
            }
            _ => {}
        }
    }

    fn arrived(
        &mut self,
        now: Now,
        view: View<'_>,
        (order, attempt, to): (OrderId, Attempt, ShareId),
        reply: Reply,
        out: &mut Vec<Output>,
    ) {
        let entry = match &reply {
            Reply::Unknown => {
                self.resolves.insert(order, now.mono.plus(RESOLVE_MS));
                return;
            }
            Reply::No => Entry::Returned { order, attempt },
            Reply::Order(there) => {
                let deadline = match there.status {
                    Status::Held(deadline) => deadline,
                    _ => now.wall,
                };
                Entry::Placed { order, attempt, seats: there.seats.clone(), deadline }
            }
        };
        if !self.write(now, &entry) {
            self.resolves.insert(order, now.mono.plus(RESOLVE_MS));
            return;
        }
        self.resolves.remove(&order);
        let waiting = self.travellers.remove(&order).unwrap_or_default();
        if let Reply::Order(there) = reply {
            self.tried.remove(&order);
            self.learn(now, order, &there);
            let mut new = true;
            for (_, caller, command) in waiting {
                if matches!(command, Command::Place(_)) {
                    let answer = self.known(order, std::mem::take(&mut new));
                    self.later(now, view, caller, answer, out);
                } else {
                    self.decide(now, view, caller, &command, None, out);
                }
            }
            return;
        }
        self.tried.entry(order).or_insert((now.mono, Vec::new())).1.push(to);
        for (_, caller, command) in waiting {
            self.decide(now, view, caller, &command, Some(now.mono.plus(PARK_MS)), out);
        }
    }

    /// Writes down at home what became of an order elsewhere.
    fn learn(&mut self, now: Now, order: OrderId, there: &OrderView) {
        let Some(state) = self.state.order(order).map(|o| &o.state) else { return };
        let OrderState::Placed { attempt, paid, .. } = state else { return };
        let entry = match there.status {
            Status::Ended(why) => Entry::Closed { order, attempt: *attempt, why },
            Status::Paid if !*paid => {
                Entry::Paid { order, payment: Digest128::default(), amount: there.price }
            }
            _ => return,
        };
        // With no room now it is learnt later, when the order is asked after again.
        if self.write(now, &entry) {
            self.asked.remove(&order);
        }
    }

    fn relayed(
        &mut self,
        now: Now,
        caller: Caller,
        order: OrderId,
        answer: Answer,
        out: &mut Vec<Output>,
    ) {
        match &answer {
            Answer::Order { view: there, .. } => self.learn(now, order, there),
            // It may have ended there and been forgotten before home was told.
            Answer::Refused(Refusal::NotFound) => {
                if let Some(OrderState::Placed { to, attempt, .. }) =
                    self.state.order(order).map(|o| &o.state)
                {
                    let (to, attempt) = (*to, *attempt);
                    let command = Command::Resolve { order, attempt };
                    out.push(Output::Travel { to, order, attempt, command });
                }
            }
            _ => {}
        }
        // The other share said it under its own lease or frame: it needs none of ours.
        out.push(Output::Answer(caller, answer));
    }

    // Time.

    fn tick(&mut self, now: Now, view: View<'_>, out: &mut Vec<Output>) {
        self.lose_patience(now, out);
        self.tried.retain(|_, (since, _)| now.mono.since(*since) < PATIENCE_MS);
        self.resolve(now, out);
        if self.is_ready(view) && self.yielding.is_none() {
            self.expire(now, view, out);
            self.moved(now, view, out);
        }
    }

    /// Callers who waited too long hear "unknown" or "busy"; what they asked for goes on.
    fn lose_patience(&mut self, now: Now, out: &mut Vec<Output>) {
        for flight in &mut self.flights {
            if now.mono.since(flight.sealed_at) >= PATIENCE_MS {
                let then = &mut flight.then;
                for (caller, _) in then.answers.drain(..).chain(then.riders.drain(..)) {
                    out.push(Output::Answer(caller, Answer::Unknown));
                }
            }
        }
        if self.open.since.is_some_and(|since| now.mono.since(since) >= PATIENCE_MS) {
            for (caller, _) in self.open.answers.drain(..) {
                out.push(Output::Answer(caller, Answer::Unknown));
            }
        }
        for waiting in self.travellers.values_mut() {
            waiting.retain(|(since, caller, _)| {
                let patient = now.mono.since(*since) < PATIENCE_MS;
                if !patient {
                    out.push(Output::Answer(*caller, Answer::Unknown));
                }
                patient
            });
        }
        while self.unleased.front().is_some_and(|(until, ..)| *until <= now.mono) {
            if let Some((_, caller, _)) = self.unleased.pop_front() {
                out.push(Output::Answer(caller, Answer::Busy("lease")));
            }
        }
        self.parked.retain(|parked| {
            let patient = parked.until > now.mono;
            if !patient {
                out.push(Output::Answer(parked.caller, Answer::Busy(parked.why)));
            }
            patient
        });
    }

    /// Asks what became of orders on their way of which nothing was heard.
    fn resolve(&mut self, now: Now, out: &mut Vec<Output>) {
        let due: Vec<OrderId> =
            self.resolves.iter().filter(|(_, at)| **at <= now.mono).map(|(id, _)| *id).collect();
        for order in due {
            let Some(OrderState::Sent { to, attempt }) = self.state.order(order).map(|o| &o.state)
            else {
                self.resolves.remove(&order);
                continue;
            };
            let (to, attempt) = (*to, *attempt);
            self.resolves.insert(order, now.mono.plus(PATIENCE_MS));
            let command = self.question(to, order, attempt);
            out.push(Output::Travel { to, order, attempt, command });
        }
    }

    /// What to ask about an order on its way. Never the request once more: if both came, and the
    /// first was refused, the other would hold seats that home knows nothing of.
    fn question(&self, to: ShareId, order: OrderId, attempt: Attempt) -> Command {
        if teeth::has(Bug::RepeatTravel)
            && let Some(of) = self.state.order(order)
        {
            let request = OrderRequest {
                key: of.key,
                body: of.body,
                buyer: of.buyer,
                run: of.run,
                class: of.class,
                journey: of.journey,
                prefer: None,
                passengers: (0..of.party).map(|_| Digest128::default()).collect(),
                price: of.price,
            };
            return Command::Host(Sent { order, attempt, to, request });
        }
        Command::Resolve { order, attempt }
    }

    /// Ends holds that are past their deadline and the grace, and asks after orders elsewhere.
    fn expire(&mut self, now: Now, view: View<'_>, out: &mut Vec<Output>) {
        let Some(grace) = view.pool.policy().map(|p| u64::from(p.limits.grace_ms)) else { return };
        let settled = |at: Millis| {
            now.mono.since(at) >= TAKEOVER_GRACE_MS || teeth::has(Bug::ExpireWithoutGrace)
        };
        let slow = |f: &Flight| now.mono.since(f.sealed_at) >= SLOW_DELIVERY_MS;
        if !settled(self.claimed_at)
            || !self.slow_at.is_none_or(settled)
            || self.flights.front().is_some_and(slow)
        {
            return;
        }
        let due = self.state.timers().take_while(|(at, _)| at.plus(grace) < now.wall);
        let due: Vec<OrderId> = due.map(|(_, id)| id).take(EXPIRIES_MAX).collect();
        for order in due {
            if !self.write(now, &Entry::Ended { order, why: End::Expired }) {
                return;
            }
        }
        self.ask_after(now, grace, out);
    }

    /// Asks what became of unpaid orders elsewhere that should have ended by now.
    fn ask_after(&mut self, now: Now, grace: u64, out: &mut Vec<Output>) {
        let due = self.state.asks().take_while(|(at, _)| at.plus(grace) < now.wall);
        let lately =
            |id: &OrderId| self.asked.get(id).is_some_and(|at| now.mono.since(*at) < ASK_AFTER_MS);
        let due = due.map(|(_, id)| id).filter(|id| !lately(id)).take(EXPIRIES_MAX);
        for order in due.collect::<Vec<_>>() {
            let Some(OrderState::Placed { to, attempt, .. }) =
                self.state.order(order).map(|o| &o.state)
            else {
                continue;
            };
            let (to, attempt) = (*to, *attempt);
            self.asked.insert(order, now.mono);
            let command = Command::Resolve { order, attempt };
            out.push(Output::Travel { to, order, attempt, command });
        }
    }

    fn begin_yield(&mut self, to: Option<NodeId>, out: &mut Vec<Output>) {
        if self.yielding.is_some() {
            return;
        }
        self.yielding = Some(to);
        for parked in std::mem::take(&mut self.parked) {
            out.push(Output::Rehome(parked.caller, parked.command));
        }
    }

    // Looking.

    /// Which share this is.
    #[must_use]
    pub fn share(&self) -> ShareId {
        self.state.share()
    }

    /// By which epoch it is owned.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The share as it is in memory: ahead of the log by what is in flight.
    #[must_use]
    pub fn state(&self) -> &ShareState {
        &self.state
    }

    /// Whether records of the partition are still to be read back.
    #[must_use]
    pub fn is_reading(&self) -> bool {
        self.reading.is_some() && !self.stopped
    }

    /// Whether the share is being given up.
    #[must_use]
    pub fn is_yielding(&self) -> bool {
        self.yielding.is_some()
    }

    /// How far it is, whatever the log keeps waiting.
    #[must_use]
    pub fn stage(&self, view: View<'_>) -> ShareStage {
        if self.state.frozen().is_some() {
            ShareStage::Frozen
        } else if self.is_ready(view) {
            ShareStage::Selling
        } else {
            ShareStage::Recovering
        }
    }

    /// Whether a frame was handed over so long ago that its fate should be known, and is not.
    fn is_stalled(&self, mono: Millis) -> bool {
        // What was not handed over cannot be in the log.
        let oldest = self.flights.front();
        oldest.is_some_and(|flight| mono.since(flight.sealed_at) >= STALL_MS)
            && !teeth::has(Bug::VouchWhileStalled)
    }

    /// So much time passed unnoticed while the machine slept: what is on its way to the log has
    /// been so for longer.
    pub fn slept(&mut self, ms: u64) {
        let flights = self.flights.iter_mut();
        let said = flights.flat_map(|f| [Some(&mut f.sealed_at), f.then.since.as_mut()]);
        for at in said.chain([self.open.since.as_mut()]).flatten() {
            *at = Millis(at.0.saturating_sub(ms));
        }
    }

    /// What to say of the share on the board.
    #[must_use]
    pub fn beat(&self, now: Now, view: View<'_>) -> ShareBeat {
        let stage = match self.stage(view) {
            ShareStage::Selling if self.is_stalled(now.mono) => ShareStage::Stalled,
            stage => stage,
        };
        ShareBeat {
            share: self.state.share(),
            epoch: self.epoch,
            confirmed: self.anchor,
            accepted_take: self.confirmed_take,
            stage,
        }
    }

    /// How many rows changed since they were last told.
    #[must_use]
    pub fn news(&self) -> usize {
        self.dirty.len()
    }

    /// The rows to tell: all of them, or those that changed. They count as told.
    pub fn rows(&mut self, all: bool) -> Vec<Row> {
        let dirty = std::mem::take(&mut self.dirty);
        let told = |key: &&(RunId, ClassId)| all || dirty.contains(key);
        self.digests.keys().filter(told).map(|(run, class)| self.row(*run, *class)).collect()
    }

    fn row(&self, run: RunId, class: ClassId) -> Row {
        let (held, next_end) = self.state.holds(run, class);
        let digest = match self.state.stock().get(&(run, class)) {
            Some(stock) if teeth::has(Bug::DigestFromMemory) => Digest::of(stock),
            _ => self.digests.get(&(run, class)).cloned().unwrap_or_default(),
        };
        Row { share: self.state.share(), run, class, digest, held, next_end }
    }
}

#[cfg(test)]
#[path = "owner_tests.rs"]
mod tests;
