//! How many nodes a rate of sales needs.
//!
//! `N` nodes have `N × cores × (1 − b)` of processor time; sales at a rate of `r` ask for
//! `r × cost`. What makes it more than a division is `b`, what the board takes of each node: it
//! grows with the fleet, so that beyond some size more nodes sell less.
//!
//! Left out: Kafka's brokers (who send every beat to every node) and Redis, the network, the
//! operator, queries, payments, and that a run which everybody wants keeps at most its homes
//! busy. Nodes of one core, as the product's are; shares and runs are equally busy.

use inventory::definition::SHARES_MAX;
use serde::Serialize;

/// What things cost a node's processor.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Costs {
    /// Microseconds of an order on a node with one busy share. From `make bench`: "node, 1 share".
    pub(crate) one_share_micros: f64,
    /// The same with [`Costs::many_shares`] of them. From `make bench`: "node, 16 shares". With
    /// more it is not more: frames take turns, two in a millisecond.
    pub(crate) many_shares_micros: f64,
    pub(crate) many_shares: f64,
    /// Microseconds that a forwarded order costs beside, on both nodes. From `bench --only
    /// forwarding`: two nodes, all buyers at the wrong one.
    pub(crate) forward_micros: f64,
    /// Microseconds to apply an empty beat, but for what grows. This and all below from
    /// `bench scale`, by its largest size beside its smallest.
    pub(crate) beat_micros: f64,
    /// More of it for each share of the ledger: the board looks at all for what was given up.
    pub(crate) beat_share_micros: f64,
    /// Microseconds to apply one row.
    pub(crate) row_micros: f64,
    /// Microseconds of a turn in which a beat came, for each share of the ledger.
    pub(crate) turn_share_micros: f64,
    /// Microseconds of a report, made and written, for each share of the ledger.
    pub(crate) report_share_micros: f64,
    /// Turns of a node in a second at most; then it takes more beats in one. Not measured: two for
    /// each frame of a node that is busy with one share, 37,033 orders a second and 32 a frame.
    pub(crate) turns: f64,
    /// Full beats, beats without news, and beats with news, in a second.
    pub(crate) full_beats: f64,
    pub(crate) beats: f64,
    pub(crate) busy_beats: f64,
    /// Reports that the operator asks for in a second.
    pub(crate) reports: f64,
}

/// As measured on the machine of `docs/performance.md`.
pub(crate) const COSTS: Costs = Costs {
    one_share_micros: 23.2,
    many_shares_micros: 44.1,
    many_shares: 16.0,
    forward_micros: 8.0,
    beat_micros: 0.5,
    beat_share_micros: 0.002,
    row_micros: 0.6,
    turn_share_micros: 0.05,
    report_share_micros: 0.4,
    turns: 2_300.0,
    full_beats: 1.0,
    beats: 5.0,
    busy_beats: 20.0,
    reports: 4.0,
};

/// What is sold, and how.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shape {
    /// Cores of a node.
    pub(crate) cores: f64,
    /// Shares of each node.
    pub(crate) shares_per_node: f64,
    /// Rows of the board: runs × classes × homes of a run.
    pub(crate) rows: f64,
    /// Which part of the orders reaches a node that has to forward it; none: any node is asked,
    /// so that all but one in `N` are forwarded.
    pub(crate) forwarded: Option<f64>,
}

impl Shape {
    fn forwarded_of(&self, nodes: f64) -> f64 {
        self.forwarded.unwrap_or(1.0 - 1.0 / nodes)
    }
}

impl Costs {
    /// Microseconds of an order over all nodes that work for it. Between the two measured
    /// numbers of busy shares along a straight line.
    pub(crate) fn order_micros(&self, busy_shares: f64, forwarded: f64) -> f64 {
        let step = ((busy_shares - 1.0) / (self.many_shares - 1.0)).clamp(0.0, 1.0);
        let own = self.one_share_micros + step * (self.many_shares_micros - self.one_share_micros);
        own + forwarded * self.forward_micros
    }

    /// Which part of one core a node spends on the board, on its reports, and on turns for
    /// beats, while the fleet sells at so many orders a second. May be more than 1.
    pub(crate) fn board_core(&self, nodes: f64, sales_per_second: f64, shape: &Shape) -> f64 {
        let shares = nodes * shape.shares_per_node;
        let rows_each = shape.rows / nodes;
        let busy = sales_per_second > 0.0;
        let beats = if busy { self.busy_beats } else { self.beats };
        // Orders that fall on some rows by chance leave others as they were.
        let orders_a_beat = sales_per_second / nodes / beats;
        let changed = rows_each * (1.0 - (-orders_a_beat / rows_each.max(1e-9)).exp());
        let any = self.beat_micros + shares * self.beat_share_micros;
        let full = any + rows_each * self.row_micros;
        let news = any + changed * self.row_micros;
        let applied = nodes * (self.full_beats * full + (beats - self.full_beats) * news);
        let turns = (nodes * beats).min(self.turns) * shares * self.turn_share_micros;
        let reports = self.reports * shares * self.report_share_micros;
        (applied + turns + reports) / 1e6
    }

