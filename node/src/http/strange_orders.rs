//! Bodies of orders and payments that no page of ours would send.

use bolero::check;
use fuzz::dice::Dice;
use fuzz::say;
use inventory::entry::{Genesis, PoolEntry};
use inventory::pool::ledger_id;
use inventory::words::{Millis, Offset};

use super::*;

fn founded() -> Pool {
    let genesis = Genesis { topic_id: say::TOPIC, definition: say::definition(2) };
    let header = say::pool_header(ledger_id(say::LEDGER, say::TOPIC));
    let entry = PoolEntry::Genesis(Box::new(genesis));
    let record = say::pool_frame(&header, &[entry]).expect("a small definition fits");
    let mut pool = Pool::new(say::LEDGER);
    pool.fold(Offset(0), &record);
    pool
}

const GOOD: &str = r#"{"run":"G1/2027-02-01","from":"S0","to":"S3","class":"Second",
"passengers":[{"document":"A1"},{"document":"B2"}],"preference":"Window"}"#;

/// A good body with some of its bytes replaced by others that JSON knows.
fn edited(dice: &mut Dice<'_>) -> Vec<u8> {
    let mut body = GOOD.as_bytes().to_vec();
    let parts: [&[u8]; 12] =
        [b"{", b"}", b"[", b"]", b"\"", b",", b":", b"null", b"1e999", b"S1", b"\\u0000", b"\xff"];
    for _ in 0..dice.below(4) {
        let at = usize::from(dice.byte()) % body.len();
        let end = (at + usize::from(dice.below(4))).min(body.len());
        body.splice(at..end, dice.of(&parts).iter().copied());
    }
    body
}

/// An order that passes is one that a share can decide.
fn is_sound(pool: &Pool, body: &[u8]) {
    if let Ok(asked) = serde_json::from_slice::<PlaceBody<'_>>(body)
        && let Ok(request) = order_request(pool, "buyer", "key", &asked)
    {
        assert!((1..=PARTY_MAX).contains(&request.passengers.len()));
        let timetable = pool.definition().and_then(|d| d.timetable(request.run));
        let timetable = timetable.expect("a run that is sold");
        assert!(usize::from(request.class.0) < timetable.classes.len());
        assert!(usize::from(request.journey.to()) < timetable.stops.len());
        let again = order_request(pool, "buyer", "key", &asked);
        assert_eq!(again.ok().as_ref(), Some(&request), "the same body is the same request");
    }
    // A payment is read or refused.
    let order = "1-1-1".parse().expect("an order's id");
    let _ = Provider::Sandbox.read(order, &hyper::HeaderMap::new(), body, Millis(0));
}

#[test]
fn any_body_is_refused_or_an_order_that_a_share_can_decide() {
    let pool = founded();
    check!().for_each(|bytes: &[u8]| {
        is_sound(&pool, bytes);
        is_sound(&pool, &edited(&mut Dice::new(bytes)));
    });
}

#[test]
fn the_body_that_is_edited_is_a_good_one() {
    let pool = founded();
    let asked: PlaceBody<'_> = serde_json::from_slice(GOOD.as_bytes()).expect("it is JSON");
    assert!(order_request(&pool, "buyer", "key", &asked).is_ok());
}
