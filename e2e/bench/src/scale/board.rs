//! What the board costs a node: bytes to read, and time to apply them.
//!
//! [`Heard`] is the board alone. [`Turned`] is one node's whole [`Conductor`] with that board:
//! what it does beside for each turn in which a beat came, what it tells the operator, and what it
//! does while nobody plans. Nobody sells meanwhile: what orders cost is measured elsewhere.

use std::time::Instant;

use e2e::{Error, Result};
use inventory::board::{Beat, Board};
use inventory::claim::Standing;
use inventory::conductor::{
    Conductor, Hands, Mail, Mark, Me, NotTaken, Note, Onward, Outcome, Work,
};
use inventory::contend::Contender;
use inventory::dispatcher;
use inventory::entry::{Assign, PoolEntry};
use inventory::owner::{Caller, Candidate, Now, Owner, Progress};
use inventory::pool::Pool;
use inventory::state::Command;
use inventory::words::{Address, ClassId, Digest128, Incarnation, Millis, Offset, RunId, ShareId};
use serde::Serialize;

use super::fleet::{Fleet, LEDGER, START, Tells, genesis, policy, record};
use super::{grown, median_millis};

/// Nodes whose beats are timed, one after the other.
const TIMED: usize = 48;
/// A node beats so often in a second when nothing changes, once of it in full; and so often when
/// something always has.
pub(super) const BEATS_IDLE: f64 = 5.0;
pub(super) const BEATS_BUSY: f64 = 20.0;
/// How often a node's worker looks up by itself, and how often the operator asks it.
const TICK_MS: u64 = 20;
const TICKS_PER_SECOND: f64 = 1_000.0 / TICK_MS as f64;
pub(super) const REPORTS_PER_SECOND: f64 = 4.0;
/// Until its own beats came back for so long, a node answers nothing from memory.
const SETTLED_MS: u64 = 2_000;
/// Shares that nobody was heard to own for so long are looked at by all who might be next. Until
/// shortly before it nobody else is heard, and a while after it is looked at.
const UNPLANNED_MS: u64 = 8_000;
const AROUND_MS: u64 = 200;
/// Shares that a node is to own when it has just started, where its first turn is timed: those of
/// a fleet of sixteen nodes with as many shares as a ledger may have.
const STARTED_SHARES: u16 = 64;

/// The board of one reader.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Heard {
    /// Rows of the board, over all nodes.
    pub(crate) rows: usize,
    /// Bytes of a beat with every row of its node.
    pub(crate) full_bytes: f64,
    /// Bytes of a beat when nothing has changed.
    pub(crate) empty_bytes: f64,
    /// Microseconds to apply a full beat, when all rows of all nodes are known.
    pub(crate) full_micros: f64,
    /// Microseconds of it to decode the beat.
    pub(crate) decode_micros: f64,
    /// Microseconds to apply a beat that brings every row as changed, but is not full.
    pub(crate) changes_micros: f64,
    /// Microseconds to apply an empty beat.
    pub(crate) empty_micros: f64,
    /// Bytes of memory of the board.
    pub(crate) memory_bytes: u64,
    /// Bytes a second that each node reads when nothing changes, and when every row changes all
    /// the time.
    pub(crate) idle_bytes_per_second: f64,
    pub(crate) busy_bytes_per_second: f64,
    /// Which part of one core applying them takes.
    pub(crate) idle_core: f64,
    pub(crate) busy_core: f64,
}

/// Has a board hear the whole fleet.
///
/// # Errors
/// When a beat of ours is none: a defect.
pub(super) fn heard(fleet: &Fleet) -> Result<Heard> {
    let nodes = fleet.nodes.len();
    let all = || {
        let mut board = Board::new(fleet.ledger, Fleet::incarnation(0));
        for node in 0..nodes {
            read(&mut board, &fleet.beat(node, 1, Tells::All)?)?;
        }
        Ok(board)
    };
    let mut board = all()?;
    let memory_bytes = grown(|| Ok(board.clone()))?;
    let mut number = 1;
    let mut timed = |tells| -> Result<(f64, f64)> {
        number += 1;
        let beats = (0..nodes.min(TIMED)).map(|node| fleet.beat(node, number, tells));
        let beats = beats.collect::<Result<Vec<_>>>()?;
        let begun = Instant::now();
        for beat in &beats {
            read(&mut board, beat)?;
        }
        let micros = begun.elapsed().as_secs_f64() * 1e6 / beats.len() as f64;
        Ok((micros, beats.iter().map(Vec::len).sum::<usize>() as f64 / beats.len() as f64))
    };
    let (full_micros, full_bytes) = timed(Tells::All)?;
    let (empty_micros, empty_bytes) = timed(Tells::Nothing)?;
    let (changes_micros, _) = timed(Tells::Changes)?;
    let some = fleet.beat(0, 1, Tells::All)?;
    let decode_micros = 1_000.0
        * median_millis(9, || {
            let _ = std::hint::black_box(Beat::decode(&some));
        });
    let a_second =
        |full: f64, other: f64, beats: f64| nodes as f64 * (full + other * (beats - 1.0));
    Ok(Heard {
        rows: fleet.rows(),
        full_bytes,
        empty_bytes,
        full_micros,
        decode_micros,
        changes_micros,
        empty_micros,
        memory_bytes,
        idle_bytes_per_second: a_second(full_bytes, empty_bytes, BEATS_IDLE),
        busy_bytes_per_second: a_second(full_bytes, full_bytes, BEATS_BUSY),
        idle_core: a_second(full_micros, empty_micros, BEATS_IDLE) / 1e6,
        busy_core: a_second(full_micros, changes_micros, BEATS_BUSY) / 1e6,
    })
}

