//! A topic of a Kafka cluster as a ledger, or as the board. The only place with librdkafka.
//!
//! - [`KafkaLedger`]: one topic. One producer for all handles of the process, from which each
//!   fetches fates (`producer`); consumers that many tails share (`tails`).
//! - [`Relay`]: carries what a topic says into another, exactly once.
//! - [`Topics`]: founds topics, or checks that they are as they must be.
//! - `settings`: every setting of librdkafka that is not its default, with the reason.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode as Code},
    producer::BaseRecord,
};
use tokio::sync::watch;

use crate::{
    Fate, Log, Partition, Refused, Slip, Torn,
    inbox::{self, Inbox, Outbox},
};
use producer::Producer;
use settings::Kept;
use tails::Readers;

pub use relay::{Lost, Message, News, Relay, Route};
pub use tails::KafkaTail;
pub use topics::{Difference, Keep, Topic, TopicId, TopicSpec, Topics};

mod native;
mod producer;
mod relay;
mod settings;
mod tails;
mod topics;

/// How to reach a cluster.
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// `host:port`, several with commas between.
    pub bootstrap_servers: String,
    /// What brokers call this client in their logs and quotas.
    pub client_id: String,
    /// Settings of librdkafka, such as those of SASL. What a ledger's safety rests on is set
    /// after them and wins.
    pub options: Vec<(String, String)>,
}

/// Why a cluster or a topic cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// No broker answered.
    #[error("no broker of {servers} answered: {why}")]
    Unreachable {
        /// The addresses that were tried.
        servers: String,
        /// The client's word.
        why: String,
    },
    /// The cluster does not know us, or does not let us.
    #[error("the cluster refuses this identity: {0}")]
    AuthenticationFailed(String),
    /// There is no such topic.
    #[error("there is no topic {0}")]
    TopicMissing(String),
    /// The topic exists and is not as it must be. It was not altered.
    #[error("topic {topic}: {}", list(.differences))]
    Misconfigured {
        /// The topic.
        topic: String,
        /// Everything that differs.
        differences: Vec<Difference>,
    },
    /// The cluster answered, and said no.
    #[error("the cluster refuses: {0}")]
    Refused(String),
    /// A setting that librdkafka does not know or take.
    #[error("a Kafka setting is wrong: {0}")]
    Setting(String),
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// One topic as a log: the ledger's, or the board's.
///
/// Dropping it closes it: handles refuse from then on, and what was not confirmed within a
/// second is `Unknown`.
#[derive(Debug)]
pub struct KafkaLedger {
    topic: Arc<str>,
    partitions: u16,
    producer: Producer,
    readers: Readers,
}

impl KafkaLedger {
    /// Connects to a topic that exists. Blocks until the cluster told how many partitions it
    /// has, for `patience` at most, so call it where blocking is allowed.
    ///
    /// # Errors
    /// Every [`Trouble`] but `Misconfigured`.
    pub fn connect(
        config: &KafkaConfig,
        topic: &str,
        patience: Duration,
    ) -> Result<KafkaLedger, Trouble> {
        Self::open(config, topic, patience, Kept::ForEver)
    }

    /// Connects to a topic of news, such as the board: appends are given up after seconds.
    ///
    /// # Errors
    /// Every [`Trouble`] but `Misconfigured`.
    pub fn connect_for_news(
        config: &KafkaConfig,
        topic: &str,
        patience: Duration,
    ) -> Result<KafkaLedger, Trouble> {
        Self::open(config, topic, patience, Kept::ForNow)
    }

