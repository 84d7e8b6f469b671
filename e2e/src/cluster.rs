//! The cluster that tests and commands use: the bed, or one that exists already.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bed::Bed;
use crate::error::{Error, Result, output_with};
use crate::image::Image;
use crate::install::client_tools;

/// Where to run a test.
#[derive(Debug)]
pub enum Cluster {
    /// Our own, with all its faults to be made.
    Bed(Box<Bed>),
    /// Somebody else's: kubectl and Helm work, faults and images do not.
    Existing(Existing),
}

/// A cluster that is not ours.
#[derive(Debug, Clone)]
pub struct Existing {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    helm: PathBuf,
}

impl Cluster {
    /// The existing cluster if a kubeconfig is given, else the bed of this name, which is up.
    ///
    /// # Errors
    /// When the file is missing, the tools cannot be built, or no such bed is up.
    pub fn open(bed: &str, existing: Option<&Path>) -> Result<Self> {
        let Some(kubeconfig) = existing else {
            return Ok(Self::Bed(Box::new(Bed::open(bed)?)));
        };
        if !kubeconfig.is_file() {
            return Err(Error::Missing {
                what: format!("the kubeconfig {}", kubeconfig.display()),
                how: "name the file of an existing cluster".to_owned(),
            });
        }
        let (kubectl, helm) = client_tools()?;
        Ok(Self::Existing(Existing { kubeconfig: kubeconfig.to_owned(), kubectl, helm }))
    }

    /// kubectl for this cluster.
    #[must_use]
    pub fn kubectl(&self) -> Command {
        match self {
            Self::Bed(bed) => bed.kubectl(),
            Self::Existing(existing) => existing.client(&existing.kubectl),
        }
    }

    /// Helm for this cluster.
    #[must_use]
    pub fn helm(&self) -> Command {
        match self {
            Self::Bed(bed) => bed.helm(),
            Self::Existing(existing) => existing.client(&existing.helm),
        }
    }

    /// Creates or changes what a manifest describes, as `kubectl apply --server-side` does.
    ///
    /// # Errors
    /// When the cluster refuses it.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        output_with(self.kubectl().args(["apply", "--server-side", "-f", "-"]), manifest)
    }

    /// Where Kafka is for pods: the bed's, or what `E2E_KAFKA` says of an existing cluster.
    ///
    /// # Errors
    /// When that is not set.
    pub fn kafka_bootstrap(&self) -> Result<String> {
        match self {
            Self::Bed(bed) => Ok(bed.kafka_bootstrap()),
            Self::Existing(_) => from_environment("E2E_KAFKA", "Kafka"),
        }
    }

    /// Where Redis is for pods: the bed's, or what `E2E_REDIS` says of an existing cluster.
    ///
    /// # Errors
    /// When that is not set.
    pub fn redis_address(&self) -> Result<String> {
        match self {
            Self::Bed(bed) => Ok(bed.redis_address()),
            Self::Existing(_) => from_environment("E2E_REDIS", "Redis"),
        }
    }

    /// The bed, for something that can be done to a bed only.
    ///
    /// # Errors
    /// When this is an existing cluster.
    pub fn bed(&self, deed: &'static str) -> Result<&Bed> {
        match self {
            Self::Bed(bed) => Ok(bed),
            Self::Existing(_) => Err(Error::BedOnly(deed)),
        }
    }

    /// Makes an image and brings it onto every node.
    ///
    /// # Errors
    /// When that fails, or the cluster is not ours.
    pub fn load_image(&self, image: &Image) -> Result<()> {
        self.bed("bringing an image onto the nodes (write it with --output and load it your way)")?
            .load_image(image)
    }
}

fn from_environment(variable: &str, engine: &str) -> Result<String> {
    std::env::var(variable).map_err(|_| Error::Missing {
        what: format!("the address of {engine} beside the existing cluster"),
        how: format!("set {variable} to host:port"),
    })
}

impl Existing {
    fn client(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }
}
