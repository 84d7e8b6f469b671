//! What a seed stands for: a sale, its nodes, its buyers and its faults, as lists from which
//! shrinking can take things away.

use inventory::definition::{Class, Coach, Definition, Fare, Run, StopTime, Timetable};
use inventory::entry::Limits;
use inventory::words::ClassId;

use crate::rng::Rng;

/// The ledger's name.
pub(crate) const LEDGER: &str = "sim";
/// Its topic's id.
pub(crate) const TOPIC: [u8; 16] = [7; 16];

/// Faults begin and buyers come from here on: the fleet has had time to begin.
pub(crate) const BUSY_FROM: u64 = 4_000;
/// No fault begins after this.
pub(crate) const FAULTS_UNTIL: u64 = 45_000;
/// Every fault has ended by now.
pub(crate) const HEAL_AT: u64 = 50_000;

/// Something that goes wrong, or happens to a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Kind {
    /// A process ends at once; another of the same name starts later.
    Crash,
    /// A process stands still, and goes on as if nothing had been.
    Pause,
    /// Nothing passes between a node and Kafka.
    CutKafka,
    /// What a node says reaches Kafka; nothing comes back.
    DeafKafka,
    /// Nothing passes from one node to another; the way back works.
    OneWay,
    /// A node reaches Kafka, but neither buyers nor peers nor the operator reach it.
    Grey,
    /// A partition is read late.
    SlowReads,
    /// The board is read late.
    SlowBoard,
    /// A partition confirms late.
    SlowWrites,
    /// Deliveries whose fate is never told, written or not.
    UnknownAcks,
    /// Deliveries without an offset.
    NoOffsets,
    /// A leader is lost with what it had not confirmed; a new one takes a while.
    LeaderLost,
    /// Kafka is gone.
    KafkaGone,
    /// A node's log takes no appends.
    Refusing,
    /// Redis forgets everything.
    RedisFlushed,
    /// Redis goes back to what it knew a while ago.
    RedisStale,
    /// Redis does not answer.
    RedisGone,
    /// There is no operator.
    OperatorGone,
    /// Two operators act at once.
    TwoOperators,
    /// A node's wall clock jumps.
    ClockJump,
    /// A tail breaks off.
    Torn,
    /// One tail of a node fetches nothing more, until it is replaced.
    StuckTail,
    /// A machine sleeps: its clocks stand still; at waking its wall clock is right again, and
    /// its connections are dead for a while.
    Sleep,
    /// Kafka is away while a node is started anew.
    ColdStart,
    /// The operator is started anew.
    OperatorRestart,
    /// A node is told to go; another takes its place, now and then under the same name.
    Drain,
    /// A machine is cut off from the operator and from peers; its pod is replaced while it
    /// lives on.
    Zombie,
    /// More to sell.
    Amend,
    /// A run is taken off sale; now and then it comes back.
    Withdraw,
    /// No new orders for a while.
    Suspend,
    /// The TrainSale is deleted, its nodes drained, and created again over the same ledger.
    Recreate,
}

/// All kinds, with how often they are drawn.
const KINDS: &[(Kind, u64)] = &[
    (Kind::Crash, 8),
    (Kind::Pause, 8),
    (Kind::CutKafka, 5),
    (Kind::DeafKafka, 5),
    (Kind::OneWay, 6),
    (Kind::Grey, 3),
    (Kind::SlowReads, 6),
    (Kind::SlowBoard, 3),
    (Kind::SlowWrites, 9),
    (Kind::UnknownAcks, 6),
    (Kind::NoOffsets, 5),
    (Kind::LeaderLost, 8),
    (Kind::KafkaGone, 2),
    (Kind::Refusing, 2),
    (Kind::RedisFlushed, 3),
    (Kind::RedisStale, 3),
    (Kind::RedisGone, 3),
    (Kind::OperatorGone, 3),
    (Kind::TwoOperators, 3),
    (Kind::ClockJump, 4),
    (Kind::Torn, 4),
    (Kind::StuckTail, 5),
    (Kind::Sleep, 5),
    (Kind::ColdStart, 2),
    (Kind::OperatorRestart, 3),
    (Kind::Drain, 4),
    (Kind::Zombie, 3),
    (Kind::Amend, 5),
    (Kind::Withdraw, 4),
    (Kind::Suspend, 1),
    (Kind::Recreate, 1),
];

