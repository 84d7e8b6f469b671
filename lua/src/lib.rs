//! The pool's stock in Redis, so that nodes which draw at once draw different blocks.
//!
//! Redis is a hint and never the truth: a block belongs to a share when the share's `Take` is
//! the first in partition 0. So nothing here can sell a seat twice, and losing Redis loses
//! nothing: a node that hears [`Failure`], [`Draw::Missing`], [`Draw::Stale`], or
//! [`Draw::Empty`] while its own fold has blocks, picks from its fold instead.
//!
//! - [`PoolStock`]: `draw` and `restock`, one script and one command each.
//! - `keeper`: the connection, and the task that replaces it.
//!
//! Everything of one (ledger, run, class) is one key, so a cluster keeps it in one slot, and a
//! flush or an eviction takes all of it or nothing: a half of it cannot look sold out.

use std::{
    num::NonZeroU16,
    sync::Arc,
    time::{Duration, Instant},
};

use inventory::{
    stock::BlockId,
    words::{ClassId, Digest128, Offset, RunId},
};
use redis::{FromRedisValue, Script, Value};
use tokio::sync::Semaphore;

use keeper::Keeper;

mod keeper;

/// How long a draw may take.
// A buyer's share is not empty yet when it draws, but the next buyers' seats wait for it.
// Redis answers in a millisecond; one that needs fifty is in trouble, and the fold is at hand.
pub const DRAW_MS_MAX: u64 = 50;

/// How long a restock may take. Nobody waits for it.
pub const RESTOCK_MS_MAX: u64 = 500;

/// How many commands of a process may wait for answers; one more is [`Failure::Busy`].
// A share draws for one class at a time, and a core owns a few shares. More waiting than this
// means that Redis is behind, and the fold serves better.
pub const WAITING_MAX: usize = 64;

/// The most blocks that one restock writes.
// Twice the blocks of the longest train there is; writing them takes the server some 10 ms,
// during which it does nothing else.
pub const BLOCKS_MAX: usize = 8_192;

// A Take lies in the log after milliseconds, and after three seconds when a leader was lost on
// the way. A drawer that died strands its blocks for this long, and only for those who draw
// here: the fold still offers them.
const LEASE: Duration = Duration::from_secs(10);

// A stock that nobody touched for so long is of a sale that is over, or rebuilt when missed.
const KEEP: Duration = Duration::from_secs(24 * 60 * 60);

// Lua counts in doubles, which are exact up to here.
const OFFSET_MAX: u64 = 1 << 53;

/// What Redis had to draw from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Draw {
    /// These blocks, at least one and at most as many as asked for, are leased to the caller.
    /// It should append its `Take` at once.
    Drawn {
        /// Which.
        blocks: Vec<BlockId>,
        /// The pool's offset that the set was written at.
        at: Offset,
    },
    /// The set is older than the caller's floor; or nothing is free but some leases have
    /// ended. Restock from a fold and draw again.
    Stale {
        /// The pool's offset that the set was written at.
        at: Offset,
    },
    /// Nothing is free at this offset; what was is leased.
    Empty {
        /// The pool's offset that the set was written at.
        at: Offset,
    },
    /// Redis knows nothing of this class: never written, flushed or evicted. Restock.
    Missing,
}

/// What became of a restock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restock {
    /// Written.
    Stored,
    /// Nothing was written: the set is of a later offset already.
    Newer {
        /// That offset.
        at: Offset,
    },
}

/// Why Redis gave no answer. It says nothing about the stock: never "empty". Variants are
/// metric labels.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Failure {
    /// Too many commands wait already; this one was not sent.
    #[error("{WAITING_MAX} commands wait for Redis already")]
    Busy,
    /// There is no connection at present; nothing was sent.
    #[error("Redis is away")]
    Away,
    /// No answer in time. The command may still be carried out.
    #[error("Redis did not answer within {0:?}")]
    Slow(Duration),
    /// The connection broke. The command may have been carried out.
    #[error("the connection to Redis broke: {0}")]
    Broken(redis::RedisError),
    /// Redis answered with an error.
    #[error("Redis refuses: {0}")]
    Refused(redis::RedisError),
    /// Redis answered something that these scripts never answer.
    #[error("an answer from Redis makes no sense: {0}")]
    Nonsense(String),
    /// The caller's offset or number of blocks is beyond what the scripts count.
    #[error("{0} is too large for the scripts")]
    TooLarge(u64),
    /// The address is none.
    #[error("not an address of Redis: {0}")]
    Address(redis::RedisError),
}

/// The stock of one ledger's pool in Redis. Clones share one connection.
#[derive(Debug, Clone)]
pub struct PoolStock {
    ledger: Digest128,
    keeper: Keeper,
    waiting: Arc<Semaphore>,
    scripts: Arc<Scripts>,
    // Constants but for tests.
    lease: Duration,
    draw_max: Duration,
}

#[derive(Debug)]
struct Scripts {
    draw: Script,
    restock: Script,
}

impl PoolStock {
    /// Connects in the background, now and whenever the connection is lost. Needs a tokio
    /// runtime, on which the task for that runs; `address` is `host:port` or a `redis://` URL.
    ///
    /// # Errors
    /// [`Failure::Address`].
    pub fn start(address: &str, ledger: Digest128) -> Result<PoolStock, Failure> {
        let scripts = Scripts {
            draw: Script::new(include_str!("../draw.lua")),
            restock: Script::new(include_str!("../restock.lua")),
        };
        Ok(PoolStock {
            ledger,
            keeper: Keeper::start(address)?,
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            scripts: Arc::new(scripts),
            lease: LEASE,
            draw_max: Duration::from_millis(DRAW_MS_MAX),
        })
    }

