//! One run: everything that happens in a scenario, in the order that its seed gives.
//!
//! A queue of events by time; no threads and no real time. The log, the network, Redis and the
//! clocks are simulated; what nodes and operators decide is decided by `inventory`.

use std::collections::{BTreeMap, BTreeSet};

use inventory::conductor::{self, Lost, Mail, Mark, Me, Onward, Place, Torn, last_word};
use inventory::contend::Step;
use inventory::dispatcher::{Dispatcher, Output, Report, Sign, Wish};
use inventory::draw::{self, Drawing, Told};
use inventory::entry::{Genesis, Policy, PoolEntry, SaleState};
use inventory::message::{decode_answer, decode_command, encode_answer, encode_command};
use inventory::owner::{Answer, Fate};
use inventory::plan::SharePlan;
use inventory::pool::{ledger_id, pool_record};
use inventory::state::Command;
use inventory::words::{Address, Incarnation, Millis, NodeId, Offset, Request, RunId, ShareId};

use crate::judge::{Judge, Violation};
use crate::process::{Act, Bring, DAWN, Notes, Process, Running, Slot, Tail};
use crate::redis::Redis;
use crate::rng::Rng;
use crate::scenario::{Fault, HEAL_AT, Kind, LEDGER, Purchase, Scenario, TOPIC, Then, amended};
use crate::shopper::{Next, Shopper, Stage};

/// Kafka's message timeout.
const MESSAGE_MS: u64 = 30_000;
/// How long a peer's answer is waited for, as the node's courier does.
const COURIER_MS: u64 = 3_500;
/// How long an unreachable peer is tried.
const CONNECT_MS: u64 = 500;
/// How long a request looks for its share's owner, and how often, as the node's HTTP layer does.
const SEARCH_MS: u64 = 2_500;
const SEARCH_STEP_MS: u64 = 25;
/// How long a buyer waits for an answer.
const BUYER_MS: u64 = 6_000;
/// How often operators look.
const PROBE_MS: u64 = 250;
/// How long an operator waits for a report.
const PROBE_TIMEOUT_MS: u64 = 500;

/// All that was wanted has to be settled so long after the faults: the longest hold and its
/// grace, the grace after a take-over, clocks that are apart, and a claim by silence.
const SETTLE_MS: u64 = 75_000;
/// What is free has to be sold so long after that, each time around.
const RESALE_MS: u64 = 20_000;
/// How often it is tried: buyers of the same round get in each other's way.
const RESALES_MAX: usize = 15;

type Pid = usize;

/// Whose appends keep their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    /// Frames and pool records of a process, by partition.
    Worker(Pid, u16),
    /// A process's beats.
    Board(Pid),
    /// A contender's claims.
    Contender(Pid, ShareId),
}

#[derive(Debug)]
struct Pending {
    mark: Option<Mark>,
    bytes: Vec<u8>,
    since: u64,
}

/// Which tail of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Which {
    Pool,
    Board,
    ReadBack(ShareId),
    Contender(ShareId),
}

/// Why a contender asks where a partition ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    Claim,
    Owning,
}

/// Who waits for a peer.
#[derive(Debug, Clone, Copy)]
enum Asks {
    Bring(u64),
    Owner(Onward),
}

#[derive(Debug)]
struct Call {
    from: Pid,
    to: Option<Pid>,
    bytes: Vec<u8>,
    asks: Asks,
    done: bool,
}

#[derive(Debug)]
struct Press {
    shopper: usize,
    stage: Stage,
    at: Option<Pid>,
    since: u64,
    done: bool,
}

/// A pod as operators see it.
#[derive(Debug)]
struct Pod {
    name: NodeId,
    pid: Pid,
    leaving: bool,
    gone: bool,
}

struct Operator {
    acts: bool,
    skew: u64,
    dispatcher: Dispatcher,
    versions: (u64, u64, u64),
    answered: Option<Pid>,
}

enum Event {
    Turn(Pid),
    Tick(Pid),
    Lane(Lane),
    LateCommit(u16, Vec<u8>),
    Fate(Pid, Mark, Fate, u64),
    Look(Pid, Which, u64),
    Contend(Pid, ShareId, u64),
    AskEnd(Pid, ShareId, u64, For),
    EndTold(Pid, ShareId, u64, For, u64),
    Bring(Pid, u64),
    Called(u64),
    Answered(u64, Answer),
    CallLost(u64, Lost),
    Redis(Pid, Drawing, draw::Step),
    RedisTold(Pid, Drawing, Told),
    Press(usize, Option<Pid>),
    Heard(u64, Option<Answer>),
    Probe(usize),
    Reported(usize, Pid, Box<Report>, Box<(SharePlan, Option<Policy>)>, (u64, u64, u64)),
    Missed(usize, NodeId, u64, bool),
    Decide(usize),
    Start(NodeId),
    Fault(usize),
    Amend(u64),
    Recreated,
    Settled,
    Resold(usize),
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What must not happen and did.
    pub violations: Vec<Violation>,
    /// A hash over everything that happened.
    pub trace: u64,
    /// Faults that were made.
    pub faults: usize,
    /// What happened, in lines.
    pub history: Vec<String>,
    /// Orders that were held, and those of them that travelled.
    pub orders: (usize, usize),
    /// What wishes came to.
    pub ends: BTreeMap<&'static str, usize>,
    /// When everything was settled and sold, in milliseconds of the run.
    pub ended_at: u64,
}

/// A run in the making.
pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    now: u64,
    rng: Rng,
    ids: u64,
    queue: BTreeMap<(u64, u64, u64), Event>,
    /// Partition 0, the shares', and last the board.
    log: Vec<Vec<Vec<u8>>>,
    down_until: Vec<u64>,
    slow_reads: BTreeMap<u16, u64>,
    slow_writes: BTreeMap<u16, u64>,
    gone_until: u64,
    unknown_until: u64,
    offsetless_until: u64,
    lanes: BTreeMap<Lane, Vec<Pending>>,
    processes: Vec<Process>,
    one_way: BTreeMap<(Pid, Pid), u64>,
    calls: BTreeMap<u64, Call>,
    presses: BTreeMap<u64, Press>,
    shoppers: Vec<Shopper>,
    redis: Redis,
    redis_before: Redis,
    redis_gone_until: u64,
    operators: Vec<Operator>,
    operator_gone_until: u64,
    two_until: u64,
    suspended_until: u64,
    pods: Vec<Pod>,
    named: usize,
    recreating: bool,
    amends: BTreeSet<u64>,
    judge: Judge,
    trace: u64,
    faults: usize,
    records: bool,
    over: bool,
    resales: usize,
}

impl<'a> World<'a> {
    /// Runs a scenario to its end, or to its first violation.
    pub(crate) fn run(scenario: &'a Scenario, records: bool) -> Outcome {
        let partitions = usize::from(scenario.definition.shares) + 2;
        let mut world = Self {
            scenario,
            now: 0,
            rng: Rng::new(scenario.seed, 5),
            ids: 0,
            queue: BTreeMap::new(),
            log: vec![Vec::new(); partitions],
            down_until: vec![0; partitions],
            slow_reads: BTreeMap::new(),
            slow_writes: BTreeMap::new(),
            gone_until: 0,
            unknown_until: 0,
            offsetless_until: 0,
            lanes: BTreeMap::new(),
            processes: Vec::new(),
            one_way: BTreeMap::new(),
            calls: BTreeMap::new(),
            presses: BTreeMap::new(),
            shoppers: Vec::new(),
            redis: Redis::default(),
            redis_before: Redis::default(),
            redis_gone_until: 0,
            operators: Vec::new(),
            operator_gone_until: 0,
            two_until: 0,
            suspended_until: 0,
            pods: Vec::new(),
            named: 0,
            recreating: false,
            amends: BTreeSet::new(),
            judge: Judge::default(),
            trace: 0xcbf2_9ce4_8422_2325,
            faults: 0,
            records,
            over: false,
            resales: 0,
        };
        world.begin();
        while !world.over && world.judge.violations.is_empty() {
            let Some(((at, _, _), event)) = world.queue.pop_first() else { break };
            world.now = at;
            world.happen(event);
            if !world.records {
                world.judge.told.clear();
            }
        }
        let mut ends = BTreeMap::new();
        for shopper in &world.shoppers {
            *ends.entry(shopper.end.unwrap_or("open")).or_default() += 1;
        }
        Outcome {
            orders: world.judge.counts(),
            violations: world.judge.violations,
            trace: world.trace,
            faults: world.faults,
            history: world.judge.told,
            ends,
            ended_at: world.now,
        }
    }

