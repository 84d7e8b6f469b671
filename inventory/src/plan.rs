//! Which node should own which share: a pure choice, and a separate judge of it.
//!
//! [`plan`] divides the shares over the ready nodes in proportion to their weights, and moves
//! as few as that allows. [`check`] says what is wrong with any plan, whoever made it; it
//! shares no code with [`plan`], so that a mistake in one is found by the other.
//!
//! A plan is a hint: the ledger's claims decide who owns. A bad plan costs time, never a seat.

use std::collections::{BTreeMap, BTreeSet};

use crate::words::{Epoch, NodeId, ShareId};

/// Which node should own which share, and whose epochs are over. It is the record itself, so
/// that what was planned is what is written.
pub use crate::entry::Assign as SharePlan;

/// What a plan is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// How many shares there are.
    pub shares: u16,
    /// The selling nodes, every owner among them.
    pub nodes: BTreeMap<NodeId, Member>,
    /// Who owns each share, as far as anyone knows: by the highest epoch that was seen.
    pub owners: BTreeMap<ShareId, Owned>,
}

/// A selling node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// A node of weight 2 owns twice as many shares as one of weight 1; 0 gets none.
    pub weight: u16,
    /// What may be asked of it.
    pub state: MemberState,
}

/// What may be asked of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// It may own shares.
    Ready,
    /// It starts, or is not to be reached at the moment: it keeps what it has and gets nothing.
    Starting,
    /// It is about to go: its shares move, and it yields them itself.
    Draining,
    /// It is held to be dead: its shares move, and its epochs are over.
    Dead,
}

/// An owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    /// Which node claimed the share.
    pub node: NodeId,
    /// By which epoch.
    pub epoch: Epoch,
    /// The process that claimed it is known to have ended, though a node of its name may live:
    /// nobody will yield it.
    pub lost: bool,
}

impl Fleet {
    fn state(&self, node: &NodeId) -> Option<MemberState> {
        self.nodes.get(node).filter(|m| m.weight > 0).map(|m| m.state)
    }
}

/// Divides the shares anew, starting from `parent`. Gives back `parent` itself when nothing
/// has to change, and also when no node is ready: moving shares to nobody helps nobody.
#[must_use]
pub fn plan(parent: &SharePlan, fleet: &Fleet) -> SharePlan {
    let mut held = holdings(parent, fleet);
    let orphans = release(&mut held, fleet);
    let Some(orphans) = orphans else { return parent.clone() };
    let mut nodes: BTreeMap<ShareId, NodeId> = BTreeMap::new();
    for (node, holding) in &held {
        nodes.extend(holding.shares.iter().map(|share| (*share, *node)));
    }
    for share in orphans {
        // The hungriest first, so that a dead node's shares spread over all survivors.
        let next = held.iter_mut().max_by_key(|(node, h)| (h.lacks(), std::cmp::Reverse(**node)));
        let Some((node, holding)) = next else { return parent.clone() };
        holding.shares.insert(share);
        nodes.insert(share, *node);
    }
    let over = |owned: &Owned| owned.lost || fleet.state(&owned.node) == Some(MemberState::Dead);
    let owners = fleet.owners.iter();
    let evict: BTreeMap<ShareId, Epoch> =
        owners.filter(|(_, owned)| over(owned)).map(|(share, o)| (*share, o.epoch)).collect();
    // An eviction whose share has been claimed since is out of date but does no harm, and is
    // no reason for another version.
    let known = evict.iter().all(|(share, epoch)| parent.evict.get(share) == Some(epoch));
    if nodes == parent.nodes && known {
        return parent.clone();
    }
    SharePlan { version: parent.version + 1, nodes, evict }
}

/// What a node has and should have.
struct Holding {
    shares: BTreeSet<ShareId>,
    quota: usize,
}

impl Holding {
    fn lacks(&self) -> usize {
        self.quota.saturating_sub(self.shares.len())
    }
}

