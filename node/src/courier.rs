//! Commands to other nodes: a [line](crate::line) to each, made when there is something to say.
//!
//! A command is sent once; whether it may be sent again is the caller's decision, and so it is
//! told whether the command was certainly not seen.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use inventory::conductor::Lost;
use inventory::message::{decode_answer, encode_command};
use inventory::owner::Answer;
use inventory::state::Command;
use inventory::words::{Address, LedgerKey, ShareId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::line;

/// An owner answers within 3 s, if only "unknown".
const TIMEOUT: Duration = Duration::from_millis(3_500);
/// A peer that is cut off must not hold a buyer: the owner may be another by then.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A line on which nothing was said for so long is hung up; by this end, since the other one
/// would not know what is just being said.
const IDLE: Duration = Duration::from_secs(60);

/// The way to other nodes.
#[derive(Debug, Clone, Default)]
pub struct Courier(Rc<RefCell<HashMap<Address, Rc<Line>>>>);

/// One way.
#[derive(Debug)]
struct Line {
    talk: RefCell<Talk>,
    /// There is something to send, or the end has come.
    news: Notify,
}

#[derive(Debug)]
struct Talk {
    outbox: BytesMut,
    /// The number of the next command.
    next: u64,
    /// Commands below this number may have been seen.
    handed: u64,
    waiting: HashMap<u64, oneshot::Sender<Result<Answer, Lost>>>,
    /// When the peer last said something.
    heard: Instant,
    over: bool,
}

/// An answer that is waited for. Whoever goes is forgotten.
struct Asked {
    line: Rc<Line>,
    number: u64,
    since: Instant,
    answer: oneshot::Receiver<Result<Answer, Lost>>,
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
        let line = self.line(to, key);
        let mut asked = Line::ask(&line, key, &encode_command(share, command))?;
        match tokio::time::timeout(TIMEOUT, &mut asked.answer).await {
            Ok(told) => told.unwrap_or(Err(Lost::Unknown)),
            Err(_) => {
                line.doubt(asked.since);
                Err(Lost::Unknown)
            }
        }
    }

    fn line(&self, to: Address, key: &LedgerKey) -> Rc<Line> {
        let mut lines = self.0.borrow_mut();
        if let Some(line) = lines.get(&to)
            && !line.talk.borrow().over
        {
            return Rc::clone(line);
        }
        lines.retain(|_, line| !line.talk.borrow().over);
        let line = Rc::new(Line::new());
        lines.insert(to, Rc::clone(&line));
        let (held, pass) = (Rc::clone(&line), line::pass(key));
        tokio::task::spawn_local(async move {
            if let Ok(Some((stream, early))) =
                tokio::time::timeout(CONNECT_TIMEOUT, connect(to, &pass)).await
            {
                held.exchange(stream, early).await;
            }
            held.end();
        });
        line
    }
}

/// A connection on which the peer has agreed to speak in messages, and what it has said already.
async fn connect(to: Address, pass: &str) -> Option<(TcpStream, Bytes)> {
    let stream = TcpStream::connect(to.as_str()).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::task::spawn_local(connection.with_upgrades());
    let request = Request::builder()
        .method(Method::GET)
        .uri(line::PATH)
        .header(header::HOST, to.as_str())
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, line::PROTOCOL)
        .header(line::HEADER, pass)
        .body(Empty::<Bytes>::new());
    let response = sender.send_request(request.ok()?).await.ok()?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        tracing::warn!(%to, status = %response.status(), "a peer wants no line");
        return None;
    }
    let upgraded = hyper::upgrade::on(response).await.ok()?;
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}

impl Line {
    fn new() -> Self {
        let talk = Talk {
            outbox: BytesMut::new(),
            next: 1,
            handed: 1,
            waiting: HashMap::new(),
            heard: Instant::now(),
            over: false,
        };
        Self { talk: RefCell::new(talk), news: Notify::new() }
    }

