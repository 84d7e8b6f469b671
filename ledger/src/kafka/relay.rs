//! From one topic to another, exactly once: the members of a group read, and each writes what
//! it makes of it and its place in one transaction (KIP-98, KIP-447).
//!
//! Why nothing is written twice or left out:
//! - A member that was replaced cannot commit: the group's coordinator refuses places that come
//!   with another membership than the present one, and then nothing of the transaction counts.
//! - A member that was replaced and joined again unnoticed does not commit. librdkafka joins by
//!   itself with what it owned before, and tells its user only later, if at all; so the member's
//!   id is remembered with the first partition and asked for again in each commit, behind the
//!   membership that the commit goes out with. An id never comes back.
//! - Nothing of a transaction is open while the group's news is heard. So a partition that was
//!   taken away meanwhile is known before anything of it is written again.
//! - Whoever is given a partition asks for its place, and is not told of one while a transaction
//!   that may move it is open (`isolation.level=read_committed` on a question for places).
//! - A place that the group has forgotten is found again in the topic that was written to: groups
//!   forget only while nobody is in them, so that is looked up before joining.
//!
//! Everything here blocks; it is used from a thread of its own.

use std::{
    collections::BTreeSet,
    sync::mpsc,
    time::{Duration, Instant},
};

use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    client::ClientContext,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{Header, Headers as _, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
    types::RDKafkaRespErr,
};

use super::{KafkaConfig, Listener, Trouble, native, settings};
use crate::{Partition, Record};

/// How long one question to the cluster may take: longer than a leader's election.
const ASK_MAX: Duration = Duration::from_secs(10);

/// How long the question for a partition's end may take; it is asked again.
const END_MAX: Duration = Duration::from_secs(2);

/// How long a place may stay in doubt: a lost member's transaction is ended by its coordinator
/// after [`settings::TRANSACTION_MS_MAX`].
const PLACES_MAX: Duration = Duration::from_secs(60);

/// How long a transaction's end may take.
const COMMIT_MAX: Duration = Duration::from_secs(30);

/// How long leaving a group may take; whoever is later is missed.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

const REPLACED: &str = "the group went on without this member, which joined it anew";

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its key, which chooses the partition as Kafka's Java client does.
    pub key: String,
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// Its value.
    pub value: Vec<u8>,
}

/// From where to where.
#[derive(Debug, Clone)]
pub struct Route {
    /// The topic that is read.
    pub from: String,
    /// The topic that is written.
    pub to: String,
    /// The group of those who do it together.
    pub group: String,
    /// This member, unlike any other that may live at the same time.
    pub member: String,
}

/// What a member hears, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// It reads this partition from now on, from the first record.
    Given(Partition),
    /// Another member does.
    Taken(Partition),
    /// The next record.
    Record(Record),
}

/// A decision of the group, as it was followed.
struct Decision {
    /// Or taken.
    given: bool,
    of: Vec<Partition>,
    /// Which member this consumer was then.
    member: Option<String>,
    done: Result<(), KafkaError>,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Nothing of it counts; the same may be tried again.
    #[error("{0}")]
    Again(String),
    /// This member is of no use any more; a new one may do better.
    #[error("{0}")]
    Final(String),
}

/// Hears of the group's decisions while its consumer is polled, on that thread.
struct Group {
    listener: Listener,
    decisions: mpsc::Sender<Decision>,
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.listener.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.listener.error(error, reason);
    }
}

impl ConsumerContext for Group {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        what: RDKafkaRespErr,
        of: &mut TopicPartitionList,
    ) {
        let given = what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        // Asked before librdkafka goes on: it joins nothing until it has its answer here.
        let member = native::member_id(consumer.client());
        let done = if given {
            // A fold begins with the first record, wherever the group's place is.
            of.set_all_offsets(Offset::Offset(0)).and_then(|()| consumer.incremental_assign(of))
        } else {
            consumer.incremental_unassign(of)
        };
        let partition = |number: i32| u16::try_from(number).ok().map(Partition);
        let of = of.elements().iter().filter_map(|one| partition(one.partition())).collect();
        // The receiver lives as long as the consumer.
        let _ = self.decisions.send(Decision { given, of, member, done });
    }
}

