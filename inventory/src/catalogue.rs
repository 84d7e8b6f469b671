//! A definition that is sold by, with what every order asks of it worked out once.

use std::collections::BTreeMap;
use std::ops::Deref;

use crate::definition::Definition;
use crate::words::{BuyerHash, RunId, ShareId};

/// What is sold.
#[derive(Debug, Clone)]
pub struct Catalogue {
    definition: Definition,
    /// Runs by `TRAIN/DATE`.
    runs: BTreeMap<String, RunId>,
    /// Where each run's homes begin: [`Definition::run_hash`].
    firsts: Vec<u64>,
}

impl Catalogue {
    /// Of a definition that was checked.
    #[must_use]
    pub fn new(definition: Definition) -> Self {
        let names = definition.runs.iter().map(|run| [&run.train, "/", &run.date].concat());
        Self {
            runs: names.zip(definition.run_ids()).collect(),
            firsts: definition.run_ids().map(|run| definition.run_hash(run)).collect(),
            definition,
        }
    }

    /// The run with this name, `TRAIN/DATE`.
    #[must_use]
    pub fn run_named(&self, name: &str) -> Option<RunId> {
        self.runs.get(name).copied()
    }

    /// Whether a share is a home of a run.
    #[must_use]
    pub fn lives_on(&self, run: RunId, share: ShareId) -> bool {
        self.definition.homes_from(self.firsts[usize::from(run.0)], run).any(|home| home == share)
    }

    /// See [`Definition::home`].
    #[must_use]
    pub fn home(&self, run: RunId, buyer: BuyerHash) -> ShareId {
        self.definition.home_from(self.firsts[usize::from(run.0)], run, buyer)
    }
}

impl Deref for Catalogue {
    type Target = Definition;

    fn deref(&self) -> &Definition {
        &self.definition
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Run;
    use crate::definition::tests::one_run;
    use crate::words::Digest128;

    #[test]
    fn a_run_lives_on_its_homes_and_nowhere_else() {
        for (homes, shares) in [(1, 1), (1, 7), (3, 7), (7, 7), (16, 64)] {
            let mut definition = one_run(3, 16, shares, 20);
            definition.runs = (0..20)
                .map(|at| Run { homes, train: format!("G{at}"), ..definition.runs[0].clone() })
                .collect();
            let catalogue = Catalogue::new(definition.clone());
            for run in definition.run_ids() {
                let all = (0..=shares).map(ShareId);
                let here: Vec<_> = all.filter(|s| catalogue.lives_on(run, *s)).collect();
                let mut known: Vec<_> = definition.homes(run).collect();
                known.sort_unstable();
                assert_eq!(here, known, "{homes} of {shares}");
            }
        }
    }

    #[test]
    fn it_says_what_its_definition_says() {
        let mut definition = one_run(3, 16, 16, 20);
        let other = Run { train: "G2".to_owned(), homes: 3, ..definition.runs[0].clone() };
        definition.runs.push(other);
        let catalogue = Catalogue::new(definition.clone());
        for run in definition.run_ids() {
            let Run { train, date, .. } = &definition.runs[usize::from(run.0)];
            assert_eq!(definition.run(train, date), Some(run));
            assert_eq!(catalogue.run_named(&format!("{train}/{date}")), Some(run));
            for buyer in (0..=255).map(|b| Digest128([b; 16])) {
                assert_eq!(catalogue.home(run, buyer), definition.home(run, buyer));
            }
        }
        assert_eq!(catalogue.run_named("G3/2027-01-15"), None);
    }
}
