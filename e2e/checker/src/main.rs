//! Reads a raw ledger and proves that nothing was sold twice and nothing was left over.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::ExitCode;

use checker::answers;
use checker::source::{self, Unreadable};
use checker::verify::{self, Wishes};
use clap::{Args, Parser, Subcommand};

/// Judges a raw ledger without any of the code that writes it.
///
/// Exit status: 0 all promises hold, 1 a promise is broken, 2 the ledger could not be read.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print every record on a line, decoded, with what it did and why.
    Cat {
        /// file:PATH or kafka:HOST:PORT/TOPIC
        #[arg(required = true)]
        ledgers: Vec<String>,
        /// The ledger's name, where its container does not say it.
        #[arg(long)]
        name: Option<String>,
    },
    /// Judge a ledger.
    Verify(Verify),
    /// Compare a topic of orders with the ledger that it tells of.
    #[cfg(feature = "kafka")]
    Settled {
        /// kafka:HOST:PORT/TOPIC
        ledger: String,
        /// kafka:HOST:PORT/TOPIC
        orders: String,
        /// Print the report as one JSON object on one line.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct Verify {
    /// file:PATH or kafka:HOST:PORT/TOPIC
    ledger: String,
    /// What buyers' clients wrote: JSON lines.
    #[arg(long, num_args = 1..)]
    answers: Vec<String>,
    /// Nobody sells any more: also list what is free, and judge answers of "sold out".
    #[arg(long)]
    at_rest: bool,
    /// Where to write the free stretches, instead of behind the report.
    #[arg(long, requires = "at_rest")]
    free: Option<String>,
    /// Print the report as one JSON object on one line.
    #[arg(long)]
    json: bool,
    /// The ledger's name, where its container does not say it.
    #[arg(long)]
    name: Option<String>,
    /// How long before a "sold out" a seat must have been free to make it a broken promise.
    #[arg(long, default_value_t = verify::MARGIN_MS)]
    margin_ms: u64,
}

fn main() -> ExitCode {
    let done = match Flags::parse().command {
        Command::Cat { ledgers, name } => cat(&ledgers, name.as_ref()).map(|()| true),
        Command::Verify(flags) => verify(&flags),
        #[cfg(feature = "kafka")]
        Command::Settled { ledger, orders, json } => settled(&ledger, &orders, json),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => {
            eprintln!("checker: {why}");
            ExitCode::from(2)
        }
    }
}

fn cat(ledgers: &[String], name: Option<&String>) -> Result<(), Unreadable> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    for address in ledgers {
        let mut ledger = source::open(address)?;
        checker::cat::cat(ledger.as_mut(), name.cloned(), &mut out)?;
    }
    out.flush()?;
    Ok(())
}

#[cfg(feature = "kafka")]
fn settled(ledger: &str, orders: &str, json: bool) -> Result<bool, Unreadable> {
    use checker::settled::{Judge, changes};
    let (brokers, topic) = source::topic(orders)?;
    let mut judge = Judge::new(changes(source::open(ledger)?.as_mut(), None)?);
    checker::kafka::committed(brokers, topic, |told| judge.hear(told))?;
    let settled = judge.end();
    let mut out = BufWriter::new(std::io::stdout().lock());
    if json {
        writeln!(out, "{}", settled.json())?;
    } else {
        settled.write(&mut out)?;
    }
    out.flush()?;
    Ok(settled.holds())
}

fn verify(flags: &Verify) -> Result<bool, Unreadable> {
    // The answers first: the ledger that is opened behind them holds what they speak of.
    let (told, torn) = answers::read(&flags.answers)?;
    let mut ledger = source::open(&flags.ledger)?;
    let wishes =
        Wishes { name: flags.name.clone(), at_rest: flags.at_rest, margin_ms: flags.margin_ms };
    let mut verified = verify::verify(ledger.as_mut(), &told, &wishes)?;
    if torn > 0 {
        verified.report.notes.push(format!("{torn} files of answers end in a torn line"));
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    if flags.json {
        writeln!(out, "{}", verified.report.json())?;
    } else {
        verified.report.write(&mut out)?;
    }
    match &flags.free {
        Some(path) => {
            let io = |source| Unreadable::Io { path: path.clone(), source };
            let mut file = BufWriter::new(File::create(path).map_err(io)?);
            verified.free.iter().try_for_each(|line| writeln!(file, "{line}")).map_err(io)?;
            file.flush().map_err(io)?;
        }
        None => verified.free.iter().try_for_each(|line| writeln!(out, "{line}"))?,
    }
    out.flush()?;
    Ok(verified.report.holds())
}
