//! A TrainSale in a file, read without an API server: what that would refuse is refused here,
//! with the line.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess};
use serde_json::Value;

use crate::checks::Finding;
use crate::sale::TrainSale;
use crate::{crd, schema};

/// Why a file is not a TrainSale.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It is not YAML, or not one document of it.
    #[error("{0}")]
    Yaml(String),
    /// It says what the schema does not allow.
    #[error("{}", lines(.0))]
    Refused(Vec<Located>),
}

fn lines(found: &[Located]) -> String {
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A finding and where it is in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The line, from 1 on, of the field or of the innermost thing around it.
    pub line: usize,
    /// What is wrong.
    pub finding: Finding,
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.finding)
    }
}

impl TrainSale {
    /// Reads a TrainSale from YAML, with the schema's defaults, and refuses unknown fields and
    /// values out of bounds. Ask [`crate::checks::check`] for the rest.
    ///
    /// # Errors
    /// [`ParseError`] with everything that the schema does not allow.
    pub fn from_yaml(text: &str) -> Result<Self, ParseError> {
        let yaml = |error: serde_yaml::Error| ParseError::Yaml(error.to_string());
        let value: serde_yaml::Value = serde_yaml::from_str(text).map_err(yaml)?;
        let value = serde_json::to_value(value).map_err(|e| ParseError::Yaml(e.to_string()))?;
        let mut findings = Vec::new();
        envelope(&value, &mut findings);
        if findings.is_empty() {
            let root = crd::schema();
            match value.get("spec") {
                Some(spec) => {
                    schema::check(&root["properties"]["spec"], spec, "spec", &mut findings);
                }
                None => findings.push(Finding::new("spec", "is required")),
            }
        }
        if findings.is_empty() {
            // What was once seen of a sale in some cluster is no part of what is asked for.
            let mut asked = without_nulls(value);
            asked.as_object_mut().map(|root| root.remove("status"));
            match serde_json::from_value(asked) {
                Ok(sale) => return Ok(sale),
                // The spec's schema is made of its types, so only the metadata is left.
                Err(error) => findings.push(Finding::new("metadata", error.to_string())),
            }
        }
        Err(ParseError::Refused(locate(text, findings)))
    }
}

/// The findings with the lines of `text`, the YAML that they are about.
#[must_use]
pub fn locate(text: &str, findings: Vec<Finding>) -> Vec<Located> {
    let at = |finding: Finding| Located { line: line_of(text, &finding.path), finding };
    findings.into_iter().map(at).collect()
}

fn envelope(value: &Value, findings: &mut Vec<Finding>) {
    for (field, wanted) in [("apiVersion", "stationmaster.dev/v1alpha1"), ("kind", "TrainSale")] {
        if value[field] != wanted {
            findings.push(Finding::new(field, format!("must be {wanted}")));
        }
    }
    if !value["metadata"]["name"].is_string() {
        findings.push(Finding::new("metadata.name", "is required; put it in quotes"));
    }
    for field in value.as_object().into_iter().flat_map(|root| root.keys()) {
        if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&field.as_str()) {
            findings.push(Finding::new(field, "there is no such field"));
        }
    }
}

