//! Operators: what they see, decide and post.

use inventory::dispatcher::{Dispatcher, Output, Report, Sign, Wish};
use inventory::entry::{Policy, PoolEntry, SaleState};
use inventory::plan::SharePlan;
use inventory::pool::{Pool, pool_record};
use inventory::words::{Millis, NodeId};

use super::{Event, Lane, Pid, Pod, World};
use crate::process::DAWN;

/// How often operators look.
const PROBE_MS: u64 = 250;
/// How long an operator waits for a report.
const PROBE_TIMEOUT_MS: u64 = 500;

impl World<'_> {
    pub(super) fn operator_time(&self, operator: usize, at: u64) -> Millis {
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

    pub(super) fn sign(&mut self, operator: usize, sign: Sign) {
        let now = self.operator_time(operator, self.now);
        let mut out = Vec::new();
        self.operators[operator].dispatcher.handle(now, sign, &mut out);
    }

    /// An operator begins, and knows nothing.
    pub(super) fn begin_operator(&mut self, operator: usize) {
        let shares = self.scenario.definition.shares;
        let new = &mut self.operators[operator];
        new.dispatcher = Dispatcher::new(shares);
        (new.versions, new.answered) = ((0, 0, 0), None);
        self.say(|| format!("operator {operator} begins"));
    }

    pub(super) fn probe(&mut self, operator: usize) {
        self.soon(PROBE_MS, PROBE_MS + 20, Event::Probe(operator));
        let acts = self.acts(operator);
        if acts != std::mem::replace(&mut self.operators[operator].acts, acts) && acts {
            self.begin_operator(operator);
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

    pub(super) fn reported(
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

    pub(super) fn decide(&mut self, operator: usize) {
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
    fn post(&mut self, operator: usize, entry: &PoolEntry, is_next: impl Fn(&Pool) -> bool) {
        let Some(pid) = self.operators[operator].answered else { return };
        self.post_through(pid, entry, is_next);
    }

    pub(super) fn post_through(
        &mut self,
        pid: Pid,
        entry: &PoolEntry,
        is_next: impl Fn(&Pool) -> bool,
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

    pub(super) fn delete_pod(&mut self, name: NodeId) {
        let Some(pod) = self.pods.iter_mut().find(|p| p.name == name && !p.gone) else { return };
        pod.leaving = true;
        let pid = pod.pid;
        // A kubelet that cannot be reached kills nothing: the process lives on. One that sleeps
        // does as it was told some time after it woke.
        let process = &self.processes[pid];
        let wakes = process.wakes_at().filter(|at| *at > self.now);
        if let Some(wakes) = wakes {
            let time = wakes + self.rng.within(1_000, 6_000);
            self.at(time, Event::Killed(pid));
        } else if process.grey_until <= self.now {
            self.end_process(pid);
        }
        self.replace(name);
    }
}
