//! The crowd of a yardstick: as many connections as wrk's, each asking again as soon as it was
//! answered, for single seats on random journeys of one hot run after the other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{Builder, ScopedJoinHandle};
use std::time::{Duration, Instant};

use e2e::process::ProcessId;
use e2e::{Error, Result};
use futures::future::try_join_all;
use inventory::legs::{Journey, Legs};

use super::judge::{Kept, Order, Ticket};
use crate::cpu;
use crate::dice::Dice;
use crate::load::CONNECTIONS;
use crate::sale::{ORDERS_PER_RUN, RUNS, STOPS};
use crate::work::Site;

/// As many as wrk has.
const THREADS: u32 = 2;
/// Before the window: caches fill, and all connections are busy.
const WARM_UP: Duration = Duration::from_secs(1);
/// For a hundred connections and a first sale; milliseconds unless the machine is in trouble.
const FIRST_SALE_PATIENCE: Duration = Duration::from_secs(20);
/// How far a window may end late; it is measured and not assumed.
const WINDOW_SLACK: Duration = Duration::from_secs(5);

/// What a buyer asks for.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    /// The idempotency key.
    pub(super) key: String,
    pub(super) run: u16,
    pub(super) journey: Journey,
}

/// An engine that sells, running and with nothing sold.
pub(super) trait Shop: Sync {
    type Counter: Counter;

    /// Whose processor time counts.
    fn server(&self) -> ProcessId;

    /// Connects.
    ///
    /// # Errors
    /// When the engine does not let us.
    async fn open(&self) -> Result<Self::Counter>;

    /// Reads all back.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn kept(&self) -> Result<Kept>;
}

/// One connection to an engine.
pub(super) trait Counter {
    /// One sale; nothing if the run is sold out for this journey.
    ///
    /// # Errors
    /// When the engine fails.
    async fn buy(&mut self, wish: &Wish) -> Result<Option<Ticket>>;
}

/// A window of load on an engine.
#[derive(Debug)]
pub(super) struct Shot {
    /// Sales in the window.
    pub(super) sold: u64,
    pub(super) seconds: f64,
    /// Processor time in the window: of the engine, of this program, and of all others.
    pub(super) server_micros: f64,
    pub(super) client_micros: f64,
    pub(super) others_micros: f64,
    /// What all buyers were told, before the window and after it too.
    pub(super) told: Vec<(String, Order)>,
    pub(super) sold_out: u64,
    /// Repeated requests that got another answer.
    pub(super) forgotten: u64,
}

impl Shot {
    /// Sales in a second.
    pub(super) fn rate(&self) -> f64 {
        self.sold as f64 / self.seconds
    }
}

#[derive(Debug, Default)]
struct Counts {
    stop: AtomicBool,
    asked: AtomicU64,
    sold: AtomicU64,
    sold_out: AtomicU64,
    forgotten: AtomicU64,
}

type Told = Vec<(String, Order)>;