/// Who has what before anything moves: the node that the parent names, or else the owner, if
/// it may keep it.
fn holdings(parent: &SharePlan, fleet: &Fleet) -> BTreeMap<NodeId, Holding> {
    let keeps = |node: &NodeId| {
        matches!(fleet.state(node), Some(MemberState::Ready | MemberState::Starting))
    };
    let empty = || Holding { shares: BTreeSet::new(), quota: 0 };
    let able = fleet.nodes.keys().filter(|node| keeps(node));
    let mut held: BTreeMap<NodeId, Holding> = able.map(|node| (*node, empty())).collect();
    for share in (1..=fleet.shares).map(ShareId) {
        let named = parent.nodes.get(&share).filter(|node| keeps(node));
        let owner = || fleet.owners.get(&share).map(|o| &o.node).filter(|node| keeps(node));
        if let Some(holding) = named.or_else(owner).and_then(|node| held.get_mut(node)) {
            holding.shares.insert(share);
        }
    }
    held
}

/// Sets everyone's quota and takes away what is above it. Gives the shares that nobody has, or
/// none if no node is ready.
fn release(held: &mut BTreeMap<NodeId, Holding>, fleet: &Fleet) -> Option<BTreeSet<ShareId>> {
    let ready = |node: &NodeId| fleet.state(node) == Some(MemberState::Ready);
    let weight = |node: &NodeId| fleet.nodes.get(node).map_or(0, |m| usize::from(m.weight));
    let total: usize = held.keys().filter(|n| ready(n)).map(weight).sum();
    if total == 0 {
        return None;
    }
    let mut shared = usize::from(fleet.shares);
    for (_, holding) in held.iter_mut().filter(|(node, _)| !ready(node)) {
        holding.quota = holding.shares.len();
        shared -= holding.quota;
    }
    let mut rest = shared;
    let mut fractions = Vec::new();
    for (node, holding) in held.iter_mut().filter(|(node, _)| ready(node)) {
        holding.quota = shared * weight(node) / total;
        rest -= holding.quota;
        let fraction = shared * weight(node) % total;
        // Rounding up where one more is held already saves a move.
        let holds_more = holding.shares.len() > holding.quota;
        if fraction > 0 {
            fractions.push((std::cmp::Reverse((holds_more, fraction)), *node));
        }
    }
    fractions.sort_unstable();
    for (_, node) in fractions.into_iter().take(rest) {
        held.get_mut(&node)?.quota += 1;
    }
    let mut orphans: BTreeSet<ShareId> = (1..=fleet.shares).map(ShareId).collect();
    for (node, holding) in held {
        give_up(*node, holding, fleet);
        orphans.retain(|share| !holding.shares.contains(share));
    }
    Some(orphans)
}

/// Takes away what a node has above its quota: first what it has not claimed yet, since that
/// moves nothing but words.
fn give_up(node: NodeId, holding: &mut Holding, fleet: &Fleet) {
    let owns = |share: &ShareId| fleet.owners.get(share).is_some_and(|o| o.node == node && !o.lost);
    let mut order: Vec<ShareId> = holding.shares.iter().copied().collect();
    order.sort_by_key(|share| (!owns(share), *share));
    for share in order.drain(holding.quota.min(order.len())..) {
        holding.shares.remove(&share);
    }
}

/// What is wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Finding {
    /// It would not count.
    #[error("it has version {found} where {expected} follows")]
    Version {
        /// The version that it has.
        found: u64,
        /// The one that would count.
        expected: u64,
    },
    /// It differs from its parent in nothing.
    #[error("it is a new version that says nothing new")]
    Empty,
    /// It gives away shares though nobody could take them.
    #[error("it changes something though no node is ready")]
    NobodyReady,
    /// A share has no node.
    #[error("share {share} is given to nobody")]
    Unassigned {
        /// Which.
        share: ShareId,
    },
    /// There is no such share.
    #[error("there is no share {share}")]
    NoSuchShare {
        /// Which.
        share: ShareId,
    },
    /// A node is to own a share that it cannot take.
    #[error("share {share} is given to {node}, which cannot take it")]
    Unable {
        /// Which share.
        share: ShareId,
        /// To whom.
        node: NodeId,
    },
    /// A node has more or less than its weight is worth.
    #[error("{node} has {has} shares, and should have {least} to {most}")]
    OutOfProportion {
        /// Which node.
        node: NodeId,
        /// How many it has.
        has: usize,
        /// How many it should have at least.
        least: usize,
        /// How many at most.
        most: usize,
    },
    /// More shares move than have to.
    #[error("{moved} shares move where {needed} would do")]
    NeedlessMoves {
        /// How many move.
        moved: usize,
        /// How many have to.
        needed: usize,
    },
    /// A living owner is declared dead.
    #[error("share {share} is taken from a living owner")]
    EvictsTheLiving {
        /// Which share.
        share: ShareId,
    },
    /// A dead owner is not, so nobody may claim its share.
    #[error("share {share} of a dead owner is not freed at its epoch")]
    KeepsTheDead {
        /// Which share.
        share: ShareId,
    },
}

