//! What waits for one partition.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::patience::Patience;
use crate::{Slip, kafka::protocol::Identity};

/// How long a leader surely knows a producer that it has confirmed something.
// By default it forgets one that was silent for a day (`producer.id.expiration.ms`).
const KNOWN_MAX: Duration = Duration::from_secs(60);

/// A frame that waits for its fate.
pub(super) struct Waiting {
    pub(super) slip: Slip,
    /// Of the frame alone.
    pub(super) bytes: usize,
    pub(super) batch: Vec<u8>,
    pub(super) since: Instant,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} of {} bytes", self.slip, self.bytes)
    }
}

/// What waits for one partition.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) waiting: VecDeque<Waiting>,
    /// How many of them, from the first on, are sent; and to whom.
    pub(super) sent: usize,
    pub(super) link: usize,
    /// Of which only the answers to the last count.
    pub(super) attempt: u32,
    pub(super) identity: Option<Identity>,
    /// The number of the first that waits.
    pub(super) number: i32,
    /// When the leader last confirmed one, if it did since it is sent to.
    pub(super) proven: Option<Instant>,
    pub(super) patience: Patience,
}

impl Lane {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            waiting: VecDeque::new(),
            sent: 0,
            link: 0,
            attempt: 0,
            identity: None,
            number: 0,
            proven: None,
            patience: Patience::new(now),
        }
    }

    /// Takes back what is sent.
    pub(super) fn rewind(&mut self) {
        (self.sent, self.proven) = (0, None);
        self.attempt = self.attempt.wrapping_add(1);
    }

    /// The next to be sent, if it may be: its place, identity and number.
    pub(super) fn next(&self, now: Instant) -> Option<(usize, Identity, i32)> {
        let is_known = |at: Instant| now.saturating_duration_since(at) < KNOWN_MAX;
        let may_follow = self.sent == 0 || self.proven.is_some_and(is_known);
        if self.sent == self.waiting.len() || !may_follow || !self.patience.is_due(now) {
            return None;
        }
        Some((self.sent, self.identity?, after(self.number, self.sent)))
    }
}

/// Numbers go from 0 to the largest `i32`, and then from 0 again.
pub(super) fn after(number: i32, frames: usize) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "31 bits")]
    let sum = ((number as u32).wrapping_add(frames as u32) & i32::MAX as u32) as i32;
    sum
}
