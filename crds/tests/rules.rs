//! Every case of `cases.yaml`, offline: the schema, the API server's rules and the checks in
//! Rust must agree on what is refused, and each rule must be the one that refuses something.

#![allow(clippy::unwrap_used, reason = "a case that cannot be read is a failure")]

#[path = "common/cases.rs"]
mod cases;

use std::collections::BTreeSet;

use cases::{By, Case, Cases};
use crds::checks::{self, Finding};
use crds::file::ParseError;
use crds::{
    TrainSale, crd,
    rules::{RULES, Rule},
};
use kube::core::cel::Validator;
use serde_json::Value;

/// What the rules say, as an API server would ask them: with the defaults in place. Each with
/// the place of the value that it was asked about.
fn rules_refuse(value: &Value, old: Option<&Value>) -> Vec<(String, String)> {
    let full = |value: &Value| {
        let sale: TrainSale = serde_json::from_value(value.clone()).unwrap();
        serde_json::to_value(sale).unwrap()
    };
    let old = old.map(full);
    match Validator::new().validate(crd::schema(), &full(value), old.as_ref()) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec().into_iter().map(|e| (e.rule, e.field_path)).collect(),
    }
}

fn read(value: &Value) -> Result<TrainSale, Vec<Finding>> {
    match TrainSale::from_yaml(&serde_yaml::to_string(value).unwrap()) {
        Ok(sale) => Ok(sale),
        Err(ParseError::Refused(found)) => Err(found.into_iter().map(|f| f.finding).collect()),
        Err(error) => panic!("{error}"),
    }
}

/// Tries one case and returns which rules spoke.
fn try_case(case: &Case, base: &Value, update: bool) -> Vec<(String, String)> {
    let (base, value) = (&case.given(base), case.apply(base));
    let name = &case.name;
    let sale = match read(&value) {
        Ok(sale) => sale,
        Err(found) => {
            assert_eq!(case.by, Some(By::Schema), "{name}: {found:?}");
            let paths: BTreeSet<&String> = found.iter().map(|f| &f.path).collect();
            assert_eq!(paths, BTreeSet::from([case.finds.as_ref().unwrap()]), "{name}");
            return Vec::new();
        }
    };
    assert_ne!(case.by, Some(By::Schema), "{name}");
    let old: Option<TrainSale> = update.then(|| read(base).unwrap());
    let mut found = checks::check(&sale);
    if let Some(old) = &old {
        found.extend(checks::check_update(old, &sale));
    }
    match &case.finds {
        Some(path) => assert!(found.iter().any(|f| f.path == *path), "{name}: {found:?}"),
        None => assert_eq!(found, Vec::new(), "{name}"),
    }
    let spoke = rules_refuse(&value, update.then_some(base));
    assert_eq!(case.by == Some(By::Rule), !spoke.is_empty(), "{name}: {spoke:?}");
    if let (Some(old), true) = (&old, checks::check(&sale).is_empty()) {
        let ledger = crds::definition::found(old).unwrap();
        let amended = crds::definition::amend(&ledger, &sale);
        // What the ledger does not know of, it cannot refuse.
        let known = !["spec.settlement.database.shards"]
            .contains(&case.finds.as_deref().unwrap_or_default());
        if known {
            assert_eq!(amended.is_err(), case.finds.is_some(), "{name}: {amended:?}");
        }
    }
    spoke
}

#[test]
fn schema_rules_and_checks_agree_on_what_is_refused() {
    let cases = Cases::read();
    let mut spoke = BTreeSet::new();
    let anywhere = |(rule, at): (String, String)| {
        let steps = at.split('[').map(|s| s.trim_start_matches(|c: char| c.is_ascii_digit()));
        (rule, steps.collect::<Vec<_>>().join("["))
    };
    for case in &cases.create {
        spoke.extend(try_case(case, &cases.base, false).into_iter().map(anywhere));
    }
    for case in &cases.update {
        spoke.extend(try_case(case, &cases.base, true).into_iter().map(anywhere));
    }
    let place = |rule: &Rule| format!("{}{}", rule.at, rule.field.unwrap_or_default());
    let silent: Vec<_> =
        RULES.iter().filter(|r| !spoke.contains(&(r.rule.into(), place(r)))).collect();
    assert!(silent.is_empty(), "no case is refused by {silent:#?}");
}

#[test]
fn the_types_have_the_defaults_that_the_schema_states() {
    let base = Cases::read().base;
    let sale: TrainSale = serde_json::from_value(base.clone()).unwrap();
    let typed = serde_json::to_value(sale).unwrap()["spec"].take();
    let schema = &crd::schema()["properties"]["spec"];
    let mut stated = kube::core::cel::apply_defaults(schema, &base["spec"]);
    // The same moment, in the type's own writing.
    for field in ["openTime", "closeTime"] {
        stated[field] = typed[field].clone();
    }
    assert_eq!(typed, stated);
}
