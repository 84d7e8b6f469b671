//! The board: what owners tell of themselves, and what follows from having heard it.
//!
//! Beats are hearsay with a date. They decide three things, each in a function here: whether an
//! owner may answer from memory ([`Board::has_lease`]), who is silent ([`Board::share_silent_ms`]), and
//! whether "sold out" is proven ([`Board::search`]). Losing the board loses no order.

use std::collections::{BTreeMap, VecDeque};

use crate::codec::{Malformed, Reader, Writer};
use crate::digest::Digest;
use crate::legs::Journey;
use crate::pool::Pool;
use crate::teeth::{self, Bug};
use crate::wire::name;
use crate::words::{
    Address, ClassId, Digest128, Epoch, Incarnation, Millis, NodeId, Offset, RunId, ShareId,
};

/// How old one's own beat may be to vouch for what was read behind it. Far above a beat's
/// period of 200 ms plus a broker's worst usual delay, far below any take-over.
pub const LEASE_MS: u64 = 500;

/// How long an owner that waits for the log may still vouch for its digests. They are those of
/// its last confirmed frame: while a later one is on its way, seats that it frees can be in the
/// log for as long, and nobody says so. Together with the lease it bounds how long a seat of a
/// share may be free while somebody hears "sold out". A frame usually takes a few milliseconds.
pub const STALL_MS: u64 = 1_000;

/// How long the board must have been heard without a pause before it vouches for anything: a
/// full beat of every owner, and half as much again. Before that, a higher epoch may simply
/// not have been heard yet.
pub const SETTLED_MS: u64 = 1_500;

/// Own beats that are remembered: two seconds of the fastest beating (every 50 ms).
const ECHOES_MAX: usize = 40;

/// Version of a beat's bytes. Another version is ignored: the board carries no history.
const BEAT_VERSION: u32 = u32::from_le_bytes(*b"SMb2");

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::FromRepr)]
#[repr(u8)]
pub enum NodeState {
    /// It folds and does not sell yet.
    Starting = 1,
    /// It can own shares.
    Ready = 2,
    /// It is on its way out.
    Draining = 3,
}

/// How far an owner is with a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::FromRepr)]
#[repr(u8)]
pub enum ShareStage {
    /// It folds the share's log, or waits for partition 0.
    Recovering = 1,
    /// It sells.
    Selling = 2,
    /// A record that it cannot read froze the share.
    Frozen = 3,
    /// It sells, and the log has kept a frame of it waiting for more than [`STALL_MS`]: what was
    /// freed there may be in the log already, so that its digests prove nothing.
    Stalled = 4,
}

/// What an owner says of a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareBeat {
    /// Which share.
    pub share: ShareId,
    /// The epoch by which it owns the share.
    pub epoch: Epoch,
    /// The last offset that it has verified.
    pub confirmed: Offset,
    /// The last Take that it has accepted, confirmed.
    pub accepted_take: Option<Offset>,
    /// How far it is.
    pub stage: ShareStage,
}

/// What an owner says of the stock of one (share, run, class), at its confirmed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which share.
    pub share: ShareId,
    /// Which run.
    pub run: RunId,
    /// Which class.
    pub class: ClassId,
    /// What is free.
    pub digest: Digest,
    /// Seats that are held and not paid.
    pub held: u32,
    /// When the first of these holds ends.
    pub next_end: Option<Millis>,
}

/// One record on the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// Which ledger.
    pub ledger: Digest128,
    /// Who says it.
    pub node: NodeId,
    /// Where its peers reach it.
    pub address: Address,
    /// Its process.
    pub incarnation: Incarnation,
    /// Counts the beats of that process, from 1 on.
    pub number: u64,
    /// How far it is.
    pub state: NodeState,
    /// Whether `rows` holds every row, not only the changed ones.
    pub full: bool,
    /// The offset of the next pool record that it will fold.
    pub pool: Offset,
    /// The offset of the next board record that it will read.
    pub seen: Offset,
    /// Every share that it owns.
    pub shares: Vec<ShareBeat>,
    /// Shares of others that it has folded, and could sell from at once.
    pub folded: Vec<ShareId>,
    /// Rows of shares that it owns: all, or those that changed.
    pub rows: Vec<Row>,
}

