//! A core's turn: take what has come, let the machines decide, hand on what they want.
//!
//! The only await is for work. A turn runs to its end without one: confirm, read, decide,
//! tick, seal. There is no choice here that a machine in `inventory` could make.

use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use inventory::board::{Beat, Board, LEASE_MS, NodeState, Row};
use inventory::claim::{SILENCE_MS, Standing, first_in_line, should_yield};
use inventory::owner::{
    Answer, Caller, Candidate, Fate, Input, Now, Output, Owner, Reply, Stopped, View,
};
use inventory::pool::{Pool, PoolVerdict};
use inventory::state::{Command, Refusal};
use inventory::words::{Millis, NodeId, Offset, Seq, ShareId};
use ledger::{Log, Partition, Record, Slip, Tail};
use tokio::sync::{mpsc, oneshot};

use crate::Ledgers;
use crate::candidates::Candidates;
use crate::courier::Lost;
use crate::desk::{Onward, Outcome};
use crate::draw::draw;
use crate::station::{Mail, Place, Role, Station};
use crate::telemetry::Word;

/// Timers are kept by this clock. Finer than any promise (holds end to the second, beats go
/// every 50 ms), coarse enough to cost nothing.
const TICK: Duration = Duration::from_millis(20);

/// At most this often when something changed: a query is at most this much older than the log.
const BEAT_NEWS_MS: u64 = 50;
/// At least this often: the lease must outlast two lost beats.
const BEAT_MS: u64 = 200;
/// Rows of one beat at most: some 100 bytes each with many stretches, so that a beat stays far
/// below a broker's record limit. A full beat of more rows goes on in the beats behind it.
const BEAT_ROWS_MAX: usize = 2_000;

/// Every row at least this often, so that a reader that missed a beat is whole again.
const BEAT_FULL_MS: u64 = 1_000;

/// Begin to fold a silent owner's share before it may be claimed.
const SILENCE_LEAD_MS: u64 = 2_000;

/// How long a drain waits for the plan to name successors before it names them itself.
const DRAIN_PLAN_MS: u64 = 1_500;

/// How long after a stop the share is left alone, so that two that stopped together do not
/// claim together; the jitter is up to as much again.
const COOLDOWN_MS: u64 = 50;

/// Postings to partition 0 whose fate somebody waits for: the operator sends one at a time.
const POSTINGS_MAX: usize = 1_024;

/// Slips of the pool's appends have this bit; those of shares carry share, epoch and seq.
const POOL_SLIP: u64 = 1 << 63;

/// What has come since the last turn.
struct Work {
    commands: Vec<(ShareId, Caller, Command)>,
    mail: Vec<Mail>,
    fates: Vec<(Slip, ledger::Fate)>,
    pool: Vec<Record>,
    board: Vec<Record>,
    read_back: Vec<(ShareId, Record)>,
    torn: Vec<Torn>,
    ticked: bool,
}

enum Torn {
    Pool(ledger::Torn),
    Board(ledger::Torn),
    Share(ShareId, ledger::Torn),
}

