//! A crowd of buyers: buys random journeys over a fixed number of connections until nothing is
//! left, and writes every answer down as a JSON line for the checker.
//!
//! It keeps to the product's own rules: one key an order, the same key after "busy" and
//! "unknown", and no other word than the answer's for what happened.

mod market;
mod shopper;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};

/// A crowd of buyers for a sale, bounded in number and time.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    /// Where to buy, `http://HOST:PORT`; several are used in turn.
    #[arg(long = "target", required = true)]
    targets: Vec<String>,
    /// Connections at once.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    connections: u32,
    /// End after so many seconds, sold out or not.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// End after so many orders; 0: when all is sold.
    #[arg(long, default_value_t = 0)]
    orders: u64,
    /// Go on for so many seconds at least, however many orders there are.
    #[arg(long, default_value_t = 0)]
    least_seconds: u64,
    /// How many percent of the orders are paid.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=100))]
    pay: u32,
    /// How many percent of the orders are cancelled.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=100))]
    cancel: u32,
    /// Passengers of an order at most.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=16))]
    party: u32,
    /// Send every request twice at the same time, to different targets where there are more, and
    /// lose every third answer.
    #[arg(long)]
    twice: bool,
    /// How long a buyer thinks before an order, in milliseconds: stretches a sale.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    think_ms: u64,
    /// Orders begun in each second by the whole crowd; who could not begin in time begins at
    /// once. Unset: as many as there are connections for.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    per_second: Option<u64>,
    /// Buy of this run only, TRAIN/DATE.
    #[arg(long)]
    run: Option<String>,
    /// Makes the crowd's choices repeatable, and its buyers' names its own.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The header that names the buyer.
    #[arg(long, default_value = "X-Buyer-Id")]
    header: String,
    /// Where every answer is written, a JSON line each.
    #[arg(long)]
    answers: Option<PathBuf>,
    /// Buy exactly these journeys instead, one try each: JSON lines with run, class, from, to
    /// and seats. Ends with an error if one cannot be had.
    #[arg(long)]
    wanted: Option<PathBuf>,
    /// Give each wanted journey back before the next is bought: what is free may overlap.
    #[arg(long, requires = "wanted")]
    give_back: bool,
}

/// What the whole crowd shares.
pub(crate) struct Crowd {
    pub(crate) arguments: Arguments,
    pub(crate) began: Instant,
    pub(crate) market: RefCell<market::Market>,
    pub(crate) orders: Cell<u64>,
    begun: Cell<u64>,
    pub(crate) ended: Cell<bool>,
    /// Answers so far, the lost ones included.
    pub(crate) heard: Cell<u64>,
    /// Keys that have named two orders.
    pub(crate) doubled: Cell<u64>,
    answers: RefCell<Option<BufWriter<File>>>,
    counts: RefCell<BTreeMap<String, u64>>,
    latencies_us: RefCell<Vec<u32>>,
}

impl Crowd {
    /// Writes an answer down and counts it.
    pub(crate) fn note(&self, line: &Value, took: Duration) {
        let word = line["problem"].as_str().or_else(|| line["state"].as_str()).unwrap_or("none");
        let op = line["op"].as_str().unwrap_or("");
        *self.counts.borrow_mut().entry(format!("{op} {word}")).or_default() += 1;
        if op == "place" && line["problem"].is_null() {
            let us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
            self.latencies_us.borrow_mut().push(us);
        }
        if let Some(file) = self.answers.borrow_mut().as_mut() {
            // A full disk would make the checker's input a lie.
            writeln!(file, "{line}").expect("the answers can be written");
        }
    }

    /// Waits for the time of the next order.
    pub(crate) async fn turn(&self) {
        let Some(per_second) = self.arguments.per_second else { return };
        let number = self.begun.replace(self.begun.get() + 1);
        let due = self.began + Duration::from_micros(number * 1_000_000 / per_second);
        tokio::time::sleep_until(due.into()).await;
    }

    pub(crate) fn is_over(&self) -> bool {
        let (limit, elapsed) = (self.arguments.orders, self.began.elapsed());
        let enough = limit > 0 && self.orders.get() >= limit;
        self.ended.get()
            || elapsed >= Duration::from_secs(self.arguments.seconds)
            || (enough && elapsed >= Duration::from_secs(self.arguments.least_seconds))
    }

    fn summary(&self) -> Value {
        let mut latencies = self.latencies_us.borrow_mut();
        latencies.sort_unstable();
        let at = |percent: usize| {
            let index = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
            latencies.get(index).map(|us| f64::from(*us) / 1_000.0)
        };
        json!({
            "seconds": self.began.elapsed().as_secs_f64(),
            "orders": self.orders.get(),
            "soldOut": self.ended.get(),
            "doubled": self.doubled.get(),
            "answers": *self.counts.borrow(),
            "placeMs": {"p50": at(50), "p99": at(99), "max": at(100)},
        })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(|e| e.to_string()).and_then(|runtime| {
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, run(arguments))
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("buyers: {why}");
            ExitCode::from(2)
        }
    }
}

async fn run(arguments: Arguments) -> Result<bool, String> {
    let create = |path: &PathBuf| {
        let file = File::create(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok::<_, String>(BufWriter::new(file))
    };
    let answers = arguments.answers.as_ref().map(create).transpose()?;
    let wanted = arguments.wanted.clone();
    let market = market::Market::open(&arguments.targets, arguments.run.as_deref()).await?;
    let crowd = Rc::new(Crowd {
        began: Instant::now(),
        market: RefCell::new(market),
        orders: Cell::new(0),
        begun: Cell::new(0),
        ended: Cell::new(false),
        heard: Cell::new(0),
        doubled: Cell::new(0),
        answers: RefCell::new(answers),
        counts: RefCell::default(),
        latencies_us: RefCell::default(),
        arguments,
    });
    let met = match wanted {
        Some(path) => shopper::buy_wanted(&crowd, &path).await?,
        None => {
            let watching = Rc::clone(&crowd);
            let watch = tokio::task::spawn_local(async move { market::watch(&watching).await });
            let shoppers: Vec<_> = (0..crowd.arguments.connections)
                .map(|i| tokio::task::spawn_local(shopper::shop(Rc::clone(&crowd), i)))
                .collect();
            for shopper in shoppers {
                shopper.await.map_err(|e| e.to_string())?;
            }
            watch.abort();
            true
        }
    };
    if let Some(file) = crowd.answers.borrow_mut().as_mut() {
        file.flush().map_err(|e| e.to_string())?;
    }
    println!("{}", crowd.summary());
    Ok(met && crowd.doubled.get() == 0)
}
