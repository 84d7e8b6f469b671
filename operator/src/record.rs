//! What is left of a founded ledger in Kubernetes: a ConfigMap that outlives its sale.
//!
//! A sale that is made again under its name must find its ledger or say that it is lost; it
//! must never start a second one while seats of the first are sold. Kafka alone cannot tell: a
//! topic that somebody deleted and made anew looks like one that was never used. So the topic's
//! id, the hash of Genesis and the runs are written down where the sale's deletion does not
//! reach, without an owner reference.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ConfigMap;

use crate::names::RECORD;

/// A run: train and date.
pub type Run = (String, String);

/// A founded ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The ConfigMap's name.
    pub name: String,
    /// The sale that wrote it.
    pub sale: String,
    /// The ledger's topic.
    pub topic: String,
    /// The topic's id.
    pub topic_id: String,
    /// The hash of Genesis; none until it was written.
    pub genesis_hash: Option<String>,
    /// The runs that it sells.
    pub runs: BTreeSet<Run>,
}

/// The name of the record of a topic. A topic's name may hold capitals and underscores, which
/// an object's may not.
#[must_use]
pub fn name(topic: &str) -> String {
    let hash = blake3::hash(topic.as_bytes()).to_hex();
    format!("stationmaster-ledger-{}", &hash[..16])
}

impl Record {
    /// Reads a ConfigMap; none if it is no record.
    #[must_use]
    pub fn read(map: &ConfigMap) -> Option<Self> {
        map.metadata.labels.as_ref()?.get(RECORD)?;
        let data = map.data.as_ref()?;
        let runs = data.get("runs").map(String::as_str).unwrap_or_default();
        let run = |line: &str| {
            let (train, date) = line.split_once(' ')?;
            Some((train.to_owned(), date.to_owned()))
        };
        Some(Self {
            name: map.metadata.name.clone()?,
            sale: data.get("sale").cloned().unwrap_or_default(),
            topic: data.get("topic")?.clone(),
            topic_id: data.get("topicID")?.clone(),
            genesis_hash: data.get("genesisHash").cloned(),
            runs: runs.lines().filter_map(run).collect(),
        })
    }

    /// The ConfigMap.
    #[must_use]
    pub fn config_map(&self, namespace: &str) -> ConfigMap {
        let runs: Vec<String> = self.runs.iter().map(|(t, d)| format!("{t} {d}")).collect();
        let mut map = ConfigMap::default();
        map.metadata.name = Some(self.name.clone());
        map.metadata.namespace = Some(namespace.to_owned());
        let labels = [("app.kubernetes.io/managed-by", crate::names::MANAGER), (RECORD, "founded")];
        map.metadata.labels = Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        let note = "This ledger was founded in Kafka. While this object is there, no sale of \
                    this namespace founds another for its topic or its runs. Delete it only \
                    with the topic.";
        map.metadata.annotations =
            Some([("stationmaster.dev/note".to_owned(), note.to_owned())].into());
        let mut data = vec![
            ("sale", self.sale.clone()),
            ("topic", self.topic.clone()),
            ("topicID", self.topic_id.clone()),
            ("runs", runs.join("\n")),
        ];
        data.extend(self.genesis_hash.clone().map(|hash| ("genesisHash", hash)));
        map.data = Some(data.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let record = Record {
            name: name("tickets.Spring_2027"),
            sale: "spring-2027".into(),
            topic: "tickets.Spring_2027".into(),
            topic_id: "q3ZyGgVJQ5mUfqqTCBnK1A".into(),
            genesis_hash: Some("9f".into()),
            runs: [("G1".into(), "2027-02-01".into()), ("G1".into(), "2027-02-02".into())].into(),
        };
        assert_eq!(Record::read(&record.config_map("tickets")), Some(record));
    }

    #[test]
    fn another_config_map_is_no_record() {
        let data = Some([("topic".to_owned(), "t".to_owned())].into());
        let map = ConfigMap { data, ..ConfigMap::default() };
        assert_eq!(Record::read(&map), None);
    }
}
