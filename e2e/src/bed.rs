//! The whole bed: brought up, looked at, taken down.
//!
//! A bed has a name, and everything of it bears that name: the folder of its state, its
//! namespaces, its control groups. So `up` can clear away what a killed run left behind, and
//! `down` leaves nothing, whatever the notes say. Beds of different names do not disturb each
//! other, except by sharing the machine.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cache::{self, remove_tree, write};
use crate::cgroup::Groups;
use crate::control::Control;
use crate::error::{During, Error, Result, finished, output_of};
use crate::image::Image;
use crate::install::Tools;
use crate::kafka::{Broker, KafkaCluster, KafkaSite, Purpose};
use crate::network::{NODES_MAX, Network, REDIS, kafka_address};
use crate::node::{Node, PAUSE};
use crate::pki::Pki;
use crate::process::{Place, ProcessId, is_root, until, within};
use crate::redis::Redis;

/// What a bed is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Kubernetes nodes, up to nine.
    pub nodes: u8,
    /// Kafka brokers, one or three.
    pub brokers: u16,
}

/// What a bed writes down about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Notes {
    shape: Shape,
    /// Whether it came up: a bed that did not is cleared away by the next one.
    ready: bool,
    processes: BTreeMap<String, ProcessId>,
    /// Settings of the kernel that a kubelet changes, as they were.
    kernel: BTreeMap<String, String>,
}

/// A test bed that is up.
#[derive(Debug)]
pub struct Bed {
    name: String,
    notes: Notes,
    tools: Tools,
}

/// The name of a bed for which no other is given.
pub const DEFAULT_NAME: &str = "stationmaster";

// The nodes are Ready 5 s after the API server on an idle machine of two cores.
const NODES_PATIENCE: Duration = Duration::from_secs(120);

// The settings that a kubelet insists on.
const KERNEL_SETTINGS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// The folder of a bed's state and logs.
#[must_use]
pub fn folder_of(name: &str) -> PathBuf {
    PathBuf::from(format!("/var/tmp/{name}-testbed"))
}

/// Makes sure that a name can be part of folders, namespaces and groups.
fn check_name(name: &str) -> Result<()> {
    // Twenty leave room in the 107 bytes of a socket's path.
    let fits = (1..=20).contains(&name.len());
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if fits && plain {
        return Ok(());
    }
    Err(Error::Refused(format!("the bed's name {name:?}: up to 20 small letters and digits")))
}

/// Only one command at a time builds or clears a bed.
fn lock(name: &str) -> Result<File> {
    let root = cache::root()?;
    fs::create_dir_all(&root).during(|| root.display().to_string())?;
    let path = root.join(format!(".bed-{name}.lock"));
    let file = File::create(&path).during(|| path.display().to_string())?;
    file.lock().during(|| path.display().to_string())?;
    Ok(file)
}

fn require_root() -> Result<()> {
    if is_root() {
        return Ok(());
    }
    Err(Error::Missing {
        what: "root, which namespaces and control groups need,".to_owned(),
        how: "run this with sudo, or give an existing cluster with --existing".to_owned(),
    })
}

impl Bed {
    /// Brings a bed up. One of this shape that is up already is
    /// healed and taken; what an earlier
    /// run left half done is cleared away first.
    ///
    /// # Errors
    /// When we are not root, something is not installed, a bed of another shape is up, or a part
    /// does not come up.
    pub fn up(name: &str, shape: &Shape, say: &mut dyn FnMut(&str)) -> Result<Self> {
        require_root()?;
        check_name(name)?;
        if !(1..=NODES_MAX).contains(&shape.nodes) || !matches!(shape.brokers, 1 | 3) {
            let offer = format!("1 to {NODES_MAX} nodes and 1 or 3 brokers are offered");
            return Err(Error::Refused(offer));
        }
        let tools = Tools::found()?;
        crate::kafka::jars()?;
        let _lock = lock(name)?;
        if let Ok(bed) = Self::open(name) {
            if bed.broken().is_empty() {
                let bed = bed.of_shape(shape)?;
                bed.heal()?;
                return Ok(bed);
            }
            say(&format!("an earlier bed lost {}: clearing it away", bed.broken().join(", ")));
        }
        clear(name)?;
        let (shape, kernel) = (shape.clone(), kernel_settings());
        let notes = Notes { shape, ready: false, processes: BTreeMap::new(), kernel };
        let mut bed = Self { name: name.to_owned(), notes, tools };
        bed.write_down()?;
        bed.build(say)?;
        bed.notes.ready = true;
        bed.write_down()?;
        Ok(bed)
    }

