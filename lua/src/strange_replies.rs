//! What a server that is not ours, or not itself, could answer.

use bolero::check;
use fuzz::dice::Dice;

use super::*;

const RUN: RunId = RunId(3);

/// An answer by dice: of the right shape as a rule, of any within it.
fn reply(dice: &mut Dice<'_>, depth: u8) -> Value {
    match dice.below(if depth == 0 { 7 } else { 9 }) {
        0 => Value::Int(i64::from_le_bytes(dice.number().to_le_bytes())),
        1 => Value::BulkString(dice.byte().to_string().into_bytes()),
        2 => Value::BulkString(dice.number().to_string().into_bytes()),
        3 => Value::BulkString(dice.bytes(5).to_vec()),
        4 => Value::Double(f64::from_bits(dice.number())),
        5 => Value::Boolean(dice.seldom(2)),
        6 => Value::Nil,
        7 => Value::Map(vec![(reply(dice, depth - 1), reply(dice, depth - 1))]),
        _ => Value::Array((0..dice.below(4)).map(|_| reply(dice, depth - 1)).collect()),
    }
}

fn answer(dice: &mut Dice<'_>) -> Value {
    if dice.seldom(8) {
        return reply(dice, 3);
    }
    let words = ["missing", "stale", "empty", "drawn", "stored", "newer", "", "Drawn"];
    let word = dice.of(&words).as_bytes().to_vec();
    let mut parts = vec![Value::BulkString(word)];
    parts.extend((0..dice.below(5)).map(|_| match dice.below(3) {
        0 => reply(dice, 1),
        // Redis tells offsets as text and indexes as numbers.
        1 => Value::Int(dice.byte().into()),
        _ => Value::BulkString(dice.byte().to_string().into_bytes()),
    }));
    Value::Array(parts)
}

fn makes_sense(answer: &Value) {
    match read_draw(RUN, answer.clone()) {
        Ok(Draw::Drawn { blocks, .. }) => {
            assert!(!blocks.is_empty(), "nothing was drawn: {answer:?}");
            assert!(blocks.iter().all(|block| block.run == RUN));
        }
        Ok(Draw::Empty { .. } | Draw::Stale { .. } | Draw::Missing) => {
            let Value::Array(parts) = answer else { panic!("{answer:?} says nothing of a stock") };
            assert!(parts.len() <= 2, "more was said than was heard: {answer:?}");
        }
        Err(Failure::Nonsense(_)) => {}
        Err(other) => panic!("{answer:?} is no {other:?}"),
    }
    // Whatever it is: a word, or nonsense.
    let _ = read_restock(answer.clone());
}

#[test]
fn any_reply_is_a_draw_or_nonsense_and_never_an_empty_draw() {
    // Briefly by default: beside it, a real Redis is timed.
    check!().with_test_time(Duration::from_millis(100)).for_each(|bytes: &[u8]| {
        makes_sense(&answer(&mut Dice::new(bytes)));
        if let Ok(value) = redis::parse_redis_value(bytes) {
            makes_sense(&value);
        }
    });
}
