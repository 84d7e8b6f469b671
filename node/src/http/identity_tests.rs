//! Tokens that are good, and tokens that only look so.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::HeaderMap;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Now, since the library asks the machine's clock.
fn now() -> Millis {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Millis(u64::try_from(now.expect("after 1970").as_millis()).expect("this age"))
}

struct Issuer {
    name: &'static str,
    key: EcdsaKeyPair,
}

impl Issuer {
    fn new(name: &'static str) -> Self {
        let random = SystemRandom::new();
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("a key");
        Self { name, key: EcdsaKeyPair::from_pkcs8(kind, pkcs8.as_ref(), &random).expect("ours") }
    }

    fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.name,
            "x": b64(&point[1..33]), "y": b64(&point[33..])})
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let text = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), text.as_bytes()).expect("it signs");
        format!("{text}.{}", b64(signature))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "ES256", "typ": "JWT", "kid": self.name}), claims)
    }
}

fn claims() -> Value {
    json!({"iss": "https://id.example", "aud": "tickets", "sub": "anna", "exp": now().0 / 1_000 + 600})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().expect("an object").remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

fn tokens(jwks: &[Value]) -> (Identity, Rc<Kept<Keys>>) {
    let keys = Keys::read(&json!({ "keys": jwks }).to_string()).expect("a good set");
    let kept = Rc::new(Kept::fixed(keys));
    let audiences = ["shop".to_owned(), "tickets".to_owned()];
    let algorithms = vec![Algorithm::ES256, Algorithm::EdDSA];
    let tokens = Tokens::new("https://id.example", &audiences, algorithms, Rc::clone(&kept));
    (Identity::Token(Box::new(tokens)), kept)
}

fn ask(identity: &Identity, token: &str) -> Result<String, String> {
    let mut headers = HeaderMap::new();
    let value = format!("Bearer {token}").parse().expect("a header's value");
    headers.insert(header::AUTHORIZATION, value);
    let buyer = identity.buyer(&headers, HERE, now).map(Cow::into_owned);
    buyer.map_err(|problem| format!("{problem:?}"))
}

#[test]
fn a_good_token_names_its_buyer_each_time() {
    let issuer = Issuer::new("k1");
    let (identity, _) = tokens(&[issuer.jwk()]);
    let token = issuer.token(&claims());
    for _ in 0..3 {
        assert_eq!(ask(&identity, &token).as_deref(), Ok("anna"));
    }
    let many = issuer.token(&with("aud", json!(["other", "shop"])));
    assert_eq!(ask(&identity, &many).as_deref(), Ok("anna"));
}

#[test]
fn a_token_that_is_not_right_in_every_way_is_refused_and_says_why() {
    let (issuer, stranger) = (Issuer::new("k1"), Issuer::new("k1"));
    let (identity, _) = tokens(&[issuer.jwk()]);
    let seconds = now().0 / 1_000;
    let none = format!("{}.{}.", b64(r#"{"alg":"none"}"#), b64(claims().to_string()));
    let hmac = {
        // The public key used as if it were a shared secret.
        let text = format!("{}.{}", b64(r#"{"alg":"HS256"}"#), b64(claims().to_string()));
        let point = issuer.key.public_key().as_ref();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, point);
        format!("{text}.{}", b64(ring::hmac::sign(&key, text.as_bytes())))
    };
    let critical = json!({"alg": "ES256", "kid": "k1", "crit": ["b64"], "b64": false});
    let mut cut = issuer.token(&claims());
    cut.pop();
    let refused = [
        (stranger.token(&claims()), "signature"),
        (none, "read"),
        (hmac, "algorithm"),
        (issuer.token(&with("exp", json!(seconds - 60))), "expired"),
        (issuer.token(&with("exp", Value::Null)), "must have"),
        (issuer.token(&with("iss", json!("https://id.example.evil"))), "issuer"),
        (issuer.token(&with("iss", Value::Null)), "must have"),
        (issuer.token(&with("aud", json!("bank"))), "audience"),
        (issuer.token(&with("aud", Value::Null)), "must have"),
        (issuer.token(&with("sub", Value::Null)), ""),
        (issuer.token(&with("sub", json!(""))), "sub"),
        (issuer.token(&with("sub", json!("a".repeat(256)))), "sub"),
        (issuer.token(&with("nbf", json!(seconds + 600))), "not valid yet"),
        (issuer.sign(&critical, &claims()), "critical"),
        (issuer.sign(&json!({"alg": "ES256", "kid": "k2"}), &claims()), "does not show"),
        (issuer.sign(&json!({"alg": "ES384", "kid": "k1"}), &claims()), "algorithm"),
        (cut, ""),
        ("a.b.c".to_owned(), "read"),
        ("a".repeat(5_000), "too long"),
    ];
    for (token, word) in refused {
        let why = ask(&identity, &token).expect_err(&token);
        assert!(why.contains(word) && why.contains("401"), "{word}: {why}");
    }
}

#[test]
fn a_key_that_was_withdrawn_takes_its_tokens_with_it() {
    let (old, new) = (Issuer::new("k1"), Issuer::new("k2"));
    let (identity, kept) = tokens(&[old.jwk(), new.jwk()]);
    let token = old.token(&claims());
    assert!(ask(&identity, &token).is_ok());
    let left = json!({ "keys": [new.jwk()] }).to_string();
    kept.put_for_test(Keys::read(&left).expect("a good set"));
    assert!(ask(&identity, &token).is_err());
    assert!(ask(&identity, &new.token(&claims())).is_ok());
}

#[test]
fn keys_that_could_sign_are_left_out_of_a_set() {
    let secret = json!({"kty": "oct", "k": b64("secret"), "alg": "HS256"});
    assert!(Keys::read(&json!({ "keys": [secret] }).to_string()).is_err());
    assert!(Keys::read(r#"{"keys": []}"#).is_err());
    assert!(Keys::read("<html>").is_err());
}

#[test]
fn an_edwards_key_without_a_name_serves_too() {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("ours");
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key())});
    let (identity, _) = tokens(&[Issuer::new("k1").jwk(), jwk]);
    let text = format!("{}.{}", b64(r#"{"alg":"EdDSA"}"#), b64(claims().to_string()));
    let token = format!("{text}.{}", b64(key.sign(text.as_bytes())));
    assert_eq!(ask(&identity, &token).as_deref(), Ok("anna"));
}

#[test]
fn a_header_is_believed_once_and_from_its_networks_only() {
    let name = HeaderName::from_static("x-buyer-id");
    let from = vec!["10.0.0.0/8".parse().expect("a network")];
    let identity = Identity::Header { name: name.clone(), from };
    let mut headers = HeaderMap::new();
    headers.insert(&name, "anna".parse().expect("a value"));
    let ask = |headers: &HeaderMap, from: &str| {
        let peer = from.parse().expect("an address");
        identity.buyer(headers, peer, now).map(Cow::into_owned).map_err(|p| format!("{p:?}"))
    };
    assert_eq!(ask(&headers, "10.1.2.3").as_deref(), Ok("anna"));
    assert_eq!(ask(&headers, "::ffff:10.1.2.3").as_deref(), Ok("anna"));
    assert!(ask(&headers, "192.0.2.1").is_err());
    headers.append(&name, "berta".parse().expect("a value"));
    assert!(ask(&headers, "10.1.2.3").is_err());
}
