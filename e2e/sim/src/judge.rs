//! What must hold, judged from what is in the log and what people were told.
//!
//! It decodes with `inventory::wire` and takes the blocks of a definition from
//! `inventory::definition`; whose frames count, who has which seat on which leg, and what is
//! free at which offset it works out anew, slowly and simply.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use inventory::board::{Beat, Board};
use inventory::claim::Reason;
use inventory::definition::Definition;
use inventory::entry::{Assign, End, Entry, Held, Policy, PoolEntry, Sent};
use inventory::legs::Journey;
use inventory::owner::{Answer, OrderView, Status};
use inventory::state::Refusal;
use inventory::stock::BlockId;
use inventory::wire::Frame;
use inventory::words::{
    Attempt, ClassId, Epoch, Incarnation, KeyHash, NodeId, OrderId, RunId, Seq, ShareId,
};

use crate::process::DRIFT_PPM;

/// A hold must not end for so long after a take-over or a slow delivery: 15 s, of which a clock
/// that runs fast makes a little less.
const GRACE_MS: u64 = 15_000 - 2 * 15_000 * DRIFT_PPM / 1_000_000;
/// A delivery is slow from here on: 2 s, by a clock that runs slowly.
const SLOW_MS: u64 = 2_000 + 2 * 2_000 * DRIFT_PPM / 1_000_000;
/// "Sold out" may rest on what was true this long before it was asked: 500 ms, by a clock that
/// runs slowly.
const PROOF_MS: u64 = 500 + 2 * 500 * DRIFT_PPM / 1_000_000;
/// And on what the log said so long before it was asked: 1.5 s, by a clock that runs slowly.
const STALE_MS: u64 = 1_500 + 2 * 1_500 * DRIFT_PPM / 1_000_000;
/// Silence that allows a claim: 10 s, by a clock that runs fast.
const SILENCE_MS: u64 = 10_000 - 2 * 10_000 * DRIFT_PPM / 1_000_000;
/// What lay on the board so long before a claim was heard by whoever decided it: what a node
/// knows of the board is at most 500 ms old when it claims, and it heard its own beat of 1 s
/// before that at most.
const HEARD_MS: u64 = 1_500 + 2 * 1_500 * DRIFT_PPM / 1_000_000;
/// A Yield leaves the share to the node that it names for so long.
const YIELD_MS: u64 = 500 - 2 * 500 * DRIFT_PPM / 1_000_000;

/// Something that must never happen, and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// When, in milliseconds of the run.
    pub at: u64,
    /// Which invariant, in a word or two.
    pub rule: &'static str,
    /// What happened.
    pub what: String,
}

type SeatId = (RunId, u16);

/// Where an order is, on one share.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Held { seats: Vec<u16>, deadline: u64 },
    Paid { seats: Vec<u16> },
    Ended { seats: Vec<u16>, why: End },
    Sent { to: ShareId, attempt: Attempt },
    Placed { to: ShareId, attempt: Attempt },
    Returned,
    Closed,
}

#[derive(Debug, Clone)]
struct OrderJ {
    attempt: Attempt,
    key: KeyHash,
    run: RunId,
    legs: u128,
    /// Where it was, and from when on.
    was: Vec<(u64, At)>,
}

impl OrderJ {
    fn at(&self) -> &At {
        &self.was[self.was.len() - 1].1
    }
}

/// A seat's occupied legs changed.
#[derive(Debug, Clone, Copy)]
struct Change {
    offset: u64,
    seat: SeatId,
    /// None: it was not here before.
    before: Option<u128>,
}

#[derive(Debug, Default)]
struct ShareJ {
    epoch: u32,
    writer: Option<Incarnation>,
    node: Option<NodeId>,
    next: u32,
    time: u64,
    /// The latest time in a frame that its owner has handed over.
    said: u64,
    /// To whom it was given up, and when.
    yielded: Option<(u64, Option<NodeId>)>,
    claimed_at: u64,
    /// Where partition 0 ended when its Claim was written.
    pool_end: u64,
    /// Processes that have begun to read partition 0 anew since, and when.
    reads_anew: BTreeMap<Incarnation, u64>,
    /// When slow deliveries came since.
    slow: Vec<u64>,
    length: u64,
    /// When a record that was accepted came, and the length with it.
    grew: Vec<(u64, u64)>,
    last_take: Option<u64>,
    /// Occupied legs of each seat that is here.
    seats: BTreeMap<SeatId, u128>,
    changes: Vec<Change>,
    orders: BTreeMap<OrderId, OrderJ>,
    refused: BTreeSet<(OrderId, Attempt)>,
    /// Offsets at which blocks were accepted.
    accepted: BTreeMap<BlockId, u64>,
    /// Beats of its owners: when they lay on the board, epoch, confirmed offset, node.
    beats: Vec<(u64, u32, u64, NodeId)>,
    /// Where on the board each epoch was first told of.
    told: BTreeMap<u32, u64>,
}

#[derive(Debug, Default)]
struct PoolJ {
    length: u64,
    definitions: Vec<(u64, Definition)>,
    assigns: Vec<Assign>,
    policy: Option<Policy>,
    /// Every block: the offset that brought it, and who has it.
    blocks: BTreeMap<BlockId, (u64, Option<ShareId>)>,
    takes: BTreeMap<u64, (ShareId, Vec<BlockId>)>,
}

/// What is known of a node's reading of partition 0, as its beats told: when, how far.
type Reading = Vec<(u64, u64)>;

