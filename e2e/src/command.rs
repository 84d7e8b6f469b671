//! The commands: arguments in, calls of the library out.

use std::path::{Path, PathBuf};
use std::process;
use std::time::Instant;

use clap::{Parser, Subcommand};
use e2e::error::status_of;
use e2e::kafka::KafkaSite;
use e2e::process::{Place, Signal};
use e2e::{Bed, Cluster, Error, Image, KafkaCluster, OneWay, Redis, Result, Shape};

/// A real Kubernetes, Kafka and Redis on this machine, and faults made on purpose.
#[derive(Debug, Parser)]
#[command(name = "e2e", version)]
pub(crate) struct Arguments {
    /// The bed's name; beds of different names stand beside each other.
    #[arg(long, env = "E2E_BED", default_value = e2e::bed::DEFAULT_NAME, global = true)]
    bed: String,
    /// Use the existing cluster that KUBECONFIG names, instead of a bed.
    #[arg(long, global = true)]
    existing: bool,
    /// Use the existing cluster of this kubeconfig, instead of a bed.
    #[arg(long, env = "E2E_KUBECONFIG", global = true)]
    existing_kubeconfig: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install Debian's packages (as root) and build the rest; what is there is left alone.
    Install {
        /// Only Debian's packages.
        #[arg(long)]
        packages: bool,
    },
    /// Bring up a bed (as root) and print its addresses; one that is up is left alone.
    Up {
        /// Kubernetes nodes.
        #[arg(long, default_value_t = 2)]
        nodes: u8,
        /// Kafka brokers: one, or three that fail over quickly.
        #[arg(long, default_value_t = 1)]
        brokers: u16,
    },
    /// Take the bed down, whatever is left of it (as root).
    Down {
        /// Copy the logs here first.
        #[arg(long)]
        logs: Option<PathBuf>,
    },
    /// Say what of the bed runs.
    Status,
    /// kubectl, as the cluster's administrator.
    Kubectl {
        /// What it is given.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Helm, as the cluster's administrator.
    Helm {
        /// What it is given.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Make an image of local programs and their libraries, and bring it onto every node.
    Image {
        /// Its name, with a tag that is not `latest`.
        name: String,
        /// The programs; the first one is what a container runs.
        #[arg(required = true)]
        programs: Vec<PathBuf>,
        /// Write it to this tar file instead, for `kind load image-archive` and the like.
        #[arg(long)]
        output: Option<PathBuf>,
    },
    /// Run a command in a network namespace of the bed, from where it reaches Services and pods.
    /// KUBECONFIG and STATIONMASTER_{KUBECONFIG,KUBECTL,HELM,KAFKA} say where the bed's parts are.
    ExecNs {
        /// `cluster`, or `node-1` and so on.
        place: String,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// One of Kafka's own tools for the bed's Kafka: topics, configs, groups, offsets, consume.
    KafkaTool {
        /// The tool, or the name of its class.
        name: String,
        /// What it is given besides the cluster's address.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Do harm to the bed, or end it.
    Fault {
        #[command(subcommand)]
        command: Fault,
    },
    /// Kafka alone, on loopback; needs no root.
    Kafka {
        #[command(subcommand)]
        command: KafkaCommand,
    },
    /// Redis alone, on loopback; needs no root.
    Redis {
        #[command(subcommand)]
        command: RedisCommand,
    },
}

// Beside the ports that the products themselves would take.
const KAFKA_PORT: u16 = 19_092;
const REDIS_PORT: u16 = 16_379;

#[derive(Debug, Subcommand)]
enum KafkaCommand {
    /// Start an empty cluster: brokers on the ports from N on, their quorum on the next ones.
    Up {
        /// The first port.
        #[arg(long, default_value_t = KAFKA_PORT)]
        port: u16,
        /// One broker, or three that fail over quickly.
        #[arg(long, default_value_t = 1)]
        brokers: u16,
    },
    /// End the brokers and remove their data.
    Down {
        /// The first port.
        #[arg(long, default_value_t = KAFKA_PORT)]
        port: u16,
    },
    /// Start again the brokers that were stopped or killed, with their data.
    Start {
        /// The first port.
        #[arg(long, default_value_t = KAFKA_PORT)]
        port: u16,
    },
    /// Stop the brokers and keep their data.
    Stop {
        /// The first port.
        #[arg(long, default_value_t = KAFKA_PORT)]
        port: u16,
    },
    /// Kill one broker without a word.
    Kill {
        /// The first port.
        #[arg(long, default_value_t = KAFKA_PORT)]
        port: u16,
        /// Which one, from 1 on.
        #[arg(long, default_value_t = 1)]
        broker: usize,
    },
    /// Say which brokers run.
    Status {
        /// The first port.
        #[arg(long, default_value_t = KAFKA_PORT)]
        port: u16,
    },
    /// One of Kafka's own tools: topics, configs, groups, offsets, consume, or a class name.
    Tool {
        /// The first port.
        #[arg(long, default_value_t = KAFKA_PORT)]
        port: u16,
        /// The tool.
        name: String,
        /// What it is given besides the cluster's address.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum RedisCommand {
    /// Start an empty Redis.
    Up {
        /// Its port.
        #[arg(long, default_value_t = REDIS_PORT)]
        port: u16,
    },
    /// End it.
    Down {
        /// Its port.
        #[arg(long, default_value_t = REDIS_PORT)]
        port: u16,
    },
    /// Empty it.
    Flush {
        /// Its port.
        #[arg(long, default_value_t = REDIS_PORT)]
        port: u16,
    },
}

#[derive(Debug, Subcommand)]
enum Fault {
    /// Pull a node's cable.
    Cut {
        /// `node-1` and so on.
        node: String,
    },
    /// Plug a node's cable in again.
    Join {
        /// `node-1` and so on.
        node: String,
    },
    /// Nothing arrives at a node any more, and what it sends still does; `join` ends it.
    Deafen {
        /// `node-1` and so on.
        node: String,
    },
    /// Nothing that a node sends arrives any more; `join` ends it.
    Mute {
        /// `node-1` and so on.
        node: String,
    },
    /// Send a signal to the processes of a pod's container.
    Pod {
        /// KILL, STOP, CONT or TERM.
        #[arg(value_parser = signal_of)]
        signal: Signal,
        /// The pod.
        pod: String,
        /// Its namespace.
        #[arg(long, short, default_value = "default")]
        namespace: String,
        /// Its container, if it has several.
        #[arg(long, short)]
        container: Option<String>,
    },
    /// Harm Kafka.
    Kafka {
        /// What to do.
        #[arg(value_enum)]
        deed: KafkaDeed,
        /// Which broker, from 1 on; all of them for stop and start.
        #[arg(long, default_value_t = 1)]
        broker: usize,
    },
    /// Harm Redis.
    Redis {
        /// What to do.
        #[arg(value_enum)]
        deed: RedisDeed,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum KafkaDeed {
    /// Ask all brokers to end; their data stays.
    Stop,
    /// Start those that do not run.
    Start,
    /// Kill one broker without a word.
    Kill,
    /// Make one broker hang.
    Pause,
    /// End its hang.
    Resume,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum RedisDeed {
    /// Ask it to end; it loses what it holds.
    Stop,
    /// Start it, empty.
    Start,
    /// Empty it.
    Flush,
    /// Kill it without a word.
    Kill,
    /// Make it hang.
    Pause,
    /// End its hang.
    Resume,
}

fn signal_of(name: &str) -> std::result::Result<Signal, String> {
    match name {
        "KILL" => Ok(Signal::KILL),
        "STOP" => Ok(Signal::STOP),
        "CONT" => Ok(Signal::CONT),
        "TERM" => Ok(Signal::TERM),
        other => Err(format!("{other} is not one of KILL, STOP, CONT, TERM")),
    }
}

impl Arguments {
    pub(crate) fn run(self) -> Result<i32> {
        let existing = self.existing_kubeconfig()?;
        let cluster = || Cluster::open(&self.bed, existing.as_deref());
        let own = |deed| if existing.is_some() { Err(Error::BedOnly(deed)) } else { Ok(()) };
        match self.command {
            Command::Install { packages } => {
                let mut say = |line: &str| println!("{line}");
                if packages {
                    e2e::install::packages(&mut say)?;
                } else {
                    e2e::install::install(&mut say)?;
                }
            }
            Command::Up { nodes, brokers } => {
                own("up")?;
                up(&self.bed, &Shape { nodes, brokers })?;
            }
            Command::Down { logs } => {
                own("down")?;
                if let Some(folder) = logs {
                    copy_logs(&e2e::bed::folder_of(&self.bed), &folder)?;
                }
                Bed::down(&self.bed)?;
            }
            Command::Status => return status(cluster()?.bed("status")?),
            Command::Kubectl { arguments } => {
                return status_of(cluster()?.kubectl().args(arguments));
            }
            Command::Helm { arguments } => return status_of(cluster()?.helm().args(arguments)),
            Command::Image { name, programs, output } => {
                let image = Image::new(&name, &programs)?;
                match output {
                    Some(tar) => image.write_to(&tar)?,
                    None => cluster()?.load_image(&image)?,
                }
                println!("{}", image.full_name());
            }
            Command::ExecNs { place, command } => {
                let cluster = cluster()?;
                let bed = cluster.bed("exec-ns")?;
                let mut inside = bed.command_in(&place, Path::new(&command[0]))?;
                // What `cargo run` says of this package is not that command's: build scripts of
                // others look at it, and a Cargo in there would build them anew.
                let of_cargo = |name: &std::ffi::OsString| {
                    let name = name.to_string_lossy();
                    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
                };
                for (name, _) in std::env::vars_os().filter(|(name, _)| of_cargo(name)) {
                    inside.env_remove(name);
                }
                inside.envs(bed.environment());
                return status_of(inside.args(&command[1..]));
            }
            Command::KafkaTool { name, arguments } => {
                let kafka = cluster()?.bed("kafka-tool")?.kafka()?;
                return status_of(kafka.tool(&name)?.args(arguments));
            }
            Command::Fault { command } => command.run(cluster()?.bed("fault")?)?,
            Command::Kafka { command } => return command.run(),
            Command::Redis { command } => command.run()?,
        }
        Ok(0)
    }

    fn existing_kubeconfig(&self) -> Result<Option<PathBuf>> {
        if let Some(path) = &self.existing_kubeconfig {
            return Ok(Some(path.clone()));
        }
        if !self.existing {
            return Ok(None);
        }
        std::env::var_os("KUBECONFIG").map(|path| Some(path.into())).ok_or_else(|| Error::Missing {
            what: "KUBECONFIG".to_owned(),
            how: "with --existing it must name the file of the existing cluster".to_owned(),
        })
    }
}

fn up(name: &str, shape: &Shape) -> Result<()> {
    let begun = Instant::now();
    let bed = Bed::up(name, shape, &mut |line| println!("{line}"))?;
    println!("{:5.1} s  up", begun.elapsed().as_secs_f64());
    println!("KUBECONFIG={} (inside the bed)", bed.kubeconfig().display());
    println!("kafka {}", bed.kafka_bootstrap());
    println!("redis {}", bed.redis_address());
    println!("logs  {}", bed.folder().display());
    println!("try   cargo e2e kubectl get nodes;  cargo e2e exec-ns cluster -- bash");
    Ok(())
}

fn status(bed: &Bed) -> Result<i32> {
    for (name, process) in bed.processes() {
        let state = if process.alive() { "runs" } else { "ENDED" };
        println!("{name:20} {state} (pid {})", process.pid);
    }
    for node in (1..=bed.shape().nodes).map(|number| format!("node-{number}")) {
        let state = if bed.is_joined(&node)? { "joined" } else { "CUT OFF" };
        println!("{node:20} {state}");
    }
    say_brokers(&bed.kafka()?);
    let redis = bed.redis()?;
    let state = redis.process().map_or("stopped".to_owned(), |p| format!("pid {}", p.pid));
    println!("redis: {} {state}", redis.address());
    println!("nodes Ready: {} of {}", bed.nodes_ready()?, bed.shape().nodes);
    Ok(i32::from(!bed.broken().is_empty()))
}

/// Copies the logs of a bed, which `down` removes with all the rest.
fn copy_logs(bed: &Path, to: &Path) -> Result<()> {
    let mut find = process::Command::new("find");
    find.args([".", "-maxdepth", "3", "-name", "*.log", "-exec", "cp", "--parents", "{}"]);
    let to = std::path::absolute(to).map_err(|source| Error::Io { what: "logs".into(), source })?;
    std::fs::create_dir_all(&to).map_err(|source| Error::Io { what: "logs".into(), source })?;
    e2e::error::output_of(find.arg(to).arg(";").current_dir(bed)).map(|_| ())
}

impl Fault {
    fn run(self, bed: &Bed) -> Result<()> {
        match self {
            Self::Cut { node } => bed.cut(&node).map(|_| ()),
            Self::Join { node } => bed.join(&node).map(|_| ()),
            Self::Deafen { node } => bed.cut_one_way(&node, OneWay::Deaf).map(|_| ()),
            Self::Mute { node } => bed.cut_one_way(&node, OneWay::Mute).map(|_| ()),
            Self::Pod { signal, pod, namespace, container } => {
                let container = bed.container(&namespace, &pod, container.as_deref())?;
                container.signal(signal).map(|_| ())
            }
            Self::Kafka { deed, broker } => {
                let (mut kafka, broker) = (bed.kafka()?, broker.saturating_sub(1));
                match deed {
                    KafkaDeed::Stop => kafka.stop_all(),
                    KafkaDeed::Start => kafka.start_all(),
                    KafkaDeed::Kill => kafka.kill_broker(broker),
                    KafkaDeed::Pause => kafka.pause_broker(broker),
                    KafkaDeed::Resume => kafka.resume_broker(broker),
                }
            }
            Self::Redis { deed } => {
                let mut redis = bed.redis()?;
                match deed {
                    RedisDeed::Stop => redis.stop(),
                    RedisDeed::Start => redis.start_again(),
                    RedisDeed::Flush => redis.flush(),
                    RedisDeed::Kill => redis.kill(),
                    RedisDeed::Pause => redis.pause(),
                    RedisDeed::Resume => redis.resume(),
                }
            }
        }
    }
}

/// A place for what was started by hand: it stays until it is told to end.
fn staying() -> Place {
    Place { outlives_us: true, ..Place::default() }
}

fn folder_of(engine: &str, port: u16) -> PathBuf {
    std::env::temp_dir().join(format!("stationmaster-{engine}-{port}"))
}

impl KafkaCommand {
    fn run(self) -> Result<i32> {
        let open = |port| KafkaCluster::open(&folder_of("kafka", port));
        match self {
            Self::Up { port, brokers } => {
                if open(port).is_ok_and(|kafka| (0..3).any(|b| kafka.process(b).is_some())) {
                    open(port)?.start_all()?;
                } else {
                    let folder = folder_of("kafka", port);
                    let site = KafkaSite::on_loopback(&folder, port, brokers, &staying())?;
                    KafkaCluster::start_at(site)?;
                }
                println!("{}", open(port)?.bootstrap());
            }
            Self::Down { port } => open(port)?.destroy()?,
            Self::Start { port } => open(port)?.start_all()?,
            Self::Stop { port } => open(port)?.stop_all()?,
            Self::Kill { port, broker } => open(port)?.kill_broker(broker.saturating_sub(1))?,
            Self::Status { port } => say_brokers(&open(port)?),
            Self::Tool { port, name, arguments } => {
                return status_of(open(port)?.tool(&name)?.args(arguments));
            }
        }
        Ok(0)
    }
}

fn say_brokers(kafka: &KafkaCluster) {
    for (index, broker) in kafka.site().brokers.iter().enumerate() {
        let state = kafka.process(index).map_or("stopped".to_owned(), |p| format!("pid {}", p.pid));
        println!("kafka broker {}: {}:{} {state}", index + 1, broker.host, broker.port);
    }
}

impl RedisCommand {
    fn run(self) -> Result<()> {
        let open = |port| Redis::open(&folder_of("redis", port));
        match self {
            Self::Up { port } => {
                let redis = match open(port) {
                    Ok(redis) if redis.process().is_some() => redis,
                    _ => {
                        let folder = folder_of("redis", port);
                        Redis::start_at(&folder, &staying(), "127.0.0.1", port)?
                    }
                };
                println!("{}", redis.url());
            }
            Self::Down { port } => open(port)?.destroy()?,
            Self::Flush { port } => open(port)?.flush()?,
        }
        Ok(())
    }
}
