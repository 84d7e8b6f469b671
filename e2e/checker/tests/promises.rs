//! Every kind of broken promise is found, and an honest ledger has none.

#![allow(clippy::unwrap_used, reason = "what cannot be built or read is a failure")]

mod lab;

use checker::answers::{Answer, Told, ToldSeat};
use checker::source::Unreadable;
use checker::verify::MARGIN_MS;
use lab::{
    Ask, Head, Lab, START, accept, amend, broken, buyer_at, closed, definition, ended, held, home,
    home_of, paid, placed, policy, refunded, refused, returned, sent, take, usual, yields,
};

const DEADLINE: u64 = START + 900_000;
const DAY: u64 = 86_400_000;

/// Two shares that have claimed: home number 0 and home number 1.
fn two_claimed() -> (Lab, u16, u16) {
    let mut lab = Lab::founded();
    let (first, second) = (home(0), home(1));
    lab.claim(first);
    lab.claim(second);
    (lab, first, second)
}

fn ask(share: u16, nth: usize) -> Ask {
    Ask::new(&buyer_at(share, nth), "k", (0, 3))
}

fn told(line: &str) -> Told {
    let answer: Answer = serde_json::from_str(line).unwrap();
    let confirms = matches!(answer.status, 200 | 201).then(|| answer.order.clone());
    let confirms = confirms.flatten().map(|order| order.parse().unwrap());
    Told { answer, confirms, source: "told:1".to_owned() }
}

/// Sells one seat of block 0, and gives the answer that its buyer heard.
fn sold_one() -> (Lab, Told, u16) {
    let (mut lab, first, _) = two_claimed();
    let ask = ask(first, 0);
    lab.frame(first, &[held((first, 1, 1), 0, &ask, &[2], DEADLINE)]);
    let buyer = &ask.buyer;
    let line = format!(
        r#"{{"at":{START},"buyer":"{buyer}","key":"k","run":"G1/2027-02-01","from":"A","to":"D",
            "class":"Second","party":1,"status":201,"order":"{first}-1-1","state":"held",
            "seats":[{{"coach":"1","number":"1C"}}],"op":"place","more":[1]}}"#
    );
    (lab, told(&line), first)
}

#[test]
fn an_honest_sale_holds_and_balances() {
    let (mut lab, first, second) = two_claimed();
    let drawn = lab.pool(&[take(first, &[2])]);
    lab.frame(first, &[accept(drawn, &[(2, 0, 8, 12)])]);
    let pair = ask(first, 0).party(2);
    lab.frame(first, &[held((first, 1, 1), 0, &pair, &[0, 1], DEADLINE)]);
    lab.frame(first, &[paid((first, 1, 1), 1_200)]);
    let short = Ask::new(&buyer_at(first, 1), "k", (0, 1));
    let long = Ask::new(&buyer_at(first, 2), "k", (1, 3));
    let both = [
        held((first, 1, 2), 0, &short, &[2], DEADLINE),
        held((first, 1, 3), 0, &long, &[2], DEADLINE),
    ];
    lab.frame(first, &both);
    lab.frame(first, &[ended((first, 1, 2), 1)]);
    lab.frame(first, &[yields()]);
    lab.claim(first);
    let guest = ask(first, 3);
    lab.frame(first, &[sent((first, 2, 1), 1, second, &guest)]);
    lab.frame(second, &[held((first, 2, 1), 1, &guest, &[4], DEADLINE)]);
    lab.frame(first, &[placed((first, 2, 1), 1, &[4], DEADLINE)]);
    lab.frame(second, &[ended((first, 2, 1), 1)]);
    lab.frame(first, &[closed((first, 2, 1), 1, 1), refunded((first, 1, 1))]);

    let report = lab.report();
    assert_eq!(broken(&report), [""; 0]);
    let figures = [
        ("records.void", 0),
        ("epochs", 3),
        ("seat-legs", 48),
        ("seat-legs.sold", 6),
        ("seat-legs.held", 2),
        ("seat-legs.free", 40),
        ("seat-legs.pool", 0),
        ("seat-legs.under-way", 0),
        ("seat-legs.difference", 0),
        ("seat-legs.sold-twice", 0),
        ("orders.paid", 1),
        ("orders.held", 1),
        ("orders.closed", 1),
        ("orders.guest.cancelled", 1),
        ("travel.attempts", 1),
        ("travel.unresolved", 0),
    ];
    for (name, value) in figures {
        assert_eq!(report.get(name), Some(value), "{name}");
    }
}

