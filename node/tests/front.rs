//! One node over a ledger in memory, met by buyers, a provider and a browser as they are.

mod house;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use control::config::{Identity as Buyers, Keys, Payment};
use house::{Answer, Node, header, not_busy, seconds};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

const ORDER: &str = r#"{"run":"G101/2027-02-01","from":"BJP","to":"SHH","class":"Second",
"passengers":[{"document":"P\u00e41"},{"document":"P2"}]}"#;

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

/// Lines of a head, but those that say when, for how long, and whether the connection stays.
fn lasting(answer: &Answer) -> Vec<&str> {
    let passing = ["date: ", "server-timing: ", "connection: "];
    let lines = answer.head.lines().filter(|l| passing.iter().all(|p| !l.starts_with(p)));
    let mut lines: Vec<&str> = lines.collect();
    lines.sort_unstable();
    lines
}

#[test]
fn whoever_stays_hears_what_one_hears_who_goes() {
    let node = Node::start(header(), Payment::Sandbox, &["https://shop.example"]);
    let ours = ("Origin", "https://shop.example");
    let anna = ("X-Buyer-Id", "anna");
    let key = |key| ("Idempotency-Key", key);
    // Two orders that differ in nothing but their names and seats.
    let first = node.patiently("POST", "/v1/orders", &[ours, anna, key("k1")], ORDER);
    let headers = [ours, anna, key("k2")];
    let second = not_busy(|| node.ask_plainly("POST", "/v1/orders", &headers, ORDER));
    assert_eq!((first.status, second.status), (201, 201));
    let of = |answer: &Answer| answer.body["id"].as_str().expect("an id").to_owned();
    let named = lasting(&second).join("\n").replace(&of(&second), &of(&first));
    assert_eq!(named.lines().collect::<Vec<_>>(), lasting(&first));
    for (member, value) in first.body.as_object().expect("an order") {
        if !["id", "seats", "heldUntil", "position"].contains(&member.as_str()) {
            assert_eq!(second.body[member], *value, "{member}");
        }
    }
    let order = format!("/v1/orders/{}", of(&first));
    let other = ORDER.replace("P2", "P3");
    for (method, path, headers, body) in [
        ("POST", "/v1/orders", &[ours, anna, key("k1")][..], ORDER),
        ("POST", "/v1/orders", &[anna, key("k1")], &other),
        ("POST", "/v1/orders", &[anna, key("k1")], "{"),
        ("POST", "/v1/orders", &[anna], ORDER),
        ("POST", "/v1/orders", &[key("k1")], ORDER),
        ("POST", "/v1/orders", &[anna, anna, key("k1")], ORDER),
        ("POST", "/v1/orders/", &[anna, key("k1")], ORDER),
        ("GET", &order, &[anna], ""),
        ("GET", &order, &[], ""),
        ("GET", "/v1/orders?run=G101/2027-02-01", &[anna], ""),
        ("GET", "/", &[("Accept-Encoding", "br")], ""),
        ("HEAD", "/", &[ours], ""),
        ("GET", "/openapi.json", &[("If-None-Match", "*")], ""),
        ("OPTIONS", "/v1/orders", &[ours], ""),
        ("PUT", "/v1/orders", &[], ""),
        ("GET", "/nowhere", &[ours], "body"),
    ] {
        let goes = node.patiently(method, path, headers, body);
        let stays = not_busy(|| node.ask_plainly(method, path, headers, body));
        assert_eq!(lasting(&stays), lasting(&goes), "{method} {path} {headers:?}");
        assert_eq!(stays.body, goes.body, "{method} {path} {headers:?}");
    }
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
    let slow = |bytes: &str| {
        let mut slow = TcpStream::connect(address).expect("it listens");
        slow.set_read_timeout(Some(Duration::from_secs(15))).expect("it can be set");
        slow.write_all(bytes.as_bytes()).expect("it reads");
        slow
    };
    let mut slow_head = slow("GET /v1/sale HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    let mut slow_body = slow("POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{");
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
    let _ = slow_head.read_to_string(&mut rest);
    assert!(begun.elapsed() < Duration::from_secs(10), "the slow one is hung up on");
    assert!(!rest.starts_with("HTTP/1.1 200"), "{rest}");
    let mut said = [0; 1_024];
    let read = slow_body.read(&mut said).expect("it says why");
    let said = Answer::of(std::str::from_utf8(&said[..read]).expect("text"));
    assert_eq!((said.status, said.kind()), (408, "body-too-slow"));
    assert!(begun.elapsed() < Duration::from_secs(12), "this one as well");
    assert_eq!(node.ask("GET", "/livez", &[], "").status, 200);
}
