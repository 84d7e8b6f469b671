//! Whether what an engine keeps is what its buyers were told. It shares nothing with the engines
//! but these types.

use std::collections::{BTreeMap, BTreeSet};

use inventory::legs::Legs;

use crate::sale::SEATS;

/// What a buyer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    /// From 0 on.
    pub(super) seat: u16,
    /// No two orders of a sale have the same.
    pub(super) number: u64,
}

/// An order as an engine keeps it, or as a buyer remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) run: u16,
    pub(super) legs: Legs,
    pub(super) ticket: Ticket,
}

/// All that an engine keeps.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// By idempotency key.
    pub(super) orders: BTreeMap<String, Order>,
    /// The legs that are marked as taken, by run and seat; seats without any may be missing.
    pub(super) marked: BTreeMap<(u16, u16), Legs>,
}

/// How many orders there are; or what is wrong with them.
pub(super) fn judge(kept: &Kept, told: &[(String, Order)]) -> Result<u64, String> {
    let mut taken: BTreeMap<(u16, u16), Legs> = BTreeMap::new();
    let mut numbers = BTreeSet::new();
    for (key, order) in &kept.orders {
        let Order { run, legs, ticket: Ticket { seat, number } } = *order;
        let of_seat = taken.entry((run, seat)).or_insert(Legs::NONE);
        if of_seat.meet(legs) {
            return Err(format!("seat {seat} of run {run} is sold twice, to {key} and before"));
        }
        *of_seat = of_seat.with(legs);
        if seat >= SEATS || legs.is_empty() || !numbers.insert(number) {
            return Err(format!("order {key} cannot be: {order:?}"));
        }
    }
    if let Some((key, order)) = told.iter().find(|(key, o)| kept.orders.get(key) != Some(o)) {
        let instead = kept.orders.get(key);
        return Err(format!("{key} was told {order:?}, and what is kept is {instead:?}"));
    }
    if !kept.marked.iter().filter(|(_, legs)| !legs.is_empty()).eq(&taken) {
        return Err("the seats' marks are not those of the orders".to_owned());
    }
    Ok(kept.orders.len() as u64)
}

#[cfg(test)]
mod tests {
    use inventory::legs::Journey;

    use super::*;

    fn order(from: u8, to: u8, number: u64) -> (String, Order) {
        let legs = Legs::of(Journey::new(from, to).unwrap());
        (format!("b{number}"), Order { run: 0, legs, ticket: Ticket { seat: 7, number } })
    }

    fn kept(orders: &[(String, Order)]) -> Kept {
        let mut kept = Kept { orders: orders.iter().cloned().collect(), ..Kept::default() };
        for (_, Order { legs, .. }) in orders {
            let marked = kept.marked.entry((0, 7)).or_insert(Legs::NONE);
            *marked = marked.with(*legs);
        }
        kept
    }

    #[test]
    fn what_was_told_and_is_kept_once_is_right() {
        let orders = [order(0, 3, 1), order(3, 5, 2)];
        assert_eq!(judge(&kept(&orders), &orders), Ok(2));
        assert_eq!(judge(&kept(&orders), &[]), Ok(2));
    }

    #[test]
    fn a_seat_sold_twice_and_an_order_that_is_missing_or_unmarked_are_found() {
        let (first, next, over) = (order(0, 3, 1), order(3, 5, 2), order(2, 4, 3));
        let wrong = |kept: &Kept, told: &[(String, Order)], what: &str| {
            assert!(judge(kept, told).is_err_and(|said| said.contains(what)), "{what}");
        };
        wrong(&kept(&[first.clone(), over]), &[], "sold twice");
        wrong(&kept(std::slice::from_ref(&first)), std::slice::from_ref(&next), "was told");
        let mut unmarked = kept(&[first.clone(), next]);
        unmarked.marked = kept(&[first]).marked;
        wrong(&unmarked, &[], "marks");
    }
}
