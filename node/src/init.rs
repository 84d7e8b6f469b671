//! `node init`: founds a ledger, or checks the one that is there.
//!
//! It runs as the operator's Job and says how it went in its termination message. Existing
//! topics are never altered, and a ledger that should be there is never founded anew.

use std::time::Duration;

use control::config::{FoundingConfig, Step};
use control::founding::{Difference, Failure, FailureKind, Founded, FoundingReport};
use inventory::definition::{BadDefinition, Definition};
use inventory::entry::{Genesis, PoolEntry};
use inventory::pool::{Pool, ledger_id, pool_record};
use inventory::words::{Incarnation, Millis, Offset};
use ledger::kafka::{KafkaConfig, KafkaLedger, Keep, Topic, TopicSpec, Topics, Trouble};
use ledger::{Fate, Log, Partition, Slip, Tail};

/// The board is of no use after seconds; ten minutes let people look at it.
const BOARD_KEPT_MS: u64 = 10 * 60 * 1_000;

/// How a Kafka is reached by this program.
#[must_use]
pub fn kafka(config: &control::config::Kafka, client_id: &str) -> KafkaConfig {
    KafkaConfig {
        bootstrap_servers: config.bootstrap_servers.clone(),
        client_id: client_id.to_owned(),
        options: Vec::new(),
    }
}

/// Does what the configuration asks for, within its time.
pub async fn found(config: &FoundingConfig) -> FoundingReport {
    let time = Duration::from_millis(config.timeout_ms.into());
    match tokio::time::timeout(time, attempt(config, time)).await {
        Ok(Ok(founded)) => FoundingReport::Ok(founded),
        Ok(Err(failure)) => FoundingReport::Failed(failure),
        Err(_) => FoundingReport::Failed(fail(
            FailureKind::KafkaUnreachable,
            format!(
                "the brokers at {} did not answer within {} ms",
                config.kafka.bootstrap_servers, config.timeout_ms
            ),
        )),
    }
}

fn fail(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure { kind, message: message.into(), differences: Vec::new() }
}

async fn attempt(config: &FoundingConfig, time: Duration) -> Result<Founded, Failure> {
    let definition: Definition = config
        .definition
        .clone()
        .try_into()
        .map_err(|e: BadDefinition| fail(FailureKind::InvalidConfig, e.to_string()))?;
    if definition.ledger != config.topic || definition.shares + 1 != config.partitions {
        let message = "topic and partitions do not fit the definition's ledger and shares";
        return Err(fail(FailureKind::InvalidConfig, message));
    }
    let kafka = kafka(&config.kafka, "stationmaster-init");
    let topics = Topics::new(&kafka).map_err(|t| trouble(&config.topic, t))?;
    let topic = the_ledger(config, &topics).await?;
    let board = spec(config, &config.board_topic, 1, Keep::Millis(BOARD_KEPT_MS));
    topics.found(&board).await.map_err(|t| trouble(&config.board_topic, t))?;
    let connect = || KafkaLedger::connect(&kafka, &config.topic, time / 2);
    let ledger = connect().map_err(|t| trouble(&config.topic, t))?;
    let mut log = ledger.handle();
    let pool = fold(&log, &config.topic, topic.id.0).await?;
    if let Some(found) = pool.definition() {
        return adopted(config, &topic, &pool, found.shares);
    }
    if config.genesis_hash.is_some() || pool.position() > Offset(0) && config.topic_id.is_none() {
        let message = format!("topic {} holds no Genesis of this ledger any more", config.topic);
        return Err(fail(FailureKind::LedgerLost, message));
    }
    let genesis_hash = match config.step {
        Step::Topics => None,
        Step::Genesis => Some(begin(&mut log, &topic, definition).await?),
    };
    let topic_id = topic.id.to_string();
    Ok(Founded { step: config.step, topic_id, created: topic.created, genesis_hash })
}

fn adopted(
    config: &FoundingConfig,
    topic: &Topic,
    pool: &Pool,
    shares: u16,
) -> Result<Founded, Failure> {
    let hash = pool.genesis_hash().map(|h| h.to_string());
    let mismatch = |message| Err(fail(FailureKind::LedgerMismatch, message));
    if shares + 1 != config.partitions {
        return mismatch(format!("the ledger has {shares} shares; that cannot change"));
    }
    if config.genesis_hash.is_some() && config.genesis_hash != hash {
        return mismatch(format!("topic {} holds another Genesis", config.topic));
    }
    let topic_id = topic.id.to_string();
    Ok(Founded { step: config.step, topic_id, created: false, genesis_hash: hash })
}