impl Beat {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        let mut w = Writer(&mut bytes);
        w.u32(BEAT_VERSION).digest(self.ledger).text(self.node.as_str());
        w.text(self.address.as_str()).u64(self.incarnation.0).u64(self.number);
        w.u8(self.state as u8).u8(u8::from(self.full)).u64(self.pool.0).u64(self.seen.0);
        w.list(self.shares.iter(), |w, s| {
            w.u16(s.share.0).u32(s.epoch.0).u64(s.confirmed.0).u8(s.stage as u8);
            w.option(s.accepted_take.as_ref(), |w, t| {
                w.u64(t.0);
            });
        });
        w.list(self.folded.iter(), |w, share| {
            w.u16(share.0);
        });
        w.list(self.rows.iter(), |w, row| {
            w.u16(row.share.0).u16(row.run.0).u8(row.class.0).u32(row.held);
            w.option(row.next_end.as_ref(), |w, t| {
                w.millis(*t);
            });
            row.digest.put(w);
        });
        bytes
    }

    /// Reads a beat.
    ///
    /// # Errors
    /// [`Malformed`] if this is no beat of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes, "beat");
        let version = r.u32()?;
        if version != BEAT_VERSION {
            return Err(Malformed::Unknown { what: "beat", value: version });
        }
        let beat = Self {
            ledger: r.digest()?,
            node: name(r.text()?)?,
            address: name(r.text()?)?,
            incarnation: Incarnation(r.u64()?),
            number: r.u64()?,
            state: NodeState::from_repr(r.u8()?).ok_or(Malformed::Range("node state"))?,
            full: r.flag()?,
            pool: Offset(r.u64()?),
            seen: Offset(r.u64()?),
            shares: r.list(|r| {
                Ok(ShareBeat {
                    share: ShareId(r.u16()?),
                    epoch: Epoch(r.u32()?),
                    confirmed: Offset(r.u64()?),
                    stage: ShareStage::from_repr(r.u8()?).ok_or(Malformed::Range("stage"))?,
                    accepted_take: r.option(Reader::u64)?.map(Offset),
                })
            })?,
            folded: r.list(|r| Ok(ShareId(r.u16()?)))?,
            rows: r.list(|r| {
                Ok(Row {
                    share: ShareId(r.u16()?),
                    run: RunId(r.u16()?),
                    class: ClassId(r.u8()?),
                    held: r.u32()?,
                    next_end: r.option(Reader::millis)?,
                    digest: Digest::read(r)?,
                })
            })?,
        };
        r.end()?;
        Ok(beat)
    }
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSeen {
    /// Its process.
    pub incarnation: Incarnation,
    /// Where its peers reach it.
    pub address: Address,
    /// How far it is.
    pub state: NodeState,
    /// Shares of others that it has folded, and could sell from at once.
    pub folded: Vec<ShareId>,
    /// The number of its last beat.
    number: u64,
    /// When its last beat was read, on the reader's monotonic clock.
    heard: Millis,
    /// What it had read of the pool.
    pool: Offset,
    /// What it had read of the board.
    seen: Offset,
    /// Whether every beat since its last full one was read.
    complete: bool,
}

/// What is known of a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareSeen {
    /// Who owns it, as far as was heard.
    pub node: NodeId,
    /// Its process.
    pub incarnation: Incarnation,
    /// By which epoch.
    pub epoch: Epoch,
    /// Up to where that is confirmed.
    pub confirmed: Offset,
    /// The last Take that it has accepted.
    pub accepted_take: Option<Offset>,
    /// How far it is.
    pub stage: ShareStage,
}

#[derive(Debug, Clone)]
struct RowSeen {
    incarnation: Incarnation,
    epoch: Epoch,
    row: Row,
}