    // The scheduler.

    fn at(&mut self, time: u64, event: Event) {
        self.ids += 1;
        // Events of the same millisecond come in any order.
        let tie = self.rng.next() >> 32;
        self.queue.insert((time.max(self.now), tie, self.ids), event);
    }

    fn soon(&mut self, low: u64, high: u64, event: Event) {
        let time = self.now + self.rng.within(low, high);
        self.at(time, event);
    }

    fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    fn mix(&mut self, word: u64) {
        self.trace = (self.trace ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        if self.records {
            let line = line();
            self.judge.told.push(format!("{:>6} {line}", self.now));
        }
    }

    /// When a paused process goes on; none if it runs.
    fn pause(&self, pid: Pid) -> Option<u64> {
        let until = self.processes[pid].paused_until;
        (until > self.now).then_some(until)
    }

    fn begin(&mut self) {
        let definition = self.scenario.definition.clone();
        let genesis = |definition| {
            let genesis = Box::new(Genesis { topic_id: TOPIC, definition });
            pool_record(
                ledger_id(LEDGER, TOPIC),
                Incarnation(1),
                Millis(DAWN),
                &[PoolEntry::Genesis(genesis)],
            )
            .unwrap_or_else(|_| unreachable!("a small definition fits"))
        };
        self.commit(0, &genesis(definition.clone()));
        // Whoever founds may have been told nothing and do it again, later, and with another
        // definition at hand.
        let again = genesis(amended(&definition, self.scenario.seed));
        let late = self.rng.within(1, HEAL_AT);
        self.at(late, Event::LateCommit(0, again));
        for _ in 0..self.scenario.nodes {
            let name = self.new_name();
            self.soon(0, 300, Event::Start(name));
        }
        for skew in [0, 700] {
            let dispatcher = Dispatcher::new(definition.shares);
            let operator =
                Operator { acts: skew == 0, skew, dispatcher, versions: (0, 0, 0), answered: None };
            self.operators.push(operator);
            let at = self.operators.len() - 1;
            self.soon(100, 400, Event::Probe(at));
        }
        for at in 0..self.scenario.faults.len() {
            let time = self.scenario.faults[at].at;
            self.at(time, Event::Fault(at));
        }
        let (runs, classes) = self.offer();
        for at in 0..self.scenario.purchases.len() {
            let wish = self.scenario.purchases[at];
            self.shop(wish, runs, classes);
        }
        self.at(HEAL_AT + 5_000, Event::Settled);
    }

    fn offer(&self) -> (usize, usize) {
        let definition = &self.scenario.definition;
        (definition.runs.len(), definition.timetables[0].classes.len())
    }

    fn shop(&mut self, wish: Purchase, runs: usize, classes: usize) {
        self.shoppers.push(Shopper::new(wish, runs, classes));
        let at = self.shoppers.len() - 1;
        self.at(wish.at, Event::Press(at, None));
        if wish.twice {
            let again = wish.at + self.rng.within(0, 30);
            self.at(again, Event::Press(at, None));
        }
    }

    fn new_name(&mut self) -> NodeId {
        self.named += 1;
        let name = format!("node-{}", self.named);
        name.parse().unwrap_or_else(|_| unreachable!("a short name fits"))
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Turn(pid) => self.turn(pid),
            Event::Tick(pid) => self.tick(pid),
            Event::Lane(lane) => self.lane(lane),
            Event::LateCommit(partition, bytes) => {
                self.commit(partition, &bytes);
            }
            Event::Fate(pid, mark, fate, since) => self.fate(pid, mark, fate, since),
            Event::Look(pid, which, id) => self.look(pid, which, id),
            Event::Contend(pid, share, id) => self.contend(pid, share, id),
            Event::AskEnd(pid, share, id, why) => self.ask_end(pid, share, id, why),
            Event::EndTold(pid, share, id, why, end) => self.end_told(pid, share, id, why, end),
            Event::Bring(pid, id) => self.bring(pid, id),
            Event::Called(id) => self.called(id),
            Event::Answered(id, answer) => self.answered(id, &answer),
            Event::CallLost(id, lost) => self.call_over(id, Err(lost)),
            Event::Redis(pid, drawing, step) => self.ask_redis(pid, drawing, &step),
            Event::RedisTold(pid, drawing, told) => self.redis_told(pid, drawing, told),
            Event::Press(shopper, at) => self.press(shopper, at),
            Event::Heard(press, answer) => self.heard(press, answer.as_ref()),
            Event::Probe(operator) => self.probe(operator),
            Event::Reported(operator, pid, report, force, versions) => {
                self.reported(operator, pid, report, *force, versions);
            }
            Event::Missed(operator, node, asked, refused) => {
                let asked = self.operator_time(operator, asked);
                self.sign(operator, Sign::Unanswered { node, asked, refused });
            }
            Event::Decide(operator) => self.decide(operator),
            Event::Start(name) => self.start(name),
            Event::Fault(at) => self.fault(self.scenario.faults[at]),
            Event::Amend(twist) => self.amend(twist),
            Event::Recreated => self.recreated(),
            Event::Settled => self.settled(),
            Event::Resold(sold_before) => self.resold(sold_before),
        }
    }

    // Processes.

    fn start(&mut self, name: NodeId) {
        if self.recreating || self.pods.iter().any(|p| p.name == name && (p.gone || p.leaving)) {
            return;
        }
        let pid = self.processes.len();
        let address = format!("{name}:1").parse::<Address>();
        let me = Me {
            node: name,
            address: address.unwrap_or_else(|_| unreachable!("a short address fits")),
            incarnation: Incarnation(self.rng.next()),
            sells: true,
        };
        let skew = self.rng.within(0, 4_000) as i64 - 2_000;
        let ids = [self.id(), self.id()];
        let end = self.log[0].len() as u64;
        self.judge.clock(me.incarnation, skew);
        self.processes.push(Process::new(me, self.now, skew, end, ids));
        match self.pods.iter_mut().find(|p| p.name == name) {
            Some(pod) => pod.pid = pid,
            None => self.pods.push(Pod { name, pid, leaving: false, gone: false }),
        }
        self.say(|| format!("{name} starts as process {pid}"));
        self.schedule_look(pid, Which::Pool);
        self.schedule_look(pid, Which::Board);
        self.soon(1, 20, Event::Tick(pid));
    }