fn spec(config: &FoundingConfig, name: &str, partitions: u16, keep: Keep) -> TopicSpec {
    TopicSpec {
        name: name.to_owned(),
        partitions,
        replicas: config.replicas.into(),
        min_in_sync: config.min_in_sync_replicas.into(),
        keep,
    }
}

/// The ledger's topic: created where nobody has seen it yet, else checked.
async fn the_ledger(config: &FoundingConfig, topics: &Topics) -> Result<Topic, Failure> {
    let wanted = spec(config, &config.topic, config.partitions, Keep::ForEver);
    let found = match &config.topic_id {
        None => topics.found(&wanted).await.map_err(|t| trouble(&config.topic, t))?,
        Some(id) => {
            let topic = topics.check(&wanted).await.map_err(|t| match t {
                Trouble::TopicMissing(name) => {
                    fail(FailureKind::LedgerLost, format!("topic {name} is gone"))
                }
                other => trouble(&config.topic, other),
            })?;
            if topic.id.to_string() != *id {
                let message = format!("topic {} has id {}, not {id}", config.topic, topic.id);
                return Err(fail(FailureKind::LedgerLost, message));
            }
            topic
        }
    };
    if let Some(at) = found.low_watermarks.iter().position(|low| *low > 0) {
        let low = found.low_watermarks[at];
        let message = format!("partition {at} of {} begins at offset {low}", config.topic);
        return Err(fail(FailureKind::LedgerTruncated, message));
    }
    Ok(found)
}

fn trouble(topic: &str, trouble: Trouble) -> Failure {
    let message = trouble.to_string();
    let kind = match trouble {
        Trouble::Unreachable { .. } => FailureKind::KafkaUnreachable,
        Trouble::AuthenticationFailed(_) => FailureKind::AuthenticationFailed,
        Trouble::TopicMissing(_) => FailureKind::TopicMissing,
        Trouble::Setting(_) => FailureKind::InvalidConfig,
        Trouble::Refused(_) => FailureKind::TopicMisconfigured,
        Trouble::Misconfigured { differences, .. } => {
            let differences = differences
                .into_iter()
                .map(|d| Difference {
                    topic: topic.to_owned(),
                    key: d.key,
                    have: d.have,
                    want: d.want,
                })
                .collect();
            return Failure { kind: FailureKind::TopicMisconfigured, message, differences };
        }
    };
    fail(kind, message)
}

/// Partition 0 up to its present end.
async fn fold<L: Log>(log: &L, name: &str, topic_id: [u8; 16]) -> Result<Pool, Failure> {
    let torn = |t: ledger::Torn| fail(FailureKind::KafkaUnreachable, t.to_string());
    let end = log.end(Partition(0)).await.map_err(torn)?;
    let mut pool = Pool::new(name).expecting(topic_id);
    let mut tail = log.tail(Partition(0), 0);
    let mut records = Vec::new();
    while pool.position().0 < end {
        std::future::poll_fn(|cx| tail.poll_records(cx, &mut records)).await.map_err(torn)?;
        for record in records.drain(..) {
            pool.fold(Offset(record.offset), &record.bytes);
        }
    }
    match pool.frozen() {
        Some(why) => Err(fail(FailureKind::LedgerMismatch, format!("partition 0: {why}"))),
        None => Ok(pool),
    }
}

/// Appends Genesis, and tells the hash of the one that counts: another founder may have been
/// quicker.
async fn begin<L: Log>(
    log: &mut L,
    topic: &Topic,
    definition: Definition,
) -> Result<String, Failure> {
    let name = definition.ledger.clone();
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = Millis(wall.unwrap_or_default().as_millis() as u64);
    let genesis = PoolEntry::Genesis(Box::new(Genesis { topic_id: topic.id.0, definition }));
    let record = pool_record(ledger_id(&name, topic.id.0), Incarnation(0), now, &[genesis])
        .map_err(|e| {
            let message = format!("the definition is too long for one Kafka record: {e}");
            fail(FailureKind::InvalidConfig, message)
        })?;
    let unreachable = |why: &str| fail(FailureKind::KafkaUnreachable, why.to_owned());
    log.append(Partition(0), Slip(0), &record).map_err(|e| unreachable(&e.to_string()))?;
    let mut fates = Vec::new();
    std::future::poll_fn(|cx| log.poll_fates(cx, &mut fates)).await;
    if fates.iter().any(|(_, fate)| *fate == Fate::Unknown) {
        return Err(unreachable("whether Genesis was written is not known; ask again"));
    }
    let pool = fold(log, &name, topic.id.0).await?;
    let hash = pool.genesis_hash().map(|h| h.to_string());
    hash.ok_or_else(|| unreachable("Genesis was written and is not to be read yet"))
}
