//! Against librdkafka's own mock cluster, which breaks in ways that a real one cannot be asked
//! to. The real ones are met in tests/kafka.rs.

use std::{future::poll_fn, time::Instant};

use rdkafka::{
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};

use super::*;
use crate::{Record, Tail, contract::PARTITIONS};

const P1: Partition = Partition(1);
const PATIENCE: Duration = Duration::from_secs(10);

fn config(servers: &str) -> KafkaConfig {
    KafkaConfig {
        bootstrap_servers: servers.to_owned(),
        client_id: "ledger-test".to_owned(),
        options: Vec::new(),
    }
}

/// Three brokers in this process, with a ledger's topic. The second says who writes to it.
struct Mock(MockCluster<'static, DefaultProducerContext>, Writes);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writes {
    Each,
    Librdkafka,
}

const BROKERS: [i32; 3] = [1, 2, 3];

impl Mock {
    fn start() -> Mock {
        let mock = MockCluster::new(BROKERS.len() as i32).expect("a mock cluster");
        mock.create_topic("ledger", i32::from(PARTITIONS), 3).expect("a topic");
        Mock(mock, Writes::Each)
    }

    fn shared() -> Mock {
        Mock(Mock::start().0, Writes::Librdkafka)
    }

    fn both() -> [Mock; 2] {
        [Mock::start(), Mock::shared()]
    }

    fn connect(&self) -> KafkaLedger {
        let mut config = config(&self.0.bootstrap_servers());
        if self.1 == Writes::Librdkafka {
            config.options.push(("client.rack".to_owned(), "any".to_owned()));
        }
        KafkaLedger::connect(&config, "ledger", PATIENCE).expect("connected")
    }
}

mod each {
    use super::*;

    crate::ledger_contract! {{
        let mock = Mock::start();
        let ledger = mock.connect();
        move || {
            let _alive = &mock;
            ledger.handle()
        }
    }}
}

mod librdkafka {
    use super::*;

    crate::ledger_contract! {{
        let mock = Mock::shared();
        let ledger = mock.connect();
        move || {
            let _alive = &mock;
            ledger.handle()
        }
    }}
}

async fn fates(log: &mut KafkaLog, count: usize) -> Vec<(Slip, Fate)> {
    let mut fates = Vec::new();
    while fates.len() < count {
        let wait = poll_fn(|cx| log.poll_fates(cx, &mut fates));
        tokio::time::timeout(3 * PATIENCE, wait).await.expect("a fate in time");
    }
    fates
}

