//! Network namespaces: one for the control plane, one for each node, joined by a bridge.
//!
//! No namespace has a route outside, and nothing outside has a route in: a load test that runs
//! in here cannot reach anything else. All names begin with the bed's, so that what a killed
//! run left behind can be found without its notes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::cache::write;
use crate::error::{Error, Result, output_of, output_with};

/// The most nodes that the address plan has room for.
pub(crate) const NODES_MAX: u8 = 9;

/// The Services' addresses.
pub(crate) const SERVICES: &str = "10.96.0.0/16";
/// The API server's own Service: the first address of the range.
pub(crate) const API_SERVICE: &str = "10.96.0.1";
/// The control plane.
pub(crate) const CONTROL: &str = "10.201.0.1";
/// The cluster's name server.
pub(crate) const DNS: &str = "10.201.0.2";
/// Redis.
pub(crate) const REDIS: &str = "10.201.0.111";

/// A broker, the first one being 0.
pub(crate) fn kafka_address(broker: u16) -> String {
    format!("10.201.0.{}", 101 + broker)
}

/// A node, the first one being 1.
pub(crate) fn node_address(node: u8) -> String {
    format!("10.201.0.{}", 10 + node)
}

/// The addresses of a node's pods.
pub(crate) fn pod_range(node: u8) -> String {
    format!("10.202.{node}.0/24")
}

/// A cable that works in one direction only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OneWay {
    /// Nothing that is sent to the node arrives.
    Deaf,
    /// Nothing that the node sends arrives.
    Mute,
}

/// The namespaces of one bed.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) bed: String,
}

impl Network {
    /// The namespace of the control plane, Kafka, Redis and whoever plays a client.
    pub(crate) fn cluster(&self) -> String {
        format!("{}-cluster", self.bed)
    }

    /// The namespace of a node.
    pub(crate) fn node(&self, node: u8) -> String {
        format!("{}-node-{node}", self.bed)
    }

    /// The file that names a namespace.
    pub(crate) fn file(name: &str) -> PathBuf {
        PathBuf::from("/run/netns").join(name)
    }

    /// Makes all namespaces with their addresses and routes.
    pub(crate) fn make(&self, nodes: u8, brokers: u16) -> Result<()> {
        let cluster = self.cluster();
        output_of(Command::new("ip").args(["netns", "add", &cluster]))?;
        let mut links = vec![
            "link set lo up".to_owned(),
            "link add br0 type bridge".to_owned(),
            "link set br0 up".to_owned(),
        ];
        let engines = (0..brokers).map(kafka_address);
        let ours = [CONTROL.to_owned(), DNS.to_owned(), REDIS.to_owned()].into_iter();
        links.extend(ours.chain(engines).map(|address| format!("addr add {address}/24 dev br0")));
        for node in 1..=nodes {
            let name = self.node(node);
            output_of(Command::new("ip").args(["netns", "add", &name]))?;
            links.push(format!("link add node-{node} type veth peer name eth0 netns {name}"));
            links.push(format!("link set node-{node} master br0 up"));
            let range = pod_range(node);
            links.push(format!("route add {range} via {} src {CONTROL}", node_address(node)));
        }
        // A program's packet to a Service needs some route before it is sent elsewhere.
        links.push(format!("route add {SERVICES} dev br0 src {CONTROL}"));
        self.batch(&cluster, &links)?;
        (1..=nodes).try_for_each(|node| self.furnish_node(node, nodes))
    }

