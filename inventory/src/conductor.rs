//! One node's whole deciding: what it has read, what it owns, claims, gives up and beats.
//!
//! A [`Conductor`] holds the pool, the board and the owners of one node. It is given what has
//! come ([`Work`]) and does what follows through [`Hands`], which have no choice left: the
//! node's worker has real ones, the simulator has its own. Hands rather than a list of outputs,
//! since every answer to a buyer would be moved once more on its way through a list.
//!
//! It keeps no clock and no randomness of its own; what it does follows from what it was given.

use std::collections::{BTreeMap, BTreeSet};

use crate::board::{Beat, Board, LEASE_MS, NodeState, Row, ShareStage};
use crate::claim::{SILENCE_MS, Standing, first_in_line, should_yield};
use crate::contend::Contender;
use crate::dispatcher::{Holding, Peer, Report};
use crate::owner::{
    Answer, Caller, Candidate, Fate, Input, Now, Output, Owner, Reply, Stopped, View,
};
use crate::pool::{Pool, PoolVerdict};
use crate::state::{Command, Refusal};
use crate::teeth::{self, Bug};
use crate::words::{
    Address, Attempt, ClassId, Digest128, Epoch, Incarnation, Millis, NodeId, Offset, OrderId,
    RunId, Seq, ShareId,
};

/// At most this often when something changed: a query is at most this much older than the log.
const BEAT_NEWS_MS: u64 = 50;
/// At least this often: the lease must outlast two lost beats.
const BEAT_MS: u64 = 200;
/// While so many own beats have not come back, news waits for the next beat that is due anyway: a
/// board that is slow is not made slower. Usually each comes back before the next.
const BEATS_AWAITED_MAX: usize = 4;
/// Rows of one beat at most: some 100 bytes each with many stretches, so that a beat stays far
/// below a broker's record limit. A full beat of more rows goes on in the beats behind it.
const BEAT_ROWS_MAX: usize = 2_000;
/// Every row at least this often, so that a reader that missed a beat is whole again.
const BEAT_FULL_MS: u64 = 1_000;

/// Begin to fold a silent owner's share before it may be claimed.
const SILENCE_LEAD_MS: u64 = 2_000;

/// How long a drain waits for the plan to name successors before it names them itself.
const DRAIN_PLAN_MS: u64 = 1_500;

/// How long a drain waits for the named successors to fold its shares: long enough for millions of
/// orders, and short beside the minute that a pod has.
const DRAIN_FOLD_MS: u64 = 10_000;

/// How long after a stop the share is left alone, so that two that stopped together do not
/// claim together; the jitter is up to as much again.
const COOLDOWN_MS: u64 = 50;

/// Shares of which a turn begins to contend: each begins with the stock that Genesis gave it, which
/// takes milliseconds to work out where a thousand runs are sold.
const CONTENDED_AT_ONCE: usize = 16;

/// A time of day that runs ahead of the monotonic clock by so much tells of a machine that slept,
/// whose leases ended meanwhile. Less than that is what lies between reading two clocks, or a
/// clock that is being set right; a lease that is a fifth too long is still far below any
/// take-over. A clock that is set forward looks the same, and costs answers for a second.
const SLEPT_MS: u64 = 100;

/// A node that does not beat itself trusts the board while beats of others come at all.
const BOARD_OK_MS: u64 = 1_000;

/// Frames of a node that are under way at the same time, of whichever shares, before others have to
/// wait for their turn. A frame costs a node and a broker as much as ten orders, whatever is in it,
/// and what waits meanwhile goes in one frame. So as many go as the log takes: more while it is
/// quick, fewer while it is busy.
const FRAMES_UNDER_WAY: usize = 2;
/// Frames that take turns: so many go in a millisecond, and at once after a quiet one, however many
/// are under way. A broker that hangs has some of them, and must not hold up the others; and one
/// that is far away is given more than fit in one of its round trips.
const FRAMES_PER_MS: u64 = 2;
const FRAMES_AT_ONCE: u64 = 4;

/// Peers of which nothing was read for so long are left out of reports.
const PEER_KEPT_MS: u64 = 10 * 60 * 1_000;

/// Who this node is.
#[derive(Debug, Clone, Copy)]
pub struct Me {
    /// Its name.
    pub node: NodeId,
    /// Where peers reach it.
    pub address: Address,
    /// This process.
    pub incarnation: Incarnation,
    /// Whether it owns shares; a node that only answers queries does not.
    pub sells: bool,
}

/// A mark on an append of a frame: comes back with its fate. The top bit is never set, so that
/// whoever shares the log with frames can mark its own appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(pub u64);

impl Mark {
    fn new(share: ShareId, epoch: Epoch, seq: Seq) -> Self {
        Self(u64::from(epoch.0 & 0x7fff) << 48 | u64::from(share.0) << 32 | u64::from(seq.0))
    }