    fn end_process(&mut self, pid: Pid) {
        if !std::mem::replace(&mut self.processes[pid].alive, false) {
            return;
        }
        let name = self.processes[pid].name();
        self.say(|| format!("{name} (process {pid}) ends"));
        // What its sockets hold may still arrive.
        let lanes: Vec<Lane> = self.lanes.keys().copied().filter(|l| l.pid() == pid).collect();
        for lane in lanes {
            let pending = self.lanes.remove(&lane).unwrap_or_default();
            if self.rng.chance(50) {
                let mut time = self.now;
                for append in pending {
                    time += self.rng.within(0, 40);
                    self.at(time, Event::LateCommit(lane.partition(self.board()), append.bytes));
                }
            }
        }
        let open: Vec<u64> =
            self.presses.iter().filter(|(_, p)| p.at == Some(pid)).map(|(id, _)| *id).collect();
        for press in open {
            self.soon(1, 3, Event::Heard(press, None));
        }
        let process = &mut self.processes[pid];
        process.running.clear();
        process.read_backs.clear();
        process.brings.clear();
    }

    fn replace(&mut self, name: NodeId) {
        if let Some(pod) = self.pods.iter_mut().find(|p| p.name == name) {
            pod.gone = true;
        }
        if !self.recreating {
            let name = self.new_name();
            self.soon(500, 2_000, Event::Start(name));
        }
    }

    fn tick(&mut self, pid: Pid) {
        if !self.processes[pid].alive {
            return;
        }
        if let Some(until) = self.pause(pid) {
            let time = until + self.rng.within(0, 5);
            self.at(time, Event::Tick(pid));
            return;
        }
        self.processes[pid].work.ticked = true;
        self.wake(pid);
        self.soon(20, 50, Event::Tick(pid));
    }

    fn wake(&mut self, pid: Pid) {
        if !std::mem::replace(&mut self.processes[pid].woken, true) {
            self.soon(0, 2, Event::Turn(pid));
        }
    }

    fn turn(&mut self, pid: Pid) {
        if !self.processes[pid].alive {
            return;
        }
        if let Some(until) = self.pause(pid) {
            let time = until + self.rng.within(0, 5);
            self.at(time, Event::Turn(pid));
            return;
        }
        self.mix(self.now << 8 | pid as u64);
        let process = &mut self.processes[pid];
        process.woken = false;
        let now = process.clocks(self.now);
        let mut acts = Vec::new();
        process.work.commands.append(&mut process.desk.inbox);
        let refuses = process.refuses_until > self.now;
        let mut hands = Notes { acts: &mut acts, desk: &mut process.desk, refuses };
        process.conductor.turn(now, &mut process.work, &mut hands);
        let conductor = &process.conductor;
        process.read_backs.retain(|share, _| conductor.is_reading(*share));
        let again = !process.desk.inbox.is_empty();
        let drained = process.conductor.is_drained(now.mono, process.desk.slots.len());
        for act in acts {
            self.act(pid, act);
        }
        if again {
            self.wake(pid);
        }
        if drained {
            let name = self.processes[pid].name();
            self.end_process(pid);
            if let Some(pod) = self.pods.iter_mut().find(|p| p.name == name) {
                pod.gone = true;
            }
        }
    }

    fn act(&mut self, pid: Pid, act: Act) {
        match act {
            Act::Append(share, mark, bytes) => {
                let read = self.processes[pid].conductor.pool().position().0;
                self.judge.sells(self.now, share, self.processes[pid].me.incarnation, read, &bytes);
                self.append(Lane::Worker(pid, share.0), Some(mark), bytes);
            }
            Act::Beat(bytes) => {
                self.judge.says(self.now, &bytes);
                self.append(Lane::Board(pid), None, bytes);
            }
            Act::Told(slot, outcome) => self.told(pid, slot, outcome),
            Act::Send(address, share, command, onward) => {
                self.call(pid, address, share, &command, Asks::Owner(onward));
            }
            Act::Draw(drawing) => self.begin_draw(pid, drawing),
            Act::ReadBack(share, from) => {
                let tail = Tail { id: self.id(), next: Some(from.0), looks: false };
                self.say(|| format!("process {pid} reads share {share} back from {from}"));
                self.processes[pid].read_backs.insert(share, tail);
                self.schedule_look(pid, Which::ReadBack(share));
            }
            Act::RereadPool => {
                let Me { node, incarnation, .. } = self.processes[pid].me;
                self.judge.reads_anew(node, incarnation);
                let tail = Tail { id: self.id(), next: Some(0), looks: false };
                self.processes[pid].pool_tail = tail;
                self.schedule_look(pid, Which::Pool);
            }
            Act::RereadBoard => {
                let tail = Tail { id: self.id(), next: None, looks: false };
                self.processes[pid].board_tail = tail;
                self.schedule_look(pid, Which::Board);
            }
            Act::Contend(contender) => {
                let (id, share) = (self.id(), contender.share());
                let tail = Tail { id, next: Some(contender.reads_from().0), looks: false };
                let told = contender.prospect();
                let running = Running {
                    id,
                    contender,
                    tail,
                    records: Vec::new(),
                    told,
                    asking: false,
                    woken: false,
                };
                self.processes[pid].running.insert(share, running);
                self.schedule_look(pid, Which::Contender(share));
                self.wake_contender(pid, share, 3);
            }
            Act::Tell(share, told) => {
                if let Some(running) = self.processes[pid].running.get_mut(&share) {
                    running.told = told;
                }
            }
            Act::Owns(share, epoch) => {
                let who = self.processes[pid].me.incarnation;
                self.say(|| format!("process {pid} owns share {share} by epoch {epoch}"));
                self.judge.owns(self.now, share, epoch, who);
            }
            Act::Say(what) => self.say(|| format!("process {pid} {what}")),
        }
    }

    // The log.

    fn board(&self) -> u16 {
        u16::try_from(self.log.len() - 1).unwrap_or(u16::MAX)
    }

    fn append(&mut self, lane: Lane, mark: Option<Mark>, bytes: Vec<u8>) {
        let pending = Pending { mark, bytes, since: self.now };
        let queue = self.lanes.entry(lane).or_default();
        queue.push(pending);
        if queue.len() == 1 {
            self.lane_soon(lane, 1, 4);
        }
    }

    fn lane_soon(&mut self, lane: Lane, low: u64, high: u64) {
        let partition = lane.partition(self.board());
        let slow = self.slow_writes.get(&partition).is_some_and(|until| *until > self.now);
        let more = if slow { self.rng.within(50, 4_000) } else { 0 };
        self.soon(low + more, high + more, Event::Lane(lane));
    }

    /// When a process may reach a partition again; none if it can now.
    fn blocked(&self, pid: Pid, partition: u16) -> Option<u64> {
        let process = &self.processes[pid];
        let down = self.down_until[usize::from(partition)];
        let until = process.paused_until.max(process.cut_until).max(self.gone_until).max(down);
        (until > self.now).then_some(until)
    }

    /// The first append of a lane reaches its broker.
    fn lane(&mut self, lane: Lane) {
        let (pid, partition) = (lane.pid(), lane.partition(self.board()));
        let Some(since) = self.lanes.get(&lane).and_then(|l| l.first()).map(|p| p.since) else {
            return;
        };
        if let Some(until) = self.pause(pid) {
            let time = until + self.rng.within(0, 5);
            self.at(time, Event::Lane(lane));
            return;
        }
        let expired = self.now >= since + MESSAGE_MS;
        if let Some(until) = self.blocked(pid, partition).filter(|_| !expired) {
            let time = (until + self.rng.within(0, 60)).min(since + MESSAGE_MS);
            self.at(time, Event::Lane(lane));
            return;
        }
        let queue = self.lanes.get_mut(&lane);
        let Some(Pending { mark, bytes, since }) = queue.map(|q| q.remove(0)) else { return };
        let unknown = self.unknown_until > self.now && self.rng.chance(25);
        if expired || unknown {
            // Written, written later, or never: nobody will say.
            match self.rng.within(0, 3) {
                0 => {
                    self.commit(partition, &bytes);
                }
                1 => self.soon(1, 3_000, Event::LateCommit(partition, bytes)),
                _ => {}
            }
            if let Some(mark) = mark {
                self.soon(1, 300, Event::Fate(pid, mark, Fate::Unknown, since));
            }
        } else {
            let at = self.commit(partition, &bytes);
            if let Some(mark) = mark {
                let offsetless = self.offsetless_until > self.now && self.rng.chance(40);
                let fate = if offsetless { Fate::Somewhere } else { Fate::At(Offset(at)) };
                let slow = self.slow_writes.get(&partition).is_some_and(|u| *u > self.now);
                let most = if slow { 3_000 } else { 5 };
                self.soon(1, most, Event::Fate(pid, mark, fate, since));
            }
        }
        if self.lanes.get(&lane).is_some_and(|q| !q.is_empty()) {
            self.lane_soon(lane, 0, 3);
        } else {
            self.lanes.remove(&lane);
        }
    }

