//! The operator's signing key: one Secret in its own namespace, made where it is not there.

use control::signature::OperatorKey;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::names::MANAGER;

const FIELD: &str = "seed";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The API server says so.
    #[error("the Secret of the operator's key: {0}")]
    Kube(#[from] kube::Error),
    /// There is a Secret, but no key in it.
    #[error("the Secret {0} has no field `seed` of 32 bytes; delete it to have another made")]
    Unusable(String),
    /// The system gives no random bytes.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Reads the key, or makes one.
///
/// # Errors
/// [`KeyError`] says what is in the way. A Secret that is there is never written over: nodes
/// know its public key.
pub async fn load(client: Client, namespace: &str, name: &str) -> Result<OperatorKey, KeyError> {
    let api: Api<Secret> = Api::namespaced(client, namespace);
    if let Some(secret) = api.get_opt(name).await? {
        return read(&secret, name);
    }
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(KeyError::Random)?;
    match api.create(&PostParams::default(), &secret(name, &seed)).await {
        Ok(_) => tracing::info!(name, "a key was made"),
        // Another operator was quicker, and its key is the one.
        Err(kube::Error::Api(status)) if status.is_already_exists() => (),
        Err(error) => return Err(error.into()),
    }
    read(&api.get(name).await?, name)
}

fn secret(name: &str, seed: &[u8; 32]) -> Secret {
    let label = ("app.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned());
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([label].into()),
            ..ObjectMeta::default()
        },
        data: Some([(FIELD.to_owned(), ByteString(seed.to_vec()))].into()),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

fn read(secret: &Secret, name: &str) -> Result<OperatorKey, KeyError> {
    let seed = secret.data.as_ref().and_then(|data| data.get(FIELD));
    let seed: Option<[u8; 32]> = seed.and_then(|s| s.0.as_slice().try_into().ok());
    seed.map(|seed| OperatorKey::from_seed(&seed)).ok_or(KeyError::Unusable(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_from_its_secret() {
        let key = read(&secret("k", &[7; 32]), "k").unwrap();
        assert_eq!(key.public(), OperatorKey::from_seed(&[7; 32]).public());
    }

    #[test]
    fn a_secret_without_a_key_is_not_taken_for_one() {
        let mut broken = secret("k", &[7; 32]);
        broken.data = Some([(FIELD.to_owned(), ByteString(vec![7; 31]))].into());
        assert!(matches!(read(&broken, "k"), Err(KeyError::Unusable(_))));
    }
}
