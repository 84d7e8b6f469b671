//! Plain requests: HTTP/1.1 (RFC 9112) as nearly every client writes it.
//!
//! Most of what a buyers' port hears looks alike: a head of a few fields and a small body whose
//! length the head says. Such requests are read where their bytes lie, in room that all connections
//! of a port use in turn, and answered with one write; a connection that waits has no room of its
//! own.
//!
//! Whatever else comes (another version, a transfer coding, an expectation, an upgrade, a wish to
//! close, a body that is large or slow, what cannot be read at all) is not judged here: hyper gets
//! it with all bytes from there on, and keeps the connection.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Buf as _, Bytes, BytesMut};
use httparse::{Header, ParserConfig, Status};
use httpdate::HttpDate;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::port::{Clerk, HEAD_BYTES_MAX, HEADERS_MAX, Life, Reply};

/// Bytes of the body of a plain request at most: an order of 16 passengers has about 2 KiB.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// Bytes that are read at once: the largest plain request.
const READ_BYTES: usize = HEAD_BYTES_MAX + BODY_BYTES_MAX;
/// Room for the beginning of a usual request.
const LITTLE_BYTES: usize = 2 * 1024;
/// Bytes of a body that is copied behind its head. A longer one is written from where it lies.
const JOINED_BYTES_MAX: usize = 16 * 1024;
/// Answers in a row to whoever has sent that many requests at once, before others have their turn.
const TURNS: u8 = 16;
/// Room for the answers that are usual.
const ANSWER_BYTES: usize = 2 * 1024;

/// The fields of a head, of a plain request as of any other.
pub trait Fields {
    /// The values of a field, in their order.
    fn values(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]>;

    /// The value of a field that must be said once, if it is text.
    fn only(&self, name: &HeaderName) -> Option<&str> {
        let mut values = self.values(name);
        let one = values.next().filter(|_| values.next().is_none());
        one.and_then(text)
    }

    /// The first value of a field, if it is text.
    fn text(&self, name: &HeaderName) -> Option<&str> {
        self.values(name).next().and_then(text)
    }
}

impl Fields for HeaderMap {
    fn values(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        self.get_all(name).iter().map(HeaderValue::as_bytes)
    }
}

impl Fields for [Header<'_>] {
    fn values(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        let same = |field: &&Header<'_>| field.name.eq_ignore_ascii_case(name.as_str());
        self.iter().filter(same).map(|field| field.value)
    }
}

/// The text of a value, as [`HeaderValue::to_str`] has it: visible ASCII, spaces and tabs.
pub fn text(value: &[u8]) -> Option<&str> {
    let visible = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    std::str::from_utf8(value).ok().filter(|_| value.iter().all(visible))
}

/// A plain request, where its bytes lie.
#[derive(Debug, Clone, Copy)]
pub struct Plain<'a> {
    /// The method, as it is written.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Fields of the head.
    pub fields: &'a [Header<'a>],
    /// The whole body.
    pub body: &'a [u8],
}

impl Plain<'_> {
    /// The same on its own, for whoever can wait; `None` if something in it is no HTTP to hyper.
    #[must_use]
    pub fn owned(&self) -> Option<Request<Bytes>> {
        let mut request = Request::new(Bytes::copy_from_slice(self.body));
        *request.method_mut() = Method::from_bytes(self.method.as_bytes()).ok()?;
        *request.uri_mut() = self.target.parse().ok()?;
        let fields = request.headers_mut();
        fields.reserve(self.fields.len());
        for field in self.fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            fields.append(name, HeaderValue::from_bytes(field.value).ok()?);
        }
        Some(request)
    }
}

/// What the bytes at the beginning of a request are.
#[derive(Debug)]
enum Heard<'a> {
    /// A plain request, and how many bytes it has.
    Whole(Plain<'a>, usize),
    /// The beginning of one; how many bytes it has in all, if its head is whole.
    Part(Option<usize>),
    /// Something else.
    Unusual,
}

/// Room for the fields of a head.
type Room<'a> = [MaybeUninit<Header<'a>>; HEADERS_MAX];

