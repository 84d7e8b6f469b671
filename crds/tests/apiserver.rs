//! Every case of `cases.yaml` at a real API server, which must refuse what it is said to refuse
//! and take the rest.
//!
//! Runs where `STATIONMASTER_KUBECONFIG` names a cluster's kubeconfig, with `kubectl` from the
//! path or from `STATIONMASTER_KUBECTL`; otherwise it says so and does nothing. It writes to a
//! namespace of its own, and installs the definition where there is none.

#![allow(clippy::unwrap_used, reason = "a case that cannot be read is a failure")]

mod common;

use std::env;
use std::io::Write;
use std::process::{Command, Stdio};

use common::{By, Case, Cases};
use crds::rules::RULES;
use serde_json::{Value, json};

const DEFINITION: &str = include_str!("../trainsales.yaml");

/// A cluster, and a namespace of this test in it.
struct Cluster {
    kubeconfig: String,
    kubectl: String,
    namespace: String,
}

impl Cluster {
    fn find(test: &str) -> Option<Self> {
        let Ok(kubeconfig) = env::var("STATIONMASTER_KUBECONFIG") else {
            eprintln!("skipped: STATIONMASTER_KUBECONFIG names no cluster");
            return None;
        };
        let kubectl = env::var("STATIONMASTER_KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
        let namespace = format!("crds-{test}-{}", std::process::id());
        let cluster = Self { kubeconfig, kubectl, namespace };
        let name = "trainsales.stationmaster.dev";
        if cluster.run(&["get", "crd", name], "").is_err() {
            // Another test may have been faster.
            let made = cluster.run(&["create", "-f", "-"], DEFINITION);
            assert!(made.as_ref().is_ok_and(|said| !said.contains("Warning")) || exists(&made));
        }
        let crd = format!("crd/{name}");
        cluster.run(&["wait", "--for=condition=Established", &crd, "--timeout=30s"], "").unwrap();
        cluster.run(&["create", "namespace", &cluster.namespace], "").unwrap();
        Some(cluster)
    }

    /// Runs kubectl; what it says on both channels, as an error if it fails.
    fn run(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut child = Command::new(&self.kubectl)
            .args(["--kubeconfig", &self.kubeconfig])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A refused argument closes the pipe early; what kubectl says tells more than that.
        drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
        if output.status.success() { Ok(said.concat()) } else { Err(said.concat()) }
    }

    fn post(&self, verb: &[&str], value: &Value) -> Result<String, String> {
        let mut arguments = vec!["-n", self.namespace.as_str()];
        arguments.extend(verb);
        arguments.extend(["--validate=strict", "-f", "-"]);
        let mut value = value.clone();
        value["metadata"]["namespace"] = self.namespace.clone().into();
        self.run(&arguments, &value.to_string())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let namespace = self.namespace.clone();
        drop(self.run(&["delete", "namespace", &namespace, "--wait=false"], ""));
    }
}

fn exists(said: &Result<String, String>) -> bool {
    said.as_ref().is_err_and(|said| said.contains("AlreadyExists"))
}

#[track_caller]
fn judge(case: &Case, answer: &Result<String, String>) {
    let name = &case.name;
    match (case.by, answer) {
        (Some(By::Schema), Err(_)) => {}
        (Some(By::Rule), Err(said)) => {
            assert!(RULES.iter().any(|r| said.contains(r.message)), "{name}: {said}");
        }
        (Some(By::Operator) | None, Ok(said)) => {
            assert!(!said.contains("Warning"), "{name}: {said}");
        }
        (by, answer) => panic!("{name}: {by:?}, but {answer:?}"),
    }
}

#[test]
fn an_api_server_refuses_what_the_cases_say() {
    let Some(cluster) = Cluster::find("cases") else { return };
    let cases = Cases::read();
    for case in &cases.create {
        let answer = cluster.post(&["create", "--dry-run=server"], &case.apply(&cases.base));
        judge(case, &answer);
    }
    for (i, case) in cases.update.iter().enumerate() {
        let (mut old, mut new) = (case.given(&cases.base), case.apply(&cases.base));
        for value in [&mut old, &mut new] {
            value["metadata"]["name"] = format!("update-{i}").into();
        }
        cluster.post(&["create"], &old).unwrap();
        judge(case, &cluster.post(&["replace", "--dry-run=server"], &new));
    }
}

#[test]
fn every_list_may_be_full_without_the_rules_becoming_too_dear() {
    let Some(cluster) = Cluster::find("full") else { return };
    let stop = |i: u32| {
        let time = format!("{:02}:{:02}", i / 60, i % 60);
        json!({"code": format!("S{i}"), "arrives": time, "departs": time})
    };
    let class =
        |i: u32| json!({"name": format!("C{i}"), "fare": {"type": "Flat", "amountMinor": 1}});
    // The last class and the last timetable: each search goes to the end.
    let coach = |i: u32| json!({"name": format!("{i}"), "class": "C15", "seats": 90});
    let timetable = |i: u32| {
        json!({
            "name": format!("t{i}"),
            "stops": (0..128).map(stop).collect::<Vec<_>>(),
            "classes": (0..16).map(class).collect::<Vec<_>>(),
            "coaches": (0..64).map(coach).collect::<Vec<_>>(),
        })
    };
    let run = |i: u32| json!({"train": format!("G{i}"), "date": "2027-02-01", "timetable": "t63"});
    let mut sale = Cases::read().base;
    sale["spec"]["timetables"] = (0..64).map(timetable).collect();
    sale["spec"]["runs"] = (0..1000).map(run).collect();
    cluster.post(&["create"], &sale).unwrap();
    sale["spec"]["state"] = "Suspended".into();
    cluster.post(&["replace"], &sale).unwrap();
}
