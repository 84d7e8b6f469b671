//! One run: everything that happens in a scenario, in the order that its seed gives.
//!
//! A queue of events by time; no threads and no real time. The log, the network, Redis and the
//! clocks are simulated; what nodes and operators decide is decided by `inventory`.

mod buyers;
mod end;
mod faults;
mod log;
mod nodes;
mod operators;
mod peers;

use std::collections::BTreeMap;

use inventory::conductor::{Lost, Mark, Onward};
use inventory::dispatcher::{Dispatcher, Report, Sign};
use inventory::draw::{self, Drawing, Told};
use inventory::entry::{Genesis, Policy, PoolEntry};
use inventory::owner::{Answer, Fate};
use inventory::plan::SharePlan;
use inventory::pool::{ledger_id, pool_record};
use inventory::words::{Incarnation, Millis, NodeId, ShareId};

use crate::judge::{Judge, Violation};
use crate::process::{DAWN, Process};
use crate::redis::Redis;
use crate::rng::Rng;
use crate::scenario::{HEAL_AT, LEDGER, Purchase, Scenario, TOPIC, amended};
use crate::shopper::{Shopper, Stage};

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
    /// Only looks at an order again.
    looks: bool,
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
    Begin(Pid),
    AskEnd(Pid, ShareId, u64, For),
    EndTold(Pid, ShareId, u64, For, u64),
    Bring(Pid, u64),
    Called(u64),
    Answered(u64, Answer),
    CallLost(u64, Lost),
    Redis(Pid, Drawing, draw::Step),
    RedisTold(Pid, Drawing, Told),
    Press(usize),
    LookAgain(Pid),
    Heard(u64, Option<Answer>),
    Probe(usize),
    Reported(usize, Pid, Box<Report>, Box<(SharePlan, Option<Policy>)>, (u64, u64, u64)),
    Missed(usize, NodeId, u64, bool),
    Decide(usize),
    Start(NodeId),
    ComeBack(NodeId),
    Killed(Pid),
    Fault(usize),
    Amend(u64),
    Withdraw(u64, bool),
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
    /// Claims that came to lie behind a beat of the owner before, said after they were decided.
    pub overtaken: usize,
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
            overtaken: world.judge.overtaken,
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
        self.at(wish.at, Event::Press(at));
        if wish.twice {
            let again = wish.at + self.rng.within(0, 30);
            self.at(again, Event::Press(at));
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
            Event::Begin(pid) => self.begin_process(pid),
            Event::AskEnd(pid, share, id, why) => self.ask_end(pid, share, id, why),
            Event::EndTold(pid, share, id, why, end) => self.end_told(pid, share, id, why, end),
            Event::Bring(pid, id) => self.bring(pid, id),
            Event::Called(id) => self.called(id),
            Event::Answered(id, answer) => self.answered(id, &answer),
            Event::CallLost(id, lost) => self.call_over(id, Err(lost)),
            Event::Redis(pid, drawing, step) => self.ask_redis(pid, drawing, &step),
            Event::RedisTold(pid, drawing, told) => self.redis_told(pid, drawing, told),
            Event::Press(shopper) => self.press(shopper),
            Event::LookAgain(pid) => self.look_again(pid),
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
            Event::ComeBack(name) => self.come_back(name),
            Event::Killed(pid) => self.end_process(pid),
            Event::Fault(at) => self.fault(self.scenario.faults[at]),
            Event::Amend(twist) => self.amend(twist),
            Event::Withdraw(twist, off) => self.withdraw(twist, off),
            Event::Recreated => self.recreated(),
            Event::Settled => self.settled(),
            Event::Resold(sold_before) => self.resold(sold_before),
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
