//! A writer against brokers that are a model: they keep Kafka's rules about numbers of frames and
//! nothing else, and lose, delay, cut and refuse by a seed's dice. `SEEDS=100000` tries more.

use std::collections::{BTreeSet, VecDeque};

use super::*;

const PARTITIONS: u16 = 3;
const NODES: usize = 3;
/// More than one handle's frames would be numbered by; so that it is passed.
const FIRST_PRODUCER: i64 = 7_000;

/// Marsaglia's xorshift: any dice will do that fall the same way again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    /// How much of so many bytes comes through.
    fn cut(&mut self, bytes: usize) -> usize {
        if self.one_in(2) { bytes } else { self.roll(bytes as u64 + 1) as usize }
    }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

fn int<const N: usize>(bytes: &mut &[u8]) -> i64 {
    take(bytes, N).iter().fold(0, |sum, byte| sum << 8 | i64::from(*byte)) << (64 - 8 * N)
        >> (64 - 8 * N)
}

fn text<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let length = int::<2>(bytes).max(0);
    take(bytes, length as usize)
}

fn varint(bytes: &mut &[u8]) -> i64 {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let byte = take(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return (value >> 1) as i64 ^ -((value & 1) as i64);
        }
    }
}

/// A frame as a broker sees it.
#[derive(Debug, Clone, Copy)]
struct Numbered {
    producer: i64,
    number: i64,
    slip: u64,
}

/// Reads a record batch by Kafka's own description of it, and checks all that a broker checks.
fn frame_of(mut bytes: &[u8]) -> Numbered {
    let whole = bytes.len() as i64;
    assert_eq!(int::<8>(&mut bytes), 0, "the first offset");
    assert_eq!(int::<4>(&mut bytes), whole - 12, "length");
    assert_eq!((int::<4>(&mut bytes), int::<1>(&mut bytes)), (-1, 2), "leader's epoch, magic");
    let sum = int::<4>(&mut bytes) as u32;
    assert_eq!(sum, crc32c::crc32c(bytes), "checksum");
    assert_eq!((int::<2>(&mut bytes), int::<4>(&mut bytes)), (0, 0), "attributes, last offset");
    assert_eq!(int::<8>(&mut bytes), int::<8>(&mut bytes), "times");
    let (producer, epoch) = (int::<8>(&mut bytes), int::<2>(&mut bytes));
    let (number, count) = (int::<4>(&mut bytes), int::<4>(&mut bytes));
    assert_eq!((epoch, count), (0, 1));
    assert_eq!(varint(&mut bytes), bytes.len() as i64, "the record's length");
    assert_eq!((int::<1>(&mut bytes), varint(&mut bytes), varint(&mut bytes)), (0, 0, 0));
    assert_eq!((varint(&mut bytes), varint(&mut bytes)), (-1, 8), "no key, and a frame");
    let slip = int::<8>(&mut bytes) as u64;
    assert_eq!((varint(&mut bytes), bytes.len()), (0, 0), "no headers, and its end");
    Numbered { producer, number, slip }
}

/// A partition, as all in-sync replicas have it.
#[derive(Default)]
struct Log {
    slips: Vec<u64>,
    /// The last five numbers of each producer, and where they lie.
    known: BTreeMap<i64, VecDeque<(i64, usize)>>,
    /// Producers that ever wrote.
    seen: BTreeSet<i64>,
    leader: usize,
    epoch: i32,
}

