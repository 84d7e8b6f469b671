//! A bed with our images and chart on it, and what tests do with that.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use e2e::error::output_of;
use e2e::process::{Signal, is_root, until};
use e2e::{Bed, Cluster, Image, Shape};
use serde_json::Value;

use super::{Crowd, judge_by, program};

/// Takes the bed down however the test ends, unless `E2E_KEEP` is set.
pub struct Down(&'static str);

impl Down {
    /// Clears away what an earlier run left. Panics where a test may not have a bed.
    pub fn first(bed: &'static str) -> Self {
        assert!(std::env::var_os("E2E").is_some(), "set E2E=1 to allow it namespaces and groups");
        assert!(is_root(), "run it as root");
        Bed::down(bed).expect("what an earlier run left is removed");
        Self(bed)
    }
}

impl Drop for Down {
    fn drop(&mut self) {
        if std::env::var_os("E2E_KEEP").is_some() {
            return;
        }
        if let Err(error) = Bed::down(self.0) {
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

/// The bed, and where a test keeps what it writes.
pub struct World {
    pub bed: Bed,
    pub cluster: Cluster,
    pub folder: PathBuf,
}

impl World {
    /// Brings up a bed of this shape, with the images of `make programs` on every node.
    pub fn up(name: &'static str, shape: &Shape) -> Self {
        let bed = Bed::up(name, shape, &mut |line| println!("  {line}")).expect("it comes up");
        for name in ["node", "operator"] {
            let image = Image::new(&format!("stationmaster/{name}:e2e"), &[program(name)]);
            bed.load_image(&image.expect("a good name")).expect("every node takes the image");
        }
        let cluster = Cluster::open(name, None).expect("it is up");
        let folder = bed.folder().join("sale");
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        Self { bed, cluster, folder }
    }

    /// Installs the chart, with these values besides.
    pub fn install(&self, values: &[&str]) {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/stationmaster");
        let mut helm = self.cluster.helm();
        helm.args(["install", "stationmaster"]).arg(chart);
        helm.args(["--namespace", "stationmaster", "--create-namespace", "--wait"]);
        helm.args(["--set", "image.repository=stationmaster/operator,image.tag=e2e"]);
        helm.args(["--set", "nodeImage.repository=stationmaster/node,nodeImage.tag=e2e"]);
        helm.args(["--set", "deletionProtection.enabled=false", "--timeout", "120s"]);
        helm.args(values.iter().flat_map(|value| ["--set", value]));
        println!("{}", output_of(&mut helm).expect("helm installs"));
        self.cluster.apply(&engines(&self.bed)).expect("engines have names");
    }

    pub fn kubectl(&self, words: &[&str]) -> String {
        output_of(self.cluster.kubectl().args(words)).expect("kubectl succeeds")
    }

    /// Waits for Ready, and says what is wrong if it does not come.
    pub fn ready(&self, sale: &str, patience: Duration) {
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
    pub fn accepted(&self, sale: &str, status: &str, field: &str) {
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

    pub fn service(&self, name: &str) -> String {
        let what = "jsonpath={.spec.clusterIP}";
        format!("http://{}:80", self.kubectl(&["get", "service", name, "-o", what]).trim())
    }

    /// A crowd inside the cluster's namespace.
    pub fn crowd(&self, sale: &str, answers: &Path, seed: u64) -> Crowd {
        Crowd::by(self.inside("buyers"), &[self.service(sale)], answers, seed)
    }

    pub fn inside(&self, name: &str) -> Command {
        self.bed.command_in("cluster", &program(name)).expect("there is such a place")
    }

    /// Where the checker finds a sale's ledger.
    pub fn ledger(&self, topic: &str) -> String {
        format!("kafka:{}/{topic}", self.bed.kafka_bootstrap())
    }

    pub fn judge(&self, topic: &str, answers: &[&Path], free: Option<&Path>) {
        judge_by(self.inside("checker"), &self.ledger(topic), answers, free);
    }

    /// Sell pods of a sale whose node runs and has not been told to end, by their names.
    pub fn sellers(&self, sale: &str) -> Vec<String> {
        let seen = self.json(&["get", "pods"]);
        self.that_run(sellers(&seen, sale))
    }

    /// Settle pods of a sale that run and have not been told to end.
    pub fn settlers(&self, sale: &str) -> Vec<String> {
        let seen = self.json(&["get", "pods"]);
        self.that_run(pods(&seen, sale, "settle"))
    }

    /// Those of its sellers that own shares.
    pub fn owners(&self, sale: &str) -> Vec<String> {
        let seen = self.json(&["get", "pods,trainsales"]);
        self.that_run(owners(&seen, sale))
    }

    /// A pod says that it runs between two lives of its node too.
    fn that_run(&self, pods: Vec<(&str, &Value)>) -> Vec<String> {
        let runs = |pod: &Value| self.bed.container_of(pod, None).is_ok();
        let pods = pods.into_iter().filter(|(_, pod)| runs(pod));
        pods.map(|(name, _)| name.to_owned()).collect()
    }

    pub fn json(&self, words: &[&str]) -> Value {
        let said = self.kubectl(&[words, &["-o", "json"]].concat());
        serde_json::from_str(&said).expect("kubectl says JSON")
    }

    pub fn signal(&self, pod: &str, signal: Signal) -> Instant {
        let container = self.bed.container("default", pod, None).expect("the pod runs");
        container.signal(signal).expect("it can be signalled")
    }
}

/// The same, with their JSON, of a list.
pub fn sellers<'a>(list: &'a Value, sale: &str) -> Vec<(&'a str, &'a Value)> {
    pods(list, sale, "sell")
}

fn pods<'a>(list: &'a Value, sale: &str, role: &str) -> Vec<(&'a str, &'a Value)> {
    let stays = |pod: &&Value| {
        let labels = &pod["metadata"]["labels"];
        let state = &pod["status"]["containerStatuses"][0]["state"];
        labels["stationmaster.dev/sale"] == sale
            && labels["stationmaster.dev/role"] == role
            && pod["metadata"]["deletionTimestamp"].is_null()
            && state["running"].is_object()
    };
    let pods = list["items"].as_array().into_iter().flatten().filter(stays);
    let name = |pod: &'a Value| Some((pod["metadata"]["name"].as_str()?, pod));
    let mut pods: Vec<_> = pods.filter_map(name).collect();
    pods.sort_unstable_by_key(|(name, _)| *name);
    pods
}

/// Those of them that own shares, as the operator sees them.
pub fn owners<'a>(list: &'a Value, sale: &str) -> Vec<(&'a str, &'a Value)> {
    let all = list["items"].as_array().into_iter().flatten();
    let nodes = all.filter_map(|item| item["status"]["nodes"].as_array()).flatten();
    let owners = nodes.filter(|node| node["shares"].as_u64() > Some(0));
    let owners: Vec<&str> = owners.filter_map(|node| node["name"].as_str()).collect();
    let mut pods = sellers(list, sale);
    pods.retain(|(name, _)| owners.contains(name));
    pods
}

/// Milliseconds since 1970, as nodes and buyers count.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("before the year 500,000,000")
}
