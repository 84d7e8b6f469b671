//! The live view, for whoever runs the sale: nodes, shares, stock, as the board tells them.
//!
//! It has a port of its own on loopback, which `kubectl port-forward` reaches and buyers do
//! not. Nothing is stored for it: it shows what this node has folded and heard anyway. Another
//! node may have heard other beats, so that two views can differ by a moment.

use std::cell::RefCell;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::LazyLock;

use bytes::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use inventory::board::{Board, NodeState, ShareStage};
use inventory::definition::Definition;
use inventory::legs::Journey;
use inventory::pool::Pool;
use inventory::words::{ClassId, Millis, NodeId, RunId, ShareId};
use serde::Serialize;
use tokio::task::JoinHandle;

use super::page::File;
use super::problem::Problem;
use super::reply;
use super::runs::time;
use crate::port::{self, Reply, Upgrades};
use crate::station::{Station, World};
use crate::telemetry::Word;

/// Connections at once: a few people's browsers, six each. What is over waits its turn.
const CONNECTIONS_MAX: usize = 32;
/// A picture is made at most this often, however many look: the board has news every 50 ms, a
/// person's eye does not, and a sale of a thousand runs takes a millisecond.
const PICTURE_MS: u64 = 200;
/// Runs that are shown; the sums are those of all. A page with more of them helps nobody.
const RUNS_SHOWN_MAX: usize = 200;
/// A node that beats every 200 ms and was not heard for so long is held to be dead by others.
const SILENT_MS: u64 = 1_500;
/// Whoever was silent for so long is not shown any more: a fleet that rolls leaves many names.
const SHOWN_MS: u64 = 10 * 60 * 1_000;

static PAGE: LazyLock<[(&'static str, File); 4]> = LazyLock::new(|| {
    let file = |kind, text: &str| File::new(kind, text.to_owned());
    [
        ("live", file("text/html; charset=utf-8", include_str!("../../page/live.html"))),
        ("live.js", file("text/javascript; charset=utf-8", include_str!("../../page/live.js"))),
        ("icon.svg", file("image/svg+xml", include_str!("../../page/icon.svg"))),
        ("live.css", file("text/css; charset=utf-8", include_str!("../../page/live.css"))),
    ]
});

#[derive(Debug)]
struct Viewer {
    station: Rc<Station>,
    sale: String,
    picture: RefCell<Option<(Millis, Bytes)>>,
}

/// Serves the live view of `sale` until the task is ended.
///
/// # Errors
/// What the system says of the listener.
pub fn listen(
    station: Rc<Station>,
    listener: TcpListener,
    sale: String,
) -> std::io::Result<JoinHandle<()>> {
    let viewer = Rc::new(Viewer { station, sale, picture: RefCell::default() });
    port::listen(listener, Upgrades::Never, Rc::default(), CONNECTIONS_MAX, move |_| {
        let viewer = Rc::clone(&viewer);
        move |request| {
            let reply = viewer.answer(&request).unwrap_or_else(Problem::into_reply);
            async move { reply }
        }
    })
}

impl Viewer {
    fn answer<B>(&self, request: &Request<B>) -> Result<Reply, Problem> {
        if request.method() != Method::GET {
            return Err(Problem::method_not_allowed("GET"));
        }
        match request.uri().path().trim_matches('/') {
            "" => {
                let mut reply = Reply::default();
                *reply.status_mut() = StatusCode::SEE_OTHER;
                let headers = reply.headers_mut();
                headers.insert(header::LOCATION, HeaderValue::from_static("/live"));
                Ok(reply)
            }
            "live.json" => {
                let mut reply = reply(StatusCode::OK, "application/json", self.picture());
                let headers = reply.headers_mut();
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                Ok(reply)
            }
            path => {
                let file = PAGE.iter().find(|(name, _)| *name == path);
                let (_, file) = file.ok_or_else(Problem::no_such_page)?;
                Ok(file.reply(request.headers(), "no-cache"))
            }
        }
    }

