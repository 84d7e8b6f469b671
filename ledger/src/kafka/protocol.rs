//! The five requests of Kafka's protocol with which frames are written, as bytes.
//!
//! Each in its last version before "flexible" ones (KIP-482), which brokers have understood
//! since 2.1 and still do in 4.x (KIP-896): ApiVersions 0, Metadata 7, InitProducerId 1,
//! Produce 7. A frame is a record batch (magic 2, KIP-98) of one record without a key.
//!
//! Nothing that a broker says is trusted: whatever is shorter than it should be, or counts more
//! than it holds, is [`Malformed`].

/// What each request is called by, and the version in which it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Produce,
    Metadata,
    Versions,
    InitProducerId,
}

impl Api {
    const ALL: [Api; 4] = [Api::Produce, Api::Metadata, Api::Versions, Api::InitProducerId];

    fn key_and_version(self) -> (i16, i16) {
        match self {
            Api::Produce => (0, 7),
            Api::Metadata => (3, 7),
            Api::Versions => (18, 0),
            Api::InitProducerId => (22, 1),
        }
    }
}

/// A broker said what cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// The longest answer that is read. A topic's metadata takes some fifty bytes a partition.
pub(super) const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Who a producer is to the brokers (KIP-98). Frames of one to a partition are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

/// An error's number as Kafka gives it; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code(pub(super) i16);

impl Code {
    pub(super) const NONE: Code = Code(0);
    /// The broker knows this frame already, but no more where it lies.
    pub(super) const DUPLICATE_SEQUENCE_NUMBER: Code = Code(46);

    /// Whether the same frame may be sent again and be taken then. It may have been written all
    /// the same; its number keeps it from being written twice.
    pub(super) fn may_pass(self) -> bool {
        // Corrupt on the way; no such topic or partition, no leader, not the leader (metadata
        // travels); timed out; away; not enough replicas, before and after; storage; leader
        // epochs; throttled.
        matches!(self.0, 2 | 3 | 5 | 6 | 7 | 8 | 9 | 13 | 19 | 20 | 56 | 74 | 75 | 89)
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.0 {
            2 => "CORRUPT_MESSAGE",
            3 => "UNKNOWN_TOPIC_OR_PARTITION",
            5 => "LEADER_NOT_AVAILABLE",
            6 => "NOT_LEADER_OR_FOLLOWER",
            7 => "REQUEST_TIMED_OUT",
            10 => "MESSAGE_TOO_LARGE",
            19 => "NOT_ENOUGH_REPLICAS",
            20 => "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
            29 => "TOPIC_AUTHORIZATION_FAILED",
            31 => "CLUSTER_AUTHORIZATION_FAILED",
            45 => "OUT_OF_ORDER_SEQUENCE_NUMBER",
            47 => "INVALID_PRODUCER_EPOCH",
            56 => "KAFKA_STORAGE_ERROR",
            59 => "UNKNOWN_PRODUCER_ID",
            87 => "INVALID_RECORD",
            other => return write!(f, "Kafka's error {other}"),
        };
        f.write_str(name)
    }
}

// Where things lie in a record batch, from its first byte on.
const BATCH_LENGTH: usize = 8;
const BATCH_CRC: usize = 17;
const BATCH_ATTRIBUTES: usize = 21;
const BATCH_PRODUCER: usize = 43;
const BATCH_SEQUENCE: usize = 53;
const BATCH_HEAD: usize = 61;

/// A batch of one record, without its producer and number: [`number`] gives them.
pub(super) fn batch(frame: &[u8], now_ms: i64) -> Vec<u8> {
    let length = Varint::of(frame.len());
    // Attributes, the two deltas, no key, no headers, and the frame with its length.
    let record = Varint::of(5 + length.bytes().len() + frame.len());
    let whole = BATCH_HEAD + record.bytes().len() + 5 + length.bytes().len() + frame.len();
    let mut out = Vec::with_capacity(whole);
    out.extend_from_slice(&0_i64.to_be_bytes());
    out.extend_from_slice(&length_of(whole - BATCH_LENGTH - 4));
    out.extend_from_slice(&(-1_i32).to_be_bytes()); // the leader's epoch, which the leader sets
    out.push(2); // magic
    out.extend_from_slice(&[0; 4]); // checksum
    out.extend_from_slice(&0_i16.to_be_bytes()); // attributes: not compressed
    out.extend_from_slice(&0_i32.to_be_bytes()); // the last record's offset in the batch
    out.extend_from_slice(&now_ms.to_be_bytes());
    out.extend_from_slice(&now_ms.to_be_bytes());
    out.extend_from_slice(&[0; 14]); // producer, its epoch, number
    out.extend_from_slice(&1_i32.to_be_bytes()); // records
    debug_assert_eq!(out.len(), BATCH_HEAD);
    out.extend_from_slice(record.bytes());
    out.extend_from_slice(&[0, 0, 0, 1]); // attributes, time, offset; a key of length -1
    out.extend_from_slice(length.bytes());
    out.extend_from_slice(frame);
    out.push(0); // headers
    out
}

