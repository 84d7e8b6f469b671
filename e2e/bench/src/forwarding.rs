//! Buyers before a node that does not own their share: it forwards what they ask for, and what
//! comes back.
//!
//! Each run of these sales lives on one share, so that its name says which node owns it.

use std::collections::BTreeMap;

use e2e::{Error, Result};
use inventory::definition::Definition;
use inventory::words::RunId;
use serde::Serialize;

use crate::load::{Crowd, Manner};
use crate::sale::{House, ORDERS_PER_RUN, RUNS, Terms, definition, run_name};
use crate::table::{Compared, Shot};
use crate::{Bench, load};

/// Before how many nodes.
const FLEETS: [u16; 2] = [2, 4];

/// Runs that each crowd buys at a time: those of all shares, whatever the crowd wants.
const WIDTH: u16 = 32;

/// At which node a buyer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Place {
    Right,
    Any,
    Wrong,
}

/// What is sold at each node: the runs that buyers there want.
fn wanted(owners: &BTreeMap<u16, u16>, nodes: u16, place: Place) -> Vec<Vec<String>> {
    let at = |node: u16| {
        let here = |(_, owner): &(&u16, &u16)| match place {
            Place::Right => **owner == node,
            Place::Any => true,
            // Of one other node, so that each node is asked by one neighbour.
            Place::Wrong => **owner == node % nodes + 1,
        };
        owners.iter().filter(here).map(|(run, _)| run_name(*run)).collect()
    };
    (1..=nodes).map(at).collect()
}

/// The share, and so the node, that owns each run.
fn owners(ledger: &str, terms: Terms) -> Result<BTreeMap<u16, u16>> {
    let definition = Definition::try_from(definition(ledger, terms));
    let definition = definition.map_err(|e| Error::Refused(e.to_string()))?;
    let home = |run| definition.homes(RunId(run)).next().map(|share| (run, share.0));
    Ok((0..terms.runs).filter_map(home).collect())
}

impl Bench<'_> {
    /// Each fleet with all buyers at the right node, which is the yardstick; with all at the wrong
    /// one; and with buyers anywhere.
    ///
    /// # Errors
    /// When one sells otherwise than it should.
    pub(crate) fn forwarding(&mut self, house: &House<'_>) -> Result<Vec<Compared>> {
        let mut compared = Vec::new();
        for nodes in FLEETS {
            let terms = Terms { nodes, homes: Some(1), runs: RUNS, ..Terms::of(nodes) };
            let (mut wrong, mut any) = (Vec::new(), Vec::new());
            for round in 1..=self.run.rounds {
                let sold = |bench: &mut Self, place: Place| -> Result<Shot> {
                    let name = format!("forwarding-{nodes}-{place:?}.{round}").to_lowercase();
                    let owners = owners(&name, terms)?;
                    // However many crowds want a run, it is not sold out: that is another figure.
                    let crowds_of_a_run = if place == Place::Any { nodes } else { 1 };
                    let manner = |runs| Manner {
                        runs,
                        orders_per_run: ORDERS_PER_RUN / u32::from(crowds_of_a_run),
                        connections: load::CONNECTIONS / u32::from(nodes),
                        width: WIDTH,
                        ..Manner::default()
                    };
                    let crowds = wanted(&owners, nodes, place).into_iter().zip(1..);
                    let crowd = |(runs, at): (Vec<String>, u16)| {
                        Crowd::new(bench.site, &format!("{name}.{at}"), &manner(runs))
                    };
                    let crowds: Vec<Crowd> = crowds.map(crowd).collect::<Result<_>>()?;
                    let crowds: Vec<&Crowd> = crowds.iter().collect();
                    let (shot, _) = bench.sold(house, &name, terms, &crowds)?;
                    shot.only_sales(&name)?;
                    let forwarded = shot.counted.get("forwarded_total").copied().unwrap_or(0);
                    let right = place == Place::Right;
                    if (forwarded == 0) != right {
                        let message = format!("{name}: {forwarded} of {} forwarded", shot.done);
                        return Err(Error::Refused(message));
                    }
                    Ok(shot)
                };
                let direct = sold(self, Place::Right)?;
                wrong.push((direct.clone(), sold(self, Place::Wrong)?));
                any.push((direct, sold(self, Place::Any)?));
            }
            let direct: Vec<_> = wrong.iter().map(|(d, _)| (d.clone(), d.clone())).collect();
            for (turns, place) in [(direct, "right"), (any, "any"), (wrong, "wrong")] {
                let what = format!("{nodes} nodes, buyers at {place} node");
                compared.push(Compared::of(what, 0, &turns));
            }
        }
        Ok(compared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_at_the_right_node_wants_what_another_one_owns() {
        let terms = Terms { nodes: 2, homes: Some(1), runs: 64, ..Terms::of(2) };
        let owners = owners("bench", terms).unwrap();
        assert_eq!(owners.len(), 64);
        let (right, wrong) = (wanted(&owners, 2, Place::Right), wanted(&owners, 2, Place::Wrong));
        assert_eq!((&right[0], &right[1]), (&wrong[1], &wrong[0]));
        assert!(right.iter().all(|runs| runs.len() > 16));
        assert!(right[0].iter().all(|run| !right[1].contains(run)));
        assert_eq!(wanted(&owners, 2, Place::Any)[1].len(), 64);
    }
}
