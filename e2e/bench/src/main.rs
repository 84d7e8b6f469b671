//! What a real node on a real Kafka sells in a second, beside what HTTP alone can do.
//!
//! - [`ceiling`]: the yardstick.
//! - [`answers`]: what sells nothing.
//! - [`sale`]: a ledger, a node, and its operator.
//! - [`load`]: wrk and its buyers.
//! - [`replay`], [`packing`]: what needs no engines.
//! - [`cpu`]: whose processor time it was.
//! - [`guard`]: whether it became slower.
//! - [`table`]: from windows to figures.
//! - [`work`]: processes that end with this one.
//! - [`yardsticks`]: what others sell with.
//!
//! Ceiling and node take turns, so that a machine that slows down slows down both. Every node
//! begins with an empty ledger: the rounds measure the same thing. When its window is over it is
//! killed, and the checker must find in its ledger all that was answered.

mod answers;
mod ceiling;
mod cpu;
mod dice;
mod guard;
mod load;
mod packing;
mod replay;
mod sale;
mod table;
mod work;
mod yardsticks;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use control::signature::OperatorKey;
use e2e::error::output_of;
use e2e::kafka::{VERSION as KAFKA, free_ports};
use e2e::process::ProcessId;
use e2e::{Error, KafkaCluster, Redis, Result};
use serde_json::{Value, json};

use cpu::Threads;
use guard::Recorded;
use inventory::definition::Definition;
use load::{Begin, Crowd, Seen};
use packing::Packed;
use replay::Replayed;
use sale::{House, Sale};
use table::{Pair, Shot, Summary};
use work::{Running, Site, Stop};

// As in the node, so that both pay the same for memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Of a server that only has to bind a port.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// Processors that others may use on a machine that counts as quiet.
const QUIET_CORES: f64 = 0.15;

/// Into how many shares a run is divided for packing; it has homes on 18 of them at most.
const PACKED_SHARES: [u16; 5] = [1, 4, 8, 16, 64];

/// How long to look before saying so.
const QUIET_LOOK: Duration = Duration::from_millis(500);

/// Measures a node beside the ceiling of HTTP.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Act>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Only what needs no engines: folding a log, and packing.
    Dry,
    /// Only what others sell with: a script in Redis, transactions in MariaDB.
    Yardsticks,
    /// Answer every request with the same bytes; what the bench starts as its yardstick.
    Ceiling {
        /// The port on loopback.
        #[arg(long)]
        port: u16,
        /// The file with the answer's body.
        #[arg(long)]
        body: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// How often each server has its turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Seconds of a turn.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Shares of the ledgers, all owned by the one node.
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    shares: Vec<u16>,
    /// Orders of the log that is folded.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    replay: u32,
    /// Fail if the node is much slower, beside the ceiling, than is recorded; write nothing.
    #[arg(long)]
    guard: bool,
    /// Seconds in all that may be spent on waiting until others leave the machine alone.
    #[arg(long, default_value_t = 0)]
    wait_for_quiet: u64,
    /// The folder of `make programs`.
    #[arg(long, env = "E2E_PROGRAMS")]
    programs: PathBuf,
    /// Where to write `bench.json`; logs go into `bench/` beside it.
    #[arg(long, env = "CARGO_TARGET_DIR", default_value = "target")]
    target: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Some(Act::Ceiling { port, body }) => std::fs::read(&body)
            .and_then(|body| ceiling::serve(port, body))
            .map_err(|source| Error::Io { what: "the ceiling".to_owned(), source }),
        Some(Act::Dry) => Dry::measured(&arguments.run).map(|dry| println!("{dry}")),
        Some(Act::Yardsticks) => yardsticks::measured(&arguments.run),
        None => bench(&arguments.run),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(run: &Run) -> Result<()> {
    let begun = Instant::now();
    let site = Site::new(run.programs.clone(), run.target.join("bench"), Stop::listen()?)?;
    let kafka = KafkaCluster::start(1)?;
    let redis = Redis::start()?;
    let key = OperatorKey::from_seed(&seed()?);
    let house = House { site: &site, kafka: kafka.bootstrap(), redis: redis.address(), key };
    let engines = [kafka.process(0), redis.process()].into_iter().flatten().collect();
    let quiet_left = Duration::from_secs(run.wait_for_quiet);
    let mut bench = Bench { run, site: &site, crowd: Crowd::new(&site)?, engines, quiet_left };
    let body = bench.rehearse(&house)?;
    let ceiling = Ceiling::start(&site, &body)?;
    if run.guard {
        return bench.guard(&house, &ceiling);
    }
    let pairs = bench.pairs(&house, &ceiling, 0, &run.shares)?;
    let summary = Summary::of(&pairs);
    let answers = bench.answers(&house)?;
    let dry = Dry::measured(run)?;
    let setting = setting(run);
    let orders: u64 = pairs.iter().map(|p| p.judged).sum();
    let kept = json!({"setting": setting, "summary": summary, "answers": answers, "dry": dry, "rounds": pairs});
    let path = run.target.join("bench.json");
    let io = |source| Error::Io { what: path.display().to_string(), source };
    std::fs::write(&path, format!("{kept:#}\n")).map_err(io)?;
    println!("\n{}\n\n{}\n{dry}", described(&setting), summary.shown());
    answers.iter().for_each(|told| println!("{told}"));
    println!("The judge found nothing wrong in {orders} orders of {} ledgers.", pairs.len());
    println!("{} written; {} s in all.", path.display(), begun.elapsed().as_secs());
    Ok(())
}

fn seed() -> Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| Error::Refused(format!("no random bytes: {e}")))?;
    Ok(seed)
}

