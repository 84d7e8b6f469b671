//! The ledger as bytes: append-only partitions of records, and the board.
//!
//! This crate moves bytes and knows no seats. Three implementations pass one suite,
//! `contract`: Kafka, one file on disk, and memory. The board is a log of its own with one
//! partition, read from the end.
//!
//! - [`Log`]: append without waiting; fates come back later.
//! - [`Tail`]: read a partition from an offset on, densely, for ever.
//! - [`memory`]: partitions in this process; lost with it.
//! - [`file`]: one file, one process, durable before any fate is told.
//! - `kafka` (feature `kafka`): one topic of a Kafka cluster; also founds topics.

use std::task::{Context, Poll};

#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod file;
mod inbox;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod memory;
mod waiting;

/// The longest frame that every implementation takes.
// Kafka is the narrowest: a batch of a topic with `max.message.bytes` of 1 MiB holds a frame
// of this length with room for the batch's own header, in whatever version of its format.
pub const FRAME_BYTES_MAX: usize = 1_000_000;

/// How many appends of one handle may wait for their fates; one more is [`Refused::Full`].
// A core owns a few shares with two frames in flight each and appends now and then to the
// pool. This is far above that (128 shares, four each twice over), and low enough that what a
// stalled log holds back is a second's work, not an hour's.
pub const IN_FLIGHT_MAX: usize = 1_024;

/// How many bytes of one handle may wait for their fates; more is [`Refused::Full`].
// Frames are about a kilobyte, so this binds only when large ones pile up: 32 of the longest.
pub const IN_FLIGHT_BYTES_MAX: usize = 32 * FRAME_BYTES_MAX;

/// The index of a partition of the ledger. Partition 0 is the pool's, `1..=S` the shares'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub u16);

/// The caller's own mark on an append; comes back with its fate, never interpreted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slip(pub u64);

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Durable at this offset.
    At(u64),
    /// Durable, but the log did not tell the offset.
    Somewhere,
    /// It may or may not be written, and no further word will come.
    Unknown,
}

/// An append that was not taken: nothing was written and no fate will come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too much waits for its fate, here or in the log's own queue, or the connection is
    /// being replaced. Try again when fates arrived, at the latest with the next tick; a
    /// handle's task is woken when a connection was replaced.
    #[error("the log's queue is full")]
    Full,
    /// The frame is longer than [`FRAME_BYTES_MAX`]. It will never be taken.
    #[error("a frame of {bytes} bytes is longer than {FRAME_BYTES_MAX}")]
    TooLarge {
        /// The frame's length.
        bytes: usize,
    },
    /// The partition does not exist.
    #[error("the ledger has no partition {0:?}")]
    NoPartition(Partition),
    /// The log was shut down, or its last fatal error ended it.
    #[error("the log is closed: {0}")]
    Closed(String),
}

/// One record as it lies in the log. Offsets of a partition are dense from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it lies.
    pub partition: Partition,
    /// Its place in the partition.
    pub offset: u64,
    /// What was appended, byte for byte.
    pub bytes: Vec<u8>,
}

/// Why a tail ended. A torn tail yields nothing more; the reader folds again from the start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Torn {
    /// An offset was skipped: the reader would have missed a record.
    #[error("{partition:?}: expected offset {expected}, got {got}")]
    Gap {
        /// The partition that was read.
        partition: Partition,
        /// The offset that should have come.
        expected: u64,
        /// The offset that came.
        got: u64,
    },
    /// The log ends before the offset asked for, or starts after it.
    #[error("{partition:?}: offset {from} is out of range")]
    OutOfRange {
        /// The partition that was read.
        partition: Partition,
        /// The offset asked for.
        from: u64,
    },
    /// A final error of the log itself. Errors that heal by waiting are waited out inside.
    #[error("{0}")]
    Failed(String),
}

/// A handle on the log. Each core has its own; fates come back to the handle that appended.
pub trait Log: Send + 'static {
    /// A reader of one partition.
    type Tail: Tail;

    /// Takes a frame for `to`, without waiting; it is on its way for certain only while fates are
    /// polled, and may not be when the handle is dropped. Frames of one handle to one partition are written in the order of the calls, or
    /// their fate is `Unknown`; none is written twice.
    ///
    /// # Errors
    /// [`Refused`]: nothing was written and `slip` will not come back.
    fn append(&mut self, to: Partition, slip: Slip, frame: &[u8]) -> Result<(), Refused>;

    /// Moves the fates that are known into `out`, in no order that means anything. Ready when at
    /// least one was moved. Whoever has appended has to ask once more, or is not woken.
    fn poll_fates(&mut self, cx: &mut Context<'_>, out: &mut Vec<(Slip, Fate)>) -> Poll<()>;

    /// A reader of partition `of`, from offset `from` on (0 is the first record).
    fn tail(&self, of: Partition, from: u64) -> Self::Tail;

    /// A reader of partition `of` that starts at its end, as the partition's leader tells it
    /// soon after this call. What was durable before the call is not read. What is appended
    /// between the call and the leader's word may be skipped; from the first record on
    /// nothing is.
    fn tail_from_end(&self, of: Partition) -> Self::Tail;

    /// The offset behind the last record of `of`, as the partition's leader tells it after
    /// this call was made. Errors that heal by waiting are waited out inside.
    fn end(
        &self,
        of: Partition,
    ) -> impl Future<Output = Result<u64, Torn>> + Send + 'static + use<Self>;
}

/// A reader of one partition.
pub trait Tail: Send + 'static {
    /// Moves the records that are there into `out`, densely: each offset is its predecessor's
    /// plus one. Ready when at least one was moved, or when the tail is torn. One call moves a
    /// bounded number, so that a long history does not hold up the caller's other work.
    fn poll_records(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<Record>,
    ) -> Poll<Result<(), Torn>>;
}
