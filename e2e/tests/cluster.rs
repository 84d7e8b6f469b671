//! A whole sale through all the real parts: Kubernetes, Kafka, Redis, Helm, the operator.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{Crowd, judge_by, program};
use e2e::error::output_of;
use e2e::process::{Signal, is_root, until};
use e2e::{Bed, Cluster, Image, Shape};
use serde_json::Value;

const BED: &str = "saletest";

/// Takes the bed down however the test ends, and keeps its logs where it failed.
struct Down;

impl Drop for Down {
    fn drop(&mut self) {
        if std::env::var_os("E2E_KEEP").is_some() {
            return;
        }
        if let Err(error) = Bed::down(BED) {
            eprintln!("the bed stays: {error}");
        }
    }
}

/// Services by the names that the examples use, for engines outside the cluster.
fn engines(bed: &Bed) -> String {
    let one = |name: &str, address: &str| {
        let (host, port) = address.split_once(':').expect("host:port");
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
             spec: {{ports: [{{port: {port}}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  \
             name: {name}-1\n  namespace: default\n  labels: {{kubernetes.io/service-name: {name}}}\n\
             addressType: IPv4\nports: [{{port: {port}}}]\nendpoints: [{{addresses: [{host}]}}]\n"
        )
    };
    let kafka = bed.kafka_bootstrap();
    let first = kafka.split(',').next().expect("a broker");
    format!("{}---\n{}", one("kafka", first), one("redis", &bed.redis_address()))
}

struct World {
    bed: Bed,
    cluster: Cluster,
    folder: PathBuf,
}

impl World {
    fn up() -> Self {
        let shape = Shape { nodes: 2, brokers: 1 };
        let bed = Bed::up(BED, &shape, &mut |line| println!("  {line}")).expect("it comes up");
        for name in ["node", "operator"] {
            let image = Image::new(&format!("stationmaster/{name}:e2e"), &[program(name)]);
            bed.load_image(&image.expect("a good name")).expect("every node takes the image");
        }
        let cluster = Cluster::open(BED, None).expect("it is up");
        let folder = bed.folder().join("sale");
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        Self { bed, cluster, folder }
    }

    fn install(&self) {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/stationmaster");
        let mut helm = self.cluster.helm();
        helm.args(["install", "stationmaster"]).arg(chart);
        helm.args(["--namespace", "stationmaster", "--create-namespace", "--wait"]);
        helm.args(["--set", "image.repository=stationmaster/operator,image.tag=e2e"]);
        helm.args(["--set", "nodeImage.repository=stationmaster/node,nodeImage.tag=e2e"]);
        helm.args(["--set", "deletionProtection.enabled=false", "--timeout", "120s"]);
        println!("{}", output_of(&mut helm).expect("helm installs"));
        self.cluster.apply(&engines(&self.bed)).expect("engines have names");
    }

    fn kubectl(&self, words: &[&str]) -> String {
        output_of(self.cluster.kubectl().args(words)).expect("kubectl succeeds")
    }

    /// Waits for Ready, and says what is wrong if it does not come.
    fn ready(&self, sale: &str, patience: Duration) {
        let begun = Instant::now();
        let mut wait = self.cluster.kubectl();
        wait.args(["wait", "--for=condition=Ready", &format!("trainsale/{sale}")]);
        wait.arg(format!("--timeout={}s", patience.as_secs()));
        if let Err(error) = output_of(&mut wait) {
            println!("{}", self.kubectl(&["get", "trainsale", sale, "-o", "yaml"]));
            println!("{}", self.kubectl(&["get", "pods", "-A", "-o", "wide"]));
            println!("{}", self.kubectl(&["get", "events", "-A", "--sort-by=.lastTimestamp"]));
            panic!("{sale} is not Ready: {error}");
        }
        println!("{sale} was Ready after {:.1} s", begun.elapsed().as_secs_f64());
    }

    /// Waits until the condition Accepted of a sale has this status and names this field.
    fn accepted(&self, sale: &str, status: &str, field: &str) {
        let what = "jsonpath={.metadata.generation} \
                    {range .status.conditions[?(@.type==\"Accepted\")]}\
                    {.observedGeneration} {.status} {.message}{end}";
        until("the condition", Duration::from_secs(15), "see the operator's log", || {
            let said = self.kubectl(&["get", "trainsale", sale, "-o", what]);
            let words: Vec<&str> = said.splitn(4, ' ').collect();
            let [now, seen, is, message] = words[..] else { return Ok(None) };
            Ok((now == seen && is == status && message.contains(field)).then_some(()))
        })
        .expect("the condition names the field");
    }

    fn service(&self, name: &str) -> String {
        let what = "jsonpath={.spec.clusterIP}";
        format!("http://{}:80", self.kubectl(&["get", "service", name, "-o", what]).trim())
    }

    /// A crowd inside the cluster's namespace.
    fn crowd(&self, sale: &str, answers: &Path, seed: u64) -> Crowd {
        let inside = self.inside("buyers");
        Crowd::by(inside, &[self.service(sale)], answers, seed)
    }

    fn inside(&self, name: &str) -> Command {
        self.bed.command_in("cluster", &program(name)).expect("there is such a place")
    }

    fn judge(&self, topic: &str, answers: &[&Path], free: Option<&Path>) {
        let kafka = self.bed.kafka_bootstrap();
        judge_by(self.inside("checker"), &format!("kafka:{kafka}/{topic}"), answers, free);
    }

    /// Sell pods of a sale whose node runs: a pod says "Running" between two lives of it too.
    fn sellers(&self, sale: &str) -> Vec<String> {
        let label = format!("stationmaster.dev/sale={sale},stationmaster.dev/role=sell");
        let what = "jsonpath={range .items[?(@.status.phase==\"Running\")]}{.metadata.name} {end}";
        let pods = self.kubectl(&["get", "pods", "-l", &label, "-o", what]);
        let runs = |pod: &&str| self.bed.container("default", pod, None).is_ok();
        pods.split_whitespace().filter(runs).map(str::to_owned).collect()
    }

    fn signal(&self, pod: &str, signal: Signal) -> Instant {
        let container = self.bed.container("default", pod, None).expect("the pod runs");
        container.signal(signal).expect("it can be signalled")
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("before the year 500,000,000")
}

/// A node that was killed.
struct Kill {
    node: String,
    at: u64,
}

/// What a line of the checker's `cat` says of a share.
struct Line<'a> {
    share: u16,
    now: u64,
    /// The node, if it is a Claim.
    claims: Option<&'a str>,
    sells: bool,
}

fn line(text: &str) -> Option<Line<'_>> {
    let (verdict, rest) = text.split_once(" | ")?;
    let (head, entries) = rest.split_once(" | ")?;
    let share = verdict.strip_suffix(" accepted")?.split('@').next()?.parse().ok()?;
    let now = head.split(' ').skip_while(|w| *w != "now").nth(1)?.parse().ok()?;
    let claims = entries.strip_prefix("Claim \"").and_then(|rest| rest.split('"').next());
    let sells = entries.split(" | ").any(|e| e.starts_with("Held ") || e.starts_with("Sent "));
    Some(Line { share, now, claims, sells })
}

/// For each kill, how long until another order was taken in every share that the killed node
/// owned: seconds, by the ledger.
fn resale(ledger: &str, kills: &[Kill]) -> Vec<f64> {
    let lines: Vec<Line<'_>> = ledger.lines().filter_map(line).filter(|l| l.share > 0).collect();
    let again = |kill: &Kill| {
        let mut owned: BTreeMap<u16, &str> = BTreeMap::new();
        for (share, node) in lines.iter().filter(|l| l.now < kill.at).filter_map(claim) {
            owned.insert(share, node);
        }
        owned.retain(|_, node| *node == kill.node);
        assert!(!owned.is_empty(), "{} owned shares when it was killed", kill.node);
        let mut latest = 0;
        for share in owned.keys() {
            let mut after = lines.iter().filter(|l| l.share == *share && l.now >= kill.at);
            // What it took in its last instant is not yet the work of the next owner.
            after.by_ref().find(|l| l.claims.is_some()).expect("the share was claimed again");
            let sale = after.find(|l| l.sells).expect("the share was sold from again");
            latest = latest.max(sale.now - kill.at);
        }
        latest as f64 / 1_000.0
    };
    kills.iter().map(again).collect()
}

fn claim<'a>(line: &Line<'a>) -> Option<(u16, &'a str)> {
    Some((line.share, line.claims?))
}

/// Orders taken in each 10 s of a sale.
fn pace(answers: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(answers).expect("the crowd wrote it");
    let lines = text.lines().map(|l| serde_json::from_str::<Value>(l).expect("a line of JSON"));
    let held = |l: &Value| l["op"] == "place" && l["problem"].is_null();
    let times: Vec<u64> = lines.filter(held).filter_map(|l| l["at"].as_u64()).collect();
    let Some(first) = times.iter().min() else { return Vec::new() };
    let mut pace = Vec::new();
    for at in &times {
        let slot = usize::try_from((at - first) / 10_000).expect("minutes");
        pace.resize(pace.len().max(slot + 1), 0);
        pace[slot] += 1;
    }
    pace
}

/// What buyers heard between two times, and how often.
fn heard(answers: &Path, from: u64, until: u64) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(answers).expect("the crowd wrote it");
    let mut words = BTreeMap::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        let at = line["at"].as_u64().expect("a time");
        if line["op"] == "place" && (from..until).contains(&at) {
            let word = line["problem"].as_str().unwrap_or("held").to_owned();
            *words.entry(word).or_default() += 1;
        }
    }
    words
}