    /// Ends the faults that were made on it: cables, Kafka and Redis are as after `up`.
    ///
    /// # Errors
    /// When Kafka or Redis does not come back.
    pub fn heal(&self) -> Result<()> {
        for node in 1..=self.notes.shape.nodes {
            self.network().hush(node, None)?;
            self.network().link(node, true)?;
        }
        let (mut kafka, mut redis) = (self.kafka()?, self.redis()?);
        let brokers = (0..kafka.site().brokers.len()).filter_map(|broker| kafka.process(broker));
        for process in brokers.chain(redis.process()) {
            process.signal(crate::process::Signal::CONT)?;
        }
        redis.start_again()?;
        kafka.start_all()
    }

    fn of_shape(self, wanted: &Shape) -> Result<Self> {
        let Shape { nodes, brokers } = self.notes.shape;
        if self.notes.shape == *wanted {
            return Ok(self);
        }
        Err(Error::Refused(format!(
            "a bed with {nodes} nodes and {brokers} brokers is up; take it down first"
        )))
    }

    /// The bed that an earlier command brought up.
    ///
    /// # Errors
    /// When there is none, or it never came up.
    pub fn open(name: &str) -> Result<Self> {
        check_name(name)?;
        let path = folder_of(name).join(NOTES);
        let absent = |why: &str| Error::Missing {
            what: format!("a test bed ({}: {why})", path.display()),
            how: "run `cargo e2e up` as root, or give an existing cluster with --existing"
                .to_owned(),
        };
        let text = fs::read(&path).map_err(|error| absent(&error.to_string()))?;
        let notes: Notes =
            serde_json::from_slice(&text).map_err(|error| absent(&error.to_string()))?;
        if !notes.ready {
            return Err(absent("its start was broken off"));
        }
        Ok(Self { name: name.to_owned(), notes, tools: Tools::found()? })
    }

    /// Takes a bed down, whatever is left of it.
    ///
    /// # Errors
    /// When we are not root, or something cannot be removed.
    pub fn down(name: &str) -> Result<()> {
        require_root()?;
        check_name(name)?;
        let _lock = lock(name)?;
        clear(name)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of its state and logs.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        folder_of(&self.name)
    }