    /// The share that the frame was for.
    #[must_use]
    pub fn share(self) -> ShareId {
        self.split().0
    }

    /// The share, so much of the epoch as there was room for, the seq.
    fn split(self) -> (ShareId, u32, Seq) {
        let share = ShareId((self.0 >> 32 & 0xffff) as u16);
        (share, (self.0 >> 48) as u32 & 0x7fff, Seq((self.0 & 0xffff_ffff) as u32))
    }
}

/// What became of a command.
#[derive(Debug)]
pub enum Outcome {
    /// The owner answered.
    Answered(Answer),
    /// The share is not, or no longer, owned here; nothing was written.
    Rehomed,
}

/// Whom an answer is for, if not for a buyer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onward {
    /// To the owner whose order is on its way.
    Travel {
        /// That owner's share.
        home: ShareId,
        /// Which order.
        order: OrderId,
        /// Which try.
        attempt: Attempt,
    },
    /// To the owner that passed the command on.
    Relay {
        /// That owner's share.
        home: ShareId,
        /// Which order.
        order: OrderId,
        /// Who waits there.
        caller: Caller,
    },
}

/// No answer came from another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// It was not reached: the command was not seen there.
    NotSent,
    /// It may or may not have been seen there.
    Unknown,
}

/// Where a share is owned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Here.
    Here,
    /// On that node.
    There(Address),
    /// Nobody was heard to own it.
    Unowned,
}

/// The answer of another node, if it is the last word. None: the command was certainly not
/// seen by an owner, so that it may be brought to whoever owns the share by now.
#[must_use]
pub fn last_word(sent: Result<Answer, Lost>) -> Option<Answer> {
    match sent {
        Ok(Answer::Busy("moved")) | Err(Lost::NotSent) => None,
        Ok(answer) => Some(answer),
        Err(Lost::Unknown) => Some(Answer::Unknown),
    }
}

/// A log whose reading broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Torn {
    /// Partition 0.
    Pool,
    /// The board.
    Board,
    /// A share that is read back.
    Share(ShareId),
}

/// Something that did not come through the log or from a caller.
#[derive(Debug)]
pub enum Mail {
    /// A contender's Claim was accepted; where partition 0 ended after that.
    Owns(Box<Owner>, Offset),
    /// A contender gave up; the share may be tried again later.
    Gone(ShareId),
    /// A contender has folded its share: [`Contender::has_just_folded`].
    Folded(ShareId),
    /// What came of a command that was sent to another node.
    Returned(Onward, Result<Answer, Lost>),
    /// Give everything up and end.
    Drain,
}

/// What has come since the last turn.
#[derive(Debug, Default)]
pub struct Work {
    /// Commands for shares that are owned here.
    pub commands: Vec<(ShareId, Caller, Command)>,
    /// Mail.
    pub mail: Vec<Mail>,
    /// Fates of frames.
    pub fates: Vec<(Mark, Fate)>,
    /// Records of partition 0.
    pub pool: Vec<(Offset, Vec<u8>)>,
    /// Records of the board.
    pub board: Vec<(Offset, Vec<u8>)>,
    /// Records of shares that are read back.
    pub read_back: Vec<(ShareId, Offset, Vec<u8>)>,
    /// Logs whose reading broke off, after the records above.
    pub torn: Vec<Torn>,
    /// Time has passed.
    pub ticked: bool,
    /// A millisecond has passed since [`Conductor::holds_back`].
    pub paced: bool,
}

impl Work {
    /// Whether nothing has come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
            && self.mail.is_empty()
            && self.fates.is_empty()
            && self.pool.is_empty()
            && self.board.is_empty()
            && self.read_back.is_empty()
            && self.torn.is_empty()
            && !self.ticked
            && !self.paced
    }
}

/// The log took an append not; nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotTaken;

/// Something that people may want to know; nothing depends on it.
#[derive(Debug)]
pub enum Note<'a> {
    /// What a record of partition 0 came to.
    Pool(Offset, &'a PoolVerdict),
    /// A record of the board was passed over.
    BeatPassed(Offset),
    /// Pool and board are read: this node may own shares.
    Ready,
    /// A share is owned here.
    Owns(ShareId, Epoch),
    /// A share is being given up.
    GivesUp(ShareId, Option<NodeId>),
    /// An owner is no more.
    Stopped(ShareId, Stopped),
    /// A log is read anew.
    Torn(Torn),
}

/// What does as the conductor says. Nothing here may call the conductor back.
pub trait Hands {
    /// Appends a frame to the partition of `share`; its fate comes back under `mark`.
    ///
    /// # Errors
    /// [`NotTaken`]: nothing was written and no fate will come.
    fn append(&mut self, share: ShareId, mark: Mark, frame: &[u8]) -> Result<(), NotTaken>;