/// The judge of one run.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    pool: PoolJ,
    shares: BTreeMap<ShareId, ShareJ>,
    /// The class and the whole journey of every seat.
    classes: BTreeMap<SeatId, (ClassId, u128)>,
    claimants: BTreeMap<(ShareId, u32), Incarnation>,
    /// The latest time of day that each process has seen.
    wall: BTreeMap<Incarnation, u64>,
    /// When a process took a turn at which time of day, and what it had read of partition 0: a
    /// frame bears the time of its first entry.
    turns: BTreeMap<(Incarnation, u64), (u64, u64)>,
    /// When and why which process decided to claim a share after which epoch.
    decided: BTreeMap<(ShareId, u32, Incarnation), (u64, Reason)>,
    /// Claims that lie behind a beat of the owner before, said after they were decided.
    pub(crate) overtaken: usize,
    readings: BTreeMap<NodeId, Reading>,
    /// The number of each process's last beat on the board.
    heard: BTreeMap<Incarnation, u64>,
    cancels: BTreeSet<OrderId>,
    pub(crate) violations: Vec<Violation>,
    /// What happened, if it is wanted.
    pub(crate) told: Vec<String>,
}

fn mask(journey: Journey) -> u128 {
    (u128::from(journey.from())..u128::from(journey.to())).fold(0, |mask, leg| mask | 1 << leg)
}

impl Judge {
    fn blame(&mut self, at: u64, rule: &'static str, what: String) {
        // One is enough to end a run; a few more show what followed.
        if self.violations.len() < 8 {
            self.violations.push(Violation { at, rule, what });
        }
    }

    fn definition(&self) -> Option<&Definition> {
        self.pool.definitions.last().map(|(_, d)| d)
    }

    // The log.

    /// A record became part of the log.
    pub(crate) fn record(&mut self, now: u64, partition: u16, offset: u64, bytes: &[u8]) {
        let Ok(frame) = Frame::read(bytes) else {
            self.blame(now, "every record is a frame", format!("{partition}@{offset}"));
            return;
        };
        if partition == 0 {
            self.pool_record(now, offset, &frame);
        } else {
            self.share_record(now, ShareId(partition), offset, &frame);
        }
    }

    fn pool_record(&mut self, now: u64, offset: u64, frame: &Frame<'_>) {
        self.pool.length = offset + 1;
        let Ok(entries) = frame.pool_entries() else {
            self.blame(now, "every pool record can be read", format!("0@{offset}"));
            return;
        };
        for entry in entries {
            match entry {
                PoolEntry::Genesis(genesis) => {
                    if self.pool.definitions.is_empty() {
                        self.found(offset, genesis.definition);
                    }
                }
                PoolEntry::Amend { version, definition } => {
                    if version == self.pool.definitions.len() as u64 + 1 {
                        self.enter(offset, *definition);
                    }
                }
                PoolEntry::Take(take) => {
                    let mut got = Vec::new();
                    for id in take.blocks {
                        if let Some((_, holder @ None)) = self.pool.blocks.get_mut(&id) {
                            *holder = Some(take.share);
                            got.push(id);
                        }
                    }
                    self.pool.takes.insert(offset, (take.share, got));
                }
                PoolEntry::Assign(assign) => {
                    let version = self.pool.assigns.last().map_or(0, |a| a.version);
                    if assign.version == version + 1 {
                        self.pool.assigns.push(assign);
                    }
                }
                PoolEntry::Policy(policy) => {
                    let version = self.pool.policy.as_ref().map_or(0, |p| p.version);
                    if policy.version == version + 1 {
                        self.pool.policy = Some(policy);
                    }
                }
            }
        }
    }

    fn found(&mut self, offset: u64, definition: Definition) {
        for share in (1..=definition.shares).map(ShareId) {
            self.shares.insert(share, ShareJ::default());
        }
        let split: Vec<_> =
            definition.run_ids().flat_map(|run| definition.initial_split(run)).collect();
        self.enter(offset, definition);
        for (share, block) in split {
            if share == ShareId::POOL {
                continue;
            }
            self.pool.blocks.insert(block.id, (offset, Some(share)));
            if let Some(of) = self.shares.get_mut(&share) {
                of.accepted.insert(block.id, 0);
                of.seats.extend(block.seats.map(|seat| ((block.id.run, seat), 0)));
            }
        }
    }

    fn enter(&mut self, offset: u64, definition: Definition) {
        for run in definition.run_ids() {
            for block in definition.blocks(run) {
                self.pool.blocks.entry(block.id).or_insert((offset, None));
                let whole = (1_u128 << (block.stops - 1)) - 1;
                for seat in block.seats {
                    self.classes.insert((run, seat), (block.class, whole));
                }
            }
        }
        self.pool.definitions.push((offset, definition));
    }

    fn share_record(&mut self, now: u64, share: ShareId, offset: u64, frame: &Frame<'_>) {
        let header = &frame.header;
        let Some(of) = self.shares.get_mut(&share) else { return };
        of.length = offset + 1;
        let admitted = if header.seq == Seq(0) {
            frame.opens_with_claim() && header.epoch.0 == of.epoch + 1
        } else {
            of.writer == Some(header.incarnation)
                && header.epoch.0 == of.epoch
                && header.seq.0 == of.next
        };
        if !admitted {
            return;
        }
        of.grew.push((now, of.length));
        let back = header.seq != Seq(0) && header.now.0 < of.time;
        of.time = header.now.0.max(of.time);
        of.next = header.seq.0 + 1;
        if back {
            self.blame(now, "time never goes back", format!("{share}@{offset}"));
        }
        let Ok(entries) = frame.entries() else {
            self.blame(now, "every frame can be read", format!("{share}@{offset}"));
            return;
        };
        for entry in entries {
            self.told.push(format!(
                "{now:>6} log {share}@{offset} epoch {} {}",
                header.epoch,
                brief(&entry)
            ));
            if let Err(why) = self.entry(now, share, offset, header.incarnation, &entry) {
                let what = format!("{share}@{offset}: {why}: {}", brief(&entry));
                self.blame(now, rule(&why), what);
            }
        }
    }

