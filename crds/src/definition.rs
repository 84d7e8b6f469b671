//! From a TrainSale to what its ledger sells.
//!
//! A ledger knows timetables, classes, coaches and runs by their places, and only ever gets more
//! of them. In a TrainSale their order means nothing, since an API server merges them by name;
//! so what the ledger knows keeps its place here, and what is new comes after it.

use std::collections::BTreeMap;

use inventory::definition as ledger;
use inventory::words::ClassId;

use crate::checks::{Finding, minutes};
use crate::sale::{Class, Coach, FareType, Run, RunState, Stop, Timetable, TrainSale};

/// What the Genesis of a new ledger says. The sale must have passed [`crate::checks::check`],
/// which asks this too.
///
/// # Errors
/// The fields that a ledger cannot take.
pub fn found(sale: &TrainSale) -> Result<ledger::Definition, Vec<Finding>> {
    let mut definition = Builder::default().build(None, sale)?;
    // Genesis has all runs on sale; only an Amend takes one off.
    definition.runs.iter_mut().for_each(|run| run.withdrawn = false);
    definition.check().map_err(in_words_of_the_sale)?;
    Ok(definition)
}

/// What a ledger that sells `old` sells from now on; equal to `old` if nothing is new. The sale
/// must have passed [`crate::checks::check`].
///
/// # Errors
/// The fields that would change what may be sold already.
pub fn amend(
    old: &ledger::Definition,
    sale: &TrainSale,
) -> Result<ledger::Definition, Vec<Finding>> {
    let definition = Builder::default().build(Some(old), sale)?;
    old.allows(&definition).map_err(in_words_of_the_sale)?;
    Ok(definition)
}

/// The ledger's own refusal: a net under the checks with the sale's own paths.
fn in_words_of_the_sale(bad: ledger::BadDefinition) -> Vec<Finding> {
    vec![Finding::new(format!("spec: {}", bad.path), bad.message)]
}

const FIXED: &str = "cannot be changed once the sale exists";

#[derive(Default)]
struct Builder {
    findings: Vec<Finding>,
}

impl Builder {
    fn build(
        mut self,
        old: Option<&ledger::Definition>,
        sale: &TrainSale,
    ) -> Result<ledger::Definition, Vec<Finding>> {
        let spec = &sale.spec;
        let was = old.map_or(&[][..], |d| &d.timetables);
        let aligned =
            self.align(was, &spec.timetables, "spec.timetables", |t| &t.name, |t| &t.name);
        let mut timetables = Vec::with_capacity(aligned.len());
        for (was, i, timetable) in aligned {
            let path = format!("spec.timetables[{i}]");
            timetables.push(self.timetable(was, timetable, &path));
        }
        let was = old.map_or(&[][..], |d| &d.runs);
        let key = |train: &str, date: &str| format!("{train} {date}");
        let aligned = self.align(
            was,
            &spec.runs,
            "spec.runs",
            |r| key(&r.train, &r.date),
            |r| key(&r.train, &r.date),
        );
        let places: BTreeMap<&str, usize> =
            timetables.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
        let mut runs = Vec::with_capacity(aligned.len());
        for (was, i, run) in aligned {
            let path = format!("spec.runs[{i}].timetable");
            let Some(at) = places.get(run.timetable.as_str()).copied() else {
                self.add(path, format!("there is no timetable {}", run.timetable));
                continue;
            };
            let seats = timetables[at].seats();
            runs.push(self.run(was, run, at, seats, spec.stock.shares, path));
        }
        let definition = ledger::Definition {
            ledger: sale.ledger_name(),
            currency: spec.currency.clone(),
            time_zone: spec.time_zone.clone(),
            shares: spec.stock.shares,
            buffer_percent: spec.stock.buffer_percent,
            block_seats: u16::from(spec.stock.block_seats),
            timetables,
            runs,
        };
        if let Some(old) = old {
            self.fixed(old, &definition);
        }
        if self.findings.is_empty() { Ok(definition) } else { Err(self.findings) }
    }