impl Log {
    /// What a leader does: the error, and the offset.
    fn write(&mut self, frame: Numbered, strict: bool) -> (i16, i64) {
        let is_new = !self.seen.contains(&frame.producer);
        if is_new && strict && frame.number != 0 {
            return (45, -1);
        }
        self.seen.insert(frame.producer);
        let known = self.known.entry(frame.producer).or_default();
        if let Some((_, at)) = known.iter().find(|(number, _)| *number == frame.number) {
            return (0, *at as i64);
        }
        // Whoever is not known may begin anywhere (KIP-360).
        let fits =
            known.back().is_none_or(|(last, _)| frame.number == (last + 1) & i64::from(i32::MAX));
        if !fits {
            return (45, -1);
        }
        known.push_back((frame.number, self.slips.len()));
        if known.len() > 5 {
            known.pop_front();
        }
        self.slips.push(frame.slip);
        (0, self.slips.len() as i64 - 1)
    }
}

/// A connection as its broker has it.
#[derive(Default)]
struct Wire {
    count: u32,
    /// What arrived there, and what is on its way back.
    arrived: Vec<u8>,
    back: Vec<u8>,
}

struct World {
    dice: Dice,
    logs: Vec<Log>,
    /// What each broker takes for each partition's leader and its epoch.
    views: Vec<Vec<(usize, i32)>>,
    hangs: [bool; NODES],
    wires: Vec<Wire>,
    /// Requests to produce of connections that are gone, which a broker may still come to.
    ghosts: Vec<(usize, Vec<u8>)>,
    next_producer: i64,
    writer: Writer,
    now: Instant,
    appended: Vec<Vec<u64>>,
    fates: BTreeMap<u64, Fate>,
    faults: bool,
    /// Whether there are only faults that pass soon: then nothing may be lost by them.
    gentle: bool,
    /// Whether brokers are as old as 2.1: a producer's first number must be 0 (KIP-360 is 2.5).
    strict: bool,
    forgotten: usize,
}

fn node_of(address: &str) -> usize {
    address.strip_prefix("node-").and_then(|a| a.split(':').next()?.parse().ok()).expect("ours")
}

impl World {
    fn new(seed: u64) -> World {
        let now = Instant::now();
        let servers: Vec<Arc<str>> = vec!["node-0:9092".into(), "node-1:9092".into()];
        let (topic, id) = ("tickets".into(), "test".into());
        let patience = Duration::from_secs(30);
        let mut writer = Writer::new(&topic, &id, PARTITIONS, &servers, patience, now);
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let logs: Vec<Log> = (0..PARTITIONS)
            .map(|_| Log { leader: dice.roll(3) as usize, ..Log::default() })
            .collect();
        let view: Vec<_> = logs.iter().map(|log| (log.leader, log.epoch)).collect();
        // Near the last number, so that some begin anew.
        let strict = !dice.one_in(4);
        if !strict {
            for partition in 0..PARTITIONS {
                let lane = writer.lanes.entry(partition).or_insert_with(|| Lane::new(now));
                lane.number = i32::MAX - 3;
            }
        }
        World {
            dice,
            views: vec![view; NODES],
            logs,
            hangs: [false; NODES],
            wires: Vec::new(),
            ghosts: Vec::new(),
            next_producer: FIRST_PRODUCER,
            writer,
            now,
            appended: vec![Vec::new(); PARTITIONS.into()],
            fates: BTreeMap::new(),
            faults: true,
            gentle: seed % 2 == 1,
            strict,
            forgotten: 0,
        }
    }

    fn append(&mut self) {
        let partition = self.dice.roll(PARTITIONS.into()) as usize;
        let slip = self.appended.iter().map(Vec::len).sum::<usize>() as u64;
        let to = Partition(partition as u16);
        self.writer.append(to, Slip(slip), &slip.to_be_bytes(), self.now, 0).expect("room");
        self.writer.push(self.now);
        self.appended[partition].push(slip);
    }

