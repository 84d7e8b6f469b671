//! Where a request leaves its command and waits for the answer.
//!
//! HTTP tasks and the worker share one thread: a request takes a slot, pushes a command and
//! awaits the slot; the worker takes all commands at once and fills slots. Tasks that are
//! ready run before the worker does, so the run queue itself gathers the next frame.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use inventory::conductor::{Onward, Outcome};
use inventory::owner::{Answer, Caller};
use inventory::state::Command;
use inventory::words::ShareId;
use slab::Slab;

/// Commands that wait for the worker's next turn. A turn takes under a millisecond, so that a
/// full inbox means that the core is far behind; more would only add to everybody's wait.
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
    worker: Option<Waker>,
}

/// One core's desk.
#[derive(Debug, Default)]
pub struct Desk(RefCell<Inner>);

/// The inbox is full; nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overloaded;

impl Desk {
    /// Leaves a command for a share that is owned here.
    ///
    /// # Errors
    /// [`Overloaded`]: the buyer hears "busy".
    pub fn submit(
        self: &Rc<Self>,
        share: ShareId,
        command: Command,
    ) -> Result<Pending, Overloaded> {
        let caller = self.push(share, command, Slot::Task { outcome: None, waker: None })?;
        Ok(Pending { desk: Rc::clone(self), caller })
    }

    /// Leaves a command whose answer goes to another owner of this core.
    pub(crate) fn submit_for(
        &self,
        share: ShareId,
        command: Command,
        onward: Onward,
    ) -> Result<(), Overloaded> {
        self.push(share, command, Slot::Owner(onward)).map(drop)
    }

    fn push(&self, share: ShareId, command: Command, slot: Slot) -> Result<Caller, Overloaded> {
        let mut inner = self.0.borrow_mut();
        if inner.inbox.len() >= INBOX_MAX {
            return Err(Overloaded);
        }
        inner.generation = inner.generation.wrapping_add(1);
        let generation = inner.generation;
        let index = inner.slots.insert((generation, slot));
        let caller = Caller(u64::from(generation) << 32 | index as u64);
        inner.inbox.push((share, caller, command));
        if let Some(waker) = inner.worker.take() {
            waker.wake();
        }
        Ok(caller)
    }

    /// Takes all commands that were left; asks to be woken for the next.
    pub(crate) fn collect(&self, cx: &Context<'_>, into: &mut Vec<(ShareId, Caller, Command)>) {
        let mut inner = self.0.borrow_mut();
        into.append(&mut inner.inbox);
        inner.worker = Some(cx.waker().clone());
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
    use inventory::words::{Digest128, Epoch, OrderId};

    fn read() -> Command {
        let order = OrderId { home: ShareId(1), epoch: Epoch(1), number: 1 };
        Command::Read { order, buyer: Digest128::default() }
    }

    fn collect(desk: &Desk) -> Vec<(ShareId, Caller, Command)> {
        let mut taken = Vec::new();
        desk.collect(&Context::from_waker(Waker::noop()), &mut taken);
        taken
    }

    #[test]
    fn an_answer_for_one_who_left_does_not_reach_the_next_in_the_slot() {
        let desk = Rc::new(Desk::default());
        let first = desk.submit(ShareId(1), read()).unwrap();
        let left = first.caller;
        drop(first);
        let mut second = desk.submit(ShareId(1), read()).unwrap();
        desk.answer(left, Outcome::Answered(Answer::Busy("late")));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut second).poll(&mut cx).is_pending());
        desk.answer(second.caller, Outcome::Answered(Answer::Unknown));
        assert!(Pin::new(&mut second).poll(&mut cx).is_ready());
        drop(second);
        assert_eq!(desk.waiting(), 0);
        assert_eq!(collect(&desk).len(), 2);
    }

    #[test]
    fn a_full_inbox_takes_nothing() {
        let desk = Rc::new(Desk::default());
        let held: Vec<Pending> =
            (0..INBOX_MAX).map(|_| desk.submit(ShareId(1), read()).unwrap()).collect();
        assert_eq!(desk.submit(ShareId(1), read()).unwrap_err(), Overloaded);
        assert_eq!(collect(&desk).len(), INBOX_MAX);
        assert!(desk.submit(ShareId(1), read()).is_ok());
        drop(held);
    }
}
