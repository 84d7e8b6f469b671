//! What a fleet costs its operator: planning, judging who is dead, and what it keeps in mind.

use std::collections::BTreeMap;
use std::time::Instant;

use control::config::Role;
use control::report as told;
use e2e::{Error, Result};
use inventory::dispatcher::{Dispatcher, NodeState, Output, Report, Sign, Wish};
use inventory::entry::SaleState;
use inventory::plan::{Fleet as Members, Member, MemberState, Owned, SharePlan, check, plan};
use inventory::words::{Epoch, Millis, NodeId, ShareId};
use serde::Serialize;

use super::board::REPORTS_PER_SECOND;
use super::fleet::{Fleet, START, policy};
use super::{grown, median_millis};

/// How often the operator decides in a second.
const TICKS_PER_SECOND: f64 = 10.0;
/// How long everybody has missed those who died, when it is looked at.
const DEAD_FOR_MS: u64 = 1_600;
/// How often nodes die.
const DEATHS: usize = 3;
/// Reports that are parsed to see what one takes.
const PARSED: usize = 9;

/// The planner alone.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Planned {
    /// Milliseconds of the first plan.
    pub(crate) first_ms: f64,
    /// Milliseconds of the plan after one node has died.
    pub(crate) one_dead_ms: f64,
    /// Milliseconds of the plan after a tenth of them has.
    pub(crate) tenth_dead_ms: f64,
    /// Milliseconds of the judge over that plan.
    pub(crate) check_ms: f64,
    /// Shares that the last of these plans moves.
    pub(crate) moved: usize,
}

/// Plans for a fleet.
///
/// # Errors
/// When the judge finds something in a plan: a defect.
pub(super) fn planned(fleet: &Fleet) -> Result<Planned> {
    let member = Member { weight: 1, state: MemberState::Ready };
    let mut members = Members {
        shares: fleet.size.shares(),
        nodes: fleet.nodes.iter().map(|node| (*node, member)).collect(),
        owners: BTreeMap::new(),
    };
    let none = SharePlan::default();
    let first = plan(&none, &members);
    let first_ms = median_millis(3, || drop(std::hint::black_box(plan(&none, &members))));
    let owned = |node| Owned { node, epoch: Epoch(1), lost: false };
    members.owners = first.nodes.iter().map(|(share, node)| (*share, owned(*node))).collect();
    let mut after = |dead: usize| -> Result<(f64, f64, usize)> {
        for node in fleet.nodes.iter().take(dead) {
            members.nodes.insert(*node, Member { state: MemberState::Dead, ..member });
        }
        let next = plan(&first, &members);
        let findings = check(&next, &first, &members);
        if let Some(finding) = findings.first() {
            return Err(Error::Refused(format!("a plan: {finding}")));
        }
        let moved = next.nodes.iter().filter(|(share, node)| first.nodes[share] != **node);
        let plan_ms = median_millis(3, || drop(std::hint::black_box(plan(&first, &members))));
        let check_ms =
            median_millis(3, || drop(std::hint::black_box(check(&next, &first, &members))));
        Ok((plan_ms, check_ms, moved.count()))
    };
    let (one_dead_ms, _, _) = after(1)?;
    let (tenth_dead_ms, check_ms, moved) = after(tenth(fleet))?;
    Ok(Planned { first_ms, one_dead_ms, tenth_dead_ms, check_ms, moved })
}

fn tenth(fleet: &Fleet) -> usize {
    fleet.nodes.len().div_ceil(10)
}

/// The operator of one sale.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Watched {
    /// Bytes of a node's report, as JSON.
    pub(crate) report_bytes: usize,
    /// Microseconds of the node to write it, and of the operator to read it.
    pub(crate) report_write_micros: f64,
    pub(crate) report_read_micros: f64,
    /// Microseconds of the operator to take it in.
    pub(crate) report_take_in_micros: f64,
    /// Bytes a second of all reports.
    pub(crate) reports_bytes_per_second: f64,
    /// Milliseconds to decide when nothing has happened, when one node is dead, when a tenth is.
    pub(crate) settled_tick_ms: f64,
    pub(crate) one_dead_tick_ms: f64,
    pub(crate) tenth_dead_tick_ms: f64,
    /// How many cores reports and decisions take when nothing happens.
    pub(crate) cores: f64,
    /// Bytes of memory of all that is kept: the last report of each node, as it was read and as
    /// the dispatcher has it.
    pub(crate) read_reports_bytes: u64,
    pub(crate) dispatcher_bytes: u64,
    /// Nodes that are held to be dead after a tenth of them has died, in the first decision.
    pub(crate) evicted: usize,
}