impl Work {
    fn new() -> Self {
        Self {
            commands: Vec::new(),
            mail: Vec::new(),
            fates: Vec::new(),
            pool: Vec::new(),
            board: Vec::new(),
            read_back: Vec::new(),
            torn: Vec::new(),
            ticked: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.commands.is_empty()
            && self.mail.is_empty()
            && self.fates.is_empty()
            && self.pool.is_empty()
            && self.board.is_empty()
            && self.read_back.is_empty()
            && self.torn.is_empty()
            && !self.ticked
    }
}

/// One core's worker.
pub(crate) struct Worker<S: Ledgers> {
    station: Rc<Station>,
    ledgers: S,
    log: S::Log,
    board_log: S::Board,
    pool_tail: <S::Log as Log>::Tail,
    board_tail: <S::Board as Log>::Tail,
    /// Where partition 0 ended when this process started: ready only after that.
    pool_end: Offset,
    inbox: mpsc::Receiver<Mail>,
    tick: tokio::time::Interval,
    work: Work,
    owners: BTreeMap<ShareId, Owner>,
    read_backs: BTreeMap<ShareId, <S::Log as Log>::Tail>,
    candidates: Candidates<S::Log>,
    /// Shares that an owner here lost just now: not before that time.
    cooldown: BTreeMap<ShareId, Millis>,
    postings: BTreeMap<u64, oneshot::Sender<ledger::Fate>>,
    slips: u64,
    beats: u64,
    beat_at: Millis,
    full_at: Millis,
    /// Something about this node changed that the next beat must tell at once, in full.
    beat_now: bool,
    draining: Option<Millis>,
    out: Vec<Output>,
}

impl<S: Ledgers> Worker<S> {
    pub(crate) async fn new(
        station: Rc<Station>,
        ledgers: S,
        inbox: mpsc::Receiver<Mail>,
    ) -> Result<Self, crate::Error> {
        let log = ledgers.log();
        let board_log = ledgers.board();
        let pool_end = Offset(log.end(Partition(0)).await?);
        let candidates = Candidates::new(station.mail.clone())?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Ok(Self {
            pool_tail: log.tail(Partition(0), 0),
            board_tail: board_log.tail_from_end(Partition(0)),
            station,
            ledgers,
            log,
            board_log,
            pool_end,
            inbox,
            tick,
            work: Work::new(),
            owners: BTreeMap::new(),
            read_backs: BTreeMap::new(),
            candidates,
            cooldown: BTreeMap::new(),
            postings: BTreeMap::new(),
            slips: 0,
            beats: 0,
            beat_at: Millis(0),
            full_at: Millis(0),
            beat_now: true,
            draining: None,
            out: Vec::new(),
        })
    }

