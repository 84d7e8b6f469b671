//! The ledger against real brokers: one that keeps every promise, and three of which one dies
//! and one hangs.
//!
//! `STATIONMASTER_KAFKA=host:port` names a broker to use instead of starting one; it must
//! allow topics to be created. Starting one needs Java and, the first time, Maven.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use e2e::kafka::KafkaCluster;
use ledger::{
    Fate, Log, Partition, Record, Refused, Slip, Tail, Torn,
    contract::{self, PARTITIONS},
    kafka::{
        KafkaConfig, KafkaLedger, KafkaLog, KafkaTail, Keep, Lost, Message, News, Relay, Route,
        Topic, TopicSpec, Topics, Trouble,
    },
};
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer};

const P0: Partition = Partition(0);
const P1: Partition = Partition(1);
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster, started here unless it is there already. None, with a word about it, where there
/// is no Java for it and nobody insists.
struct Brokers {
    cluster: Option<KafkaCluster>,
    config: KafkaConfig,
    count: u16,
}

impl Brokers {
    fn start(count: u16) -> Option<Brokers> {
        let java = Command::new("java").arg("-version").output();
        if java.is_err() {
            assert!(std::env::var_os("CI").is_none(), "Java is not installed");
            eprintln!("SKIPPED: Kafka needs Java, which is not installed");
            return None;
        }
        let cluster = KafkaCluster::start(count).expect("a cluster");
        let config = config(&cluster.bootstrap());
        Some(Brokers { cluster: Some(cluster), config, count })
    }

    fn one() -> Option<Brokers> {
        match std::env::var("STATIONMASTER_KAFKA") {
            Ok(servers) => Some(Brokers { cluster: None, config: config(&servers), count: 1 }),
            Err(_) => Brokers::start(1),
        }
    }

    fn spec(&self, name: &str) -> TopicSpec {
        // Another name each time, so that a broker may be used again.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        TopicSpec {
            name: format!("ledger-test-{name}-{}", since.as_nanos()),
            partitions: PARTITIONS,
            replicas: self.count,
            min_in_sync: self.count.min(2),
            keep: Keep::ForEver,
        }
    }

    async fn found(&self, spec: &TopicSpec) -> KafkaLedger {
        let topics = Topics::new(&self.config).expect("settings");
        topics.found(spec).await.expect("founded");
        KafkaLedger::connect(&self.config, &spec.name, PATIENCE).expect("connected")
    }
}

fn config(servers: &str) -> KafkaConfig {
    KafkaConfig {
        bootstrap_servers: servers.to_owned(),
        client_id: "ledger-test".to_owned(),
        options: Vec::new(),
    }
}

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what}: too late"))
}

async fn append(log: &mut KafkaLog, to: Partition, frame: &[u8]) -> Fate {
    log.append(to, Slip(0), frame).expect("room");
    let mut fates = Vec::new();
    in_time("a fate", poll_fn(|cx| log.poll_fates(cx, &mut fates))).await;
    fates[0].1
}

async fn records(tail: &mut KafkaTail, count: usize) -> Vec<Record> {
    let mut records = Vec::new();
    while records.len() < count {
        let read = in_time("a record", poll_fn(|cx| tail.poll_records(cx, &mut records))).await;
        read.expect("a tail that is not torn");
    }
    records
}

async fn torn(tail: &mut KafkaTail) -> Torn {
    let mut records = Vec::new();
    loop {
        let read = in_time("a tear", poll_fn(|cx| tail.poll_records(cx, &mut records))).await;
        if let Err(torn) = read {
            return torn;
        }
    }
}

#[tokio::test]
#[ignore = "needs Java and Kafka, which `cargo e2e install` brings, and minutes"]
async fn a_real_broker_keeps_every_promise() {
    let Some(brokers) = Brokers::one() else { return };
    contract::every_promise(async || {
        let ledger = brokers.found(&brokers.spec("contract")).await;
        move || ledger.handle()
    })
    .await;
    founding_creates_once_and_never_alters(&brokers).await;
    a_topic_made_anew_has_another_id_and_its_old_tails_are_torn(&brokers).await;
    a_fresh_tail_gives_its_first_record_well_within_a_fail_over(&brokers).await;
    a_tail_whose_reader_stalls_goes_on_from_another(&brokers).await;
    a_relay_carries_each_record_once_while_members_come_and_go(&brokers).await;
}

