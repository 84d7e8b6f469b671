//! A ledger in a Kafka topic: every partition from its first record to the end that it has when
//! the ledger is opened. It commits nothing and writes nothing.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message, Timestamp};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::settled::Told;
use crate::source::{Each, Ledger, Part, Unreadable};
use crate::words::Place;

/// How long one question to the brokers may take: longer than the election of a new leader.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);
/// How long no record may come before the end: as long as an election, with room to reconnect.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// A wait between two looks at the clock.
const POLL: Duration = Duration::from_millis(500);

/// A ledger in a topic.
pub struct KafkaLedger {
    consumer: BaseConsumer,
    topic: String,
    partitions: u16,
    settled: Vec<u64>,
    ends: Vec<u64>,
}

impl std::fmt::Debug for KafkaLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaLedger").field("topic", &self.topic).field("ends", &self.ends).finish()
    }
}

fn reading(brokers: &str) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", brokers)
        // librdkafka wants a group to assign partitions; nothing is ever committed under it.
        .set("group.id", "stationmaster-checker")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("allow.auto.create.topics", "false")
        .set("check.crcs", "true")
        // Partitions are read one behind the other. A broker that still waits for more of the
        // last one would keep the next one waiting, half a second by default.
        .set("fetch.wait.max.ms", "10")
        // The default sets 64 MB aside for what is read ahead; 16 MB keep one core busy.
        .set("queued.max.messages.kbytes", "16384");
    settings
}

impl KafkaLedger {
    /// Connects, and fixes the end of every partition.
    pub fn open(brokers: &str, topic: &str) -> Result<Self, Unreadable> {
        let consumer: BaseConsumer = reading(brokers)
            .set("isolation.level", "read_uncommitted")
            .create()
            .map_err(|e| kafka(&e))?;
        let partitions = count(&consumer, topic)?;
        // In this order: the shares' settled parts, their ends, and last the pool's, because
        // an Accept names a Take that was written before.
        let mut settled = vec![0; usize::from(partitions)];
        let mut ends = settled.clone();
        for number in 1..partitions {
            settled[usize::from(number)] = end(&consumer, topic, number)?;
        }
        for number in (0..partitions).rev() {
            ends[usize::from(number)] = end(&consumer, topic, number)?;
        }
        settled[0] = ends[0];
        Ok(Self { consumer, topic: topic.to_owned(), partitions, settled, ends })
    }

    fn partition(&self, number: u16, each: &mut Each<'_>) -> Result<(), Unreadable> {
        let end = self.ends[usize::from(number)];
        if end == 0 {
            return Ok(());
        }
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(&self.topic, i32::from(number), Offset::Offset(0))
            .map_err(|e| kafka(&e))?;
        self.consumer.assign(&assignment).map_err(|e| kafka(&e))?;
        let mut next = 0;
        let mut heard = Instant::now();
        while next < end {
            let Some(message) = self.consumer.poll(POLL) else {
                if heard.elapsed() > SILENCE_MAX {
                    let why = format!("partition {number} is silent at {next} of {end}");
                    return Err(Unreadable::Kafka(why));
                }
                continue;
            };
            let message = match message {
                Ok(message) => message,
                Err(why) if lasting(&why) => return Err(kafka(&why)),
                Err(_) => continue,
            };
            heard = Instant::now();
            let offset = u64::try_from(message.offset()).unwrap_or(0);
            // What an earlier assignment had fetched may still be in the queue.
            if message.partition() != i32::from(number) {
                continue;
            }
            if offset != next {
                let why = format!("has no record {next}, but {offset}");
                return Err(Unreadable::Lost { partition: number, why });
            }
            let appended = match message.timestamp() {
                Timestamp::LogAppendTime(at) => u64::try_from(at).ok(),
                _ => None,
            };
            let place = Place { partition: number, offset };
            each(place, appended, message.payload().unwrap_or_default())?;
            next += 1;
        }
        Ok(())
    }
}

impl Ledger for KafkaLedger {
    fn name(&self) -> Option<&str> {
        Some(&self.topic)
    }

