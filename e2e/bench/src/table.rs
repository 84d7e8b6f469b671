//! From what was measured to what is printed and kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use e2e::{Error, Result};
use serde::Serialize;

use crate::cpu::Spent;
use crate::load::Seen;

/// One window of load on one server.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shot {
    /// What wrk saw.
    pub(crate) seen: Seen,
    /// What the server itself says that it has done; for the ceiling, what wrk saw.
    pub(crate) done: u64,
    /// The server's processor time.
    pub(crate) spent: Spent,
    /// Bytes by which the server's memory grew.
    pub(crate) grown: u64,
    /// Processors used by the broker.
    pub(crate) kafka_cores: f64,
    /// Processors used by wrk.
    pub(crate) wrk_cores: f64,
    /// Processors used by processes that are none of ours.
    pub(crate) others_cores: f64,
    /// For a node: frames that it sealed, their bytes, and its answers by kind.
    pub(crate) counted: BTreeMap<String, u64>,
}

impl Shot {
    /// Microseconds of the server's processor time for each request or order.
    pub(crate) fn micros_each(&self) -> f64 {
        self.spent.micros / self.done.max(1) as f64
    }

    /// Whether every answer that said yes was a new order: 200 for a key that is known is none.
    ///
    /// # Errors
    /// When it was not.
    pub(crate) fn only_sales(&self, name: &str) -> Result<()> {
        let (taken, done) = (self.seen.taken(), self.done);
        if taken > done {
            return Err(Error::Refused(format!("{name}: {taken} took, {done} were sold")));
        }
        Ok(())
    }

    fn kernel_micros_each(&self) -> f64 {
        self.spent.kernel_micros / self.done.max(1) as f64
    }
}

/// A ceiling and the node right behind it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pair {
    /// The round, from 1 on.
    pub(crate) round: u32,
    /// Shares of the ledger, all owned by the node.
    pub(crate) shares: u16,
    /// Without selling.
    pub(crate) ceiling: Shot,
    /// Selling.
    pub(crate) node: Shot,
    /// Orders that the judge found in the ledger, those of the warm-up included.
    pub(crate) judged: u64,
}

/// A middle value and how far the others are from it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
        let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
        let last = at(values.len().saturating_sub(1));
        Self { median: f64::midpoint(at(low), at(high)), min: at(0), max: last }
    }

    pub(crate) fn shown(self, digits: usize) -> String {
        let Self { median, min, max } = self;
        if median.is_nan() {
            return "not measured".to_owned();
        }
        format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
    }
}

/// The figures of one server.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    per_second: Spread,
    cpu_micros_each: Spread,
    /// What of it was spent in the kernel.
    kernel_micros_each: Spread,
    p50_millis: Spread,
    p99_millis: Spread,
    others_cores: Spread,
}

impl Row {
    fn of(name: String, shots: &[&Shot]) -> Self {
        let spread = |figure: fn(&Shot) -> f64| Spread::of(shots.iter().map(|s| figure(s)));
        Self {
            name,
            per_second: spread(|s| s.seen.rate()),
            cpu_micros_each: spread(Shot::micros_each),
            kernel_micros_each: spread(Shot::kernel_micros_each),
            p50_millis: spread(|s| s.seen.p50 as f64 / 1_000.0),
            p99_millis: spread(|s| s.seen.p99 as f64 / 1_000.0),
            others_cores: spread(|s| s.others_cores),
        }
    }
}

/// The node's figures over the ceiling's of the same round.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ratio {
    shares: u16,
    /// Sales in a second over answers in a second.
    rate: Spread,
    /// Processor time of an order over that of an answer.
    cpu: Spread,
    /// Microseconds of each of the node's threads for an order.
    thread_micros: BTreeMap<String, f64>,
    orders_per_frame: f64,
    ledger_bytes_per_order: f64,
    memory_bytes_per_order: f64,
    redis_commands_per_1000: f64,
    kafka_cores: Spread,
    /// Answers that are no sale, by the node's own words.
    no_sale: BTreeMap<String, u64>,
    /// Answers above 399, as wrk saw them.
    refused: u64,
    /// Connections and answers that wrk lost.
    lost: u64,
}

/// A server's turns, each over the yardstick's right before it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Compared {
    what: String,
    /// Bytes of the yardstick's answer.
    bytes: usize,
    per_second: Spread,
    rate: Spread,
    cpu: Spread,
    p99_millis: Spread,
    /// Orders or answers of a frame; none where nothing is written.
    per_frame: Option<f64>,
    redis_commands_per_1000: f64,
}