    /// Whether so many nodes can sell at this rate: `N × (cores − b) ≥ rate × cost`.
    pub(crate) fn suffice(&self, nodes: u16, sales_per_second: f64, shape: &Shape) -> bool {
        let nodes = f64::from(nodes);
        // A node's worker has one core, and the board is read there.
        let left = 1.0 - self.board_core(nodes, sales_per_second, shape);
        let cost = self.order_micros(shape.shares_per_node, shape.forwarded_of(nodes));
        left > 0.0 && nodes * shape.cores * left >= sales_per_second * cost / 1e6
    }

    /// The fewest nodes that can sell at this rate; none if no fleet can. More nodes than a
    /// ledger may have shares would own nothing.
    pub(crate) fn nodes_needed(&self, sales_per_second: f64, shape: &Shape) -> Option<u16> {
        let most = (f64::from(SHARES_MAX) / shape.shares_per_node).floor() as u16;
        (1..=most).find(|nodes| self.suffice(*nodes, sales_per_second, shape))
    }

    /// The fleet that sells most, and its orders a second.
    pub(crate) fn most(&self, shape: &Shape) -> (u16, f64) {
        let largest = (f64::from(SHARES_MAX) / shape.shares_per_node).floor() as u16;
        let rates = (1..=largest).map(|nodes| (nodes, self.capacity(nodes, shape)));
        rates.fold((0, 0.0), |most, of| if of.1 > most.1 { of } else { most })
    }

    /// Orders a second that so many nodes can sell.
    pub(crate) fn capacity(&self, nodes: u16, shape: &Shape) -> f64 {
        let (mut low, mut high) = (0.0, f64::from(nodes) * shape.cores * 1e6);
        for _ in 0..40 {
            let middle = f64::midpoint(low, high);
            if self.suffice(nodes, middle, shape) { low = middle } else { high = middle }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE_BOARD: Costs = Costs {
        beat_micros: 0.0,
        beat_share_micros: 0.0,
        row_micros: 0.0,
        turn_share_micros: 0.0,
        report_share_micros: 0.0,
        ..COSTS
    };
    const SHAPE: Shape =
        Shape { cores: 1.0, shares_per_node: 1.0, rows: 90_000.0, forwarded: Some(0.0) };

    #[test]
    fn without_a_board_it_is_a_division() {
        // 23.2 µs an order are 43,103 orders a second and core.
        assert_eq!(FREE_BOARD.nodes_needed(43_000.0, &SHAPE), Some(1));
        assert_eq!(FREE_BOARD.nodes_needed(44_000.0, &SHAPE), Some(2));
        assert_eq!(FREE_BOARD.nodes_needed(1_000_000.0, &SHAPE), Some(24));
        assert!((FREE_BOARD.capacity(10, &SHAPE) - 431_034.0).abs() < 1.0);
    }

    #[test]
    fn an_order_costs_what_was_measured_and_a_forwarded_one_more() {
        assert_eq!(COSTS.order_micros(1.0, 0.0), 23.2);
        assert!((COSTS.order_micros(16.0, 0.0) - 44.1).abs() < 1e-9);
        assert!((COSTS.order_micros(64.0, 0.5) - 48.1).abs() < 1e-9);
    }

    #[test]
    fn forwarding_needs_more_nodes() {
        let any_node = Shape { forwarded: None, ..SHAPE };
        assert_eq!(FREE_BOARD.nodes_needed(1_000_000.0, &any_node), Some(31));
    }

    #[test]
    fn more_nodes_than_shares_are_no_help() {
        assert_eq!(FREE_BOARD.nodes_needed(1e9, &SHAPE), None);
        assert_eq!(FREE_BOARD.most(&SHAPE).0, SHARES_MAX);
    }

    #[test]
    fn the_board_takes_more_of_each_node_the_more_there_are() {
        let of = |nodes| COSTS.board_core(nodes, 0.0, &SHAPE);
        assert!(of(1_000.0) > 2.0 * of(250.0), "{} {}", of(250.0), of(1_000.0));
        let (best, rate) = COSTS.most(&SHAPE);
        assert!(best < SHARES_MAX, "beyond {best} nodes a fleet sells less");
        assert_eq!(COSTS.nodes_needed(rate * 1.01, &SHAPE), None);
        assert!(COSTS.nodes_needed(rate * 0.5, &SHAPE).is_some_and(|nodes| nodes < best));
    }
}
