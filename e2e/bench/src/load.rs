//! The load: wrk with buyers who each want a ticket of their own.

use std::path::PathBuf;
use std::time::Duration;

use e2e::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::sale::{ORDERS_PER_RUN, RUNS, STOPS};
use crate::work::Site;

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

    /// The same in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.taken() as f64 * 1_000_000.0 / self.micros.max(1) as f64
    }
}

/// A crowd.
#[derive(Debug, Clone)]
pub(crate) struct Crowd {
    script: PathBuf,
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
    pub(crate) fn new(site: &Site) -> Result<Self> {
        Self::of(site, RUNS)
    }

    /// A crowd that wants the first few runs only.
    ///
    /// # Errors
    /// When the script cannot be written.
    pub(crate) fn of(site: &Site, runs: u16) -> Result<Self> {
        let script = format!("local STOPS, RUNS = {STOPS}, {runs}\n{SCRIPT}\n{REPORT}");
        Ok(Self { script: site.write(&format!("orders-{runs}.lua"), script)? })
    }

    /// People who look at one page and buy nothing.
    ///
    /// # Errors
    /// When the script cannot be written.
    pub(crate) fn looking_at(site: &Site, name: &str, path: &str) -> Result<Self> {
        let script = format!("wrk.path = \"{path}\"\n\n{REPORT}");
        Ok(Self { script: site.write(&format!("{name}.lua"), script)? })
    }

    /// Buys for so many seconds.
    ///
    /// # Errors
    /// When wrk is missing, or does not end.
    pub(crate) fn buy(
        &self,
        site: &Site,
        log: &str,
        port: u16,
        seconds: u32,
        begin: Begin,
    ) -> Result<Seen> {
        let (tag, first, step) = match begin {
            Begin::First => ("b", 0, "1"),
            Begin::Last => ("w", RUNS - 1, "-1"),
        };
        let launch = site.launch(log, "wrk".as_ref());
        let launch = launch
            .args(["-t", &THREADS.to_string(), "-c", &CONNECTIONS.to_string()])
            .args(["-d", &format!("{seconds}s"), "--timeout", "5s", "-s"])
            .args([&self.script])
            .args([&format!("http://127.0.0.1:{port}"), "--", tag, &first.to_string(), step])
            .args([(ORDERS_PER_RUN / THREADS).to_string()]);
        let patience = PATIENCE + Duration::from_secs(seconds.into());
        let said = site.run(log, launch, patience)?;
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
