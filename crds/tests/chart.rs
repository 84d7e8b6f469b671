//! The chart as Helm renders and installs it.
//!
//! Needs `STATIONMASTER_HELM`, the path of Helm 4, and for installing also what
//! `common/cluster.rs` needs; otherwise the tests say so and do nothing.

#![allow(clippy::unwrap_used, reason = "an object that is not there is a failure")]

#[path = "common/cluster.rs"]
mod cluster;

use cluster::{Cluster, given, run};
use serde::Deserialize;
use serde_json::{Value, json};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/stationmaster");

/// The rendered text for `values`, in a namespace of the release's own.
fn render(helm: &str, values: &str) -> Result<String, String> {
    run(helm, &["template", "sm", CHART, "-n", "system", "--values", "-"], values)
}

fn objects(text: &str) -> Vec<Value> {
    let documents = serde_yaml::Deserializer::from_str(text);
    let objects = documents.map(|d| Value::deserialize(d).unwrap());
    objects.filter(|object| !object.is_null()).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|o| o["kind"] == kind).collect()
}

fn values_of(name: &str) -> String {
    std::fs::read_to_string(format!("{CHART}/ci/{name}-values.yaml")).unwrap()
}

#[test]
fn the_chart_has_the_version_of_the_workspace() {
    let chart = std::fs::read_to_string(format!("{CHART}/Chart.yaml")).unwrap();
    let chart: Value = serde_yaml::from_str(&chart).unwrap();
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn values_that_break_a_rule_are_refused_by_name() {
    #[derive(Deserialize)]
    struct Bad {
        values: Value,
        names: String,
    }
    let Some(helm) = given("STATIONMASTER_HELM") else { return };
    let cases: Vec<Bad> = serde_yaml::from_str(&values_of("bad")).unwrap();
    for Bad { values, names } in cases {
        let said = render(&helm, &values.to_string()).unwrap_err();
        let place = if names.starts_with('/') { format!("at '{names}':") } else { names };
        assert!(said.contains(&place), "{values}: {said}");
    }
}

#[test]
fn every_way_to_render_passes_lint() {
    let Some(helm) = given("STATIONMASTER_HELM") else { return };
    for values in [String::new(), values_of("all"), values_of("none")] {
        run(&helm, &["lint", "--strict", CHART, "--values", "-"], &values).unwrap();
        assert!(!objects(&render(&helm, &values).unwrap()).is_empty());
    }
}

#[test]
fn each_right_has_its_reason_above_it_and_none_is_boundless() {
    let Some(helm) = given("STATIONMASTER_HELM") else { return };
    for values in [String::new(), values_of("all")] {
        let text = render(&helm, &values).unwrap();
        let mut above = "";
        for line in text.lines() {
            if line.starts_with("- apiGroups:") {
                assert!(above.starts_with('#'), "no reason above {line}");
            }
            above = line;
        }
        for role in objects(&text).iter().filter(|o| o["rules"].is_array()) {
            for rule in role["rules"].as_array().unwrap() {
                assert!(!rule.to_string().contains('*'), "{rule}");
                let secrets = rule["resources"].as_array().unwrap().contains(&json!("secrets"));
                let bounded = rule["resourceNames"] == json!(["sm-stationmaster-key"])
                    || rule["verbs"] == json!(["create"]);
                assert!(!secrets || bounded && role["metadata"]["namespace"] == "system");
            }
        }
    }
}

#[test]
fn watching_namespaces_needs_no_right_outside_them() {
    let Some(helm) = given("STATIONMASTER_HELM") else { return };
    let objects = objects(&render(&helm, &values_of("all")).unwrap());
    for role in of_kind(&objects, "ClusterRole") {
        let labels = role["metadata"]["labels"].to_string();
        assert!(labels.contains("aggregate-to"), "{role}");
    }
    assert!(of_kind(&objects, "ClusterRoleBinding").is_empty());
    let mut namespaces: Vec<&str> = of_kind(&objects, "Role")
        .iter()
        .filter(|r| r["metadata"]["annotations"]["helm.sh/hook"].is_null())
        .map(|r| r["metadata"]["namespace"].as_str().unwrap())
        .collect();
    namespaces.sort_unstable();
    assert_eq!(namespaces, ["other", "system", "tickets"]);
    let deployment = of_kind(&objects, "Deployment")[0];
    let environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
    assert!(environment.contains("tickets,other"), "{environment}");
}

#[test]
fn uninstalling_keeps_the_definition() {
    let Some(helm) = given("STATIONMASTER_HELM") else { return };
    let text = render(&helm, "").unwrap();
    let objects = objects(&text);
    let crd = of_kind(&objects, "CustomResourceDefinition")[0];
    assert_eq!(crd["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    assert_eq!(crd["spec"], crds::crd::definition()["spec"]);
}

/// A release in a namespace of its own, which is uninstalled with this.
struct Release<'a> {
    helm: String,
    kubeconfig: String,
    cluster: &'a Cluster,
}

impl Release<'_> {
    fn helm(&self, arguments: &[&str], values: &str) -> Result<String, String> {
        let namespace = self.cluster.namespace();
        let mut all = vec!["--kubeconfig", &self.kubeconfig, "-n", namespace];
        all.extend(arguments);
        run(&self.helm, &all, values)
    }

    fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut all = vec!["-n", self.cluster.namespace()];
        all.extend(arguments);
        self.cluster.kubectl(&all, input)
    }
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        drop(self.helm(&["uninstall", "sm", "--ignore-not-found"], ""));
    }
}

