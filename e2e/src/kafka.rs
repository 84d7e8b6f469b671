//! Kafka in KRaft mode from its published jars: one broker or three, here or in a namespace.
//!
//! Needs Java 17 or later, and Maven for the first time. A cluster writes down its processes in
//! its own folder, so that a later command finds them; one that belongs to a test ends with it.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cache::{Recipe, remove_tree, write};
use crate::error::{Error, Result, output_of, tail_of};
use crate::process::{KILL_PATIENCE, Launch, Place, ProcessId, Signal, until, within};

/// The version of Kafka.
pub const VERSION: &str = "4.3.1";

const POM: &str = include_str!("../testbed/kafka/pom.xml");
const LOGGING: &str = include_str!("../testbed/kafka/log4j2.properties");

// Three brokers took 53 s on two cores with a dozen builds on them; 10 s are usual.
const START_PATIENCE: Duration = Duration::from_secs(180);
// A broker hands its partitions over first, which is quick unless its peers are away.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// Where a broker listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broker {
    /// The address that clients reach, and that it advertises.
    pub host: String,
    /// The clients' port.
    pub port: u16,
    /// The port of the metadata quorum.
    pub controller_port: u16,
}

/// What a cluster is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Purpose {
    /// To be up soon: Java's first compiler is all that it has.
    #[default]
    Testing,
    /// To be measured: with both compilers, as Kafka's own scripts start it. It is fast only when
    /// it has worked for ten seconds or more.
    Measuring,
}

/// What to start, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaSite {
    /// Settings, data and logs; the cluster's own.
    pub folder: PathBuf,
    /// The namespace and group of its processes.
    pub place: Place,
    /// One broker or three.
    pub brokers: Vec<Broker>,
    /// What they are for.
    #[serde(default)]
    pub purpose: Purpose,
}

/// The jars of Kafka; fetched by Maven unless they are there.
///
/// # Errors
/// When Maven is missing or cannot fetch them.
pub fn jars() -> Result<PathBuf> {
    recipe().built(|folder| {
        write(&folder.join("pom.xml"), POM)?;
        let libs = folder.join("libs");
        let goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
        let mut maven = Command::new("mvn");
        maven.args(["-q", "-B", goal, "-DincludeScope=runtime"]).current_dir(folder);
        maven.arg(format!("-DoutputDirectory={}", libs.display()));
        output_of(&mut maven).map(|_| ())
    })
}

fn recipe() -> Recipe<'static> {
    Recipe { name: format!("kafka-{VERSION}"), inputs: vec![POM.as_bytes()] }
}

/// Whether the jars are there already.
pub(crate) fn has_jars() -> Result<bool> {
    Ok(recipe().found()?.is_some())
}

impl KafkaSite {
    /// A cluster on loopback: brokers from `port` on, then as many ports for their quorum.
    ///
    /// # Errors
    /// When it is to have neither one broker nor three.
    pub fn on_loopback(folder: &Path, port: u16, brokers: u16, place: &Place) -> Result<Self> {
        if brokers != 1 && brokers != 3 {
            return Err(Error::Refused(format!("{brokers} brokers: only 1 or 3 are offered")));
        }
        let broker = |index| Broker {
            host: "127.0.0.1".to_owned(),
            port: port + index,
            controller_port: port + brokers + index,
        };
        let brokers = (0..brokers).map(broker).collect();
        let purpose = Purpose::default();
        Ok(Self { folder: folder.to_owned(), place: place.clone(), brokers, purpose })
    }