#[test]
fn a_seat_sold_twice_on_one_share_is_found() {
    let (mut lab, first, _) = two_claimed();
    lab.frame(first, &[held((first, 1, 1), 0, &ask(first, 0), &[2], DEADLINE)]);
    let overlapping = Ask::new(&buyer_at(first, 1), "k", (2, 3));
    lab.frame(first, &[held((first, 1, 2), 0, &overlapping, &[2], DEADLINE)]);
    let report = lab.report();
    assert_eq!(report.get("seat-legs.sold-twice"), Some(1));
    assert_eq!(broken(&report), ["fault", "sold-twice"]);
    assert_eq!(report.get("shares.frozen"), Some(1));
}

#[test]
fn a_seat_sold_on_two_shares_is_found() {
    let (mut lab, first, second) = two_claimed();
    // Nobody gave block 0 to the second share.
    lab.frame(second, &[accept(1, &[(0, 0, 0, 4)])]);
    lab.frame(first, &[held((first, 1, 1), 0, &ask(first, 0), &[2], DEADLINE)]);
    lab.frame(second, &[held((second, 1, 1), 0, &ask(second, 0), &[2], DEADLINE)]);
    let report = lab.report();
    assert_eq!(report.get("seat-legs.sold-twice"), Some(3));
    assert_eq!(broken(&report), ["stock", "balance", "sold-twice"]);
}

#[test]
fn journeys_that_meet_at_a_stop_are_no_double_sale() {
    let (mut lab, first, _) = two_claimed();
    for (nth, journey) in [(0, 1), (1, 2), (2, 3)].into_iter().enumerate() {
        let number = u32::try_from(nth).unwrap() + 1;
        let ask = Ask::new(&buyer_at(first, nth), "k", journey);
        lab.frame(first, &[held((first, 1, number), 0, &ask, &[2], DEADLINE)]);
    }
    assert_eq!(lab.broken(), [""; 0]);
    assert_eq!(lab.report().get("seat-legs.held"), Some(3));
}

#[test]
fn a_block_in_two_places_is_found() {
    let (mut lab, _, second) = two_claimed();
    let drawn = lab.pool(&[take(second, &[2])]);
    lab.frame(second, &[accept(drawn, &[(2, 0, 8, 12), (0, 0, 0, 4)])]);
    assert_eq!(lab.broken(), ["stock", "balance"]);
}

#[test]
fn an_accept_that_differs_from_its_take_is_found() {
    for wrong in [(2, 0, 8, 11), (2, 1, 8, 12), (1, 0, 8, 12)] {
        let (mut lab, first, _) = two_claimed();
        let drawn = lab.pool(&[take(first, &[2])]);
        lab.frame(first, &[accept(drawn, &[wrong])]);
        assert!(lab.broken().contains(&"stock"), "{wrong:?}");
    }
}

#[test]
fn a_take_that_an_accept_leaves_out_loses_its_block() {
    let mut lab = Lab::empty();
    lab.genesis(&definition(&[(0, 24)]));
    let first = home(0);
    lab.claim(first);
    lab.pool(&[take(first, &[4])]);
    let second = lab.pool(&[take(first, &[5])]);
    lab.frame(first, &[accept(second, &[(5, 0, 20, 24)])]);
    let report = lab.report();
    assert_eq!(broken(&report), ["stock", "balance"]);
    assert_eq!(report.get("seat-legs.difference"), Some(-12));
}

#[test]
fn a_block_under_way_is_accounted_for() {
    let (mut lab, first, second) = two_claimed();
    // The second Take names what the first has taken, and gives nothing.
    lab.pool(&[take(first, &[2]), take(second, &[2, 0, 77])]);
    let report = lab.report();
    assert_eq!(broken(&report), [""; 0]);
    assert_eq!(report.get("seat-legs.under-way"), Some(12));
    assert_eq!(report.get("seat-legs.pool"), Some(0));
}