/// A member that tells each record in a message of its own, until it is to end or is of no use.
fn carry(config: &KafkaConfig, route: Route, end: &AtomicBool) -> Result<(), Lost> {
    let mut relay = Relay::open(config, route).expect("a member");
    relay.join()?;
    let mut news = Vec::new();
    // What of each partition is told, and what waits.
    let mut mine: BTreeMap<Partition, (u64, Vec<Message>)> = BTreeMap::new();
    while !end.load(Ordering::Relaxed) {
        relay.poll(Duration::from_millis(50), 20, &mut news)?;
        for news in news.drain(..) {
            match news {
                News::Given(partition) => {
                    let place = relay.places(&[partition])?[0].unwrap_or(0);
                    mine.insert(partition, (place, Vec::new()));
                }
                News::Taken(partition) => drop(mine.remove(&partition)),
                News::Record(record) => {
                    let Some((place, waits)) = mine.get_mut(&record.partition) else { continue };
                    if record.offset == *place {
                        let key = format!("{}-{}", record.partition.0, record.offset);
                        waits.push(Message { key, headers: Vec::new(), value: record.bytes });
                        *place += 1;
                    }
                }
            }
        }
        let waiting = mine.values().flat_map(|(_, waits)| waits.clone()).collect::<Vec<_>>();
        let places = mine.iter().filter(|(_, (_, waits))| !waits.is_empty());
        let places = places.map(|(partition, (place, _))| (*partition, *place)).collect::<Vec<_>>();
        // A partition may be taken, or a membership be over, between what is heard and this.
        let told = if places.is_empty() { Ok(()) } else { relay.commit(&waiting, &places) };
        match told {
            Ok(()) => mine.values_mut().for_each(|(_, waits)| waits.clear()),
            Err(Lost::Again(_)) => {}
            Err(lost) => return Err(lost),
        }
    }
    relay.leave();
    Ok(())
}

/// Tells members to end, also when a test ends by a panic.
struct Ends<'a>([&'a AtomicBool; 2]);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|end| end.store(true, Ordering::Relaxed));
    }
}

async fn a_relay_carries_each_record_once_while_members_come_and_go(brokers: &Brokers) {
    const EACH: usize = 400;
    let (from, to) = (brokers.spec("from"), brokers.spec("to"));
    let ledger = brokers.found(&from).await;
    brokers.found(&to).await;
    let group = format!("group-of-{}", from.name);
    let route = |member: &str| Route {
        from: from.name.clone(),
        to: to.name.clone(),
        group: group.clone(),
        member: format!("{group}.{member}"),
    };
    let mut log = ledger.handle();
    let (end, leave) = (&AtomicBool::new(false), &AtomicBool::new(false));
    let config = &brokers.config;
    let told = std::thread::scope(|scope| {
        let ends = Ends([end, leave]);
        let first = scope.spawn(|| carry(config, route("a"), end));
        let second = scope.spawn(|| carry(config, route("b"), leave));
        // On a thread: a runtime's own may not wait for another one.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let mut write = |records| {
            std::thread::scope(|apart| {
                apart.spawn(|| runtime.block_on(write(&mut log, records)));
            });
        };
        write(100);
        // A member is restarted under its name before anybody missed it.
        let again = scope.spawn(|| carry(config, route("a"), end));
        write(150);
        // One goes as it should.
        leave.store(true, Ordering::Relaxed);
        write(150);
        runtime.shutdown_background();
        let told = told(config, &to.name, EACH * usize::from(PARTITIONS));
        drop(ends);
        second.join().expect("no panic").expect("it goes by itself");
        again.join().expect("no panic").expect("it goes by itself");
        let replaced = first.join().expect("no panic");
        assert!(matches!(replaced, Err(Lost::Final(_))), "{replaced:?}");
        told
    });
    let expected = (0..PARTITIONS).flat_map(|p| (0..EACH).map(move |at| (format!("{p}-{at}"), 1)));
    assert_eq!(told, expected.collect(), "each once");
}

