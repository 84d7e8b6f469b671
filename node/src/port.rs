//! A port: takes connections, and has their requests answered on this thread.
//!
//! Requests that are [plain](crate::plain) are read here if the clerk can do with them; hyper reads all
//! others. A connection on which nothing is answered for long is closed. hyper would set a timer for
//! that before each request and clear it again; here, one look at all connections now and then does.

use std::cell::{Cell, OnceCell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use slab::Slab;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::plain::{Plain, Slate, Talk, Telling};

/// An answer.
pub type Reply = Response<Bytes>;

/// Whoever needs longer for a request line and headers is not a buyer, a peer or an operator. Idle
/// connections end after that too.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Headers of a request at most, and bytes of its head: browsers and gateways send some 30 in
/// 4 KiB, of which a token has 2.
pub(crate) const HEADERS_MAX: usize = 64;
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How often connections are looked at that have no timer of their own, and after how many looks in a
/// row without anything they end: in 5 to 7.5 seconds.
const LOOK: Duration = Duration::from_millis(2_500);
const QUIET_LOOKS_MAX: u8 = 2;
/// The same where an answer is on its way: a weak link takes a large page in pieces, seconds apart.
const STUCK_LOOKS_MAX: u8 = 8;
/// Connections that the kernel holds while a turn is under way.
const BACKLOG: i32 = 4_096;

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

/// What requests may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrades {
    /// Requests are answered, and that is all.
    Never,
    /// A request may ask for another protocol on its connection.
    Allowed,
}

