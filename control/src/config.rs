//! The files that the operator writes for its nodes.
//!
//! A node reads [`NodeConfig`] once, at its start; it never reads a TrainSale. What may change
//! while it runs (state, times, limits, what is sold) is in the ledger's partition 0 instead.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::definition::Definition;

/// The version of all files. A node refuses a file of another version.
pub const VERSION: u32 = 1;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadConfig {
    /// It is not what it should be; the message names line, column and field.
    #[error("the configuration cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// It is of another version.
    #[error("the configuration has version {found}; this program reads version {VERSION}")]
    Version {
        /// The version that the file has.
        found: u32,
    },
}

/// What a node needs to know at its start. Its name and address come from the environment
/// (`POD_NAME`, `POD_IP`), since one file serves all nodes of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeConfig {
    /// [`VERSION`].
    pub version: u32,
    /// The sale that the node belongs to: `namespace/name`. Signatures name it.
    pub sale: String,
    /// Whether it sells or only answers questions.
    pub role: Role,
    /// The pool of nodes that it belongs to.
    pub pool: Pool,
    /// Where the ledger is.
    pub ledger: Ledger,
    /// Which Kafka it is in.
    pub kafka: Kafka,
    /// The Redis that helps to draw from the buffer stock. None: draw without its help.
    pub redis: Option<Redis>,
    /// The port for buyers.
    pub http_port: u16,
    /// The port for the operator.
    pub control_port: u16,
    /// How the node knows who a buyer is.
    pub identity: Identity,
    /// How the node knows that an order is paid.
    #[serde(default)]
    pub payment: Payment,
    /// Origins of other sites whose pages may ask, `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
    /// The operator's Ed25519 public key, 64 hex digits.
    pub operator_key: String,
}

/// What a node does.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, strum::Display,
)]
pub enum Role {
    /// Sells from the shares that it owns, and answers questions too.
    Sell,
    /// Answers questions; owns nothing.
    Query,
}

/// Nodes of one weight and shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pool {
    /// The pool's name.
    pub name: String,
    /// A node of weight 2 owns twice as many shares as one of weight 1. 0 for a query node.
    pub weight: u16,
}

/// Where the ledger is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ledger {
    /// Its topic, which is also its name: partition 0 is the pool, the others are the shares.
    pub topic: String,
    /// The topic's id as Kafka writes it (22 characters of base64url). A topic of the same name
    /// with another id is not this ledger, and a node must not serve from it.
    pub topic_id: String,
    /// The topic of the board: one partition, short retention.
    pub board_topic: String,
}

/// Which Kafka, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kafka {
    /// Brokers to ask first: `host:port`, more after commas.
    pub bootstrap_servers: String,
}

/// Which Redis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Redis {
    /// `host:port`.
    pub address: String,
}

/// How a node knows who a buyer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Identity {
    /// A trusted gateway in front says so in a header.
    Header {
        /// The header's name.
        name: String,
        /// The networks that the gateway is in, as `10.0.0.0/8`; none: it is not asked where it is.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        from: Vec<String>,
    },
    /// The buyer shows a signed token (RFC 7519).
    Token {
        /// Who must have issued it.
        issuer: String,
        /// For whom it must be: one of these.
        audiences: Vec<String>,
        /// How it may be signed: `ES256`, `ES384`, `RS256`, `PS256`, `EdDSA`.
        algorithms: Vec<String>,
        /// Where the issuer's keys are.
        keys: Keys,
    },
}

/// Where an issuer's keys (a JWK Set, RFC 7517) are. They are read again while the node runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Keys {
    /// In a file.
    File(PathBuf),
    /// At an address.
    Url(String),
}

/// How a node knows that an order is paid.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Payment {
    /// By its buyer's word: for trying out.
    #[default]
    Sandbox,
    /// By a provider's signed webhook.
    Webhook {
        /// The file with the secrets that the provider may sign with, one a line. It is read
        /// again while the node runs.
        secrets: PathBuf,
    },
}

impl NodeConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// [`BadConfig`] names what is unknown, missing or of another version.
    pub fn read(text: &str) -> Result<Self, BadConfig> {
        version(text)?;
        Ok(serde_json::from_str(text)?)
    }
}

/// What a settle node needs to know at its start. Its name comes from the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SettleConfig {
    /// [`VERSION`].
    pub version: u32,
    /// Where the ledger is.
    pub ledger: Ledger,
    /// Which Kafka it is in.
    pub kafka: Kafka,
    /// The topic that is told of every change of an order.
    pub orders_topic: String,
    /// Its partitions, if it has to be created.
    pub partitions: u16,
    /// On how many brokers each of its records is kept, if it has to be created.
    pub replicas: u8,
    /// How many of them must have it before it counts, if it has to be created.
    pub min_in_sync_replicas: u8,
    /// The port for probes and metrics.
    pub http_port: u16,
}