    fn entry(
        &mut self,
        now: u64,
        share: ShareId,
        offset: u64,
        incarnation: Incarnation,
        entry: &Entry,
    ) -> Result<(), String> {
        let of = self.shares.get_mut(&share).ok_or("no such share")?;
        match entry {
            Entry::Claim { node, .. } => {
                let decided = self.decided.get(&(share, of.epoch, incarnation));
                let overtook = |at: u64| {
                    of.beats.iter().any(|(beat, epoch, ..)| *epoch == of.epoch && *beat > at)
                };
                let over = |why: Reason| matches!(why, Reason::Silent | Reason::Evicted);
                if decided.is_some_and(|(at, why)| over(*why) && overtook(*at)) {
                    self.overtaken += 1;
                }
                of.epoch += 1;
                of.writer = Some(incarnation);
                of.node = Some(*node);
                of.yielded = None;
                of.claimed_at = now;
                of.slow.clear();
                of.pool_end = self.pool.length;
                of.reads_anew.clear();
                self.claimants.insert((share, of.epoch), incarnation);
                Ok(())
            }
            Entry::Yield { to } => {
                of.writer = None;
                of.yielded = Some((now, *to));
                Ok(())
            }
            Entry::Accept { take, blocks } => {
                let given = self.pool.takes.get(&take.0).filter(|(to, _)| *to == share);
                let (_, given) = given.ok_or("the pool gave nothing there")?;
                let ids: Vec<BlockId> = blocks.iter().map(|b| b.id).collect();
                if *given != ids {
                    return Err("the pool gave other blocks".into());
                }
                if of.last_take.is_some_and(|last| last >= take.0) {
                    return Err("it was accepted before".into());
                }
                of.last_take = Some(take.0);
                for block in blocks {
                    of.accepted.insert(block.id, offset);
                    for seat in block.seats.clone() {
                        let seat = (block.id.run, seat);
                        if of.seats.insert(seat, 0).is_some() {
                            return Err(format!("seat {seat:?} was here before"));
                        }
                        of.changes.push(Change { offset, seat, before: None });
                    }
                }
                self.in_one_place(
                    share,
                    blocks.iter().flat_map(|b| b.seats.clone().map(|seat| (b.id.run, seat))),
                )
            }
            Entry::Held(held) => self.held(now, share, offset, held),
            Entry::Paid { order, .. } => {
                let order = of.orders.get_mut(order).ok_or("no such order")?;
                match order.at().clone() {
                    At::Held { seats, .. } => order.was.push((now, At::Paid { seats })),
                    // Home notes that an order elsewhere is paid.
                    At::Placed { .. } => {}
                    other => return Err(format!("it is {other:?}")),
                }
                Ok(())
            }
            Entry::Refunded { order, .. } => {
                of.orders.contains_key(order).then_some(()).ok_or("no such order".into())
            }
            Entry::Ended { order, why } => self.ended(now, share, offset, *order, *why),
            _ => self.travelled(now, share, entry),
        }
    }

    /// Whether no other share has any of these seats.
    fn in_one_place(
        &self,
        share: ShareId,
        mut seats: impl Iterator<Item = SeatId>,
    ) -> Result<(), String> {
        let others = || self.shares.iter().filter(|(other, _)| **other != share);
        let twice = seats.find(|seat| others().any(|(_, of)| of.seats.contains_key(seat)));
        twice.map_or(Ok(()), |seat| Err(format!("seat {seat:?} is on another share too")))
    }

    fn held(&mut self, now: u64, share: ShareId, offset: u64, held: &Held) -> Result<(), String> {
        let (id, request) = (held.order, &held.request);
        if id.home == share {
            let live = self.shares.values().flat_map(|of| of.orders.iter());
            let twin = live.filter(|(_, o)| o.key == request.key && lives(o.at()));
            let twin = twin.map(|(other, _)| *other).find(|other| *other != id);
            if let Some(twin) = twin {
                return Err(format!("its key has the live order {twin} already"));
            }
        } else {
            let home = self.shares.get(&id.home).and_then(|home| home.orders.get(&id));
            let home = home.ok_or("its home knows nothing of it")?;
            let sent = |at: &At| matches!(at, At::Sent { to, attempt } if *to == share && *attempt == held.attempt);
            if !home.was.iter().any(|(_, at)| sent(at)) {
                return Err("its home never sent it here by this try".into());
            }
            if !sent(home.at()) {
                return Err("its home holds that try to be over".into());
            }
        }
        let elsewhere = self.shares.iter().filter(|(other, _)| **other != share);
        let seated = |at: &At| matches!(at, At::Held { .. } | At::Paid { .. });
        let mut elsewhere = elsewhere.filter_map(|(_, of)| of.orders.get(&id));
        if elsewhere.any(|o| seated(o.at())) {
            return Err("it has seats on another share".into());
        }
        let of = self.shares.get_mut(&share).ok_or("no such share")?;
        if of.refused.contains(&(id, held.attempt)) {
            return Err("the try was refused".into());
        }
        if of.orders.get(&id).is_some_and(|o| *o.at() != At::Returned) {
            return Err("the order is there already".into());
        }
        let legs = mask(request.journey);
        let seats: Vec<u16> = held.seats.to_vec();
        if seats.len() != request.passengers.len() {
            return Err("seats and passengers differ".into());
        }
        for seat in &seats {
            let seat = (request.run, *seat);
            if self.classes.get(&seat).map(|(class, _)| *class) != Some(request.class) {
                return Err(format!("seat {seat:?} is of another class"));
            }
            let taken = of.seats.get_mut(&seat).ok_or(format!("seat {seat:?} is not here"))?;
            if *taken & legs != 0 {
                return Err(format!("seat {seat:?} is sold twice"));
            }
            of.changes.push(Change { offset, seat, before: Some(*taken) });
            *taken |= legs;
        }
        let at = At::Held { seats, deadline: held.deadline.0 };
        let order = of.orders.entry(id).or_insert_with(|| OrderJ {
            attempt: held.attempt,
            key: request.key,
            run: request.run,
            legs,
            was: Vec::new(),
        });
        order.attempt = held.attempt;
        order.was.push((now, at));
        Ok(())
    }