    /// Works until the node is drained.
    pub(crate) async fn run(mut self) {
        loop {
            std::future::poll_fn(|cx| self.poll_work(cx)).await;
            let now = self.station.now();
            self.turn(now);
            if self.draining.is_some_and(|since| self.is_drained(now, since)) {
                return;
            }
        }
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let work = &mut self.work;
        self.station.desk.collect(cx, &mut work.commands);
        while let Poll::Ready(Some(mail)) = self.inbox.poll_recv(cx) {
            work.mail.push(mail);
        }
        while self.log.poll_fates(cx, &mut work.fates).is_ready() {}
        // Nobody waits for a beat's fate: it counts when it is read back.
        while self.board_log.poll_fates(cx, &mut Vec::new()).is_ready() {}
        while let Poll::Ready(result) = self.pool_tail.poll_records(cx, &mut work.pool) {
            if let Err(torn) = result {
                work.torn.push(Torn::Pool(torn));
                break;
            }
        }
        while let Poll::Ready(result) = self.board_tail.poll_records(cx, &mut work.board) {
            if let Err(torn) = result {
                work.torn.push(Torn::Board(torn));
                break;
            }
        }
        for (share, tail) in &mut self.read_backs {
            let mut records = Vec::new();
            if let Poll::Ready(Err(torn)) = tail.poll_records(cx, &mut records) {
                work.torn.push(Torn::Share(*share, torn));
            }
            work.read_back.extend(records.into_iter().map(|r| (*share, r)));
        }
        work.ticked |= pin!(&mut self.tick).poll_tick(cx).is_ready();
        if work.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Lets everything that has come happen, in the order in which it can matter.
    fn turn(&mut self, now: Now) {
        let mut work = std::mem::replace(&mut self.work, Work::new());
        let moved = !work.pool.is_empty() || !work.board.is_empty();
        self.read_pool(now, &mut work.pool);
        self.read_board(now, &mut work.board);
        for mail in work.mail.drain(..) {
            self.open_mail(now, mail);
        }
        for (slip, fate) in work.fates.drain(..) {
            self.confirm(now, slip, fate);
        }
        for (share, record) in work.read_back.drain(..) {
            self.handle(now, share, Input::Record(Offset(record.offset), &record.bytes));
        }
        for torn in work.torn.drain(..) {
            self.mend(torn);
        }
        for (share, caller, command) in work.commands.drain(..) {
            self.decide(now, share, caller, &command);
        }
        if moved {
            self.each(now, || Input::Moved);
        }
        if work.ticked {
            self.each(now, || Input::Tick);
        }
        if moved || work.ticked {
            self.stand(now);
            self.give_up(now);
        }
        self.seal(now);
        if work.ticked || moved {
            self.beat_if_due(now);
        }
        self.read_backs.retain(|share, _| self.owners.get(share).is_some_and(Owner::is_reading));
    }

    fn read_pool(&mut self, now: Now, records: &mut Vec<Record>) {
        if records.is_empty() {
            return;
        }
        let mut world = self.station.world.borrow_mut();
        world.ledger_heard = Some(now.mono);
        for record in records.drain(..) {
            match world.pool.fold(Offset(record.offset), &record.bytes) {
                PoolVerdict::Accepted(effects) => {
                    tracing::debug!(offset = record.offset, ?effects, "pool");
                }
                PoolVerdict::Void(why) => {
                    let kind = why.into();
                    self.station.metrics.void.get_or_create(&Word { kind }).inc();
                }
                PoolVerdict::Fault(why) => {
                    tracing::error!(offset = record.offset, why, "partition 0 cannot be read on");
                }
            }
        }
        if world.board.is_none()
            && let Some(ledger) = world.pool.ledger()
        {
            world.board = Some(Board::new(ledger, self.station.me.incarnation));
            drop(world);
            self.station.drawer.start(ledger);
        }
    }

    fn read_board(&mut self, now: Now, records: &mut Vec<Record>) {
        let mut world = self.station.world.borrow_mut();
        let heard = world.board.is_some() && !records.is_empty();
        if heard {
            world.board_heard = Some(now.mono);
        }
        let Some(board) = &mut world.board else {
            records.clear();
            return;
        };
        for record in records.drain(..) {
            if let Err(why) = board.read(now.mono, Offset(record.offset), &record.bytes) {
                tracing::debug!(offset = record.offset, %why, "a beat was passed over");
            }
        }
        let listening = match self.station.me.role {
            Role::Sell => board.is_listening(now.mono),
            Role::Query => true,
        };
        let folded = world.pool.position() >= self.pool_end && world.pool.frozen().is_none();
        if world.state == NodeState::Starting && listening && folded {
            world.state = NodeState::Ready;
            self.beat_now = true;
            tracing::info!("ready");
        }
    }

    fn open_mail(&mut self, now: Now, mail: Mail) {
        match mail {
            Mail::Owns(owner, pool_end) => {
                let (share, epoch) = (owner.share(), owner.epoch());
                tracing::info!(%share, %epoch, "owns a share");
                self.candidates.ended(share);
                self.owners.insert(share, *owner);
                self.handle(now, share, Input::PoolEnd(pool_end));
                self.beat_now = true;
                self.tell_owned();
            }
            Mail::Gone(share) => self.candidates.ended(share),
            Mail::Reply(home, order, attempt, reply) => {
                self.handle(now, home, Input::Reply(order, attempt, reply));
            }
            Mail::Relayed(home, order, caller, answer) => {
                self.relayed(now, home, order, caller, answer);
            }
            Mail::AppendToPool(record, waits) => self.append_to_pool(&record, waits),
            Mail::Drain => {
                self.draining.get_or_insert(now.mono);
                self.station.world.borrow_mut().state = NodeState::Draining;
                self.beat_now = true;
            }
        }
    }

    fn relayed(
        &mut self,
        now: Now,
        home: ShareId,
        order: inventory::words::OrderId,
        caller: Caller,
        answer: Answer,
    ) {
        if self.owners.contains_key(&home) {
            self.handle(now, home, Input::Relayed(caller, order, answer));
        } else {
            self.answer(now, caller, Outcome::Answered(answer));
        }
    }

    fn append_to_pool(&mut self, record: &[u8], waits: Option<oneshot::Sender<ledger::Fate>>) {
        self.slips += 1;
        let slip = POOL_SLIP | self.slips;
        let taken = self.log.append(Partition(0), Slip(slip), record);
        if let Err(refused) = taken {
            tracing::warn!(%refused, "the ledger took no pool record");
        } else if let Some(waits) = waits
            && self.postings.len() < POSTINGS_MAX
        {
            self.postings.insert(slip, waits);
        }
    }

    fn confirm(&mut self, now: Now, slip: Slip, fate: ledger::Fate) {
        if fate != ledger::Fate::Unknown {
            self.station.world.borrow_mut().ledger_heard = Some(now.mono);
        }
        if slip.0 & POOL_SLIP != 0 {
            if let Some(waits) = self.postings.remove(&slip.0) {
                // Whoever asked may have gone.
                let _ = waits.send(fate);
            }
            return;
        }
        let (share, epoch, seq) = unslip(slip);
        let same = self.owners.get(&share).is_some_and(|o| o.epoch().0 & 0x7fff == epoch);
        if same {
            let fate = match fate {
                ledger::Fate::At(at) => Fate::At(Offset(at)),
                ledger::Fate::Somewhere => Fate::Somewhere,
                ledger::Fate::Unknown => Fate::Unknown,
            };
            self.handle(now, share, Input::Delivered(seq, fate));
        }
    }

    /// A torn tail is read anew: the pool from its beginning, the board from its end.
    fn mend(&mut self, torn: Torn) {
        match torn {
            Torn::Pool(why) => {
                tracing::error!(%why, "partition 0 is read from its beginning again");
                let mut world = self.station.world.borrow_mut();
                world.pool = crate::empty_pool(&self.ledgers);
                self.pool_tail = self.log.tail(Partition(0), 0);
            }
            Torn::Board(why) => {
                tracing::warn!(%why, "the board is read from its end again");
                let mut world = self.station.world.borrow_mut();
                let fresh = |l| Board::new(l, self.station.me.incarnation);
                world.board = world.pool.ledger().map(fresh);
                self.board_tail = self.board_log.tail_from_end(Partition(0));
                self.beat_now = true;
            }
            Torn::Share(share, why) => {
                // Without what lies between, nothing can be confirmed: give the memory up.
                tracing::error!(%share, %why, "a share could not be read back");
                self.read_backs.remove(&share);
                if self.owners.remove(&share).is_some() {
                    self.tell_owned();
                }
            }
        }
    }

    fn decide(&mut self, now: Now, share: ShareId, caller: Caller, command: &Command) {
        if self.owners.contains_key(&share) {
            self.handle(now, share, Input::Command(caller, command));
        } else {
            self.answer(now, caller, Outcome::Rehomed);
        }
    }

    fn each<'a>(&mut self, now: Now, input: impl Fn() -> Input<'a>) {
        let shares: Vec<ShareId> = self.owners.keys().copied().collect();
        for share in shares {
            self.handle(now, share, input());
        }
    }