/// A fault.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// When it begins.
    pub(crate) at: u64,
    /// How long it lasts, where it lasts.
    pub(crate) lasts: u64,
    /// What it is.
    pub(crate) kind: Kind,
    /// Which node, partition or way it meets, modulo how many there are.
    pub(crate) target: u64,
    /// A number more.
    pub(crate) twist: u64,
}

/// What a buyer does after the seats are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Pays soon.
    Pays,
    /// Pays soon, and gives the ticket back.
    PaysAndReturns,
    /// Pays when the hold is about to end or has ended.
    PaysLate,
    /// Gives the seats up.
    Cancels,
    /// Does nothing.
    Leaves,
}

/// One wish of one buyer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Purchase {
    /// When it is pressed first.
    pub(crate) at: u64,
    /// Which buyer.
    pub(crate) buyer: u16,
    /// Which run, modulo how many there are.
    pub(crate) run: u16,
    /// Which class, modulo.
    pub(crate) class: u8,
    /// From which stop.
    pub(crate) from: u8,
    /// How many legs.
    pub(crate) legs: u8,
    /// How many seats.
    pub(crate) party: u8,
    /// Whether it is pressed twice at once.
    pub(crate) twice: bool,
    /// What follows.
    pub(crate) then: Then,
    /// Seeds this buyer's own patience.
    pub(crate) salt: u64,
}

/// Everything that a seed stands for.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    /// The seed.
    pub(crate) seed: u64,
    /// How many nodes there are at first.
    pub(crate) nodes: usize,
    /// What is sold.
    pub(crate) definition: Definition,
    /// How much one may buy.
    pub(crate) limits: Limits,
    /// Whether there is a Redis.
    pub(crate) redis: bool,
    /// Its faults, by time.
    pub(crate) faults: Vec<Fault>,
    /// Its purchases, by time.
    pub(crate) purchases: Vec<Purchase>,
}

impl Scenario {
    /// What `seed` stands for.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed, 1);
        // Now and then there are more nodes than shares.
        let few = rng.chance(10);
        let nodes = usize::try_from(rng.within(3, 5)).unwrap_or(3) + usize::from(few);
        let shares = if few { rng.within(2, 3) } else { rng.within(4, 8) };
        let shares = u16::try_from(shares).unwrap_or(4);
        let definition = definition(&mut rng, shares);
        let limits = Limits {
            passengers_per_order: 4,
            live_holds: u16::try_from(rng.within(1, 4)).unwrap_or(1),
            orders: 8,
            payment_ms: u32::try_from(rng.within(4, 12)).unwrap_or(8) * 1_000,
            grace_ms: 1_000,
            low_water_seats: u16::try_from(rng.within(0, 4)).unwrap_or(2),
        };
        let redis = rng.chance(80);
        let faults = faults(&mut Rng::new(seed, 2));
        let purchases = purchases(&mut Rng::new(seed, 3), &definition);
        Self { seed, nodes, definition, limits, redis, faults, purchases }
    }
}

fn definition(rng: &mut Rng, shares: u16) -> Definition {
    let stops = u8::try_from(rng.within(3, 6)).unwrap_or(3);
    let classes = usize::try_from(rng.within(1, 2)).unwrap_or(1);
    let stop = |i: u8| StopTime {
        code: format!("S{i}"),
        name: String::new(),
        arrives: Some(u16::from(i) * 10),
        departs: Some(u16::from(i) * 10 + 2),
    };
    let timetable = Timetable {
        name: "t".into(),
        stops: (0..stops).map(stop).collect(),
        classes: (0..classes)
            .map(|i| Class { name: format!("C{i}"), fare: Fare::Flat(100 + i as u64) })
            .collect(),
        coaches: (0..classes)
            .map(|i| coach(i, ClassId(u8::try_from(i).unwrap_or(0)), rng.within(12, 40)))
            .collect(),
    };
    let runs = rng.within(1, 3);
    let run = |i: u64, rng: &mut Rng| Run {
        train: format!("G{i}"),
        date: "2027-02-01".into(),
        timetable: 0,
        homes: u16::try_from(rng.within(1, u64::from(shares.min(4)))).unwrap_or(1),
        withdrawn: false,
    };
    Definition {
        ledger: LEDGER.into(),
        currency: "CNY".into(),
        time_zone: "UTC".into(),
        shares,
        buffer_percent: u8::try_from(rng.pick(&[0, 20, 40, 100])).unwrap_or(20),
        block_seats: u16::try_from(rng.within(2, 6)).unwrap_or(4),
        timetables: vec![timetable],
        runs: (0..runs).map(|i| run(i, rng)).collect(),
    }
}