/// Gives a batch its producer and number, and its checksum (CRC-32C).
pub(super) fn number(batch: &mut [u8], identity: Identity, sequence: i32) {
    batch[BATCH_PRODUCER..][..8].copy_from_slice(&identity.id.to_be_bytes());
    batch[BATCH_PRODUCER + 8..][..2].copy_from_slice(&identity.epoch.to_be_bytes());
    batch[BATCH_SEQUENCE..][..4].copy_from_slice(&sequence.to_be_bytes());
    let sum = crc32c::crc32c(&batch[BATCH_ATTRIBUTES..]);
    batch[BATCH_CRC..][..4].copy_from_slice(&sum.to_be_bytes());
}

/// A zigzag varint of a length, which is below 2^34.
struct Varint {
    bytes: [u8; 5],
    length: usize,
}

impl Varint {
    fn of(value: usize) -> Varint {
        let mut varint = Varint { bytes: [0; 5], length: 0 };
        let mut rest = value << 1;
        loop {
            #[expect(clippy::cast_possible_truncation, reason = "seven bits")]
            let low = (rest & 0x7f) as u8;
            rest >>= 7;
            varint.bytes[varint.length] = if rest == 0 { low } else { low | 0x80 };
            varint.length += 1;
            if rest == 0 {
                return varint;
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

fn length_of(length: usize) -> [u8; 4] {
    i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes()
}

/// A request that is being written behind others.
struct Request<'a> {
    out: &'a mut Vec<u8>,
    begin: usize,
}

impl<'a> Request<'a> {
    fn begin(out: &'a mut Vec<u8>, api: Api, correlation: i32, client_id: &str) -> Self {
        let begin = out.len();
        let (key, version) = api.key_and_version();
        let mut request = Request { out, begin };
        request.i32(0);
        request.i16(key);
        request.i16(version);
        request.i32(correlation);
        request.text(client_id);
        request
    }

    fn i16(&mut self, value: i16) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        // Names that Kafka allows have at most 249 bytes; the client's id is a pod's name.
        let text = &text.as_bytes()[..text.len().min(i16::MAX as usize)];
        self.i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
        self.out.extend_from_slice(text);
    }

    fn end(self) {
        let length = self.out.len() - self.begin - 4;
        self.out[self.begin..][..4].copy_from_slice(&length_of(length));
    }
}

pub(super) fn ask_versions(out: &mut Vec<u8>, correlation: i32, client_id: &str) {
    Request::begin(out, Api::Versions, correlation, client_id).end();
}

pub(super) fn ask_metadata(out: &mut Vec<u8>, correlation: i32, client_id: &str, topic: &str) {
    let mut request = Request::begin(out, Api::Metadata, correlation, client_id);
    request.i32(1);
    request.text(topic);
    request.out.push(0); // no topic is invented
    request.end();
}

pub(super) fn ask_identity(out: &mut Vec<u8>, correlation: i32, client_id: &str) {
    let mut request = Request::begin(out, Api::InitProducerId, correlation, client_id);
    request.i16(-1); // no transactions
    request.i32(i32::MAX);
    request.end();
}

/// Writes a request to produce one batch in each of some partitions.
pub(super) fn produce<'a>(
    out: &mut Vec<u8>,
    correlation: i32,
    client_id: &str,
    topic: &str,
    patience_ms: i32,
    batches: impl ExactSizeIterator<Item = (u16, &'a [u8])>,
) {
    let mut request = Request::begin(out, Api::Produce, correlation, client_id);
    request.i16(-1); // no transaction
    request.i16(-1); // all in-sync replicas
    request.i32(patience_ms);
    request.i32(1);
    request.text(topic);
    request.out.extend_from_slice(&length_of(batches.len()));
    for (partition, batch) in batches {
        request.i32(i32::from(partition));
        request.out.extend_from_slice(&length_of(batch.len()));
        request.out.extend_from_slice(batch);
    }
    request.end();
}

/// What of an answer was not read yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'a>(&'a [u8]);

/// The first whole answer in some bytes, without its length, and how many bytes it took.
pub(super) fn first(bytes: &[u8]) -> Result<Option<(Answer<'_>, usize)>, Malformed> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| Malformed)?;
    if length > ANSWER_BYTES_MAX {
        return Err(Malformed);
    }
    Ok(rest.get(..length).map(|answer| (Answer(answer), 4 + length)))
}

impl<'a> Answer<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn i16(&mut self) -> Result<i16, Malformed> {
        self.take().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, Malformed> {
        self.take().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, Malformed> {
        self.take().map(i64::from_be_bytes)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.0 = self.0.get(bytes..).ok_or(Malformed)?;
        Ok(())
    }

    /// None where there is none, as with length -1.
    fn text(&mut self) -> Result<Option<&'a str>, Malformed> {
        let Ok(length) = usize::try_from(self.i16()?) else { return Ok(None) };
        let (text, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        std::str::from_utf8(text).map(Some).map_err(|_| Malformed)
    }

    /// How many elements follow, none of which is shorter than `least` bytes.
    fn count(&mut self, least: usize) -> Result<usize, Malformed> {
        // -1 is none at all.
        let count = usize::try_from(self.i32()?.max(0)).map_err(|_| Malformed)?;
        if count > self.0.len() / least { Err(Malformed) } else { Ok(count) }
    }

    /// To which request this is the answer.
    pub(super) fn correlation(&mut self) -> Result<i32, Malformed> {
        self.i32()
    }

    /// Which of ours a broker does not understand, if any.
    pub(super) fn versions(mut self) -> Result<Option<Api>, Malformed> {
        if self.i16()? != 0 {
            return Err(Malformed);
        }
        let count = self.count(6)?;
        let mut lacks = Api::ALL.to_vec();
        for _ in 0..count {
            let (key, least, most) = (self.i16()?, self.i16()?, self.i16()?);
            lacks.retain(|api| {
                let (ours, version) = api.key_and_version();
                ours != key || !(least..=most).contains(&version)
            });
        }
        Ok(lacks.first().copied())
    }

    /// How long the broker will not listen, in milliseconds (KIP-219).
    fn deaf_ms(&mut self) -> Result<u32, Malformed> {
        Ok(u32::try_from(self.i32()?).unwrap_or(0))
    }

    /// Also how long the broker will not listen.
    pub(super) fn identity(mut self) -> Result<(Result<Identity, Code>, u32), Malformed> {
        let deaf_ms = self.deaf_ms()?;
        let code = Code(self.i16()?);
        let identity = Identity { id: self.i64()?, epoch: self.i16()? };
        Ok((if code == Code::NONE { Ok(identity) } else { Err(code) }, deaf_ms))
    }

    /// Who leads what.
    pub(super) fn metadata(mut self) -> Result<Metadata<'a>, Malformed> {
        let deaf_ms = self.deaf_ms()?;
        let count = self.count(12)?;
        let mut brokers = Vec::with_capacity(count);
        for _ in 0..count {
            let (node, host) = (self.i32()?, self.text()?.ok_or(Malformed)?);
            let port = u16::try_from(self.i32()?).map_err(|_| Malformed)?;
            self.text()?;
            brokers.push(BrokerAt { node, host, port });
        }
        let cluster = self.text()?;
        self.skip(4)?;
        if self.count(9)? != 1 {
            return Err(Malformed);
        }
        let code = Code(self.i16()?);
        self.text()?;
        self.skip(1)?;
        let count = self.count(26)?;
        let mut partitions = Vec::with_capacity(count);
        for _ in 0..count {
            self.skip(2)?;
            let (index, leader, epoch) = (self.i32()?, self.i32()?, self.i32()?);
            for _ in 0..3 {
                let replicas = self.count(4)?;
                self.skip(4 * replicas)?;
            }
            partitions.push(LedBy { index, leader, epoch });
        }
        Ok(Metadata { deaf_ms, cluster, brokers, code, partitions })
    }

    /// What became of each partition's batch: `(partition, error, offset)`. Also how long the
    /// broker will not listen, in milliseconds.
    pub(super) fn produced(
        mut self,
        mut each: impl FnMut(i32, Code, i64),
    ) -> Result<u32, Malformed> {
        for _ in 0..self.count(6)? {
            self.text()?;
            for _ in 0..self.count(30)? {
                let (partition, code) = (self.i32()?, Code(self.i16()?));
                let offset = self.i64()?;
                self.skip(16)?;
                each(partition, code, offset);
            }
        }
        self.deaf_ms()
    }
}

/// A broker and where it says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BrokerAt<'a> {
    pub(super) node: i32,
    pub(super) host: &'a str,
    pub(super) port: u16,
}

