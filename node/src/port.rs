//! A port: takes connections, and has their requests answered on this thread.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::{IpAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinHandle;

/// An answer.
pub type Reply = Response<Full<Bytes>>;

/// Whoever needs longer for a request line and headers is not a buyer, a peer or an operator.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Headers of a request at most, and bytes of its head: browsers and gateways send some 30 in
/// 4 KiB, of which a token has 2.
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 16 * 1024;
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

/// Serves a port until the task is ended. `meet` is told who has connected, and what it returns
/// answers the requests of that connection, one after the other.
///
/// `open` counts connections. Over `most` of them a further one is closed at once: a client
/// tries again, and a load balancer elsewhere.
///
/// # Errors
/// What the system says of the listener.
pub fn listen<M, A, F>(
    listener: TcpListener,
    open: Rc<Cell<usize>>,
    most: usize,
    meet: M,
) -> std::io::Result<JoinHandle<()>>
where
    M: Fn(IpAddr) -> A + 'static,
    A: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Reply> + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    Ok(tokio::task::spawn_local(async move {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) if open.get() < most => {
                    let _ = stream.set_nodelay(true);
                    let answer = meet(peer.ip());
                    open.set(open.get() + 1);
                    let open = Rc::clone(&open);
                    tokio::task::spawn_local(async move {
                        serve(stream, answer).await;
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

async fn serve<A, F>(stream: tokio::net::TcpStream, answer: A)
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Reply>,
{
    let service = service_fn(|request| {
        let reply = answer(request);
        async move { Ok::<_, Infallible>(reply.await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    http.max_headers(HEADERS_MAX).max_buf_size(HEAD_BYTES_MAX);
    // A connection that ends badly is the client's affair.
    let _ = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}
