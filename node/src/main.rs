//! The node's program: `serve` sells, `settle` tells of orders, `init` founds the ledger.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Parser, Subcommand, ValueEnum};
use control::config::{FoundingConfig, NodeConfig, SettleConfig};
use control::founding::{Failure, FailureKind, FoundingReport};
use inventory::words::Incarnation;
use ledger::kafka::{KafkaLedger, KafkaLog};
use node::{Identity, Ledgers, Setup, Wish};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long one try to reach the brokers takes before it is told and repeated.
const CONNECT: Duration = Duration::from_secs(5);

/// A node of Stationmaster: sells train tickets over HTTP.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// What to log, such as `info` or `node=debug`.
    #[arg(long, global = true, env = "LOG_LEVEL", default_value = "info")]
    log_level: String,
    /// How to log.
    #[arg(long, global = true, env = "LOG_FORMAT", default_value = "json")]
    log_format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Json,
    Text,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sell.
    Serve {
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// The node's name.
        #[arg(long, env = "POD_NAME")]
        name: String,
        /// The address at which peers reach it.
        #[arg(long, env = "POD_IP")]
        ip: IpAddr,
        /// Where the live view is served: for `kubectl port-forward`, not for buyers.
        #[arg(long, env = "LIVE_ADDRESS", default_value = "127.0.0.1:8082")]
        live: SocketAddr,
    },
    /// Tell of every change of an order in a topic of its own.
    Settle {
        /// The settle node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// The node's name.
        #[arg(long, env = "POD_NAME")]
        name: String,
    },
    /// Found the ledger, or check the one that is there.
    Init {
        /// What to found.
        #[arg(long)]
        config: PathBuf,
        /// Where to write how it went.
        #[arg(long, default_value = "/dev/termination-log")]
        report: PathBuf,
    },
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{path}: {why}")]
    Config { path: PathBuf, why: String },
    #[error(transparent)]
    Node(#[from] node::Error),
    #[error(transparent)]
    Settle(#[from] node::settle::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter =
        EnvFilter::try_new(&arguments.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match arguments.log_format {
        Format::Json => log.json().init(),
        Format::Text => log.init(),
    }
    // A huge page is cleared when it is first touched, in up to milliseconds in which nobody is
    // served; orders come one by one and fill small pages as well.
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::info!(%error, "huge pages stay on");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        match arguments.command {
            Command::Init { config, report } => init(&config, &report).await,
            Command::Serve { config, name, ip, live } => {
                ended(serve(&config, &name, ip, live).await)
            }
            Command::Settle { config, name } => ended(settle(&config, &name).await),
        }
    })
}

fn ended(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the node cannot run");
            ExitCode::FAILURE
        }
    }
}

