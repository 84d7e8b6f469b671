//! The buyers' port: accept, route, answer.
//!
//! The routes are a `match`; every error is a problem (RFC 9457), every body has a limit.

mod contract;
mod cors;
pub mod identity;
pub mod live;
pub mod orders;
mod page;
mod pages;
pub mod payment;
pub mod problem;
pub mod runs;
mod sale;

use std::net::{IpAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use inventory::board::NodeState;
use tokio::task::JoinHandle;

use crate::plain::{BODY_BYTES_MAX, Plain, Telling};
use crate::port::{self, Clerk, Reply, Upgrades};
use crate::station::Station;
pub use cors::Origins;
use identity::Identity;
use payment::Provider;
use problem::Problem;

/// Connections at once. One that waits costs 3 KiB, or 24 if it is hyper's; one with a large request
/// that is not whole has 32 more, for ten seconds at most. A gateway multiplexes more buyers than
/// this over far fewer.
const CONNECTIONS_MAX: usize = 8_192;
/// Bytes of a larger body that are read to be thrown away: a mistake, not an attack.
const BODY_DROPPED_MAX: usize = 1024 * 1024;
/// Whoever needs longer for 16 KiB is not a buyer.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Headers of an answer, with those that hyper adds.
const HEADERS_USUAL: usize = 12;
/// Times that are written down: those below 25 milliseconds.
const TIMINGS_KEPT: usize = 250;
/// Parts of a path that are looked at: one more than any page has.
const SEGMENTS_MAX: usize = 5;
/// How long the node took, for whoever looks into a browser's network view (W3C Server Timing).
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// How buyers are met.
#[derive(Debug)]
pub struct Front {
    /// How the sale is called.
    pub name: String,
    /// How it is known who they are.
    pub identity: Identity,
    /// How it is known that they have paid.
    pub payment: Provider,
    /// Which other sites' pages may ask.
    pub origins: Origins,
}

/// What handlers need beside the station.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) station: Rc<Station>,
    pub(crate) front: Front,
    pub(crate) pages: pages::Pages,
    timings: Timings,
    contract: contract::Contract,
}

/// What the node says of how long it took, in tenths of a millisecond. Nearly all times are short;
/// those are written down once.
#[derive(Debug)]
struct Timings(Vec<HeaderValue>);

impl Timings {
    fn new() -> Self {
        Self((0..TIMINGS_KEPT).map(Self::value).collect())
    }

    fn value(tenths: usize) -> HeaderValue {
        let text = format!("node;dur={}.{}", tenths / 10, tenths % 10);
        // Letters and digits are a header's value.
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("node"))
    }

    fn of(&self, took: Duration) -> HeaderValue {
        let tenths = usize::try_from(took.as_micros() / 100).unwrap_or(usize::MAX);
        self.0.get(tenths).cloned().unwrap_or_else(|| Self::value(tenths))
    }
}

/// A connection, as handlers see it.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) shop: Rc<Shop>,
    pub(crate) peer: IpAddr,
}

/// Serves buyers until the task is ended.
///
/// # Errors
/// What the system says of the listener.
pub fn listen(
    station: Rc<Station>,
    listener: TcpListener,
    front: Front,
) -> std::io::Result<JoinHandle<()>> {
    let contract = contract::Contract::of(&front);
    let open = Rc::clone(&station.connections);
    let (pages, timings) = (pages::Pages::default(), Timings::new());
    let shop = Rc::new(Shop { station, front, pages, timings, contract });
    port::listen(listener, Upgrades::Never, open, CONNECTIONS_MAX, move |peer| {
        Rc::new(Visit { shop: Rc::clone(&shop), peer })
    })
}

/// What a plain request asks for, and what came of it.
#[derive(Debug)]
pub(crate) struct Plainly<W> {
    began: Instant,
    origin: Option<HeaderValue>,
    work: W,
}

#[derive(Debug)]
pub(crate) enum Work {
    /// A new order, which is what the others wait for.
    Place(orders::Asked),
    Refuse(Problem),
    Other(Box<Request<Bytes>>),
}

#[derive(Debug)]
pub(crate) enum Done {
    /// An order: it is written straight into the connection's room.
    Placed(inventory::owner::Answer),
    Other(Result<Reply, Problem>),
}

