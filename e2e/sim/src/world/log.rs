//! The log: appends on their way, records, fates, and those who read.

use inventory::conductor::{Mark, Torn};
use inventory::owner::Fate;
use inventory::words::{Offset, ShareId};

use super::{Event, Lane, Pending, Pid, Which, World};
use crate::process::{Kept, Tail};

/// Kafka's message timeout.
const MESSAGE_MS: u64 = 30_000;

impl World<'_> {
    pub(super) fn board(&self) -> u16 {
        u16::try_from(self.log.len() - 1).unwrap_or(u16::MAX)
    }

    pub(super) fn append(&mut self, lane: Lane, mark: Option<Mark>, bytes: Vec<u8>) {
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
    pub(super) fn blocked(&self, pid: Pid, partition: u16) -> Option<u64> {
        let process = &self.processes[pid];
        let down = self.down_until[usize::from(partition)];
        let until = process.paused_until.max(process.cut_until).max(self.gone_until).max(down);
        (until > self.now).then_some(until)
    }

    /// The first append of a lane reaches its broker.
    pub(super) fn lane(&mut self, lane: Lane) {
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
    pub(super) fn commit(&mut self, partition: u16, bytes: &[u8]) -> u64 {
        let at = usize::from(partition);
        let offset = self.log[at].len() as u64;
        self.log[at].push(bytes.to_vec());
        self.mix(u64::from(partition) << 32 | offset);
        for chunk in bytes.chunks(8) {
            let word = chunk.iter().fold(0_u64, |word, b| word << 8 | u64::from(*b));
            self.mix(word);
        }
        if partition == self.board() {
            self.judge.beat(self.now, offset, bytes);
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

    pub(super) fn fate(&mut self, pid: Pid, mark: Mark, fate: Fate, since: u64) {
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
            let took = process.awake(since, self.now);
            self.judge.delivered(self.now, mark.share(), who, since, took);
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

    pub(super) fn schedule_look(&mut self, pid: Pid, which: Which) {
        let Some(tail) = self.tail(pid, which).filter(|tail| !tail.looks) else { return };
        tail.looks = true;
        let id = tail.id;
        let slow = self.slow_reads.get(&self.partition(which)).is_some_and(|u| *u > self.now);
        let most = if slow { 2_500 } else { 6 };
        self.soon(1, most, Event::Look(pid, which, id));
    }

    /// A tail takes what is there.
    pub(super) fn look(&mut self, pid: Pid, which: Which, id: u64) {
        let (partition, now) = (self.partition(which), self.now);
        if !self.processes[pid].alive || self.tail(pid, which).is_none_or(|tail| tail.id != id) {
            return;
        }
        let kept = match which {
            Which::Pool => Kept::Pool,
            Which::Board => Kept::Board,
            Which::ReadBack(_) | Which::Contender(_) => Kept::Shares,
        };
        let stuck = self.processes[pid].stuck.get(&kept).copied().unwrap_or(0);
        let deaf = Some(stuck.max(self.processes[pid].deaf_until)).filter(|until| *until > now);
        if let Some(until) = self.blocked(pid, partition).max(deaf) {
            let time = until + self.rng.within(0, 60);
            self.at(time, Event::Look(pid, which, id));
            return;
        }
        let end = self.log[usize::from(partition)].len() as u64;
        let most = self.rng.within(1, 60);
        if which == Which::Board && self.processes[pid].board_tail.next.is_none() {
            self.processes[pid].hears_from = end;
        }
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
}