    fn ended(
        &mut self,
        now: u64,
        share: ShareId,
        offset: u64,
        id: OrderId,
        why: End,
    ) -> Result<(), String> {
        let asked = self.cancels.contains(&id);
        let of = self.shares.get_mut(&share).ok_or("no such share")?;
        let order = of.orders.get_mut(&id).ok_or("no such order")?;
        // Whether it was time was judged when it was said.
        let seats = match (order.at().clone(), why) {
            (At::Held { seats, .. }, End::Expired) => seats,
            (At::Held { seats, .. }, End::Cancelled) | (At::Paid { seats }, End::Refunded) => {
                if !asked {
                    return Err("its buyer never asked for that".into());
                }
                seats
            }
            (other, _) => return Err(format!("it is {other:?}")),
        };
        for seat in &seats {
            let seat = (order.run, *seat);
            if let Some(taken) = of.seats.get_mut(&seat) {
                of.changes.push(Change { offset, seat, before: Some(*taken) });
                *taken &= !order.legs;
            }
        }
        order.was.push((now, At::Ended { seats, why }));
        Ok(())
    }

    fn travelled(&mut self, now: u64, share: ShareId, entry: &Entry) -> Result<(), String> {
        let there = |judge: &Self, to: ShareId, id: OrderId, attempt: Attempt| {
            let order = judge.shares.get(&to).and_then(|of| of.orders.get(&id)).cloned();
            order.filter(|o| o.attempt == attempt)
        };
        let here = |id: &OrderId| {
            self.shares.get(&share).and_then(|of| of.orders.get(id)).map(|o| o.at().clone())
        };
        let (id, at) = match entry {
            Entry::Sent(sent) => {
                let before = here(&sent.order);
                if before.is_some_and(|at| at != At::Returned) {
                    return Err("the order is somewhere already".into());
                }
                let of = self.shares.get_mut(&share).ok_or("no such share")?;
                of.orders.entry(sent.order).or_insert_with(|| OrderJ {
                    attempt: Attempt(0),
                    key: sent.request.key,
                    run: sent.request.run,
                    legs: mask(sent.request.journey),
                    was: Vec::new(),
                });
                (sent.order, At::Sent { to: sent.to, attempt: sent.attempt })
            }
            Entry::Placed { order, attempt, seats, .. } => {
                let Some(At::Sent { to, attempt: sent }) = here(order) else {
                    return Err("it is not on its way".into());
                };
                let there = there(self, to, *order, *attempt).ok_or("it never came there")?;
                let had =
                    |at: &At| matches!(at, At::Held { seats: had, .. } if *had == seats.to_vec());
                if sent != *attempt || !there.was.iter().any(|(_, at)| had(at)) {
                    return Err("it never had these seats there".into());
                }
                (*order, At::Placed { to, attempt: *attempt })
            }
            Entry::Returned { order, attempt } => {
                let Some(At::Sent { to, attempt: sent }) = here(order) else {
                    return Err("it is not on its way".into());
                };
                if sent != *attempt || there(self, to, *order, *attempt).is_some() {
                    return Err("it came there by this try".into());
                }
                (*order, At::Returned)
            }
            Entry::Closed { order, attempt, .. } => {
                let Some(At::Placed { to, attempt: placed }) = here(order) else {
                    return Err("it does not live elsewhere".into());
                };
                let there = there(self, to, *order, *attempt).ok_or("it never came there")?;
                if placed != *attempt || lives(there.at()) {
                    return Err("it lives there still".into());
                }
                (*order, At::Closed)
            }
            Entry::Refused { order, attempt } => {
                let of = self.shares.get_mut(&share).ok_or("no such share")?;
                if of.orders.contains_key(order) {
                    return Err("it is here".into());
                }
                of.refused.insert((*order, *attempt));
                return Ok(());
            }
            _ => return Err("it is none of these".into()),
        };
        let of = self.shares.get_mut(&share).ok_or("no such share")?;
        let order = of.orders.get_mut(&id).ok_or("no such order")?;
        order.was.push((now, at));
        Ok(())
    }

    // What processes do.

