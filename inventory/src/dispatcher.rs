//! Signs of life in; plans, policies, pods to delete and events out. Reads no clock and does
//! no I/O, so that the operator, local mode and the simulator drive one machine.
//!
//! A node is dead when two witnesses agree who cannot be wrong for the same reason: its own
//! control port has not answered for [`DEAD_MS`] (or was refused for [`ENDED_MS`]: no process is
//! there), and a node that hears the board well has not heard it there for as long. "Pod not
//! ready" is no sign: it is 50 s late, and true of a node that only drains. Who hears nobody at
//! all cannot tell death from trouble with Kafka, so then nothing is decided, and that is said.
//!
//! Nothing here is needed for a sale to be correct: a wrong verdict costs an owner its share,
//! and its buyers a retry. What must not happen is a fleet that evicts itself.

use std::collections::{BTreeMap, BTreeSet};

pub use crate::board::NodeState;
use crate::entry::{Limits, Policy, SaleState};
use crate::plan::{Fleet, Member, MemberState, Owned, SharePlan, check, plan};
use crate::words::{Epoch, Incarnation, Millis, NodeId, ShareId};

/// How long both witnesses must miss a node. An owner beats at least every 200 ms and is asked
/// every 250 ms, so this is six of either in a row; with a post, a claim and a fold after it,
/// seats sell again within 3 s.
pub const DEAD_MS: u64 = 1_500;

/// How long both witnesses must miss a node whose machine says that nothing listens on its
/// control port: a process that is paused, slow or cut off does not give that answer, so it has
/// ended. Three probes and two beats in a row, so that a port that was closed and opened again,
/// or a beat that is late, ends nobody.
pub const ENDED_MS: u64 = 500;

/// How long a node that is heard on the board must not have answered before that is told: most
/// of those that do not answer are dead, and their last beats are only on their way.
const UNREACHABLE_MS: u64 = 5_000;

/// Probes that must have failed: one is a lost packet, or this process having slept.
const FAILED_PROBES_MIN: u32 = 2;

/// How old a report may be to bear witness: two rounds of probes and a late one.
const WITNESS_MS: u64 = 1_000;

/// How long a node that starts anew keeps its shares. A small share is folded sooner, and then
/// nothing moves; a node that needs longer loses them in time for the promise of 3 s.
const STARTING_MS: u64 = 1_000;

/// How long the first plan waits for more nodes, counted from the first ready one: pods of one
/// Deployment are ready within a few seconds of each other, and every share then moves once
/// less. Shorter than the 10 s after which nodes claim without any plan.
const FIRST_PLAN_MS: u64 = 5_000;

/// How long a posting may take to be seen in force before it is posted again, perhaps through
/// another node. An append takes milliseconds; a broker that fails over takes longer than
/// this, but a record that comes twice counts once.
const POST_AGAIN_MS: u64 = 1_000;

/// How long the deletion of a dead node's pod may take to be seen before it is asked again.
const DELETE_AGAIN_MS: u64 = 5_000;

/// Nodes that are kept in mind: at most 1,024 shares have owners, and a roll-out doubles them;
/// twice that is more than any fleet has. Further names are not heard.
const NODES_MAX: usize = 4_096;

/// What was seen, heard or wished for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sign {
    /// A probe was answered.
    Answered(Box<Report>),
    /// A probe was not answered, or not with a report.
    Unanswered {
        /// Which node was asked.
        node: NodeId,
        /// When it was asked.
        asked: Millis,
        /// Whether its machine said that nothing listens there.
        refused: bool,
    },
    /// There is a pod of this name.
    PodSeen {
        /// The node, by its pod's name.
        node: NodeId,
        /// Whether it sells, by its labels.
        sells: bool,
        /// Whether it has been told to end.
        leaving: bool,
    },
    /// There is no pod of this name any more.
    PodGone {
        /// The node, by its pod's name.
        node: NodeId,
    },
    /// What counts in partition 0, as a node has read it. Nothing is posted before the first.
    InForce {
        /// The last plan; that of version 0 if there is none.
        plan: SharePlan,
        /// The last policy.
        policy: Option<Policy>,
    },
    /// What the sale should be like. No policy is posted before the first.
    Wish(Wish),
    /// Time has passed: everything is decided now, and only now.
    Tick,
}

/// What a node says of itself and of its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The node.
    pub node: NodeId,
    /// Its process.
    pub incarnation: Incarnation,
    /// Whether it sells; a query node only bears witness.
    pub sells: bool,
    /// Its weight.
    pub weight: u16,
    /// How far it has come.
    pub state: NodeState,
    /// The shares that it owns.
    pub owns: Vec<Holding>,
    /// The selling nodes that it hears on the board.
    pub peers: Vec<Peer>,
    /// Whether it hears the board well: only then what it says of its peers counts.
    pub board_ok: bool,
}

/// A share that a node owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// Which.
    pub share: ShareId,
    /// By which claim.
    pub epoch: Epoch,
    /// Whether its owner still folds it.
    pub recovering: bool,
}

/// A selling node as another hears it on the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// The process of its last beat.
    pub incarnation: Incarnation,
    /// How long ago that was.
    pub silent_ms: u64,
    /// What it owned by that beat.
    pub owns: Vec<(ShareId, Epoch)>,
}

/// What the sale should be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// How many selling nodes there should be. The first policy waits for them.
    pub sellers: usize,
    /// Unless this time has come: then the sale begins with what there is.
    pub begin_at: Option<Millis>,
    /// Whether new orders are taken.
    pub state: SaleState,
    /// From when on.
    pub open: Option<Millis>,
    /// Until when.
    pub close: Option<Millis>,
    /// How much one may buy, and how long one may think.
    pub limits: Limits,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Append this plan.
    Post(SharePlan),
    /// Append this policy.
    Policy(Policy),
    /// Delete this dead node's pod, so that another is made at once.
    DeletePod(NodeId),
    /// Tell people.
    Event {
        /// What happened.
        reason: Reason,
        /// The same in a sentence.
        message: String,
    },
}

/// What happened, in a word. Variants are reasons of Kubernetes events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr)]
pub enum Reason {
    /// A node is held to be dead.
    NodeEvicted,
    /// A node may be dead, but nobody can bear witness.
    EvictionDeferred,
    /// More nodes are dead than may be evicted at once.
    EvictionLimited,
    /// A node cannot be reached but is heard on the board: it is left alone.
    NodeUnreachable,
    /// A new plan.
    SharesAssigned,
    /// A plan was made that its judge refuses.
    PlanRefused,
    /// A new policy.
    PolicyPosted,
}

impl Reason {
    /// Whether somebody should look.
    #[must_use]
    pub fn is_warning(self) -> bool {
        !matches!(self, Self::SharesAssigned | Self::PolicyPosted)
    }
}

