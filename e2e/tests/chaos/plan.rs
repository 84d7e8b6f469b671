//! What will be done to a fleet, and when: a pure function of a size and a seed.
//!
//! Calm stretches, in which a node is killed now and then and nothing else happens, change with
//! storms, in which faults overlap. Whoever carries a plan out has no choices left.

use std::fmt;

/// How long a calm kill has no other fault before and after it.
pub(crate) const CALM_MS: u64 = 15_000;
/// Between two faults of a calm stretch, and around a storm. Three seconds more than is promised: a
/// fault is made when its program has started, on a machine that may be busy.
const STEP_MS: u64 = CALM_MS + 3_000;
/// How much later than planned a storm's last fault may be over: a broker that starts again on a
/// busy machine is back when it has recovered its logs, which took 15 s.
const HEAL_MS: u64 = 20_000;
/// A lease of 8 s is free 3 to 8 s after its holder stopped, and is looked at every 1.3 s.
const DUEL_MS: u64 = 14_000;

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Kills that have no other fault near them.
    pub(crate) calm_kills: u64,
    pub(crate) storm_kills: u64,
    pub(crate) stops: u64,
    pub(crate) stop_ms_max: u64,
    pub(crate) partitions: u64,
    pub(crate) wipes: u64,
    pub(crate) broker_kills: u64,
    pub(crate) duels: u64,
    pub(crate) storms: u64,
    pub(crate) storm_ms: u64,
    /// Orders that are bought meanwhile, at least.
    pub(crate) orders: u64,
    /// The coaches of each run, 100 seats each: so different that at any time the tail of some
    /// run is sold, and so many that the largest are never sold out.
    pub(crate) runs: &'static [usize],
}

/// What `make chaos` does.
pub(crate) const WHOLE: Size = Size {
    calm_kills: 40,
    storm_kills: 10,
    stops: 20,
    stop_ms_max: 60_000,
    partitions: 10,
    wipes: 5,
    broker_kills: 5,
    duels: 3,
    storms: 5,
    storm_ms: 75_000,
    orders: 200_000,
    runs: &[1, 1, 2, 2, 4, 4, 8, 8, 12, 12, 12, 12, 12, 12, 12],
};

/// What `make test` does of it.
pub(crate) const TENTH: Size = Size {
    calm_kills: 4,
    storm_kills: 1,
    stops: 2,
    stop_ms_max: 30_000,
    partitions: 1,
    wipes: 1,
    broker_kills: 1,
    duels: 1,
    storms: 1,
    storm_ms: 45_000,
    orders: 20_000,
    runs: &[1, 1, 2, 4, 8, 12],
};

/// No fault at all.
pub(crate) const NOTHING: Size = Size {
    calm_kills: 0,
    storm_kills: 0,
    stops: 0,
    partitions: 0,
    wipes: 0,
    broker_kills: 0,
    duels: 0,
    storms: 1,
    storm_ms: 0,
    ..WHOLE
};

/// What is done to whom. Nodes are numbered in the order of the names of those that can be hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deed {
    /// SIGKILL of a node that owns shares; in a calm stretch or in a storm.
    Kill { node: usize, calm: bool },
    /// SIGSTOP, then SIGCONT.
    Stop { node: usize },
    /// A machine's cable.
    Cut { machine: u8, way: Way },
    /// Redis.
    Wipe(Wipe),
    /// A broker is killed, then started again.
    KillBroker { broker: usize },
    /// The leading operator is stopped until another leads, then both run.
    Duel,
}

/// Which directions of a cable break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Both,
    Deaf,
    Mute,
}

/// How Redis loses what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wipe {
    /// It is emptied.
    Flush,
    /// It is killed and comes back empty.
    Kill,
    /// It comes back with what it held a while ago.
    Stale,
}

impl Deed {
    /// Its kind, for figures.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Kill { calm: true, .. } => "kill, calm",
            Self::Kill { calm: false, .. } => "kill in a storm",
            Self::Stop { .. } => "stop",
            Self::Cut { way: Way::Both, .. } => "partition",
            Self::Cut { .. } => "one-way partition",
            Self::Wipe(_) => "wipe of Redis",
            Self::KillBroker { .. } => "kill of a broker",
            Self::Duel => "duel of operators",
        }
    }
}

/// A deed, and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fault {
    /// Since the beginning.
    pub(crate) at_ms: u64,
    /// Until it is ended; 0 for what cannot be ended.
    pub(crate) lasts_ms: u64,
    pub(crate) deed: Deed,
}

impl Fault {
    fn ends_ms(&self) -> u64 {
        self.at_ms + self.lasts_ms
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |ms: u64| ms as f64 / 1_000.0;
        write!(f, "{:7.1} s  {:?}", seconds(self.at_ms), self.deed)?;
        if self.lasts_ms > 0 {
            write!(f, " for {:.1} s", seconds(self.lasts_ms))?;
        }
        Ok(())
    }
}