fn read(board: &mut Board, beat: &[u8]) -> Result<()> {
    let read = board.read(START, board.position(), beat);
    read.map_err(|e| Error::Refused(format!("a beat cannot be read: {e}")))
}

/// One node among all others.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Turned {
    /// Microseconds of a turn in which one empty beat came, less what the board takes for it.
    pub(crate) turn_micros: f64,
    /// Microseconds of a turn in which only time has passed, own beats included.
    pub(crate) tick_micros: f64,
    /// Microseconds to make one report for the operator.
    pub(crate) report_micros: f64,
    /// Microseconds of a turn while no plan has come and the operator is away.
    pub(crate) unplanned_micros: f64,
    /// Milliseconds of the turn in which a node begins with [`STARTED_SHARES`], or all there are.
    pub(crate) start_ms: f64,
    /// Which part of one core is taken beside the board, if every beat has a turn of its own and
    /// nothing changes.
    pub(crate) idle_core: f64,
}

/// Has a node live in the fleet; also its report.
///
/// # Errors
/// When something does not come to what it must: a defect.
pub(super) fn turned(fleet: &Fleet, heard: &Heard) -> Result<(Turned, dispatcher::Report)> {
    let mut node = Node::started(fleet, Some(fleet.assign()))?;
    for share in fleet.shares_of(0) {
        let owner = node.owner(fleet, share)?;
        node.work.mail.push(Mail::Owns(Box::new(owner), node.pool_end));
    }
    node.live(SETTLED_MS);
    node.hear(fleet, 1, Tells::All)?;
    let tick_micros = node.live(1_000) / TICKS_PER_SECOND;
    let beats = 1..=fleet.nodes.len().min(TIMED + 1) - 1;
    let mut turns = 0.0;
    for other in beats.clone() {
        node.push(fleet.beat(other, 2, Tells::Nothing)?);
        turns += node.turn(false);
    }
    let turn = turns / beats.count().max(1) as f64 - heard.empty_micros;
    let report_micros = 1_000.0
        * median_millis(5, || {
            std::hint::black_box(node.conductor.report(node.mono, 1));
        });
    let report = node.conductor.report(node.mono, 1);
    if report.owns.is_empty() || report.peers.len() + 1 != fleet.nodes.len() {
        return Err(Error::Refused("a node has lost its shares or its peers".to_owned()));
    }
    let nodes = fleet.nodes.len() as f64;
    let idle = nodes * BEATS_IDLE * turn.max(0.0)
        + TICKS_PER_SECOND * tick_micros
        + REPORTS_PER_SECOND * report_micros;
    let turned = Turned {
        turn_micros: turn,
        tick_micros,
        report_micros,
        unplanned_micros: unplanned(fleet)?,
        start_ms: start(fleet)?,
        idle_core: idle / 1e6,
    };
    Ok((turned, report))
}

/// A turn of a node that has heard of no plan for as long as it takes to look by itself.
fn unplanned(fleet: &Fleet) -> Result<f64> {
    let mut node = Node::started(fleet, None)?;
    node.live(UNPLANNED_MS - SETTLED_MS - AROUND_MS);
    for other in 1..fleet.nodes.len() {
        let beat = fleet.beat(other, 1, Tells::Nothing)?;
        let mut beat = Beat::decode(&beat).map_err(|e| Error::Refused(e.to_string()))?;
        beat.shares.clear();
        node.push(beat.encode());
    }
    // In the first of these turns it begins to fold what it is next for, which is not meant here.
    node.live(2 * AROUND_MS);
    let micros = node.turn(true);
    if node.hands.contended == 0 {
        return Err(Error::Refused("a node that is next in line does nothing".to_owned()));
    }
    Ok(micros)
}

/// The turn in which a node that has just started begins with the shares that the plan gives it.
fn start(fleet: &Fleet) -> Result<f64> {
    let mut assign = fleet.assign();
    let shares = STARTED_SHARES.min(fleet.size.shares());
    for share in (1..=shares).map(ShareId) {
        assign.nodes.insert(share, fleet.nodes[0]);
    }
    let node = Node::started(fleet, Some(assign))?;
    if node.hands.contended < shares.into() {
        return Err(Error::Refused("a node did not begin with what it should own".to_owned()));
    }
    Ok(node.longest / 1_000.0)
}

