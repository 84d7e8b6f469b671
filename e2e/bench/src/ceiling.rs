//! The yardstick: what HTTP alone costs.
//!
//! The same library, runtime, allocator and socket options as a node's buyers' port, and none of
//! its limits and timers: it reads the body and sends the same bytes to everybody.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, TcpListener};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

type Reply = Response<Full<Bytes>>;

/// Answers every request with `body`, on one thread, until the process ends.
///
/// # Errors
/// What the system says of the port.
pub(crate) fn serve(port: u16, body: Vec<u8>) -> io::Result<()> {
    let body = Bytes::from(body);
    let answer = move |request: Request<Incoming>| {
        let body = body.clone();
        async move {
            drop(read(request).await);
            reply(body)
        }
    };
    listen(port, answer, std::future::pending())
}

/// Serves a port on one thread, until `broken` says why not.
///
/// # Errors
/// What the system says of the port, and what `broken` says.
pub(crate) fn listen<A, F>(
    port: u16,
    answer: A,
    broken: impl Future<Output = io::Error>,
) -> io::Result<()>
where
    A: Fn(Request<Incoming>) -> F + Clone + 'static,
    F: Future<Output = Reply> + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let accept = async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(talk(stream, answer.clone()));
        }
    };
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        tokio::select! {
            ended = accept => ended,
            error = broken => Err(error),
        }
    })
}

async fn talk<A, F>(stream: TcpStream, answer: A)
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Reply>,
{
    let service = service_fn(|request| {
        let reply = answer(request);
        async move { Ok::<_, Infallible>(reply.await) }
    });
    let http = hyper::server::conn::http1::Builder::new();
    // A connection that ends badly is the client's affair.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

/// The whole body. Half a body means that the connection is about to end, and so does the answer.
pub(crate) async fn read(request: Request<Incoming>) -> Option<Bytes> {
    Some(request.into_body().collect().await.ok()?.to_bytes())
}

/// The answer.
pub(crate) fn reply(body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = StatusCode::CREATED;
    let json = HeaderValue::from_static("application/json");
    reply.headers_mut().insert(header::CONTENT_TYPE, json);
    reply
}