    /// A record becomes part of the log, and readers will find it.
    fn commit(&mut self, partition: u16, bytes: &[u8]) -> u64 {
        let at = usize::from(partition);
        let offset = self.log[at].len() as u64;
        self.log[at].push(bytes.to_vec());
        self.mix(u64::from(partition) << 32 | offset);
        for chunk in bytes.chunks(8) {
            let word = chunk.iter().fold(0_u64, |word, b| word << 8 | u64::from(*b));
            self.mix(word);
        }
        if partition == self.board() {
            self.judge.beat(self.now, bytes);
        } else {
            self.judge.record(self.now, partition, offset, bytes);
        }
        for pid in 0..self.processes.len() {
            if !self.processes[pid].alive {
                continue;
            }
            if partition == self.board() {
                self.schedule_look(pid, Which::Board);
            } else if partition == 0 {
                self.schedule_look(pid, Which::Pool);
            } else {
                self.schedule_look(pid, Which::ReadBack(ShareId(partition)));
                self.schedule_look(pid, Which::Contender(ShareId(partition)));
            }
        }
        offset
    }

    fn fate(&mut self, pid: Pid, mark: Mark, fate: Fate, since: u64) {
        let process = &self.processes[pid];
        if !process.alive {
            return;
        }
        let waits = process.paused_until.max(process.deaf_until).max(process.cut_until);
        if waits > self.now && fate != Fate::Unknown {
            // The answer is lost or late; past the message timeout nothing certain is told.
            let over = waits >= since + MESSAGE_MS && process.paused_until <= self.now;
            let (time, fate) = if over {
                ((since + MESSAGE_MS).max(self.now), Fate::Unknown)
            } else {
                (waits, fate)
            };
            let time = time + self.rng.within(0, 40);
            self.at(time, Event::Fate(pid, mark, fate, since));
            return;
        }
        let who = process.me.incarnation;
        // What was read back meanwhile may have been confirmed long before.
        let read_back = process.read_back_at.get(&mark.share()).is_some_and(|at| *at >= since);
        if fate != Fate::Unknown && !read_back {
            self.judge.delivered(self.now, mark.share(), who, since);
        }
        self.processes[pid].work.fates.push((mark, fate));
        self.wake(pid);
    }

    fn tail(&mut self, pid: Pid, which: Which) -> Option<&mut Tail> {
        let process = &mut self.processes[pid];
        match which {
            Which::Pool => Some(&mut process.pool_tail),
            Which::Board => Some(&mut process.board_tail),
            Which::ReadBack(share) => process.read_backs.get_mut(&share),
            Which::Contender(share) => process.running.get_mut(&share).map(|r| &mut r.tail),
        }
    }

    fn partition(&self, which: Which) -> u16 {
        match which {
            Which::Pool => 0,
            Which::Board => self.board(),
            Which::ReadBack(share) | Which::Contender(share) => share.0,
        }
    }

    fn schedule_look(&mut self, pid: Pid, which: Which) {
        let Some(tail) = self.tail(pid, which).filter(|tail| !tail.looks) else { return };
        tail.looks = true;
        let id = tail.id;
        let slow = self.slow_reads.get(&self.partition(which)).is_some_and(|u| *u > self.now);
        let most = if slow { 2_500 } else { 6 };
        self.soon(1, most, Event::Look(pid, which, id));
    }

    /// A tail takes what is there.
    fn look(&mut self, pid: Pid, which: Which, id: u64) {
        let (partition, now) = (self.partition(which), self.now);
        if !self.processes[pid].alive || self.tail(pid, which).is_none_or(|tail| tail.id != id) {
            return;
        }
        let deaf = Some(self.processes[pid].deaf_until).filter(|until| *until > now);
        if let Some(until) = self.blocked(pid, partition).max(deaf) {
            let time = until + self.rng.within(0, 60);
            self.at(time, Event::Look(pid, which, id));
            return;
        }
        let end = self.log[usize::from(partition)].len() as u64;
        let most = self.rng.within(1, 60);
        let Some(tail) = self.tail(pid, which) else { return };
        tail.looks = false;
        let from = *tail.next.get_or_insert(end);
        // A tail that was told to begin at the end begins at what is there by then.
        let from = from.min(end);
        let upto = end.min(from + most);
        tail.next = Some(upto);
        let records = self.log[usize::from(partition)][from as usize..upto as usize].iter();
        let records: Vec<(Offset, Vec<u8>)> = (from..).map(Offset).zip(records.cloned()).collect();
        let more = upto < end;
        let mut records = records;
        let process = &mut self.processes[pid];
        let torn = match which {
            Which::Pool => process.tears.take_if(|t| *t == Torn::Pool),
            Which::Board => process.tears.take_if(|t| *t == Torn::Board),
            Which::ReadBack(share) => {
                process.tears.take_if(|t| matches!(t, Torn::Share(_))).map(|_| Torn::Share(share))
            }
            Which::Contender(_) => None,
        };
        if torn.is_some() {
            // A tail breaks off where it would have to pass something over.
            records.truncate(records.len() / 2);
        }
        match which {
            Which::Pool => process.work.pool.extend(records),
            Which::Board => process.work.board.extend(records),
            Which::ReadBack(share) => {
                process.read_back_at.insert(share, now);
                process.work.read_back.extend(records.into_iter().map(|(at, r)| (share, at, r)));
            }
            Which::Contender(share) => {
                if let Some(running) = process.running.get_mut(&share) {
                    running.records.extend(records);
                }
                self.wake_contender(pid, share, 3);
                if more {
                    self.schedule_look(pid, which);
                }
                return;
            }
        }
        if let Some(torn) = torn {
            process.work.torn.push(torn);
            if let Torn::Share(share) = torn {
                process.read_backs.remove(&share);
            }
        } else if more {
            self.schedule_look(pid, which);
        }
        self.wake(pid);
    }

    // Contenders.

    fn wake_contender(&mut self, pid: Pid, share: ShareId, within: u64) {
        let Some(running) = self.processes[pid].running.get_mut(&share) else { return };
        if !std::mem::replace(&mut running.woken, true) {
            let id = running.id;
            self.soon(0, within, Event::Contend(pid, share, id));
        }
    }

