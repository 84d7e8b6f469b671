//! `sim`: runs seeds, says what they came to, and makes the first that fails small.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;

/// Lines of a history that are printed of a failing run: its end is what matters.
const HISTORY_LINES: usize = 400;

#[derive(Debug, Parser)]
#[command(about = "Whole sales of the real machines under one seed each, with faults, judged")]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Runs this seed alone, and prints its whole history.
    #[arg(long)]
    seed: Option<u64>,
    /// How many of the seeds to run twice, to see that a seed says all.
    #[arg(long, default_value_t = 20)]
    twice: u64,
    /// Plants one bug after the other, and finds each. Needs the feature `teeth`.
    #[arg(long)]
    teeth: bool,
}

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        println!("seed {}: a machine panicked", SEED.get());
        usual(info);
    }));
    if arguments.teeth {
        return teeth::find_all();
    }
    if let Some(seed) = arguments.seed {
        return one(seed);
    }
    many(&arguments)
}

fn run(seed: u64, records: bool) -> sim::Outcome {
    SEED.set(seed);
    sim::run(seed, records)
}

fn code(violations: usize) -> ExitCode {
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(seed: u64) -> ExitCode {
    let outcome = run(seed, true);
    for line in &outcome.history {
        println!("{line}");
    }
    tell(seed, &outcome);
    let violations = usize::from(!outcome.violations.is_empty());
    println!("1 seeds, {} faults, {violations} violations", outcome.faults);
    code(violations)
}

fn many(arguments: &Arguments) -> ExitCode {
    let last = arguments.first + arguments.seeds;
    let stored = sim::stored::regressions().filter(|s| !(arguments.first..last).contains(s));
    let seeds: Vec<u64> = stored.chain(arguments.first..last).collect();
    let twice = usize::try_from(arguments.twice).unwrap_or(usize::MAX);
    let (mut faults, mut violations, mut orders, mut travelled) = (0, 0, 0, 0);
    let mut overtaken = 0;
    let mut first: Option<(usize, &'static str)> = None;
    for (at, outcome, same) in runs(&seeds, twice) {
        faults += outcome.faults;
        orders += outcome.orders.0;
        travelled += outcome.orders.1;
        overtaken += outcome.overtaken;
        let seed = seeds[at];
        if !same {
            println!("seed {seed} does not say all: its second run was another");
            violations += 1;
        }
        let Some(violation) = outcome.violations.first() else { continue };
        violations += 1;
        first.get_or_insert((at, violation.rule));
    }
    if let Some((at, rule)) = first {
        explain(seeds[at], rule);
    }
    println!("{orders} orders were held or sent, {travelled} of them held on another share");
    println!("{overtaken} claims were overtaken by a beat of the owner that they ended");
    println!("{} seeds, {faults} faults, {violations} violations", seeds.len());
    code(violations)
}

/// What each seed came to: its place, its outcome, and whether a second run was the same, which
/// the first `twice` get. Each core runs one seed after the other; a run has no threads.
fn runs(seeds: &[u64], twice: usize) -> Vec<(usize, sim::Outcome, bool)> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mine = std::iter::from_fn(|| {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let seed = *seeds.get(at)?;
            let outcome = run(seed, false);
            let same = at >= twice || run(seed, false).trace == outcome.trace;
            if !outcome.violations.is_empty() {
                tell(seed, &outcome);
            }
            Some((at, outcome, same))
        });
        mine.collect::<Vec<_>>()
    };
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut all: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        let done = workers.into_iter().flat_map(|worker| worker.join().expect("it said why"));
        done.collect()
    });
    all.sort_unstable_by_key(|(at, ..)| *at);
    all
}

fn tell(seed: u64, outcome: &sim::Outcome) {
    println!(
        "seed {seed}: trace {:016x}, ended at {} ms, {:?} orders and travellers, wishes: {:?}",
        outcome.trace, outcome.ended_at, outcome.orders, outcome.ends
    );
    for v in &outcome.violations {
        println!("seed {seed} at {} ms: BROKEN {}: {}", v.at, v.rule, v.what);
    }
}

/// Makes the run small and prints what is left of it.
fn explain(seed: u64, rule: &str) {
    let small = sim::shrink(seed, rule);
    let skipped = small.outcome.history.len().saturating_sub(HISTORY_LINES);
    println!(
        "seed {seed} made small: {} nodes, {} wishes, faults {:?}; the last {} lines:",
        small.nodes,
        small.wishes,
        small.faults,
        small.outcome.history.len() - skipped
    );
    for line in &small.outcome.history[skipped..] {
        println!("{line}");
    }
    for v in &small.outcome.violations {
        println!("seed {seed} made small, at {} ms: BROKEN {}: {}", v.at, v.rule, v.what);
    }
}

#[cfg(feature = "teeth")]
mod teeth {
    use std::process::ExitCode;

    use inventory::teeth::{Bug, plant};
    use strum::IntoEnumIterator as _;

    /// A bug that is not found by so many seeds is not found.
    const SEEDS_MAX: u64 = 500;

    /// Finds every bug, its stored seed first; then sees that those seeds pass without it.
    pub(crate) fn find_all() -> ExitCode {
        let (mut missed, mut found) = (0, 0);
        for bug in Bug::iter() {
            let name: &str = bug.into();
            let stored = sim::stored::teeth().find(|(of, _)| *of == name).map(|(_, seed)| seed);
            plant(Some(bug));
            let mut seeds = stored.into_iter().chain(1..=SEEDS_MAX);
            let caught = seeds.find_map(|seed| {
                let violation = super::run(seed, false).violations.into_iter().next();
                violation.map(|violation| (seed, violation))
            });
            plant(None);
            match caught {
                Some((seed, violation)) => {
                    found += 1;
                    let how = if stored == Some(seed) { "its stored seed" } else { "searching" };
                    println!("{name:<28} seed {seed:<4} ({how}): {}", violation.rule);
                    if !super::run(seed, false).violations.is_empty() {
                        println!("{name}: seed {seed} fails without it too");
                        missed += 1;
                    }
                }
                None => {
                    missed += 1;
                    println!("{name:<28} NOT FOUND by {SEEDS_MAX} seeds");
                }
            }
        }
        println!("{found} planted bugs found, {missed} missed");
        super::code(missed)
    }
}

#[cfg(not(feature = "teeth"))]
mod teeth {
    use std::process::ExitCode;

    pub(crate) fn find_all() -> ExitCode {
        println!("this program was built without the feature `teeth`: make sim TEETH=1");
        ExitCode::FAILURE
    }
}