/// What needs no engines.
#[derive(Debug, serde::Serialize)]
struct Dry {
    replayed: Replayed,
    packed: Vec<Packed>,
}

impl Dry {
    fn measured(run: &Run) -> Result<Self> {
        let replayed = replay::replay(run.replay, run.rounds)?;
        let packed = PACKED_SHARES.into_iter().map(|shares| {
            let definition = Definition::try_from(sale::definition("packing", shares));
            let definition = definition.map_err(|e| Error::Refused(e.to_string()))?;
            Ok(packing::packed(&definition, 1))
        });
        Ok(Self { replayed, packed: packed.collect::<Result<_>>()? })
    }
}

impl std::fmt::Display for Dry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = &self.replayed;
        writeln!(
            f,
            "Folding a share's log of {} orders on one core: {:.2} million orders/s; an order is \
             {:.0} bytes of log and {:.0} of memory.",
            of.orders,
            of.orders_per_second / 1e6,
            of.log_bytes_per_order,
            of.memory_bytes_per_order
        )?;
        write!(f, "Seat-legs that shares sell beside one undivided allocator:")?;
        for packed in &self.packed {
            write!(f, " {} shares {:.3}", packed.shares, packed.ratio())?;
        }
        writeln!(f)
    }
}

/// The yardstick, running.
struct Ceiling {
    server: Running,
    port: u16,
}

impl Ceiling {
    fn start(site: &Site, body: &str) -> Result<Self> {
        let io = |source| Error::Io { what: "this program's own path".to_owned(), source };
        let port = free_ports(1)?;
        let body = site.write("answer.json", body)?;
        let launch = site.launch("ceiling.log", &std::env::current_exe().map_err(io)?);
        let launch = launch.args(["--programs", ".", "ceiling", "--port", &port.to_string()]);
        let server = Running::start(launch.args(["--body".as_ref(), body.as_os_str()]))?;
        site.until("the ceiling", START_PATIENCE, "see ceiling.log", || {
            let there = std::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port));
            Ok(there.is_ok().then_some(()))
        })?;
        Ok(Self { server, port })
    }
}

struct Bench<'a> {
    run: &'a Run,
    site: &'a Site,
    crowd: Crowd,
    /// The broker first.
    engines: Vec<ProcessId>,
    quiet_left: Duration,
}

/// Who had used how much when.
struct Look {
    at: Instant,
    busy: u64,
    ended: u64,
    server: Threads,
    resident: u64,
    engines: Vec<Threads>,
    own: Threads,
}

