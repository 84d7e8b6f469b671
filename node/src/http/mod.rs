//! The buyers' port: accept, route, answer.
//!
//! Eleven routes are a `match`; every error is a problem (RFC 9457), every body has a limit.

pub mod orders;
pub mod problem;
pub mod runs;

use std::convert::Infallible;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use inventory::board::NodeState;
use tokio::task::JoinHandle;

use crate::station::Station;
use problem::Problem;

/// Connections at once. Each costs some 20 KiB, so that a full house stays under 200 MiB; a
/// gateway multiplexes more buyers than this over far fewer.
const CONNECTIONS_MAX: usize = 8_192;
/// An order of 16 passengers has about 2 KiB.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// Whoever needs longer for a request line and headers is not a buyer.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Nor whoever needs longer for 16 KiB.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that the kernel holds while a turn is under way.
const BACKLOG: i32 = 4_096;

/// An answer.
pub type Reply = Response<Full<Bytes>>;

/// What handlers need beside the station.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) station: Rc<Station>,
    pub(crate) buyer_header: HeaderName,
}

/// Binds a port for [`listen`].
///
/// # Errors
/// What the system says, such as that the address is in use.
pub fn bind(address: std::net::SocketAddr) -> std::io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A port whose last owner just ended is not "in use".
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves buyers until the task is ended.
///
/// # Errors
/// What the system says of the listener.
pub fn listen(
    station: Rc<Station>,
    listener: TcpListener,
    buyer_header: HeaderName,
) -> std::io::Result<JoinHandle<()>> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let shop = Rc::new(Shop { station, buyer_header });
    Ok(tokio::task::spawn_local(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let open = shop.station.connections.get();
                    // Over the limit the connection is closed at once: a client tries again, and
                    // a load balancer elsewhere.
                    if open < CONNECTIONS_MAX {
                        shop.station.connections.set(open + 1);
                        tokio::task::spawn_local(serve(Rc::clone(&shop), stream));
                    }
                }
                Err(error) => {
                    // Out of descriptors: the connections that end make room.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }))
}

async fn serve(shop: Rc<Shop>, stream: tokio::net::TcpStream) {
    let service = {
        let shop = Rc::clone(&shop);
        service_fn(move |request| {
            let shop = Rc::clone(&shop);
            async move { Ok::<_, Infallible>(answer(&shop, request).await) }
        })
    };
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).pipeline_flush(true);
    // A connection that ends badly is the client's affair.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
    shop.station.connections.set(shop.station.connections.get() - 1);
}

async fn answer(shop: &Rc<Shop>, request: Request<Incoming>) -> Reply {
    let head = request.method() == Method::HEAD;
    let mut reply = route(shop, request).await.unwrap_or_else(Problem::into_reply);
    if shop.station.world.borrow().state() == NodeState::Draining {
        reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if head {
        *reply.body_mut() = Full::default();
    }
    reply
}

async fn route(shop: &Rc<Shop>, request: Request<Incoming>) -> Result<Reply, Problem> {
    let method = request.method().clone();
    let path = request.uri().path().trim_end_matches('/').to_owned();
    let query = request.uri().query().unwrap_or("").to_owned();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let get = method == Method::GET || method == Method::HEAD;
    match (&method, segments.as_slice()) {
        (_, ["livez"]) if get => Ok(text(StatusCode::OK, "ok\n")),
        (_, ["readyz"]) if get => Ok(ready(&shop.station)),
        (_, ["metrics"]) if get => Ok(metrics(&shop.station)),
        (_, ["v1", "runs"]) if get => runs::list(shop, &request, &query),
        (_, ["v1", "runs", train, date]) if get => runs::one(shop, &request, train, date, &query),
        (&Method::POST, ["v1", "orders"]) => orders::place(shop, request).await,
        (_, ["v1", "orders", id]) if get => orders::read(shop, &request, id).await,
        (&Method::DELETE, ["v1", "orders", id]) => orders::cancel(shop, &request, id).await,
        (&Method::POST, ["v1", "orders", id, "payment"]) => {
            let id = (*id).to_owned();
            orders::pay(shop, request, &id).await
        }
        (_, ["livez" | "readyz" | "metrics"] | ["v1", "runs"] | ["v1", "runs", _, _]) => {
            Err(Problem::method_not_allowed("GET, HEAD"))
        }
        (_, ["v1", "orders"]) => Err(Problem::method_not_allowed("POST")),
        (_, ["v1", "orders", _]) => Err(Problem::method_not_allowed("GET, HEAD, DELETE")),
        (_, ["v1", "orders", _, "payment"]) => Err(Problem::method_not_allowed("POST")),
        _ => Err(Problem::no_such_page()),
    }
}

fn ready(station: &Station) -> Reply {
    match station.world.borrow().state() {
        NodeState::Ready => text(StatusCode::OK, "ready\n"),
        NodeState::Starting => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        NodeState::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

fn metrics(station: &Station) -> Reply {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    reply(StatusCode::OK, kind, station.metrics.text())
}

fn text(status: StatusCode, body: &'static str) -> Reply {
    reply(status, "text/plain; charset=utf-8", body)
}

/// An answer with a body of some type.
pub(crate) fn reply(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    let value = HeaderValue::from_static(content_type);
    reply.headers_mut().insert(header::CONTENT_TYPE, value);
    reply
}

/// The whole body, within its limits.
pub(crate) async fn body(request: Request<Incoming>) -> Result<Bytes, Problem> {
    let limited = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_TIMEOUT, limited).await {
        Err(_) => Err(Problem::body_too_slow()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Problem::body_too_large(BODY_BYTES_MAX))
        }
        Ok(Err(_)) => Err(Problem::malformed("the body did not arrive whole")),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}
