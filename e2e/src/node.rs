//! A node: its own containerd, kubelet and kube-proxy in a namespace of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::cache::write;
use crate::control::start_proxy;
use crate::error::{During, Error, Result, finished, output_of, tail_of};
use crate::install::Tools;
use crate::network::{DNS, node_address, pod_range};
use crate::pki::{Pki, write_json};
use crate::process::{Launch, Place, ProcessId, until};

/// The name of the image that holds a pod's namespaces open.
pub(crate) const PAUSE: &str = "stationmaster.dev/pause:1";

/// One node of a bed.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    pub(crate) tools: &'a Tools,
    pub(crate) number: u8,
    pub(crate) folder: PathBuf,
    pub(crate) control: PathBuf,
    pub(crate) pki: &'a Pki,
    pub(crate) place: Place,
    /// The root of its pods' control groups, as the kubelet names it.
    pub(crate) pods_root: String,
}

// containerd answers within half a second of its start.
const CONTAINERD_PATIENCE: Duration = Duration::from_secs(30);

// Everything that containerd, its shims, the kubelet and the network plugins keep outside the
// folders that they are told goes into folders of this node, and vanishes with the namespace.
const MOUNTS: &str = r#"set -e
mount -t tmpfs tmpfs /run
mount --bind "$0/log" /var/log
mount --bind "$0/lib" /var/lib
mount --make-rshared /
exec "$@""#;

impl Node<'_> {
    pub(crate) fn name(&self) -> String {
        format!("node-{}", self.number)
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("containerd.sock")
    }

    /// containerd's own client, speaking to this node's.
    pub(crate) fn ctr(&self) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]);
        ctr
    }

    /// Starts containerd and waits until it answers.
    pub(crate) fn start_containerd(&self) -> Result<ProcessId> {
        for folder in ["log", "lib", "cni"] {
            let folder = self.folder.join(folder);
            fs::create_dir_all(&folder).during(|| folder.display().to_string())?;
        }
        write(&self.folder.join("containerd.toml"), self.containerd_settings())?;
        write_json(&self.folder.join("cni/bed.conflist"), &self.network_settings())?;
        let log = self.folder.join("containerd.log");
        let containerd = Launch::new(&self.place, &log, "unshare")
            .args(["--mount", "sh", "-c", MOUNTS])
            .args([&self.folder])
            .args(["containerd", "--log-level=info"])
            .arg_path("--config=", &self.folder.join("containerd.toml"))
            .start()?;
        until("containerd answering", CONTAINERD_PATIENCE, &log.display().to_string(), || {
            if !containerd.alive() {
                return Err(Error::Refused(format!("containerd ended: {}", tail_of(&log))));
            }
            let answer = finished(self.ctr().args(["version"]))?;
            Ok((self.socket().exists() && answer.status.success()).then_some(()))
        })?;
        Ok(containerd)
    }

    /// Brings an image from a tar file onto the node.
    pub(crate) fn import(&self, tar: &Path) -> Result<()> {
        let mut import = self.ctr();
        import.args(["images", "import"]);
        output_of(import.arg(tar)).map(|_| ())
    }

    /// Starts the kubelet, in the mount namespace of its containerd, and the proxy.
    pub(crate) fn start_kubelet(&self, containerd: ProcessId) -> Result<[(String, ProcessId); 2]> {
        let name = self.name();
        let kubeconfig = self.folder.join("kubelet.kubeconfig");
        self.pki.client(&name, &format!("system:node:{name}"), Some("system:nodes"))?;
        self.pki.kubeconfig(&name, &kubeconfig)?;
        let settings = self.folder.join("kubelet.json");
        write_json(&settings, &self.kubelet_settings())?;
        write(&self.folder.join("resolv.conf"), format!("nameserver {DNS}\n"))?;
        let log = self.folder.join("kubelet.log");
        let kubelet = Launch::new(&self.place, &log, self.tools.kubernetes("kubelet"))
            .with_mounts_of(containerd)
            .args([
                &format!("--hostname-override={name}"),
                &format!("--node-ip={}", node_address(self.number)),
            ])
            .arg_path("--config=", &settings)
            .arg_path("--kubeconfig=", &kubeconfig)
            .start()?;
        let (tools, place) = (self.tools, &self.place);
        let proxy = start_proxy(tools, place, &self.folder, &name, &self.control)?;
        Ok([(format!("{name}/kubelet"), kubelet), (format!("{name}/proxy"), proxy)])
    }

    fn containerd_settings(&self) -> String {
        let folder = self.folder.display();
        format!(
            r#"version = 2
root = "{folder}/containerd"
state = "/run/containerd"
# containerd runs in a group of the bed; its shims and their pods must not be harder to kill
# than the machine's owner wants, and a bed may lack the right to say so.
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"#
        )
    }

    fn network_settings(&self) -> serde_json::Value {
        json!({
            "cniVersion": "0.4.0",
            "name": "bed",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": true,
                    // Every namespace has routes to the pods, so each sees the other's address.
                    "ipMasq": false,
                    "hairpinMode": true,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": pod_range(self.number)}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        })
    }

    fn kubelet_settings(&self) -> serde_json::Value {
        let nothing_evicts = json!({
            "memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
            "imagefs.available": "0%", "imagefs.inodesFree": "0%",
        });
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": false},
                "x509": {"clientCAFile": self.pki.certificate("ca")},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": format!("unix://{}", self.socket().display()),
            "clusterDNS": [DNS],
            "clusterDomain": "cluster.local",
            "resolvConf": self.folder.join("resolv.conf"),
            // Either version of control groups will do, without systemd.
            "failCgroupV1": false,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.pods_root,
            "enforceNodeAllocatable": [],
            "failSwapOn": false,
            "oomScoreAdj": 0,
            // The machine's disk is not the node's: a full one must evict no pod, and images
            // that cannot be fetched again must not be collected.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": nothing_evicts,
        })
    }
}