impl Bench<'_> {
    /// A sale that does not count: it warms the broker's compiler up, and shows what a real
    /// answer looks like.
    fn rehearse(&self, house: &House<'_>) -> Result<String> {
        let sale = house.open("rehearsal", 1)?;
        let body = sale.buy_one()?;
        self.crowd.buy(self.site, "rehearsal.wrk.log", sale.port, 3, Begin::First)?;
        sale.kill()?;
        house.judge("rehearsal")?;
        Ok(body)
    }

    /// Fails if every attempt is too far below what is recorded.
    fn guard(&mut self, house: &House<'_>, ceiling: &Ceiling) -> Result<()> {
        let recorded = Recorded::read()?;
        let mut misses = Vec::new();
        for attempt in 0..guard::ATTEMPTS {
            let pairs = self.pairs(house, ceiling, attempt * self.run.rounds, &[1])?;
            let Some((sales, cpu)) = Summary::of(&pairs).ratios(1) else { continue };
            println!("sales / ceiling {sales:.2}, CPU / ceiling {cpu:.2}; {recorded}");
            misses = recorded.misses((sales, cpu));
            if misses.is_empty() {
                return Ok(());
            }
        }
        Err(Error::Refused(misses.join("; ")))
    }

    /// Rounds of ceiling and node, behind the round `done`.
    fn pairs(
        &mut self,
        house: &House<'_>,
        ceiling: &Ceiling,
        done: u32,
        shares: &[u16],
    ) -> Result<Vec<Pair>> {
        let mut pairs = Vec::new();
        for round in done + 1..=done + self.run.rounds {
            for shares in shares {
                let pair = self.pair(house, ceiling, round, *shares)?;
                println!(
                    "round {round}, shares: {shares}; ceiling {:.0}/s, node {:.0}/s",
                    pair.ceiling.seen.rate(),
                    pair.node.seen.rate()
                );
                pairs.push(pair);
            }
        }
        Ok(pairs)
    }

    fn pair(
        &mut self,
        house: &House<'_>,
        ceiling: &Ceiling,
        round: u32,
        shares: u16,
    ) -> Result<Pair> {
        let name = format!("round-{round}-shares-{shares}");
        let crowd = self.crowd.clone();
        let without =
            self.window(&format!("{name}.ceiling"), &crowd, ceiling.server.0, ceiling.port)?;
        let sale = house.open(&name, shares)?;
        sale.buy_one()?;
        let node = self.sell(&sale)?;
        let answered = node.0;
        sale.kill()?;
        let judged = house.judge(&name)?.orders;
        if judged < answered {
            let message = format!("{name}: {answered} orders were answered, {judged} are kept");
            return Err(Error::Refused(message));
        }
        Ok(Pair { round, shares, ceiling: without, node: node.1, judged })
    }

    /// Warm-up and window of a node; also how many buyers have heard "yes" in both.
    fn sell(&mut self, sale: &Sale<'_>) -> Result<(u64, Shot)> {
        let name = sale.name();
        let log = format!("{name}.warm-up.wrk.log");
        let crowd = self.crowd.clone();
        let warm = crowd.buy(self.site, &log, sale.port, 1, Begin::Last)?;
        let before = sale.metrics()?;
        let mut shot = self.window(name, &crowd, sale.node.0, sale.port)?;
        let after = sale.metrics()?;
        shot.counted = since(&after, &before);
        shot.done = shot.counted.get("answers_total{kind=\"written\"}").copied().unwrap_or(0);
        // An answer that says yes and is no new order, 200 for a key that is known, is no sale.
        if shot.seen.taken() > shot.done {
            let message = format!("{name}: {} took, {} were sold", shot.seen.taken(), shot.done);
            return Err(Error::Refused(message));
        }
        Ok((warm.taken() + shot.seen.taken(), shot))
    }

    /// Load on a server for as long as was asked for.
    fn window(&mut self, name: &str, crowd: &Crowd, server: ProcessId, port: u16) -> Result<Shot> {
        self.wait_for_quiet()?;
        let before = self.look(server)?;
        let log = format!("{name}.wrk.log");
        let seen = crowd.buy(self.site, &log, port, self.run.seconds, Begin::First)?;
        let after = self.look(server)?;
        Ok(after.shot(&before, seen))
    }

    fn look(&self, server: ProcessId) -> Result<Look> {
        let own = ProcessId::of(i32::try_from(std::process::id()).unwrap_or(0));
        Ok(Look {
            at: Instant::now(),
            busy: cpu::busy()?,
            ended: cpu::ended_children()?,
            server: Threads::of(server)?,
            resident: cpu::resident(server)?,
            engines: self.engines.iter().map(|e| Threads::of(*e)).collect::<Result<_>>()?,
            own: own.map_or_else(|| Ok(Threads::default()), Threads::of)?,
        })
    }

    /// Returns as soon as others leave the machine alone, or when patience is used up.
    fn wait_for_quiet(&mut self) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < self.quiet_left {
            let (busy, looked) = (cpu::busy()?, Instant::now());
            self.site.until("a look at the machine", 2 * QUIET_LOOK, "", || {
                Ok((looked.elapsed() >= QUIET_LOOK).then_some(()))
            })?;
            let used = cpu::micros(cpu::busy()? - busy);
            if used / looked.elapsed().as_micros() as f64 <= QUIET_CORES {
                break;
            }
        }
        self.quiet_left = self.quiet_left.saturating_sub(begun.elapsed());
        Ok(())
    }
}