impl SettleConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// [`BadConfig`] names what is unknown, missing or of another version.
    pub fn read(text: &str) -> Result<Self, BadConfig> {
        version(text)?;
        Ok(serde_json::from_str(text)?)
    }
}

/// What `node init` needs to know to found a ledger, or to check the one that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FoundingConfig {
    /// [`VERSION`].
    pub version: u32,
    /// How far to go.
    pub step: Step,
    /// The ledger's topic, which is also its name.
    pub topic: String,
    /// The board's topic: one partition, retention 10 minutes.
    pub board_topic: String,
    /// Which Kafka.
    pub kafka: Kafka,
    /// Partitions of the ledger's topic: its shares and the pool.
    pub partitions: u16,
    /// On how many brokers each record is kept.
    pub replicas: u8,
    /// How many of them must have it before it is confirmed.
    pub min_in_sync_replicas: u8,
    /// The id that the topic must have, from the sale's status or from the ConfigMap that a
    /// deleted sale has left. With it a topic that is missing, or has another id, is
    /// `LedgerLost` and nothing is created. None: nobody here has seen the ledger yet.
    /// Always there in the step `Genesis`.
    pub topic_id: Option<String>,
    /// The hash that Genesis must have, from the same places. With it a ledger without Genesis
    /// is `LedgerLost`, one with another is `LedgerMismatch`, and none is written.
    pub genesis_hash: Option<String>,
    /// Give up after so many milliseconds and say which part did not answer.
    pub timeout_ms: u32,
    /// What is to be sold. An adopted ledger may sell more by now: that it holds all of this
    /// is not for `init` to check, but that ledger name and shares are these is.
    pub definition: Definition,
}

/// How far the founding goes. The topic's id must be in the sale's status before Genesis is
/// written: otherwise a crash between the two could found a second ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
pub enum Step {
    /// Create the topics where they are missing, compare their settings, and look for Genesis.
    Topics,
    /// All of that, and append Genesis where there is none.
    Genesis,
}

impl FoundingConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// [`BadConfig`] names what is unknown, missing or of another version.
    pub fn read(text: &str) -> Result<Self, BadConfig> {
        version(text)?;
        Ok(serde_json::from_str(text)?)
    }
}

/// Looks at the version alone, so that a newer file is refused for its version and not for
/// the first field that this program does not know.
fn version(text: &str) -> Result<(), BadConfig> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let found = serde_json::from_str::<Versioned>(text)?.version;
    if found == VERSION { Ok(()) } else { Err(BadConfig::Version { found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeConfig {
        NodeConfig {
            version: VERSION,
            sale: "tickets/spring".into(),
            role: Role::Sell,
            pool: Pool { name: "default".into(), weight: 1 },
            ledger: Ledger {
                topic: "tickets.spring".into(),
                topic_id: "q3ZyGgVJQ5mUfqqTCBnK1A".into(),
                board_topic: "tickets.spring.board".into(),
            },
            kafka: Kafka { bootstrap_servers: "kafka:9092".into() },
            redis: Some(Redis { address: "redis:6379".into() }),
            http_port: 8080,
            control_port: 8081,
            identity: Identity::Header { name: "X-Buyer-Id".into(), from: Vec::new() },
            payment: Payment::Sandbox,
            origins: Vec::new(),
            operator_key: "00".repeat(32),
        }
    }

    #[test]
    fn a_file_is_read_back_as_it_was_written() {
        let text = serde_json::to_string_pretty(&node()).unwrap();
        assert_eq!(NodeConfig::read(&text).unwrap(), node());
    }

    #[test]
    fn an_unknown_setting_is_refused_by_its_name() {
        let mut value = serde_json::to_value(node()).unwrap();
        value["ledger"]["retention"] = 1.into();
        let message = NodeConfig::read(&value.to_string()).unwrap_err().to_string();
        assert!(message.contains("retention"), "{message}");
    }

    #[test]
    fn a_newer_file_is_refused_for_its_version() {
        let mut value = serde_json::to_value(node()).unwrap();
        value["version"] = 2.into();
        value["unheardOf"] = true.into();
        let error = NodeConfig::read(&value.to_string()).unwrap_err();
        assert!(matches!(error, BadConfig::Version { found: 2 }), "{error}");
    }
}