/// A partition's leader; -1 is none. Epochs count its leaders, and grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LedBy {
    pub(super) index: i32,
    pub(super) leader: i32,
    pub(super) epoch: i32,
}

/// What a broker knows of a topic. It may know less than another one.
#[derive(Debug)]
pub(super) struct Metadata<'a> {
    /// How long the broker will not listen, in milliseconds.
    pub(super) deaf_ms: u32,
    /// The cluster's id.
    pub(super) cluster: Option<&'a str>,
    pub(super) brokers: Vec<BrokerAt<'a>>,
    pub(super) code: Code,
    pub(super) partitions: Vec<LedBy>,
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Every way to read an answer; how much it found.
    fn read_all(bytes: &[u8]) -> usize {
        let mut found = 0;
        let _ = first(bytes);
        let mut answer = Answer(bytes);
        let _ = answer.correlation();
        for answer in [Answer(bytes), answer] {
            let _ = (answer.versions(), answer.identity());
            if let Ok(metadata) = answer.metadata() {
                found += metadata.brokers.len() + metadata.partitions.len();
            }
            let _ = answer.produced(|_, _, _| found += 1);
        }
        found
    }

    proptest! {
        /// Whatever a broker says, nothing panics, and no more is made of it than it could hold.
        #[test]
        fn any_bytes_are_read_or_malformed(
            bytes in vec(prop_oneof![3 => Just(0_u8), 1 => Just(1), 1 => any::<u8>()], 0..400)
        ) {
            prop_assert!(read_all(&bytes) <= 2 * bytes.len());
        }
    }

    #[test]
    fn a_cut_answer_is_malformed_wherever_it_is_cut() {
        let mut whole = Vec::new();
        whole.extend([0; 4]);
        whole.extend([0, 0, 0, 1, 0, 0, 0, 9, 0, 2, b'h', b'i', 0, 0, 0x23, 0x84, 0xff, 0xff]);
        whole.extend([0xff, 0xff, 0, 0, 0, 1]);
        whole.extend([0, 0, 0, 1, 0, 0, 0, 1, b't', 0]);
        whole.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0, 5]);
        whole.extend([0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
        let metadata = Answer(&whole).metadata().expect("it is whole");
        assert_eq!(metadata.brokers, [BrokerAt { node: 9, host: "hi", port: 9092 }]);
        assert_eq!(metadata.partitions, [LedBy { index: 3, leader: 9, epoch: 5 }]);
        for length in 0..whole.len() {
            assert!(Answer(&whole[..length]).metadata().is_err(), "cut at {length}");
        }
    }

    #[test]
    fn an_answer_is_first_when_it_is_whole_and_not_too_long() {
        assert_eq!(first(&[0, 0, 0]).map(|it| it.is_some()), Ok(false));
        assert_eq!(first(&[0, 0, 0, 2, 7]).map(|it| it.is_some()), Ok(false));
        let (answer, length) = first(&[0, 0, 0, 2, 7, 8, 9]).expect("well formed").expect("whole");
        assert_eq!((answer.0, length), (&[7, 8][..], 6));
        assert_eq!(first(&[0xff; 4]).map(drop), Err(Malformed));
        assert_eq!(first(&[0x7f; 4]).map(drop), Err(Malformed));
    }
}