#[test]
#[ignore = "needs root, what `cargo e2e install` installs, `make programs`, E2E=1 and ten minutes"]
fn a_sale_goes_through_all_the_real_parts() {
    assert!(std::env::var_os("E2E").is_some(), "set E2E=1 to allow it namespaces and groups");
    assert!(is_root(), "run it as root");
    Bed::down(BED).expect("what an earlier run left is removed");
    let down = Down;
    let world = World::up();
    world.install();
    the_smallest_sale_is_ready_and_sells(&world);
    a_wrong_sale_says_which_field(&world);
    a_long_sale_is_sold_out_once_through_faults(&world);
    drop(down);
}

fn the_smallest_sale_is_ready_and_sells(world: &World) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/minimal.yaml");
    let path = root.to_str().expect("a path in UTF-8");
    world.kubectl(&["apply", "-f", path]);
    world.ready("demo", Duration::from_secs(90));
    let answers = world.folder.join("demo.jsonl");
    let bought = world.crowd("demo", &answers, 1).args(["--orders", "5"]).run();
    assert!(bought["orders"].as_u64() >= Some(5), "{bought}");
    println!("{}", world.kubectl(&["get", "trainsales"]));
    world.judge("default.demo", &[&answers], None);
    world.kubectl(&["delete", "trainsale", "demo", "--timeout=60s"]);
}