    fn partitions(&self) -> u16 {
        self.partitions
    }

    fn settled(&self, partition: u16) -> u64 {
        self.settled.get(usize::from(partition)).copied().unwrap_or(0)
    }

    fn read(&mut self, part: Part, each: &mut Each<'_>) -> Result<(), Unreadable> {
        match part {
            Part::Pool => self.partition(0, each),
            Part::Shares => {
                (1..self.partitions).try_for_each(|number| self.partition(number, each))
            }
        }
    }
}

fn kafka(why: &KafkaError) -> Unreadable {
    Unreadable::Kafka(why.to_string())
}

/// Whether waiting will not help. Brokers that come and go are waited for, up to the silence that
/// ends the reading.
fn lasting(why: &KafkaError) -> bool {
    use rdkafka::error::RDKafkaErrorCode as Code;
    let passing = [
        Code::AllBrokersDown,
        Code::BrokerTransportFailure,
        Code::OperationTimedOut,
        Code::RequestTimedOut,
        Code::Resolve,
        Code::NotLeaderForPartition,
        Code::LeaderNotAvailable,
        Code::BrokerNotAvailable,
        Code::ReplicaNotAvailable,
        Code::CoordinatorNotAvailable,
        Code::CoordinatorLoadInProgress,
        Code::NetworkException,
    ];
    !why.rdkafka_error_code().is_some_and(|code| passing.contains(&code))
}

fn count(consumer: &BaseConsumer, topic: &str) -> Result<u16, Unreadable> {
    let metadata = consumer.fetch_metadata(Some(topic), ASK_TIMEOUT).map_err(|e| kafka(&e))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let count = found.filter(|found| found.error().is_none()).map_or(0, |t| t.partitions().len());
    match u16::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(Unreadable::Kafka(format!("there is no topic {topic:?} that could be a ledger"))),
    }
}

fn end(consumer: &BaseConsumer, topic: &str, partition: u16) -> Result<u64, Unreadable> {
    let (first, end) = consumer
        .fetch_watermarks(topic, i32::from(partition), ASK_TIMEOUT)
        .map_err(|e| kafka(&e))?;
    if first != 0 {
        let why = format!("begins at {first}");
        return Err(Unreadable::Lost { partition, why });
    }
    Ok(u64::try_from(end).unwrap_or(0))
}

/// Shows every record of a topic that counts for readers of committed ones, partition by
/// partition, each in its order.
///
/// # Errors
/// What keeps it from being read.
pub fn committed(
    brokers: &str,
    topic: &str,
    mut each: impl FnMut(&Told),
) -> Result<(), Unreadable> {
    let consumer: BaseConsumer = reading(brokers)
        .set("isolation.level", "read_committed")
        // Behind the last record that counts.
        .set("enable.partition.eof", "true")
        .create()
        .map_err(|e| kafka(&e))?;
    for number in 0..count(&consumer, topic)? {
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(topic, i32::from(number), Offset::Beginning)
            .map_err(|e| kafka(&e))?;
        consumer.assign(&assignment).map_err(|e| kafka(&e))?;
        let mut heard = Instant::now();
        loop {
            let message = match consumer.poll(POLL) {
                Some(Ok(message)) if message.partition() == i32::from(number) => message,
                Some(Err(KafkaError::PartitionEOF(of))) if of == i32::from(number) => break,
                Some(Err(why)) if lasting(&why) => return Err(kafka(&why)),
                _ if heard.elapsed() > SILENCE_MAX => {
                    return Err(Unreadable::Kafka(format!("partition {number} is silent")));
                }
                _ => continue,
            };
            heard = Instant::now();
            let text = |bytes: Option<&[u8]>| {
                String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
            };
            let headers = message.headers().into_iter().flat_map(|all| all.iter());
            each(&Told {
                key: text(message.key()),
                headers: headers.map(|h| (h.key.to_owned(), text(h.value))).collect(),
                value: message.payload().unwrap_or_default().to_vec(),
            });
        }
    }
    Ok(())
}