/// Answers the requests of a connection, one after the other.
pub trait Clerk: 'static {
    /// What a plain request asks for, without its bytes.
    type Errand;
    /// What came of that.
    type Outcome;

    /// Answers a request that hyper has read.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Reply>;

    /// What a plain request asks for. `None`: this one and all that come after it are hyper's.
    fn read(&self, request: &Plain<'_>) -> Option<Self::Errand>;

    /// Does what was read.
    fn run(&self, errand: Self::Errand) -> impl Future<Output = Self::Outcome>;

    /// Writes an answer that says what came of it.
    fn tell(&self, outcome: Self::Outcome, to: &mut Telling<'_>);
}

/// Whoever only answers has hyper read everything.
impl<A, F> Clerk for A
where
    A: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Reply>,
{
    type Errand = Infallible;
    type Outcome = Infallible;

    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Reply> {
        self(request)
    }

    fn read(&self, _: &Plain<'_>) -> Option<Infallible> {
        None
    }

    async fn run(&self, errand: Infallible) -> Infallible {
        errand
    }

    fn tell(&self, outcome: Infallible, _: &mut Telling<'_>) {
        match outcome {}
    }
}

/// Serves a port until the task is ended. `meet` is told who has connected, and what it returns
/// answers the requests of that connection.
///
/// `open` counts connections. Over `most` of them a further one is closed at once: a client
/// tries again, and a load balancer elsewhere.
///
/// # Errors
/// What the system says of the listener.
pub fn listen<C: Clerk>(
    listener: TcpListener,
    upgrades: Upgrades,
    open: Rc<Cell<usize>>,
    most: usize,
    meet: impl Fn(IpAddr) -> C + 'static,
) -> io::Result<JoinHandle<()>> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let watch = Rc::new(Watch::default());
    if upgrades == Upgrades::Never {
        tokio::task::spawn_local(Watch::keep(Rc::downgrade(&watch)));
    }
    Ok(tokio::task::spawn_local(async move {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) if open.get() < most => {
                    let _ = stream.set_nodelay(true);
                    let clerk = meet(peer.ip());
                    open.set(open.get() + 1);
                    let (open, watch) = (Rc::clone(&open), Rc::clone(&watch));
                    tokio::task::spawn_local(async move {
                        match upgrades {
                            Upgrades::Never => watch.serve(stream, &clerk).await,
                            Upgrades::Allowed => serve(stream, &clerk).await,
                        }
                        open.set(open.get() - 1);
                    });
                }
                Ok(_) => {}
                Err(error) => {
                    // Out of descriptors: the connections that end make room.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }))
}

pub(crate) fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.max_headers(HEADERS_MAX).max_buf_size(HEAD_BYTES_MAX);
    http
}

/// What may become something else has to leave its thread, as far as hyper knows, and so cannot
/// be watched.
async fn serve<C: Clerk>(stream: TcpStream, clerk: &C) {
    let service = service_fn(|request| {
        let reply = clerk.answer(request);
        async move { Ok::<_, Infallible>(reply.await.map(Full::new)) }
    });
    let mut http = http();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    // A connection that ends badly is the client's affair.
    let _ = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

/// The connections of a port.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    lives: RefCell<Slab<Rc<Life>>>,
    slate: RefCell<Slate>,
}

/// What is known of a connection.
#[derive(Debug, Default)]
pub(crate) struct Life {
    /// A request is being answered.
    answering: Cell<bool>,
    /// The rest of a body has to come.
    awaits_body: Cell<bool>,
    /// A part of an answer waits for the other end to take what went before.
    stuck: Cell<bool>,
    /// Looks since the last answer was made or a part of it went out.
    quiet: Cell<u8>,
    /// Its time is up.
    over: Cell<bool>,
    /// Of its task, which stays the same.
    waker: OnceCell<Waker>,
}

impl Watch {
    /// Looks at all connections as long as there is a port.
    async fn keep(watch: Weak<Self>) {
        let mut looks = tokio::time::interval(LOOK);
        // After a pause of this process, connections have a whole turn before them as well.
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let Some(watch) = watch.upgrade() else { return };
            for (_, life) in watch.lives.borrow().iter() {
                life.look();
            }
        }
    }

    pub(crate) async fn serve<S, C>(&self, stream: S, clerk: &C)
    where
        S: AsyncRead + AsyncWrite + Unpin,
        C: Clerk,
    {
        let life = Rc::new(Life::default());
        let key = self.lives.borrow_mut().insert(Rc::clone(&life));
        let mut talk = pin!(async {
            let plain = Talk::new(stream, &life, &self.slate, clerk);
            if let Some((stream, before)) = plain.run().await {
                // Boxed, so that a connection that needs it not has no room for it.
                Box::pin(life.serve(stream, before, clerk)).await;
            }
        });
        let alive = |cx: &mut Context<'_>| {
            life.waker.get_or_init(|| cx.waker().clone());
            // First what has come: a request that is already here must not be hung up on.
            if talk.as_mut().poll(cx).is_ready() || life.is_over() {
                return Poll::Ready(());
            }
            Poll::Pending
        };
        poll_fn(alive).await;
        self.lives.borrow_mut().remove(key);
    }
}

impl Life {
    /// Has hyper read what comes, after what has come before.
    async fn serve<S, C>(&self, stream: S, before: Bytes, clerk: &C)
    where
        S: AsyncRead + AsyncWrite + Unpin,
        C: Clerk,
    {
        let service = service_fn(|request| {
            self.asked();
            let reply = clerk.answer(request);
            async move {
                let reply = reply.await;
                self.answered();
                Ok::<_, Infallible>(reply.map(Full::new))
            }
        });
        let stream = Watched { before, stream: TokioIo::new(stream), life: self };
        // A connection that ends badly is the client's affair.
        let _ = http().serve_connection(stream, service).await;
    }

    pub(crate) fn asked(&self) {
        self.answering.set(true);
    }

    pub(crate) fn answered(&self) {
        self.answering.set(false);
        self.quiet.set(0);
    }

    pub(crate) fn awaits_body(&self, awaits: bool) {
        if awaits && !self.awaits_body.get() {
            // It has a whole time of its own; a head may have waited for long.
            self.quiet.set(0);
        }
        self.awaits_body.set(awaits);
    }

