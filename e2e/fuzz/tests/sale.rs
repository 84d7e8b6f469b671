//! TrainSales: any YAML is read or refused, and what passes every check can be founded.

use bolero::check;
use crds::{TrainSale, checks, definition};
use fuzz::dice::Dice;

const SALES: [&str; 3] = [
    include_str!("../../../examples/minimal.yaml"),
    include_str!("../../../examples/demo.yaml"),
    include_str!("../../../examples/full.yaml"),
];

/// Values that a user may put where another belongs.
const VALUES: [&str; 24] = [
    "0",
    "1",
    "-1",
    "65535",
    "65536",
    "4294967296",
    "18446744073709551616",
    "1e308",
    ".nan",
    "true",
    "null",
    "~",
    "\"\"",
    "\"x\"",
    "[]",
    "{}",
    "[[]]",
    "2027-02-30",
    "24:00",
    "\"-0\"",
    "99999999999999d",
    "1ns",
    "\u{202e}",
    "*a",
];

/// A sale that somebody edited: lines are dropped, doubled, moved, or get another value.
fn edited(dice: &mut Dice<'_>) -> String {
    let mut lines: Vec<String> = dice.of(&SALES).lines().map(str::to_owned).collect();
    for _ in 0..=dice.below(4) {
        let at = usize::from(u16::from_le_bytes([dice.byte(), dice.byte()])) % lines.len();
        match dice.below(6) {
            0 if lines.len() > 1 => {
                lines.remove(at);
            }
            1 => lines.insert(at, lines[at].clone()),
            2 => {
                let other = usize::from(dice.byte()) % lines.len();
                lines.swap(at, other);
            }
            3 => lines[at].insert_str(0, "  "),
            4 => {
                let text = String::from_utf8_lossy(dice.bytes(8)).into_owned();
                let (head, _) = lines[at].split_once(": ").unwrap_or((&lines[at], ""));
                lines[at] = format!("{head}: {text}");
            }
            _ => {
                let (head, _) = lines[at].split_once(": ").unwrap_or((&lines[at], ""));
                lines[at] = format!("{head}: {}", dice.of(&VALUES));
            }
        }
    }
    lines.join("\n")
}

fn is_sound(text: &str) {
    let sale = match TrainSale::from_yaml(text) {
        Ok(sale) => sale,
        Err(refused) => {
            assert!(!refused.to_string().is_empty(), "a refusal says why");
            return;
        }
    };
    let findings = checks::check(&sale);
    assert!(checks::check_update(&sale, &sale).is_empty(), "no change is no forbidden change");
    let founded = definition::found(&sale);
    if findings.is_empty() {
        let definition = founded.as_ref().expect("what passes the checks can be founded");
        definition.check().expect("and is what a pool takes");
        definition::amend(definition, &sale).expect("and nothing has to change");
    }
}

#[test]
fn any_text_is_read_or_refused() {
    check!().for_each(|bytes: &[u8]| {
        is_sound(&String::from_utf8_lossy(bytes));
    });
}

#[test]
fn an_edited_sale_is_refused_or_can_be_founded() {
    check!().with_max_len(256).for_each(|bytes: &[u8]| {
        is_sound(&edited(&mut Dice::new(bytes)));
    });
}
