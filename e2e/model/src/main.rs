//! The ledger's protocols on paper, tried exhaustively at their smallest interesting sizes.
//!
//! `make model` runs it: every model whole, in which all properties must hold and all states
//! that a property names must be reached; then without each of its rules in turn, which must
//! break the property named beside the rule. So a rule that nothing needs is found, and so is a
//! property that cannot fail. It prints the states of each model and exits non-zero on any
//! failure, with the steps that lead to it; `--paths` prints those for left-out rules too.
//!
//! - [`share`]: claim, confirm, answer from memory, by the fold's rules S1 to S3.
//! - [`pool`]: draw, take, accept, prove "sold out", by P4, S4, N1, N3 and N4.
//! - [`travel`]: orders that look for seats elsewhere, by S8 to S10.
//! - [`check`]: runs a [`check::Subject`].
//!
//! The models call none of the product's code: they say the protocol a second time. What they
//! leave out, because a simulator or a test of the real code is the better place:
//!
//! - sizes beyond those that each module names: more seats, legs, nodes, frames in flight;
//! - time, but for leases in ticks: no deadlines, graces, patience, silence or rendezvous (a
//!   process claims whenever it likes, so safety does not rest on them);
//! - bytes, checksums and chains: a frame is unlike any other because the model says so;
//! - Genesis, Amend, Policy, Assign, Yield, and N2's freshness: seats do not come back in
//!   `pool`, so that an old row is never a false one;
//! - a board that lost its place and is read from its end (`SETTLED_MS` answers for it);
//! - payment: an order that was held may end, and that is all.
//!
//! "Eventually" is said as "at rest": whenever nothing is left that goes on by itself, all is
//! well. The library's own `eventually` sees only paths that end for good, after every trouble
//! has happened; at rest is every pause between two troubles.

use std::process::ExitCode;

use check::{Outcome, check};

mod check;
mod pool;
mod share;
mod travel;

fn main() -> ExitCode {
    let began = std::time::Instant::now();
    let outcomes = [
        check::<share::Share<false>>(),
        check::<share::Share<true>>(),
        check::<pool::Pool>(),
        check::<travel::Travel>(),
    ];
    let sum = |of: fn(&Outcome) -> usize| outcomes.iter().map(of).sum::<usize>();
    let (states, rules, failures) = (sum(|o| o.states), sum(|o| o.rules), sum(|o| o.failures));
    let seconds = began.elapsed().as_secs();
    println!("{states} states, {rules} rules needed, {failures} failures, {seconds} s");
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
