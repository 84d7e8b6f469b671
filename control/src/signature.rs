//! How a node knows that it is the operator who asks.
//!
//! Whoever reaches the control port could otherwise give away shares or close a sale. The
//! operator signs method, path, body, the sale, the node and an expiry with Ed25519; the node
//! has the public key in its configuration, so a node that is taken over can sign nothing.
//!
//! A request that is recorded and sent again before it expires does no harm, and so nothing is
//! remembered: reports and states only read, and a record counts only if its version is the
//! one in force plus 1, which is true of it once.

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use inventory::words::Millis;

/// The header that carries the signature: `1.EXPIRY.SIGNATURE`, the expiry in milliseconds
/// since the Unix epoch, the signature in 128 hex digits.
pub const HEADER: &str = "stationmaster-signature";

/// How long a signature is good. Half of what a node accepts, so that the clocks of operator
/// and node may differ by this much either way.
pub const GOOD_MS: u64 = 5_000;

/// The furthest expiry that a node accepts: a signature is never good for longer.
pub const EXPIRY_MS_MAX: u64 = 10_000;

/// What a signature is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// The path, without a query.
    pub path: &'a str,
    /// The body, as it is sent; empty for `GET`.
    pub body: &'a [u8],
    /// The sale, `namespace/name`: what is signed for one is worthless to another.
    pub sale: &'a str,
    /// The node's name, likewise.
    pub node: &'a str,
}

/// Why a request is not believed to come from the operator. All are answered 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Unsigned {
    /// There is no signature, or it does not have the form of one.
    #[error("there is no signature of the form 1.EXPIRY.SIGNATURE")]
    Missing,
    /// It has expired. If this happens all the time, the clocks differ.
    #[error("the signature expired {late_ms} ms ago; do the clocks agree?")]
    Expired {
        /// How long ago.
        late_ms: u64,
    },
    /// It would be good for longer than a signature may be.
    #[error("the signature is good for {good_ms} ms, above {EXPIRY_MS_MAX}; do the clocks agree?")]
    TooLong {
        /// How long.
        good_ms: u64,
    },
    /// Someone else signed it, or it was for something else.
    #[error("the signature is not the operator's, or not for this request, sale and node")]
    Wrong,
}

/// The operator's secret key.
pub struct OperatorKey(SigningKey);

impl fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperatorKey({})", self.public())
    }
}

impl OperatorKey {
    /// The key that follows from 32 random bytes.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// What nodes are given.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// The value of [`HEADER`] for a request that is sent now.
    #[must_use]
    pub fn sign(&self, now: Millis, request: &Request<'_>) -> String {
        let expiry = now.plus(GOOD_MS);
        let signature = self.0.sign(&message(expiry, request));
        format!("1.{}.{}", expiry.0, hex(&signature.to_bytes()))
    }
}

/// The operator's public key; as text, 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// Text that is no public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an operator key is an Ed25519 public key of 64 hex digits")]
pub struct BadKey;

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(self.0.as_bytes()))
    }
}

impl std::str::FromStr for PublicKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let bytes = unhex(text).ok_or(BadKey)?;
        VerifyingKey::from_bytes(&bytes).map(Self).map_err(|_| BadKey)
    }
}

impl PublicKey {
    /// Whether the operator has asked this, at most [`EXPIRY_MS_MAX`] ago.
    ///
    /// # Errors
    /// [`Unsigned`] says why not.
    pub fn verify(
        &self,
        now: Millis,
        header: Option<&str>,
        request: &Request<'_>,
    ) -> Result<(), Unsigned> {
        let (expiry, signature) = header.and_then(parts).ok_or(Unsigned::Missing)?;
        if expiry < now {
            return Err(Unsigned::Expired { late_ms: now.since(expiry) });
        }
        if expiry.since(now) > EXPIRY_MS_MAX {
            return Err(Unsigned::TooLong { good_ms: expiry.since(now) });
        }
        let message = message(expiry, request);
        // Strict: a key of small order, with which anything can be signed, is refused.
        self.0.verify_strict(&message, &signature).map_err(|_| Unsigned::Wrong)
    }
}

