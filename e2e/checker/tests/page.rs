//! The golden records of docs/ledger-format.md are read as the page says.

#![allow(clippy::unwrap_used, reason = "what cannot be built or read is a failure")]

mod lab;

use checker::definition::Fare;
use checker::entry::{self, Entry};
use checker::frame;
use checker::ids::Key;
use checker::pool::{At, Pool, Verdict};
use checker::share::{self, Said, State, Witness};
use checker::verify::start;
use checker::words::OrderId;

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ledger-format.md");
    let page = std::fs::read_to_string(path).unwrap();
    page[page.find("## 14. A ledger to try a reader on").unwrap()..].to_owned()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |two: &[char]| u8::from_str_radix(&two.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// The two records in hexadecimal, and the one that the page spells out in a table.
fn records() -> [Vec<u8>; 3] {
    let page = page();
    let blocks: Vec<_> = page.split("```").skip(1).step_by(2).map(bytes).collect();
    let mut third = Vec::new();
    for row in page.lines().filter(|l| l.starts_with('|')) {
        let cells: Vec<_> = row.split('|').collect();
        let Ok(at) = cells[1].parse::<usize>() else { continue };
        assert_eq!(at, third.len(), "{row}");
        if cells[2].starts_with("ten times") {
            third.extend([0; 10]);
            continue;
        }
        third.extend(cells[2].split('`').skip(1).step_by(2).flat_map(bytes));
    }
    [blocks[0].clone(), blocks[1].clone(), third]
}

struct Nobody;

impl Witness for Nobody {
    fn hear(&mut self, _said: &Said<'_>) {}
}

#[test]
fn the_golden_records_fold_as_the_page_says() {
    let [genesis, claim, held] = records();
    assert_eq!((genesis.len(), claim.len(), held.len()), (277, 120, 203));
    let mut pool = Pool::new(Some("demo".to_owned()));
    assert_eq!(pool.fold(0, &genesis), Verdict::Accepted { passed_over: Vec::new() });
    let founding = pool.founding().unwrap();
    let definition = &founding.definition;
    let (run, table) = definition.run(0).unwrap();
    assert_eq!((definition.home(run, 0), definition.home(run, 1)), (4, 1));
    assert_eq!(table.classes[0].fare, Fare::Flat(55_300));
    let places: Vec<_> = founding.blocks().map(|(_, _, _, _, at)| at).collect();
    let due = [vec![At::Start(4); 8], vec![At::Start(1); 7], vec![At::Pool; 3]].concat();
    assert_eq!(places, due);
    for (_, index, cut, stops, _) in founding.blocks() {
        assert_eq!((cut.first, cut.end, stops), (10 * index, 10 * index + 10, 3));
    }
    assert_eq!(table.seat_name(80), Some(("1", "17A".to_owned())));

    let mut shares = start(founding);
    assert_eq!(shares[0].fold(0, &claim, &mut Nobody), share::Verdict::Accepted);
    assert_eq!(shares[0].fold(1, &held, &mut Nobody), share::Verdict::Accepted);
    assert_eq!(shares[0].epoch(), 1);
    let orders: Vec<_> = shares[0].orders().map(|order| (order.id, order.state)).collect();
    assert_eq!(orders, [(OrderId { home: 1, epoch: 1, number: 1 }, State::Held)]);
    for (run, class, stock) in shares[0].stock() {
        assert_eq!((run, class), (0, 0));
        for (first, block) in &stock.blocks {
            let free = |at: usize| block.seats().map_or(stock.whole(), |seats| seats[at]);
            for seat in *first..block.end {
                let due = if seat == 80 { 0 } else { 0b11 };
                assert_eq!(free(usize::from(seat - first)), due, "seat {seat}");
            }
        }
    }
}

#[test]
fn the_hashes_of_the_page_are_made_as_it_says() {
    let [genesis, _, held] = records();
    let (header, _) = frame::read(&genesis).unwrap();
    let topic: [u8; 16] = std::array::from_fn(|at| u8::try_from(at).unwrap());
    let key = Key::of(&topic, "demo");
    let page = page();
    let named = |hash: [u8; 16]| {
        let hex: String = hash.iter().map(|b| format!("{b:02x}")).collect();
        assert!(page.contains(&hex), "{hex} is not on the page");
    };
    assert_eq!(key.ledger(), header.ledger);
    named(key.ledger());
    let buyer = key.buyer("alice");
    named(buyer);
    named(key.idempotency(&buyer, 0, "order-1"));
    named(key.passenger("P1"));
    let (header, body) = frame::read(&held).unwrap();
    let said = entry::of_share(header.count, body).unwrap();
    let [Entry::Held { request, seats, deadline, .. }] = &said[..] else { panic!("{said:?}") };
    assert_eq!((request.buyer, request.key), (buyer, key.idempotency(&buyer, 0, "order-1")));
    assert_eq!((seats.all(), *deadline, request.price), (&[80][..], 1_800_000_902_000, 55_300));
}
