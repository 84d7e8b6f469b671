//! What `node init` says before it ends.
//!
//! It is written to the container's termination message, so that the operator needs no rights
//! but to read pods, and no way into Kafka. The kubelet keeps 4,096 bytes of it.

use serde::{Deserialize, Serialize};

use crate::config::Step;

/// Bytes of a termination message that the kubelet keeps.
pub const TERMINATION_BYTES_MAX: usize = 4096;

/// How the founding went. `node init` exits with 0 if it is `Ok`, else with 1: the operator
/// decides when to try again, so the Job has no retries of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum FoundingReport {
    /// The step is done.
    Ok(Founded),
    /// It is not.
    Failed(Failure),
}

/// The ledger as it was found or made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Founded {
    /// The step that was done.
    pub step: Step,
    /// The topic's id as Kafka writes it.
    pub topic_id: String,
    /// Whether this run created the ledger's topic.
    pub created: bool,
    /// The checksum of the Genesis record in hex, if there is one. Always there after the step
    /// `Genesis`; in the step `Topics` it says that a ledger was there already.
    pub genesis_hash: Option<String>,
}

/// Why the step could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Failure {
    /// What kind of trouble it is: the reason of the condition LedgerReady.
    pub kind: FailureKind,
    /// For people: what was tried, and what was answered.
    pub message: String,
    /// Settings of topics that are not as they must be. They are never altered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
}

/// What kind of trouble. The names are reasons of the condition LedgerReady.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display, strum::IntoStaticStr,
)]
pub enum FailureKind {
    /// No broker answered in time.
    KafkaUnreachable,
    /// A broker answered that it does not know us.
    AuthenticationFailed,
    /// The topic is not there and may not be created.
    TopicMissing,
    /// A topic's settings are not as they must be.
    TopicMisconfigured,
    /// The topic holds another ledger: other shares, another name, another Genesis.
    LedgerMismatch,
    /// The topic that held the ledger is gone, or holds it no more.
    LedgerLost,
    /// Records were deleted from the topic's beginning.
    LedgerTruncated,
    /// `node init` cannot do what it was asked: its configuration is wrong.
    InvalidConfig,
}

impl FailureKind {
    /// Whether waiting can help; if not, only a person can.
    #[must_use]
    pub fn heals(self) -> bool {
        matches!(self, Self::KafkaUnreachable | Self::AuthenticationFailed | Self::TopicMissing)
    }
}

/// A setting of a topic that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Difference {
    /// Which topic.
    pub topic: String,
    /// Which setting, such as `cleanup.policy` or `partitions`.
    pub key: String,
    /// What it is.
    pub have: String,
    /// What it must be.
    pub want: String,
}

impl FoundingReport {
    /// The termination message. What is too long for the kubelet loses the end of its list of
    /// differences, then the end of its message, and says so.
    #[must_use]
    pub fn to_termination_message(&self) -> String {
        let mut report = self.clone();
        let mut dropped = 0_usize;
        loop {
            let text = report.rendered(dropped);
            if text.len() <= TERMINATION_BYTES_MAX {
                return text;
            }
            let Self::Failed(failure) = &mut report else { return text };
            if failure.differences.pop().is_some() {
                dropped += 1;
            } else {
                let half = failure.message.len() / 2;
                let cut = (0..=half).rev().find(|at| failure.message.is_char_boundary(*at));
                failure.message.truncate(cut.unwrap_or(0));
            }
        }
    }

    fn rendered(&self, dropped: usize) -> String {
        let mut report = self.clone();
        if let (Self::Failed(failure), 1..) = (&mut report, dropped) {
            failure.message.push_str(&format!(" (and {dropped} more settings)"));
        }
        serde_json::to_string(&report).unwrap_or_default()
    }

    /// Reads a termination message.
    ///
    /// # Errors
    /// What serde says of a text that is none: a crash's last words, or nothing.
    pub fn read(message: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_report_is_cut_to_what_the_kubelet_keeps_and_says_so() {
        let difference = |i: usize| Difference {
            topic: "tickets.spring-2027".into(),
            key: format!("setting.{i}"),
            have: "x".repeat(30),
            want: "y".repeat(30),
        };
        let report = FoundingReport::Failed(Failure {
            kind: FailureKind::TopicMisconfigured,
            message: "settings differ".into(),
            differences: (0..200).map(difference).collect(),
        });
        let text = report.to_termination_message();
        assert!(text.len() <= TERMINATION_BYTES_MAX);
        let FoundingReport::Failed(read) = FoundingReport::read(&text).unwrap() else {
            panic!("it failed")
        };
        assert!(read.differences.len() > 10);
        let more = 200 - read.differences.len();
        assert_eq!(read.message, format!("settings differ (and {more} more settings)"));
    }

    #[test]
    fn a_message_of_any_length_fits_after_all() {
        let report = FoundingReport::Failed(Failure {
            kind: FailureKind::KafkaUnreachable,
            message: "é".repeat(5000),
            differences: Vec::new(),
        });
        let text = report.to_termination_message();
        assert!(text.len() <= TERMINATION_BYTES_MAX && text.len() > 1000);
        FoundingReport::read(&text).unwrap();
    }
}
