//! A sale with real nodes, founded and led as the operator does it: `node init` twice, each
//! node's own `serve`, then signed postings to a control port.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control::config::{
    FoundingConfig, Identity, Kafka, Ledger, NodeConfig, Payment, Pool, Redis, Role, Step, VERSION,
};
use control::definition::{Class, Coach, Definition, Fare, Run, Stop, Timetable};
use control::founding::{Founded, FoundingReport};
use control::posting::{Assign, Limits, Policy, Posting, Record, SaleState};
use control::report::{NodeState, Report, ShareState};
use control::signature::{HEADER, OperatorKey, Request as Signed};
use control::{PLAN_PATH, REPORT_PATH};
use e2e::kafka::free_ports;
use e2e::process::ProcessId;
use e2e::{Error, Result};
use inventory::definition::homes_of;
use inventory::words::Millis;

use crate::work::{Running, Site};

/// Stops of each run; a long line, and far from the 128 that fit.
pub(crate) const STOPS: u8 = 20;
/// Seats of each run: a train of two sets.
pub(crate) const SEATS: u16 = 1_200;
/// Runs of the ledger. With [`ORDERS_PER_RUN`] they last for 400,000 orders, which is more than
/// warm-up and window can sell on any machine on which wrk and the node share the processors.
pub(crate) const RUNS: u16 = 256;
/// Orders that a run gets before the crowd goes on to the next one. 1,200 seats with 19 legs hold
/// 3,250 journeys of 7 legs, the mean of random ones; at half of it nobody hears "sold out", and
/// the allocator has met fresh and broken seats.
pub(crate) const ORDERS_PER_RUN: u32 = 1_600;

const SEATS_PER_COACH: u16 = 100;
const DATE: &str = "2027-02-01";
const SALE: &str = "bench/hot";
pub(crate) const BUYER_HEADER: &str = "X-Buyer-Id";

/// A broker that is still warming up has founded a topic within two seconds.
const FOUNDING_MS: u32 = 30_000;
const FOUNDING_PATIENCE: Duration = Duration::from_secs(40);
/// Folding, claiming and hearing oneself on the board take one second; the rest is for a machine
/// that is busy building.
const START_PATIENCE: Duration = Duration::from_secs(40);
/// Of a request to a node that has nothing else to do.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// The judge reads a hundred thousand orders in a second.
const JUDGE_PATIENCE: Duration = Duration::from_secs(60);

/// Where sales of this run are held.
#[derive(Debug, Clone)]
pub(crate) struct House<'a> {
    pub(crate) site: &'a Site,
    pub(crate) kafka: String,
    /// Brokers that keep each record; all but one of them must have it.
    pub(crate) replicas: u8,
    pub(crate) redis: String,
    pub(crate) key: &'a OperatorKey,
}

/// What is sold by how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Shares of the ledger. The nodes own them in turn.
    pub(crate) shares: u16,
    /// Nodes.
    pub(crate) nodes: u16,
    /// Runs, of which each has [`SEATS`].
    pub(crate) runs: u16,
    /// On how many shares a run lives; none for as many as the operator would choose.
    pub(crate) homes: Option<u16>,
}

impl Terms {
    /// One node that owns all shares.
    pub(crate) fn of(shares: u16) -> Self {
        Self { shares, nodes: 1, runs: RUNS, homes: None }
    }
}

/// A node of a sale.
#[derive(Debug)]
pub(crate) struct Node {
    name: String,
    process: Running,
    /// Where buyers connect.
    pub(crate) port: u16,
    control: u16,
}

impl Node {
    /// The process.
    pub(crate) fn id(&self) -> ProcessId {
        self.process.0
    }

    /// What the node has counted so far: name and labels to value.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) fn metrics(&self) -> Result<BTreeMap<String, u64>> {
        let (_, text) = request(self.port, "GET", "/metrics", &[], &[])?;
        let line = |line: &str| {
            let (name, value) = line.strip_prefix("stationmaster_")?.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(text.lines().filter_map(line).collect())
    }
}

/// A sale that is open.
#[derive(Debug)]
pub(crate) struct Sale<'a> {
    house: &'a House<'a>,
    name: String,
    /// At least one.
    pub(crate) nodes: Vec<Node>,
}

/// What the judge found in a ledger.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct Judged {
    /// Orders that are in it.
    pub(crate) orders: u64,
}

