//! Every case of `cases.yaml` at a real API server, which must refuse what it is said to refuse
//! and take the rest.
//!
//! Runs where `STATIONMASTER_KUBECONFIG` names a cluster's kubeconfig, with `kubectl` from the
//! path or from `STATIONMASTER_KUBECTL`; otherwise it says so and does nothing. It writes to a
//! namespace of its own, and installs the definition where there is none.

#![allow(clippy::unwrap_used, reason = "a case that cannot be read is a failure")]

#[path = "common/cases.rs"]
mod cases;
#[path = "common/cluster.rs"]
mod cluster;

use cases::{By, Case, Cases};
use cluster::Cluster;
use crds::rules::RULES;
use serde_json::{Value, json};

/// A cluster with the definition in it.
fn find(test: &str) -> Option<Cluster> {
    let cluster = Cluster::find(test)?;
    let name = "trainsales.stationmaster.dev";
    if cluster.kubectl(&["get", "crd", name], "").is_err() {
        let made = cluster.kubectl(&["create", "-f", "-"], include_str!("../trainsales.yaml"));
        // Another test may have been faster.
        let there = made.as_ref().is_err_and(|said| said.contains("AlreadyExists"));
        assert!(there || made.as_ref().is_ok_and(|said| !said.contains("Warning")), "{made:?}");
    }
    cluster::established(|words| cluster.kubectl(words, ""));
    Some(cluster)
}

fn post(cluster: &Cluster, verb: &[&str], value: &Value) -> Result<String, String> {
    let mut arguments = vec!["-n", cluster.namespace()];
    arguments.extend(verb);
    arguments.extend(["--validate=strict", "-f", "-"]);
    let mut value = value.clone();
    value["metadata"]["namespace"] = cluster.namespace().into();
    cluster.kubectl(&arguments, &value.to_string())
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
    let Some(cluster) = find("cases") else { return };
    let cases = Cases::read();
    for case in &cases.create {
        let answer = post(&cluster, &["create", "--dry-run=server"], &case.apply(&cases.base));
        judge(case, &answer);
    }
    for (i, case) in cases.update.iter().enumerate() {
        let (mut old, mut new) = (case.given(&cases.base), case.apply(&cases.base));
        for value in [&mut old, &mut new] {
            value["metadata"]["name"] = format!("update-{i}").into();
        }
        post(&cluster, &["create"], &old).unwrap();
        judge(case, &post(&cluster, &["replace", "--dry-run=server"], &new));
    }
}

#[test]
fn every_list_may_be_full_without_the_rules_becoming_too_dear() {
    let Some(cluster) = find("full") else { return };
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
    post(&cluster, &["create"], &sale).unwrap();
    sale["spec"]["state"] = "Suspended".into();
    post(&cluster, &["replace"], &sale).unwrap();
}