/// Everything that is wrong with `p` as the successor of `parent`.
#[must_use]
pub fn check(p: &SharePlan, parent: &SharePlan, fleet: &Fleet) -> Vec<Finding> {
    let mut findings = Vec::new();
    let any_ready =
        fleet.nodes.values().any(|m| m.weight > 0 && matches!(m.state, MemberState::Ready));
    if !any_ready {
        return if p == parent { findings } else { vec![Finding::NobodyReady] };
    }
    if p != parent {
        if p.version != parent.version + 1 {
            let expected = parent.version + 1;
            findings.push(Finding::Version { found: p.version, expected });
        }
        if p.nodes == parent.nodes && p.evict == parent.evict {
            findings.push(Finding::Empty);
        }
    }
    check_names(p, parent, fleet, &mut findings);
    check_proportion(p, parent, fleet, &mut findings);
    check_evictions(p, parent, fleet, &mut findings);
    findings
}

/// Who had the share before and could go on having it.
fn previous(share: ShareId, parent: &SharePlan, fleet: &Fleet) -> Option<(NodeId, MemberState)> {
    let of = |node: NodeId| fleet.nodes.get(&node).map(|m| (node, *m));
    let stays = |(node, member): (NodeId, Member)| match member.state {
        MemberState::Ready | MemberState::Starting if member.weight > 0 => {
            Some((node, member.state))
        }
        _ => None,
    };
    let named = parent.nodes.get(&share).copied().and_then(of).and_then(stays);
    named.or_else(|| fleet.owners.get(&share).and_then(|o| of(o.node)).and_then(stays))
}

fn check_names(p: &SharePlan, parent: &SharePlan, fleet: &Fleet, findings: &mut Vec<Finding>) {
    for share in p.nodes.keys().chain(p.evict.keys()) {
        if share.0 == 0 || share.0 > fleet.shares {
            findings.push(Finding::NoSuchShare { share: *share });
        }
    }
    for share in (1..=fleet.shares).map(ShareId) {
        let Some(node) = p.nodes.get(&share) else {
            findings.push(Finding::Unassigned { share });
            continue;
        };
        let able = match fleet.nodes.get(node) {
            Some(Member { weight: 1.., state: MemberState::Ready }) => true,
            Some(Member { weight: 1.., state: MemberState::Starting }) => {
                previous(share, parent, fleet).is_some_and(|(before, _)| before == *node)
            }
            _ => false,
        };
        if !able {
            findings.push(Finding::Unable { share, node: *node });
        }
    }
}

