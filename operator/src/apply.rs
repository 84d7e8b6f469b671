//! Writes a sale's objects, by server-side apply, and never over somebody else's. It decides
//! nothing but whose an object is.

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::build::Children;
use crate::names::{MANAGER, RECORD, SaleKey};

/// Our own patches, over whatever another manager has set on these fields.
#[must_use]
pub fn params() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}

/// Writes everything, or, if any of the names is taken, nothing: gives the names then.
///
/// # Errors
/// What the API server says.
pub async fn apply(
    client: &Client,
    key: &SaleKey,
    uid: &str,
    children: &Children,
) -> Result<Vec<String>, kube::Error> {
    let mut writer = Writer { client, namespace: &key.namespace, uid, conflicts: Vec::new() };
    // Every name is looked at before any object is written.
    for write in [false, true] {
        writer.each(&children.config_maps, write).await?;
        writer.each(&children.policies, write).await?;
        writer.each(&children.jobs, write).await?;
        writer.each(&children.budgets, write).await?;
        writer.each(&children.services, write).await?;
        writer.each(&children.deployments, write).await?;
        if !writer.conflicts.is_empty() {
            break;
        }
    }
    Ok(writer.conflicts)
}

/// Writes the ledger's record alone, for a sale that is about to go.
///
/// # Errors
/// What the API server says.
pub async fn apply_record(client: &Client, record: &ConfigMap) -> Result<(), kube::Error> {
    let api: Api<ConfigMap> =
        Api::namespaced(client.clone(), record.namespace().as_deref().unwrap_or_default());
    api.patch(&record.name_any(), &params(), &Patch::Apply(record)).await.map(drop)
}

/// Deletes a Job with its pods.
///
/// # Errors
/// What the API server says; that it is gone already is none.
pub async fn delete_job(client: &Client, job: &Job) -> Result<(), kube::Error> {
    let namespace = job.namespace().unwrap_or_default();
    let api: Api<Job> = Api::namespaced(client.clone(), &namespace);
    delete(&api, job).await
}

/// Deletes a Deployment with its pods.
///
/// # Errors
/// As above.
pub async fn delete_deployment(client: &Client, it: &Deployment) -> Result<(), kube::Error> {
    let namespace = it.namespace().unwrap_or_default();
    let api: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    delete(&api, it).await
}

async fn delete<K>(api: &Api<K>, object: &K) -> Result<(), kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let uid = object.meta().uid.clone();
    let params =
        DeleteParams::background().preconditions(Preconditions { uid, ..Preconditions::default() });
    match api.delete(&object.name_any(), &params).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

struct Writer<'a> {
    client: &'a Client,
    namespace: &'a str,
    uid: &'a str,
    conflicts: Vec<String>,
}

impl Writer<'_> {
    async fn each<K>(&mut self, objects: &[K], write: bool) -> Result<(), kube::Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Serialize + DeserializeOwned + Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), self.namespace);
        for object in objects {
            let name = object.name_any();
            if write {
                api.patch(&name, &params(), &Patch::Apply(object)).await?;
            } else if let Some(there) = api.get_metadata_opt(&name).await?
                && !self.is_ours(&there, object)
            {
                self.conflicts.push(format!("{} {name}", K::kind(&())));
            }
        }
        Ok(())
    }

    /// By the owner's uid. The ledger's record, which has no owner, by its label.
    fn is_ours<A: Resource, B: Resource>(&self, there: &A, wanted: &B) -> bool {
        if wanted.meta().owner_references.is_none() {
            let mark =
                |labels: &std::collections::BTreeMap<String, String>| labels.contains_key(RECORD);
            return there.meta().labels.as_ref().is_some_and(mark);
        }
        let owners = there.meta().owner_references.iter().flatten();
        owners.filter(|owner| owner.controller == Some(true)).any(|owner| owner.uid == self.uid)
    }
}
