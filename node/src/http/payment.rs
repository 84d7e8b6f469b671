//! How an order is paid: the provider says so in a signed webhook, or, in a sandbox, the buyer.
//!
//! The webhook is that of the Standard Webhooks specification 1.0: HMAC-SHA256 over id, time and
//! body, so that nothing in it can be changed, and nothing of it repeated later than five
//! minutes. The order is named in the signed body too, for the path is not signed. A payment that
//! comes twice is known by its id in the ledger, whichever node hears it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use inventory::words::{Millis, OrderId};
use ring::hmac;
use schemars::JsonSchema;
use serde::Deserialize;

use super::orders::unreadable;
use super::problem::Problem;
use crate::kept::Kept;

/// How far the time of a webhook may be from ours, in seconds: what the specification proposes.
const TOLERANCE_SECONDS: u64 = 300;
/// Bytes of a payment's id at most.
const PAYMENT_BYTES_MAX: usize = 128;

/// Who says that an order is paid.
#[derive(Debug)]
pub enum Provider {
    /// The buyer does: for trying out.
    Sandbox,
    /// A provider does, who knows one of these secrets.
    Webhook(std::rc::Rc<Kept<Secrets>>),
}

/// What a provider says.
#[derive(Debug, PartialEq, Eq)]
pub enum Notice {
    /// An order was paid.
    Paid {
        /// The provider's id of the payment.
        payment: String,
        /// In minor units.
        amount: u64,
        /// In this currency, if it was said.
        currency: Option<String>,
    },
    /// Something that changes no order here.
    Other,
}

impl Provider {
    /// Reads a request about `order`.
    ///
    /// # Errors
    /// A [`Problem`] if nobody whom we know has said it, or it cannot be read.
    pub fn read(
        &self,
        order: OrderId,
        headers: &HeaderMap,
        body: &[u8],
        now: Millis,
    ) -> Result<Notice, Problem> {
        let notice = match self {
            Self::Sandbox => {
                let said: SandboxPayment =
                    serde_json::from_slice(body).map_err(|e| unreadable(&e))?;
                Notice::Paid { payment: said.payment, amount: said.amount_minor, currency: None }
            }
            Self::Webhook(secrets) => {
                let secrets = secrets.get().ok_or_else(|| Problem::busy("keys"))?;
                secrets.check(headers, body, now).map_err(Problem::bad_signature)?;
                let said: Event = serde_json::from_slice(body).map_err(|e| unreadable(&e))?;
                said.about(order)?
            }
        };
        if let Notice::Paid { payment, .. } = &notice
            && !(1..=PAYMENT_BYTES_MAX).contains(&payment.len())
        {
            let detail = format!("payment: must have 1 to {PAYMENT_BYTES_MAX} bytes");
            return Err(Problem::invalid(detail));
        }
        Ok(notice)
    }
}

/// A payment in the sandbox, by the buyer's word.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SandboxPayment {
    /// The payment's id: the same id is the same payment.
    #[schemars(length(min = 1, max = 128))]
    payment: String,
    /// The whole price of the order, in minor units.
    amount_minor: u64,
}

/// What a payment provider tells.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Event {
    /// What happened; anything but `payment.succeeded` changes nothing here.
    #[serde(rename = "type")]
    kind: String,
    /// To what; only read of a `payment.succeeded`.
    data: serde_json::Value,
}

/// A payment that succeeded.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Succeeded {
    /// The order that was paid: that of the path.
    order: String,
    /// The provider's id of the payment.
    payment: String,
    /// In minor units.
    amount_minor: u64,
    /// In this currency.
    currency: String,
}

impl Event {
    fn about(self, order: OrderId) -> Result<Notice, Problem> {
        if self.kind != "payment.succeeded" {
            return Ok(Notice::Other);
        }
        let said: Succeeded = serde_json::from_value(self.data)
            .map_err(|e| Problem::invalid(format!("data: {e}")))?;
        if said.order.parse() != Ok(order) {
            let detail = format!("data.order: the path is about {order}");
            return Err(Problem::invalid(detail));
        }
        Ok(Notice::Paid {
            payment: said.payment,
            amount: said.amount_minor,
            currency: Some(said.currency),
        })
    }
}

