//! The control plane: etcd, the API server, its controllers and the cluster's name server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::cache::write;
use crate::error::{Error, Result, finished, output_with, tail_of};
use crate::install::Tools;
use crate::network::{CONTROL, DNS, SERVICES};
use crate::pki::{Pki, write_json};
use crate::process::{Launch, Place, ProcessId, until};

/// What the control plane needs to know.
#[derive(Debug)]
pub(crate) struct Control<'a> {
    pub(crate) tools: &'a Tools,
    pub(crate) folder: PathBuf,
    pub(crate) pki: &'a Pki,
    pub(crate) place: Place,
}

// The API server is ready 3 s after its start when the machine is idle.
const API_PATIENCE: Duration = Duration::from_secs(90);

// Reads by the cluster's own parts are noise; what serviceaccounts and people do is kept, so
// that a test can ask which rights are used, and which were refused.
const AUDIT: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy",
 "omitStages": ["RequestReceived"],
 "rules": [
  {"level": "None", "userGroups": ["system:nodes"]},
  {"level": "None", "users": ["system:kube-proxy", "system:kube-scheduler",
    "system:kube-controller-manager", "system:apiserver", "bed:dns", "bed:admin"]},
  {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
  {"level": "Metadata"}]}"#;

// What the name server may read; in a usual cluster its manifest brings this along.
const DNS_RIGHTS: &str = r#"{"apiVersion": "v1", "kind": "List", "items": [
 {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
  "metadata": {"name": "bed:dns"}, "rules": [
   {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"],
    "verbs": ["list", "watch"]},
   {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"],
    "verbs": ["list", "watch"]}]},
 {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
  "metadata": {"name": "bed:dns"},
  "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "bed:dns"},
  "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bed:dns"}]}]}"#;

