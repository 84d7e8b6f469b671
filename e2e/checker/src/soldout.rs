//! Whether "sold out" was true, as far as the log can tell.
//!
//! The clocks of buyers and owners are not one clock, and what is written late is learnt late. So
//! only what is certain is counted: seats that had been free for some time before the answer, and
//! still were when it came. A seat counts wherever it was: in a share, in the pool or on its way.

use foldhash::{HashMap, HashSet};

use crate::answers::Told;
use crate::audit::Entered;
use crate::book::Live;
use crate::pool::{At, Founding};
use crate::report::{Findings, Promise};
use crate::words::legs;

/// How far one clock may be behind another: a buyer's, an owner's, the log's.
const SKEW_MS: u64 = 1_000;

/// How long what frees a seat may be in the log before its owner knows, or stops proving anything.
const STALL_MS: u64 = 1_000;

/// A run, a class and a journey.
type Wish = (u16, u8, u8, u8);

/// Indexes of runs by their names.
type Runs = std::collections::HashMap<String, u16>;

/// Times from which and up to which something was free.
type Spans = Vec<(u64, u64)>;

/// A change of one seat.
#[derive(Clone, Copy, Debug)]
struct Change {
    at: u64,
    from: u8,
    to: u8,
    freed: bool,
}

/// The past of the seats that somebody was told are sold out.
#[derive(Debug, Default)]
pub struct History {
    watched: HashSet<(u16, u8)>,
    seats: HashMap<(u16, u8, u16), Vec<Change>>,
    accepted: HashMap<(u16, u16), (u16, u64)>,
}

impl History {
    /// Watches the runs and classes of these answers.
    #[must_use]
    pub fn new(told: &[Told], founding: &Founding) -> Self {
        let runs = founding.definition.by_name();
        let wishes = told.iter().filter(|told| is_sold_out(told));
        let wishes = wishes.filter_map(|told| wish(told, founding, &runs));
        let watched = wishes.map(|wish| (wish.0, wish.1)).collect();
        Self { watched, ..Self::default() }
    }

    /// An order took its seats, or gave them back.
    pub fn changed(&mut self, live: &Live, at: u64, freed: bool) {
        if !self.watched.contains(&(live.run, live.class)) {
            return;
        }
        let change = Change { at, from: live.from, to: live.to, freed };
        for seat in live.seats.all() {
            self.seats.entry((live.run, live.class, *seat)).or_default().push(change);
        }
    }

    /// A share accepted a block.
    pub fn entered(&mut self, entered: &Entered, at: u64) {
        if self.watched.iter().any(|(run, _)| *run == entered.run) {
            self.accepted.insert((entered.run, entered.index), (entered.at.partition, at));
        }
    }

    /// When a seat was free for a whole journey, from the beginning of the ledger.
    fn spans(&self, (run, class, from, to): Wish, seat: u16) -> Spans {
        let wanted = legs(from, to);
        let changes = self.seats.get(&(run, class, seat)).map_or(&[][..], Vec::as_slice);
        let mut spans = Vec::new();
        let mut taken = 0u128;
        let mut since = Some(0);
        for change in changes {
            let mask = legs(change.from, change.to);
            taken = if change.freed { taken & !mask } else { taken | mask };
            match since {
                Some(start) if taken & wanted != 0 => {
                    spans.push((start, change.at));
                    since = None;
                }
                None if taken & wanted == 0 => since = Some(change.at),
                _ => {}
            }
        }
        spans.extend(since.map(|start| (start, u64::MAX)));
        spans
    }

    /// When at least `party` seats for a wish were free in one place. Blocks that no share has
    /// accepted are places of their own, since any share could have drawn them.
    fn free(&self, wish: Wish, party: usize, founding: &Founding) -> Spans {
        let mut places: HashMap<(bool, u16), Spans> = HashMap::default();
        for (run, index, cut, _, at) in founding.blocks_of(wish.0) {
            if cut.class != wish.1 {
                continue;
            }
            let added = founding.added(run, index);
            let (share, entered) = match at {
                At::Start(share) => (Some(share), 0),
                At::Pool => (None, u64::MAX),
                At::Given(..) => self
                    .accepted
                    .get(&(run, index))
                    .map_or((None, u64::MAX), |(share, at)| (Some(*share), *at)),
            };
            for seat in cut.first..cut.end {
                for (start, end) in self.spans(wish, seat) {
                    // A single seat needs no company, so it does not matter that its block moved.
                    let moved = if party == 1 { added } else { entered };
                    let before = (start.max(added), end.min(moved));
                    let after = (start.max(moved), end);
                    places.entry((false, index)).or_default().push(before);
                    if let Some(share) = share {
                        places.entry((true, share)).or_default().push(after);
                    } else if party == 1 {
                        places.entry((false, index)).or_default().push(after);
                    }
                }
            }
        }
        merged(places.into_values().flat_map(|spans| together(&spans, party)).collect())
    }
}