    /// What clients are told.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let each = self.brokers.iter().map(|broker| format!("{}:{}", broker.host, broker.port));
        each.collect::<Vec<_>>().join(",")
    }

    fn properties(&self, index: usize) -> String {
        let voters = self.brokers.iter().enumerate();
        let voters = voters.map(|(i, b)| format!("{}@{}:{}", i + 1, b.host, b.controller_port));
        let (me, count) = (&self.brokers[index], self.brokers.len());
        let in_sync_min = if count == 1 { 1 } else { 2 };
        let mut lines = vec![
            "process.roles=broker,controller".to_owned(),
            format!("node.id={}", index + 1),
            format!("controller.quorum.voters={}", voters.collect::<Vec<_>>().join(",")),
            format!(
                "listeners=BROKER://{0}:{1},CONTROLLER://{0}:{2}",
                me.host, me.port, me.controller_port
            ),
            format!("advertised.listeners=BROKER://{}:{}", me.host, me.port),
            "listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned(),
            "inter.broker.listener.name=BROKER".to_owned(),
            "controller.listener.names=CONTROLLER".to_owned(),
            format!("log.dirs={}", self.data(index).display()),
            // A ledger is founded on purpose, never by a typing error.
            "auto.create.topics.enable=false".to_owned(),
            format!("default.replication.factor={count}"),
            format!("min.insync.replicas={in_sync_min}"),
            format!("offsets.topic.replication.factor={count}"),
            format!("transaction.state.log.replication.factor={count}"),
            format!("transaction.state.log.min.isr={in_sync_min}"),
            format!("share.coordinator.state.topic.replication.factor={count}"),
            format!("share.coordinator.state.topic.min.isr={in_sync_min}"),
            // The defaults of 50 make the first consumer group wait for 50 new logs.
            "offsets.topic.num.partitions=4".to_owned(),
            "transaction.state.log.num.partitions=4".to_owned(),
            "group.initial.rebalance.delay.ms=0".to_owned(),
        ];
        if count > 1 {
            lines.extend(QUICK_FAILOVER.iter().map(|&line| line.to_owned()));
        }
        lines.join("\n") + "\n"
    }

    fn data(&self, index: usize) -> PathBuf {
        self.folder.join(format!("broker-{}", index + 1))
    }

    fn settings(&self, index: usize) -> PathBuf {
        self.folder.join(format!("broker-{}.properties", index + 1))
    }

    /// The log of a broker; the first one is 0.
    #[must_use]
    pub fn log(&self, index: usize) -> PathBuf {
        self.folder.join(format!("broker-{}.log", index + 1))
    }

    fn java(&self, log: &Path) -> Result<Launch> {
        let brokers = self.brokers.len();
        let heap = if brokers == 1 { "-Xmx512m" } else { "-Xmx256m" };
        let compilers = match self.purpose {
            Purpose::Testing => "-XX:TieredStopAtLevel=1",
            Purpose::Measuring => "-XX:+TieredCompilation",
        };
        // While its memory is cleaned a broker confirms nothing; both processors need half the time.
        Ok(Launch::new(&self.place, log, java())
            .args([heap, "-XX:+UseParallelGC", compilers])
            .arg_path("-Dlog4j2.configurationFile=", &self.folder.join("log4j2.properties"))
            .args(["-cp", &format!("{}/libs/*", jars()?.display())])
            .folder(&self.folder))
    }

    fn launch(&self, index: usize) -> Result<ProcessId> {
        let java = self.java(&self.log(index))?.args(["kafka.Kafka"]);
        java.args([self.settings(index)]).start()
    }

    /// Writes settings and formats the data folders; loses what was there.
    fn found(&self) -> Result<()> {
        jars()?;
        remove_tree(&self.folder)?;
        write(&self.folder.join("log4j2.properties"), LOGGING)?;
        thread::scope(|scope| {
            let each = (0..self.brokers.len()).map(|index| {
                scope.spawn(move || {
                    write(&self.settings(index), self.properties(index))?;
                    let mut format = Command::new(java());
                    format.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]);
                    format.arg(format!("{}/libs/*", jars()?.display()));
                    // Any id will do: the folders are this cluster's only.
                    format.args(["kafka.tools.StorageTool", "format", "-t"]);
                    format.args(["c3RhdGlvbm1hc3Rlci1iZQ", "-c"]).arg(self.settings(index));
                    output_of(&mut format).map(|_| ())
                })
            });
            let threads: Vec<_> = each.collect();
            let joined: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
            joined.into_iter().try_for_each(|done| done.unwrap_or_else(|p| resume_unwind(p)))
        })
    }
}

