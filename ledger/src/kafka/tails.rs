//! Consumers that many tails share, and the thread that lends them out.
//!
//! A client of its own for each tail would cost several threads and connections, and a
//! fail-over that begins with connecting to a cluster in trouble comes late. So a few
//! consumers stay connected: one for the tails that follow for ever (partition 0 and the
//! board), one for those that read a share's history. Each partition of a consumer has a
//! queue of its own, from which its tail reads on its own task: no thread lies between, and a
//! tail that does not read stops the fetching of its own partition only.
//!
//! A consumer reads a partition for one tail at a time; a second tail of the same partition
//! takes the next consumer, made when first needed.
//!
//! A consumer whose broker was away sometimes never fetches a partition again and says nothing
//! (librdkafka#5153). So a tail that has read nothing for a while asks, through a client that
//! reads nothing, where the log ends. If it is behind and stays so, it gives its consumer up:
//! that one is lent to nobody any more, and the tail goes on from another.

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::{Arc, mpsc},
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use futures::{future::BoxFuture, task::AtomicWaker};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer, base_consumer::PartitionQueue},
    error::{KafkaError, RDKafkaErrorCode as Code},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Sleep,
};

use super::{
    KafkaConfig, Listener, Trouble, hear,
    settings::{self, Reading},
};
use crate::{Partition, Record, Tail, Torn};

/// How many tails of a topic may live at once.
// A node follows one partition and, after a machine with most of a fleet's shares was lost,
// reads perhaps a hundred. More is a leak.
const TAILS_MAX: usize = 512;

/// How many consumers of one kind there may be: so many tails may read one partition.
// The pool's partition has one reader per node and, in one process with tests, a few more.
const CONSUMERS_MAX: usize = 16;

/// How many questions for an end may wait for a leader at once; more wait their turn.
// Each has a thread while it waits. A fail-over asks for each share that it takes.
const QUESTIONS_MAX: usize = 64;

/// How long one question may take before it is asked again, perhaps of another leader.
const QUESTION_MAX: Duration = Duration::from_secs(2);

/// Between a question that failed and the next.
const QUESTION_PAUSE: Duration = Duration::from_millis(50);

/// How often the thread serves the consumers' own events when nobody opens or closes a tail.
const EVENTS_EVERY: Duration = Duration::from_millis(100);

/// How long a tail reads nothing before it asks where the log ends: a stall costs this much and
/// [`BEHIND`], which is less than the 10 s after which a fleet takes a silent node for dead.
const IDLE: Duration = Duration::from_secs(2);

/// How long a tail that is behind may go on reading nothing. A consumer that works has what
/// exists within milliseconds.
const BEHIND: Duration = Duration::from_secs(1);

/// One poll gives way after so many records to what else runs on its core.
const RECORDS_PER_POLL_MAX: usize = 256;

type Native = BaseConsumer<Listener>;

/// The way to open tails of one topic. Clones share the consumers.
#[derive(Clone)]
pub(super) struct Readers {
    topic: Arc<str>,
    errands: mpsc::SyncSender<Errand>,
    places: Arc<Semaphore>,
    questions: Arc<Semaphore>,
    asking: Arc<Native>,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readers").field("topic", &self.topic).finish_non_exhaustive()
    }
}

enum Errand {
    Open {
        of: Partition,
        from: u64,
        waker: Arc<AtomicWaker>,
        place: OwnedSemaphorePermit,
        /// Where the tail will send its `Close`.
        errands: mpsc::SyncSender<Errand>,
        reply: oneshot::Sender<Result<Opened, Torn>>,
    },
    Close(Lease),
    /// Makes the consumer for folds ready before the first of them is needed.
    Warm,
}

/// The right to read a partition from a consumer.
struct Lease {
    reading: Reading,
    consumer: usize,
    of: Partition,
    /// Whether the consumer has stopped fetching the partition.
    stalled: bool,
    /// Given back when the consumer no longer reads the partition, so that errands cannot
    /// outnumber their channel.
    _place: OwnedSemaphorePermit,
}

/// A partition as its tail reads it. The queue goes first: it must be silent before another
/// tail may have the partition.
struct Opened {
    queue: PartitionQueue<Listener>,
    #[cfg(feature = "contract")]
    consumer: Arc<Native>,
    back: Return,
}

struct Return {
    lease: Option<Lease>,
    errands: mpsc::SyncSender<Errand>,
}

impl Drop for Return {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            // There is room for it, see `Readers::start`; or the thread is gone, and with it
            // the consumers.
            let _ = self.errands.try_send(Errand::Close(lease));
        }
    }
}