/// An explicit null counts as absent, so that the field gets its default.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.into_iter().filter(|(_, member)| !member.is_null());
            kept.map(|(name, member)| (name, without_nulls(member))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// The line of the field at `path`, or of the innermost thing around it that is there.
fn line_of(text: &str, path: &str) -> usize {
    let steps: Vec<&str> = path.split(['.', '[']).map(|s| s.trim_end_matches(']')).collect();
    let mut line = 1;
    for depth in 1..=steps.len() {
        let deserializer = serde_yaml::Deserializer::from_str(text);
        let found = Walk(&steps[..depth]).deserialize(deserializer);
        match found.err().and_then(|error| error.location()) {
            Some(location) => line = location.line(),
            None => break,
        }
    }
    line
}

/// Walks to a place and fails there, since only failures know their lines.
struct Walk<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> serde::de::Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.0.split_first() else { return Ok(()) };
        // To the end, found or not: what is left unread would fail too, and at another line.
        while let Some(key) = map.next_key_seed(Key { wanted: step, last: rest.is_empty() })? {
            if key == *step {
                map.next_value_seed(Walk(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.0.split_first() else { return Ok(()) };
        let wanted = step.parse::<usize>().ok();
        for at in 0.. {
            let more = match (wanted == Some(at), rest.is_empty()) {
                (true, true) => list.next_element_seed(Here)?,
                (true, false) => list.next_element_seed(Walk(rest))?,
                (false, _) => list.next_element::<IgnoredAny>()?.map(|_| ()),
            };
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A map's key; the one that is looked for fails, if it is the end of the path.
struct Key<'a> {
    wanted: &'a str,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl serde::de::Visitor<'_> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    // Failing in here, and not after, is what gives the failure this key's line.
    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<String, E> {
        if self.last && key == self.wanted { Err(E::custom("here")) } else { Ok(key.to_owned()) }
    }
}

/// An item of a list, which fails where it begins.
struct Here;

impl<'de> DeserializeSeed<'de> for Here {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> serde::de::Visitor<'de> for Here {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("here")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALE: &str = include_str!("../../examples/minimal.yaml");

    #[track_caller]
    fn refused(from: &str, to: &str, said: &[&str]) {
        assert!(SALE.contains(from));
        let error = TrainSale::from_yaml(&SALE.replacen(from, to, 1)).unwrap_err();
        assert_eq!(error.to_string().lines().collect::<Vec<_>>(), said);
    }

    #[test]
    fn an_unknown_field_is_refused_by_name_and_line() {
        let said = "line 12: spec.timetables[0].stops[1].arrivs: there is no such field";
        refused("arrives", "arrivs", &[said]);
        let said = "line 24: spec.ledger.minInsync: there is no such field";
        refused("minInSyncReplicas", "minInsync", &[said]);
        refused("spec:", "spek:", &["line 6: spek: there is no such field"]);
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let text = SALE.replacen("CNY", "cny", 1).replacen("seats: 90", "seats: 0", 1);
        let error = TrainSale::from_yaml(&text).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 2);
        assert!(error.contains("line 7: spec.currency"), "{error}");
        assert!(error.contains("line 17: spec.timetables[0].coaches[0].seats"), "{error}");
    }

    #[test]
    fn a_missing_field_is_told_at_the_line_of_what_lacks_it() {
        let said = "line 17: spec.timetables[0].coaches[0].class: is required";
        refused("class: Second, ", "", &[said]);
        let without = SALE.replacen("  kafka:", "  # kafka:", 1);
        let error = TrainSale::from_yaml(&without).unwrap_err().to_string();
        assert_eq!(error, "line 6: spec.kafka: is required");
    }

    #[test]
    fn what_is_no_sale_is_refused() {
        for (text, said) in [
            ("", "line 1: apiVersion: must be stationmaster.dev/v1alpha1"),
            ("[1]", "line 1: apiVersion: must be stationmaster.dev/v1alpha1"),
            ("a: [", "did not find expected node content"),
            ("a: 1\na: 2", "duplicate entry"),
            ("a: 1\n---\nb: 2", "more than one document"),
        ] {
            let error = TrainSale::from_yaml(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        }
        refused("kind: TrainSale", "kind: Train", &["line 3: kind: must be TrainSale"]);
        let said = "line 5: metadata.name: is required; put it in quotes";
        refused("name: demo", "name: 12", &[said]);
    }

    #[test]
    fn a_sale_as_a_cluster_prints_it_is_read() {
        let more = "  uid: 07b14248\n  generation: 2\nstatus: {conditions: [anything]}\nspec:";
        let sale = TrainSale::from_yaml(&SALE.replacen("spec:", more, 1)).unwrap();
        assert_eq!(sale.status, None);
        let said = "line 4: metadata: invalid type: string \"x\", expected i64";
        refused("spec:", "  generation: x\nspec:", &[said]);
    }

    #[test]
    fn an_explicit_null_is_the_default() {
        let text = SALE.replacen("  currency", "  stock:\n  currency", 1);
        assert_eq!(TrainSale::from_yaml(&text).unwrap().spec.stock.shares, 16);
    }

    #[test]
    fn findings_of_later_checks_get_their_lines_too() {
        let text = SALE.replacen("\"08:22\"", "\"06:22\"", 1);
        let sale = TrainSale::from_yaml(&text).unwrap();
        let found = locate(&text, crate::checks::check(&sale));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 12);
        assert_eq!(found[0].finding.path, "spec.timetables[0].stops[1].arrives");
    }
}