    /// Appends a beat to the board. Nobody waits for its fate: it counts when it is read.
    ///
    /// # Errors
    /// [`NotTaken`].
    fn append_to_board(&mut self, number: u64, beat: &[u8]) -> Result<(), NotTaken>;

    /// Tells a caller. If the caller was left by [`Hands::pass_on`], the outcome is handed
    /// back with whom it is for.
    fn answer(&mut self, caller: Caller, outcome: Outcome) -> Option<(Onward, Outcome)>;

    /// Leaves a command for a share that is owned here, for the next turn.
    fn pass_on(&mut self, to: ShareId, command: Command, onward: Onward);

    /// Sends a command to another node, once; what comes of it is [`Mail::Returned`].
    fn send(&mut self, at: Address, to: ShareId, command: Command, onward: Onward);

    /// Draws blocks from the pool, as [`crate::draw::Drawing`] says.
    fn draw(&mut self, share: ShareId, run: RunId, class: ClassId, blocks: u32);

    /// Reads the partition of `share` from `from` on, until [`Conductor::is_reading`] ends.
    fn read_back(&mut self, share: ShareId, from: Offset);

    /// Reads partition 0 from its beginning.
    fn reread_pool(&mut self);

    /// Reads the board from its end.
    fn reread_board(&mut self);

    /// Drives a contender until it owns its share or forgets it; that is mailed back.
    ///
    /// # Errors
    /// [`NotTaken`]: there is no room for another.
    fn contend(&mut self, contender: Contender) -> Result<(), NotTaken>;

    /// Tells a contender how it stands; none if the share is not wanted any more.
    fn tell(&mut self, share: ShareId, prospect: Option<(Standing, Now)>);

    /// It is known which ledger this is.
    fn founded(&mut self, ledger: Digest128);

    /// Tells people.
    fn note(&mut self, note: Note<'_>);
}

/// One node's deciding.
#[derive(Debug)]
pub struct Conductor {
    me: Me,
    /// Partition 0 before its first record, for reading it anew.
    unread: Pool,
    pool: Pool,
    /// None before Genesis was read.
    board: Option<Board>,
    board_heard: Option<Millis>,
    state: NodeState,
    /// Where partition 0 ended when this process started: ready only after that.
    pool_end: Offset,
    owners: BTreeMap<ShareId, Owner>,
    /// Shares that a contender folds.
    contended: BTreeSet<ShareId>,
    /// Those of them that it has folded.
    folded: BTreeSet<ShareId>,
    /// Shares that an owner here lost just now: not before that time.
    cooldown: BTreeMap<ShareId, Millis>,
    /// Shares whose owner here stopped without giving them up: unless another has claimed them,
    /// nobody else may for long, whatever the plan says by now.
    dropped: BTreeSet<ShareId>,
    stops: u64,
    beats: u64,
    beat_at: Millis,
    full_at: Millis,
    /// Something about this node changed that the next beat must tell at once, in full.
    beat_now: bool,
    draining: Option<Millis>,
    /// When the last turn was.
    last: Option<Now>,
    pace: Pace,
    out: Vec<Output>,
}

/// How many frames may go: a window, and a token bucket for what does not fit it.
#[derive(Debug, Default)]
struct Pace {
    under_way: usize,
    left: u64,
    at: Millis,
    /// Some had to wait.
    short: bool,
}

impl Pace {
    fn pass(&mut self, mono: Millis, under_way: usize) {
        self.under_way = under_way;
        let more = mono.since(self.at).saturating_mul(FRAMES_PER_MS);
        self.left = self.left.saturating_add(more).min(FRAMES_AT_ONCE);
        (self.at, self.short) = (mono, false);
    }

    fn take(&mut self) -> bool {
        self.short = self.left == 0 && self.under_way >= FRAMES_UNDER_WAY;
        if !self.short {
            self.left = self.left.saturating_sub(1);
            self.under_way += 1;
        }
        !self.short
    }
}

impl Conductor {
    /// A process that has just started. `pool` has folded nothing yet; partition 0 ended at
    /// `pool_end` after the start.
    #[must_use]
    pub fn new(me: Me, pool: Pool, pool_end: Offset) -> Self {
        Self {
            me,
            unread: pool.clone(),
            pool,
            board: None,
            board_heard: None,
            state: NodeState::Starting,
            pool_end,
            owners: BTreeMap::new(),
            contended: BTreeSet::new(),
            folded: BTreeSet::new(),
            cooldown: BTreeMap::new(),
            dropped: BTreeSet::new(),
            stops: 0,
            beats: 0,
            beat_at: Millis(0),
            full_at: Millis(0),
            beat_now: true,
            draining: None,
            last: None,
            pace: Pace::default(),
            out: Vec::new(),
        }
    }