/// Deliveries are told by the transaction's end.
impl ProducerContext for Listener {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// A member of a group that carries a topic into another.
pub struct Relay {
    config: KafkaConfig,
    route: Route,
    consumer: BaseConsumer<Group>,
    decisions: mpsc::Receiver<Decision>,
    /// What it was given, and as which member.
    mine: BTreeSet<Partition>,
    member: Option<String>,
    producer: ThreadedProducer<Listener>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("route", &self.route).finish_non_exhaustive()
    }
}

impl Relay {
    /// Connects. An earlier member of the same name can commit nothing any more, and what it had
    /// not committed does not count.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn open(config: &KafkaConfig, route: Route) -> Result<Relay, Trouble> {
        let wrong = |error: KafkaError| Trouble::Setting(error.to_string());
        let producer: ThreadedProducer<Listener> = ThreadedProducer::from_config_and_context(
            &settings::transactional_producer(config, &route.member),
            Listener::default(),
        )
        .map_err(wrong)?;
        let patience = Instant::now() + COMMIT_MAX;
        retried(patience, || producer.init_transactions(ASK_MAX))
            .map_err(|error| producer.context().trouble(config, &route.to, &error))?;
        let (sender, decisions) = mpsc::channel();
        let context = Group { listener: Listener::default(), decisions: sender };
        let settings = settings::group_consumer(config, &route.group, &route.member);
        let consumer = BaseConsumer::from_config_and_context(&settings, context).map_err(wrong)?;
        Ok(Relay {
            config: config.clone(),
            route,
            consumer,
            decisions,
            mine: BTreeSet::new(),
            member: None,
            producer,
        })
    }

    /// Joins the group.
    ///
    /// # Errors
    /// [`Lost::Final`].
    pub fn join(&self) -> Result<(), Lost> {
        let joined = self.consumer.subscribe(&[&self.route.from]);
        joined.map_err(|error| Lost::Final(error.to_string()))
    }

    /// Leaves the group in good order, so that others need not miss this member first. What was
    /// given is forgotten.
    pub fn leave(&mut self) {
        self.consumer.unsubscribe();
        let until = Instant::now() + LEAVE_MAX;
        let mut out = Vec::new();
        while !self.mine.is_empty() && Instant::now() < until {
            // What is wrong now is nobody's concern any more.
            if self.poll(PAUSE, 1, &mut out).is_err() {
                return;
            }
        }
    }

    /// Waits for news, for `patience` at most, and takes about `most` of what is there. Says
    /// whether that was all.
    ///
    /// # Errors
    /// [`Lost::Final`].
    pub fn poll(
        &mut self,
        patience: Duration,
        most: usize,
        out: &mut Vec<News>,
    ) -> Result<bool, Lost> {
        let mut patience = patience;
        for _ in 0..most.max(1) {
            let message = self.consumer.poll(patience);
            let record = match message {
                Some(Ok(message)) => {
                    let partition = u16::try_from(message.partition()).map(Partition);
                    let bytes = message.payload().unwrap_or_default().to_vec();
                    match (partition, u64::try_from(message.offset())) {
                        (Ok(partition), Ok(offset)) => {
                            Ok(Some(Record { partition, offset, bytes }))
                        }
                        _ => continue,
                    }
                }
                Some(Err(error)) => Err(error),
                None => Ok(None),
            };
            let before = out.len();
            while let Ok(decision) = self.decisions.try_recv() {
                self.follow(decision, out)?;
            }
            match record {
                Ok(Some(record)) => out.push(News::Record(record)),
                Ok(None) if out.len() > before => {}
                Ok(None) => return Ok(true),
                Err(error) if lasts(&error) => return Err(Lost::Final(error.to_string())),
                Err(error) => tracing::debug!(%error, "the group's consumer"),
            }
            patience = Duration::ZERO;
        }
        Ok(false)
    }

    fn follow(&mut self, decision: Decision, out: &mut Vec<News>) -> Result<(), Lost> {
        // librdkafka would wait for ever.
        decision.done.map_err(|error| Lost::Final(error.to_string()))?;
        if decision.given {
            if self.mine.is_empty() {
                self.member = decision.member;
            } else if self.member != decision.member {
                return Err(Lost::Final(REPLACED.to_owned()));
            }
        }
        for partition in decision.of {
            if decision.given {
                self.mine.insert(partition);
                out.push(News::Given(partition));
            } else {
                self.mine.remove(&partition);
                out.push(News::Taken(partition));
            }
        }
        Ok(())
    }

    /// Where the group is in partitions: behind what was written of each. None: it does not know.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn places(&self, of: &[Partition]) -> Result<Vec<Option<u64>>, Lost> {
        let until = Instant::now() + PLACES_MAX;
        let from = self.route.from.as_str();
        loop {
            let mut asked = TopicPartitionList::new();
            for partition in of {
                asked.add_partition(from, i32::from(partition.0));
            }
            let why = match self.consumer.committed_offsets(asked, ASK_MAX) {
                Ok(answer) => {
                    let place = |partition: &Partition| {
                        let found = answer.find_partition(from, i32::from(partition.0));
                        let found = found.ok_or_else(|| "no answer".to_owned())?;
                        found.error().map_err(|error| error.to_string())?;
                        match found.offset() {
                            Offset::Offset(at) => {
                                u64::try_from(at).map(Some).map_err(|e| e.to_string())
                            }
                            _ => Ok(None),
                        }
                    };
                    match of.iter().map(place).collect::<Result<Vec<_>, String>>() {
                        Ok(places) => return Ok(places),
                        Err(why) => why,
                    }
                }
                Err(error) if lasts(&error) => return Err(Lost::Final(error.to_string())),
                Err(error) => error.to_string(),
            };
            if Instant::now() > until {
                return Err(Lost::Final(format!("the group's place is not to be had: {why}")));
            }
            tracing::debug!(why, "the group's place is asked for again");
            std::thread::sleep(PAUSE);
        }
    }

    /// Shows two headers of every record that counts in the topic that is written, of all
    /// partitions, each from its first record to its present end; and says whether each still has
    /// its first record. May take long, so it is done before joining.
    ///
    /// # Errors
    /// [`Lost::Final`], also where a record has not both: the topic is somebody else's.
    pub fn told(&self, names: [&str; 2], mut show: impl FnMut(&str, &str)) -> Result<bool, Lost> {
        let failed = |error: KafkaError| Lost::Final(error.to_string());
        let to = self.route.to.as_str();
        // It joins nothing.
        let settings =
            settings::group_consumer(&self.config, &self.route.group, &self.route.member);
        let reader: BaseConsumer<Listener> =
            BaseConsumer::from_config_and_context(&settings, Listener::default())
                .map_err(failed)?;
        let metadata = reader.fetch_metadata(Some(to), ASK_MAX).map_err(failed)?;
        let partitions = metadata.topics().iter().find(|t| t.name() == to);
        let partitions = partitions.map_or(0, |t| t.partitions().len());
        let mut whole = true;
        for partition in 0..i32::try_from(partitions).unwrap_or(0) {
            let (first, end) = reader.fetch_watermarks(to, partition, ASK_MAX).map_err(failed)?;
            let mut assignment = TopicPartitionList::new();
            let from = Offset::Offset(first);
            assignment.add_partition_offset(to, partition, from).map_err(failed)?;
            reader.assign(&assignment).map_err(failed)?;
            whole &= first == 0;
            let mut heard = Instant::now();
            // The end of a transaction is a record too, which is never shown.
            let is_behind = || -> Result<bool, Lost> {
                let position = reader.position().map_err(failed)?;
                let position = position.find_partition(to, partition).map(|p| p.offset());
                // Nothing was read yet, or so far.
                Ok(!matches!(position, Some(Offset::Offset(at)) if at >= end))
            };
            while first < end && is_behind()? {
                match reader.poll(PAUSE) {
                    Some(Ok(message)) => {
                        heard = Instant::now();
                        let value = |name: &str| {
                            let headers = message.headers()?;
                            let header = headers.iter().find(|header| header.key == name)?;
                            std::str::from_utf8(header.value?).ok()
                        };
                        let (Some(first), Some(second)) = (value(names[0]), value(names[1])) else {
                            return Err(Lost::Final(format!(
                                "{to} holds what no relay wrote, at {} of partition {partition}",
                                message.offset()
                            )));
                        };
                        show(first, second);
                    }
                    Some(Err(error)) if lasts(&error) => return Err(failed(error)),
                    Some(Err(_)) | None if heard.elapsed() > PLACES_MAX => {
                        return Err(Lost::Final(format!(
                            "partition {partition} of {to} is silent"
                        )));
                    }
                    Some(Err(_)) | None => {}
                }
            }
        }
        Ok(whole)
    }

    /// Writes messages, and the places up to which they tell, all or nothing.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn commit(&self, messages: &[Message], places: &[(Partition, u64)]) -> Result<(), Lost> {
        let group = self.consumer.group_metadata();
        let Some(group) = group else { return Err(Lost::Again("no group yet".to_owned())) };
        // Behind the membership that is used, never in front of it.
        if self.mine.is_empty() || native::member_id(self.consumer.client()) != self.member {
            return Err(Lost::Final(REPLACED.to_owned()));
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, at) in places {
            let at = Offset::Offset(i64::try_from(*at).unwrap_or(i64::MAX));
            let from = self.route.from.as_str();
            let added = offsets.add_partition_offset(from, i32::from(partition.0), at);
            added.map_err(|error| Lost::Final(error.to_string()))?;
        }
        let patience = Instant::now() + COMMIT_MAX;
        let written = self.producer.begin_transaction().and_then(|()| {
            messages.iter().try_for_each(|message| self.send(message, patience))?;
            retried(patience, || {
                self.producer.send_offsets_to_transaction(&offsets, &group, ASK_MAX)
            })?;
            // To be asked to flush costs a tenth of a second while anything is under way.
            while self.producer.in_flight_count() > 0 && Instant::now() < patience {
                std::thread::sleep(Duration::from_millis(1));
            }
            retried(patience, || self.producer.commit_transaction(ASK_MAX))
        });
        let Err(error) = written else { return Ok(()) };
        if is_fatal(&error) || self.producer.client().fatal_error().is_some() {
            return Err(Lost::Final(error.to_string()));
        }
        let patience = Instant::now() + COMMIT_MAX;
        match retried(patience, || self.producer.abort_transaction(ASK_MAX)) {
            Ok(()) => Err(Lost::Again(error.to_string())),
            Err(why) => Err(Lost::Final(format!("{error}; and it was not taken back: {why}"))),
        }
    }

    fn send(&self, message: &Message, patience: Instant) -> Result<(), KafkaError> {
        let headers = message.headers.iter().fold(
            OwnedHeaders::new_with_capacity(message.headers.len()),
            |headers, (key, value)| headers.insert(Header { key, value: Some(value) }),
        );
        let mut record = BaseRecord::to(&self.route.to)
            .key(&message.key)
            .payload(&message.value)
            .headers(headers);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                // Its thread makes room.
                Err((error, again))
                    if error.rdkafka_error_code() == Some(Code::QueueFull)
                        && Instant::now() < patience =>
                {
                    record = again;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Whether a partition goes on behind what was read of it, as its leader says. A consumer
    /// whose broker was away sometimes never fetches again and says nothing (librdkafka#5153).
    #[must_use]
    pub fn goes_on(&self, of: Partition, read: u64) -> bool {
        let from = self.route.from.as_str();
        let end = self.consumer.fetch_watermarks(from, i32::from(of.0), END_MAX);
        end.is_ok_and(|(_, end)| u64::try_from(end).is_ok_and(|end| end > read))
    }
}

/// Repeats what the client says may be repeated.
fn retried(
    until: Instant,
    mut attempt: impl FnMut() -> Result<(), KafkaError>,
) -> Result<(), KafkaError> {
    loop {
        match attempt() {
            Err(KafkaError::Transaction(error))
                if error.is_retriable() && Instant::now() < until =>
            {
                std::thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}

fn is_fatal(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_fatal(),
        _ => false,
    }
}

/// Whether waiting does not help a consumer.
fn lasts(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageConsumptionFatal(_))
        || matches!(
            error.rdkafka_error_code(),
            Some(
                Code::AutoOffsetReset
                    | Code::OffsetOutOfRange
                    | Code::LogTruncation
                    | Code::UnknownTopicOrPartition
                    | Code::UnknownTopic
                    | Code::PollExceeded
                    | Code::InvalidSessionTimeout
                    | Code::InconsistentGroupProtocol
                    | Code::GroupMaxSizeReached
                    | Code::FencedInstanceId
                    | Code::GroupAuthorizationFailed
                    | Code::TopicAuthorizationFailed
            )
        )
}
