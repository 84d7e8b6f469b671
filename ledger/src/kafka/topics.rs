//! Founding topics, and checking that they are as they must be.
//!
//! A topic that exists is never altered: what differs is listed, and a person decides.

use std::{fmt, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::Client,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode as Code},
};

use super::{KafkaConfig, Listener, Trouble, hear, native, settings, trouble_of};

/// How long the cluster may take for one answer. Founding is done by a job that is tried again,
/// and `LedgerReady` is to say within 15 s that a cluster is away.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How long a topic that was just created may take until all its partitions have leaders.
const LEADERS_MAX: Duration = Duration::from_secs(10);

/// Between two looks at what is about to be there.
const PAUSE: Duration = Duration::from_millis(50);

/// The id that Kafka gave a topic. Another topic of the same name has another id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    pub(super) fn from_halves(most: i64, least: i64) -> TopicId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&most.to_be_bytes());
        id[8..].copy_from_slice(&least.to_be_bytes());
        TopicId(id)
    }
}

impl fmt::Display for TopicId {
    /// As Kafka's own tools print it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// How long a topic keeps its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The ledger: for ever.
    ForEver,
    /// The board: what is older is of no use to anybody.
    Millis(u64),
}

/// What a topic must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: u16,
    /// On how many brokers each partition lies.
    pub replicas: u16,
    /// How many of them must have a record before it counts.
    pub min_in_sync: u16,
    /// For how long.
    pub keep: Keep,
}

impl TopicSpec {
    fn settings(&self) -> Vec<(&'static str, String)> {
        let retention = match self.keep {
            Keep::ForEver => "-1".to_owned(),
            Keep::Millis(millis) => millis.to_string(),
        };
        let mut settings = vec![
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", retention),
            ("retention.bytes", "-1".to_owned()),
            ("min.insync.replicas", self.min_in_sync.to_string()),
            // A leader that was not in sync would lack confirmed orders.
            ("unclean.leader.election.enable", "false".to_owned()),
            ("max.message.bytes", settings::BATCH_BYTES_MAX.to_string()),
            // Frames carry their writer's time. The broker's beside it lets auditors compare,
            // and keeps the board's retention free of the nodes' clocks.
            ("message.timestamp.type", "LogAppendTime".to_owned()),
        ];
        if let Keep::Millis(millis) = self.keep {
            // Only whole segments are deleted, and by default a segment lasts a week.
            settings.push(("segment.ms", millis.max(60_000).to_string()));
        }
        settings
    }
}

/// One setting of a topic that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The setting's name.
    pub key: String,
    /// What it is.
    pub have: String,
    /// What it must be.
    pub want: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}→{}", self.key, self.have, self.want)
    }
}

/// A topic that is as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its id.
    pub id: TopicId,
    /// Whether this call created it.
    pub created: bool,
    /// How many partitions it has.
    pub partitions: u16,
    /// The first offset that each partition still has. Above 0 in a ledger means that orders
    /// were deleted.
    pub low_watermarks: Vec<u64>,
}

/// Founds and checks topics of one cluster.
pub struct Topics {
    config: KafkaConfig,
    admin: AdminClient<Listener>,
    /// Asks what the admin client has no question for. It also hears why nobody answers: the
    /// admin client leaves its own events unread.
    asking: Arc<BaseConsumer<Listener>>,
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topics").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Topics {
    /// A client that connects when it is first asked.
    ///
    /// # Errors
    /// [`Trouble::Setting`].
    pub fn new(config: &KafkaConfig) -> Result<Topics, Trouble> {
        let settings = settings::admin(config);
        let setting = |error: KafkaError| Trouble::Setting(error.to_string());
        let admin = AdminClient::from_config_and_context(&settings, Listener::default());
        let asking = BaseConsumer::from_config_and_context(&settings, Listener::default());
        Ok(Topics {
            config: config.clone(),
            admin: admin.map_err(setting)?,
            asking: Arc::new(asking.map_err(setting)?),
        })
    }