impl Clerk for Rc<Visit> {
    type Errand = Plainly<Work>;
    type Outcome = Plainly<Done>;

    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let began = Instant::now();
        let (head, incoming) = request.into_parts();
        let origin = self.shop.front.origins.asked(&head.headers);
        let reply = match body(incoming).await {
            Ok(body) => route(self, Request::from_parts(head, body)).await,
            Err(problem) => Err(problem),
        };
        self.dressed(reply, began, origin)
    }

    fn read(&self, request: &Plain<'_>) -> Option<Plainly<Work>> {
        let began = Instant::now();
        let origin = self.shop.front.origins.asked(request.fields);
        let work = if request.method == "POST" && request.target == "/v1/orders" {
            match orders::asked(self, request.fields, request.body) {
                Ok(asked) => Work::Place(asked),
                Err(problem) => Work::Refuse(problem),
            }
        } else {
            Work::Other(Box::new(request.owned()?))
        };
        Some(Plainly { began, origin, work })
    }

    async fn run(&self, errand: Plainly<Work>) -> Plainly<Done> {
        let Plainly { began, origin, work } = errand;
        let work = match work {
            Work::Place(asked) => Done::Placed(orders::place(&self.shop.station, asked).await),
            Work::Refuse(problem) => Done::Other(Err(problem)),
            Work::Other(request) => Done::Other(Box::pin(route(self, *request)).await),
        };
        Plainly { began, origin, work }
    }

    fn tell(&self, outcome: Plainly<Done>, to: &mut Telling<'_>) {
        let Plainly { began, origin, work } = outcome;
        let reply = match work {
            Done::Placed(answer) => match orders::tell(&self.shop.station, answer, to) {
                Ok(()) => {
                    return self.always(began, origin, |name, value| to.field(&name, &value));
                }
                Err(problem) => Err(problem),
            },
            Done::Other(reply) => reply,
        };
        to.reply(&self.dressed(reply, began, origin));
    }
}

impl Visit {
    /// An answer with what all of them say.
    fn dressed(
        &self,
        reply: Result<Reply, Problem>,
        began: Instant,
        origin: Option<HeaderValue>,
    ) -> Reply {
        let mut reply = reply.unwrap_or_else(Problem::into_reply);
        let headers = reply.headers_mut();
        self.always(began, origin, |name, value| {
            // A page may vary by more than one thing; all else is said once.
            if name == header::VARY {
                headers.append(name, value);
            } else {
                headers.insert(name, value);
            }
        });
        reply
    }

    /// What all answers say.
    fn always(
        &self,
        began: Instant,
        origin: Option<HeaderValue>,
        mut say: impl FnMut(HeaderName, HeaderValue),
    ) {
        let shop = &self.shop;
        if shop.station.world.borrow().state() == NodeState::Draining {
            say(header::CONNECTION, HeaderValue::from_static("close"));
        }
        say(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        say(SERVER_TIMING, shop.timings.of(began.elapsed()));
        shop.front.origins.allow(origin, say);
    }
}

/// The pages that there are, and what they take.
fn methods(segments: &[&str]) -> Option<&'static str> {
    Some(match segments {
        []
        | ["page", _, _]
        | ["livez" | "readyz" | "metrics" | "openapi.json"]
        | ["v1", "sale" | "runs"]
        | ["v1", "runs", _, _] => "GET, HEAD",
        ["v1", "orders"] => "GET, HEAD, POST",
        ["v1", "orders", _] => "GET, HEAD, DELETE",
        ["v1", "orders", _, "payment"] => "POST",
        _ => return None,
    })
}

