//! What an order costs in allocations, with all of HTTP: on a node's one thread, the ledger in memory.

mod house;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};

use control::config::Payment;
use house::{Memory, Node, header, run_here, whole_answer};
use node::{Setup, Wish};
use tokio::sync::watch;

/// Buyers who ask at the same time, so that frames and turns are shared as they are under load.
const CROWD: usize = 32;
/// Orders of one buyer in the longer sale; none in the shorter one.
const ORDERS: usize = 100;
/// Days on which the train runs: each has 180 journeys of one leg.
const DAYS: usize = 28;

/// More than this, and something on the way has begun to allocate; what it was when this was written
/// is printed beside it. A debug build does as a release does.
const ALLOCATIONS_MAX: f64 = 5.5;

static COUNT: AtomicU64 = AtomicU64::new(0);

fn counted(setup: Setup, memory: Memory, wanted: watch::Receiver<Wish>) {
    let info = allocation_counter::measure(|| run_here(setup, memory, wanted));
    COUNT.store(info.count_total, Ordering::SeqCst);
}

/// A sale with a run a day.
fn sale() -> String {
    let run = |day| format!("  - {{train: G101, date: \"2027-02-{day:02}\", timetable: g101}}\n");
    let runs: String = (1..=DAYS).map(run).collect();
    house::MINIMAL.replace(&run(1), &runs)
}

fn request(buyer: usize, number: usize) -> String {
    let (name, day) = (format!("buyer-{buyer}-{number}"), number % DAYS + 1);
    let (from, to) =
        if (number / DAYS).is_multiple_of(2) { ("BJP", "JNK") } else { ("JNK", "SHH") };
    let body = format!(
        r#"{{"run":"G101/2027-02-{day:02}","from":"{from}","to":"{to}","class":"Second","passengers":[{{"document":"{name}"}}]}}"#
    );
    format!(
        "POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nX-Buyer-Id: {name}\r\nIdempotency-Key: {name}\r\n\r\n{body}",
        body.len()
    )
}

/// Allocations of a node from its start to its end, with so many orders of each buyer.
fn allocations(orders: usize) -> u64 {
    let node = Node::selling(&sale(), header(), Payment::Sandbox, &[], counted);
    let headers = [("X-Buyer-Id", "first"), ("Idempotency-Key", "first")];
    let body = r#"{"run":"G101/2027-02-01","from":"BJP","to":"SHH","class":"Second","passengers":[{"document":"first"}]}"#;
    assert_eq!(node.patiently("POST", "/v1/orders", &headers, body).status, 201);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, node.port));
    let connect = |_| TcpStream::connect(address).expect("it listens");
    let mut streams: Vec<TcpStream> = (0..CROWD).map(connect).collect();
    let mut bytes = Vec::new();
    for number in 0..orders {
        for (buyer, stream) in streams.iter_mut().enumerate() {
            stream.write_all(request(buyer, number).as_bytes()).expect("it reads");
        }
        for stream in &mut streams {
            let answer = whole_answer(stream, &mut bytes, true);
            assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        }
    }
    drop(node);
    COUNT.load(Ordering::SeqCst)
}

#[test]
fn an_order_costs_few_allocations() {
    let (without, with) = (allocations(0), allocations(ORDERS));
    let each = with.saturating_sub(without) as f64 / (CROWD * ORDERS) as f64;
    println!("{:.0} allocations in 1,000 sales, at most {:.0}", each * 1e3, ALLOCATIONS_MAX * 1e3);
    assert!(each > 1.0, "they are counted");
    assert!(each <= ALLOCATIONS_MAX, "{each} allocations an order");
}
