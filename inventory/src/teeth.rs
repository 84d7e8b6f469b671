//! Bugs that the simulator can plant, to prove that it would find them. No product is built
//! with the feature `teeth`; without it nothing is ever planted, and the compiler knows.

/// A bug that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumIter)]
#[strum(serialize_all = "kebab-case")]
pub enum Bug {
    /// A frame is confirmed when it is delivered, wherever it lies.
    ConfirmOnDelivery,
    /// A fate that is not known is taken for a delivery.
    UnknownIsDelivered,
    /// A node that starts anew goes on under its former epoch.
    RestartUnderSameEpoch,
    /// A fold passes over offsets that it has not read.
    TolerateGap,
    /// A share is read from its end.
    ReadFromLargest,
    /// Digests are those of memory, ahead of the log.
    DigestFromMemory,
    /// What was beaten last is believed, by whatever epoch.
    HighestWritten,
    /// A share is claimed as silent when it is not.
    ClaimOverLiveOwner,
    /// An order is sent to another share twice.
    RepeatTravel,
    /// A lease outlasts its machine's sleep.
    LeaseThroughSleep,
    /// A try that never came is denied without a record.
    DropRefused,
    /// A second Genesis counts.
    GenesisAgain,
    /// Blocks of an Amend enter again with the next.
    AmendTwice,
    /// An owner answers from memory without a lease.
    AnswerWithoutLease,
    /// A run that was withdrawn is sold.
    SellWithdrawn,
    /// An owner sells before it has read partition 0 to its end.
    SellBeforePool,
    /// Holds end within the grace after a take-over.
    ExpireWithoutGrace,
    /// "Sold out" is said though a share's row is missing.
    SoldOutWithoutRow,
    /// "Sold out" is said though a share has a Take to accept.
    SoldOutWithoutTake,
    /// An owner vouches for its digests however long the log keeps it waiting.
    VouchWhileStalled,
}

#[cfg(feature = "teeth")]
mod planted {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug in this thread, or none.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether the bug is planted.
    #[must_use]
    pub fn has(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "teeth")]
pub use planted::{has, plant};

/// Whether the bug is planted: never.
#[cfg(not(feature = "teeth"))]
#[must_use]
pub const fn has(_: Bug) -> bool {
    false
}