#[test]
fn a_broken_chain_is_found() {
    let (mut lab, first, _) = two_claimed();
    lab.writers[usize::from(first)].chain = [1; 16];
    let at = lab.frame(first, &[held((first, 1, 1), 0, &ask(first, 0), &[2], DEADLINE)]);
    let report = lab.report();
    assert_eq!(report.get("records.fault.chain"), Some(1));
    let finding = &report.findings.kept()[0];
    assert_eq!(
        (finding.promise.word(), finding.at[0].to_string()),
        ("fault", format!("{first}@{at}"))
    );
}

#[test]
fn time_that_goes_back_and_entries_that_cannot_be_read_are_found() {
    let (mut lab, first, second) = two_claimed();
    let now = std::mem::replace(&mut lab.now, START - 1_000);
    lab.frame(first, &[]);
    lab.now = now;
    lab.frame(second, &[lab::entry(13, &lab::Bytes::default())]);
    let report = lab.report();
    assert_eq!(report.get("records.fault.clock"), Some(1));
    assert_eq!(report.get("records.fault.unreadable"), Some(1));
}

#[test]
fn a_confirmed_order_is_found_as_the_buyer_heard_of_it() {
    let (lab, told, _) = sold_one();
    let report = lab.verified(&[told], false).unwrap().report;
    assert_eq!(broken(&report), [""; 0]);
    assert_eq!(report.get("answers.confirmed"), Some(1));
}

#[test]
fn a_confirmed_order_that_is_not_there_is_found() {
    let (mut lab, mut told, first) = sold_one();
    told.confirms = Some(format!("{first}-1-2").parse().unwrap());
    let report = lab.verified(&[told.clone()], false).unwrap().report;
    assert_eq!(report.get("answers.confirmed-missing"), Some(1));
    assert_eq!(broken(&report), ["confirmed-missing"]);

    // What a replaced owner wrote is void, so a buyer who heard of it lost an order.
    let old = lab.clone();
    lab.claim(first);
    let mut writers = old.writers;
    std::mem::swap(&mut lab.writers, &mut writers);
    lab.frame(first, &[held((first, 1, 2), 0, &ask(first, 1), &[3], DEADLINE)]);
    let report = lab.verified(&[told], false).unwrap().report;
    assert_eq!(report.get("records.void.writer"), Some(1));
    assert_eq!(broken(&report), ["confirmed-missing"]);
}

#[test]
fn a_buyer_who_heard_otherwise_is_found() {
    let (lab, right, _) = sold_one();
    let seat = |coach: &str, number: &str| {
        Some(vec![ToldSeat { coach: coach.to_owned(), number: number.to_owned() }])
    };
    let some = |text: &str| Some(text.to_owned());
    let wrong: [fn(&mut Answer); 5] = [
        |a| a.from = Some("B".to_owned()),
        |a| a.class = Some("First".to_owned()),
        |a| a.buyer = "mallory".to_owned(),
        |a| a.key = Some("other".to_owned()),
        |a| a.party = Some(2),
    ];
    for (nth, change) in wrong.into_iter().enumerate() {
        let mut told = right.clone();
        change(&mut told.answer);
        let report = lab.verified(&[told], false).unwrap().report;
        assert_eq!(broken(&report), ["confirmed-differs"], "change {nth}");
    }
    for seats in [seat("1", "1D"), seat("2", "1C")] {
        let mut told = right.clone();
        told.answer.seats = seats;
        let report = lab.verified(&[told], false).unwrap().report;
        assert_eq!(broken(&report), ["confirmed-differs"]);
    }
    for state in [some("paid"), some("cancelled")] {
        let mut told = right.clone();
        told.answer.state = state;
        let report = lab.verified(&[told], false).unwrap().report;
        assert_eq!(broken(&report), ["confirmed-missing"]);
    }
}

#[test]
fn a_confirmed_order_may_move_on() {
    let (mut lab, told, first) = sold_one();
    lab.frame(first, &[paid((first, 1, 1), 600)]);
    lab.frame(first, &[ended((first, 1, 1), 3)]);
    let report = lab.verified(&[told], false).unwrap().report;
    assert_eq!(broken(&report), [""; 0]);
    assert_eq!(report.get("orders.refunded"), Some(1));
}

