//! A ledger in a real topic. `STATIONMASTER_KAFKA=host:port` names the broker; without it these
//! tests say that they are left out, since this crate starts none.

#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used, reason = "what cannot be built or read is a failure")]

mod lab;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use checker::source::{self, Unreadable};
use checker::verify::{MARGIN_MS, Wishes, verify};
use futures::executor::block_on;
use lab::{Ask, Lab, START, buyer_at, held, home};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const PATIENCE: Duration = Duration::from_secs(30);

struct Broker {
    address: String,
    config: ClientConfig,
}

impl Broker {
    fn there() -> Option<Self> {
        let Ok(address) = std::env::var("STATIONMASTER_KAFKA") else {
            eprintln!("SKIPPED: STATIONMASTER_KAFKA names no broker");
            return None;
        };
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &address);
        Some(Self { address, config })
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config.create().unwrap()
    }

    /// Writes all records of a lab into a new topic; gives its address.
    fn topic(&self, lab: &Lab) -> (String, String) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let topic = format!("checker-test-{}", since.as_nanos());
        let partitions = i32::from(lab::SHARES) + 1;
        let new = NewTopic::new(&topic, partitions, TopicReplication::Fixed(1));
        let made = block_on(self.admin().create_topics([&new], &AdminOptions::new())).unwrap();
        assert_eq!(made, [Ok(topic.clone())]);
        let producer: BaseProducer = self.config.create().unwrap();
        for (partition, record) in &lab.records {
            let record =
                BaseRecord::<(), _>::to(&topic).partition(i32::from(*partition)).payload(record);
            producer.send(record).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        let address = format!("kafka:{}/{topic}", self.address);
        (topic, address)
    }
}

fn lab() -> Lab {
    let mut lab = Lab::founded();
    let first = home(0);
    lab.claim(first);
    for number in 1..=4 {
        let ask = Ask::new(&buyer_at(first, number as usize), "k", (0, 3));
        let seat = u16::try_from(number - 1).unwrap();
        lab.frame(first, &[held((first, 1, number), 0, &ask, &[seat], START + 900_000)]);
    }
    lab
}

fn wishes() -> Wishes {
    // The lab's name is not the topic's, which the checker would take otherwise.
    Wishes { name: Some(lab::NAME.to_owned()), at_rest: false, margin_ms: MARGIN_MS }
}

#[test]
fn a_topic_is_read_from_its_first_record_to_its_end() {
    let Some(broker) = Broker::there() else { return };
    let (_, address) = broker.topic(&lab());
    let mut ledger = source::open(&address).unwrap();
    let report = verify(ledger.as_mut(), &[], &wishes()).unwrap().report;
    assert!(report.holds(), "{:?}", report.findings);
    assert_eq!(report.get("records"), Some(7));
    assert_eq!(report.get("seat-legs.held"), Some(12));
    // Under the topic's own name there is no Genesis.
    let mut ledger = source::open(&address).unwrap();
    let named = Wishes { name: None, ..wishes() };
    assert!(matches!(verify(ledger.as_mut(), &[], &named), Err(Unreadable::NoGenesis)));
}

#[test]
fn a_topic_whose_first_records_are_gone_is_lost() {
    let Some(broker) = Broker::there() else { return };
    let (topic, address) = broker.topic(&lab());
    let mut gone = TopicPartitionList::new();
    gone.add_partition_offset(&topic, i32::from(home(0)), Offset::Offset(2)).unwrap();
    block_on(broker.admin().delete_records(&gone, &AdminOptions::new())).unwrap();
    assert!(matches!(source::open(&address), Err(Unreadable::Lost { .. })));
}

#[test]
fn a_topic_or_broker_that_is_not_there_is_unreadable() {
    let Some(broker) = Broker::there() else { return };
    let missing = format!("kafka:{}/no-such-topic", broker.address);
    assert!(matches!(source::open(&missing), Err(Unreadable::Kafka(_))));
    // Nothing listens on port 1.
    assert!(matches!(source::open("kafka:127.0.0.1:1/ledger"), Err(Unreadable::Kafka(_))));
}
