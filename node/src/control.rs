//! The port of the operator and of other nodes: reports, postings, commands for shares.
//!
//! Nothing is trusted from the network: the operator signs (Ed25519), peers carry a keyed hash
//! that only readers of the ledger can make. Without either, the answer is 401.

use std::cell::Cell;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use control::posting::{Posted, Posting, Record};
use control::report::{
    InForce, NodeState, Peer, PoolPosition, RedisHealth, Report, Share, ShareState,
};
use control::signature::{HEADER, PublicKey, Request as Signed};
use control::{BODY_BYTES_MAX, PLAN_PATH, REPORT_PATH, STATE_PATH};
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use inventory::board::{NodeState as Phase, ShareStage};
use inventory::conductor::Outcome;
use inventory::dispatcher;
use inventory::entry::PoolEntry;
use inventory::message::{decode_command, encode_answer};
use inventory::owner::Answer;
use inventory::pool::{Pool, pool_record};
use ledger::Fate;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::desk::Pending;
use crate::http::reply;
use crate::line;
use crate::port::{self, Reply, Upgrades};
use crate::station::{Mail, Station};

/// A posting waits so long for the ledger; the operator asks again anyway.
const POST_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections at once: one operator, and peers that ask for a line.
const CONNECTIONS_MAX: usize = 4_096;
/// Lines at once: one of each peer, and those of peers that have just ended.
const LINES_MAX: usize = 4_096;
/// A line is hung up by who speaks first on it; this is for those who cannot any more.
const LINE_IDLE: Duration = Duration::from_secs(300);
/// Bytes of answers that a peer has not taken yet. No more commands are read meanwhile.
const UNSENT_BYTES_MAX: usize = 1 << 20;
/// "Kafka answers" means within this time.
const KAFKA_OK_MS: u64 = 5_000;

/// Who may ask.
#[derive(Debug)]
pub struct Guard {
    /// The sale, `namespace/name`.
    pub sale: String,
    /// The operator's key; none where nobody signs: then only peers are served.
    pub key: Option<PublicKey>,
}

/// Serves the control port until the task is ended.
///
/// # Errors
/// What the system says of the listener.
pub fn listen(
    station: Rc<Station>,
    listener: TcpListener,
    guard: Guard,
) -> std::io::Result<JoinHandle<()>> {
    let guard = Rc::new(guard);
    let lines = Rc::new(Cell::new(0));
    port::listen(listener, Upgrades::Allowed, Rc::default(), CONNECTIONS_MAX, move |_| {
        let (station, guard, lines) = (Rc::clone(&station), Rc::clone(&guard), Rc::clone(&lines));
        move |request: Request<Incoming>| {
            let (station, guard) = (Rc::clone(&station), Rc::clone(&guard));
            let lines = Rc::clone(&lines);
            async move {
                if request.uri().path() == line::PATH {
                    return upgrade(station, &lines, request);
                }
                answer(&station, &guard, request).await
            }
        }
    })
}

async fn answer(station: &Rc<Station>, guard: &Guard, request: Request<Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        return words(StatusCode::BAD_REQUEST, "the body did not arrive whole");
    };
    let body = body.to_bytes();
    let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok());
    let path = head.uri.path();
    let signed = Signed {
        method: head.method.as_str(),
        path,
        body: &body,
        sale: &guard.sale,
        node: station.me.node.as_str(),
    };
    let Some(key) = &guard.key else {
        return words(StatusCode::NOT_FOUND, "this node has no operator");
    };
    if let Err(why) = key.verify(station.now().wall, header(HEADER), &signed) {
        return words(StatusCode::UNAUTHORIZED, why.to_string());
    }
    match (&head.method, path) {
        (&Method::GET, REPORT_PATH) => json(StatusCode::OK, &report(station)),
        (&Method::GET, STATE_PATH) => match in_force(station) {
            Some(state) => json(StatusCode::OK, &state),
            None => words(StatusCode::SERVICE_UNAVAILABLE, "partition 0 is being folded"),
        },
        (&Method::POST, PLAN_PATH) => match serde_json::from_slice(&body) {
            Ok(posting) => match post(station, posting).await {
                Ok(posted) => json(StatusCode::OK, &posted),
                Err((status, why)) => words(status, why),
            },
            Err(why) => words(StatusCode::UNPROCESSABLE_ENTITY, why.to_string()),
        },
        _ => words(StatusCode::NOT_FOUND, "no such page"),
    }
}

fn words(status: StatusCode, text: impl Into<String>) -> Reply {
    reply(status, "text/plain; charset=utf-8", Bytes::from(text.into()))
}

fn json<T: serde::Serialize>(status: StatusCode, value: &T) -> Reply {
    match serde_json::to_vec(value) {
        Ok(bytes) => reply(status, "application/json", bytes),
        Err(why) => words(StatusCode::INTERNAL_SERVER_ERROR, why.to_string()),
    }
}

