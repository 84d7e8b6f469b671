//! spikeSystem: known to many as the design that sells a million tickets.
//!
//! Nothing of it is here. Whoever has built it names the program; it must have been given more
//! local stock than is asked for, since in this window every request has to sell. It is asked as
//! its author did, by `ab -k -c 100`, and for so few that it stays below the number of connections
//! to Redis that it opens and never gives back.

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::process::Place;
use e2e::{Error, Redis, Result};

use super::{Figures, Outcome, Said, crowd::Shot, installed};
use crate::cpu;
use crate::work::{Running, Site};

/// Names the program.
const VARIABLE: &str = "SPIKESYSTEM";
/// Where it listens, and where it expects Redis: both are fixed in it.
const PORT: u16 = 3005;
const REDIS_PORT: u16 = 6379;
/// Requests of a window. Each keeps a connection to Redis, which takes ten thousand by default.
const REQUESTS: u64 = 8_000;
const CONNECTIONS: u32 = 100;

const START_PATIENCE: Duration = Duration::from_secs(20);
/// A hundred requests a second would do.
const PATIENCE: Duration = Duration::from_secs(80);

/// Windows of it, or why there are none.
///
/// # Errors
/// When what it needs does not start.
pub(super) fn outcome(site: &Site, rounds: u32) -> Result<Outcome> {
    let why = match needed() {
        Err(why) => why,
        Ok(program) => {
            let mut shots = Vec::new();
            for round in 1..=rounds {
                match window(site, &program, round)? {
                    Ok(shot) => {
                        println!("round {round}, spikesystem: {:.0}/s", shot.rate());
                        shots.push((shot, 0));
                    }
                    Err(why) => return Ok(Outcome::Failed { why }),
                }
            }
            return Ok(Outcome::Measured(Figures::of(&shots)));
        }
    };
    Ok(Outcome::NotRun { why })
}

fn needed() -> Said<PathBuf> {
    let program = std::env::var_os(VARIABLE).map(PathBuf::from);
    let program = program.ok_or_else(|| format!("set {VARIABLE} to a program built of it"))?;
    if !program.is_file() {
        return Err(format!("{VARIABLE}: {} is no program", program.display()));
    }
    installed("ab").ok_or("ab (Debian's package apache2-utils) is not installed")?;
    let taken = |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
    match [PORT, REDIS_PORT].into_iter().find(|port| taken(*port)) {
        Some(port) => Err(format!("it needs port {port}, which is in use")),
        None => Ok(program),
    }
}

fn window(site: &Site, program: &Path, round: u32) -> Result<Said<Shot>> {
    let folder = site.folder.join(format!("spikesystem.{round}"));
    let redis = Redis::start_at(&folder, &Place::default(), "127.0.0.1", REDIS_PORT)?;
    let stock = "HSET ticket_hash_key ticket_total_nums 1000000 ticket_sold_nums 0";
    redis.ask(stock)?;
    let launch = site.launch(&format!("spikesystem.{round}.log"), program).folder(&folder);
    let server = Running::start(launch)?;
    site.until("spikesystem", START_PATIENCE, "see its log", || {
        Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).is_ok().then_some(()))
    })?;
    let engines = [Some(server.0), redis.process()];
    let used = || engines.iter().flatten().map(|e| cpu::used(*e)).sum::<Result<f64>>();
    let before = used()?;
    let log = format!("spikesystem.{round}.ab.log");
    let launch = site.launch(&log, "ab".as_ref());
    let launch = launch.args(["-q", "-k", "-n", &REQUESTS.to_string()]);
    let launch = launch.args(["-c", &CONNECTIONS.to_string()]);
    let launch = launch.args([&format!("http://127.0.0.1:{PORT}/buy/ticket")]);
    let said = site.run(&log, launch, PATIENCE)?;
    let spent = used()? - before;
    let count = "return tonumber(redis.call('HGET','ticket_hash_key','ticket_sold_nums'))";
    let sold = redis.ask(&format!("EVAL \"{count}\" 0"))?;
    if sold != format!(":{REQUESTS}") {
        return Ok(Err(format!("of {REQUESTS} requests it sold {sold}: has it enough stock?")));
    }
    let rate = per_second(&said).ok_or_else(|| Error::Refused(format!("ab said:\n{said}")))?;
    Ok(Ok(Shot {
        sold: REQUESTS,
        seconds: REQUESTS as f64 / rate,
        server_micros: spent,
        client_micros: f64::NAN,
        others_micros: f64::NAN,
        told: Vec::new(),
        sold_out: 0,
        forgotten: 0,
    }))
}

/// What ab says of its rate.
fn per_second(said: &str) -> Option<f64> {
    let line = said.lines().find_map(|line| line.strip_prefix("Requests per second:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_what_ab_says() {
        let said = "Complete requests:      8000\nRequests per second:    5815.29 [#/sec] (mean)\n";
        assert_eq!(per_second(said), Some(5815.29));
        assert_eq!(per_second("ab: Could not connect"), None);
    }
}