/// Appends as a worker does: what is refused as full is tried again when the task is woken, or
/// with the next tick.
async fn append(log: &mut KafkaLog, to: Partition, slip: u64, frame: &[u8]) {
    let started = Instant::now();
    while let Err(refused) = log.append(to, Slip(slip), frame) {
        assert_eq!(refused, Refused::Full);
        assert!(started.elapsed() < PATIENCE, "it never took the append");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn records(tail: &mut KafkaTail, count: usize) -> Vec<Record> {
    let mut records = Vec::new();
    while records.len() < count {
        let wait = poll_fn(|cx| tail.poll_records(cx, &mut records));
        let read = tokio::time::timeout(3 * PATIENCE, wait).await.expect("a record in time");
        read.expect("a tail that is not torn");
    }
    records
}

#[tokio::test]
async fn a_lost_producer_is_replaced_after_every_fate_was_told() {
    let mock = Mock::shared();
    let ledger = mock.connect();
    let (mut log, mut idle) = (ledger.handle(), ledger.handle());
    append(&mut log, P1, 1, b"before").await;
    assert_eq!(fates(&mut log, 1).await, [(Slip(1), Fate::At(0))]);

    let Writing::Shared(producer) = &ledger.writing else { panic!("it is librdkafka's") };
    let lost = producer.link();
    // The broker lacks a frame before this one that it had confirmed: idempotence is lost.
    let broken = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    mock.0.request_errors(RDKafkaApiKey::Produce, &[broken]);
    for slip in 2..=4 {
        append(&mut log, P1, slip, b"in doubt").await;
    }
    let mut told = fates(&mut log, 3).await;
    told.sort_unstable_by_key(|(slip, _)| *slip);
    assert_eq!(told[0], (Slip(2), Fate::Unknown));

    append(&mut log, P1, 5, b"after").await;
    append(&mut idle, P1, 6, b"after").await;
    assert!(matches!(fates(&mut log, 1).await[..], [(Slip(5), Fate::At(_))]));
    assert!(matches!(fates(&mut idle, 1).await[..], [(Slip(6), Fate::At(_))]));
    assert!(!std::sync::Weak::ptr_eq(&lost, &producer.link()), "it was never replaced");
}

#[tokio::test]
async fn a_broken_lane_has_no_fates_and_goes_on_while_the_others_never_stop() {
    const P2: Partition = Partition(2);
    let mock = Mock::start();
    let ledger = mock.connect();
    let mut log = ledger.handle();
    for (to, slip) in [(P1, 1), (P2, 2)] {
        append(&mut log, to, slip, b"before").await;
        assert_eq!(fates(&mut log, 1).await, [(Slip(slip), Fate::At(0))]);
    }
    let broken = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    mock.0.request_errors(RDKafkaApiKey::Produce, &[broken]);
    for slip in 3..=5 {
        append(&mut log, P1, slip, b"in doubt").await;
    }
    let told = fates(&mut log, 3).await;
    assert_eq!(told, [3, 4, 5].map(|slip| (Slip(slip), Fate::Unknown)));
    append(&mut log, P2, 6, b"after").await;
    assert_eq!(fates(&mut log, 1).await, [(Slip(6), Fate::At(1))]);
    append(&mut log, P1, 7, b"after").await;
    assert!(matches!(fates(&mut log, 1).await[..], [(Slip(7), Fate::At(_))]));
}

#[test]
fn servers_are_read_as_librdkafka_reads_them() {
    let read = |list: &str| {
        let servers = plain_servers(list);
        servers.map(|servers| servers.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let servers = ["a:1", "b:9092", "[::1]:7"].map(str::to_owned).to_vec();
    assert_eq!(read("a:1, PLAINTEXT://b ,[::1]:7,"), Some(servers));
    assert_eq!(read("a:1,SSL://b:2"), None);
    assert_eq!(read(" "), None);
}

#[tokio::test]
async fn a_retry_that_the_broker_knew_has_a_fate_without_an_offset() {
    for mock in Mock::both() {
        let ledger = mock.connect();
        let mut log = ledger.handle();
        let known = RDKafkaRespErr::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER;
        mock.0.request_errors(RDKafkaApiKey::Produce, &[known]);
        append(&mut log, P1, 1, b"twice").await;
        assert_eq!(fates(&mut log, 1).await, [(Slip(1), Fate::Somewhere)]);
    }
}

#[tokio::test]
async fn a_passing_error_is_retried_and_written_once() {
    for mock in Mock::both() {
        let ledger = mock.connect();
        let mut log = ledger.handle();
        let passing = [
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        ];
        mock.0.request_errors(RDKafkaApiKey::Produce, &passing);
        for slip in 0..20 {
            append(&mut log, P1, slip, &slip.to_le_bytes()).await;
        }
        let mut told = fates(&mut log, 20).await;
        told.sort_unstable_by_key(|(slip, _)| *slip);
        let expected: Vec<_> = (0..20).map(|i| (Slip(i), Fate::At(i))).collect();
        assert_eq!(told, expected);
        let read = records(&mut log.tail(P1, 0), 20).await;
        assert!(read.iter().zip(0_u64..).all(|(record, i)| record.bytes == i.to_le_bytes()));
        assert_eq!(log.end(P1).await, Ok(20));
    }
}

#[tokio::test]
async fn what_has_no_fate_at_closing_is_unknown_and_then_appends_are_refused() {
    for mock in Mock::both() {
        let ledger = mock.connect();
        let mut log = ledger.handle();
        append(&mut log, P1, 1, b"before").await;
        fates(&mut log, 1).await;
        for broker in BROKERS {
            mock.0.broker_down(broker).expect("down");
        }
        append(&mut log, P1, 2, b"never").await;
        ledger.close(Duration::from_millis(100));
        assert_eq!(fates(&mut log, 1).await, [(Slip(2), Fate::Unknown)]);
        assert!(matches!(log.append(P1, Slip(3), b"late"), Err(Refused::Closed(_))));
    }
}

#[tokio::test]
async fn an_orderly_close_waits_for_what_was_accepted() {
    for mock in Mock::both() {
        let ledger = mock.connect();
        let mut log = ledger.handle();
        for slip in 0..500 {
            append(&mut log, P1, slip, b"accepted").await;
        }
        ledger.close(PATIENCE);
        assert!(fates(&mut log, 500).await.iter().all(|(_, fate)| matches!(fate, Fate::At(_))));
    }
}

#[tokio::test]
async fn tails_and_ends_wait_until_brokers_are_back() {
    for mock in Mock::both() {
        let ledger = mock.connect();
        let mut log = ledger.handle();
        append(&mut log, P1, 1, b"before").await;
        fates(&mut log, 1).await;
        let mut tail = log.tail(P1, 0);
        records(&mut tail, 1).await;
        for broker in BROKERS {
            mock.0.broker_down(broker).expect("down");
        }
        append(&mut log, P1, 2, b"meanwhile").await;
        let end = log.end(P1);
        let mut later = log.tail(P1, 0);
        let up = async {
            // Long enough for every client to notice and to try in vain.
            tokio::time::sleep(Duration::from_secs(2)).await;
            for broker in BROKERS {
                mock.0.broker_up(broker).expect("up");
            }
        };
        let (end, ()) = tokio::join!(end, up);
        assert!(end.is_ok());
        assert!(matches!(fates(&mut log, 1).await[..], [(Slip(2), Fate::At(1) | Fate::Somewhere)]));
        assert_eq!(records(&mut tail, 1).await[0].bytes, b"meanwhile");
        assert_eq!(records(&mut later, 2).await[1].bytes, b"meanwhile");
    }
}

#[tokio::test]
async fn a_tail_follows_its_partition_to_another_leader() {
    for mock in Mock::both() {
        let ledger = mock.connect();
        let mut log = ledger.handle();
        let mut tail = log.tail(P1, 0);
        for (leader, slip) in [1, 2, 3, 1].into_iter().zip(0_u64..) {
            mock.0.partition_leader("ledger", i32::from(P1.0), Some(leader)).expect("a leader");
            append(&mut log, P1, slip, &slip.to_le_bytes()).await;
            assert_eq!(fates(&mut log, 1).await, [(Slip(slip), Fate::At(slip))]);
            assert_eq!(records(&mut tail, 1).await[0].offset, slip);
        }
    }
}

#[tokio::test]
async fn tails_that_were_dropped_make_room_for_others() {
    let mock = Mock::start();
    let ledger = mock.connect();
    let mut log = ledger.handle();
    append(&mut log, P1, 1, b"only").await;
    fates(&mut log, 1).await;
    for _ in 0..3 {
        // As many as may live at once, opened and dropped before the thread came to them.
        drop((0..500).map(|_| log.tail(P1, 0)).collect::<Vec<_>>());
        let started = Instant::now();
        loop {
            let mut tail = log.tail(P1, 0);
            let mut read = Vec::new();
            let wait = poll_fn(|cx| tail.poll_records(cx, &mut read));
            match tokio::time::timeout(PATIENCE, wait).await.expect("an answer in time") {
                Ok(()) => break,
                // Too many at once is said, and passes.
                Err(Torn::Failed(why)) => assert!(why.contains("already"), "{why}"),
                Err(torn) => panic!("{torn}"),
            }
            assert!(started.elapsed() < PATIENCE, "no room came back");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[test]
fn a_topic_that_is_missing_is_told_from_a_cluster_that_is_away() {
    let mock = Mock::start();
    let here = config(&mock.0.bootstrap_servers());
    let missing = KafkaLedger::connect(&here, "no-such-topic", PATIENCE).map(drop);
    assert_eq!(missing, Err(Trouble::TopicMissing("no-such-topic".to_owned())));
    // A port that was just free: nobody listens there.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address").to_string();
    drop(socket);
    let away = KafkaLedger::connect(&config(&address), "ledger", Duration::from_secs(2));
    assert!(matches!(away.map(drop), Err(Trouble::Unreachable { .. })));
    let mut wrong = here;
    wrong.options.push(("no.such.setting".to_owned(), "1".to_owned()));
    let wrong = KafkaLedger::connect(&wrong, "ledger", PATIENCE);
    assert!(matches!(wrong.map(drop), Err(Trouble::Setting(_))));
}

#[test]
fn options_cannot_undo_what_a_ledgers_safety_rests_on() {
    let mut config = config("unused:9092");
    for (name, value) in [("acks", "0"), ("enable.idempotence", "false"), ("client.rack", "a")] {
        config.options.push((name.to_owned(), value.to_owned()));
    }
    let settings = settings::producer(&config, settings::Kept::ForEver);
    assert_eq!(settings.get("acks"), Some("all"));
    assert_eq!(settings.get("enable.idempotence"), Some("true"));
    assert_eq!(settings.get("client.rack"), Some("a"));
}

#[test]
fn a_topic_id_is_printed_as_kafka_prints_it() {
    // The example of Kafka's own Uuid: its bits, and its toString.
    let id = TopicId::from_halves(1, 2);
    assert_eq!(id.to_string(), "AAAAAAAAAAEAAAAAAAAAAg");
}

#[tokio::test]
#[ignore = "needs a broker with SASL PLAIN: STATIONMASTER_KAFKA_SASL=host:port"]
async fn a_wrong_password_is_called_so() {
    let servers = std::env::var("STATIONMASTER_KAFKA_SASL").expect("STATIONMASTER_KAFKA_SASL");
    let mut config = config(&servers);
    for (name, value) in [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "node"),
        ("sasl.password", "wrong"),
    ] {
        config.options.push((name.to_owned(), value.to_owned()));
    }
    let refused = KafkaLedger::connect(&config, "ledger", Duration::from_secs(3));
    assert!(matches!(refused.map(drop), Err(Trouble::AuthenticationFailed(_))));
    let topics = Topics::new(&config).expect("settings");
    let spec = TopicSpec {
        name: "ledger".to_owned(),
        partitions: PARTITIONS,
        replicas: 1,
        min_in_sync: 1,
        keep: Keep::ForEver,
    };
    let refused = topics.check(&spec).await;
    assert!(matches!(refused, Err(Trouble::AuthenticationFailed(_))), "{refused:?}");
}