/// Lets a peer have a line.
fn upgrade(station: Rc<Station>, lines: &Rc<Cell<usize>>, mut request: Request<Incoming>) -> Reply {
    let key = station.world.borrow().pool().key();
    let Some(key) = key else { return words(StatusCode::SERVICE_UNAVAILABLE, "starting") };
    let shown = request.headers().get(line::HEADER).and_then(|v| v.to_str().ok());
    if !line::may_pass(&key, shown) {
        return words(StatusCode::UNAUTHORIZED, "not a node of this ledger");
    }
    let wanted = request.headers().get(header::UPGRADE).and_then(|v| v.to_str().ok());
    if wanted != Some(line::PROTOCOL) {
        let mut reply = words(StatusCode::UPGRADE_REQUIRED, "this is for nodes");
        let protocol = HeaderValue::from_static(line::PROTOCOL);
        reply.headers_mut().insert(header::UPGRADE, protocol);
        return reply;
    }
    if lines.get() >= LINES_MAX {
        return words(StatusCode::SERVICE_UNAVAILABLE, "too many lines");
    }
    let (asked, lines) = (hyper::upgrade::on(&mut request), Rc::clone(lines));
    lines.set(lines.get() + 1);
    tokio::task::spawn_local(async move {
        let upgraded = asked.await.ok().and_then(|u| u.downcast::<TokioIo<TcpStream>>().ok());
        if let Some(parts) = upgraded {
            hear(&station, parts.io.into_inner(), parts.read_buf).await;
        }
        lines.set(lines.get() - 1);
    });
    let mut reply = Reply::default();
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = reply.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(line::PROTOCOL));
    reply
}

/// Answers what a peer asks on its line, each command when it is decided: until the peer hangs
/// up, or says what no node of this ledger would.
async fn hear(station: &Rc<Station>, mut stream: TcpStream, early: Bytes) {
    let (mut reader, mut writer) = stream.split();
    let (mut inbox, mut unsent) = (BytesMut::from(early), BytesMut::new());
    let mut deciding = FuturesUnordered::new();
    let mut idle = tokio::time::interval(LINE_IDLE);
    let mut heard = Instant::now();
    loop {
        loop {
            let (number, body) = match line::next(&inbox) {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(line::TooLong) => return,
            };
            let end = body.end;
            let Some(told) = decide(station, number, &inbox[body], deciding.len()) else { return };
            inbox.advance(end);
            match told {
                Told::Now(answer) => line::put_answer(&mut unsent, number, &encode_answer(&answer)),
                Told::Later(pending) => deciding.push(pending.map(move |told| (number, told))),
            }
        }
        inbox.reserve(line::READ_BYTES);
        tokio::select! {
            biased;
            Some(decided) = deciding.next(), if !deciding.is_empty() => {
                // All that a frame has confirmed goes in one write.
                let mut decided = Some(decided);
                while let Some((number, outcome)) = decided {
                    let answer = encode_answer(&answer_of(outcome));
                    line::put_answer(&mut unsent, number, &answer);
                    decided = deciding.next().now_or_never().flatten();
                }
            }
            wrote = writer.write_buf(&mut unsent), if !unsent.is_empty() => {
                if wrote.is_err() {
                    return;
                }
            }
            read = reader.read_buf(&mut inbox), if unsent.len() < UNSENT_BYTES_MAX => {
                if read.unwrap_or(0) == 0 {
                    return;
                }
                heard = Instant::now();
            }
            _ = idle.tick() => {
                if heard.elapsed() >= LINE_IDLE {
                    return;
                }
            }
        }
    }
}

/// What becomes of a peer's command.
enum Told {
    Now(Answer),
    Later(Pending),
}

/// A command for a share that a peer believes to be here. It is never passed on: the peer looks
/// again. None if no node of this ledger has said it.
fn decide(station: &Rc<Station>, number: u64, body: &[u8], deciding: usize) -> Option<Told> {
    let world = station.world.borrow();
    let command = line::command(&world.pool().key()?, number, body)?;
    let busy = |why| Some(Told::Now(Answer::Busy(why)));
    // A peer of another version looks for another owner, and its buyer hears "busy" in the end.
    let Ok((share, command)) = decode_command(command) else { return busy("moved") };
    if !world.conductor.owns(share) {
        return busy("moved");
    }
    if deciding >= line::WAITING_MAX {
        return busy("full");
    }
    station.desk.submit(share, command).map_or_else(|_| busy("full"), |p| Some(Told::Later(p)))
}

fn answer_of(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Answered(answer) => answer,
        Outcome::Rehomed => Answer::Busy("moved"),
    }
}

