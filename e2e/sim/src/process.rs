//! A node's process: the real conductor and contenders, with hands that note what they are to
//! do. The world carries it out.

use std::collections::BTreeMap;

use inventory::claim::Standing;
use inventory::conductor::{
    Conductor, Hands, Mark, Me, NotTaken, Note, Onward, Outcome, Torn, Work,
};
use inventory::contend::Contender;
use inventory::draw::Drawing;
use inventory::owner::{Caller, Now, Stopped};
use inventory::pool::Pool;
use inventory::state::Command;
use inventory::words::{
    Address, ClassId, Digest128, Epoch, Millis, NodeId, Offset, RunId, ShareId,
};

use crate::scenario::{LEDGER, TOPIC};

/// The time of day at which a run begins.
pub(crate) const DAWN: u64 = 1_800_000_000_000;

/// A process's monotonic clock begins here, as the node's does.
const MONO: u64 = 86_400_000;

/// How far clocks run fast or slow at most, in millionths: far beyond what a clock does that is
/// still disciplined, so that no rule may rest on two of them agreeing.
pub(crate) const DRIFT_PPM: u64 = 10_000;

/// Readers of one kind that get stuck together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kept {
    /// That of partition 0.
    Pool,
    /// That of the board.
    Board,
    /// Those of shares.
    Shares,
}

/// A reader of a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tail {
    /// Tells it from one that was opened for the same purpose before.
    pub(crate) id: u64,
    /// The next offset; none before the leader has told the end to begin from.
    pub(crate) next: Option<u64>,
    /// Whether a look at the partition is scheduled.
    pub(crate) looks: bool,
}

/// Who waits at the desk.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Slot {
    /// A request of a buyer.
    Bring(u64),
    /// A request of another node.
    Peer(u64),
    /// An owner of this node.
    Owner(Onward),
}

/// A buyer's request that is being brought to the owner of its share.
#[derive(Debug, Clone)]
pub(crate) struct Bring {
    pub(crate) press: u64,
    pub(crate) share: ShareId,
    pub(crate) command: Command,
    /// By the process's monotonic clock.
    pub(crate) until: u64,
}

/// A contender and the thread that drives it.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) id: u64,
    pub(crate) contender: Contender,
    pub(crate) tail: Tail,
    pub(crate) records: Vec<(Offset, Vec<u8>)>,
    pub(crate) told: Option<(Standing, Now)>,
    pub(crate) asking: bool,
    pub(crate) woken: bool,
}

/// What the conductor wants done.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a handful live at a time")]
pub(crate) enum Act {
    Append(ShareId, Mark, Vec<u8>),
    Beat(Vec<u8>),
    Told(Slot, Outcome),
    Send(Address, ShareId, Command, Onward),
    Draw(Drawing),
    ReadBack(ShareId, Offset),
    RereadPool,
    RereadBoard,
    Contend(Contender),
    Tell(ShareId, Option<(Standing, Now)>),
    Owns(ShareId, Epoch),
    Say(String),
}

/// Hands that note.
pub(crate) struct Notes<'a> {
    pub(crate) acts: &'a mut Vec<Act>,
    pub(crate) desk: &'a mut Desk,
    /// The log takes nothing just now.
    pub(crate) refuses: bool,
}

/// Where callers wait.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    pub(crate) slots: BTreeMap<u64, Slot>,
    callers: u64,
    /// Commands for the next turn.
    pub(crate) inbox: Vec<(ShareId, Caller, Command)>,
}

impl Desk {
    pub(crate) fn submit(&mut self, share: ShareId, command: Command, slot: Slot) {
        self.callers += 1;
        self.slots.insert(self.callers, slot);
        self.inbox.push((share, Caller(self.callers), command));
    }
}

impl Hands for Notes<'_> {
    fn append(&mut self, share: ShareId, mark: Mark, frame: &[u8]) -> Result<(), NotTaken> {
        if self.refuses {
            return Err(NotTaken);
        }
        self.acts.push(Act::Append(share, mark, frame.to_vec()));
        Ok(())
    }

    fn append_to_board(&mut self, _: u64, beat: &[u8]) -> Result<(), NotTaken> {
        if self.refuses {
            return Err(NotTaken);
        }
        self.acts.push(Act::Beat(beat.to_vec()));
        Ok(())
    }

    fn answer(&mut self, caller: Caller, outcome: Outcome) -> Option<(Onward, Outcome)> {
        match self.desk.slots.remove(&caller.0)? {
            Slot::Owner(onward) => Some((onward, outcome)),
            slot => {
                self.acts.push(Act::Told(slot, outcome));
                None
            }
        }
    }

    fn pass_on(&mut self, to: ShareId, command: Command, onward: Onward) {
        self.desk.submit(to, command, Slot::Owner(onward));
    }

    fn send(&mut self, at: Address, to: ShareId, command: Command, onward: Onward) {
        self.acts.push(Act::Send(at, to, command, onward));
    }

    fn draw(&mut self, share: ShareId, run: RunId, class: ClassId, blocks: u32) {
        self.acts.push(Act::Draw(Drawing::new(share, run, class, blocks)));
    }

    fn read_back(&mut self, share: ShareId, from: Offset) {
        self.acts.push(Act::ReadBack(share, from));
    }

    fn reread_pool(&mut self) {
        self.acts.push(Act::RereadPool);
    }

    fn reread_board(&mut self) {
        self.acts.push(Act::RereadBoard);
    }

    fn contend(&mut self, contender: Contender) -> Result<(), NotTaken> {
        self.acts.push(Act::Contend(contender));
        Ok(())
    }

    fn tell(&mut self, share: ShareId, prospect: Option<(Standing, Now)>) {
        self.acts.push(Act::Tell(share, prospect));
    }

    fn founded(&mut self, _: Digest128) {}

    fn note(&mut self, note: Note<'_>) {
        match note {
            Note::Owns(share, epoch) => self.acts.push(Act::Owns(share, epoch)),
            Note::GivesUp(share, to) => {
                self.acts.push(Act::Say(format!("gives share {share} up to {to:?}")));
            }
            Note::Stopped(share, why) if why != Stopped::Yielded => {
                self.acts.push(Act::Say(format!("stops owning share {share}: {why}")));
            }
            Note::Ready => self.acts.push(Act::Say("is ready".into())),
            Note::Torn(torn) => self.acts.push(Act::Say(format!("reads anew: {torn:?}"))),
            Note::Pool(..) | Note::BeatPassed(_) | Note::Stopped(..) => {}
        }
    }
}