fn read<T>(path: &Path, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, Error> {
    let wrong = |why: String| Error::Config { path: path.to_owned(), why };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    parse(&text).map_err(wrong)
}

async fn init(config: &Path, to: &Path) -> ExitCode {
    let config = read(config, |text| FoundingConfig::read(text).map_err(|e| e.to_string()));
    let report = match config {
        Ok(config) => node::init::found(&config).await,
        Err(why) => FoundingReport::Failed(Failure {
            kind: FailureKind::InvalidConfig,
            message: why.to_string(),
            differences: Vec::new(),
        }),
    };
    let message = report.to_termination_message();
    println!("{message}");
    if let Err(error) = std::fs::write(to, &message) {
        tracing::error!(path = %to.display(), %error, "the report could not be written");
        return ExitCode::FAILURE;
    }
    match report {
        FoundingReport::Ok(_) => ExitCode::SUCCESS,
        FoundingReport::Failed(_) => ExitCode::FAILURE,
    }
}

struct Topics {
    ledger: Arc<KafkaLedger>,
    board: Arc<KafkaLedger>,
    topic_id: [u8; 16],
}

impl Ledgers for Topics {
    type Log = KafkaLog;
    type Board = KafkaLog;

    fn name(&self) -> &str {
        self.ledger.topic()
    }

    fn topic_id(&self) -> Option<[u8; 16]> {
        Some(self.topic_id)
    }

    fn log(&self) -> KafkaLog {
        self.ledger.handle()
    }

    fn board(&self) -> KafkaLog {
        self.board.handle()
    }
}

async fn serve(path: &Path, name: &str, ip: IpAddr, live: SocketAddr) -> Result<(), Error> {
    let config = read(path, |text| NodeConfig::read(text).map_err(|e| e.to_string()))?;
    let wrong = |why: String| Error::Config { path: path.to_owned(), why };
    let topic_id = topic_id(path, &config.ledger)?;
    let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    // Bound before the brokers are asked, so that a port that is taken is known at once.
    let buyers = node::port::bind(any(config.http_port))?;
    let control = node::port::bind(any(config.control_port))?;
    // A view that cannot be shown keeps nobody from selling.
    let live = node::port::bind(live)
        .inspect_err(|error| tracing::warn!(%live, %error, "there is no live view"))
        .ok();
    let address = SocketAddr::new(ip, config.control_port).to_string();
    let setup = Setup {
        me: Identity {
            node: name.parse().map_err(|e| wrong(format!("{e}")))?,
            address: address.parse().map_err(|e| wrong(format!("{e}")))?,
            incarnation: Incarnation(getrandom::u64().map_err(|e| wrong(e.to_string()))?),
            role: config.role,
            weight: config.pool.weight,
        },
        sale: config.sale.clone(),
        buyers,
        control,
        live,
        identity: config.identity.clone(),
        payment: config.payment.clone(),
        origins: config.origins.clone(),
        operator: Some(config.operator_key.parse().map_err(|e| wrong(format!("{e}")))?),
        redis: config.redis.as_ref().map(|r| r.address.clone()),
    };
    let (wish, wanted) = watch::channel(Wish::Serve);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::task::spawn_local(async move {
        terminate.recv().await;
        tracing::info!("draining");
        // The node has ended by itself if nobody listens.
        let _ = wish.send(Wish::Drain);
        std::future::pending::<()>().await;
    });
    let kafka = node::init::kafka(&config.kafka, name);
    let (ledger, board) = (config.ledger.topic.clone(), config.ledger.board_topic.clone());
    let board_kafka = kafka.clone();
    let ledger = reach(move || KafkaLedger::connect(&kafka, &ledger, CONNECT)).await;
    let board = reach(move || KafkaLedger::connect_for_news(&board_kafka, &board, CONNECT)).await;
    let topics = Topics { ledger: Arc::new(ledger), board: Arc::new(board), topic_id };
    node::run(setup, topics, wanted, |_| ()).await?;
    tracing::info!("drained");
    Ok(())
}

fn topic_id(path: &Path, ledger: &control::config::Ledger) -> Result<[u8; 16], Error> {
    let id = URL_SAFE_NO_PAD.decode(&ledger.topic_id).ok();
    id.and_then(|id| id.try_into().ok()).ok_or_else(|| Error::Config {
        path: path.to_owned(),
        why: "ledger.topicId: not a topic's id".to_owned(),
    })
}

async fn settle(path: &Path, name: &str) -> Result<(), Error> {
    let config = read(path, |text| SettleConfig::read(text).map_err(|e| e.to_string()))?;
    let topic_id = topic_id(path, &config.ledger)?;
    let port = SocketAddr::from((Ipv4Addr::UNSPECIFIED, config.http_port));
    let port = node::port::bind(port)?;
    let end = Arc::new(AtomicBool::new(false));
    let mut terminate = signal(SignalKind::terminate())?;
    let ending = Arc::clone(&end);
    tokio::task::spawn_local(async move {
        terminate.recv().await;
        ending.store(true, Ordering::Relaxed);
        std::future::pending::<()>().await;
    });
    let kafka = node::init::kafka(&config.kafka, name);
    Ok(node::settle::run(config, topic_id, kafka, name, port, end).await?)
}

/// Asks until a broker answers: a node that starts while Kafka is away waits for it.
async fn reach<F>(connect: F) -> KafkaLedger
where
    F: Fn() -> Result<KafkaLedger, ledger::kafka::Trouble> + Clone + Send + 'static,
{
    loop {
        match tokio::task::spawn_blocking(connect.clone()).await {
            Ok(Ok(ledger)) => return ledger,
            Ok(Err(trouble)) => tracing::warn!(%trouble, "waiting for the ledger"),
            Err(error) => tracing::error!(%error, "waiting for the ledger"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