#[test]
fn two_orders_that_a_buyer_heard_of_under_one_key_are_found() {
    let (mut lab, one, first) = sold_one();
    lab.frame(first, &[held((first, 1, 2), 0, &ask(first, 1), &[3], DEADLINE)]);
    let mut two = one.clone();
    two.confirms = Some(format!("{first}-1-2").parse().unwrap());
    let report = lab.verified(&[one, two], false).unwrap().report;
    assert!(broken(&report).contains(&"key-twice"));
}

#[test]
fn two_live_orders_under_one_key_are_found() {
    let (mut lab, first, second) = two_claimed();
    let ask = ask(first, 0);
    lab.frame(first, &[held((first, 1, 1), 0, &ask, &[2], DEADLINE)]);
    // Home never sent this one: its key has an order.
    lab.frame(second, &[held((first, 1, 2), 1, &ask, &[4], DEADLINE)]);
    let report = lab.report();
    assert_eq!(report.get("keys.two-live-orders"), Some(1));
    assert_eq!(broken(&report), ["key-twice", "travel"]);
}

#[test]
fn an_order_that_is_live_on_two_shares_is_found() {
    let (mut lab, first, second) = two_claimed();
    let ask = ask(first, 0);
    lab.frame(first, &[sent((first, 1, 1), 1, second, &ask)]);
    lab.frame(second, &[held((first, 1, 1), 1, &ask, &[4], DEADLINE)]);
    lab.frame(first, &[returned((first, 1, 1), 1)]);
    lab.frame(first, &[held((first, 1, 1), 0, &ask, &[2], DEADLINE)]);
    let report = lab.report();
    assert_eq!(report.get("orders.live-twice"), Some(1));
    assert_eq!(broken(&report), ["live-twice", "travel"]);
}

#[test]
fn ends_of_a_travelling_order_that_disagree_are_found() {
    type Story = fn(&mut Lab, u16, u16, &Ask);
    let stories: [(&str, Story); 8] = [
        ("placed, but not held there", |lab, first, _, _| {
            lab.frame(first, &[placed((first, 1, 1), 1, &[4], DEADLINE)]);
        }),
        ("placed with other seats than are held", |lab, first, second, ask| {
            lab.frame(second, &[held((first, 1, 1), 1, ask, &[5], DEADLINE)]);
            lab.frame(first, &[placed((first, 1, 1), 1, &[4], DEADLINE)]);
        }),
        ("placed with another deadline", |lab, first, second, ask| {
            lab.frame(second, &[held((first, 1, 1), 1, ask, &[4], DEADLINE)]);
            lab.frame(first, &[placed((first, 1, 1), 1, &[4], DEADLINE + 1)]);
        }),
        ("returned, but held there", |lab, first, second, ask| {
            lab.frame(second, &[held((first, 1, 1), 1, ask, &[4], DEADLINE)]);
            lab.frame(first, &[returned((first, 1, 1), 1)]);
        }),
        ("closed at home, but live there", |lab, first, second, ask| {
            lab.frame(second, &[held((first, 1, 1), 1, ask, &[4], DEADLINE)]);
            lab.frame(first, &[placed((first, 1, 1), 1, &[4], DEADLINE)]);
            lab.frame(first, &[closed((first, 1, 1), 1, 2)]);
        }),
        ("closed for another reason than it ended", |lab, first, second, ask| {
            lab.frame(second, &[held((first, 1, 1), 1, ask, &[4], DEADLINE)]);
            lab.frame(first, &[placed((first, 1, 1), 1, &[4], DEADLINE)]);
            lab.frame(second, &[ended((first, 1, 1), 1)]);
            lab.frame(first, &[closed((first, 1, 1), 1, 4)]);
        }),
        ("paid at home, but not there", |lab, first, second, ask| {
            lab.frame(second, &[held((first, 1, 1), 1, ask, &[4], DEADLINE)]);
            lab.frame(first, &[placed((first, 1, 1), 1, &[4], DEADLINE)]);
            lab.frame(first, &[paid((first, 1, 1), 600)]);
        }),
        ("held otherwise than home asked", |lab, first, second, ask| {
            let other = Ask { to: 2, price: 300, ..ask.clone() };
            lab.frame(second, &[held((first, 1, 1), 1, &other, &[4], DEADLINE)]);
        }),
    ];
    for (says, story) in stories {
        let (mut lab, first, second) = two_claimed();
        let ask = ask(first, 0);
        lab.frame(first, &[sent((first, 1, 1), 1, second, &ask)]);
        story(&mut lab, first, second, &ask);
        let report = lab.report();
        let found: Vec<_> = report.findings.kept().iter().map(|f| f.says.as_str()).collect();
        let expected = format!("order {first}-1-1/1: {says}");
        assert_eq!(found, [expected.as_str()], "{says}");
    }
}

