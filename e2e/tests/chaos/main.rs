//! Chaos on real processes: a sale goes through many overlapping faults, and is judged.
//!
//! What is done is said by [`plan`]; [`faults`] does it. Three brokers with three replicas, of
//! which two must have a record; Redis; five nodes on three machines; two operators.

#[path = "../common/mod.rs"]
mod common;
mod faults;
mod plan;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::resale::{Gap, History, Kill, What};
use common::world::{Down, World};
use e2e::Shape;
use faults::{Executor, Made};
use plan::{CALM_MS, Deed, Dice, NOTHING, Plan, Size, TENTH, WHOLE, plan};
use serde_json::Value;

const BED: &str = "chaos";
const SALE: &str = "chaos";
const TOPIC: &str = "default.chaos";

/// Holds that are not paid really lapse in every storm.
const PAYMENT_S: u64 = 10;
/// After it every hold is over: payment, its grace, and 15 s since the last Claim.
const REST: Duration = Duration::from_secs(PAYMENT_S + 2 + 15 + 3);
/// The part of the wishes that a run that is sold out refuses.
const SPARE_PERCENT: u64 = 20;
/// So many that those who wait 6 s for a node that is stopped leave enough others.
const CONNECTIONS: &str = "300";
/// Free journeys that are really bought. More would take minutes and show no more.
const SAMPLE_MAX: usize = 1_000;
/// What is promised of a killed node's shares.
const RESALE_MS: u64 = 3_000;
/// Of so many kills the 95th percentile is judged, of fewer the median.
const P95_OF: usize = 20;

fn up(runs: &[usize]) -> World {
    let world = World::up(BED, &Shape { nodes: 3, brokers: 3 });
    // Two operators change places within a storm.
    world.install(&["leaderElection.leaseSeconds=8"]);
    world.cluster.apply(&sale(&world, runs)).expect("it is taken");
    world.ready(SALE, Duration::from_secs(120));
    world
}

/// A sale of runs of 19 legs, with so many coaches of 100 seats each.
fn sale(world: &World, runs: &[usize]) -> String {
    let mut yaml =
        "apiVersion: stationmaster.dev/v1alpha1\nkind: TrainSale\nmetadata: {name: chaos}\n\
                    spec:\n  currency: EUR\n  timetables:\n"
            .to_owned();
    for (at, coaches) in runs.iter().enumerate() {
        let _ = writeln!(yaml, "  - name: t{at}\n    stops:");
        for stop in 0..20 {
            let (hour, minute) = (6 + stop / 3, stop % 3 * 20);
            let arrives = format!("arrives: \"{hour:02}:{minute:02}\"");
            let departs = format!("departs: \"{hour:02}:{:02}\"", minute + 2);
            let times = match stop {
                0 => departs,
                19 => arrives,
                _ => format!("{arrives}, {departs}"),
            };
            let _ = writeln!(yaml, "    - {{code: T{stop:02}, {times}}}");
        }
        yaml += "    classes:\n    - {name: Second, fare: {type: Flat, amountMinor: 100}}\n";
        yaml += "    coaches:\n";
        for coach in 1..=*coaches {
            let _ = writeln!(
                yaml,
                "    - {{name: \"{coach:02}\", class: Second, seats: 100, rowLayout: ABC-DF}}"
            );
        }
    }
    yaml += "  runs:\n";
    for at in 0..runs.len() {
        let _ = writeln!(yaml, "  - {{train: C{at}, date: \"2027-02-01\", timetable: t{at}}}");
    }
    let (kafka, redis) = (world.bed.kafka_bootstrap(), world.bed.redis_address());
    let _ = write!(
        yaml,
        "  stock: {{shares: 10, bufferPercent: 20}}\n  \
         holds: {{paymentSeconds: {PAYMENT_S}, graceSeconds: 2}}\n  \
         limits: {{passengersPerOrder: 2}}\n  \
         fleet: {{replicas: 5, query: {{replicas: 1}}}}\n  \
         kafka: {{bootstrapServers: \"{kafka}\"}}\n  \
         redis: {{mode: Standalone, standalone: {{address: \"{redis}\"}}}}\n  \
         ledger: {{replicas: 3, minInSyncReplicas: 2}}\n"
    );
    yaml
}

/// A number that the Makefile passes on; an empty one is none.
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

#[test]
#[ignore = "needs root, what `cargo e2e install` installs, `make programs`, E2E=1 and half an hour"]
fn no_fault_makes_it_sell_twice_or_lose_or_strand() {
    let down = Down::first(BED);
    let size = if number("TENTH").is_some() { TENTH } else { WHOLE };
    let seed = number("SEED").unwrap_or(1);
    let plan = plan(&size, seed);
    println!("the plan of seed {seed}:");
    plan.faults.iter().for_each(|fault| println!("{fault}"));
    println!("{:7.1} s  the end", plan.ends_ms as f64 / 1_000.0);
    let world = up(size.runs);
    endure(&world, &size, &plan, seed);
    drop(down);
}

