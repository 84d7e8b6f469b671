//! What grows with a sale, and how: one process, one thread, the product's own machines.
//!
//! - [`fleet`]: a sale of some size, made up.
//! - [`ledger`]: its definition and partition 0, and folding a share.
//! - [`board`]: what each node reads of all others.
//! - [`operator`]: planning, judging, remembering.
//! - [`model`]: how many nodes a rate of sales needs.
//!
//! Each figure is taken at three sizes, so that it is seen how it grows. No Kafka, no network:
//! what brokers and wires can carry is said as bytes, not tried.

mod board;
mod fleet;
mod ledger;
mod model;
mod operator;

use std::fmt;
use std::time::Instant;

use clap::Args;
use e2e::process::ProcessId;
use e2e::{Error, Result};
use inventory::definition::SHARES_MAX;
use inventory::dispatcher::DEAD_MS;
use serde::Serialize;

use crate::cpu;
use board::{Heard, Turned};
use fleet::Fleet;
use ledger::{Fits, Folding, Founding};
use model::{COSTS, Costs, Shape};
use operator::{Planned, Watched};

/// Parts of the whole at which everything is measured as well.
const PARTS: [u16; 3] = [10, 2, 1];
/// Into how many shares a smaller fleet would divide the same orders: its shares are longer.
const FEW_SHARES: u16 = 16;
/// What lies between a death and the fold that follows it, beside [`DEAD_MS`]: the probe that
/// misses the node is up to so late, and so is the decision after it (`operator`'s fleet loop).
const PROBE_MS: f64 = 250.0;
const TICK_MS: f64 = 100.0;
/// Rates for which nodes are counted.
const RATES: [f64; 5] = [10_000.0, 100_000.0, 500_000.0, 1_000_000.0, 5_000_000.0];

/// How large a sale.
#[derive(Debug, Clone, Copy, Args, Serialize)]
pub(crate) struct Size {
    /// Nodes that sell.
    #[arg(long, default_value_t = 1_000)]
    #[arg(value_parser = clap::value_parser!(u16).range(100..=1_024))]
    pub(crate) nodes: u16,
    /// Runs on sale.
    #[arg(long, default_value_t = 5_000)]
    #[arg(value_parser = clap::value_parser!(u16).range(240..=20_000))]
    pub(crate) runs: u16,
    /// Orders of the whole sale.
    #[arg(long, default_value_t = 10_000_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(10..=100_000_000))]
    pub(crate) orders: u32,
}

impl Size {
    /// One share for each node: one busy share on a core sells most.
    pub(crate) fn shares(self) -> u16 {
        self.nodes.min(SHARES_MAX)
    }

    fn part(self, of: u16) -> Self {
        let Self { nodes, runs, orders } = self;
        Self {
            nodes: (nodes / of).max(1),
            runs: (runs / of).max(1),
            orders: (orders / u32::from(of)).max(1),
        }
    }
}

/// All figures at one size.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sized {
    pub(crate) size: Size,
    pub(crate) founding: Founding,
    pub(crate) heard: Heard,
    pub(crate) turned: Turned,
    pub(crate) planned: Planned,
    pub(crate) watched: Watched,
    pub(crate) folding: Folding,
    /// Milliseconds from a node's death until its share is folded by another: detection, the
    /// decision, the first stock and the fold. Predicted; what goes over the log is left out.
    pub(crate) take_over_ms: f64,
    /// What measuring all this took.
    pub(crate) seconds: f64,
}

/// The study.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Scale {
    pub(crate) sizes: Vec<Sized>,
    pub(crate) fits: Vec<Fits>,
    /// The whole sale's orders in few shares.
    pub(crate) folding_few: Folding,
    pub(crate) costs: Costs,
    pub(crate) predicted: Vec<Predicted>,
    pub(crate) seconds: f64,
}

/// What the model says of a sale of this shape.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Predicted {
    pub(crate) shape: Shape,
    /// Orders a second, and the nodes that it needs; none if no fleet can.
    pub(crate) nodes: Vec<(f64, Option<u16>)>,
    /// The fleet that sells most, and its orders a second.
    pub(crate) most: (u16, f64),
}

