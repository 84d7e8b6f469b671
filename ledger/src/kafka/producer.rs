//! librdkafka's producer, which all handles share, and the thread that looks after it.
//!
//! Fates are fetched by whichever handle looks first, on its own thread: librdkafka rings a
//! [`Bell`], which wakes them all.
//!
//! A producer whose idempotence is lost fails for good; one that let an append time out may
//! wait for ever for a new producer id without sending anything. In both cases its thread makes
//! sure that every append that it took has its fate, and only after that puts a new one in its
//! place.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Message,
    client::Client,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode as Code},
    producer::{
        BaseProducer, BaseRecord, DeliveryResult, NoCustomPartitioner, Producer as _,
        ProducerContext, PurgeConfig,
    },
};
use tokio::sync::watch;

use super::{
    KafkaConfig, Listener, PARTING_MAX, Trouble, closed,
    native::Bell,
    settings::{self, Kept},
};
use crate::{
    Fate, Partition, Refused, Slip,
    inbox::{self, Inbox, Outbox, Slot},
};

/// How often the thread looks after the producer; this bounds how late a lost one is noticed.
const TURN: Duration = Duration::from_millis(250);

/// How long a purged producer may take to tell its last fates. They are its own, so this is
/// far more than it needs; what is missing then is told when the producer is destroyed.
const PURGE_MAX: Duration = Duration::from_secs(2);

/// One of librdkafka's.
pub(super) struct Native {
    /// In front of its producer, which it must not outlive.
    bell: Bell,
    producer: BaseProducer<Deliveries>,
}

impl Native {
    /// Has all fates told that are known.
    pub(super) fn fetch(&self) {
        while self.bell.is_due() {
            self.producer.poll(Duration::ZERO);
        }
    }

    /// Whether some are known and were not told.
    pub(super) fn is_due(&self) -> bool {
        self.bell.is_due()
    }
}

impl std::ops::Deref for Native {
    type Target = BaseProducer<Deliveries>;

    fn deref(&self) -> &Self::Target {
        &self.producer
    }
}

/// The handles that fates go to. A number is never given out twice, so a late fate cannot
/// reach a newer handle.
#[derive(Debug, Default)]
struct Handles {
    next: u32,
    outboxes: BTreeMap<u32, Outbox>,
}

/// A handle's place among [`Handles`]; given back by dropping it.
#[derive(Debug)]
struct Handle {
    number: u32,
    handles: Arc<watch::Sender<Handles>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.handles.send_modify(|handles| {
            handles.outboxes.remove(&self.number);
        });
    }
}

/// A handle's part in the producer.
#[derive(Debug)]
pub(super) struct Entry {
    topic: Arc<str>,
    inbox: Inbox,
    handle: Handle,
    /// The producer as `link` last told it. Weak, because destroying one takes long, and the
    /// last owner does it: that must be its own thread, never a core.
    producer: Weak<Native>,
    link: watch::Receiver<Weak<Native>>,
}

impl Entry {
    /// The present producer; it is not there while it is being replaced.
    fn producer(&mut self) -> Result<Arc<Native>, Refused> {
        match self.link.has_changed() {
            Ok(false) if self.producer.strong_count() > 0 => {}
            Ok(_) => self.producer = self.link.borrow_and_update().clone(),
            Err(_) => return Err(closed()),
        }
        self.producer.upgrade().ok_or(Refused::Full)
    }

    pub(super) fn append(
        &mut self,
        to: Partition,
        slip: Slip,
        frame: &[u8],
    ) -> Result<(), Refused> {
        let producer = self.producer()?;
        let slot = self.inbox.admit(slip, frame.len())?;
        let opaque = opaque(self.handle.number, slot);
        let record = BaseRecord::<(), [u8], usize>::with_opaque_to(&self.topic, opaque)
            .partition(i32::from(to.0))
            .payload(frame);
        let Err((error, _)) = producer.send(record) else { return Ok(()) };
        self.inbox.withdraw(slot);
        Err(match error.rdkafka_error_code() {
            // Its own queue is full; or it failed for good and is being replaced.
            Some(Code::QueueFull | Code::Fatal | Code::State) => Refused::Full,
            Some(Code::UnknownPartition) => Refused::NoPartition(to),
            Some(Code::MessageSizeTooLarge) => Refused::TooLarge { bytes: frame.len() },
            _ => Refused::Closed(error.to_string()),
        })
    }