impl Compared {
    /// Of at least one turn of both: the yardstick's, then the server's.
    pub(crate) fn of(what: String, bytes: usize, turns: &[(Shot, Shot)]) -> Self {
        let rate = |shot: &Shot| shot.done as f64 * 1e6 / shot.seen.micros.max(1) as f64;
        let spread = |figure: &dyn Fn(&Shot, &Shot) -> f64| {
            Spread::of(turns.iter().map(|(without, with)| figure(without, with)))
        };
        let sum = |name: &str| {
            turns.iter().filter_map(|(_, with)| with.counted.get(name)).sum::<u64>() as f64
        };
        let done = turns.iter().map(|(_, with)| with.done).sum::<u64>() as f64;
        let frames = sum("frames_total");
        Self {
            what,
            bytes,
            per_second: spread(&|_, with| rate(with)),
            rate: spread(&|without, with| rate(with) / rate(without)),
            cpu: spread(&|without, with| with.micros_each() / without.micros_each()),
            p99_millis: spread(&|_, with| with.seen.p99 as f64 / 1_000.0),
            per_frame: (frames > 0.0).then(|| done / frames),
            redis_commands_per_1000: sum("redis_commands_total") / done.max(1.0) * 1_000.0,
        }
    }

    /// A table of them.
    pub(crate) fn shown(of: &[Self]) -> String {
        let heads =
            ["", "bytes", "per second", "/ yardstick", "CPU / yardstick", "p99 ms", "a frame"];
        let mut lines = vec![heads.map(str::to_owned)];
        lines.extend(of.iter().map(|one| {
            [
                one.what.clone(),
                one.bytes.to_string(),
                one.per_second.shown(0),
                one.rate.shown(2),
                one.cpu.shown(2),
                one.p99_millis.shown(1),
                one.per_frame.map_or_else(String::new, |n| format!("{n:.1}")),
            ]
        }));
        aligned(&lines)
    }
}

/// All that is worth keeping.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    rows: Vec<Row>,
    ratios: Vec<Ratio>,
}

impl Summary {
    /// Of at least one pair.
    pub(crate) fn of(pairs: &[Pair]) -> Self {
        let ceilings: Vec<&Shot> = pairs.iter().map(|p| &p.ceiling).collect();
        let mut rows = vec![Row::of("ceiling".to_owned(), &ceilings)];
        let mut ratios = Vec::new();
        let mut shares: Vec<u16> = pairs.iter().map(|p| p.shares).collect();
        shares.sort_unstable();
        shares.dedup();
        for shares in shares {
            let of_these: Vec<&Pair> = pairs.iter().filter(|p| p.shares == shares).collect();
            let nodes: Vec<&Shot> = of_these.iter().map(|p| &p.node).collect();
            rows.push(Row::of(format!("node, {}", counted(shares.into(), "share")), &nodes));
            ratios.push(Ratio::of(shares, &of_these, &nodes));
        }
        Self { rows, ratios }
    }

    /// Of so many shares: sales over answers of the ceiling, and the same of processor time.
    pub(crate) fn ratios(&self, shares: u16) -> Option<(f64, f64)> {
        let ratio = self.ratios.iter().find(|ratio| ratio.shares == shares)?;
        Some((ratio.rate.median, ratio.cpu.median))
    }

    /// The table.
    pub(crate) fn shown(&self) -> String {
        let heads =
            ["", "per second", "CPU µs each", "of it kernel", "p50 ms", "p99 ms", "others' cores"];
        let mut lines = vec![heads.map(str::to_owned)];
        lines.extend(self.rows.iter().map(|row| {
            [
                row.name.clone(),
                row.per_second.shown(0),
                row.cpu_micros_each.shown(1),
                format!("{:.1}", row.kernel_micros_each.median),
                row.p50_millis.shown(2),
                row.p99_millis.shown(2),
                row.others_cores.shown(2),
            ]
        }));
        let mut text = aligned(&lines);
        for ratio in &self.ratios {
            // Writing to a String cannot fail.
            let _ = ratio.show(&mut text);
        }
        text
    }
}

