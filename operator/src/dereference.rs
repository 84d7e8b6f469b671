//! Reads what a sale's fate depends on besides itself. The only step that asks before deciding;
//! it decides nothing.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams};
use kube::runtime::reflector::Store;
use kube::{Client, Resource, ResourceExt};

use crate::names::{MANAGED, RECORD, SALE, SaleKey};
use crate::record::Record;
use crds::TrainSale;

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Dereferenced {
    /// The other sales of the namespace.
    pub others: Vec<Arc<TrainSale>>,
    /// The ledgers that were founded in the namespace.
    pub records: Vec<Record>,
    /// The sale's Jobs.
    pub jobs: Vec<Job>,
    /// The sale's Deployments.
    pub deployments: Vec<Deployment>,
    /// The sale's pods, those of its Jobs among them.
    pub pods: Vec<Pod>,
}

/// Reads everything of one sale. `sales` is what the controller watches anyway.
///
/// # Errors
/// What the API server says.
pub async fn dereference(
    client: &Client,
    sale: &TrainSale,
    key: &SaleKey,
    sales: &Store<TrainSale>,
) -> Result<Dereferenced, kube::Error> {
    let others = sales.state();
    let others = others.into_iter().filter(|other| {
        other.namespace().as_ref() == Some(&key.namespace) && other.uid() != sale.uid()
    });
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &key.namespace);
    let founded = maps.list(&ListParams::default().labels(RECORD)).await?;
    let ours = ListParams::default().labels(&format!("{MANAGED},{SALE}={}", key.name));
    let jobs: Api<Job> = Api::namespaced(client.clone(), &key.namespace);
    let jobs = jobs.list(&ours).await?.items;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &key.namespace);
    let deployments = deployments.list(&ours).await?.items;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
    let pods = pods.list(&ours).await?.items;
    Ok(Dereferenced {
        others: others.collect(),
        records: founded.items.iter().filter_map(Record::read).collect(),
        jobs: jobs.into_iter().filter(|j| is_owned(j, sale)).collect(),
        deployments: deployments.into_iter().filter(|d| is_owned(d, sale)).collect(),
        pods,
    })
}

/// Whether the sale's owner reference is on the object: its label alone anyone can write.
#[must_use]
pub fn is_owned<K: Resource>(object: &K, sale: &TrainSale) -> bool {
    let uid = sale.meta().uid.as_ref();
    object.meta().owner_references.iter().flatten().any(|owner| Some(&owner.uid) == uid)
}