fn endure(world: &World, size: &Size, plan: &Plan, seed: u64) {
    let during = world.folder.join("during.jsonl");
    let seconds = plan.ends_ms.div_ceil(1_000);
    let per_second = (size.orders * (100 + SPARE_PERCENT) / 100).div_ceil(seconds);
    let crowd = world.crowd(SALE, &during, seed).seconds(seconds * 2);
    let crowd = crowd.args(["--connections", CONNECTIONS, "--pay", "10", "--cancel", "30"]);
    let crowd = crowd.args(["--party", "2", "--per-second", &per_second.to_string()]);
    let crowd = crowd.args(["--orders", &size.orders.to_string()]);
    let crowd = crowd.args(["--least-seconds", &seconds.to_string()]).start();
    let (made, failed) = Executor::new(world, SALE).run(plan);
    let bought = crowd.finish();
    println!("orders in each 10 s: {:?}", common::pace(&during));

    world.ready(SALE, Duration::from_secs(60));
    std::thread::sleep(REST);
    let mut verdict = Verdict::default();
    verdict.must(failed.is_empty(), || format!("faults could not be made:\n{}", failed.join("\n")));
    let orders = bought["orders"].as_u64().unwrap_or(0);
    verdict.must(orders >= size.orders, || format!("{orders} orders are too few"));
    let mut files = vec![during];
    let free = world.folder.join("free.jsonl");
    judge(world, &files, &free, &mut verdict);
    buy_what_is_free(world, &free, seed, &mut files, &mut verdict);
    let report = judge(world, &files, &free, &mut verdict);
    let unsold = std::fs::read_to_string(&free).expect("the checker wrote it");
    let unsold = unsold.lines().filter(|row| row.contains("\"C0/2027-02-01\"")).count();
    verdict
        .must(unsold == 0, || format!("{unsold} journeys of the run that was sold out are free"));
    resale(world, &made, &files, &mut verdict);
    summary(&made, orders, &report);
    verdict.speak();
}

/// All that is wrong is told at the end, since half an hour was spent on it.
#[derive(Default)]
struct Verdict(Vec<String>);

impl Verdict {
    fn must(&mut self, holds: bool, why: impl FnOnce() -> String) {
        if !holds {
            let why = why();
            println!("BROKEN: {why}");
            self.0.push(why);
        }
    }

