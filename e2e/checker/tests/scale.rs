//! How long ten million events take. Measured and printed, not asserted:
//!
//!     cargo test --release -p checker --test scale -- --ignored --nocapture

#![allow(clippy::unwrap_used, reason = "what cannot be built or read is a failure")]

mod lab;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Instant;

use checker::file::FileLedger;
use checker::verify::{MARGIN_MS, Wishes, verify};
use lab::{Bytes, Hash, Head, START};

const SHARES: u16 = 16;
const RUNS: u16 = 211;
const SEATS: u16 = 1_200;
const LEGS: u8 = 19;
/// Orders of a frame, which is what a busy owner batches.
const BATCH: u32 = 6;

/// The file of local mode, without the marks that nothing needs.
struct Out {
    file: BufWriter<File>,
    at: u64,
    next: Vec<u64>,
}

impl Out {
    fn record(&mut self, partition: u16, frame: &[u8]) {
        let next = &mut self.next[usize::from(partition)];
        let head = Bytes::default().u32(u32::try_from(frame.len()).unwrap());
        let head = head.u16(partition).u16(0).u64(*next).u64(64).0;
        *next += 1;
        let crc = crc32c::crc32c(&[0; 16]);
        let crc = crc32c::crc32c_append(crc, &self.at.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &head), frame);
        self.file.write_all(&[0xf5, 0x52, 0xc1, 0x0a]).unwrap();
        self.file.write_all(&crc.to_le_bytes()).unwrap();
        self.file.write_all(&head).unwrap();
        self.file.write_all(frame).unwrap();
        self.at += 32 + frame.len() as u64;
    }
}

fn definition() -> Vec<u8> {
    let d = Bytes::default().text(lab::NAME).text("CNY").text("UTC");
    let mut d = d.u16(SHARES).u8(0).u16(10).u32(1).text("t").u32(u32::from(LEGS) + 1);
    for stop in 0..=LEGS {
        d = d.text(&format!("S{stop}")).text("").u8(0).u8(0);
    }
    let mut d = d.u32(1).text("Second").u8(1).u64(100).u32(12);
    for coach in 0..12 {
        d = d.text(&format!("{coach}")).u8(0).u16(SEATS / 12).text("ABC-DF");
    }
    d = d.u32(u32::from(RUNS));
    for run in 0..RUNS {
        d = d.text(&format!("G{run}")).text("2027-02-01").u16(0).u16(SHARES);
    }
    d.0
}

/// Home number 0 of a run.
fn first_home(run: u16) -> u64 {
    let mut material = Vec::new();
    for part in [lab::NAME, &format!("G{run}"), "2027-02-01"] {
        material.extend_from_slice(&(part.len() as u64).to_le_bytes());
        material.extend_from_slice(part.as_bytes());
    }
    let hash = blake3::derive_key("stationmaster 2026 run home", &material);
    u64::from_le_bytes(hash[..8].try_into().unwrap()) % u64::from(SHARES)
}

struct Share {
    number: u16,
    seq: u32,
    chain: Hash,
    made: u32,
    batch: Vec<u8>,
    count: u16,
}

impl Share {
    fn flush(&mut self, out: &mut Out, epoch: u32) {
        let head = Head {
            share: self.number,
            epoch,
            seq: self.seq,
            incarnation: 1,
            now: START + u64::from(self.seq),
            previous: self.chain,
            ledger: lab::ledger_id(),
            format: 1,
            count: self.count,
        };
        let record = lab::seal(&head, &self.batch);
        self.chain = record[..16].try_into().unwrap();
        self.seq += 1;
        self.count = 0;
        self.batch.clear();
        out.record(self.number, &record);
    }

    /// One order for one leg of one seat, paid at once or given up by its buyer.
    fn sell(&mut self, out: &mut Out, run: u16, home: u16, seat: u16, leg: u8) {
        self.made += 1;
        let order = (self.number, 1, self.made);
        let mut buyer = [1; 16];
        let number = u64::from(home) + u64::from(SHARES) * u64::from(self.made);
        buyer[..8].copy_from_slice(&number.to_le_bytes());
        let mut key = buyer;
        key[8..10].copy_from_slice(&self.number.to_le_bytes());
        let held = Bytes::default().order(order).u16(0).raw(&key).raw(&[9; 16]).raw(&buyer);
        let held = held.u16(run).u8(0).u8(leg).u8(leg + 1).u8(0).u8(1).raw(&[5; 16]).u64(100);
        self.batch.extend(lab::entry(3, &held.seats(&[seat]).u64(START + 900_000)));
        self.batch.extend(lab::paid(order, 100));
        self.count += 2;
        if self.made.is_multiple_of(BATCH) {
            self.flush(out, 1);
        }
    }
}

fn write(path: &std::path::Path) {
    let file = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let mut out = Out { file, at: 64, next: vec![0; usize::from(SHARES) + 1] };
    let header = Bytes::default().raw(b"STNLEDGR").u32(1).u16(SHARES + 1).u16(0).raw(&[0; 44]).0;
    let crc = crc32c::crc32c(&header);
    out.file.write_all(&[&header[..], &crc.to_le_bytes()].concat()).unwrap();
    let genesis = Bytes::default().raw(&lab::TOPIC).u8(1).raw(&definition());
    let head = Head { share: 0, epoch: 0, seq: 0, ..lab::Lab::empty().head(0) };
    out.record(0, &lab::seal(&head, &lab::entry(33, &genesis)));
    let mut shares: Vec<_> = (1..=SHARES)
        .map(|number| Share {
            number,
            seq: 0,
            chain: [0; 16],
            made: 0,
            batch: Vec::new(),
            count: 1,
        })
        .collect();
    for share in &mut shares {
        share.batch = lab::claim();
        share.flush(&mut out, 1);
    }
    // 120 blocks of ten seats a run: home number j has a range of them.
    for run in 0..RUNS {
        let first = first_home(run);
        for seat in 0..SEATS {
            let home = (seat / 10) * SHARES / (SEATS / 10);
            let number = (first + u64::from(home)) % u64::from(SHARES);
            for leg in 0..LEGS {
                shares[usize::try_from(number).unwrap()].sell(&mut out, run, home, seat, leg);
            }
        }
    }
    for share in &mut shares {
        share.flush(&mut out, 1);
    }
    out.file.flush().unwrap();
}

fn peak_megabytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1_024
}

/// Seconds that this thread was on a core: steadier than the clock on a busy machine.
fn on_core_seconds() -> f64 {
    let said = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = said.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok());
    nanoseconds.unwrap_or(0.0) / 1e9
}

#[test]
#[ignore = "writes a gigabyte and measures"]
fn ten_million_events_are_judged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    write(&path);
    let size = path.metadata().unwrap().len();
    let before = peak_megabytes();
    let (start, on_core) = (Instant::now(), on_core_seconds());
    let mut ledger = FileLedger::open(path.to_str().unwrap()).unwrap();
    let wishes = Wishes { name: None, at_rest: true, margin_ms: MARGIN_MS };
    let report = verify(&mut ledger, &[], &wishes).unwrap().report;
    let (took, on_core) = (start.elapsed(), on_core_seconds() - on_core);
    assert!(report.holds(), "{:?}", report.findings);
    let entries = report.get("entries").unwrap();
    let orders = report.get("orders").unwrap();
    println!(
        "{entries} entries, {orders} orders, {} MB: {took:?}, {on_core:.1} s of it on a core; \
         peak {} MB (before: {before} MB)",
        size >> 20,
        peak_megabytes(),
    );
    assert_eq!(report.get("seat-legs.free"), Some(0));
}