fn coach(at: usize, class: ClassId, seats: u64) -> Coach {
    let seats = u16::try_from(seats).unwrap_or(20);
    Coach { name: format!("{at}"), class, seats, row_layout: "A-C".into() }
}

/// The definition with one run off sale, or on sale again.
pub(crate) fn withdrawn(old: &Definition, twist: u64, withdrawn: bool) -> Definition {
    let mut new = old.clone();
    let at = usize::try_from(twist % new.runs.len() as u64).unwrap_or(0);
    new.runs[at].withdrawn = withdrawn;
    new
}

/// The definition with one coach more, and now and then another run.
pub(crate) fn amended(old: &Definition, twist: u64) -> Definition {
    let mut new = old.clone();
    let timetable = &mut new.timetables[0];
    let class = ClassId(u8::try_from(twist % timetable.classes.len() as u64).unwrap_or(0));
    let at = timetable.coaches.len();
    timetable.coaches.push(coach(at, class, 4 + twist % 9));
    if twist.is_multiple_of(3) {
        let i = new.runs.len();
        let homes = u16::try_from(1 + twist % 3).unwrap_or(1).min(new.shares);
        let (train, date) = (format!("G{i}"), "2027-02-02".to_owned());
        new.runs.push(Run { train, date, timetable: 0, homes, withdrawn: false });
    }
    new
}

fn faults(rng: &mut Rng) -> Vec<Fault> {
    let total: u64 = KINDS.iter().map(|(_, weight)| weight).sum();
    let mut faults = Vec::new();
    for _ in 0..rng.within(20, 28) {
        let mut at = rng.next() % total;
        let kind = KINDS.iter().find(|(_, weight)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        let Some((kind, _)) = kind else { continue };
        let lasts = match kind {
            Kind::KafkaGone => 30_000,
            Kind::Pause | Kind::Zombie => rng.pick(&[800, 3_000, 12_000, 25_000]),
            Kind::Sleep => rng.pick(&[300, 3_000, 6_000, 12_000, 25_000]),
            // So long a tail is waited for before it is replaced.
            Kind::StuckTail | Kind::ColdStart => rng.within(2_000, 6_000),
            Kind::Crash => rng.pick(&[50, 500, 3_000, 12_000]),
            Kind::LeaderLost => rng.within(200, 3_000),
            Kind::Recreate => rng.within(1_000, 4_000),
            Kind::SlowWrites => rng.pick(&[2_000, 5_000, 14_000]),
            _ => rng.pick(&[500, 2_000, 5_000, 14_000]),
        };
        let at = rng.within(BUSY_FROM, FAULTS_UNTIL);
        let lasts = lasts.min(HEAL_AT - at);
        faults.push(Fault { at, lasts, kind: *kind, target: rng.next(), twist: rng.next() });
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn purchases(rng: &mut Rng, definition: &Definition) -> Vec<Purchase> {
    let seats = u64::from(definition.timetables[0].seats()) * definition.runs.len() as u64;
    // Many more wishes than seats, so that the sale gets to its end early, and most of its time
    // is spent where seats come back one by one and "sold out" has to be proven.
    let count = (seats * 4).clamp(80, 260);
    let stops = definition.timetables[0].stops.len() as u64;
    let mut purchases: Vec<Purchase> = (0..count)
        .map(|_| {
            let from = rng.within(0, stops - 2);
            Purchase {
                at: rng.within(BUSY_FROM, HEAL_AT - 2_000),
                buyer: u16::try_from(rng.within(0, 59)).unwrap_or(0),
                run: u16::try_from(rng.within(0, 7)).unwrap_or(0),
                class: u8::try_from(rng.within(0, 1)).unwrap_or(0),
                from: u8::try_from(from).unwrap_or(0),
                legs: u8::try_from(rng.within(1, stops - 1 - from)).unwrap_or(1),
                party: u8::try_from(rng.pick(&[1, 1, 1, 2, 2, 3, 4])).unwrap_or(1),
                twice: rng.chance(15),
                then: rng.pick(&[
                    Then::Pays,
                    Then::Pays,
                    Then::Pays,
                    Then::PaysAndReturns,
                    Then::PaysLate,
                    Then::Cancels,
                    Then::Leaves,
                ]),
                salt: rng.next(),
            }
        })
        .collect();
    purchases.sort_by_key(|purchase| purchase.at);
    purchases
}
