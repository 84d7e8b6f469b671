//! The test bed: real engines on one machine, and faults made on purpose.
//!
//! - [`error`]: what can go wrong, said with what to do about it.
//! - [`process`]: starting and ending processes by more than a pid.
//! - [`cache`]: where built things lie.
//! - [`install`]: packages and builds, as root once.
//! - [`kafka`], [`redis`]: the engines, on loopback without root or in a namespace.
//! - [`image`]: container images from programs of this machine.
//! - [`bed`]: all of it together with Kubernetes; [`fault`]: what can be done to it.
//! - [`cluster`]: the bed, or an existing cluster instead.

pub mod bed;
pub mod cache;
mod cgroup;
pub mod cluster;
mod control;
pub mod error;
pub mod fault;
pub mod image;
pub mod install;
pub mod kafka;
mod network;
mod node;
mod pki;
pub mod process;
pub mod redis;

pub use bed::{Bed, Shape};
pub use cluster::Cluster;
pub use error::{Error, Result};
pub use image::Image;
pub use kafka::KafkaCluster;
pub use network::OneWay;
pub use redis::Redis;
