//! The test bed: real engines on one machine, and faults made on purpose.
//!
//! - [`error`]: what can go wrong, said with what to do about it.
//! - [`process`]: starting and ending processes by more than a pid.
//! - [`cache`]: where built things lie.
//! - [`install`]: packages and builds, as root once.
//! - [`kafka`], [`redis`]: the engines, on loopback without root or in a namespace.

pub mod cache;
pub mod error;
pub mod install;
pub mod kafka;
pub mod process;
pub mod redis;

pub use error::{Error, Result};
pub use kafka::KafkaCluster;
pub use redis::Redis;