#[test]
fn a_release_can_do_its_work_and_no_more() {
    let Some(helm) = given("STATIONMASTER_HELM") else { return };
    let Some(cluster) = Cluster::find("chart") else { return };
    let kubeconfig = given("STATIONMASTER_KUBECONFIG").unwrap();
    let release = Release { helm, kubeconfig, cluster: &cluster };
    // Where another test or release has brought the definition, this one must not take it.
    let crd = release.kubectl(&["get", "crd", "trainsales.stationmaster.dev"], "").is_err();
    let namespace = cluster.namespace();
    let values = format!("{{watchNamespaces: [{namespace}], crds: {{install: {crd}}}}}");
    let said = release.helm(&["install", "sm", CHART, "--values", "-"], &values).unwrap();
    assert!(!said.contains("would violate PodSecurity"), "{said}");
    assert!(said.contains(&format!("runs sales in the namespaces {namespace}.")), "{said}");
    let said = release.helm(&["upgrade", "sm", CHART, "--values", "-"], &values).unwrap();
    assert!(said.contains("REVISION: 2"), "{said}");

    let operator = format!("system:serviceaccount:{namespace}:sm-stationmaster");
    for (may, verb, resource, within) in [
        (true, "watch", "trainsales.stationmaster.dev", namespace),
        (true, "patch", "trainsales.stationmaster.dev/status", namespace),
        (true, "patch", "deployments.apps", namespace),
        (true, "delete", "pods", namespace),
        (true, "get", "secrets/sm-stationmaster-key", namespace),
        (true, "update", "leases.coordination.k8s.io", namespace),
        (false, "get", "secrets/redis", namespace),
        (false, "list", "secrets", namespace),
        (false, "create", "pods/exec", namespace),
        (false, "delete", "trainsales.stationmaster.dev", namespace),
        (false, "watch", "trainsales.stationmaster.dev", "default"),
        (false, "delete", "pods", "kube-system"),
    ] {
        let arguments = ["auth", "can-i", verb, resource, "--as", &operator, "-n", within];
        let answer = cluster.kubectl(&arguments, "");
        assert_eq!(answer.is_ok(), may, "{verb} {resource} in {within}: {answer:?}");
    }
    a_selling_sale_is_deleted_only_when_confirmed(&release);
    let said = release.helm(&["uninstall", "sm"], "").unwrap();
    assert_eq!(said.contains("kept due to the resource policy"), crd, "{said}");
    release.kubectl(&["get", "crd", "trainsales.stationmaster.dev"], "").unwrap();
}

fn a_selling_sale_is_deleted_only_when_confirmed(release: &Release<'_>) {
    let sale = include_str!("../../examples/minimal.yaml");
    cluster::established(|words| release.kubectl(words, ""));
    release.kubectl(&["create", "-f", "-"], sale).unwrap();
    let status = json!({"status": {"conditions": [{
        "type": "Selling", "status": "True", "reason": "Open", "message": "",
        "lastTransitionTime": "2027-01-01T00:00:00Z",
    }]}});
    let patch = status.to_string();
    let patch =
        ["patch", "trainsale", "demo", "--subresource=status", "--type=merge", "-p", &patch];
    release.kubectl(&patch, "").unwrap();
    // A new policy takes a moment to be known to the API server.
    let refused = (0..50).find_map(|_| {
        let said = release.kubectl(&["delete", "trainsale", "demo", "--dry-run=server"], "");
        std::thread::sleep(std::time::Duration::from_millis(200));
        said.err()
    });
    let said = refused.unwrap();
    assert!(said.contains("stationmaster.dev/confirm-delete=demo"), "{said}");
    let confirm = "stationmaster.dev/confirm-delete=demo";
    release.kubectl(&["annotate", "trainsale", "demo", confirm], "").unwrap();
    release.kubectl(&["delete", "trainsale", "demo", "--wait=false"], "").unwrap();
}
