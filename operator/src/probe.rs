//! How the operator reaches a node: signed requests to its control port, each with an end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use control::posting::{Posted, Posting};
use control::report::{InForce, Report};
use control::signature::{HEADER, OperatorKey, Request as Signed};
use control::{BODY_BYTES_MAX, PLAN_PATH, REPORT_PATH, STATE_PATH};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use inventory::words::Millis;
use serde::de::DeserializeOwned;

/// A node answers a report from memory, in under a millisecond: who needs this long is as good
/// as silent, and three such probes fit into the time after which it is held to be dead.
const REPORT_TIMEOUT: Duration = Duration::from_millis(500);

/// What partition 0 says can be long.
const STATE_TIMEOUT: Duration = Duration::from_secs(3);

/// A node waits 3 s for the ledger before it gives a posting up.
const POST_TIMEOUT: Duration = Duration::from_millis(3_500);

/// Why a node did not answer as it should. Variants are metric labels.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum ProbeError {
    /// It did not answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// Its machine says that nothing listens there: the process has ended.
    #[error("nothing listens on its control port")]
    Closed,
    /// It could not be reached, or the connection broke.
    #[error("{0}")]
    Connection(String),
    /// It refused.
    #[error("{status}: {why}")]
    Refused {
        /// The status of its answer.
        status: StatusCode,
        /// The beginning of its answer.
        why: String,
    },
    /// It answered something else than it was asked for.
    #[error("its answer cannot be read: {0}")]
    Unreadable(String),
}

/// Asks the nodes of one sale.
#[derive(Debug, Clone)]
pub struct Prober {
    http: Client<HttpConnector, Full<Bytes>>,
    key: Arc<OperatorKey>,
    sale: String,
    port: u16,
}

impl Prober {
    /// For the nodes of `sale`, which is `namespace/name`, at their control `port`.
    #[must_use]
    pub fn new(key: Arc<OperatorKey>, sale: String, port: u16) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(REPORT_TIMEOUT));
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(5))
            .pool_max_idle_per_host(2)
            .build(connector);
        Self { http, key, sale, port }
    }

    /// How a node does.
    ///
    /// # Errors
    /// [`ProbeError`] says how it did not answer.
    pub async fn report(&self, node: &str, ip: &str) -> Result<Report, ProbeError> {
        self.ask(Method::GET, node, ip, REPORT_PATH, Bytes::new(), REPORT_TIMEOUT).await
    }

    /// What partition 0 says.
    ///
    /// # Errors
    /// As above.
    pub async fn state(&self, node: &str, ip: &str) -> Result<InForce, ProbeError> {
        self.ask(Method::GET, node, ip, STATE_PATH, Bytes::new(), STATE_TIMEOUT).await
    }

    /// Has a record appended to partition 0.
    ///
    /// # Errors
    /// As above. Whether the record was written is then unknown.
    pub async fn post(
        &self,
        node: &str,
        ip: &str,
        posting: &Posting,
    ) -> Result<Posted, ProbeError> {
        let body = serde_json::to_vec(posting);
        let body = body.map_err(|e| ProbeError::Unreadable(e.to_string()))?;
        self.ask(Method::POST, node, ip, PLAN_PATH, body.into(), POST_TIMEOUT).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        node: &str,
        ip: &str,
        path: &'static str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<T, ProbeError> {
        let exchange = self.exchange(method, node, ip, path, body);
        let answer = tokio::time::timeout(timeout, exchange).await;
        let (status, body) = answer.map_err(|_| ProbeError::Timeout(timeout))??;
        if status != StatusCode::OK {
            let why = String::from_utf8_lossy(&body).chars().take(200).collect();
            return Err(ProbeError::Refused { status, why });
        }
        serde_json::from_slice(&body).map_err(|e| ProbeError::Unreadable(e.to_string()))
    }

    async fn exchange(
        &self,
        method: Method,
        node: &str,
        ip: &str,
        path: &'static str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ProbeError> {
        let broken = |e: &(dyn std::error::Error + 'static)| {
            if is_closed(e) { ProbeError::Closed } else { ProbeError::Connection(chain(e)) }
        };
        let signed = Signed { method: method.as_str(), path, body: &body, sale: &self.sale, node };
        let signature = self.key.sign(time_of_day(), &signed);
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{host}:{}{path}", self.port))
            .header(HEADER, signature)
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|e| broken(&e))?;
        let answer = self.http.request(request).await.map_err(|e| broken(&e))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|e| broken(e.as_ref()))?.to_bytes();
        Ok((status, body))
    }
}