/// Buys for so many seconds, after a second that does not count.
///
/// # Errors
/// When the engine fails.
pub(super) fn buy<S: Shop>(site: &Site, shop: &S, seconds: u32) -> Result<Shot> {
    let counts = Counts::default();
    let (window, told) = std::thread::scope(|scope| {
        let counts = &counts;
        let mut crowds = Vec::new();
        for thread in 0..THREADS {
            let crowd = Builder::new().name(format!("buyers-{thread}"));
            let crowd = crowd.spawn_scoped(scope, move || crowd_of(shop, counts, thread));
            crowds.extend(crowd);
        }
        let window = window(site, shop.server(), seconds, counts, &crowds);
        counts.stop.store(true, Relaxed);
        let told = crowds
            .into_iter()
            .map(|crowd| crowd.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        (window, told.collect::<Result<Vec<Told>>>())
    });
    // What the buyers have to say comes first: it is why there was no window.
    let told = told?.concat();
    let (first, last) = window?;
    let (server_micros, client_micros) = (last.server - first.server, last.own - first.own);
    let busy = last.busy - first.busy;
    Ok(Shot {
        sold: last.sold - first.sold,
        seconds: (last.at - first.at).as_secs_f64(),
        server_micros,
        client_micros,
        others_micros: (busy - server_micros - client_micros).max(0.0),
        told,
        sold_out: counts.sold_out.load(Relaxed),
        forgotten: counts.forgotten.load(Relaxed),
    })
}

/// Who had used how much when.
struct Look {
    at: Instant,
    sold: u64,
    server: f64,
    own: f64,
    busy: f64,
}

impl Look {
    fn now(server: ProcessId, counts: &Counts) -> Result<Self> {
        let own = i32::try_from(std::process::id()).ok().and_then(ProcessId::of);
        let own = own.ok_or_else(|| Error::Refused("this program has no pid".to_owned()))?;
        Ok(Self {
            at: Instant::now(),
            sold: counts.sold.load(Relaxed),
            server: cpu::used(server)?,
            own: cpu::used(own)?,
            busy: cpu::micros(cpu::busy()?),
        })
    }
}

fn window(
    site: &Site,
    server: ProcessId,
    seconds: u32,
    counts: &Counts,
    crowds: &[ScopedJoinHandle<'_, Result<Told>>],
) -> Result<(Look, Look)> {
    let wait = |what: &str, patience, enough: &dyn Fn() -> bool| {
        site.until(what, patience, "see the engine's log", || {
            if crowds.len() < THREADS as usize || crowds.iter().any(ScopedJoinHandle::is_finished) {
                return Err(Error::Refused("buyers gave up".to_owned()));
            }
            Ok(enough().then_some(()))
        })
    };
    let passed = |length: Duration| {
        let begun = Instant::now();
        wait("the end of a window", length + WINDOW_SLACK, &|| begun.elapsed() >= length)
    };
    wait("a first sale", FIRST_SALE_PATIENCE, &|| counts.sold.load(Relaxed) > 0)?;
    passed(WARM_UP)?;
    let first = Look::now(server, counts)?;
    passed(Duration::from_secs(seconds.into()))?;
    Ok((first, Look::now(server, counts)?))
}

fn crowd_of<S: Shop>(shop: &S, counts: &Counts, thread: u32) -> Result<Told> {
    let each = CONNECTIONS / THREADS;
    runtime()?.block_on(async {
        let buyers = (thread * each..(thread + 1) * each).map(|buyer| async move {
            one_buyer(shop.open().await?, counts, Dice::new(buyer.into())).await
        });
        Ok(try_join_all(buyers).await?.concat())
    })
}

async fn one_buyer(mut counter: impl Counter, counts: &Counts, mut dice: Dice) -> Result<Told> {
    let mut told = Vec::new();
    let mut last = None;
    while !counts.stop.load(Relaxed) {
        let n = counts.asked.fetch_add(1, Relaxed);
        let run = n / u64::from(ORDERS_PER_RUN) % u64::from(RUNS);
        let run = u16::try_from(run).unwrap_or(0);
        let wish = Wish { key: format!("b{n}"), run, journey: dice.journey(STOPS) };
        let Some(ticket) = counter.buy(&wish).await? else {
            counts.sold_out.fetch_add(1, Relaxed);
            continue;
        };
        counts.sold.fetch_add(1, Relaxed);
        let order = Order { run, legs: Legs::of(wish.journey), ticket };
        told.push((wish.key.clone(), order));
        last = Some((wish, ticket));
    }
    if let Some((wish, ticket)) = last
        && counter.buy(&wish).await? != Some(ticket)
    {
        counts.forgotten.fetch_add(1, Relaxed);
    }
    Ok(told)
}

/// A runtime for one thread.
///
/// # Errors
/// What the system says.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|source| Error::Io { what: "a runtime".to_owned(), source })
}