fn a_wrong_sale_says_which_field(world: &World) {
    let good = include_str!("sales/long.yaml");
    let unknown = good.replace("timetable: long}", "timetable: short}");
    let refused = world.cluster.apply(&unknown).expect_err("CEL refuses it").to_string();
    assert!(refused.contains("timetable"), "{refused}");
    // What CEL cannot say is said by the operator: times out of order.
    let late = out_of_order(good).replace("name: long\nspec", "name: late\nspec");
    world.cluster.apply(&late).expect("the API server cannot see it");
    world.accepted("late", "False", "stops[1].arrives");
    world.kubectl(&["delete", "trainsale", "late", "--timeout=60s"]);
}

fn out_of_order(sale: &str) -> String {
    sale.replace("arrives: \"06:20\"", "arrives: \"05:20\"")
}

/// Neither a change that the API server refuses nor one that only the operator can refuse
/// disturbs the fleet, and the right sale applied again is accepted again.
fn a_wrong_change_is_refused_in_mid_sale(world: &World) {
    let good = include_str!("sales/long.yaml");
    let before = world.sellers("long");
    let renamed = good.replace("code: T05", "code: T55");
    let refused = world.cluster.apply(&renamed).expect_err("CEL refuses it").to_string();
    assert!(refused.contains("spec.timetables[0].stops"), "{refused}");
    world.cluster.apply(&out_of_order(good)).expect("the API server cannot see it");
    world.accepted("long", "False", "stops[1].arrives");
    let other = good.replace("train: L1", "train: L2");
    world.cluster.apply(&other).expect("the API server cannot see it");
    world.accepted("long", "False", "spec.runs");
    world.cluster.apply(good).expect("it is taken");
    world.accepted("long", "True", "");
    assert_eq!(world.sellers("long"), before, "the fleet is as it was");
}