/// What this node does and sees.
#[must_use]
pub fn report(station: &Station) -> Report {
    let world = station.world.borrow();
    let now = station.now().mono;
    let heard = |at: Option<inventory::words::Millis>, ms| at.is_some_and(|at| now.since(at) <= ms);
    let own_board_ok = world.conductor.hears_board(now);
    Report {
        node: station.me.node.to_string(),
        incarnation: station.me.incarnation.0,
        address: station.me.address.to_string(),
        role: station.me.role,
        weight: station.me.weight,
        state: match world.state() {
            Phase::Starting => NodeState::Starting,
            Phase::Ready => NodeState::Ready,
            Phase::Draining => NodeState::Draining,
        },
        pool: PoolPosition {
            position: world.pool().position().0,
            definition_version: world.pool().definition_version(),
            assign_version: world.pool().assign().version,
            policy_version: world.pool().policy_version(),
        },
        shares: world
            .conductor
            .owned()
            .iter()
            .map(|(share, (epoch, stage))| Share {
                share: share.0,
                epoch: epoch.0,
                state: match stage {
                    ShareStage::Recovering => ShareState::Recovering,
                    ShareStage::Selling | ShareStage::Stalled => ShareState::Selling,
                    ShareStage::Frozen => {
                        ShareState::Frozen { offset: 0, why: "see the node's log".into() }
                    }
                },
            })
            .collect(),
        candidates: world.conductor.contended().map(|s| s.0).collect(),
        peers: world.conductor.peers(now).into_iter().map(peer_of).collect(),
        own_board_ok,
        redis: station.drawer.health().map(|ok_within_ms| RedisHealth { ok_within_ms }),
        kafka_ok: own_board_ok || heard(world.ledger_heard, KAFKA_OK_MS),
    }
}

fn peer_of(peer: dispatcher::Peer) -> Peer {
    Peer {
        node: peer.node.to_string(),
        incarnation: peer.incarnation.0,
        board_silent_ms: peer.silent_ms,
        shares: peer.owns.into_iter().map(|(share, epoch)| (share.0, epoch.0)).collect(),
    }
}

/// What counts in partition 0, as far as this node has read it.
#[must_use]
pub fn in_force(station: &Station) -> Option<InForce> {
    let world = station.world.borrow();
    let pool: &Pool = world.pool();
    Some(InForce {
        position: pool.position().0,
        definition_version: pool.definition_version(),
        definition: inventory::definition::Definition::clone(pool.definition()?).into(),
        assign: (pool.assign().version > 0).then(|| pool.assign().clone().into()),
        policy: pool.policy().cloned().map(Into::into),
    })
}

/// Appends what the operator wants to partition 0.
///
/// # Errors
/// A status and why: a version that is not the next, words that cannot be, a ledger that does
/// not answer.
pub async fn post(station: &Rc<Station>, posting: Posting) -> Result<Posted, (StatusCode, String)> {
    let unprocessable = |why: String| (StatusCode::UNPROCESSABLE_ENTITY, why);
    let (entry, version, in_force) = {
        let world = station.world.borrow();
        let pool = world.pool();
        match posting.record {
            Record::Assign(assign) => {
                let version = assign.version;
                let assign = assign.try_into();
                let assign =
                    assign.map_err(|e: inventory::words::BadName| unprocessable(e.to_string()))?;
                (PoolEntry::Assign(assign), version, pool.assign().version)
            }
            Record::Policy(policy) => {
                let version = policy.version;
                (PoolEntry::Policy(policy.into()), version, pool.policy_version())
            }
            Record::Amend(amend) => {
                let definition: inventory::definition::Definition =
                    amend.definition.try_into().map_err(
                        |e: inventory::definition::BadDefinition| unprocessable(e.to_string()),
                    )?;
                if let Some(old) = pool.definition() {
                    old.allows(&definition).map_err(|e| unprocessable(e.to_string()))?;
                }
                let definition = Box::new(definition);
                let entry = PoolEntry::Amend { version: amend.version, definition };
                (entry, amend.version, pool.definition_version())
            }
        }
    };
    if version != in_force + 1 {
        let why = format!("version {in_force} is in force, so {version} is not next");
        return Err((StatusCode::CONFLICT, why));
    }
    tracing::info!(operator = posting.operator, reason = posting.reason, version, "posting");
    let silent = || (StatusCode::SERVICE_UNAVAILABLE, "the ledger did not answer".to_owned());
    let record = {
        let world = station.world.borrow();
        let ledger = world.pool().ledger().ok_or_else(silent)?;
        pool_record(ledger, station.me.incarnation, station.now().wall, &[entry])
            .map_err(|e| unprocessable(e.to_string()))?
    };
    let (tell, fate) = oneshot::channel();
    station.post(Mail::AppendToPool(record, Some(tell)));
    match tokio::time::timeout(POST_TIMEOUT, fate).await {
        Ok(Ok(Fate::At(offset))) => Ok(Posted { offset: Some(offset) }),
        Ok(Ok(Fate::Somewhere)) => Ok(Posted { offset: None }),
        _ => Err(silent()),
    }
}