    fn ask(line: &Rc<Self>, key: &LedgerKey, command: &[u8]) -> Result<Asked, Lost> {
        let mut talk = line.talk.borrow_mut();
        if talk.waiting.len() >= line::WAITING_MAX {
            return Err(Lost::NotSent);
        }
        let number = talk.next;
        talk.next += 1;
        line::put_command(&mut talk.outbox, key, number, command);
        let (tell, answer) = oneshot::channel();
        talk.waiting.insert(number, tell);
        line.news.notify_one();
        Ok(Asked { line: Rc::clone(line), number, since: Instant::now(), answer })
    }

    /// Speaks until one side has enough.
    async fn exchange(&self, mut stream: TcpStream, early: Bytes) {
        let (mut reader, mut writer) = stream.split();
        let (mut inbox, mut sending) = (BytesMut::from(early), BytesMut::new());
        let mut idle = tokio::time::interval(IDLE);
        loop {
            if self.deliver(&mut inbox).is_err() || self.talk.borrow().over {
                return;
            }
            if sending.is_empty() {
                self.hand_over(&mut sending);
            }
            inbox.reserve(line::READ_BYTES);
            tokio::select! {
                biased;
                wrote = writer.write_buf(&mut sending), if !sending.is_empty() => {
                    if wrote.is_err() {
                        return;
                    }
                }
                read = reader.read_buf(&mut inbox) => {
                    if read.unwrap_or(0) == 0 {
                        return;
                    }
                    self.talk.borrow_mut().heard = Instant::now();
                }
                () = self.news.notified() => {}
                _ = idle.tick() => {
                    let talk = self.talk.borrow();
                    if talk.waiting.is_empty() && talk.heard.elapsed() >= IDLE {
                        return;
                    }
                }
            }
        }
    }

    /// Takes what is to be sent; from now on the peer may have seen it.
    fn hand_over(&self, sending: &mut BytesMut) {
        let mut talk = self.talk.borrow_mut();
        std::mem::swap(sending, &mut talk.outbox);
        talk.handed = talk.next;
    }

    fn deliver(&self, inbox: &mut BytesMut) -> Result<(), line::TooLong> {
        while let Some((number, body)) = line::next(inbox)? {
            let (end, answer) = (body.end, decode_answer(&inbox[body]));
            inbox.advance(end);
            if let Some(waits) = self.talk.borrow_mut().waiting.remove(&number) {
                // Whoever asked may have gone.
                let _ = waits.send(answer.map_err(|_| Lost::Unknown));
            }
        }
        Ok(())
    }

    /// Somebody waited in vain. A peer that has said nothing since is not there any more.
    fn doubt(&self, since: Instant) {
        let mut talk = self.talk.borrow_mut();
        if talk.heard < since {
            talk.over = true;
            self.news.notify_one();
        }
    }

