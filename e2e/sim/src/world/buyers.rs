//! Buyers at nodes.

use inventory::owner::Answer;
use inventory::state::{Command, Refusal};

use super::{Event, Pid, Press, World};
use crate::process::Bring;
use crate::shopper::{Next, Stage};

/// How long a buyer waits for an answer.
const BUYER_MS: u64 = 6_000;
/// How many come back to a node that did not answer, and for how long: so soon that what it
/// knows may still be old.
const LOOKS: usize = 12;
const LOOKS_MS: u64 = 1_000;
/// How long a request looks for its share's owner, as the node's HTTP layer does.
const SEARCH_MS: u64 = 2_500;

impl World<'_> {
    pub(super) fn press(&mut self, at: usize) {
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
        let pid = (!open.is_empty()).then(|| self.rng.pick(&open));
        let id = self.id();
        let since = self.now;
        let press = Press { shopper: at, stage, at: pid, since, done: false, looks: false };
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

    /// People whose node did not answer come back to it, and look at their orders.
    pub(super) fn come_to(&mut self, pid: Pid, from: u64) {
        for _ in 0..LOOKS {
            let soon = from + self.rng.within(0, LOOKS_MS);
            self.at(soon, Event::LookAgain(pid));
        }
    }

    /// A buyer who was told of an order looks at it once more, at this node.
    pub(super) fn look_again(&mut self, pid: Pid) {
        let told: Vec<usize> =
            (0..self.shoppers.len()).filter(|at| self.shoppers[*at].order.is_some()).collect();
        let process = &self.processes[pid];
        let away = !process.alive || process.grey_until > self.now;
        if told.is_empty() || away || self.pause(pid).is_some() {
            return;
        }
        // The newest: what is of long ago is known to everybody.
        let at = self.rng.pick(&told[told.len().saturating_sub(20)..]);
        let Some(looking) = self.shoppers[at].look(self.processes[pid].conductor.pool()) else {
            return;
        };
        let (id, since) = (self.id(), self.now);
        let stage = Stage::Read;
        let press = Press { shopper: at, stage, at: Some(pid), since, done: false, looks: true };
        self.presses.insert(id, press);
        self.at(self.now + BUYER_MS, Event::Heard(id, None));
        let until = self.processes[pid].clocks(self.now).mono.0 + SEARCH_MS;
        self.say(|| format!("buyer {at} looks again at process {pid}"));
        let (share, command) = looking;
        let bring = Bring { press: id, share, command, until };
        self.processes[pid].brings.insert(id, bring);
        self.soon(0, 2, Event::Bring(pid, id));
    }

    pub(super) fn heard(&mut self, id: u64, answer: Option<&Answer>) {
        let Some(press) = self.presses.get_mut(&id) else { return };
        if std::mem::replace(&mut press.done, true) {
            return;
        }
        let (at, stage, since, pid) = (press.shopper, press.stage, press.since, press.at);
        let looks = press.looks;
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
            Some(Answer::Refused(Refusal::Withdrawn)) => {
                self.judge.hears_withdrawn(self.now, trip.0);
            }
            Some(answer) => self.judge.hears_nonsense(self.now, answer),
        }
        if looks {
            let order = self.shoppers[at].order;
            if let (Some(answer @ Answer::Refused(_)), Some(order)) = (answer, order) {
                self.judge.hears_it_is_lost(self.now, order, answer);
            }
            return;
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
            self.at(self.now + wait, Event::Press(at));
        }
    }
}