    /// Partition 0 was found to end here, before the first turn.
    pub fn pool_ends_at(&mut self, end: Offset) {
        self.pool_end = end;
    }

    // Looking.

    /// Partition 0 as it was folded.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The board as it was heard; none before Genesis was read.
    #[must_use]
    pub fn board(&self) -> Option<&Board> {
        self.board.as_ref()
    }

    /// How far this node is.
    #[must_use]
    pub fn state(&self) -> NodeState {
        self.state
    }

    /// Whether a share is owned here.
    #[must_use]
    pub fn owns(&self, share: ShareId) -> bool {
        self.owners.contains_key(&share)
    }

    /// The shares that are owned here.
    #[must_use]
    pub fn owned(&self) -> BTreeMap<ShareId, (Epoch, ShareStage)> {
        let Some(board) = &self.board else { return BTreeMap::new() };
        let view = View { pool: &self.pool, board };
        let owners = self.owners.iter();
        owners.map(|(share, o)| (*share, (o.epoch(), o.stage(view)))).collect()
    }

    /// Whether frames wait for their turn: there should be one in a millisecond.
    #[must_use]
    pub fn holds_back(&self) -> bool {
        self.pace.short
    }

    /// How many shares are owned here.
    #[must_use]
    pub fn shares_owned(&self) -> usize {
        self.owners.len()
    }

    /// Whether a contender folds a share.
    #[must_use]
    pub fn is_contended(&self, share: ShareId) -> bool {
        self.contended.contains(&share)
    }

    /// The shares that contenders fold.
    pub fn contended(&self) -> impl Iterator<Item = ShareId> + '_ {
        self.contended.iter().copied()
    }

    /// Whether records of a share are still to be read back.
    #[must_use]
    pub fn is_reading(&self, share: ShareId) -> bool {
        self.owners.get(&share).is_some_and(Owner::is_reading)
    }

    /// Where a share is owned.
    #[must_use]
    pub fn locate(&self, share: ShareId) -> Place {
        if self.owns(share) {
            return Place::Here;
        }
        let Some(board) = &self.board else { return Place::Unowned };
        let node = board.share(share).map(|s| s.node).filter(|n| *n != self.me.node);
        node.and_then(|n| board.node(n)).map_or(Place::Unowned, |n| Place::There(n.address))
    }

    /// Whether the board can be trusted: only then what is said of peers counts.
    #[must_use]
    pub fn hears_board(&self, mono: Millis) -> bool {
        if self.me.sells {
            return self.board.as_ref().is_some_and(|b| b.is_listening(mono));
        }
        self.board_heard.is_some_and(|at| mono.since(at) <= BOARD_OK_MS)
    }

    /// The other selling nodes, as their beats tell.
    #[must_use]
    pub fn peers(&self, mono: Millis) -> Vec<Peer> {
        let Some(board) = &self.board else { return Vec::new() };
        let mut owned: BTreeMap<(NodeId, Incarnation), Vec<(ShareId, Epoch)>> = BTreeMap::new();
        for share in self.pool.shares() {
            if let Some(seen) = board.share(share) {
                let owner = (seen.node, seen.incarnation);
                owned.entry(owner).or_default().push((share, seen.epoch));
            }
        }
        let others = board.nodes().filter(|(node, _)| *node != self.me.node);
        let peer = |(node, seen): (NodeId, &crate::board::NodeSeen)| Peer {
            node,
            incarnation: seen.incarnation,
            silent_ms: board.since_heard(mono, node).unwrap_or(u64::MAX),
            owns: owned.remove(&(node, seen.incarnation)).unwrap_or_default(),
        };
        others.map(peer).filter(|peer| peer.silent_ms <= PEER_KEPT_MS).collect()
    }

    /// What the operator hears of this node.
    #[must_use]
    pub fn report(&self, mono: Millis, weight: u16) -> Report {
        let holding = |(share, (epoch, stage)): (ShareId, (Epoch, ShareStage))| Holding {
            share,
            epoch,
            recovering: stage == ShareStage::Recovering,
        };
        Report {
            node: self.me.node,
            incarnation: self.me.incarnation,
            sells: self.me.sells,
            weight,
            state: self.state,
            owns: self.owned().into_iter().map(holding).collect(),
            peers: self.peers(mono),
            board_ok: self.hears_board(mono),
        }
    }

    /// Whether a drain is over, if `waiting` callers are left.
    #[must_use]
    pub fn is_drained(&self, mono: Millis, waiting: usize) -> bool {
        let Some(since) = self.draining else { return false };
        let empty = self.owners.is_empty() && self.contended.is_empty();
        // Requests that look for the next owner are answered within the courier's patience.
        empty && mono.since(since) >= LEASE_MS && waiting == 0
    }

