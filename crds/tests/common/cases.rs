//! The cases of `cases.yaml`, for the tests that try them offline and at an API server.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cases {
    pub(crate) base: Value,
    pub(crate) create: Vec<Case>,
    pub(crate) update: Vec<Case>,
}

/// An edit of the base.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) given: BTreeMap<String, Value>,
    #[serde(default)]
    pub(crate) set: BTreeMap<String, Value>,
    #[serde(default)]
    pub(crate) drop: Vec<String>,
    pub(crate) finds: Option<String>,
    pub(crate) by: Option<By>,
}

/// Who refuses first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum By {
    Schema,
    Rule,
    Operator,
}

impl Cases {
    pub(crate) fn read() -> Self {
        let cases: Self = serde_yaml::from_str(include_str!("../cases.yaml")).unwrap();
        for case in cases.create.iter().chain(&cases.update) {
            assert_eq!(case.finds.is_some(), case.by.is_some(), "{}", case.name);
        }
        cases
    }
}

impl Case {
    /// What is there before this edit.
    pub(crate) fn given(&self, base: &Value) -> Value {
        let mut value = base.clone();
        self.given.iter().for_each(|(path, new)| put(&mut value, path, new));
        value
    }

    /// What is there after this edit.
    pub(crate) fn apply(&self, base: &Value) -> Value {
        let mut value = self.given(base);
        for path in &self.drop {
            let (parent, last) = find(&mut value, path);
            match parent {
                Value::Array(items) => drop(items.remove(last.parse::<usize>().unwrap())),
                Value::Object(members) => assert!(members.remove(&last).is_some(), "{path}"),
                other => panic!("{path}: {other}"),
            }
        }
        self.set.iter().for_each(|(path, new)| put(&mut value, path, new));
        value
    }
}

fn put(value: &mut Value, path: &str, new: &Value) {
    let (parent, last) = find(value, path);
    match parent {
        Value::Array(items) => match last.parse::<usize>().unwrap() {
            i if i == items.len() => items.push(new.clone()),
            i => items[i] = new.clone(),
        },
        Value::Object(members) => drop(members.insert(last, new.clone())),
        other => panic!("{path}: {other}"),
    }
}

/// What contains the place at `path`, made where it is missing, and the last step to it.
fn find<'a>(value: &'a mut Value, path: &str) -> (&'a mut Value, String) {
    let mut steps: Vec<&str> = path.split(['.', '[']).map(|s| s.trim_end_matches(']')).collect();
    let last = steps.pop().unwrap();
    let mut at = value;
    for (i, step) in steps.iter().enumerate() {
        at = match step.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[*step],
        };
        if at.is_null() {
            let next = steps.get(i + 1).copied().unwrap_or(last);
            *at = if next.parse::<usize>().is_ok() {
                Value::Array(Vec::new())
            } else {
                Value::Object(serde_json::Map::new())
            };
        }
    }
    (at, last.to_owned())
}