#[test]
fn an_attempt_that_is_held_on_one_share_and_refused_on_another_is_found() {
    let (mut lab, first, second) = two_claimed();
    let third = 6 - first - second;
    lab.claim(third);
    let ask = ask(first, 0);
    lab.frame(first, &[sent((first, 1, 1), 1, second, &ask)]);
    lab.frame(second, &[held((first, 1, 1), 1, &ask, &[4], DEADLINE)]);
    lab.frame(third, &[refused((first, 1, 1), 1)]);
    assert_eq!(lab.broken(), ["travel"]);
}

#[test]
fn a_refusal_forbids_the_hold_and_a_forgotten_order_may_be_refused() {
    let (mut lab, first, second) = two_claimed();
    let ask = ask(first, 0);
    lab.frame(first, &[sent((first, 1, 1), 1, second, &ask)]);
    let mut refuses = lab.clone();
    refuses.frame(second, &[refused((first, 1, 1), 1), refused((first, 1, 1), 1)]);
    refuses.frame(first, &[returned((first, 1, 1), 1)]);
    assert_eq!(refuses.broken(), [""; 0]);
    refuses.frame(second, &[held((first, 1, 1), 1, &ask, &[4], DEADLINE)]);
    assert!(refuses.broken().contains(&"fault"));

    lab.frame(second, &[held((first, 1, 1), 1, &ask, &[4], DEADLINE)]);
    lab.frame(second, &[ended((first, 1, 1), 1)]);
    let mut early = lab.clone();
    early.frame(second, &[refused((first, 1, 1), 1)]);
    assert!(early.broken().contains(&"fault"));
    lab.now += DAY;
    lab.frame(second, &[refused((first, 1, 1), 1)]);
    assert_eq!(lab.broken(), [""; 0]);
    assert_eq!(lab.report().get("travel.unresolved"), Some(1));
}

#[test]
fn what_is_written_while_reading_is_not_blamed_for_what_it_refers_to() {
    let (mut lab, first, second) = two_claimed();
    lab.frame(first, &[sent((first, 1, 1), 1, second, &ask(first, 0))]);
    let at = lab.frame(first, &[placed((first, 1, 1), 1, &[4], DEADLINE)]);
    lab.settled = at;
    assert_eq!(lab.broken(), [""; 0]);
    lab.settled = at + 1;
    assert_eq!(lab.broken(), ["travel"]);
}

#[test]
fn an_order_id_of_another_epoch_or_made_twice_is_found() {
    let (mut lab, first, _) = two_claimed();
    let mut wrong = lab.clone();
    wrong.frame(first, &[held((first, 2, 1), 0, &ask(first, 0), &[2], DEADLINE)]);
    assert_eq!(wrong.broken(), ["order-id"]);

    let hold = held((first, 1, 1), 0, &ask(first, 0), &[2], DEADLINE);
    lab.frame(first, std::slice::from_ref(&hold));
    lab.frame(first, &[ended((first, 1, 1), 1)]);
    lab.now += DAY;
    lab.frame(first, &[hold]);
    assert_eq!(lab.broken(), ["order-id"]);
}

#[test]
fn a_seeking_order_goes_on_under_its_id_even_as_it_is_forgotten() {
    let (mut lab, first, second) = two_claimed();
    let ask = ask(first, 0);
    lab.frame(first, &[sent((first, 1, 1), 1, second, &ask)]);
    lab.frame(second, &[refused((first, 1, 1), 1)]);
    lab.frame(first, &[returned((first, 1, 1), 1)]);
    lab.claim(first);
    let hold = held((first, 1, 1), 0, &ask, &[2], DEADLINE);
    let mut soon = lab.clone();
    soon.frame(first, std::slice::from_ref(&hold));
    assert_eq!(soon.broken(), [""; 0]);
    let mut at_once = lab.clone();
    at_once.now += DAY;
    at_once.frame(first, std::slice::from_ref(&hold));
    assert_eq!(at_once.broken(), [""; 0]);
    lab.now += DAY;
    lab.frame(first, &[]);
    lab.frame(first, &[hold]);
    assert_eq!(lab.broken(), ["order-id"]);
}

