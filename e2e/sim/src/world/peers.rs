//! What nodes ask of each other, and of Redis.

use inventory::conductor::{self, Lost, Mail, Place, last_word};
use inventory::draw::{self, Drawing, Told};
use inventory::message::{decode_answer, decode_command, encode_answer, encode_command};
use inventory::owner::Answer;
use inventory::state::Command;
use inventory::words::{Address, Request, ShareId};

use super::{Asks, Call, Event, Lane, Pid, World};
use crate::process::Slot;

/// How long a peer's answer is waited for, as the node's courier does.
const COURIER_MS: u64 = 3_500;
/// How long an unreachable peer is tried.
const CONNECT_MS: u64 = 500;
/// How often a request looks for its share's owner.
const SEARCH_STEP_MS: u64 = 25;

impl World<'_> {
    fn reaches(&self, from: Pid, to: Pid) -> bool {
        let cut = self.one_way.get(&(from, to)).is_some_and(|until| *until > self.now);
        let grey = |pid: Pid| self.processes[pid].grey_until > self.now;
        !cut && !grey(from) && !grey(to)
    }

    pub(super) fn call(
        &mut self,
        from: Pid,
        to: Address,
        share: ShareId,
        command: &Command,
        asks: Asks,
    ) {
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
    pub(super) fn called(&mut self, id: u64) {
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

    pub(super) fn answered(&mut self, id: u64, answer: &Answer) {
        let Ok(answer) = decode_answer(&encode_answer(answer)) else {
            self.judge.late(self.now, "every answer can be read", format!("call {id}"));
            return;
        };
        self.call_over(id, Ok(answer));
    }

    pub(super) fn call_over(&mut self, id: u64, sent: Result<Answer, Lost>) {
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
    pub(super) fn told(&mut self, pid: Pid, slot: Slot, outcome: conductor::Outcome) {
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

    pub(super) fn bring(&mut self, pid: Pid, id: u64) {
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

    pub(super) fn begin_draw(&mut self, pid: Pid, drawing: Drawing) {
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

    pub(super) fn ask_redis(&mut self, pid: Pid, drawing: Drawing, step: &draw::Step) {
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

    pub(super) fn redis_told(&mut self, pid: Pid, mut drawing: Drawing, told: Told) {
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
}