impl Readers {
    pub(super) fn start(config: &KafkaConfig, topic: &Arc<str>) -> Result<Readers, Trouble> {
        let asking = connect(config, Reading::Following)?;
        let following = connect(config, Reading::Following)?;
        // Each tail has one place, and with it one errand to open and one to close at most.
        let (errands, work) = mpsc::sync_channel(2 * TAILS_MAX + 1);
        let desk = Desk {
            config: config.clone(),
            topic: Arc::clone(topic),
            asking: Arc::clone(&asking),
            following: vec![Lent::new(following)],
            folding: Vec::new(),
        };
        desk.introduce(&desk.following[0].consumer);
        thread::Builder::new()
            .name("ledger-tails".to_owned())
            .spawn(move || desk.run(&work))
            .map_err(|error| Trouble::Refused(format!("no thread can be started: {error}")))?;
        Ok(Readers {
            topic: Arc::clone(topic),
            errands,
            places: Arc::new(Semaphore::new(TAILS_MAX)),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            asking,
        })
    }

    /// A consumer for questions, not for reading.
    pub(super) fn asking(&self) -> &Native {
        &self.asking
    }

    pub(super) fn warm(&self) {
        let _ = self.errands.try_send(Errand::Warm);
    }

    pub(super) fn tail(&self, of: Partition, from: u64) -> KafkaTail {
        let waker = Arc::default();
        let state = match self.open(of, from, &waker) {
            Ok(opening) => State::Opening(opening),
            Err(torn) => State::Torn(torn),
        };
        KafkaTail::new(of, from, state, waker, Some(self.clone()))
    }

    pub(super) fn tail_from_end(&self, of: Partition) -> KafkaTail {
        let state = State::Asking(Box::pin(self.end(of)));
        KafkaTail::new(of, 0, state, Arc::default(), Some(self.clone()))
    }

    fn open(&self, of: Partition, from: u64, waker: &Arc<AtomicWaker>) -> Result<Opening, Torn> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(Torn::Failed(format!("{TAILS_MAX} tails are open already")));
        };
        let (reply, opening) = oneshot::channel();
        let (waker, errands) = (Arc::clone(waker), self.errands.clone());
        let errand = Errand::Open { of, from, waker, place, errands, reply };
        // If the thread is gone the reply is dropped with the errand, which tells the tail.
        let _ = self.errands.try_send(errand);
        Ok(opening)
    }

    pub(super) fn end(
        &self,
        of: Partition,
    ) -> impl Future<Output = Result<u64, Torn>> + Send + 'static + use<> {
        let (topic, consumer) = (Arc::clone(&self.topic), Arc::clone(&self.asking));
        let questions = Arc::clone(&self.questions);
        async move {
            // The semaphore is never closed.
            let turn = questions.acquire_owned().await;
            let (reply, answer) = oneshot::channel();
            let asked = thread::Builder::new().name("ledger-end".to_owned()).spawn(move || {
                let _turn = turn;
                ask_end(&consumer, &topic, of, reply);
            });
            if let Err(error) = asked {
                return Err(Torn::Failed(format!("no thread can be started: {error}")));
            }
            answer.await.unwrap_or_else(|_| Err(Torn::Failed("nobody answered".to_owned())))
        }
    }
}

/// Asks the leader until it answers or nobody waits for the answer any more.
fn ask_end(
    consumer: &Native,
    topic: &str,
    of: Partition,
    reply: oneshot::Sender<Result<u64, Torn>>,
) {
    while !reply.is_closed() {
        let error = match consumer.fetch_watermarks(topic, i32::from(of.0), QUESTION_MAX) {
            Ok((_, high)) => match u64::try_from(high) {
                Ok(high) => return drop(reply.send(Ok(high))),
                Err(_) => KafkaError::OffsetFetch(Code::NoOffset),
            },
            Err(error) => error,
        };
        if let Some(torn) = tear(of, None, &error) {
            return drop(reply.send(Err(torn)));
        }
        tracing::debug!(?of, %error, "the end is asked for again");
        thread::sleep(QUESTION_PAUSE);
    }
}

/// What an error means for a tail; None if it heals by waiting.
fn tear(of: Partition, next: Option<u64>, error: &KafkaError) -> Option<Torn> {
    let failed = || Some(Torn::Failed(format!("{of:?}: {error}")));
    if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
        return failed();
    }
    match (error.rdkafka_error_code()?, next) {
        (Code::AutoOffsetReset | Code::OffsetOutOfRange, Some(from)) => {
            Some(Torn::OutOfRange { partition: of, from })
        }
        (
            Code::LogTruncation
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition,
            _,
        ) => failed(),
        _ => None,
    }
}

