//! Buyers who come at a constant rate, whether or not those before them were served: an open loop.
//!
//! A closed loop asks less while the server is slow, and so hides how long its next buyers would
//! have waited (coordinated omission). Here each arrival has its time, and its latency is counted
//! from that time on: also what it waited for a connection, and for this program to be given a
//! processor. One thread; it sleeps for at most [`NAP`], which is the resolution of all latencies.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use e2e::kafka::Purpose;
use e2e::{Error, KafkaCluster, Result};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde::Serialize;

use crate::dice::Dice;
use crate::load::{Crowd, Manner};
use crate::sale::{BUYER_HEADER, House, ORDERS_PER_RUN, STOPS, Terms, run_name};
use crate::table::{Spread, aligned};
use crate::{Bench, Ceiling, cpu};

/// Of the rate that a closed loop comes to right before.
const PARTS: [f64; 2] = [0.5, 0.8];
/// Connections; twice as many as buyers are ever served at once at half of the maximum.
const CONNECTIONS: usize = 200;
/// So many that no crowd meets another's runs.
const RUNS: u16 = 1_000;
/// Where the crowds of [`PARTS`] begin.
const FIRST_RUNS: [u16; 2] = [350, 650];
const NAP: Duration = Duration::from_micros(50);
/// What is not answered so long after the last arrival never is.
const PATIENCE: Duration = Duration::from_secs(5);
/// An order's answer has less than one KiB.
const ANSWER_BYTES: usize = 4_096;

/// What came of a constant rate.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Arrived {
    /// None: the yardstick's, which asks no broker.
    brokers: Option<u8>,
    /// Of the closed loop's rate.
    part: f64,
    per_second: Spread,
    p50_millis: Spread,
    p99_millis: Spread,
    p999_millis: Spread,
    max_millis: Spread,
    /// Answers that were no ticket.
    refused: u64,
    /// Processors that this program used.
    own_cores: Spread,
}

impl Arrived {
    /// A table of them.
    pub(crate) fn shown(of: &[Self]) -> String {
        let heads = ["arrivals", "per second", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "refused"];
        let mut lines = vec![heads.map(str::to_owned)];
        lines.extend(of.iter().map(|one| {
            let brokers = match one.brokers {
                None => "the ceiling".to_owned(),
                Some(1) => "1 broker".to_owned(),
                Some(brokers) => format!("{brokers} brokers"),
            };
            [
                format!("{:.0} % of the maximum, {brokers}", one.part * 100.0),
                one.per_second.shown(0),
                one.p50_millis.shown(2),
                one.p99_millis.shown(2),
                one.p999_millis.shown(2),
                one.max_millis.shown(1),
                one.refused.to_string(),
            ]
        }));
        aligned(&lines)
    }
}

/// One window.
struct Window {
    brokers: Option<u8>,
    part: f64,
    seen: Seen,
    own_cores: f64,
}

/// What all buyers of a window saw.
#[derive(Debug, Default)]
struct Seen {
    rate: f64,
    /// Microseconds, sorted.
    latencies: Vec<u32>,
    refused: u64,
}

impl Seen {
    fn millis(&self, part: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let at = (self.latencies.len() as f64 * part).ceil() as usize;
        let micros = self.latencies.get(at.saturating_sub(1).min(last));
        micros.map_or(f64::NAN, |micros| f64::from(*micros) / 1_000.0)
    }
}

