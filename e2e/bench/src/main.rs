//! What a real node on a real Kafka sells in a second, beside what HTTP alone can do.
//!
//! - [`ceiling`]: the yardstick.
//! - [`durable`]: the ceiling with a log.
//! - [`answers`]: what sells nothing.
//! - [`sale`]: a ledger, a node, and its operator.
//! - [`load`]: wrk and its buyers.
//! - [`variants`]: other crowds.
//! - [`forwarding`]: more nodes.
//! - [`arrivals`]: an open loop.
//! - [`scale`]: how all of it grows.
//! - [`yardsticks`]: what others sell with.
//! - [`whole`]: a sale from beginning to end.
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
mod arrivals;
mod ceiling;
mod cpu;
mod dice;
mod durable;
mod forwarding;
mod guard;
mod load;
mod packing;
mod replay;
mod sale;
mod scale;
mod table;
mod variants;
mod whole;
mod work;
mod yardsticks;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand, ValueEnum};
use control::signature::OperatorKey;
use e2e::error::output_of;
use e2e::kafka::{Purpose, VERSION as KAFKA, free_ports};
use e2e::process::ProcessId;
use e2e::{Error, KafkaCluster, Redis, Result};
use serde_json::{Map, Value, json};

use arrivals::Arrived;
use cpu::Threads;
use guard::Recorded;
use inventory::definition::Definition;
use load::{Begin, Buying, Crowd, Manner, Seen};
use packing::Packed;
use replay::Replayed;
use sale::{House, Node, Sale, Terms};
use table::{Compared, Pair, Shot, Summary};
use work::{Running, Site, Stop};

// As in the node, so that both pay the same for memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Of a server that only has to bind a port.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// Until code and caches are warm.
const WARM_UP_SECONDS: u32 = 1;

/// A broker that compiles itself is slower, and in the way of all others.
const COMPILING_CORES: f64 = 0.03;
const REHEARSALS_MAX: u32 = 10;
const REHEARSAL_SECONDS: u32 = 3;

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
    /// How planner, board and the rest grow with the fleet; needs no engines.
    Scale(scale::Size),
    /// Answer every request with the same bytes; what the bench starts as its yardstick.
    Ceiling {
        /// The port on loopback.
        #[arg(long)]
        port: u16,
        /// The file with the answer's body.
        #[arg(long)]
        body: PathBuf,
        /// Brokers that have to keep an order's bytes before it is answered.
        #[arg(long, requires = "topic")]
        brokers: Option<String>,
        /// Where.
        #[arg(long, requires = "brokers")]
        topic: Option<String>,
    },
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Workload {
    /// One node that sells single seats.
    Sales,
    /// A server that keeps as many bytes in Kafka as a node, and decides nothing.
    Durable,
    /// Answers that sell nothing.
    Answers,
    /// The same with other crowds.
    Variants,
    /// Two and four nodes, with buyers at the right one and at the wrong one.
    Forwarding,
    /// Buyers who come at a constant rate, with one broker and with three.
    Arrivals,
    /// A sale until nothing is left.
    Whole,
    /// What others sell with: a script in Redis, transactions in MariaDB.
    Yardsticks,
    /// What needs no engines.
    Dry,
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
    /// What to measure, of all that there is.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "sales,durable,answers,dry")]
    only: Vec<Workload>,
    /// How many brokers keep the orders of those who arrive at a constant rate: 1, 3, or both in turn.
    #[arg(long, value_delimiter = ',', default_value = "1,3", value_parser = clap::value_parser!(u8).range(1..=3))]
    brokers: Vec<u8>,
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
    // As in the node; on kernels without huge pages there is nothing to switch off.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let done = match arguments.command {
        Some(Act::Ceiling { port, body, brokers, topic }) => std::fs::read(&body)
            .and_then(|body| match brokers.zip(topic) {
                Some((brokers, topic)) => durable::serve(port, body, &brokers, &topic),
                None => ceiling::serve(port, body),
            })
            .map_err(|source| Error::Io { what: "the ceiling".to_owned(), source }),
        Some(Act::Scale(size)) => scale::scale(size).map(|scale| println!("{scale}")),
        Some(Act::Dry) => Dry::measured(&arguments.run).map(|dry| println!("{dry}")),
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
    let kafka = KafkaCluster::start_for(Purpose::Measuring, 1)?;
    let redis = Redis::start()?;
    let key = OperatorKey::from_seed(&seed()?);
    let redis_at = redis.address();
    let house =
        House { site: &site, kafka: kafka.bootstrap(), replicas: 1, redis: redis_at, key: &key };
    let engines = [kafka.process(0), redis.process()].into_iter().flatten().collect();
    let quiet_left = Duration::from_secs(run.wait_for_quiet);
    let crowd = Crowd::new(&site, "orders", &Manner::default())?;
    let mut bench = Bench { run, site: &site, crowd, engines, quiet_left };
    let body = bench.rehearse(&house, &kafka)?;
    let ceiling = Ceiling::start(&site, &body)?;
    if run.guard {
        return bench.guard(&house, &ceiling);
    }
    let setting = setting(run);
    println!("{}\n", described(&setting));
    let mut kept = Map::from_iter([("setting".to_owned(), setting)]);
    for workload in BTreeSet::from_iter(run.only.iter().copied()) {
        let measured = bench.measure(workload, &house, &ceiling)?;
        kept.insert(format!("{workload:?}").to_lowercase(), measured);
    }
    let path = run.target.join("bench.json");
    let io = |source| Error::Io { what: path.display().to_string(), source };
    std::fs::write(&path, format!("{:#}\n", Value::Object(kept))).map_err(io)?;
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
            let definition = sale::definition("packing", Terms::of(shares));
            let definition = Definition::try_from(definition);
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
    body: String,
}