    fn picture(&self) -> Bytes {
        let now = self.station.now();
        let mut kept = self.picture.borrow_mut();
        if let Some((at, picture)) = kept.as_ref()
            && now.mono.since(*at) < PICTURE_MS
        {
            return picture.clone();
        }
        let picture = Picture::of(&self.station, &self.sale);
        // What is made of numbers and names is always JSON.
        let bytes = Bytes::from(serde_json::to_vec(&picture).unwrap_or_default());
        *kept = Some((now.mono, bytes.clone()));
        bytes
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Picture {
    sale: String,
    /// The node that shows this.
    node: NodeName,
    as_of: String,
    /// Whether orders are taken, by the ledger's policy.
    selling: &'static str,
    nodes: Vec<Node>,
    shares: Vec<Share>,
    stock: Stock,
    runs: Vec<Run>,
    /// Runs that are not shown.
    more_runs: usize,
    pool: PoolAt,
    here: Here,
}

/// A name as text.
type NodeName = String;

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    name: NodeName,
    address: String,
    state: &'static str,
    heard_ms: u64,
    shares: usize,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Share {
    share: u16,
    state: &'static str,
    owner: Option<NodeName>,
    /// Who should own it, by the plan in force.
    planned: Option<NodeName>,
    epoch: Option<u32>,
    /// The last offset that its owner has verified.
    confirmed: Option<u64>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stock {
    seats: u32,
    /// Seats that no share has drawn yet.
    pool: u32,
    /// Free on the whole way, in shares and pool.
    free: u32,
    held: u32,
    /// Neither free on the whole way nor held: a seat that is sold in parts counts once.
    sold: u32,
    /// Whether every share that sells this was heard of.
    complete: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    run: String,
    classes: Vec<Class>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Class {
    name: String,
    #[serde(flatten)]
    stock: Stock,
    next_hold_ends: Option<String>,
}

/// How far partition 0 is read.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PoolAt {
    position: u64,
    definition_version: u64,
    plan_version: u64,
    policy_version: u64,
    frozen: Option<String>,
}

/// What the node that shows this has counted by itself since its start.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Here {
    connections: usize,
    written: u64,
    sold_out: u64,
    busy: u64,
    unknown: u64,
    frames: u64,
    forwarded: u64,
}

impl Picture {
    fn of(station: &Station, sale: &str) -> Self {
        let now = station.now();
        let world = station.world.borrow();
        let (pool, board) = (world.pool(), world.board());
        let (stock, runs, more_runs) = stock(&world);
        let metrics = &station.metrics;
        let answers = |kind| metrics.answers.get_or_create(&Word { kind }).get();
        Self {
            sale: sale.to_owned(),
            node: station.me.node.to_string(),
            as_of: time(now.wall).to_string(),
            selling: selling(pool, now.wall),
            nodes: board.map_or_else(Vec::new, |b| nodes(b, pool, now.mono)),
            shares: pool.shares().map(|share| shown(share, board, pool, now.mono)).collect(),
            stock,
            runs,
            more_runs,
            pool: PoolAt {
                position: pool.position().0,
                definition_version: pool.definition_version(),
                plan_version: pool.assign().version,
                policy_version: pool.policy_version(),
                frozen: pool.frozen().map(str::to_owned),
            },
            here: Here {
                connections: station.connections.get(),
                written: answers("written"),
                sold_out: answers("sold-out"),
                busy: answers("busy"),
                unknown: answers("unknown"),
                frames: metrics.frames.get(),
                forwarded: metrics.forwarded.get(),
            },
        }
    }
}

fn selling(pool: &Pool, now: Millis) -> &'static str {
    use inventory::entry::SaleState;
    let Some(policy) = pool.policy() else { return "NotOpen" };
    match policy.state {
        SaleState::Suspended => "Suspended",
        SaleState::Stopped => "Stopped",
        SaleState::Active if policy.close.is_some_and(|close| now >= close) => "Closed",
        SaleState::Active if policy.open.is_some_and(|open| now < open) => "NotOpen",
        SaleState::Active => "Open",
    }
}

fn nodes(board: &Board, pool: &Pool, mono: Millis) -> Vec<Node> {
    let seen = board.nodes().filter_map(|(node, seen)| {
        let heard_ms = board.since_heard(mono, node)?;
        let silent = heard_ms > SILENT_MS;
        let owned = |share: &ShareId| board.share(*share).is_some_and(|s| s.node == node);
        (heard_ms <= SHOWN_MS).then(|| Node {
            name: node.to_string(),
            address: seen.address.to_string(),
            state: match seen.state {
                // Whoever drained and went is not a failure.
                NodeState::Draining if silent => "Left",
                _ if silent => "Silent",
                state => state.into(),
            },
            heard_ms,
            shares: pool.shares().filter(owned).count(),
        })
    });
    seen.collect()
}

fn shown(share: ShareId, board: Option<&Board>, pool: &Pool, mono: Millis) -> Share {
    let seen = board.and_then(|b| b.share(share));
    let planned: Option<NodeId> = pool.assign().nodes.get(&share).copied();
    let heard = |node| board.and_then(|b| b.since_heard(mono, node));
    let state = match seen {
        None => "Unowned",
        Some(seen) if heard(seen.node).is_none_or(|ms| ms > SILENT_MS) => "Silent",
        Some(seen) if seen.stage == ShareStage::Frozen => "Frozen",
        Some(seen) if seen.stage == ShareStage::Recovering => "Recovering",
        Some(seen) if seen.stage == ShareStage::Stalled => "Stalled",
        Some(seen) if planned.is_some_and(|planned| planned != seen.node) => "Moving",
        Some(_) => "Selling",
    };
    Share {
        share: share.0,
        state,
        owner: seen.map(|s| s.node.to_string()),
        planned: planned.map(|node| node.to_string()),
        epoch: seen.map(|s| s.epoch.0),
        confirmed: seen.map(|s| s.confirmed.0),
    }
}

/// The sums of all runs, the first runs, and how many there are beside them.
fn stock(world: &World) -> (Stock, Vec<Run>, usize) {
    let mut all = Stock { complete: true, ..Stock::default() };
    let Some(definition) = world.pool().definition() else { return (all, Vec::new(), 0) };
    let (mut runs, mut more) = (Vec::new(), 0);
    for id in definition.run_ids() {
        let classes = classes(world, definition, id);
        for class in &classes {
            all.add(&class.stock);
        }
        if runs.len() < RUNS_SHOWN_MAX {
            let run = &definition.runs[usize::from(id.0)];
            runs.push(Run { run: [&run.train, "/", &run.date].concat(), classes });
        } else {
            more += 1;
        }
    }
    (all, runs, more)
}

fn classes(world: &World, definition: &Definition, run: RunId) -> Vec<Class> {
    let Some(timetable) = definition.timetable(run) else { return Vec::new() };
    let last = u8::try_from(timetable.stops.len() - 1).unwrap_or(0);
    let Some(whole) = Journey::new(0, last) else { return Vec::new() };
    let one = |(class, of)| {
        let of: &inventory::definition::Class = of;
        let coaches = timetable.coaches.iter().filter(|c| c.class == class);
        let seats = coaches.map(|c| u32::from(c.seats)).sum();
        let (pool, board) = (world.pool(), world.board());
        let counted = board.map(|b| (b.count(pool, run, class, whole), b.held(run, class)));
        let ((free, complete), (held, next)) = counted.unwrap_or_default();
        let sold = if complete { u32::saturating_sub(seats, free.saturating_add(held)) } else { 0 };
        let pool = pool.seats(run, class);
        Class {
            name: of.name.clone(),
            stock: Stock { seats, pool, free, held, sold, complete },
            next_hold_ends: next.map(|at| time(at).to_string()),
        }
    };
    (0..).map(ClassId).zip(&timetable.classes).map(one).collect()
}

impl Stock {
    fn add(&mut self, other: &Self) {
        self.seats = self.seats.saturating_add(other.seats);
        self.pool = self.pool.saturating_add(other.pool);
        self.free = self.free.saturating_add(other.free);
        self.held = self.held.saturating_add(other.held);
        self.sold = self.sold.saturating_add(other.sold);
        self.complete &= other.complete;
    }
}
