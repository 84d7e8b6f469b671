//! A whole sale through all the real parts: Kubernetes, Kafka, Redis, Helm, the operator.

mod common;

use std::collections::{BTreeMap, BTreeSet};
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

    /// Running sell pods of a sale.
    fn sellers(&self, sale: &str) -> Vec<String> {
        let label = format!("stationmaster.dev/sale={sale},stationmaster.dev/role=sell");
        let what = "jsonpath={range .items[?(@.status.phase==\"Running\")]}{.metadata.name} {end}";
        let pods = self.kubectl(&["get", "pods", "-l", &label, "-o", what]);
        pods.split_whitespace().map(str::to_owned).collect()
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

/// For each kill, how long until orders were confirmed again in all of the shares that had a
/// later epoch afterwards, by the answers of buyers.
fn resale(answers: &Path, kills: &[u64]) -> Vec<f64> {
    let text = std::fs::read_to_string(answers).expect("the crowd wrote it");
    let mut sold: Vec<(u64, u16, u32)> = Vec::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        let Some(id) = line["order"].as_str().filter(|_| line["op"] == "place") else { continue };
        let mut parts = id.split('-');
        let mut next = || parts.next().and_then(|p| p.parse::<u32>().ok()).expect("an order id");
        let (share, epoch) = (next(), next());
        sold.push((
            line["at"].as_u64().expect("a time"),
            u16::try_from(share).expect("a share"),
            epoch,
        ));
    }
    sold.sort_unstable();
    let mut times = Vec::new();
    for (i, kill) in kills.iter().enumerate() {
        let until = kills.get(i + 1).copied().unwrap_or(u64::MAX);
        let before: BTreeMap<u16, u32> =
            sold.iter().filter(|s| s.0 < *kill).map(|s| (s.1, s.2)).collect();
        let mut again: BTreeMap<u16, u64> = BTreeMap::new();
        for (at, share, epoch) in sold.iter().filter(|s| s.0 >= *kill && s.0 < until) {
            if before.get(share).is_some_and(|old| epoch > old) {
                again.entry(*share).or_insert(*at);
            }
        }
        if let Some(last) = again.values().max() {
            times.push((last - kill) as f64 / 1_000.0);
        }
    }
    times
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
    let late = good.replace("arrives: \"06:20\"", "arrives: \"05:20\"");
    let late = late.replace("name: long\nspec", "name: late\nspec");
    world.cluster.apply(&late).expect("the API server cannot see it");
    let what = "jsonpath={.status.conditions[?(@.type==\"Accepted\")].message}";
    until("the condition", Duration::from_secs(15), "see the operator's log", || {
        let said = world.kubectl(&["get", "trainsale", "late", "-o", what]);
        Ok(said.contains("stops[1].arrives").then_some(()))
    })
    .expect("the condition names the field");
    world.kubectl(&["delete", "trainsale", "late", "--timeout=60s"]);
}

fn a_long_sale_is_sold_out_once_through_faults(world: &World) {
    world.cluster.apply(include_str!("sales/long.yaml")).expect("it is taken");
    world.ready("long", Duration::from_secs(90));
    let answers = world.folder.join("long.jsonl");
    // Slow enough that every fault falls into the sale, whatever this machine does.
    let crowd = world.crowd("long", &answers, 7).args(["--party", "1", "--think-ms", "600"]);
    let crowd = crowd.start();
    let mut kills = Vec::new();
    let pause = |seconds| std::thread::sleep(Duration::from_secs(seconds));
    pause(2);
    for _ in 0..common::KILLS {
        let pods = world.sellers("long");
        world.signal(&pods[kills.len() % pods.len()], Signal::KILL);
        kills.push(now_ms());
        pause(12);
    }
    let pods = world.sellers("long");
    world.signal(&pods[0], Signal::STOP);
    world.bed.redis().expect("it runs").flush().expect("it can be flushed");
    pause(20);
    // The pod may have been replaced meanwhile; then there is nobody to wake.
    if let Ok(container) = world.bed.container("default", &pods[0], None) {
        container.signal(Signal::CONT).expect("it can be signalled");
    }
    world.bed.cut("node-2").expect("it has a cable");
    pause(20);
    world.bed.join("node-2").expect("it has a cable");
    let sold = crowd.finish();
    assert_eq!(sold["soldOut"], true, "{sold}");
    let mut times = resale(&answers, &kills);
    times.sort_by(f64::total_cmp);
    println!("seconds from SIGKILL until those shares sold again: {times:?}");
    world.judge("default.long", &[&answers], None);
    let words: BTreeSet<String> = sold["answers"]
        .as_object()
        .expect("counts")
        .keys()
        .filter_map(|k| k.strip_prefix("place ").map(str::to_owned))
        .collect();
    println!("buyers heard: {words:?}");
}