    // A turn.

    /// Lets everything that has come happen, in the order in which it can matter. `work` is
    /// left empty.
    pub fn turn(&mut self, now: Now, work: &mut Work, hands: &mut impl Hands) {
        let moved = !work.pool.is_empty() || !work.board.is_empty();
        self.wake(now);
        self.read_pool(&mut work.pool, hands);
        self.read_board(now, &mut work.board, hands);
        for mail in work.mail.drain(..) {
            self.open_mail(now, mail, hands);
        }
        for (mark, fate) in work.fates.drain(..) {
            self.confirm(now, mark, fate, hands);
        }
        for (share, at, record) in work.read_back.drain(..) {
            self.handle(now, share, Input::Record(at, &record), hands);
        }
        for torn in work.torn.drain(..) {
            self.mend(now, torn, hands);
        }
        for (share, caller, command) in work.commands.drain(..) {
            self.decide(now, share, caller, &command, hands);
        }
        if moved {
            self.each(now, || Input::Moved, hands);
        }
        let ticked = std::mem::take(&mut work.ticked);
        work.paced = false;
        if ticked {
            // Who was silent for so long may have lost its shares by right, to one that has
            // ended since without a word: only the log can tell.
            let silent = self.board.as_ref().and_then(|board| board.since_echo(now.mono));
            if silent.is_some_and(|ms| ms >= SILENCE_MS) {
                self.each(now, || Input::Deaf, hands);
            }
            self.each(now, || Input::Tick, hands);
        }
        if moved || ticked {
            self.stand(now, hands);
            self.give_up(now, hands);
        }
        self.seal(now, hands);
        if ticked || moved {
            self.beat_if_due(now, hands);
        }
    }

    /// Notices that the machine slept: the monotonic clock does not count that.
    fn wake(&mut self, now: Now) {
        let Some(last) = self.last.replace(now) else { return };
        let slept = now.wall.since(last.wall).saturating_sub(now.mono.since(last.mono));
        if slept >= SLEPT_MS
            && !teeth::has(Bug::LeaseThroughSleep)
            && let Some(board) = &mut self.board
        {
            board.slept(slept);
            self.owners.values_mut().for_each(|owner| owner.slept(slept));
        }
    }

    fn read_pool(&mut self, records: &mut Vec<(Offset, Vec<u8>)>, hands: &mut impl Hands) {
        for (at, record) in records.drain(..) {
            let verdict = self.pool.fold(at, &record);
            hands.note(Note::Pool(at, &verdict));
        }
        if self.board.is_none()
            && let Some(ledger) = self.pool.ledger()
        {
            self.board = Some(Board::new(ledger, self.me.incarnation));
            hands.founded(ledger);
        }
    }

    fn read_board(
        &mut self,
        now: Now,
        records: &mut Vec<(Offset, Vec<u8>)>,
        hands: &mut impl Hands,
    ) {
        let Some(board) = &mut self.board else {
            records.clear();
            return;
        };
        if !records.is_empty() {
            self.board_heard = Some(now.mono);
        }
        for (at, record) in records.drain(..) {
            if board.read(now.mono, at, &record).is_err() {
                hands.note(Note::BeatPassed(at));
            }
        }
        let listening = !self.me.sells || board.is_listening(now.mono);
        let folded = self.pool.position() >= self.pool_end && self.pool.frozen().is_none();
        if self.state == NodeState::Starting && listening && folded {
            self.state = NodeState::Ready;
            self.beat_now = true;
            hands.note(Note::Ready);
        }
    }

    fn open_mail(&mut self, now: Now, mail: Mail, hands: &mut impl Hands) {
        match mail {
            Mail::Owns(owner, pool_end) => {
                let share = owner.share();
                hands.note(Note::Owns(share, owner.epoch()));
                self.contended.remove(&share);
                self.folded.remove(&share);
                self.dropped.remove(&share);
                self.owners.insert(share, *owner);
                self.handle(now, share, Input::PoolEnd(pool_end), hands);
                self.beat_now = true;
            }
            Mail::Gone(share) => {
                self.contended.remove(&share);
                self.folded.remove(&share);
            }
            Mail::Folded(share) => {
                self.folded.insert(share);
                self.beat_now = true;
            }
            Mail::Returned(onward, sent) => self.returned(now, onward, sent, hands),
            Mail::Drain => {
                self.draining.get_or_insert(now.mono);
                self.state = NodeState::Draining;
                self.beat_now = true;
            }
        }
    }