    fn fixed(&mut self, old: &ledger::Definition, new: &ledger::Definition) {
        for (path, same) in [
            ("spec.ledger.topic", old.ledger == new.ledger),
            ("spec.currency", old.currency == new.currency),
            ("spec.timeZone", old.time_zone == new.time_zone),
            ("spec.stock.shares", old.shares == new.shares),
            ("spec.stock.bufferPercent", old.buffer_percent == new.buffer_percent),
            ("spec.stock.blockSeats", old.block_seats == new.block_seats),
        ] {
            if !same {
                self.add(path, FIXED);
            }
        }
    }

    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.findings.push(Finding::new(path, message));
    }

    /// The items of the sale: first those that the ledger knows, in its order, then new ones. Each
    /// with what the ledger knows of it and its place in the sale.
    fn align<'a, O, N, K: Ord + std::fmt::Display>(
        &mut self,
        old: &'a [O],
        new: &'a [N],
        path: &str,
        old_key: impl Fn(&'a O) -> K,
        new_key: impl Fn(&'a N) -> K,
    ) -> Vec<(Option<&'a O>, usize, &'a N)> {
        let mut left: BTreeMap<K, usize> =
            new.iter().enumerate().map(|(i, item)| (new_key(item), i)).collect();
        let mut aligned = Vec::with_capacity(new.len());
        for item in old {
            let key = old_key(item);
            match left.remove(&key) {
                Some(i) => aligned.push((Some(item), i, &new[i])),
                None => self.add(path, format!("{key} cannot be removed")),
            }
        }
        let mut rest: Vec<usize> = left.into_values().collect();
        rest.sort_unstable();
        aligned.extend(rest.into_iter().map(|i| (None, i, &new[i])));
        aligned
    }

    fn timetable(
        &mut self,
        old: Option<&ledger::Timetable>,
        new: &Timetable,
        path: &str,
    ) -> ledger::Timetable {
        let stops: Vec<ledger::StopTime> = new.stops.iter().map(stop).collect();
        if let Some(old) = old {
            let codes = |stops: &[ledger::StopTime]| -> Vec<String> {
                stops.iter().map(|s| s.code.clone()).collect()
            };
            if codes(&old.stops) != codes(&stops) {
                let message = "the stops' codes and order cannot be changed once the sale exists";
                self.add(format!("{path}.stops"), message);
            }
        }
        let was = old.map_or(&[][..], |t| &t.classes);
        let list = format!("{path}.classes");
        let aligned = self.align(was, &new.classes, &list, |c| &c.name, |c| &c.name);
        let mut classes: Vec<ledger::Class> = Vec::with_capacity(aligned.len());
        for (_, i, class) in aligned {
            match fare(class) {
                Some(fare) => classes.push(ledger::Class { name: class.name.clone(), fare }),
                None => self.add(format!("{list}[{i}].fare"), "has no amount for its type"),
            }
        }
        let was = old.map_or(&[][..], |t| &t.coaches);
        let list = format!("{path}.coaches");
        let aligned = self.align(was, &new.coaches, &list, |c| &c.name, |c| &c.name);
        let mut coaches = Vec::with_capacity(aligned.len());
        for (was, i, coach) in aligned {
            let Some(converted) = convert_coach(coach, &classes) else {
                let message = format!("there is no class {} in this timetable", coach.class);
                self.add(format!("{list}[{i}].class"), message);
                continue;
            };
            if was.is_some_and(|was| *was != converted) {
                let message = "a coach cannot be changed once the sale exists, since its seats \
                               may be sold";
                self.add(format!("{list}[{i}]"), message);
            }
            coaches.push(converted);
        }
        ledger::Timetable { name: new.name.clone(), stops, classes, coaches }
    }

    fn run(
        &mut self,
        old: Option<&ledger::Run>,
        new: &Run,
        timetable: usize,
        seats: u32,
        shares: u16,
        path: String,
    ) -> ledger::Run {
        // Far above the bound of the list of timetables.
        let timetable = u16::try_from(timetable).unwrap_or(u16::MAX);
        if old.is_some_and(|old| old.timetable != timetable) {
            self.add(path, FIXED);
        }
        // Frozen when the run entered: more coaches do not give it more homes.
        let homes = old.map_or_else(|| ledger::homes_of(seats, shares), |old| old.homes);
        let (train, date) = (new.train.clone(), new.date.clone());
        let withdrawn = new.state == RunState::Withdrawn;
        ledger::Run { train, date, timetable, homes, withdrawn }
    }
}

fn stop(stop: &Stop) -> ledger::StopTime {
    ledger::StopTime {
        code: stop.code.clone(),
        name: stop.name.clone().unwrap_or_else(|| stop.code.clone()),
        arrives: stop.arrives.as_deref().and_then(minutes),
        departs: stop.departs.as_deref().and_then(minutes),
    }
}

fn fare(class: &Class) -> Option<ledger::Fare> {
    match class.fare.kind {
        FareType::Flat => class.fare.amount_minor.map(ledger::Fare::Flat),
        FareType::PerLeg => class.fare.leg_amounts_minor.clone().map(ledger::Fare::PerLeg),
        FareType::Table => None,
    }
}

