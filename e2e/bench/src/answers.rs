//! Answers that sell nothing: "sold out", and what people look at before they buy. Each beside a
//! ceiling that sends as many bytes.

use e2e::{Error, Result};

use crate::load::{Crowd, Manner};
use crate::sale::{House, Terms, run_name};
use crate::table::{Compared, Shot};
use crate::{Bench, Ceiling};

/// A day's runs, with the free seats of a journey.
const LIST: &str = "/v1/runs?from=T03&to=T10&date=2027-02-01";
/// One of them.
const RUN: &str = "/v1/runs/H0001/2027-02-01?from=T03&to=T10";

impl Bench<'_> {
    /// Asks a node whose first run is sold out.
    ///
    /// # Errors
    /// When it answers otherwise than it should.
    pub(crate) fn answers(&mut self, house: &House<'_>) -> Result<Vec<Compared>> {
        let sale = house.open("answers", Terms::of(1))?;
        let sold_out = sale.sell_out()?;
        let (list, run) = (sale.page(LIST)?, sale.page(RUN)?);
        let first = Manner { runs: vec![run_name(0)], ..Manner::default() };
        let asked = [
            ("sold out", sold_out, Crowd::new(self.site, "first-run", &first)?, true),
            ("one run", run, Crowd::looking_at(self.site, "run", RUN)?, false),
            ("a day of 256 runs", list, Crowd::looking_at(self.site, "list", LIST)?, false),
        ];
        let mut told = Vec::new();
        for (what, body, crowd, refused) in asked {
            let ceiling = Ceiling::start(self.site, &body)?;
            let mut shots: Vec<(Shot, Shot)> = Vec::new();
            for round in 1..=self.run.rounds {
                let name = format!("{}.{round}", what.replace(' ', "-"));
                let of_ceiling = format!("{name}.ceiling");
                let without = self.asked(&of_ceiling, &crowd, &ceiling)?;
                let node = sale.first();
                let with = self.window(&name, &[node.id()], &[(&crowd, node.port)])?;
                let wrong = if refused { with.seen.taken() } else { with.seen.refused };
                if wrong > 0 {
                    return Err(Error::Refused(format!("{what}: {wrong} answers say otherwise")));
                }
                shots.push((without, with));
            }
            told.push(Compared::of(what.to_owned(), body.len(), &shots));
        }
        sale.kill()?;
        Ok(told)
    }
}
