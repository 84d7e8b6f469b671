//! What a handle sends to which broker, and what the answers mean. Pure: it is told what
//! happened and when, and leaves bytes and fates to be fetched. `sockets` moves them.
//!
//! A handle is a producer of its own (KIP-98): it numbers the frames of each partition, and the
//! partition's leader takes them in the order of their numbers, each once. What waits for one
//! partition is a [`Lane`]: a queue whose first frames are sent. Its rules:
//!
//! - Answers confirm a lane's first frame and no other. Anything else than a confirmation takes
//!   all back that is sent (`rewind`), and answers to what was sent before are then passed over.
//!   What is sent again has its old number, so a frame that was written all the same is found by
//!   the leader and confirmed where it lies.
//! - Only one frame is sent until the leader has confirmed one lately: a leader that knows nothing
//!   of a producer, or forgot it, takes any number as its first (KIP-360), so that the second of
//!   two could be written and the first never. Then as many are as requests may be under way, which
//!   are fewer than a leader remembers (of a producer's frames before its own restart: the last).
//! - A lane whose first frame can never be confirmed (its number does not fit, or the broker will
//!   not have it, or it waited too long) is broken: all that waits there is `Unknown`, and it goes
//!   on under an identity that it never had before. The others go on.
//!
//! Who leads is asked of any broker that answers, while a partition's leader is not known, or
//! cannot be reached, or is silent: so a leader that hangs is left as soon as another was elected,
//! and not only when its connection is given up.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    protocol::{self, Answer, Api, Code, Identity, Malformed},
    settings::{REPLICAS_MS_MAX, SILENCE_MAX},
};
use crate::{Fate, Partition, Refused, Slip, inbox};

mod lane;
mod link;
mod patience;
#[cfg(test)]
mod tests;

use lane::{Lane, Waiting, after};
use link::{Asked, SILENCE_ODD};
pub(super) use link::{Link, Stage};
use patience::Patience;

/// How many requests to produce may be under way to one broker. It takes them one by one, so
/// the second only saves it the way; what waits meanwhile goes in one request.
const REQUESTS_MAX: usize = 2;
const _: () = assert!(REQUESTS_MAX <= 5, "so many frames of a producer a leader remembers");

/// How much goes in one request, unless one frame alone is longer: what is slow to send is also
/// what is sent once more when a connection breaks.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// How many brokers are tried at once while nobody answers.
const TRIED_MAX: usize = 3;

/// Who leads a partition.
#[derive(Debug, Clone, Copy)]
struct Leader {
    link: Option<usize>,
    epoch: i32,
}

/// Something that brokers are to be asked.
#[derive(Debug)]
struct Wish {
    wanted: bool,
    /// The link that was asked, and its count then.
    asked: Option<(usize, u32)>,
    patience: Patience,
}

impl Wish {
    fn new(wanted: bool, now: Instant) -> Self {
        Self { wanted, asked: None, patience: Patience::new(now) }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.wanted && self.asked.is_none() && self.patience.is_due(now)
    }
}

/// Why a lane was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Reason {
    #[error("the broker said {0}")]
    Said(Code),
    #[error("it waited too long")]
    TooLate,
    #[error("the ledger was closed")]
    Closed,
}

/// What people should know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Complaint {
    #[error("appends to {0:?} have no fate: {1}")]
    NoFate(Partition, Reason),
    #[error("{0} does not understand our {1:?}: it is older than Kafka 2.1, or too new")]
    Stranger(Arc<str>, Api),
    #[error("{0} is of another cluster")]
    OtherCluster(Arc<str>),
    #[error("no producer id: the broker said {0}")]
    NoIdentity(Code),
    #[error("nobody says who leads: the broker said {0}")]
    NoMetadata(Code),
}

/// One handle's part in the protocol.
#[derive(Debug)]
pub(super) struct Writer {
    topic: Arc<str>,
    client_id: Arc<str>,
    /// The time after which a frame's fate is final.
    patience: Duration,
    /// The cluster's id, once it is known.
    cluster: Option<Option<String>>,
    leaders: Vec<Leader>,
    /// Of partitions that were appended to.
    lanes: BTreeMap<u16, Lane>,
    links: Vec<Link>,
    /// For lanes that have none. No lane has lost it.
    identity: Option<Identity>,
    facts: Wish,
    naming: Wish,
    /// Where the next question goes.
    turn: usize,
    waiting: usize,
    waiting_bytes: usize,
    /// What has its fate.
    pub(super) fates: Vec<(Slip, Fate)>,
    /// What people should know, the latest.
    pub(super) complaint: Option<Complaint>,
}

