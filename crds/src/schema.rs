//! Checking a value against the schema, as an API server does before it looks at rules.
//!
//! Local mode has no API server, and an operator may meet objects from before a bound was
//! tightened. The bounds are not written twice for them: they are read from the definition.
//! It refuses nothing that the schema does not name, and defaults are not applied here:
//! they are the types' own.

use std::collections::BTreeSet;

use regex_lite::Regex;
use serde_json::{Map, Value};

use crate::checks::Finding;

/// Findings for everything in `value` that the schema does not allow.
pub(crate) fn check(schema: &Value, value: &Value, path: &str, findings: &mut Vec<Finding>) {
    if schema["x-kubernetes-int-or-string"] == true {
        if !value.is_i64() && !value.is_u64() && !value.is_string() {
            findings.push(Finding::new(path, "must be a whole number or text"));
        }
        return;
    }
    match (schema["type"].as_str(), value) {
        (Some("object"), Value::Object(members)) => object(schema, members, path, findings),
        (Some("array"), Value::Array(items)) => list(schema, items, path, findings),
        (Some("string"), Value::String(text)) => string(schema, text, path, findings),
        (Some("integer"), Value::Number(number)) if number.is_i64() || number.is_u64() => {
            bounds(schema, value, "", findings, path);
        }
        (Some("number"), Value::Number(_)) => bounds(schema, value, "", findings, path),
        (Some("boolean"), Value::Bool(_)) => {}
        (Some(kind), _) => findings.push(Finding::new(path, format!("must be {}", noun(kind)))),
        (None, _) => {}
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let names: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
        findings.push(Finding::new(path, format!("must be one of {}", names.join(", "))));
    }
}

fn noun(kind: &str) -> &str {
    match kind {
        "object" => "a map",
        "array" => "a list",
        "string" => "text; put it in quotes",
        "integer" => "a whole number",
        "boolean" => "true or false",
        other => other,
    }
}

fn object(schema: &Value, members: &Map<String, Value>, path: &str, findings: &mut Vec<Finding>) {
    let known = schema["properties"].as_object();
    for (name, member) in members {
        let path = join(path, name);
        let inner = known.and_then(|known| known.get(name)).or(schema.get("additionalProperties"));
        match inner {
            // An explicit null counts as absent, like at an API server.
            Some(_) if member.is_null() => {}
            Some(inner) => check(inner, member, &path, findings),
            None => findings.push(Finding::new(&path, "there is no such field")),
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if members.get(name).is_none_or(Value::is_null) {
            findings.push(Finding::new(join(path, name), "is required"));
        }
    }
}

fn join(path: &str, member: &str) -> String {
    if path.is_empty() { member.to_owned() } else { format!("{path}.{member}") }
}

fn list(schema: &Value, items: &[Value], path: &str, findings: &mut Vec<Finding>) {
    bounds(schema, &Value::from(items.len()), "Items", findings, path);
    let keys: Vec<&str> = match schema["x-kubernetes-list-type"].as_str() {
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array();
            keys.into_iter().flatten().filter_map(Value::as_str).collect()
        }
        _ => Vec::new(),
    };
    let unique = !keys.is_empty() || schema["x-kubernetes-list-type"] == "set";
    let mut seen = BTreeSet::new();
    for (i, item) in items.iter().enumerate() {
        let path = format!("{path}[{i}]");
        check(&schema["items"], item, &path, findings);
        let key: Vec<String> = match keys.as_slice() {
            [] => vec![item.to_string()],
            keys => keys.iter().map(|key| item[key].to_string()).collect(),
        };
        if unique && !seen.insert(key.clone()) {
            let path = keys.first().map_or(path.clone(), |first| join(&path, first));
            let text = key.join(" ").replace('"', "");
            findings.push(Finding::new(&path, format!("{text} is there twice")));
        }
    }
}

fn string(schema: &Value, text: &str, path: &str, findings: &mut Vec<Finding>) {
    bounds(schema, &Value::from(text.chars().count()), "Length", findings, path);
    if let Some(pattern) = schema["pattern"].as_str()
        && !Regex::new(pattern).is_ok_and(|regex| regex.is_match(text))
    {
        findings.push(Finding::new(path, format!("{text:?} does not match {pattern}")));
    }
    if schema["format"] == "date-time" && text.parse::<jiff::Timestamp>().is_err() {
        let message = "must be a time with its offset, such as 2027-01-15T08:00:00+08:00";
        findings.push(Finding::new(path, message));
    }
}

fn bounds(schema: &Value, value: &Value, of: &str, findings: &mut Vec<Finding>, path: &str) {
    let (min_key, max_key, what) = match of {
        "Items" => ("minItems", "maxItems", " items"),
        "Length" => ("minLength", "maxLength", " characters"),
        _ => ("minimum", "maximum", ""),
    };
    let (min, max) = (schema[min_key].as_i64(), schema[max_key].as_i64());
    // What does not fit is beyond every bound.
    let number = value.as_i64().unwrap_or(i64::MAX);
    let below = min.is_some_and(|min| number < min);
    let above = max.is_some_and(|max| number > max);
    if below || above {
        let range = match (min, max) {
            (Some(min), Some(max)) => format!("{min} to {max}"),
            (Some(min), None) => format!("at least {min}"),
            (_, max) => format!("at most {}", max.unwrap_or_default()),
        };
        findings.push(Finding::new(path, format!("must be {range}{what}, is {value}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd;

    /// A word of the schema that this module did not read would be a bound that nobody keeps.
    #[test]
    fn every_word_of_the_schema_is_understood() {
        const READ: [&str; 18] = [
            "type",
            "properties",
            "additionalProperties",
            "required",
            "items",
            "enum",
            "minimum",
            "maximum",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "pattern",
            "format",
            "x-kubernetes-list-type",
            "x-kubernetes-list-map-keys",
            "x-kubernetes-int-or-string",
            "x-kubernetes-validations",
        ];
        fn walk(schema: &Value, path: &str) {
            for (word, inner) in schema.as_object().unwrap() {
                let told = ["description", "default"].contains(&word.as_str());
                assert!(told || READ.contains(&word.as_str()), "{path}: {word}");
                if word == "format" {
                    let known = ["int32", "int64", "date-time"];
                    assert!(known.contains(&inner.as_str().unwrap()), "{path}: {inner}");
                }
                if word == "pattern" {
                    Regex::new(inner.as_str().unwrap()).unwrap();
                }
                match word.as_str() {
                    "properties" => {
                        for (name, member) in inner.as_object().unwrap() {
                            walk(member, &join(path, name));
                        }
                    }
                    "items" | "additionalProperties" => walk(inner, path),
                    _ => {}
                }
            }
        }
        walk(crd::schema(), "");
    }

    #[test]
    fn the_defaults_keep_the_bounds() {
        fn walk(schema: &Value, path: &str) {
            if let Some(default) = schema.get("default") {
                let mut findings = Vec::new();
                check(schema, default, path, &mut findings);
                assert_eq!(findings, Vec::new());
            }
            for (name, member) in schema["properties"].as_object().into_iter().flatten() {
                walk(member, &join(path, name));
            }
            if let Some(items) = schema.get("items") {
                walk(items, &format!("{path}[]"));
            }
        }
        walk(crd::schema(), "");
    }
}