    fn contend(&mut self, pid: Pid, share: ShareId, id: u64) {
        if let Some(until) = self.pause(pid) {
            let time = until + self.rng.within(0, 5);
            self.at(time, Event::Contend(pid, share, id));
            return;
        }
        let now = self.processes[pid].clocks(self.now);
        let Some(running) = self.processes[pid].running.get_mut(&share) else { return };
        if running.id != id {
            return;
        }
        running.woken = false;
        if running.asking {
            return;
        }
        for (at, record) in running.records.drain(..) {
            running.contender.read(now, at, &record);
        }
        running.contender.tell(running.told);
        match running.contender.step(now) {
            Step::Read => {
                running.woken = true;
                self.soon(5, 25, Event::Contend(pid, share, id));
            }
            Step::AskEnd => {
                running.asking = true;
                self.soon(1, 4, Event::AskEnd(pid, share, id, For::Claim));
            }
            Step::Owns => {
                running.asking = true;
                self.soon(1, 4, Event::AskEnd(pid, share, id, For::Owning));
            }
            Step::Forget => {
                self.processes[pid].running.remove(&share);
                self.processes[pid].work.mail.push(Mail::Gone(share));
                self.wake(pid);
            }
        }
    }

    fn ask_end(&mut self, pid: Pid, share: ShareId, id: u64, why: For) {
        let partition = if why == For::Claim { share.0 } else { 0 };
        let deaf = Some(self.processes[pid].deaf_until).filter(|until| *until > self.now);
        if let Some(until) = self.blocked(pid, partition).max(deaf) {
            let time = until + self.rng.within(0, 60);
            self.at(time, Event::AskEnd(pid, share, id, why));
            return;
        }
        let end = self.log[usize::from(partition)].len() as u64;
        self.soon(1, 4, Event::EndTold(pid, share, id, why, end));
    }

    fn end_told(&mut self, pid: Pid, share: ShareId, id: u64, why: For, end: u64) {
        if let Some(until) = self.pause(pid) {
            let time = until + self.rng.within(0, 5);
            self.at(time, Event::EndTold(pid, share, id, why, end));
            return;
        }
        let now = self.processes[pid].clocks(self.now);
        let name = self.processes[pid].name();
        let Some(running) = self.processes[pid].running.get_mut(&share) else { return };
        if running.id != id {
            return;
        }
        running.asking = false;
        if why == For::Owning {
            if let Some(running) = self.processes[pid].running.remove(&share) {
                let owner = Box::new(running.contender.into_owner(now));
                self.processes[pid].work.mail.push(Mail::Owns(owner, Offset(end)));
                self.wake(pid);
            }
            return;
        }
        running.contender.tell(running.told);
        let after = running.contender.state().writer().epoch();
        let claim = running.contender.claim(now, Offset(end));
        if let Some((reason, bytes)) = claim {
            self.say(|| format!("process {pid} ({name}) claims share {share}: {reason:?}"));
            self.judge.claims(self.now, share, after, name, reason);
            self.append(Lane::Contender(pid, share), None, bytes);
        }
        self.wake_contender(pid, share, 25);
    }

    // Peers.

    fn reaches(&self, from: Pid, to: Pid) -> bool {
        let cut = self.one_way.get(&(from, to)).is_some_and(|until| *until > self.now);
        let grey = |pid: Pid| self.processes[pid].grey_until > self.now;
        !cut && !grey(from) && !grey(to)
    }

    fn call(&mut self, from: Pid, to: Address, share: ShareId, command: &Command, asks: Asks) {
        let id = self.id();
        let at = self.processes.iter().rposition(|p| p.me.address == to && p.alive);
        let bytes = encode_command(share, command);
        self.calls.insert(id, Call { from, to: at, bytes, asks, done: false });
        let Some(at) = at else {
            let time = if self.rng.chance(50) { 3 } else { CONNECT_MS };
            self.soon(1, time, Event::CallLost(id, Lost::NotSent));
            return;
        };
        if self.reaches(from, at) && (self.reaches(at, from) || self.rng.chance(50)) {
            self.soon(1, 8, Event::Called(id));
        } else if self.rng.chance(50) {
            self.at(self.now + CONNECT_MS, Event::CallLost(id, Lost::NotSent));
            return;
        } else if self.rng.chance(50) {
            // Sent again by the network when it heals, long after everybody has given up.
            self.soon(3_000, 9_000, Event::Called(id));
        }
        self.at(self.now + COURIER_MS, Event::CallLost(id, Lost::Unknown));
    }

    /// A peer's request arrives.
    fn called(&mut self, id: u64) {
        let Some(Call { from, to: Some(to), bytes, .. }) = self.calls.get(&id) else { return };
        let (from, to) = (*from, *to);
        let Ok((share, command)) = decode_command(bytes) else {
            self.judge.late(self.now, "every command can be read", format!("call {id}"));
            return;
        };
        if !self.processes[to].alive {
            self.soon(1, 3, Event::CallLost(id, Lost::Unknown));
            return;
        }
        if let Some(until) = self.pause(to) {
            let time = until + self.rng.within(0, 5);
            self.at(time, Event::Called(id));
            return;
        }
        let process = &mut self.processes[to];
        if process.conductor.owns(share) {
            process.desk.submit(share, command, Slot::Peer(id));
            self.wake(to);
        } else if self.reaches(to, from) {
            self.soon(1, 5, Event::Answered(id, Answer::Busy("moved")));
        }
    }

    fn answered(&mut self, id: u64, answer: &Answer) {
        let Ok(answer) = decode_answer(&encode_answer(answer)) else {
            self.judge.late(self.now, "every answer can be read", format!("call {id}"));
            return;
        };
        self.call_over(id, Ok(answer));
    }

    fn call_over(&mut self, id: u64, sent: Result<Answer, Lost>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if std::mem::replace(&mut call.done, true) {
            return;
        }
        let (from, asks) = (call.from, call.asks);
        if !self.processes[from].alive {
            return;
        }
        if let Some(until) = self.pause(from) {
            if let Some(call) = self.calls.get_mut(&id) {
                call.done = false;
            }
            let time = until + self.rng.within(0, 5);
            let event = match sent {
                Ok(answer) => Event::Answered(id, answer),
                Err(lost) => Event::CallLost(id, lost),
            };
            self.at(time, event);
            return;
        }
        match asks {
            Asks::Owner(onward) => {
                self.processes[from].work.mail.push(Mail::Returned(onward, sent));
                self.wake(from);
            }
            Asks::Bring(bring) => match last_word(sent) {
                Some(answer) => self.respond(from, bring, answer),
                None => self.search_on(from, bring),
            },
        }
    }

    /// An owner's word for whoever waits at a desk.
    fn told(&mut self, pid: Pid, slot: Slot, outcome: conductor::Outcome) {
        match (slot, outcome) {
            (Slot::Bring(id), conductor::Outcome::Answered(answer)) => {
                self.respond(pid, id, answer);
            }
            (Slot::Bring(id), conductor::Outcome::Rehomed) => self.search_on(pid, id),
            (Slot::Peer(id), outcome) => {
                let answer = match outcome {
                    conductor::Outcome::Answered(answer) => answer,
                    conductor::Outcome::Rehomed => Answer::Busy("moved"),
                };
                let Some(from) = self.calls.get(&id).map(|call| call.from) else { return };
                if self.reaches(pid, from) {
                    self.soon(1, 8, Event::Answered(id, answer));
                }
            }
            (Slot::Owner(_), _) => {}
        }
    }

    // A request at a node.

    fn search_on(&mut self, pid: Pid, id: u64) {
        let mono = self.processes[pid].clocks(self.now).mono.0;
        let Some(bring) = self.processes[pid].brings.get(&id) else { return };
        if mono >= bring.until {
            self.respond(pid, id, Answer::Busy("unowned"));
        } else {
            self.at(self.now + SEARCH_STEP_MS, Event::Bring(pid, id));
        }
    }