impl House<'_> {
    /// Founds a ledger of its own, starts nodes, and opens the sale.
    ///
    /// # Errors
    /// When one of these steps fails or takes too long.
    pub(crate) fn open(&self, name: &str, terms: Terms) -> Result<Sale<'_>> {
        let topics = self.found(name, terms, Step::Topics, None)?;
        let founded = self.found(name, terms, Step::Genesis, Some(&topics.topic_id))?;
        let serve = |number| self.serve(name, number, &founded.topic_id);
        let nodes = (1..=terms.nodes).map(serve).collect::<Result<_>>()?;
        let sale = Sale { house: self, name: name.to_owned(), nodes };
        sale.lead(terms)?;
        Ok(sale)
    }

    /// Makes a ledger's topics, and nothing more.
    ///
    /// # Errors
    /// When that fails or takes too long.
    pub(crate) fn found_topics(&self, name: &str, terms: Terms) -> Result<()> {
        self.found(name, terms, Step::Topics, None).map(drop)
    }

    fn found(
        &self,
        name: &str,
        terms: Terms,
        step: Step,
        topic_id: Option<&String>,
    ) -> Result<Founded> {
        let config = FoundingConfig {
            version: VERSION,
            step,
            topic: name.to_owned(),
            board_topic: board(name),
            kafka: Kafka { bootstrap_servers: self.kafka.clone() },
            partitions: terms.shares + 1,
            replicas: self.replicas,
            min_in_sync_replicas: self.replicas.saturating_sub(1).max(1),
            topic_id: topic_id.cloned(),
            genesis_hash: None,
            timeout_ms: FOUNDING_MS,
            definition: definition(name, terms),
        };
        let config = self.site.write(&format!("{name}.{step}.json"), json(&config)?)?;
        let report = config.with_extension("report");
        let log = format!("{name}.{step}.log");
        let launch = self.site.launch(&log, &self.site.program("node")?);
        let launch = launch.args(["init".as_ref(), "--config".as_ref(), config.as_os_str()]);
        let launch = launch.args(["--report".as_ref(), report.as_os_str()]);
        let said = self.site.run(&log, launch, FOUNDING_PATIENCE)?;
        let text = fs::read_to_string(&report).unwrap_or_default();
        match FoundingReport::read(&text) {
            Ok(FoundingReport::Ok(founded)) => Ok(founded),
            other => Err(Error::Refused(format!("founding {name}: {other:?}\n{said}"))),
        }
    }

    fn serve(&self, name: &str, number: u16, topic_id: &str) -> Result<Node> {
        let port = free_ports(2)?;
        let config = NodeConfig {
            version: VERSION,
            sale: SALE.to_owned(),
            role: Role::Sell,
            pool: Pool { name: "default".to_owned(), weight: 1 },
            ledger: Ledger {
                topic: name.to_owned(),
                topic_id: topic_id.to_owned(),
                board_topic: board(name),
            },
            kafka: Kafka { bootstrap_servers: self.kafka.clone() },
            redis: Some(Redis { address: self.redis.clone() }),
            http_port: port,
            control_port: port + 1,
            identity: Identity::Header { name: BUYER_HEADER.to_owned(), from: Vec::new() },
            payment: Payment::Sandbox,
            origins: Vec::new(),
            operator_key: self.key.public().to_string(),
        };
        let node = node_name(number);
        let config = self.site.write(&format!("{name}.{node}.json"), json(&config)?)?;
        let launch = self.site.launch(&format!("{name}.{node}.log"), &self.site.program("node")?);
        let launch = launch.args(["serve".as_ref(), "--config".as_ref(), config.as_os_str()]);
        let process = Running::start(launch.args(["--name", &node, "--ip", "127.0.0.1"]))?;
        Ok(Node { name: node, process, port, control: port + 1 })
    }

    /// Lets the checker judge a sale's ledger.
    ///
    /// # Errors
    /// When it finds anything at all.
    pub(crate) fn judge(&self, name: &str) -> Result<Judged> {
        let log = format!("{name}.judge.log");
        let launch = self.site.launch(&log, &self.site.program("checker")?);
        let ledger = format!("kafka:{}/{name}", self.kafka);
        let said =
            self.site.run(&log, launch.args(["verify", &ledger, "--json"]), JUDGE_PATIENCE)?;
        let report = said.lines().rev().find_map(|l| serde_json::from_str(l).ok());
        let report: serde_json::Value = report.unwrap_or_default();
        let orders = report["figures"]["orders"].as_u64();
        match (report["holds"].as_bool(), orders) {
            (Some(true), Some(orders)) => Ok(Judged { orders }),
            _ => Err(Error::Refused(format!("the judge of {name} found something:\n{said}"))),
        }
    }
}

