//! What the sales have in common: a crowd, a judge, and a plain request.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test is a crate of its own and takes what it needs"
)]

pub mod resale;
pub mod world;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// How often a node is killed in one sale: enough for a median.
pub const KILLS: usize = 5;

/// A program of this workspace, as `make programs` has built it.
pub fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("E2E_PROGRAMS");
    let folder = PathBuf::from(folder.expect("E2E_PROGRAMS names the folder of `make programs`"));
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run `make programs`", path.display());
    path
}

/// The first of `count` ports in a row that nobody uses now.
pub fn free_port(count: u16) -> u16 {
    let fits = |first: u16| (0..count).all(|i| TcpListener::bind(("127.0.0.1", first + i)).is_ok());
    (0..100)
        .filter_map(|_| TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok())
        .map(|a| a.port().min(u16::MAX - count))
        .find(|first| fits(*first))
        .expect("there are free ports")
}

/// One request on a connection of its own; the whole answer, or none.
pub fn request(port: u16, method: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// One request of one buyer.
pub struct Ask {
    port: u16,
    head: String,
    body: String,
}

impl Ask {
    pub fn new(port: u16, method: &str, path: &str) -> Self {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        Self { port, head, body: String::new() }
    }

    pub fn buyer(mut self, name: &str) -> Self {
        self.head.push_str(&format!("X-Buyer-Id: {name}\r\n"));
        self
    }

    pub fn key(mut self, key: &str) -> Self {
        self.head.push_str(&format!("Idempotency-Key: {key}\r\n"));
        self
    }

    pub fn body(mut self, body: &str) -> Self {
        self.body = body.to_owned();
        self
    }

    /// The status, and the body if it is JSON.
    pub fn answer(self) -> (u16, Value) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("it can be set");
        let length = self.body.len();
        let request = format!("{}Content-Length: {length}\r\n\r\n{}", self.head, self.body);
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }
}

/// A crowd of buyers.
pub struct Crowd {
    command: Command,
    seconds: u64,
}

impl Crowd {
    pub fn new(targets: &[String], answers: &Path, seed: u64) -> Self {
        Self::by(Command::new(program("buyers")), targets, answers, seed)
    }

    /// A crowd whose program is run by `command`, such as in a namespace.
    pub fn by(mut command: Command, targets: &[String], answers: &Path, seed: u64) -> Self {
        for target in targets {
            command.args(["--target", target]);
        }
        command.arg("--answers").arg(answers).args(["--seed", &seed.to_string()]);
        Self { command, seconds: 400 }
    }

    /// Ends it after so many seconds, whatever is left.
    pub fn seconds(self, seconds: u64) -> Self {
        Self { seconds, ..self }
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub fn wanted(mut self, file: &Path) -> Self {
        self.command.arg("--wanted").arg(file);
        self
    }

    pub fn start(mut self) -> Shopping {
        self.command.args(["--seconds", &self.seconds.to_string()]);
        Shopping(self.command.stdout(Stdio::piped()).spawn().expect("the crowd starts"))
    }

    /// Buys until the end; the summary.
    pub fn run(self) -> Value {
        self.start().finish()
    }
}

/// A crowd that is under way.
pub struct Shopping(Child);

impl Shopping {
    /// Whether it still buys.
    pub fn is_under_way(&mut self) -> bool {
        self.0.try_wait().expect("it can be asked").is_none()
    }

    /// Waits for the end; the summary.
    pub fn finish(self) -> Value {
        let (met, summary) = self.end();
        assert!(met, "{summary}");
        summary
    }

    /// Waits for the end: whether all that was wanted was bought, and the summary.
    pub fn end(mut self) -> (bool, Value) {
        let mut said = String::new();
        let out = self.0.stdout.as_mut().expect("piped");
        out.read_to_string(&mut said).expect("it says text");
        let met = self.0.wait().expect("it ends").success();
        println!("crowd: {}", said.trim());
        (met, serde_json::from_str(said.trim()).expect("a summary"))
    }
}

/// Lets the checker read the raw ledger and the buyers' answers; it must find nothing.
pub fn judge(ledger: &str, answers: &[&Path], free: Option<&Path>) {
    judge_by(Command::new(program("checker")), ledger, answers, free);
}

/// The same with a checker that is run by `command`.
pub fn judge_by(mut command: Command, ledger: &str, answers: &[&Path], free: Option<&Path>) {
    command.args(["verify", ledger, "--at-rest"]);
    for file in answers {
        command.arg("--answers").arg(file);
    }
    let nowhere = PathBuf::from("/dev/null");
    command.arg("--free").arg(free.unwrap_or(&nowhere));
    let output = command.output().expect("the checker runs");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let erred = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the checker found something:\n{said}\n{erred}");
}

/// A file with the first rows of a list of free journeys, one seat each.
pub fn some_of(free: &Path, rows: usize) -> PathBuf {
    let text = std::fs::read_to_string(free).expect("the checker wrote it");
    let mut some = String::new();
    for line in text.lines().take(rows) {
        let mut row: Value = serde_json::from_str(line).expect("a row");
        row["seats"] = 1.into();
        some.push_str(&format!("{row}\n"));
    }
    let path = free.with_extension("some");
    std::fs::write(&path, some).expect("it can be written");
    path
}

/// Orders taken in each 10 s of a sale.
pub fn pace(answers: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(answers).expect("the crowd wrote it");
    let lines = text.lines().map(|l| serde_json::from_str::<Value>(l).expect("a line of JSON"));
    let held = |l: &Value| l["op"] == "place" && l["problem"].is_null();
    let times: Vec<u64> = lines.filter(held).filter_map(|l| l["at"].as_u64()).collect();
    let Some(first) = times.iter().min() else { return Vec::new() };
    let mut pace = Vec::new();
    for at in &times {
        let slot = usize::try_from((at - first) / 10_000).expect("minutes");
        pace.resize(pace.len().max(slot + 1), 0);
        pace[slot] += 1;
    }
    pace
}