/// Measures a sale of this size, and smaller ones like it.
///
/// # Errors
/// When the sale cannot be, or something does not come to what it must: a defect.
pub(crate) fn scale(size: Size) -> Result<Scale> {
    let begun = Instant::now();
    let sizes = PARTS.map(|part| sized(size.part(part))).into_iter();
    let sizes = sizes.collect::<Result<Vec<_>>>()?;
    let fits = ledger::SHAPES.map(|dates| ledger::fits(size.shares(), dates)).into_iter();
    let predicted = sizes.iter().flat_map(predicted).collect();
    Ok(Scale {
        fits: fits.collect::<Result<_>>()?,
        folding_few: ledger::folding(size.orders, FEW_SHARES.min(size.shares()))?,
        costs: COSTS,
        predicted,
        sizes,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

fn sized(size: Size) -> Result<Sized> {
    let begun = Instant::now();
    let fleet = Fleet::of(size)?;
    let founding = ledger::founding(&fleet)?;
    let heard = board::heard(&fleet)?;
    let (turned, report) = board::turned(&fleet, &heard)?;
    let planned = operator::planned(&fleet)?;
    let watched = operator::watched(&fleet, &report)?;
    let folding = ledger::folding(size.orders, size.shares())?;
    let detected = DEAD_MS as f64 + PROBE_MS + TICK_MS + watched.one_dead_tick_ms;
    let take_over_ms = detected + founding.initial_ms + folding.share_ms;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Sized { size, founding, heard, turned, planned, watched, folding, take_over_ms, seconds })
}

/// With orders that all reach the right node, and with orders that reach any.
fn predicted(sized: &Sized) -> [Predicted; 2] {
    [Some(0.0), None].map(|forwarded| {
        let shape = shape(sized, forwarded);
        let nodes = RATES.map(|rate| (rate, COSTS.nodes_needed(rate, &shape)));
        Predicted { shape, nodes: nodes.to_vec(), most: COSTS.most(&shape) }
    })
}

fn shape(sized: &Sized, forwarded: Option<f64>) -> Shape {
    Shape { cores: 1.0, shares_per_node: 1.0, rows: sized.heard.rows as f64, forwarded }
}

/// The median of so many times, in milliseconds.
fn median_millis(times: usize, mut what: impl FnMut()) -> f64 {
    let time = |()| {
        let begun = Instant::now();
        what();
        begun.elapsed().as_secs_f64() * 1_000.0
    };
    let mut millis: Vec<f64> = std::iter::repeat_n((), times.max(1)).map(time).collect();
    millis.sort_by(f64::total_cmp);
    millis[millis.len() / 2]
}

/// Growth that cannot be chance, nor what a process still had from what it gave back before.
const GROWTH_BYTES: u64 = 16 << 20;
/// How many are made at least: the first ones may fit into what was given back.
const GROWN_MIN: usize = 4;

/// Bytes by which this process grows for each of these that is made and kept.
///
/// What was given back before is used first, and may be returned to the system at any time. Both
/// hide growth and neither makes any, so that the steepest growth counts.
fn grown<T>(make: impl Fn() -> Result<T>) -> Result<u64> {
    let own = ProcessId::of(i32::try_from(std::process::id()).unwrap_or(0));
    let own = own.ok_or_else(|| Error::Refused("this process is not in /proc".to_owned()))?;
    let mut kept = Vec::new();
    let mut sizes = vec![cpu::resident(own)?];
    let mut steepest = 0;
    while kept.len() < GROWN_MIN || steepest == 0 || sizes.last() < sizes.first() {
        kept.push(make()?);
        let now = cpu::resident(own)?;
        let far = sizes.iter().rposition(|size| now >= size + GROWTH_BYTES);
        if let Some(from) = far {
            steepest = steepest.max((now - sizes[from]) / (sizes.len() - from) as u64);
        }
        sizes.push(now);
    }
    Ok(steepest)
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.of_ledger(f)?;
        self.of_nodes(f)?;
        self.of_operator(f)?;
        self.said(f)
    }
}

/// A figure of one size.
type Figure<'a> = &'a dyn Fn(&Sized) -> f64;

impl Scale {
    fn line(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: &str,
        digits: usize,
        of: Figure<'_>,
    ) -> fmt::Result {
        write!(f, "{name:58}")?;
        self.sizes.iter().try_for_each(|sized| write!(f, " {:>14.digits$}", of(sized)))?;
        writeln!(f)
    }

    /// Definition and partition 0.
    fn of_ledger(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, digits, of: Figure<'_>| self.line(f, name, digits, of);
        line("nodes, and shares", 0, &|s| s.size.nodes.into())?;
        line("runs", 0, &|s| s.size.runs.into())?;
        line("orders", 0, &|s| s.size.orders.into())?;
        line("Genesis, KB of 1,000", 1, &|s| s.founding.genesis_bytes as f64 / 1e3)?;
        line("ConfigMap of the founding Job, KB of 1,049", 1, &|s| {
            s.founding.config_map_bytes as f64 / 1e3
        })?;
        line("a plan, KB", 1, &|s| s.founding.assign_bytes as f64 / 1e3)?;
        line("writing Genesis, ms", 2, &|s| s.founding.write_ms)?;
        line("folding Genesis, ms", 1, &|s| s.founding.fold_ms)?;
        line("Pool::initial of one share, ms", 2, &|s| s.founding.initial_ms)?;
        line("  of all shares (a product), s", 1, &|s| s.founding.initial_of_all_s)?;
        line("node: its first turn, with 64 shares to own, ms", 0, &|s| s.turned.start_ms)?;
        line("pool: Takes in all", 0, &|s| s.founding.takes as f64)?;
        line("pool: Takes folded, thousand a second", 0, &|s| s.founding.takes_per_second / 1e3)?;
        line("pool: memory after Genesis, MB", 1, &|s| s.founding.founded_bytes as f64 / 1e6)?;
        line("pool: memory when all is drawn, MB", 1, &|s| s.founding.drawn_bytes as f64 / 1e6)?;
        Ok(())
    }

    /// What each node does.
    fn of_nodes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, digits, of: Figure<'_>| self.line(f, name, digits, of);
        line("board: rows", 0, &|s| s.heard.rows as f64)?;
        line("board: memory of a reader, MB", 1, &|s| s.heard.memory_bytes as f64 / 1e6)?;
        line("board: full beat, bytes", 0, &|s| s.heard.full_bytes)?;
        line("board: empty beat, bytes", 0, &|s| s.heard.empty_bytes)?;
        line("board: each node reads, idle, MB/s", 2, &|s| s.heard.idle_bytes_per_second / 1e6)?;
        line("board: each node reads, all rows changing, MB/s", 1, &|s| {
            s.heard.busy_bytes_per_second / 1e6
        })?;
        line("board: brokers send to all nodes, idle, GB/s", 3, &|s| {
            s.heard.idle_bytes_per_second * f64::from(s.size.nodes) / 1e9
        })?;
        line("board: applying a full beat, µs", 1, &|s| s.heard.full_micros)?;
        line("  of it decoding", 1, &|s| s.heard.decode_micros)?;
        line("board: applying a beat with every row changed, µs", 1, &|s| s.heard.changes_micros)?;
        line("board: applying an empty beat, µs", 1, &|s| s.heard.empty_micros)?;
        line("board: cores of each node, idle", 3, &|s| s.heard.idle_core)?;
        line("board: cores of each node, all rows changing", 3, &|s| s.heard.busy_core)?;
        line("node: a turn in which an empty beat came, beside it, µs", 1, &|s| {
            s.turned.turn_micros
        })?;
        line("node: a tick, µs", 1, &|s| s.turned.tick_micros)?;
        line("node: making a report, µs", 0, &|s| s.turned.report_micros)?;
        line("node: writing a report, µs", 0, &|s| s.watched.report_write_micros)?;
        line("node: cores beside the board, idle", 3, &|s| s.turned.idle_core)?;
        line("node: a turn while nobody plans, ms", 2, &|s| s.turned.unplanned_micros / 1e3)?;
        Ok(())
    }

    /// What the operator does, and a take-over.
    fn of_operator(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, digits, of: Figure<'_>| self.line(f, name, digits, of);
        line("planner: first plan, ms", 2, &|s| s.planned.first_ms)?;
        line("planner: one node dead, ms", 2, &|s| s.planned.one_dead_ms)?;
        line("planner: a tenth dead, ms", 2, &|s| s.planned.tenth_dead_ms)?;
        line("planner: its judge, ms", 2, &|s| s.planned.check_ms)?;
        line("operator: a report, KB of JSON", 1, &|s| s.watched.report_bytes as f64 / 1e3)?;
        line("operator: reports, MB/s", 1, &|s| s.watched.reports_bytes_per_second / 1e6)?;
        line("operator: reading a report, µs", 0, &|s| s.watched.report_read_micros)?;
        line("operator: taking a report in, µs", 1, &|s| s.watched.report_take_in_micros)?;
        line("operator: a decision when settled, ms", 2, &|s| s.watched.settled_tick_ms)?;
        line("operator: a decision when one died, ms", 2, &|s| s.watched.one_dead_tick_ms)?;
        line("operator: a decision when a tenth died, ms", 1, &|s| s.watched.tenth_dead_tick_ms)?;
        line("operator: cores, settled", 2, &|s| s.watched.cores)?;
        line("operator: memory of reports as read, MB", 1, &|s| {
            s.watched.read_reports_bytes as f64 / 1e6
        })?;
        line("operator: memory of the dispatcher, MB", 1, &|s| {
            s.watched.dispatcher_bytes as f64 / 1e6
        })?;
        line("model: cores of board and beside it, idle", 3, &|s| {
            COSTS.board_core(s.size.nodes.into(), 0.0, &shape(s, None))
        })?;
        line("take-over: orders of a share", 0, &|s| s.folding.orders_of_a_share.into())?;
        line("take-over: orders folded, million a second", 2, &|s| {
            s.folding.orders_per_second / 1e6
        })?;
        line("take-over: until folded, predicted, ms", 0, &|s| s.take_over_ms)?;
        line("seconds that this column took", 0, &|s| s.seconds)?;
        Ok(())
    }

    /// What is no figure of one size.
    fn said(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Fits { dates, record_runs, config_map_runs } in &self.fits {
            writeln!(
                f,
                "Trains on {dates} dates each: {record_runs} runs fit the record that is Genesis, \
                 {config_map_runs} the ConfigMap."
            )?;
        }
        let Folding { shares, orders_of_a_share, orders_per_second, share_ms } = self.folding_few;
        writeln!(
            f,
            "With {shares} shares a share has {orders_of_a_share} orders, folded at {:.2} \
             million/s: {share_ms:.0} ms.",
            orders_per_second / 1e6
        )?;
        for Predicted { shape, nodes, most } in &self.predicted {
            let how = if shape.forwarded.is_some() { "at the right node" } else { "at any node" };
            write!(f, "{:.0} rows, orders {how}: nodes for", shape.rows)?;
            for (rate, nodes) in nodes {
                let nodes = nodes.map_or("none can".to_owned(), |nodes| nodes.to_string());
                write!(f, " {:.0}k/s {nodes},", rate / 1e3)?;
            }
            writeln!(f, " at most {:.0}k/s, with {} nodes", most.1 / 1e3, most.0)?;
        }
        writeln!(f, "{:.0} s in all.", self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_has_a_row_for_each_home_of_each_run() {
        let size = Size { nodes: 20, runs: 40, orders: 80_000 };
        let fleet = Fleet::of(size).unwrap();
        assert_eq!(fleet.rows(), 40 * 18);
        let heard = board::heard(&fleet).unwrap();
        assert!(heard.full_bytes > 10.0 * heard.empty_bytes, "{heard:?}");
        let (turned, report) = board::turned(&fleet, &heard).unwrap();
        assert_eq!((report.peers.len(), report.owns.len()), (19, 1), "{turned:?}");
        let dead = operator::watched(&fleet, &report).unwrap().evicted;
        assert_eq!(dead, 2, "a tenth");
        assert_eq!(operator::planned(&fleet).unwrap().moved, 2);
    }

    #[test]
    fn a_definition_that_does_not_fit_is_found() {
        let fits = ledger::fits(16, 1).unwrap();
        assert!(fits.config_map_runs <= fits.record_runs);
    }
}