impl Sale<'_> {
    /// The sale's name, which is also its ledger's.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The node that buyers ask unless they know better.
    pub(crate) fn first(&self) -> &Node {
        &self.nodes[0]
    }

    /// Plays the operator until all shares sell.
    fn lead(&self, terms: Terms) -> Result<()> {
        let owner = |share: u16| node_name((share - 1) % terms.nodes + 1);
        let nodes: BTreeMap<u16, String> = (1..=terms.shares).map(|s| (s, owner(s))).collect();
        for node in &self.nodes {
            self.wait(node, "a node that is ready", |report| report.state == NodeState::Ready)?;
        }
        let evict = BTreeMap::new();
        self.post(Record::Assign(Assign { version: 1, nodes: nodes.clone(), evict }))?;
        self.post(Record::Policy(policy()))?;
        for node in &self.nodes {
            let owned = nodes.values().filter(|owner| **owner == node.name).count();
            self.wait(node, "a node that sells all its shares", |report| {
                let selling = report.shares.iter().filter(|s| s.state == ShareState::Selling);
                selling.count() == owned && report.pool.policy_version == 1
            })?;
        }
        Ok(())
    }

    fn wait(&self, node: &Node, what: &str, enough: impl Fn(&Report) -> bool) -> Result<()> {
        let site = self.house.site;
        let log = site.folder.join(format!("{}.{}.log", self.name, node.name));
        site.until(what, START_PATIENCE, &format!("see {}", log.display()), || {
            if !node.id().alive() {
                let said = fs::read_to_string(&log).unwrap_or_default();
                return Err(Error::Refused(format!("a node ended:\n{said}")));
            }
            let answer = self.signed(node, "GET", REPORT_PATH, &[]);
            let report = answer.ok().and_then(|(_, body)| serde_json::from_str(&body).ok());
            Ok(report.filter(&enough).map(drop))
        })
    }

    fn post(&self, record: Record) -> Result<()> {
        let reason = "a bench begins".to_owned();
        let posting = Posting { operator: "bench".to_owned(), reason, record };
        match self.signed(self.first(), "POST", PLAN_PATH, &json(&posting)?)? {
            (200, _) => Ok(()),
            (status, body) => Err(Error::Refused(format!("a posting: {status} {body}"))),
        }
    }

    fn signed(&self, node: &Node, method: &str, path: &str, body: &[u8]) -> Result<(u16, String)> {
        let signed = Signed { method, path, body, sale: SALE, node: &node.name };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let signature = self.house.key.sign(now, &signed);
        request(node.control, method, path, &[(HEADER, &signature)], body)
    }

    /// Buys one ticket, as soon as that is possible; the body of the answer. Then asks for it
    /// again until that is answered too: an owner that has just begun decides at once, and waits
    /// for the board before it says what it knows.
    ///
    /// # Errors
    /// When nobody sells one, or knows it.
    pub(crate) fn buy_one(&self) -> Result<String> {
        let bought = self.first_ticket(201)?;
        self.first_ticket(200)?;
        Ok(bought)
    }

    fn first_ticket(&self, wanted: u16) -> Result<String> {
        let run = run_name(RUNS - 1);
        let body = format!(
            r#"{{"run":"{run}","from":"T03","to":"T10","class":"Second",
            "passengers":[{{"document":"first0-1000000"}}]}}"#
        );
        let headers = [(BUYER_HEADER, "first0-1000000"), ("Idempotency-Key", "first0-1000000")];
        let mut last = String::new();
        let site = self.house.site;
        let told = site.until("a first ticket", START_PATIENCE, "see the node's log", || {
            let port = self.first().port;
            match request(port, "POST", "/v1/orders", &headers, body.as_bytes())? {
                (status, body) if status == wanted => Ok(Some(body)),
                (status, body) => {
                    last = format!("{status} {body}");
                    Ok(None)
                }
            }
        });
        told.map_err(|error| Error::Refused(format!("{error}; the last answer was {last}")))
    }

    /// Buys the first run whole, from its first stop to its last; the body of "sold out".
    ///
    /// # Errors
    /// When it is not sold out in the end.
    pub(crate) fn sell_out(&self) -> Result<String> {
        let last = STOPS - 1;
        let mut answer = (0, String::new());
        for number in 0..=SEATS {
            let name = format!("all-{number}");
            let body = format!(
                r#"{{"run":"H0000/2027-02-01","from":"T00","to":"T{last:02}","class":"Second",
                "passengers":[{{"document":"{name}"}}]}}"#
            );
            let headers = [(BUYER_HEADER, name.as_str()), ("Idempotency-Key", name.as_str())];
            let site = self.house.site;
            answer = site.until("an answer", START_PATIENCE, "see the node's log", || {
                let answer =
                    request(self.first().port, "POST", "/v1/orders", &headers, body.as_bytes())?;
                Ok((answer.0 != 503).then_some(answer))
            })?;
        }
        match answer {
            (409, body) if body.contains("sold-out") => Ok(body),
            (status, body) => Err(Error::Refused(format!("not sold out: {status} {body}"))),
        }
    }

    /// A page that people look at.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn page(&self, path: &str) -> Result<String> {
        match request(self.first().port, "GET", path, &[], &[])? {
            (200, body) => Ok(body),
            (status, body) => Err(Error::Refused(format!("{path}: {status} {body}"))),
        }
    }

    /// Ends the nodes without a word: what they have answered must be in the ledger all the same.
    ///
    /// # Errors
    /// When one does not end.
    pub(crate) fn kill(self) -> Result<()> {
        self.nodes.into_iter().try_for_each(|node| node.process.kill())
    }
}

