//! Whether a change made the node slower: its ratio to the ceiling may not fall by more than
//! [`LOSS_MAX`] of what is recorded beside this crate.
//!
//! Machines that others use have slow minutes in which ratios fall too, and none in which a slow
//! node is fast: so the best of a few attempts counts.

use e2e::{Error, Result};
use serde::Deserialize;

/// What may be lost of a recorded ratio.
const LOSS_MAX: f64 = 0.15;

/// How often it is tried.
pub(crate) const ATTEMPTS: u32 = 3;

/// What was measured when the node was last made faster, with one share.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Recorded {
    /// Sales in a second over answers of the ceiling in a second.
    sales_over_ceiling: f64,
    /// Processor time of an order over that of an answer of the ceiling.
    cpu_over_ceiling: f64,
}

impl Recorded {
    /// What lies in the repository.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn read() -> Result<Self> {
        let text = include_str!("../recorded.json");
        serde_json::from_str(text).map_err(|e| Error::Refused(format!("recorded.json: {e}")))
    }

    /// What of the same two ratios is worse than it may be; nothing if they are good.
    pub(crate) fn misses(self, (sales, cpu): (f64, f64)) -> Vec<String> {
        let mut misses = Vec::new();
        let least = self.sales_over_ceiling * (1.0 - LOSS_MAX);
        if sales.is_nan() || sales < least {
            misses.push(format!("sales / ceiling {sales:.2}, at least {least:.2} is wanted"));
        }
        let most = self.cpu_over_ceiling / (1.0 - LOSS_MAX);
        if cpu.is_nan() || cpu > most {
            misses.push(format!("CPU / ceiling {cpu:.2}, at most {most:.2} is wanted"));
        }
        misses
    }
}

impl std::fmt::Display for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sales_over_ceiling: sales, cpu_over_ceiling: cpu } = self;
        write!(f, "recorded are {sales:.2} and {cpu:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seventh_more_is_too_much_and_a_tenth_is_not() {
        let recorded = Recorded { sales_over_ceiling: 0.40, cpu_over_ceiling: 2.0 };
        let misses = |sales, cpu| recorded.misses((sales, cpu)).len();
        assert_eq!(misses(0.40, 2.0), 0);
        assert_eq!(misses(0.36, 2.2), 0);
        assert_eq!(misses(0.33, 2.0), 1);
        assert_eq!(misses(0.40, 2.4), 1);
        assert_eq!(misses(f64::NAN, f64::NAN), 2);
        assert!(Recorded::read().is_ok());
    }
}
