//! Answers that sell nothing: "sold out", and what people look at before they buy. Each beside a
//! ceiling that sends as many bytes.

use e2e::{Error, Result};
use serde::Serialize;

use crate::load::Crowd;
use crate::sale::House;
use crate::table::{Shot, Spread};
use crate::{Bench, Ceiling};

/// A day's runs, with the free seats of a journey.
const LIST: &str = "/v1/runs?from=T03&to=T10&date=2027-02-01";
/// One of them.
const RUN: &str = "/v1/runs/H0001/2027-02-01?from=T03&to=T10";

/// One kind of answer, over the ceiling's of the same round.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Told {
    what: &'static str,
    bytes: usize,
    per_second: Spread,
    rate: Spread,
    cpu: Spread,
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, bytes, .. } = self;
        let (rate, cpu) = (self.rate.shown(2), self.cpu.shown(2));
        let a_second = self.per_second.shown(0);
        write!(
            f,
            "{what}: {bytes} bytes, {a_second}/s; answers / ceiling {rate}; CPU / ceiling {cpu}"
        )
    }
}

impl Bench<'_> {
    /// Asks a node whose first run is sold out.
    ///
    /// # Errors
    /// When it answers otherwise than it should.
    pub(crate) fn answers(&mut self, house: &House<'_>) -> Result<Vec<Told>> {
        let sale = house.open("answers", 1)?;
        let sold_out = sale.sell_out()?;
        let (list, run) = (sale.page(LIST)?, sale.page(RUN)?);
        let asked = [
            ("sold out", sold_out, Crowd::of(self.site, 1)?, true),
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
                let without = self.window(&of_ceiling, &crowd, ceiling.server.0, ceiling.port)?;
                let with = self.window(&name, &crowd, sale.node.0, sale.port)?;
                let wrong = if refused { with.seen.taken() } else { with.seen.refused };
                if wrong > 0 {
                    return Err(Error::Refused(format!("{what}: {wrong} answers say otherwise")));
                }
                shots.push((without, with));
            }
            let rate = |shot: &Shot| shot.done as f64 * 1e6 / shot.seen.micros.max(1) as f64;
            told.push(Told {
                what,
                bytes: body.len(),
                per_second: Spread::of(shots.iter().map(|(_, with)| rate(with))),
                rate: Spread::of(shots.iter().map(|(without, with)| rate(with) / rate(without))),
                cpu: Spread::of(
                    shots.iter().map(|(without, with)| with.micros_each() / without.micros_each()),
                ),
            });
        }
        sale.kill()?;
        Ok(told)
    }
}