fn hear<'a>(bytes: &'a [u8], room: &'a mut Room<'a>) -> Heard<'a> {
    let mut head = httparse::Request::new(&mut []);
    let read = ParserConfig::default().parse_request_with_uninit_headers(&mut head, bytes, room);
    let body_at = match read {
        Ok(Status::Complete(length)) if length <= HEAD_BYTES_MAX => length,
        Ok(Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Heard::Part(None),
        _ => return Heard::Unusual,
    };
    let fields: &[Header<'_>] = head.headers;
    let (Some(method), Some(target), Some(1)) = (head.method, head.path, head.version) else {
        return Heard::Unusual;
    };
    let plain = target.starts_with('/') && method != "CONNECT";
    let Some(length) = body_length(fields).filter(|_| plain) else { return Heard::Unusual };
    let Some(body) = bytes.get(body_at..body_at + length) else {
        return Heard::Part(Some(body_at + length));
    };
    Heard::Whole(Plain { method, target, fields, body }, body_at + length)
}

/// The length of the body of a plain request; `None` if a field makes it another one.
fn body_length(fields: &[Header<'_>]) -> Option<usize> {
    let mut length = None;
    for field in fields {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let digits = std::str::from_utf8(field.value).ok()?;
            // The number type would take a sign.
            let said = digits.bytes().all(|byte| byte.is_ascii_digit());
            let said =
                digits.parse().ok().filter(|said_length| said && *said_length <= BODY_BYTES_MAX);
            if length.replace(said?).is_some() {
                return None;
            }
        } else if is("connection") {
            field.value.eq_ignore_ascii_case(b"keep-alive").then_some(())?;
        } else if is("transfer-encoding") || is("expect") || is("upgrade") {
            return None;
        }
    }
    Some(length.unwrap_or(0))
}

/// What the connections of a port use in turn.
#[derive(Debug)]
pub(crate) struct Slate {
    read: Box<[u8]>,
    head: Vec<u8>,
    body: Vec<u8>,
    date: Date,
}

impl Default for Slate {
    fn default() -> Self {
        let (head, body) = (Vec::with_capacity(ANSWER_BYTES), Vec::with_capacity(ANSWER_BYTES));
        Self { read: vec![0; READ_BYTES].into(), head, body, date: Date::default() }
    }
}

/// The second that it is, as answers say it (RFC 9110 6.6.1).
#[derive(Debug, Default)]
struct Date {
    second: u64,
    text: String,
}

impl Date {
    fn at(&mut self, now: SystemTime) -> &str {
        let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if second != self.second || self.text.is_empty() {
            (self.second, self.text) = (second, HttpDate::from(now).to_string());
        }
        &self.text
    }
}

/// What comes next on a connection.
enum Next<E> {
    /// A plain request; whether its answer has a body.
    Asked(E, bool),
    Unusual,
    Ended,
}

/// What is known of the bytes that have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// They were not looked at.
    New,
    /// They are the beginning of a request, which has so many in all if its head is whole.
    Part(Option<usize>),
}

