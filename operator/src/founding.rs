//! How a ledger begins: an init Job that looks and creates, its answer in the sale's status, an
//! init Job that writes Genesis, its answer likewise. Pure: what a Job's state means.
//!
//! Two Jobs and not one, since the topic's id must be on record before the first entry: a crash
//! between the two could otherwise found a second ledger.

use control::config::Step;
use control::founding::{Failure, FailureKind, Founded, FoundingReport};
use crds::status::LedgerStatus;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::dereference::Dereferenced;
use crate::names::CONFIG_HASH;
use crate::pods;

/// How long after a failure the next try begins. A Kafka that heals is found within a minute,
/// and one that does not is not hammered.
const RETRY: SignedDuration = SignedDuration::from_secs(10);

/// The same for what only a person can heal.
const RETRY_SLOWLY: SignedDuration = SignedDuration::from_secs(60);

/// How the init Job of the present step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitJob {
    /// There is none.
    Absent,
    /// There is one that runs with another configuration.
    Outdated,
    /// It runs, or is about to.
    Running {
        /// What keeps its pod from running.
        trouble: Option<String>,
    },
    /// It has done its step.
    Done(Founded),
    /// It has failed.
    Failed {
        /// Why.
        failure: InitFailure,
        /// When.
        at: Timestamp,
    },
}

/// Why an init Job failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitFailure {
    /// It said so itself.
    Told(Failure),
    /// It ended without a word: it crashed, was killed, or never started.
    Silent(String),
}

impl InitFailure {
    /// The reason of the condition LedgerReady.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Told(failure) => failure.kind.into(),
            Self::Silent(_) => "InitFailed",
        }
    }

    /// What the condition says.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Told(failure) => {
                // What the message says already is not said twice.
                let differences = failure.differences.iter();
                let differences = differences.filter(|d| !failure.message.contains(&d.key));
                let lines: Vec<String> = differences
                    .map(|d| format!("{} {}: {} -> {}", d.topic, d.key, d.have, d.want))
                    .collect();
                if lines.is_empty() {
                    return failure.message.clone();
                }
                format!("{}: {}", failure.message, lines.join("; "))
            }
            Self::Silent(how) => how.clone(),
        }
    }

    /// Whether waiting can help.
    #[must_use]
    pub fn heals(&self) -> bool {
        match self {
            // A cluster that refuses while its brokers are starting takes it later: fewer of them
            // than replicas, nobody who leads. What is there and is wrong stays so.
            Self::Told(failure) => {
                let refused = failure.kind == FailureKind::TopicMisconfigured
                    && failure.differences.is_empty();
                failure.kind.heals() || refused
            }
            Self::Silent(_) => true,
        }
    }

    /// When to try again.
    #[must_use]
    pub fn retry_at(&self, failed: Timestamp) -> Timestamp {
        let after = if self.heals() { RETRY } else { RETRY_SLOWLY };
        failed.saturating_add(after).unwrap_or(failed)
    }

    /// Whether the ledger that there was is gone: never a reason to found another.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Told(f) if f.kind == FailureKind::LedgerLost)
    }
}

/// How the Job that `wanted` describes does.
#[must_use]
pub fn look(wanted: &Job, found: &Dereferenced, now: Timestamp) -> InitJob {
    let name = wanted.name_any();
    let Some(job) = found.jobs.iter().find(|job| job.name_any() == name) else {
        return InitJob::Absent;
    };
    if job.metadata.deletion_timestamp.is_some() {
        return InitJob::Running { trouble: Some("the last try is being removed".to_owned()) };
    }
    if job.annotations().get(CONFIG_HASH) != wanted.annotations().get(CONFIG_HASH) {
        return InitJob::Outdated;
    }
    let pod = found.pods.iter().find(|pod| {
        pod.owner_references().iter().any(|owner| Some(&owner.uid) == job.metadata.uid.as_ref())
    });
    let conditions = job.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let ended = conditions
        .iter()
        .find(|c| (c.type_ == "Complete" || c.type_ == "Failed") && c.status == "True");
    let said = pod.and_then(last_words);
    let Some(end) = ended else {
        // The pod has spoken before its Job is settled: some seconds won.
        return match said.map(|words| FoundingReport::read(&words)) {
            Some(Ok(FoundingReport::Ok(founded))) => InitJob::Done(founded),
            _ => InitJob::Running { trouble: pod.and_then(pods::trouble).map(|t| t.message) },
        };
    };
    let at = end.last_transition_time.as_ref().map_or(now, |t| t.0);
    let failed = |failure| InitJob::Failed { failure, at };
    match said.as_deref().map(FoundingReport::read) {
        Some(Ok(FoundingReport::Ok(founded))) => InitJob::Done(founded),
        Some(Ok(FoundingReport::Failed(failure))) => failed(InitFailure::Told(failure)),
        _ => {
            let why = end.message.clone().or_else(|| end.reason.clone()).unwrap_or_default();
            let words = said.map(|words| format!(", last words: {words}")).unwrap_or_default();
            failed(InitFailure::Silent(format!("the init Job {name} failed: {why}{words}")))
        }
    }
}

/// The termination message of the pod's container.
fn last_words(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ended = statuses.first()?.state.as_ref()?.terminated.as_ref()?;
    ended.message.clone().filter(|message| !message.is_empty())
}

