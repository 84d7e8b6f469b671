//! Whatever the bytes, the checker gives a verdict: it never panics, and void bytes change nothing.

#![allow(clippy::unwrap_used, reason = "what cannot be built or read is a failure")]

mod lab;

use checker::answers::Told;
use checker::cat::cat;
use lab::{
    Ask, Lab, START, accept, amend, buyer_at, checksum, closed, ended, held, home, paid, placed,
    policy, refunded, refused, returned, sent, take, usual, yields,
};
use proptest::prelude::{ProptestConfig, any, prop, proptest};
use proptest::sample::Index;

/// A ledger in which every kind of entry occurs.
fn every_kind() -> Lab {
    let mut lab = Lab::founded();
    let (first, second) = (home(0), home(1));
    lab.claim(first);
    lab.claim(second);
    lab.pool(&[amend(2, &usual()), policy(2, 1_000)]);
    let body = lab::Bytes::default().u64(1).u32(1).u16(1).text("n1").u32(1).u16(1).u32(1);
    lab.pool(&[lab::entry(36, &body)]);
    let drawn = lab.pool(&[take(first, &[2])]);
    lab.frame(first, &[accept(drawn, &[(2, 0, 8, 12)])]);
    let deadline = START + 900_000;
    let asks: Vec<_> =
        (0..4).map(|nth| Ask::new(&buyer_at(first, nth), "k", (0, 3)).party(2)).collect();
    let three = [
        held((first, 1, 1), 0, &asks[0], &[0, 1], deadline),
        held((first, 1, 2), 0, &asks[1], &[2, 3], deadline),
        paid((first, 1, 1), 1_200),
    ];
    lab.frame(first, &three);
    lab.frame(first, &[refunded((first, 1, 1)), ended((first, 1, 2), 1)]);
    lab.frame(first, &[sent((first, 1, 3), 1, second, &asks[2])]);
    lab.frame(second, &[refused((first, 1, 3), 1)]);
    lab.frame(first, &[returned((first, 1, 3), 1), sent((first, 1, 4), 2, second, &asks[3])]);
    lab.frame(second, &[held((first, 1, 4), 2, &asks[3], &[4, 5], deadline)]);
    lab.frame(first, &[placed((first, 1, 4), 2, &[4, 5], deadline)]);
    lab.frame(second, &[ended((first, 1, 4), 1)]);
    lab.frame(first, &[closed((first, 1, 4), 2, 1), ended((first, 1, 1), 3)]);
    lab.frame(first, &[yields()]);
    lab
}

/// Verifies and prints; gives whether all promises hold, if there is a ledger at all.
fn judge(lab: &Lab) -> Option<bool> {
    cat(&mut lab.clone(), None, &mut std::io::sink()).unwrap();
    let told: [Told; 0] = [];
    let verified = lab.verified(&told, true).ok()?;
    verified.report.write(&mut std::io::sink()).unwrap();
    assert!(verified.report.json().is_object());
    Some(verified.report.holds())
}

#[test]
fn a_ledger_with_every_kind_of_entry_holds() {
    assert_eq!(judge(&every_kind()), Some(true));
    let said = every_kind().report().figures;
    let kinds = said.iter().filter(|(name, _)| name.starts_with("entries.")).count();
    assert_eq!(kinds, 12);
}

fn cases() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(150),
    }
}

proptest! {
    // A second or two of a test run; PROPTEST_CASES asks for more.
    #![proptest_config(cases())]

    #[test]
    fn a_changed_byte_makes_its_record_void(
        record in any::<Index>(), at in any::<Index>(), flip in 1..=255u8,
    ) {
        let mut lab = every_kind();
        let record = record.index(lab.records.len());
        let bytes = &mut lab.records[record].1;
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        judge(&lab);
        // Without Genesis there is nothing to judge.
        if let Ok(verified) = lab.verified(&[], false) {
            assert_ne!(verified.report.get("records.void"), Some(0));
        }
    }

    #[test]
    fn changed_bytes_that_are_sealed_again_get_a_verdict(
        record in any::<Index>(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut lab = every_kind();
        let record = record.index(lab.records.len());
        let bytes = &mut lab.records[record].1;
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        checksum(bytes);
        judge(&lab);
    }

    #[test]
    fn cut_or_stretched_records_get_a_verdict(
        record in any::<Index>(), length in 0..400usize, sealed in any::<bool>(),
    ) {
        let mut lab = every_kind();
        let record = record.index(lab.records.len());
        let bytes = &mut lab.records[record].1;
        bytes.resize(length, 0xff);
        if sealed && length >= 96 {
            bytes[76..80].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
            checksum(bytes);
        }
        judge(&lab);
    }

    #[test]
    fn records_in_another_order_get_a_verdict(
        swaps in prop::collection::vec((any::<Index>(), any::<Index>()), 1..6),
    ) {
        let mut lab = every_kind();
        for (one, other) in swaps {
            let (one, other) = (one.index(lab.records.len()), other.index(lab.records.len()));
            let two = lab.records[other].1.clone();
            lab.records[other].1 = std::mem::replace(&mut lab.records[one].1, two);
        }
        judge(&lab);
    }

    #[test]
    fn any_bytes_get_a_verdict(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..4u16) {
        let mut lab = every_kind();
        lab.push(at, bytes.clone());
        assert_eq!(judge(&lab), Some(true));
        // Behind a header that fits, the same bytes are the owner's entries.
        let mut lab = every_kind();
        lab.claim(home(0));
        lab.frame(home(0), std::slice::from_ref(&bytes));
        judge(&lab);
        lab.pool(&[bytes]);
        judge(&lab);
    }
}