    /// Draws up to `want` blocks. `floor` is the lowest offset that the set must have been
    /// written at.
    ///
    /// Takes of blocks that were drawn here need not raise it: those blocks are leased. It is
    /// to be the last pool record that changed the class's blocks otherwise (`Genesis`,
    /// `Amend`, `Withdraw`), or the caller's own last `Take` that got less than it named,
    /// which shows that somebody drew elsewhere.
    ///
    /// # Errors
    /// [`Failure`], after [`DRAW_MS_MAX`] at the latest.
    pub async fn draw(
        &self,
        run: RunId,
        class: ClassId,
        want: NonZeroU16,
        floor: Offset,
    ) -> Result<Draw, Failure> {
        let mut call = self.scripts.draw.key(self.key(run, class));
        call.arg(want.get()).arg(counted(floor.0)?).arg(millis(self.lease)).arg(millis(KEEP));
        let answer: Value = self.within(self.draw_max, &call).await?;
        read_draw(run, answer)
    }

    /// Writes the blocks of a class that are in the pool at offset `at` of a fold, all of
    /// them, unless Redis has a later set.
    ///
    /// # Errors
    /// [`Failure`], after [`RESTOCK_MS_MAX`] at the latest.
    pub async fn restock(
        &self,
        run: RunId,
        class: ClassId,
        blocks: impl IntoIterator<Item = BlockId>,
        at: Offset,
    ) -> Result<Restock, Failure> {
        let mut call = self.scripts.restock.key(self.key(run, class));
        call.arg(counted(at.0)?).arg(millis(self.lease)).arg(millis(KEEP));
        for (before, block) in blocks.into_iter().enumerate() {
            if before == BLOCKS_MAX {
                return Err(Failure::TooLarge(before as u64 + 1));
            }
            call.arg(block.index);
        }
        let answer: Value = self.within(Duration::from_millis(RESTOCK_MS_MAX), &call).await?;
        read_restock(answer)
    }

    /// When Redis last answered anything; None if it never did. It is asked every two seconds,
    /// so an older time means that it does not answer.
    #[must_use]
    pub fn answered(&self) -> Option<Instant> {
        self.keeper.answered()
    }

    // The braces are the hash tag: a cluster finds the slot by what is between them.
    fn key(&self, run: RunId, class: ClassId) -> String {
        let ledger = u128::from_be_bytes(self.ledger.0);
        format!("stationmaster:pool:{{{ledger:032x}:{run}:{class}}}")
    }

    async fn within(
        &self,
        budget: Duration,
        call: &redis::ScriptInvocation<'_>,
    ) -> Result<Value, Failure> {
        let Ok(_place) = self.waiting.try_acquire() else { return Err(Failure::Busy) };
        let (connection, mut commands) = self.keeper.connection().ok_or(Failure::Away)?;
        // A server that lacks the script, after a flush or a restart, is given it on the way.
        let answer = tokio::time::timeout(budget, call.invoke_async(&mut commands)).await;
        let failure = match answer {
            Ok(Ok(answer)) => {
                self.keeper.heard();
                return Ok(answer);
            }
            Ok(Err(error)) if error.is_io_error() || error.is_connection_dropped() => {
                Failure::Broken(error)
            }
            Ok(Err(error)) => {
                self.keeper.heard();
                return Err(Failure::Refused(error));
            }
            Err(_) => Failure::Slow(budget),
        };
        self.keeper.suspect(connection);
        Err(failure)
    }
}

fn counted(number: u64) -> Result<u64, Failure> {
    if number < OFFSET_MAX { Ok(number) } else { Err(Failure::TooLarge(number)) }
}

fn millis(duration: Duration) -> u64 {
    // A constant of this crate; it fits.
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a script answered: its word, and what follows.
fn read_answer(answer: Value) -> Result<(String, Vec<u64>), Failure> {
    let nonsense = |answer: &dyn std::fmt::Debug| Failure::Nonsense(format!("{answer:?}"));
    let Value::Array(parts) = answer else { return Err(nonsense(&answer)) };
    let mut parts = parts.into_iter();
    let word = parts.next().map(String::from_redis_value);
    let Some(Ok(word)) = word else { return Err(nonsense(&word)) };
    let numbers: Result<Vec<u64>, _> = parts.map(u64::from_redis_value).collect();
    Ok((word, numbers.map_err(|error| nonsense(&error))?))
}

fn read_draw(run: RunId, answer: Value) -> Result<Draw, Failure> {
    let (word, numbers) = read_answer(answer)?;
    match (&*word, &numbers[..]) {
        ("missing", []) => Ok(Draw::Missing),
        ("stale", [at]) => Ok(Draw::Stale { at: Offset(*at) }),
        ("empty", [at]) => Ok(Draw::Empty { at: Offset(*at) }),
        ("drawn", [at, indexes @ ..]) if !indexes.is_empty() => {
            let block = |index: &u64| match u16::try_from(*index) {
                Ok(index) => Ok(BlockId { run, index }),
                Err(_) => Err(Failure::Nonsense(format!("block {index}"))),
            };
            let blocks: Result<Vec<BlockId>, Failure> = indexes.iter().map(block).collect();
            Ok(Draw::Drawn { blocks: blocks?, at: Offset(*at) })
        }
        _ => Err(Failure::Nonsense(format!("{word} {numbers:?}"))),
    }
}

fn read_restock(answer: Value) -> Result<Restock, Failure> {
    let (word, numbers) = read_answer(answer)?;
    match (&*word, &numbers[..]) {
        ("stored", [_]) => Ok(Restock::Stored),
        ("newer", [at]) => Ok(Restock::Newer { at: Offset(*at) }),
        _ => Err(Failure::Nonsense(format!("{word} {numbers:?}"))),
    }
}

#[cfg(test)]
mod strange_replies;
#[cfg(test)]
mod tests;
