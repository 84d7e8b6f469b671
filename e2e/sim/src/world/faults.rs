//! Faults, as they begin.

use inventory::conductor::{Mail, Torn};
use inventory::definition::Definition;
use inventory::entry::PoolEntry;
use inventory::owner::Fate;
use inventory::words::ShareId;

use super::{Event, Lane, Pending, Pid, World};
use crate::process::Kept;
use crate::redis::Redis;
use crate::scenario::{Fault, Kind, amended, withdrawn};

impl World<'_> {
    fn some_node(&self, target: u64) -> Option<Pid> {
        let live: Vec<Pid> =
            self.pods.iter().map(|p| p.pid).filter(|p| self.processes[*p].alive).collect();
        let at = usize::try_from(target % live.len().max(1) as u64).unwrap_or(0);
        live.get(at).copied()
    }

    pub(super) fn fault(&mut self, fault: Fault) {
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
            Kind::OperatorRestart => self.begin_operator(0),
            Kind::TwoOperators => self.two_until = until,
            Kind::Suspend => self.suspended_until = until,
            Kind::Amend => self.at(self.now, Event::Amend(twist)),
            Kind::Withdraw => {
                self.at(self.now, Event::Withdraw(twist, true));
                if twist.is_multiple_of(2) {
                    self.at(until, Event::Withdraw(twist, false));
                }
            }
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
            Kind::Pause => {
                process.paused_until = process.paused_until.max(until);
                self.come_to(pid, until);
            }
            Kind::Sleep => {
                process.sleep(self.now, until);
                if twist.is_multiple_of(2) {
                    for kept in [Kept::Pool, Kept::Board, Kept::Shares] {
                        process.stuck.insert(kept, until + twist / 2 % 4_000);
                    }
                }
                self.come_to(pid, until);
            }
            Kind::StuckTail => {
                let kept = [Kept::Board, Kept::Board, Kept::Pool, Kept::Shares];
                process.stuck.insert(kept[usize::try_from(twist % 4).unwrap_or(0)], until);
                self.come_to(pid, until.saturating_sub(1_500));
            }
            Kind::ColdStart => {
                self.gone_until = self.gone_until.max(until);
                self.end_process(pid);
                self.soon(50, 2_000, Event::Start(name));
            }
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
                if twist.is_multiple_of(3) {
                    self.soon(500, 2_000, Event::ComeBack(name));
                } else {
                    let name = self.new_name();
                    self.soon(500, 2_000, Event::Start(name));
                }
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

    pub(super) fn amend(&mut self, twist: u64) {
        let Some(pid) = self.some_node(twist) else { return };
        let pool = self.processes[pid].conductor.pool();
        let Some(old) = pool.definition() else { return };
        let version = pool.definition_version() + 1;
        if old.timetables[0].coaches.len() > 5 {
            return;
        }
        let definition = Box::new(amended(old, twist));
        self.post_amend(version, definition, twist, Event::Amend(twist));
    }

    /// A run goes off sale, or comes back.
    pub(super) fn withdraw(&mut self, twist: u64, off: bool) {
        let Some(pid) = self.some_node(twist) else { return };
        let pool = self.processes[pid].conductor.pool();
        let Some(old) = pool.definition() else { return };
        let version = pool.definition_version() + 1;
        let definition = withdrawn(old, twist, off);
        let again = Event::Withdraw(twist, off);
        if definition == ***old {
            return;
        }
        self.post_amend(version, Box::new(definition), twist, again);
    }

    /// Posts an Amend through one node or two; later, if the first cannot be reached.
    fn post_amend(&mut self, version: u64, definition: Box<Definition>, twist: u64, again: Event) {
        let Some(pid) = self.some_node(twist) else { return };
        let entry = PoolEntry::Amend { version, definition };
        if self.post_through(pid, &entry, move |pool| version == pool.definition_version() + 1) {
            if let Some(other) = self.some_node(twist / 7) {
                self.post_through(other, &entry, move |pool| {
                    version == pool.definition_version() + 1
                });
            }
        } else {
            self.soon(500, 1_500, again);
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
    pub(super) fn recreated(&mut self) {
        for at in 0..self.pods.len() {
            self.end_process(self.pods[at].pid);
            self.pods[at].gone = true;
        }
        self.recreating = false;
        self.say(|| "the sale is created again".to_owned());
        // The new pods have names of their own, or those of the first ones.
        let again = self.rng.chance(50);
        for at in 0..self.scenario.nodes {
            if let Some(pod) = self.pods.get(at).filter(|_| again) {
                let name = pod.name;
                self.soon(100, 900, Event::ComeBack(name));
            } else {
                let name = self.new_name();
                self.soon(100, 900, Event::Start(name));
            }
        }
    }
}
