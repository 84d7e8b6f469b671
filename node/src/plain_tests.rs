//! Whatever bytes come, in whatever pieces: a port that reads plain requests itself hears and says
//! what one does that has hyper read everything.

use std::convert::Infallible;
use std::rc::Rc;

use bolero::check;
use fuzz::dice::Dice;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::port::{Watch, http};

const NAMES: [HeaderName; 6] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONNECTION,
    header::ORIGIN,
    HeaderName::from_static("x-buyer-id"),
    HeaderName::from_static("idempotency-key"),
];

/// More than any conversation needs.
const ENOUGH: usize = 256;

/// The status of what hyper cannot read.
const REFUSED: &str = "refused";

/// A request as it was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    method: String,
    target: String,
    fields: Vec<Vec<u8>>,
    body: Vec<u8>,
}

impl Said {
    fn of<F: Fields + ?Sized>(method: &str, target: &str, fields: &F, body: &[u8]) -> Self {
        let values = |name| fields.values(name).map(<[u8]>::to_vec).collect::<Vec<_>>();
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            fields: NAMES.iter().flat_map(values).collect(),
            body: body.to_vec(),
        }
    }

    /// An answer that says what was asked, and ends the connection if it was asked to.
    fn reply(&self) -> Reply {
        let text = format!("{self:?}");
        // A body that goes by itself, now and then.
        let times =
            if self.target.contains("large") { JOINED_BYTES_MAX / text.len() + 1 } else { 1 };
        let mut reply = Reply::new(text.repeat(times).into());
        *reply.status_mut() = match self.target.as_str() {
            "/none" => StatusCode::NO_CONTENT,
            "/known" => StatusCode::NOT_MODIFIED,
            "/new" => StatusCode::CREATED,
            _ => StatusCode::OK,
        };
        if matches!(self.target.as_str(), "/none" | "/known") {
            reply.body_mut().clear();
        }
        reply.headers_mut().append(header::VARY, HeaderValue::from_static("Origin"));
        reply.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        if self.target == "/last" {
            let close = HeaderValue::from_static("close");
            reply.headers_mut().insert(header::CONNECTION, close);
        }
        reply
    }
}

/// Hears all and says it again.
#[derive(Debug, Default)]
struct Parrot {
    heard: RefCell<Vec<Said>>,
    by_hyper: std::cell::Cell<usize>,
}

impl Parrot {
    fn hear(&self, said: Said) -> Reply {
        let reply = said.reply();
        self.heard.borrow_mut().push(said);
        reply
    }
}

impl Clerk for Rc<Parrot> {
    type Errand = Said;
    type Outcome = Reply;

    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else { return Reply::default() };
        let target = head.uri.path_and_query().map_or("", |target| target.as_str());
        self.by_hyper.set(self.by_hyper.get() + 1);
        wait(target).await;
        self.hear(Said::of(head.method.as_str(), target, &head.headers, &body.to_bytes()))
    }

    fn read(&self, request: &Plain<'_>) -> Option<Said> {
        let Plain { method, target, fields, body } = *request;
        let said = Said::of(method, target, fields, body);
        let owned = request.owned()?;
        let target = owned.uri().path_and_query().map_or("", |target| target.as_str());
        let same = Said::of(owned.method().as_str(), target, owned.headers(), owned.body());
        // hyper leaves out what comes after a number sign.
        assert!(said == same || said.target.contains('#'), "{said:?} {same:?}");
        Some(same)
    }

    async fn run(&self, said: Said) -> Reply {
        wait(&said.target).await;
        self.hear(said)
    }

    fn tell(&self, reply: Reply, to: &mut Telling<'_>) {
        to.reply(&reply);
    }
}

/// Some answers take their time.
async fn wait(target: &str) {
    match target {
        "/slow" => {
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        }
        "/never" => std::future::pending().await,
        _ => {}
    }
}

/// What was heard and said, and of how many requests hyper was the reader.
#[derive(Debug, Default)]
struct Outcome {
    heard: Vec<Said>,
    answers: Vec<String>,
    by_hyper: usize,
}