impl Control<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    fn launch(&self, name: &str, program: &Path) -> Launch {
        Launch::new(&self.place, &self.log(name), program).folder(&self.folder)
    }

    /// Makes the certificates and kubeconfigs of all parts.
    pub(crate) fn issue(&self) -> Result<()> {
        let parts = [
            ("admin", "bed:admin", Some("system:masters")),
            ("apiserver-kubelet", "kube-apiserver", Some("system:masters")),
            ("controllers", "system:kube-controller-manager", None),
            ("scheduler", "system:kube-scheduler", None),
            ("proxy", "system:kube-proxy", None),
            ("dns", "bed:dns", None),
        ];
        for (file, user, group) in parts {
            self.pki.client(file, user, group)?;
            self.pki.kubeconfig(file, &self.file(&format!("{file}.kubeconfig")))?;
        }
        write(&self.file("audit.json"), AUDIT)
    }

    /// Starts etcd and the API server, which waits for it.
    pub(crate) fn start_api(&self) -> Result<[(String, ProcessId); 2]> {
        let etcd = self.launch("etcd", &self.tools.etcd());
        // Nothing in the bed outlives the machine, so nothing need reach the disk.
        let etcd = etcd.args(["--unsafe-no-fsync", "--name=bed", "--log-level=warn"]);
        let etcd = etcd.arg_path("--data-dir=", &self.file("etcd")).args([
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--initial-advertise-peer-urls=http://127.0.0.1:2380",
            "--initial-cluster=bed=http://127.0.0.1:2380",
        ]);
        let etcd = ("etcd".to_owned(), etcd.start()?);
        let issuer = "https://kubernetes.default.svc.cluster.local";
        let pki = self.pki;
        let api = self
            .launch("apiserver", &self.tools.kubernetes("kube-apiserver"))
            .args([
                "--etcd-servers=http://127.0.0.1:2379",
                "--allow-privileged",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                // Else logs and exec would need a name server that knows the nodes.
                "--kubelet-preferred-address-types=InternalIP",
                "--audit-log-maxsize=50",
                "--audit-log-maxbackup=1",
                &format!("--advertise-address={CONTROL}"),
                &format!("--service-cluster-ip-range={SERVICES}"),
                &format!("--service-account-issuer={issuer}"),
            ])
            .arg_path("--audit-policy-file=", &self.file("audit.json"))
            .arg_path("--audit-log-path=", &self.file("audit.log"))
            .arg_path("--client-ca-file=", &pki.certificate("ca"))
            .arg_path("--tls-cert-file=", &pki.certificate("apiserver"))
            .arg_path("--tls-private-key-file=", &pki.key("apiserver"))
            .arg_path("--kubelet-client-certificate=", &pki.certificate("apiserver-kubelet"))
            .arg_path("--kubelet-client-key=", &pki.key("apiserver-kubelet"))
            .arg_path("--service-account-key-file=", &pki.folder.join("tokens.pub"))
            .arg_path("--service-account-signing-key-file=", &pki.key("tokens"))
            .start()?;
        Ok([etcd, ("apiserver".to_owned(), api)])
    }

    /// Waits until the API server says that it is ready.
    pub(crate) fn wait_for_api(&self, kubectl: &dyn Fn() -> Command, api: ProcessId) -> Result<()> {
        let log = self.log("apiserver");
        until("the API server being ready", API_PATIENCE, &log.display().to_string(), || {
            if !api.alive() {
                return Err(Error::Refused(format!("the API server ended: {}", tail_of(&log))));
            }
            let answer = finished(kubectl().args(["get", "--raw", "/readyz"]))?;
            Ok(answer.status.success().then_some(()))
        })
    }

    /// Starts the controllers, the scheduler, the name server and a proxy for this namespace.
    pub(crate) fn start_rest(&self) -> Result<Vec<(String, ProcessId)>> {
        let controllers = self
            .launch("controllers", &self.tools.kubernetes("kube-controller-manager"))
            .args(["--leader-elect=false", "--use-service-account-credentials"])
            // The default of 20 requests a second makes forty controllers wait for each other.
            .args(["--kube-api-qps=300", "--kube-api-burst=600"])
            .arg_path("--kubeconfig=", &self.file("controllers.kubeconfig"))
            .arg_path("--root-ca-file=", &self.pki.certificate("ca"))
            .arg_path("--service-account-private-key-file=", &self.pki.key("tokens"))
            .start()?;
        let scheduler = self
            .launch("scheduler", &self.tools.kubernetes("kube-scheduler"))
            .args(["--leader-elect=false", "--kube-api-qps=300", "--kube-api-burst=600"])
            .arg_path("--kubeconfig=", &self.file("scheduler.kubeconfig"))
            .start()?;
        let dns = self.start_dns()?;
        // This namespace is no node, and a proxy wants to be one; Services' addresses, which is
        // all that is needed here, do not depend on which.
        let proxy = start_proxy(self.tools, &self.place, &self.folder, "node-1", &self.folder)?;
        let named = [("controllers", controllers), ("scheduler", scheduler), ("dns", dns)];
        let named = named.into_iter().chain([("proxy", proxy)]);
        Ok(named.map(|(name, process)| (name.to_owned(), process)).collect())
    }

    /// Grants the name server what it reads; it asks again until then.
    pub(crate) fn grant(&self, mut kubectl: Command) -> Result<()> {
        output_with(kubectl.args(["create", "-f", "-"]), DNS_RIGHTS).map(|_| ())
    }

    fn start_dns(&self) -> Result<ProcessId> {
        let config = self.file("dns.kubeconfig");
        let corefile = format!(
            ".:53 {{\n  bind {DNS}\n  errors\n  kubernetes cluster.local in-addr.arpa {{\n    \
             kubeconfig {}\n  }}\n  cache 5\n}}\n",
            config.display()
        );
        write(&self.file("Corefile"), corefile)?;
        self.launch("dns", &self.tools.coredns()).arg_path("-conf=", &self.file("Corefile")).start()
    }
}

/// Starts a kube-proxy, which makes Services' addresses work in a namespace.
pub(crate) fn start_proxy(
    tools: &Tools,
    place: &Place,
    folder: &Path,
    node: &str,
    control: &Path,
) -> Result<ProcessId> {
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": node,
        "clientConnection": {"kubeconfig": control.join("proxy.kubeconfig")},
        // The kernel's limits are the machine's, not ours to change.
        "conntrack": {
            "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
        },
    });
    let path = folder.join("proxy.json");
    write_json(&path, &config)?;
    Launch::new(place, &folder.join("proxy.log"), tools.kubernetes("kube-proxy"))
        .arg_path("--config=", &path)
        .folder(folder)
        .start()
}
