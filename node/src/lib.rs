//! A node: sells seats over HTTP from the shares that it owns.
//!
//! In reading order, along a purchase:
//! - [`http`]: a request becomes a command for a share.
//! - [`desk`]: where it waits for the worker.
//! - `worker`: a core's turn; drives the machines of `inventory` over the ledger.
//! - [`station`]: what the tasks of one core share.
//! - [`courier`], `line`: the way to the owner on another node.
//! - `candidates`: folding and claiming shares, beside the serving thread.
//! - `draw`: blocks from the pool.
//! - [`control`]: the operator's and the peers' port.

pub mod control;
pub mod courier;
pub mod desk;
pub mod http;
pub mod plain;
pub mod port;
pub mod station;
pub mod telemetry;

mod candidates;
mod draw;
mod fetch;
mod front;
#[cfg(feature = "kafka")]
pub mod init;
mod kept;
mod line;
#[cfg(feature = "kafka")]
pub mod settle;
mod worker;

use std::net::TcpListener;
use std::rc::Rc;

use ::control::signature::PublicKey;
use inventory::conductor;
use tokio::sync::{mpsc, watch};

pub use station::{Identity, Role, Station};

/// Where a node gets its handles on the ledger and the board.
pub trait Ledgers: Send + 'static {
    /// The ledger: partition 0 is the pool, `i` is share `i`.
    type Log: ledger::Log;
    /// The board: one partition.
    type Board: ledger::Log;
    /// The ledger's name.
    fn name(&self) -> &str;
    /// The topic id that Genesis must name, where the log is a Kafka topic.
    fn topic_id(&self) -> Option<[u8; 16]> {
        None
    }
    /// A handle of its own for one thread.
    fn log(&self) -> Self::Log;
    /// A handle of its own for one thread.
    fn board(&self) -> Self::Board;
}

/// What a node needs beside the ledger.
#[derive(Debug)]
pub struct Setup {
    /// Who it is.
    pub me: Identity,
    /// The sale, `namespace/name`: what the operator's signatures name.
    pub sale: String,
    /// Where buyers connect; bound already, so that a port that is taken is a clear error.
    pub buyers: TcpListener,
    /// Where the operator and other nodes connect.
    pub control: TcpListener,
    /// Where whoever runs the sale looks on; none serves no live view.
    pub live: Option<TcpListener>,
    /// How it is known who a buyer is.
    pub identity: ::control::config::Identity,
    /// How it is known that an order is paid.
    pub payment: ::control::config::Payment,
    /// Origins of other sites whose pages may ask, `*` for all.
    pub origins: Vec<String>,
    /// The operator's key; none in local mode, where nobody signs.
    pub operator: Option<PublicKey>,
    /// The Redis that helps to draw, `host:port`.
    pub redis: Option<String>,
}

/// Why a node could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine refused a socket, a thread or a file.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A setting cannot be used.
    #[error("{0}")]
    Setting(String),
    /// The ledger could not be read at all.
    #[error("the ledger: {0}")]
    Ledger(#[from] ledger::Torn),
}

/// What whoever runs a node wants of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Serve.
    Serve,
    /// Give the shares up, finish what waits, end.
    Drain,
    /// End at once, as if the process were killed.
    Kill,
}

/// Partition 0 before its first record.
fn empty_pool<S: Ledgers>(ledgers: &S) -> inventory::pool::Pool {
    let pool = inventory::pool::Pool::new(ledgers.name());
    match ledgers.topic_id() {
        Some(id) => pool.expecting(id),
        None => pool,
    }
}

/// Runs a node on this thread until it was drained or killed. To be called in a `LocalSet` of
/// a current-thread runtime.
///
/// # Errors
/// [`Error`] if it could not begin.
pub async fn run<S: Ledgers>(
    setup: Setup,
    ledgers: S,
    mut wish: watch::Receiver<Wish>,
    on_start: impl FnOnce(Rc<Station>),
) -> Result<(), Error> {
    let (mail, inbox) = mpsc::channel(station::MAIL_MAX);
    let drawer = draw::Drawer::new(setup.redis);
    let station = Station::new(setup.me, empty_pool(&ledgers), drawer, mail);
    on_start(Rc::clone(&station));
    let front = front::open(&setup.sale, &setup.identity, &setup.payment, &setup.origins)?;
    let buyers = http::listen(Rc::clone(&station), setup.buyers, front)?;
    let live =
        setup.live.map(|live| http::live::listen(Rc::clone(&station), live, setup.sale.clone()));
    let live = live.transpose()?;
    let operator = control::Guard { sale: setup.sale, key: setup.operator };
    let control = control::listen(Rc::clone(&station), setup.control, operator)?;
    let worker = worker::Worker::new(Rc::clone(&station), ledgers, inbox).await?;
    let mut worker = tokio::task::spawn_local(worker.run());
    loop {
        tokio::select! {
            _ = &mut worker => break,
            changed = wish.changed() => {
                let wanted = *wish.borrow_and_update();
                if changed.is_err() || wanted == Wish::Kill {
                    worker.abort();
                    break;
                }
                if wanted == Wish::Drain {
                    station.post(station::Mail::Conductor(conductor::Mail::Drain));
                }
            }
        }
    }
    buyers.abort();
    control.abort();
    if let Some(live) = live {
        live.abort();
    }
    Ok(())
}
