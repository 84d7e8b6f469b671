//! Logs and metrics.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

use crate::settings::{LogFormat, Settings};

/// Starts logging to standard error. A filter that cannot be read is said, and is `info`.
pub fn start_log(settings: &Settings) {
    let filter = EnvFilter::try_new(&settings.log_level);
    let wrong = filter.as_ref().err().map(ToString::to_string);
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
    if let Some(wrong) = wrong {
        tracing::warn!(wrong, "LOG_LEVEL cannot be read; info is logged");
    }
}

/// How something ended, in a word.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Result {
    /// `ok`, or the error's name.
    pub result: &'static str,
}

/// What was posted, and how that ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Post {
    /// `assign`, `policy` or `amend`.
    pub record: &'static str,
    /// `ok`, or the error's name.
    pub result: &'static str,
}

/// Counters and gauges. A clone counts into the same.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Passes over a sale.
    pub reconciles: Family<Result, Counter>,
    /// Probes of nodes.
    pub probes: Family<Result, Counter>,
    /// Records posted to nodes.
    pub posts: Family<Post, Counter>,
    /// Nodes held to be dead.
    pub evictions: Counter,
    /// Verdicts that could not be given.
    pub deferrals: Counter,
    /// Fleets that are looked after.
    pub fleets: Gauge,
    /// 1 while this process holds the lease.
    pub leader: Gauge,
    registry: Arc<Registry>,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("stationmaster_operator");
        let (reconciles, probes, posts) = Default::default();
        let (evictions, deferrals): (Counter, Counter) = Default::default();
        let (fleets, leader): (Gauge, Gauge) = Default::default();
        let (reconciles, probes): (Family<Result, Counter>, Family<Result, Counter>) =
            (reconciles, probes);
        let posts: Family<Post, Counter> = posts;
        registry.register("reconciles", "Passes over a sale", reconciles.clone());
        registry.register("probes", "Probes of nodes", probes.clone());
        registry.register("posts", "Records posted to nodes", posts.clone());
        registry.register("evictions", "Nodes held to be dead", evictions.clone());
        registry.register("deferrals", "Deaths that nobody could judge", deferrals.clone());
        registry.register("fleets", "Fleets that are looked after", fleets.clone());
        registry.register("leader", "1 while this process holds the lease", leader.clone());
        let registry = Arc::new(registry);
        Self { reconciles, probes, posts, evictions, deferrals, fleets, leader, registry }
    }

    /// As Prometheus reads them.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told() {
        let metrics = Metrics::new();
        metrics.clone().probes.get_or_create(&Result { result: "ok" }).inc();
        let text = metrics.text();
        assert!(text.contains("stationmaster_operator_probes_total{result=\"ok\"} 1"), "{text}");
    }
}