    /// A process holds itself to be the owner of a share.
    pub(crate) fn owns(&mut self, now: u64, share: ShareId, epoch: Epoch, who: Incarnation) {
        if self.claimants.get(&(share, epoch.0)) != Some(&who) {
            let what = format!("share {share}, epoch {epoch}");
            self.blame(now, "an owner has an accepted claim", what);
        }
    }

    /// A node decided to claim a share for a reason. Only that of the present epoch is judged:
    /// another will be void.
    pub(crate) fn claims(
        &mut self,
        now: u64,
        (share, after): (ShareId, Epoch),
        (by, who): (NodeId, Incarnation),
        reason: Reason,
        alive: bool,
    ) {
        self.decided.insert((share, after.0, who), (now, reason));
        let Some(of) = self.shares.get(&share).filter(|of| of.epoch == after.0) else { return };
        let named = |a: &Assign| a.nodes.get(&share) == Some(&by);
        let evicted = |a: &Assign| named(a) && a.evict.get(&share) == Some(&after);
        let speaks = match reason {
            Reason::Assigned => of.epoch == 0 && self.pool.assigns.iter().any(named),
            Reason::Yielded => of.yielded.is_some_and(|(at, to)| {
                let late = to.is_none() || now >= at + YIELD_MS;
                to == Some(by) || late && self.pool.assigns.iter().any(named)
            }),
            Reason::OwnAgain => of.writer == Some(who),
            // Its former process must have ended: else there were two of one name.
            Reason::OwnBefore => of.node == Some(by) && !alive,
            Reason::Evicted => self.pool.assigns.iter().any(evicted),
            Reason::Unplanned | Reason::Silent => {
                let (from, to) = (now.saturating_sub(SILENCE_MS), now.saturating_sub(HEARD_MS));
                let lately = |(at, epoch, ..): &(u64, u32, u64, NodeId)| {
                    *epoch == of.epoch && (from..=to).contains(at)
                };
                !of.beats.iter().any(lately)
            }
        };
        if !speaks {
            let last = of.beats.iter().rev().find(|(_, epoch, ..)| *epoch == of.epoch);
            let what = format!(
                "{by} claims share {share} over epoch {after}: {reason:?}; last beat {last:?}"
            );
            self.blame(now, "no claim over a live owner", what);
        }
    }

    /// Who owns a share.
    pub(crate) fn writer(&self, share: ShareId) -> Option<Incarnation> {
        self.shares.get(&share).and_then(|of| of.writer)
    }

    /// A process takes a turn, and sees this time of day.
    pub(crate) fn turns(&mut self, now: u64, who: Incarnation, wall: u64, read: u64) {
        let latest = self.wall.entry(who).or_default();
        *latest = wall.max(*latest);
        self.turns.entry((who, wall)).or_insert((now, read));
    }

    /// The owner of a share says something in it, and has read so much of partition 0. What is
    /// said by one who owns it no more is void.
    pub(crate) fn appends(
        &mut self,
        now: u64,
        share: ShareId,
        who: Incarnation,
        read: u64,
        bytes: &[u8],
    ) {
        let Ok(frame) = Frame::read(bytes) else { return };
        let entries = frame.entries().unwrap_or_default();
        let Some(of) = self.shares.get(&share).filter(|of| of.writer == Some(who)) else { return };
        // None if it bears the time of a frame before it, since the clock was behind that: when it
        // was begun is not to be told then.
        let time = frame.header.now.0;
        let later = time > of.said.max(of.time);
        let turn = self.turns.get(&(who, time)).copied().filter(|_| later);
        let opened = turn.map(|(at, _)| at);
        let off_sale = turn.and_then(|(_, from)| self.off_sale(from, read, &entries));
        let sells = |e: &Entry| match e {
            Entry::Held(_) | Entry::Sent(_) | Entry::Accept { .. } => true,
            Entry::Ended { .. } | Entry::Refunded { .. } | Entry::Refused { .. } => true,
            Entry::Paid { order, .. } => {
                of.orders.get(order).is_some_and(|o| matches!(o.at(), At::Held { .. }))
            }
            // A share may be given up, and word of orders elsewhere noted, before that.
            _ => false,
        };
        // What was decided before partition 0 was begun anew may be handed over behind that.
        let before =
            of.reads_anew.get(&who).is_some_and(|at| opened.is_none_or(|opened| opened <= *at));
        let blind = read < of.pool_end && !before && entries.iter().any(sells);
        let read = blind.then(|| format!("share {share}: {read} of {} read", of.pool_end));
        let early: Vec<String> =
            entries.iter().filter_map(|e| self.too_early(now, opened, of, who, e)).collect();
        if let Some(of) = self.shares.get_mut(&share) {
            of.said = time.max(of.said);
        }
        if let Some(what) = read {
            self.blame(now, "an owner has read partition 0", what);
        }
        if let Some(what) = off_sale {
            self.blame(now, "a withdrawn run is not sold", what);
        }
        for what in early {
            self.blame(now, "no expiry within the grace", what);
        }
    }

    /// What of this sells a run that was off sale by every definition that its owner can have
    /// gone by: it had read `from` of partition 0 before it decided, and `upto` afterwards.
    fn off_sale(&self, from: u64, upto: u64, entries: &[Entry]) -> Option<String> {
        let definitions = &self.pool.definitions;
        let first = definitions.partition_point(|(at, _)| *at < from).checked_sub(1)?;
        let known: Vec<_> =
            definitions[first..].iter().take_while(|(at, _)| *at < upto.max(from)).collect();
        let run = entries.iter().find_map(|entry| match entry {
            Entry::Held(Held { request, .. }) | Entry::Sent(Sent { request, .. }) => {
                Some(request.run)
                    .filter(|run| known.iter().all(|(_, definition)| definition.is_withdrawn(*run)))
            }
            _ => None,
        });
        run.map(|run| format!("run {run}, by the Amend at {}", definitions[first].0))
    }

