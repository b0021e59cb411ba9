//! The stages at work until what is there is done, and their events in the eyes of others.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::kafka::TestTopics;
use super::process::Stage;
use super::{python, server, wait_for};

/// `rollcall map` until everything on the raw topic is mapped.
pub fn map_all(topics: &TestTopics, config: &Value) {
    let mapper = Stage::start(&["map"], config);
    wait_until_mapped(topics);
    assert_eq!(mapper.stop(), Some(0));
}

/// Waits until the mapper's group has committed what is on the raw topic now, and what it wrote can be read.
#[track_caller]
pub fn wait_until_mapped(topics: &TestTopics) {
    wait_until_committed(topics);
    // The markers of a transaction come to each partition by itself.
    for topic in ["events", "state"] {
        let ends = topics.ends(topic);
        wait_for("its last marker", Duration::from_secs(60), || {
            topics.stable_ends(topic).iter().all(|(partition, end)| *end >= ends[partition]).then_some(())
        });
    }
}

/// Waits until the mapper's group has committed what is on the raw topic now.
#[track_caller]
pub fn wait_until_committed(topics: &TestTopics) {
    // Behind the last record, not at the partition's end: there may be the marker of the collector's transaction.
    let ends: BTreeMap<_, _> = topics.read("raw").iter().map(|record| (record.partition, record.offset + 1)).collect();
    wait_for("the mapper to reach the end", Duration::from_secs(60), || {
        // A collector that runs meanwhile moves the end: beyond is good too.
        let committed = topics.committed("mapper", "raw");
        ends.iter().all(|(partition, end)| committed.get(partition) >= Some(end)).then_some(())
    });
}

/// A record as `read_events.py` prints it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Told {
    pub partition: i32,
    pub offset: i64,
    pub key: String,
    pub headers: BTreeMap<String, String>,
    pub value: Value,
}

/// The events in the order of their partitions and offsets, decoded by the libraries of others: `read_events.py` with
/// `arguments` that name the schemas.
pub fn told(topics: &TestTopics, arguments: &[&str]) -> Vec<Told> {
    let (topic, brokers) = (topics.name("events"), topics.brokers());
    let common = ["--bootstrap", &brokers, "--topic", &topic];
    let lines = python::lines("read_events.py", &[&common, arguments].concat());
    let mut told: Vec<Told> = lines.into_iter().map(|line| serde_json::from_value(line).unwrap()).collect();
    told.sort_by_key(|event| (event.partition, event.offset));
    told
}

/// The same with the schema registry.
pub fn told_with_registry(topics: &TestTopics) -> Vec<Told> {
    told(topics, &["--registry", &server("REGISTRY")])
}

/// The value without members that are null or an empty list, at any depth: how Avro writes what JSON leaves out.
pub fn without_absent(value: Value) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .map(|(name, member)| (name, without_absent(member)))
            .filter(|(_, member)| !member.is_null() && member.as_array().is_none_or(|list| !list.is_empty()))
            .collect(),
        Value::Array(elements) => elements.into_iter().map(without_absent).collect(),
        other => other,
    }
}
