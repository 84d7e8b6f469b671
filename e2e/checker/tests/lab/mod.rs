//! A ledger in memory with an encoder of its own, written from docs/ledger-format.md: what the
//! checker reads here was never written by the code that it checks, nor by its own.

// Each test file compiles its own copy and uses a part of it.
#![allow(dead_code, unreachable_pub)]

use checker::answers::Told;
use checker::report::Report;
use checker::source::{Each, Ledger, Part, Unreadable};
use checker::verify::{Verified, Wishes, verify};
use checker::words::Place;

pub const NAME: &str = "lab";
pub const TOPIC: [u8; 16] = [7; 16];
pub const SHARES: u16 = 3;
/// The time of the first frame.
pub const START: u64 = 1_800_000_000_000;

pub type Hash = [u8; 16];

/// Bytes in the page's notation.
#[derive(Clone, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn u8(mut self, v: u8) -> Self {
        self.0.push(v);
        self
    }
    pub fn u16(self, v: u16) -> Self {
        self.raw(&v.to_le_bytes())
    }
    pub fn u32(self, v: u32) -> Self {
        self.raw(&v.to_le_bytes())
    }
    pub fn u64(self, v: u64) -> Self {
        self.raw(&v.to_le_bytes())
    }
    pub fn raw(mut self, v: &[u8]) -> Self {
        self.0.extend_from_slice(v);
        self
    }
    pub fn text(self, v: &str) -> Self {
        self.u16(u16::try_from(v.len()).unwrap()).raw(v.as_bytes())
    }
    pub fn order(self, (home, epoch, number): Order) -> Self {
        self.u16(home).u32(epoch).u32(number)
    }
    pub fn seats(self, seats: &[u16]) -> Self {
        let count = self.u8(u8::try_from(seats.len()).unwrap());
        seats.iter().fold(count, |bytes, seat| bytes.u16(*seat))
    }
}

pub type Order = (u16, u32, u32);

/// What a buyer asks for.
#[derive(Clone)]
pub struct Ask {
    pub buyer: String,
    pub key: String,
    pub class: u8,
    pub from: u8,
    pub to: u8,
    pub party: u8,
    pub price: u64,
}

impl Ask {
    pub fn new(buyer: &str, key: &str, (from, to): (u8, u8)) -> Self {
        let price = (from..to).map(|leg| 100 * (u64::from(leg) + 1)).sum();
        let (buyer, key) = (buyer.to_owned(), key.to_owned());
        Self { buyer, key, class: 0, from, to, party: 1, price }
    }

    pub fn party(self, party: u8) -> Self {
        Self { party, price: self.price * u64::from(party), ..self }
    }

    fn bytes(&self, to: Bytes) -> Bytes {
        let buyer = buyer_hash(&self.buyer);
        let key = keyed(2, &[&buyer, &0u16.to_le_bytes(), self.key.as_bytes()]);
        let to = to.raw(&key).raw(&[9; 16]).raw(&buyer).u16(0).u8(self.class);
        let to = to.u8(self.from).u8(self.to).u8(0).u8(self.party);
        let passengers = vec![5; 16 * usize::from(self.party)];
        to.raw(&passengers).u64(self.price)
    }
}

pub fn ledger_key(topic: &Hash, name: &str) -> [u8; 32] {
    let material = [&topic[..], name.as_bytes()].concat();
    blake3::derive_key("stationmaster 2026 ledger key", &material)
}

pub fn keyed(domain: u8, parts: &[&[u8]]) -> Hash {
    let mut material = vec![domain];
    for part in parts {
        material.extend_from_slice(&(part.len() as u64).to_le_bytes());
        material.extend_from_slice(part);
    }
    let hash = blake3::keyed_hash(&ledger_key(&TOPIC, NAME), &material);
    hash.as_bytes()[..16].try_into().unwrap()
}

pub fn buyer_hash(identity: &str) -> Hash {
    keyed(1, &[identity.as_bytes()])
}

pub fn ledger_id() -> Hash {
    keyed(0, &[b"ledger"])
}

/// The share that is home number `j` of the lab's run.
pub fn home(j: u64) -> u16 {
    let mut material = Vec::new();
    for part in [NAME, "G1", "2027-02-01"] {
        material.extend_from_slice(&(part.len() as u64).to_le_bytes());
        material.extend_from_slice(part.as_bytes());
    }
    let hash = blake3::derive_key("stationmaster 2026 run home", &material);
    let hash = u64::from_le_bytes(hash[..8].try_into().unwrap());
    u16::try_from(hash.wrapping_add(j) % u64::from(SHARES)).unwrap() + 1
}

pub fn home_of(buyer: &str) -> u16 {
    let hash = buyer_hash(buyer);
    home(u64::from_le_bytes(hash[..8].try_into().unwrap()) % 2)
}

/// A buyer whose home is this share.
pub fn buyer_at(share: u16, nth: usize) -> String {
    let names = (0..).map(|n| format!("buyer-{n}"));
    names.filter(|name| home_of(name) == share).nth(nth).unwrap()
}