fn node_name(number: u16) -> String {
    format!("node-{number}")
}

/// How an order names a run.
pub(crate) fn run_name(at: u16) -> String {
    format!("{}/{DATE}", train(at))
}

fn train(at: u16) -> String {
    format!("H{at:04}")
}

fn board(name: &str) -> String {
    format!("{name}.board")
}

fn json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Refused(format!("a configuration: {error}")))
}

/// What is sold: runs of one timetable with [`SEATS`] seats each.
pub(crate) fn definition(name: &str, terms: Terms) -> Definition {
    let stop = |at: u8| {
        let minute = 360 + 20 * u16::from(at);
        let (first, last) = (at == 0, at + 1 == STOPS);
        Stop {
            code: format!("T{at:02}"),
            name: String::new(),
            arrives: (!first).then_some(minute),
            departs: (!last).then_some(minute + 2),
        }
    };
    let coach = |at: u16| Coach {
        name: format!("{:02}", at + 1),
        class: 0,
        seats: SEATS_PER_COACH,
        row_layout: "ABC-DF".to_owned(),
    };
    let fare = Fare::PerLeg((0..u64::from(STOPS) - 1).map(|leg| 100 + leg).collect());
    let timetable = Timetable {
        name: "hot".to_owned(),
        stops: (0..STOPS).map(stop).collect(),
        classes: vec![Class { name: "Second".to_owned(), fare }],
        coaches: (0..SEATS / SEATS_PER_COACH).map(coach).collect(),
    };
    let homes = terms.homes.unwrap_or_else(|| homes_of(SEATS.into(), terms.shares));
    let run = |at: u16| Run {
        train: train(at),
        date: DATE.to_owned(),
        timetable: 0,
        homes,
        withdrawn: false,
    };
    Definition {
        ledger: name.to_owned(),
        currency: "EUR".to_owned(),
        time_zone: "UTC".to_owned(),
        shares: terms.shares,
        // What a TrainSale has by default, as are the limits below.
        buffer_percent: 20,
        block_seats: 8,
        timetables: vec![timetable],
        runs: (0..terms.runs).map(run).collect(),
    }
}

fn policy() -> Policy {
    Policy {
        version: 1,
        state: SaleState::Active,
        open_ms: None,
        close_ms: None,
        limits: Limits {
            passengers_per_order: 5,
            live_holds_per_buyer_per_run: 1,
            orders_per_buyer_per_run: 10,
            payment_ms: 900_000,
            grace_ms: 2_000,
            low_water_seats: 2,
        },
    }
}

/// One request on a connection of its own: status and body.
fn request(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<(u16, String)> {
    let what = || format!("{method} http://127.0.0.1:{port}{path}");
    let exchange = || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer: String = exchange().map_err(|source| Error::Io { what: what(), source })?;
    let parsed = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    });
    parsed.ok_or_else(|| Error::Refused(format!("{}: no HTTP answer: {answer}", what())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sold_can_be_sold() {
        for shares in [1, 16] {
            let definition = definition("bench", Terms::of(shares));
            let definition = inventory::definition::Definition::try_from(definition).unwrap();
            assert_eq!(definition.timetables[0].seats(), u32::from(SEATS));
        }
    }

    #[test]
    fn half_of_a_run_is_sold_before_the_crowd_goes_on() {
        // Two different stops of twenty are (20 + 1) / 3 legs apart in the mean.
        let legs = f64::from(ORDERS_PER_RUN) * f64::from(STOPS + 1) / 3.0;
        let all = f64::from(SEATS) * f64::from(STOPS - 1);
        assert!((0.4..0.6).contains(&(legs / all)), "{}", legs / all);
    }
}
