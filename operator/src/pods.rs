//! What keeps a pod from running, in a word and a sentence. Pure.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

/// What keeps a pod from running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The reason of the condition FleetReady.
    pub reason: &'static str,
    /// Which pod, and what the cluster says of it.
    pub message: String,
}

/// What keeps this pod from running; none if nothing does, or it only takes its time.
#[must_use]
pub fn trouble(pod: &Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let name = pod.name_any();
    let said = |reason, what: &str| {
        Some(Trouble { reason, message: format!("pod {name}: {}", first_line(what)) })
    };
    if status.reason.as_deref() == Some("NodeLost") {
        return said("NodeLost", status.message.as_deref().unwrap_or("its machine is lost"));
    }
    let scheduled = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled");
    if let Some(condition) = scheduled
        && condition.status == "False"
        && condition.reason.as_deref() == Some("Unschedulable")
    {
        return said("Unschedulable", condition.message.as_deref().unwrap_or("no machine fits"));
    }
    let (reason, what) = status.container_statuses.iter().flatten().find_map(of_container)?;
    said(reason, &what)
}

fn of_container(status: &ContainerStatus) -> Option<(&'static str, String)> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let why = waiting.reason.clone().unwrap_or_default();
    let what = |more: Option<&String>| more.map_or_else(|| why.clone(), |m| format!("{why}: {m}"));
    match why.as_str() {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable" => Some(("ImagePullFailed", what(waiting.message.as_ref()))),
        "CrashLoopBackOff"
        | "RunContainerError"
        | "CreateContainerError"
        | "CreateContainerConfigError" => {
            let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
            let end = last.map(|t| match &t.message {
                Some(message) => format!("it ended with {}: {message}", t.exit_code),
                None => format!("it ended with {}", t.exit_code),
            });
            Some(("CrashLooping", what(end.as_ref().or(waiting.message.as_ref()))))
        }
        _ => None,
    }
}

/// A condition's message is one line of `kubectl get`.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(300).collect()
}

/// Whether the pod is ready, and not about to end.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: &serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "tickets"}, "status": status
        }))
        .unwrap()
    }

    fn waiting(reason: &str) -> Pod {
        pod(&serde_json::json!({"containerStatuses": [{
            "name": "node", "image": "", "imageID": "", "ready": false, "restartCount": 3,
            "state": {"waiting": {"reason": reason, "message": "told so\nand more"}},
            "lastState": {"terminated": {"exitCode": 1, "message": "no config"}}
        }]}))
    }

    #[test]
    fn a_pod_s_trouble_is_told_in_the_words_of_the_cluster() {
        let of = |pod: &Pod| trouble(pod).map(|t| (t.reason, t.message));
        let pull = "pod p: ImagePullBackOff: told so".to_owned();
        assert_eq!(of(&waiting("ImagePullBackOff")), Some(("ImagePullFailed", pull)));
        let crash = "pod p: CrashLoopBackOff: it ended with 1: no config".to_owned();
        assert_eq!(of(&waiting("CrashLoopBackOff")), Some(("CrashLooping", crash)));
        assert_eq!(of(&waiting("ContainerCreating")), None);
        let unschedulable = pod(&serde_json::json!({"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2"
        }]}));
        assert_eq!(of(&unschedulable), Some(("Unschedulable", "pod p: 0/2".to_owned())));
    }
}