/// Four stops; Second: 16 seats in four blocks, 20 % (none) kept back unless `coaches` says more.
pub fn definition(coaches: &[(u8, u16)]) -> Vec<u8> {
    let d = Bytes::default().text(NAME).text("CNY").text("Asia/Shanghai");
    let d = d.u16(SHARES).u8(34).u16(4).u32(1).text("t");
    let mut d = d.u32(4);
    for code in ["A", "B", "C", "D"] {
        d = d.text(code).text("").u8(0).u8(0);
    }
    let d = d.u32(2);
    let d = d.text("Second").u8(2).u32(3).u64(100).u64(200).u64(300);
    let d = d.text("First").u8(1).u64(1000);
    let mut d = d.u32(u32::try_from(coaches.len()).unwrap());
    for (at, (class, seats)) in coaches.iter().enumerate() {
        d = d.text(&format!("{}", at + 1)).u8(*class).u16(*seats).text("AB-CD");
    }
    d.u32(1).text("G1").text("2027-02-01").u16(0).u16(2).0
}

/// Coach 1: 12 seats of Second, blocks 0 and 1 on home 0 and 1, block 2 in the pool. Coach 2: 4
/// seats of First, block 3 on home 0.
pub fn usual() -> Vec<u8> {
    definition(&[(0, 12), (1, 4)])
}

pub fn entry(kind: u8, body: &Bytes) -> Vec<u8> {
    let length = u32::try_from(body.0.len()).unwrap();
    Bytes::default().u8(kind).u32(length).raw(&body.0).0
}

pub fn accept(take: u64, blocks: &[(u16, u8, u16, u16)]) -> Vec<u8> {
    let mut body = Bytes::default().u64(take).u32(u32::try_from(blocks.len()).unwrap());
    for (index, class, first, end) in blocks {
        body = body.u16(0).u16(*index).u8(*class).u16(*first).u16(*end).u16(4).u8(4);
    }
    entry(2, &body)
}

pub fn held(order: Order, attempt: u16, ask: &Ask, seats: &[u16], deadline: u64) -> Vec<u8> {
    let body = ask.bytes(Bytes::default().order(order).u16(attempt));
    entry(3, &body.seats(seats).u64(deadline))
}

pub fn paid(order: Order, amount: u64) -> Vec<u8> {
    entry(4, &Bytes::default().order(order).raw(&[3; 16]).u64(amount))
}

pub fn refunded(order: Order) -> Vec<u8> {
    entry(5, &Bytes::default().order(order).raw(&[4; 16]).u64(1))
}

pub fn ended(order: Order, why: u8) -> Vec<u8> {
    entry(6, &Bytes::default().order(order).u8(why))
}

pub fn sent(order: Order, attempt: u16, to: u16, ask: &Ask) -> Vec<u8> {
    entry(7, &ask.bytes(Bytes::default().order(order).u16(attempt).u16(to)))
}

pub fn placed(order: Order, attempt: u16, seats: &[u16], deadline: u64) -> Vec<u8> {
    entry(8, &Bytes::default().order(order).u16(attempt).seats(seats).u64(deadline))
}

pub fn returned(order: Order, attempt: u16) -> Vec<u8> {
    entry(9, &Bytes::default().order(order).u16(attempt))
}

pub fn closed(order: Order, attempt: u16, why: u8) -> Vec<u8> {
    entry(10, &Bytes::default().order(order).u16(attempt).u8(why))
}

pub fn refused(order: Order, attempt: u16) -> Vec<u8> {
    entry(11, &Bytes::default().order(order).u16(attempt))
}

pub fn yields() -> Vec<u8> {
    entry(12, &Bytes::default().u8(0))
}

pub fn claim() -> Vec<u8> {
    entry(1, &Bytes::default().text("n1").text("10.0.0.1:8082"))
}

pub fn take(share: u16, blocks: &[u16]) -> Vec<u8> {
    let body = Bytes::default().u16(share).u64(77).u32(u32::try_from(blocks.len()).unwrap());
    entry(35, &blocks.iter().fold(body, |body, block| body.u16(0).u16(*block)))
}

pub fn amend(version: u64, definition: &[u8]) -> Vec<u8> {
    entry(34, &Bytes::default().u64(version).raw(definition))
}

pub fn policy(version: u64, grace_ms: u32) -> Vec<u8> {
    let body = Bytes::default().u64(version).u8(1).u8(0).u8(0).u8(5).u16(1).u16(10);
    entry(37, &body.u32(900_000).u32(grace_ms).u16(2))
}

/// The fields of a header that a test may want otherwise.
#[derive(Clone, Copy)]
pub struct Head {
    pub share: u16,
    pub epoch: u32,
    pub seq: u32,
    pub incarnation: u64,
    pub now: u64,
    pub previous: Hash,
    pub ledger: Hash,
    pub format: u16,
    pub count: u16,
}