impl Ratio {
    fn of(shares: u16, pairs: &[&Pair], nodes: &[&Shot]) -> Self {
        let orders: u64 = nodes.iter().map(|n| n.done).sum();
        let each = |sum: f64| sum / orders.max(1) as f64;
        let mut thread_micros: BTreeMap<String, f64> = BTreeMap::new();
        let mut no_sale: BTreeMap<String, u64> = BTreeMap::new();
        for node in nodes {
            for (name, micros) in &node.spent.threads {
                *thread_micros.entry(name.clone()).or_default() += each(*micros);
            }
            for (name, count) in &node.counted {
                let kind = name.strip_prefix("answers_total{kind=\"");
                let kind = kind.and_then(|k| k.strip_suffix("\"}"));
                if let Some(kind) = kind.filter(|k| *k != "written" && *count > 0) {
                    *no_sale.entry(kind.to_owned()).or_default() += count;
                }
            }
        }
        let sum = |name: &str| {
            nodes.iter().map(|n| n.counted.get(name).copied().unwrap_or(0)).sum::<u64>() as f64
        };
        Self {
            shares,
            rate: Spread::of(pairs.iter().map(|p| p.node.seen.rate() / p.ceiling.seen.rate())),
            cpu: Spread::of(pairs.iter().map(|p| p.node.micros_each() / p.ceiling.micros_each())),
            thread_micros,
            orders_per_frame: orders as f64 / sum("frames_total").max(1.0),
            ledger_bytes_per_order: each(sum("frame_bytes_total")),
            memory_bytes_per_order: each(nodes.iter().map(|n| n.grown).sum::<u64>() as f64),
            redis_commands_per_1000: each(sum("redis_commands_total")) * 1_000.0,
            kafka_cores: Spread::of(nodes.iter().map(|n| n.kafka_cores)),
            no_sale,
            refused: nodes.iter().map(|n| n.seen.refused).sum(),
            lost: nodes.iter().map(|n| n.seen.lost).sum(),
        }
    }

    fn show(&self, to: &mut String) -> std::fmt::Result {
        let (rate, cpu) = (self.rate.shown(2), self.cpu.shown(2));
        let shares = counted(self.shares.into(), "share");
        writeln!(to, "\n{shares}: sales / ceiling {rate}; CPU / ceiling {cpu}")?;
        let mut threads: Vec<_> = self.thread_micros.iter().collect();
        threads.sort_by(|a, b| b.1.total_cmp(a.1));
        let threads = threads.iter().filter(|(_, micros)| **micros >= 0.05);
        let threads: Vec<_> = threads.map(|(name, micros)| format!("{name} {micros:.1}")).collect();
        writeln!(to, "  µs of an order by thread: {}", threads.join(", "))?;
        writeln!(
            to,
            "  {:.1} orders a frame; an order: {:.0} bytes of ledger, {:.0} of the node's memory, \
             {:.4} Redis commands",
            self.orders_per_frame,
            self.ledger_bytes_per_order,
            self.memory_bytes_per_order,
            self.redis_commands_per_1000 / 1_000.0
        )?;
        let kinds = self.no_sale.iter().map(|(kind, n)| format!("{n} {kind}, "));
        let Self { refused, lost, .. } = self;
        writeln!(
            to,
            "  no sale, says the node: {}by status, says wrk: {refused} refused, {lost} lost",
            if self.no_sale.is_empty() { "none; ".to_owned() } else { kinds.collect::<String>() }
        )?;
        writeln!(to, "  cores of Kafka {}", self.kafka_cores.shown(2))
    }
}

/// A number of things in words.
fn counted(count: u64, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// Columns, each as wide as its widest cell.
pub(crate) fn aligned<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |at: usize| lines.iter().map(|l| l[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0].into_iter());
        assert_eq!(spread, Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(spread.shown(1), "2.5 (1.0 to 4.0)");
        assert_eq!(Spread::of([f64::NAN].into_iter()).shown(1), "not measured");
    }

    fn shot(requests: u64, refused: u64, done: u64, micros: f64) -> Shot {
        let seen = Seen {
            micros: 1_000_000,
            requests,
            refused,
            lost: 0,
            p50: 1_000,
            p90: 1_000,
            p99: 2_000,
            p999: 2_000,
            max: 2_000,
        };
        let counted = [
            ("answers_total{kind=\"written\"}", done),
            ("answers_total{kind=\"sold-out\"}", refused),
            ("frames_total", 10),
        ];
        Shot {
            seen,
            done,
            spent: Spent {
                micros,
                kernel_micros: micros / 2.0,
                threads: [("main".to_owned(), micros)].into(),
            },
            grown: 0,
            kafka_cores: 0.2,
            wrk_cores: 0.5,
            others_cores: 0.0,
            counted: counted.map(|(name, count)| (name.to_owned(), count)).into(),
        }
    }

    #[test]
    fn only_sales_count_and_what_is_no_sale_is_named() {
        let ceiling = shot(1_000, 0, 1_000, 8_000.0);
        let node = shot(600, 100, 500, 8_000.0);
        let pair = Pair { round: 1, shares: 1, ceiling, node, judged: 500 };
        let shown = Summary::of(&[pair]).shown();
        assert!(
            shown.contains("sales / ceiling 0.50 (0.50 to 0.50); CPU / ceiling 2.00"),
            "{shown}"
        );
        assert!(shown.contains("100 sold-out, by status, says wrk: 100 refused"), "{shown}");
        assert!(shown.contains("50.0 orders a frame"), "{shown}");
    }
}
