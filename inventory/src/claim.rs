//! When a node may claim a share: never over a live owner.
//!
//! Two owners can do no harm (the log decides), but claims over a live owner cost buyers an
//! "unknown". So a claim needs a reason, and every reason is here.

use crate::board::{Board, NodeSeen, NodeState};
use crate::pool::Pool;
use crate::state::ShareState;
use crate::teeth::{self, Bug};
use crate::words::{Epoch, Incarnation, Millis, NodeId, ShareId};

/// How long an owner must be silent before a node claims without being told to: the operator
/// acts within 2 s where it lives; this is for when it does not, and must outlast any pause
/// that a busy machine makes.
pub const SILENCE_MS: u64 = 10_000;

/// How long the node that a Yield names has the share to itself, from when the Yield was read by
/// the one whom a later plan names. It has folded the share, usually, and claims it within
/// milliseconds; one that died meanwhile, or was told to end, never does, and nobody sells until
/// then.
pub const YIELD_MS: u64 = 500;

/// How lately a node must have spoken to stand in line for orphaned shares.
const LIVE_MS: u64 = 1_500;

/// Why a node may claim. Variants are metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Reason {
    /// Nobody ever owned it, and the plan names this node.
    Assigned,
    /// Nobody ever owned it, no plan ever came, and this node is first in line.
    Unplanned,
    /// Its owner gave it to this node, or gave it up and the plan names this node.
    Yielded,
    /// This very process owned it and lost its memory to a delivery error.
    OwnAgain,
    /// This node owned it before it was started anew.
    OwnBefore,
    /// The plan names this node and holds the owner's epoch to be dead.
    Evicted,
    /// The owner is silent, and this node is first in line.
    Silent,
}

/// What a node knows of a share when it thinks of claiming it.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// This node.
    pub me: NodeId,
    /// This process.
    pub incarnation: Incarnation,
    /// The node that the plan names.
    pub assigned: Option<NodeId>,
    /// Whether any plan ever came.
    pub planned: bool,
    /// The epoch that the plan holds to be dead.
    pub evict: Option<Epoch>,
    /// How long the owner is silent; none while own beats do not come back.
    pub silent_ms: Option<u64>,
    /// Whether this node is the first of the live ones in the share's rendezvous order.
    pub first_in_line: bool,
    /// How long ago the Yield was read, in milliseconds.
    pub yielded_ms: u64,
}

impl Standing {
    /// What `me` knows of `share`, but for its Yield: that is known to who folds the share.
    #[must_use]
    pub fn of(
        share: ShareId,
        me: NodeId,
        incarnation: Incarnation,
        (pool, board): (&Pool, &Board),
        mono: Millis,
    ) -> Self {
        let assign = pool.assign();
        Self {
            me,
            incarnation,
            assigned: assign.nodes.get(&share).copied(),
            planned: assign.version > 0,
            evict: assign.evict.get(&share).copied(),
            silent_ms: board.share_silent_ms(mono, share),
            first_in_line: first_in_line(share, board, mono) == Some(me),
            yielded_ms: 0,
        }
    }
}

/// The reason for which a share, folded to its end, may be claimed.
#[must_use]
pub fn may_claim(state: &ShareState, at: &Standing) -> Option<Reason> {
    let mine = at.assigned == Some(at.me);
    let silence_ms = if teeth::has(Bug::ClaimOverLiveOwner) { 500 } else { SILENCE_MS };
    let silent = at.silent_ms.is_some_and(|ms| ms >= silence_ms);
    if state.writer().epoch() == Epoch(0) {
        let unplanned = !at.planned && silent && at.first_in_line;
        return if mine { Some(Reason::Assigned) } else { unplanned.then_some(Reason::Unplanned) };
    }
    if let Some(to) = state.yielded() {
        let named = to == Some(at.me);
        let next = mine && (to.is_none() || at.yielded_ms >= YIELD_MS);
        if named || next {
            return Some(Reason::Yielded);
        }
    }
    if state.writer().incarnation() == Some(at.incarnation) {
        return Some(Reason::OwnAgain);
    }
    if state.yielded().is_none() && state.owner().is_some_and(|(node, _)| node == at.me) {
        return Some(Reason::OwnBefore);
    }
    if mine && at.evict == Some(state.writer().epoch()) {
        return Some(Reason::Evicted);
    }
    (silent && at.first_in_line).then_some(Reason::Silent)
}

/// The node to which an owner should yield a share: the plan names another, that is ready, and has
/// folded the share, which may take it seconds in which nobody would sell. An owner that has to go
/// soon does not wait for that.
#[must_use]
pub fn should_yield(
    share: ShareId,
    me: NodeId,
    (pool, board): (&Pool, &Board),
    mono: Millis,
    in_haste: bool,
) -> Option<NodeId> {
    let named = *pool.assign().nodes.get(&share)?;
    let able =
        |n: &NodeSeen| n.state == NodeState::Ready && (in_haste || n.folded.contains(&share));
    let ready = board.live(mono, LIVE_MS).any(|(node, seen)| node == named && able(seen));
    (named != me && ready).then_some(named)
}

/// The live, ready node that is first in the share's rendezvous order (highest random weight),
/// so that survivors agree without speaking.
#[must_use]
pub fn first_in_line(share: ShareId, board: &Board, mono: Millis) -> Option<NodeId> {
    let ready = board.live(mono, LIVE_MS).filter(|(_, n)| n.state == NodeState::Ready);
    ready.map(|(n, _)| n).max_by_key(|node| weight(share, *node))
}

fn weight(share: ShareId, node: NodeId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("stationmaster 2026 rendezvous");
    hasher.update(&share.0.to_le_bytes()).update(node.as_str().as_bytes());
    *hasher.finalize().as_bytes()
}

/// How long to wait before claiming again after `fruitless` Claims: doubling, so that two
/// nodes that both believe to be next stop meeting; at most the silence that allows a claim.
#[must_use]
pub fn patience_ms(fruitless: u32) -> u64 {
    if fruitless == 0 {
        return 0;
    }
    (100 << fruitless.min(7)).min(SILENCE_MS)
}
