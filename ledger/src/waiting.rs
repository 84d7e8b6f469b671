//! The tasks that wait for a partition to grow.

use std::task::{Context, Waker};

use slab::Slab;

/// One waker for each tail that waits. Bounded by the number of tails.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    tails: Slab<Option<Waker>>,
}

/// A tail's place among the waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seat(usize);

impl Waiting {
    pub(crate) fn enter(&mut self) -> Seat {
        Seat(self.tails.insert(None))
    }

    pub(crate) fn leave(&mut self, seat: Seat) {
        self.tails.try_remove(seat.0);
    }

    pub(crate) fn wait(&mut self, seat: Seat, cx: &Context<'_>) {
        match self.tails.get_mut(seat.0) {
            Some(Some(waker)) => waker.clone_from(cx.waker()),
            Some(place) => *place = Some(cx.waker().clone()),
            None => {}
        }
    }

    pub(crate) fn wake_all(&mut self) {
        for (_, waker) in &mut self.tails {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }
}