fn convert_coach(coach: &Coach, classes: &[ledger::Class]) -> Option<ledger::Coach> {
    let class = classes.iter().position(|c| c.name == coach.class)?;
    Some(ledger::Coach {
        name: coach.name.clone(),
        class: ClassId(u8::try_from(class).ok()?),
        seats: coach.seats,
        row_layout: coach.row_layout.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sale() -> TrainSale {
        TrainSale::from_yaml(include_str!("../../examples/full.yaml")).unwrap()
    }

    #[test]
    fn a_sale_founds_the_ledger_that_it_describes() {
        let ledger = found(&sale()).unwrap();
        assert_eq!(ledger.ledger, "tickets.spring-2027");
        assert_eq!((ledger.shares, ledger.buffer_percent, ledger.block_seats), (64, 20, 8));
        let [long, double] = ledger.timetables.as_slice() else { panic!("two timetables") };
        assert_eq!(long.stops[2].arrives, Some(24 * 60 + 24));
        assert_eq!((long.stops[0].arrives, long.stops[3].departs), (None, None));
        assert_eq!(long.fare(ClassId(2), 0, 3), Some(18_450 + 30_000 + 13_950));
        assert_eq!(long.coaches[3].row_layout, "ABC-DF");
        assert_eq!(double.seats(), 1200);
        // One home per 64 seats.
        let homes: Vec<u16> = ledger.runs.iter().map(|r| r.homes).collect();
        assert_eq!(homes, [264 / 64, 264 / 64, 1200 / 64]);
    }

    #[test]
    fn a_sale_in_another_order_is_the_same_ledger() {
        let old = sale();
        let mut new = old.clone();
        new.spec.runs.reverse();
        new.spec.timetables.reverse();
        new.spec.timetables[1].classes.reverse();
        new.spec.timetables[1].coaches.reverse();
        let ledger = found(&old).unwrap();
        assert_eq!(amend(&ledger, &new), Ok(ledger));
    }

    #[test]
    fn what_is_new_comes_after_what_the_ledger_knows() {
        let old = sale();
        let mut new = old.clone();
        let run = Run { date: "2027-02-09".to_owned(), ..old.spec.runs[0].clone() };
        new.spec.runs.insert(0, run);
        let coach = Coach { name: "00".to_owned(), ..old.spec.timetables[0].coaches[3].clone() };
        new.spec.timetables[0].coaches.insert(0, coach);
        let ledger = found(&old).unwrap();
        let amended = amend(&ledger, &new).unwrap();
        assert_eq!(amended.runs[..3], ledger.runs[..]);
        assert_eq!(amended.runs[3].date, "2027-02-09");
        // The new run enters with its new coach; the old ones keep their homes.
        assert_eq!((amended.runs[0].homes, amended.runs[3].homes), (264 / 64, 354 / 64));
        assert_eq!(amended.timetables[0].coaches[..4], ledger.timetables[0].coaches[..]);
        assert_eq!(amended.timetables[0].coaches[4].name, "00");
    }

    #[test]
    fn a_run_is_withdrawn_by_an_amend_and_comes_back_by_another() {
        let old = sale();
        let mut new = old.clone();
        new.spec.runs[1].state = RunState::Withdrawn;
        let ledger = found(&new).unwrap();
        assert_eq!(ledger, found(&old).unwrap(), "a ledger is founded with all runs on sale");
        let withdrawn = amend(&ledger, &new).unwrap();
        let states: Vec<bool> = withdrawn.runs.iter().map(|r| r.withdrawn).collect();
        assert_eq!(states, [false, true, false]);
        assert_eq!(amend(&withdrawn, &new), Ok(withdrawn.clone()));
        assert_eq!(amend(&withdrawn, &old), Ok(ledger));
    }

    #[test]
    fn what_may_be_sold_is_told_by_its_place_in_the_sale() {
        let old = sale();
        let ledger = found(&old).unwrap();
        let mut new = old.clone();
        new.spec.runs.remove(1);
        new.spec.timetables.reverse();
        new.spec.timetables[1].coaches[2].seats += 5;
        let said: Vec<String> =
            amend(&ledger, &new).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "spec.timetables[1].coaches[2]: a coach cannot be changed once the sale exists, \
                 since its seats may be sold",
                "spec.runs: G1 2027-02-02 cannot be removed",
            ]
        );
    }
}
