//! What must have come out: a model of the lifecycle of its own, held against what a reader of committed records sees.

use std::collections::BTreeMap;

use rollcall::mapper::changelog::Changelog;
use rollcall::profile::Profile;
use serde_json::Value;

use super::kafka::{Kafka, Topic};

/// What is said of a device with one event: the change, the name, the revision.
type Said = (String, String, usize);

/// What must be said of each device.
fn expected(kafka: &Kafka) -> BTreeMap<String, Vec<Said>> {
    let mut said: BTreeMap<String, Vec<Said>> = BTreeMap::new();
    let mut present: BTreeMap<String, Option<String>> = BTreeMap::new();
    for raw in kafka.raw.iter().flatten().flatten() {
        let before = present.entry(raw.key.clone()).or_default();
        let after = match raw.value.as_deref().map(serde_json::from_str::<Value>) {
            None => None,
            Some(Ok(value)) => Some(value["Tags"][0]["Value"].as_str().unwrap().to_owned()),
            // A dead letter says nothing of the device.
            Some(Err(_)) => continue,
        };
        let change = match (&before, &after) {
            (None, Some(name)) => Some(("created", name.clone())),
            (Some(old), Some(new)) if old != new => Some(("updated", new.clone())),
            (Some(old), None) => Some(("removed", old.clone())),
            (Some(_), Some(_)) | (None, None) => None,
        };
        *before = after;
        if let Some((change, name)) = change {
            let events = said.entry(raw.key.clone()).or_default();
            events.push((change.to_owned(), name, events.len() + 1));
        }
    }
    said
}

/// What was said.
fn told(kafka: &Kafka) -> BTreeMap<String, Vec<Said>> {
    let mut said: BTreeMap<String, Vec<Said>> = BTreeMap::new();
    for partition in 0..kafka.partitions {
        for event in kafka.logs[&(Topic::Events, partition)].committed() {
            let value: Value = serde_json::from_slice(event.value.as_deref().unwrap()).unwrap();
            let name = value["device"]["name"].as_str().unwrap().to_owned();
            let revision = event.headers["revision"].parse().unwrap();
            said.entry(event.key.clone()).or_default().push((event.headers["change"].clone(), name, revision));
        }
    }
    said
}

/// What is wrong, if anything is.
pub fn judge(kafka: &Kafka) -> Result<(), String> {
    let (expected, told) = (expected(kafka), told(kafka));
    for (id, expected) in &expected {
        let told = told.get(id).map(Vec::as_slice).unwrap_or_default();
        if told != expected {
            return Err(format!("{id}:\n  expected {expected:?}\n  told     {told:?}"));
        }
    }
    if let Some(id) = told.keys().find(|id| !expected.contains_key(*id)) {
        return Err(format!("{id} was never there"));
    }
    let rejected = kafka.raw.iter().flatten().flatten();
    let rejected = rejected.filter(|raw| raw.value.as_deref().is_some_and(|value| value == BROKEN)).count();
    let letters: usize = (0..kafka.partitions).map(|p| kafka.logs[&(Topic::DeadLetters, p)].committed().count()).sum();
    if rejected != letters {
        return Err(format!("{rejected} records are dead letters, {letters} were written"));
    }
    let changelog = Changelog::new(Profile::Sekoia).unwrap();
    for (id, expected) in &expected {
        let partition = rollcall::record::partition_for(id.as_bytes(), kafka.partitions);
        let log = &kafka.logs[&(Topic::State, partition)];
        let last = log.committed().filter(|record| record.key == *id).last().ok_or(format!("{id} has no state"))?;
        let state = changelog.decode(last.value.as_deref().unwrap()).map_err(|error| error.to_string())?;
        if state.revision as usize != expected.len() {
            return Err(format!("{id}: {} events, and the state is at revision {}", expected.len(), state.revision));
        }
    }
    Ok(())
}

/// The value of a record that is none.
pub const BROKEN: &str = "{broken";