impl Ceiling {
    fn start(site: &Site, body: &str) -> Result<Self> {
        Self::with_log(site, body, None)
    }

    /// One that keeps what it is asked for on brokers, in a topic, if there are any.
    fn with_log(site: &Site, body: &str, log: Option<(&str, &str)>) -> Result<Self> {
        let io = |source| Error::Io { what: "this program's own path".to_owned(), source };
        let port = free_ports(1)?;
        let file = site.write("answer.json", body)?;
        let launch = site.launch("ceiling.log", &std::env::current_exe().map_err(io)?);
        let launch = launch.args(["--programs", ".", "ceiling", "--port", &port.to_string()]);
        let launch = launch.args(["--body".as_ref(), file.as_os_str()]);
        let launch = match log {
            Some((brokers, topic)) => launch.args(["--brokers", brokers, "--topic", topic]),
            None => launch,
        };
        let server = Running::start(launch)?;
        site.until("the ceiling", START_PATIENCE, "see ceiling.log", || {
            let there = std::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port));
            Ok(there.is_ok().then_some(()))
        })?;
        Ok(Self { server, port, body: body.to_owned() })
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

/// What nodes count: name and labels to value.
type Counted = BTreeMap<String, u64>;

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
    /// Sales that do not count, until the brokers' compilers have little left to do; what a real
    /// answer looks like.
    pub(crate) fn rehearse(&self, house: &House<'_>, kafka: &KafkaCluster) -> Result<String> {
        let brokers: Vec<ProcessId> =
            (0..kafka.site().brokers.len()).filter_map(|index| kafka.process(index)).collect();
        let mut body = String::new();
        for number in 1..=REHEARSALS_MAX {
            let name = format!("rehearsal-{}.{number}", house.replicas);
            let sale = house.open(&name, Terms::of(1))?;
            body = sale.buy_one()?;
            let (before, began) = (Threads::of_all(&brokers)?, Instant::now());
            self.buy(&name, &[(&self.crowd, sale.first().port)], REHEARSAL_SECONDS, Begin::First)?;
            let spent = Threads::of_all(&brokers)?.since(&before);
            let compiling = spent.threads.iter().filter(|(name, _)| name.contains(" Compiler"));
            let cores = compiling.map(|(_, micros)| micros).sum::<f64>()
                / began.elapsed().as_micros() as f64;
            sale.kill()?;
            house.judge(&name)?;
            println!("rehearsal {number}: the brokers' compilers use {cores:.2} cores");
            if cores <= COMPILING_CORES {
                break;
            }
        }
        Ok(body)
    }

    /// Measures, shows, and returns what is worth keeping.
    fn measure(
        &mut self,
        workload: Workload,
        house: &House<'_>,
        ceiling: &Ceiling,
    ) -> Result<Value> {
        Ok(match workload {
            Workload::Sales => {
                let pairs = self.pairs(house, ceiling, 0, &self.run.shares)?;
                let summary = Summary::of(&pairs);
                let orders: u64 = pairs.iter().map(|p| p.judged).sum();
                println!("\n{}", summary.shown());
                let ledgers = pairs.len();
                println!(
                    "The judge found nothing wrong in {orders} orders of {ledgers} ledgers.\n"
                );
                json!({"summary": summary, "rounds": pairs})
            }
            Workload::Durable => {
                let durable = [self.durable(house, ceiling)?];
                println!("{}", Compared::shown(&durable));
                json!(durable)
            }
            Workload::Answers => {
                let answers = self.answers(house)?;
                println!("{}", Compared::shown(&answers));
                json!(answers)
            }
            Workload::Variants => {
                let variants = self.variants(house, &ceiling.body)?;
                println!("{}", Compared::shown(&variants));
                json!(variants)
            }
            Workload::Forwarding => {
                let forwarding = self.forwarding(house)?;
                println!("{}", Compared::shown(&forwarding));
                json!(forwarding)
            }
            Workload::Arrivals => {
                let arrived = self.arrivals(house, ceiling)?;
                println!("\n{}", Arrived::shown(&arrived));
                json!(arrived)
            }
            Workload::Whole => {
                let whole = self.whole(house)?;
                println!("{whole}");
                json!(whole)
            }
            Workload::Yardsticks => {
                let (rounds, seconds) = (self.run.rounds, self.run.seconds);
                let yardsticks = yardsticks::yardsticks(self.site, rounds, seconds)?;
                println!("{}", yardsticks::shown(&yardsticks));
                json!(yardsticks)
            }
            Workload::Dry => {
                let dry = Dry::measured(self.run)?;
                println!("{dry}");
                json!(dry)
            }
        })
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
        let without = self.asked(&format!("{name}.ceiling"), &crowd, ceiling)?;
        let (node, judged) = self.sold(house, &name, Terms::of(shares), &[&crowd])?;
        node.only_sales(&name)?;
        Ok(Pair { round, shares, ceiling: without, node, judged })
    }

    /// The ceiling's turn.
    fn asked(&mut self, name: &str, crowd: &Crowd, ceiling: &Ceiling) -> Result<Shot> {
        self.window(name, &[ceiling.server.0], &[(crowd, ceiling.port)])
    }

    /// A sale's turn, with a crowd before each of its nodes, and how many orders the judge found
    /// in its ledger: at least those that were answered.
    fn sold(
        &mut self,
        house: &House<'_>,
        name: &str,
        terms: Terms,
        crowds: &[&Crowd],
    ) -> Result<(Shot, u64)> {
        let sale = house.open(name, terms)?;
        sale.buy_one()?;
        let (answered, shot) = self.sell(&sale, crowds)?;
        sale.kill()?;
        let judged = house.judge(name)?.orders;
        if judged < answered {
            let message = format!("{name}: {answered} orders were answered, {judged} are kept");
            return Err(Error::Refused(message));
        }
        Ok((shot, judged))
    }

    /// Warm-up and window of a sale; also how many of its orders were answered in both.
    fn sell(&mut self, sale: &Sale<'_>, crowds: &[&Crowd]) -> Result<(u64, Shot)> {
        let name = sale.name();
        let at: Vec<(&Crowd, u16)> =
            crowds.iter().zip(&sale.nodes).map(|(crowd, node)| (*crowd, node.port)).collect();
        self.buy(&format!("{name}.warm-up"), &at, WARM_UP_SECONDS, Begin::Last)?;
        let servers: Vec<ProcessId> = sale.nodes.iter().map(Node::id).collect();
        let before = counted(sale)?;
        let mut shot = self.window(name, &servers, &at)?;
        let after = counted(sale)?;
        shot.counted = since(&after, &before);
        shot.done = written(&shot.counted);
        Ok((written(&after), shot))
    }

    /// Crowds that buy at the same time, each before a port of its own.
    fn buy(
        &self,
        name: &str,
        crowds: &[(&Crowd, u16)],
        seconds: u32,
        begin: Begin,
    ) -> Result<Seen> {
        let start = |(crowd, port): &(&Crowd, u16)| {
            crowd.start(self.site, &format!("{name}.{port}.wrk.log"), *port, seconds, begin)
        };
        let buying: Vec<Buying> = crowds.iter().map(start).collect::<Result<_>>()?;
        let seen: Vec<Seen> =
            buying.into_iter().map(|b| b.seen(self.site)).collect::<Result<_>>()?;
        let all = seen.into_iter().reduce(|all, one| all.with(&one));
        all.ok_or_else(|| Error::Refused(format!("{name}: nobody buys")))
    }

    /// Load on servers for as long as was asked for.
    fn window(
        &mut self,
        name: &str,
        servers: &[ProcessId],
        crowds: &[(&Crowd, u16)],
    ) -> Result<Shot> {
        self.wait_for_quiet()?;
        let before = self.look(servers)?;
        let seen = self.buy(name, crowds, self.run.seconds, Begin::First)?;
        let after = self.look(servers)?;
        Ok(after.shot(&before, seen))
    }

    fn look(&self, servers: &[ProcessId]) -> Result<Look> {
        let own = ProcessId::of(i32::try_from(std::process::id()).unwrap_or(0));
        Ok(Look {
            at: Instant::now(),
            busy: cpu::busy()?,
            ended: cpu::ended_children()?,
            server: Threads::of_all(servers)?,
            resident: servers.iter().map(|s| cpu::resident(*s)).sum::<Result<_>>()?,
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

/// What all nodes of a sale have counted.
fn counted(sale: &Sale<'_>) -> Result<Counted> {
    let mut all = Counted::new();
    for node in &sale.nodes {
        for (name, count) in node.metrics()? {
            *all.entry(name).or_default() += count;
        }
    }
    Ok(all)
}

/// New orders, by the nodes' own words.
fn written(counted: &Counted) -> u64 {
    counted.get("answers_total{kind=\"written\"}").copied().unwrap_or(0)
}

fn since(after: &Counted, before: &Counted) -> Counted {
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
