//! Making a failing run small: leaves out faults, wishes and nodes as long as the same
//! invariant still breaks.

use crate::scenario::Scenario;
use crate::world::{Outcome, World};

/// Runs that shrinking may take: some twenty seconds, after which what is left is small enough
/// to read.
const RUNS_MAX: usize = 400;

/// The smallest run that was found to break `rule`, with its history.
pub(crate) fn shrink(scenario: &Scenario, rule: &str) -> (Scenario, Outcome) {
    let mut best = scenario.clone();
    let mut runs = 0;
    let mut breaks = |candidate: &Scenario| {
        runs += 1;
        let outcome = World::run(candidate, false);
        (outcome.violations.iter().any(|v| v.rule == rule), runs < RUNS_MAX)
    };
    loop {
        let before = (best.faults.len(), best.purchases.len(), best.nodes);
        for list in [List::Faults, List::Purchases] {
            let mut piece = list.len(&best).div_ceil(2).max(1);
            loop {
                let mut from = 0;
                while from < list.len(&best) {
                    let mut candidate = best.clone();
                    list.drop(&mut candidate, from, piece);
                    let (still, go_on) = breaks(&candidate);
                    if still {
                        best = candidate;
                    } else {
                        from += piece;
                    }
                    if !go_on {
                        return finish(best);
                    }
                }
                if piece == 1 {
                    break;
                }
                piece = piece.div_ceil(2);
            }
        }
        if best.nodes > 2 {
            let candidate = Scenario { nodes: best.nodes - 1, ..best.clone() };
            if breaks(&candidate).0 {
                best = candidate;
            }
        }
        if before == (best.faults.len(), best.purchases.len(), best.nodes) {
            return finish(best);
        }
    }
}

fn finish(best: Scenario) -> (Scenario, Outcome) {
    let outcome = World::run(&best, true);
    (best, outcome)
}

#[derive(Clone, Copy)]
enum List {
    Faults,
    Purchases,
}

impl List {
    fn len(self, of: &Scenario) -> usize {
        match self {
            Self::Faults => of.faults.len(),
            Self::Purchases => of.purchases.len(),
        }
    }

    fn drop(self, of: &mut Scenario, from: usize, count: usize) {
        let upto = (from + count).min(self.len(of));
        match self {
            Self::Faults => drop(of.faults.drain(from..upto)),
            Self::Purchases => drop(of.purchases.drain(from..upto)),
        }
    }
}