impl Bench<'_> {
    /// With one broker, and with three that all have what is confirmed but for one.
    ///
    /// # Errors
    /// When an order gets no answer.
    pub(crate) fn arrivals(
        &mut self,
        house: &House<'_>,
        ceiling: &Ceiling,
    ) -> Result<Vec<Arrived>> {
        let mut arrived = Vec::new();
        if self.run.brokers.contains(&1) {
            arrived.extend(self.arrivals_with(house, ceiling)?);
        }
        if self.run.brokers.contains(&3) {
            let kafka = KafkaCluster::start_for(Purpose::Measuring, 3)?;
            let three = House { kafka: kafka.bootstrap(), replicas: 3, ..house.clone() };
            self.rehearse(&three, &kafka)?;
            arrived.extend(self.arrivals_with(&three, ceiling)?);
        }
        Ok(arrived)
    }

    /// The ceiling is asked at the same rate right before each of the node's turns: what it does
    /// not answer in time, this machine does not.
    fn arrivals_with(&mut self, house: &House<'_>, ceiling: &Ceiling) -> Result<Vec<Arrived>> {
        let mut windows = Vec::new();
        for round in 1..=self.run.rounds {
            let name = format!("arrivals-{}.{round}", house.replicas);
            let sale = house.open(&name, Terms { runs: RUNS, ..Terms::of(1) })?;
            sale.buy_one()?;
            let runs = (0..FIRST_RUNS[0]).map(run_name).collect();
            let crowd = Crowd::new(self.site, &name, &Manner { runs, ..Manner::default() })?;
            let (answered, most) = self.sell(&sale, &[&crowd])?;
            println!("{name}: a closed loop sells {:.0}/s", most.seen.rate());
            let mut orders = answered;
            for (part, first) in PARTS.into_iter().zip(FIRST_RUNS) {
                let rate = most.seen.rate() * part;
                let (seen, own_cores) = self.arrive(ceiling.port, rate, first)?;
                windows.push(Window { brokers: None, part, seen, own_cores });
                let (seen, own_cores) = self.arrive(sale.first().port, rate, first)?;
                let window = Window { brokers: Some(house.replicas), part, seen, own_cores };
                orders += window.seen.latencies.len() as u64 - window.seen.refused;
                windows.push(window);
            }
            sale.kill()?;
            let judged = house.judge(&name)?.orders;
            if judged < orders {
                let message = format!("{name}: {orders} orders were answered, {judged} are kept");
                return Err(Error::Refused(message));
            }
        }
        let of = |(part, brokers): (f64, Option<u8>)| {
            let these = |w: &&Window| w.part == part && w.brokers == brokers;
            let windows: Vec<&Window> = windows.iter().filter(these).collect();
            let spread = |figure: &dyn Fn(&Window) -> f64| {
                Spread::of(windows.iter().map(|window| figure(window)))
            };
            Arrived {
                brokers,
                part,
                per_second: spread(&|w| w.seen.rate),
                p50_millis: spread(&|w| w.seen.millis(0.5)),
                p99_millis: spread(&|w| w.seen.millis(0.99)),
                p999_millis: spread(&|w| w.seen.millis(0.999)),
                max_millis: spread(&|w| w.seen.millis(1.0)),
                refused: windows.iter().map(|w| w.seen.refused).sum(),
                own_cores: spread(&|w| w.own_cores),
            }
        };
        let each = |part| [(part, None), (part, Some(house.replicas))];
        Ok(PARTS.into_iter().flat_map(each).map(of).collect())
    }

    fn arrive(&mut self, port: u16, rate: f64, first: u16) -> Result<(Seen, f64)> {
        self.wait_for_quiet()?;
        let own = e2e::process::ProcessId::of(i32::try_from(std::process::id()).unwrap_or(0));
        let own = own.ok_or_else(|| Error::Refused("this program is not in /proc".to_owned()))?;
        let before = cpu::Threads::of(own)?;
        let (begun, count) = (Instant::now(), (rate * f64::from(self.run.seconds)) as u32);
        let mut buyers = Buyers::connect(port, first)?;
        let seen = buyers.come(rate, count)?;
        let micros = cpu::Threads::of(own)?.since(&before).micros;
        Ok((seen, micros / begun.elapsed().as_micros() as f64))
    }
}

/// A connection, and the arrival that it serves.
struct Connection {
    stream: TcpStream,
    due: Option<Instant>,
    answer: Vec<u8>,
}

/// All connections, and who waits for one.
struct Buyers {
    poll: Poll,
    connections: Vec<Connection>,
    free: Vec<usize>,
    waiting: VecDeque<(u32, Instant)>,
    port: u16,
    first: u16,
    dice: Dice,
    refused: u64,
    latencies: Vec<u32>,
}

fn io(source: std::io::Error) -> Error {
    Error::Io { what: "an arrival".to_owned(), source }
}

