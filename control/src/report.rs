//! How a node does and what it sees, asked four times a second; and what partition 0 says,
//! asked when its versions have moved.

use std::collections::BTreeMap;

use inventory::dispatcher as of;
use inventory::words::{BadName, Epoch, Incarnation, ShareId};
use serde::{Deserialize, Serialize};

use crate::config::Role;
use crate::definition::Definition;
use crate::posting::{Assign, Policy};

/// The answer to `GET /control/v1/report`. It tells what the node knows at this moment and
/// never waits for Kafka or Redis: a node that cannot reach them still answers at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    /// The node's name: its pod's.
    pub node: String,
    /// Random, new at every start of the process.
    pub incarnation: u64,
    /// Where its peers and buyers reach it: `host:port`.
    pub address: String,
    /// What it does.
    pub role: Role,
    /// Its weight; 0 for a query node.
    pub weight: u16,
    /// How far it has come.
    pub state: NodeState,
    /// How far it has read partition 0, and what counts there.
    pub pool: PoolPosition,
    /// The shares that it owns: its Claim was accepted and no higher one was read.
    pub shares: Vec<Share>,
    /// The shares that it is about to own: it folds or claims them.
    pub candidates: Vec<u16>,
    /// Every other selling node of which it has read a beat since its start or in the last 10
    /// minutes, whichever is less.
    pub peers: Vec<Peer>,
    /// Whether its view of the board can be trusted. A selling node: a beat of its own, sent
    /// at most 1 s ago, was read back. A query node, which does not beat: a beat of anyone was
    /// read in the last second. While this is false, nothing that it says of peers counts.
    pub own_board_ok: bool,
    /// Whether it uses a Redis, and how it does.
    pub redis: Option<RedisHealth>,
    /// Whether a broker has confirmed or answered anything in the last 5 s.
    pub kafka_ok: bool,
}

/// How far a node has come.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, strum::Display,
)]
pub enum NodeState {
    /// It has not folded the pool and read the board yet.
    Starting,
    /// It serves, and may own shares.
    Ready,
    /// It was told to end: it yields its shares and takes none.
    Draining,
}

/// How far a node has read partition 0, and the versions in force there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolPosition {
    /// The next offset that it will read.
    pub position: u64,
    /// 1 is Genesis; 0 before it was read.
    pub definition_version: u64,
    /// 0 before the first `Assign`.
    pub assign_version: u64,
    /// 0 before the first `Policy`.
    pub policy_version: u64,
}

/// A share that a node owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Share {
    /// Which.
    pub share: u16,
    /// By which claim.
    pub epoch: u32,
    /// Whether it sells from it.
    pub state: ShareState,
}

/// Whether a share is sold from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ShareState {
    /// Its owner still folds it.
    Recovering,
    /// Yes.
    Selling,
    /// No: an entry of its log cannot be applied. Only an `Amend` can help.
    Frozen {
        /// Where that entry is.
        offset: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// Another selling node, as its beats on the board tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Peer {
    /// Its name.
    pub node: String,
    /// The incarnation of its last beat.
    pub incarnation: u64,
    /// How long ago, by this node's monotonic clock, that beat was read.
    pub board_silent_ms: u64,
    /// The shares that it owned by that beat, and by which epoch, unless a higher epoch of
    /// another node was read on the board since.
    pub shares: BTreeMap<u16, u32>,
}

/// How a node does with Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisHealth {
    /// How long ago it last answered. None: never since this process started.
    pub ok_within_ms: Option<u64>,
}

/// The answer to `GET /control/v1/state`: what counts in partition 0, as far as this node has
/// read it. Asked when the versions in a report are not those that the operator knows, and so
/// rarely; a definition is too long to be in every report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InForce {
    /// The position up to which this is true.
    pub position: u64,
    /// The version of the definition.
    pub definition_version: u64,
    /// What is sold.
    pub definition: Definition,
    /// Who should own what. None before the first.
    pub assign: Option<Assign>,
    /// Whether and how the sale goes on. None before the first.
    pub policy: Option<Policy>,
}

impl TryFrom<&Report> for of::Report {
    type Error = BadName;

    fn try_from(r: &Report) -> Result<Self, BadName> {
        let peer = |peer: &Peer| {
            Ok(of::Peer {
                node: peer.node.parse()?,
                incarnation: Incarnation(peer.incarnation),
                silent_ms: peer.board_silent_ms,
                owns: peer.shares.iter().map(|(s, e)| (ShareId(*s), Epoch(*e))).collect(),
            })
        };
        let holding = |share: &Share| of::Holding {
            share: ShareId(share.share),
            epoch: Epoch(share.epoch),
            recovering: share.state == ShareState::Recovering,
        };
        Ok(Self {
            node: r.node.parse()?,
            incarnation: Incarnation(r.incarnation),
            sells: r.role == Role::Sell,
            weight: r.weight,
            state: match r.state {
                NodeState::Starting => of::NodeState::Starting,
                NodeState::Ready => of::NodeState::Ready,
                NodeState::Draining => of::NodeState::Draining,
            },
            owns: r.shares.iter().map(holding).collect(),
            peers: r.peers.iter().map(peer).collect::<Result<_, BadName>>()?,
            board_ok: r.own_board_ok,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            node: "a".into(),
            incarnation: u64::MAX,
            address: "10.1.2.3:8080".into(),
            role: Role::Sell,
            weight: 2,
            state: NodeState::Ready,
            pool: PoolPosition {
                position: 3,
                definition_version: 1,
                assign_version: 1,
                policy_version: 0,
            },
            shares: vec![
                Share { share: 1, epoch: 4, state: ShareState::Recovering },
                Share {
                    share: 2,
                    epoch: 1,
                    state: ShareState::Frozen { offset: 9, why: "it cannot be read".into() },
                },
            ],
            candidates: vec![3],
            peers: vec![Peer {
                node: "b".into(),
                incarnation: 7,
                board_silent_ms: 120,
                shares: [(5, 6)].into(),
            }],
            own_board_ok: true,
            redis: Some(RedisHealth { ok_within_ms: None }),
            kafka_ok: true,
        }
    }

    #[test]
    fn a_report_survives_the_way_through_json() {
        let json = serde_json::to_string(&report()).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report());
    }

    #[test]
    fn what_a_report_says_becomes_a_sign_of_life() {
        let sign = of::Report::try_from(&report()).unwrap();
        assert_eq!((sign.incarnation, sign.weight), (Incarnation(u64::MAX), 2));
        assert_eq!(sign.owns.iter().map(|h| h.recovering).collect::<Vec<_>>(), [true, false]);
        assert_eq!(sign.peers[0].owns, [(ShareId(5), Epoch(6))]);
    }
}
