//! What a node counts. Handles are resolved here once; nothing is looked up on a hot path.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// A label with a word of a closed set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Word {
    /// The word.
    pub kind: &'static str,
}

/// All counters of a node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Answers to buyers, by kind.
    pub answers: Family<Word, Counter>,
    /// Those of them that wrote something.
    pub written: Counter,
    /// Those of them that said "sold out".
    pub sold_out: Counter,
    /// Answers "busy", by what was missing.
    pub busy: Family<Word, Counter>,
    /// Frames handed to the ledger.
    pub frames: Counter,
    /// Bytes of those frames.
    pub frame_bytes: Counter,
    /// Owners that stopped, by why.
    pub stopped: Family<Word, Counter>,
    /// Shares owned.
    pub shares: Gauge,
    /// Records that did not count, by why.
    pub void: Family<Word, Counter>,
    /// Draws that Redis picked.
    pub draws_redis: Counter,
    /// Draws that were picked from the pool's own fold.
    pub draws_direct: Counter,
    /// Commands to Redis.
    pub redis_commands: Counter,
    /// Commands passed to other nodes.
    pub forwarded: Counter,
    /// Mail that was dropped because the box was full.
    pub mail_dropped: Counter,
    /// Beats published.
    pub beats: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("stationmaster");
        macro_rules! register {
            ($name:literal, $help:literal) => {{
                let metric = Default::default();
                registry.register($name, $help, Clone::clone(&metric));
                metric
            }};
        }
        // The registry keeps clones; the macro's types come from the fields.
        let answers: Family<Word, Counter> = register!("answers", "Answers to buyers");
        let busy: Family<Word, Counter> = register!("busy", "Answers busy, by what was missing");
        let frames: Counter = register!("frames", "Frames handed to the ledger");
        let frame_bytes: Counter = register!("frame_bytes", "Bytes of those frames");
        let stopped: Family<Word, Counter> = register!("owners_stopped", "Owners that stopped");
        let shares: Gauge = register!("shares_owned", "Shares owned");
        let void: Family<Word, Counter> = register!("void_records", "Records that did not count");
        let draws_redis: Counter = register!("draws_redis", "Draws that Redis picked");
        let draws_direct: Counter = register!("draws_direct", "Draws picked without Redis");
        let redis_commands: Counter = register!("redis_commands", "Commands to Redis");
        let forwarded: Counter = register!("forwarded", "Commands passed to other nodes");
        let mail_dropped: Counter = register!("mail_dropped", "Mail dropped for want of room");
        let beats: Counter = register!("beats", "Beats published");
        let written = answers.get_or_create(&Word { kind: "written" }).clone();
        let sold_out = answers.get_or_create(&Word { kind: "sold-out" }).clone();
        Self {
            registry,
            answers,
            written,
            sold_out,
            busy,
            frames,
            frame_bytes,
            stopped,
            shares,
            void,
            draws_redis,
            draws_direct,
            redis_commands,
            forwarded,
            mail_dropped,
            beats,
        }
    }
}

impl Metrics {
    /// Everything in the OpenMetrics text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