    /// Creates the topic if there is none, and checks it. Needs a tokio runtime.
    ///
    /// # Errors
    /// Every [`Trouble`] but `TopicMissing`.
    pub async fn found(&self, spec: &TopicSpec) -> Result<Topic, Trouble> {
        match self.check(spec).await {
            Err(Trouble::TopicMissing(_)) => {}
            other => return other,
        }
        let settings = spec.settings();
        let replicas = TopicReplication::Fixed(i32::from(spec.replicas));
        let mut new = NewTopic::new(&spec.name, i32::from(spec.partitions), replicas);
        for (key, value) in &settings {
            new = new.set(key, value);
        }
        let answers = self.admin.create_topics([&new], &options()).await;
        let answers = answers.map_err(|error| self.trouble(&spec.name, &error))?;
        let created = match answers.into_iter().next() {
            Some(Ok(_)) => true,
            // Somebody was quicker; it is checked like any topic that exists.
            Some(Err((_, Code::TopicAlreadyExists))) => false,
            Some(Err((_, code))) => return Err(trouble_of(&self.config, &spec.name, code)),
            None => return Err(Trouble::Refused("no answer about the topic".to_owned())),
        };
        let mut tries = LEADERS_MAX.as_millis() / PAUSE.as_millis();
        loop {
            // The broker that is asked may not have heard of it yet.
            match self.check(spec).await {
                Err(Trouble::TopicMissing(_) | Trouble::Unreachable { .. }) if tries > 0 => {
                    tries -= 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(topic) => return Ok(Topic { created, ..topic }),
                Err(trouble) => return Err(trouble),
            }
        }
    }

    /// The id of a topic, however it is set up. Needs a tokio runtime.
    ///
    /// # Errors
    /// Every [`Trouble`] but `Misconfigured`.
    pub async fn id(&self, topic: &str) -> Result<TopicId, Trouble> {
        self.describe(topic).await.map(|(id, _)| id)
    }

    /// Checks a topic without creating it. Needs a tokio runtime.
    ///
    /// # Errors
    /// Every [`Trouble`].
    pub async fn check(&self, spec: &TopicSpec) -> Result<Topic, Trouble> {
        let (id, replicas) = self.describe(&spec.name).await?;
        let mut differences = Vec::new();
        let mut compare = |key: &str, have: String, want: String| {
            if have != want {
                differences.push(Difference { key: key.to_owned(), have, want });
            }
        };
        compare("partitions", replicas.len().to_string(), spec.partitions.to_string());
        let mut counts = replicas;
        counts.sort_unstable();
        counts.dedup();
        let counts: Vec<String> = counts.iter().map(ToString::to_string).collect();
        compare("replication.factor", counts.join(" and "), spec.replicas.to_string());
        let answers = self
            .admin
            .describe_configs([&ResourceSpecifier::Topic(&spec.name)], &options())
            .await
            .map_err(|error| self.trouble(&spec.name, &error))?;
        let found = match answers.into_iter().next() {
            Some(Ok(found)) => found,
            Some(Err(code)) => return Err(trouble_of(&self.config, &spec.name, code)),
            None => return Err(Trouble::Refused("no answer about settings".to_owned())),
        };
        for (key, want) in spec.settings() {
            let have = found.get(key).and_then(|entry| entry.value.clone());
            compare(key, have.unwrap_or_else(|| "unset".to_owned()), want);
        }
        if !differences.is_empty() {
            return Err(Trouble::Misconfigured { topic: spec.name.clone(), differences });
        }
        let low_watermarks = self.low_watermarks(&spec.name, spec.partitions).await?;
        Ok(Topic { id, created: false, partitions: spec.partitions, low_watermarks })
    }

    /// The topic's id, and for each partition on how many brokers it lies.
    async fn describe(&self, topic: &str) -> Result<(TopicId, Vec<usize>), Trouble> {
        let name = topic.to_owned();
        self.blocking(topic, move |client| {
            let metadata = client.fetch_metadata(Some(&name), ANSWER_MAX)?;
            let found = metadata.topics().iter().find(|found| found.name() == name);
            let missing = KafkaError::MetadataFetch(Code::UnknownTopicOrPartition);
            let found = found.ok_or_else(|| missing.clone())?;
            if let Some(error) = found.error() {
                return Err(KafkaError::MetadataFetch(error.into()));
            }
            if found.partitions().is_empty() {
                return Err(missing);
            }
            let replicas = found.partitions().iter().map(|p| p.replicas().len()).collect();
            let id = native::topic_id(client, &name, ANSWER_MAX).map_err(KafkaError::AdminOp)?;
            Ok((id, replicas))
        })
        .await
    }

    async fn low_watermarks(&self, topic: &str, partitions: u16) -> Result<Vec<u64>, Trouble> {
        let name = topic.to_owned();
        self.blocking(topic, move |client| {
            let low = |partition| {
                let (low, _) = client.fetch_watermarks(&name, partition, ANSWER_MAX)?;
                u64::try_from(low).map_err(|_| KafkaError::OffsetFetch(Code::NoOffset))
            };
            (0..i32::from(partitions)).map(low).collect()
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        topic: &str,
        work: impl FnOnce(&Client<Listener>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, Trouble> {
        let asking = Arc::clone(&self.asking);
        let done = tokio::task::spawn_blocking(move || work(asking.client())).await;
        match done {
            Ok(done) => done.map_err(|error| self.trouble(topic, &error)),
            Err(panic) => Err(Trouble::Refused(panic.to_string())),
        }
    }

    fn trouble(&self, topic: &str, error: &KafkaError) -> Trouble {
        hear(&self.asking);
        self.asking.client().context().trouble(&self.config, topic, error)
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_MAX)).operation_timeout(Some(ANSWER_MAX))
}
