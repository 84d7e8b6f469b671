//! Local mode: planner and nodes in one process, the ledger in a file.
//!
//! It composes what a cluster composes, with a file for Kafka, memory for the board and threads
//! for pods. Nothing here decides about seats.

mod admin;
mod fleet;
mod founding;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sell the tickets of a TrainSale on this machine: a whole fleet in one process.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    /// A TrainSale in YAML, such as examples/demo.yaml.
    file: PathBuf,
    /// Where the ledger is kept; default: .stationmaster/NAME.ledger beside the file.
    #[arg(long)]
    ledger: Option<PathBuf>,
    /// Nodes that sell.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    nodes: u16,
    /// Port of the first node; the others have the next ones.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    port: u16,
    /// Port on which to look at nodes and to kill them.
    #[arg(long, default_value_t = 8079)]
    admin_port: u16,
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("LOG_LEVEL").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(fleet::Error::from).and_then(|runtime| {
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, run(arguments))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), fleet::Error> {
    let sale = founding::read(&arguments.file)?;
    let path =
        arguments.ledger.clone().unwrap_or_else(|| founding::default_path(&arguments.file, &sale));
    let opened = founding::open(&path, &sale).await?;
    let said = opened.said.clone();
    let fleet = fleet::Fleet::start(&arguments, &sale, opened)?;
    println!("{said}");
    let mut fleet = std::pin::pin!(admin::serve(&arguments, fleet));
    tokio::select! {
        result = &mut fleet => result,
        _ = tokio::signal::ctrl_c() => {
            println!("\nEvery confirmed order is in {}.", path.display());
            Ok(())
        }
    }
}