/// How the fleet does, for those who ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// All shares.
    pub shares: u16,
    /// Shares whose last claim is that of a node that answers.
    pub owned: u16,
    /// Shares that are owned by another node than the plan names, or by none.
    pub moving: u16,
    /// Shares whose owner still folds them.
    pub recovering: u16,
    /// Whether any node has answered lately.
    pub reachable: bool,
    /// Whether a death could not be judged.
    pub deferred: bool,
    /// The nodes.
    pub nodes: BTreeMap<NodeId, NodeView>,
}

/// How a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeView {
    /// Whether it sells.
    pub sells: bool,
    /// Whether there is a pod.
    pub has_pod: bool,
    /// Whether its last probe was answered.
    pub answers: bool,
    /// Whether it is held to be dead.
    pub evicted: bool,
    /// What it said of itself last.
    pub state: Option<NodeState>,
    /// How many shares it owns.
    pub shares: u16,
}

/// Whether there is a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pod {
    Present,
    Leaving,
    Gone { since: Millis },
}

/// Probes that have failed without a break.
#[derive(Debug, Clone, Copy)]
struct Failing {
    since: Millis,
    times: u32,
    /// Since when all of them were refused.
    refused: Option<Millis>,
}

/// What is known of a node.
#[derive(Debug)]
struct Node {
    sells: bool,
    pod: Pod,
    /// The last report and when it came.
    heard: Option<(Millis, Report)>,
    /// Since when every report has said that it hears the board well.
    hears_since: Option<Millis>,
    failing: Option<Failing>,
    /// Since when it has been known without being ready.
    unready: Option<Millis>,
    /// The process that is held to be dead. Another process of that name is not.
    evicted: Option<Incarnation>,
    deletion_asked: Option<Millis>,
    unreachable_said: bool,
}

impl Node {
    fn new(now: Millis, pod: Pod) -> Self {
        Self {
            sells: true,
            pod,
            heard: None,
            hears_since: None,
            failing: None,
            unready: Some(now),
            evicted: None,
            deletion_asked: None,
            unreachable_said: false,
        }
    }

    fn report(&self) -> Option<&Report> {
        self.heard.as_ref().map(|(_, report)| report)
    }

    /// Whether it answered lately, and its last probe did not fail.
    fn answers(&self, now: Millis) -> bool {
        let fresh = self.heard.as_ref().is_some_and(|(at, _)| now.since(*at) <= WITNESS_MS);
        fresh && self.failing.is_none() && self.evicted.is_none()
    }

    fn unanswered(&mut self, asked: Millis, refused: bool) {
        let first = Failing { since: asked, times: 0, refused: Some(asked) };
        let failing = self.failing.get_or_insert(first);
        failing.since = failing.since.min(asked);
        failing.times += 1;
        failing.refused = refused.then(|| failing.refused.unwrap_or(asked));
    }

    /// How long both witnesses must miss it.
    fn patience_ms(&self, now: Millis) -> u64 {
        let refused = self.failing.and_then(|f| f.refused);
        let ended = refused.is_some_and(|since| now.since(since) >= ENDED_MS);
        if ended { ENDED_MS } else { DEAD_MS }
    }

    fn misses_probes(&self, now: Millis) -> bool {
        let patience_ms = self.patience_ms(now);
        match (self.pod, self.failing) {
            (Pod::Gone { since }, _) => now.since(since) >= DEAD_MS,
            (_, Some(f)) => f.times >= FAILED_PROBES_MIN && now.since(f.since) >= patience_ms,
            _ => false,
        }
    }

    fn state(&self, now: Millis) -> MemberState {
        let late = self.unready.is_some_and(|since| now.since(since) >= STARTING_MS);
        match self.report().map(|r| r.state) {
            _ if self.evicted.is_some() => MemberState::Dead,
            _ if self.pod != Pod::Present => MemberState::Draining,
            Some(NodeState::Draining) => MemberState::Draining,
            Some(NodeState::Ready) if self.misses_probes(now) => MemberState::Starting,
            Some(NodeState::Ready) => MemberState::Ready,
            _ if late => MemberState::Draining,
            _ => MemberState::Starting,
        }
    }
}

/// The last claim of a share that anyone has seen.
#[derive(Debug, Clone, Copy)]
struct Owner {
    node: NodeId,
    incarnation: Incarnation,
    epoch: Epoch,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It was said to own it; here, to be folding it yet.
    Recovers,
    /// It owns it.
    Holds,
    /// It has yielded it, or is about to claim it again.
    Released,
    /// Its process has ended; another of the same name lives.
    Lost,
}

/// Decides who should own what, whose time is over, and when the sale may begin.
#[derive(Debug)]
pub struct Dispatcher {
    shares: u16,
    nodes: BTreeMap<NodeId, Node>,
    owners: BTreeMap<ShareId, Owner>,
    plan: Option<SharePlan>,
    policy: Option<Policy>,
    wish: Option<Wish>,
    posted_plan: Option<(Millis, SharePlan)>,
    posted_policy: Option<(Millis, Policy)>,
    first_ready: Option<Millis>,
    /// Why nothing could be decided, as it was last said.
    deferred: Option<&'static str>,
    limited: bool,
    refused: Option<SharePlan>,
}

impl Dispatcher {
    /// Knows nothing yet of a ledger with so many shares.
    #[must_use]
    pub fn new(shares: u16) -> Self {
        Self {
            shares,
            nodes: BTreeMap::new(),
            owners: BTreeMap::new(),
            plan: None,
            policy: None,
            wish: None,
            posted_plan: None,
            posted_policy: None,
            first_ready: None,
            deferred: None,
            limited: false,
            refused: None,
        }
    }

