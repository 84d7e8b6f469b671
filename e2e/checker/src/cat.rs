//! `cat`: every record on a line, decoded, with what it did.

use std::io::Write;

use crate::entry;
use crate::frame;
use crate::pool;
use crate::share::{Said, Verdict, Witness};
use crate::source::{Ledger, Part, Unreadable};
use crate::verify::{read_pool, start};
use crate::words::Place;

/// Prints the pool, then the shares in the order in which the source has them.
pub fn cat(
    ledger: &mut dyn Ledger,
    name: Option<String>,
    out: &mut dyn Write,
) -> Result<(), Unreadable> {
    let pool = read_pool(ledger, name, &mut |at, record, verdict| {
        let verdict = match verdict {
            pool::Verdict::Accepted { passed_over } if passed_over.is_empty() => {
                "accepted".to_owned()
            }
            pool::Verdict::Accepted { passed_over } => {
                format!("accepted (but {})", places(passed_over))
            }
            pool::Verdict::Void(pool::Void::NothingCounts(why)) => {
                format!("void ({})", places(why))
            }
            pool::Verdict::Void(why) => format!("void ({})", why.word()),
            pool::Verdict::Fault(why) => format!("fault ({why})"),
        };
        line(out, at, record, &verdict)
    })?;
    let founding = pool.founding();
    let mut shares = founding.map_or_else(Vec::new, start);
    ledger.read(Part::Shares, &mut |at, _, record| {
        let share = shares.get_mut(usize::from(at.partition).wrapping_sub(1));
        let verdict = match share.map(|share| share.fold(at.offset, record, &mut Nobody)) {
            Some(Verdict::Accepted) => "accepted".to_owned(),
            Some(Verdict::Void(why)) => format!("void ({})", why.word()),
            Some(Verdict::Fault(fault)) => format!("fault ({})", fault.says()),
            None => "unjudged (no Genesis has this share)".to_owned(),
        };
        line(out, at, record, &verdict)
    })
}

struct Nobody;

impl Witness for Nobody {
    fn hear(&mut self, _said: &Said<'_>) {}
}

fn places(why: &[(usize, &'static str)]) -> String {
    let each: Vec<_> = why.iter().map(|(at, why)| format!("entry {at}: {why}")).collect();
    each.join("; ")
}

fn line(out: &mut dyn Write, at: Place, record: &[u8], verdict: &str) -> Result<(), Unreadable> {
    write!(out, "{at} {verdict}")?;
    let Ok((header, body)) = frame::read(record) else {
        writeln!(out, " | {} bytes", record.len())?;
        return Ok(());
    };
    write!(
        out,
        " | share {} epoch {} seq {} now {} incarnation {:016x}",
        header.share, header.epoch, header.seq, header.now, header.incarnation
    )?;
    let said = if at.partition == 0 {
        entry::of_pool(header.count, body).map(|all| spell(&all))
    } else {
        entry::of_share(header.count, body).map(|all| spell(&all))
    };
    match said {
        Ok(said) => writeln!(out, "{said}")?,
        Err(why) => writeln!(out, " | {} entries, {why}", header.count)?,
    }
    Ok(())
}

fn spell<T: std::fmt::Display>(entries: &[T]) -> String {
    entries.iter().map(|entry| format!(" | {entry}")).collect()
}