    pub(super) fn poll_fates(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<(Slip, Fate)>,
    ) -> Poll<()> {
        loop {
            // Whoever waits for nothing leaves the fates of others to those.
            if self.inbox.is_waiting()
                && let Ok(producer) = self.producer()
            {
                producer.fetch();
            }
            if self.inbox.poll(cx, out).is_ready() {
                return Poll::Ready(());
            }
            // What came before the inbox was looked at has rung in vain; what comes now wakes.
            let is_due = self.inbox.is_waiting() && self.producer().is_ok_and(|it| it.is_due());
            if !is_due {
                return Poll::Pending;
            }
        }
    }
}

/// Carries handle and slot through librdkafka and back, without an allocation.
fn opaque(handle: u32, slot: Slot) -> usize {
    const { assert!(usize::BITS == 64) };
    (handle as usize) << 32 | slot as usize
}

fn handle_and_slot(opaque: usize) -> (u32, Slot) {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of a usize")]
    ((opaque >> 32) as u32, opaque as u32)
}

/// Sends each delivery's fate to its handle. Called by whoever fetches.
#[derive(Debug)]
pub(super) struct Deliveries {
    listener: Listener,
    handles: watch::Receiver<Handles>,
    timed_out: AtomicBool,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.listener.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.listener.error(error, reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivery: &DeliveryResult<'_>, opaque: usize) {
        let fate = match delivery {
            // A retry that the broker knew already is confirmed without an offset.
            Ok(message) => u64::try_from(message.offset()).map_or(Fate::Somewhere, Fate::At),
            // librdkafka may know that this one was surely not written, but its successors in
            // flight are in doubt all the same: the caller treats them alike.
            Err((error, message)) => {
                if error.rdkafka_error_code() == Some(Code::MessageTimedOut) {
                    self.timed_out.store(true, Ordering::Relaxed);
                }
                if self.listener.may_complain() {
                    let partition = message.partition();
                    tracing::warn!(partition, %error, "an append has no fate");
                }
                Fate::Unknown
            }
        };
        let (handle, slot) = handle_and_slot(opaque);
        if let Some(outbox) = self.handles.borrow().outboxes.get(&handle) {
            outbox.tell(slot, fate);
        }
    }
}

