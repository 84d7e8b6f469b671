//! The commands: arguments in, calls of the library out.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use e2e::error::status_of;
use e2e::kafka::KafkaSite;
use e2e::process::Place;
use e2e::{KafkaCluster, Redis, Result};

/// A real Kubernetes, Kafka and Redis on this machine, and faults made on purpose.
#[derive(Debug, Parser)]
#[command(name = "e2e", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install Debian's packages (as root) and build the rest; what is there is left alone.
    Install,
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

impl Arguments {
    pub(crate) fn run(self) -> Result<i32> {
        match self.command {
            Command::Install => {
                e2e::install::install(&mut |line| println!("{line}"))?;
            }
            Command::Kafka { command } => return command.run(),
            Command::Redis { command } => command.run()?,
        }
        Ok(0)
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