    fn furnish_node(&self, node: u8, nodes: u8) -> Result<()> {
        let address = node_address(node);
        let mut links = vec![
            "link set lo up".to_owned(),
            format!("addr add {address}/24 dev eth0"),
            "link set eth0 up".to_owned(),
            format!("route add {SERVICES} dev eth0 src {address}"),
        ];
        for other in (1..=nodes).filter(|&other| other != node) {
            let (range, via) = (pod_range(other), node_address(other));
            links.push(format!("route add {range} via {via} src {address}"));
        }
        let name = self.node(node);
        self.batch(&name, &links)?;
        // The second one makes answers between two pods of one node pass the Service rules.
        for setting in ["ipv4/ip_forward", "bridge/bridge-nf-call-iptables"] {
            let path = format!("/proc/sys/net/{setting}");
            let netns = Self::file(&name);
            crate::process::within(&netns, || match fs::write(&path, "1") {
                // Without the module, bridged packets pass no rules, and there is no such file.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                other => crate::error::During::during(other, || path.clone()),
            })??;
        }
        Ok(())
    }

    fn batch(&self, netns: &str, lines: &[String]) -> Result<()> {
        let script = std::env::temp_dir().join(format!("{netns}-{}.ip", std::process::id()));
        write(&script, lines.join("\n"))?;
        let done = output_of(Command::new("ip").args(["-n", netns, "-batch"]).arg(&script));
        // Removed before the result is looked at; a file that stays does no harm.
        let _ = fs::remove_file(&script);
        done.map(|_| ())
    }

    /// Cuts a node off, or joins it again.
    pub(crate) fn link(&self, node: u8, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.cluster(), "link", "set", &format!("node-{node}"), state]);
        output_of(&mut ip).map(|_| ())
    }

    /// Drops what a node would hear, or what it says; or ends both.
    pub(crate) fn hush(&self, node: u8, way: Option<OneWay>) -> Result<()> {
        let mut nft = Command::new("nsenter");
        nft.arg(format!("--net={}", Self::file(&self.node(node)).display()));
        nft.args(["nft", "-f", "-"]);
        // Added before it is deleted, so that it does not matter whether there was one.
        let mut rules = "add table inet bedfault\ndelete table inet bedfault\n".to_owned();
        // Before any rule for Services and behind all of them: nothing passes by another way.
        let hook = match way {
            Some(OneWay::Deaf) => "prerouting priority -400; iifname",
            Some(OneWay::Mute) => "postrouting priority 400; oifname",
            None => "",
        };
        if !hook.is_empty() {
            rules += &format!(
                "table inet bedfault {{\nchain cable {{\ntype filter hook {hook} eth0 drop\n}}\n}}\n"
            );
        }
        output_with(&mut nft, &rules).map(|_| ())
    }

    /// Whether a node's cable is plugged in.
    pub(crate) fn is_linked(&self, node: u8) -> Result<bool> {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.cluster(), "-o", "link", "show", &format!("node-{node}")]);
        Ok(output_of(&mut ip)?.contains("state UP"))
    }

    /// The namespaces of this bed that exist, whoever made them.
    pub(crate) fn existing(&self) -> Vec<String> {
        let Ok(files) = fs::read_dir("/run/netns") else { return Vec::new() };
        let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
        let node = format!("{}-node-", self.bed);
        let is_node =
            |name: &str| name.strip_prefix(&node).is_some_and(|n| n.parse::<u8>().is_ok());
        names.filter(|name| *name == self.cluster() || is_node(name)).collect()
    }

    /// Deletes all namespaces of this bed.
    pub(crate) fn delete(&self) -> Result<()> {
        self.existing().iter().try_for_each(|name| {
            output_of(Command::new("ip").args(["netns", "delete", name])).map(|_| ())
        })
    }
}

/// The number of a node that is named `node-2`.
pub(crate) fn node_number(name: &str, nodes: u8) -> Result<u8> {
    let number = name.strip_prefix("node-").and_then(|digits| digits.parse().ok());
    number.filter(|number| (1..=nodes).contains(number)).ok_or_else(|| {
        Error::Refused(format!("there is no node {name:?}: the bed has node-1 to node-{nodes}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_of_the_bed_have_a_number() {
        assert_eq!(node_number("node-2", 2).unwrap(), 2);
        assert!(node_number("node-3", 2).is_err());
        assert!(node_number("node-0", 2).is_err());
        assert!(node_number("2", 2).is_err());
    }
}
