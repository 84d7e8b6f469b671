//! A whole sale in local mode: sold out by a crowd while nodes are killed, then judged.

mod common;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Crowd, free_port, judge, program, request};
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
        let (port, admin) = (free_port(3), free_port(1));
        let sale = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sales/long.yaml");
        let child = Command::new(program("local"))
            .arg(sale)
            .args(["--ledger".as_ref(), ledger.as_os_str()])
            .args(["--port", &port.to_string(), "--admin-port", &admin.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut local = Self { child, port, admin };
        let shares = || Ok(local.shares().filter(|s| s.iter().sum::<usize>() == 12).map(drop));
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

    fn tell(&self, node: &str, act: &str) {
        let answer = request(self.admin, "POST", &format!("/nodes/{node}/{act}"));
        assert!(answer.is_some_and(|a| a.starts_with("HTTP/1.1 200")), "{act} {node}");
    }

    fn targets(&self) -> Vec<String> {
        (0..3).map(|i| format!("http://127.0.0.1:{}", self.port + i)).collect()
    }
}

fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("stationmaster-local-{}", std::process::id()));
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
    let crowd = Crowd::new(&fleet.targets(), &rest, 3).start();
    for node in ["node-1", "node-3", "node-2"] {
        std::thread::sleep(Duration::from_secs(2));
        let killed = Instant::now();
        fleet.tell(node, "kill");
        until("the shares of the dead node moved", Duration::from_secs(10), node, || {
            Ok(fleet.shares().filter(|s| s.iter().sum::<usize>() == 12).map(drop))
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
    let _ = std::io::stdout().lock();
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