    fn open(
        config: &KafkaConfig,
        topic: &str,
        patience: Duration,
        keep: Kept,
    ) -> Result<KafkaLedger, Trouble> {
        let topic: Arc<str> = topic.into();
        let readers = Readers::start(config, &topic)?;
        let consumer = readers.asking();
        let metadata = consumer.fetch_metadata(Some(&topic), patience);
        let metadata = metadata.map_err(|error| {
            // The reason for a silence, if there is one, waits in the consumer's event queue.
            hear(consumer);
            consumer.client().context().trouble(config, &topic, &error)
        })?;
        let found = metadata.topics().iter().find(|found| found.name() == &*topic);
        let found = found.ok_or_else(|| Trouble::TopicMissing(topic.to_string()))?;
        if let Some(error) = found.error() {
            return Err(trouble_of(config, &topic, Code::from(error)));
        }
        let partitions = u16::try_from(found.partitions().len())
            .map_err(|_| Trouble::Refused(format!("topic {topic} has too many partitions")))?;
        if partitions == 0 {
            return Err(Trouble::TopicMissing(topic.to_string()));
        }
        if partitions > 1 {
            readers.warm();
        }
        let producer = Producer::start(config, keep)?;
        Ok(KafkaLedger { topic, partitions, producer, readers })
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// How many partitions the topic has.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// A handle of its own fates on this topic.
    #[must_use]
    pub fn handle(&self) -> KafkaLog {
        let (outbox, inbox) = inbox::pair();
        let link = self.producer.link();
        let handle = self.producer.enter(outbox);
        KafkaLog {
            topic: Arc::clone(&self.topic),
            partitions: self.partitions,
            inbox,
            handle,
            producer: Weak::new(),
            link,
            readers: self.readers.clone(),
        }
    }

    /// Waits until everything accepted has its fate, for `patience` at most; what has none by
    /// then is `Unknown`. Blocks.
    pub fn close(self, patience: Duration) {
        self.producer.close(patience);
    }
}

/// The handles that fates go to. A number is never given out twice, so a late fate cannot
/// reach a newer handle.
#[derive(Debug, Default)]
struct Handles {
    next: u32,
    outboxes: BTreeMap<u32, Outbox>,
}

/// A handle's place among [`Handles`]; given back by dropping it.
#[derive(Debug)]
struct Handle {
    number: u32,
    handles: Arc<watch::Sender<Handles>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.handles.send_modify(|handles| {
            handles.outboxes.remove(&self.number);
        });
    }
}

/// A handle on a topic.
#[derive(Debug)]
pub struct KafkaLog {
    topic: Arc<str>,
    partitions: u16,
    inbox: Inbox,
    handle: Handle,
    /// The producer as `link` last told it. Weak, because destroying one takes long, and the
    /// last owner does it: that must be its own thread, never a core.
    producer: Weak<producer::Native>,
    link: watch::Receiver<Weak<producer::Native>>,
    readers: Readers,
}

impl KafkaLog {
    /// The present producer; it is not there while it is being replaced.
    fn producer(&mut self) -> Result<Arc<producer::Native>, Refused> {
        match self.link.has_changed() {
            Ok(false) if self.producer.strong_count() > 0 => {}
            Ok(_) => self.producer = self.link.borrow_and_update().clone(),
            Err(_) => return Err(Refused::Closed("the connection was closed".to_owned())),
        }
        self.producer.upgrade().ok_or(Refused::Full)
    }
}

impl Log for KafkaLog {
    type Tail = KafkaTail;

    fn append(&mut self, to: Partition, slip: Slip, frame: &[u8]) -> Result<(), Refused> {
        if to.0 >= self.partitions {
            return Err(Refused::NoPartition(to));
        }
        let producer = self.producer()?;
        let slot = self.inbox.admit(slip, frame.len())?;
        let opaque = producer::opaque(self.handle.number, slot);
        let record = BaseRecord::<(), [u8], usize>::with_opaque_to(&self.topic, opaque)
            .partition(i32::from(to.0))
            .payload(frame);
        let Err((error, _)) = producer.send(record) else { return Ok(()) };
        self.inbox.withdraw(slot);
        Err(match error.rdkafka_error_code() {
            // Its own queue is full; or it failed for good and is being replaced.
            Some(Code::QueueFull | Code::Fatal | Code::State) => Refused::Full,
            Some(Code::UnknownPartition) => Refused::NoPartition(to),
            Some(Code::MessageSizeTooLarge) => Refused::TooLarge { bytes: frame.len() },
            _ => Refused::Closed(error.to_string()),
        })
    }

    fn poll_fates(&mut self, cx: &mut Context<'_>, out: &mut Vec<(Slip, Fate)>) -> Poll<()> {
        loop {
            // Whoever waits for nothing leaves the fates of others to those.
            if self.inbox.is_waiting()
                && let Ok(producer) = self.producer()
            {
                producer.fetch();
            }
            if self.inbox.poll(cx, out).is_ready() {
                return Poll::Ready(());
            }
            // What came before the inbox was looked at has rung in vain; what comes now wakes.
            let is_due = self.inbox.is_waiting() && self.producer().is_ok_and(|it| it.is_due());
            if !is_due {
                return Poll::Pending;
            }
        }
    }

