//! Who a buyer is: a header of a trusted gateway, or a signed token (RFC 7519).
//!
//! Everything here is checked before a command is made; the ledger gets a keyed hash of the
//! subject and never the subject.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use hyper::header::{self, HeaderName};
use inventory::words::Millis;
use ipnet::IpNet;
use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result as JwtResult};
use jsonwebtoken::jwk::{JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, Validation};
use ring::signature;
use serde::Deserialize;

use super::problem::Problem;
use crate::kept::Kept;
use crate::plain::Fields;

/// Bytes of a buyer's subject at most: OpenID Connect allows 255.
pub const SUBJECT_BYTES_MAX: usize = 255;
/// Bytes of a token at most: one with a page of claims has 2 KiB.
const TOKEN_BYTES_MAX: usize = 4_096;
/// Seconds by which the issuer's clock may differ from ours.
const LEEWAY_SECONDS: u64 = 30;
/// Tokens in each of two generations of the memory of those that were checked: to check one
/// costs 50 to 100 µs, as much as an order. 8,192 buyers in each, 4 MiB in all.
const CHECKED_MAX: usize = 8_192;

/// How buyers are known.
#[derive(Debug)]
pub enum Identity {
    /// A gateway says so.
    Header {
        /// In this header.
        name: HeaderName,
        /// If it is in one of these networks; empty: wherever it is.
        from: Vec<IpNet>,
    },
    /// The buyer shows a token.
    Token(Box<Tokens>),
}

impl Identity {
    /// Who asks. The time is asked for where tokens end.
    ///
    /// # Errors
    /// A [`Problem`] with status 401, or 503 while the issuer's keys are not there yet.
    pub fn buyer<'a, F: Fields + ?Sized>(
        &self,
        headers: &'a F,
        peer: IpAddr,
        now: impl FnOnce() -> Millis,
    ) -> Result<Cow<'a, str>, Problem> {
        match self {
            Self::Header { name, from } => {
                // An address of the old kind may come through a socket of the new one.
                let peer = peer.to_canonical();
                if !from.is_empty() && !from.iter().any(|net| net.contains(&peer)) {
                    return Err(Problem::stranger());
                }
                let named = headers.only(name).filter(|b| is_subject(b));
                named.map(Cow::Borrowed).ok_or_else(|| Problem::unidentified(name.as_str()))
            }
            Self::Token(tokens) => tokens.buyer(headers, now()).map(Cow::Owned),
        }
    }
}

fn is_subject(text: &str) -> bool {
    !text.is_empty() && text.len() <= SUBJECT_BYTES_MAX
}

/// The keys of an issuer.
#[derive(Debug, Default)]
pub struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithm: Option<KeyAlgorithm>,
    key: DecodingKey,
}

impl Keys {
    /// Reads a JWK Set (RFC 7517). Keys of a kind that is not known, or that do not sign, are
    /// left out.
    ///
    /// # Errors
    /// What is wrong with it; also if no key is left.
    pub fn read(text: &str) -> Result<Self, String> {
        let set: JwkSet = serde_json::from_str(text).map_err(|e| format!("not a JWK Set: {e}"))?;
        let signs =
            |u: &Option<PublicKeyUse>| u.as_ref().is_none_or(|u| *u == PublicKeyUse::Signature);
        let keys = set.keys.iter().filter(|jwk| signs(&jwk.common.public_key_use));
        let keys: Vec<Key> = keys
            .filter_map(|jwk| {
                // A symmetric key would let whoever can check tokens make them.
                let key = DecodingKey::from_jwk(jwk).ok();
                let key = key.filter(|k| k.family() != AlgorithmFamily::Hmac)?;
                let common = &jwk.common;
                Some(Key { id: common.key_id.clone(), algorithm: common.key_algorithm, key })
            })
            .collect();
        if keys.is_empty() {
            return Err("it has no key that checks signatures".to_owned());
        }
        Ok(Self(keys))
    }

    /// The keys that may have made a token: the one that it names, or all where it names none.
    fn fit(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &DecodingKey> {
        let meant = KeyAlgorithm::from(algorithm);
        self.0
            .iter()
            .filter(move |k| id.is_none_or(|id| k.id.as_deref() == Some(id)))
            .filter(move |k| k.algorithm.is_none_or(|a| a == meant))
            .filter(move |k| k.key.family() == algorithm.family())
            .map(|k| &k.key)
    }
}

/// Tokens of one issuer.
#[derive(Debug)]
pub struct Tokens {
    validation: Validation,
    keys: Rc<Kept<Keys>>,
    checked: RefCell<Checked>,
}

/// Tokens that were checked, and until when each is good: two generations, the older of which
/// is dropped when the younger is full.
#[derive(Debug, Default)]
struct Checked {
    of_keys: u64,
    young: HashMap<[u8; 32], (Rc<str>, u64)>,
    old: HashMap<[u8; 32], (Rc<str>, u64)>,
}

#[derive(Debug, Deserialize)]
struct Claims {
    /// The library has seen that both are there; as options, a token without them is refused
    /// for that and not as unreadable.
    sub: Option<String>,
    exp: Option<f64>,
}

impl Tokens {
    /// Tokens that `issuer` has signed for one of `audiences`, with one of `algorithms`, of
    /// which none may use a key that a node could sign with.
    #[must_use]
    pub fn new(
        issuer: &str,
        audiences: &[String],
        algorithms: Vec<Algorithm>,
        keys: Rc<Kept<Keys>>,
    ) -> Self {
        // It can be installed once in a process, and is the same each time.
        let _ = PROVIDER.install_default();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.algorithms = algorithms;
        validation.algorithms.retain(|a| a.family() != AlgorithmFamily::Hmac);
        validation.set_issuer(&[issuer]);
        validation.set_audience(audiences);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS;
        Self { validation, keys, checked: RefCell::default() }
    }

