//! Every setting of librdkafka that is not its default, with the reason; and the times that
//! `writer` has in common with it.
//!
//! The figures of times go together: a broker that hangs must be given up within two seconds,
//! because a failed node's seats are to be on sale again within three, and a broker that is
//! merely slow must not be. With them librdkafka is 1.7 to 2.1 s without a fate when one of three
//! brokers that leads dies, and 2.8 to 3.2 s when it hangs; with its defaults 45 s. (`writer`, which
//! asks others while a leader is silent: 1.2 to 1.6 s, as
//! `cargo test -p ledger --features kafka,contract --test kafka` prints.)

use std::time::Duration;

use rdkafka::ClientConfig;

use super::KafkaConfig;
use crate::{FRAME_BYTES_MAX, IN_FLIGHT_MAX};

/// The longest record batch that a topic takes: one MiB.
pub(super) const BATCH_BYTES_MAX: usize = 1 << 20;

// A batch has a header of 61 bytes and a record one of at most 30 beside its frame.
const _: () = assert!(FRAME_BYTES_MAX + 1_000 < BATCH_BYTES_MAX);

/// The time after which an append's fate is final.
// Long enough for a broker to restart and for a machine to come back. Buyers hear "unknown,
// retry" after 3 s already, and the retry attaches to the order that still waits here.
pub(super) const MESSAGE_MAX: Duration = Duration::from_secs(30);

/// The same for news.
// A beat counts for half a second, and a leader that moves takes two or three.
const NEWS_MS_MAX: u64 = 5_000;

/// How long a broker may be silent before its connection is given up.
pub(super) const SILENCE_MAX: Duration = Duration::from_millis(1_500);

/// How long a leader waits for its replicas before it answers at all.
// Less than the silence after which its connection is given up.
pub(super) const REPLICAS_MS_MAX: i32 = 1_000;

/// Between attempts. A leader may be back, or elected elsewhere, after a second: the first come at
/// once, and half a second between later ones spares a broker that starts from a storm.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(50);
pub(super) const PAUSE_MAX: Duration = Duration::from_millis(500);

fn common(config: &KafkaConfig) -> ClientConfig {
    let millis = |time: Duration| time.as_millis().to_string();
    let mut settings = ClientConfig::new();
    for (name, value) in &config.options {
        settings.set(name, value);
    }
    settings
        .set("bootstrap.servers", &config.bootstrap_servers)
        .set("client.id", &config.client_id)
        // A hanging broker keeps its connections open, so only silence tells.
        .set("socket.timeout.ms", millis(SILENCE_MAX))
        // Its kernel still accepts connections, so neither connecting nor the first question
        // on a new connection may wait longer (the defaults are 30 and 10 s).
        .set("socket.connection.setup.timeout.ms", millis(SILENCE_MAX))
        .set("api.version.request.timeout.ms", millis(SILENCE_MAX))
        .set("reconnect.backoff.ms", millis(PAUSE_MIN))
        .set("reconnect.backoff.max.ms", millis(PAUSE_MAX))
        .set("retry.backoff.ms", millis(PAUSE_MIN))
        .set("retry.backoff.max.ms", millis(PAUSE_MAX))
        .set("topic.metadata.refresh.fast.interval.ms", millis(PAUSE_MIN))
        // Frames are small and each is waited for.
        .set("socket.nagle.disable", "true")
        // Topics are founded with their settings; one that the cluster invents would have one
        // partition and lose records after a week.
        .set("allow.auto.create.topics", "false");
    settings
}

/// What a topic is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// Orders: a frame is worth waiting for until its brokers have agreed who leads.
    ForEver,
    /// News of the moment: what is late is worth nothing, and only keeps later news waiting.
    ForNow,
}

pub(super) fn producer(config: &KafkaConfig, keep: Kept) -> ClientConfig {
    let mut settings = common(config);
    match keep {
        Kept::ForEver => settings
            .set("message.timeout.ms", MESSAGE_MAX.as_millis().to_string())
            // A fate is told when all in-sync replicas have the frame, and is then true for ever.
            .set("acks", "all")
            // The client retries by itself. Without this a retry may write a frame twice or
            // behind a later one.
            .set("enable.idempotence", "true")
            // The most that idempotence allows. It is counted per broker, and each partition's
            // batch is a request of its own, so fewer would make shares wait for each other.
            .set("max.in.flight.requests.per.connection", "5"),
        // An idempotent client spins, a whole core of it, while more than five messages of one
        // partition wait for their fates. Frames never do; beats do as soon as brokers are slow,
        // and made them slower. News needs no such order: readers pass over what is behind the
        // latest, and they read only what all in-sync replicas have.
        Kept::ForNow => settings
            .set("message.timeout.ms", NEWS_MS_MAX.to_string())
            .set("acks", "all")
            .set("enable.idempotence", "false")
            .set("message.send.max.retries", "0"),
    };
    settings
        // Frames are batches already; the owner gathers while the one before is on its way.
        .set("linger.ms", "0")
        .set("request.timeout.ms", REPLICAS_MS_MAX.to_string())
        .set("message.max.bytes", BATCH_BYTES_MAX.to_string())
        // Sixteen handles' worth; beyond it an append is refused as "full".
        .set("queue.buffering.max.messages", (16 * IN_FLIGHT_MAX).to_string())
        // 128 MiB: two minutes of frames at a megabyte a second.
        .set("queue.buffering.max.kbytes", "131072");
    settings
}