    fn bring(&mut self, pid: Pid, id: u64) {
        if let Some(until) = self.pause(pid) {
            let time = until + self.rng.within(0, 5);
            self.at(time, Event::Bring(pid, id));
            return;
        }
        let process = &mut self.processes[pid];
        let Some(bring) = process.brings.get(&id).cloned() else { return };
        match process.conductor.locate(bring.share) {
            Place::Here => {
                process.desk.submit(bring.share, bring.command, Slot::Bring(id));
                self.wake(pid);
            }
            Place::There(address) => {
                self.call(pid, address, bring.share, &bring.command, Asks::Bring(id));
            }
            Place::Unowned => self.search_on(pid, id),
        }
    }

    fn respond(&mut self, pid: Pid, id: u64, answer: Answer) {
        let Some(bring) = self.processes[pid].brings.remove(&id) else { return };
        if self.processes[pid].grey_until <= self.now {
            self.soon(1, 5, Event::Heard(bring.press, Some(answer)));
        }
    }

    // Redis.

    fn begin_draw(&mut self, pid: Pid, drawing: Drawing) {
        let salt = self.rng.next();
        let step = drawing.begin(self.processes[pid].conductor.pool(), self.scenario.redis, salt);
        self.drawing(pid, drawing, step);
    }

    fn drawing(&mut self, pid: Pid, drawing: Drawing, step: draw::Step) {
        let draw::Step::Take(blocks) = step else {
            self.soon(1, 6, Event::Redis(pid, drawing, step));
            return;
        };
        let process = &self.processes[pid];
        let (pool, who) = (process.conductor.pool(), process.me.incarnation);
        let wall = process.clocks(self.now).wall;
        let mark = Request(self.rng.next());
        if let Some(record) = drawing.record(pool, who, wall, blocks, mark) {
            self.append(Lane::Worker(pid, 0), None, record);
        }
    }

    fn ask_redis(&mut self, pid: Pid, drawing: Drawing, step: &draw::Step) {
        let away = self.redis_gone_until > self.now;
        if away {
            self.soon(1, 50, Event::RedisTold(pid, drawing, Told::Nothing));
            return;
        }
        let (run, class) = (drawing.run, drawing.class);
        let told = match step {
            draw::Step::Ask { want, floor } => self.redis.draw(self.now, run, class, *want, *floor),
            draw::Step::Restock { blocks, at } => {
                self.redis.restock(self.now, run, class, blocks, *at)
            }
            draw::Step::Take(_) => return,
        };
        // An answer may be too late to be heard, though Redis has done as it was asked.
        let told = if self.rng.chance(3) { Told::Nothing } else { told };
        self.soon(1, 6, Event::RedisTold(pid, drawing, told));
    }

    fn redis_told(&mut self, pid: Pid, mut drawing: Drawing, told: Told) {
        if !self.processes[pid].alive {
            return;
        }
        if let Some(until) = self.pause(pid) {
            let time = until + self.rng.within(0, 5);
            // A draw that is that late is given up.
            self.at(time, Event::RedisTold(pid, drawing, Told::Nothing));
            return;
        }
        let salt = self.rng.next();
        let step = drawing.go_on(self.processes[pid].conductor.pool(), told, salt);
        self.drawing(pid, drawing, step);
    }

    // Buyers.

    fn press(&mut self, at: usize, node: Option<Pid>) {
        let stage = self.shoppers[at].stage;
        if stage == Stage::Done {
            return;
        }
        let open: Vec<Pid> = self
            .pods
            .iter()
            .filter(|pod| !pod.gone && !pod.leaving && self.processes[pod.pid].alive)
            .map(|pod| pod.pid)
            .collect();
        let pid = node.or_else(|| (!open.is_empty()).then(|| self.rng.pick(&open)));
        let id = self.id();
        let press = Press { shopper: at, stage, at: pid, since: self.now, done: false };
        self.presses.insert(id, press);
        let Some(pid) = pid.filter(|pid| self.processes[*pid].grey_until <= self.now) else {
            self.soon(1, 1_000, Event::Heard(id, None));
            return;
        };
        self.at(self.now + BUYER_MS, Event::Heard(id, None));
        let process = &self.processes[pid];
        let asked = self.shoppers[at].command(process.conductor.pool(), at);
        let Some((share, command)) = asked else {
            self.soon(1, 5, Event::Heard(id, Some(Answer::Busy("starting"))));
            return;
        };
        let until = process.clocks(self.now).mono.0 + SEARCH_MS;
        self.say(|| format!("buyer {at} presses {stage:?} at process {pid} for share {share}"));
        if let Command::Cancel { order, .. } = &command {
            self.judge.will_cancel(*order);
        }
        let bring = Bring { press: id, share, command, until };
        self.processes[pid].brings.insert(id, bring);
        self.soon(1, 4, Event::Bring(pid, id));
    }

    fn heard(&mut self, id: u64, answer: Option<&Answer>) {
        let Some(press) = self.presses.get_mut(&id) else { return };
        if std::mem::replace(&mut press.done, true) {
            return;
        }
        let (at, stage, since, pid) = (press.shopper, press.stage, press.since, press.at);
        self.presses.remove(&id);
        if let Some(pid) = pid {
            // Whoever hangs up is waited for no more.
            self.processes[pid].brings.remove(&id);
        }
        let shopper = &self.shoppers[at];
        let trip = (shopper.run, shopper.class, shopper.journey);
        match answer {
            None => {}
            Some(Answer::Order { view, .. }) => self.judge.hears_order(self.now, since, view),
            Some(Answer::SoldOut { .. }) => self.judge.hears_none(self.now, since, trip, 0),
            Some(Answer::GroupTooLarge(most)) => {
                self.judge.hears_none(self.now, since, trip, *most);
            }
            Some(answer) => self.judge.hears_nonsense(self.now, answer),
        }
        if self.shoppers[at].stage != stage {
            return;
        }
        let (next, denied): (Next, bool) = match answer {
            None => (self.shoppers[at].hears_nothing(), false),
            Some(answer) => self.shoppers[at].hears(answer),
        };
        let now_stage = self.shoppers[at].stage;
        self.say(|| match answer {
            Some(Answer::Order { view, new }) => {
                let seats = view.seats.as_slice();
                let (order, status) = (view.order, view.status);
                format!("buyer {at} hears {order} {status:?} seats {seats:?} new {new}")
            }
            Some(answer) => format!("buyer {at} hears {answer:?}"),
            None => format!("buyer {at} hears nothing"),
        });
        if let (true, Some(answer), Some(order)) = (denied, answer, self.shoppers[at].order) {
            self.judge.hears_it_is_lost(self.now, order, answer);
        }
        if let Some(wait) = next {
            // The first of two that were pressed at once goes on for both.
            let _ = now_stage;
            self.at(self.now + wait, Event::Press(at, None));
        }
    }

    // Operators.

    fn operator_time(&self, operator: usize, at: u64) -> Millis {
        Millis(DAWN + at + self.operators[operator].skew)
    }

    fn acts(&self, operator: usize) -> bool {
        if self.recreating {
            return false;
        }
        match operator {
            0 => self.operator_gone_until <= self.now,
            _ => self.two_until > self.now,
        }
    }

    fn sign(&mut self, operator: usize, sign: Sign) {
        let now = self.operator_time(operator, self.now);
        let mut out = Vec::new();
        self.operators[operator].dispatcher.handle(now, sign, &mut out);
    }

