//! Where a request waits for the answer to its command.
//!
//! HTTP tasks and the worker share one thread: a request takes a slot, has its command decided,
//! and awaits the slot if the answer has to wait for the log; the worker fills slots. Tasks that
//! are ready run before the worker does, so the run queue itself gathers the next frame.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use inventory::conductor::{Onward, Outcome};
use inventory::owner::{Answer, Caller};
use inventory::state::Command;
use inventory::words::ShareId;
use slab::Slab;

/// Commands of owners of this core for others of it, which wait for the worker's next turn. A turn
/// takes under a millisecond, so that a full inbox means that the core is far behind.
const INBOX_MAX: usize = 4_096;

/// Who waits in a slot.
#[derive(Debug)]
enum Slot {
    /// A task of this core.
    Task { outcome: Option<Outcome>, waker: Option<Waker> },
    /// An owner of this core.
    Owner(Onward),
}

#[derive(Debug, Default)]
struct Inner {
    /// Each slot with its generation, so that a late answer never meets the next tenant.
    slots: Slab<(u32, Slot)>,
    generation: u32,
    inbox: Vec<(ShareId, Caller, Command)>,
    /// A command was decided since the worker looked.
    decided: bool,
    worker: Option<Waker>,
}

impl Inner {
    fn take_slot(&mut self, slot: Slot) -> Caller {
        self.generation = self.generation.wrapping_add(1);
        let index = self.slots.insert((self.generation, slot));
        Caller(u64::from(self.generation) << 32 | index as u64)
    }

    fn wake_worker(&mut self) {
        if let Some(waker) = self.worker.take() {
            waker.wake();
        }
    }
}

/// One core's desk.
#[derive(Debug, Default)]
pub struct Desk(RefCell<Inner>);

/// The inbox is full; nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overloaded;

impl Desk {
    /// Has a command decided by `decide`, which is told who asks. If that gives no outcome, it
    /// comes with one of the worker's next turns.
    pub fn ask(self: &Rc<Self>, decide: impl FnOnce(Caller) -> Option<Outcome>) -> Asked {
        let caller = self.0.borrow_mut().take_slot(Slot::Task { outcome: None, waker: None });
        let decided = decide(caller);
        let mut inner = self.0.borrow_mut();
        if let Some(outcome) = decided {
            inner.slots.remove(split(caller).1);
            return Asked::Now(outcome);
        }
        inner.decided = true;
        inner.wake_worker();
        Asked::Later(Pending { desk: Rc::clone(self), caller })
    }

    /// Leaves a command whose answer goes to another owner of this core.
    ///
    /// # Errors
    /// [`Overloaded`]: nothing was taken.
    pub(crate) fn leave(
        &self,
        share: ShareId,
        command: Command,
        onward: Onward,
    ) -> Result<(), Overloaded> {
        let mut inner = self.0.borrow_mut();
        if inner.inbox.len() >= INBOX_MAX {
            return Err(Overloaded);
        }
        let caller = inner.take_slot(Slot::Owner(onward));
        inner.inbox.push((share, caller, command));
        inner.wake_worker();
        Ok(())
    }

    /// Takes what has come since: commands that were left, and whether others were decided. Asks
    /// to be woken for the next.
    pub(crate) fn collect(
        &self,
        cx: &Context<'_>,
        into: &mut Vec<(ShareId, Caller, Command)>,
    ) -> bool {
        let mut inner = self.0.borrow_mut();
        into.append(&mut inner.inbox);
        if !inner.worker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            inner.worker = Some(cx.waker().clone());
        }
        std::mem::take(&mut inner.decided)
    }

    /// Fills a slot. Whoever has gone is not told; what is for another owner is handed back.
    pub(crate) fn answer(&self, caller: Caller, outcome: Outcome) -> Option<(Onward, Outcome)> {
        let mut inner = self.0.borrow_mut();
        let (generation, index) = split(caller);
        let (tenant, slot) = inner.slots.get_mut(index)?;
        if *tenant != generation {
            return None;
        }
        if let Slot::Task { outcome: filled, waker } = slot {
            *filled = Some(outcome);
            if let Some(waker) = waker.take() {
                waker.wake();
            }
            return None;
        }
        match inner.slots.remove(index).1 {
            Slot::Owner(onward) => Some((onward, outcome)),
            Slot::Task { .. } => None,
        }
    }

    /// Callers that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.borrow().slots.len()
    }
}

