//! Where records come from. A source only reads: also while a fleet writes.

use crate::words::Place;

/// Why a ledger could not be read, so that nothing can be said of it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant is")]
pub enum Unreadable {
    #[error("{0:?} names no ledger: file:PATH or kafka:HOST:PORT/TOPIC")]
    Address(String),
    #[error("this checker was built without the feature `kafka`")]
    NoKafka,
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("{path} is no ledger file: {why}")]
    NotALedger { path: String, why: &'static str },
    #[error("{path} is damaged at byte {at}: {why}")]
    Damaged { path: String, at: u64, why: &'static str },
    #[error("part of the ledger is lost: partition {partition} {why}")]
    Lost { partition: u16, why: String },
    #[error("Kafka: {0}")]
    Kafka(String),
    #[error("no Genesis was accepted, so there is no ledger to judge")]
    NoGenesis,
    #[error("the definition has {shares} shares, but there are {partitions} partitions")]
    Partitions { shares: u16, partitions: u16 },
    #[error("{path}, line {line}: {why}")]
    Answers { path: String, line: usize, why: String },
    #[error("could not write: {0}")]
    Output(#[from] std::io::Error),
}

/// Which partitions to read. The pool is read first, because it says what shares start with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Partition 0.
    Pool,
    /// All others; each in its own order.
    Shares,
}

/// When a record came to be there by the clock of the log itself, in milliseconds since 1970,
/// where it has one. Its writer may have begun it long before.
pub type Appended = Option<u64>;

/// What is done with each record.
pub type Each<'a> = dyn FnMut(Place, Appended, &[u8]) -> Result<(), Unreadable> + 'a;

/// A raw ledger, up to an end that is fixed when it is opened.
pub trait Ledger {
    /// The ledger's name, where its container knows it.
    fn name(&self) -> Option<&str>;

    /// How many partitions there are, the pool included.
    fn partitions(&self) -> u16;

    /// Whatever a record below this offset refers to in another partition, this reading holds it
    /// if it exists. A record behind may refer to what was written after the other's end.
    fn settled(&self, partition: u16) -> u64;

    /// Reads these partitions from their first record to the end.
    fn read(&mut self, part: Part, each: &mut Each<'_>) -> Result<(), Unreadable>;
}

/// Opens a ledger by its address.
pub fn open(address: &str) -> Result<Box<dyn Ledger>, Unreadable> {
    if let Some(path) = address.strip_prefix("file:") {
        return Ok(Box::new(crate::file::FileLedger::open(path)?));
    }
    let (brokers, name) = topic(address)?;
    open_kafka(brokers, name)
}

/// The brokers and the name of a topic, by its address.
pub fn topic(address: &str) -> Result<(&str, &str), Unreadable> {
    let parts = address.strip_prefix("kafka:").and_then(|rest| rest.split_once('/'));
    parts.ok_or_else(|| Unreadable::Address(address.to_owned()))
}

#[cfg(feature = "kafka")]
fn open_kafka(brokers: &str, topic: &str) -> Result<Box<dyn Ledger>, Unreadable> {
    Ok(Box::new(crate::kafka::KafkaLedger::open(brokers, topic)?))
}

#[cfg(not(feature = "kafka"))]
fn open_kafka(_brokers: &str, _topic: &str) -> Result<Box<dyn Ledger>, Unreadable> {
    Err(Unreadable::NoKafka)
}
