//! What operator and node say to each other, and nothing else of either.
//!
//! In reading order:
//! - [`config`]: the files that the operator writes for its nodes, in a ConfigMap.
//! - [`definition`]: what a ledger sells, in JSON.
//! - [`founding`]: what `node init` says before it ends, in its termination message.
//! - [`report`]: how a node does and what it sees, asked four times a second.
//! - [`posting`]: what the operator wants appended to partition 0.
//! - [`signature`]: how a node knows that it is the operator who asks.
//!
//! Everything is JSON, and whatever is not known is refused by name: a setting that is silently
//! ignored is worse than a node that says what it does not understand.
//!
//! # The node's control port
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /control/v1/report` | 200 [`report::Report`] |
//! | `GET /control/v1/state` | 200 [`report::InForce`]; 503 while partition 0 is being folded |
//! | `POST /control/v1/plan`, body [`posting::Posting`] | 200 [`posting::Posted`] once the record is in partition 0; 409 if its version is not the one in force plus 1; 422 if it says what cannot be; 503 if the ledger did not answer |
//!
//! Every request carries [`signature::HEADER`]; without a good one the answer is 401. Bodies
//! are at most [`BODY_BYTES_MAX`].

pub mod config;
pub mod definition;
pub mod founding;
pub mod posting;
pub mod report;
pub mod signature;

/// Path of the report.
pub const REPORT_PATH: &str = "/control/v1/report";
/// Path of what partition 0 says.
pub const STATE_PATH: &str = "/control/v1/state";
/// Path of what is to be appended.
pub const PLAN_PATH: &str = "/control/v1/plan";

/// Bytes of a body at most: a definition fills a Kafka record of 1 MB, and is about twice as
/// long in JSON as in the record.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