    /// Takes in a sign; at a [`Sign::Tick`] decides. `now` never goes back, and is the time of
    /// day, since policies name times of day.
    pub fn handle(&mut self, now: Millis, sign: Sign, out: &mut Vec<Output>) {
        match sign {
            Sign::Answered(report) => self.answered(now, *report),
            Sign::Unanswered { node, asked, refused } => {
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.unanswered(asked, refused);
                }
            }
            Sign::PodSeen { node, sells, leaving } => {
                let pod = if leaving { Pod::Leaving } else { Pod::Present };
                if let Some(node) = self.node(now, node, pod) {
                    (node.sells, node.pod) = (sells, pod);
                }
            }
            Sign::PodGone { node } => {
                if let Some(node) = self.nodes.get_mut(&node)
                    && !matches!(node.pod, Pod::Gone { .. })
                {
                    node.pod = Pod::Gone { since: now };
                }
            }
            Sign::InForce { plan, policy } => self.in_force(plan, policy),
            Sign::Wish(wish) => self.wish = Some(wish),
            Sign::Tick => self.decide(now, out),
        }
    }

    /// The plan in force, if anything is known of it.
    #[must_use]
    pub fn plan(&self) -> Option<&SharePlan> {
        self.plan.as_ref()
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    /// How the fleet does.
    #[must_use]
    pub fn view(&self, now: Millis) -> View {
        let mut view = View {
            shares: self.shares,
            owned: 0,
            moving: 0,
            recovering: 0,
            reachable: self.nodes.values().any(|n| n.answers(now)),
            deferred: self.deferred.is_some(),
            nodes: BTreeMap::new(),
        };
        for (name, node) in &self.nodes {
            let node = NodeView {
                sells: node.sells,
                has_pod: !matches!(node.pod, Pod::Gone { .. }),
                answers: node.answers(now),
                evicted: node.evicted.is_some(),
                state: node.report().map(|r| r.state),
                shares: 0,
            };
            view.nodes.insert(*name, node);
        }
        for share in (1..=self.shares).map(ShareId) {
            let owner = self.owner_that_answers(now, share);
            let named = self.plan.as_ref().and_then(|p| p.nodes.get(&share));
            view.owned += u16::from(owner.is_some());
            view.moving += u16::from(named.is_some() && owner.map(|o| o.node) != named.copied());
            let recovers = owner.is_some_and(|o| o.standing == Standing::Recovers);
            view.recovering += u16::from(recovers);
            if let Some(node) = owner.and_then(|o| view.nodes.get_mut(&o.node)) {
                node.shares += 1;
            }
        }
        view
    }

    fn node(&mut self, now: Millis, name: NodeId, pod: Pod) -> Option<&mut Node> {
        if !self.nodes.contains_key(&name) && self.nodes.len() >= NODES_MAX {
            return None;
        }
        Some(self.nodes.entry(name).or_insert_with(|| Node::new(now, pod)))
    }

    fn answered(&mut self, now: Millis, report: Report) {
        let Some(node) = self.node(now, report.node, Pod::Gone { since: now }) else { return };
        node.sells = report.sells;
        node.failing = None;
        node.unreachable_said = false;
        if node.report().is_some_and(|before| before.incarnation != report.incarnation) {
            node.unready = None;
            node.hears_since = None;
        }
        node.hears_since = report.board_ok.then(|| node.hears_since.unwrap_or(now));
        if node.evicted.is_some_and(|evicted| evicted != report.incarnation) {
            node.evicted = None;
            node.deletion_asked = None;
        }
        node.unready = match report.state {
            NodeState::Starting => node.unready.or(Some(now)),
            NodeState::Ready | NodeState::Draining => None,
        };
        self.take_in_shares(&report);
        if report.board_ok {
            self.take_in_peers(now, &report);
        }
        if let Some(node) = self.nodes.get_mut(&report.node) {
            node.heard = Some((now, report));
        }
    }

    /// What a node says of its own shares is the truth about its own process.
    fn take_in_shares(&mut self, report: &Report) {
        for owner in self.owners.values_mut().filter(|o| o.node == report.node) {
            let same = owner.incarnation == report.incarnation;
            owner.standing = if same { Standing::Released } else { Standing::Lost };
        }
        for holding in &report.owns {
            let known = self.owners.get(&holding.share).map_or(Epoch(0), |o| o.epoch);
            if holding.epoch < known || holding.share.0 == 0 || holding.share.0 > self.shares {
                continue;
            }
            let standing = if holding.recovering { Standing::Recovers } else { Standing::Holds };
            let owner = Owner {
                node: report.node,
                incarnation: report.incarnation,
                epoch: holding.epoch,
                standing,
            };
            self.owners.insert(holding.share, owner);
        }
    }

    /// What a node heard of others counts where it is news: a higher epoch.
    fn take_in_peers(&mut self, now: Millis, report: &Report) {
        for peer in &report.peers {
            for (share, epoch) in &peer.owns {
                let known = self.owners.get(share).map_or(Epoch(0), |o| o.epoch);
                if *epoch <= known || share.0 == 0 || share.0 > self.shares {
                    continue;
                }
                if self.node(now, peer.node, Pod::Gone { since: now }).is_none() {
                    continue;
                }
                let owner = Owner {
                    node: peer.node,
                    incarnation: peer.incarnation,
                    epoch: *epoch,
                    standing: Standing::Holds,
                };
                self.owners.insert(*share, owner);
            }
        }
    }

    fn in_force(&mut self, plan: SharePlan, policy: Option<Policy>) {
        if self.plan.as_ref().is_none_or(|known| known.version < plan.version) {
            self.plan = Some(plan);
        }
        let known = self.policy.as_ref().map_or(0, |known| known.version);
        if policy.as_ref().is_some_and(|policy| policy.version > known) {
            self.policy = policy;
        }
    }

    fn decide(&mut self, now: Millis, out: &mut Vec<Output>) {
        self.forget();
        self.judge(now, out);
        self.delete_pods(now, out);
        self.post_plan(now, out);
        self.post_policy(now, out);
    }

    /// A node without a pod and without a share is nobody's concern.
    fn forget(&mut self) {
        let concerned: BTreeSet<NodeId> = self
            .owners
            .values()
            .filter(|o| o.standing != Standing::Released)
            .map(|o| o.node)
            .collect();
        self.nodes
            .retain(|name, node| !matches!(node.pod, Pod::Gone { .. }) || concerned.contains(name));
        let nodes = &self.nodes;
        self.owners.retain(|_, owner| nodes.contains_key(&owner.node));
    }

    /// Those who answer, have come far enough to know, and hear the board well; with how long
    /// they have.
    fn witnesses(&self, now: Millis) -> impl Iterator<Item = (u64, &Report)> {
        let able = move |node: &&Node| node.answers(now);
        let hears = move |node: &'_ Node| node.hears_since.map(|since| now.since(since));
        self.nodes.values().filter(able).filter_map(move |node| {
            let report = node.report().filter(|r| r.state != NodeState::Starting)?;
            Some((hears(node)?, report))
        })
    }

    /// How long the board has been silent of a node by the witness that heard it last, and the
    /// process that this witness heard. One that hears it is right, and all others are deaf.
    fn silence(&self, now: Millis, node: NodeId) -> Option<(u64, Option<Incarnation>)> {
        let by = |(hears_ms, witness): (u64, &Report)| {
            let peer = witness.peers.iter().find(|peer| peer.node == node);
            // Who does not know the node has missed it for as long as it listens.
            peer.map_or((hears_ms, None), |p| (p.silent_ms, Some(p.incarnation)))
        };
        self.witnesses(now).map(by).min_by_key(|(silent_ms, _)| *silent_ms)
    }

    /// Why nobody can bear witness, if so.
    fn why_no_verdict(&self, now: Millis) -> Option<&'static str> {
        if self.witnesses(now).next().is_none() {
            return Some("no other node answers and hears the board");
        }
        let beats = |(_, witness): (u64, &Report)| {
            witness.sells || witness.peers.iter().any(|peer| peer.silent_ms < DEAD_MS)
        };
        if !self.witnesses(now).any(beats) {
            return Some("all nodes are silent on the board, so Kafka may be in trouble");
        }
        None
    }

    /// Finds the dead, and evicts as many as may be at once.
    fn judge(&mut self, now: Millis, out: &mut Vec<Output>) {
        if self.wish.is_some_and(|wish| wish.state == SaleState::Stopped) {
            // All nodes are to go, and nothing is sold that another would have to sell.
            self.deferred = None;
            return;
        }
        let mut dead: Vec<(Millis, NodeId, Option<Incarnation>)> = Vec::new();
        let mut unsure = None;
        let mut unreachable = Vec::new();
        for (name, node) in &self.nodes {
            if !self.is_suspect(now, *name, node) {
                continue;
            }
            let since = match (node.pod, node.failing) {
                (_, Some(Failing { since, .. })) | (Pod::Gone { since }, None) => since,
                _ => now,
            };
            let no_verdict = self.why_no_verdict(now);
            match self.silence(now, *name) {
                _ if no_verdict.is_some() => unsure = no_verdict,
                Some((silent_ms, process)) if silent_ms >= node.patience_ms(now) => {
                    dead.push((since, *name, process));
                }
                Some((_, Some(_))) if now.since(since) >= UNREACHABLE_MS => {
                    unreachable.push(*name);
                }
                // It beats, or those who listen have not done so for long enough.
                Some(_) | None => (),
            }
        }
        self.say_deferred(unsure, out);
        for name in unreachable {
            self.say_unreachable(name, out);
        }
        dead.sort_unstable();
        self.evict(dead, out);
    }

    /// Whether a node has lived and cannot be reached now.
    fn is_suspect(&self, now: Millis, name: NodeId, node: &Node) -> bool {
        let mut owners = self.owners.values();
        let owns = owners.any(|o| o.node == name && o.standing != Standing::Released);
        let lived = owns || node.heard.is_some();
        // A pod that has gone after it gave up its shares did what it should.
        let matters = node.pod == Pod::Present || owns;
        node.sells && node.evicted.is_none() && lived && node.misses_probes(now) && matters
    }

    fn say_deferred(&mut self, unsure: Option<&'static str>, out: &mut Vec<Output>) {
        if let Some(why) = unsure
            && self.deferred != Some(why)
        {
            let message = format!("A node may be dead, but nothing is done about it: {why}.");
            out.push(Output::Event { reason: Reason::EvictionDeferred, message });
        }
        self.deferred = unsure;
    }

    fn say_unreachable(&mut self, name: NodeId, out: &mut Vec<Output>) {
        let Some(node) = self.nodes.get_mut(&name) else { return };
        if !std::mem::replace(&mut node.unreachable_said, true) {
            let message = format!(
                "Node {name} does not answer its control port but is heard on the board; it \
                 keeps its shares."
            );
            out.push(Output::Event { reason: Reason::NodeUnreachable, message });
        }
    }

    fn evict(&mut self, dead: Vec<(Millis, NodeId, Option<Incarnation>)>, out: &mut Vec<Output>) {
        let sellers = self.nodes.values().filter(|n| n.sells).count();
        // A third: whatever is wrong with the witnesses, most of the fleet goes on selling.
        let most = (sellers / 3).max(1);
        let owners = |node: &NodeId| self.owners.values().filter(|o| o.node == *node).count();
        let evicted = self.nodes.iter().filter(|(_, n)| n.evicted.is_some());
        let mut under_way = evicted.filter(|(name, _)| owners(name) > 0).count();
        let mut too_many = 0;
        for (_, name, process) in dead {
            let owned = self.owners.values().filter(|o| o.node == name);
            let (claimant, shares) = (owned.clone().map(|o| o.incarnation).max(), owned.count());
            if under_way >= most {
                too_many += 1;
                continue;
            }
            under_way += 1;
            let Some(node) = self.nodes.get_mut(&name) else { continue };
            let last = node.report().map(|r| r.incarnation).or(claimant);
            node.evicted = process.or(last);
            let message = format!(
                "Node {name} does not answer and is silent on the board; its {shares} shares move \
                 and its pod is deleted."
            );
            out.push(Output::Event { reason: Reason::NodeEvicted, message });
        }
        if too_many > 0 && !self.limited {
            let message = format!(
                "{too_many} more nodes seem dead; at most {most} of {sellers} are evicted at once."
            );
            out.push(Output::Event { reason: Reason::EvictionLimited, message });
        }
        self.limited = too_many > 0;
    }

    fn delete_pods(&mut self, now: Millis, out: &mut Vec<Output>) {
        for (name, node) in &mut self.nodes {
            let asked = node.deletion_asked.is_some_and(|at| now.since(at) < DELETE_AGAIN_MS);
            if node.evicted.is_some() && node.pod == Pod::Present && !asked {
                node.deletion_asked = Some(now);
                out.push(Output::DeletePod(*name));
            }
        }
    }

    fn fleet(&self, now: Millis) -> Fleet {
        let sellers = self.nodes.iter().filter(|(_, node)| node.sells);
        let member = |node: &Node| {
            let weight = node.report().map_or(1, |r| r.weight);
            Member { weight, state: node.state(now) }
        };
        let nodes: BTreeMap<NodeId, Member> = sellers.map(|(n, node)| (*n, member(node))).collect();
        let owned = |owner: &Owner| {
            let dead = nodes.get(&owner.node).is_some_and(|m| m.state == MemberState::Dead);
            // A share that was given up has no owner; but who gave it up only to claim it
            // again, and died over that, must not keep others from it.
            let counts = owner.standing != Standing::Released || dead;
            let lost = owner.standing == Standing::Lost;
            counts.then_some(Owned { node: owner.node, epoch: owner.epoch, lost })
        };
        let owners = self.owners.iter();
        let owners = owners.filter_map(|(share, owner)| Some((*share, owned(owner)?))).collect();
        Fleet { shares: self.shares, nodes, owners }
    }

    /// Whether the first plan should wait: for every pod to be asked once, and for pods that
    /// are about to be ready.
    fn gathers(&mut self, now: Millis, fleet: &Fleet) -> bool {
        let pods = || self.nodes.values().filter(|n| n.sells && n.pod == Pod::Present);
        if pods().any(|n| n.heard.is_none() && n.failing.is_none()) {
            return true;
        }
        let all_ready = pods().all(|n| n.state(now) == MemberState::Ready);
        if fleet.nodes.values().any(|m| m.state == MemberState::Ready) {
            self.first_ready.get_or_insert(now);
        }
        let first = self.plan.as_ref().is_none_or(|p| p.version == 0);
        let waited = self.first_ready.is_some_and(|since| now.since(since) >= FIRST_PLAN_MS);
        let few = self.wish.is_some_and(|wish| pods().count() < wish.sellers);
        first && !waited && (!all_ready || few)
    }

    fn post_plan(&mut self, now: Millis, out: &mut Vec<Output>) {
        let Some(parent) = self.plan.clone() else { return };
        let fleet = self.fleet(now);
        if self.gathers(now, &fleet) {
            return;
        }
        let next = plan(&parent, &fleet);
        if next == parent {
            self.posted_plan = None;
            return;
        }
        let findings = check(&next, &parent, &fleet);
        if let Some(finding) = findings.first() {
            if self.refused.as_ref() != Some(&next) {
                let message = format!("Plan {} is not posted: {finding}.", next.version);
                out.push(Output::Event { reason: Reason::PlanRefused, message });
                self.refused = Some(next);
            }
            return;
        }
        let known = self.posted_plan.as_ref().filter(|(_, posted)| *posted == next);
        if known.is_some_and(|(at, _)| now.since(*at) < POST_AGAIN_MS) {
            return;
        }
        if known.is_none() {
            let message = describe(&parent, &next);
            out.push(Output::Event { reason: Reason::SharesAssigned, message });
        }
        self.posted_plan = Some((now, next.clone()));
        out.push(Output::Post(next));
    }

    /// The owner of a share, if it is a process that answers and says so itself.
    fn owner_that_answers(&self, now: Millis, share: ShareId) -> Option<&Owner> {
        let owner = self.owners.get(&share)?;
        let node = self.nodes.get(&owner.node)?;
        let holds = matches!(owner.standing, Standing::Holds | Standing::Recovers);
        let said = node.report()?.owns.iter().any(|h| h.share == share && h.epoch == owner.epoch);
        (holds && said && node.answers(now)).then_some(owner)
    }

    /// Whether the sale may begin: every share is sold from, and the fleet is complete or the
    /// time has come.
    fn may_begin(&self, now: Millis, wish: &Wish) -> bool {
        let ready = |n: &&Node| n.sells && n.answers(now) && n.state(now) == MemberState::Ready;
        let complete = self.nodes.values().filter(ready).count() >= wish.sellers;
        let due = wish.begin_at.is_some_and(|at| now >= at);
        let owned = |share| {
            let owner = self.owner_that_answers(now, share);
            owner.is_some_and(|o| o.standing == Standing::Holds)
        };
        (complete || due) && (1..=self.shares).map(ShareId).all(owned)
    }

    fn post_policy(&mut self, now: Millis, out: &mut Vec<Output>) {
        let (Some(wish), Some(_)) = (self.wish, &self.plan) else { return };
        let version = self.policy.as_ref().map_or(0, |p| p.version);
        let next = |version| Policy {
            version,
            state: wish.state,
            open: wish.open,
            close: wish.close,
            limits: wish.limits,
        };
        if self.policy == Some(next(version)) {
            self.posted_policy = None;
            return;
        }
        if self.policy.is_none() && !self.may_begin(now, &wish) {
            return;
        }
        let next = next(version + 1);
        let known = self.posted_policy.as_ref().filter(|(_, posted)| *posted == next);
        if known.is_some_and(|(at, _)| now.since(*at) < POST_AGAIN_MS) {
            return;
        }
        if known.is_none() {
            let state: &str = next.state.into();
            let message = format!("Policy {} is posted: the sale is {state}.", next.version);
            out.push(Output::Event { reason: Reason::PolicyPosted, message });
        }
        self.posted_policy = Some((now, next.clone()));
        out.push(Output::Policy(next));
    }
}