#[test]
fn a_key_is_free_again_a_day_after_its_order_ended_and_not_before() {
    let (mut lab, first, _) = two_claimed();
    let ask = ask(first, 0);
    lab.frame(first, &[held((first, 1, 1), 0, &ask, &[2], DEADLINE)]);
    lab.frame(first, &[ended((first, 1, 1), 1)]);
    let again = held((first, 1, 2), 0, &ask, &[2], DEADLINE + 2 * DAY);
    lab.now += DAY - 1_001;
    let mut early = lab.clone();
    early.frame(first, std::slice::from_ref(&again));
    assert_eq!(early.broken(), ["fault"]);
    lab.now += 1;
    lab.frame(first, &[again]);
    assert_eq!(lab.broken(), [""; 0]);
}

#[test]
fn a_wrong_price_home_or_journey_is_found() {
    let (lab, first, second) = two_claimed();
    let right = ask(first, 0);
    let wrong = [(Ask { price: 601, ..right.clone() }, "price"), (ask(second, 0), "journey")];
    for (ask, promise) in wrong {
        let mut lab = lab.clone();
        lab.frame(first, &[held((first, 1, 1), 0, &ask, &[2], DEADLINE)]);
        assert_eq!(lab.broken(), [promise]);
    }
    // A class or stop that is not there has no stock: the fold itself refuses it.
    for ask in [Ask { class: 7, ..right.clone() }, Ask { to: 4, ..right }] {
        let mut lab = lab.clone();
        lab.frame(first, &[held((first, 1, 1), 0, &ask, &[2], DEADLINE)]);
        assert_eq!(lab.broken()[0], "fault");
    }
}

#[test]
fn a_price_of_an_earlier_definition_is_right() {
    let (mut lab, first, _) = two_claimed();
    let mut dearer = usual();
    let flat = dearer.windows(8).position(|w| w == 100u64.to_le_bytes()).unwrap();
    dearer[flat..flat + 8].copy_from_slice(&150u64.to_le_bytes());
    lab.pool(&[amend(2, &dearer)]);
    lab.frame(first, &[held((first, 1, 1), 0, &ask(first, 0), &[2], DEADLINE)]);
    let new = Ask { price: 650, ..ask(first, 1) };
    lab.frame(first, &[held((first, 1, 2), 0, &new, &[3], DEADLINE)]);
    assert_eq!(lab.broken(), [""; 0]);
}

#[test]
fn an_amend_adds_its_blocks_to_the_pool_and_a_wrong_one_does_not_count() {
    let mut lab = Lab::founded();
    let grown = definition(&[(0, 12), (1, 4), (0, 8)]);
    lab.pool(&[amend(3, &grown)]);
    lab.pool(&[amend(2, &definition(&[(0, 16), (1, 4)]))]);
    let report = lab.report();
    assert_eq!(report.get("records.void.nothing-counts"), Some(2));
    lab.pool(&[amend(2, &grown), policy(1, 0), policy(2, 0)]);
    let report = lab.report();
    assert_eq!(broken(&report), [""; 0]);
    assert_eq!(report.get("seat-legs"), Some(24 * 3));
    assert_eq!(report.get("seat-legs.pool"), Some(12 * 3));
}

#[test]
fn a_hold_that_expires_early_is_found() {
    for (early_ms, found) in [(32_001, vec!["expiry"]), (32_000, vec![])] {
        let (mut lab, first, _) = two_claimed();
        lab.frame(first, &[held((first, 1, 1), 0, &ask(first, 0), &[2], DEADLINE)]);
        lab.now = DEADLINE + 2_000 - early_ms - 1_000;
        lab.frame(first, &[ended((first, 1, 1), 2)]);
        assert_eq!(lab.broken(), found);
    }
}