fn check_proportion(p: &SharePlan, parent: &SharePlan, fleet: &Fleet, findings: &mut Vec<Finding>) {
    let mut before: BTreeMap<NodeId, usize> = BTreeMap::new();
    let (mut shared, mut kept) = (usize::from(fleet.shares), 0);
    for share in (1..=fleet.shares).map(ShareId) {
        match previous(share, parent, fleet) {
            Some((_, MemberState::Starting)) => shared -= 1,
            Some((node, _)) => *before.entry(node).or_default() += 1,
            None => continue,
        }
        let now = p.nodes.get(&share);
        kept += usize::from(previous(share, parent, fleet).map(|(node, _)| node).as_ref() == now);
    }
    let ready = fleet.nodes.iter().filter(|(_, m)| m.state == MemberState::Ready);
    let weights: Vec<(NodeId, usize)> = ready.map(|(n, m)| (*n, usize::from(m.weight))).collect();
    let total: usize = weights.iter().map(|(_, weight)| weight).sum();
    let (mut could_stay, mut floors, mut could_round_up) = (0, 0, 0);
    for (node, weight) in weights {
        let least = shared * weight / total;
        let most = (shared * weight).div_ceil(total);
        let has = p.nodes.values().filter(|named| **named == node).count();
        if !(least..=most).contains(&has) {
            findings.push(Finding::OutOfProportion { node, has, least, most });
        }
        let had = before.get(&node).copied().unwrap_or(0);
        floors += least;
        could_stay += had.min(least);
        could_round_up += usize::from(had > least && most > least);
    }
    // The best that any division could do: everyone keeps the lesser of what it had and its
    // floor, and as many as may round up keep one more.
    could_stay += could_round_up.min(shared - floors);
    let had: usize = before.values().sum();
    let starting = usize::from(fleet.shares) - shared;
    let (moved, needed) = ((had + starting) - kept, had - could_stay);
    if moved > needed {
        findings.push(Finding::NeedlessMoves { moved, needed });
    }
}

