//! Kafka and Redis on loopback, as the tests of `ledger` and `lua` use them. No root needed.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use e2e::{KafkaCluster, Redis};

fn topics(kafka: &KafkaCluster, args: &[&str]) -> String {
    let mut tool = kafka.tool("topics").expect("the jars are there");
    e2e::error::output_of(tool.args(args)).expect("the tool succeeds")
}

#[test]
#[ignore = "needs Java, Maven once, and half a minute: run with --ignored"]
fn a_broker_that_was_killed_comes_back_with_its_topics() {
    let begun = Instant::now();
    let mut kafka = KafkaCluster::start(1).unwrap();
    println!("one broker after {:?}", begun.elapsed());
    topics(&kafka, &["--create", "--topic", "ledger", "--partitions", "17"]);
    kafka.kill_broker(0).unwrap();
    assert!(TcpStream::connect(kafka.bootstrap()).is_err());
    let begun = Instant::now();
    kafka.start_all().unwrap();
    println!("again after {:?}", begun.elapsed());
    assert!(topics(&kafka, &["--describe", "--topic", "ledger"]).contains("PartitionCount: 17"));
    let (process, folder) = (kafka.process(0).unwrap(), PathBuf::from(&kafka.site().folder));
    drop(kafka);
    assert!(!process.alive());
    assert!(!Path::exists(&folder));
}

#[test]
#[ignore = "needs Java, Maven once, 1 GB and a minute: run with --ignored"]
fn three_brokers_lose_one_and_take_it_back() {
    let begun = Instant::now();
    let mut kafka = KafkaCluster::start(3).unwrap();
    println!("three brokers after {:?}", begun.elapsed());
    topics(&kafka, &["--create", "--topic", "ledger", "--partitions", "5"]);
    kafka.kill_broker(1).unwrap();
    kafka.start_broker(1).unwrap();
    assert!(topics(&kafka, &["--describe"]).contains("ReplicationFactor: 3"));
}

#[test]
#[ignore = "needs redis-server: run with --ignored"]
fn a_redis_that_was_stopped_comes_back_empty() {
    let begun = Instant::now();
    let mut redis = Redis::start().unwrap();
    println!("Redis after {:?}", begun.elapsed());
    assert_eq!(redis.ask("SET a b").unwrap(), "+OK");
    redis.flush().unwrap();
    assert_eq!(redis.ask("DBSIZE").unwrap(), ":0");
    redis.ask("SET a b").unwrap();
    redis.stop().unwrap();
    assert!(redis.ask("PING").is_err());
    redis.start_again().unwrap();
    assert_eq!(redis.ask("DBSIZE").unwrap(), ":0");
}
