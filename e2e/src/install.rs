//! Gets everything that the bed runs: Debian's packages, and builds from published sources.
//!
//! No container image and no prebuilt binary is fetched. The first time takes about a quarter
//! of an hour on two cores; after that everything is found in the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::cache::{Recipe, remove_tree, write};
use crate::error::{During, Error, Result, finished, output_of};
use crate::kafka;
use crate::process::is_root;

/// The version of Kubernetes.
pub const KUBERNETES: &str = "1.37.2";

// One module for all, so that what Helm, CoreDNS and Kubernetes have in common is built once.
const GO_MOD: &str = include_str!("../testbed/go.mod");
const GO_SUM: &str = include_str!("../testbed/go.sum");

/// Go programs that are built together; each is called as its package's last part.
struct GoTools {
    name: &'static str,
    version: &'static str,
    /// Go sources of our own, by path.
    sources: &'static [(&'static str, &'static str)],
    packages: &'static [&'static str],
    /// Packages whose variables tell the program its version.
    stamped: &'static [&'static str],
}

const KUBERNETES_TOOLS: GoTools = GoTools {
    name: "kubernetes",
    version: KUBERNETES,
    sources: &[],
    packages: &[
        "k8s.io/kubernetes/cmd/kube-apiserver",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-proxy",
        "k8s.io/kubernetes/cmd/kube-scheduler",
        "k8s.io/kubernetes/cmd/kubectl",
        "k8s.io/kubernetes/cmd/kubelet",
    ],
    stamped: &["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"],
};

const ETCD_TOOLS: GoTools = GoTools {
    name: "etcd",
    version: "3.7.2",
    sources: &[("etcd/main.go", include_str!("../testbed/etcd/main.go"))],
    packages: &["stationmaster.dev/e2e/testbed/etcd"],
    stamped: &[],
};

const COREDNS_TOOLS: GoTools = GoTools {
    name: "coredns",
    version: "1.14.7",
    sources: &[("coredns/main.go", include_str!("../testbed/coredns/main.go"))],
    packages: &["stationmaster.dev/e2e/testbed/coredns"],
    stamped: &[],
};

const HELM_TOOLS: GoTools = GoTools {
    name: "helm",
    version: "4.3.1",
    sources: &[],
    packages: &["helm.sh/helm/v4/cmd/helm"],
    stamped: &[],
};

const GUEST_TOOLS: GoTools = GoTools {
    name: "guest",
    version: "1",
    sources: &[
        ("guest/pause/main.go", include_str!("../testbed/guest/pause/main.go")),
        ("guest/hello/main.go", include_str!("../testbed/guest/hello/main.go")),
    ],
    packages: &[
        "stationmaster.dev/e2e/testbed/guest/pause",
        "stationmaster.dev/e2e/testbed/guest/hello",
    ],
    stamped: &[],
};

impl GoTools {
    fn recipe(&self, flags: &[String]) -> Recipe<'static> {
        let mut inputs = vec![GO_MOD.as_bytes(), GO_SUM.as_bytes()];
        inputs.extend(self.sources.iter().flat_map(|(at, is)| [at.as_bytes(), is.as_bytes()]));
        inputs.extend(self.packages.iter().map(|package| package.as_bytes()));
        // The flags hold the version; leaked once for each of five tools in a short program.
        inputs.push(flags.join(" ").leak().as_bytes());
        Recipe { name: format!("{}-{}", self.name, self.version), inputs }
    }

    fn flags(&self) -> Vec<String> {
        let mut linker = vec!["-s -w".to_owned()];
        let numbers: Vec<&str> = self.version.split('.').collect();
        for package in self.stamped {
            linker.push(format!("-X {package}.gitVersion=v{}", self.version));
            linker.push(format!("-X {package}.gitMajor={}", numbers[0]));
            linker.push(format!("-X {package}.gitMinor={}", numbers[1]));
            linker.push(format!("-X {package}.gitTreeState=archive"));
        }
        vec!["-trimpath".to_owned(), "-ldflags".to_owned(), linker.join(" ")]
    }

    /// The folder with the programs, built unless it is there.
    fn built(&self) -> Result<PathBuf> {
        let flags = self.flags();
        let folder = self.recipe(&flags).built(|folder| {
            require_go()?;
            let source = folder.join("source");
            write(&source.join("go.mod"), GO_MOD)?;
            write(&source.join("go.sum"), GO_SUM)?;
            for (path, text) in self.sources {
                write(&source.join(path), text)?;
            }
            let bin = folder.join("bin");
            fs::create_dir(&bin).during(|| bin.display().to_string())?;
            let mut go = Command::new("go");
            go.arg("build").args(&flags).arg("-o").arg(&bin).args(self.packages);
            go.current_dir(&source);
            go.env("CGO_ENABLED", "0").env("GOWORK", "off").env("GOFLAGS", "-mod=readonly");
            // The compiler's own collector takes a fifth of a build that has memory to spare.
            go.env("GOGC", "400");
            output_of(&mut go)?;
            remove_tree(&source)
        })?;
        Ok(folder.join("bin"))
    }

    fn found(&self) -> Result<Option<PathBuf>> {
        Ok(self.recipe(&self.flags()).found()?.map(|folder| folder.join("bin")))
    }
}