pub fn seal(head: &Head, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(96 + body.len()).unwrap();
    let rest = Bytes::default().raw(&head.previous).raw(&head.ledger).u64(head.now);
    let rest = rest.u64(head.incarnation).raw(b"SMlg").u32(head.epoch).u32(head.seq).u32(length);
    let rest = rest.u16(head.share).u16(head.format).u16(head.count).raw(&[0; 10]).raw(body);
    let checksum = blake3::hash(&rest.0);
    [&checksum.as_bytes()[..16], &rest.0].concat()
}

/// Makes the checksum of a changed record fit again.
pub fn checksum(record: &mut [u8]) {
    let checksum = blake3::hash(&record[16..]);
    record[..16].copy_from_slice(&checksum.as_bytes()[..16]);
}

#[derive(Clone, Copy)]
pub struct Writer {
    pub epoch: u32,
    pub seq: u32,
    pub chain: Hash,
}

/// A ledger that tests write.
#[derive(Clone)]
pub struct Lab {
    pub records: Vec<(u16, Vec<u8>)>,
    pub writers: Vec<Writer>,
    pub now: u64,
    pub settled: u64,
    /// When all of it was appended, by the log's own clock.
    pub appended: Option<u64>,
}

impl Lab {
    /// Founded, with a policy of two seconds of grace.
    pub fn founded() -> Self {
        let mut lab = Self::empty();
        lab.genesis(&usual());
        lab.pool(&[policy(1, 2_000)]);
        lab
    }

    pub fn empty() -> Self {
        let writer = Writer { epoch: 0, seq: 0, chain: [0; 16] };
        let writers = vec![writer; usize::from(SHARES) + 1];
        Self { records: Vec::new(), writers, now: START, settled: u64::MAX, appended: None }
    }

    pub fn genesis(&mut self, definition: &[u8]) {
        let body = Bytes::default().raw(&TOPIC).u8(1).raw(definition);
        self.pool(&[entry(33, &body)]);
    }

    pub fn head(&self, share: u16) -> Head {
        let Writer { epoch, seq, chain } = self.writers[usize::from(share)];
        Head {
            share,
            epoch,
            seq,
            incarnation: u64::from(epoch),
            now: self.now,
            previous: chain,
            ledger: ledger_id(),
            format: 1,
            count: 1,
        }
    }

    /// Appends raw bytes; gives their offset.
    pub fn push(&mut self, partition: u16, record: Vec<u8>) -> u64 {
        let offset = self.records.iter().filter(|(p, _)| *p == partition).count();
        self.records.push((partition, record));
        offset as u64
    }

    pub fn pool(&mut self, entries: &[Vec<u8>]) -> u64 {
        let count = u16::try_from(entries.len()).unwrap();
        let head = Head { count, previous: [0; 16], seq: 0, ..self.head(0) };
        self.push(0, seal(&head, &entries.concat()))
    }

    /// The next claim of a share.
    pub fn claim(&mut self, share: u16) -> u64 {
        let epoch = self.writers[usize::from(share)].epoch + 1;
        self.writers[usize::from(share)] = Writer { epoch, seq: 0, chain: [0; 16] };
        self.frame(share, &[claim()])
    }

    /// The owner's next frame, a second after the last.
    pub fn frame(&mut self, share: u16, entries: &[Vec<u8>]) -> u64 {
        self.now += 1_000;
        let count = u16::try_from(entries.len()).unwrap();
        let record = seal(&Head { count, ..self.head(share) }, &entries.concat());
        let writer = &mut self.writers[usize::from(share)];
        writer.seq += 1;
        writer.chain = record[..16].try_into().unwrap();
        self.push(share, record)
    }

    pub fn verified(&self, told: &[Told], at_rest: bool) -> Result<Verified, Unreadable> {
        self.judged(told, at_rest, 1_000)
    }

    pub fn judged(
        &self,
        told: &[Told],
        at_rest: bool,
        margin_ms: u64,
    ) -> Result<Verified, Unreadable> {
        let wishes = Wishes { name: Some(NAME.to_owned()), at_rest, margin_ms };
        verify(&mut self.clone(), told, &wishes)
    }

    pub fn report(&self) -> Report {
        self.verified(&[], false).unwrap().report
    }

    /// The words of the broken promises, each once, in the order in which they were found.
    pub fn broken(&self) -> Vec<&'static str> {
        broken(&self.report())
    }
}

pub fn broken(report: &Report) -> Vec<&'static str> {
    let mut words = Vec::new();
    for finding in report.findings.kept() {
        if !words.contains(&finding.promise.word()) {
            words.push(finding.promise.word());
        }
    }
    words
}

impl Ledger for Lab {
    fn name(&self) -> Option<&str> {
        None
    }

    fn partitions(&self) -> u16 {
        SHARES + 1
    }

    fn settled(&self, _partition: u16) -> u64 {
        self.settled
    }

    fn read(&mut self, part: Part, each: &mut Each<'_>) -> Result<(), Unreadable> {
        let mut next = [0; 1 + SHARES as usize];
        for (partition, record) in &self.records {
            let offset = next[usize::from(*partition)];
            next[usize::from(*partition)] += 1;
            if (*partition == 0) == (part == Part::Pool) {
                each(Place { partition: *partition, offset }, self.appended, record)?;
            }
        }
        Ok(())
    }
}
