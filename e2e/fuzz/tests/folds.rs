//! Both folds of the product beside both of the checker: they agree on every record.

use std::collections::BTreeSet;

use bolero::check;
use fuzz::dice::Dice;
use fuzz::rivals::{Pools, Shares};

#[test]
fn two_folds_of_a_share_agree_on_every_history() {
    let start = Shares::new();
    check!().with_max_len(LONG).for_each(|bytes: &[u8]| {
        start.clone().live(&mut Dice::new(bytes));
    });
}

#[test]
fn two_folds_of_the_pool_agree_on_every_history() {
    check!().with_max_len(LONG).for_each(|bytes: &[u8]| {
        Pools::new().live(&mut Dice::new(bytes));
    });
}

/// Dice that never got anywhere would find nothing; these are a second's worth.
#[test]
fn histories_by_dice_reach_every_state_of_an_order() {
    let start = Shares::new();
    let (mut reached, mut bytes) = (BTreeSet::new(), Vec::new());
    for seed in 0..400_u32 {
        let mut words = blake3::Hasher::new();
        words.update(&seed.to_le_bytes());
        bytes.resize(LONG, 0);
        words.finalize_xof().fill(&mut bytes);
        reached.extend(start.clone().live(&mut Dice::new(&bytes)));
    }
    let all = [
        "accepted",
        "closed",
        "ended",
        "frozen",
        "held",
        "paid",
        "placed",
        "placed and paid",
        "seeking",
        "sent",
        "taken over",
        "yielded",
    ];
    assert_eq!(reached.into_iter().collect::<Vec<_>>(), all);
}

/// A record takes some fifty bytes of decisions; this is a history of its greatest length.
const LONG: usize = 4_096;
