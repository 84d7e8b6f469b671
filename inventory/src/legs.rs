//! Stops, journeys and legs: which part of a run a seat is held for.

/// Stops of one run at most, so that its legs fit a `u128`.
pub const STOPS_MAX: u8 = 128;

/// A stop of a run, `0..n`.
pub type Stop = u8;

/// From one stop to a later one of the same run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Journey {
    from: Stop,
    to: Stop,
}

impl Journey {
    /// The journey from stop `from` to stop `to`; none unless `from < to < STOPS_MAX`.
    #[must_use]
    pub const fn new(from: Stop, to: Stop) -> Option<Self> {
        if from < to && to < STOPS_MAX { Some(Self { from, to }) } else { None }
    }

    /// Where it starts.
    #[must_use]
    pub const fn from(self) -> Stop {
        self.from
    }

    /// Where it ends.
    #[must_use]
    pub const fn to(self) -> Stop {
        self.to
    }

    /// How many legs it has, at least 1.
    #[must_use]
    pub const fn leg_count(self) -> u8 {
        self.to - self.from
    }

    /// Whether `other` lies within this one.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.from <= other.from && other.to <= self.to
    }
}

/// A set of legs: bit `k` is the leg from stop `k` to stop `k + 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Legs(u128);

impl Legs {
    /// No leg.
    pub const NONE: Self = Self(0);

    /// The legs of a journey.
    #[must_use]
    pub const fn of(journey: Journey) -> Self {
        Self((u128::MAX >> (128 - journey.leg_count())) << journey.from)
    }

    /// All legs of a run with this many stops, `2..=STOPS_MAX`.
    #[must_use]
    pub const fn all(stops: u8) -> Self {
        Self(u128::MAX >> (129 - stops as u32))
    }

    /// Whether every leg of `other` is here.
    #[must_use]
    pub const fn hold(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether some leg is in both.
    #[must_use]
    pub const fn meet(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The legs of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The legs that are here and not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is no leg.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many legs.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// The bits, for hashing and for the wire.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// The set with these bits.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The longest journey within these legs that contains `journey`, if these hold it.
    #[must_use]
    pub const fn stretch_around(self, journey: Journey) -> Option<Journey> {
        if !self.hold(Self::of(journey)) {
            return None;
        }
        // Below `from`: the run of ones that ends at bit from - 1.
        let below = if journey.from == 0 {
            0
        } else {
            (self.0 << (128 - journey.from as u32)).leading_ones() as u8
        };
        let above = (self.0 >> journey.from).trailing_ones() as u8;
        Some(Journey { from: journey.from - below, to: journey.from + above })
    }

    /// The legs that are in both.
    #[must_use]
    pub const fn within(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// From the first leg of the first stretch that is another here than there to the last leg of
    /// the last one. Outside of it, and on its border, no stretch differs or goes on.
    #[must_use]
    pub const fn touched(self, there: Self) -> Self {
        let changed = self.0 ^ there.0;
        if changed == 0 {
            return Self::NONE;
        }
        let either = self.0 | there.0;
        let (first, last) = (changed.trailing_zeros(), 127 - changed.leading_zeros());
        let below = if first == 0 { 0 } else { (either << (128 - first)).leading_ones() };
        let above = (either >> last).trailing_ones();
        Self((u128::MAX << (first - below)) & (u128::MAX >> (128 - last - above)))
    }

    /// The maximal ranges of legs: the stretches of a seat whose free legs these are.
    pub fn stretches(self) -> impl Iterator<Item = Journey> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let from = left.trailing_zeros();
            let len = (left >> from).trailing_ones();
            left &= !((u128::MAX >> (128 - len)) << from);
            Some(Journey { from: from as u8, to: (from + len) as u8 })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn journey() -> impl Strategy<Value = Journey> {
        (0..127u8)
            .prop_flat_map(|a| (Just(a), a + 1..128))
            .prop_map(|(a, b)| Journey::new(a, b).unwrap())
    }

    #[test]
    fn ten_stations_have_nine_legs() {
        assert_eq!(Legs::all(10).count(), 9);
        assert_eq!(Legs::all(2).count(), 1);
        assert_eq!(Legs::all(128).count(), 127);
        assert_eq!(Journey::new(0, 128), None);
        assert_eq!(Journey::new(3, 3), None);
    }

    proptest! {
        #[test]
        fn the_legs_of_a_journey_are_its_stops_but_the_last(j in journey()) {
            let bits: Vec<u8> = (0..128).filter(|k| Legs::of(j).bits() >> k & 1 == 1).collect();
            prop_assert_eq!(bits, (j.from()..j.to()).collect::<Vec<_>>());
        }

        #[test]
        fn stretches_are_disjoint_maximal_and_complete(bits: u128) {
            let legs = Legs::from_bits(bits & Legs::all(128).bits());
            let mut union = Legs::NONE;
            let mut end = None;
            for s in legs.stretches() {
                prop_assert!(end.is_none_or(|e| e < s.from()));
                end = Some(s.to());
                union = union.with(Legs::of(s));
            }
            prop_assert_eq!(union, legs);
        }

        #[test]
        fn what_is_touched_is_whole_stretches_and_all_that_differ(a: u128, b: u128, spare: u128) {
            let all = Legs::all(128).bits();
            // Mostly alike, as a seat is before and after.
            let (a, b) = (a & all, (a & !spare | b & spare) & all);
            for (a, b) in [(a, b), (b, a), (a, a), (0, a), (a, a & !1), (a, a & b)] {
                let (before, after) = (Legs::from_bits(a), Legs::from_bits(b));
                let touched = before.touched(after);
                prop_assert_eq!(touched, after.touched(before));
                prop_assert!(touched.stretches().count() <= 1, "in one piece");
                prop_assert!(touched.hold(Legs::from_bits(a ^ b)));
                for legs in [before, after] {
                    for stretch in legs.stretches().map(Legs::of) {
                        prop_assert!(touched.hold(stretch) || !touched.meet(stretch));
                    }
                }
                for (here, there) in [(before, after), (after, before)] {
                    for s in here.stretches().filter(|s| !touched.meet(Legs::of(*s))) {
                        prop_assert_eq!(there.stretch_around(s), Some(s));
                    }
                }
            }
        }

        #[test]
        fn the_stretch_around_a_journey_is_one_of_the_stretches(bits: u128, j in journey()) {
            let legs = Legs::from_bits(bits & Legs::all(128).bits());
            let expected = legs.stretches().find(|s| s.contains(j));
            prop_assert_eq!(legs.stretch_around(j), expected);
        }
    }
}
