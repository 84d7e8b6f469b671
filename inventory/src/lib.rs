//! What may be sold to whom: every decision of Stationmaster, as pure state machines.
//!
//! Nothing here reads a clock, waits, or touches a file or a socket; time and bytes are handed
//! in, and frames and answers are handed out. So the node, local mode, the operator and the
//! simulator run the same machines.
//!
//! In reading order:
//! - [`words`]: ids and units; [`legs`]: parts of a journey; [`stock`]: seats and what is free.
//! - [`definition`]: what a ledger sells, and how it is first divided; [`catalogue`]: the same
//!   for those who sell by it.
//! - [`allocate`]: which seats a wish gets.
//! - [`entry`]: the ledger's vocabulary; [`codec`], [`wire`]: its bytes.
//! - [`state`]: a share and the life of its orders, which lie in [`orders`]; [`fold`]: which records count.
//! - [`pool`]: partition 0; [`digest`], [`board`]: what is free elsewhere, and proofs of it.
//! - [`claim`]: when a share may be claimed; [`owner`]: owning it;
//!   [`message`]: what nodes say to each other.
//! - [`contend`]: wanting a share; [`draw`]: which blocks; [`conductor`]: all of one node.
//! - [`plan`]: who should own what; [`dispatcher`]: when it is time for another plan.
//! - [`settle`]: what readers outside the fleet are told.
//! - [`teeth`]: bugs that the simulator can plant; never in a product.

pub mod allocate;
pub mod board;
pub mod catalogue;
pub mod claim;
pub mod codec;
pub mod conductor;
pub mod contend;
pub mod definition;
pub mod digest;
pub mod dispatcher;
pub mod draw;
pub mod entry;
pub mod fold;
pub mod legs;
pub mod message;
#[cfg(test)]
mod naive_tests;
pub mod orders;
pub mod owner;
pub mod plan;
pub mod pool;
pub mod settle;
pub mod state;
pub mod stock;
mod stretches;
pub mod teeth;
pub mod wire;
pub mod words;
