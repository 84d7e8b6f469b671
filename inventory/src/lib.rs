//! What may be sold to whom: every decision of Stationmaster, as pure state machines.
//!
//! Nothing here reads a clock, waits, or touches a file or a socket; time and bytes are handed
//! in, and frames and answers are handed out. So the node, local mode, the operator and the
//! simulator run the same machines.
//!
//! In reading order:
//! - [`words`]: ids and units; [`legs`]: parts of a journey; [`stock`]: seats and what is free.
//! - [`definition`]: what a ledger sells, and how it is first divided.
//! - [`allocate`]: which seats a wish gets.

pub mod allocate;
pub mod definition;
pub mod legs;
pub mod stock;
pub mod words;