/// All that will be done, in the order of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) faults: Vec<Fault>,
    /// When it is over, with the calm behind the last fault.
    pub(crate) ends_ms: u64,
}

/// Numbers that look random and repeat with their seed (splitmix64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from `least` to `most`.
    pub(crate) fn roll(&mut self, least: u64, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        least + (z ^ (z >> 31)) % (most.max(least) - least + 1)
    }

    fn index(&mut self, below: usize) -> usize {
        usize::try_from(self.roll(0, below as u64 - 1)).expect("below a usize")
    }
}

const NODES: usize = 5;
const MACHINES: u64 = 3;
const BROKERS: usize = 3;

/// Makes a plan.
pub(crate) fn plan(size: &Size, seed: u64) -> Plan {
    let mut dice = Dice::new(seed);
    let turn = dice.roll(0, 3);
    let (mut faults, mut now) = (Vec::new(), 0);
    for storm in 0..size.storms {
        // The part of `all` that falls to this storm and the calm before it.
        let part = |all: u64| all * storm / size.storms..all * (storm + 1) / size.storms;
        for _ in part(size.calm_kills) {
            now += STEP_MS;
            let deed = Deed::Kill { node: dice.index(NODES), calm: true };
            faults.push(Fault { at_ms: now, lasts_ms: 0, deed });
        }
        now += STEP_MS;
        let mut storm = Storm { from: now, ms: size.storm_ms, dice: &mut dice, into: &mut faults };
        for _ in part(size.storm_kills) {
            storm.anywhere(0, |dice| Deed::Kill { node: dice.index(NODES), calm: false });
        }
        for i in part(size.stops) {
            // Seven has no factor in common with their number: each storm has short and long ones.
            let (step, steps) = (i * 7 % size.stops, (size.stops - 1).max(1));
            let lasts_ms = 5_000 + (size.stop_ms_max - 5_000) * step / steps;
            storm.anywhere(lasts_ms, |dice| Deed::Stop { node: dice.index(NODES) });
        }
        // An operator whose machine is cut off cannot take over, and one that was cut off for long
        // has ended and comes back when its kubelet thinks fit: a duel has no cut before it.
        let duels = part(size.duels);
        let duel_ms = if duels.is_empty() { 0 } else { DUEL_MS + 1_000 };
        (storm.from, storm.ms) = (now + duel_ms, size.storm_ms - duel_ms);
        storm.in_turn(part(size.partitions), (5_000, 30_000), |dice, i| {
            let machine = dice.roll(1, MACHINES);
            let machine = u8::try_from(machine).expect("a few machines");
            let way = [Way::Both, Way::Deaf, Way::Both, Way::Mute][(i + turn) as usize % 4];
            Deed::Cut { machine, way }
        });
        (storm.from, storm.ms) = (now, duel_ms);
        storm.in_turn(duels, (DUEL_MS, DUEL_MS), |_, _| Deed::Duel);
        (storm.from, storm.ms) = (now, size.storm_ms);
        storm.in_turn(part(size.wipes), (3_000, 20_000), |_, i| {
            Deed::Wipe([Wipe::Flush, Wipe::Kill, Wipe::Stale][(i + turn) as usize % 3])
        });
        storm.in_turn(part(size.broker_kills), (5_000, 15_000), |dice, _| Deed::KillBroker {
            broker: dice.index(BROKERS),
        });
        now += size.storm_ms + HEAL_MS;
    }
    faults.sort();
    Plan { faults, ends_ms: now + STEP_MS }
}

struct Storm<'a> {
    from: u64,
    ms: u64,
    dice: &'a mut Dice,
    into: &'a mut Vec<Fault>,
}

