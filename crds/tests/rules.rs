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
use proptest::prelude::*;
use proptest::{collection, sample};
use serde_json::{Value, json};

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

/// Paths of all values within `value`.
fn paths(value: &Value, at: &str, all: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                paths(member, &path, all);
                all.push(path);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                paths(item, &format!("{at}[{i}]"), all);
                all.push(format!("{at}[{i}]"));
            }
        }
        _ => {}
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let texts = ["", "g1", "01", "Second", "22:23", "KafkaTopic", "JWT", "r:1", "default", "ü"];
    let objects = [json!({}), json!({"name": "g1"}), json!([]), json!([1]), json!(["a", "a"])];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..2000).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        sample::select(texts.to_vec()).prop_map(Value::from),
        sample::select(objects.to_vec()),
    ]
}

/// The richest example after a few edits: something dropped, overwritten, a number made small, or
/// another value of the same name copied over it, which keeps most edits sensible.
fn edited() -> impl Strategy<Value = Value> {
    let base: Value = serde_yaml::from_str(include_str!("../../examples/full.yaml")).unwrap();
    let mut all = Vec::new();
    paths(&base["spec"], "spec", &mut all);
    let alike = all.clone().into_iter().flat_map(|to| {
        let name = |path: &str| path.rsplit(['.', '[']).next().map(str::to_owned);
        let same = all.iter().filter(|from| **from != to && name(from) == name(&to));
        same.map(|from| (to.clone(), from.clone())).collect::<Vec<_>>()
    });
    let alike: Vec<(String, String)> = alike.collect();
    let number = |path: &&String| base.pointer(&pointer(path)).is_some_and(Value::is_number);
    let numbers: Vec<String> = all.iter().filter(number).cloned().collect();
    let from = base.clone();
    let edit = prop_oneof![
        1 => sample::select(all.clone()).prop_map(|to| (to, Value::Null)),
        1 => (sample::select(all), any_value()),
        2 => (sample::select(numbers), (0..20).prop_map(Value::from)),
        4 => sample::select(alike).prop_map(move |(to, like)| {
            (to, from.pointer(&pointer(&like)).cloned().unwrap_or_default())
        }),
    ];
    collection::vec(edit, 1..3).prop_map(move |edits| {
        let mut value = base.clone();
        for (path, new) in edits {
            if let Some(at) = value.pointer_mut(&pointer(&path)) {
                *at = new;
            }
        }
        value
    })
}

fn pointer(path: &str) -> String {
    format!("/{}", path.replace(['.', '['], "/").replace(']', ""))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The operator and local mode must not take what an API server would not.
    #[test]
    fn nothing_that_the_rules_refuse_passes_the_checks(value in edited()) {
        if let Ok(sale) = read(&value) {
            let found = checks::check(&sale);
            let spoke = rules_refuse(&serde_json::to_value(&sale).unwrap(), None);
            prop_assert!(spoke.is_empty() || !found.is_empty(), "{:?}", spoke);
            if found.is_empty() {
                let ledger = crds::definition::found(&sale).unwrap();
                prop_assert_eq!(crds::definition::amend(&ledger, &sale), Ok(ledger));
            }
        }
    }
}