    fn buyer<F: Fields + ?Sized>(&self, headers: &F, now: Millis) -> Result<String, Problem> {
        let text = headers.only(&header::AUTHORIZATION);
        let (scheme, token) = text.and_then(|t| t.split_once(' ')).ok_or_else(Problem::no_token)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Problem::no_token());
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Problem::bad_token("it is too long"));
        }
        let keys = self.keys.get().ok_or_else(|| Problem::busy("keys"))?;
        let name = *blake3::hash(token.as_bytes()).as_bytes();
        let seconds = now.0 / 1_000;
        if let Some(subject) = self.known(&name, seconds) {
            return Ok(subject.as_ref().to_owned());
        }
        let claims = self.check(token, &keys).map_err(Problem::bad_token)?;
        let subject = claims.sub.filter(|s| is_subject(s));
        let subject = subject.ok_or_else(|| Problem::bad_token("sub must have 1 to 255 bytes"))?;
        // A fraction of a second is below the clocks' difference, which is allowed.
        self.remember(name, &subject, claims.exp.unwrap_or(0.0) as u64);
        Ok(subject)
    }

    fn check(&self, token: &str, keys: &Keys) -> Result<Claims, &'static str> {
        let header = jsonwebtoken::decode_header(token).map_err(|e| words(e.kind()))?;
        if !self.validation.algorithms.contains(&header.alg) {
            return Err("it is signed with an algorithm that is not accepted here");
        }
        // RFC 7515 4.1.11: what we must understand and do not is a reason to refuse.
        if header.crit.is_some() {
            return Err("it has a critical extension");
        }
        let mut why = "it names a key that its issuer does not show";
        for key in keys.fit(header.kid.as_deref(), header.alg) {
            // One algorithm at a time: the library wants all that it is given to be of the
            // key's family.
            let mut validation = self.validation.clone();
            validation.algorithms = vec![header.alg];
            match jsonwebtoken::decode::<Claims>(token, key, &validation) {
                Ok(token) => return Ok(token.claims),
                Err(error) => why = words(error.kind()),
            }
        }
        if keys.fit(header.kid.as_deref(), header.alg).next().is_none() {
            // The issuer may have a new key.
            self.keys.miss();
        }
        Err(why)
    }

    fn known(&self, name: &[u8; 32], seconds: u64) -> Option<Rc<str>> {
        let mut checked = self.checked.borrow_mut();
        if checked.of_keys != self.keys.generation() {
            // A key that was withdrawn must not live on in what it has signed.
            *checked = Checked { of_keys: self.keys.generation(), ..Checked::default() };
        }
        let (subject, until) = checked.young.get(name).or_else(|| checked.old.get(name))?;
        (seconds < until.saturating_add(LEEWAY_SECONDS)).then(|| Rc::clone(subject))
    }

    fn remember(&self, name: [u8; 32], subject: &str, until: u64) {
        let mut checked = self.checked.borrow_mut();
        if checked.young.len() >= CHECKED_MAX {
            checked.old = std::mem::take(&mut checked.young);
        }
        checked.young.insert(name, (subject.into(), until));
    }
}

fn words(error: &ErrorKind) -> &'static str {
    match error {
        ErrorKind::InvalidSignature => "its signature is wrong",
        ErrorKind::MissingRequiredClaim(_) => "it must have exp, iss, aud and sub",
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::ImmatureSignature => "it is not valid yet",
        ErrorKind::InvalidIssuer => "it is of another issuer",
        ErrorKind::InvalidAudience => "it is for another audience",
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => {
            "it is signed with an algorithm that is not accepted here"
        }
        _ => "it cannot be read",
    }
}

/// Signatures are checked by ring, which the TLS library uses too.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

struct Verifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> JwtResult<Box<dyn JwtVerifier>> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(Verifier { algorithm: *algorithm, key: key.clone() }))
}

impl jsonwebtoken::signature::Verifier<Vec<u8>> for Verifier {
    fn verify(
        &self,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> Result<(), jsonwebtoken::signature::Error> {
        let plain: &dyn signature::VerificationAlgorithm = match self.algorithm {
            Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
            Algorithm::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
            Algorithm::EdDSA => &signature::ED25519,
            Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
            _ => return Err(jsonwebtoken::signature::Error::new()),
        };
        let outcome = match (self.key.kind(), self.algorithm) {
            (DecodingKeyKind::RsaModulusExponent { n, e }, Algorithm::RS256) => {
                signature::RsaPublicKeyComponents { n, e }.verify(
                    &signature::RSA_PKCS1_2048_8192_SHA256,
                    message,
                    signature,
                )
            }
            (DecodingKeyKind::RsaModulusExponent { n, e }, _) => {
                signature::RsaPublicKeyComponents { n, e }.verify(
                    &signature::RSA_PSS_2048_8192_SHA256,
                    message,
                    signature,
                )
            }
            (DecodingKeyKind::SecretOrDer(key), _) => {
                signature::UnparsedPublicKey::new(plain, key).verify(message, signature)
            }
        };
        outcome.map_err(|_| jsonwebtoken::signature::Error::new())
    }
}

impl JwtVerifier for Verifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