/// A conductor with its log and board.
struct Node {
    conductor: Conductor,
    hands: Still,
    work: Work,
    mono: Millis,
    board_end: u64,
    pool_end: Offset,
    /// Microseconds of the longest turn so far.
    longest: f64,
}

impl Node {
    /// One that has read partition 0 and hears itself.
    fn started(fleet: &Fleet, assign: Option<Assign>) -> Result<Self> {
        let me = Me {
            node: fleet.nodes[0],
            address: Fleet::address(0)?,
            incarnation: Fleet::incarnation(0),
            sells: true,
        };
        let too_long = || Error::Refused("Genesis is too long".to_owned());
        let mut records = vec![genesis(&fleet.definition).ok_or_else(too_long)?];
        records.push(record(PoolEntry::Policy(policy()))?);
        if let Some(assign) = assign {
            records.push(record(PoolEntry::Assign(assign))?);
        }
        let pool_end = Offset(records.len() as u64);
        let mut node = Self {
            conductor: Conductor::new(me, Pool::new(LEDGER), pool_end),
            hands: Still::default(),
            work: Work::default(),
            mono: Millis(1_000_000),
            board_end: 0,
            pool_end,
            longest: 0.0,
        };
        node.work.pool = (0..).map(Offset).zip(records).collect();
        node.turn(true);
        node.longest = 0.0;
        node.live(SETTLED_MS);
        Ok(node)
    }

    /// One turn at the present time; its microseconds. Own beats come back at the next.
    fn turn(&mut self, ticked: bool) -> f64 {
        self.work.ticked = ticked;
        let now = Now { wall: START.plus(self.mono.0), mono: self.mono };
        let begun = Instant::now();
        self.conductor.turn(now, &mut self.work, &mut self.hands);
        let micros = begun.elapsed().as_secs_f64() * 1e6;
        self.longest = self.longest.max(micros);
        for beat in std::mem::take(&mut self.hands.beats) {
            self.push(beat);
        }
        micros
    }

    /// Ticks for so long; the microseconds of the turns in all.
    fn live(&mut self, ms: u64) -> f64 {
        let mut micros = 0.0;
        for _ in 0..ms / TICK_MS {
            self.mono = self.mono.plus(TICK_MS);
            micros += self.turn(true);
        }
        micros
    }

    fn push(&mut self, beat: Vec<u8>) {
        self.work.board.push((Offset(self.board_end), beat));
        self.board_end += 1;
    }

    fn hear(&mut self, fleet: &Fleet, number: u64, tells: Tells) -> Result<()> {
        for other in 1..fleet.nodes.len() {
            self.push(fleet.beat(other, number, tells)?);
        }
        self.turn(false);
        Ok(())
    }

    /// The owner of a share from which nothing was sold.
    fn owner(&self, fleet: &Fleet, share: ShareId) -> Result<Owner> {
        let (me, address) = (fleet.nodes[0], Fleet::address(0)?);
        let incarnation: Incarnation = Fleet::incarnation(0);
        let candidate = Candidate::new(self.conductor.pool(), share, me, address, incarnation);
        let refused = || Error::Refused("a claim was not accepted".to_owned());
        let mut candidate = candidate.ok_or_else(refused)?;
        let claim = candidate.claim(START);
        let (_, progress) = candidate.read(Offset(0), &claim);
        let now = Now { wall: START.plus(self.mono.0), mono: self.mono };
        (progress == Progress::Owns).then(|| candidate.into_owner(now)).ok_or_else(refused)
    }
}

/// Hands that keep what goes to the board, and count.
#[derive(Debug, Default)]
struct Still {
    beats: Vec<Vec<u8>>,
    contended: usize,
}

impl Hands for Still {
    fn append(&mut self, _: ShareId, _: Mark, _: &[u8]) -> std::result::Result<(), NotTaken> {
        Ok(())
    }

    fn append_to_board(&mut self, _: u64, beat: &[u8]) -> std::result::Result<(), NotTaken> {
        self.beats.push(beat.to_vec());
        Ok(())
    }

    fn answer(&mut self, _: Caller, _: Outcome) -> Option<(Onward, Outcome)> {
        None
    }

    fn pass_on(&mut self, _: ShareId, _: Command, _: Onward) {}

    fn send(&mut self, _: Address, _: ShareId, _: Command, _: Onward) {}

    fn draw(&mut self, _: ShareId, _: RunId, _: ClassId, _: u32) {}

    fn read_back(&mut self, _: ShareId, _: Offset) {}

    fn reread_pool(&mut self) {}

    fn reread_board(&mut self) {}

    fn contend(&mut self, _: Contender) -> std::result::Result<(), NotTaken> {
        self.contended += 1;
        Ok(())
    }

    fn tell(&mut self, _: ShareId, _: Option<(Standing, Now)>) {}

    fn founded(&mut self, _: Digest128) {}

    fn note(&mut self, _: Note<'_>) {}
}