/// Sends the pieces one after the other.
async fn talk(pieces: &[&[u8]], plain: bool) -> Outcome {
    let (client, server) = tokio::io::duplex(1024 * 1024);
    let (mut from, mut to) = tokio::io::split(client);
    let parrot = Rc::new(Parrot::default());
    let send = async move {
        for piece in pieces {
            // The other end may have hung up.
            let _ = to.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        // All is in memory: after these turns nothing moves any more, and the end cuts nothing off.
        for _ in 0..ENOUGH {
            tokio::task::yield_now().await;
        }
        let _ = to.shutdown().await;
    };
    let serve = async {
        if plain {
            Watch::default().serve(server, &parrot).await;
        } else {
            by_hyper(server, &parrot).await;
        }
    };
    let mut answers = String::new();
    let receive = from.read_to_string(&mut answers);
    let (_, _, received) = futures::join!(send, serve, receive);
    received.expect("answers are text");
    let answers = answers.replace("HTTP/1.1 ", "\nHTTP/1.1 ").to_lowercase();
    let lines = answers.lines().filter(|line| !line.is_empty() && !line.starts_with("date: "));
    // With two things wrong, one reader sees the first of them and the other the second.
    let told = |line: &str| if line.starts_with("http/1.1 4") { REFUSED } else { line }.to_owned();
    let mut lines: Vec<String> = lines.map(told).collect();
    // In which order fields come is all the same.
    lines.sort();
    Outcome { heard: parrot.heard.take(), answers: lines, by_hyper: parrot.by_hyper.get() }
}

async fn by_hyper(stream: DuplexStream, parrot: &Rc<Parrot>) {
    let service = service_fn(|request| async move {
        Ok::<_, Infallible>(parrot.answer(request).await.map(Full::new))
    });
    let _ = http().serve_connection(TokioIo::new(stream), service).await;
}

fn both(pieces: &[&[u8]]) -> (Outcome, Outcome) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    (runtime.block_on(talk(pieces, true)), runtime.block_on(talk(pieces, false)))
}

fn request(dice: &mut Dice<'_>, into: &mut Vec<u8>) {
    let methods =
        ["POST", "GET", "HEAD", "DELETE", "OPTIONS", "M-SEARCH", "get", "P(ST", "CONNECT"];
    let targets = [
        "/v1/orders",
        "/",
        "/none",
        "/known",
        "/new",
        "/large",
        "/slow",
        "/last",
        "/a?b=c&d",
        "/a#b",
        "*",
        "http://x/v1",
        "x:1",
        "/%zz",
        "/\u{e9}",
        "/a b",
        "",
        "//",
        "/{}",
    ];
    let versions = ["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/1.2", ""];
    let bodies: [&[u8]; 6] = [
        b"",
        b"abc",
        b"{\"run\":\"G1\"}",
        b"0\r\n\r\n",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    let others: [&[u8]; 26] = [
        b"Host: x",
        b"X-Buyer-Id: anna",
        b"x-buyer-id:\tberta ",
        b"Idempotency-Key: \xe9",
        b"Origin: https://a.example",
        b"Connection: keep-alive",
        b"connection: Keep-Alive",
        b"Connection: close",
        b"Connection: keep-alive, Upgrade",
        b"Connection: ",
        b"Upgrade: h2c",
        b"Expect: 100-continue",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: identity",
        b"Content-Length: +3",
        b"Content-Length: 3, 3",
        b"Content-Length: 3",
        b"Content-Length: ",
        b"Content-Length: 99999",
        b"Content-Length: 18446744073709551619",
        b"Content-Length: 0003",
        b"TE: trailers",
        b"X Y: z",
        b": x",
        b" folded",
        b"X-Long",
    ];
    let end: &[u8] = if dice.seldom(12) { b"\n" } else { b"\r\n" };
    let (body, version) = (*dice.of(&bodies), *dice.of(&versions));
    // More often than not as it should be.
    let (method, target) = (dice.of(&methods[..]), dice.of(&targets[..]));
    into.extend_from_slice(format!("{method} {target} {version}").as_bytes());
    into.extend_from_slice(end);
    if !dice.seldom(6) {
        into.extend_from_slice(format!("Content-Length: {}", body.len()).as_bytes());
        into.extend_from_slice(end);
    }
    for _ in 0..dice.below(4) {
        let some = if dice.seldom(2) { &others[..6] } else { &others[..] };
        let field = dice.of::<&[u8]>(some);
        into.extend_from_slice(field);
        into.extend_from_slice(end);
    }
    if dice.seldom(40) {
        into.extend_from_slice(&b"X-Many: 1\r\n".repeat(HEADERS_MAX));
    }
    if dice.seldom(40) {
        into.extend_from_slice(b"X-Large: ");
        // Far from the limit: hyper's depends on how the bytes come.
        let length = if dice.seldom(2) { HEAD_BYTES_MAX / 2 } else { 3 * HEAD_BYTES_MAX };
        into.extend_from_slice(&b"x".repeat(length));
        into.extend_from_slice(end);
    }
    into.extend_from_slice(end);
    into.extend_from_slice(body);
}

/// Some requests, cut into pieces, and now and then before they are whole.
fn conversation(dice: &mut Dice<'_>) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    for _ in 0..=dice.below(4) {
        request(dice, &mut bytes);
    }
    if dice.seldom(4) {
        bytes.truncate(bytes.len() - usize::from(dice.byte()).min(bytes.len()));
    }
    let mut cuts: Vec<usize> =
        (0..dice.below(4)).map(|_| dice.number() as usize % (bytes.len() + 1)).collect();
    cuts.sort_unstable();
    (bytes, cuts)
}