fn check_evictions(p: &SharePlan, parent: &SharePlan, fleet: &Fleet, findings: &mut Vec<Finding>) {
    let is_over = |owned: &Owned| {
        let member = fleet.nodes.get(&owned.node);
        owned.lost || member.is_some_and(|m| m.weight > 0 && m.state == MemberState::Dead)
    };
    for (share, owned) in &fleet.owners {
        if is_over(owned) && p.evict.get(share) != Some(&owned.epoch) {
            findings.push(Finding::KeepsTheDead { share: *share });
        }
    }
    for (share, epoch) in &p.evict {
        let justified =
            fleet.owners.get(share).is_some_and(|owned| is_over(owned) && owned.epoch == *epoch);
        // What the parent said once may stand as long as nothing new is said.
        if !justified && p != parent {
            findings.push(Finding::EvictsTheLiving { share: *share });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn fleet(shares: u16, nodes: &[(&str, u16, MemberState)]) -> Fleet {
        let member = |&(name, weight, state): &(&str, u16, MemberState)| {
            (node(name), Member { weight, state })
        };
        Fleet { shares, nodes: nodes.iter().map(member).collect(), owners: BTreeMap::new() }
    }

    /// The plan, judged, and obeyed: every share is then owned by the node that it names.
    fn obey(parent: &SharePlan, fleet: &mut Fleet) -> SharePlan {
        let next = plan(parent, fleet);
        assert_eq!(check(&next, parent, fleet), []);
        for (share, node) in &next.nodes {
            let before = fleet.owners.get(share).copied();
            if before.is_none_or(|o| o.node != *node || o.lost) {
                let epoch = Epoch(before.map_or(0, |o| o.epoch.0) + 1);
                fleet.owners.insert(*share, Owned { node: *node, epoch, lost: false });
            }
        }
        next
    }

    fn count(p: &SharePlan, name: &str) -> usize {
        p.nodes.values().filter(|n| **n == node(name)).count()
    }

    use MemberState::{Dead, Draining, Ready, Starting};

    #[test]
    fn shares_follow_the_weights() {
        let mut fleet = fleet(16, &[("a", 1, Ready), ("b", 1, Ready), ("c", 2, Ready)]);
        let first = obey(&SharePlan::default(), &mut fleet);
        assert_eq!((count(&first, "a"), count(&first, "b"), count(&first, "c")), (4, 4, 8));
        assert_eq!(first.version, 1);
    }

    #[test]
    fn a_settled_fleet_gets_no_new_plan() {
        let mut fleet = fleet(16, &[("a", 1, Ready), ("b", 1, Ready), ("c", 1, Ready)]);
        let first = obey(&SharePlan::default(), &mut fleet);
        assert_eq!(plan(&first, &fleet), first);
    }

    #[test]
    fn a_dead_node_s_shares_spread_over_the_survivors_and_no_other_moves() {
        let mut fleet = fleet(16, &[("a", 1, Ready), ("b", 1, Ready), ("c", 1, Ready)]);
        let first = obey(&SharePlan::default(), &mut fleet);
        fleet.nodes.get_mut(&node("b")).unwrap().state = Dead;
        let second = obey(&first, &mut fleet);
        let moved = first.nodes.iter().filter(|(share, n)| second.nodes[share] != **n).count();
        assert_eq!(moved, count(&first, "b"));
        assert_eq!((count(&second, "a"), count(&second, "c")), (8, 8));
        assert_eq!(second.evict.len(), count(&first, "b"));
    }

    #[test]
    fn an_eviction_that_was_claimed_is_no_reason_for_a_new_version() {
        let mut fleet = fleet(4, &[("a", 1, Ready), ("b", 1, Ready)]);
        let first = obey(&SharePlan::default(), &mut fleet);
        fleet.nodes.get_mut(&node("b")).unwrap().state = Dead;
        let second = obey(&first, &mut fleet);
        assert!(!second.evict.is_empty());
        assert_eq!(plan(&second, &fleet), second);
        assert_eq!(check(&second, &second, &fleet), []);
    }

    #[test]
    fn a_draining_node_s_shares_move_and_are_not_taken_from_it() {
        let mut fleet = fleet(8, &[("a", 1, Ready), ("b", 1, Ready)]);
        let first = obey(&SharePlan::default(), &mut fleet);
        fleet.nodes.get_mut(&node("a")).unwrap().state = Draining;
        let second = obey(&first, &mut fleet);
        assert_eq!((count(&second, "a"), count(&second, "b")), (0, 8));
        assert!(second.evict.is_empty());
    }

    #[test]
    fn a_starting_node_keeps_what_it_had_and_gets_nothing() {
        let mut fleet = fleet(9, &[("a", 1, Ready), ("b", 1, Ready), ("c", 1, Ready)]);
        let first = obey(&SharePlan::default(), &mut fleet);
        fleet.nodes.get_mut(&node("a")).unwrap().state = Starting;
        fleet.nodes.get_mut(&node("b")).unwrap().state = Dead;
        let second = obey(&first, &mut fleet);
        let counts = (count(&second, "a"), count(&second, "b"), count(&second, "c"));
        assert_eq!(counts, (3, 0, 6));
    }

    #[test]
    fn a_share_whose_process_ended_is_freed_at_its_epoch() {
        let mut fleet = fleet(2, &[("a", 1, Ready), ("b", 1, Ready)]);
        let first = obey(&SharePlan::default(), &mut fleet);
        let share = *first.nodes.iter().find(|(_, n)| **n == node("a")).unwrap().0;
        fleet.owners.get_mut(&share).unwrap().lost = true;
        let second = obey(&first, &mut fleet);
        assert_eq!(second.nodes, first.nodes);
        assert_eq!(second.evict, [(share, Epoch(1))].into());
    }

    #[test]
    fn without_a_ready_node_nothing_changes() {
        let mut fleet = fleet(4, &[("a", 1, Ready)]);
        let first = obey(&SharePlan::default(), &mut fleet);
        fleet.nodes.get_mut(&node("a")).unwrap().state = Dead;
        assert_eq!(plan(&first, &fleet), first);
    }

    #[test]
    fn the_judge_finds_each_kind_of_mistake() {
        let mut fleet = fleet(6, &[("a", 1, Ready), ("b", 1, Ready), ("d", 1, Dead)]);
        let first = obey(&SharePlan::default(), &mut fleet);
        fleet.owners.get_mut(&ShareId(1)).unwrap().node = node("d");
        let good = plan(&first, &fleet);
        let with = |edit: &dyn Fn(&mut SharePlan)| {
            let mut bad = good.clone();
            edit(&mut bad);
            check(&bad, &first, &fleet).into_iter().map(<&str>::from).collect::<Vec<_>>()
        };
        assert_eq!(with(&|_| ()), Vec::<&str>::new());
        assert_eq!(with(&|p| p.version = 9), ["version"]);
        let name = |share, name: &str| {
            let name = node(name);
            with(&move |p| p.nodes.extend([(ShareId(share), name)]))
        };
        assert!(with(&|p| p.nodes.retain(|s, _| s.0 != 2)).contains(&"unassigned"));
        assert!(name(2, "d").contains(&"unable"));
        assert!(name(7, "a").contains(&"no-such-share"));
        let evict = |p: &mut SharePlan| p.evict.extend([(ShareId(2), Epoch(1))]);
        assert_eq!(with(&evict), ["evicts-the-living"]);
        assert_eq!(with(&|p| p.evict.clear()), ["empty", "keeps-the-dead"]);
        let swap = |p: &mut SharePlan| {
            for name in p.nodes.values_mut() {
                *name = if *name == node("a") { node("b") } else { node("a") };
            }
        };
        assert_eq!(with(&swap), ["needless-moves"]);
        let pile = |p: &mut SharePlan| p.nodes.values_mut().for_each(|name| *name = node("a"));
        assert!(with(&pile).contains(&"out-of-proportion"));
    }

    fn states() -> impl Strategy<Value = MemberState> {
        prop::sample::select(vec![Ready, Ready, Ready, Starting, Draining, Dead])
    }

    /// Any fleet and any parent, also such as no history would give.
    fn anything() -> impl Strategy<Value = (SharePlan, Fleet)> {
        let members = prop::collection::vec((0_u16..5, states()), 0..9);
        (1_u16..40, members).prop_flat_map(|(shares, members)| {
            let names: Vec<NodeId> = (0..9).map(|i| node(&format!("n{i}"))).collect();
            let count = members.len();
            let nodes = names.iter().copied().zip(members);
            let nodes: BTreeMap<_, _> =
                nodes.map(|(n, (weight, state))| (n, Member { weight, state })).collect();
            let share = (1..=shares).prop_map(ShareId);
            let name = prop::sample::select(names);
            let named = prop::collection::btree_map(share.clone(), name, 0..40);
            let owned = (0..count.max(1), 1_u32..4, prop::bool::weighted(0.2));
            let owners = prop::collection::btree_map(share.clone(), owned, 0..40);
            let evict = prop::collection::btree_map(share, (1_u32..4).prop_map(Epoch), 0..9);
            (named, owners, evict, any::<u8>(), Just(nodes)).prop_map(
                move |(named, owners, evict, version, nodes)| {
                    let owner = |at: usize| nodes.keys().nth(at).copied();
                    let owners = owners.into_iter().filter_map(|(share, (at, epoch, lost))| {
                        Some((share, Owned { node: owner(at)?, epoch: Epoch(epoch), lost }))
                    });
                    let parent = SharePlan { version: u64::from(version), nodes: named, evict };
                    let owners = owners.collect();
                    (parent, Fleet { shares, nodes, owners })
                },
            )
        })
    }

    proptest! {
        #[test]
        fn the_judge_finds_nothing_wrong_with_any_plan((parent, fleet) in anything()) {
            let next = plan(&parent, &fleet);
            let findings = check(&next, &parent, &fleet);
            prop_assert!(findings.is_empty(), "{findings:?}");
        }

        #[test]
        fn a_plan_has_nothing_to_add_to_itself((parent, fleet) in anything()) {
            let next = plan(&parent, &fleet);
            prop_assert_eq!(plan(&next, &fleet), next);
        }

        #[test]
        fn any_plan_that_is_obeyed_settles_at_once((parent, fleet) in anything()) {
            let mut fleet = fleet;
            let next = plan(&parent, &fleet);
            let findings = check(&next, &parent, &fleet);
            prop_assert!(findings.is_empty(), "{findings:?}");
            for (share, name) in &next.nodes {
                let owned = Owned { node: *name, epoch: Epoch(9), lost: false };
                fleet.owners.insert(*share, owned);
            }
            prop_assert_eq!(plan(&next, &fleet), next);
        }
    }
}