    /// Notes whether bytes could go out. Those that come in do not count: whoever sends one letter
    /// now and then would never end.
    pub(crate) fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.stuck.set(written.is_pending());
        if written.is_ready() {
            self.quiet.set(0);
        }
        written
    }

    fn look(&self) {
        let quiet = self.quiet.get() + 1;
        let most = if self.stuck.get() { STUCK_LOOKS_MAX } else { QUIET_LOOKS_MAX };
        if self.answering.get() {
            self.quiet.set(0);
            return;
        }
        if quiet <= most {
            self.quiet.set(quiet);
        } else {
            self.over.set(true);
        }
        if (self.over.get() || self.awaits_body.get())
            && let Some(waker) = self.waker.get()
        {
            waker.wake_by_ref();
        }
    }

    /// Whether the rest of a body is still to come at the second look.
    pub(crate) fn is_late(&self) -> bool {
        self.awaits_body.get() && self.quiet.get() > 1
    }

    /// Whether its time is up, and nothing has come of it since that was found.
    fn is_over(&self) -> bool {
        self.over.replace(false) && !self.answering.get() && self.quiet.get() > 0
    }
}

/// A connection that begins with what was read of it before.
#[derive(Debug)]
struct Watched<'a, S> {
    before: Bytes,
    stream: TokioIo<S>,
    life: &'a Life,
}

impl<S: Unpin> Watched<'_, S> {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut TokioIo<S>> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl<S: AsyncRead + Unpin> Read for Watched<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.before.is_empty() {
            return self.stream().poll_read(cx, buf);
        }
        let some = self.before.len().min(buf.remaining());
        buf.put_slice(&self.before[..some]);
        self.before.advance(some);
        if self.before.is_empty() {
            // The room goes back with the bytes.
            self.before = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Write for Watched<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.as_mut().stream().poll_write(cx, buf);
        self.life.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.as_mut().stream().poll_write_vectored(cx, bufs);
        self.life.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks until it is over.
    fn looks(life: &Life) -> u8 {
        let mut looks = 0;
        while !life.over.get() && looks < 100 {
            life.look();
            looks += 1;
        }
        looks
    }

    #[test]
    fn a_connection_ends_when_nothing_goes_out_for_some_looks() {
        let life = Life::default();
        assert_eq!(looks(&life), QUIET_LOOKS_MAX + 1);
        assert!(life.is_over());
        let life = Life::default();
        life.stuck.set(true);
        assert_eq!(looks(&life), STUCK_LOOKS_MAX + 1, "an answer is on its way");
        let life = Life::default();
        life.answering.set(true);
        assert_eq!(looks(&life), 100, "an answer is being made");
    }

    #[test]
    fn a_request_that_came_before_the_end_was_noticed_is_answered() {
        let life = Life::default();
        looks(&life);
        life.answering.set(true);
        assert!(!life.is_over());
        life.answering.set(false);
        life.quiet.set(0);
        assert!(!life.is_over(), "it was answered meanwhile");
        assert_eq!(looks(&life), QUIET_LOOKS_MAX + 1);
    }

    #[test]
    fn who_says_nothing_is_hung_up_on_and_who_asks_is_answered() {
        use std::io::{Read as _, Write as _};

        let listener = bind((std::net::Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let port = listener.local_addr().unwrap();
        let client = std::thread::spawn(move || {
            let connect = || std::net::TcpStream::connect(port).unwrap();
            let (mut silent, mut buyer) = (connect(), connect());
            let mut answered = 0;
            for _ in 0..4 {
                buyer.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                let mut bytes = [0; 512];
                answered += usize::from(buyer.read(&mut bytes).unwrap() > 0);
                std::thread::sleep(Duration::from_secs(2));
            }
            // Long ago.
            (silent.read(&mut [0; 8]).unwrap(), answered)
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            let open = Rc::new(Cell::new(0));
            let answer = |_| |_| async { Reply::default() };
            let serving = listen(listener, Upgrades::Never, Rc::clone(&open), 8, answer).unwrap();
            let asked = tokio::task::spawn_blocking(move || client.join().unwrap());
            assert_eq!(asked.await.unwrap(), (0, 4));
            serving.abort();
            while open.get() > 0 {
                tokio::task::yield_now().await;
            }
        });
    }
}