/// A node's process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) me: Me,
    pub(crate) alive: bool,
    started: u64,
    /// What its wall clock is ahead of, or behind, the true time.
    pub(crate) skew: i64,
    /// How much faster or slower its clocks run, in millionths.
    rate: i64,
    /// When it slept, from and to.
    sleeps: Vec<(u64, u64)>,
    /// Whether it knows where partition 0 ended, and has begun.
    pub(crate) begun: bool,
    /// Tails that fetch nothing, until when.
    pub(crate) stuck: BTreeMap<Kept, u64>,
    pub(crate) paused_until: u64,
    pub(crate) cut_until: u64,
    pub(crate) deaf_until: u64,
    pub(crate) grey_until: u64,
    pub(crate) refuses_until: u64,
    pub(crate) conductor: Conductor,
    pub(crate) work: Work,
    pub(crate) desk: Desk,
    pub(crate) woken: bool,
    pub(crate) pool_tail: Tail,
    pub(crate) board_tail: Tail,
    /// The first record of the board that it could hear since it heard nothing.
    pub(crate) hears_from: u64,
    pub(crate) read_backs: BTreeMap<ShareId, Tail>,
    /// When something of a share was last read back.
    pub(crate) read_back_at: BTreeMap<ShareId, u64>,
    pub(crate) running: BTreeMap<ShareId, Running>,
    pub(crate) brings: BTreeMap<u64, Bring>,
    pub(crate) tears: Option<Torn>,
    pub(crate) draining: bool,
}

impl Process {
    pub(crate) fn new(me: Me, now: u64, (skew, rate): (i64, i64), ids: [u64; 2]) -> Self {
        let pool = Pool::new(LEDGER).expecting(TOPIC);
        // They look from when the process has begun.
        let tail = |id, next| Tail { id, next, looks: true };
        Self {
            me,
            alive: true,
            started: now,
            skew,
            rate,
            sleeps: Vec::new(),
            begun: false,
            stuck: BTreeMap::new(),
            paused_until: 0,
            cut_until: 0,
            deaf_until: 0,
            grey_until: 0,
            refuses_until: 0,
            conductor: Conductor::new(me, pool, Offset(u64::MAX)),
            work: Work::default(),
            desk: Desk::default(),
            woken: false,
            pool_tail: tail(ids[0], Some(0)),
            board_tail: tail(ids[1], None),
            hears_from: 0,
            read_backs: BTreeMap::new(),
            read_back_at: BTreeMap::new(),
            running: BTreeMap::new(),
            brings: BTreeMap::new(),
            tears: None,
            draining: false,
        }
    }

    pub(crate) fn name(&self) -> NodeId {
        self.me.node
    }

    /// Its clocks at the true time `now`.
    pub(crate) fn clocks(&self, now: u64) -> Now {
        let drift = (now - self.started) as i64 * self.rate / 1_000_000;
        let wall = (DAWN + now).saturating_add_signed(self.skew + drift);
        let mono = MONO + self.awake(self.started, now);
        Now { wall: Millis(wall), mono: Millis(mono.saturating_add_signed(drift)) }
    }

    /// It sleeps from `now` on; its monotonic clock does not count that.
    pub(crate) fn sleep(&mut self, now: u64, until: u64) {
        let from = self.sleeps.last().map_or(now, |(_, to)| now.max(*to));
        if from < until {
            self.sleeps.push((from, until));
        }
        self.paused_until = self.paused_until.max(until);
    }

    /// When it wakes, or woke last, if it ever slept.
    pub(crate) fn wakes_at(&self) -> Option<u64> {
        self.sleeps.last().map(|(_, to)| *to)
    }

    /// How much of the time from `from` to `to` it did not sleep.
    pub(crate) fn awake(&self, from: u64, to: u64) -> u64 {
        let asleep = |(a, b): &(u64, u64)| to.min(*b).saturating_sub(from.max(*a));
        (to - from).saturating_sub(self.sleeps.iter().map(asleep).sum())
    }
}
