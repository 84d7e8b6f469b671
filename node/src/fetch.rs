//! One GET of a small text, such as an issuer's keys.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// An issuer that is slower is as good as gone; it is asked again.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A set of a hundred keys has some 40 KiB.
const BYTES_MAX: usize = 256 * 1024;

/// What is at `url`.
///
/// # Errors
/// What went wrong, in words: nothing can be done but try again.
pub(crate) async fn text(url: &Uri) -> Result<String, String> {
    let exchange = async {
        let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector()?);
        let response = client.get(url.clone()).await.map_err(|e| e.to_string())?;
        if response.status() != StatusCode::OK {
            return Err(format!("answers {}", response.status()));
        }
        let body = Limited::new(response.into_body(), BYTES_MAX).collect().await;
        let bytes = body.map_err(|e| e.to_string())?.to_bytes();
        String::from_utf8(bytes.to_vec()).map_err(|e| e.to_string())
    };
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", TIMEOUT.as_secs())))
}

#[cfg(feature = "https")]
fn connector()
-> Result<hyper_rustls::HttpsConnector<hyper_util::client::legacy::connect::HttpConnector>, String>
{
    // The machine's roots, so that an issuer of the house is trusted where its root was put
    // (SSL_CERT_FILE); an image without any has those of the web.
    let provider = || std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = hyper_rustls::HttpsConnectorBuilder::new();
    let builder = match builder.with_provider_and_native_roots(provider()) {
        Ok(builder) => builder,
        Err(_) => hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(provider())
            .map_err(|e| e.to_string())?,
    };
    Ok(builder.https_or_http().enable_http1().build())
}

#[cfg(not(feature = "https"))]
fn connector() -> Result<hyper_util::client::legacy::connect::HttpConnector, String> {
    Ok(hyper_util::client::legacy::connect::HttpConnector::new())
}