/// When at least `count` of these spans held at once.
fn together(spans: &Spans, count: usize) -> Spans {
    let real = spans.iter().filter(|(start, end)| start < end);
    // At one time ends come before starts: seats that only touch were not free together.
    let mut edges: Vec<(u64, bool)> =
        real.flat_map(|(start, end)| [(*start, true), (*end, false)]).collect();
    edges.sort_unstable();
    let mut found = Vec::new();
    let mut open = 0usize;
    let mut since = 0;
    for (at, opens) in edges {
        if opens {
            open += 1;
            since = if open == count { at } else { since };
        } else {
            if open == count && since < at {
                found.push((since, at));
            }
            open = open.saturating_sub(1);
        }
    }
    found
}

/// The same spans, ascending and apart.
fn merged(mut spans: Spans) -> Spans {
    spans.sort_unstable();
    let mut apart: Spans = Vec::new();
    for (start, end) in spans {
        match apart.last_mut().filter(|last| start <= last.1) {
            Some(last) => last.1 = last.1.max(end),
            None => apart.push((start, end)),
        }
    }
    apart
}

/// Finds answers of "sold out" while enough seats for the party were free in one place.
pub fn judge(
    told: &[Told],
    founding: &Founding,
    history: &History,
    margin_ms: u64,
    findings: &mut Findings,
) -> u64 {
    let mut known: HashMap<(Wish, usize), Spans> = HashMap::default();
    let mut wrong = 0;
    let runs = founding.definition.by_name();
    for told in told.iter().filter(|told| is_sold_out(told)) {
        let Some(wish) = wish(told, founding, &runs) else { continue };
        let party = usize::from(told.answer.party.unwrap_or(1).max(1));
        let at = told.answer.at;
        // An answer that says how old its proof is is held to that.
        let by = told.answer.as_of.map_or(0, |as_of| as_of.saturating_sub(STALL_MS + SKEW_MS));
        let by = by.max(at.saturating_sub(margin_ms));
        let spans =
            known.entry((wish, party)).or_insert_with(|| history.free(wish, party, founding));
        let last = spans.partition_point(|(start, _)| *start <= by);
        let span = last.checked_sub(1).and_then(|last| spans.get(last));
        if span.is_none_or(|(_, end)| *end < at.saturating_add(SKEW_MS)) {
            continue;
        }
        wrong += 1;
        findings.add(Promise::SoldOut, &[], || {
            let answer = &told.answer;
            format!(
                "{:?} heard \"sold out\" for {party} from {} to {} of {}, and it was not ({})",
                answer.buyer,
                answer.from.as_deref().unwrap_or_default(),
                answer.to.as_deref().unwrap_or_default(),
                founding.definition.run_name(wish.0),
                told.source
            )
        });
    }
    wrong
}

/// Whether a buyer heard "sold out".
#[must_use]
pub fn is_sold_out(told: &Told) -> bool {
    told.answer.problem.as_deref() == Some("sold-out")
}

fn wish(told: &Told, founding: &Founding, runs: &Runs) -> Option<Wish> {
    let answer = &told.answer;
    let run = *runs.get(answer.run.as_deref()?)?;
    let (_, table) = founding.definition.run(run)?;
    let class = table.class(answer.class.as_deref()?)?;
    let from = table.stop(answer.from.as_deref()?)?;
    let to = table.stop(answer.to.as_deref()?)?;
    (from < to).then_some((run, class, from, to))
}

#[cfg(test)]
mod tests {
    use super::{merged, together};

    #[test]
    fn seats_are_free_together_only_while_enough_of_them_are() {
        let spans = vec![(0, 10), (5, 20), (8, 9), (20, 30)];
        assert_eq!(together(&spans, 1), [(0, 20), (20, 30)]);
        assert_eq!(together(&spans, 2), [(5, 10)]);
        assert_eq!(together(&spans, 3), [(8, 9)]);
        assert_eq!(together(&spans, 4), []);
        assert_eq!(together(&vec![(7, 7), (9, 3)], 1), []);
    }

    #[test]
    fn spans_that_meet_are_one() {
        assert_eq!(merged(vec![(20, 30), (0, 5), (5, 7), (25, 40)]), [(0, 7), (20, 40)]);
    }
}
