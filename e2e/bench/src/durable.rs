//! What an answer costs that waits for the log: the second yardstick.
//!
//! The ceiling once more, but each of its answers waits until as many bytes as an order has lie in
//! Kafka. It gathers them as an owner does, with the same producer and the same window, and decides
//! nothing: there are no seats in it, no orders and no buyers. What it costs is what hyper, the
//! log's client and their threads cost together, so that no node on them can cost less.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use e2e::{Error, Result};
use hyper::Request;
use hyper::body::Incoming;
use ledger::kafka::{KafkaConfig, KafkaLedger, KafkaLog};
use ledger::{Fate, Log, Partition, Slip};

use crate::sale::{House, Terms};
use crate::table::{Compared, Shot};
use crate::{Bench, Ceiling, ceiling};

/// Bytes of a frame's head, and of an order for one passenger.
const HEAD_BYTES: usize = 96;
const ORDER_BYTES: usize = 107;
/// As an owner.
const FRAMES_IN_FLIGHT_MAX: usize = 2;
/// A broker that was just used.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// One who waits for the log.
#[derive(Debug, Default)]
struct Waiting {
    told: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Those who wait for the next frame.
#[derive(Debug, Default)]
struct Desk {
    next: RefCell<Vec<Rc<Waiting>>>,
    clerk: RefCell<Option<Waker>>,
}

impl Desk {
    async fn pass(&self) {
        let mine = Rc::new(Waiting::default());
        self.next.borrow_mut().push(Rc::clone(&mine));
        if let Some(clerk) = self.clerk.take() {
            clerk.wake();
        }
        let told = |cx: &mut Context<'_>| {
            if mine.told.get() {
                return Poll::Ready(());
            }
            *mine.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        };
        poll_fn(told).await;
    }
}

/// Has the log, and frames that are under way.
struct Clerk {
    desk: Rc<Desk>,
    log: KafkaLog,
    frames: VecDeque<Vec<Rc<Waiting>>>,
    fates: Vec<(Slip, Fate)>,
}

impl Clerk {
    /// Works until something goes wrong, and says what.
    fn work(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        *self.desk.clerk.borrow_mut() = Some(cx.waker().clone());
        while self.log.poll_fates(cx, &mut self.fates).is_ready() {}
        for (_, fate) in self.fates.drain(..) {
            if fate == Fate::Unknown {
                return Poll::Ready("a frame has no fate".to_owned());
            }
            for waiting in self.frames.pop_front().into_iter().flatten() {
                waiting.told.set(true);
                if let Some(waker) = waiting.waker.take() {
                    waker.wake();
                }
            }
        }
        let mut next = self.desk.next.borrow_mut();
        let large = self.frames.back().is_none_or(|last| next.len() >= last.len());
        if next.is_empty() || !large || self.frames.len() >= FRAMES_IN_FLIGHT_MAX {
            return Poll::Pending;
        }
        let frame = vec![0; HEAD_BYTES + next.len() * ORDER_BYTES];
        if let Err(refused) = self.log.append(Partition(1), Slip(0), &frame) {
            return Poll::Ready(refused.to_string());
        }
        self.frames.push_back(std::mem::take(&mut next));
        Poll::Pending
    }
}

/// Answers every request with `body` when the log of `topic` has its bytes, on one thread.
///
/// # Errors
/// What the system says of the port, and Kafka of the topic; and when a frame is lost.
pub(crate) fn serve(port: u16, body: Vec<u8>, brokers: &str, topic: &str) -> std::io::Result<()> {
    let config = KafkaConfig {
        bootstrap_servers: brokers.to_owned(),
        client_id: "bench".to_owned(),
        options: Vec::new(),
    };
    let ledger = KafkaLedger::connect(&config, topic, CONNECT_PATIENCE);
    let ledger = ledger.map_err(std::io::Error::other)?;
    let desk = Rc::new(Desk::default());
    let (frames, fates) = (VecDeque::new(), Vec::new());
    let mut clerk = Clerk { desk: Rc::clone(&desk), log: ledger.handle(), frames, fates };
    let body = Bytes::from(body);
    let answer = move |request: Request<Incoming>| {
        let (desk, body) = (Rc::clone(&desk), body.clone());
        async move {
            drop(ceiling::read(request).await);
            desk.pass().await;
            ceiling::reply(body)
        }
    };
    let broken = async move { poll_fn(|cx| clerk.work(cx)).await };
    ceiling::listen(port, answer, async move { std::io::Error::other(broken.await) })
}

impl Bench<'_> {
    /// The ceiling, and right behind it the same with a log.
    ///
    /// # Errors
    /// When one of them does not serve.
    pub(crate) fn durable(&mut self, house: &House<'_>, ceiling: &Ceiling) -> Result<Compared> {
        let topic = "durable";
        house.found_topics(topic, Terms::of(1))?;
        let durable = Ceiling::with_log(self.site, &ceiling.body, Some((&house.kafka, topic)))?;
        let crowd = self.crowd.clone();
        self.buy("durable.warm-up", &[(&crowd, durable.port)], 1, crate::Begin::Last)?;
        let mut turns: Vec<(Shot, Shot)> = Vec::new();
        for round in 1..=self.run.rounds {
            let name = format!("durable.{round}");
            let without = self.asked(&format!("{name}.ceiling"), &crowd, ceiling)?;
            let with = self.asked(&name, &crowd, &durable)?;
            if with.seen.refused + with.seen.lost > 0 {
                return Err(Error::Refused(format!("{name}: answers were lost")));
            }
            turns.push((without, with));
        }
        let what = "durable, nothing decided".to_owned();
        Ok(Compared::of(what, ceiling.body.len(), &turns))
    }
}
