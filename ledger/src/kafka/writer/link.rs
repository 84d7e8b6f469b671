//! A broker, and how far the connection to it is.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::patience::Patience;

/// The longest time for which a broker that says that it will not listen is believed.
const DEAF_MAX: Duration = Duration::from_secs(10);

/// How long before others are asked who leads.
pub(super) const SILENCE_ODD: Duration = Duration::from_millis(400);

/// What a broker was asked.
#[derive(Debug)]
pub(super) enum Asked {
    Versions,
    Metadata,
    Identity,
    /// One frame of each of these lanes, in this attempt.
    Frames(Vec<(u16, u32)>),
}

#[derive(Debug)]
pub(super) struct Question {
    pub(super) correlation: i32,
    pub(super) asked: Asked,
    pub(super) since: Instant,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kafka) enum Stage {
    /// There is none.
    Closed,
    /// It is to be made.
    Opening,
    /// It was made, and the broker is asked what it understands.
    Greeting,
    /// It is of use.
    Open,
}

/// A broker's address, and the connection to it.
#[derive(Debug)]
pub(in crate::kafka) struct Link {
    /// `host:port`.
    pub(in crate::kafka) address: Arc<str>,
    pub(in crate::kafka) stage: Stage,
    /// Counts connections: one of another count is to be closed.
    pub(in crate::kafka) count: u32,
    /// What is to be sent. Whoever sends takes off what it sent.
    pub(in crate::kafka) out: Vec<u8>,
    pub(super) questions: VecDeque<Question>,
    /// When its stage began, or the broker last said something; later if it said how long it
    /// will not listen.
    pub(super) heard: Instant,
    pub(super) correlation: i32,
    pub(super) patience: Patience,
    /// Whether it is one to begin with, which stays.
    pub(super) is_first: bool,
    /// Whether the last metadata had it.
    pub(super) is_listed: bool,
}

impl Link {
    pub(super) fn new(address: Arc<str>, is_first: bool, now: Instant) -> Self {
        Self {
            address,
            stage: Stage::Closed,
            count: 0,
            out: Vec::new(),
            questions: VecDeque::new(),
            heard: now,
            correlation: 0,
            patience: Patience::new(now),
            is_first,
            is_listed: true,
        }
    }

    pub(super) fn open(&mut self, now: Instant) {
        if self.stage == Stage::Closed && self.patience.is_due(now) {
            (self.stage, self.heard) = (Stage::Opening, now);
            self.count = self.count.wrapping_add(1);
        }
    }

    /// Since when an answer is owed.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        match self.stage {
            Stage::Closed => None,
            Stage::Opening => Some(self.heard),
            Stage::Greeting | Stage::Open => {
                self.questions.front().map(|asked| asked.since.max(self.heard))
            }
        }
    }

    pub(super) fn is_silent(&self, now: Instant, time: Duration) -> bool {
        self.silent_since().is_some_and(|since| now.saturating_duration_since(since) >= time)
    }

    pub(super) fn is_well(&self, now: Instant) -> bool {
        self.stage == Stage::Open && self.heard <= now && !self.is_silent(now, SILENCE_ODD)
    }

    /// It will not listen for so long, and is not to be taken for hung.
    pub(super) fn is_deaf(&mut self, millis: u32, now: Instant) {
        let deaf = Duration::from_millis(millis.into()).min(DEAF_MAX);
        self.heard = self.heard.max(now + deaf);
    }

    /// Some of a long request went, and not all of it: it cannot be answered yet.
    pub(in crate::kafka) fn is_taking(&mut self, now: Instant) {
        self.heard = self.heard.max(now);
    }

    pub(super) fn frames_under_way(&self) -> usize {
        self.questions.iter().filter(|q| matches!(q.asked, Asked::Frames(_))).count()
    }

    /// Where a question is to be written, and by what number it is told from others.
    pub(super) fn ask(&mut self, asked: Asked, now: Instant) -> (&mut Vec<u8>, i32) {
        let correlation = self.correlation();
        self.expect(correlation, asked, now);
        (&mut self.out, correlation)
    }

    pub(super) fn correlation(&mut self) -> i32 {
        self.correlation = self.correlation.wrapping_add(1) & i32::MAX;
        self.correlation
    }

    /// A question was written.
    pub(super) fn expect(&mut self, correlation: i32, asked: Asked, now: Instant) {
        self.questions.push_back(Question { correlation, asked, since: now });
    }
}
