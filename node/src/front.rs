//! From settings to how buyers are met; what changes while the node runs is kept up to date by
//! tasks of its thread, which end with it.

use std::rc::Rc;

use ::control::config;
use jsonwebtoken::Algorithm;

use crate::Error;
use crate::http::identity::{Identity, Keys, Tokens};
use crate::http::payment::{Provider, Secrets};
use crate::http::{Front, Origins};
use crate::kept::{Kept, Source};

/// Meets buyers as the settings say.
pub(crate) fn open(
    sale: &str,
    identity: &config::Identity,
    payment: &config::Payment,
    origins: &[String],
) -> Result<Front, Error> {
    Ok(Front {
        name: sale.rsplit('/').next().unwrap_or(sale).to_owned(),
        identity: self::identity(identity)?,
        payment: match payment {
            config::Payment::Sandbox => Provider::Sandbox,
            config::Payment::Webhook { secrets } => {
                Provider::Webhook(keep(Source::File(secrets.clone()), Secrets::read))
            }
        },
        origins: Origins::of(origins),
    })
}

fn identity(identity: &config::Identity) -> Result<Identity, Error> {
    let wrong = |what: String| Error::Setting(format!("identity: {what}"));
    match identity {
        config::Identity::Header { name, from } => {
            let net = |text: &String| text.parse().map_err(|e| wrong(format!("{text}: {e}")));
            Ok(Identity::Header {
                name: name.parse().map_err(|e| wrong(format!("{name}: {e}")))?,
                from: from.iter().map(net).collect::<Result<_, _>>()?,
            })
        }
        config::Identity::Token { issuer, audiences, algorithms, keys } => {
            let one = |name: &String| {
                name.parse::<Algorithm>().map_err(|e| wrong(format!("{name}: {e}")))
            };
            let algorithms = algorithms.iter().map(one).collect::<Result<_, _>>()?;
            let source = match keys {
                config::Keys::File(path) => Source::File(path.clone()),
                config::Keys::Url(url) => {
                    Source::Url(url.parse().map_err(|e| wrong(format!("{url}: {e}")))?)
                }
            };
            let keys = keep(source, Keys::read);
            let tokens = Tokens::new(issuer, audiences, algorithms, keys);
            Ok(Identity::Token(Box::new(tokens)))
        }
    }
}

fn keep<T: 'static>(source: Source, parse: fn(&str) -> Result<T, String>) -> Rc<Kept<T>> {
    let kept = Rc::new(Kept::default());
    tokio::task::spawn_local(Rc::clone(&kept).keep(source, parse));
    kept
}