    /// What the executor does, in any order and cut anywhere.
    fn carry(&mut self, index: usize) {
        if index == self.wires.len() {
            self.wires.push(Wire::default());
        }
        let link = self.writer.link_mut(index);
        let node = node_of(&link.address);
        let wire = &mut self.wires[index];
        if link.stage == Stage::Closed || wire.count != link.count {
            let gone = std::mem::replace(wire, Wire { count: link.count, ..Wire::default() });
            self.ghosts.push((node, gone.arrived));
        }
        match link.stage {
            Stage::Closed => {}
            Stage::Opening if self.faults && self.dice.one_in(10) => {
                self.writer.lost(index, self.now);
            }
            Stage::Opening => self.writer.opened(index, self.now),
            Stage::Greeting | Stage::Open => {
                if self.faults && self.dice.one_in(60) {
                    return self.writer.lost(index, self.now);
                }
                let some = self.dice.cut(link.out.len());
                wire.arrived.extend(link.out.drain(..some));
                let some = self.dice.cut(wire.back.len());
                let mut at = 0;
                while let Some((answer, length)) =
                    protocol::first(&wire.back[at..some]).expect("an answer")
                {
                    self.writer.heard(index, answer, self.now).expect("one that makes sense");
                    at += length;
                }
                wire.back.drain(..at);
            }
        }
    }

    /// A broker takes one request, if there is a whole one.
    fn serve(&mut self, index: usize) {
        let Some(wire) = self.wires.get_mut(index) else { return };
        let node = node_of(&self.writer.links()[index].address);
        if self.hangs[node] || wire.arrived.len() < 4 {
            return;
        }
        let length = int::<4>(&mut &wire.arrived[..4]) as usize;
        if wire.arrived.len() < 4 + length {
            return;
        }
        let request: Vec<u8> = wire.arrived.drain(..4 + length).skip(4).collect();
        let answer = self.answer(node, &request);
        let back = &mut self.wires[index].back;
        back.extend((answer.len() as i32).to_be_bytes());
        back.extend(answer);
    }

    /// A broker comes to what a connection that is gone had left.
    fn haunt(&mut self) {
        if self.ghosts.is_empty() {
            return;
        }
        let at = self.dice.roll(self.ghosts.len() as u64) as usize;
        let (node, arrived) = self.ghosts.swap_remove(at);
        let mut rest = &arrived[..];
        while rest.len() >= 4 {
            let length = int::<4>(&mut rest) as usize;
            if rest.len() < length {
                return;
            }
            let request = take(&mut rest, length);
            self.answer(node, request);
        }
    }

    fn answer(&mut self, node: usize, mut request: &[u8]) -> Vec<u8> {
        let bytes = &mut request;
        let (key, version, correlation) = (int::<2>(bytes), int::<2>(bytes), int::<4>(bytes));
        assert_eq!(text(bytes), b"test");
        let mut out = (correlation as i32).to_be_bytes().to_vec();
        match (key, version) {
            (18, 0) => {
                out.extend([0, 0, 0, 0, 0, 4]);
                for (key, least, most) in
                    [(0_i16, 3_i16, 13_i16), (3, 0, 13), (18, 0, 4), (22, 0, 6)]
                {
                    [key, least, most].iter().for_each(|it| out.extend(it.to_be_bytes()));
                }
            }
            (3, 7) => {
                assert_eq!((int::<4>(bytes), text(bytes), bytes.len()), (1, &b"tickets"[..], 1));
                out.extend([0; 4]);
                out.extend((NODES as i32).to_be_bytes());
                for node in 0..NODES {
                    out.extend((node as i32 + 1).to_be_bytes());
                    let host = format!("node-{node}");
                    out.extend((host.len() as i16).to_be_bytes());
                    out.extend(host.as_bytes());
                    out.extend(9092_i32.to_be_bytes());
                    out.extend((-1_i16).to_be_bytes());
                }
                out.extend((-1_i16).to_be_bytes());
                out.extend([0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 7]);
                out.extend(b"tickets");
                out.push(0);
                out.extend(i32::from(PARTITIONS).to_be_bytes());
                for (partition, (leader, epoch)) in self.views[node].iter().enumerate() {
                    out.extend([0, 0]);
                    for it in [partition as i32, *leader as i32 + 1, *epoch, 1, 1, 1, 1, 0] {
                        out.extend(it.to_be_bytes());
                    }
                }
            }
            (22, 1) => {
                let fails = self.faults && self.dice.one_in(8);
                out.extend([0; 4]);
                out.extend(if fails { 14_i16 } else { 0 }.to_be_bytes());
                out.extend(self.next_producer.to_be_bytes());
                out.extend(0_i16.to_be_bytes());
                self.next_producer += 1;
            }
            (0, 7) => {
                assert_eq!((int::<2>(bytes), int::<2>(bytes)), (-1, -1), "all replicas");
                assert_eq!((int::<4>(bytes), int::<4>(bytes)), (1_000, 1));
                assert_eq!(text(bytes), b"tickets");
                out.extend([0, 0, 0, 1, 0, 7]);
                out.extend(b"tickets");
                let count = int::<4>(bytes);
                out.extend((count as i32).to_be_bytes());
                for _ in 0..count {
                    let (partition, length) = (int::<4>(bytes) as usize, int::<4>(bytes));
                    let frame = frame_of(take(bytes, length as usize));
                    let (code, offset) = self.produce(node, partition, frame);
                    out.extend((partition as i32).to_be_bytes());
                    out.extend(code.to_be_bytes());
                    out.extend(offset.to_be_bytes());
                    out.extend([0; 16]);
                }
                assert!(bytes.is_empty());
                out.extend([0; 4]);
            }
            other => panic!("a request that was never meant: {other:?}"),
        }
        out
    }

