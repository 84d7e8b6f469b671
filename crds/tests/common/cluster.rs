//! A cluster that the environment names, and a namespace of one test in it.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, process};

/// What the environment names `variable`, or says that the test is skipped without it.
pub(crate) fn given(variable: &str) -> Option<String> {
    let value = env::var(variable).ok();
    if value.is_none() {
        eprintln!("skipped: {variable} is not set");
    }
    value
}

/// Runs a program; what it says on both channels, as an error if it fails.
pub(crate) fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses its arguments does not read; what it says tells more than that.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    if output.status.success() { Ok(said.concat()) } else { Err(said.concat()) }
}

/// A cluster, and a namespace of one test in it, which goes with this.
pub(crate) struct Cluster {
    kubeconfig: String,
    kubectl: String,
    namespace: String,
}

impl Cluster {
    /// The cluster of `STATIONMASTER_KUBECONFIG`, with `kubectl` from the path or from
    /// `STATIONMASTER_KUBECTL`. Its namespace holds pods to the restricted standard.
    pub(crate) fn find(test: &str) -> Option<Self> {
        let kubeconfig = given("STATIONMASTER_KUBECONFIG")?;
        let kubectl = env::var("STATIONMASTER_KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
        let namespace = format!("crds-{test}-{}", process::id());
        let cluster = Self { kubeconfig, kubectl, namespace };
        let name = &cluster.namespace;
        cluster.kubectl(&["create", "namespace", name], "").unwrap();
        let enforce = "pod-security.kubernetes.io/enforce=restricted";
        let warn = "pod-security.kubernetes.io/warn=restricted";
        cluster.kubectl(&["label", "namespace", name, enforce, warn], "").unwrap();
        Some(cluster)
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut all = vec!["--kubeconfig", self.kubeconfig.as_str()];
        all.extend(arguments);
        run(&self.kubectl, &all, input)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.kubectl(&["delete", "namespace", &self.namespace, "--wait=false"], ""));
    }
}

/// Waits until the API server serves TrainSales.
pub(crate) fn established(kubectl: impl Fn(&[&str]) -> Result<String, String>) {
    let crd = "crd/trainsales.stationmaster.dev";
    let wait = ["wait", "--for=condition=Established", crd, "--timeout=30s"];
    let began = Instant::now();
    while let Err(said) = kubectl(&wait) {
        // kubectl takes a status that has no conditions yet for an error.
        assert!(said.contains("accessor error"), "{said}");
        assert!(began.elapsed() < Duration::from_secs(30), "{said}");
    }
}