// Longest gap of a partition after a broker's death: 13 s with Kafka's defaults, 1.2 to 2.4 s
// with these. They must stay well above a pause of the machine, or healthy brokers are fenced.
const QUICK_FAILOVER: [&str; 8] = [
    "broker.session.timeout.ms=1200",
    "broker.heartbeat.interval.ms=250",
    "replica.lag.time.max.ms=1500",
    "controller.quorum.fetch.timeout.ms=600",
    "controller.quorum.election.timeout.ms=300",
    "controller.quorum.election.backoff.max.ms=150",
    "controller.quorum.request.timeout.ms=600",
    "replica.fetch.backoff.ms=100",
];

fn java() -> PathBuf {
    std::env::var_os("JAVA_HOME")
        .map(|home| PathBuf::from(home).join("bin/java"))
        .filter(|java| java.exists())
        .unwrap_or_else(|| "java".into())
}

/// A running cluster.
#[derive(Debug)]
pub struct KafkaCluster {
    site: KafkaSite,
    processes: Vec<Option<ProcessId>>,
}

/// What a cluster writes down in its folder.
#[derive(Serialize, Deserialize)]
struct Written {
    site: KafkaSite,
    processes: Vec<Option<ProcessId>>,
}

impl KafkaCluster {
    /// Starts a cluster of one broker or three on free ports of loopback. It needs no root, and
    /// ends, data and all, when the value is dropped or this process dies.
    ///
    /// # Errors
    /// When Java or Maven is missing, or the brokers do not come up.
    pub fn start(brokers: u16) -> Result<Self> {
        Self::start_for(Purpose::Testing, brokers)
    }

    /// The same, for some purpose.
    ///
    /// # Errors
    /// As for [`KafkaCluster::start`].
    pub fn start_for(purpose: Purpose, brokers: u16) -> Result<Self> {
        // Others look for ports too; a second and a third try find other ones.
        let mut last = Error::Refused("no free ports".to_owned());
        for _ in 0..3 {
            let port = free_ports(2 * brokers)?;
            let folder = std::env::temp_dir().join(format!("stationmaster-kafka-{port}"));
            let site = KafkaSite::on_loopback(&folder, port, brokers, &Place::default())?;
            match Self::start_at(KafkaSite { purpose, ..site }) {
                Ok(cluster) => return Ok(cluster),
                Err(Error::Late { hint, .. }) if hint.contains("already in use") => {
                    last = Error::Refused(hint);
                }
                Err(other) => return Err(other),
            }
        }
        Err(last)
    }

    /// Starts a new, empty cluster at a site.
    ///
    /// # Errors
    /// As for [`KafkaCluster::start`].
    pub fn start_at(site: KafkaSite) -> Result<Self> {
        site.found()?;
        let processes = vec![None; site.brokers.len()];
        let mut cluster = Self { site, processes };
        cluster.start_all()?;
        Ok(cluster)
    }

