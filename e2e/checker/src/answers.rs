//! What buyers' clients wrote down: one JSON line for each finished request.

use std::fs::File;
use std::io::{BufRead, BufReader};

use serde::Deserialize;

use crate::source::Unreadable;
use crate::words::OrderId;

/// One line. Fields that are not there are empty; others are ignored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// When the answer came, in milliseconds since 1970.
    pub at: u64,
    /// The buyer's identity.
    pub buyer: String,
    /// The idempotency key.
    pub key: Option<String>,
    /// `train/date`.
    pub run: Option<String>,
    /// Stop code.
    pub from: Option<String>,
    /// Stop code.
    pub to: Option<String>,
    /// Name of the class.
    pub class: Option<String>,
    /// How many passengers.
    pub party: Option<u16>,
    /// The HTTP status.
    pub status: u16,
    /// The order's id.
    pub order: Option<String>,
    /// The order's state, as the buyer was told.
    pub state: Option<String>,
    /// The order's seats, as the buyer was told.
    pub seats: Option<Vec<ToldSeat>>,
    /// `sold-out`, `busy`, `unknown`, …
    pub problem: Option<String>,
    /// Of `sold-out`: since when, in milliseconds since 1970.
    #[serde(rename = "asOf")]
    pub as_of: Option<u64>,
    /// `place`, `cancel`, `pay` or `read`.
    pub op: Option<String>,
}

/// A seat as people call it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct ToldSeat {
    /// The coach's name.
    pub coach: String,
    /// Row and letter.
    pub number: String,
}

/// An answer and where it was written.
#[derive(Clone, Debug)]
pub struct Told {
    /// The answer.
    pub answer: Answer,
    /// The order that it confirms, if it does.
    pub confirms: Option<OrderId>,
    /// File and line.
    pub source: String,
}

/// All lines of all files. A last line without an end that is no JSON is the torn end of a client
/// that was killed; it is left out and counted.
pub fn read(paths: &[String]) -> Result<(Vec<Told>, u64), Unreadable> {
    let mut all = Vec::new();
    let mut torn = 0;
    for path in paths {
        let io = |source| Unreadable::Io { path: path.clone(), source };
        let mut lines = BufReader::new(File::open(path).map_err(io)?);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if lines.read_until(b'\n', &mut line).map_err(io)? == 0 {
                break;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            match told(path, number, &line) {
                Ok(told) => all.push(told),
                Err(_) if !line.ends_with(b"\n") => torn += 1,
                Err(why) => {
                    let (path, line) = (path.clone(), number);
                    return Err(Unreadable::Answers { path, line, why });
                }
            }
        }
    }
    Ok((all, torn))
}

fn told(path: &str, number: usize, line: &[u8]) -> Result<Told, String> {
    let answer: Answer = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    let confirms = match (&answer.order, answer.status) {
        (Some(order), 200 | 201) => Some(order.parse().map_err(|e| format!("{order:?} is {e}"))?),
        _ => None,
    };
    Ok(Told { answer, confirms, source: format!("{path}:{number}") })
}