    /// Why a hold may not end yet. Its owner decides when the frame is begun or later, by its own
    /// clock, and knows of the deliveries that had come by then.
    fn too_early(
        &self,
        now: u64,
        opened: Option<u64>,
        of: &ShareJ,
        who: Incarnation,
        entry: &Entry,
    ) -> Option<String> {
        let Entry::Ended { order, why: End::Expired } = entry else { return None };
        let At::Held { deadline, .. } = of.orders.get(order)?.at() else { return None };
        let grace = self.pool.policy.as_ref().map_or(0, |p| u64::from(p.limits.grace_ms));
        if self.wall.get(&who).is_none_or(|wall| *wall <= deadline + grace) {
            return Some(format!("{order} before its deadline {deadline} and the grace"));
        }
        if now < of.claimed_at + GRACE_MS {
            return Some(format!("{order} {} ms after the claim", now - of.claimed_at));
        }
        let slow = of
            .slow
            .iter()
            .find(|at| opened.is_some_and(|opened| **at <= opened) && now < **at + GRACE_MS);
        slow.map(|at| format!("{order} {} ms after a slow delivery", now - at))
    }

    /// A frame that was appended at `since` came back as delivered; `took` is what its process
    /// saw of that time.
    pub(crate) fn delivered(
        &mut self,
        now: u64,
        share: ShareId,
        who: Incarnation,
        since: u64,
        took: u64,
    ) {
        let Some(of) = self.shares.get_mut(&share) else { return };
        if of.writer == Some(who) && since >= of.claimed_at && took >= SLOW_MS {
            of.slow.push(now);
        }
    }

    /// A process says a beat.
    pub(crate) fn says(&mut self, now: u64, bytes: &[u8]) {
        let Ok(beat) = Beat::decode(bytes) else {
            self.blame(now, "every beat can be read", String::new());
            return;
        };
        for row in &beat.rows {
            let Some(said) = beat.shares.iter().find(|s| s.share == row.share) else { continue };
            let Some(of) = self.shares.get(&row.share) else { continue };
            let mut free: BTreeMap<(u8, u8), u32> = BTreeMap::new();
            let seats = self.seats_at(of, row.run, row.class, said.confirmed.0 + 1);
            for (seat, taken) in seats {
                let whole = self.classes.get(&seat).map_or(0, |(_, whole)| *whole);
                for stretch in stretches(whole & !taken) {
                    *free.entry(stretch).or_default() += 1;
                }
            }
            // The digest has no list of what it holds; every journey asked tells the same.
            for from in 0..8_u8 {
                for to in from + 1..9 {
                    let fits = |((a, b), n): (&(u8, u8), &u32)| {
                        if *a <= from && *b >= to { *n } else { 0 }
                    };
                    let expected: u32 = free.iter().map(fits).sum();
                    let Some(journey) = Journey::new(from, to) else { continue };
                    if row.digest.seats(journey) != expected {
                        let what = format!(
                            "share {} run {} class {} at {}: {from} to {to} is said to have {}, \
                             and has {expected}",
                            row.share,
                            row.run,
                            row.class,
                            said.confirmed,
                            row.digest.seats(journey)
                        );
                        self.blame(now, "a digest equals the fold at its offset", what);
                        return;
                    }
                }
            }
        }
    }

    /// A beat lies on the board.
    pub(crate) fn beat(&mut self, now: u64, at: u64, bytes: &[u8]) {
        let Ok(beat) = Beat::decode(bytes) else { return };
        // One that was overtaken by a later one of its process may lie on the board, after a
        // producer was replaced; readers keep the later one, and so does this.
        let number = self.heard.entry(beat.incarnation).or_default();
        if *number >= beat.number {
            return;
        }
        *number = beat.number;
        self.readings.entry(beat.node).or_default().push((now, beat.pool.0));
        for said in &beat.shares {
            if let Some(of) = self.shares.get_mut(&said.share) {
                of.beats.push((now, said.epoch.0, said.confirmed.0, beat.node));
                of.told.entry(said.epoch.0).or_insert(at);
            }
        }
    }

    /// A process believes what it heard of the board, in that range of offsets: of each share the
    /// highest epoch, and nothing older.
    pub(crate) fn believes(&mut self, now: u64, board: &Board, heard: Range<u64>) {
        for (share, of) in &self.shares {
            let Some(seen) = board.share(*share) else { continue };
            let mut later = of.told.range(seen.epoch.0 + 1..);
            if let Some((epoch, at)) = later.find(|(_, at)| heard.contains(at)) {
                let what = format!(
                    "share {share}: epoch {} is believed, and {epoch} was told at {at}",
                    seen.epoch
                );
                self.blame(now, "the highest epoch is believed", what);
                return;
            }
        }
    }

    /// A node reads partition 0 anew: what it had read does not count.
    pub(crate) fn reads_anew(&mut self, now: u64, node: NodeId, who: Incarnation) {
        self.readings.remove(&node);
        for of in self.shares.values_mut() {
            of.reads_anew.insert(who, now);
        }
    }