    /// Lets something happen to an owner, and does what it wants.
    fn handle(&mut self, now: Now, share: ShareId, input: Input<'_>) {
        let mut out = std::mem::take(&mut self.out);
        {
            let world = self.station.world.borrow();
            let Some(board) = &world.board else { return };
            let Some(owner) = self.owners.get_mut(&share) else { return };
            owner.handle(now, View { pool: &world.pool, board }, input, &mut out);
        }
        for output in out.drain(..) {
            self.perform(now, share, output);
        }
        // What performing caused went through a vector of its own; keep the larger one.
        if self.out.capacity() < out.capacity() {
            self.out = out;
        }
    }

    fn perform(&mut self, now: Now, share: ShareId, output: Output) {
        match output {
            Output::Answer(caller, answer) => self.answer(now, caller, Outcome::Answered(answer)),
            Output::Rehome(caller, _) => self.answer(now, caller, Outcome::Rehomed),
            Output::Draw { run, class, blocks } => {
                let station = Rc::clone(&self.station);
                tokio::task::spawn_local(draw(station, share, run, class, blocks));
            }
            Output::Travel { to, order, attempt, command } => {
                let onward = Onward::Travel { home: share, order, attempt };
                self.send(to, command, onward);
            }
            Output::Relay { caller, order, to, command } => {
                let onward = Onward::Relay { home: share, order, caller };
                self.send(to, command, onward);
            }
            Output::ReadBack { from, upto } => {
                tracing::info!(%share, %from, ?upto, "reading back");
                self.read_backs.insert(share, self.log.tail(Partition(share.0), from.0));
            }
            Output::Stop(why) => self.stopped(now, share, why),
        }
    }

    fn stopped(&mut self, now: Now, share: ShareId, why: Stopped) {
        if why == Stopped::Yielded {
            tracing::info!(%share, "gave a share up");
        } else {
            tracing::warn!(%share, %why, "an owner stopped");
        }
        self.station.metrics.stopped.get_or_create(&Word { kind: why.into() }).inc();
        self.owners.remove(&share);
        self.read_backs.remove(&share);
        let jitter = crate::draw::random() % COOLDOWN_MS;
        self.cooldown.insert(share, now.mono.plus(COOLDOWN_MS + jitter));
        self.beat_now = true;
        self.tell_owned();
    }