/// For tails that follow a partition for ever, and for those that read one to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    Following,
    Folding,
}

/// What all who read have in common.
fn readers(config: &KafkaConfig) -> ClientConfig {
    let mut settings = common(config);
    settings
        // A reader knows itself where it is, or commits its places with what they stand for.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // An offset that the log does not have means that the log is not the one that was
        // folded. Starting elsewhere would hide it.
        .set("auto.offset.reset", "error")
        .set("fetch.message.max.bytes", BATCH_BYTES_MAX.to_string())
        // When the queue is full the reader is the slow one, and is asked again soon: the
        // default of a second would make a fold of history crawl.
        .set("fetch.queue.backoff.ms", "2")
        .set("fetch.error.backoff.ms", "50");
    settings
}

pub(super) fn consumer(config: &KafkaConfig, reading: Reading) -> ClientConfig {
    let mut settings = readers(config);
    // A broker answers at once when there is something to read; this is how long it keeps an
    // idle question. A partition that is added meanwhile waits until that question is
    // answered. So it is short where a fail-over waits for partitions to be added, which is
    // asked only while something is read there; and long enough elsewhere to cost a broker
    // nothing.
    let wait_ms = match reading {
        Reading::Following => "100",
        Reading::Folding => "10",
    };
    settings
        // librdkafka assigns nothing without the name of a group. The group is never joined
        // and nothing is ever committed to it.
        .set("group.id", "stationmaster")
        // The order of the log decides. A foreign transaction that hangs must not stop it.
        .set("isolation.level", "read_uncommitted")
        .set("fetch.wait.max.ms", wait_ms)
        .set("fetch.min.bytes", "1")
        // Per partition that is read.
        .set("queued.max.messages.kbytes", "4096");
    settings
}

/// The time after which a coordinator ends the transaction of a member that went silent. So long
/// nobody else learns the group's place in what that member was reading.
pub(super) const TRANSACTION_MS_MAX: u64 = 10_000;

/// How long coordinators may take: they wait for replicas of topics of their own.
const COORDINATOR_MS_MAX: &str = "10000";

/// A member of a group that reads a topic from its first record on.
pub(super) fn group_consumer(config: &KafkaConfig, group: &str, member: &str) -> ClientConfig {
    let mut settings = readers(config);
    settings
        .set("socket.timeout.ms", COORDINATOR_MS_MAX)
        .set("group.id", group)
        // A member that was put out of the group may say in a commit that it is none, and
        // coordinators believe commits of no members (generation -1). Not with a name (KIP-345):
        // then the commit is refused. One that starts again within the session also gets its
        // partitions back without a rebalance.
        .set("group.instance.id", member)
        // A member that comes or goes moves few partitions, and the others go on meanwhile.
        .set("partition.assignment.strategy", "cooperative-sticky")
        // The least that brokers allow by default: so long a lost member's partitions wait.
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "1500")
        // Only so is the group's place not told while a transaction that moves it is open.
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "100")
        .set("queued.max.messages.kbytes", "16384");
    settings
}

/// The producer of such a member.
pub(super) fn transactional_producer(config: &KafkaConfig, id: &str) -> ClientConfig {
    let mut settings = common(config);
    settings
        .set("socket.timeout.ms", COORDINATOR_MS_MAX)
        .set("transactional.id", id)
        .set("transaction.timeout.ms", TRANSACTION_MS_MAX.to_string())
        .set("message.timeout.ms", (TRANSACTION_MS_MAX - 1_000).to_string())
        .set("acks", "all")
        .set("enable.idempotence", "true")
        // A transaction's messages come at once, and its end waits for none to gather.
        .set("linger.ms", "1")
        // As Kafka's Java client does, so that consumers may join topics by key.
        .set("partitioner", "murmur2_random")
        .set("message.max.bytes", BATCH_BYTES_MAX.to_string());
    settings
}

pub(super) fn admin(config: &KafkaConfig) -> ClientConfig {
    common(config)
}