    /// The cluster that an earlier command started in this folder.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(STATE);
        let text = fs::read(&path).map_err(|_| {
            Error::Refused(format!("no Kafka was started here: {} is missing", path.display()))
        })?;
        let written: Written = serde_json::from_slice(&text)
            .map_err(|error| Error::Refused(format!("{}: {error}", path.display())))?;
        Ok(Self { site: written.site, processes: written.processes })
    }

    /// What to give to clients as `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.site.bootstrap()
    }

    /// What it was started as.
    #[must_use]
    pub fn site(&self) -> &KafkaSite {
        &self.site
    }

    /// The process of a broker, the first one being 0, if it runs.
    #[must_use]
    pub fn process(&self, broker: usize) -> Option<ProcessId> {
        self.processes.get(broker).copied().flatten().filter(|process| process.alive())
    }

    /// Starts all brokers that do not run, and waits until each knows all of them.
    ///
    /// # Errors
    /// When one of them ends or stays silent.
    pub fn start_all(&mut self) -> Result<()> {
        for broker in 0..self.site.brokers.len() {
            self.launch(broker)?;
        }
        (0..self.site.brokers.len()).try_for_each(|broker| self.wait_for(broker))
    }

    /// Starts one broker again with the data that it had, and waits until it answers.
    ///
    /// # Errors
    /// When it ends or stays silent.
    pub fn start_broker(&mut self, broker: usize) -> Result<()> {
        self.launch(broker)?;
        self.wait_for(broker)
    }

    /// Asks all brokers to end, and waits for it. Their data stays.
    ///
    /// # Errors
    /// When one does not end.
    pub fn stop_all(&mut self) -> Result<()> {
        // All at once: a single one left would wait for the others to take its partitions.
        for broker in 0..self.processes.len() {
            self.signal(broker, Signal::TERM)?;
        }
        self.processes.iter().flatten().try_for_each(|process| process.end(STOP_PATIENCE))
    }

    /// Ends a broker without a word, as a power cut would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_broker(&mut self, broker: usize) -> Result<()> {
        let process = self.running(broker)?;
        process.signal(Signal::KILL)?;
        process.gone_within(KILL_PATIENCE)
    }

    /// Makes a broker hang: its connections stay open and nothing answers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause_broker(&self, broker: usize) -> Result<()> {
        self.running(broker)?.signal(Signal::STOP).map(|_| ())
    }

    /// Ends a hang.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume_broker(&self, broker: usize) -> Result<()> {
        self.running(broker)?.signal(Signal::CONT).map(|_| ())
    }

    /// Kills all brokers and removes their data.
    ///
    /// # Errors
    /// When that fails.
    pub fn destroy(mut self) -> Result<()> {
        self.end_for_good()
    }

    /// A command-line tool of Kafka, `topics` or `org.apache.kafka.tools.TopicCommand`, with
    /// the address of this cluster already given.
    ///
    /// # Errors
    /// When the jars are missing and cannot be fetched.
    pub fn tool(&self, name: &str) -> Result<Command> {
        let class = match name {
            "topics" => "org.apache.kafka.tools.TopicCommand",
            "configs" => "org.apache.kafka.tools.ConfigCommand",
            "groups" => "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
            "consume" => "org.apache.kafka.tools.consumer.ConsoleConsumer",
            "offsets" => "org.apache.kafka.tools.GetOffsetShell",
            other => other,
        };
        let mut words: Vec<std::ffi::OsString> = Vec::new();
        if let Some(netns) = &self.site.place.netns {
            words.extend(["nsenter".into(), format!("--net={}", netns.display()).into()]);
        }
        words.push(java().into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
        // A tool's own chatter is of no interest; its answer goes to standard output.
        command.args(["-Dlog4j2.level=OFF", "-cp"]);
        command.arg(format!("{}/libs/*", jars()?.display()));
        command.args([class, "--bootstrap-server", &self.bootstrap()]);
        Ok(command)
    }

    fn running(&self, broker: usize) -> Result<ProcessId> {
        self.process(broker)
            .ok_or_else(|| Error::Refused(format!("Kafka broker {} does not run", broker + 1)))
    }

    fn signal(&self, broker: usize, signal: Signal) -> Result<()> {
        self.process(broker).map_or(Ok(()), |process| process.signal(signal).map(|_| ()))
    }

    fn launch(&mut self, broker: usize) -> Result<()> {
        if broker >= self.processes.len() {
            return Err(Error::Refused(format!("there is no Kafka broker {}", broker + 1)));
        }
        if self.process(broker).is_none() {
            self.processes[broker] = Some(self.site.launch(broker)?);
            self.write_down()?;
        }
        Ok(())
    }

    fn write_down(&self) -> Result<()> {
        let written = Written { site: self.site.clone(), processes: self.processes.clone() };
        let text = serde_json::to_vec_pretty(&written)
            .map_err(|error| Error::Refused(format!("writing down Kafka: {error}")))?;
        write(&self.site.folder.join(STATE), text)
    }

    fn wait_for(&self, broker: usize) -> Result<()> {
        let what = format!("Kafka broker {} answering", broker + 1);
        let log = self.site.log(broker);
        // A cluster of which a broker is kept down must still be able to start another.
        let alive = (0..self.processes.len()).filter(|&b| self.process(b).is_some()).count();
        let at = &self.site.brokers[broker];
        let found = until(&what, START_PATIENCE, &log.display().to_string(), || {
            if self.process(broker).is_none() {
                return Err(Error::Late {
                    what: what.clone(),
                    seconds: 0,
                    hint: format!("it ended: {}", tail_of(&log)),
                });
            }
            let ask = || brokers_known(&at.host, at.port).filter(|&known| known >= alive);
            match &self.site.place.netns {
                Some(netns) => within(netns, ask),
                None => Ok(ask()),
            }
        });
        found.map(|_| ())
    }

    fn end_for_good(&mut self) -> Result<()> {
        for process in self.processes.iter().flatten() {
            process.signal(Signal::KILL)?;
        }
        for process in self.processes.iter().flatten() {
            process.gone_within(KILL_PATIENCE)?;
        }
        remove_tree(&self.site.folder)
    }
}