    fn tail(&self, of: Partition, from: u64) -> KafkaTail {
        if of.0 >= self.partitions {
            return KafkaTail::torn(of, no_partition(of));
        }
        self.readers.tail(of, from)
    }

    fn tail_from_end(&self, of: Partition) -> KafkaTail {
        if of.0 >= self.partitions {
            return KafkaTail::torn(of, no_partition(of));
        }
        self.readers.tail_from_end(of)
    }

    fn end(
        &self,
        of: Partition,
    ) -> impl Future<Output = Result<u64, Torn>> + Send + 'static + use<> {
        let end = (of.0 < self.partitions).then(|| self.readers.end(of));
        async move {
            match end {
                Some(end) => end.await,
                None => Err(no_partition(of)),
            }
        }
    }
}

fn no_partition(of: Partition) -> Torn {
    Torn::Failed(Refused::NoPartition(of).to_string())
}

/// Lets a consumer's listener hear the events that wait.
fn hear(consumer: &BaseConsumer<Listener>) {
    // Asked without any patience it returns behind the first line of its log, as if nothing
    // else waited.
    while consumer.poll(Duration::from_millis(1)).is_some() {}
}

/// How often a client may complain. One whose brokers are away does so many times a second, for
/// each connection and attempt, which would push everything else out of a pod's log.
const COMPLAIN_EVERY: Duration = Duration::from_secs(5);

/// Hears what a client says beside its answers.
#[derive(Debug)]
struct Listener {
    /// The first refusal of our identity. librdkafka tells it as an event, and calls that wait
    /// then time out without a reason.
    refusal: OnceLock<String>,
    born: Instant,
    /// When it may complain again, in milliseconds since it was born.
    quiet_until_ms: AtomicU64,
}

impl Default for Listener {
    fn default() -> Self {
        let (refusal, quiet_until_ms) = (OnceLock::new(), AtomicU64::new(0));
        Self { refusal, born: Instant::now(), quiet_until_ms }
    }
}

impl Listener {
    fn may_complain(&self) -> bool {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = ms(self.born.elapsed());
        let next = now.saturating_add(ms(COMPLAIN_EVERY));
        let due = |until: u64| (now >= until).then_some(next);
        self.quiet_until_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due).is_ok()
    }

    /// What an error means to a caller who asked about `topic`.
    fn trouble(&self, config: &KafkaConfig, topic: &str, error: &KafkaError) -> Trouble {
        let code = match error {
            KafkaError::AdminOp(code) => Some(*code),
            other => other.rdkafka_error_code(),
        };
        match (self.refusal.get(), code) {
            (Some(refusal), _) => Trouble::AuthenticationFailed(refusal.clone()),
            (None, Some(code)) => trouble_of(config, topic, code),
            (None, None) => Trouble::Setting(error.to_string()),
        }
    }
}

fn trouble_of(config: &KafkaConfig, topic: &str, code: Code) -> Trouble {
    match code {
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            Trouble::TopicMissing(topic.to_owned())
        }
        code if is_refusal(code) => Trouble::AuthenticationFailed(code.to_string()),
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::RequestTimedOut
        | Code::Resolve
        // Nobody leads a partition yet, or any more.
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::OffsetNotAvailable => Trouble::Unreachable {
            servers: config.bootstrap_servers.clone(),
            why: code.to_string(),
        },
        code => Trouble::Refused(code.to_string()),
    }
}

fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
    )
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        match level {
            RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                tracing::debug!(facility, "{line}");
            }
            _ if self.may_complain() => tracing::warn!(facility, "{line}"),
            _ => tracing::debug!(facility, "{line}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code().is_some_and(is_refusal) {
            let _ = self.refusal.set(reason.to_owned());
        }
        if self.may_complain() {
            tracing::warn!(%error, "{reason}");
        } else {
            tracing::debug!(%error, "{reason}");
        }
    }
}

impl ConsumerContext for Listener {}

#[cfg(test)]
mod tests;