fn describe(parent: &SharePlan, next: &SharePlan) -> String {
    let mut gets: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (share, node) in &next.nodes {
        if parent.nodes.get(share) != Some(node) {
            *gets.entry(*node).or_default() += 1;
        }
    }
    // Three names: an event is one line, and the plan itself is in the ledger.
    let mut names: Vec<String> =
        gets.iter().take(3).map(|(n, c)| format!("{n} gets {c}")).collect();
    if gets.len() > 3 {
        names.push(format!("and {} more nodes", gets.len() - 3));
    }
    if names.is_empty() {
        names.push("no share moves".to_owned());
    }
    let freed = next.evict.len();
    format!("Plan {}: {}; {freed} epochs are over.", next.version, names.join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{
        ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, proptest,
    };

    use super::*;

    const STEP_MS: u64 = 250;
    const LIMITS: Limits = Limits {
        passengers_per_order: 5,
        live_holds: 1,
        orders: 10,
        payment_ms: 900_000,
        grace_ms: 2_000,
        low_water_seats: 2,
    };

    fn wish(sellers: usize) -> Wish {
        let state = SaleState::Active;
        Wish { sellers, begin_at: None, state, open: None, close: None, limits: LIMITS }
    }

    /// A node of the world: what really is, which the dispatcher must find out.
    #[derive(Debug)]
    struct Pod {
        incarnation: u64,
        started: Millis,
        runs: bool,
        leaving: bool,
        reached: bool,
        /// Something on the way refuses connections for it.
        rejected: bool,
        hears_kafka: bool,
        owns: BTreeMap<ShareId, Epoch>,
        last_beat: Option<Millis>,
        /// The last beat of each node that was read.
        read: BTreeMap<NodeId, Millis>,
        /// When each node was last heard, and what it owned then.
        heard: BTreeMap<NodeId, (Millis, u64, BTreeMap<ShareId, Epoch>)>,
        answered: Option<Millis>,
    }

    /// A fleet that obeys plans as nodes do, on a log that decides.
    struct World {
        now: Millis,
        pods: BTreeMap<NodeId, Pod>,
        claims: BTreeMap<ShareId, (Epoch, NodeId, u64, bool)>,
        kafka: bool,
        kafka_since: Option<Millis>,
        /// The last beat of every node: when, by which process, and what it owned.
        board: BTreeMap<NodeId, (Millis, u64, BTreeMap<ShareId, Epoch>)>,
        plan: SharePlan,
        policy: Option<Policy>,
        dispatcher: Dispatcher,
        shares: u16,
        sellers: usize,
        names: u64,
        posts: usize,
        evicted: Vec<NodeId>,
        deleted: Vec<NodeId>,
        /// Whose pod cannot be deleted.
        machine_cut_off: Option<NodeId>,
        events: Vec<Reason>,
    }

    fn id(name: u64) -> NodeId {
        format!("n{name}").parse().unwrap()
    }

    impl World {
        fn new(shares: u16, sellers: usize) -> Self {
            let mut world = Self {
                now: Millis(1_000_000),
                pods: BTreeMap::new(),
                claims: BTreeMap::new(),
                kafka: true,
                kafka_since: Some(Millis(0)),
                board: BTreeMap::new(),
                plan: SharePlan::default(),
                policy: None,
                dispatcher: Dispatcher::new(shares),
                shares,
                sellers,
                names: 0,
                posts: 0,
                evicted: Vec::new(),
                deleted: Vec::new(),
                machine_cut_off: None,
                events: Vec::new(),
            };
            for _ in 0..sellers {
                world.add_pod();
            }
            let wish = Sign::Wish(wish(sellers));
            world.dispatcher.handle(world.now, wish, &mut Vec::new());
            world
        }

        fn settled(shares: u16, sellers: usize) -> Self {
            let mut world = Self::new(shares, sellers);
            world.run_ms(4_000);
            world.assert_settled();
            world.posts = 0;
            world.events.clear();
            world
        }

        fn add_pod(&mut self) {
            self.names += 1;
            let read = self.board.iter().map(|(name, beat)| (*name, beat.0)).collect();
            let pod = Pod {
                incarnation: self.names * 1_000,
                started: self.now,
                runs: true,
                leaving: false,
                reached: true,
                rejected: false,
                hears_kafka: true,
                owns: BTreeMap::new(),
                last_beat: None,
                read,
                heard: BTreeMap::new(),
                answered: None,
            };
            self.pods.insert(id(self.names), pod);
        }

        fn pod(&mut self, index: usize) -> &mut Pod {
            let index = index % self.pods.len();
            self.pods.values_mut().nth(index).unwrap()
        }

        fn restart(&mut self, index: usize) {
            let now = self.now;
            let board = self.board.iter().map(|(name, beat)| (*name, beat.0)).collect();
            let pod = self.pod(index);
            pod.incarnation += 1;
            (pod.started, pod.runs) = (now, true);
            pod.owns.clear();
            pod.heard.clear();
            // The board is read from its end.
            pod.read = board;
            pod.last_beat = None;
        }

        fn run_ms(&mut self, ms: u64) {
            for _ in 0..ms / STEP_MS {
                self.step();
            }
        }

        fn step(&mut self) {
            self.now = self.now.plus(STEP_MS);
            self.live();
            self.probe();
            self.tick();
        }

        /// Every running node with Kafka obeys the plan, beats, and hears.
        fn live(&mut self) {
            let (now, plan) = (self.now, self.plan.clone());
            let heard = |p: &Pod| p.runs && p.hears_kafka;
            let on: Vec<NodeId> =
                self.pods.iter().filter(|(_, p)| self.kafka && heard(p)).map(|(n, _)| *n).collect();
            self.kafka_since = self.kafka.then(|| self.kafka_since.unwrap_or(now));
            for name in &on {
                let mut pod = self.pods.remove(name).unwrap();
                self.claim(*name, &mut pod, &plan, &on);
                pod.last_beat = Some(now);
                self.pods.insert(*name, pod);
            }
            for name in &on {
                let pod = &self.pods[name];
                self.board.insert(*name, (now, pod.incarnation, pod.owns.clone()));
            }
            // Who was deaf for a while reads now what was said meanwhile.
            for name in &on {
                let Some(pod) = self.pods.get_mut(name) else { continue };
                for (peer, (at, incarnation, owns)) in &self.board {
                    let known = pod.read.insert(*peer, *at);
                    if known != Some(*at) && now.since(*at) < 600_000 {
                        pod.heard.insert(*peer, (now, *incarnation, owns.clone()));
                    }
                }
            }
            let gone = |p: &Pod| p.leaving && p.owns.is_empty();
            self.pods.retain(|_, pod| !(pod.runs && gone(pod)));
            while self.pods.values().filter(|p| !p.leaving).count() < self.sellers {
                self.add_pod();
            }
        }

        fn claim(&mut self, name: NodeId, pod: &mut Pod, plan: &SharePlan, on: &[NodeId]) {
            if self.now.since(pod.started) < 500 {
                return;
            }
            let mine = |share: &ShareId, epoch: &Epoch| {
                self.claims.get(share).is_some_and(|c| (c.0, c.1) == (*epoch, name))
            };
            pod.owns.retain(|share, epoch| mine(share, epoch));
            for share in (1..=self.shares).map(ShareId) {
                let named = plan.nodes.get(&share);
                let claim = self.claims.get(&share).copied();
                if pod.owns.contains_key(&share) {
                    if named.is_some_and(|n| *n != name && on.contains(n)) {
                        pod.owns.remove(&share);
                        self.claims.get_mut(&share).unwrap().3 = true;
                    }
                    continue;
                }
                let may = match claim {
                    None => named == Some(&name),
                    Some((epoch, owner, _, yielded)) => {
                        let evicted = plan.evict.get(&share) == Some(&epoch);
                        let own_before = owner == name && !yielded;
                        let silent = !yielded && self.is_silent(owner) && on[0] == name;
                        own_before || silent || (named == Some(&name) && (yielded || evicted))
                    }
                };
                if may && !pod.leaving {
                    let epoch = Epoch(claim.map_or(0, |c| c.0.0) + 1);
                    self.claims.insert(share, (epoch, name, pod.incarnation, false));
                    pod.owns.insert(share, epoch);
                }
            }
        }

        /// Silent for so long that a share may be claimed without a plan.
        fn is_silent(&self, owner: NodeId) -> bool {
            let heard = self.board.get(&owner).is_some_and(|b| self.now.since(b.0) < 10_000);
            !heard && self.kafka_since.is_some_and(|at| self.now.since(at) >= 10_000)
        }

        fn probe(&mut self) {
            let now = self.now;
            let seen: Vec<(NodeId, bool)> =
                self.pods.iter().map(|(name, pod)| (*name, pod.leaving)).collect();
            let known: Vec<NodeId> = self.dispatcher.view(now).nodes.into_keys().collect();
            for node in known.into_iter().filter(|n| !self.pods.contains_key(n)) {
                self.dispatcher.handle(now, Sign::PodGone { node }, &mut Vec::new());
            }
            for (node, leaving) in seen {
                let sign = Sign::PodSeen { node, sells: true, leaving };
                self.dispatcher.handle(now, sign, &mut Vec::new());
                let pod = self.pods.get_mut(&node).unwrap();
                let sign = if pod.runs && pod.reached {
                    pod.answered = Some(now);
                    Sign::Answered(Box::new(report(now, node, pod)))
                } else {
                    Sign::Unanswered { node, asked: now, refused: pod.reached || pod.rejected }
                };
                self.dispatcher.handle(now, sign, &mut Vec::new());
            }
            if self.pods.values().any(|p| p.runs && p.reached) {
                let sign = Sign::InForce { plan: self.plan.clone(), policy: self.policy.clone() };
                self.dispatcher.handle(now, sign, &mut Vec::new());
            }
        }

        fn tick(&mut self) {
            let mut out = Vec::new();
            let before = self.evicted_now();
            self.dispatcher.handle(self.now, Sign::Tick, &mut out);
            let after = self.evicted_now();
            self.evicted = after.difference(&before).copied().collect();
            let way =
                self.kafka && self.pods.values().any(|p| p.runs && p.reached && p.hears_kafka);
            for output in out {
                match output {
                    Output::Post(plan) => {
                        self.posts += 1;
                        if way && plan.version == self.plan.version + 1 {
                            self.plan = plan;
                        }
                    }
                    Output::Policy(policy) if way => self.policy = Some(policy),
                    Output::Policy(_) => (),
                    Output::DeletePod(node) => {
                        self.deleted.push(node);
                        if self.machine_cut_off != Some(node) {
                            self.pods.remove(&node);
                        }
                    }
                    Output::Event { reason, .. } => self.events.push(reason),
                }
            }
        }

        fn evicted_now(&self) -> BTreeSet<NodeId> {
            let nodes = self.dispatcher.view(self.now).nodes;
            nodes.into_iter().filter(|(_, n)| n.evicted).map(|(name, _)| name).collect()
        }

        fn assert_settled(&mut self) {
            let view = self.dispatcher.view(self.now);
            assert_eq!((view.owned, view.moving), (self.shares, 0), "{view:?}");
            for (share, node) in &self.plan.nodes {
                let pod = &self.pods[node];
                assert!(pod.runs && pod.owns.contains_key(share), "{share} {node}");
            }
            assert!(self.policy.is_some());
            let posts = self.posts;
            self.run_ms(1_000);
            assert_eq!(self.posts, posts, "a settled fleet gets no new plan");
        }
    }

    fn report(now: Millis, node: NodeId, pod: &Pod) -> Report {
        let state = match now.since(pod.started) {
            0..500 => NodeState::Starting,
            _ if pod.leaving => NodeState::Draining,
            _ => NodeState::Ready,
        };
        let owns = pod.owns.iter();
        let peer =
            |(name, (at, incarnation, owns)): (&NodeId, &(Millis, u64, BTreeMap<_, _>))| Peer {
                node: *name,
                incarnation: Incarnation(*incarnation),
                silent_ms: now.since(*at),
                owns: owns.iter().map(|(s, e)| (*s, *e)).collect(),
            };
        Report {
            node,
            incarnation: Incarnation(pod.incarnation),
            sells: true,
            weight: 1,
            state,
            owns: owns.map(|(s, e)| Holding { share: *s, epoch: *e, recovering: false }).collect(),
            peers: pod.heard.iter().filter(|(name, _)| **name != node).map(peer).collect(),
            board_ok: pod.last_beat.is_some_and(|at| now.since(at) < 1_000),
        }
    }

    #[test]
    fn a_new_fleet_gets_one_plan_and_then_its_first_policy() {
        let mut world = World::new(16, 3);
        world.run_ms(4_000);
        world.assert_settled();
        assert_eq!((world.plan.version, world.posts), (1, 1));
        assert_eq!(world.policy.as_ref().unwrap().version, 1);
    }

    #[test]
    fn a_killed_node_s_shares_are_sold_from_again_within_three_seconds() {
        let mut world = World::settled(16, 3);
        world.pod(0).runs = false;
        let killed = world.now;
        world.step();
        while world.dispatcher.view(world.now).owned < 16 {
            world.step();
        }
        assert!(world.now.since(killed) <= 1_300, "{} ms", world.now.since(killed));
        assert_eq!(world.deleted, [id(1)]);
        assert_eq!(world.events[0], Reason::NodeEvicted);
    }

    #[test]
    fn a_replacement_gets_its_part_of_the_shares() {
        let mut world = World::settled(16, 3);
        world.pod(0).runs = false;
        world.run_ms(6_000);
        world.assert_settled();
        let owns: Vec<usize> = world.pods.values().map(|p| p.owns.len()).collect();
        assert_eq!(owns.iter().sum::<usize>(), 16);
        assert!(owns.iter().all(|n| (5..=6).contains(n)), "{owns:?}");
    }

    #[test]
    fn a_node_that_beats_but_cannot_be_probed_keeps_its_shares() {
        let mut world = World::settled(16, 3);
        world.pod(0).reached = false;
        world.run_ms(10_000);
        assert_eq!(world.events, [Reason::NodeUnreachable]);
        assert_eq!(world.posts, 0);
    }

    #[test]
    fn a_node_that_beats_but_whose_probes_are_refused_keeps_its_shares() {
        let mut world = World::settled(16, 3);
        (world.pod(0).reached, world.pod(0).rejected) = (false, true);
        world.run_ms(10_000);
        assert_eq!(world.events, [Reason::NodeUnreachable]);
        assert_eq!(world.posts, 0);
    }

    #[test]
    fn a_node_that_is_cut_off_is_given_the_longer_time() {
        let mut world = World::settled(16, 3);
        (world.pod(0).reached, world.pod(0).hears_kafka) = (false, false);
        world.run_ms(1_300);
        assert!(world.events.is_empty(), "{:?}", world.events);
        world.run_ms(1_200);
        assert_eq!(world.events[0], Reason::NodeEvicted);
    }

    #[test]
    fn a_node_that_is_silent_on_the_board_but_answers_keeps_its_shares() {
        let mut world = World::settled(16, 3);
        world.pod(0).hears_kafka = false;
        world.run_ms(10_000);
        assert_eq!((world.events.len(), world.posts), (0, 0));
    }

    #[test]
    fn when_all_boards_are_silent_nobody_is_evicted_and_that_is_said_once() {
        let mut world = World::settled(16, 3);
        world.kafka = false;
        world.run_ms(2_000);
        world.pod(0).runs = false;
        world.run_ms(10_000);
        assert_eq!(world.events, [Reason::EvictionDeferred]);
        world.kafka = true;
        world.run_ms(6_000);
        world.assert_settled();
    }

    #[test]
    fn without_a_survivor_nobody_is_evicted() {
        let mut world = World::settled(4, 1);
        world.pod(0).runs = false;
        world.run_ms(10_000);
        assert_eq!(world.events, [Reason::EvictionDeferred]);
        assert!(world.deleted.is_empty());
    }

    #[test]
    fn at_most_a_third_is_evicted_at_once() {
        let mut world = World::settled(12, 6);
        for index in 0..4 {
            world.pod(index).runs = false;
        }
        let mut most = 0;
        world.step();
        while world.dispatcher.view(world.now).owned < 12 {
            world.step();
            most = most.max(world.evicted.len());
        }
        assert_eq!(most, 2);
        assert!(world.events.contains(&Reason::EvictionLimited));
        world.run_ms(4_000);
        world.assert_settled();
    }

    #[test]
    fn a_draining_node_s_shares_move_before_it_goes_and_nobody_is_evicted() {
        let mut world = World::settled(16, 3);
        world.pod(0).leaving = true;
        world.run_ms(6_000);
        assert!(!world.events.contains(&Reason::NodeEvicted));
        assert!(world.deleted.is_empty() && !world.pods.contains_key(&id(1)));
        world.assert_settled();
    }

    #[test]
    fn a_node_that_restarts_at_once_keeps_its_shares() {
        let mut world = World::settled(16, 3);
        let before = world.plan.nodes.clone();
        world.restart(0);
        world.run_ms(4_000);
        assert_eq!(world.plan.nodes, before);
        assert!(world.deleted.is_empty());
        world.assert_settled();
    }

    #[test]
    fn a_node_that_wakes_after_its_eviction_gets_nothing_until_it_starts_anew() {
        let mut world = World::settled(16, 3);
        world.machine_cut_off = Some(id(1));
        world.pod(0).runs = false;
        world.run_ms(4_000);
        assert_eq!(world.deleted, [id(1)]);
        world.pod(0).runs = true;
        world.run_ms(3_000);
        assert!(world.plan.nodes.values().all(|n| *n != id(1)));
        world.restart(0);
        world.run_ms(3_000);
        assert!(world.plan.nodes.values().any(|n| *n == id(1)));
    }

    #[test]
    fn a_fleet_that_is_stopped_goes_without_an_alarm() {
        let mut world = World::settled(16, 3);
        let stopped = Wish { state: SaleState::Stopped, ..wish(3) };
        world.dispatcher.handle(world.now, Sign::Wish(stopped), &mut Vec::new());
        world.run_ms(1_000);
        world.sellers = 0;
        world.pods.clear();
        world.run_ms(10_000);
        assert_eq!(world.events, [Reason::PolicyPosted]);
    }

    #[test]
    fn a_restarted_operator_moves_nothing() {
        let mut world = World::settled(16, 3);
        world.dispatcher = Dispatcher::new(16);
        world.dispatcher.handle(world.now, Sign::Wish(wish(3)), &mut Vec::new());
        world.run_ms(10_000);
        assert_eq!((world.posts, world.events.len()), (0, 0));
    }

    #[test]
    fn a_changed_wish_is_posted_at_once() {
        let mut world = World::settled(16, 3);
        let suspended = Wish { state: SaleState::Suspended, ..wish(3) };
        world.dispatcher.handle(world.now, Sign::Wish(suspended), &mut Vec::new());
        world.run_ms(500);
        let policy = world.policy.clone().unwrap();
        assert_eq!((policy.version, policy.state), (2, SaleState::Suspended));
    }

    #[test]
    fn the_first_policy_waits_for_the_whole_fleet_unless_its_time_has_come() {
        let mut world = World::new(16, 3);
        world.dispatcher.handle(world.now, Sign::Wish(wish(4)), &mut Vec::new());
        world.run_ms(20_000);
        assert_eq!((world.policy.clone(), world.dispatcher.view(world.now).owned), (None, 16));
        let due = Wish { begin_at: Some(world.now.plus(1_000)), ..wish(4) };
        world.dispatcher.handle(world.now, Sign::Wish(due), &mut Vec::new());
        world.run_ms(500);
        assert_eq!(world.policy, None);
        world.run_ms(1_000);
        assert!(world.policy.is_some());
    }

    fn cases() -> u32 {
        std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64)
    }

    #[derive(Debug, Clone, Copy)]
    enum Blow {
        Kill(usize),
        Pause(usize),
        Resume(usize),
        Restart(usize),
        Leave(usize),
        Reach(usize, bool),
        Kafka(bool),
        KafkaOf(usize, bool),
        Operator,
        Nothing,
    }

    fn blows() -> impl Strategy<Value = Blow> {
        let index = 0..8_usize;
        proptest::prop_oneof![
            index.clone().prop_map(Blow::Kill),
            index.clone().prop_map(Blow::Pause),
            index.clone().prop_map(Blow::Resume),
            index.clone().prop_map(Blow::Restart),
            index.clone().prop_map(Blow::Leave),
            (index.clone(), any::<bool>()).prop_map(|(i, on)| Blow::Reach(i, on)),
            (index, any::<bool>()).prop_map(|(i, on)| Blow::KafkaOf(i, on)),
            any::<bool>().prop_map(Blow::Kafka),
            prop::strategy::Just(Blow::Operator),
            prop::strategy::Just(Blow::Nothing),
        ]
    }

    impl World {
        fn strike(&mut self, blow: Blow) {
            match blow {
                Blow::Kill(i) | Blow::Pause(i) => self.pod(i).runs = false,
                Blow::Resume(i) => self.pod(i).runs = true,
                Blow::Restart(i) => self.restart(i),
                Blow::Leave(i) => self.pod(i).leaving = true,
                Blow::Reach(i, on) => self.pod(i).reached = on,
                Blow::Kafka(on) => self.kafka = on,
                Blow::KafkaOf(i, on) => self.pod(i).hears_kafka = on,
                Blow::Operator => {
                    self.dispatcher = Dispatcher::new(self.shares);
                    let wish = Sign::Wish(wish(self.sellers));
                    self.dispatcher.handle(self.now, wish, &mut Vec::new());
                }
                Blow::Nothing => (),
            }
        }

        fn heal(&mut self) {
            self.kafka = true;
            for pod in self.pods.values_mut() {
                (pod.runs, pod.reached, pod.hears_kafka) = (true, true, true);
            }
        }
    }

    proptest! {
        // A case lives through a minute of a fleet; more of them by PROPTEST_CASES.
        #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]
        #[test]
        fn no_blow_makes_it_evict_the_living_and_every_fleet_that_heals_settles(
            shares in 1_u16..20,
            sellers in 1_usize..7,
            blows in prop::collection::vec((blows(), 1_usize..12), 0..20),
        ) {
            let mut world = World::new(shares, sellers);
            world.run_ms(4_000);
            for (blow, steps) in blows {
                world.strike(blow);
                for _ in 0..steps {
                    let answered: BTreeMap<NodeId, Option<Millis>> =
                        world.pods.iter().map(|(n, p)| (*n, p.answered)).collect();
                    let beats: BTreeMap<NodeId, Option<Millis>> =
                        world.pods.iter().map(|(n, p)| (*n, p.last_beat)).collect();
                    let refuses = |p: &Pod| !p.runs && (p.reached || p.rejected);
                    let ended: BTreeSet<NodeId> =
                        world.pods.iter().filter(|(_, p)| refuses(p)).map(|(n, _)| *n).collect();
                    world.step();
                    for node in &world.evicted {
                        let least = if ended.contains(node) { ENDED_MS } else { DEAD_MS };
                        let long_ago = |at: Option<Millis>| {
                            at.is_none_or(|at| world.now.since(at) >= least)
                        };
                        let answered = answered.get(node).copied().flatten();
                        prop_assert!(long_ago(answered), "{node} answered");
                        let beat = beats.get(node).copied().flatten();
                        prop_assert!(long_ago(beat), "{node} beat");
                        let others = world.pods.iter().filter(|(n, _)| *n != node);
                        let mut heard = others.filter_map(|(_, p)| p.last_beat);
                        let recent = heard.any(|at| world.now.since(at) < DEAD_MS + WITNESS_MS);
                        prop_assert!(recent, "all boards were silent");
                    }
                    let known = world.dispatcher.view(world.now).nodes.len();
                    let most = (known / 3).max(1);
                    prop_assert!(world.evicted.len() <= most);
                }
            }
            world.heal();
            world.run_ms(16_000);
            let view = world.dispatcher.view(world.now);
            prop_assert_eq!((view.owned, view.moving), (shares, 0));
            prop_assert!(world.policy.is_some());
            let posts = world.posts;
            world.run_ms(2_000);
            prop_assert_eq!(world.posts, posts);
        }
    }
}