    fn probe(&mut self, operator: usize) {
        self.soon(PROBE_MS, PROBE_MS + 20, Event::Probe(operator));
        let acts = self.acts(operator);
        if acts != std::mem::replace(&mut self.operators[operator].acts, acts) && acts {
            let shares = self.scenario.definition.shares;
            self.operators[operator].dispatcher = Dispatcher::new(shares);
            self.operators[operator].versions = (0, 0, 0);
            self.say(|| format!("operator {operator} begins"));
        }
        if !acts {
            return;
        }
        let suspended = self.suspended_until > self.now;
        let state = if suspended { SaleState::Suspended } else { SaleState::Active };
        let wish = Wish {
            sellers: self.scenario.nodes,
            begin_at: None,
            state,
            open: None,
            close: None,
            limits: self.scenario.limits,
        };
        self.sign(operator, Sign::Wish(wish));
        for at in 0..self.pods.len() {
            let Pod { name: node, pid, leaving, gone } = self.pods[at];
            if gone {
                self.sign(operator, Sign::PodGone { node });
                continue;
            }
            self.sign(operator, Sign::PodSeen { node, sells: true, leaving });
            let process = &self.processes[pid];
            let answers =
                process.alive && process.paused_until <= self.now && process.grey_until <= self.now;
            if !answers {
                // The machine of a process that has ended refuses; others say nothing.
                let refused = !process.alive && process.grey_until <= self.now;
                let wait = if refused { 5 } else { PROBE_TIMEOUT_MS };
                let missed = Event::Missed(operator, node, self.now, refused);
                self.at(self.now + wait, missed);
                continue;
            }
            let mono = process.clocks(self.now).mono;
            let report = Box::new(process.conductor.report(mono, 1));
            let pool = process.conductor.pool();
            let versions =
                (pool.definition_version(), pool.assign().version, pool.policy_version());
            let force = Box::new((pool.assign().clone(), pool.policy().cloned()));
            if pool.ledger().is_some() {
                self.soon(1, 30, Event::Reported(operator, pid, report, force, versions));
            }
        }
        self.soon(60, 200, Event::Decide(operator));
    }

    fn reported(
        &mut self,
        operator: usize,
        pid: Pid,
        report: Box<Report>,
        (plan, policy): (SharePlan, Option<Policy>),
        versions: (u64, u64, u64),
    ) {
        self.operators[operator].answered = Some(pid);
        if versions > self.operators[operator].versions {
            self.operators[operator].versions = versions;
            self.sign(operator, Sign::InForce { plan, policy });
        }
        self.sign(operator, Sign::Answered(report));
    }

    fn decide(&mut self, operator: usize) {
        if !self.acts(operator) {
            return;
        }
        let now = self.operator_time(operator, self.now);
        let mut out = Vec::new();
        self.operators[operator].dispatcher.handle(now, Sign::Tick, &mut out);
        for output in out {
            match output {
                Output::Post(plan) => {
                    self.say(|| format!("operator {operator} posts {plan:?}"));
                    let version = plan.version;
                    self.post(operator, &PoolEntry::Assign(plan), move |pool| {
                        version == pool.assign().version + 1
                    });
                }
                Output::Policy(policy) => {
                    let version = policy.version;
                    self.post(operator, &PoolEntry::Policy(policy), move |pool| {
                        version == pool.policy_version() + 1
                    });
                }
                Output::DeletePod(name) => {
                    self.say(|| format!("operator {operator} deletes the pod of {name}"));
                    self.delete_pod(name);
                }
                Output::Event { .. } => {}
            }
        }
    }

    /// Posts a record through the node that answered last, as its control port does.
    fn post(
        &mut self,
        operator: usize,
        entry: &PoolEntry,
        is_next: impl Fn(&inventory::pool::Pool) -> bool,
    ) {
        let Some(pid) = self.operators[operator].answered else { return };
        self.post_through(pid, entry, is_next);
    }

    fn post_through(
        &mut self,
        pid: Pid,
        entry: &PoolEntry,
        is_next: impl Fn(&inventory::pool::Pool) -> bool,
    ) -> bool {
        let process = &self.processes[pid];
        let reached = process.alive && self.pause(pid).is_none() && process.grey_until <= self.now;
        let pool = process.conductor.pool();
        let Some(ledger) = pool.ledger().filter(|_| reached && is_next(pool)) else {
            return false;
        };
        let wall = process.clocks(self.now).wall;
        let entry = std::slice::from_ref(entry);
        let Ok(record) = pool_record(ledger, process.me.incarnation, wall, entry) else {
            return false;
        };
        self.append(Lane::Worker(pid, 0), None, record);
        true
    }

    fn delete_pod(&mut self, name: NodeId) {
        let Some(pod) = self.pods.iter_mut().find(|p| p.name == name && !p.gone) else { return };
        pod.leaving = true;
        let pid = pod.pid;
        // A kubelet that cannot be reached kills nothing: the process lives on.
        if self.processes[pid].grey_until <= self.now {
            self.end_process(pid);
        }
        self.replace(name);
    }

    // Faults.

    fn some_node(&self, target: u64) -> Option<Pid> {
        let live: Vec<Pid> =
            self.pods.iter().map(|p| p.pid).filter(|p| self.processes[*p].alive).collect();
        let at = usize::try_from(target % live.len().max(1) as u64).unwrap_or(0);
        live.get(at).copied()
    }

    fn fault(&mut self, fault: Fault) {
        let Fault { lasts, kind, target, twist, .. } = fault;
        let until = self.now + lasts;
        let share = u16::try_from(target % (self.log.len() as u64 - 2) + 1).unwrap_or(1);
        let partition = if twist.is_multiple_of(4) { 0 } else { share };
        let node = self.some_node(target);
        self.faults += 1;
        self.say(|| {
            let name: &str = kind.into();
            format!("FAULT {name} for {lasts} ms, process {node:?}, partition {partition}")
        });
        match kind {
            Kind::SlowReads => {
                self.slow_reads.insert(partition, until);
            }
            Kind::SlowBoard => {
                let board = self.board();
                self.slow_reads.insert(board, until);
            }
            Kind::SlowWrites => {
                self.slow_writes.insert(partition, until);
            }
            Kind::UnknownAcks => self.unknown_until = until,
            Kind::NoOffsets => self.offsetless_until = until,
            Kind::LeaderLost => {
                let board = twist % 8 == 1;
                self.lose_leader(if board { self.board() } else { partition }, until);
            }
            Kind::KafkaGone => self.gone_until = self.gone_until.max(until),
            Kind::RedisFlushed => self.redis = Redis::default(),
            Kind::RedisStale => std::mem::swap(&mut self.redis, &mut self.redis_before),
            Kind::RedisGone => self.redis_gone_until = until,
            Kind::OperatorGone => self.operator_gone_until = until,
            Kind::TwoOperators => self.two_until = until,
            Kind::Suspend => self.suspended_until = until,
            Kind::Amend => self.at(self.now, Event::Amend(twist)),
            Kind::Recreate => self.recreate(until),
            _ => {
                if let Some(pid) = node {
                    self.node_fault(pid, kind, until, twist);
                }
            }
        }
        if twist.is_multiple_of(2) {
            self.redis_before = self.redis.clone();
        }
    }

    fn node_fault(&mut self, pid: Pid, kind: Kind, until: u64, twist: u64) {
        let name = self.processes[pid].name();
        let others = self.some_node(twist);
        let process = &mut self.processes[pid];
        match kind {
            Kind::Crash => {
                self.end_process(pid);
                self.at(until, Event::Start(name));
            }
            Kind::Pause => process.paused_until = until,
            Kind::CutKafka => process.cut_until = until,
            Kind::DeafKafka => process.deaf_until = until,
            Kind::Grey | Kind::Zombie => process.grey_until = until,
            Kind::Refusing => process.refuses_until = until.min(self.now + 1_000),
            Kind::OneWay => {
                if let Some(other) = others.filter(|other| *other != pid) {
                    self.one_way.insert((pid, other), until);
                }
            }
            Kind::ClockJump => {
                let jump = (twist % 9_000) as i64 - 4_500;
                process.skew = (process.skew + jump).clamp(-6_000, 6_000);
                self.judge.clock(process.me.incarnation, process.skew);
            }
            Kind::Torn => {
                let torn = [Torn::Pool, Torn::Board, Torn::Share(ShareId(0))];
                process.tears = Some(torn[usize::try_from(twist % 3).unwrap_or(0)]);
            }
            Kind::Drain => {
                if let Some(pod) = self.pods.iter_mut().find(|p| p.name == name) {
                    pod.leaving = true;
                }
                self.drain(pid);
                let name = self.new_name();
                self.soon(500, 2_000, Event::Start(name));
            }
            _ => {}
        }
        if kind == Kind::Zombie {
            // The machine is held to be lost: its pod is deleted without a word from it.
            self.delete_pod(name);
        }
    }