    /// Tells everybody who waits, and takes nothing any more.
    fn end(&self) {
        let mut talk = self.talk.borrow_mut();
        talk.over = true;
        let handed = talk.handed;
        for (number, waits) in talk.waiting.drain() {
            // Whoever asked may have gone.
            let _ = waits.send(Err(if number < handed { Lost::Unknown } else { Lost::NotSent }));
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.line.talk.borrow_mut().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inventory::message::{decode_command, encode_answer};
    use inventory::words::{Digest128, Epoch, OrderId};
    use tokio::net::TcpListener;
    use tokio::task::{JoinHandle, LocalSet};

    const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                          Upgrade: stationmaster-line\r\n\r\n";

    fn key() -> LedgerKey {
        LedgerKey::derive("a sale", [7; 16])
    }

    fn read(number: u32) -> Command {
        let order = OrderId { home: ShareId(1), epoch: Epoch(1), number };
        Command::Read { order, buyer: Digest128::default() }
    }

    /// The other end of a connection, behind the head of its first request.
    async fn met(listener: &TcpListener) -> TcpStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"GET /peer/v1/line HTTP/1.1\r\n"));
        stream
    }

    /// The numbers of so many commands, in the order in which they came.
    async fn heard(stream: &mut TcpStream, count: usize) -> Vec<u64> {
        let (mut bytes, mut numbers) = (BytesMut::new(), Vec::new());
        while numbers.len() < count {
            if let Some((number, body)) = line::next(&bytes).unwrap() {
                let end = body.end;
                let command = line::command(&key(), number, &bytes[body]).unwrap();
                assert_eq!(decode_command(command).unwrap().0, ShareId(1));
                bytes.advance(end);
                numbers.push(number);
            } else if stream.read_buf(&mut bytes).await.unwrap() == 0 {
                break;
            }
        }
        numbers
    }

    type Asks = Vec<JoinHandle<Result<Answer, Lost>>>;

    fn asks(courier: &Courier, to: Address, count: u32) -> Asks {
        let ask = |number| {
            let courier = courier.clone();
            tokio::task::spawn_local(async move {
                courier.send(to, &key(), ShareId(1), &read(number)).await
            })
        };
        (1..=count).map(ask).collect()
    }

    async fn told(asks: Asks) -> Vec<Result<Answer, Lost>> {
        let mut told = Vec::new();
        for ask in asks {
            told.push(ask.await.unwrap());
        }
        told
    }

    /// Runs what needs tasks of one thread.
    fn on_one_thread<F: Future<Output = ()>>(what: F) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, what);
    }

    async fn listener() -> (TcpListener, Address) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        (listener, address)
    }

    #[test]
    fn answers_find_who_asked_in_whatever_order_they_come() {
        on_one_thread(async {
            let (listener, to) = listener().await;
            let courier = Courier::default();
            let asked = asks(&courier, to, 3);
            let mut peer = met(&listener).await;
            peer.write_all(SWITCH.as_bytes()).await.unwrap();
            let mut bytes = BytesMut::new();
            for number in heard(&mut peer, 3).await.into_iter().rev() {
                let answer = Answer::GroupTooLarge(u32::try_from(number).unwrap());
                line::put_answer(&mut bytes, number, &encode_answer(&answer));
            }
            peer.write_all(&bytes).await.unwrap();
            assert_eq!(told(asked).await, [1, 2, 3].map(|n| Ok(Answer::GroupTooLarge(n))));
            // The next one goes the same way.
            let asked = asks(&courier, to, 1);
            assert_eq!(heard(&mut peer, 1).await, [4]);
            drop(peer);
            assert_eq!(told(asked).await, [Err(Lost::Unknown)]);
        });
    }

    #[test]
    fn what_was_never_handed_over_was_certainly_not_seen() {
        on_one_thread(async {
            let (listener, to) = listener().await;
            let courier = Courier::default();
            let asked = asks(&courier, to, 2);
            let mut peer = met(&listener).await;
            peer.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
                .await
                .unwrap();
            assert_eq!(told(asked).await, [Err(Lost::NotSent), Err(Lost::NotSent)]);
            // A line that failed is made anew for who asks next.
            let asked = asks(&courier, to, 1);
            let mut peer = met(&listener).await;
            peer.write_all(SWITCH.as_bytes()).await.unwrap();
            assert_eq!(heard(&mut peer, 1).await, [1]);
            drop((peer, listener));
            assert_eq!(told(asked).await, [Err(Lost::Unknown)]);
            assert_eq!(told(asks(&courier, to, 1)).await, [Err(Lost::NotSent)], "nobody listens");
        });
    }

    #[test]
    fn a_peer_that_says_nothing_is_given_up() {
        on_one_thread(async {
            let (listener, to) = listener().await;
            let courier = Courier::default();
            let asked = asks(&courier, to, 1);
            let mut peer = met(&listener).await;
            peer.write_all(SWITCH.as_bytes()).await.unwrap();
            assert_eq!(told(asked).await, [Err(Lost::Unknown)]);
            assert_eq!(heard(&mut peer, 2).await, [1], "then it is hung up on");
        });
    }
}