fn pieces<'b>(bytes: &'b [u8], cuts: &[usize]) -> Vec<&'b [u8]> {
    let mut from = 0;
    let mut pieces: Vec<&[u8]> = cuts
        .iter()
        .map(|cut| {
            let piece = &bytes[from..*cut];
            from = *cut;
            piece
        })
        .collect();
    pieces.push(&bytes[from..]);
    pieces
}

#[test]
fn any_bytes_are_heard_and_answered_as_hyper_does() {
    check!().for_each(|bytes: &[u8]| {
        let mut dice = Dice::new(bytes);
        let (bytes, cuts) = conversation(&mut dice);
        let (mut ours, hypers) = both(&pieces(&bytes, &cuts));
        let text = String::from_utf8_lossy(&bytes);
        // Where no head ends, hyper may not look at what came after the first piece.
        let is_refused = |outcome: &Outcome| outcome.answers.iter().any(|line| line == REFUSED);
        if is_refused(&ours) && !is_refused(&hypers) {
            for said in [REFUSED, "connection: close", "content-length: 0"] {
                let at = ours.answers.iter().position(|line| line == said);
                ours.answers.remove(at.expect("hyper has said it"));
            }
        }
        assert_eq!(ours.heard, hypers.heard, "{text:?} cut at {cuts:?}");
        assert_eq!(ours.answers, hypers.answers, "{text:?} cut at {cuts:?}");
    });
}

#[test]
fn plain_requests_are_not_left_to_hyper_however_they_are_cut() {
    let order = "POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n{\"a\"";
    let look = "GET /large HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n";
    let all = [order, look, order, "HEAD /new HTTP/1.1\r\n\r\n", look].concat();
    for cut in 0..=all.len() {
        let (ours, hypers) = both(&pieces(all.as_bytes(), &[cut]));
        assert_eq!((ours.heard.len(), ours.by_hyper), (5, 0), "cut at {cut}");
        assert_eq!((ours.heard, ours.answers), (hypers.heard, hypers.answers), "cut at {cut}");
    }
}

#[test]
fn after_something_unusual_hyper_goes_on() {
    let plain = "GET / HTTP/1.1\r\n\r\n";
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let (ours, hypers) = both(&[[plain, chunked, plain].concat().as_bytes()]);
    assert_eq!((ours.heard.len(), ours.by_hyper), (3, 2));
    assert_eq!((&ours.heard, ours.answers), (&hypers.heard, hypers.answers));
    assert_eq!(ours.heard[1].body, b"abc");
}

#[test]
fn a_request_of_one_who_has_gone_is_given_up_and_what_follows_is_not_lost() {
    let slow = "GET /slow HTTP/1.1\r\n\r\n";
    let all = slow.repeat(40);
    // The second piece comes while the first request is answered, and fills no room for ever.
    let (ours, _) = both(&[&all.as_bytes()[..30], &all.as_bytes()[30..]]);
    assert_eq!((ours.heard.len(), ours.by_hyper), (40, 0));
    // That it ends is what is shown.
    let (ours, hypers) = both(&[b"GET /never HTTP/1.1\r\n\r\n"]);
    assert_eq!((ours.heard, ours.answers), (hypers.heard, hypers.answers));
}

#[test]
fn text_is_what_hyper_takes_for_it() {
    check!().for_each(|bytes: &[u8]| {
        if let Ok(value) = HeaderValue::from_bytes(bytes) {
            assert_eq!(text(bytes), value.to_str().ok());
        }
    });
}

#[test]
fn the_date_is_that_of_the_second() {
    let mut date = Date::default();
    let at = |ms| UNIX_EPOCH + std::time::Duration::from_millis(ms);
    assert_eq!(date.at(at(784_111_777_000)), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(date.at(at(784_111_777_999)), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(date.at(at(784_111_778_000)), "Sun, 06 Nov 1994 08:49:38 GMT");
}