fn connect(config: &KafkaConfig, reading: Reading) -> Result<Arc<Native>, Trouble> {
    let settings = settings::consumer(config, reading);
    let consumer = Native::from_config_and_context(&settings, Listener::default());
    consumer.map(Arc::new).map_err(|error| Trouble::Setting(error.to_string()))
}

/// The thread's own: the consumers and what each of them reads.
struct Desk {
    config: KafkaConfig,
    topic: Arc<str>,
    asking: Arc<Native>,
    following: Vec<Lent>,
    folding: Vec<Lent>,
}

struct Lent {
    consumer: Arc<Native>,
    taken: BTreeSet<Partition>,
    /// Whether a tail gave it up: then it only serves those that it still serves.
    retired: bool,
}

impl Lent {
    fn new(consumer: Arc<Native>) -> Self {
        Self { consumer, taken: BTreeSet::new(), retired: false }
    }
}

impl Desk {
    fn run(mut self, work: &mpsc::Receiver<Errand>) {
        let mut heard = Instant::now();
        loop {
            match work.recv_timeout(EVENTS_EVERY) {
                Ok(Errand::Open { of, from, waker, place, errands, reply }) => {
                    let opened = self.open(of, from, waker).map(|(queue, reading, consumer)| {
                        let lease = Lease { reading, consumer, of, stalled: false, _place: place };
                        Opened {
                            queue,
                            #[cfg(feature = "contract")]
                            consumer: Arc::clone(&self.lents(reading)[consumer].consumer),
                            back: Return { lease: Some(lease), errands },
                        }
                    });
                    // If the tail was dropped meanwhile, so is this, which gives it all back.
                    let _ = reply.send(opened);
                }
                Ok(Errand::Close(lease)) => self.close(&lease),
                Ok(Errand::Warm) => {
                    if let Err(torn) = self.lend(Reading::Folding, None) {
                        tracing::warn!(%torn, "the consumer for folds is not ready");
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                // The ledger and all its handles and tails are gone.
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            if heard.elapsed() >= EVENTS_EVERY {
                // Records come through the partitions' own queues; here are only events.
                hear(&self.asking);
                self.following.iter().chain(&self.folding).for_each(|lent| hear(&lent.consumer));
                heard = Instant::now();
            }
        }
    }

    fn lents(&mut self, reading: Reading) -> &mut Vec<Lent> {
        match reading {
            Reading::Following => &mut self.following,
            Reading::Folding => &mut self.folding,
        }
    }

    /// The first consumer that does not read `of`, made if there is none.
    fn lend(&mut self, reading: Reading, of: Option<Partition>) -> Result<usize, Torn> {
        let free = |lent: &Lent| !lent.retired && of.is_none_or(|of| !lent.taken.contains(&of));
        if let Some(found) = self.lents(reading).iter().position(free) {
            return Ok(found);
        }
        let over = |lent: &Lent| lent.retired && lent.taken.is_empty();
        let place = self.lents(reading).iter().position(over);
        if place.is_none() && self.lents(reading).len() == CONSUMERS_MAX {
            return Err(Torn::Failed(format!("{of:?} has {CONSUMERS_MAX} tails already")));
        }
        let consumer = connect(&self.config, reading);
        let consumer = consumer.map_err(|error| Torn::Failed(error.to_string()))?;
        self.introduce(&consumer);
        let lents = self.lents(reading);
        match place {
            Some(place) => {
                let old = std::mem::replace(&mut lents[place], Lent::new(consumer));
                // Closing waits for brokers, for which nothing here should wait.
                let apart = thread::Builder::new().name("ledger-tails-old".to_owned());
                let _ = apart.spawn(move || drop(old));
                Ok(place)
            }
            None => {
                lents.push(Lent::new(consumer));
                Ok(lents.len() - 1)
            }
        }
    }

    /// Connects a new consumer and lets it learn the topic. By itself it would do so when it
    /// first reads, and then look for an answer only once a second.
    fn introduce(&self, consumer: &Arc<Native>) {
        let (consumer, topic) = (Arc::clone(consumer), Arc::clone(&self.topic));
        let apart = thread::Builder::new().name("ledger-tails-new".to_owned());
        // Its answer is of no interest: without it the first tail is late, no more.
        let _ = apart.spawn(move || consumer.fetch_metadata(Some(&topic), QUESTION_MAX));
    }

    fn open(
        &mut self,
        of: Partition,
        from: u64,
        waker: Arc<AtomicWaker>,
    ) -> Result<(PartitionQueue<Listener>, Reading, usize), Torn> {
        let failed = |error: &dyn std::fmt::Display| Torn::Failed(format!("{of:?}: {error}"));
        // Whoever reads partition 0 follows it: it is the pool's, or the board.
        let reading = if of.0 == 0 { Reading::Following } else { Reading::Folding };
        let number = self.lend(reading, Some(of))?;
        let topic = Arc::clone(&self.topic);
        let lent = &mut self.lents(reading)[number];
        // First the queue, so that no record can go elsewhere.
        let queue = lent.consumer.split_partition_queue(&topic, i32::from(of.0));
        let mut queue = queue.ok_or_else(|| failed(&"it has no queue"))?;
        queue.set_nonempty_callback(move || waker.wake());
        let mut start = TopicPartitionList::with_capacity(1);
        let offset = i64::try_from(from).map_err(|error| failed(&error))?;
        start
            .add_partition_offset(&topic, i32::from(of.0), Offset::Offset(offset))
            .map_err(|error| failed(&error))?;
        lent.consumer.incremental_assign(&start).map_err(|error| failed(&error))?;
        lent.taken.insert(of);
        Ok((queue, reading, number))
    }

    fn close(&mut self, lease: &Lease) {
        let topic = Arc::clone(&self.topic);
        let lent = &mut self.lents(lease.reading)[lease.consumer];
        lent.retired |= lease.stalled;
        let mut stop = TopicPartitionList::with_capacity(1);
        stop.add_partition(&topic, i32::from(lease.of.0));
        match lent.consumer.incremental_unassign(&stop) {
            Ok(()) => {
                lent.taken.remove(&lease.of);
            }
            // It stays taken: a tail that got it now would fail.
            Err(error) => tracing::warn!(of = ?lease.of, %error, "a partition is still read"),
        }
    }
}

type Opening = oneshot::Receiver<Result<Opened, Torn>>;

/// A reader of one partition.
pub struct KafkaTail {
    of: Partition,
    next: u64,
    state: State,
    /// Woken when the partition's queue is no longer empty.
    waker: Arc<AtomicWaker>,
    /// None if the partition does not exist.
    readers: Option<Readers>,
    watch: Watch,
}

/// Whether a tail that reads nothing has nothing to read.
struct Watch {
    /// Made at the first wait, since a timer needs a runtime.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Whether anything was read since the alarm was set.
    moved: bool,
    question: Option<BoxFuture<'static, Result<u64, Torn>>>,
    /// Where the log ends, if the tail has not come so far.
    end: Option<u64>,
}

impl Watch {
    fn new() -> Self {
        Self { alarm: None, moved: false, question: None, end: None }
    }

    fn heard(&mut self) {
        self.moved = true;
        self.end = None;
        self.question = None;
    }

    fn set(&mut self, after: Duration) {
        let at = tokio::time::Instant::now() + after;
        match &mut self.alarm {
            Some(alarm) => alarm.as_mut().reset(at),
            None => self.alarm = Some(Box::pin(tokio::time::sleep_until(at))),
        }
        self.moved = false;
    }

    /// Ready when records before the returned end exist and do not come.
    fn poll_stalled(
        &mut self,
        cx: &mut Context<'_>,
        next: u64,
        ask: impl Fn() -> BoxFuture<'static, Result<u64, Torn>>,
    ) -> Poll<u64> {
        if self.alarm.is_none() {
            self.set(IDLE);
        }
        loop {
            if let Some(question) = &mut self.question {
                let answer = std::task::ready!(question.as_mut().poll(cx));
                self.question = None;
                // Why nobody can say is for the reading to find out.
                self.end = answer.ok().filter(|end| *end > next);
                self.set(if self.end.is_some() { BEHIND } else { IDLE });
            }
            let Some(alarm) = &mut self.alarm else { return Poll::Pending };
            std::task::ready!(alarm.as_mut().poll(cx));
            match self.end.take() {
                _ if self.moved => self.set(IDLE),
                Some(end) => {
                    self.set(IDLE);
                    return Poll::Ready(end);
                }
                None => self.question = Some(ask()),
            }
        }
    }
}

enum State {
    /// Where the end is, to begin there.
    Asking(BoxFuture<'static, Result<u64, Torn>>),
    Opening(Opening),
    Reading(Opened),
    Torn(Torn),
}

impl std::fmt::Debug for KafkaTail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match &self.state {
            State::Asking(_) => "asking",
            State::Opening(_) => "opening",
            State::Reading(_) => "reading",
            State::Torn(_) => "torn",
        };
        f.debug_struct("KafkaTail")
            .field("of", &self.of)
            .field("next", &self.next)
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

impl KafkaTail {
    fn new(
        of: Partition,
        next: u64,
        state: State,
        waker: Arc<AtomicWaker>,
        readers: Option<Readers>,
    ) -> KafkaTail {
        KafkaTail { of, next, state, waker, readers, watch: Watch::new() }
    }

    pub(super) fn torn(of: Partition, torn: Torn) -> KafkaTail {
        KafkaTail::new(of, 0, State::Torn(torn), Arc::default(), None)
    }

    /// Makes its consumer fetch the partition no more, as one does that has stalled. For tests.
    ///
    /// # Panics
    /// If it has read nothing yet.
    #[cfg(feature = "contract")]
    pub fn stall(&self) {
        let State::Reading(opened) = &self.state else { panic!("it reads nothing yet") };
        let topic = self.readers.as_ref().map_or("", |readers| &readers.topic);
        let mut partition = TopicPartitionList::with_capacity(1);
        partition.add_partition(topic, i32::from(self.of.0));
        opened.consumer.pause(&partition).expect("it can be paused");
    }

    /// Goes on from another consumer.
    fn reopen(&mut self) {
        let Some(readers) = &self.readers else { return };
        let opening = match readers.open(self.of, self.next, &self.waker) {
            Ok(opening) => State::Opening(opening),
            Err(torn) => State::Torn(torn),
        };
        if let State::Reading(mut old) = std::mem::replace(&mut self.state, opening)
            && let Some(lease) = &mut old.back.lease
        {
            lease.stalled = true;
        }
    }

    fn tear(&mut self, torn: Torn) -> Poll<Result<(), Torn>> {
        self.state = State::Torn(torn.clone());
        Poll::Ready(Err(torn))
    }
}

/// Moves what the queue has into `out`; Ok is how many.
fn read(opened: &Opened, of: Partition, next: u64, out: &mut Vec<Record>) -> Result<usize, Torn> {
    let before = out.len();
    while out.len() - before < RECORDS_PER_POLL_MAX {
        let expected = next + (out.len() - before) as u64;
        match opened.queue.poll(Duration::ZERO) {
            None => break,
            Some(Ok(message)) => {
                let got = u64::try_from(message.offset()).unwrap_or(u64::MAX);
                if got != expected {
                    return Err(Torn::Gap { partition: of, expected, got });
                }
                let bytes = message.payload().unwrap_or_default().to_vec();
                out.push(Record { partition: of, offset: got, bytes });
            }
            Some(Err(error)) => match tear(of, Some(expected), &error) {
                Some(torn) => return Err(torn),
                None => tracing::warn!(?of, %error, "a tail waits"),
            },
        }
    }
    Ok(out.len() - before)
}

impl Tail for KafkaTail {
    fn poll_records(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<Record>,
    ) -> Poll<Result<(), Torn>> {
        loop {
            match &mut self.state {
                State::Asking(end) => {
                    let end = std::task::ready!(end.as_mut().poll(cx));
                    let opening = end.and_then(|end| {
                        self.next = end;
                        let readers = self.readers.as_ref();
                        readers.map_or_else(
                            || Err(Torn::Failed("no such partition".to_owned())),
                            |readers| readers.open(self.of, end, &self.waker),
                        )
                    });
                    match opening {
                        Ok(opening) => self.state = State::Opening(opening),
                        Err(torn) => return self.tear(torn),
                    }
                }
                State::Opening(opening) => match std::task::ready!(Pin::new(opening).poll(cx)) {
                    Ok(Ok(opened)) => self.state = State::Reading(opened),
                    Ok(Err(torn)) => return self.tear(torn),
                    Err(_) => return self.tear(Torn::Failed("nobody reads".to_owned())),
                },
                State::Reading(opened) => {
                    // Registered before looking, so that what comes in between wakes.
                    self.waker.register(cx.waker());
                    match read(opened, self.of, self.next, out) {
                        Ok(0) => {
                            let Some(readers) = &self.readers else { return Poll::Pending };
                            let ask = || Box::pin(readers.end(self.of)) as BoxFuture<'static, _>;
                            let stalled = self.watch.poll_stalled(cx, self.next, ask);
                            let end = std::task::ready!(stalled);
                            let (of, next) = (self.of, self.next);
                            tracing::warn!(?of, next, end, "a reader has stalled and is replaced");
                            self.reopen();
                        }
                        Ok(moved) => {
                            self.watch.heard();
                            self.next += moved as u64;
                            return Poll::Ready(Ok(()));
                        }
                        Err(torn) => return self.tear(torn),
                    }
                }
                State::Torn(torn) => return Poll::Ready(Err(torn.clone())),
            }
        }
    }
}