/// What to do for a wish that one's own memory cannot meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// That share has enough seats free.
    Travel(ShareId),
    /// Nobody has enough seats together; the largest group that fits, 0 for none at all.
    Proven {
        /// Since when, by one's own monotonic clock: a seat whose freeing was confirmed before it
        /// was sold again meanwhile.
        since: Millis,
        /// The largest group that some share can seat.
        largest: u32,
        /// Seats that are held and not paid, over all shares.
        held: u32,
        /// When the first of these holds ends.
        next_end: Option<Millis>,
    },
    /// Something is missing; the variant's text is a metric label.
    Unproven(&'static str),
}

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Sought<'a> {
    /// The run.
    pub run: RunId,
    /// The class.
    pub class: ClassId,
    /// From where to where.
    pub journey: Journey,
    /// How many seats together.
    pub party: u32,
    /// The share that looks; it travels to others only.
    pub home: ShareId,
    /// Shares that said no to this order, with what else one's own orders ask of each.
    pub tried: &'a [ShareId],
}

/// The board as one reader has heard it.
#[derive(Debug, Clone)]
pub struct Board {
    incarnation: Incarnation,
    ledger: Digest128,
    /// The offset of the next record to read.
    position: Offset,
    nodes: BTreeMap<NodeId, NodeSeen>,
    shares: BTreeMap<ShareId, ShareSeen>,
    /// The highest epoch of each share that was ever heard, also after it was given up: a
    /// former owner that beats on must not be believed again.
    epochs: BTreeMap<ShareId, Epoch>,
    rows: BTreeMap<(RunId, ClassId), BTreeMap<ShareId, RowSeen>>,
    /// Where the rows of an incarnation are, and where rows of it were before others took their
    /// place: a full beat says all of them anew, and is heard in time that grows with its own rows
    /// and not with those of the fleet.
    placed: BTreeMap<Incarnation, Vec<(RunId, ClassId, ShareId)>>,
    /// Own beats on their way: number, and when sent by one's own monotonic clock.
    sent: VecDeque<(u64, Millis)>,
    /// Own beats that came back: board offset, and when sent.
    echoes: VecDeque<(Offset, Millis)>,
    /// Since when own beats come back without a pause; silence is counted from here at most.
    listening: Option<Millis>,
    /// When a share was last listed by the owner that is believed.
    told: BTreeMap<ShareId, Millis>,
}

