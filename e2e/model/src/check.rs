//! Running a model, whole and without each of its rules.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};

/// A model with rules that can be left out one at a time.
pub(crate) trait Subject:
    Model<
        State: Debug + Clone + Hash + PartialEq + Send + Sync,
        Action: Debug + Clone + PartialEq + Send + Sync,
    > + Send
    + Sync
    + 'static
{
    /// Names a rule.
    type Without: Copy + Debug + 'static;
    /// What the model is of.
    const NAME: &'static str;
    /// Every rule, and the property that does not hold without it.
    const RULES: &'static [(Self::Without, &'static str)];

    /// The model, perhaps without a rule.
    fn without(rule: Option<Self::Without>) -> Self;
}

/// What a run comes to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome {
    /// States of whole models.
    pub(crate) states: usize,
    /// Rules that were shown to be needed.
    pub(crate) rules: usize,
    /// Properties that do not hold, states that are not reached, rules that nobody misses.
    pub(crate) failures: usize,
}

/// Tries the whole model, then the model without each rule.
pub(crate) fn check<S: Subject>() -> Outcome {
    let mut outcome = whole::<S>();
    for (rule, property) in S::RULES {
        let needed = is_needed::<S>(*rule, property);
        outcome.rules += usize::from(needed);
        outcome.failures += usize::from(!needed);
    }
    outcome
}

/// Everything that can happen, unless all that is looked for was found before.
fn whole<S: Subject>() -> Outcome {
    let began = Instant::now();
    let checker = S::without(None).checker().spawn_bfs().join();
    let states = checker.unique_state_count();
    println!("{}: {states} states, {:.1} s", S::NAME, began.elapsed().as_secs_f32());
    let mut failures = 0;
    for property in checker.model().properties() {
        let found = checker.discovery(property.name).is_some();
        match (&property.expectation, found) {
            (Expectation::Sometimes, true) => println!("  reached: {}", property.name),
            (Expectation::Sometimes, false) => {
                println!("  NEVER REACHED: {}", property.name);
                failures += 1;
            }
            (_, false) => println!("  holds: {}", property.name),
            (_, true) => {
                println!("  DOES NOT HOLD: {}", property.name);
                failures += 1;
                if let Some(path) = counterexample::<S>(None, property.name) {
                    tell(path, true);
                }
            }
        }
    }
    Outcome { states, rules: 0, failures }
}

fn is_needed<S: Subject>(rule: S::Without, property: &'static str) -> bool {
    let Some(path) = counterexample::<S>(Some(rule), property) else {
        println!("  NOBODY MISSES {rule:?}: {property}");
        return false;
    };
    println!("  without {rule:?} it does not hold: {property}");
    if std::env::args().any(|argument| argument == "--paths") {
        tell(path, false);
    }
    true
}

/// One of the shortest, since breadth comes first.
fn counterexample<S: Subject>(
    rule: Option<S::Without>,
    property: &'static str,
) -> Option<Path<S::State, S::Action>> {
    let until = HasDiscoveries::AnyOf(std::iter::once(property).collect());
    S::without(rule).checker().finish_when(until).spawn_bfs().join().discovery(property)
}

/// A counterexample, for a person: what happened, and perhaps where it ended.
fn tell<S: Debug, A: Debug>(path: Path<S, A>, end: bool) {
    let mut last = None;
    for (state, action) in path.into_vec() {
        if let Some(action) = action {
            println!("    {action:?}");
        }
        last = Some(state);
    }
    if let Some(last) = last.filter(|_| end) {
        println!("    ends in {last:#?}");
    }
}