    fn drain(&mut self, pid: Pid) {
        if !std::mem::replace(&mut self.processes[pid].draining, true) {
            self.processes[pid].work.mail.push(Mail::Drain);
            self.wake(pid);
        }
    }

    fn lose_leader(&mut self, partition: u16, until: u64) {
        self.down_until[usize::from(partition)] = until;
        let board = self.board();
        let lanes: Vec<Lane> =
            self.lanes.keys().copied().filter(|l| l.partition(board) == partition).collect();
        for lane in lanes {
            if self.rng.chance(50) {
                // What it had not confirmed is lost with it, and nobody learns what became of it.
                for Pending { mark, since, .. } in self.lanes.remove(&lane).unwrap_or_default() {
                    if let Some(mark) = mark {
                        self.soon(1, 2_000, Event::Fate(lane.pid(), mark, Fate::Unknown, since));
                    }
                }
            }
        }
    }

    fn amend(&mut self, twist: u64) {
        let Some(pid) = self.some_node(twist) else { return };
        let pool = self.processes[pid].conductor.pool();
        let Some(old) = pool.definition() else { return };
        let version = pool.definition_version() + 1;
        // One spec says one thing, whichever operator posts it; and it says so only once.
        if old.timetables[0].coaches.len() > 5 || self.amends.contains(&version) {
            return;
        }
        let definition = Box::new(amended(old, twist));
        let entry = PoolEntry::Amend { version, definition };
        if self.post_through(pid, &entry, move |pool| version == pool.definition_version() + 1) {
            if let Some(other) = self.some_node(twist / 7) {
                self.post_through(other, &entry, move |pool| {
                    version == pool.definition_version() + 1
                });
            }
        } else {
            self.soon(500, 1_500, Event::Amend(twist));
        }
    }

    fn recreate(&mut self, until: u64) {
        if std::mem::replace(&mut self.recreating, true) {
            return;
        }
        for at in 0..self.pods.len() {
            let pid = self.pods[at].pid;
            self.pods[at].leaving = true;
            if self.processes[pid].alive {
                self.drain(pid);
            }
        }
        self.at(until, Event::Recreated);
    }

    /// The pods' grace is over; the sale is made again over the ledger that is there.
    fn recreated(&mut self) {
        for at in 0..self.pods.len() {
            self.end_process(self.pods[at].pid);
            self.pods[at].gone = true;
        }
        self.recreating = false;
        self.say(|| "the sale is created again".to_owned());
        for _ in 0..self.scenario.nodes {
            let name = self.new_name();
            self.soon(100, 900, Event::Start(name));
        }
    }

    // The end.

    /// Whether a live process sells every share that it was the last to claim.
    fn all_sell(&self) -> Result<(), String> {
        for (share, (epoch, writer)) in self.judge.owners() {
            let owner = self.processes.iter().find(|p| p.alive && Some(p.me.incarnation) == writer);
            let stage = owner.and_then(|p| p.conductor.owned().get(&share).copied());
            if !matches!(stage, Some((e, inventory::board::ShareStage::Selling)) if e == epoch) {
                let contenders = self.processes.iter().enumerate().filter(|(_, p)| p.alive);
                let contenders = contenders.map(|(pid, p)| {
                    let at = p.running.get(&share).map(|r| {
                        let now = p.clocks(self.now);
                        let next = (r.contender.state().position(), r.contender.step(now));
                        (next, r.asking, r.contender.prospect().map(|(s, _)| s))
                    });
                    format!("process {pid} contends {}: {at:?}", p.conductor.is_contended(share))
                });
                let contenders: Vec<String> = contenders.collect();
                return Err(format!("share {share}, epoch {epoch}: {stage:?}; {contenders:?}"));
            }
        }
        Ok(())
    }

    /// Looks whether everything has come to an end; goes on with the resale when it has.
    fn settled(&mut self) {
        let open = self.shoppers.iter().position(|s| s.stage != Stage::Done);
        let unsettled = self.judge.unsettled();
        let sells = self.all_sell();
        if open.is_none() && unsettled.is_empty() && sells.is_ok() {
            self.resell();
            return;
        }
        if self.now < HEAL_AT + SETTLE_MS {
            self.at(self.now + 500, Event::Settled);
            return;
        }
        if let Err(why) = sells {
            self.judge.late(self.now, "no share stays unowned", why);
        }
        if let Some(at) = open {
            let shopper = &self.shoppers[at];
            let what = format!("buyer {at} {:?} order {:?}", shopper.stage, shopper.order);
            self.judge.late(self.now, "every request comes to an end", what);
        }
        if !unsettled.is_empty() {
            self.judge.late(self.now, "every hold comes to an end", unsettled.join("; "));
        }
    }

    /// Sends a buyer for every stretch that is free.
    fn resell(&mut self) {
        let free = self.judge.free();
        let (runs, classes) = self.offer();
        if free.is_empty() {
            self.over = true;
            return;
        }
        let sold = self.shoppers.iter().filter(|s| s.end == Some("paid")).count();
        for (run, class, from, to) in free {
            let buyer = 1_000 + u16::try_from(self.shoppers.len()).unwrap_or(0);
            let wish = Purchase {
                at: self.now + self.rng.within(0, 1_500),
                buyer,
                run: run.0,
                class: class.0,
                from,
                legs: to - from,
                party: 1,
                twice: false,
                then: Then::Pays,
                salt: self.rng.next() | 1 << 40,
            };
            // Runs that an Amend brought are for sale too.
            self.shop(wish, runs.max(usize::from(run.0) + 1), classes);
            if let Some(shopper) = self.shoppers.last_mut() {
                shopper.run = RunId(run.0);
            }
        }
        self.at(self.now + RESALE_MS, Event::Resold(sold));
    }

    fn resold(&mut self, sold_before: usize) {
        let open = self.shoppers.iter().position(|s| s.stage != Stage::Done);
        let sold = self.shoppers.iter().filter(|s| s.end == Some("paid")).count();
        self.resales += 1;
        if let Some(at) = open {
            let shopper = &self.shoppers[at];
            let what = format!("buyer {at} {:?} {:?}", shopper.stage, shopper.order);
            self.judge.late(self.now, "what is free can be bought", what);
        } else if sold == sold_before || self.resales > RESALES_MAX {
            let free = self.judge.free();
            let what = format!("{free:?} are left, and nobody gets them");
            self.judge.late(self.now, "what is free can be bought", what);
        } else {
            self.resell();
        }
    }
}

impl Lane {
    fn pid(self) -> Pid {
        match self {
            Self::Worker(pid, _) | Self::Board(pid) | Self::Contender(pid, _) => pid,
        }
    }

    fn partition(self, board: u16) -> u16 {
        match self {
            Self::Worker(_, partition) => partition,
            Self::Board(_) => board,
            Self::Contender(_, share) => share.0,
        }
    }
}
