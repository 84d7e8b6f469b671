//! A node over a ledger in memory, for tests that meet it as buyers do.

#![allow(dead_code, reason = "each test uses its own part")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use control::config::{Identity as Buyers, Payment};
use crds::sale::TrainSale;
use inventory::entry::{Assign, Genesis, Limits, Policy, PoolEntry, SaleState};
use inventory::pool::{ledger_id, pool_record};
use inventory::words::{Incarnation, Millis, NodeId, ShareId};
use ledger::memory::{MemoryLedger, MemoryLog};
use ledger::{Log, Partition, Slip};
use node::{Identity, Ledgers, Role, Setup, Wish};
use serde_json::Value;
use tokio::sync::watch;

const NAME: &str = "default.demo";
const NODE: &str = "n1";

pub(crate) fn seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    now.as_secs()
}

pub(crate) struct Memory {
    ledger: MemoryLedger,
    board: MemoryLedger,
}

impl Ledgers for Memory {
    type Log = MemoryLog;
    type Board = MemoryLog;

    fn name(&self) -> &str {
        NAME
    }

    fn log(&self) -> MemoryLog {
        self.ledger.handle()
    }

    fn board(&self) -> MemoryLog {
        self.board.handle()
    }
}

/// A ledger with what is sold, an open sale, and all of it given to one node.
fn founded(sale: &str) -> MemoryLedger {
    let sale = TrainSale::from_yaml(sale).expect("it is good");
    let definition = crds::definition::found(&sale).expect("it can be sold");
    let shares = definition.shares;
    let ledger = MemoryLedger::new(NonZeroU16::MIN.saturating_add(shares));
    let node: NodeId = NODE.parse().expect("a node's name");
    let limits = Limits {
        passengers_per_order: 3,
        live_holds: 2,
        orders: 10,
        payment_ms: 2_000,
        grace_ms: 0,
        low_water_seats: 2,
    };
    let policy = Policy { version: 1, state: SaleState::Active, open: None, close: None, limits };
    let nodes = (1..=shares).map(|s| (ShareId(s), node)).collect();
    let id = [7; 16];
    let entries = [
        PoolEntry::Genesis(Box::new(Genesis { topic_id: id, definition })),
        PoolEntry::Policy(policy),
        PoolEntry::Assign(Assign { version: 1, nodes, ..Assign::default() }),
    ];
    let mut log = ledger.handle();
    for entry in entries {
        let now = Millis(seconds() * 1_000);
        let record = pool_record(ledger_id(NAME, id), Incarnation(0), now, &[entry]);
        log.append(Partition(0), Slip(0), &record.expect("it fits")).expect("there is room");
    }
    ledger
}

/// The smallest sale that there is.
pub(crate) const MINIMAL: &str = include_str!("../../../examples/minimal.yaml");

/// Runs a node on this thread.
pub(crate) fn run_here(setup: Setup, memory: Memory, wanted: watch::Receiver<Wish>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let work = node::run(setup, memory, wanted, |_| ());
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime.expect("a runtime"), work).expect("it can serve");
}

pub(crate) struct Node {
    pub(crate) port: u16,
    wish: watch::Sender<Wish>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Node {
    /// The smallest sale.
    pub(crate) fn start(buyers: Buyers, payment: Payment, origins: &[&str]) -> Self {
        Self::selling(MINIMAL, buyers, payment, origins, run_here)
    }

    /// One that `work` runs on its thread.
    pub(crate) fn selling(
        sale: &str,
        buyers: Buyers,
        payment: Payment,
        origins: &[&str],
        work: fn(Setup, Memory, watch::Receiver<Wish>),
    ) -> Self {
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let (front, control) = (listen(), listen());
        let port = front.local_addr().expect("it is bound").port();
        let address = control.local_addr().expect("it is bound").to_string();
        let setup = Setup {
            live: None,
            me: Identity {
                node: NODE.parse().expect("a node's name"),
                address: address.parse().expect("an address"),
                incarnation: Incarnation(1),
                role: Role::Sell,
                weight: 1,
            },
            sale: "default/demo".to_owned(),
            buyers: front,
            control,
            identity: buyers,
            payment,
            origins: origins.iter().map(ToString::to_string).collect(),
            operator: None,
            redis: None,
        };
        let board = MemoryLedger::new(NonZeroU16::MIN);
        let memory = Memory { ledger: founded(sale), board };
        let (wish, wanted) = watch::channel(Wish::Serve);
        let thread = std::thread::spawn(move || work(setup, memory, wanted));
        let node = Self { port, wish, thread: Some(thread) };
        let begun = Instant::now();
        while node.ask("GET", "/readyz", &[], "").status != 200 {
            assert!(begun.elapsed() < Duration::from_secs(20), "it gets ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        node
    }

    /// Asks on a connection that ends with the answer, which makes it hyper's.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let headers = [&[("Connection", "close")], headers].concat();
        let mut stream = self.say(method, path, &headers, body);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        Answer::of(&answer)
    }

    /// Asks on a connection that stays.
    pub(crate) fn ask_plainly(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut stream = self.say(method, path, headers, body);
        Answer::of(&whole_answer(&mut stream, &mut Vec::new(), method != "HEAD"))
    }

    fn say(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut stream = TcpStream::connect(address).expect("it listens");
        let wait = Some(Duration::from_secs(10));
        stream.set_read_timeout(wait).expect("it can be set");
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(text.as_bytes()).expect("it reads");
        stream
    }

    /// Asks until the answer is another than "busy": the first beats of a board take a moment.
    pub(crate) fn patiently(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        not_busy(|| self.ask(method, path, headers, body))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.wish.send(Wish::Kill);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks until the answer is another than "busy", or for ten seconds.
pub(crate) fn not_busy(ask: impl Fn() -> Answer) -> Answer {
    let begun = Instant::now();
    loop {
        let answer = ask();
        if answer.status != 503 || begun.elapsed() > Duration::from_secs(10) {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One whole answer; its head says how long it is.
pub(crate) fn whole_answer(stream: &mut TcpStream, bytes: &mut Vec<u8>, has_body: bool) -> String {
    bytes.clear();
    let mut part = [0; 2_048];
    loop {
        let text = std::str::from_utf8(bytes).expect("text");
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: "));
            let length = length.map_or(0, |l| l.parse().expect("a number"));
            if !has_body || body.len() == length {
                return text.to_owned();
            }
        }
        let read = stream.read(&mut part).expect("it answers");
        assert_ne!(read, 0, "it hung up");
        bytes.extend_from_slice(&part[..read]);
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole answer");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        let body = serde_json::from_str(body).unwrap_or(Value::Null);
        Self { status, head: head.to_lowercase(), body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn kind(&self) -> &str {
        let kind = self.body["type"].as_str().unwrap_or("");
        kind.rsplit('/').next().unwrap_or("")
    }
}

pub(crate) fn header() -> Buyers {
    Buyers::Header { name: "X-Buyer-Id".into(), from: Vec::new() }
}