    /// What it is made of.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.notes.shape
    }

    /// The kubeconfig of its administrator. Its address is reachable inside the bed only.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.control_folder().join("admin.kubeconfig")
    }

    /// What tests inside the bed are told of it by their environment.
    #[must_use]
    pub fn environment(&self) -> BTreeMap<&'static str, OsString> {
        BTreeMap::from([
            ("KUBECONFIG", self.kubeconfig().into()),
            ("STATIONMASTER_KUBECONFIG", self.kubeconfig().into()),
            ("STATIONMASTER_KUBECTL", self.tools.kubernetes("kubectl").into()),
            ("STATIONMASTER_HELM", self.tools.helm().into()),
            ("STATIONMASTER_KAFKA", self.kafka_bootstrap().into()),
        ])
    }

    /// Where Kafka is, for clients inside the bed.
    #[must_use]
    pub fn kafka_bootstrap(&self) -> String {
        let brokers = (0..self.notes.shape.brokers).map(|b| format!("{}:9092", kafka_address(b)));
        brokers.collect::<Vec<_>>().join(",")
    }

    /// Where Redis is, for clients inside the bed.
    #[must_use]
    pub fn redis_address(&self) -> String {
        format!("{REDIS}:6379")
    }

    /// kubectl, as the administrator, inside the bed.
    #[must_use]
    pub fn kubectl(&self) -> Command {
        let mut kubectl = self.inside_cluster(&self.tools.kubernetes("kubectl"));
        kubectl.env("KUBECONFIG", self.kubeconfig());
        kubectl.env("KUBECACHEDIR", self.folder().join("kubectl"));
        kubectl
    }

    /// Helm, as the administrator, inside the bed.
    #[must_use]
    pub fn helm(&self) -> Command {
        let mut helm = self.inside_cluster(&self.tools.helm());
        helm.env("KUBECONFIG", self.kubeconfig());
        for kind in ["CACHE", "CONFIG", "DATA"] {
            helm.env(format!("HELM_{kind}_HOME"), self.folder().join("helm"));
        }
        helm
    }

    /// Kafka, to be stopped, started and killed.
    ///
    /// # Errors
    /// When its notes are lost.
    pub fn kafka(&self) -> Result<KafkaCluster> {
        KafkaCluster::open(&self.folder().join("kafka"))
    }

    /// Redis, to be stopped, started and flushed.
    ///
    /// # Errors
    /// When its notes are lost.
    pub fn redis(&self) -> Result<Redis> {
        Redis::open(&self.folder().join("redis"))
    }

    /// The file that names a network namespace: `cluster`, or `node-1` and so on.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn netns(&self, place: &str) -> Result<PathBuf> {
        let network = self.network();
        if place == "cluster" {
            return Ok(Network::file(&network.cluster()));
        }
        let number = crate::network::node_number(place, self.notes.shape.nodes)?;
        Ok(Network::file(&network.node(number)))
    }

    /// A command that will run in a namespace of the bed.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn command_in(&self, place: &str, program: &Path) -> Result<Command> {
        Ok(nsenter(&self.netns(place)?, program))
    }

    /// Runs `work` on a thread inside the cluster's namespace: its sockets reach Services, pods,
    /// Kafka and Redis, and nothing else.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        within(&Network::file(&self.network().cluster()), work)
    }

    /// Makes an image and brings it onto every node.
    ///
    /// # Errors
    /// When it cannot be made or imported.
    pub fn load_image(&self, image: &Image) -> Result<()> {
        let file = format!("image-{}.tar", std::process::id());
        let tar = self.folder().join(file);
        image.write_to(&tar)?;
        let each = |node: &Node<'_>| node.import(&tar);
        self.with_nodes(&|node| each(node))?;
        fs::remove_file(&tar).during(|| tar.display().to_string())
    }

    /// The parts that should run and do not.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let processes = self.notes.processes.iter();
        processes.filter(|(_, id)| !id.alive()).map(|(name, _)| name.clone()).collect()
    }

    /// The parts of the bed and their processes.
    #[must_use]
    pub fn processes(&self) -> &BTreeMap<String, ProcessId> {
        &self.notes.processes
    }

    pub(crate) fn network(&self) -> Network {
        Network { bed: self.name.clone() }
    }

    pub(crate) fn groups(&self) -> Groups {
        Groups::of(&self.name)
    }

    fn control_folder(&self) -> PathBuf {
        self.folder().join("control")
    }

    fn inside_cluster(&self, program: &Path) -> Command {
        nsenter(&Network::file(&self.network().cluster()), program)
    }

    fn place(&self, netns: &str) -> Place {
        Place {
            netns: Some(Network::file(netns)),
            cgroup_procs: Some(self.groups().system_procs()),
            outlives_us: true,
        }
    }

    fn write_down(&self) -> Result<()> {
        let (path, text) = (self.folder().join(NOTES), serde_json::to_vec_pretty(&self.notes));
        let text = text.map_err(|error| Error::Refused(format!("the bed's notes: {error}")))?;
        // Whole or not at all: a reader never meets half of it.
        let unfinished = path.with_extension("unfinished");
        write(&unfinished, text)?;
        fs::rename(&unfinished, &path).during(|| path.display().to_string())
    }

    fn started(&mut self, parts: impl IntoIterator<Item = (String, ProcessId)>) -> Result<()> {
        self.notes.processes.extend(parts);
        self.write_down()
    }

    fn build(&mut self, say: &mut dyn FnMut(&str)) -> Result<()> {
        let Shape { nodes, brokers } = self.notes.shape;
        let begun = Instant::now();
        let mut said =
            |what: &str| say(&format!("{:5.1} s  {what}", begun.elapsed().as_secs_f64()));
        self.groups().make(&(1..=nodes).map(|n| format!("node-{n}")).collect::<Vec<_>>())?;
        self.network().make(nodes, brokers)?;
        said("namespaces");
        let (kafka, redis, place) = self.engines();
        thread::scope(|scope| {
            // Kafka takes longer than all the rest, so it starts beside it.
            let engines = scope.spawn(|| {
                drop(Redis::start_at(&redis, &place, REDIS, 6379)?);
                KafkaCluster::start_at(kafka).map(drop)
            });
            self.build_kubernetes(&mut said)?;
            engines.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        said("Kafka and Redis answer");
        Ok(())
    }

    fn engines(&self) -> (KafkaSite, PathBuf, Place) {
        let place = self.place(&self.network().cluster());
        let broker =
            |index| Broker { host: kafka_address(index), port: 9092, controller_port: 9093 };
        let brokers = (0..self.notes.shape.brokers).map(broker).collect();
        let folder = self.folder();
        let (kafka, redis) = (folder.join("kafka"), folder.join("redis"));
        let purpose = Purpose::Testing;
        (KafkaSite { folder: kafka, place: place.clone(), brokers, purpose }, redis, place)
    }

    fn build_kubernetes(&mut self, said: &mut dyn FnMut(&str)) -> Result<()> {
        let (tools, folder) = (self.tools.clone(), self.control_folder());
        let pki = Pki::found(folder.join("pki"))?;
        let place = self.place(&self.network().cluster());
        let control = Control { tools: &tools, folder, pki: &pki, place };
        control.issue()?;
        let api = control.start_api()?;
        let api_process = api[1].1;
        self.started(api)?;
        let pause = self.folder().join("pause.tar");
        let programs = [self.tools.guest("pause")];
        Image::new(PAUSE, &programs)?.write_to(&pause)?;
        let containerds = self.with_nodes(&|node| {
            let containerd = node.start_containerd()?;
            node.import(&pause)?;
            Ok(containerd)
        })?;
        let named = (1..).zip(&containerds).map(|(n, &id)| (format!("node-{n}/containerd"), id));
        self.started(named.collect::<Vec<_>>())?;
        said("containerd on every node");
        let kubectl = || self.kubectl();
        control.wait_for_api(&kubectl, api_process)?;
        said("API server");
        let mut parts = control.start_rest()?;
        let nodes =
            self.with_nodes(&|node| node.start_kubelet(containerds[usize::from(node.number) - 1]))?;
        parts.extend(nodes.into_iter().flatten());
        self.started(parts)?;
        control.grant(self.kubectl())?;
        self.wait_for_nodes()?;
        said("nodes Ready");
        Ok(())
    }

    /// Does something for each node, all at once.
    fn with_nodes<T: Send>(
        &self,
        work: &(dyn Fn(&Node<'_>) -> Result<T> + Sync),
    ) -> Result<Vec<T>> {
        let pki = Pki { folder: self.control_folder().join("pki") };
        let node = |number| Node {
            tools: &self.tools,
            number,
            folder: self.folder().join(format!("node-{number}")),
            control: self.control_folder(),
            pki: &pki,
            place: self.place(&self.network().node(number)),
            pods_root: self.groups().pods_root(&format!("node-{number}")),
        };
        thread::scope(|scope| {
            let nodes: Vec<_> = (1..=self.notes.shape.nodes).map(node).collect();
            let threads = nodes.into_iter().map(|node| scope.spawn(move || work(&node)));
            let threads: Vec<_> = threads.collect();
            let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
            joined.map(|done| done.unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
        })
    }

    fn wait_for_nodes(&self) -> Result<()> {
        let hint = format!("see the logs in {}/node-*", self.folder().display());
        until("all nodes Ready", NODES_PATIENCE, &hint, || {
            if let Some(part) = self.broken().first() {
                return Err(Error::Refused(format!("{part} ended; {hint}")));
            }
            let ready = self.nodes_ready()?;
            Ok((ready == usize::from(self.notes.shape.nodes)).then_some(()))
        })?;
        until("the default ServiceAccount", NODES_PATIENCE, &hint, || {
            let found = finished(self.kubectl().args(["get", "serviceaccount", "default"]))?;
            Ok(found.status.success().then_some(()))
        })
    }

    /// How many nodes Kubernetes calls Ready.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub fn nodes_ready(&self) -> Result<usize> {
        let path = r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
        let states = output_of(self.kubectl().args(["get", "nodes", "-o", path]))?;
        Ok(states.split_whitespace().filter(|&state| state == "True").count())
    }
}

const NOTES: &str = "bed.json";

fn nsenter(netns: &Path, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns.display())).arg(program);
    command
}

fn kernel_settings() -> BTreeMap<String, String> {
    let values = KERNEL_SETTINGS.iter().filter_map(|&setting| {
        let value = fs::read_to_string(format!("/proc/sys/{setting}")).ok()?;
        Some((setting.to_owned(), value.trim().to_owned()))
    });
    values.collect()
}

/// Removes all that bears the bed's name.
fn clear(name: &str) -> Result<()> {
    let (folder, groups) = (folder_of(name), Groups::of(name));
    let notes = fs::read(folder.join(NOTES)).ok();
    let notes = notes.and_then(|text| serde_json::from_slice::<Notes>(&text).ok());
    for process in notes.iter().flat_map(|notes| notes.processes.values()) {
        process.signal(crate::process::Signal::KILL)?;
    }
    groups.kill_all()?;
    Network { bed: name.to_owned() }.delete()?;
    unmount_below(&folder)?;
    groups.remove()?;
    if let Some(notes) = notes {
        for (setting, value) in notes.kernel {
            let path = format!("/proc/sys/{setting}");
            fs::write(&path, value).during(|| path.clone())?;
        }
    }
    remove_tree(&folder)
}

/// A bed mounts in namespaces of its own only; this is for a machine where that failed, since
/// removing the folder would otherwise remove what is mounted in it.
fn unmount_below(folder: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").during(|| "mounts".to_owned())?;
    let paths = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let mut ours: Vec<&str> = paths.filter(|path| Path::new(path).starts_with(folder)).collect();
    ours.reverse();
    ours.iter().try_for_each(|path| output_of(Command::new("umount").arg(path)).map(|_| ()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_leave_its_folder_is_refused() {
        for name in ["", "..", "a/b", "A", "a b", "a-very-long-name-of-a-bed"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        check_name(DEFAULT_NAME).unwrap();
    }
}
