//! The popular design done right: one Redis, and one script that finds a seat, takes it, and
//! remembers the order.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, Commands};
use e2e::process::ProcessId;
use e2e::{Error, Redis, Result};
use inventory::legs::{Journey, Legs};

use super::crowd::{Counter, Shop, Wish};
use super::judge::{Kept, Order, Ticket};
use super::said;
use crate::sale::{RUNS, SEATS, STOPS};
use crate::work::Site;

const SCRIPT: &str = include_str!("seat.lua");
const ORDERS: &str = "orders";
const NUMBER: &str = "number";
const LEGS: usize = STOPS as usize - 1;
/// Rewriting the append-only file of an empty Redis takes milliseconds.
const APPEND_PATIENCE: Duration = Duration::from_secs(20);

/// When an order reaches the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Append {
    Never,
    EverySecond,
    /// Before it is answered.
    Always,
}

/// A Redis that knows the script.
pub(super) struct RedisShop {
    // Ends the server when it is dropped.
    _redis: Redis,
    server: ProcessId,
    client: Client,
    hash: String,
}

impl RedisShop {
    /// Starts one.
    ///
    /// # Errors
    /// When it does not come up.
    pub(super) fn start(site: &Site, append: Append) -> Result<Self> {
        let redis = Redis::start()?;
        let gone = || Error::Refused("redis-server ended".to_owned());
        let server = redis.process().ok_or_else(gone)?;
        let client = Client::open(redis.url()).map_err(said("Redis"))?;
        let mut asks = client.get_connection().map_err(said("Redis"))?;
        let fsync = match append {
            Append::Never => None,
            Append::EverySecond => Some("everysec"),
            Append::Always => Some("always"),
        };
        for (name, value) in fsync.iter().flat_map(|f| [("appendfsync", *f), ("appendonly", "yes")])
        {
            let set = ::redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec(&mut asks);
            set.map_err(said("Redis"))?;
        }
        site.until("Redis's append-only file", APPEND_PATIENCE, "see its log", || {
            let told = ::redis::cmd("INFO").arg("persistence").query::<String>(&mut asks);
            let busy = ["aof_rewrite_in_progress:1", "aof_rewrite_scheduled:1"];
            let told = told.map_err(said("Redis"))?;
            let on = told.contains("aof_enabled:1") == fsync.is_some();
            Ok((on && !busy.iter().any(|busy| told.contains(busy))).then_some(()))
        })?;
        let script = format!("local LEGS, SEATS = {LEGS}, {SEATS}\n{SCRIPT}");
        let load = ::redis::cmd("SCRIPT").arg("LOAD").arg(script).query(&mut asks);
        Ok(Self { _redis: redis, server, client, hash: load.map_err(said("Redis"))? })
    }
}

/// One connection.
pub(super) struct RedisCounter {
    connection: MultiplexedConnection,
    hash: String,
}

impl Shop for RedisShop {
    type Counter = RedisCounter;

    fn server(&self) -> ProcessId {
        self.server
    }

    async fn open(&self) -> Result<RedisCounter> {
        // A disk may take longer than the client's own patience.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await;
        Ok(RedisCounter { connection: connection.map_err(said("Redis"))?, hash: self.hash.clone() })
    }

    async fn kept(&self) -> Result<Kept> {
        let mut asks = self.client.get_connection().map_err(said("Redis"))?;
        let mut kept = Kept::default();
        let orders: Vec<(String, String)> = asks.hgetall(ORDERS).map_err(said("Redis"))?;
        for (key, text) in orders {
            kept.orders.insert(key, read(&text)?);
        }
        for run in 0..RUNS {
            let state: Vec<u8> = asks.get(seats(run)).map_err(said("Redis"))?;
            for seat in 0..SEATS {
                let group = usize::from(seat / 8) * LEGS;
                let of_group = state.get(group..group + LEGS).unwrap_or_default();
                let taken = of_group.iter().enumerate().filter(|(_, b)| **b >> (seat % 8) & 1 == 1);
                let bits = taken.fold(0, |bits, (leg, _)| bits | 1 << leg);
                kept.marked.insert((run, seat), Legs::from_bits(bits));
            }
        }
        Ok(kept)
    }
}

impl Counter for RedisCounter {
    async fn buy(&mut self, wish: &Wish) -> Result<Option<Ticket>> {
        let Wish { key, run, journey } = wish;
        let mut call = ::redis::cmd("EVALSHA");
        call.arg(&self.hash).arg(3).arg(seats(*run)).arg(ORDERS).arg(NUMBER);
        call.arg(key).arg(run).arg(journey.from()).arg(journey.to());
        let said: Option<String> =
            call.query_async(&mut self.connection).await.map_err(said("Redis"))?;
        said.map(|said| read(&said).map(|order| order.ticket)).transpose()
    }
}

fn seats(run: u16) -> String {
    format!("seats:{run}")
}

/// An order as the script writes it.
fn read(text: &str) -> Result<Order> {
    let parsed = || {
        let mut words = text.split(' ');
        let run = words.next()?.parse().ok()?;
        let journey = Journey::new(words.next()?.parse().ok()?, words.next()?.parse().ok()?)?;
        let (seat, number) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Order { run, legs: Legs::of(journey), ticket: Ticket { seat, number } })
    };
    parsed().ok_or_else(|| Error::Refused(format!("Redis keeps no order but {text:?}")))
}