#[test]
fn frames_of_others_are_void() {
    let (mut lab, first, _) = two_claimed();
    let before = lab.report();
    let hold = held((first, 1, 1), 0, &ask(first, 0), &[2], DEADLINE);
    let right = Head { count: 1, ..lab.head(first) };
    let void = [
        Head { incarnation: 99, ..right },
        Head { epoch: 2, ..right },
        Head { seq: 2, ..right },
        Head { seq: 0, ..right },
        Head { ledger: [1; 16], ..right },
        Head { share: 0, ..right },
    ];
    for head in void {
        lab.push(first, lab::seal(&head, &hold));
    }
    // A Claim of the same epoch comes second; one of the epoch after the next skips one.
    for epoch in [1, 3] {
        let head = Head { epoch, seq: 0, previous: [0; 16], ..right };
        lab.push(first, lab::seal(&head, &lab::claim()));
    }
    lab.push(first, b"not a frame".to_vec());
    let after = lab.report();
    assert_eq!(broken(&after), [""; 0]);
    assert_eq!(after.get("records.void"), Some(9));
    assert_eq!(after.get("seat-legs.held"), Some(0));
    assert_eq!(before.get("epochs"), after.get("epochs"));
    lab.frame(first, &[hold]);
    assert_eq!(lab.report().get("seat-legs.held"), Some(3));
}

#[test]
fn a_frozen_share_has_new_owners_and_sells_nothing() {
    let (mut lab, first, _) = two_claimed();
    lab.frame(first, &[ended((first, 1, 1), 1)]);
    lab.frame(first, &[held((first, 1, 1), 0, &ask(first, 0), &[2], DEADLINE)]);
    lab.claim(first);
    lab.frame(first, &[held((first, 2, 1), 0, &ask(first, 0), &[2], DEADLINE)]);
    let report = lab.report();
    assert_eq!(broken(&report), ["fault"]);
    assert_eq!(report.get("records.fault"), Some(3));
    assert_eq!(report.get("epochs"), Some(3));
    assert_eq!(report.get("seat-legs.held"), Some(0));
    assert_eq!(report.get("seat-legs.stranded"), Some(8 * 3));
}

#[test]
fn a_record_that_freezes_the_pool_is_found() {
    let mut lab = Lab::founded();
    lab.pool(&[lab::entry(38, &lab::Bytes::default())]);
    lab.pool(&[take(1, &[2])]);
    let report = lab.report();
    assert_eq!(broken(&report), ["fault"]);
    assert_eq!(report.get("records.void.frozen"), Some(1));
}

#[test]
fn an_unknown_format_freezes_what_it_lies_in() {
    for partition in [0, home(0)] {
        let (mut lab, first, _) = two_claimed();
        // Length and padding are no business of this format.
        let mut record = lab::seal(&Head { format: 2, ..lab.head(partition) }, &[]);
        record[76..80].copy_from_slice(&[1; 4]);
        record[90] = 1;
        lab::checksum(&mut record);
        lab.push(partition, record);
        lab.frame(first, &[held((first, 1, 1), 0, &ask(first, 0), &[2], DEADLINE)]);
        let report = lab.report();
        assert_eq!(broken(&report), ["fault"]);
        assert_eq!(report.get("records.fault.format"), Some(1));
        let frozen = i64::from(partition != 0);
        assert_eq!(report.get("records.fault.frozen").unwrap_or(0), frozen);
    }
}

#[test]
fn a_definition_out_of_range_does_not_count_and_freezes_nothing() {
    let mut lab = Lab::founded();
    for wrong in [definition(&[(0, 12), (1, 4), (2, 4)]), definition(&[(0, 12), (1, 4), (0, 0)])] {
        lab.pool(&[amend(2, &wrong)]);
    }
    lab.pool(&[take(1, &[2; 257])]);
    let report = lab.report();
    assert_eq!(broken(&report), [""; 0]);
    assert_eq!(report.get("records.void.nothing-counts"), Some(3));
    assert_eq!(report.get("seat-legs.pool"), Some(12));
}

#[test]
fn a_ledger_without_genesis_is_not_judged() {
    let mut lab = Lab::empty();
    lab.pool(&[policy(1, 0)]);
    assert!(matches!(lab.verified(&[], false), Err(Unreadable::NoGenesis)));
}