/// Whether the connection was refused by the other machine's kernel.
fn is_closed(error: &(dyn std::error::Error + 'static)) -> bool {
    let refused = |e: &std::io::Error| e.kind() == std::io::ErrorKind::ConnectionRefused;
    let mut causes = std::iter::successors(Some(error), |e| e.source());
    causes.any(|e| e.downcast_ref().is_some_and(refused))
}

/// An error with its causes: the outermost alone says that "a client error" happened.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    if causes.is_empty() { error.to_string() } else { format!("{error}: {}", causes.join(": ")) }
}

/// The time of day in milliseconds.
#[must_use]
pub fn time_of_day() -> Millis {
    Millis(u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use control::posting::{Amend, Record};
    use hyper::Response;
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    use super::*;

    const SALE: &str = "tickets/demo";

    fn key() -> Arc<OperatorKey> {
        Arc::new(OperatorKey::from_seed(&[7; 32]))
    }

    fn prober(port: u16) -> Prober {
        Prober::new(key(), SALE.to_owned(), port)
    }

    /// A node that believes what the operator has signed for the node `a`, and answers with
    /// what it was told.
    async fn node() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service_fn(answer)));
            }
        });
        port
    }

    async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let signed = Signed {
            method: head.method.as_str(),
            path: head.uri.path(),
            body: &body,
            sale: SALE,
            node: "a",
        };
        let header = head.headers.get(HEADER).and_then(|value| value.to_str().ok());
        let believed = key().public().verify(time_of_day(), header, &signed);
        let mut response = Response::new(match (&believed, head.uri.path()) {
            (Ok(()), PLAN_PATH) => Full::new(r#"{"offset":7}"#.into()),
            (Ok(()), _) => Full::new("{}".into()),
            (Err(why), _) => Full::new(why.to_string().into()),
        });
        if believed.is_err() {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        Ok(response)
    }

    fn posting() -> Posting {
        let definition = crds::definition::found(&crate::validate::tests::minimal()).unwrap();
        let amend = Amend { version: 2, definition: definition.into() };
        let (operator, reason) = ("o".to_owned(), "r".to_owned());
        Posting { operator, reason, record: Record::Amend(amend) }
    }

    #[tokio::test]
    async fn a_node_believes_what_the_operator_posts_and_tells_where_it_is() {
        let prober = prober(node().await);
        let posted = prober.post("a", "127.0.0.1", &posting()).await.unwrap();
        assert_eq!(posted.offset, Some(7));
    }

    #[tokio::test]
    async fn what_is_meant_for_another_node_is_refused_and_says_why() {
        let prober = prober(node().await);
        let refused = prober.report("b", "127.0.0.1").await;
        let Err(ProbeError::Refused { status, why }) = refused else { panic!("{refused:?}") };
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(why.contains("not the operator's"), "{why}");
    }

    #[tokio::test]
    async fn an_answer_that_is_no_report_is_no_sign_of_life() {
        let prober = prober(node().await);
        let answer = prober.report("a", "127.0.0.1").await;
        assert!(matches!(answer, Err(ProbeError::Unreadable(_))), "{answer:?}");
    }

    #[tokio::test]
    async fn a_node_that_hangs_costs_half_a_second_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let prober = prober(listener.local_addr().unwrap().port());
        let asked = std::time::Instant::now();
        let answer = prober.report("a", "127.0.0.1").await;
        assert!(matches!(answer, Err(ProbeError::Timeout(_))), "{answer:?}");
        assert!(asked.elapsed() >= REPORT_TIMEOUT);
    }

    #[tokio::test]
    async fn a_node_that_is_gone_is_known_to_be_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let answer = prober(port).report("a", "127.0.0.1").await;
        assert!(matches!(answer, Err(ProbeError::Closed)), "{answer:?}");
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_no_proof_that_a_node_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let prober = prober(listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream);
            }
        });
        let answer = prober.report("a", "127.0.0.1").await;
        assert!(matches!(answer, Err(ProbeError::Connection(_))), "{answer:?}");
    }
}
