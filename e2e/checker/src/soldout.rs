//! Whether "sold out" was true, as far as a ledger at rest can tell.
//!
//! Clocks of buyers and owners are not one clock, and an end that is written late is learnt late.
//! So only what is certain is counted: seats that are free at the end, and of which no leg was
//! freed later than well before the answer. A leg that is free at the end and was not freed since
//! was free all the time.

use foldhash::HashMap;

use crate::answers::Told;
use crate::pool::{At, Founding};
use crate::report::{Findings, Promise};
use crate::share::Share;
use crate::words::legs;

/// A run, a class and a journey.
type Wish = (u16, u8, u8, u8);

/// For each place that could have sold them together, since when its seats are free, ascending.
type Since = Vec<Vec<u64>>;

/// Finds answers of "sold out" while enough seats for the party were free in one place.
pub fn judge(
    told: &[Told],
    founding: &Founding,
    shares: &[Share],
    margin_ms: u64,
    findings: &mut Findings,
) -> u64 {
    let mut known: HashMap<Wish, Since> = HashMap::default();
    let mut wrong = 0;
    for told in told.iter().filter(|told| is_sold_out(told)) {
        let Some(wish) = wish(told, founding) else { continue };
        let since = known.entry(wish).or_insert_with(|| free_since(wish, founding, shares));
        let party = usize::from(told.answer.party.unwrap_or(1).max(1));
        let before = told.answer.at.saturating_sub(margin_ms);
        let could = since.iter().any(|place| place.get(party - 1).is_some_and(|t| *t < before));
        if could {
            wrong += 1;
            findings.add(Promise::SoldOut, &[], || {
                let answer = &told.answer;
                format!(
                    "{} heard \"sold out\" for {party} from {} to {} of {}, and it was not ({})",
                    answer.buyer,
                    answer.from.as_deref().unwrap_or_default(),
                    answer.to.as_deref().unwrap_or_default(),
                    answer.run.as_deref().unwrap_or_default(),
                    told.source
                )
            });
        }
    }
    wrong
}

/// Whether a buyer heard "sold out".
#[must_use]
pub fn is_sold_out(told: &Told) -> bool {
    told.answer.problem.as_deref() == Some("sold-out")
}

fn wish(told: &Told, founding: &Founding) -> Option<Wish> {
    let answer = &told.answer;
    let run = founding.definition.find(answer.run.as_deref()?)?;
    let (_, table) = founding.definition.run(run)?;
    let class = table.class(answer.class.as_deref()?)?;
    let from = table.stop(answer.from.as_deref()?)?;
    Some((run, class, from, table.stop(answer.to.as_deref()?)?))
}

fn free_since((run, class, from, to): Wish, founding: &Founding, shares: &[Share]) -> Since {
    let mask = legs(from, to);
    let mut places = Vec::new();
    for share in shares {
        let mut here = Vec::new();
        let stocks = share.stock().filter(|(r, c, _)| (*r, *c) == (run, class));
        for (_, _, stock) in stocks {
            for (first, block) in &stock.blocks {
                let new = added(founding, run, *first);
                for at in 0..usize::from(block.end - first) {
                    let touched = block.seats().and_then(|seats| seats.get(at));
                    let (free, freed) = touched.map_or((stock.whole(), 0), |f| (f.legs, f.freed));
                    if free & mask == mask && mask != 0 {
                        here.push(freed.max(new));
                    }
                }
            }
        }
        here.sort_unstable();
        places.push(here);
    }
    // A block that is still in the pool could have been drawn by any share.
    for (_, _, cut, _, at) in founding.blocks_of(run) {
        if cut.class == class && at == At::Pool {
            places.push(vec![added(founding, run, cut.first); usize::from(cut.seats())]);
        }
    }
    places
}

/// When the block with this seat was added to the run; 0 if it was there from the start.
fn added(founding: &Founding, run: u16, seat: u16) -> u64 {
    let index = founding.cuts_of(run).partition_point(|cut| cut.end <= seat);
    let mine =
        founding.grown.iter().filter(|(r, first, _)| *r == run && usize::from(*first) <= index);
    mine.map(|(_, _, now)| *now).max().unwrap_or(0)
}