/// A connection that has said nothing but plain requests.
pub(crate) struct Talk<'a, S, C> {
    stream: S,
    life: &'a Life,
    slate: &'a RefCell<Slate>,
    clerk: &'a C,
    /// What has come of the next requests.
    rest: BytesMut,
    known: Rest,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin, C: Clerk> Talk<'a, S, C> {
    pub(crate) fn new(stream: S, life: &'a Life, slate: &'a RefCell<Slate>, clerk: &'a C) -> Self {
        Self { stream, life, slate, clerk, rest: BytesMut::new(), known: Rest::New }
    }

    /// Answers as long as requests are plain. After that, the connection and what has come of
    /// its next request; `None` if it has ended.
    pub(crate) async fn run(mut self) -> Option<(S, Bytes)> {
        // Whoever has sent more than one request at once lets others have their turn.
        let mut turns = TURNS;
        loop {
            let (errand, whole) = match poll_fn(|cx| self.poll_next(cx)).await {
                Next::Asked(errand, whole) => (errand, whole),
                Next::Unusual => {
                    self.life.awaits_body(false);
                    return Some((self.stream, self.rest.freeze()));
                }
                Next::Ended => return None,
            };
            self.life.asked();
            let outcome = self.run_errand(errand).await?;
            self.life.answered();
            // A connection that ends badly is the client's affair.
            let last = self.send(outcome, whole).await.ok()?;
            if last {
                let _ = poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await;
                return None;
            }
            turns = if self.rest.is_empty() { TURNS } else { turns - 1 };
            if turns == 0 {
                turns = TURNS;
                tokio::task::yield_now().await;
            }
        }
    }

    /// What came of it; `None` if the client has gone meanwhile, so that nothing is begun for nobody.
    async fn run_errand(&mut self, errand: C::Errand) -> Option<C::Outcome> {
        let mut work = pin!(self.clerk.run(errand));
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(outcome));
            }
            let slate = &mut *self.slate.borrow_mut();
            // What fills the room can wait, and so can the news of an end behind it.
            while self.rest.len() < READ_BYTES {
                match read(&mut self.stream, &mut slate.read[self.rest.len()..], cx) {
                    Poll::Ready(Ok(came)) if !came.is_empty() => keep(&mut self.rest, came),
                    // Whoever has asked for more before the end wants to hear it.
                    Poll::Ready(Ok(_)) if !self.rest.is_empty() => break,
                    Poll::Ready(_) => return Poll::Ready(None),
                    Poll::Pending => break,
                }
            }
            Poll::Pending
        })
        .await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<C::Errand>> {
        let slate = &mut *self.slate.borrow_mut();
        loop {
            if !self.rest.is_empty() && self.known == Rest::New {
                let begun = begin(self.clerk, &self.rest);
                if let Some((next, used)) = self.follow(begun) {
                    self.rest.advance(used);
                    if self.rest.is_empty() {
                        // The room goes back with the bytes.
                        self.rest = BytesMut::new();
                    }
                    return Poll::Ready(next);
                }
            }
            // A part is smaller than the room.
            let came = match read(&mut self.stream, &mut slate.read[self.rest.len()..], cx) {
                Poll::Ready(Ok(came)) => came,
                Poll::Ready(Err(_)) => return Poll::Ready(Next::Ended),
                // Whoever is slow with a body hears so from hyper's side.
                Poll::Pending if self.life.is_late() => return Poll::Ready(Next::Unusual),
                Poll::Pending => return Poll::Pending,
            };
            if came.is_empty() {
                let whole = self.rest.is_empty();
                return Poll::Ready(if whole { Next::Ended } else { Next::Unusual });
            }
            if !self.rest.is_empty() {
                keep(&mut self.rest, came);
                let more = match self.known {
                    Rest::Part(Some(all)) => self.rest.len() >= all,
                    // A head ends with a line.
                    _ => came.contains(&b'\n'),
                };
                if more || self.rest.len() >= READ_BYTES {
                    self.known = Rest::New;
                }
                continue;
            }
            let begun = begin(self.clerk, came);
            match self.follow(begun) {
                Some((next, used)) => {
                    keep(&mut self.rest, &came[used..]);
                    return Poll::Ready(next);
                }
                None => keep(&mut self.rest, came),
            }
        }
    }

    /// What comes next, and how many bytes that has used; `None` if more must come.
    fn follow(&mut self, begun: Begun<C::Errand>) -> Option<(Next<C::Errand>, usize)> {
        self.known = match begun {
            Begun::Part(all) => Rest::Part(all),
            _ => Rest::New,
        };
        self.life.awaits_body(matches!(begun, Begun::Part(Some(_))));
        match begun {
            Begun::Whole(errand, whole, used) => Some((Next::Asked(errand, whole), used)),
            Begun::Part(_) => None,
            Begun::Unusual => Some((Next::Unusual, 0)),
        }
    }

    /// Whether the connection ends with this answer.
    async fn send(&mut self, outcome: C::Outcome, whole: bool) -> io::Result<bool> {
        let mut outcome = Some(outcome);
        let (mut head, mut body, last) = poll_fn(|cx| {
            let slate = &mut *self.slate.borrow_mut();
            let mut telling = Telling::new(&mut slate.head, &mut slate.body);
            if let Some(outcome) = outcome.take() {
                self.clerk.tell(outcome, &mut telling);
            }
            let (mut apart, last) = telling.end(whole, slate.date.at(SystemTime::now()));
            let stream = Pin::new(&mut self.stream);
            let wrote = if apart.is_empty() {
                stream.poll_write(cx, &slate.head)
            } else {
                let parts = [IoSlice::new(&slate.head), IoSlice::new(&apart)];
                stream.poll_write_vectored(cx, &parts)
            };
            let wrote = match self.life.wrote(wrote) {
                Poll::Ready(wrote) => wrote?,
                Poll::Pending => 0,
            };
            // Others use the room while this one waits.
            let of_head = wrote.min(slate.head.len());
            let head = Bytes::copy_from_slice(&slate.head[of_head..]);
            apart.advance(wrote - of_head);
            Poll::Ready(io::Result::Ok((head, apart, last)))
        })
        .await?;
        for part in [&mut head, &mut body] {
            while !part.is_empty() {
                let wrote = poll_fn(|cx| {
                    let wrote = Pin::new(&mut self.stream).poll_write(cx, part);
                    self.life.wrote(wrote)
                });
                match wrote.await? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    wrote => part.advance(wrote),
                }
            }
        }
        Ok(last)
    }
}