    fn returned(
        &mut self,
        now: Now,
        onward: Onward,
        sent: Result<Answer, Lost>,
        hands: &mut impl Hands,
    ) {
        match onward {
            Onward::Travel { home, order, attempt } => {
                let reply = sent.map_or(Reply::Unknown, reply_of);
                self.handle(now, home, Input::Reply(order, attempt, reply), hands);
            }
            Onward::Relay { home, order, caller } => {
                let answer = sent.unwrap_or_else(|lost| match lost {
                    Lost::NotSent => Answer::Busy("peer"),
                    Lost::Unknown => Answer::Unknown,
                });
                if self.owns(home) {
                    self.handle(now, home, Input::Relayed(caller, order, answer), hands);
                } else {
                    self.answer(now, caller, Outcome::Answered(answer), hands);
                }
            }
        }
    }

    fn confirm(&mut self, now: Now, mark: Mark, fate: Fate, hands: &mut impl Hands) {
        let (share, epoch, seq) = mark.split();
        if self.owners.get(&share).is_some_and(|o| o.epoch().0 & 0x7fff == epoch) {
            self.handle(now, share, Input::Delivered(seq, fate), hands);
        }
    }

    /// A torn tail is read anew: the pool from its beginning, the board from its end.
    fn mend(&mut self, now: Now, torn: Torn, hands: &mut impl Hands) {
        hands.note(Note::Torn(torn));
        if teeth::has(Bug::TolerateGap) {
            return;
        }
        match torn {
            Torn::Pool => {
                // Whoever was obeyed is not forgotten: nothing is begun before that was read again.
                self.pool_end = self.pool_end.max(self.pool.position());
                self.pool = self.unread.clone();
                hands.reread_pool();
            }
            Torn::Board => {
                // In what was not heard a share may have been claimed, sold from and given up
                // again; nothing that is heard from here on would tell.
                self.each(now, || Input::Deaf, hands);
                if let Some(board) = &mut self.board {
                    board.forget();
                }
                hands.reread_board();
                self.beat_now = true;
            }
            // Without what lies between, nothing can be confirmed: give the memory up.
            Torn::Share(share) => self.handle(now, share, Input::Deaf, hands),
        }
    }

    fn decide(
        &mut self,
        now: Now,
        share: ShareId,
        caller: Caller,
        command: &Command,
        hands: &mut impl Hands,
    ) {
        if self.owns(share) {
            self.handle(now, share, Input::Command(caller, command), hands);
        } else {
            self.answer(now, caller, Outcome::Rehomed, hands);
        }
    }

