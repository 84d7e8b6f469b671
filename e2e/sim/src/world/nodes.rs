//! Processes: how they start, take their turns, contend for shares and end.

use inventory::conductor::{Mail, Me};
use inventory::contend::Step;
use inventory::words::{Address, Incarnation, NodeId, Offset, ShareId};

use super::{Asks, Event, For, Lane, Pid, Pod, Which, World};
use crate::process::{Act, DRIFT_PPM, Notes, Process, Running, Tail};

impl World<'_> {
    pub(super) fn start(&mut self, name: NodeId) {
        let taken = |p: &Pod| p.gone || p.leaving || self.processes[p.pid].alive;
        if self.recreating || self.pods.iter().any(|p| p.name == name && taken(p)) {
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
        let rate = self.rng.within(0, 2 * DRIFT_PPM) as i64 - DRIFT_PPM as i64;
        let ids = [self.id(), self.id()];
        self.processes.push(Process::new(me, self.now, (skew, rate), ids));
        match self.pods.iter_mut().find(|p| p.name == name) {
            Some(pod) => pod.pid = pid,
            None => self.pods.push(Pod { name, pid, leaving: false, gone: false }),
        }
        self.say(|| format!("{name} starts as process {pid}"));
        self.soon(1, 20, Event::Begin(pid));
    }

    /// A process asks where partition 0 ends, and begins when it is told.
    pub(super) fn begin_process(&mut self, pid: Pid) {
        if !self.processes[pid].alive {
            return;
        }
        let deaf = Some(self.processes[pid].deaf_until).filter(|until| *until > self.now);
        if let Some(until) = self.blocked(pid, 0).max(deaf) {
            let time = until + self.rng.within(0, 60);
            self.at(time, Event::Begin(pid));
            return;
        }
        let end = Offset(self.log[0].len() as u64);
        let process = &mut self.processes[pid];
        process.begun = true;
        process.conductor.pool_ends_at(end);
        process.pool_tail.looks = false;
        process.board_tail.looks = false;
        self.schedule_look(pid, Which::Pool);
        self.schedule_look(pid, Which::Board);
        self.soon(1, 20, Event::Tick(pid));
    }

    /// A pod of a name that was there before, once the former has gone.
    pub(super) fn come_back(&mut self, name: NodeId) {
        if self.recreating {
            return;
        }
        let Some(pod) = self.pods.iter_mut().find(|p| p.name == name) else { return };
        if !pod.gone || self.processes[pod.pid].alive {
            self.soon(300, 600, Event::ComeBack(name));
            return;
        }
        (pod.gone, pod.leaving) = (false, false);
        self.start(name);
    }

    pub(super) fn end_process(&mut self, pid: Pid) {
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

    pub(super) fn replace(&mut self, name: NodeId) {
        if let Some(pod) = self.pods.iter_mut().find(|p| p.name == name) {
            pod.gone = true;
        }
        if !self.recreating {
            let name = self.new_name();
            self.soon(500, 2_000, Event::Start(name));
        }
    }

    pub(super) fn tick(&mut self, pid: Pid) {
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

    pub(super) fn wake(&mut self, pid: Pid) {
        if !std::mem::replace(&mut self.processes[pid].woken, true) {
            self.soon(0, 2, Event::Turn(pid));
        }
    }

    pub(super) fn turn(&mut self, pid: Pid) {
        if !self.processes[pid].alive {
            return;
        }
        if !self.processes[pid].begun {
            self.processes[pid].woken = false;
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
        let read = process.conductor.pool().position().0;
        self.judge.turns(self.now, process.me.incarnation, now.wall.0, read);
        let mut acts = Vec::new();
        process.work.commands.append(&mut process.desk.inbox);
        let refuses = process.refuses_until > self.now;
        let mut hands = Notes { acts: &mut acts, desk: &mut process.desk, refuses };
        process.conductor.turn(now, &mut process.work, &mut hands);
        let conductor = &process.conductor;
        process.read_backs.retain(|share, _| conductor.is_reading(*share));
        let again = !process.desk.inbox.is_empty();
        let behind = process.board_tail.next.unwrap_or(process.hears_from);
        match process.conductor.board() {
            // What came before Genesis was read is lost to it.
            None => process.hears_from = behind,
            Some(board) => {
                let heard = process.hears_from..board.position().0;
                self.judge.believes(self.now, board, heard);
            }
        }
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
                self.judge.appends(
                    self.now,
                    share,
                    self.processes[pid].me.incarnation,
                    read,
                    &bytes,
                );
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
                self.judge.reads_anew(self.now, node, incarnation);
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

    // Contenders.

    pub(super) fn wake_contender(&mut self, pid: Pid, share: ShareId, within: u64) {
        let Some(running) = self.processes[pid].running.get_mut(&share) else { return };
        if !std::mem::replace(&mut running.woken, true) {
            let id = running.id;
            self.soon(0, within, Event::Contend(pid, share, id));
        }
    }

    pub(super) fn contend(&mut self, pid: Pid, share: ShareId, id: u64) {
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
        let folded = running.contender.has_just_folded();
        let step = running.contender.step(now);
        if folded {
            self.processes[pid].work.mail.push(Mail::Folded(share));
            self.wake(pid);
        }
        let Some(running) = self.processes[pid].running.get_mut(&share) else { return };
        match step {
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

    pub(super) fn ask_end(&mut self, pid: Pid, share: ShareId, id: u64, why: For) {
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

    pub(super) fn end_told(&mut self, pid: Pid, share: ShareId, id: u64, why: For, end: u64) {
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
            let alive = self.judge.writer(share).is_some_and(|writer| {
                self.processes.iter().any(|p| p.alive && p.me.incarnation == writer)
            });
            let who = (name, self.processes[pid].me.incarnation);
            self.judge.claims(self.now, (share, after), who, reason, alive);
            self.append(Lane::Contender(pid, share), None, bytes);
        }
        self.wake_contender(pid, share, 25);
    }
}