fn parts(header: &str) -> Option<(Millis, Signature)> {
    let (expiry, signature) = header.strip_prefix("1.")?.split_once('.')?;
    Some((Millis(expiry.parse().ok()?), Signature::from_bytes(&unhex(signature)?)))
}

/// What is signed: each part with its length, so that no two requests give the same bytes. The
/// body goes in as it is, since Ed25519 hashes all of it anyway.
fn message(expiry: Millis, request: &Request<'_>) -> Vec<u8> {
    let parts = [
        b"stationmaster control 1".as_slice(),
        &expiry.0.to_be_bytes(),
        request.method.as_bytes(),
        request.path.as_bytes(),
        request.sale.as_bytes(),
        request.node.as_bytes(),
        request.body,
    ];
    let mut message = Vec::with_capacity(parts.iter().map(|p| p.len() + 8).sum());
    for part in parts {
        message.extend_from_slice(&(part.len() as u64).to_be_bytes());
        message.extend_from_slice(part);
    }
    message
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

/// Exactly `N` bytes in lower-case hex: one value has one spelling.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let nibble = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_800_000_000_000);

    fn request() -> Request<'static> {
        Request {
            method: "POST",
            path: crate::PLAN_PATH,
            body: b"{}",
            sale: "tickets/spring",
            node: "spring-sell-0",
        }
    }

    fn key() -> OperatorKey {
        OperatorKey::from_seed(&[7; 32])
    }

    #[test]
    fn a_signed_request_is_believed_until_it_expires() {
        let header = key().sign(NOW, &request());
        let verify = |now| key().public().verify(now, Some(&header), &request());
        assert_eq!(verify(NOW), Ok(()));
        assert_eq!(verify(NOW.plus(GOOD_MS)), Ok(()));
        assert_eq!(verify(NOW.plus(GOOD_MS + 1)), Err(Unsigned::Expired { late_ms: 1 }));
    }

    #[test]
    fn clocks_may_differ_by_as_much_as_a_signature_is_good() {
        let header = key().sign(NOW, &request());
        let verify = |now| key().public().verify(now, Some(&header), &request());
        assert_eq!(verify(Millis(NOW.0 - GOOD_MS)), Ok(()));
        let far = verify(Millis(NOW.0 - GOOD_MS - 1));
        assert_eq!(far, Err(Unsigned::TooLong { good_ms: EXPIRY_MS_MAX + 1 }));
    }

    #[test]
    fn a_signature_for_anything_else_is_worthless() {
        let header = key().sign(NOW, &request());
        let public = key().public();
        let others = [
            Request { method: "GET", ..request() },
            Request { path: crate::REPORT_PATH, ..request() },
            Request { body: b"{ }", ..request() },
            Request { sale: "tickets/autumn", ..request() },
            Request { node: "spring-sell-1", ..request() },
        ];
        for other in others {
            assert_eq!(public.verify(NOW, Some(&header), &other), Err(Unsigned::Wrong));
        }
        let stranger = OperatorKey::from_seed(&[8; 32]).sign(NOW, &request());
        assert_eq!(public.verify(NOW, Some(&stranger), &request()), Err(Unsigned::Wrong));
    }

    #[test]
    fn an_expiry_cannot_be_moved() {
        let header = key().sign(NOW, &request());
        let later = header.replacen(&NOW.plus(GOOD_MS).0.to_string(), "1800000009999", 1);
        assert_ne!(later, header);
        let verdict = key().public().verify(NOW, Some(&later), &request());
        assert_eq!(verdict, Err(Unsigned::Wrong));
    }

    #[test]
    fn what_is_no_signature_is_missing_and_never_panics() {
        let bad = ["", "1.", "1..", "1.5.", "1.5.zz", "2.5.00", "1.99999999999999999999.00", "é"];
        let verdict = |header| key().public().verify(NOW, header, &request());
        assert_eq!(verdict(None), Err(Unsigned::Missing));
        for header in bad {
            assert_eq!(verdict(Some(header)), Err(Unsigned::Missing), "{header}");
        }
    }

    #[test]
    fn a_public_key_survives_the_way_through_text() {
        let public = key().public();
        assert_eq!(public.to_string().parse::<PublicKey>().unwrap(), public);
        assert!("00".parse::<PublicKey>().is_err());
    }
}
