//! Which other sites' pages may ask (the Fetch standard's CORS protocol).
//!
//! Cookies mean nothing here, so credentials are never allowed: a page sends its buyer's token
//! itself.

use bytes::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::Reply;
use super::identity::Identity;
use crate::plain::Fields;

/// What a page may send beside what it always may.
const HEADERS: &str = "Content-Type, Idempotency-Key, If-None-Match, Authorization";
/// What a page may read beside what it always may.
const EXPOSED: &str = "ETag, Retry-After, Server-Timing";
/// Seconds for which a browser remembers that it may ask.
const MAX_AGE: &str = "600";

/// Origins whose pages may ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Origins {
    /// Only pages of the same origin.
    #[default]
    Same,
    /// These too, as `https://tickets.example.com`.
    These(Vec<String>),
    /// All.
    Any,
}

impl Origins {
    /// From the list in a TrainSale: none, all (`*`), or these.
    #[must_use]
    pub fn of(list: &[String]) -> Self {
        if list.is_empty() {
            Self::Same
        } else if list.iter().any(|origin| origin == "*") {
            Self::Any
        } else {
            Self::These(list.to_vec())
        }
    }

    /// The page that asks, where the answer depends on it.
    pub(crate) fn asked<F: Fields + ?Sized>(&self, fields: &F) -> Option<HeaderValue> {
        let Self::These(_) = self else { return None };
        let origin = fields.values(&header::ORIGIN).next()?;
        HeaderValue::from_bytes(origin).ok()
    }

    /// What an answer says about whether the page that asked may read it.
    pub(crate) fn allow(
        &self,
        origin: Option<HeaderValue>,
        mut say: impl FnMut(HeaderName, HeaderValue),
    ) {
        let allowed = match self {
            Self::Same => return,
            Self::Any => Some(HeaderValue::from_static("*")),
            Self::These(list) => {
                // What a cache keeps for one origin must not be given to another.
                say(header::VARY, HeaderValue::from_static("Origin"));
                origin.filter(|o| list.iter().any(|known| known.as_bytes() == o.as_bytes()))
            }
        };
        if let Some(allowed) = allowed {
            say(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            say(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
    }

    /// The answer to a browser that asks whether it may ask.
    pub(crate) fn preflight(&self, methods: &'static str, identity: &Identity) -> Reply {
        let mut reply = Response::new(Bytes::new());
        *reply.status_mut() = StatusCode::NO_CONTENT;
        let headers = reply.headers_mut();
        headers.insert(header::ALLOW, HeaderValue::from_static(methods));
        if *self == Self::Same {
            return reply;
        }
        let methods = HeaderValue::from_static(methods);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        let named = match identity {
            Identity::Header { name, .. } => format!("{HEADERS}, {name}"),
            Identity::Token(_) => HEADERS.to_owned(),
        };
        if let Ok(named) = HeaderValue::try_from(named) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, named);
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(origins: &Origins, origin: &'static str) -> Option<String> {
        let mut headers = hyper::HeaderMap::new();
        let say = |name, value| {
            headers.insert(name, value);
        };
        origins.allow(Some(HeaderValue::from_static(origin)), say);
        let allowed = headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        allowed.map(|a| a.to_str().expect("text").to_owned())
    }

    #[test]
    fn a_page_of_another_origin_may_ask_only_if_it_is_listed() {
        let (ours, theirs) = ("https://a.example", "https://a.example.evil");
        assert_eq!(allowed(&Origins::of(&[]), ours), None);
        let these = Origins::of(&[ours.to_owned()]);
        assert_eq!(allowed(&these, ours).as_deref(), Some(ours));
        assert_eq!(allowed(&these, theirs), None);
        assert_eq!(allowed(&Origins::of(&["*".to_owned()]), theirs).as_deref(), Some("*"));
    }
}
