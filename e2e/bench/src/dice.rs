//! Numbers that look random and repeat with their seed.

use inventory::legs::Journey;

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.0;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `sides`, which is not 0.
    pub(crate) fn below(&mut self, sides: u64) -> u64 {
        self.next() % sides
    }

    /// Two different stops out of so many, each pair as likely as any other.
    pub(crate) fn journey(&mut self, stops: u8) -> Journey {
        loop {
            let stop = |n: u64| u8::try_from(n).unwrap_or(0);
            let (a, b) = (self.below(stops.into()), self.below(stops.into()));
            if let Some(journey) = Journey::new(stop(a.min(b)), stop(a.max(b))) {
                return journey;
            }
        }
    }
}
