//! A topic of a Kafka cluster as a ledger, or as the board. The only place with librdkafka.
//!
//! - [`KafkaLedger`]: one topic. Frames of orders are sent by each handle itself, over connections
//!   of its own (`writer` decides, `sockets` moves bytes, `protocol` knows what they mean): an
//!   order waits for every thread in between. Where that client does not reach, which is news and
//!   clusters with settings of librdkafka's, one producer serves all handles of the process
//!   (`producer`). Consumers that many tails share (`tails`).
//! - [`Relay`]: carries what a topic says into another, exactly once.
//! - [`Topics`]: founds topics, or checks that they are as they must be.
//! - `settings`: every setting of librdkafka that is not its default, with the reason.

use std::{
    sync::{
        Arc, OnceLock,
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
};
use tokio::sync::watch;

use crate::{Fate, Log, Partition, Refused, Slip, Torn};
use producer::Producer;
use settings::Kept;
use sockets::Sockets;
use tails::Readers;
use writer::Writer;

pub use relay::{Lost, Message, News, Relay, Route};
pub use tails::KafkaTail;
pub use topics::{Difference, Keep, Topic, TopicId, TopicSpec, Topics};

mod native;
mod producer;
mod protocol;
mod relay;
mod settings;
mod sockets;
mod tails;
mod topics;
mod writer;

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
    writing: Writing,
    readers: Readers,
}

/// How appends reach the brokers.
#[derive(Debug)]
enum Writing {
    /// Each handle sends its own.
    Own { client_id: Arc<str>, servers: Vec<Arc<str>>, close: watch::Sender<Option<Instant>> },
    /// librdkafka sends them for all.
    Shared(Producer),
}

impl Writing {
    fn start(config: &KafkaConfig, keep: Kept) -> Result<Writing, Trouble> {
        // TLS and SASL are librdkafka's. So is whatever else a cluster wants to be asked.
        let servers = plain_servers(&config.bootstrap_servers);
        match (keep, servers) {
            (Kept::ForEver, Some(servers)) if config.options.is_empty() => {
                let (close, _) = watch::channel(None);
                Ok(Writing::Own { client_id: config.client_id.as_str().into(), servers, close })
            }
            _ => Producer::start(config, keep).map(Writing::Shared),
        }
    }
}

/// The addresses of a list that names no other protocol than plain text; 9092 is Kafka's port.
fn plain_servers(list: &str) -> Option<Vec<Arc<str>>> {
    let servers = list.split(',').map(str::trim).filter(|server| !server.is_empty());
    let servers = servers.map(|server| {
        let server = server.strip_prefix("PLAINTEXT://").unwrap_or(server);
        let has_port = server.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        match (server.contains("://"), has_port) {
            (true, _) => None,
            (false, true) => Some(server.into()),
            (false, false) => Some(format!("{server}:9092").into()),
        }
    });
    servers.collect::<Option<Vec<_>>>().filter(|servers| !servers.is_empty())
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
        let writing = Writing::start(config, keep)?;
        Ok(KafkaLedger { topic, partitions, writing, readers })
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

    /// A handle of its own fates on this topic. It belongs to the runtime that polls it first.
    #[must_use]
    pub fn handle(&self) -> KafkaLog {
        let (topic, partitions) = (Arc::clone(&self.topic), self.partitions);
        let pen = match &self.writing {
            Writing::Own { client_id, servers, close } => {
                let (patience, now) = (settings::MESSAGE_MAX, Instant::now());
                let writer = Writer::new(&topic, client_id, partitions, servers, patience, now);
                Pen::Own(Box::new(Sockets::new(writer, close.subscribe())))
            }
            Writing::Shared(producer) => Pen::Shared(producer.enter(topic)),
        };
        KafkaLog { partitions, pen, readers: self.readers.clone() }
    }

    /// Refuses appends from now on. What was accepted has its fate within `patience`, or is
    /// `Unknown`; handles have to be polled for it. May block for so long.
    pub fn close(self, patience: Duration) {
        match self.writing {
            Writing::Own { close, .. } => {
                close.send_replace(Some(Instant::now() + patience));
            }
            Writing::Shared(producer) => producer.close(patience),
        }
    }
}

/// A handle on a topic.
#[derive(Debug)]
pub struct KafkaLog {
    partitions: u16,
    pen: Pen,
    readers: Readers,
}

/// A handle's part in [`Writing`].
#[derive(Debug)]
enum Pen {
    Own(Box<Sockets>),
    Shared(producer::Entry),
}

impl Log for KafkaLog {
    type Tail = KafkaTail;

    fn append(&mut self, to: Partition, slip: Slip, frame: &[u8]) -> Result<(), Refused> {
        if to.0 >= self.partitions {
            return Err(Refused::NoPartition(to));
        }
        match &mut self.pen {
            Pen::Own(sockets) => sockets.append(to, slip, frame),
            Pen::Shared(entry) => entry.append(to, slip, frame),
        }
    }

    fn poll_fates(&mut self, cx: &mut Context<'_>, out: &mut Vec<(Slip, Fate)>) -> Poll<()> {
        match &mut self.pen {
            Pen::Own(sockets) => sockets.poll_fates(cx, out),
            Pen::Shared(entry) => entry.poll_fates(cx, out),
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

/// How long what was accepted may wait for its fate when a ledger is dropped.
const PARTING_MAX: Duration = Duration::from_secs(1);

fn closed() -> Refused {
    Refused::Closed("the connection was closed".to_owned())
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
