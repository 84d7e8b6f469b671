//! The role `settle`: tells of every order in a topic of its own. See docs/orders-topic.md.
//!
//! What is told is decided by [`inventory::settle`], and carried by [`ledger::kafka::Relay`].
//! Here a thread drives the two: it blocks, so it is apart from the one that answers probes and
//! follows partition 0 for the names of runs, stops and seats.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use control::config::SettleConfig;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use inventory::catalogue::Catalogue;
use inventory::pool::Pool;
use inventory::settle::{Batch, Change, Halt, Settler};
use inventory::words::{Offset, ShareId};
use ledger::kafka::{
    KafkaConfig, KafkaLedger, Keep, Lost, Message, News, Relay, Route, TopicId, TopicSpec, Topics,
    Trouble,
};
use ledger::{Log, Partition, Tail};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::http::orders::json;
use crate::http::reply;
use crate::http::runs::time;
use crate::port::{self, Upgrades};

/// Changes of one transaction, about: a few hundred kilobytes, written within 100 ms.
const BATCH_CHANGES: usize = 2_000;
/// How long news is gathered before it is written: what readers wait for at the most.
const GATHER: Duration = Duration::from_millis(250);
/// Places without changes are written this often: only so that a restart tells less again.
const PLACES_EVERY: Duration = Duration::from_secs(5);
/// Records that are read before others are written.
const READ_AHEAD: usize = 1_000;
/// This often one share is asked for its end, in turn.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Transactions that are taken back in a row before this process is given up.
const AGAIN_MAX: u32 = 30;
/// How long partition 0 may not have told of something that is sold already.
const UNNAMED_MAX: Duration = Duration::from_secs(30);
/// A node that is to end goes on until nothing was said for so long: the sale's other pods may be
/// told to end at the same time, and serve for some seconds before they hear of it.
const QUIET: Duration = Duration::from_secs(20);
/// But for so long at most: on a sale that goes on, others take its shares over.
const DRAIN_MAX: Duration = Duration::from_secs(40);
/// A thread that did not turn for so long is stuck: no question to the cluster takes longer.
const TURN_MAX_S: u64 = 90;
/// This often the topic of orders is asked whether it is still the one that was found.
const SAME_EVERY: Duration = Duration::from_secs(5);
/// Between tries to write what was taken back.
const PAUSE: Duration = Duration::from_millis(500);
/// How long one try to reach the brokers takes before it is told and repeated.
const CONNECT: Duration = Duration::from_secs(5);
/// Probes and scrapes, a handful at a time.
const CONNECTIONS_MAX: usize = 64;
/// The headers that together name a change.
const SOURCE: &str = "ce_source";
const ID: &str = "ce_id";

/// What partition 0 says that settling needs.
#[derive(Debug, Clone)]
struct Names {
    /// Partition 0 as Genesis left it: what each share began with.
    founded: Arc<Pool>,
    /// What is sold by now.
    definition: Arc<Catalogue>,
}

/// What a settle node counts.
#[derive(Debug)]
struct Metrics {
    registry: Registry,
    changes: Counter,
    transactions: Counter,
    taken_back: Counter,
    shares: Gauge,
    halted: Gauge,
    /// When the thread last turned, in seconds since `since`; 0 before it does.
    turned: AtomicU64,
    since: Instant,
}

impl Metrics {
    fn turn(&self) {
        self.turned.store(self.since.elapsed().as_secs() + 1, Ordering::Relaxed);
    }

    fn is_stuck(&self) -> bool {
        let turned = self.turned.load(Ordering::Relaxed);
        turned > 0 && self.since.elapsed().as_secs() > turned + TURN_MAX_S
    }

    /// What keeps this node from telling of all that it is given; None if nothing does.
    fn trouble(&self) -> Option<&'static str> {
        let turned = self.turned.load(Ordering::Relaxed);
        match () {
            () if turned == 0 => Some("starting\n"),
            () if self.is_stuck() => Some("stuck\n"),
            () if self.halted.get() > 0 => Some("a share cannot be read on\n"),
            () => None,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("stationmaster_settle");
        let (changes, transactions, taken_back) =
            (Counter::default(), Counter::default(), Counter::default());
        let (shares, halted) = (Gauge::default(), Gauge::default());
        registry.register("changes", "Changes of orders told", changes.clone());
        registry.register("transactions", "Transactions committed", transactions.clone());
        registry.register("taken_back", "Transactions taken back", taken_back.clone());
        registry.register("shares", "Shares that this node settles", shares.clone());
        registry.register("halted", "Shares that cannot be read on", halted.clone());
        let (turned, since) = (AtomicU64::new(0), Instant::now());
        Self { registry, changes, transactions, taken_back, shares, halted, turned, since }
    }
}