impl Look {
    fn shot(&self, before: &Self, seen: Seen) -> Shot {
        let time = (self.at - before.at).as_micros() as f64;
        let spent = self.server.since(&before.server);
        let engines: Vec<f64> = self
            .engines
            .iter()
            .zip(&before.engines)
            .map(|(now, then)| now.since(then).micros)
            .collect();
        let wrk = cpu::micros(self.ended - before.ended);
        let own = self.own.since(&before.own).micros;
        let ours = spent.micros + engines.iter().sum::<f64>() + wrk + own;
        Shot {
            done: seen.requests,
            seen,
            spent,
            grown: self.resident.saturating_sub(before.resident),
            kafka_cores: engines.first().copied().unwrap_or(0.0) / time,
            wrk_cores: wrk / time,
            others_cores: (cpu::micros(self.busy - before.busy) - ours).max(0.0) / time,
            counted: BTreeMap::new(),
        }
    }
}

fn since(after: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let then = |name: &String| before.get(name).copied().unwrap_or(0);
    after.iter().map(|(name, now)| (name.clone(), now.saturating_sub(then(name)))).collect()
}

/// On what and with what it was measured.
fn setting(run: &Run) -> Value {
    let said = |program: &str, argument: &str| {
        let said = output_of(Command::new(program).arg(argument)).unwrap_or_default();
        said.lines().next().unwrap_or_default().trim().to_owned()
    };
    let commit = output_of(Command::new("git").args(["describe", "--always", "--dirty"]));
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let model = processors.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": "));
    json!({
        "machine": {
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "model": model.map_or("", |(_, name)| name),
            "kernel": read("/proc/sys/kernel/osrelease").trim(),
        },
        "versions": {
            "commit": commit.unwrap_or_default().trim(),
            "hyper": locked("hyper"),
            "tokio": locked("tokio"),
            "librdkafka": locked("rdkafka-sys"),
            "kafka": KAFKA,
            "redis": said("redis-server", "--version"),
        },
        "sizes": {
            "rounds": run.rounds,
            "seconds": run.seconds,
            "connections": load::CONNECTIONS,
            "runs": sale::RUNS,
            "seats": sale::SEATS,
            "legs": sale::STOPS - 1,
            "ordersPerRun": sale::ORDERS_PER_RUN,
            "brokers": 1,
        },
    })
}

/// The version of a crate in this workspace's lock file.
fn locked(name: &str) -> String {
    let lock = include_str!("../../../Cargo.lock");
    let entry = format!("name = \"{name}\"\nversion = \"");
    let version = lock.split_once(&entry).and_then(|(_, rest)| rest.split_once('"'));
    version.map_or(String::new(), |(version, _)| version.to_owned())
}

fn described(setting: &Value) -> String {
    let (machine, versions, sizes) = (&setting["machine"], &setting["versions"], &setting["sizes"]);
    format!(
        "Durable sales of one node on one core, beside a hyper server that reads and answers as \
         much and sells nothing.\n\
         {} cores ({}), shared with wrk and one Kafka broker (acks=all); {} keep-alive \
         connections, {} rounds of {} s.\n\
         Single seats, random journeys, one hot run at a time: {} seats, {} legs, {} orders, then \
         the next. Commit {}, hyper {}, Kafka {}, librdkafka {}.\n\
         Latency is a closed loop's: a buyer waits for the answer before asking again; wrk fills \
         in what a stall kept it from asking.",
        machine["cores"],
        machine["model"].as_str().unwrap_or_default(),
        sizes["connections"],
        sizes["rounds"],
        sizes["seconds"],
        sizes["seats"],
        sizes["legs"],
        sizes["ordersPerRun"],
        versions["commit"].as_str().unwrap_or_default(),
        versions["hyper"].as_str().unwrap_or_default(),
        versions["kafka"].as_str().unwrap_or_default(),
        versions["librdkafka"].as_str().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file() {
        assert!(locked("hyper").starts_with("1."), "{}", locked("hyper"));
        assert_eq!(locked("no-such-crate"), "");
    }
}