fn a_long_sale_is_sold_out_once_through_faults(world: &World) {
    world.cluster.apply(include_str!("sales/long.yaml")).expect("it is taken");
    world.ready("long", Duration::from_secs(90));
    let first = world.folder.join("first.jsonl");
    // So slow that every fault falls into the sale, however fast this machine is.
    let crowd = world.crowd("long", &first, 7).args(["--party", "1", "--think-ms", "1000"]);
    let mut crowd = crowd.args(["--orders", "4600"]).start();
    pause(2);
    a_wrong_change_is_refused_in_mid_sale(world);
    let kills = nodes_are_killed(world);
    a_node_and_redis_stop(world);
    let away = kafka_stops(world);
    world.bed.cut("node-2").expect("it has a cable");
    pause(20);
    world.bed.join("node-2").expect("it has a cable");
    assert!(crowd.is_under_way(), "every fault falls into the sale");
    crowd.finish();
    println!("orders in each 10 s: {:?}", pace(&first));

    // In the last second before it stops Kafka may have taken what is answered after it.
    let meanwhile = heard(&first, away.stopped + 1_000, away.started);
    println!("while Kafka was stopped buyers heard: {meanwhile:?}");
    assert!(!meanwhile.contains_key("sold-out") && !meanwhile.contains_key("held"));
    assert!(meanwhile.contains_key("busy") || meanwhile.contains_key("unknown"));
    let after = heard(&first, away.back, away.back + 15_000);
    println!("in the 15 s after that: {after:?}");
    assert!(after.contains_key("held"), "the sale goes on");

    // Each journey that the checker finds free is really sold to one who asks.
    let free = world.folder.join("free.jsonl");
    world.judge("default.long", &[&first], Some(&free));
    let asked = world.folder.join("asked.jsonl");
    let wanted = world.crowd("long", &asked, 8).wanted(&free).args(["--give-back"]).run();
    println!("journeys that were free by the checker, all bought: {}", wanted["orders"]);

    let rest = world.folder.join("rest.jsonl");
    let sold = world.crowd("long", &rest, 9).args(["--party", "1"]).run();
    assert_eq!(sold["soldOut"], true, "{sold}");
    world.judge("default.long", &[&first, &asked, &rest], None);

    let mut cat = world.inside("checker");
    cat.args(["cat", &format!("kafka:{}/default.long", world.bed.kafka_bootstrap())]);
    let mut times = resale(&output_of(&mut cat).expect("the checker reads it"), &kills);
    times.sort_by(f64::total_cmp);
    println!("seconds from SIGKILL until all of those shares sold again: {times:?}");
    assert!(times[times.len() / 2] <= 3.0, "the median of five is at most 3 s");
}

fn pause(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

fn nodes_are_killed(world: &World) -> Vec<Kill> {
    let mut kills = Vec::new();
    for at in 0..common::KILLS {
        let pods = world.sellers("long");
        let node = pods[at % pods.len()].clone();
        world.signal(&node, Signal::KILL);
        kills.push(Kill { node, at: now_ms() });
        pause(8);
    }
    kills
}

fn a_node_and_redis_stop(world: &World) {
    let pods = world.sellers("long");
    world.signal(&pods[0], Signal::STOP);
    let mut redis = world.bed.redis().expect("it runs");
    redis.flush().expect("it can be flushed");
    pause(5);
    redis.kill().expect("it can be killed");
    pause(15);
    // The pod may have been replaced meanwhile; then there is nobody to wake.
    if let Ok(container) = world.bed.container("default", &pods[0], None) {
        container.signal(Signal::CONT).expect("it can be signalled");
    }
    redis.start_again().expect("it starts again");
}

/// How Kafka was away.
struct Away {
    stopped: u64,
    /// When it began to start.
    started: u64,
    /// When it answered again.
    back: u64,
}

fn kafka_stops(world: &World) -> Away {
    let mut kafka = world.bed.kafka().expect("it runs");
    kafka.stop_all().expect("it can be stopped");
    let stopped = now_ms();
    pause(20);
    let started = now_ms();
    kafka.start_all().expect("it starts again");
    let back = now_ms();
    println!("Kafka was away for {:.1} s", (back - stopped) as f64 / 1_000.0);
    pause(15);
    Away { stopped, started, back }
}
