//! The end: everything settles, and what is free is bought.

use inventory::board::ShareStage;

use inventory::words::RunId;

use super::{Event, World};
use crate::scenario::{HEAL_AT, Purchase, Then};
use crate::shopper::Stage;

/// All that was wanted has to be settled so long after the faults: the longest hold and its
/// grace, the grace after a take-over, clocks that are apart, and a claim by silence.
const SETTLE_MS: u64 = 75_000;
/// What is free has to be sold so long after that, each time around.
const RESALE_MS: u64 = 20_000;
/// How often it is tried: buyers of the same round get in each other's way.
const RESALES_MAX: usize = 15;

impl World<'_> {
    /// Whether a live process sells every share that it was the last to claim.
    fn all_sell(&self) -> Result<(), String> {
        for (share, (epoch, writer)) in self.judge.owners() {
            let owner = self.processes.iter().find(|p| p.alive && Some(p.me.incarnation) == writer);
            let stage = owner.and_then(|p| p.conductor.owned().get(&share).copied());
            if !matches!(stage, Some((e, ShareStage::Selling)) if e == epoch) {
                let contenders = self.processes.iter().enumerate().filter(|(_, p)| p.alive);
                let contenders = contenders.map(|(pid, p)| {
                    let at = p.running.get(&share).map(|r| {
                        let now = p.clocks(self.now);
                        let next = (r.contender.state().position(), r.contender.step(now));
                        (next, r.asking, r.contender.prospect().map(|(s, _)| s))
                    });
                    format!("process {pid} contends {}: {at:?}", p.conductor.is_contended(share))
                });
                let contenders: Vec<String> = contenders.collect();
                return Err(format!("share {share}, epoch {epoch}: {stage:?}; {contenders:?}"));
            }
        }
        Ok(())
    }

    /// Looks whether everything has come to an end; goes on with the resale when it has.
    pub(super) fn settled(&mut self) {
        let open = self.shoppers.iter().position(|s| s.stage != Stage::Done);
        let unsettled = self.judge.unsettled();
        let sells = self.all_sell();
        if open.is_none() && unsettled.is_empty() && sells.is_ok() {
            self.resell();
            return;
        }
        if self.now < HEAL_AT + SETTLE_MS {
            self.at(self.now + 500, Event::Settled);
            return;
        }
        if let Err(why) = sells {
            self.judge.late(self.now, "no share stays unowned", why);
        }
        if let Some(at) = open {
            let shopper = &self.shoppers[at];
            let what = format!("buyer {at} {:?} order {:?}", shopper.stage, shopper.order);
            self.judge.late(self.now, "every request comes to an end", what);
        }
        if !unsettled.is_empty() {
            self.judge.late(self.now, "every hold comes to an end", unsettled.join("; "));
        }
    }

    /// Sends a buyer for every stretch that is free.
    fn resell(&mut self) {
        let free = self.judge.free();
        let (runs, classes) = self.offer();
        if free.is_empty() {
            self.over = true;
            return;
        }
        let sold = self.shoppers.iter().filter(|s| s.end == Some("paid")).count();
        for (run, class, from, to) in free {
            let buyer = 1_000 + u16::try_from(self.shoppers.len()).unwrap_or(0);
            let wish = Purchase {
                at: self.now + self.rng.within(0, 1_500),
                buyer,
                run: run.0,
                class: class.0,
                from,
                legs: to - from,
                party: 1,
                twice: false,
                then: Then::Pays,
                salt: self.rng.next() | 1 << 40,
            };
            // Runs that an Amend brought are for sale too.
            self.shop(wish, runs.max(usize::from(run.0) + 1), classes);
            if let Some(shopper) = self.shoppers.last_mut() {
                shopper.run = RunId(run.0);
            }
        }
        self.at(self.now + RESALE_MS, Event::Resold(sold));
    }

    pub(super) fn resold(&mut self, sold_before: usize) {
        let open = self.shoppers.iter().position(|s| s.stage != Stage::Done);
        let sold = self.shoppers.iter().filter(|s| s.end == Some("paid")).count();
        self.resales += 1;
        if let Some(at) = open {
            let shopper = &self.shoppers[at];
            let what = format!("buyer {at} {:?} {:?}", shopper.stage, shopper.order);
            self.judge.late(self.now, "what is free can be bought", what);
        } else if sold == sold_before || self.resales > RESALES_MAX {
            let free = self.judge.free();
            let what = format!("{free:?} are left, and nobody gets them");
            self.judge.late(self.now, "what is free can be bought", what);
        } else {
            self.resell();
        }
    }
}