    fn answer(&mut self, now: Now, caller: Caller, outcome: Outcome) {
        let Some((onward, outcome)) = self.station.desk.answer(caller, outcome) else { return };
        match onward {
            Onward::Travel { home, order, attempt } => {
                let reply = match outcome {
                    Outcome::Answered(answer) => reply_of(answer),
                    Outcome::Rehomed => Reply::Unknown,
                };
                self.handle(now, home, Input::Reply(order, attempt, reply));
            }
            Onward::Relay { home, order, caller } => {
                let answer = match outcome {
                    Outcome::Answered(answer) => answer,
                    Outcome::Rehomed => Answer::Busy("moved"),
                };
                self.relayed(now, home, order, caller, answer);
            }
        }
    }

    /// Brings a command to the owner of another share, here or on another node, once.
    fn send(&mut self, to: ShareId, command: Command, onward: Onward) {
        let place = self.station.locate(to);
        if place == Place::Here && self.owners.contains_key(&to) {
            if self.station.desk.submit_for(to, command, onward).is_err() {
                tracing::warn!(share = %to, "the inbox is full; an order on its way asks again");
            }
            return;
        }
        let station = Rc::clone(&self.station);
        tokio::task::spawn_local(async move {
            let key = station.world.borrow().pool.key();
            let sent = match (place, key) {
                (Place::There(address), Some(key)) => {
                    station.metrics.forwarded.inc();
                    station.courier.send(address, &key, to, &command).await
                }
                _ => Err(Lost::NotSent),
            };
            station.post(match (onward, sent) {
                (Onward::Travel { home, order, attempt }, Ok(answer)) => {
                    Mail::Reply(home, order, attempt, reply_of(answer))
                }
                (Onward::Travel { home, order, attempt }, Err(_)) => {
                    Mail::Reply(home, order, attempt, Reply::Unknown)
                }
                (Onward::Relay { home, order, caller }, Ok(answer)) => {
                    Mail::Relayed(home, order, caller, answer)
                }
                (Onward::Relay { home, order, caller }, Err(Lost::NotSent)) => {
                    Mail::Relayed(home, order, caller, Answer::Busy("peer"))
                }
                (Onward::Relay { home, order, caller }, Err(Lost::Unknown)) => {
                    Mail::Relayed(home, order, caller, Answer::Unknown)
                }
            });
        });
    }

    /// Folds what this node may have to claim, and tells candidates how they stand.
    fn stand(&mut self, now: Now) {
        if self.station.me.role != Role::Sell {
            return;
        }
        let world = self.station.world.borrow();
        let Some(board) = world.board.as_ref().filter(|_| world.pool.position() >= self.pool_end)
        else {
            return;
        };
        let me = &self.station.me;
        for share in world.pool.shares() {
            if self.owners.contains_key(&share) {
                continue;
            }
            let ready = world.state == NodeState::Ready;
            let wanted = ready && is_of_interest(share, me.node, &world.pool, board, now.mono);
            let standing = wanted.then(|| {
                let view = (&world.pool, board);
                (Standing::of(share, me.node, me.incarnation, view, now.mono, None), now)
            });
            if self.candidates.contains(share) {
                self.candidates.tell(share, standing);
                continue;
            }
            let cool = self.cooldown.get(&share).is_none_or(|until| *until <= now.mono);
            let Some(standing) = standing.filter(|_| cool) else { continue };
            let new = Candidate::new(&world.pool, share, me.node, me.address, me.incarnation);
            if let Some(candidate) = new {
                self.candidates.start(candidate, self.ledgers.log(), standing);
            }
        }
        drop(world);
        self.station.world.borrow_mut().candidates = self.candidates.shares().collect();
    }

    /// Gives up shares that the plan names for another node, or all of them when draining.
    fn give_up(&mut self, now: Now) {
        let mut yields: Vec<(ShareId, Option<NodeId>)> = Vec::new();
        {
            let world = self.station.world.borrow();
            let Some(board) = &world.board else { return };
            let me = self.station.me.node;
            let late = self.draining.is_some_and(|at| now.mono.since(at) >= DRAIN_PLAN_MS);
            for share in self.owners.iter().filter(|(_, o)| !o.is_yielding()).map(|(s, _)| *s) {
                if let Some(to) = should_yield(share, me, &world.pool, board, now.mono) {
                    yields.push((share, Some(to)));
                } else if late {
                    yields.push((share, first_in_line(share, board, now.mono)));
                }
            }
        }
        for (share, to) in yields {
            tracing::info!(%share, ?to, "giving a share up");
            self.handle(now, share, Input::Yield(to));
        }
    }