impl Writer {
    /// A writer to all of a topic's partitions that has to be told nothing more than whom to ask
    /// first: `host:port` each.
    pub(super) fn new(
        topic: &Arc<str>,
        client_id: &Arc<str>,
        partitions: u16,
        servers: &[Arc<str>],
        patience: Duration,
        now: Instant,
    ) -> Self {
        Self {
            topic: Arc::clone(topic),
            client_id: Arc::clone(client_id),
            patience,
            cluster: None,
            leaders: vec![Leader { link: None, epoch: -1 }; partitions.into()],
            lanes: BTreeMap::new(),
            links: servers
                .iter()
                .map(|address| Link::new(Arc::clone(address), true, now))
                .collect(),
            identity: None,
            facts: Wish::new(true, now),
            naming: Wish::new(true, now),
            turn: 0,
            waiting: 0,
            waiting_bytes: 0,
            fates: Vec::new(),
            complaint: None,
        }
    }

    pub(super) fn links(&self) -> &[Link] {
        &self.links
    }

    pub(super) fn link_mut(&mut self, index: usize) -> &mut Link {
        &mut self.links[index]
    }

    /// Whether something waits for its fate.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Whether it has to look around every now and then.
    pub(super) fn is_busy(&self) -> bool {
        self.is_waiting() || self.facts.wanted || self.naming.wanted
    }

    /// Takes a frame; [`Self::turn`] sends it.
    pub(super) fn append(
        &mut self,
        to: Partition,
        slip: Slip,
        frame: &[u8],
        now: Instant,
        now_ms: i64,
    ) -> Result<(), Refused> {
        if usize::from(to.0) >= self.leaders.len() {
            return Err(Refused::NoPartition(to));
        }
        let bytes = frame.len();
        // What has its fate and was not fetched still has its place.
        inbox::admits(self.waiting + self.fates.len(), self.waiting_bytes, bytes)?;
        self.waiting += 1;
        self.waiting_bytes += bytes;
        let lane = self.lanes.entry(to.0).or_insert_with(|| Lane::new(now));
        let batch = protocol::batch(frame, now_ms);
        lane.waiting.push_back(Waiting { slip, bytes, batch, since: now });
        Ok(())
    }

    /// Nothing more will come: all that waits is `Unknown`.
    pub(super) fn give_up(&mut self) {
        let partitions: Vec<u16> = self.lanes.keys().copied().collect();
        partitions.into_iter().for_each(|partition| self.break_lane(partition, Reason::Closed));
    }

    /// The connection was made.
    pub(super) fn opened(&mut self, index: usize, now: Instant) {
        let client_id = Arc::clone(&self.client_id);
        let link = &mut self.links[index];
        if link.stage == Stage::Opening {
            (link.stage, link.heard) = (Stage::Greeting, now);
            let (out, correlation) = link.ask(Asked::Versions, now);
            protocol::ask_versions(out, correlation, &client_id);
        }
    }

    /// The connection could not be made, or has ended, or is to be given up.
    pub(super) fn lost(&mut self, index: usize, now: Instant) {
        let link = &mut self.links[index];
        if link.stage == Stage::Closed {
            return;
        }
        link.stage = Stage::Closed;
        link.out.clear();
        link.questions.clear();
        link.patience.failed(now);
        for lane in self.lanes.values_mut().filter(|lane| lane.sent > 0 && lane.link == index) {
            lane.rewind();
        }
        let count = link.count;
        for wish in [&mut self.facts, &mut self.naming] {
            if wish.asked == Some((index, count)) {
                wish.asked = None;
                wish.patience.failed(now);
            }
        }
    }

    /// An answer came. After an error the connection is of no more use, and `lost` is to follow.
    pub(super) fn heard(
        &mut self,
        index: usize,
        mut answer: Answer<'_>,
        now: Instant,
    ) -> Result<(), Malformed> {
        let link = &mut self.links[index];
        let question = link.questions.pop_front().ok_or(Malformed)?;
        if answer.correlation()? != question.correlation {
            return Err(Malformed);
        }
        link.heard = now.max(link.heard);
        match question.asked {
            Asked::Versions => {
                if let Some(api) = answer.versions()? {
                    self.complaint = Some(Complaint::Stranger(Arc::clone(&link.address), api));
                    return Err(Malformed);
                }
                link.stage = Stage::Open;
            }
            Asked::Metadata => {
                self.facts.asked = None;
                self.facts.patience.failed(now);
                let facts = answer.metadata()?;
                link.is_deaf(facts.deaf_ms, now);
                // Whoever has another cluster's address by now may have a topic of that name.
                let ours = self.cluster.get_or_insert_with(|| facts.cluster.map(str::to_owned));
                if ours.as_deref() != facts.cluster {
                    self.complaint = Some(Complaint::OtherCluster(Arc::clone(&link.address)));
                    return Err(Malformed);
                }
                self.learn(&facts, now);
            }
            Asked::Identity => {
                self.naming.asked = None;
                let (identity, deaf_ms) = answer.identity()?;
                link.is_deaf(deaf_ms, now);
                match identity {
                    Ok(identity) => {
                        self.naming.wanted = false;
                        self.naming.patience.worked();
                        self.identity = Some(identity);
                    }
                    Err(code) => {
                        self.naming.patience.failed(now);
                        self.complaint = Some(Complaint::NoIdentity(code));
                    }
                }
            }
            Asked::Frames(lanes) => {
                let mut left = lanes;
                let deaf_ms = answer.produced(|partition, code, offset| {
                    let place = left.iter().position(|(p, _)| i32::from(*p) == partition);
                    if let Some((partition, attempt)) = place.map(|place| left.swap_remove(place)) {
                        self.told(partition, attempt, code, offset, now);
                    }
                })?;
                self.links[index].is_deaf(deaf_ms, now);
                // A broker that says nothing of a frame would have it wait for ever.
                if !left.is_empty() {
                    return Err(Malformed);
                }
            }
        }
        Ok(())
    }

