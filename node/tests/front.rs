//! One node over a ledger in memory, met by buyers, a provider and a browser as they are.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use control::config::{Identity as Buyers, Keys, Payment};
use crds::sale::TrainSale;
use inventory::entry::{Assign, Genesis, Limits, Policy, PoolEntry, SaleState};
use inventory::pool::{ledger_id, pool_record};
use inventory::words::{Incarnation, Millis, NodeId, ShareId};
use ledger::memory::{MemoryLedger, MemoryLog};
use ledger::{Log, Partition, Slip};
use node::{Identity, Ledgers, Role, Setup, Wish};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::sync::watch;

const NAME: &str = "default.demo";
const NODE: &str = "n1";
const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    now.as_secs()
}

struct Memory {
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
fn founded() -> MemoryLedger {
    let sale =
        TrainSale::from_yaml(include_str!("../../examples/minimal.yaml")).expect("it is good");
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

struct Node {
    port: u16,
    wish: watch::Sender<Wish>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Node {
    fn start(buyers: Buyers, payment: Payment, origins: &[&str]) -> Self {
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
        let memory = Memory { ledger: founded(), board };
        let (wish, wanted) = watch::channel(Wish::Serve);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let work = node::run(setup, memory, wanted, |_| ());
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime.expect("a runtime"), work).expect("it can serve");
        });
        let node = Self { port, wish, thread: Some(thread) };
        let begun = Instant::now();
        while node.ask("GET", "/readyz", &[], "").status != 200 {
            assert!(begun.elapsed() < Duration::from_secs(20), "it gets ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        node
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut stream = TcpStream::connect(address).expect("it listens");
        let wait = Some(Duration::from_secs(10));
        stream.set_read_timeout(wait).expect("it can be set");
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(text.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        Answer::of(&answer)
    }

    /// Asks until the answer is another than "busy": the first beats of a board take a moment.
    fn patiently(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let begun = Instant::now();
        loop {
            let answer = self.ask(method, path, headers, body);
            if answer.status != 503 || begun.elapsed() > Duration::from_secs(10) {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
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

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Value,
}

impl Answer {
    fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole answer");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        let body = serde_json::from_str(body).unwrap_or(Value::Null);
        Self { status, head: head.to_lowercase(), body }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "))
    }

    fn kind(&self) -> &str {
        let kind = self.body["type"].as_str().unwrap_or("");
        kind.rsplit('/').next().unwrap_or("")
    }
}

const ORDER: &str = r#"{"run":"G101/2027-02-01","from":"BJP","to":"SHH","class":"Second",
"passengers":[{"document":"P\u00e41"},{"document":"P2"}]}"#;

fn header() -> Buyers {
    Buyers::Header { name: "X-Buyer-Id".into(), from: Vec::new() }
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("front-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    folder
}

#[test]
fn an_order_lives_its_whole_life() {
    let node = Node::start(header(), Payment::Sandbox, &[]);
    let anna = ("X-Buyer-Id", "anna");
    let placed = node.patiently("POST", "/v1/orders", &[anna, ("Idempotency-Key", "k1")], ORDER);
    assert_eq!(placed.status, 201, "{placed:?}");
    let id = placed.body["id"].as_str().expect("an id").to_owned();
    let at = format!("/v1/orders/{id}");
    assert_eq!(placed.header("location"), Some(at.as_str()));
    assert_eq!(placed.header("cache-control"), Some("no-store"));
    assert!(placed.header("server-timing").is_some_and(|t| t.starts_with("node;dur=")));
    assert_eq!(placed.body["seats"].as_array().map(Vec::len), Some(2));

    // A second press is the same order, another body is none.
    let again = node.patiently("POST", "/v1/orders", &[anna, ("Idempotency-Key", "k1")], ORDER);
    assert_eq!((again.status, &again.body["id"]), (200, &placed.body["id"]));
    let other = ORDER.replace("P2", "P3");
    let reused = node.patiently("POST", "/v1/orders", &[anna, ("Idempotency-Key", "k1")], &other);
    assert_eq!((reused.status, reused.kind()), (422, "key-reused"));

    // Nobody else sees it.
    let berta = ("X-Buyer-Id", "berta");
    for method in ["GET", "DELETE"] {
        let stranger = node.patiently(method, &at, &[berta], "");
        assert_eq!((stranger.status, stranger.kind()), (404, "no-such-order"));
    }
    let pay = json!({"payment": "p1", "amountMinor": placed.body["priceMinor"]}).to_string();
    let stranger = node.patiently("POST", &format!("{at}/payment"), &[berta], &pay);
    assert_eq!(stranger.status, 404);
    assert_eq!(node.patiently("GET", "/v1/orders", &[berta], "").body, json!({"orders": []}));

    let wrong = json!({"payment": "p1", "amountMinor": 1}).to_string();
    let wrong = node.patiently("POST", &format!("{at}/payment"), &[anna], &wrong);
    assert_eq!((wrong.status, &wrong.body["priceMinor"]), (422, &placed.body["priceMinor"]));
    let paid = node.patiently("POST", &format!("{at}/payment"), &[anna], &pay);
    assert_eq!((paid.status, paid.body["state"].as_str()), (200, Some("paid")), "{paid:?}");

    // Another one lapses, and its payment comes too late.
    let late = node.patiently("POST", "/v1/orders", &[anna, ("Idempotency-Key", "k2")], ORDER);
    assert_eq!(late.status, 201, "{late:?}");
    let late_at = format!("/v1/orders/{}", late.body["id"].as_str().expect("an id"));
    let begun = Instant::now();
    let state = || node.patiently("GET", &late_at, &[anna], "").body["state"].clone();
    // A new owner grants fifteen seconds more.
    while state() == "held" && begun.elapsed() < Duration::from_secs(25) {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(state(), "expired");
    let pay = json!({"payment": "p2", "amountMinor": late.body["priceMinor"]}).to_string();
    let paid = node.patiently("POST", &format!("{late_at}/payment"), &[anna], &pay);
    assert_eq!(paid.body["state"], "expired");
    assert_eq!(paid.body["paymentReturned"], true);

    let listed = node.patiently("GET", "/v1/orders?run=G101/2027-02-01", &[anna], "");
    let ids: Vec<_> = listed.body["orders"].as_array().expect("a list").iter().collect();
    assert_eq!(ids.len(), 2);
    assert_eq!((&ids[0]["id"], &ids[1]["id"]), (&late.body["id"], &placed.body["id"]));
    assert_eq!(node.patiently("GET", "/v1/orders", &[anna], "").body, listed.body);

    let refunded = node.patiently("DELETE", &at, &[anna], "");
    assert_eq!(refunded.body["state"], "refunded");
}

#[test]
fn pages_that_change_seldom_are_known_by_their_tags() {
    let node = Node::start(header(), Payment::Sandbox, &["https://shop.example"]);
    for page in ["/v1/sale", "/v1/runs", "/v1/runs/G101/2027-02-01", "/openapi.json"] {
        let first = node.patiently("GET", page, &[], "");
        assert_eq!(first.status, 200, "{page}");
        assert!(first.header("cache-control").is_some_and(|c| c.starts_with("public, max-age=")));
        // Counts change while the node takes its shares, and a tag with them.
        let begun = Instant::now();
        let mut tag = first.header("etag").expect("a tag").to_owned();
        loop {
            let again = node.patiently("GET", page, &[("If-None-Match", &tag)], "");
            if again.status == 304 {
                break;
            }
            assert_eq!(again.status, 200, "{page}");
            assert!(begun.elapsed() < Duration::from_secs(10), "{page} does not settle");
            tag = again.header("etag").expect("a tag").to_owned();
        }
        assert_eq!(node.ask("HEAD", page, &[], "").status, 200, "{page}");
    }
    let sale = node.ask("GET", "/v1/sale", &[], "").body;
    assert_eq!((sale["name"].as_str(), sale["state"].as_str()), (Some("demo"), Some("open")));
    assert_eq!(sale["identity"], json!({"type": "Header", "header": "x-buyer-id"}));

    let ours = [("Origin", "https://shop.example")];
    let allowed = node.ask("GET", "/v1/sale", &ours, "");
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://shop.example"));
    let theirs = node.ask("GET", "/v1/sale", &[("Origin", "https://evil.example")], "");
    assert_eq!(theirs.header("access-control-allow-origin"), None);
    let asked = node.ask("OPTIONS", "/v1/orders", &ours, "");
    assert_eq!(asked.status, 204);
    let headers = asked.header("access-control-allow-headers").unwrap_or("");
    assert!(headers.contains("idempotency-key") && headers.contains("x-buyer-id"), "{asked:?}");
    let wrong = node.ask("PUT", "/v1/orders", &[], "");
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("get, head, post")));
}

#[test]
fn a_provider_pays_for_whoever_holds_a_token() {
    let folder = folder("provider");
    let issuer = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    let issuer = Ed25519KeyPair::from_pkcs8(issuer.as_ref()).expect("ours");
    let x = URL_SAFE_NO_PAD.encode(issuer.public_key());
    let write = |name: &str, text: &str| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("it can be written");
        path
    };
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": x}]});
    let keys = Keys::File(write("jwks.json", &set.to_string()));
    let tokens = Buyers::Token {
        issuer: "https://id".into(),
        audiences: vec!["tickets".into()],
        algorithms: vec!["EdDSA".into()],
        keys,
    };
    let secrets = write("payment", &format!("whsec_{SECRET}\n"));
    let node = Node::start(tokens, Payment::Webhook { secrets }, &[]);
    let token = |subject: &str| {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = part(json!({"alg": "EdDSA", "kid": "1"}));
        let claims = part(json!({"iss": "https://id", "aud": "tickets", "sub": subject,
            "exp": seconds() + 60}));
        let signature = issuer.sign(format!("{head}.{claims}").as_bytes());
        format!("Bearer {head}.{claims}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let none = node.ask("POST", "/v1/orders", &[("Idempotency-Key", "k1")], ORDER);
    assert_eq!((none.status, none.header("www-authenticate")), (401, Some("bearer")));
    let anna = token("anna");
    let anna = ("Authorization", anna.as_str());
    let placed = node.patiently("POST", "/v1/orders", &[anna, ("Idempotency-Key", "k1")], ORDER);
    assert_eq!(placed.status, 201, "{placed:?}");
    let id = placed.body["id"].as_str().expect("an id");
    let at = format!("/v1/orders/{id}/payment");
    let event = |amount: &Value, currency: &str| {
        let data = json!({"order": id, "payment": "p1", "amountMinor": amount,
            "currency": currency});
        json!({"type": "payment.succeeded", "data": data}).to_string()
    };
    let signed = |body: &str| {
        let time = seconds().to_string();
        let bytes = STANDARD.decode(SECRET).expect("base64");
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &bytes);
        let tag = ring::hmac::sign(&key, format!("m1.{time}.{body}").as_bytes());
        let signature = format!("v1,{}", STANDARD.encode(tag));
        let headers =
            [("webhook-id", "m1"), ("webhook-timestamp", &time), ("webhook-signature", &signature)];
        node.patiently("POST", &at, &headers, body)
    };
    let word = node.patiently("POST", &at, &[anna], r#"{"payment":"p1","amountMinor":1}"#);
    assert_eq!((word.status, word.kind()), (401, "bad-signature"), "a buyer's word is not enough");
    let price = &placed.body["priceMinor"];
    assert_eq!(signed(&event(&json!(1), "CNY")).status, 422);
    assert_eq!(signed(&event(price, "EUR")).status, 422);
    assert_eq!(signed(r#"{"type":"payment.created","data":{}}"#).status, 204);
    for _ in 0..2 {
        let paid = signed(&event(price, "CNY"));
        assert_eq!((paid.status, paid.body["state"].as_str()), (200, Some("paid")), "{paid:?}");
        assert_eq!(paid.body["paymentReturned"], false, "the same payment twice is one");
    }
    let _ = std::fs::remove_dir_all(Path::new(&folder));
}

#[test]
fn who_sends_slowly_or_too_much_is_refused_and_others_are_served() {
    let node = Node::start(header(), Payment::Sandbox, &[]);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, node.port));
    let mut slow = TcpStream::connect(address).expect("it listens");
    slow.set_read_timeout(Some(Duration::from_secs(15))).expect("it can be set");
    slow.write_all(b"GET /v1/sale HTTP/1.1\r\nHost: x\r\nX-Slow: ").expect("it reads");
    let anna = ("X-Buyer-Id", "anna");
    let key = ("Idempotency-Key", "k1");
    let large = format!("{{\"run\":\"{}\"}}", "x".repeat(500_000));
    let refused = node.patiently("POST", "/v1/orders", &[anna, key], &large);
    assert_eq!((refused.status, refused.kind()), (413, "body-too-large"));
    let many: Vec<(String, String)> = (0..100).map(|i| (format!("X-{i}"), "1".into())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(node.ask("GET", "/v1/sale", &many, "").status, 431);
    let begun = Instant::now();
    let mut rest = String::new();
    let _ = slow.read_to_string(&mut rest);
    assert!(begun.elapsed() < Duration::from_secs(10), "the slow one is hung up on");
    assert!(!rest.starts_with("HTTP/1.1 200"), "{rest}");
    assert_eq!(node.ask("GET", "/livez", &[], "").status, 200);
}