/// Secrets that a webhook may be signed with: more than one while they are rotated.
pub struct Secrets(Vec<hmac::Key>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    /// Reads one secret a line: base64, with or without `whsec_` before it.
    ///
    /// # Errors
    /// Which line cannot be used. The line itself is not said.
    pub fn read(text: &str) -> Result<Self, String> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let keys = lines.map(|(at, line)| {
            let line = line.trim();
            let bytes = STANDARD.decode(line.strip_prefix("whsec_").unwrap_or(line));
            let bytes = bytes.map_err(|_| format!("line {}: not base64", at + 1))?;
            // The specification's bounds.
            if !(24..=64).contains(&bytes.len()) {
                return Err(format!("line {}: must have 24 to 64 bytes", at + 1));
            }
            Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
        });
        let keys: Vec<hmac::Key> = keys.collect::<Result<_, _>>()?;
        if keys.is_empty() { Err("there is no secret in it".to_owned()) } else { Ok(Self(keys)) }
    }

    fn check(&self, headers: &HeaderMap, body: &[u8], now: Millis) -> Result<(), &'static str> {
        let one = |name: &str| {
            let mut values = headers.get_all(name).iter();
            let one = values.next().filter(|_| values.next().is_none());
            one.and_then(|v| v.to_str().ok())
        };
        let id = one("webhook-id").ok_or("the header webhook-id is required")?;
        let time = one("webhook-timestamp").ok_or("the header webhook-timestamp is required")?;
        let signatures = one("webhook-signature");
        let signatures = signatures.ok_or("the header webhook-signature is required")?;
        let seconds: u64 =
            time.parse().map_err(|_| "webhook-timestamp: not a number of seconds")?;
        if seconds.abs_diff(now.0 / 1_000) > TOLERANCE_SECONDS {
            return Err("webhook-timestamp: more than five minutes from now");
        }
        let mut signed = format!("{id}.{time}.").into_bytes();
        signed.extend_from_slice(body);
        let given = signatures.split(' ').filter_map(|s| s.strip_prefix("v1,"));
        let given = given.filter_map(|s| STANDARD.decode(s).ok());
        let good = given
            .take(SIGNATURES_MAX)
            .any(|tag| self.0.iter().any(|key| hmac::verify(key, &signed, &tag).is_ok()));
        if good { Ok(()) } else { Err("webhook-signature: by nobody we know") }
    }
}

/// Signatures of one webhook that are looked at: a provider that rotates sends two.
const SIGNATURES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use serde_json::json;

    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NOW: Millis = Millis(1_800_000_000_000);

    fn order() -> OrderId {
        "3-2-7".parse().expect("an order's id")
    }

    fn body() -> Vec<u8> {
        let data =
            json!({"order": "3-2-7", "payment": "p1", "amountMinor": 100, "currency": "EUR"});
        json!({"type": "payment.succeeded", "data": data, "more": 1}).to_string().into_bytes()
    }

    fn signed(secret: &str, id: &str, seconds: u64, body: &[u8]) -> HeaderMap {
        let bytes = STANDARD.decode(secret.trim_start_matches("whsec_")).expect("base64");
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let mut text = format!("{id}.{seconds}.").into_bytes();
        text.extend_from_slice(body);
        let tag = STANDARD.encode(hmac::sign(&key, &text));
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: String| {
            headers.insert(name, value.parse().expect("a value"));
        };
        put("webhook-id", id.to_owned());
        put("webhook-timestamp", seconds.to_string());
        put("webhook-signature", format!("v2,eA== v1,{tag}"));
        headers
    }

    fn provider() -> Provider {
        let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let text = format!("{other}\n{SECRET}\n");
        Provider::Webhook(Rc::new(Kept::fixed(Secrets::read(&text).expect("two secrets"))))
    }

    #[test]
    fn the_specification_s_example_is_signed_by_its_secret() {
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek".parse().unwrap());
        headers.insert("webhook-timestamp", "1614265330".parse().unwrap());
        let tag = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        headers.insert("webhook-signature", tag.parse().unwrap());
        let secrets = Secrets::read(SECRET).unwrap();
        let now = Millis(1_614_265_331_000);
        assert_eq!(secrets.check(&headers, br#"{"test": 2432232314}"#, now), Ok(()));
        assert!(secrets.check(&headers, br#"{"test": 2432232315}"#, now).is_err());
    }

    #[test]
    fn a_signed_payment_is_read() {
        let headers = signed(SECRET, "m1", NOW.0 / 1_000, &body());
        let paid = Notice::Paid { payment: "p1".into(), amount: 100, currency: Some("EUR".into()) };
        assert_eq!(provider().read(order(), &headers, &body(), NOW).unwrap(), paid);
        let other = br#"{"type":"payment.failed","data":{}}"#;
        let headers = signed(SECRET, "m1", NOW.0 / 1_000, other);
        assert_eq!(provider().read(order(), &headers, other, NOW).unwrap(), Notice::Other);
    }

    #[test]
    fn what_was_changed_or_is_late_or_about_another_order_is_refused() {
        let seconds = NOW.0 / 1_000;
        let refused = |order: &str, headers: &HeaderMap, body: &[u8], word: &str| {
            let order = order.parse().expect("an order's id");
            let why = format!("{:?}", provider().read(order, headers, body, NOW).unwrap_err());
            assert!(why.contains(word), "{word}: {why}");
        };
        let good = signed(SECRET, "m1", seconds, &body());
        let richer = String::from_utf8(body()).unwrap().replace("100", "1");
        refused("3-2-7", &good, richer.as_bytes(), "nobody");
        refused("3-2-8", &good, &body(), "data.order");
        refused("3-2-7", &signed(SECRET, "m1", seconds - 301, &body()), &body(), "five minutes");
        refused("3-2-7", &signed(SECRET, "m1", seconds + 301, &body()), &body(), "five minutes");
        let stranger = "whsec_BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";
        refused("3-2-7", &signed(stranger, "m1", seconds, &body()), &body(), "nobody");
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            let mut less = good.clone();
            less.remove(name);
            refused("3-2-7", &less, &body(), name);
        }
    }

    #[test]
    fn a_secret_that_is_none_is_refused_by_its_line_and_not_by_its_text() {
        for (text, word) in
            [("", "no secret"), ("whsec_c2hvcnQ=", "24"), ("\n!!secret!!", "line 2")]
        {
            let why = Secrets::read(text).unwrap_err();
            assert!(why.contains(word) && !why.contains("secret!!"), "{why}");
        }
    }
}
