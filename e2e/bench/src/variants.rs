//! One node that sells to other crowds: more runs at a time, more connections, a connection for
//! each request, orders that are asked for twice, and many who look for one who buys.

use e2e::{Error, Result};

use crate::load::{Crowd, Manner};
use crate::sale::{House, Terms, run_name};
use crate::table::{Compared, Shot};
use crate::{Bench, Ceiling};

/// Runs of a large sale that are all bought at the same time.
const MANY_RUNS: u16 = 1_000;
/// What a page of runs is asked for.
const PAGE: &str = "/v1/runs/H0001/2027-02-01?from=T03&to=T10";
/// How often somebody looks before somebody buys.
const LOOKS: u32 = 1_000;

struct Variant {
    what: &'static str,
    terms: Terms,
    manner: Manner,
    /// Whether answers count, and not new orders only.
    answers: bool,
}

impl Variant {
    fn all() -> Vec<Self> {
        let usual = |what, manner| Self { what, terms: Terms::of(1), manner, answers: false };
        let with = Manner::default;
        let many = Terms { runs: MANY_RUNS, ..Terms::of(1) };
        let runs: Vec<String> = (0..MANY_RUNS).map(run_name).collect();
        vec![
            usual("10 runs at a time", Manner { width: 10, ..with() }),
            Self {
                terms: many,
                ..usual("1,000 runs at a time", Manner { width: MANY_RUNS, runs, ..with() })
            },
            usual("400 connections", Manner { connections: 400, ..with() }),
            usual("a connection each", Manner { closes: true, ..with() }),
            Self { answers: true, ..usual("every order twice", Manner { twice: true, ..with() }) },
            Self {
                answers: true,
                ..usual("1,000 looks an order", Manner { looks: LOOKS, ..with() })
            },
        ]
    }

    /// What counts as done.
    fn count(&self, shot: &mut Shot) -> Result<()> {
        let Self { what, answers, .. } = self;
        if !answers {
            return shot.only_sales(what);
        }
        let (answered, orders) = (shot.seen.requests, shot.done);
        if shot.seen.refused > 0 {
            return Err(Error::Refused(format!("{what}: {} were refused", shot.seen.refused)));
        }
        // Whoever is cut off at the end of a window may have asked once.
        let once = answered / 2 + u64::from(self.manner.connections);
        if self.manner.twice && orders > once {
            return Err(Error::Refused(format!("{what}: {answered} answers are {orders} orders")));
        }
        shot.done = answered;
        Ok(())
    }
}

impl Bench<'_> {
    /// One node and its ceiling for each of the crowds, and orders that were judged.
    ///
    /// # Errors
    /// When one sells otherwise than it should.
    pub(crate) fn variants(&mut self, house: &House<'_>, order: &str) -> Result<Vec<Compared>> {
        let page = {
            let sale = house.open("page", Terms::of(1))?;
            let page = sale.page(PAGE)?;
            sale.kill()?;
            page
        };
        let mut compared = Vec::new();
        for variant in Variant::all() {
            let (what, manner) = (variant.what, &variant.manner);
            let name = what.replace([' ', ','], "-");
            let body = if manner.looks > 0 { &page } else { order };
            let ceiling = Ceiling::start(self.site, body)?;
            let crowd = Crowd::new(self.site, &name, manner)?;
            let mut turns = Vec::new();
            for round in 1..=self.run.rounds {
                let name = format!("{name}.{round}");
                let without = self.asked(&format!("{name}.ceiling"), &crowd, &ceiling)?;
                let (mut with, _) = self.sold(house, &name, variant.terms, &[&crowd])?;
                variant.count(&mut with)?;
                turns.push((without, with));
            }
            compared.push(Compared::of(what.to_owned(), body.len(), &turns));
        }
        Ok(compared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sale::ORDERS_PER_RUN;

    #[test]
    fn no_crowd_sells_a_run_out() {
        for Variant { what, terms, manner, .. } in Variant::all() {
            assert!(manner.orders_per_run <= ORDERS_PER_RUN, "{what}");
            assert!(manner.runs.len() <= usize::from(terms.runs), "{what}");
            assert!(manner.runs.len() >= usize::from(manner.width), "{what}");
        }
    }
}
