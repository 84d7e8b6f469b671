//! A sale from its first seat to its last: what selling everything costs Redis.

use std::time::{Duration, Instant};

use e2e::{Error, Result};
use serde::Serialize;

use crate::load::{Begin, Crowd, Manner};
use crate::sale::{House, SEATS, STOPS, Terms, run_name};
use crate::{Bench, Counted, counted, written};

/// Shares, all owned by one node.
const SHARES: u16 = 16;
/// Runs, all bought at the same time.
const WHOLE_RUNS: u16 = 64;
/// How often it is asked what was sold.
const SLICE: Duration = Duration::from_secs(2);
/// The sale is over when of so many answers of a slice less than one was a ticket.
const SOLD_OUT: u64 = 50;
/// Seconds of a sale that does not end.
const SECONDS_MAX: u32 = 120;

/// What a whole sale came to.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Whole {
    orders: u64,
    seconds: f64,
    answers: u64,
    redis_commands_per_1000: f64,
    /// In the first half of the orders, and in the second.
    redis_commands: [u64; 2],
}

impl std::fmt::Display for Whole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "A whole sale of {WHOLE_RUNS} runs with {SHARES} shares: {} orders in {:.0} s of load, \
             {} answers; {:.1} Redis commands in 1,000 orders ({} until half of them, {} after).",
            self.orders,
            self.seconds,
            self.answers,
            self.redis_commands_per_1000,
            self.redis_commands[0],
            self.redis_commands[1]
        )
    }
}

/// What a sale has counted.
#[derive(Debug, Clone, Copy, Default)]
struct Slice {
    orders: u64,
    answers: u64,
    /// To Redis.
    commands: u64,
}

impl Slice {
    fn of(counted: &Counted) -> Self {
        let answers = counted.iter().filter(|(name, _)| name.starts_with("answers_total{"));
        let commands = counted.get("redis_commands_total").copied().unwrap_or(0);
        Self { orders: written(counted), answers: answers.map(|(_, n)| n).sum(), commands }
    }
}

impl Bench<'_> {
    /// Sells until nobody gets a ticket any more.
    ///
    /// # Errors
    /// When that does not happen, or the judge finds something.
    pub(crate) fn whole(&mut self, house: &House<'_>) -> Result<Whole> {
        let sale = house.open("whole", Terms { runs: WHOLE_RUNS, ..Terms::of(SHARES) })?;
        let manner = Manner {
            runs: (0..WHOLE_RUNS).map(run_name).collect(),
            width: WHOLE_RUNS,
            // More than there is room for: the crowd stays with its runs.
            orders_per_run: u32::from(SEATS) * u32::from(STOPS) * 1_000,
            ..Manner::default()
        };
        let crowd = Crowd::new(self.site, "whole", &manner)?;
        let (port, begun) = (sale.first().port, Instant::now());
        let buying = crowd.start(self.site, "whole.wrk.log", port, SECONDS_MAX, Begin::First)?;
        let mut slices: Vec<Slice> = vec![Slice::default()];
        let patience = Duration::from_secs(SECONDS_MAX.into());
        self.site.until("the end of a whole sale", patience, "see whole.wrk.log", || {
            if begun.elapsed() < SLICE * u32::try_from(slices.len()).unwrap_or(u32::MAX) {
                return Ok(None);
            }
            let (now, before) = (Slice::of(&counted(&sale)?), slices[slices.len() - 1]);
            slices.push(now);
            let (answers, orders) = (now.answers - before.answers, now.orders - before.orders);
            Ok((answers > 0 && orders * SOLD_OUT < answers).then_some(()))
        })?;
        let seconds = begun.elapsed().as_secs_f64();
        drop(buying);
        let Slice { orders, answers, commands } = Slice::of(&counted(&sale)?);
        sale.kill()?;
        let judged = house.judge("whole")?;
        if judged.orders < orders {
            let message = format!("whole: {orders} orders were answered, {} kept", judged.orders);
            return Err(Error::Refused(message));
        }
        let half = slices.iter().find(|s| s.orders * 2 >= orders).map_or(0, |s| s.commands);
        Ok(Whole {
            orders,
            seconds,
            answers,
            redis_commands_per_1000: commands as f64 * 1_000.0 / orders.max(1) as f64,
            redis_commands: [half, commands - half],
        })
    }
}
