//! The load: wrk with buyers who each want a ticket of their own.

use std::path::PathBuf;
use std::time::Duration;

use e2e::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::sale::{ORDERS_PER_RUN, RUNS, STOPS, run_name};
use crate::work::{Running, Site};

/// wrk's threads: one would be its own limit before a server's.
const THREADS: u32 = 2;
/// Connections, all kept alive.
pub(crate) const CONNECTIONS: u32 = 100;
/// wrk ends on time unless the machine is in trouble.
const PATIENCE: Duration = Duration::from_secs(20);

const SCRIPT: &str = include_str!("orders.lua");
const REPORT: &str = include_str!("report.lua");

/// What wrk saw. Times are microseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// How long it ran.
    pub(crate) micros: u64,
    /// Whole answers, whatever they said.
    pub(crate) requests: u64,
    /// Answers above 399.
    pub(crate) refused: u64,
    /// Connections that failed and answers that did not come in time.
    pub(crate) lost: u64,
    /// Latency: what half of the requests stayed below.
    pub(crate) p50: u64,
    /// And nine of ten.
    pub(crate) p90: u64,
    /// And 99 of a hundred.
    pub(crate) p99: u64,
    /// And 999 of a thousand.
    pub(crate) p999: u64,
    /// The slowest.
    pub(crate) max: u64,
}

impl Seen {
    /// Answers that said yes.
    pub(crate) fn taken(&self) -> u64 {
        self.requests.saturating_sub(self.refused)
    }

    /// Two crowds together. Of the latencies it is the worse one, since what both together stayed
    /// below is not known.
    pub(crate) fn with(&self, other: &Self) -> Self {
        Self {
            micros: self.micros.max(other.micros),
            requests: self.requests + other.requests,
            refused: self.refused + other.refused,
            lost: self.lost + other.lost,
            p50: self.p50.max(other.p50),
            p90: self.p90.max(other.p90),
            p99: self.p99.max(other.p99),
            p999: self.p999.max(other.p999),
            max: self.max.max(other.max),
        }
    }

    /// The same in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.taken() as f64 * 1_000_000.0 / self.micros.max(1) as f64
    }
}

/// How a crowd behaves.
#[derive(Debug, Clone)]
pub(crate) struct Manner {
    /// Connections.
    pub(crate) connections: u32,
    /// Whether a connection serves for one request only.
    pub(crate) closes: bool,
    /// What is bought, in this order.
    pub(crate) runs: Vec<String>,
    /// How many runs are bought at the same time.
    pub(crate) width: u16,
    /// Whether each order is asked for twice.
    pub(crate) twice: bool,
    /// How often somebody looks at a run before an order.
    pub(crate) looks: u32,
    /// Orders that a run gets before the crowd goes on.
    pub(crate) orders_per_run: u32,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS,
            closes: false,
            runs: (0..RUNS).map(run_name).collect(),
            width: 1,
            twice: false,
            looks: 0,
            orders_per_run: ORDERS_PER_RUN,
        }
    }
}

impl Manner {
    /// The script of wrk.
    fn script(&self) -> String {
        let Self { width, twice, looks, .. } = self;
        let quoted = |(at, name): (usize, &String)| format!("[{at}]=\"{name}\"");
        let runs: Vec<String> = self.runs.iter().enumerate().map(quoted).collect();
        let extra = if self.closes { "Connection: close\\r\\n" } else { "" };
        format!(
            "local STOPS, WIDTH, TWICE, LOOKS = {STOPS}, {width}, {twice}, {looks}\n\
             local EXTRA, HOW_MANY, RUNS = \"{extra}\", {}, {{{}}}\n{SCRIPT}\n{REPORT}",
            runs.len(),
            runs.join(",")
        )
    }
}

/// A crowd.
#[derive(Debug, Clone)]
pub(crate) struct Crowd {
    script: PathBuf,
    connections: u32,
    runs: usize,
    orders_per_run: u32,
}

/// Which runs a crowd buys first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// From the first run upwards: the crowd that counts.
    First,
    /// From the last run downwards: the crowd that warms up, so that the two never meet.
    Last,
}

impl Crowd {
    /// Writes the script.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn new(site: &Site, name: &str, manner: &Manner) -> Result<Self> {
        Ok(Self {
            script: site.write(&format!("{name}.lua"), manner.script())?,
            connections: manner.connections,
            runs: manner.runs.len(),
            orders_per_run: manner.orders_per_run,
        })
    }

    /// People who look at one page and buy nothing.
    ///
    /// # Errors
    /// When the script cannot be written.
    pub(crate) fn looking_at(site: &Site, name: &str, path: &str) -> Result<Self> {
        let script = format!("wrk.path = \"{path}\"\n\n{REPORT}");
        let script = site.write(&format!("{name}.lua"), script)?;
        Ok(Self { script, connections: CONNECTIONS, runs: 1, orders_per_run: 1 })
    }

    /// Begins to buy for so many seconds.
    ///
    /// # Errors
    /// When wrk is missing.
    pub(crate) fn start(
        &self,
        site: &Site,
        log: &str,
        port: u16,
        seconds: u32,
        begin: Begin,
    ) -> Result<Buying> {
        let (tag, first, step) = match begin {
            Begin::First => ("b", 0, "1"),
            Begin::Last => ("w", self.runs - 1, "-1"),
        };
        let launch = site.launch(log, "wrk".as_ref());
        let launch = launch
            .args(["-t", &THREADS.to_string(), "-c", &self.connections.to_string()])
            .args(["-d", &format!("{seconds}s"), "--timeout", "5s", "-s"])
            .args([&self.script])
            .args([&format!("http://127.0.0.1:{port}"), "--"])
            // Buyers of two nodes are different people.
            .args([&format!("{tag}{port}-"), &first.to_string(), step])
            .args([(self.orders_per_run / THREADS).to_string()]);
        let patience = PATIENCE + Duration::from_secs(seconds.into());
        Ok(Buying { wrk: Running::start(launch)?, log: log.to_owned(), patience })
    }
}

/// A crowd at a counter.
#[derive(Debug)]
pub(crate) struct Buying {
    wrk: Running,
    log: String,
    patience: Duration,
}

impl Buying {
    /// What it saw, when it has ended.
    ///
    /// # Errors
    /// When it does not end, or says no figures.
    pub(crate) fn seen(self, site: &Site) -> Result<Seen> {
        let said = site.ended(&self.wrk, &self.log, self.patience)?;
        let seen = said.lines().rev().find_map(|line| serde_json::from_str(line).ok());
        seen.ok_or_else(|| {
            Error::Refused(format!("wrk (Debian's package wrk) said no figures:\n{said}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_that_say_yes_are_taken() {
        let line = r#"{"micros":2000000,"requests":100,"refused":10,"lost":1,
            "p50":1,"p90":2,"p99":3,"p999":4,"max":5}"#;
        let seen: Seen = serde_json::from_str(line).unwrap();
        assert_eq!(seen.taken(), 90);
        assert!((seen.rate() - 45.0).abs() < 1e-9);
    }
}