    /// Occupied legs of the seats that a share had before `offset`.
    fn seats_at(
        &self,
        of: &ShareJ,
        run: RunId,
        class: ClassId,
        offset: u64,
    ) -> BTreeMap<SeatId, u128> {
        let mine = |seat: &SeatId| {
            seat.0 == run && self.classes.get(seat).is_some_and(|(c, _)| *c == class)
        };
        let mut seats: BTreeMap<SeatId, u128> =
            of.seats.iter().filter(|(seat, _)| mine(seat)).map(|(s, t)| (*s, *t)).collect();
        let later = of.changes.iter().rev().take_while(|change| change.offset >= offset);
        for change in later.filter(|change| mine(&change.seat)) {
            match change.before {
                Some(taken) => seats.insert(change.seat, taken),
                None => seats.remove(&change.seat),
            };
        }
        seats
    }

    // What people are told.

    /// A buyer is about to ask for an order to be cancelled or returned.
    pub(crate) fn will_cancel(&mut self, order: OrderId) {
        self.cancels.insert(order);
    }

    /// A buyer who pressed at `since` hears of an order.
    pub(crate) fn hears_order(&mut self, now: u64, since: u64, view: &OrderView) {
        let known = self.shares.values().filter_map(|of| of.orders.get(&view.order));
        let mut was = known.flat_map(|order| {
            let ends = order.was.iter().skip(1).map(|(at, _)| *at).chain([u64::MAX]);
            order.was.iter().zip(ends).map(|((from, at), to)| (*from, to, at))
        });
        let seats = view.seats.to_vec();
        let said = |at: &At| match (view.status, at) {
            (Status::Held(deadline), At::Held { seats: had, deadline: until }) => {
                *had == seats && *until == deadline.0
            }
            (Status::Paid, At::Paid { seats: had }) => *had == seats,
            (Status::Ended(why), At::Ended { seats: had, why: because }) => {
                *had == seats && *because == why
            }
            (Status::Seeking, At::Returned) | (Status::Sent, At::Sent { .. }) => true,
            _ => false,
        };
        if !was.any(|(from, to, at)| from <= now && to >= since && said(at)) {
            let what =
                format!("order {} {:?} seats {seats:?}, asked at {since}", view.order, view.status);
            self.blame(now, "what a buyer hears is in the log", what);
        }
        if let Some((share, at)) = view.position {
            let within = self.shares.get(&share).is_some_and(|of| at.0 < of.length);
            if !within {
                let what = format!("order {} at {share}@{at}", view.order);
                self.blame(now, "a position is in the log", what);
            }
        }
    }

    /// A buyer who pressed at `since` hears that there are not `party` seats.
    pub(crate) fn hears_none(
        &mut self,
        now: u64,
        since: u64,
        (run, class, journey): (RunId, ClassId, Journey),
        most: u32,
    ) {
        let from = since.saturating_sub(PROOF_MS);
        let legs = mask(journey);
        // What the owners behind the proof had read of partition 0 at least.
        let mut known = 0;
        let mut least: BTreeMap<ShareId, u64> = BTreeMap::new();
        for (share, of) in &self.shares {
            let last = of.beats.iter().rev().find(|(at, ..)| *at <= from);
            let Some((_, _, confirmed, node)) = last else { continue };
            least.insert(*share, confirmed + 1);
            let reading = self.readings.get(node).into_iter().flatten().rev();
            let read = reading.filter(|(at, _)| *at <= from).map(|(_, pool)| *pool).next();
            if of.seats.keys().any(|(of_run, _)| *of_run == run) {
                known = known.max(read.unwrap_or(0));
            }
        }
        let mut free = Vec::new();
        for (id, (entered, holder)) in &self.pool.blocks {
            if id.run != run || *entered >= known || !self.is_of_class(*id, class) {
                continue;
            }
            let accepted = holder.and_then(|to| self.shares.get(&to)?.accepted.get(id).copied());
            match (holder, accepted) {
                (Some(share), Some(at)) => {
                    let least = least.entry(*share).or_default();
                    *least = (*least).max(at);
                }
                _ => free.push(format!("block {}/{} is in nobody's hands", id.run, id.index)),
            }
        }
        for (share, of) in &self.shares {
            // What was in the log long enough before is known, whatever a beat said of it.
            let long_ago = since.saturating_sub(STALE_MS);
            let old = of.grew.iter().rev().find(|(at, _)| *at <= long_ago);
            let first = least.get(share).copied().unwrap_or(0);
            let first = first.max(old.map_or(0, |(_, length)| *length));
            let ends = of.changes.iter().map(|c| c.offset + 1).filter(|end| *end > first);
            let mut prefixes: BTreeSet<u64> = ends.collect();
            prefixes.insert(first);
            let fits = |end: &u64| {
                let seats = self.seats_at(of, run, class, *end);
                seats.values().filter(|taken| **taken & legs == 0).count() as u32
            };
            if !prefixes.iter().rev().any(|end| fits(end) <= most) {
                free.push(format!("share {share} had {} seats all the time", fits(&first)));
            }
        }
        if !free.is_empty() {
            let what = format!(
                "run {run} class {class} {} to {}, at most {most} said: {}",
                journey.from(),
                journey.to(),
                free.join(", ")
            );
            self.blame(now, "sold out is proven", what);
        }
    }

    fn is_of_class(&self, id: BlockId, class: ClassId) -> bool {
        let block = self.definition().and_then(|d| d.blocks(id.run).nth(id.index.into()));
        block.is_some_and(|block| block.class == class)
    }

