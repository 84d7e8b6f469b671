//! Folding a share's partition into its state.
//!
//! Owner, successor and every reader fold the same bytes and must agree. So this reads no clock
//! and no configuration, and never chooses a seat: the entry names it. Changing a verdict
//! changes history; see docs/ledger-format.md first.

use crate::codec::Malformed;
use crate::entry::Entry;
use crate::state::{Impossible, ShareState};
use crate::wire::{Chain, Frame, Header};
use crate::words::{Digest128, Epoch, Incarnation, Millis, Offset, Seq, ShareId};

/// Why a record does not count. Variants are metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Void {
    /// It is no frame, or its sum does not fit.
    Malformed,
    /// It belongs to another ledger or another partition.
    Foreign,
    /// A Claim whose epoch is not the present one plus 1.
    StaleClaim,
    /// Its writer is not the present claimant, or yielded before.
    NotTheWriter,
    /// It is not the present claimant's next frame.
    WrongSeq,
    /// It came after Genesis-dependent words but before Genesis, or its version is not next.
    WrongVersion,
}

/// Why a share is frozen: an accepted frame that this version cannot make sense of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Its entries cannot be read.
    #[error("entries: {0}")]
    Malformed(#[from] Malformed),
    /// An entry contradicts what the log said before.
    #[error("entry {index}: {why}")]
    Impossible {
        /// Its place in the frame.
        index: usize,
        /// What it contradicts.
        why: Impossible,
    },
    /// It does not carry the sum of its writer's preceding frame.
    #[error("the chain of frames is broken")]
    Chain,
    /// Its time is before the time in front of it, and it is no Claim.
    #[error("time goes back")]
    Time,
    /// An earlier record froze the share; nothing is applied any more.
    #[error("frozen before")]
    Frozen,
}

/// What a record means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It counts, and was applied.
    Accepted,
    /// It does not count, and nothing changed.
    Void(Void),
    /// It counts but cannot be applied: the share is frozen.
    Fault(Fault),
}

/// Whether a frame counts, by its header alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It opens the next epoch.
    Claim,
    /// It is the claimant's next.
    Next,
    /// It does not count.
    Void(Void),
}

/// Whose frames count in a partition: the part of the fold that looks at headers only.
/// The owner runs it too, over what it reads back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    ledger: Digest128,
    share: ShareId,
    epoch: Epoch,
    /// The claimant's process; none before the first Claim and after a Yield.
    incarnation: Option<Incarnation>,
    next: Seq,
    chain: Chain,
    now: Millis,
}

impl Writer {
    /// A partition that nobody has claimed yet.
    #[must_use]
    pub fn new(ledger: Digest128, share: ShareId) -> Self {
        Self {
            ledger,
            share,
            epoch: Epoch(0),
            incarnation: None,
            next: Seq(0),
            chain: Chain::default(),
            now: Millis(0),
        }
    }

    /// Rules S1 and S2.
    #[must_use]
    pub fn admit(&self, frame: &Frame<'_>) -> Admission {
        let header = &frame.header;
        if header.ledger != self.ledger || header.share != self.share {
            return Admission::Void(Void::Foreign);
        }
        if header.seq == Seq(0) {
            let alone = frame.count() == 1 && frame.opens_with_claim();
            let next = self.epoch.0.checked_add(1) == Some(header.epoch.0);
            return if alone && next {
                Admission::Claim
            } else {
                Admission::Void(Void::StaleClaim)
            };
        }
        if header.epoch != self.epoch || Some(header.incarnation) != self.incarnation {
            return Admission::Void(Void::NotTheWriter);
        }
        if header.seq == self.next { Admission::Next } else { Admission::Void(Void::WrongSeq) }
    }

    /// Follows an admitted frame.
    ///
    /// # Errors
    /// [`Fault`] if it breaks the chain or goes back in time; it still counts.
    pub fn follow(&mut self, admission: Admission, frame: &Frame<'_>) -> Result<(), Fault> {
        let header = &frame.header;
        let expected = match admission {
            Admission::Void(_) => return Ok(()),
            Admission::Claim => Chain::default(),
            Admission::Next => self.chain,
        };
        // A Claim is made before its writer can have seen what lands in front of it, such as the
        // last word of an owner whose clock is ahead; it must not freeze the share.
        let back = admission == Admission::Next && header.now < self.now;
        self.epoch = header.epoch;
        self.incarnation = Some(header.incarnation);
        self.next = Seq(header.seq.0.saturating_add(1));
        self.chain = frame.chain;
        self.now = self.now.max(header.now);
        if header.previous != expected {
            return Err(Fault::Chain);
        }
        if back { Err(Fault::Time) } else { Ok(()) }
    }

    /// Follows a frame of the claimant that was just made.
    pub(crate) fn sealed(&mut self, header: &Header, chain: Chain) {
        self.next = Seq(header.seq.0.saturating_add(1));
        self.chain = chain;
        self.now = self.now.max(header.now);
    }