    fn produce(&mut self, node: usize, partition: usize, frame: Numbered) -> (i16, i64) {
        let log = &mut self.logs[partition];
        let (faults, strict) = (self.faults, self.strict);
        let dice = &mut self.dice;
        if (log.leader, log.epoch) != self.views[node][partition] || log.leader != node {
            // Even one that still believes to lead gets no replica to agree.
            return (if dice.one_in(2) { 6 } else { 7 }, -1);
        }
        match dice.roll(40) {
            0 if faults => (19, -1),
            // Written, and not known to be.
            1 if faults => {
                log.write(frame, strict);
                ([7, 20][dice.roll(2) as usize], -1)
            }
            // It will never have this one.
            2 if faults && !self.gentle && dice.one_in(20) => (87, -1),
            _ => log.write(frame, strict),
        }
    }

    fn step(&mut self) {
        let index = self.dice.roll(self.writer.links().len() as u64) as usize;
        match self.dice.roll(12) {
            0..=2 => self.carry(index.min(self.wires.len())),
            3..=5 => self.serve(index),
            6 => self.haunt(),
            7 if self.appended.iter().map(Vec::len).sum::<usize>() < 300 => self.append(),
            8 => {
                self.now += Duration::from_millis(self.dice.roll(40));
                self.writer.turn(self.now);
            }
            9 if self.faults => self.fault(),
            10 => {
                // Brokers hear who leads, each when it does.
                let node = self.dice.roll(NODES as u64) as usize;
                self.views[node] = self.logs.iter().map(|log| (log.leader, log.epoch)).collect();
            }
            _ => self.writer.push(self.now),
        }
        for (Slip(slip), fate) in std::mem::take(&mut self.writer.fates) {
            assert_eq!(self.fates.insert(slip, fate), None, "{slip} has two fates");
        }
    }

