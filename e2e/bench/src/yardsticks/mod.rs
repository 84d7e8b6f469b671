//! What others sell with, on the same machine and for the same crowd: yardsticks beside the
//! node's own figures.
//!
//! - [`redis`]: one script in one Redis, with `seat.lua`.
//! - [`mariadb`]: one transaction in one MariaDB, with `seat.sql` and `sell.sql`.
//! - [`spike`]: spikeSystem, if somebody has it.
//! - [`crowd`]: a closed loop of buyers, and who used the processors meanwhile.
//! - [`judge`]: whether what was told is what is kept.
//!
//! Every round of every engine begins with an empty one, and the engines take turns. Buyers talk
//! to the engine itself: nothing here speaks HTTP, knows a buyer, or takes a payment, all of which
//! a node does in its processor time.

mod crowd;
mod judge;
#[cfg(feature = "mariadb")]
mod mariadb;
mod redis;
mod spike;

use std::path::PathBuf;

use e2e::{Error, Result};
use serde::Serialize;

use crate::table::{Spread, aligned};
use crate::work::Site;
use crowd::{Shop, Shot};
#[cfg(feature = "mariadb")]
use mariadb::MariaDbShop;
use redis::{Append, RedisShop};

/// What a reader has to know who compares them with a node.
const NONE_HAS: &str = "Buyers speak to the engine itself, without HTTP. None of them has holds, \
                        payments, limits of a buyer, or a second machine.";

/// One engine's row.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Yardstick {
    name: &'static str,
    #[serde(flatten)]
    outcome: Outcome,
    /// What its buyers can rely on.
    guarantees: &'static str,
    /// What they cannot.
    lacks: &'static str,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "outcome", rename_all = "camelCase")]
enum Outcome {
    Measured(Figures),
    /// There are no figures, and this is why.
    NotRun {
        why: String,
    },
    /// There are no figures, since it sold what it must not, or lost what it sold.
    Failed {
        why: String,
    },
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    sales_per_second: Spread,
    /// Processor time of the engine for a sale.
    server_micros_each: Spread,
    /// The same of the buyers, who are a part of this program.
    client_micros_each: Spread,
    /// Processors used by processes that are neither.
    others_cores: Spread,
    /// Answers of all rounds that said so.
    sold_out: u64,
    /// Orders of all rounds that the judge found right, those of the warm-up included.
    judged: u64,
}

/// What can be measured here.
#[derive(Debug, Clone)]
enum Engine {
    Redis(Append),
    #[cfg(feature = "mariadb")]
    MariaDb {
        mariadbd: PathBuf,
    },
}

impl Engine {
    fn shot(&self, site: &Site, seconds: u32) -> Result<Judged> {
        match self {
            Self::Redis(append) => judged(site, &RedisShop::start(site, *append)?, seconds),
            #[cfg(feature = "mariadb")]
            Self::MariaDb { mariadbd } => {
                judged(site, &MariaDbShop::start(site, mariadbd)?, seconds)
            }
        }
    }
}

/// Something, or in words why there is none.
type Said<T> = std::result::Result<T, String>;

/// A window, and how many orders the judge found right after it; or what he found wrong.
type Judged = Said<(Shot, u64)>;

fn judged(site: &Site, shop: &impl Shop, seconds: u32) -> Result<Judged> {
    let shot = crowd::buy(site, shop, seconds)?;
    let kept = crowd::runtime()?.block_on(shop.kept())?;
    if shot.forgotten > 0 {
        let why = format!("{} repeated requests got another answer", shot.forgotten);
        return Ok(Err(why));
    }
    Ok(judge::judge(&kept, &shot.told).map(|orders| (shot, orders)))
}

/// Measures each engine in `rounds` windows of so many `seconds`.
///
/// # Errors
/// When an engine does not start, or fails other than by selling wrongly, which is its outcome.
pub(crate) fn yardsticks(site: &Site, rounds: u32, seconds: u32) -> Result<Vec<Yardstick>> {
    let contestants = contestants();
    let mut judged: Vec<Vec<Judged>> = contestants.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        for ((name, engine, ..), judged) in contestants.iter().zip(&mut judged) {
            let Ok(engine) = engine else { continue };
            let shot = engine.shot(site, seconds)?;
            match &shot {
                Ok((shot, _)) => println!("round {round}, {name}: {:.0}/s", shot.rate()),
                Err(why) => println!("round {round}, {name}: {why}"),
            }
            judged.push(shot);
        }
    }
    let rows = contestants.into_iter().zip(judged);
    let rows = rows.map(|((name, engine, guarantees, lacks), judged)| {
        let outcome = match engine {
            Ok(_) => Outcome::of(judged),
            Err(why) => Outcome::NotRun { why },
        };
        Yardstick { name, outcome, guarantees, lacks }
    });
    let spike = Yardstick {
        name: "spikesystem",
        outcome: spike::outcome(site, rounds)?,
        guarantees: "a count of tickets in Redis, exceeded by one",
        lacks: "seats, legs, orders, idempotency, and a Redis connection after each request",
    };
    Ok(rows.chain([spike]).collect())
}