    /// What follows is void until the next Claim.
    pub(crate) fn close(&mut self) {
        self.incarnation = None;
    }

    /// The header of the claimant's next frame.
    #[must_use]
    pub fn next_header(&self, now: Millis) -> Option<Header> {
        Some(Header {
            ledger: self.ledger,
            share: self.share,
            epoch: self.epoch,
            incarnation: self.incarnation?,
            seq: self.next,
            now: now.max(self.now),
            previous: self.chain,
        })
    }

    /// The header of a Claim of the next epoch by `incarnation`.
    #[must_use]
    pub fn claim_header(&self, incarnation: Incarnation, now: Millis) -> Header {
        Header {
            ledger: self.ledger,
            share: self.share,
            epoch: Epoch(self.epoch.0 + 1),
            incarnation,
            seq: Seq(0),
            now: now.max(self.now),
            previous: Chain::default(),
        }
    }

    /// The present epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The present claimant's process.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation
    }

    /// The latest time that the log has seen.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.now
    }

    /// The seq of the claimant's next frame.
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        self.next
    }
}

/// Folds the record at `at` into `state`. Total: any bytes give a verdict, none panics.
pub fn fold(state: &mut ShareState, at: Offset, record: &[u8]) -> Verdict {
    fold_with(state, at, record, |_, _, _| ())
}

/// [`fold`], and shows each entry, by its place in the record, behind what it did to the share.
/// Of a record that is not `Accepted` in the end the first entries may have been shown.
pub fn fold_with(
    state: &mut ShareState,
    at: Offset,
    record: &[u8],
    show: impl FnMut(usize, &Entry, &ShareState),
) -> Verdict {
    state.passed(at);
    let frame = match Frame::read(record) {
        Ok(frame) => frame,
        // Whole, and of a format that this version does not know: it may be anything, even a
        // Claim. Reading on would make another history.
        Err(why @ Malformed::Unknown { .. }) => {
            let fault = Fault::Malformed(why);
            state.freeze(at, &fault);
            return Verdict::Fault(fault);
        }
        Err(_) => return Verdict::Void(Void::Malformed),
    };
    let admission = state.writer().admit(&frame);
    if let Admission::Void(why) = admission {
        return Verdict::Void(why);
    }
    let followed = state.follow(admission, &frame);
    let result = followed.and_then(|()| apply_all(state, &frame, show));
    match result {
        Ok(()) => Verdict::Accepted,
        Err(fault) => {
            state.freeze(at, &fault);
            Verdict::Fault(fault)
        }
    }
}

fn apply_all(
    state: &mut ShareState,
    frame: &Frame<'_>,
    mut show: impl FnMut(usize, &Entry, &ShareState),
) -> Result<(), Fault> {
    let entries = frame.entries()?;
    if state.frozen().is_some() && !frame.opens_with_claim() {
        return Err(Fault::Frozen);
    }
    state.begin_frame(state.writer().now());
    state.look_ahead(&entries);
    for (index, entry) in entries.iter().enumerate() {
        // Admission lets a Claim in only where it is alone; anywhere else it is a contradiction.
        let stray = matches!(entry, Entry::Claim { .. }) && frame.header.seq != Seq(0);
        let applied = if stray { Err(Impossible::Claim) } else { state.apply(entry) };
        applied.map_err(|why| Fault::Impossible { index, why })?;
        show(index, entry, state);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Draft, FRAME_BYTES_MAX};
    use crate::words::{Address, NodeId};

    #[test]
    fn a_claim_that_is_older_than_what_landed_in_front_of_it_still_counts() {
        let (ledger, share) = (Digest128([1; 16]), ShareId(1));
        let mut state = ShareState::new(ledger, share, &[]);
        let seal = |header: &Header, entry: &Entry| {
            let mut draft = Draft::new(FRAME_BYTES_MAX);
            draft.push(entry).unwrap();
            draft.seal(header).0
        };
        let node: NodeId = "n1".parse().unwrap();
        let address: Address = "n1:1".parse().unwrap();
        let claim = Entry::Claim { node, address };
        let first = state.writer().claim_header(Incarnation(1), Millis(10));
        assert_eq!(fold(&mut state, Offset(0), &seal(&first, &claim)), Verdict::Accepted);
        // The successor has read so far; then the owner says its last word, by a clock ahead.
        let second = state.writer().claim_header(Incarnation(2), Millis(20));
        let last = state.writer().next_header(Millis(30)).unwrap();
        let last = seal(&last, &Entry::Yield { to: None });
        assert_eq!(fold(&mut state, Offset(1), &last), Verdict::Accepted);
        assert_eq!(fold(&mut state, Offset(2), &seal(&second, &claim)), Verdict::Accepted);
        assert_eq!((state.frozen(), state.now()), (None, Millis(30)));
    }
}