#[test]
fn what_is_free_at_rest_is_listed_by_its_longest_stretches() {
    let (mut lab, first, second) = two_claimed();
    let middle = Ask::new(&buyer_at(first, 0), "k", (1, 2));
    lab.frame(first, &[held((first, 1, 1), 0, &middle, &[2], DEADLINE)]);
    lab.pool(&[take(second, &[2])]);
    let free = lab.verified(&[], true).unwrap().free;
    let lines: Vec<_> = free
        .iter()
        .map(|l| {
            let text = |field: &str| l[field].as_str().unwrap().to_owned();
            let journey = format!("{} {}-{}", text("class"), text("from"), text("to"));
            (journey, l["seats"].as_u64().unwrap(), l["underWay"].as_u64().unwrap())
        })
        .collect();
    let expected = [
        ("Second A-B".to_owned(), 1, 0),
        ("Second A-D".to_owned(), 11, 4),
        ("Second C-D".to_owned(), 1, 0),
        ("First A-D".to_owned(), 4, 0),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn sold_out_is_a_lie_only_where_a_seat_was_free_all_the_time() {
    let (mut lab, first, second) = two_claimed();
    lab.pool(&[take(second, &[2])]);
    lab.frame(second, &[accept(2, &[(2, 0, 8, 12)])]);
    // All seats of Second are sold but seat 2 of the first share, which is freed at the end.
    let mut number = 0;
    for (share, seats) in [(first, vec![0, 1, 2, 3]), (second, (4..12).collect())] {
        for seat in seats {
            number += 1;
            let ask = ask(share, number as usize);
            lab.frame(share, &[held((share, 1, number), 0, &ask, &[seat], DEADLINE)]);
        }
    }
    let all_sold = lab.now;
    lab.now += 60_000;
    lab.frame(first, &[ended((first, 1, 3), 1)]);
    let heard = |at: u64, party: u16, class: &str| {
        told(&format!(
            r#"{{"at":{at},"buyer":"b","run":"G1/2027-02-01","from":"B","to":"C",
                "class":"{class}","party":{party},"status":409,"problem":"sold-out"}}"#
        ))
    };
    let judged = |lab: &Lab, told: Told| {
        let report = lab.verified(&[told], true).unwrap().report;
        assert_eq!(report.get("answers.sold-out"), Some(1));
        report.get("answers.sold-out-wrongly").unwrap()
    };
    let wrong = |told: Told| judged(&lab, told);
    assert_eq!(wrong(heard(all_sold + 30_000, 1, "Second")), 0);
    assert_eq!(wrong(heard(lab.now + 500, 1, "Second")), 0);
    // While the fourth of its seats was still free, so was one; but not four.
    assert_eq!(wrong(heard(START + 6_000, 1, "Second")), 1);
    assert_eq!(wrong(heard(START + 6_000, 8, "Second")), 1);
    assert_eq!(wrong(heard(START + 6_000, 9, "Second")), 0);
    assert_eq!(wrong(heard(all_sold - 500, 1, "Second")), 0);
    assert_eq!(wrong(heard(lab.now + 5_000, 1, "Second")), 1);
    assert_eq!(wrong(heard(lab.now + 5_000, 2, "Second")), 0);
    assert_eq!(wrong(heard(all_sold, 4, "First")), 1);
    assert_eq!(wrong(heard(all_sold, 5, "First")), 0);
    // A proof that says how old it is.
    let proven = |as_of: Option<u64>| {
        let mut told = heard(lab.now + 3_000, 1, "Second");
        told.answer.as_of = as_of;
        let report = lab.judged(&[told], true, MARGIN_MS).unwrap().report;
        report.get("answers.sold-out-wrongly").unwrap()
    };
    assert_eq!(proven(None), 0);
    assert_eq!(proven(Some(lab.now + 1_900)), 0);
    assert_eq!(proven(Some(lab.now + 2_100)), 1);
    // A frame that had waited for the log: nobody could know before the log had it.
    let late = Lab { appended: Some(lab.now + 4_500), ..lab.clone() };
    assert_eq!(judged(&late, heard(lab.now + 5_000, 1, "Second")), 0);
}

#[test]
fn homes_of_the_lab_are_two_different_shares() {
    assert_ne!(home(0), home(1));
    assert_eq!(home_of(&buyer_at(home(1), 3)), home(1));
}
