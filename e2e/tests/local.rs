//! A whole sale in local mode: sold out by a crowd while nodes are killed, then judged.

mod common;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Ask, Crowd, free_port, judge, program, request};
use e2e::process::until;

/// A fleet in one process, killed when the test ends however it ends.
struct Local {
    child: Child,
    port: u16,
    admin: u16,
}

impl Drop for Local {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Local {
    fn start(ledger: &Path) -> Self {
        Self::start_with(ledger, "tests/sales/long.yaml", 12)
    }

    fn start_with(ledger: &Path, sale: &str, all: usize) -> Self {
        let (port, admin) = (free_port(3), free_port(1));
        let sale = Path::new(env!("CARGO_MANIFEST_DIR")).join(sale);
        let child = Command::new(program("local"))
            .arg(sale)
            .args(["--ledger".as_ref(), ledger.as_os_str()])
            .args(["--port", &port.to_string(), "--admin-port", &admin.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut local = Self { child, port, admin };
        let shares = || Ok(local.shares().filter(|s| s.iter().sum::<usize>() == all).map(drop));
        until("all shares owned", Duration::from_secs(30), "see its output", shares)
            .expect("all shares are owned");
        until("an open sale", Duration::from_secs(10), "see its output", || {
            let asked = request(local.port, "GET", "/readyz");
            Ok(asked.filter(|a| a.starts_with("HTTP/1.1 200")).map(drop))
        })
        .expect("the first node is ready");
        assert!(local.child.try_wait().expect("it can be asked").is_none(), "it runs");
        local
    }

    /// How many shares each node owns.
    fn shares(&self) -> Option<Vec<usize>> {
        let table = request(self.admin, "GET", "/nodes")?;
        let body = table.split("\r\n\r\n").nth(1)?;
        Some(body.lines().skip(1).map(|l| l.split_whitespace().skip(3).count()).collect())
    }

    fn is_dead(&self, node: &str) -> bool {
        let table = request(self.admin, "GET", "/nodes").unwrap_or_default();
        table.lines().any(|l| l.starts_with(node) && l.contains("Dead"))
    }

    fn tell(&self, node: &str, act: &str) {
        let answer = request(self.admin, "POST", &format!("/nodes/{node}/{act}"));
        assert!(answer.is_some_and(|a| a.starts_with("HTTP/1.1 200")), "{act} {node}");
    }

    fn targets(&self) -> Vec<String> {
        (0..3).map(|i| format!("http://127.0.0.1:{}", self.port + i)).collect()
    }
}

fn folder() -> PathBuf {
    let name = std::thread::current().name().unwrap_or("test").replace(':', "-");
    let name = format!("stationmaster-{}-{name}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    folder
}

#[test]
#[ignore = "needs the programs that `make programs` builds"]
fn a_sale_is_sold_out_once_whatever_is_killed() {
    let folder = folder();
    let ledger = folder.join("long.ledger");
    let source = format!("file:{}", ledger.display());

    // A part of the sale; then each journey that the checker finds free is really sold.
    let fleet = Local::start(&ledger);
    let first = folder.join("first.jsonl");
    Crowd::new(&fleet.targets(), &first, 1).args(["--orders", "400"]).run();
    let free = folder.join("free.jsonl");
    judge(&source, &[&first], Some(&free));
    let wanted = common::some_of(&free, 60);
    let asked = folder.join("asked.jsonl");
    Crowd::new(&fleet.targets(), &asked, 2).wanted(&wanted).run();

    // The rest, while nodes die and come back.
    let rest = folder.join("rest.jsonl");
    let crowd = Crowd::new(&fleet.targets(), &rest, 3).args(["--think-ms", "150"]).start();
    for node in ["node-1", "node-3", "node-2"] {
        std::thread::sleep(Duration::from_secs(2));
        let killed = Instant::now();
        fleet.tell(node, "kill");
        until("the shares of the dead node moved", Duration::from_secs(10), node, || {
            let moved = fleet.shares().filter(|s| s.iter().sum::<usize>() == 12);
            Ok(moved.filter(|_| fleet.is_dead(node)).map(drop))
        })
        .expect("its shares move");
        println!("{node}: its shares were owned again after {:?}", killed.elapsed());
        fleet.tell(node, "start");
    }
    let sold = crowd.finish();
    assert_eq!(sold["soldOut"], true, "{sold}");
    let answers = [&*first, &*asked, &*rest];
    judge(&source, &answers, None);

    // Nothing in it needs an orderly end.
    drop(fleet);
    let fleet = Local::start(&ledger);
    judge(&source, &answers, None);
    let path = "/v1/runs/L1/2027-02-01";
    let run = request(fleet.port, "GET", path).expect("it answers");
    assert!(run.contains("\"available\":0"), "{run}");
    drop(fleet);
    std::fs::remove_dir_all(&folder).expect("the folder can be removed");
}

#[test]
#[ignore = "needs the programs that `make programs` builds"]
fn every_request_is_sent_twice_and_every_third_answer_lost_and_no_order_is_twice() {
    let folder = folder();
    let ledger = folder.join("long.ledger");
    let fleet = Local::start(&ledger);
    let answers = folder.join("answers.jsonl");
    let crowd = Crowd::new(&fleet.targets(), &answers, 11);
    let crowd = crowd.args(["--twice", "--orders", "1500", "--think-ms", "100"]).start();
    for node in ["node-2", "node-1", "node-3"] {
        std::thread::sleep(Duration::from_secs(2));
        fleet.tell(node, "kill");
        until("its death is known", Duration::from_secs(10), node, || {
            Ok(fleet.is_dead(node).then_some(()))
        })
        .expect("it is held to be dead");
        fleet.tell(node, "start");
    }
    let bought = crowd.finish();
    assert!(bought["orders"].as_u64() >= Some(1_500), "{bought}");
    judge(&format!("file:{}", ledger.display()), &[&answers], None);
    drop(fleet);
    std::fs::remove_dir_all(&folder).expect("the folder can be removed");
}

/// A sale with seats for `holds` orders of random journeys, most of them paid.
fn wide(holds: u64) -> String {
    let mut yaml = "apiVersion: stationmaster.dev/v1alpha1\nkind: TrainSale\n\
                    metadata: {name: wide}\nspec:\n  currency: EUR\n  timetables:\n  \
                    - name: w\n    stops:\n"
        .to_owned();
    for stop in 0..6 {
        let arrives = format!("arrives: \"{:02}:00\"", 6 + stop);
        let departs = format!("departs: \"{:02}:05\"", 6 + stop);
        let times = match stop {
            0 => departs,
            5 => arrives,
            _ => format!("{arrives}, {departs}"),
        };
        yaml += &format!("    - {{code: W{stop}, {times}}}\n");
    }
    yaml += "    classes:\n    - {name: Second, fare: {type: Flat, amountMinor: 100}}\n";
    yaml += "    coaches:\n";
    for coach in 1..=16 {
        yaml += &format!("    - {{name: \"{coach:02}\", class: Second, seats: 100}}\n");
    }
    yaml += "  runs:\n";
    for run in 0..=holds / 1_600 {
        yaml += &format!("  - {{train: W{run}, date: \"2027-02-01\", timetable: w}}\n");
    }
    yaml + "  stock: {shares: 6}\n  holds: {paymentSeconds: 5, graceSeconds: 2}\n  \
            kafka: {bootstrapServers: \"kafka:9092\"}\n  \
            redis: {mode: Standalone, standalone: {address: \"redis:6379\"}}\n"
}

#[test]
#[ignore = "needs the programs that `make programs` builds"]
fn seats_that_nobody_pays_for_are_on_sale_again_within_a_second() {
    let holds = std::env::var("HOLDS").ok().filter(|text| !text.is_empty());
    let holds: u64 = holds.map_or(10_000, |text| text.parse().expect("HOLDS is a number"));
    let folder = folder();
    let (ledger, sale) = (folder.join("wide.ledger"), folder.join("wide.yaml"));
    std::fs::write(&sale, wide(holds)).expect("it can be written");
    let fleet = Local::start_with(&ledger, sale.to_str().expect("UTF-8"), 6);
    // After a Claim no hold ends for 15 s, so that the buyers of a dead node can pay.
    std::thread::sleep(Duration::from_secs(10));
    let answers = folder.join("answers.jsonl");
    let crowd = Crowd::new(&fleet.targets(), &answers, 21);
    let crowd = crowd.args(["--orders", &holds.to_string(), "--pay", "70", "--cancel", "0"]);
    let bought = crowd.args(["--per-second", "2000", "--connections", "100"]).run();
    assert!(bought["orders"].as_u64() >= Some(holds), "{bought}");
    std::thread::sleep(Duration::from_secs(5 + 2 + 2));

    let mut checker = Command::new(program("checker"));
    checker.args(["verify", &format!("file:{}", ledger.display()), "--at-rest", "--json"]);
    let output = checker.arg("--answers").arg(&answers).args(["--free", "/dev/null"]).output();
    let output = output.expect("the checker runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let report: serde_json::Value = serde_json::from_str(&said).expect("a report");
    assert!(output.status.success(), "{}", report["broken"]);
    let figure = |name: &str| report["figures"][name].as_i64().unwrap_or(0);
    let late = ["p50", "p99", "max"].map(|of| figure(&format!("holds.late-ms.{of}")));
    let left = figure("orders.held") + figure("orders.guest.held");
    println!(
        "{} holds of 5 s, {} lapsed, {left} left behind; after deadline and grace their seats were \
         free within [p50, p99, max] {late:?} ms",
        figure("orders"),
        figure("orders.expired") + figure("orders.guest.expired"),
    );
    assert_eq!(left, 0);
    assert!(late[1] <= 1_000, "{late:?}");
    drop(fleet);
    std::fs::remove_dir_all(&folder).expect("the folder can be removed");
}

#[test]
#[ignore = "needs the programs that `make programs` builds"]
fn a_sale_that_is_wrong_is_refused_with_its_line() {
    let folder = folder();
    let bad = folder.join("bad.yaml");
    let good = include_str!("sales/long.yaml");
    std::fs::write(&bad, good.replace("timetable: long}", "timetable: short}")).expect("written");
    let mut child = Command::new(program("local"))
        .arg(&bad)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let status = child.wait().expect("it ends");
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    assert_eq!(status.code(), Some(2));
    assert!(said.contains("spec.runs[0].timetable") && said.contains("line "), "{said}");
}

#[test]
#[ignore = "needs the programs that `make programs` builds"]
fn every_bad_request_hears_what_is_wrong_and_harms_nothing() {
    let folder = folder();
    let ledger = folder.join("demo.ledger");
    let fleet = Local::start_with(&ledger, "../examples/demo.yaml", 6);
    let order = |class: &str, seats: usize| {
        let one = r#"{"document": "P1"}"#;
        let all = vec![one; seats].join(",");
        format!(
            r#"{{"run": "RJX62/2027-03-26", "from": "VIE", "to": "MUC", "class": "{class}",
                 "passengers": [{all}]}}"#
        )
    };
    let good = order("Second", 1);
    let place = |buyer: &str, key: &str, body: &str| {
        Ask::new(fleet.port, "POST", "/v1/orders").buyer(buyer).key(key).body(body).answer()
    };
    let problem = |answer: (u16, serde_json::Value)| {
        let kind = answer.1["type"].as_str().and_then(|t| t.rsplit('/').next()).unwrap_or("none");
        (answer.0, kind.to_owned())
    };
    let expect = |answer, status: u16, kind: &str| {
        assert_eq!(problem(answer), (status, kind.to_owned()));
    };
    let ask = |method: &str, path: &str| Ask::new(fleet.port, method, path);
    // A fleet that just started says nothing from memory before it has heard the board.
    until("a settled board", Duration::from_secs(5), "GET /v1/orders/1-1-999", || {
        let (status, _) = ask("GET", "/v1/orders/1-1-999").buyer("a").answer();
        Ok((status == 404).then_some(()))
    })
    .expect("it settles");
    expect(place("a", "1", "{"), 400, "malformed");
    expect(place("a", "1", r#"{"run": 7}"#), 422, "invalid");
    expect(place("a", "1", &good.replace("run", "runs")), 422, "invalid");
    expect(place("a", "1", &good.replace("2027-03-26", "2027-03-29")), 404, "no-such-trip");
    expect(place("a", "1", &good.replace("MUC", "XXX")), 404, "no-such-trip");
    expect(place("a", "1", &good.replace("VIE", "MUC")), 404, "no-such-trip");
    expect(place("a", "1", &order("Third", 1)), 404, "no-such-trip");
    expect(place("a", "1", &order("Second", 0)), 422, "invalid");
    expect(place("a", "1", &order("Second", 6)), 422, "invalid");
    expect(place("a", &"k".repeat(200), &good), 400, "malformed");
    expect(place("a", "1", &good.replace("P1", &"x".repeat(17_000))), 413, "body-too-large");
    expect(ask("POST", "/v1/orders").key("1").body(&good).answer(), 401, "unidentified");
    expect(ask("POST", "/v1/orders").buyer("a").body(&good).answer(), 400, "malformed");
    expect(ask("PUT", "/v1/orders").answer(), 405, "method-not-allowed");
    expect(ask("GET", "/v2/orders").answer(), 404, "no-such-page");
    expect(ask("GET", "/v1/runs?form=VIE").answer(), 422, "invalid");
    expect(ask("GET", "/v1/runs/RJX62/2027-03-26?to=XXX").answer(), 404, "no-such-trip");
    expect(ask("GET", "/v1/orders/1-1-999").buyer("a").answer(), 404, "no-such-order");
    expect(ask("GET", "/v1/orders/999-1-1").buyer("a").answer(), 404, "no-such-order");
    expect(ask("GET", "/v1/orders/x").buyer("a").answer(), 404, "no-such-order");

    // None of it harmed anything: the order is placed, its retry hears the same.
    let (status, first) = place("a", "1", &good);
    assert_eq!((status, &first["state"]), (201, &"held".into()), "{first}");
    let (status, again) = place("a", "1", &good);
    assert_eq!((status, &again["id"], &again["seats"]), (200, &first["id"], &first["seats"]));
    expect(place("a", "1", &order("First", 1)), 422, "key-reused");
    let path = format!("/v1/orders/{}", first["id"].as_str().expect("an id"));
    expect(ask("GET", &path).buyer("b").answer(), 404, "no-such-order");
    expect(ask("DELETE", &path).buyer("b").answer(), 404, "no-such-order");
    let pay = format!("{path}/payment");
    let cheap = r#"{"payment": "p", "amountMinor": 1}"#;
    expect(ask("POST", &pay).buyer("a").body(cheap).answer(), 422, "invalid");
    let whole = format!(r#"{{"payment": "p", "amountMinor": {}}}"#, first["priceMinor"]);
    let (status, paid) = ask("POST", &pay).buyer("a").body(&whole).answer();
    assert_eq!((status, &paid["state"]), (200, &"paid".into()));
    let (_, refunded) = ask("DELETE", &path).buyer("a").answer();
    assert_eq!(refunded["state"], "refunded");

    // The query and the order agree within a second: four seats, then none.
    assert_eq!(place("c", "1", &order("Business", 4)).0, 201);
    expect(place("d", "1", &order("Business", 1)), 409, "sold-out");
    until("the count follows", Duration::from_secs(1), "GET /v1/runs", || {
        let (_, run) = ask("GET", "/v1/runs/RJX62/2027-03-26").answer();
        let classes = run["classes"].as_array().expect("classes").clone();
        let business = classes.into_iter().find(|c| c["name"] == "Business").expect("a class");
        Ok((business["available"] == 0).then_some(()))
    })
    .expect("the query says 0 within a second");
    drop(fleet);
    std::fs::remove_dir_all(&folder).expect("the folder can be removed");
}