impl Drop for KafkaCluster {
    fn drop(&mut self) {
        // One that outlives us is ended by whoever opens it again.
        if !self.site.place.outlives_us {
            // Nobody is left to hear of a failure, and the kernel ends the processes anyway.
            let _ = self.end_for_good();
        }
    }
}

const STATE: &str = "kafka.json";

/// How many brokers this one knows, from a Metadata answer; none while it does not answer.
fn brokers_known(host: &str, port: u16) -> Option<usize> {
    // A live broker on this machine answers within milliseconds, a starting one not at all.
    let patience = Duration::from_secs(1);
    let address = (host, port).to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.write_all(&METADATA_REQUEST).ok()?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).ok()?;
    // Size, correlation id, then the brokers' count, and a size that a small cluster's fits.
    let count = i32::from_be_bytes(head[8..12].try_into().ok()?);
    usize::try_from(count).ok().filter(|&count| count <= 3)
}

/// Metadata, version 1, correlation id 7, no client id, about no topic.
const METADATA_REQUEST: [u8; 18] = [0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 7, 0xff, 0xff, 0, 0, 0, 0];

/// The first of `count` ports in a row that are free on loopback now.
///
/// They lie below the range from which the kernel picks ports for outgoing connections, so
/// that a broker that was killed finds its port still free when it starts again.
///
/// # Errors
/// When there are none.
pub fn free_ports(count: u16) -> Result<u16> {
    const FIRST: u16 = 20_000;
    const RANGE: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = (std::process::id() % 1_000) as u16 * 12;
    for _ in 0..RANGE / count {
        let step = NEXT.fetch_add(count, Ordering::Relaxed);
        let first = FIRST + own.wrapping_add(step) % (RANGE - count);
        let free = |port| TcpListener::bind(("127.0.0.1", port));
        if (first..first + count).map(free).collect::<std::io::Result<Vec<_>>>().is_ok() {
            return Ok(first);
        }
    }
    Err(Error::Refused(format!("no {count} free ports in a row on loopback")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_brokers_get_six_ports_and_fail_over_quickly() {
        let folder = Path::new("/nowhere");
        let site = KafkaSite::on_loopback(folder, 20_000, 3, &Place::default()).unwrap();
        assert_eq!(site.bootstrap(), "127.0.0.1:20000,127.0.0.1:20001,127.0.0.1:20002");
        let properties = site.properties(1);
        let voters = "1@127.0.0.1:20003,2@127.0.0.1:20004,3@127.0.0.1:20005";
        assert!(properties.contains(&format!("controller.quorum.voters={voters}\n")));
        assert!(properties.contains("node.id=2\n"));
        assert!(properties.contains("min.insync.replicas=2\n"));
        assert!(properties.contains("broker.session.timeout.ms=1200\n"));
    }

    #[test]
    fn two_brokers_are_refused() {
        assert!(KafkaSite::on_loopback(Path::new("/x"), 20_000, 2, &Place::default()).is_err());
    }

    #[test]
    fn free_ports_can_be_bound() {
        let first = free_ports(6).unwrap();
        assert!((first..first + 6).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()));
    }
}
