//! Seeds that are kept pass, and a seed says all.

#[test]
fn every_seed_that_found_a_bug_passes() {
    for seed in sim::stored::regressions() {
        let outcome = sim::run(seed, false);
        assert_eq!(outcome.violations, [], "seed {seed}");
    }
}

#[test]
fn a_seed_and_a_commit_reproduce_a_run() {
    for seed in [1, 2] {
        let (first, again) = (sim::run(seed, false), sim::run(seed, true));
        assert_eq!(first.trace, again.trace, "seed {seed}");
        assert!(first.faults > 0 && !again.history.is_empty());
    }
}
