//! The definition of the custom resource: the types' schema made fit for an API server, with
//! the rules in their places and the status that a sale has before anybody saw it.

use std::sync::LazyLock;

use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::rules::{RULES, Rule};
use crate::sale::TrainSale;

/// Members whose types are Kubernetes' own. Their descriptions would make up four fifths of the
/// definition and stand in Kubernetes' documentation anyway.
const OF_KUBERNETES: [&str; 4] =
    ["affinity", "resources", "tolerations", "topologySpreadConstraints"];

/// The definition, as an API server takes it.
#[must_use]
pub fn definition() -> Value {
    let mut crd = json!(TrainSale::crd());
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    tidy(schema, false);
    schema["properties"]["status"]["default"] = first_status();
    for rule in RULES {
        place(schema, rule);
    }
    whole_numbers(&mut crd);
    crd
}

/// The definition as YAML, the way it is committed and released.
#[must_use]
pub fn yaml() -> String {
    // A definition is made of maps, lists and text only, which YAML can always say.
    serde_yaml::to_string(&definition()).unwrap_or_default()
}

/// The files that are generated from here, by their paths from this crate, with their content.
#[must_use]
pub fn generated() -> [(&'static str, String); 2] {
    let yaml = yaml();
    let head = "# Generated from crds/src by: cargo run -p crds --example crdgen\n";
    // Within templates/ and not crds/, which Helm installs once and never upgrades.
    let chart = yaml.replacen("metadata:\n", IN_CHART, 1);
    let chart = format!("{{{{- if .Values.crds.install }}}}\n{head}{chart}{{{{- end }}}}\n");
    [
        ("trainsales.yaml", format!("{head}{yaml}")),
        ("../charts/stationmaster/templates/trainsales.yaml", chart),
    ]
}

/// Uninstalling the chart must not delete the definition, since that deletes every sale.
const IN_CHART: &str = r#"metadata:
  labels:
    {{- include "stationmaster.labels" . | nindent 4 }}
  {{- if .Values.crds.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
"#;

/// The schema of a whole TrainSale, from the definition.
pub fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let path = "/spec/versions/0/schema/openAPIV3Schema";
        definition().pointer_mut(path).map(Value::take).unwrap_or_default()
    });
    &SCHEMA
}

/// What the status says while no operator has seen a sale. Without it, tools that wait for
/// resources would call an untouched sale current.
fn first_status() -> Value {
    json!({
        "observedGeneration": -1,
        "conditions": [{
            "type": "Ready",
            "status": "Unknown",
            "reason": "Pending",
            "message": "No Stationmaster operator has seen this sale. \
                        Does one watch this namespace?",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }],
    })
}

/// Removes what an API server does not take, and unwraps the descriptions' lines.
fn tidy(schema: &mut Value, foreign: bool) {
    let Value::Object(map) = schema else { return };
    // An explicit null then counts as absent, so that it gets the default like an absent one.
    map.remove("nullable");
    map.remove("title");
    if let Some(format) = map.get("format").and_then(Value::as_str) {
        match format {
            "uint8" | "uint16" | "int8" | "int16" => map.insert("format".into(), "int32".into()),
            "uint32" | "uint64" | "uint" => map.insert("format".into(), "int64".into()),
            _ => None,
        };
    }
    match map.get("description").and_then(Value::as_str) {
        Some(_) if foreign => drop(map.remove("description")),
        Some(text) => {
            let unwrapped = text.split("\n\n").map(|p| p.replace('\n', " "));
            let unwrapped = unwrapped.collect::<Vec<_>>().join("\n\n");
            map.insert("description".into(), unwrapped.into());
        }
        None => {}
    }
    if let Some(Value::Object(members)) = map.get_mut("properties") {
        for (name, member) in members {
            let own = member.get("description").cloned();
            let theirs = OF_KUBERNETES.contains(&name.as_str());
            tidy(member, foreign || theirs);
            if let (true, false, Some(own)) = (theirs, foreign, own) {
                member["description"] = own;
            }
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            tidy(inner, foreign);
        }
    }
}

/// Puts a rule where it belongs. A rule without a place would silently never hold, so a path
/// that leads nowhere makes a definition that no API server takes.
fn place(schema: &mut Value, rule: &Rule) {
    let mut at = schema;
    for member in rule.at.split('.').filter(|m| !m.is_empty()) {
        at = match member.strip_suffix("[]") {
            Some(list) => &mut at["properties"][list]["items"],
            None => &mut at["properties"][member],
        };
    }
    let mut entry = Map::new();
    entry.insert("rule".into(), rule.rule.into());
    entry.insert("message".into(), rule.message.into());
    if let Some(field) = rule.field {
        entry.insert("fieldPath".into(), field.into());
    }
    match &mut at["x-kubernetes-validations"] {
        Value::Array(rules) => rules.push(entry.into()),
        none => *none = json!([entry]),
    }
}

/// Bounds are kept as floating-point numbers on the way; 16.0 reads worse than 16.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(members) => members.values_mut().for_each(whole_numbers),
        Value::Number(number) => {
            // Beyond 2^53 a float is not exact, and no bound is that large.
            const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
            if let Some(float) = number.as_f64()
                && number.is_f64()
                && float.fract() == 0.0
                && float.abs() <= EXACT_MAX
                && let Ok(whole) = format!("{float:.0}").parse::<i64>()
            {
                *value = whole.into();
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_files_are_what_is_generated() {
        for (file, text) in generated() {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            let same = committed == text;
            assert!(same, "{file} is stale: run cargo run -p crds --example crdgen");
        }
    }

    #[test]
    fn every_rule_stands_where_the_schema_has_a_type() {
        for rule in RULES {
            let mut at = schema();
            for member in rule.at.split('.').filter(|m| !m.is_empty()) {
                at = &at["properties"][member.trim_end_matches("[]")];
                if member.ends_with("[]") {
                    at = &at["items"];
                }
            }
            assert!(at["type"].is_string(), "{rule:?}");
            assert!(!rule.message.contains('\n'), "{rule:?}");
        }
    }

    #[test]
    fn every_field_that_may_be_left_out_states_its_default() {
        let mut silent = Vec::new();
        walk(&schema()["properties"]["spec"], "spec", &mut silent);
        assert_eq!(silent, Vec::<String>::new());
    }

    // Left out, a field has a default, or its description says what its absence means.
    fn walk(schema: &Value, path: &str, silent: &mut Vec<String>) {
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let Some(members) = schema["properties"].as_object() else { return };
        for (name, member) in members {
            let path = format!("{path}.{name}");
            let text = member["description"].as_str().unwrap_or_default();
            // A member of a union is there or not as the union's type says.
            let told = text.contains("Unset") || text.contains(": ") || text.contains("; or ");
            let map = member.get("additionalProperties").is_some();
            let listed = path.ends_with("kafka.options") || path.ends_with("template.tolerations");
            let known = required.contains(&name.as_str().into()) || member.get("default").is_some();
            if !known && !told && !map && !listed {
                silent.push(path.clone());
            }
            if !OF_KUBERNETES.contains(&name.as_str()) {
                walk(member, &path, silent);
                walk(&member["items"], &path, silent);
            }
        }
    }
}