impl Board {
    /// A reader that has heard nothing.
    #[must_use]
    pub fn new(ledger: Digest128, incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            ledger,
            position: Offset(0),
            nodes: BTreeMap::new(),
            shares: BTreeMap::new(),
            epochs: BTreeMap::new(),
            rows: BTreeMap::new(),
            placed: BTreeMap::new(),
            sent: VecDeque::new(),
            echoes: VecDeque::new(),
            listening: None,
            told: BTreeMap::new(),
        }
    }

    /// Begins anew, as a reader that has heard nothing; own beats of before do not count.
    pub fn forget(&mut self) {
        *self = Self::new(self.ledger, self.incarnation);
    }

    /// So much time may have passed without this reader's knowing, while its machine slept: own
    /// beats are so much older, and vouch for less. The silence of others is not so much longer,
    /// since nobody was listening.
    pub fn slept(&mut self, ms: u64) {
        let own = self.sent.iter_mut().map(|(_, at)| at);
        for at in own.chain(self.echoes.iter_mut().map(|(_, at)| at)) {
            *at = Millis(at.0.saturating_sub(ms));
        }
    }

    /// Notes that an own beat goes out now. To be called before it is handed to the log.
    pub fn sent(&mut self, number: u64, mono: Millis) {
        if self.sent.len() == ECHOES_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((number, mono));
    }

    /// How many own beats have not come back, [`ECHOES_MAX`] at most.
    #[must_use]
    pub fn awaited(&self) -> usize {
        self.sent.len()
    }

    /// Reads the record at `at`.
    ///
    /// # Errors
    /// [`Malformed`]: the record is passed over, since the board carries no history.
    pub fn read(&mut self, mono: Millis, at: Offset, record: &[u8]) -> Result<(), Malformed> {
        self.position = Offset(at.0 + 1);
        let beat = Beat::decode(record)?;
        if beat.ledger != self.ledger {
            return Err(Malformed::Range("ledger"));
        }
        if beat.incarnation == self.incarnation {
            self.echo(mono, at, beat.number);
        }
        self.hear(mono, beat);
        Ok(())
    }

    fn echo(&mut self, mono: Millis, at: Offset, number: u64) {
        while let Some(&(sent, when)) = self.sent.front() {
            if sent > number {
                break;
            }
            self.sent.pop_front();
            if sent == number {
                if self.lapsed(mono) {
                    self.listening = Some(mono);
                }
                if self.echoes.len() == ECHOES_MAX {
                    self.echoes.pop_front();
                }
                self.echoes.push_back((at, when));
            }
        }
    }

    /// Whether own beats have stopped coming back.
    fn lapsed(&self, mono: Millis) -> bool {
        self.echoes.back().is_none_or(|(_, sent)| mono.since(*sent) > 2 * LEASE_MS)
    }

    fn hear(&mut self, mono: Millis, beat: Beat) {
        let before = self.nodes.get(&beat.node).filter(|n| n.incarnation == beat.incarnation);
        if before.is_some_and(|n| n.number >= beat.number) {
            return;
        }
        let next = before.is_some_and(|n| n.complete && n.number + 1 == beat.number);
        let complete = beat.full || next;
        let (epochs, node) = (epochs_of(&beat), beat.node);
        for share in &beat.shares {
            self.hear_share(mono, &beat, share);
        }
        // What its owner lists no more, it has given up: nothing is known of it from here on.
        self.shares
            .retain(|share, s| s.incarnation != beat.incarnation || epochs.contains_key(share));
        if beat.full || !complete {
            self.forget_rows(beat.incarnation);
        }
        let seen = NodeSeen {
            incarnation: beat.incarnation,
            address: beat.address,
            state: beat.state,
            folded: beat.folded,
            number: beat.number,
            heard: mono,
            pool: beat.pool,
            seen: beat.seen,
            complete,
        };
        self.nodes.insert(node, seen);
        if !complete {
            return;
        }
        let placed = self.placed.entry(beat.incarnation).or_default();
        for row in beat.rows {
            let Some(epoch) = epochs.get(&row.share) else { continue };
            let key = (row.run, row.class, row.share);
            let of_class = self.rows.entry((row.run, row.class)).or_default();
            // A former owner that still talks must not replace the rows of a later epoch.
            let newer = of_class.get(&row.share).is_none_or(|old| old.epoch <= *epoch);
            if newer || teeth::has(Bug::HighestWritten) {
                let (incarnation, epoch) = (beat.incarnation, *epoch);
                let old = of_class.insert(row.share, RowSeen { incarnation, epoch, row });
                if old.is_none_or(|old| old.incarnation != incarnation) {
                    placed.push(key);
                }
            }
        }
    }

    fn forget_rows(&mut self, of: Incarnation) {
        for (run, class, share) in self.placed.remove(&of).unwrap_or_default() {
            let Some(rows) = self.rows.get_mut(&(run, class)) else { continue };
            if rows.get(&share).is_some_and(|row| row.incarnation == of) {
                rows.remove(&share);
            }
        }
    }

    fn hear_share(&mut self, mono: Millis, beat: &Beat, share: &ShareBeat) {
        let highest = self.epochs.entry(share.share).or_insert(share.epoch);
        if share.epoch < *highest && !teeth::has(Bug::HighestWritten) {
            return;
        }
        *highest = share.epoch.max(*highest);
        let newer = |old: &ShareSeen| {
            (old.epoch, old.confirmed) <= (share.epoch, share.confirmed)
                || teeth::has(Bug::HighestWritten)
        };
        if self.shares.get(&share.share).is_none_or(newer) {
            let seen = ShareSeen {
                node: beat.node,
                incarnation: beat.incarnation,
                epoch: share.epoch,
                confirmed: share.confirmed,
                accepted_take: share.accepted_take,
                stage: share.stage,
            };
            self.shares.insert(share.share, seen);
            self.told.insert(share.share, mono);
        }
    }

    /// The highest epoch of a share that anyone was heard to own it by.
    #[must_use]
    pub fn highest(&self, share: ShareId) -> Option<Epoch> {
        self.epochs.get(&share).copied()
    }

    /// Whether an own beat that names `epoch` was read back, and no higher epoch: whoever owned
    /// the share before can know it by now.
    #[must_use]
    pub fn is_told(&self, share: ShareId, epoch: Epoch) -> bool {
        let seen = self.shares.get(&share);
        seen.is_some_and(|s| s.epoch == epoch && s.incarnation == self.incarnation)
    }

    /// Whether the board was heard without a pause for [`SETTLED_MS`].
    #[must_use]
    pub fn is_settled(&self, mono: Millis) -> bool {
        let since = self.listening.filter(|_| !self.lapsed(mono));
        since.is_some_and(|since| mono.since(since) >= SETTLED_MS)
    }

    /// Whether an owner by `epoch` may answer from memory: an own beat that names the epoch,
    /// sent at most [`LEASE_MS`] ago, was read back, no higher epoch before it, and the board
    /// was heard long enough that one could not have been missed.
    #[must_use]
    pub fn has_lease(&self, mono: Millis, share: ShareId, epoch: Epoch) -> bool {
        let vouching = self.echoes.back();
        self.is_told(share, epoch)
            && self.is_settled(mono)
            && vouching.is_some_and(|(_, sent)| mono.since(*sent) <= LEASE_MS)
    }

    /// How long ago the last own beat that came back was sent, in milliseconds; none before the
    /// first.
    #[must_use]
    pub fn since_echo(&self, mono: Millis) -> Option<u64> {
        self.echoes.back().map(|(_, sent)| mono.since(*sent))
    }

    /// Whether own beats come back: only then is another's silence worth anything.
    #[must_use]
    pub fn is_listening(&self, mono: Millis) -> bool {
        !self.lapsed(mono)
    }

    /// How long ago a node's last beat was read, in milliseconds, whether or not own beats come
    /// back.
    #[must_use]
    pub fn since_heard(&self, mono: Millis, node: NodeId) -> Option<u64> {
        self.nodes.get(&node).map(|n| mono.since(n.heard))
    }

    /// How long no owner has listed a share while own beats came back, in milliseconds; none
    /// while they do not. It is the share that must be silent, not a node: an owner may have
    /// given it up to one that died.
    #[must_use]
    pub fn share_silent_ms(&self, mono: Millis, share: ShareId) -> Option<u64> {
        let since = self.listening.filter(|_| !self.lapsed(mono))?;
        let told = self.told.get(&share).map_or(since, |at| (*at).max(since));
        Some(mono.since(told))
    }

    /// Nodes that spoke within `ms`, oneself included.
    pub fn live(&self, mono: Millis, ms: u64) -> impl Iterator<Item = (NodeId, &NodeSeen)> {
        let live = move |n: &NodeSeen| mono.since(n.heard) <= ms;
        self.nodes.iter().filter(move |(_, n)| live(n)).map(|(id, n)| (*id, n))
    }

    /// What is known of a node.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<&NodeSeen> {
        self.nodes.get(&node)
    }

    /// All nodes that ever spoke.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &NodeSeen)> {
        self.nodes.iter().map(|(id, n)| (*id, n))
    }

    /// What is known of a share.
    #[must_use]
    pub fn share(&self, share: ShareId) -> Option<&ShareSeen> {
        self.shares.get(&share)
    }

    /// The offset of the next record to read.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.position
    }

    /// When the own beat was sent that a share's owner had read before it wrote its last one, if
    /// that was at most [`LEASE_MS`] ago: rule N2. No clocks are compared.
    fn vouched_since(&self, mono: Millis, seen: &ShareSeen) -> Option<Millis> {
        let node = self.nodes.get(&seen.node)?;
        if node.incarnation != seen.incarnation || !node.complete {
            return None;
        }
        let had_read = if node.incarnation == self.incarnation { self.position } else { node.seen };
        let (_, sent) = self.echoes.iter().rev().find(|(at, _)| *at < had_read)?;
        (mono.since(*sent) <= LEASE_MS).then_some(*sent)
    }

    /// Looks for seats beyond one's own memory: names a share that has them, or proves that
    /// nobody has, by rules N1 to N4, and that no owner behind a row is stalled. `asked` tells what orders on their way ask of a share.
    /// The pool must have no block of the class left: the caller draws first.
    #[must_use]
    pub fn search(
        &self,
        mono: Millis,
        pool: &Pool,
        sought: &Sought<'_>,
        asked: impl Fn(ShareId) -> u32,
    ) -> Search {
        if pool.has_blocks(sought.run, sought.class) {
            return Search::Unproven("pool");
        }
        if !self.is_settled(mono) {
            return Search::Unproven("stale");
        }
        let rows = self.rows.get(&(sought.run, sought.class));
        let (mut largest, mut held, mut next_end) = (0, 0_u32, None);
        let mut since = mono;
        let mut best: Option<(u32, ShareId)> = None;
        let mut missing = None;
        for share in pool.sellers(sought.run, sought.class) {
            let (row, vouched) = match self.vouched_row(mono, pool, rows, share) {
                Ok(found) => found,
                Err(why) => {
                    missing = Some(why);
                    continue;
                }
            };
            since = since.min(vouched);
            let seats = row.digest.seats(sought.journey);
            let offered = seats.saturating_sub(asked(share));
            let open = share != sought.home && !sought.tried.contains(&share);
            if open && offered >= sought.party && best.is_none_or(|(most, _)| offered > most) {
                best = Some((offered, share));
            }
            largest = largest.max(seats);
            held = held.saturating_add(row.held);
            next_end = [next_end, row.next_end].into_iter().flatten().min();
        }
        match (best, missing) {
            (Some((_, share)), _) => Search::Travel(share),
            (None, Some(why)) if !teeth::has(Bug::SoldOutWithoutRow) => Search::Unproven(why),
            // Someone has seats, and they were asked for by another order or said no just now.
            (None, _) if largest >= sought.party => Search::Unproven("in-flight"),
            (None, _) => Search::Proven { since, largest, held, next_end },
        }
    }

    /// The row of a share, and since when it is vouched for, if rules N1 to N3 hold for it.
    fn vouched_row<'a>(
        &'a self,
        mono: Millis,
        pool: &Pool,
        rows: Option<&'a BTreeMap<ShareId, RowSeen>>,
        share: ShareId,
    ) -> Result<(&'a Row, Millis), &'static str> {
        let seen = self.shares.get(&share).ok_or("unowned")?;
        let row = rows.and_then(|r| r.get(&share)).ok_or("row")?;
        match seen.stage {
            ShareStage::Selling => {}
            ShareStage::Stalled => return Err("stalled"),
            ShareStage::Recovering | ShareStage::Frozen => return Err("recovering"),
        }
        if row.epoch != seen.epoch || row.incarnation != seen.incarnation {
            return Err("row");
        }
        let since = self.vouched_since(mono, seen).ok_or("stale")?;
        let node_pool = self.nodes.get(&seen.node).map(|n| n.pool).ok_or("stale")?;
        if pool.position() < node_pool {
            return Err("pool");
        }
        if pool.last_take(share) > seen.accepted_take && !teeth::has(Bug::SoldOutWithoutTake) {
            return Err("take");
        }
        Ok((&row.row, since))
    }

    /// Seats that are free on a journey, over all shares that were heard of, without a proof.
    /// The flag tells whether every share that sells the class was heard of, by an owner that
    /// sells and waits for nothing.
    #[must_use]
    pub fn count(&self, pool: &Pool, run: RunId, class: ClassId, journey: Journey) -> (u32, bool) {
        let rows = self.rows.get(&(run, class));
        let mut complete = true;
        let mut seats = pool.seats(run, class);
        for share in pool.sellers(run, class) {
            let row = rows.and_then(|r| r.get(&share));
            seats = seats.saturating_add(row.map_or(0, |r| r.row.digest.seats(journey)));
            let of_owner = |(row, owner): (&RowSeen, &ShareSeen)| {
                owner.stage == ShareStage::Selling
                    && (row.epoch, row.incarnation) == (owner.epoch, owner.incarnation)
            };
            complete &= row.zip(self.shares.get(&share)).is_some_and(of_owner);
        }
        (seats, complete)
    }

    /// Seats that are held and not paid, over all shares that were heard of, and when the first
    /// of these holds ends.
    #[must_use]
    pub fn held(&self, run: RunId, class: ClassId) -> (u32, Option<Millis>) {
        let rows = self.rows.get(&(run, class)).into_iter().flat_map(BTreeMap::values);
        rows.fold((0, None), |(held, first), seen| {
            let next = [first, seen.row.next_end].into_iter().flatten().min();
            (seen.row.held.saturating_add(held), next)
        })
    }
}

fn epochs_of(beat: &Beat) -> BTreeMap<ShareId, Epoch> {
    beat.shares.iter().map(|s| (s.share, s.epoch)).collect()
}