impl Buyers {
    fn connect(port: u16, first: u16) -> Result<Self> {
        let poll = Poll::new().map_err(io)?;
        let connect = |at: usize| -> std::io::Result<Connection> {
            let stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(at), Interest::READABLE)?;
            Ok(Connection { stream, due: None, answer: Vec::with_capacity(ANSWER_BYTES) })
        };
        let connections: std::io::Result<_> = (0..CONNECTIONS).map(connect).collect();
        Ok(Self {
            connections: connections.map_err(io)?,
            poll,
            free: (0..CONNECTIONS).collect(),
            waiting: VecDeque::new(),
            port,
            first,
            dice: Dice::new(first.into()),
            refused: 0,
            latencies: Vec::new(),
        })
    }

    /// So many, at so many in a second.
    fn come(&mut self, rate: f64, count: u32) -> Result<Seen> {
        let begun = Instant::now();
        let due = |number: u32| begun + Duration::from_secs_f64(f64::from(number) / rate);
        let mut events = Events::with_capacity(CONNECTIONS);
        let mut next = 0;
        while self.latencies.len() < count as usize {
            let now = Instant::now();
            if now > due(count) + PATIENCE {
                let missing = count as usize - self.latencies.len();
                return Err(Error::Refused(format!("{missing} of {count} got no answer")));
            }
            while next < count && due(next) <= now {
                self.waiting.push_back((next, due(next)));
                next += 1;
            }
            self.serve()?;
            self.poll.poll(&mut events, Some(Duration::ZERO)).map_err(io)?;
            if events.is_empty() {
                std::thread::sleep(NAP.min(due(next).saturating_duration_since(Instant::now())));
            }
            for event in &events {
                self.hear(event.token().0)?;
            }
        }
        let mut latencies = std::mem::take(&mut self.latencies);
        latencies.sort_unstable();
        Ok(Seen { rate, latencies, refused: self.refused })
    }

    /// Gives free connections to those who wait.
    fn serve(&mut self) -> Result<()> {
        while let Some(at) = self.free.pop() {
            let Some((number, due)) = self.waiting.pop_front() else {
                self.free.push(at);
                break;
            };
            let request = self.request(number);
            let connection = &mut self.connections[at];
            connection.due = Some(due);
            // A few hundred bytes always fit what the kernel has for a connection without any.
            connection.stream.write_all(request.as_bytes()).map_err(io)?;
        }
        Ok(())
    }

    fn request(&mut self, number: u32) -> String {
        let run = run_name(self.first + u16::try_from(number / ORDERS_PER_RUN).unwrap_or(0));
        let journey = self.dice.journey(STOPS);
        let name = format!("open-{}-{number}", self.first);
        let body = format!(
            r#"{{"run":"{run}","from":"T{:02}","to":"T{:02}","class":"Second","passengers":[{{"document":"{name}"}}]}}"#,
            journey.from(),
            journey.to()
        );
        format!(
            "POST /v1/orders HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{BUYER_HEADER}: {name}\r\nIdempotency-Key: {name}\r\n\r\n{body}",
            self.port,
            body.len()
        )
    }

    /// Reads what has come; the connection is free when the answer is whole.
    fn hear(&mut self, at: usize) -> Result<()> {
        let connection = &mut self.connections[at];
        let mut bytes = [0; ANSWER_BYTES];
        loop {
            match connection.stream.read(&mut bytes) {
                Ok(0) => return Err(Error::Refused("the node hung up".to_owned())),
                Ok(read) => connection.answer.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(io(error)),
            }
        }
        let Some(status) = whole(&connection.answer) else { return Ok(()) };
        connection.answer.clear();
        let Some(due) = connection.due.take() else { return Ok(()) };
        let micros = due.elapsed().as_micros();
        self.latencies.push(u32::try_from(micros).unwrap_or(u32::MAX));
        self.refused += u64::from(status[0] != b'2');
        self.free.push(at);
        Ok(())
    }
}

/// The status of an answer that is there whole.
fn whole(answer: &[u8]) -> Option<[u8; 3]> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    let status = answer.get(9..12)?.first_chunk()?;
    (answer.len() >= end + length).then_some(*status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_byte() {
        let answer = b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(whole(answer), Some(*b"201"));
        for cut in 0..answer.len() {
            assert_eq!(whole(&answer[..cut]), None);
        }
    }

    #[test]
    fn percentiles_are_of_what_was_seen() {
        let seen = Seen { latencies: (1..=1_000).map(|n| n * 1_000).collect(), ..Seen::default() };
        assert_eq!(
            [0.5, 0.99, 0.999, 1.0].map(|part| seen.millis(part)),
            [500.0, 990.0, 999.0, 1_000.0]
        );
    }

    #[test]
    fn crowds_do_not_meet() {
        let orders =
            |part: usize| u32::from(FIRST_RUNS[part + 1] - FIRST_RUNS[part]) * ORDERS_PER_RUN;
        // Ten seconds of half of eighty thousand in a second.
        assert!(orders(0) >= 400_000);
    }
}