    fn fault(&mut self) {
        let partition = self.dice.roll(PARTITIONS.into()) as usize;
        let node = self.dice.roll(NODES as u64) as usize;
        match self.dice.roll(30) {
            0 => {
                let log = &mut self.logs[partition];
                (log.leader, log.epoch) = (node, log.epoch + 1);
            }
            1 => self.hangs[node] = true,
            2..=9 => self.hangs[node] = false,
            10 if !self.gentle => self.now += Duration::from_secs(self.dice.roll(3)),
            11 if !self.gentle && self.dice.one_in(40) => self.now += Duration::from_secs(40),
            // Producers that were silent for a day are forgotten, and what they sent before is gone.
            12..=14 => {
                let is_idle = !self.writer.is_waiting()
                    && self.ghosts.is_empty()
                    && self.wires.iter().all(|wire| wire.arrived.is_empty())
                    && self.writer.links().iter().all(|link| link.out.is_empty());
                if is_idle {
                    self.now += Duration::from_secs(86_400);
                    self.logs.iter_mut().for_each(|log| log.known.clear());
                    self.forgotten += 1;
                }
            }
            _ => {}
        }
    }

    /// What must hold at any time.
    fn check(&self) {
        for (log, appended) in self.logs.iter().zip(&self.appended) {
            let mut last = None;
            let mut seen = BTreeSet::new();
            for (at, slip) in log.slips.iter().enumerate() {
                assert!(seen.insert(slip), "{slip} was written twice");
                match self.fates.get(slip) {
                    Some(Fate::At(told)) => assert_eq!(*told, at as u64, "{slip} lies elsewhere"),
                    Some(Fate::Unknown) => continue,
                    None | Some(Fate::Somewhere) => {}
                }
                assert!(last.is_none_or(|last| last < slip), "{slip} lies behind {last:?}");
                last = Some(slip);
            }
            for slip in appended {
                let told = matches!(self.fates.get(slip), Some(Fate::At(_) | Fate::Somewhere));
                assert!(!told || seen.contains(slip), "{slip} was confirmed and is not there");
            }
        }
        let waiting: usize = self.writer.lanes.values().map(|lane| lane.waiting.len()).sum();
        let appended: usize = self.appended.iter().map(Vec::len).sum();
        assert_eq!((self.writer.waiting, waiting), (waiting, appended - self.fates.len()));
        assert_eq!(self.writer.waiting_bytes, 8 * waiting);
    }
}

/// How many fates there were, how many of them unknown, and how often all was forgotten.
fn run(seed: u64) -> [usize; 3] {
    let mut world = World::new(seed);
    for _ in 0..6_000 {
        world.step();
    }
    world.check();
    // Whatever happened, soon after it has ended frames are written, and all of them in the end.
    world.faults = false;
    world.hangs = [false; NODES];
    let (mut last, mut told) = (world.now, world.fates.len());
    while world.writer.is_waiting() {
        world.step();
        if world.fates.len() > told {
            (last, told) = (world.now, world.fates.len());
        }
        let time = world.now.duration_since(last);
        assert!(time < Duration::from_secs(6), "nothing for {time:?}: {:?}", world.writer);
    }
    // And goes on from there.
    let before = world.fates.len();
    for _ in 0..20 {
        world.append();
    }
    while world.writer.is_waiting() {
        world.step();
    }
    let after: Vec<_> = world.fates.values().skip(before).collect();
    assert!(!after.contains(&&Fate::Unknown), "{:?}", world.writer);
    world.check();
    let lost = world.fates.values().filter(|fate| **fate == Fate::Unknown).count();
    assert!(
        !world.gentle || lost == 0,
        "{lost} are unknown, and all would have passed: {:?}",
        world.writer.complaint
    );
    [world.fates.len(), lost, world.forgotten]
}

#[test]
fn whatever_brokers_do_frames_are_written_once_in_order_and_fates_are_true() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(200);
    let mut sums = [0; 3];
    for seed in 1..=seeds {
        let told = std::panic::catch_unwind(|| run(seed));
        let told = told.unwrap_or_else(|_| panic!("seed {seed}"));
        sums.iter_mut().zip(told).for_each(|(sum, one)| *sum += one);
    }
    let [all, lost, forgotten] = sums;
    println!("{all} fates, {lost} of them unknown; forgotten {forgotten} times; {seeds} seeds");
    assert!(lost > 0 && lost < all / 4 && forgotten > 0);
}