    fn each<'a>(&mut self, now: Now, input: impl Fn() -> Input<'a>, hands: &mut impl Hands) {
        let shares: Vec<ShareId> = self.owners.keys().copied().collect();
        for share in shares {
            self.handle(now, share, input(), hands);
        }
    }

    /// Lets something happen to an owner, and does what it wants.
    fn handle(&mut self, now: Now, share: ShareId, input: Input<'_>, hands: &mut impl Hands) {
        let Some(board) = &self.board else { return };
        let Some(owner) = self.owners.get_mut(&share) else { return };
        let mut out = std::mem::take(&mut self.out);
        owner.handle(now, View { pool: &self.pool, board }, input, &mut out);
        for output in out.drain(..) {
            self.perform(now, share, output, hands);
        }
        // What performing caused went through a vector of its own; keep the larger one.
        if self.out.capacity() < out.capacity() {
            self.out = out;
        }
    }

    fn perform(&mut self, now: Now, share: ShareId, output: Output, hands: &mut impl Hands) {
        match output {
            Output::Answer(caller, answer) => {
                self.answer(now, caller, Outcome::Answered(answer), hands);
            }
            Output::Rehome(caller, _) => self.answer(now, caller, Outcome::Rehomed, hands),
            Output::Draw { run, class, blocks } => hands.draw(share, run, class, blocks),
            Output::Travel { to, order, attempt, command } => {
                let onward = Onward::Travel { home: share, order, attempt };
                self.send(now, to, command, onward, hands);
            }
            Output::Relay { caller, order, to, command } => {
                let onward = Onward::Relay { home: share, order, caller };
                self.send(now, to, command, onward, hands);
            }
            Output::ReadBack { from, .. } => hands.read_back(share, from),
            Output::Stop(why) => self.stopped(now, share, why, hands),
        }
    }

    fn stopped(&mut self, now: Now, share: ShareId, why: Stopped, hands: &mut impl Hands) {
        hands.note(Note::Stopped(share, why));
        self.owners.remove(&share);
        self.stops += 1;
        let jitter = scatter(self.me.incarnation.0, self.stops) % COOLDOWN_MS;
        self.cooldown.insert(share, now.mono.plus(COOLDOWN_MS + jitter));
        if !matches!(why, Stopped::Yielded | Stopped::Outclaimed(_)) {
            self.dropped.insert(share);
        }
        self.beat_now = true;
    }

    fn answer(&mut self, now: Now, caller: Caller, outcome: Outcome, hands: &mut impl Hands) {
        let Some((onward, outcome)) = hands.answer(caller, outcome) else { return };
        let sent = match (onward, outcome) {
            (_, Outcome::Answered(answer)) => Ok(answer),
            (Onward::Travel { .. }, Outcome::Rehomed) => Err(Lost::Unknown),
            (Onward::Relay { .. }, Outcome::Rehomed) => Ok(Answer::Busy("moved")),
        };
        self.returned(now, onward, sent, hands);
    }

    /// Brings a command to the owner of another share, here or on another node, once.
    fn send(
        &mut self,
        now: Now,
        to: ShareId,
        command: Command,
        onward: Onward,
        hands: &mut impl Hands,
    ) {
        match self.locate(to) {
            Place::Here => hands.pass_on(to, command, onward),
            Place::There(address) => hands.send(address, to, command, onward),
            Place::Unowned => self.returned(now, onward, Err(Lost::NotSent), hands),
        }
    }

    /// Folds what this node may have to claim, and tells contenders how they stand.
    fn stand(&mut self, now: Now, hands: &mut impl Hands) {
        if !self.me.sells || self.pool.position() < self.pool_end {
            return;
        }
        let Some(board) = &self.board else { return };
        let me = &self.me;
        let mut begun = 0;
        for share in self.pool.shares() {
            if begun >= CONTENDED_AT_ONCE {
                break;
            }
            if self.owners.contains_key(&share) {
                continue;
            }
            let ready = self.state == NodeState::Ready;
            let heard = board.share(share).is_some_and(|s| s.incarnation != me.incarnation);
            if heard {
                self.dropped.remove(&share);
            }
            let wanted = ready
                && (self.dropped.contains(&share)
                    || is_of_interest(share, me.node, &self.pool, board, now.mono));
            let prospect = wanted.then(|| {
                let view = (&self.pool, board);
                (Standing::of(share, me.node, me.incarnation, view, now.mono), now)
            });
            if self.contended.contains(&share) {
                hands.tell(share, prospect);
                continue;
            }
            let cool = self.cooldown.get(&share).is_none_or(|until| *until <= now.mono);
            let Some(prospect) = prospect.filter(|_| cool) else { continue };
            let new = Candidate::new(&self.pool, share, me.node, me.address, me.incarnation);
            let Some(candidate) = new else { continue };
            begun += 1;
            if hands.contend(Contender::new(candidate, prospect)).is_ok() {
                self.contended.insert(share);
            }
        }
    }

    /// Gives up shares that the plan names for another node, or all of them when draining.
    fn give_up(&mut self, now: Now, hands: &mut impl Hands) {
        let Some(board) = &self.board else { return };
        let mut yields: Vec<(ShareId, Option<NodeId>)> = Vec::new();
        let after = |ms| self.draining.is_some_and(|at| now.mono.since(at) >= ms);
        let (late, in_haste) = (after(DRAIN_PLAN_MS), after(DRAIN_FOLD_MS));
        let named = |share| self.pool.assign().nodes.get(&share);
        for share in self.owners.iter().filter(|(_, o)| !o.is_yielding()).map(|(s, _)| *s) {
            let view = (&self.pool, board);
            if let Some(to) = should_yield(share, self.me.node, view, now.mono, in_haste) {
                yields.push((share, Some(to)));
            } else if in_haste || late && named(share).is_none_or(|to| *to == self.me.node) {
                yields.push((share, first_in_line(share, board, now.mono)));
            }
        }
        for (share, to) in yields {
            hands.note(Note::GivesUp(share, to));
            self.handle(now, share, Input::Yield(to), hands);
        }
    }

    /// Hands the log the frames that their owners have ready, as far as their turn has come: the
    /// one that has waited for the longest is the first.
    fn seal(&mut self, now: Now, hands: &mut impl Hands) {
        let mut refused = Vec::new();
        self.pace.pass(now.mono, self.owners.values().map(Owner::under_way).sum());
        let ready = |(share, owner): (&ShareId, &Owner)| Some((owner.waits_since()?, *share));
        let mut waiting: Vec<(Millis, ShareId)> = self.owners.iter().filter_map(ready).collect();
        waiting.sort_unstable();
        for (_, share) in waiting {
            let Some(owner) = self.owners.get_mut(&share) else { continue };
            if !self.pace.take() {
                break;
            }
            let Some((seq, frame)) = owner.seal(now) else { continue };
            let mark = Mark::new(share, owner.epoch(), seq);
            if hands.append(share, mark, &frame).is_err() {
                refused.push((share, seq));
            }
        }
        // Not written for certain; but the frames behind it would break the chain, so the owner
        // stops and folds as after an unknown fate.
        for (share, seq) in refused {
            self.handle(now, share, Input::Delivered(seq, Fate::Unknown), hands);
        }
    }

    fn beat_if_due(&mut self, now: Now, hands: &mut impl Hands) {
        if !self.me.sells {
            return;
        }
        let age = now.mono.since(self.beat_at);
        let slow = self.board.as_ref().is_some_and(|b| b.awaited() >= BEATS_AWAITED_MAX);
        let news: usize = self.owners.values().map(Owner::news).sum();
        if !self.beat_now && age < BEAT_MS && !(news > 0 && !slow && age >= BEAT_NEWS_MS) {
            return;
        }
        // A delta confirms the rows that it does not bring, so it has to be one beat: its first
        // part would confirm what the second one changes. A full beat confirms nothing.
        let full =
            self.beat_now || now.mono.since(self.full_at) >= BEAT_FULL_MS || news > BEAT_ROWS_MAX;
        let Some(board) = &mut self.board else { return };
        let view = View { pool: &self.pool, board };
        let mut beat = Beat {
            ledger: self.pool.ledger().unwrap_or_default(),
            node: self.me.node,
            address: self.me.address,
            incarnation: self.me.incarnation,
            number: 0,
            state: self.state,
            full,
            pool: self.pool.position(),
            seen: board.position(),
            shares: self.owners.values().map(|o| o.beat(now, view)).collect(),
            folded: self.folded.iter().copied().collect(),
            rows: Vec::new(),
        };
        let mut rows: Vec<Row> = self.owners.values_mut().flat_map(|o| o.rows(full)).collect();
        self.beat_now = false;
        let mut whole = true;
        loop {
            let rest = rows.split_off(rows.len().min(BEAT_ROWS_MAX));
            self.beats += 1;
            beat.number = self.beats;
            beat.rows = rows;
            board.sent(self.beats, now.mono);
            // A beat that was not sent is a missed number: readers wait for the next full one,
            // which comes when one is due. At once it would be refused as well.
            whole &= hands.append_to_board(self.beats, &beat.encode()).is_ok();
            if rest.is_empty() {
                break;
            }
            (rows, beat.full) = (rest, false);
        }
        self.beat_at = now.mono;
        if !whole {
            self.full_at = Millis(0);
        } else if full {
            self.full_at = now.mono;
        }
    }
}

