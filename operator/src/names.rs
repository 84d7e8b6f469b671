//! What the operator's objects are called, and how they are marked.
//!
//! Names follow from the sale's alone, so that a second look finds the same objects. Another
//! sale may want the same name (the Service of the sale `a-sell` is that of `a`'s sellers):
//! whose an object is, its owner reference says, never its name.

use std::collections::BTreeMap;

use kube::runtime::reflector::ObjectRef;

/// The field manager of everything that the operator writes.
pub const MANAGER: &str = "stationmaster";
/// Holds a sale back until its fleet is gone.
pub const FINALIZER: &str = "stationmaster.dev/fleet";
/// With the value `true`: no object of the sale is written; status and share moves go on.
pub const PAUSED: &str = "stationmaster.dev/paused";
/// On a Job: a hash of the configuration that it runs with.
pub const CONFIG_HASH: &str = "stationmaster.dev/config-hash";
/// With the value `now`: what this operator would make of the pods is rolled out, as long as
/// the annotation is there.
pub const ROLL: &str = "stationmaster.dev/roll";
/// On a Deployment: a hash of what the user, the ledger and the operator's key ask of its pods.
pub const ASKED_HASH: &str = "stationmaster.dev/asked-hash";
/// On a Deployment: a hash of the template that some operator made of that.
pub const TEMPLATE_HASH: &str = "stationmaster.dev/template-hash";
/// Selects everything that the operator makes.
pub const MANAGED: &str = "app.kubernetes.io/managed-by=stationmaster";
/// The sale that an object belongs to.
pub const SALE: &str = "stationmaster.dev/sale";
/// What a pod does: `sell`, `query`, `settle` or `init`.
pub const ROLE: &str = "stationmaster.dev/role";
/// The role of pods that tell of orders.
pub const SETTLE: &str = "settle";
/// The pool of nodes that a selling pod belongs to.
pub const POOL: &str = "stationmaster.dev/pool";
/// Marks pods that serve buyers.
pub const SERVES: &str = "stationmaster.dev/serves";
/// Marks what is left of a founded ledger: see [`crate::record`].
pub const RECORD: &str = "stationmaster.dev/ledger-record";

/// The pool whose size `kubectl scale` sets.
pub const DEFAULT_POOL: &str = "default";

/// The port for buyers.
pub const HTTP_PORT: u16 = 8080;
/// The port for the operator and for other nodes.
pub const CONTROL_PORT: u16 = 8081;
/// Where a node serves the live view, on loopback alone: `kubectl port-forward` reaches it. It is
/// the node's own default; the pod only names it.
pub const LIVE_PORT: u16 = 8082;

/// Whether a pod with these labels serves buyers, as nodes do.
#[must_use]
pub fn is_node(labels: &BTreeMap<String, String>) -> bool {
    matches!(labels.get(ROLE).map(String::as_str), Some("sell" | "query"))
}

/// Which sale.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SaleKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl SaleKey {
    /// The reference by which the controller knows it.
    #[must_use]
    pub fn object_ref(&self) -> ObjectRef<crds::TrainSale> {
        ObjectRef::new(&self.name).within(&self.namespace)
    }
}

impl std::fmt::Display for SaleKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Labels of everything of a sale.
#[must_use]
pub fn labels(sale: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "stationmaster-node"),
        ("app.kubernetes.io/instance", sale),
        ("app.kubernetes.io/managed-by", MANAGER),
        (SALE, sale),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// Labels that select the pods of one Deployment.
#[must_use]
pub fn pool_selector(sale: &str, role: &str, pool: Option<&str>) -> BTreeMap<String, String> {
    let mut labels =
        BTreeMap::from([(SALE.to_owned(), sale.to_owned()), (ROLE.to_owned(), role.to_owned())]);
    labels.extend(pool.map(|pool| (POOL.to_owned(), pool.to_owned())));
    labels
}

/// A selector as text, for the scale subresource.
#[must_use]
pub fn selector_text(sale: &str, role: &str, pool: &str) -> String {
    format!("{SALE}={sale},{ROLE}={role},{POOL}={pool}")
}