/// Why a settle node ends by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine refused a socket or a thread.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The cluster or a topic cannot be used.
    #[error(transparent)]
    Trouble(#[from] Trouble),
    /// This process is no member of use any more.
    #[error(transparent)]
    Member(#[from] Lost),
    /// What was read is not to be settled by this process any more.
    #[error("{0}")]
    Lost(String),
}

/// Settles until `end` says so. To be called in a `LocalSet` of a current-thread runtime.
///
/// # Errors
/// [`Error`]: a new process may do better.
pub async fn run(
    config: SettleConfig,
    topic_id: [u8; 16],
    kafka: KafkaConfig,
    name: &str,
    port: TcpListener,
    end: Arc<AtomicBool>,
) -> Result<(), Error> {
    let metrics = Arc::new(Metrics::default());
    let (publish, names) = watch::channel(None::<Names>);
    let counted = Arc::clone(&metrics);
    port::listen(port, Upgrades::Never, Rc::default(), CONNECTIONS_MAX, move |_| {
        let metrics = Arc::clone(&counted);
        move |request: Request<Incoming>| {
            let reply = answer(request.uri().path(), &metrics);
            async move { reply }
        }
    })?;
    let orders = loop {
        match found(&config, &kafka).await {
            Err(_) if end.load(Ordering::Relaxed) => return Ok(()),
            Err(trouble @ Trouble::Unreachable { .. }) => wait(&trouble).await,
            other => break other?,
        }
    };
    let ledger = loop {
        let (kafka, topic) = (kafka.clone(), config.ledger.topic.clone());
        let connect = move || KafkaLedger::connect(&kafka, &topic, CONNECT);
        match tokio::task::spawn_blocking(connect).await {
            Ok(Err(_)) if end.load(Ordering::Relaxed) => return Ok(()),
            Ok(Err(trouble @ Trouble::Unreachable { .. })) => wait(&trouble).await,
            Ok(other) => break other?,
            Err(error) => return Err(Error::Lost(error.to_string())),
        }
    };
    let pool = Pool::new(&config.ledger.topic).expecting(topic_id);
    let mut following = tokio::task::spawn_local(follow(ledger.handle(), pool, publish));
    // Another topic, or one that was made again under the name, is told everything again; and
    // another ledger under the same name has places of its own.
    let (topic, ledger_id) = (&config.orders_topic, &config.ledger.topic_id);
    let group = format!("stationmaster.settle.{topic}.{orders}.{ledger_id}");
    let route = Route {
        from: config.ledger.topic.clone(),
        to: config.orders_topic.clone(),
        member: format!("{group}.{name}"),
        group,
    };
    let source = format!("/ledgers/{}/{}", config.ledger.topic, config.ledger.topic_id);
    let mut other = tokio::task::spawn_local(replaced(config.clone(), kafka.clone(), orders));
    let (told, mut settled) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("settle".to_owned()).spawn(move || {
        let relay = loop {
            match Relay::open(&kafka, route.clone()) {
                Err(_) if end.load(Ordering::Relaxed) => break None,
                Err(trouble @ Trouble::Unreachable { .. }) => {
                    tracing::warn!(%trouble, "waiting for the cluster");
                }
                other => break Some(other),
            }
        };
        let desk = relay.map(|relay| {
            relay.map(|relay| Desk {
                relay,
                names,
                metrics,
                source,
                end,
                settler: Settler::default(),
                told: BTreeMap::new(),
                suspect: None,
                looked_at: ShareId(0),
                unnamed: None,
            })
        });
        match desk {
            None => drop(told.send(Ok(()))),
            Some(Err(trouble)) => drop(told.send(Err(trouble.into()))),
            // The word goes first: closing a consumer may take for ever.
            Some(Ok(mut desk)) => drop(told.send(desk.run())),
        }
    })?;
    tokio::select! {
        settled = &mut settled => settled.unwrap_or_else(|e| Err(Error::Lost(e.to_string()))),
        torn = &mut following => Err(Error::Lost(match torn {
            Ok(why) => why,
            Err(error) => error.to_string(),
        })),
        // What the thread writes from now on is of a group that nobody is in.
        _ = &mut other => Err(Error::Lost("the topic of orders was made anew".to_owned())),
    }
}

/// Returns when the topic of orders is another one under its name.
async fn replaced(config: SettleConfig, kafka: KafkaConfig, orders: TopicId) {
    let Ok(topics) = Topics::new(&kafka) else { return std::future::pending().await };
    loop {
        tokio::time::sleep(SAME_EVERY).await;
        // One that is gone comes back, or the producer says so.
        if topics.id(&config.orders_topic).await.is_ok_and(|id| id != orders) {
            return;
        }
    }
}

async fn wait(trouble: &Trouble) {
    tracing::warn!(%trouble, "waiting for the cluster");
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Creates the topic of orders, unless it is there, however it is.
async fn found(config: &SettleConfig, kafka: &KafkaConfig) -> Result<TopicId, Trouble> {
    let topics = Topics::new(kafka)?;
    let spec = TopicSpec {
        name: config.orders_topic.clone(),
        partitions: config.partitions,
        replicas: config.replicas.into(),
        min_in_sync: config.min_in_sync_replicas.into(),
        keep: Keep::ForEver,
    };
    match topics.found(&spec).await {
        Ok(topic) => Ok(topic.id),
        Err(Trouble::Misconfigured { topic, differences }) => {
            tracing::warn!(topic, ?differences, "the topic of orders is used as it is");
            topics.id(&topic).await
        }
        Err(trouble) => Err(trouble),
    }
}

fn answer(path: &str, metrics: &Metrics) -> port::Reply {
    let plain = "text/plain; charset=utf-8";
    match path {
        "/livez" if metrics.is_stuck() => reply(StatusCode::SERVICE_UNAVAILABLE, plain, "stuck\n"),
        "/livez" => reply(StatusCode::OK, plain, "ok\n"),
        "/readyz" => match metrics.trouble() {
            None => reply(StatusCode::OK, plain, "ready\n"),
            Some(why) => reply(StatusCode::SERVICE_UNAVAILABLE, plain, why),
        },
        "/metrics" => {
            let mut text = String::new();
            // Writing to a String cannot fail.
            let _ = encode(&mut text, &metrics.registry);
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            reply(StatusCode::OK, kind, text)
        }
        _ => reply(StatusCode::NOT_FOUND, plain, "not found\n"),
    }
}

/// Folds partition 0 and tells its names; returns why it cannot go on.
async fn follow<L: Log>(log: L, mut pool: Pool, names: watch::Sender<Option<Names>>) -> String {
    let mut tail = log.tail(Partition(0), 0);
    let mut records = Vec::new();
    let (mut founded, mut version) = (None, 0);
    loop {
        let polled = std::future::poll_fn(|cx| tail.poll_records(cx, &mut records)).await;
        for record in records.drain(..) {
            pool.fold(Offset(record.offset), &record.bytes);
            if founded.is_none() && pool.definition().is_some() {
                founded = Some(Arc::new(pool.clone()));
            }
        }
        if let Err(torn) = polled {
            return format!("partition 0: {torn}");
        }
        if let Some(why) = pool.frozen() {
            return format!("partition 0: {why}");
        }
        if let (Some(founded), Some(definition)) = (&founded, pool.definition())
            && version != pool.definition_version()
        {
            version = pool.definition_version();
            let (founded, definition) = (Arc::clone(founded), Arc::clone(definition));
            names.send_replace(Some(Names { founded, definition }));
        }
    }
}

/// What the thread has.
struct Desk {
    relay: Relay,
    names: watch::Receiver<Option<Names>>,
    metrics: Arc<Metrics>,
    source: String,
    end: Arc<AtomicBool>,
    settler: Settler,
    /// The last record of each share that the topic tells of, if that had to be looked up.
    told: BTreeMap<ShareId, Offset>,
    /// A share that went on behind what was read of it, when that was asked.
    suspect: Option<(ShareId, Offset)>,
    looked_at: ShareId,
    /// Since when partition 0 has not told of something that is sold already.
    unnamed: Option<Instant>,
}

impl Desk {
    fn run(&mut self) -> Result<(), Error> {
        self.look_back()?;
        self.relay.join()?;
        let mut news = Vec::new();
        let (mut heard, mut looked) = (Instant::now(), Instant::now());
        let (mut gathering, mut placed) = (None::<Instant>, Instant::now());
        let (mut ending, mut again) = (None::<Instant>, 0);
        loop {
            self.metrics.turn();
            if self.end.load(Ordering::Relaxed) {
                let since = ending.get_or_insert_with(Instant::now).elapsed();
                let quiet = since.min(heard.elapsed()) > QUIET && self.settler.waiting() == 0;
                if quiet || since > DRAIN_MAX {
                    self.relay.leave();
                    return Ok(());
                }
            }
            let patience = gathering.map_or(GATHER, |since| GATHER.saturating_sub(since.elapsed()));
            // What is read waits in memory until it is written.
            let most = if self.settler.waiting() < BATCH_CHANGES { READ_AHEAD } else { 1 };
            let all = self.relay.poll(patience, most, &mut news)?;
            let silent = news.is_empty();
            let blocked = self.hear(&mut news)?;
            if !silent {
                heard = Instant::now();
            }
            // What waits here, or in the client, is not missing.
            if !all {
                self.suspect = None;
            }
            let looks = all && looked.elapsed() > LOOK_EVERY;
            if looks {
                self.look()?;
                looked = Instant::now();
            }
            if self.settler.waiting() > 0 {
                gathering = gathering.or_else(|| Some(Instant::now()));
            }
            let due = self.settler.waiting() >= BATCH_CHANGES
                || gathering.is_some_and(|since| since.elapsed() >= GATHER)
                || placed.elapsed() >= PLACES_EVERY;
            // The group may have decided otherwise while something else was asked: it is heard
            // before anything is written.
            if !due || blocked || looks {
                continue;
            }
            again = if self.write()? { 0 } else { again + 1 };
            if again > AGAIN_MAX {
                return Err(Error::Lost("no transaction comes to an end".to_owned()));
            }
            placed = Instant::now();
            gathering = (self.settler.waiting() > 0).then(Instant::now);
        }
    }

    /// What the group decided, and what the ledger says. Tells whether that took questions.
    fn hear(&mut self, news: &mut Vec<News>) -> Result<bool, Error> {
        let mut asked = false;
        for news in news.drain(..) {
            match news {
                // The pool's own, which every settle node follows apart.
                News::Given(Partition(0)) | News::Taken(Partition(0)) => {}
                News::Record(record) if record.partition == Partition(0) => {}
                News::Given(partition) => {
                    self.give(partition)?;
                    asked = true;
                }
                News::Taken(partition) => self.settler.take(ShareId(partition.0)),
                News::Record(record) => {
                    let (share, at) = (ShareId(record.partition.0), Offset(record.offset));
                    match self.settler.read(share, at, &record.bytes) {
                        Ok(()) => {}
                        Err(halt @ Halt::Gap { .. }) => return Err(Error::Lost(halt.to_string())),
                        Err(halt) => tracing::error!(%halt, "nothing behind it is told"),
                    }
                }
            }
        }
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.shares.set(count(self.settler.shares()));
        self.metrics.halted.set(count(self.settler.shares() - self.settler.following().count()));
        Ok(asked)
    }

    fn give(&mut self, partition: Partition) -> Result<(), Error> {
        let share = ShareId(partition.0);
        let place = self.relay.places(&[partition])?.pop().flatten();
        let told = || self.told.get(&share).map_or(Offset(0), |at| Offset(at.0 + 1));
        let place = place.map_or_else(told, Offset);
        let names = self.names()?;
        let Some(ledger) = names.founded.ledger() else {
            return Err(Error::Lost("partition 0 has no Genesis".to_owned()));
        };
        tracing::info!(share = share.0, place = place.0, "settling");
        self.settler.give(ledger, share, &names.founded.initial(share), place);
        Ok(())
    }

    /// Looks for the places that the group has forgotten, if any, in what was told.
    fn look_back(&mut self) -> Result<(), Error> {
        let shares = self.names()?.definition.shares;
        let shares: Vec<Partition> = (1..=shares).map(Partition).collect();
        let places = self.relay.places(&shares)?;
        if places.iter().all(Option::is_some) {
            return Ok(());
        }
        let (source, told) = (&self.source, &mut self.told);
        let show = |of: &str, id: &str| {
            if let Some((share, at)) = place(id).filter(|_| of == source) {
                let last = told.entry(share).or_insert(at);
                *last = at.max(*last);
            }
        };
        let whole = self.relay.told([SOURCE, ID], show)?;
        if !whole {
            let why = "the group has forgotten its place, and the topic of orders has lost records \
                       that would tell it: name another topic";
            return Err(Error::Lost(why.to_owned()));
        }
        if !self.told.is_empty() {
            tracing::warn!(shares = self.told.len(), "forgotten places were found in the topic");
        }
        Ok(())
    }

    /// Waits for Genesis, which is there before any share has a record.
    fn names(&mut self) -> Result<Names, Error> {
        loop {
            if let Some(names) = self.names.borrow_and_update().clone() {
                return Ok(names);
            }
            if self.names.has_changed().is_err() || self.end.load(Ordering::Relaxed) {
                return Err(Error::Lost("partition 0 is not to be read".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A consumer that says nothing of a partition that goes on is of no use any more. One share
    /// is asked at a time; what it had more than was read has to come until the next is.
    fn look(&mut self) -> Result<(), Error> {
        if let Some((share, read)) = self.suspect.take()
            && self.settler.following().any(|now| now == (share, read))
        {
            return Err(Error::Lost(format!("share {share} goes on behind {}", read.0)));
        }
        let last = self.looked_at;
        let next = self.settler.following().find(|(share, _)| *share > last);
        let Some((share, read)) = next.or_else(|| self.settler.following().next()) else {
            return Ok(());
        };
        self.looked_at = share;
        let goes_on = self.relay.goes_on(Partition(share.0), read.0);
        self.suspect = goes_on.then_some((share, read));
        Ok(())
    }

    /// Writes what waits; false if it has to be tried again.
    fn write(&mut self) -> Result<bool, Error> {
        let Some(batch) = self.settler.batch(BATCH_CHANGES) else { return Ok(true) };
        let Some(messages) = self.messages(&batch)? else { return Ok(true) };
        let places: Vec<(Partition, u64)> =
            batch.places.iter().map(|(share, at)| (Partition(share.0), at.0)).collect();
        match self.relay.commit(&messages, &places) {
            Ok(()) => {
                self.settler.written(&batch.places);
                self.metrics.transactions.inc();
                self.metrics.changes.inc_by(batch.changes.len() as u64);
                Ok(true)
            }
            Err(Lost::Again(why)) => {
                tracing::warn!(why, "a transaction was taken back");
                self.metrics.taken_back.inc();
                std::thread::sleep(PAUSE);
                Ok(false)
            }
            Err(Lost::Final(why)) => Err(Error::Lost(why)),
        }
    }

    /// None while partition 0 has not told of something that is sold already.
    fn messages(&mut self, batch: &Batch) -> Result<Option<Vec<Message>>, Error> {
        let definition = self.names()?.definition;
        let message = |change| message(&definition, &self.source, change);
        let messages: Option<Vec<Message>> = batch.changes.iter().map(message).collect();
        if messages.is_some() {
            self.unnamed = None;
        } else if self.unnamed.get_or_insert_with(Instant::now).elapsed() > UNNAMED_MAX {
            let why = "an order is of something that partition 0 does not sell";
            return Err(Error::Lost(why.to_owned()));
        }
        Ok(messages)
    }
}

/// The share and the record of a change, by its id.
fn place(id: &str) -> Option<(ShareId, Offset)> {
    let mut parts = id.split('-');
    let share = ShareId(parts.next()?.parse().ok()?);
    Some((share, Offset(parts.next()?.parse().ok()?)))
}

/// A change as a CloudEvents 1.0 record in binary mode.
fn message(definition: &Catalogue, source: &str, change: &Change) -> Option<Message> {
    let order = change.view.order.to_string();
    let headers = vec![
        ("ce_specversion", "1.0".to_owned()),
        (ID, change.version.to_string()),
        (SOURCE, source.to_owned()),
        ("ce_type", format!("dev.stationmaster.order.{}.v1", change.what.name())),
        ("ce_subject", order.clone()),
        ("ce_time", time(change.at).to_string()),
        ("content-type", "application/json".to_owned()),
    ];
    Some(Message { key: order, headers, value: json(definition, &change.view)? })
}