/// What has come, in the room for it; nothing at the end.
fn read<'r>(
    stream: &mut (impl AsyncRead + Unpin),
    room: &'r mut [u8],
    cx: &mut Context<'_>,
) -> Poll<io::Result<&'r [u8]>> {
    let mut filled = ReadBuf::new(room);
    ready!(Pin::new(stream).poll_read(cx, &mut filled))?;
    let came = filled.filled().len();
    Poll::Ready(Ok(&room[..came]))
}

/// Keeps bytes, in a little room or in all that there may be: room that doubles would be twice that.
fn keep(rest: &mut BytesMut, came: &[u8]) {
    let length = rest.len() + came.len();
    if length > rest.capacity() {
        let room = if length <= LITTLE_BYTES { LITTLE_BYTES } else { READ_BYTES };
        let before = std::mem::replace(rest, BytesMut::with_capacity(room));
        rest.extend_from_slice(&before);
    }
    rest.extend_from_slice(came);
}

/// What was heard, when its bytes are needed no more.
enum Begun<E> {
    Whole(E, bool, usize),
    Part(Option<usize>),
    Unusual,
}

fn begin<C: Clerk>(clerk: &C, bytes: &[u8]) -> Begun<C::Errand> {
    let mut room = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    match hear(bytes, &mut room) {
        Heard::Whole(request, used) => match clerk.read(&request) {
            Some(errand) => Begun::Whole(errand, request.method != "HEAD", used),
            None => Begun::Unusual,
        },
        Heard::Part(all) => Begun::Part(all),
        Heard::Unusual => Begun::Unusual,
    }
}

/// An answer while it is written: its status, then its fields, its body, and the end.
#[derive(Debug)]
pub struct Telling<'s> {
    head: &'s mut Vec<u8>,
    body: &'s mut Vec<u8>,
    /// A body that lies elsewhere.
    apart: Bytes,
    status: StatusCode,
    last: bool,
}

impl<'s> Telling<'s> {
    fn new(head: &'s mut Vec<u8>, body: &'s mut Vec<u8>) -> Self {
        head.clear();
        body.clear();
        Self { head, body, apart: Bytes::new(), status: StatusCode::OK, last: false }
    }

    /// Begins with the status.
    pub fn status(&mut self, status: StatusCode) {
        self.status = status;
        self.head.extend_from_slice(b"HTTP/1.1 ");
        self.head.extend_from_slice(status.as_str().as_bytes());
        self.head.push(b' ');
        self.head.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    }

    /// A field of the head. That the connection ends is seen, and kept to.
    pub fn field(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.last |= *name == header::CONNECTION && value == "close";
        self.line(name, value.as_bytes());
    }

    /// A field whose value is a letter behind the other; no control character is one.
    pub fn field_of(&mut self, name: &HeaderName, value: &impl std::fmt::Display) {
        self.line(name, b"");
        // Nothing fails to be written to a Vec.
        let _ = write!(self.head, "{value}");
    }

    fn line(&mut self, name: &HeaderName, value: &[u8]) {
        self.head.extend_from_slice(b"\r\n");
        self.head.extend_from_slice(name.as_str().as_bytes());
        self.head.extend_from_slice(b": ");
        self.head.extend_from_slice(value);
    }

    /// Room for the body.
    pub fn body(&mut self) -> &mut Vec<u8> {
        self.body
    }

    /// All of an answer that is there.
    pub fn reply(&mut self, reply: &Reply) {
        self.status(reply.status());
        for (name, value) in reply.headers() {
            self.field(name, value);
        }
        if reply.body().len() > JOINED_BYTES_MAX {
            self.apart = reply.body().clone();
        } else {
            self.body.extend_from_slice(reply.body());
        }
    }

    /// Ends the head, and lets the body follow if it is wanted. What of it is better written from
    /// where it lies, and whether the connection ends.
    fn end(mut self, whole: bool, date: &str) -> (Bytes, bool) {
        // RFC 9110 8.6: these have no content and say no length.
        let empty = matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if !empty {
            let length = self.body.len() + self.apart.len();
            self.field_of(&header::CONTENT_LENGTH, &length);
        }
        self.line(&header::DATE, date.as_bytes());
        self.head.extend_from_slice(b"\r\n\r\n");
        if !whole || empty {
            return (Bytes::new(), self.last);
        }
        self.head.extend_from_slice(self.body);
        (self.apart, self.last)
    }
}

#[cfg(test)]
#[path = "plain_tests.rs"]
mod tests;