/// Whether a share could become this node's soon enough to begin folding it.
fn is_of_interest(share: ShareId, me: NodeId, pool: &Pool, board: &Board, mono: Millis) -> bool {
    if pool.assign().nodes.get(&share) == Some(&me) {
        return true;
    }
    let silent = board.share_silent_ms(mono, share).unwrap_or(0);
    silent + SILENCE_LEAD_MS >= SILENCE_MS && first_in_line(share, board, mono) == Some(me)
}

fn reply_of(answer: Answer) -> Reply {
    match answer {
        Answer::Order { view, .. } => Reply::Order(view),
        Answer::Refused(Refusal::No) => Reply::No,
        _ => Reply::Unknown,
    }
}

/// A number that differs between processes and from stop to stop (one step of SplitMix64).
fn scatter(seed: u64, step: u64) -> u64 {
    let mut z = seed.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many frames go of a hundred that want to.
    fn gone(pace: &mut Pace, mono: u64, under_way: usize) -> u64 {
        pace.pass(Millis(mono), under_way);
        let gone = (0..100).take_while(|_| pace.take()).count() as u64;
        assert!(pace.short, "more were wanted");
        gone
    }

    #[test]
    fn while_many_are_under_way_frames_take_turns() {
        let mut pace = Pace::default();
        let mut gone = |mono| gone(&mut pace, mono, FRAMES_UNDER_WAY);
        assert_eq!(gone(86_400_000), FRAMES_AT_ONCE);
        assert_eq!(gone(86_400_000), 0);
        assert_eq!(gone(86_400_001), FRAMES_PER_MS);
        assert_eq!(gone(86_400_100), FRAMES_AT_ONCE);
        // A clock that stands still or a time before it gives none.
        assert_eq!(gone(86_400_099), 0);
        let mut pace = Pace::default();
        pace.pass(Millis(1_000), FRAMES_UNDER_WAY);
        assert!(pace.take());
        assert!(!pace.short, "nobody had to wait");
    }

    #[test]
    fn where_the_log_is_quick_nobody_waits_for_a_turn() {
        let mut pace = Pace::default();
        assert_eq!(gone(&mut pace, 86_400_000, FRAMES_UNDER_WAY), FRAMES_AT_ONCE);
        assert_eq!(gone(&mut pace, 86_400_000, FRAMES_UNDER_WAY - 1), 1);
        assert_eq!(gone(&mut pace, 86_400_000, 0), FRAMES_UNDER_WAY as u64);
    }
}