    /// Hands the log every frame that its owner has ready.
    fn seal(&mut self, now: Now) {
        let mut refused = Vec::new();
        for (share, owner) in &mut self.owners {
            while let Some((seq, frame)) = owner.seal(now) {
                self.station.metrics.frames.inc();
                self.station.metrics.frame_bytes.inc_by(frame.len() as u64);
                let slip = slip(*share, owner.epoch().0, seq);
                if let Err(why) = self.log.append(Partition(share.0), slip, &frame) {
                    tracing::warn!(%share, %why, "the ledger took no frame");
                    refused.push((*share, seq));
                    break;
                }
            }
        }
        // Not written for certain; but the frames behind it would break the chain, so the owner
        // stops and folds as after an unknown fate.
        for (share, seq) in refused {
            self.handle(now, share, Input::Delivered(seq, Fate::Unknown));
        }
    }

    fn tell_owned(&self) {
        let mut world = self.station.world.borrow_mut();
        let Some(board) = world.board.take() else { return };
        let view = View { pool: &world.pool, board: &board };
        let stage = |o: &Owner| (o.epoch(), o.beat(view).stage);
        let owned = self.owners.iter().map(|(share, o)| (*share, stage(o))).collect();
        world.owned = owned;
        world.board = Some(board);
        self.station.metrics.shares.set(self.owners.len() as i64);
    }

    fn beat_if_due(&mut self, now: Now) {
        if self.station.me.role != Role::Sell {
            return;
        }
        let age = now.mono.since(self.beat_at);
        let news = self.beat_now || self.owners.values().any(Owner::has_news);
        if !self.beat_now && age < BEAT_MS && !(news && age >= BEAT_NEWS_MS) {
            return;
        }
        self.tell_owned();
        let full = self.beat_now || now.mono.since(self.full_at) >= BEAT_FULL_MS;
        let mut world = self.station.world.borrow_mut();
        let Some(mut board) = world.board.take() else { return };
        let view = View { pool: &world.pool, board: &board };
        let mut beat = Beat {
            ledger: world.pool.ledger().unwrap_or_default(),
            node: self.station.me.node,
            address: self.station.me.address,
            incarnation: self.station.me.incarnation,
            number: 0,
            state: world.state,
            full,
            pool: world.pool.position(),
            seen: board.position(),
            shares: self.owners.values().map(|o| o.beat(view)).collect(),
            rows: Vec::new(),
        };
        let mut rows: Vec<Row> = self.owners.values_mut().flat_map(|o| o.rows(full)).collect();
        self.beat_now = false;
        loop {
            let rest = rows.split_off(rows.len().min(BEAT_ROWS_MAX));
            self.beats += 1;
            beat.number = self.beats;
            beat.rows = rows;
            board.sent(self.beats, now.mono);
            self.station.metrics.beats.inc();
            let sent = self.board_log.append(Partition(0), Slip(self.beats), &beat.encode());
            // A beat that was not sent is a missed number: readers wait for the next full one.
            self.beat_now |= sent.is_err();
            if rest.is_empty() {
                break;
            }
            (rows, beat.full) = (rest, false);
        }
        world.board = Some(board);
        self.beat_at = now.mono;
        if full {
            self.full_at = now.mono;
        }
    }

    fn is_drained(&self, now: Now, since: Millis) -> bool {
        let age = now.mono.since(since);
        let empty = self.owners.is_empty() && self.candidates.shares().next().is_none();
        // Requests that look for the next owner are answered within the courier's patience.
        empty && age >= LEASE_MS && self.station.desk.waiting() == 0
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

fn slip(share: ShareId, epoch: u32, seq: Seq) -> Slip {
    Slip(u64::from(epoch & 0x7fff) << 48 | u64::from(share.0) << 32 | u64::from(seq.0))
}

fn unslip(slip: Slip) -> (ShareId, u32, Seq) {
    let share = ShareId((slip.0 >> 32 & 0xffff) as u16);
    (share, (slip.0 >> 48) as u32 & 0x7fff, Seq((slip.0 & 0xffff_ffff) as u32))
}