/// Has the operator's deciding watch the fleet, of which one node reports as given.
///
/// # Errors
/// When it does not decide what it must: a defect.
pub(super) fn watched(fleet: &Fleet, sample: &Report) -> Result<Watched> {
    let report = as_told(sample);
    let json = serde_json::to_string(&report).map_err(|e| Error::Refused(e.to_string()))?;
    let write_ms =
        median_millis(PARSED, || drop(std::hint::black_box(serde_json::to_vec(&report))));
    let parsed = || {
        let read: std::result::Result<told::Report, _> = serde_json::from_str(&json);
        let read = read.map_err(|e| Error::Refused(e.to_string()))?;
        let sign = Report::try_from(&read).map_err(|e| Error::Refused(e.to_string()))?;
        Ok((read, sign))
    };
    let read_ms = median_millis(PARSED, || {
        let _ = std::hint::black_box(parsed());
    });
    let nodes = fleet.nodes.len();
    // The smaller first: what the larger gives back would hide all of it.
    let dispatcher_bytes = grown(|| {
        let mut watch = Watch::new(fleet, sample);
        watch.round(&[]);
        Ok(watch.dispatcher)
    })?;
    let read_reports_bytes =
        grown(|| (0..nodes).map(|_| parsed().map(|(read, _)| read)).collect::<Result<Vec<_>>>())?;
    let mut watch = Watch::new(fleet, sample);
    watch.settle()?;
    let take_in_micros = watch.round(&[]) / nodes as f64;
    let settled_tick_ms = median_millis(3, || drop(watch.tick()));
    let (one_dead_tick_ms, one) = loses(fleet, sample, 1)?;
    let (tenth_dead_tick_ms, evicted) = loses(fleet, sample, tenth(fleet))?;
    if one != 1 || evicted == 0 {
        return Err(Error::Refused(format!("{one} and {evicted} were evicted")));
    }
    let reports = nodes as f64 * REPORTS_PER_SECOND;
    let each = read_ms * 1_000.0 + take_in_micros;
    Ok(Watched {
        report_bytes: json.len(),
        report_write_micros: write_ms * 1_000.0,
        report_read_micros: read_ms * 1_000.0,
        report_take_in_micros: take_in_micros,
        reports_bytes_per_second: reports * json.len() as f64,
        settled_tick_ms,
        one_dead_tick_ms,
        tenth_dead_tick_ms,
        cores: (reports * each + TICKS_PER_SECOND * settled_tick_ms * 1_000.0) / 1e6,
        read_reports_bytes,
        dispatcher_bytes,
        evicted,
    })
}

/// So many nodes die; the milliseconds of the decision that follows, the median of some tries, and
/// how many it evicts.
fn loses(fleet: &Fleet, sample: &Report, dead: usize) -> Result<(f64, usize)> {
    let tries = (0..DEATHS).map(|_| {
        let mut watch = Watch::new(fleet, sample);
        watch.settle()?;
        Ok(watch.lose(&fleet.nodes[..dead]))
    });
    let mut tries = tries.collect::<Result<Vec<_>>>()?;
    tries.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(tries[tries.len() / 2])
}

/// A dispatcher, and reports of the whole fleet for it.
struct Watch<'a> {
    fleet: &'a Fleet,
    sample: &'a Report,
    dispatcher: Dispatcher,
    now: Millis,
}

impl<'a> Watch<'a> {
    fn new(fleet: &'a Fleet, sample: &'a Report) -> Self {
        let mut dispatcher = Dispatcher::new(fleet.size.shares());
        let limits = policy().limits;
        let wish = Wish {
            sellers: fleet.nodes.len(),
            begin_at: None,
            state: SaleState::Active,
            open: None,
            close: None,
            limits,
        };
        let pods = fleet.nodes.iter();
        let pods = pods.map(|node| Sign::PodSeen { node: *node, sells: true, leaving: false });
        let plan = fleet.assign();
        let in_force = Sign::InForce { plan, policy: Some(policy()) };
        for sign in pods.chain([Sign::Wish(wish), in_force]) {
            dispatcher.handle(START, sign, &mut Vec::new());
        }
        Self { fleet, sample, dispatcher, now: START }
    }

