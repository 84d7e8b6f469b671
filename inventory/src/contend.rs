//! Wanting a share: fold it to its end, wait for a reason, claim, read the Claim back.
//!
//! Folding a long log takes seconds, so the node drives a [`Contender`] beside its worker. The
//! machine says what to do next; whoever drives it reads, appends and asks where the log ends.

use crate::board::LEASE_MS;
use crate::claim::{Reason, Standing, may_claim, patience_ms};
use crate::fold::Verdict;
use crate::owner::{Candidate, Now, Owner, Progress};
use crate::state::ShareState;
use crate::teeth::{self, Bug};
use crate::words::{Millis, Offset, ShareId};

/// A Claim that was not read back by then is appended again; a second one of the same epoch
/// by the same process is void or harmless.
const CLAIM_PATIENCE_MS: u64 = 5_000;

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Read on, or wait for word.
    Read,
    /// Ask the log where the share's partition ends, and hand that to [`Contender::claim`].
    AskEnd,
    /// The share is owned: [`Contender::into_owner`].
    Owns,
    /// The share is wanted no more, and no Claim is out.
    Forget,
}

/// A candidate with its chances.
#[derive(Debug, Clone)]
pub struct Contender {
    candidate: Candidate,
    prospect: Option<(Standing, Now)>,
    /// Where the partition ended when that was last asked; none before the first time.
    end: Option<Offset>,
    fruitless: u32,
    not_before: Millis,
    claimed: Option<Millis>,
    yielded: Option<Millis>,
    told_folded: bool,
    owns: bool,
}

impl Contender {
    /// Begins with nothing folded.
    #[must_use]
    pub fn new(candidate: Candidate, prospect: (Standing, Now)) -> Self {
        Self {
            candidate,
            prospect: Some(prospect),
            end: None,
            fruitless: 0,
            not_before: Millis(0),
            claimed: None,
            yielded: None,
            told_folded: false,
            owns: false,
        }
    }

    /// Which share this is about.
    #[must_use]
    pub fn share(&self) -> ShareId {
        self.candidate.state().share()
    }

    /// Where to begin reading the share's partition.
    #[must_use]
    pub fn reads_from(&self) -> Offset {
        if teeth::has(Bug::ReadFromLargest) {
            return Offset(u64::MAX);
        }
        self.state().position()
    }

    /// The share as folded so far.
    #[must_use]
    pub fn state(&self) -> &ShareState {
        self.candidate.state()
    }

    /// How the node stood when it last said so.
    #[must_use]
    pub fn prospect(&self) -> Option<(Standing, Now)> {
        self.prospect
    }

    /// How the node stands by now; none if it does not want the share any more.
    pub fn tell(&mut self, prospect: Option<(Standing, Now)>) {
        self.prospect = prospect;
    }

    /// Whether the share is folded as far as its partition went when that was asked: once true, the
    /// node is to be told, and it is not true again.
    pub fn has_just_folded(&mut self) -> bool {
        let just = !self.told_folded && self.is_folded();
        self.told_folded |= just;
        just
    }

    fn is_folded(&self) -> bool {
        self.end.is_some_and(|end| self.state().position() >= end)
    }

    /// What to do next.
    #[must_use]
    pub fn step(&self, now: Now) -> Step {
        if self.owns {
            return Step::Owns;
        }
        // Wanted no more, but the Claim is out: whoever it makes an owner has to serve.
        let waits = self.claimed.is_some_and(|at| now.mono.since(at) <= CLAIM_PATIENCE_MS);
        if self.prospect.is_none() && !waits {
            return Step::Forget;
        }
        if self.end.is_none() || self.is_folded() && !waits && self.reason(now).is_some() {
            return Step::AskEnd;
        }
        Step::Read
    }

    /// Why the share may be claimed now, if it may.
    fn reason(&self, now: Now) -> Option<Reason> {
        let (mut standing, at) = self.prospect.filter(|_| now.mono >= self.not_before)?;
        // The owner may have spoken since: what the node does not say anew is no reason. Both
        // clocks, since the monotonic one does not count sleep.
        if now.mono.since(at.mono).max(now.wall.since(at.wall)) > LEASE_MS {
            return None;
        }
        standing.yielded_ms = self.yielded.map_or(0, |at| now.mono.since(at));
        may_claim(self.state(), &standing)
    }

    /// The partition ends at `end`, as asked for. A Claim to append, and why, if it is time.
    /// A Claim is for a log that was read to its end.
    pub fn claim(&mut self, now: Now, end: Offset) -> Option<(Reason, Vec<u8>)> {
        self.end = Some(end);
        if self.state().position() < end {
            return None;
        }
        let reason = self.reason(now)?;
        if reason == Reason::OwnBefore && teeth::has(Bug::RestartUnderSameEpoch) {
            self.owns = true;
            return None;
        }
        self.claimed = Some(now.mono);
        Some((reason, self.candidate.claim(now.wall)))
    }

    /// The log took the Claim not.
    pub fn not_taken(&mut self) {
        self.claimed = None;
    }

    /// Folds the next record.
    pub fn read(&mut self, now: Now, at: Offset, record: &[u8]) -> Verdict {
        if self.owns {
            // The owner begins behind its own Claim, and reads back what follows if it must.
            return Verdict::Accepted;
        }
        let (verdict, progress) = self.candidate.read(at, record);
        if self.state().yielded().is_none() {
            self.yielded = None;
        } else {
            self.yielded.get_or_insert(now.mono);
        }
        match progress {
            Progress::Reading => {}
            Progress::Owns => self.owns = true,
            Progress::Lost => {
                self.fruitless += 1;
                self.claimed = None;
                self.not_before = now.mono.plus(patience_ms(self.fruitless));
            }
        }
        verdict
    }

    /// The owner that the accepted Claim makes. To be called after [`Step::Owns`] only.
    #[must_use]
    pub fn into_owner(self, now: Now) -> Owner {
        self.candidate.into_owner(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::tests::one_run;
    use crate::pool::tests::founded;
    use crate::words::{Incarnation, NodeId};

    #[test]
    fn what_its_node_said_long_ago_is_no_reason_to_claim() {
        let pool = founded(one_run(3, 1, 1, 0));
        let me: NodeId = "n1".parse().unwrap();
        let incarnation = Incarnation(1);
        let standing = Standing {
            me,
            incarnation,
            assigned: Some(me),
            planned: true,
            evict: None,
            silent_ms: None,
            first_in_line: false,
            yielded_ms: 0,
        };
        let now = |ms| Now { wall: Millis(1_000_000 + ms), mono: Millis(50_000 + ms) };
        let address = "127.0.0.1:1".parse().unwrap();
        let candidate = Candidate::new(&pool, ShareId(1), me, address, incarnation).unwrap();
        let mut contender = Contender::new(candidate, (standing, now(0)));
        assert!(!contender.has_just_folded(), "it does not know yet how much there is");
        let late = now(LEASE_MS + 1);
        let woken = Now { mono: now(0).mono, ..late };
        assert!(contender.claim(late, Offset(0)).is_none());
        assert!(contender.claim(woken, Offset(0)).is_none(), "it slept meanwhile");
        assert!(contender.has_just_folded(), "it has read all that there was when it asked");
        assert!(!contender.has_just_folded(), "its node is told once");
        contender.tell(Some((standing, woken)));
        assert!(contender.claim(woken, Offset(0)).is_some());
    }
}
