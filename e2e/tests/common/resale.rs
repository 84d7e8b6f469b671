//! How long a killed node's shares were not sold from, by the ledger.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// A node that was killed.
#[derive(Clone)]
pub struct Kill {
    pub node: String,
    /// Milliseconds since 1970.
    pub at: u64,
}

/// A record of a share that matters here.
pub struct Event {
    /// Its writer's time, milliseconds since 1970.
    pub now: u64,
    pub what: What,
}

pub enum What {
    Claim {
        node: String,
        epoch: u64,
    },
    Yield,
    /// An order was taken, here or on its way elsewhere.
    Sold,
}

/// What happened to every share, in the order of its log.
pub struct History(BTreeMap<u16, Vec<Event>>);

/// One share of a killed node.
pub struct Gap<'a> {
    pub share: u16,
    /// From the kill until the next Claim.
    pub claimed_ms: u64,
    /// From the kill until the first order after that.
    pub sold_ms: u64,
    /// From the kill to that order, both included.
    pub meanwhile: &'a [Event],
}

/// What a line of the checker's `cat` says.
fn line(text: &str) -> Option<(u16, Event)> {
    let (verdict, rest) = text.split_once(" | ")?;
    let (head, entries) = rest.split_once(" | ")?;
    let share = verdict.strip_suffix(" accepted")?.split('@').next()?.parse().ok()?;
    let number = |name: &str| head.split(' ').skip_while(|w| *w != name).nth(1)?.parse().ok();
    let now = number("now")?;
    let mut entries = entries.split(" | ").peekable();
    let claims = entries.peek().and_then(|first| first.strip_prefix("Claim \""));
    let what = if let Some(node) = claims.and_then(|rest| rest.split('"').next()) {
        What::Claim { node: node.to_owned(), epoch: number("epoch")? }
    } else {
        let mut what = None;
        for entry in entries {
            match entry.split(' ').next() {
                Some("Yield") => what = Some(What::Yield),
                Some("Held" | "Sent") => what = Some(What::Sold),
                _ => {}
            }
        }
        what?
    };
    Some((share, Event { now, what }))
}

impl History {
    /// Reads what `checker cat` prints of a ledger, and writes all of it to a file if there is one.
    pub fn read(mut cat: Command, copy: Option<&Path>) -> Self {
        let mut copy = copy
            .map(|path| BufWriter::new(File::create(path).expect("the ledger's text can be kept")));
        let mut child = cat.stdout(Stdio::piped()).spawn().expect("the checker starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut history: BTreeMap<u16, Vec<Event>> = BTreeMap::new();
        for text in lines {
            let text = text.expect("the checker says text");
            if let Some(copy) = &mut copy {
                writeln!(copy, "{text}").expect("the ledger's text can be kept");
            }
            if let Some((share, event)) = line(&text) {
                history.entry(share).or_default().push(event);
            }
        }
        assert!(child.wait().expect("it ends").success(), "the checker reads the ledger");
        history.remove(&0);
        Self(history)
    }

    /// Each share that a node owned when it was killed, the one that took longest last.
    pub fn gaps(&self, kill: &Kill) -> Vec<Gap<'_>> {
        let owned = self.0.iter().filter(|(_, events)| {
            let before = events.iter().filter(|event| event.now < kill.at);
            let last = before.fold(None, |owner, event| match &event.what {
                What::Claim { node, .. } => Some(node),
                What::Yield => None,
                What::Sold => owner,
            });
            last == Some(&kill.node)
        });
        let mut gaps: Vec<Gap<'_>> = owned.map(|(share, all)| gap(kill, *share, all)).collect();
        gaps.sort_by_key(|gap| gap.sold_ms);
        gaps
    }
}

/// A share that is never sold from again has a gap without an end.
fn gap<'a>(kill: &Kill, share: u16, events: &'a [Event]) -> Gap<'a> {
    let after = |event: &Event| event.now >= kill.at;
    let first = events.iter().position(after).unwrap_or(events.len());
    // What it took in its last instant is not yet the work of the next owner.
    let claims = |event: &&Event| after(event) && matches!(event.what, What::Claim { .. });
    let claim = events[first..].iter().position(|event| claims(&event));
    let claim = claim.map_or(events.len(), |at| first + at);
    let rest = &events[claim..];
    let sold = rest.iter().position(|event| matches!(event.what, What::Sold));
    let end = sold.map_or(events.len(), |at| claim + at + 1);
    let since = |event: Option<&Event>| event.map_or(u64::MAX, |e| e.now.saturating_sub(kill.at));
    Gap {
        share,
        claimed_ms: since(rest.first()),
        sold_ms: sold.map_or(u64::MAX, |at| since(rest.get(at))),
        meanwhile: &events[first..end],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILL: u64 = 1_000;

    fn history(lines: &[&str]) -> History {
        let mut history: BTreeMap<u16, Vec<Event>> = BTreeMap::new();
        for (share, event) in lines.iter().filter_map(|text| line(text)) {
            history.entry(share).or_default().push(event);
        }
        History(history)
    }

    fn said(share: u16, now: u64, entries: &str) -> String {
        format!(
            "{share}@7 accepted | share {share} epoch 1 seq 2 now {now} incarnation 00 | {entries}"
        )
    }

    fn gaps(lines: &[String]) -> Vec<(u16, u64, u64)> {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (history, kill) = (history(&lines), Kill { node: "a".to_owned(), at: KILL });
        let gaps = history.gaps(&kill);
        gaps.iter().map(|gap| (gap.share, gap.claimed_ms, gap.sold_ms)).collect()
    }

    #[test]
    fn a_share_is_away_until_the_next_owner_takes_an_order() {
        let lines = [
            said(1, 10, "Claim \"a\" at \"x\""),
            said(1, KILL + 1, "Held o1"),
            said(1, KILL + 900, "Claim \"b\" at \"y\""),
            said(1, KILL + 950, "Ended o1 expired"),
            said(1, KILL + 980, "Ended o2 expired | Sent o3"),
        ];
        assert_eq!(gaps(&lines), [(1, 900, 980)]);
    }

    #[test]
    fn a_share_that_was_yielded_before_is_not_the_killed_nodes() {
        let lines = [said(1, 10, "Claim \"a\" at \"x\""), said(1, 20, "Yield to \"b\"")];
        assert_eq!(gaps(&lines), []);
    }

    #[test]
    fn a_share_that_nobody_sells_from_again_has_no_end() {
        let lines = [said(1, 10, "Claim \"a\" at \"x\""), said(2, 10, "Claim \"b\" at \"x\"")];
        assert_eq!(gaps(&lines), [(1, u64::MAX, u64::MAX)]);
    }
}