    fn speak(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

/// The checker's figures over the raw ledger and all answers.
fn judge(world: &World, answers: &[PathBuf], free: &Path, verdict: &mut Verdict) -> Value {
    let mut checker = world.inside("checker");
    checker.args(["verify", &world.ledger(TOPIC), "--at-rest", "--json"]);
    checker.args(answers.iter().flat_map(|file| [Path::new("--answers"), file]));
    checker.arg("--free").arg(free);
    let output = checker.output().expect("the checker runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&said).unwrap_or(Value::Null);
    let erred = String::from_utf8_lossy(&output.stderr);
    assert!(report.is_object(), "the checker reads the ledger: {erred}");
    verdict.must(output.status.success() && report["holds"] == true, || {
        format!("the checker found {}", report["broken"])
    });
    report
}

/// Buys a seeded sample of the journeys that are free, and one run until nothing is left.
fn buy_what_is_free(
    world: &World,
    free: &Path,
    seed: u64,
    files: &mut Vec<PathBuf>,
    verdict: &mut Verdict,
) {
    let text = std::fs::read_to_string(free).expect("the checker wrote it");
    let mut rows: Vec<Value> =
        text.lines().map(|row| serde_json::from_str(row).expect("a row")).collect();
    let seats: u64 = rows.iter().filter_map(|row| row["seats"].as_u64()).sum();
    let all = rows.len();
    let mut dice = Dice::new(seed);
    rows.sort_by_cached_key(|_| dice.roll(0, u64::MAX >> 1));
    rows.truncate(SAMPLE_MAX);
    println!("free: {all} journeys, {seats} seats; bought and given back: {} of them", rows.len());
    let wanted = world.folder.join("wanted.jsonl");
    let one = |row: &mut Value| {
        row["seats"] = 1.into();
        format!("{row}\n")
    };
    std::fs::write(&wanted, rows.iter_mut().map(one).collect::<String>()).expect("it is written");
    let asked = world.folder.join("asked.jsonl");
    let crowd = world.crowd(SALE, &asked, seed + 1).wanted(&wanted).args(["--give-back"]);
    let (met, _) = crowd.start().end();
    verdict.must(met, || "journeys that are free cannot be bought".to_owned());
    let rest = world.folder.join("rest.jsonl");
    let crowd = world.crowd(SALE, &rest, seed + 2).args(["--run", "C0/2027-02-01"]);
    let crowd = crowd.args(["--pay", "100", "--cancel", "0", "--party", "1"]).seconds(120);
    let (_, sold) = crowd.start().end();
    verdict.must(sold["soldOut"] == true, || format!("a run is not sold out: {sold}"));
    files.extend([asked, rest]);
}

/// Kills that had no other fault near them, by the time at which they were really made; and the
/// others. On a busy machine a fault may be late.
fn kills(made: &[Made]) -> (Vec<Kill>, Vec<Kill>) {
    let (mut calm, mut others) = (Vec::new(), Vec::new());
    for (i, kill) in made.iter().enumerate() {
        let Deed::Kill { .. } = kill.fault.deed else { continue };
        let near = |(j, other): (usize, &Made)| {
            i != j && other.at <= kill.at + CALM_MS && kill.at <= other.ended + CALM_MS
        };
        let alone = !made.iter().enumerate().any(near);
        let kill = Kill { node: kill.target.clone(), at: kill.at };
        if alone { &mut calm } else { &mut others }.push(kill);
    }
    (calm, others)
}

/// Measures the calm kills, and explains each that took long.
fn resale(world: &World, made: &[Made], files: &[PathBuf], verdict: &mut Verdict) {
    let mut cat = world.inside("checker");
    cat.args(["cat", &world.ledger(TOPIC)]);
    let text = world.folder.join("ledger.txt");
    let history = History::read(cat, Some(&text));
    let mut times = Vec::new();
    let (calm, others) = kills(made);
    let due = made.iter().filter(|m| matches!(m.fault.deed, Deed::Kill { calm: true, .. })).count();
    verdict.must(calm.len() >= due, || format!("only {} of {due} were calm", calm.len()));
    for kill in calm {
        let gaps = history.gaps(&kill);
        let Some(last) = gaps.last() else {
            verdict.must(false, || format!("{} owned nothing when it was killed", kill.node));
            continue;
        };
        if last.sold_ms > RESALE_MS {
            explain(&kill, last);
        }
        times.push(last.sold_ms);
    }
    let (median, p95) = distribution("calm kills", &mut times);
    // The 95th percentile of a few kills is the slowest of them, and says little.
    let (what, judged) = if due >= P95_OF { ("p95", p95) } else { ("median", median) };
    verdict.must(judged <= RESALE_MS, || format!("{what} of resale is {judged} ms"));
    let mut stormy = Vec::new();
    for kill in others {
        let gaps = history.gaps(&kill);
        let Some(last) = gaps.last() else { continue };
        if last.sold_ms > RESALE_MS {
            explain(&kill, last);
            meanwhile(&kill, last.sold_ms, made);
        }
        stormy.push(last.sold_ms);
    }
    distribution("kills in storms (nothing is promised)", &mut stormy);
    if !verdict.0.is_empty() {
        keep(&text, files);
    }
}

/// Prints what else was broken until all shares of a killed node sold again.
fn meanwhile(kill: &Kill, sold_ms: u64, made: &[Made]) {
    let other = |m: &&Made| m.at < kill.at + sold_ms && m.ended >= kill.at && m.target != kill.node;
    for other in made.iter().filter(other) {
        println!("    meanwhile{}: {}", other.fault, other.target);
    }
}

/// Keeps what a broken promise can be understood by, since the bed goes.
fn keep(ledger: &Path, answers: &[PathBuf]) {
    let programs = std::env::var_os("E2E_PROGRAMS").expect("it was needed before");
    let folder = Path::new(&programs).join("../tmp/chaos");
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    for file in answers.iter().map(PathBuf::as_path).chain([ledger]) {
        let name = file.file_name().expect("a file");
        std::fs::copy(file, folder.join(name)).expect("it can be kept");
    }
    println!("the ledger's text and all answers are kept in {}", folder.display());
}

/// Prints it, and gives back the median and the 95th percentile.
fn distribution(of: &str, times: &mut [u64]) -> (u64, u64) {
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() * percent).div_ceil(100).max(1) - 1).copied();
    let [median, p95] = [50, 95].map(|percent| at(percent).unwrap_or(u64::MAX));
    let seconds = |ms: Option<u64>| ms.map_or(f64::INFINITY, |ms| ms as f64 / 1_000.0);
    println!(
        "seconds until all shares of a killed node sold again, {} {of}: min {:.3}, median {:.3}, \
         p95 {:.3}, max {:.3}",
        times.len(),
        seconds(at(0)),
        seconds(at(50)),
        seconds(at(95)),
        seconds(at(100)),
    );
    (median, p95)
}

/// What the share's log says between a kill and the next sale.
fn explain(kill: &Kill, gap: &Gap<'_>) {
    println!(
        "{} was killed at {}; share {} was claimed after {} ms and sold from after {} ms:",
        kill.node, kill.at, gap.share, gap.claimed_ms, gap.sold_ms
    );
    for event in gap.meanwhile {
        let what = match &event.what {
            What::Claim { node, epoch } => format!("Claim of epoch {epoch} by {node}"),
            What::Yield => "Yield".to_owned(),
            What::Sold => "an order".to_owned(),
        };
        println!("  +{} ms: {what}", event.now - kill.at);
    }
}

fn summary(made: &[Made], orders: u64, report: &Value) {
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    made.iter().for_each(|made| *kinds.entry(made.fault.deed.kind()).or_default() += 1);
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    println!("faults: {}", kinds.join(", "));
    let figure = |name: &str| report["figures"][name].as_i64().unwrap_or(-1);
    println!(
        "calm is {} s without another fault; holds that lapsed: {}, cancelled: {}, epochs: {}",
        CALM_MS / 1_000,
        figure("orders.expired"),
        figure("orders.cancelled") + figure("orders.refunded"),
        figure("epochs"),
    );
    println!(
        "orders {orders}, double-sold {}, lost {}, stranded {}",
        figure("seat-legs.sold-twice"),
        figure("answers.confirmed-missing"),
        figure("seat-legs.stranded"),
    );
}

/// How many kills are measured with all those orders.
const LATE_KILLS: u64 = 3;
/// How long filling the ledger may take: 700 a second, a fraction of what two cores do.
const FILLING_S: u64 = 1_500;

#[test]
#[ignore = "needs root, what `cargo e2e install` installs, `make programs`, E2E=1 and half an hour"]
fn a_node_killed_with_a_million_orders_is_soon_replaced() {
    let down = Down::first(BED);
    let world = up(WHOLE.runs);
    let orders = number("ORDERS").unwrap_or(1_000_000);
    memory(&world, "at first");
    // Most are given back at once, so that the seats last however quick the fleet is.
    let filled = world.folder.join("filled.jsonl");
    let crowd = world.crowd(SALE, &filled, 1).seconds(FILLING_S);
    let crowd = crowd.args(["--connections", "200", "--orders", &orders.to_string()]);
    let crowd = crowd.args(["--pay", "0", "--cancel", "70", "--party", "1"]);
    let bought = crowd.start().finish();
    let mut verdict = Verdict::default();
    verdict.must(bought["orders"].as_u64() >= Some(orders), || format!("too few: {bought}"));
    memory(&world, "with all orders");
    let (made, during) = kill_some(&world, &mut verdict);
    memory(&world, "after the kills");
    std::thread::sleep(REST);
    let files = [filled, during];
    let report = judge(&world, &files, &world.folder.join("free.jsonl"), &mut verdict);
    resale(&world, &made, &files, &mut verdict);
    let orders = report["figures"]["orders"].as_u64().unwrap_or(0);
    summary(&made, orders, &report);
    verdict.speak();
    drop(down);
}

/// Calm kills, while a crowd of the usual size buys.
fn kill_some(world: &World, verdict: &mut Verdict) -> (Vec<Made>, PathBuf) {
    let size = Size { calm_kills: LATE_KILLS, ..NOTHING };
    let plan = plan(&size, 1);
    let during = world.folder.join("during.jsonl");
    let crowd = world.crowd(SALE, &during, 2).seconds(plan.ends_ms.div_ceil(1_000));
    let crowd = crowd.args(["--connections", "100", "--per-second", "200", "--cancel", "30"]);
    let crowd = crowd.start();
    let (made, failed) = Executor::new(world, SALE).run(&plan);
    verdict.must(failed.is_empty(), || format!("faults could not be made:\n{}", failed.join("\n")));
    crowd.finish();
    (made, during)
}

/// The resident memory of every selling node.
fn memory(world: &World, when: &str) {
    let of = |pod: &String| {
        let container = world.bed.container("default", pod, None).ok()?;
        let texts = container.processes().into_iter();
        let texts =
            texts.filter_map(|p| std::fs::read_to_string(format!("/proc/{}/status", p.pid)).ok());
        let kib = |text: String| {
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().to_owned();
            line.split(' ').next()?.parse::<u64>().ok()
        };
        Some(texts.filter_map(kib).sum::<u64>() / 1_024)
    };
    let mib: Vec<u64> = world.sellers(SALE).iter().filter_map(of).collect();
    println!("memory of each selling node {when}: {mib:?} MiB");
}