/// The producer of one topic, whichever it is at present.
#[derive(Debug)]
pub(super) struct Producer {
    link: watch::Receiver<Weak<Native>>,
    handles: Arc<watch::Sender<Handles>>,
    /// Dropping it tells the thread to end.
    open: Option<mpsc::SyncSender<Duration>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Producer {
    pub(super) fn start(config: &KafkaConfig, keep: Kept) -> Result<Producer, Trouble> {
        let (handles, registered) = watch::channel(Handles::default());
        let first = create(config, keep, &registered)?;
        let (publish, link) = watch::channel(Arc::downgrade(&first));
        let (open, closing) = mpsc::sync_channel(1);
        let turns = Turns { config: config.clone(), keep, registered, publish, closing };
        let thread = thread::Builder::new()
            .name("ledger-kafka".to_owned())
            .spawn(move || turns.run(first))
            .map_err(|error| Trouble::Refused(format!("no thread can be started: {error}")))?;
        let (open, thread) = (Some(open), Some(thread));
        Ok(Producer { link, handles: Arc::new(handles), open, thread })
    }

    /// Which it is at present.
    #[cfg(test)]
    pub(super) fn link(&self) -> Weak<Native> {
        self.link.borrow().clone()
    }

    pub(super) fn enter(&self, topic: Arc<str>) -> Entry {
        let mut link = self.link.clone();
        // So that the first append looks.
        link.mark_changed();
        let (outbox, inbox) = inbox::pair();
        let mut number = 0;
        self.handles.send_modify(|handles| {
            number = handles.next;
            handles.next += 1;
            handles.outboxes.insert(number, outbox);
        });
        let handle = Handle { number, handles: Arc::clone(&self.handles) };
        Entry { topic, inbox, handle, producer: Weak::new(), link }
    }

    pub(super) fn close(mut self, patience: Duration) {
        if let Some(open) = self.open.take() {
            let _ = open.send(patience);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn create(
    config: &KafkaConfig,
    keep: Kept,
    handles: &watch::Receiver<Handles>,
) -> Result<Arc<Native>, Trouble> {
    let (listener, timed_out) = (Listener::default(), AtomicBool::new(false));
    let context = Deliveries { listener, handles: handles.clone(), timed_out };
    let settings = settings::producer(config, keep);
    let producer = BaseProducer::from_config_and_context(&settings, context);
    let producer = producer.map_err(|error| Trouble::Setting(error.to_string()))?;
    let handles = handles.clone();
    let wake = move || handles.borrow().outboxes.values().for_each(Outbox::wake);
    let bell = Bell::hang(producer.client(), Box::new(wake));
    Ok(Arc::new(Native { bell, producer }))
}

/// The thread's own.
struct Turns {
    config: KafkaConfig,
    keep: Kept,
    registered: watch::Receiver<Handles>,
    publish: watch::Sender<Weak<Native>>,
    closing: mpsc::Receiver<Duration>,
}

impl Turns {
    fn run(self, mut producer: Arc<Native>) {
        loop {
            match self.closing.recv_timeout(TURN) {
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Ok(patience) => return self.end(producer, patience),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return self.end(producer, PARTING_MAX);
                }
            }
            // Where there is no handle, or none that looks.
            producer.fetch();
            let client: &Client<Deliveries> = producer.client();
            let fatal = client.fatal_error();
            let timed_out = client.context().timed_out.load(Ordering::Relaxed);
            // Without idempotence nothing waits for a producer id, and late news is just lost.
            let stuck = timed_out && matches!(self.keep, Kept::ForEver);
            if fatal.is_some() || stuck {
                let reason = fatal.map_or_else(
                    || "an append timed out".to_owned(),
                    |(code, why)| format!("{code}: {why}"),
                );
                tracing::warn!(reason, "the producer is replaced");
                settle(&producer, Duration::ZERO);
                match create(&self.config, self.keep, &self.registered) {
                    Ok(new) => {
                        let lost = std::mem::replace(&mut producer, new);
                        self.publish.send_replace(Arc::downgrade(&producer));
                        for outbox in self.registered.borrow().outboxes.values() {
                            outbox.wake();
                        }
                        destroy(lost);
                    }
                    // The settings made one before, so this is a want of memory or threads;
                    // the next turn tries again.
                    Err(error) => tracing::error!(%error, "no new producer"),
                }
            }
        }
    }

    fn end(self, producer: Arc<Native>, patience: Duration) {
        // From here on handles refuse, so nothing is added to what is waited for.
        drop(self.publish);
        settle(&producer, patience);
        destroy_here(producer);
    }
}

/// Waits for fates, for `patience` at most; then takes back what has none, which tells
/// `Unknown`.
fn settle(producer: &Native, patience: Duration) {
    let until = Instant::now() + patience;
    while producer.in_flight_count() > 0 && Instant::now() < until {
        producer.poll(TURN.min(until.saturating_duration_since(Instant::now())));
    }
    producer.purge(PurgeConfig::default().queue().inflight());
    let until = Instant::now() + PURGE_MAX;
    while producer.in_flight_count() > 0 && Instant::now() < until {
        producer.poll(Duration::from_millis(1));
    }
}

/// Destroying a producer joins its threads, which may take a while, so it happens apart.
fn destroy(producer: Arc<Native>) {
    let apart = thread::Builder::new().name("ledger-kafka-end".to_owned());
    // If no thread can be started the closure is dropped here, and with it the producer.
    let _ = apart.spawn(move || destroy_here(producer));
}

/// A handle that appends or fetches right now shares the producer for that moment. It must not be
/// the last to have it, because its core would then be the one to destroy it.
fn destroy_here(mut producer: Arc<Native>) {
    while let Err(shared) = Arc::try_unwrap(producer) {
        producer = shared;
        thread::sleep(Duration::from_millis(1));
    }
}