impl Storm<'_> {
    /// A fault that may overlap any other.
    fn anywhere(&mut self, lasts_ms: u64, deed: impl FnOnce(&mut Dice) -> Deed) {
        let at_ms = self.from + self.dice.roll(0, self.ms - lasts_ms);
        let deed = deed(self.dice);
        self.into.push(Fault { at_ms, lasts_ms, deed });
    }

    /// Faults of a kind of which there is only one at a time, since two at once would be one
    /// fault of another kind: no majority of brokers, no machine left, no operator at all.
    fn in_turn(
        &mut self,
        which: std::ops::Range<u64>,
        (least_ms, most_ms): (u64, u64),
        mut deed: impl FnMut(&mut Dice, u64) -> Deed,
    ) {
        let (first, count) = (which.start, which.end - which.start);
        for i in which {
            // A second remains between two of them, for the end of the first.
            let slot_ms = self.ms / count;
            let lasts_ms = self.dice.roll(least_ms, most_ms.min(slot_ms - 1_000));
            let spare_ms = slot_ms - 1_000 - lasts_ms;
            let at_ms = self.from + slot_ms * (i - first) + self.dice.roll(0, spare_ms);
            let deed = deed(self.dice, i);
            self.into.push(Fault { at_ms, lasts_ms, deed });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Many seeds: a plan that breaks its promise for one in a hundred would be noticed late.
    fn plans(size: &Size) -> impl Iterator<Item = Plan> {
        (0..500).map(|seed| plan(size, seed))
    }

    fn counts(plan: &Plan) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        plan.faults.iter().for_each(|f| *counts.entry(f.deed.kind()).or_default() += 1);
        counts
    }

    #[test]
    fn every_seed_makes_the_same_number_of_each_fault() {
        for plan in plans(&WHOLE) {
            let want = [
                ("duel of operators", 3),
                ("kill in a storm", 10),
                ("kill of a broker", 5),
                ("kill, calm", 40),
                ("one-way partition", 5),
                ("partition", 5),
                ("stop", 20),
                ("wipe of Redis", 5),
            ];
            assert_eq!(counts(&plan), BTreeMap::from(want));
        }
        for plan in plans(&TENTH) {
            let counts = counts(&plan);
            let cuts = ["partition", "one-way partition"].map(|k| counts.get(k).unwrap_or(&0));
            assert_eq!(cuts.into_iter().sum::<u64>(), 1);
            assert_eq!((counts["kill, calm"], counts["stop"]), (4, 2));
            let rest = ["wipe of Redis", "kill of a broker", "duel of operators"];
            assert_eq!(rest.map(|kind| counts[kind]), [1, 1, 1]);
        }
    }

    #[test]
    fn a_calm_kill_has_no_other_fault_within_15_seconds() {
        for plan in plans(&WHOLE).chain(plans(&TENTH)) {
            for (at, kill) in plan.faults.iter().enumerate() {
                let Deed::Kill { calm: true, .. } = kill.deed else { continue };
                for (other_at, other) in plan.faults.iter().enumerate().filter(|(i, _)| *i != at) {
                    let before = other.ends_ms() + CALM_MS < kill.at_ms;
                    let after = kill.at_ms + CALM_MS < other.at_ms;
                    assert!(before || after, "{kill} at {at} meets {other} at {other_at}");
                }
            }
        }
    }

    #[test]
    fn faults_of_which_there_can_be_one_at_a_time_do_not_overlap() {
        for plan in plans(&WHOLE).chain(plans(&TENTH)) {
            let mut last: BTreeMap<u8, u64> = BTreeMap::new();
            for fault in &plan.faults {
                let lane = match fault.deed {
                    Deed::Cut { .. } => 0,
                    Deed::Wipe(_) => 1,
                    Deed::KillBroker { .. } => 2,
                    Deed::Duel => 3,
                    Deed::Kill { .. } | Deed::Stop { .. } => continue,
                };
                let ended = last.insert(lane, fault.ends_ms()).unwrap_or(0);
                assert!(ended < fault.at_ms, "{fault}");
            }
        }
    }

    #[test]
    fn a_duel_has_no_cut_beside_it_or_shortly_before() {
        for plan in plans(&WHOLE).chain(plans(&TENTH)) {
            let of = |deed: fn(&Deed) -> bool| plan.faults.iter().filter(move |f| deed(&f.deed));
            for duel in of(|deed| *deed == Deed::Duel) {
                for cut in of(|deed| matches!(deed, Deed::Cut { .. })) {
                    let before = cut.ends_ms() + 60_000 < duel.at_ms;
                    assert!(before || duel.ends_ms() < cut.at_ms, "{duel} meets {cut}");
                }
            }
        }
    }

    #[test]
    fn stops_last_5_to_60_seconds_and_all_ends_in_calm() {
        for plan in plans(&WHOLE) {
            let stops = plan.faults.iter().filter(|f| matches!(f.deed, Deed::Stop { .. }));
            let mut lasts: Vec<u64> = stops.map(|f| f.lasts_ms).collect();
            lasts.sort_unstable();
            assert_eq!((lasts[0], lasts[19]), (5_000, 60_000));
            assert!(plan.faults.iter().all(|f| f.ends_ms() + CALM_MS < plan.ends_ms));
        }
    }

    #[test]
    fn redis_is_lost_in_all_three_ways() {
        for plan in plans(&WHOLE) {
            for wipe in [Wipe::Flush, Wipe::Kill, Wipe::Stale] {
                assert!(plan.faults.iter().any(|f| f.deed == Deed::Wipe(wipe)));
            }
        }
    }

    #[test]
    fn a_seed_makes_one_plan_and_another_seed_another() {
        assert_eq!(plan(&WHOLE, 7), plan(&WHOLE, 7));
        assert_ne!(plan(&WHOLE, 7), plan(&WHOLE, 8));
    }
}