/// Name, engine or why there is none, what it guarantees, and what it lacks.
type Contestant = (&'static str, Said<Engine>, &'static str, &'static str);

fn contestants() -> [Contestant; 4] {
    let redis = |append| {
        let missing = || "redis-server is not installed".to_owned();
        installed("redis-server").map(|_| Engine::Redis(append)).ok_or_else(missing)
    };
    [
        (
            "redis-lua, in memory",
            redis(Append::Never),
            "no seat twice, the same answer to a repeated request, while Redis lives",
            "a restart loses all orders; one core sells all",
        ),
        (
            "redis-lua, fsync every second",
            redis(Append::EverySecond),
            "no seat twice, the same answer to a repeated request; a restart keeps older orders",
            "a crash or a power cut loses a second or two of answered orders; one disk; one core",
        ),
        (
            "redis-lua, fsync before the answer",
            redis(Append::Always),
            "no seat twice, the same answer to a repeated request; a power cut loses no answered \
             order",
            "one disk: its loss is the loss of all; one core",
        ),
        (
            "mariadb, a transaction for a sale",
            mariadb(),
            "no seat twice, the same answer to a repeated request; a power cut loses no answered \
             order",
            "one disk: its loss is the loss of all",
        ),
    ]
}

#[cfg(feature = "mariadb")]
fn mariadb() -> Said<Engine> {
    let mariadbd = installed("mariadbd").filter(|_| installed("mariadb-install-db").is_some());
    let mariadb = mariadbd.map(|mariadbd| Engine::MariaDb { mariadbd });
    mariadb.ok_or_else(|| "mariadbd is not installed".to_owned())
}

/// Its client is built by nobody who does not ask for it: nothing else here needs one.
#[cfg(not(feature = "mariadb"))]
fn mariadb() -> Said<Engine> {
    Err("this bench was built without the feature mariadb".to_owned())
}

/// What an engine said, as our error.
fn said<E: std::fmt::Display>(engine: &'static str) -> impl Fn(E) -> Error {
    move |error| Error::Refused(format!("{engine}: {error}"))
}

/// Where a program lies, in the path or where Debian has its servers.
fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

impl Outcome {
    fn of(judged: Vec<Judged>) -> Self {
        match judged.into_iter().collect::<Said<Vec<_>>>() {
            Ok(shots) => Self::Measured(Figures::of(&shots)),
            Err(why) => Self::Failed { why },
        }
    }
}

impl Figures {
    /// Of at least one window.
    fn of(shots: &[(Shot, u64)]) -> Self {
        let spread = |figure: fn(&Shot) -> f64| Spread::of(shots.iter().map(|(s, _)| figure(s)));
        Self {
            sales_per_second: spread(Shot::rate),
            server_micros_each: spread(|s| s.server_micros / s.sold.max(1) as f64),
            client_micros_each: spread(|s| s.client_micros / s.sold.max(1) as f64),
            others_cores: spread(|s| s.others_micros / s.seconds / 1e6),
            sold_out: shots.iter().map(|(shot, _)| shot.sold_out).sum(),
            judged: shots.iter().map(|(_, orders)| orders).sum(),
        }
    }
}

impl std::fmt::Display for Yardstick {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, guarantees, lacks, .. } = self;
        match &self.outcome {
            Outcome::Measured(_) => write!(f, "{name}: {guarantees}. But: {lacks}."),
            Outcome::NotRun { why } => write!(f, "{name}: not run: {why}"),
            Outcome::Failed { why } => write!(f, "{name}: FAILED: {why}"),
        }
    }
}

/// The table, and below it what each engine promises.
pub(crate) fn shown(yardsticks: &[Yardstick]) -> String {
    let heads = ["", "sales/s", "server µs each", "buyers µs each", "others' cores", "judged"];
    let mut lines = vec![heads.map(str::to_owned)];
    lines.extend(yardsticks.iter().map(|yardstick| {
        let name = yardstick.name.to_owned();
        let none = |word: &str| [name.clone(), word.to_owned()];
        match &yardstick.outcome {
            Outcome::Measured(figures) => [
                name,
                figures.sales_per_second.shown(0),
                figures.server_micros_each.shown(1),
                figures.client_micros_each.shown(1),
                figures.others_cores.shown(2),
                figures.judged.to_string(),
            ],
            Outcome::NotRun { .. } => row_of(none("not run")),
            Outcome::Failed { .. } => row_of(none("FAILED")),
        }
    }));
    let words: Vec<String> = yardsticks.iter().map(ToString::to_string).collect();
    let (table, words) = (aligned(&lines), words.join("\n"));
    format!("{table}\n{words}\n{NONE_HAS}\n")
}

fn row_of([name, word]: [String; 2]) -> [String; 6] {
    [name, word, String::new(), String::new(), String::new(), String::new()]
}
