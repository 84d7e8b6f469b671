//! Commands to other nodes: one request, one answer, over pooled connections.
//!
//! A command travels in bytes of `inventory::message`, with a keyed hash that only nodes of
//! the same ledger can make. It is sent once; whether it may be sent again is the caller's
//! decision.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use inventory::conductor::Lost;
use inventory::message::{decode_answer, encode_command};
use inventory::owner::Answer;
use inventory::state::Command;
use inventory::words::{Address, Digest128, LedgerKey, ShareId};

/// Where a peer takes commands, on its control port.
pub const PEER_PATH: &str = "/peer/v1/command";
/// The header with the keyed hash of the body.
pub const PEER_HEADER: &str = "stationmaster-peer";

/// An owner answers within 3 s, if only "unknown".
const TIMEOUT: Duration = Duration::from_millis(3_500);
/// A peer that is cut off must not hold a buyer: the owner may be another by then.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// An answer has at most 16 seats: a few hundred bytes.
const ANSWER_BYTES_MAX: usize = 4_096;

/// The keyed hash that a command carries.
#[must_use]
pub fn seal(key: &LedgerKey, body: &[u8]) -> Digest128 {
    key.hash(9, &[body])
}

/// The way to other nodes.
#[derive(Debug, Clone)]
pub struct Courier(Client<HttpConnector, Full<Bytes>>);

impl Default for Courier {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }
}

impl Courier {
    /// Sends a command for `share` to the node at `to`, once.
    ///
    /// # Errors
    /// [`Lost`] if no answer came back.
    pub async fn send(
        &self,
        to: Address,
        key: &LedgerKey,
        share: ShareId,
        command: &Command,
    ) -> Result<Answer, Lost> {
        let body = encode_command(share, command);
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{to}{PEER_PATH}"))
            .header(PEER_HEADER, seal(key, &body).to_string())
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| Lost::NotSent)?;
        let exchange = async {
            let response = self
                .0
                .request(request)
                .await
                .map_err(|e| if e.is_connect() { Lost::NotSent } else { Lost::Unknown })?;
            if response.status() != StatusCode::OK {
                return Err(Lost::NotSent);
            }
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let bytes = body.map_err(|_| Lost::Unknown)?.to_bytes();
            decode_answer(&bytes).map_err(|_| Lost::Unknown)
        };
        tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or(Err(Lost::Unknown))
    }
}