fn split(caller: Caller) -> (u32, usize) {
    ((caller.0 >> 32) as u32, (caller.0 & 0xffff_ffff) as usize)
}

/// What came of asking.
#[derive(Debug)]
pub enum Asked {
    /// The outcome is known.
    Now(Outcome),
    /// It will be.
    Later(Pending),
}

impl Asked {
    /// Waits for it.
    pub async fn outcome(self) -> Outcome {
        match self {
            Self::Now(outcome) => outcome,
            Self::Later(pending) => pending.await,
        }
    }
}

/// A command that waits. Dropping it forgets the answer, not the command.
#[derive(Debug)]
pub struct Pending {
    desk: Rc<Desk>,
    caller: Caller,
}

impl Future for Pending {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let mut inner = self.desk.0.borrow_mut();
        let (_, index) = split(self.caller);
        let Some((_, Slot::Task { outcome, waker })) = inner.slots.get_mut(index) else {
            return Poll::Ready(Outcome::Answered(Answer::Unknown));
        };
        match outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let (generation, index) = split(self.caller);
        let mut inner = self.desk.0.borrow_mut();
        if inner.slots.get(index).is_some_and(|(tenant, _)| *tenant == generation) {
            inner.slots.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inventory::words::{Attempt, Digest128, Epoch, OrderId};

    fn read() -> Command {
        let order = OrderId { home: ShareId(1), epoch: Epoch(1), number: 1 };
        Command::Read { order, buyer: Digest128::default() }
    }

    fn collect(desk: &Desk) -> (Vec<(ShareId, Caller, Command)>, bool) {
        let mut taken = Vec::new();
        let decided = desk.collect(&Context::from_waker(Waker::noop()), &mut taken);
        (taken, decided)
    }

    fn later(desk: &Rc<Desk>) -> Pending {
        let Asked::Later(pending) = desk.ask(|_| None) else { panic!("it is not decided") };
        pending
    }

    #[test]
    fn an_answer_for_one_who_left_does_not_reach_the_next_in_the_slot() {
        let desk = Rc::new(Desk::default());
        let first = later(&desk);
        let left = first.caller;
        drop(first);
        let mut second = later(&desk);
        desk.answer(left, Outcome::Answered(Answer::Busy("late")));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut second).poll(&mut cx).is_pending());
        desk.answer(second.caller, Outcome::Answered(Answer::Unknown));
        assert!(Pin::new(&mut second).poll(&mut cx).is_ready());
        drop(second);
        assert_eq!(desk.waiting(), 0);
        assert_eq!(collect(&desk), (Vec::new(), true));
        assert_eq!(collect(&desk), (Vec::new(), false));
    }

    #[test]
    fn what_is_decided_at_once_keeps_no_slot_and_wakes_nobody() {
        let desk = Rc::new(Desk::default());
        let asked = desk.ask(|_| Some(Outcome::Rehomed));
        assert!(matches!(asked, Asked::Now(Outcome::Rehomed)));
        assert_eq!(desk.waiting(), 0);
        assert!(!collect(&desk).1);
    }

    #[test]
    fn a_full_inbox_takes_nothing() {
        let desk = Rc::new(Desk::default());
        let order = OrderId { home: ShareId(1), epoch: Epoch(1), number: 1 };
        let onward = Onward::Travel { home: ShareId(2), order, attempt: Attempt(1) };
        let leave = || desk.leave(ShareId(1), read(), onward);
        (0..INBOX_MAX).for_each(|_| leave().unwrap());
        assert_eq!(leave(), Err(Overloaded));
        assert_eq!(collect(&desk).0.len(), INBOX_MAX);
        assert!(leave().is_ok());
    }
}
