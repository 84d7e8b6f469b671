//! A port to look at the nodes, to kill one, and to start it again.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

use crate::Arguments;
use crate::fleet::{Error, Fleet};

/// Serves the port and drives the dispatcher, for ever.
pub(crate) async fn serve(arguments: &Arguments, fleet: Rc<Fleet>) -> Result<(), Error> {
    let port = arguments.admin_port;
    let refused = |error| Error::Port { port, error };
    let listener = node::port::bind((Ipv4Addr::LOCALHOST, port).into()).map_err(refused)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(refused)?;
    let dispatching = Rc::clone(&fleet);
    tokio::task::spawn_local(async move { dispatching.dispatch().await });
    let greeting = Rc::clone(&fleet);
    tokio::task::spawn_local(async move {
        while !greeting.is_ready() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        greet(&greeting, port);
    });
    loop {
        let (stream, _) = listener.accept().await?;
        let fleet = Rc::clone(&fleet);
        let service = service_fn(move |request| {
            let fleet = Rc::clone(&fleet);
            async move { Ok::<_, Infallible>(answer(&fleet, &request).await) }
        });
        tokio::task::spawn_local(async move {
            let http = hyper::server::conn::http1::Builder::new();
            // A connection that ends badly is the client's affair.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn greet(fleet: &Fleet, admin: u16) {
    let (address, header) = (fleet.buyers(), fleet.header().to_owned());
    let [run, from, to, class] = fleet.sample();
    println!(
        "\nBuy tickets:  http://{address}/\n\
         Look on:      http://127.0.0.1:{admin}/live\n\n\
         Buy a ticket:\n  curl -i http://{address}/v1/orders -H '{header}: alice' \
         -H 'Idempotency-Key: 1' \\\n    -d '{{\"run\": \"{run}\", \"from\": \"{from}\", \
         \"to\": \"{to}\", \"class\": \"{class}\",\n         \
         \"passengers\": [{{\"document\": \"P123\"}}]}}'\n\n\
         Kill a node, then watch its shares move to the others:\n  \
         curl -X POST http://127.0.0.1:{admin}/nodes/node-1/kill\n  \
         curl http://127.0.0.1:{admin}/nodes\n\n\
         Start it again:\n  curl -X POST http://127.0.0.1:{admin}/nodes/node-1/start\n\n\
         End with Ctrl-C; start again, and every sold seat is still sold.\n"
    );
}

async fn answer(fleet: &Fleet, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().trim_matches('/');
    let segments: Vec<&str> = path.split('/').collect();
    match (request.method(), segments.as_slice()) {
        (&Method::GET, [""] | ["nodes"]) => text(StatusCode::OK, nodes(fleet)),
        (&Method::GET, ["live" | "live.json" | "live.js" | "live.css" | "icon.svg"]) => {
            let page = fleet.live(request.uri().path()).await;
            page.unwrap_or_else(|| text(StatusCode::BAD_GATEWAY, "no node answers\n".into()))
        }
        (&Method::POST, ["nodes", name, act @ ("kill" | "start")]) => match fleet.find(name) {
            None => text(StatusCode::NOT_FOUND, format!("there is no node {name}\n")),
            Some(at) if *act == "kill" => match fleet.kill(at) {
                true => text(StatusCode::OK, format!("{name} was killed\n")),
                false => text(StatusCode::CONFLICT, format!("{name} does not run\n")),
            },
            Some(at) => match fleet.start_node(at) {
                Ok(true) => text(StatusCode::OK, format!("{name} starts\n")),
                Ok(false) => text(StatusCode::CONFLICT, format!("{name} runs already\n")),
                Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
            },
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "GET /live, GET /nodes, POST /nodes/NAME/kill or /start\n".into(),
        ),
    }
}

fn nodes(fleet: &Fleet) -> String {
    let mut table = format!("{:10} {:22} {:10} SHARES\n", "NODE", "ADDRESS", "STATE");
    for (node, address, report) in fleet.status() {
        let state = report.as_ref().map_or_else(|| "Dead".to_owned(), |r| r.state.to_string());
        let shares: Vec<String> =
            report.iter().flat_map(|r| &r.shares).map(|s| s.share.to_string()).collect();
        let shares = shares.join(" ");
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{node:10} {:22} {state:10} {shares}", address.to_string());
    }
    table
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}
