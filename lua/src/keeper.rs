//! One connection to Redis, and the task that replaces it when it is lost.
//!
//! A caller never waits for a connection: without one it hears so at once and has its fold. A
//! command without an answer proves nothing yet, so the task then asks the connection itself;
//! a server that hangs, or a machine that is gone without closing its connections, does not
//! answer that either.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{AsyncConnectionConfig, Client, aio::MultiplexedConnection};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use crate::Failure;

/// How long connecting may take, and the answer to the question whether it is alive.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often a connection is asked while nobody complains. `RedisReady` wants a word of the
/// last ten seconds.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Between attempts to connect: at first, and at most. A Redis that restarts is back in a
/// second; one that is away for an hour is asked once in two seconds.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Counts connections, so that a complaint about an old one does not harm its successor.
pub(crate) type Number = u64;

#[derive(Clone)]
pub(crate) struct Keeper {
    connection: watch::Receiver<Option<(Number, MultiplexedConnection)>>,
    answered: Arc<watch::Sender<Option<Instant>>>,
    /// Complaints. One waits at most: those that follow would say the same. The task ends when
    /// the last keeper drops this.
    suspects: mpsc::Sender<Number>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("answered", &self.answered()).finish_non_exhaustive()
    }
}

impl Keeper {
    pub(crate) fn start(address: &str) -> Result<Keeper, Failure> {
        let url = match address.contains("://") {
            true => address.to_owned(),
            false => format!("redis://{address}"),
        };
        let client = Client::open(url).map_err(Failure::Address)?;
        let (publish, connection) = watch::channel(None);
        let answered = Arc::new(watch::channel(None).0);
        let (suspects, complaints) = mpsc::channel(1);
        let heard = Arc::clone(&answered);
        tokio::spawn(Task { client, publish, heard, complaints, number: 0 }.run());
        Ok(Keeper { connection, answered, suspects })
    }

    pub(crate) fn connection(&self) -> Option<(Number, MultiplexedConnection)> {
        self.connection.borrow().clone()
    }

    /// Notes that Redis answered.
    pub(crate) fn heard(&self) {
        self.answered.send_replace(Some(Instant::now()));
    }

    pub(crate) fn answered(&self) -> Option<Instant> {
        *self.answered.borrow()
    }

    /// Notes that a connection gave no answer.
    pub(crate) fn suspect(&self, connection: Number) {
        let _ = self.suspects.try_send(connection);
    }
}

struct Task {
    client: Client,
    publish: watch::Sender<Option<(Number, MultiplexedConnection)>>,
    heard: Arc<watch::Sender<Option<Instant>>>,
    complaints: mpsc::Receiver<Number>,
    number: Number,
}

impl Task {
    async fn run(mut self) {
        while let Some(connection) = self.connect().await {
            self.number += 1;
            self.publish.send_replace(Some((self.number, connection.clone())));
            tracing::debug!(number = self.number, "connected to Redis");
            let Some(why) = self.until_lost(connection).await else { return };
            self.publish.send_replace(None);
            tracing::warn!(number = self.number, why, "the connection to Redis is lost");
        }
    }

    /// None when nobody needs a connection any more.
    async fn connect(&self) -> Option<MultiplexedConnection> {
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            // Callers have budgets of their own, and stop waiting by them.
            .set_response_timeout(Some(PATIENCE));
        let mut pause = PAUSE_MIN;
        while !self.complaints.is_closed() {
            let attempt = self.client.get_multiplexed_async_connection_with_config(&settings);
            let why = match timeout(2 * PATIENCE, attempt).await {
                Ok(Ok(mut connection)) => match ask(&mut connection).await {
                    Ok(()) => {
                        self.heard.send_replace(Some(Instant::now()));
                        return Some(connection);
                    }
                    Err(why) => why,
                },
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it takes too long".to_owned(),
            };
            tracing::debug!(why, "cannot connect to Redis");
            sleep(pause).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
        None
    }

    /// Why the connection is lost; None when nobody needs it any more.
    async fn until_lost(&mut self, mut connection: MultiplexedConnection) -> Option<String> {
        loop {
            match timeout(ASK_EVERY, self.complaints.recv()).await {
                Ok(None) => return None,
                Ok(Some(number)) if number != self.number => continue,
                Ok(Some(_)) | Err(_) => {}
            }
            match ask(&mut connection).await {
                Ok(()) => {
                    self.heard.send_replace(Some(Instant::now()));
                }
                Err(why) => return Some(why),
            }
        }
    }
}

async fn ask(connection: &mut MultiplexedConnection) -> Result<(), String> {
    let ping = redis::cmd("PING");
    match timeout(PATIENCE, ping.query_async::<()>(connection)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    }
}