/// Go 1.21 fetches by itself the newer toolchain that a go.mod asks for; older ones cannot.
fn require_go() -> Result<()> {
    let missing = |what: &str| Error::Missing {
        what: what.to_owned(),
        how: "install Go 1.21 or later (Debian 12's own is too old) and put it on the PATH"
            .to_owned(),
    };
    let version = output_of(Command::new("go").arg("version")).map_err(|_| missing("Go"))?;
    // "go version go1.26.8 linux/amd64"
    let number = version.split_whitespace().nth(2).and_then(|word| word.strip_prefix("go1."));
    let minor = number.and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    if minor.is_none_or(|minor| minor < 21) {
        return Err(missing("a Go that is new enough"));
    }
    Ok(())
}

/// Where the built programs are.
#[derive(Debug, Clone)]
pub struct Tools {
    kubernetes: PathBuf,
    etcd: PathBuf,
    coredns: PathBuf,
    helm: PathBuf,
    guest: PathBuf,
}

impl Tools {
    /// A program of Kubernetes: `kubectl`, `kubelet`, …
    #[must_use]
    pub fn kubernetes(&self, program: &str) -> PathBuf {
        self.kubernetes.join(program)
    }

    /// etcd.
    #[must_use]
    pub fn etcd(&self) -> PathBuf {
        self.etcd.join("etcd")
    }

    /// CoreDNS.
    #[must_use]
    pub fn coredns(&self) -> PathBuf {
        self.coredns.join("coredns")
    }

    /// Helm.
    #[must_use]
    pub fn helm(&self) -> PathBuf {
        self.helm.join("helm")
    }

    /// A small program to run in pods: `pause`, or `hello` of the bed's own test.
    #[must_use]
    pub fn guest(&self, program: &str) -> PathBuf {
        self.guest.join(program)
    }

    /// The programs, if they were built before.
    ///
    /// # Errors
    /// When one of them was not.
    pub fn found() -> Result<Self> {
        let need = |tools: &GoTools| {
            tools.found()?.ok_or_else(|| Error::Missing {
                what: format!("{} {}", tools.name, tools.version),
                how: "run `cargo e2e install` as root".to_owned(),
            })
        };
        Ok(Self {
            kubernetes: need(&KUBERNETES_TOOLS)?,
            etcd: need(&ETCD_TOOLS)?,
            coredns: need(&COREDNS_TOOLS)?,
            helm: need(&HELM_TOOLS)?,
            guest: need(&GUEST_TOOLS)?,
        })
    }
}

/// Kubectl and Helm alone, which suffice for an existing cluster.
///
/// # Errors
/// When they are neither in the cache nor can be built.
pub fn client_tools() -> Result<(PathBuf, PathBuf)> {
    Ok((KUBERNETES_TOOLS.built()?.join("kubectl"), HELM_TOOLS.built()?.join("helm")))
}

// A program that shows that a package is there, however it came; then the package.
const PACKAGES: [(&str, &str); 14] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
    ("tar", "tar"),
    ("redis-server", "redis-server"),
    ("wrk", "wrk"),
    ("java", "openjdk-17-jre-headless"),
    ("mvn", "maven"),
];

/// The packages of which nothing is to be found on this machine.
fn missing_packages() -> Vec<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    // Administrators' programs, which a plain user's path may lack.
    folders.extend(["/usr/sbin".into(), "/sbin".into()]);
    let there = |program: &str| {
        if program.starts_with('/') {
            Path::new(program).exists()
        } else {
            folders.iter().any(|folder| folder.join(program).exists())
        }
    };
    PACKAGES.iter().filter(|(program, _)| !there(program)).map(|&(_, package)| package).collect()
}

fn apt(missing: &[&str]) -> Result<()> {
    let advice = || Error::Missing {
        what: format!("what Debian and Ubuntu call {}", missing.join(", ")),
        how: "run this as root, or install them by hand".to_owned(),
    };
    if !is_root() || finished(Command::new("apt-get").arg("--version")).is_err() {
        return Err(advice());
    }
    output_of(Command::new("apt-get").args(["update", "-q"]))?;
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "-q", "--no-install-recommends"]).args(missing);
    output_of(install.env("DEBIAN_FRONTEND", "noninteractive")).map(|_| ())
}

/// One step of an installation: said before and after, with its time.
fn step(
    say: &mut dyn FnMut(&str),
    name: &str,
    there: bool,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    if there {
        say(&format!("{name}: there"));
        return Ok(());
    }
    say(&format!("{name}: …"));
    let begun = Instant::now();
    work()?;
    say(&format!("{name}: done in {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(())
}

/// Installs the Debian packages that are missing.
///
/// # Errors
/// When one cannot be installed, or this is not root on Debian or Ubuntu.
pub fn packages(say: &mut dyn FnMut(&str)) -> Result<()> {
    let missing = missing_packages();
    let name = if missing.is_empty() { "packages" } else { &missing.join(", ") };
    step(say, name, missing.is_empty(), || apt(&missing))
}

/// Installs and builds all that is missing; says each step and its time through `say`.
///
/// # Errors
/// When a package cannot be installed or a build fails.
pub fn install(say: &mut dyn FnMut(&str)) -> Result<Tools> {
    packages(say)?;
    // The shortest first: what is wrong with a tool chain shows before the long build.
    for tools in [GUEST_TOOLS, ETCD_TOOLS, COREDNS_TOOLS, HELM_TOOLS, KUBERNETES_TOOLS] {
        let name = format!("{} {}", tools.name, tools.version);
        step(say, &name, tools.found()?.is_some(), || tools.built().map(|_| ()))?;
    }
    let name = format!("kafka {}", kafka::VERSION);
    step(say, &name, kafka::has_jars()?, || kafka::jars().map(|_| ()))?;
    Tools::found()
}