    /// A buyer hears an answer that no buyer may hear.
    pub(crate) fn hears_nonsense(&mut self, now: u64, answer: &Answer) {
        let nonsense = matches!(
            answer,
            Answer::Refused(
                Refusal::KeyReused
                    | Refusal::No
                    | Refusal::Frozen
                    | Refusal::WrongAmount(_)
                    | Refusal::PartyTooLarge(_)
            )
        );
        if nonsense {
            self.blame(now, "no buyer hears nonsense", format!("{answer:?}"));
        }
    }

    /// A buyer hears that a run is off sale.
    pub(crate) fn hears_withdrawn(&mut self, now: u64, run: RunId) {
        if !self.pool.definitions.iter().any(|(_, definition)| definition.is_withdrawn(run)) {
            self.blame(now, "off sale is what was withdrawn", format!("run {run}"));
        }
    }

    /// A buyer who was told of an order hears that there is none, or that it cannot be paid.
    pub(crate) fn hears_it_is_lost(&mut self, now: u64, order: OrderId, answer: &Answer) {
        let what = format!("order {order}: {answer:?}");
        self.blame(now, "a confirmed order is never lost", what);
    }

    /// Something did not come to an end in time.
    pub(crate) fn late(&mut self, now: u64, rule: &'static str, what: String) {
        self.blame(now, rule, what);
    }

    // At the end.

    /// Free stretches on sale, wherever they are: a seat and from where to where.
    pub(crate) fn free(&self) -> Vec<(RunId, ClassId, u8, u8)> {
        let mut free = Vec::new();
        for (seat, (class, whole)) in &self.classes {
            if self.definition().is_some_and(|d| d.is_withdrawn(seat.0)) {
                continue;
            }
            let taken = self.shares.values().find_map(|of| of.seats.get(seat)).unwrap_or(&0);
            let stretches = stretches(whole & !taken);
            free.extend(stretches.into_iter().map(|(from, to)| (seat.0, *class, from, to)));
        }
        free
    }

    /// Orders that hold seats without being paid, or are on their way.
    pub(crate) fn unsettled(&self) -> Vec<String> {
        let orders = self.shares.iter().flat_map(|(s, of)| of.orders.iter().map(move |o| (s, o)));
        let open = orders.filter(|(_, (_, o))| matches!(o.at(), At::Held { .. } | At::Sent { .. }));
        open.map(|(share, (id, o))| format!("{id} on {share} {:?}", o.at())).collect()
    }

    /// The last owner of each share: epoch and process, none if it was given up.
    pub(crate) fn owners(&self) -> BTreeMap<ShareId, (Epoch, Option<Incarnation>)> {
        self.shares.iter().map(|(s, of)| (*s, (Epoch(of.epoch), of.writer))).collect()
    }

    /// How many orders were held in all, and how many travelled.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let orders =
            || self.shares.iter().flat_map(|(s, of)| of.orders.keys().map(move |o| (s, o)));
        let travelled = orders().filter(|(share, id)| id.home != **share).count();
        (orders().count() - travelled, travelled)
    }
}

/// Whether an order stands in the way of another with its key.
fn lives(at: &At) -> bool {
    matches!(at, At::Held { .. } | At::Paid { .. } | At::Sent { .. } | At::Placed { .. })
}

fn stretches(free: u128) -> Vec<(u8, u8)> {
    let mut stretches = Vec::new();
    let mut from = None;
    for leg in 0..=127_u8 {
        match (free >> leg & 1 == 1, from) {
            (true, None) => from = Some(leg),
            (false, Some(start)) => {
                stretches.push((start, leg));
                from = None;
            }
            _ => {}
        }
        if free >> leg == 0 {
            break;
        }
    }
    stretches
}

/// Which invariant an entry breaks.
fn rule(why: &str) -> &'static str {
    match why {
        why if why.contains("sold twice") => "one live order per seat and leg",
        why if why.contains("its key") => "one live order per key",
        why if why.contains("on another share") => "everything is in one place",
        _ => "the log can be folded",
    }
}

fn brief(entry: &Entry) -> String {
    match entry {
        Entry::Claim { node, .. } => format!("Claim by {node}"),
        Entry::Accept { take, blocks } => {
            let ids: Vec<String> =
                blocks.iter().map(|b| format!("{}/{}", b.id.run, b.id.index)).collect();
            format!("Accept take {take} blocks {}", ids.join(" "))
        }
        Entry::Held(h) => format!(
            "Held {} try {} run {} class {} {}-{} seats {:?} until {}",
            h.order,
            h.attempt,
            h.request.run,
            h.request.class,
            h.request.journey.from(),
            h.request.journey.to(),
            h.seats.as_slice(),
            h.deadline.0
        ),
        Entry::Paid { order, .. } => format!("Paid {order}"),
        Entry::Refunded { order, .. } => format!("Refunded {order}"),
        Entry::Ended { order, why } => format!("Ended {order} {why:?}"),
        Entry::Sent(s) => format!("Sent {} try {} to {}", s.order, s.attempt, s.to),
        Entry::Placed { order, attempt, .. } => format!("Placed {order} try {attempt}"),
        Entry::Returned { order, attempt } => format!("Returned {order} try {attempt}"),
        Entry::Closed { order, why, .. } => format!("Closed {order} {why:?}"),
        Entry::Refused { order, attempt } => format!("Refused {order} try {attempt}"),
        Entry::Yield { to } => format!("Yield to {to:?}"),
    }
}
