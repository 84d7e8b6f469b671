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
use crate::dereference::Dereferenced;
use crate::names::{MANAGER, RECORD, SaleKey};

/// Our own patches, over whatever another manager has set on these fields.
#[must_use]
pub fn params() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}

/// What came of writing.
#[derive(Debug, Default)]
pub struct Applied {
    /// Names that belong to somebody else. If there are any, nothing was written.
    pub conflicts: Vec<String>,
    /// The Deployments as the API server has them now.
    pub deployments: Vec<Deployment>,
}

impl Applied {
    /// What is there if nothing is written.
    #[must_use]
    pub fn untouched(found: &Dereferenced) -> Self {
        Self { conflicts: Vec::new(), deployments: found.deployments.clone() }
    }
}

/// Writes `children`, or, if a name of the `whole` sale is taken, nothing.
///
/// # Errors
/// What the API server says.
pub async fn apply(
    client: &Client,
    key: &SaleKey,
    uid: &str,
    children: &Children,
    whole: &Children,
) -> Result<Applied, kube::Error> {
    let mut writer = Writer { client, namespace: &key.namespace, uid, conflicts: Vec::new() };
    writer.look(&whole.config_maps).await?;
    writer.look(&whole.policies).await?;
    writer.look(&whole.jobs).await?;
    writer.look(&whole.budgets).await?;
    writer.look(&whole.services).await?;
    writer.look(&whole.deployments).await?;
    if !writer.conflicts.is_empty() {
        return Ok(Applied { conflicts: writer.conflicts, deployments: Vec::new() });
    }
    // What a pod needs comes before the pod.
    writer.write(&children.config_maps).await?;
    writer.write(&children.policies).await?;
    writer.write(&children.jobs).await?;
    writer.write(&children.budgets).await?;
    writer.write(&children.services).await?;
    let deployments = writer.write(&children.deployments).await?;
    Ok(Applied { conflicts: Vec::new(), deployments })
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
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    /// Notes the names that are taken.
    async fn look<K>(&mut self, objects: &[K]) -> Result<(), kube::Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + DeserializeOwned + Debug,
    {
        for object in objects {
            let name = object.name_any();
            if let Some(there) = self.api::<K>().get_metadata_opt(&name).await?
                && !self.is_ours(&there, object)
            {
                let conflict = format!("{} {name}", K::kind(&()));
                if !self.conflicts.contains(&conflict) {
                    self.conflicts.push(conflict);
                }
            }
        }
        Ok(())
    }

    /// Writes, and gives what is there then.
    async fn write<K>(&self, objects: &[K]) -> Result<Vec<K>, kube::Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Serialize + DeserializeOwned + Debug,
    {
        let mut written = Vec::with_capacity(objects.len());
        for object in objects {
            let patch = Patch::Apply(object);
            written.push(self.api::<K>().patch(&object.name_any(), &params(), &patch).await?);
        }
        Ok(written)
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
