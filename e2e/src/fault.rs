//! Faults made on purpose: a cable pulled, a process killed or frozen.
//!
//! What a fault hits is looked up before, and hit at a known moment: a test that measures how
//! long recovery takes must not count the time that kubectl needed to find a pod.

use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value;

use crate::bed::Bed;
use crate::cgroup::{folders_below, processes_below};
use crate::error::{Error, Result, output_of};
use crate::network::{OneWay, node_number};
use crate::process::{ProcessId, Signal};

/// A running container of a pod.
#[derive(Debug, Clone)]
pub struct Container {
    /// The node that it runs on.
    pub node: String,
    /// Its pod's address.
    pub address: String,
    /// Its control group, in the hierarchy by which processes are found.
    group: PathBuf,
}

impl Container {
    /// Its processes at this moment.
    #[must_use]
    pub fn processes(&self) -> Vec<ProcessId> {
        processes_below(&self.group)
    }

    /// Sends a signal to all its processes and says when.
    ///
    /// # Errors
    /// When none of them runs any more.
    pub fn signal(&self, signal: Signal) -> Result<Instant> {
        let moment = Instant::now();
        let mut hit = false;
        for process in self.processes() {
            hit |= process.signal(signal)?;
        }
        if hit {
            return Ok(moment);
        }
        Err(Error::Refused(format!("no process is left in {}", self.group.display())))
    }
}

impl Bed {
    /// Finds a container of a pod: the only one, or the one that is named.
    ///
    /// # Errors
    /// When there is no such pod, or its container does not run.
    pub fn container(&self, namespace: &str, pod: &str, name: Option<&str>) -> Result<Container> {
        let mut get = self.kubectl();
        get.args(["get", "pod", "--namespace", namespace, pod, "-o", "json"]);
        let answer: Value = serde_json::from_str(&output_of(&mut get)?)
            .map_err(|error| Error::Refused(format!("kubectl's answer: {error}")))?;
        self.container_of(&answer, name)
    }

    /// The same for a pod of which kubectl's JSON is there already: asking takes a while.
    ///
    /// # Errors
    /// When its container does not run.
    pub fn container_of(&self, answer: &Value, name: Option<&str>) -> Result<Container> {
        let pod = answer["metadata"]["name"].as_str().unwrap_or_default();
        let lost = |what: &str| Error::Refused(format!("pod {pod} has no {what}"));
        let node = answer["spec"]["nodeName"].as_str().ok_or_else(|| lost("node yet"))?;
        let states = answer["status"]["containerStatuses"].as_array();
        let mut states = states.into_iter().flatten();
        let state = match name {
            Some(name) => states.find(|state| state["name"] == name),
            None => states.next(),
        };
        let id = state.and_then(|state| state["containerID"].as_str());
        let id = id.and_then(|id| id.rsplit('/').next()).ok_or_else(|| lost("such container"))?;
        let groups = folders_below(&self.groups().pods(node));
        let group = groups.into_iter().find(|group| group.ends_with(id));
        Ok(Container {
            node: node.to_owned(),
            address: answer["status"]["podIP"].as_str().unwrap_or_default().to_owned(),
            group: group.ok_or_else(|| lost("running container"))?,
        })
    }

    /// Pulls a node's cable: its pods run on, and nothing reaches them or leaves them.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn cut(&self, node: &str) -> Result<Instant> {
        self.set_link(node, false)
    }

    /// Breaks one direction of a node's cable: it can still be heard, or still hear.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn cut_one_way(&self, node: &str, way: OneWay) -> Result<Instant> {
        self.network().hush(node_number(node, self.shape().nodes)?, Some(way))?;
        Ok(Instant::now())
    }

    /// Plugs a node's cable in again, both ways.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn join(&self, node: &str) -> Result<Instant> {
        self.network().hush(node_number(node, self.shape().nodes)?, None)?;
        self.set_link(node, true)
    }

    /// Whether a node's cable is plugged in.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn is_joined(&self, node: &str) -> Result<bool> {
        self.network().is_linked(node_number(node, self.shape().nodes)?)
    }

    fn set_link(&self, node: &str, up: bool) -> Result<Instant> {
        self.network().link(node_number(node, self.shape().nodes)?, up)?;
        Ok(Instant::now())
    }
}
