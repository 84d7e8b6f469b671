//! What the kubelet and Prometheus ask: /livez and /readyz on one port, /metrics on another.

use std::convert::Infallible;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::telemetry::Metrics;

/// Connections at once: the kubelet and a few Prometheus; more wait their turn.
const CONNECTIONS_MAX: usize = 16;

/// Who does not ask within this time is none of these.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the API server may not have answered before this process is not ready. A lease that
/// is held is lost sooner and ends the process, so this is about one that waits.
const SILENT_MAX: Duration = Duration::from_secs(60);

/// What is told.
#[derive(Debug, Clone)]
pub struct Health {
    /// When the API server last answered.
    pub alive: watch::Receiver<Instant>,
    /// What was counted.
    pub metrics: Metrics,
}

/// Serves both ports until the process ends.
///
/// # Errors
/// What the system says of the ports.
pub async fn listen(health: Health, probes: u16, metrics: u16) -> std::io::Result<()> {
    for port in [probes, metrics] {
        // Both families, as far as the machine has them.
        let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind(("0.0.0.0", port)).await?,
        };
        tokio::spawn(accept(listener, health.clone()));
    }
    Ok(())
}

async fn accept(listener: TcpListener, health: Health) {
    let seats = std::sync::Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(seat) = std::sync::Arc::clone(&seats).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: connections that end make room.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let health = health.clone();
        tokio::spawn(async move {
            serve(stream, health).await;
            drop(seat);
        });
    }
}

async fn serve(stream: TcpStream, health: Health) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (status, body) = answer(request.uri().path(), &health);
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).keep_alive(false);
    // A connection that ends badly is the asker's affair.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

fn answer(path: &str, health: &Health) -> (StatusCode, String) {
    match path {
        // That this is answered says that the one thread on which everything runs turns.
        "/livez" => (StatusCode::OK, "ok".to_owned()),
        "/readyz" => {
            let silent = health.alive.borrow().elapsed();
            if silent <= SILENT_MAX {
                return (StatusCode::OK, "ok".to_owned());
            }
            let why = format!("the API server has not answered for {} s", silent.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, why)
        }
        "/metrics" => (StatusCode::OK, health.metrics.text()),
        _ => (StatusCode::NOT_FOUND, "no such page".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_that_the_api_server_does_not_answer_is_not_ready_but_lives() {
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        let (alive, receiver) = watch::channel(Instant::now());
        let health = Health { alive: receiver, metrics: Metrics::new() };
        assert_eq!(answer("/readyz", &health).0, StatusCode::OK);
        alive.send_replace(ago(61));
        assert_eq!(answer("/readyz", &health).0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer("/livez", &health).0, StatusCode::OK);
    }
}
