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

/// Answers every request with `body`, on one thread, until the process ends.
///
/// # Errors
/// What the system says of the port.
pub(crate) fn serve(port: u16, body: Vec<u8>) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let body = Bytes::from(body);
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(talk(stream, body.clone()));
        }
    })
}

async fn talk(stream: TcpStream, body: Bytes) {
    let service = service_fn(move |request| answer(request, body.clone()));
    let http = hyper::server::conn::http1::Builder::new();
    // A connection that ends badly is the client's affair.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: Request<Incoming>,
    body: Bytes,
) -> Result<Response<Full<Bytes>>, Infallible> {
    // Half a body means that the connection is about to end, and so does the answer.
    let _ = request.into_body().collect().await;
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = StatusCode::CREATED;
    let json = HeaderValue::from_static("application/json");
    reply.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(reply)
}