/// Appends so many records to each partition, fifty a second.
async fn write(log: &mut KafkaLog, records: usize) {
    let mut fates = Vec::new();
    for round in 0..records {
        for partition in 0..PARTITIONS {
            log.append(Partition(partition), Slip(0), &round.to_le_bytes()).expect("room");
        }
        let due = (round + 1) * usize::from(PARTITIONS);
        while fates.len() < due {
            in_time("a fate", poll_fn(|cx| log.poll_fates(cx, &mut fates))).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How often each key is told: what came until all that is due did, and two seconds longer.
fn told(config: &KafkaConfig, topic: &str, due: usize) -> BTreeMap<String, u32> {
    let reader: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &config.bootstrap_servers)
        .set("group.id", format!("reader-of-{topic}"))
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    reader.subscribe(&[topic]).expect("subscribed");
    let mut told = BTreeMap::new();
    let mut patience = Instant::now() + PATIENCE;
    while Instant::now() < patience {
        if let Some(Ok(message)) = reader.poll(Duration::from_millis(100)) {
            let key = String::from_utf8_lossy(message.key().expect("a key")).into_owned();
            *told.entry(key).or_insert(0) += 1;
            if told.len() == due {
                patience = Instant::now() + Duration::from_secs(2);
            }
        }
    }
    told
}

async fn founding_creates_once_and_never_alters(brokers: &Brokers) {
    let topics = Topics::new(&brokers.config).expect("settings");
    let spec = brokers.spec("founding");
    let missing = topics.check(&spec).await;
    assert_eq!(missing, Err(Trouble::TopicMissing(spec.name.clone())));
    let first = topics.found(&spec).await.expect("founded");
    assert!(first.created);
    assert_eq!(first.low_watermarks, vec![0; usize::from(PARTITIONS)]);
    let again = topics.found(&spec).await.expect("found");
    assert_eq!(again, Topic { created: false, ..first.clone() });
    let other = TopicSpec { partitions: 9, keep: Keep::Millis(600_000), ..spec.clone() };
    let trouble = topics.found(&other).await.expect_err("it differs");
    assert!(matches!(trouble, Trouble::Misconfigured { .. }));
    let text = trouble.to_string();
    for part in ["partitions: 4→9", "retention.ms: -1→600000", "segment.ms: 604800000→600000"]
    {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(topics.check(&spec).await.expect("unaltered").id, first.id);
    let too_many = TopicSpec { replicas: 9, ..brokers.spec("replicas") };
    assert!(matches!(topics.found(&too_many).await, Err(Trouble::Refused(_))));
    // Two jobs that found at once: one creates, both find the same topic.
    let both = brokers.spec("both");
    let (one, two) = tokio::join!(topics.found(&both), topics.found(&both));
    let (one, two) = (one.expect("founded"), two.expect("founded"));
    assert_eq!(one.id, two.id);
    assert!(one.created != two.created, "{one:?} {two:?}");
}

async fn a_topic_made_anew_has_another_id_and_its_old_tails_are_torn(brokers: &Brokers) {
    // Deleting is not the ledger's business, so Kafka's own tool does it.
    let Some(cluster) = &brokers.cluster else { return };
    let spec = brokers.spec("anew");
    let ledger = brokers.found(&spec).await;
    let topics = Topics::new(&brokers.config).expect("settings");
    let first = topics.check(&spec).await.expect("there").id;
    let mut log = ledger.handle();
    assert_eq!(append(&mut log, P1, b"only").await, Fate::At(0));
    let mut tail = log.tail(P1, 0);
    records(&mut tail, 1).await;
    let mut tool = cluster.tool("topics").expect("the tool");
    let deleted = tool.args(["--delete", "--topic", &spec.name]).output().expect("it runs");
    assert!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stderr));
    // Another broker's word may be needed before the name is free.
    let started = Instant::now();
    let second = loop {
        match topics.found(&spec).await {
            Ok(topic) if topic.id != first => break topic.id,
            other => assert!(started.elapsed() < PATIENCE, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_ne!(first, second);
    println!("the tail of a topic that was made anew: {}", torn(&mut tail).await);
}

/// Prints what the times of a fail-over rest on; asserts only what it needs.
async fn a_tail_whose_reader_stalls_goes_on_from_another(brokers: &Brokers) {
    let spec = brokers.spec("stall");
    let ledger = brokers.found(&spec).await;
    let mut log = ledger.handle();
    for partition in [P0, P1] {
        let mut tail = log.tail(partition, 0);
        append(&mut log, partition, b"before").await;
        records(&mut tail, 1).await;
        for round in 0..2 {
            tail.stall();
            // What was fetched before it stalled may come yet.
            append(&mut log, partition, b"perhaps").await;
            append(&mut log, partition, b"after").await;
            let asked = Instant::now();
            let records = records(&mut tail, 2).await;
            assert_eq!(records[1].bytes, b"after");
            println!("{partition:?}: a stall, round {round}, cost {:?}", asked.elapsed());
            assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
        }
    }
}

async fn a_fresh_tail_gives_its_first_record_well_within_a_fail_over(brokers: &Brokers) {
    let spec = TopicSpec { partitions: 17, ..brokers.spec("times") };
    let ledger = brokers.found(&spec).await;
    let mut log = ledger.handle();
    for partition in 0..17 {
        for _ in 0..200 {
            log.append(Partition(partition), Slip(0), &[7; 1_200]).expect("room");
        }
        let mut fates = Vec::new();
        while fates.len() < 200 {
            in_time("a fate", poll_fn(|cx| log.poll_fates(cx, &mut fates))).await;
        }
    }
    let spread = |mut times: Vec<Duration>| {
        times.sort_unstable();
        format!("median {:?}, worst {:?}", times[times.len() / 2], times[times.len() - 1])
    };

    let fresh = KafkaLedger::connect(&brokers.config, &spec.name, PATIENCE).expect("connected");
    for partition in [P0, P1, P1] {
        let started = Instant::now();
        records(&mut fresh.handle().tail(partition, 0), 1).await;
        println!("after connecting, first record of {partition:?}: {:?}", started.elapsed());
        assert!(started.elapsed() < Duration::from_millis(500));
    }

    let (mut first, mut whole) = (Vec::new(), Vec::new());
    for partition in 1..17 {
        let started = Instant::now();
        records(&mut log.tail(Partition(partition), 0), 1).await;
        first.push(started.elapsed());
    }
    println!("a fresh tail's first record: {}", spread(first));

    let started = Instant::now();
    let mut tails: Vec<_> = (1..17).map(|p| log.tail(Partition(p), 0)).collect();
    for tail in &mut tails {
        records(tail, 200).await;
        whole.push(started.elapsed());
    }
    println!("16 tails at once, 200 records each: {}", spread(whole));
    assert!(started.elapsed() < Duration::from_secs(1));
    drop(tails);

    let mut ends = Vec::new();
    for partition in 0..17 {
        let started = Instant::now();
        assert_eq!(log.end(Partition(partition)).await, Ok(200));
        ends.push(started.elapsed());
    }
    println!("end(): {}", spread(ends));

    let mut tail = log.tail(P0, 200);
    let (mut told, mut seen) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let started = Instant::now();
        append(&mut log, P0, &[7; 1_200]).await;
        told.push(started.elapsed());
        records(&mut tail, 1).await;
        seen.push(started.elapsed());
    }
    println!("append to fate: {}", spread(told));
    println!("append to a live tail: {}", spread(seen));
}

/// What a writer and a reader of every partition saw while brokers came and went.
struct Watch {
    log: KafkaLog,
    tails: Vec<KafkaTail>,
    /// For each partition, what was told to lie where.
    told: Vec<BTreeMap<u64, u64>>,
    /// For each partition, what was read, in order.
    read: Vec<Vec<u64>>,
    /// When each partition last had a fate, and the longest time without.
    last: Vec<Instant>,
    longest: Duration,
    /// One append is in flight in each partition.
    busy: Vec<bool>,
    next: u64,
    unknown: usize,
    somewhere: usize,
}

impl Watch {
    fn new(ledger: &KafkaLedger) -> Watch {
        let log = ledger.handle();
        let count = usize::from(PARTITIONS);
        Watch {
            tails: (0..PARTITIONS).map(|p| log.tail(Partition(p), 0)).collect(),
            log,
            told: vec![BTreeMap::new(); count],
            read: vec![Vec::new(); count],
            last: vec![Instant::now(); count],
            longest: Duration::ZERO,
            busy: vec![false; count],
            next: 0,
            unknown: 0,
            somewhere: 0,
        }
    }

    /// Keeps one append in flight in each partition, and reads all of them, for so long.
    async fn run(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn().await;
        }
    }

    fn begin(&mut self) {
        self.longest = Duration::ZERO;
        self.last.fill(Instant::now());
    }

    /// Goes on until every partition had a fate after that moment.
    async fn until_all_served_after(&mut self, moment: Instant) {
        while self.last.iter().any(|last| *last < moment) {
            assert!(moment.elapsed() < PATIENCE, "a partition is not served any more");
            self.turn().await;
        }
    }

    /// Waits for what is in flight, and reads all that was written.
    async fn end(&mut self) {
        let count = usize::from(PARTITIONS);
        let mut fates = Vec::new();
        while self.busy.contains(&true) {
            in_time("a fate", poll_fn(|cx| self.log.poll_fates(cx, &mut fates))).await;
            self.hear(&mut fates);
        }
        for partition in 0..count {
            let end = in_time("an end", self.log.end(Partition(partition as u16))).await;
            let missing = end.expect("an end") as usize - self.read[partition].len();
            let records = records(&mut self.tails[partition], missing).await;
            self.note(records);
        }
    }

    async fn turn(&mut self) {
        for partition in 0..usize::from(PARTITIONS) {
            if !self.busy[partition] {
                let slip = self.next * u64::from(PARTITIONS) + partition as u64;
                match self.log.append(Partition(partition as u16), Slip(slip), &slip.to_le_bytes())
                {
                    Ok(()) => {
                        self.busy[partition] = true;
                        self.next += 1;
                    }
                    Err(Refused::Full) => {}
                    Err(refused) => panic!("{refused}"),
                }
            }
        }
        let (mut fates, mut records) = (Vec::new(), Vec::new());
        let work = poll_fn(|cx| {
            let mut ready = self.log.poll_fates(cx, &mut fates).is_ready();
            for tail in &mut self.tails {
                if let std::task::Poll::Ready(read) = tail.poll_records(cx, &mut records) {
                    read.expect("a tail that is not torn");
                    ready = true;
                }
            }
            if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        });
        // A tick, as a worker has one.
        let _ = tokio::time::timeout(Duration::from_millis(20), work).await;
        self.hear(&mut fates);
        self.note(records);
    }

    fn hear(&mut self, fates: &mut Vec<(Slip, Fate)>) {
        for (Slip(slip), fate) in fates.drain(..) {
            let partition = (slip % u64::from(PARTITIONS)) as usize;
            self.busy[partition] = false;
            self.longest = self.longest.max(self.last[partition].elapsed());
            self.last[partition] = Instant::now();
            match fate {
                Fate::At(at) => {
                    let before = self.told[partition].insert(at, slip);
                    assert_eq!(before, None, "offset {at} was told twice");
                }
                Fate::Somewhere => self.somewhere += 1,
                Fate::Unknown => self.unknown += 1,
            }
        }
    }

    fn note(&mut self, records: Vec<Record>) {
        for record in records {
            let slip = u64::from_le_bytes(record.bytes.try_into().expect("eight bytes"));
            self.read[usize::from(record.partition.0)].push(slip);
        }
    }

    /// Everything told lies where it was told, once, and in the order of the calls.
    fn check(&self) {
        for (told, read) in self.told.iter().zip(&self.read) {
            for (at, slip) in told {
                assert_eq!(read.get(*at as usize), Some(slip), "offset {at}");
            }
            assert!(read.windows(2).all(|pair| pair[0] < pair[1]), "a frame is doubled or late");
        }
    }
}

/// The broker that leads partition 1 of a topic, the first one being 0.
fn leader(config: &KafkaConfig, topic: &str) -> usize {
    let mut settings = rdkafka::ClientConfig::new();
    settings.set("bootstrap.servers", &config.bootstrap_servers);
    let client: BaseConsumer = settings.create().expect("a client");
    let metadata = client.fetch_metadata(Some(topic), PATIENCE).expect("metadata");
    let leader = metadata.topics()[0].partitions()[usize::from(P1.0)].leader();
    usize::try_from(leader - 1).expect("a leader")
}

#[tokio::test]
#[ignore = "needs Java and Kafka, which `cargo e2e install` brings, and minutes"]
async fn a_leader_that_dies_or_hangs_costs_seconds_and_no_record() {
    let Some(mut brokers) = Brokers::start(3) else { return };
    let spec = brokers.spec("faults");
    let ledger = brokers.found(&spec).await;
    let mut cluster = brokers.cluster.take().expect("started here");
    let mut watch = Watch::new(&ledger);
    watch.run(Duration::from_secs(2)).await;
    for hang in [true, false, true, false] {
        let broker = leader(&brokers.config, &spec.name);
        watch.begin();
        let struck = Instant::now();
        if hang {
            cluster.pause_broker(broker).expect("it hangs");
        } else {
            cluster.kill_broker(broker).expect("it dies");
        }
        watch.until_all_served_after(struck + Duration::from_secs(4)).await;
        let what = if hang { "hangs" } else { "dies" };
        println!("a leader {what}: longest time without a fate {:?}", watch.longest);
        if hang {
            cluster.resume_broker(broker).expect("it goes on");
        } else {
            // Blocks for some seconds, in which nobody is served here.
            cluster.start_broker(broker).expect("it starts");
        }
        watch.begin();
        // It has to be in sync again before the next one may go.
        watch.run(Duration::from_secs(4)).await;
    }
    watch.end().await;
    watch.check();
    let told: usize = watch.told.iter().map(BTreeMap::len).sum();
    println!("{told} told, {} somewhere, {} unknown", watch.somewhere, watch.unknown);
    assert!(told > 1_000);
}

#[tokio::test]
#[ignore = "needs Java and Kafka, which `cargo e2e install` brings, and minutes"]
async fn all_goes_on_soon_after_kafka_was_away_for_longer_than_an_append_waits() {
    const READERS: usize = 6;
    let Some(mut brokers) = Brokers::start(1) else { return };
    let (spec, news) = (brokers.spec("away"), brokers.spec("news"));
    let ledger = brokers.found(&spec).await;
    Topics::new(&brokers.config).expect("settings").found(&news).await.expect("founded");
    let connect =
        |_| KafkaLedger::connect(&brokers.config, &spec.name, PATIENCE).expect("a ledger");
    let readers: Vec<KafkaLedger> = (0..READERS).map(connect).collect();
    let tails = |l: &KafkaLedger| [l.handle().tail(P0, 0), l.handle().tail(P1, 0)];
    let mut tails: Vec<KafkaTail> = readers.iter().flat_map(tails).collect();
    let board = KafkaLedger::connect_for_news(&brokers.config, &news.name, PATIENCE);
    let board = board.expect("a board");
    let mut logs = [ledger.handle(), board.handle()];
    for partition in [P0, P1] {
        append(&mut logs[0], partition, b"before").await;
    }
    append(&mut logs[1], P0, b"before").await;
    assert_eq!(wait_for_all(&mut tails, PATIENCE).await, 0);

    let mut cluster = brokers.cluster.take().expect("started here");
    cluster.kill_broker(0).expect("it dies");
    let died = Instant::now();
    for log in &mut logs {
        let mut fates = Vec::new();
        log.append(P0, Slip(7), b"meanwhile").expect("room");
        let fate = poll_fn(|cx| log.poll_fates(cx, &mut fates));
        tokio::time::timeout(Duration::from_secs(40), fate).await.expect("a fate");
        println!("nobody there: {:?} after {:?}", fates[0].1, died.elapsed());
    }
    wait_for_all(&mut tails, Duration::from_secs(1)).await;
    cluster.start_broker(0).expect("it starts");
    // Whoever stalls does so when it reconnects, before there is anything to read.
    let late = wait_for_all(&mut tails, Duration::from_secs(5)).await;
    assert_eq!(late, tails.len(), "nothing was written yet");
    for log in &mut logs {
        let asked = Instant::now();
        for partition in [P0, P1] {
            assert!(matches!(append(log, partition, b"after").await, Fate::At(_)));
        }
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }
    let written = Instant::now();
    assert_eq!(wait_for_all(&mut tails, Duration::from_secs(10)).await, 0, "tails have stalled");
    println!("the last of {} tails read on after {:?}", tails.len(), written.elapsed());
}

/// Reads until each tail had a record; how many had none in time.
async fn wait_for_all(tails: &mut [KafkaTail], patience: Duration) -> usize {
    let mut had = vec![false; tails.len()];
    let work = poll_fn(|cx| {
        for (tail, had) in tails.iter_mut().zip(&mut had) {
            let mut records = Vec::new();
            while let std::task::Poll::Ready(read) = tail.poll_records(cx, &mut records) {
                read.expect("a tail that is not torn");
                *had = true;
            }
        }
        if had.iter().all(|h| *h) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    let _ = tokio::time::timeout(patience, work).await;
    had.iter().filter(|h| !**h).count()
}