    /// Every node but `dead` reports; the microseconds to take that in.
    fn round(&mut self, dead: &[NodeId]) -> f64 {
        let mut micros = 0.0;
        for (at, node) in self.fleet.nodes.iter().enumerate() {
            if dead.contains(node) {
                continue;
            }
            let report = self.report(at, dead);
            let begun = Instant::now();
            let sign = Sign::Answered(Box::new(report));
            self.dispatcher.handle(self.now, sign, &mut Vec::new());
            micros += begun.elapsed().as_secs_f64() * 1e6;
        }
        micros
    }

    /// What the node at this place says, as the sample's node would in its stead.
    fn report(&self, at: usize, dead: &[NodeId]) -> Report {
        let node = self.fleet.nodes[at];
        let holding = |share: ShareId| inventory::dispatcher::Holding {
            share,
            epoch: Epoch(1),
            recovering: false,
        };
        let mut report = self.sample.clone();
        report.owns = self.fleet.shares_of(at).map(holding).collect();
        if let Some(peer) = report.peers.iter_mut().find(|peer| peer.node == node) {
            // The sample's node is a peer of all others, and none of its own.
            peer.node = report.node;
            peer.incarnation = report.incarnation;
            peer.owns = self.fleet.shares_of(0).map(|share| (share, Epoch(1))).collect();
        }
        (report.node, report.incarnation) = (node, Fleet::incarnation(at));
        report.state = NodeState::Ready;
        for peer in &mut report.peers {
            peer.silent_ms = if dead.contains(&peer.node) { DEAD_FOR_MS } else { 100 };
        }
        report
    }

    fn tick(&mut self) -> Vec<Output> {
        let mut out = Vec::new();
        self.dispatcher.handle(self.now, Sign::Tick, &mut out);
        out
    }

    /// Everybody has reported for long enough to bear witness, and nothing is to be done.
    fn settle(&mut self) -> Result<()> {
        self.round(&[]);
        self.now = self.now.plus(2 * DEAD_FOR_MS);
        self.round(&[]);
        let out = self.tick();
        let moves = out.iter().any(|o| matches!(o, Output::Post(_) | Output::DeletePod(_)));
        if moves { Err(Error::Refused(format!("a settled fleet moves: {out:?}"))) } else { Ok(()) }
    }

    /// Some die and are missed by all; the milliseconds to decide, and how many are evicted.
    fn lose(&mut self, dead: &[NodeId]) -> (f64, usize) {
        for after in [0, 250, 500] {
            let asked = self.now.plus(after);
            for node in dead {
                let sign = Sign::Unanswered { node: *node, asked, refused: false };
                self.dispatcher.handle(asked, sign, &mut Vec::new());
            }
        }
        self.now = self.now.plus(DEAD_FOR_MS);
        self.round(dead);
        let begun = Instant::now();
        let out = self.tick();
        let millis = begun.elapsed().as_secs_f64() * 1_000.0;
        (millis, out.iter().filter(|o| matches!(o, Output::DeletePod(_))).count())
    }
}

/// A report as it goes over the wire.
fn as_told(of: &Report) -> told::Report {
    let peer = |peer: &inventory::dispatcher::Peer| told::Peer {
        node: peer.node.to_string(),
        incarnation: peer.incarnation.0,
        board_silent_ms: peer.silent_ms,
        shares: peer.owns.iter().map(|(share, epoch)| (share.0, epoch.0)).collect(),
    };
    let share = |holding: &inventory::dispatcher::Holding| told::Share {
        share: holding.share.0,
        epoch: holding.epoch.0,
        state: told::ShareState::Selling,
    };
    told::Report {
        node: of.node.to_string(),
        incarnation: of.incarnation.0,
        address: "10.100.0.0:8080".to_owned(),
        role: Role::Sell,
        weight: of.weight,
        state: told::NodeState::Ready,
        pool: told::PoolPosition {
            position: 3,
            definition_version: 1,
            assign_version: 1,
            policy_version: 1,
        },
        shares: of.owns.iter().map(share).collect(),
        candidates: Vec::new(),
        peers: of.peers.iter().map(peer).collect(),
        own_board_ok: of.board_ok,
        redis: Some(told::RedisHealth { ok_within_ms: Some(40) }),
        kafka_ok: true,
    }
}
