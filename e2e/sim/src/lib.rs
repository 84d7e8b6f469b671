//! Whole sales under one seed: the real machines of `inventory`, and everything else simulated.
//!
//! In reading order:
//! - `scenario`: what a seed stands for. `world`: the scheduler, the log, the network.
//! - `process`: a node. `shopper`: a buyer. `redis`: the pool's stock.
//! - `judge`: what must hold, by a fold of its own. `shrink`: a failing run made small.
//! - [`stored`]: seeds that are kept.
//!
//! Simulated too, and so not tested here: HTTP, Kafka's client, Redis itself, the operator's
//! reconciling. What decides is `inventory`'s: conductor, contenders, owners, pool, board, draws
//! and dispatcher.

mod judge;
mod process;
mod redis;
mod rng;
mod scenario;
mod shopper;
mod shrink;
pub mod stored;
mod world;

pub use judge::Violation;
pub use scenario::Kind;
pub use world::Outcome;

/// Runs a seed; with its history, if that is wanted.
#[must_use]
pub fn run(seed: u64, records: bool) -> Outcome {
    world::World::run(&scenario::Scenario::new(seed), records)
}

/// A failing run made small.
#[derive(Debug)]
pub struct Small {
    /// How many nodes are left.
    pub nodes: usize,
    /// When which faults are left.
    pub faults: Vec<(u64, &'static str)>,
    /// How many wishes are left.
    pub wishes: usize,
    /// What happens then.
    pub outcome: Outcome,
}

/// Makes the run of a seed that breaks `rule` small.
#[must_use]
pub fn shrink(seed: u64, rule: &str) -> Small {
    let (scenario, outcome) = shrink::shrink(&scenario::Scenario::new(seed), rule);
    Small {
        nodes: scenario.nodes,
        faults: scenario.faults.iter().map(|f| (f.at, f.kind.into())).collect(),
        wishes: scenario.purchases.len(),
        outcome,
    }
}