    /// What became of a lane's first frame.
    fn told(&mut self, partition: u16, attempt: u32, code: Code, offset: i64, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&partition) else { return };
        if lane.attempt != attempt {
            return;
        }
        let fate = match code {
            Code::NONE => u64::try_from(offset).map_or(Fate::Somewhere, Fate::At),
            Code::DUPLICATE_SEQUENCE_NUMBER => Fate::Somewhere,
            code if code.may_pass() => {
                lane.rewind();
                lane.patience.failed(now);
                self.facts.wanted = true;
                return;
            }
            code => return self.break_lane(partition, Reason::Said(code)),
        };
        if let Some(done) = lane.waiting.pop_front() {
            lane.sent -= 1;
            lane.number = after(lane.number, 1);
            lane.proven = Some(now);
            lane.patience.worked();
            self.waiting -= 1;
            self.waiting_bytes -= done.bytes;
            self.fates.push((done.slip, fate));
        }
    }

    fn break_lane(&mut self, partition: u16, why: Reason) {
        let Some(lane) = self.lanes.get_mut(&partition) else { return };
        lane.rewind();
        lane.number = 0;
        // In a cluster that was made anew they are counted from the beginning.
        self.leaders[usize::from(partition)].epoch = -1;
        let lost = lane.identity.take();
        // Another lane may have brought a newer one already, which this one never had.
        if self.identity == lost {
            self.identity = None;
        }
        for lost in lane.waiting.drain(..) {
            self.waiting -= 1;
            self.waiting_bytes -= lost.bytes;
            self.fates.push((lost.slip, Fate::Unknown));
            self.complaint = Some(Complaint::NoFate(Partition(partition), why));
        }
    }

    fn learn(&mut self, facts: &protocol::Metadata<'_>, now: Instant) {
        if facts.code != Code::NONE {
            self.complaint = Some(Complaint::NoMetadata(facts.code));
            return;
        }
        let mut links = BTreeMap::new();
        self.links.iter_mut().for_each(|link| link.is_listed = false);
        for broker in &facts.brokers {
            let (host, port) = (broker.host, broker.port);
            let address: Arc<str> = if host.contains(':') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            }
            .into();
            links.insert(broker.node, self.link_to(address, now));
        }
        // It is answered; whoever still lacks something wishes again.
        self.facts.wanted = false;
        for led in &facts.partitions {
            let place = usize::try_from(led.index).ok().and_then(|i| self.leaders.get_mut(i));
            // Brokers hear of a new leader one after the other.
            if let Some(leader) = place.filter(|leader| led.epoch >= leader.epoch) {
                *leader = Leader { link: links.get(&led.leader).copied(), epoch: led.epoch };
            }
        }
    }

    /// The link to an address, which may be new. Those to where nobody is any more are used again.
    fn link_to(&mut self, address: Arc<str>, now: Instant) -> usize {
        if let Some(index) = self.links.iter().position(|link| link.address == address) {
            self.links[index].is_listed = true;
            return index;
        }
        let is_free = |(index, link): &(usize, &Link)| {
            let is_of_use = link.is_first || link.is_listed || link.stage != Stage::Closed;
            !is_of_use && self.leaders.iter().all(|leader| leader.link != Some(*index))
        };
        let free = self.links.iter().enumerate().find(is_free).map(|(index, _)| index);
        let mut link = Link::new(address, false, now);
        if let Some(index) = free {
            // Nobody may take the next connection for the one before.
            link.count = self.links[index].count;
            self.links[index] = link;
            index
        } else {
            self.links.push(link);
            self.links.len() - 1
        }
    }

    /// Does what is due: gives up, asks, and sends. To be called when all that came was heard, and
    /// every now and then while something waits.
    pub(super) fn turn(&mut self, now: Instant) {
        for index in 0..self.links.len() {
            if self.links[index].is_silent(now, SILENCE_MAX) {
                self.lost(index, now);
            }
        }
        let is_late = |lane: &Lane| {
            let first = lane.waiting.front();
            first.is_some_and(|it| now.saturating_duration_since(it.since) >= self.patience)
        };
        let late = self.lanes.iter().filter(|(_, lane)| is_late(lane)).map(|(at, _)| *at);
        // Empty nearly always, which is no allocation.
        let late: Vec<u16> = late.collect();
        late.into_iter().for_each(|partition| self.break_lane(partition, Reason::TooLate));
        self.push(now);
    }

    /// Sends what can be sent, and asks for what is missing.
    pub(super) fn push(&mut self, now: Instant) {
        self.tend_lanes(now);
        self.ask(now);
        self.send(now);
    }

    /// What each lane needs before it can send.
    fn tend_lanes(&mut self, now: Instant) {
        for (partition, lane) in &mut self.lanes {
            if lane.waiting.is_empty() {
                continue;
            }
            if lane.identity.is_none() {
                lane.identity = self.identity;
                self.naming.wanted |= lane.identity.is_none();
            }
            let Some(index) = self.leaders[usize::from(*partition)].link else {
                self.facts.wanted = true;
                continue;
            };
            if lane.sent > 0 && lane.link != index {
                lane.rewind();
            }
            let link = &mut self.links[index];
            link.open(now);
            // It may not lead any more. Nobody has to be asked because it is not open yet.
            self.facts.wanted |= match link.stage {
                Stage::Closed => true,
                _ => link.is_silent(now, SILENCE_ODD),
            };
        }
    }

    fn ask(&mut self, now: Instant) {
        for wish in [&mut self.facts, &mut self.naming] {
            // Whoever is silent may be so for long; another one will do.
            wish.asked = wish.asked.filter(|(index, count)| {
                let link = &self.links[*index];
                link.count == *count && link.is_well(now)
            });
        }
        if !self.facts.is_due(now) && !self.naming.is_due(now) {
            return;
        }
        let count = self.links.len();
        let around = |turn: usize| (turn..turn + count).map(move |at| at % count);
        let Some(index) = around(self.turn).find(|&index| self.links[index].is_well(now)) else {
            let trying = |link: &&Link| matches!(link.stage, Stage::Opening | Stage::Greeting);
            let mut tried = self.links.iter().filter(trying).count();
            for index in around(self.turn) {
                if tried < TRIED_MAX && self.links[index].stage == Stage::Closed {
                    self.links[index].open(now);
                    tried += usize::from(self.links[index].stage == Stage::Opening);
                }
            }
            self.turn += 1;
            return;
        };
        // The next question goes to another one, which may know more.
        self.turn = index + 1;
        let link = &mut self.links[index];
        let at = Some((index, link.count));
        if self.facts.is_due(now) {
            self.facts.asked = at;
            let (out, correlation) = link.ask(Asked::Metadata, now);
            protocol::ask_metadata(out, correlation, &self.client_id, &self.topic);
        }
        if self.naming.is_due(now) {
            self.naming.asked = at;
            let (out, correlation) = link.ask(Asked::Identity, now);
            protocol::ask_identity(out, correlation, &self.client_id);
        }
    }

    fn send(&mut self, now: Instant) {
        for index in 0..self.links.len() {
            while self.links[index].stage == Stage::Open
                && self.links[index].frames_under_way() < REQUESTS_MAX
                && self.send_to(index, now)
            {}
        }
    }

    /// One frame of each lane that has one for this link, in one request. Whether there was any.
    fn send_to(&mut self, index: usize, now: Instant) -> bool {
        let leaders = &self.leaders;
        let (mut sent, mut bytes) = (Vec::new(), 0);
        for (partition, lane) in &mut self.lanes {
            if leaders[usize::from(*partition)].link != Some(index) {
                continue;
            }
            if let Some((place, identity, number)) = lane.next(now) {
                let batch = &mut lane.waiting[place].batch;
                bytes += batch.len();
                if bytes > REQUEST_BYTES_MAX && !sent.is_empty() {
                    break;
                }
                protocol::number(batch, identity, number);
                (lane.link, lane.sent) = (index, lane.sent + 1);
                sent.push((*partition, lane.attempt));
            }
        }
        if sent.is_empty() {
            return false;
        }
        let lanes = &self.lanes;
        let batches = sent.iter().map(|(partition, _)| {
            let lane = &lanes[partition];
            (*partition, lane.waiting[lane.sent - 1].batch.as_slice())
        });
        let (topic, client_id) = (&self.topic, &self.client_id);
        let link = &mut self.links[index];
        let correlation = link.correlation();
        protocol::produce(&mut link.out, correlation, client_id, topic, REPLICAS_MS_MAX, batches);
        link.expect(correlation, Asked::Frames(sent), now);
        true
    }
}