/// What the status says of the ledger after a step.
#[must_use]
pub fn recorded(topic: &str, founded: &Founded) -> LedgerStatus {
    LedgerStatus {
        topic: topic.to_owned(),
        topic_id: founded.topic_id.clone(),
        sale_id: Some(topic.to_owned()),
        genesis_hash: founded.genesis_hash.clone(),
    }
}

/// The reason of LedgerReady once a step has given the hash of Genesis.
#[must_use]
pub fn ready_reason(founded: &Founded, expected: Option<&String>) -> &'static str {
    match founded.step {
        Step::Genesis if expected.is_none() => "Created",
        Step::Topics | Step::Genesis => "Adopted",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use control::founding::Difference;
    use serde_json::json;

    use super::*;
    use crate::build::build;
    use crate::validate::tests::{config, minimal};
    use crate::validate::validate;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn wanted() -> Job {
        let sale = validate(&minimal(), &Dereferenced::default(), &config()).unwrap();
        build(&sale, false).jobs.remove(0)
    }

    /// The Job as a cluster shows it, with its pod's last words.
    fn seen(condition: Option<&str>, words: Option<&str>) -> Dereferenced {
        let mut job = wanted();
        job.metadata.uid = Some("job-1".into());
        let conditions: Vec<_> = condition
            .map(|c| {
                json!({"type": c, "status": "True", "message": "said the cluster",
                    "lastTransitionTime": "1970-01-01T00:00:00Z"})
            })
            .into_iter()
            .collect();
        job.status = Some(serde_json::from_value(json!({"conditions": conditions})).unwrap());
        let pod = json!({
            "metadata": {"name": "p", "ownerReferences": [
                {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "job-1"}]},
            "status": {"containerStatuses": [{
                "name": "init", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": words.map_or(json!({"running": {}}), |words| json!({
                    "terminated": {"exitCode": 1, "message": words}}))}]}
        });
        let pods = vec![serde_json::from_value(pod).unwrap()];
        Dereferenced { jobs: vec![job], pods, ..Dereferenced::default() }
    }

    fn ok() -> String {
        FoundingReport::Ok(Founded {
            step: Step::Topics,
            topic_id: "id".into(),
            created: true,
            genesis_hash: None,
        })
        .to_termination_message()
    }

    fn failed(kind: FailureKind) -> String {
        FoundingReport::Failed(Failure {
            kind,
            message: "settings differ".into(),
            differences: vec![Difference {
                topic: "t".into(),
                key: "cleanup.policy".into(),
                have: "compact".into(),
                want: "delete".into(),
            }],
        })
        .to_termination_message()
    }

    #[test]
    fn a_job_that_is_done_tells_the_topic_s_id() {
        let InitJob::Done(founded) = look(&wanted(), &seen(Some("Complete"), Some(&ok())), NOW)
        else {
            panic!("it is done")
        };
        let status = recorded("t", &founded);
        assert_eq!((status.topic_id.as_str(), status.genesis_hash), ("id", None));
    }

    #[test]
    fn a_pod_that_has_spoken_is_heard_before_its_job_is_settled() {
        let seen = look(&wanted(), &seen(None, Some(&ok())), NOW);
        assert!(matches!(seen, InitJob::Done(_)));
    }

    #[test]
    fn a_failure_names_its_kind_and_each_setting() {
        let words = failed(FailureKind::TopicMisconfigured);
        let InitJob::Failed { failure, at } =
            look(&wanted(), &seen(Some("Failed"), Some(&words)), NOW)
        else {
            panic!("it failed")
        };
        assert_eq!(failure.reason(), "TopicMisconfigured");
        assert_eq!(failure.message(), "settings differ: t cleanup.policy: compact -> delete");
        assert!(!failure.heals());
        assert_eq!(failure.retry_at(at).as_second(), 60);
    }

    #[test]
    fn what_may_heal_is_tried_again_soon() {
        let words = failed(FailureKind::KafkaUnreachable);
        let InitJob::Failed { failure, at } =
            look(&wanted(), &seen(Some("Failed"), Some(&words)), NOW)
        else {
            panic!("it failed")
        };
        assert_eq!((failure.reason(), failure.retry_at(at).as_second()), ("KafkaUnreachable", 10));
        let refused = |differences| {
            let (kind, message) = (FailureKind::TopicMisconfigured, String::new());
            InitFailure::Told(Failure { kind, message, differences })
        };
        assert!(refused(Vec::new()).heals());
        let (topic, key) = ("t".to_owned(), "cleanup.policy".to_owned());
        let (have, want) = ("compact".to_owned(), "delete".to_owned());
        assert!(!refused(vec![Difference { topic, key, have, want }]).heals());
    }

    #[test]
    fn a_job_that_ended_without_a_word_is_no_ledger() {
        for words in [None, Some("Segmentation fault")] {
            let InitJob::Failed { failure, .. } =
                look(&wanted(), &seen(Some("Failed"), words), NOW)
            else {
                panic!("it failed")
            };
            assert_eq!(failure.reason(), "InitFailed");
            assert!(failure.message().contains("said the cluster"));
        }
    }

    #[test]
    fn a_job_of_another_configuration_is_outdated() {
        let mut found = seen(None, None);
        let annotations = found.jobs[0].metadata.annotations.as_mut().unwrap();
        annotations.insert(CONFIG_HASH.into(), "other".into());
        assert_eq!(look(&wanted(), &found, NOW), InitJob::Outdated);
        assert_eq!(look(&wanted(), &Dereferenced::default(), NOW), InitJob::Absent);
    }
}
