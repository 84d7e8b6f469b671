//! Trying again.

use std::time::{Duration, Instant};

use crate::kafka::settings::{PAUSE_MAX, PAUSE_MIN};

/// Something that is tried again, ever more slowly, until it works.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    again: Instant,
    pause: Duration,
}

impl Patience {
    pub(super) fn new(now: Instant) -> Self {
        Self { again: now, pause: Duration::ZERO }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.again
    }

    /// The first time, and the first time for a while, it may be tried again at once.
    pub(super) fn failed(&mut self, now: Instant) {
        if now.saturating_duration_since(self.again) > 4 * PAUSE_MAX {
            self.pause = Duration::ZERO;
        }
        self.again = now + self.pause;
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
    }

    pub(super) fn worked(&mut self) {
        self.pause = Duration::ZERO;
    }
}
