//! What the operator is told at its start, by flags or by the environment that the chart sets.

use clap::{Parser, ValueEnum};

/// Runs fleets that sell train tickets, as TrainSales ask.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Settings {
    /// The image of the nodes of new sales that name none.
    #[arg(long, env = "NODE_IMAGE")]
    pub node_image: String,
    /// When the kubelet pulls the nodes' image.
    #[arg(long, env = "NODE_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pub node_image_pull_policy: String,
    /// Namespaces to look after, separated by commas. Empty: all.
    #[arg(long, env = "WATCH_NAMESPACES", default_value = "")]
    pub watch_namespaces: String,
    /// For how long a lease is held without being renewed.
    #[arg(long, env = "LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(4..=300))]
    pub lease_seconds: u16,
    /// The operator's own namespace, where its lease and its key are.
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: String,
    /// The operator's own name, which tells it from another that wants the lease.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// The Secret that holds the operator's key; it is made where it is not there.
    #[arg(long, env = "OPERATOR_KEY_SECRET", default_value = "stationmaster-operator-key")]
    pub operator_key_secret: String,
    /// What is logged: a level, or directives such as `info,operator::fleet=debug`.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// How it is logged.
    #[arg(long, env = "LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// The port of /metrics.
    #[arg(long, env = "METRICS_PORT", default_value_t = 8080)]
    pub metrics_port: u16,
    /// The port of /livez and /readyz.
    #[arg(long, env = "PROBE_PORT", default_value_t = 8081)]
    pub probe_port: u16,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Settings {
    /// The namespaces to look after; empty for all.
    #[must_use]
    pub fn namespaces(&self) -> Vec<String> {
        let names = self.watch_namespaces.split(',').map(str::trim);
        names.filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_separated_by_commas_and_none_means_all() {
        let parse = |text: &str| {
            let args = ["operator", "--node-image", "i", "--pod-namespace", "o", "--pod-name", "p"];
            let args = args.into_iter().chain(["--watch-namespaces", text]);
            Settings::try_parse_from(args).unwrap().namespaces()
        };
        assert_eq!(parse(""), Vec::<String>::new());
        assert_eq!(parse("a, b,"), ["a", "b"]);
    }
}
