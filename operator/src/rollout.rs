//! Whether a newer operator's idea of a pod is rolled out. Pure.
//!
//! An upgrade of the operator must not restart a fleet in the middle of a sale. So a Deployment
//! keeps the pods that it has until something is asked for that they are not: by its spec, or
//! by the annotation [`crate::names::ROLL`].

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;

use crate::names::{ASKED_HASH, TEMPLATE_HASH};

/// Puts the template that is there in the place of a newer one that nobody asked for. Gives
/// whether there was such a one.
pub fn hold_back(wanted: &mut [Deployment], there: &[Deployment]) -> bool {
    let mut pending = false;
    for deployment in wanted {
        let name = deployment.name_any();
        let Some(before) = there.iter().find(|d| d.name_any() == name) else { continue };
        let same = |key| before.annotations().get(key) == deployment.annotations().get(key);
        if !same(ASKED_HASH) || same(TEMPLATE_HASH) {
            continue;
        }
        let template = before.spec.as_ref().map(|spec| spec.template.clone());
        let hash = before.annotations().get(TEMPLATE_HASH).cloned();
        let (Some(spec), Some(template), Some(hash)) = (deployment.spec.as_mut(), template, hash)
        else {
            continue;
        };
        spec.template = template;
        deployment.annotations_mut().insert(TEMPLATE_HASH.to_owned(), hash);
        pending = true;
    }
    pending
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::build;
    use crate::dereference::Dereferenced;
    use crate::validate::tests::{config, founded, minimal};
    use crate::validate::validate;

    fn deployments(sale: &crds::TrainSale) -> Vec<Deployment> {
        let valid = validate(sale, &Dereferenced::default(), &config()).unwrap();
        build(&valid, false).deployments
    }

    /// As an operator before this one has made them.
    fn older(sale: &crds::TrainSale) -> Vec<Deployment> {
        let mut there = deployments(sale);
        for deployment in &mut there {
            deployment.annotations_mut().insert(TEMPLATE_HASH.to_owned(), "older".to_owned());
            let spec = deployment.spec.as_mut().unwrap();
            spec.template.spec.as_mut().unwrap().termination_grace_period_seconds = Some(30);
        }
        there
    }

    fn grace(deployment: &Deployment) -> Option<i64> {
        deployment.spec.clone()?.template.spec?.termination_grace_period_seconds
    }

    #[test]
    fn an_upgrade_of_the_operator_keeps_the_pods_that_there_are() {
        let sale = founded(minimal());
        let mut wanted = deployments(&sale);
        assert!(hold_back(&mut wanted, &older(&sale)));
        assert!(wanted.iter().all(|d| grace(d) == Some(30)));
        assert!(hold_back(&mut deployments(&sale), &wanted), "and goes on keeping them");
    }

    #[test]
    fn what_a_user_asks_for_is_rolled_out_with_all_that_is_newer() {
        let sale = founded(minimal());
        let there = older(&sale);
        let mut other = sale.clone();
        other.spec.fleet.template.labels.insert("team".into(), "a".into());
        let mut wanted = deployments(&other);
        // The query nodes were not asked to be otherwise.
        assert!(hold_back(&mut wanted, &there));
        assert_eq!(wanted.iter().map(grace).collect::<Vec<_>>(), [Some(60), Some(30)]);
    }

    #[test]
    fn more_nodes_are_no_other_nodes() {
        let sale = founded(minimal());
        let mut more = sale.clone();
        more.spec.fleet.replicas = 4;
        let mut wanted = deployments(&more);
        assert!(hold_back(&mut wanted, &older(&sale)));
        assert_eq!(wanted[0].spec.as_ref().unwrap().replicas, Some(4));
        assert!(!hold_back(&mut deployments(&more), &deployments(&sale)), "nothing is newer");
    }
}