async fn route(visit: &Visit, request: Request<Bytes>) -> Result<Reply, Problem> {
    let shop = &visit.shop;
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let path = uri.path().trim_end_matches('/');
    // No page has so many that the last place would be taken.
    let segments: ArrayVec<&str, SEGMENTS_MAX> =
        path.split('/').skip(1).take(SEGMENTS_MAX).collect();
    // Boxed is what asks more than one question or is rarely asked: every request has the size of
    // the largest route, and is moved from hand to hand.
    let get = method == Method::GET || method == Method::HEAD;
    match (&method, segments.as_slice()) {
        (_, []) if get => Ok(page::index(&request)),
        (_, ["page", hash, name]) if get => page::asset(&request, hash, name),
        (_, ["livez"]) if get => Ok(text(StatusCode::OK, "ok\n")),
        (_, ["readyz"]) if get => Ok(ready(&shop.station)),
        (_, ["metrics"]) if get => Ok(metrics(&shop.station)),
        (_, ["openapi.json"]) if get => Ok(shop.contract.reply(&request)),
        (_, ["v1", "sale"]) if get => sale::describe(shop, &request),
        (_, ["v1", "runs"]) if get => runs::list(shop, &request),
        (_, ["v1", "runs", train, date]) if get => runs::one(shop, &request, train, date),
        (&Method::POST, ["v1", "orders"]) => {
            let asked = orders::asked(visit, request.headers(), request.body())?;
            drop(request);
            orders::finish(&shop.station, Box::pin(orders::place(&shop.station, asked)).await)
        }
        (_, ["v1", "orders"]) if get => Box::pin(orders::list(visit, &request)).await,
        (_, ["v1", "orders", id]) if get => Box::pin(orders::read(visit, &request, id)).await,
        (&Method::DELETE, ["v1", "orders", id]) => {
            Box::pin(orders::cancel(visit, &request, id)).await
        }
        (&Method::POST, ["v1", "orders", id, "payment"]) => {
            Box::pin(orders::pay(visit, &request, id)).await
        }
        (&Method::OPTIONS, segments) => {
            let allow = methods(segments).ok_or_else(Problem::no_such_page)?;
            Ok(shop.front.origins.preflight(allow, &shop.front.identity))
        }
        (_, segments) => match methods(segments) {
            Some(allow) => Err(Problem::method_not_allowed(allow)),
            None => Err(Problem::no_such_page()),
        },
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
    let mut reply = Response::new(body.into());
    *reply.status_mut() = status;
    // Room for what is added on the way out, so that the map does not grow meanwhile.
    *reply.headers_mut() = hyper::HeaderMap::with_capacity(HEADERS_USUAL);
    let value = HeaderValue::from_static(content_type);
    reply.headers_mut().insert(header::CONTENT_TYPE, value);
    reply
}

/// Whether the client has what has this tag (RFC 9110 13.1.2).
pub(crate) fn is_known(headers: &hyper::HeaderMap, tag: &str) -> bool {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let same = |t: &str| t.trim().trim_start_matches("W/") == tag;
    known.is_some_and(|k| k == "*" || k.split(',').any(same))
}

/// The strong tag of a content (RFC 9110 8.8.3).
pub(crate) fn tag_of(content: &[u8]) -> HeaderValue {
    let tag = format!("\"{}\"", &blake3::hash(content).to_hex()[..20]);
    // Digits and quotes are a header's value; were they not, nothing would ever be known.
    HeaderValue::try_from(tag).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// The answer with its tag, or 304 if the client has it.
pub(crate) fn tagged(
    headers: &hyper::HeaderMap,
    tag: &HeaderValue,
    cache: &'static str,
    content_type: &'static str,
    body: impl FnOnce() -> Bytes,
) -> Reply {
    let mut answer = if tag.to_str().is_ok_and(|tag| is_known(headers, tag)) {
        let mut answer = Reply::default();
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        answer
    } else {
        reply(StatusCode::OK, content_type, body())
    };
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    answer.headers_mut().insert(header::ETAG, tag.clone());
    answer
}

/// The whole body, within its limits.
async fn body(incoming: Incoming) -> Result<Bytes, Problem> {
    let mut whole = pin!(whole(incoming));
    // Nearly every body comes with its head, and needs no timer.
    if let Some(body) = whole.as_mut().now_or_never() {
        return body;
    }
    tokio::time::timeout(BODY_TIMEOUT, whole)
        .await
        .unwrap_or_else(|_| Err(Problem::body_too_slow()))
}

async fn whole(mut body: Incoming) -> Result<Bytes, Problem> {
    let broken = || Problem::malformed("the body did not arrive whole");
    // Nearly every body comes in one piece.
    let first = match body.frame().await.transpose().map_err(|_| broken())? {
        Some(frame) => frame.into_data().unwrap_or_default(),
        None => return Ok(Bytes::new()),
    };
    if body.is_end_stream() && first.len() <= BODY_BYTES_MAX {
        return Ok(first);
    }
    let (mut bytes, mut dropped) = (BytesMut::new(), 0);
    if first.len() <= BODY_BYTES_MAX {
        bytes.extend_from_slice(&first);
    } else {
        dropped = first.len();
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| broken())?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() <= BODY_BYTES_MAX && dropped == 0 {
            bytes.extend_from_slice(&data);
        } else {
            // Read on for a while: a connection that is closed over bytes that nobody has read
            // is reset, and the client would never see why.
            dropped += data.len();
            if dropped > BODY_DROPPED_MAX {
                break;
            }
        }
    }
    if dropped > 0 { Err(Problem::body_too_large(BODY_BYTES_MAX)) } else { Ok(bytes.freeze()) }
}
