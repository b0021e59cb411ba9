//! `rollcall sweeps reconcile`: removes devices that the mapper knows and no scope does any more.
//!
//! A mapper that was away for longer than raw keeps tombstones may never learn of a removal: the tombstone was compacted
//! away before it was read, and the device would stay for ever. What the collectors know tells the two apart: an instance
//! that was published is known from the same commit on, until its tombstone is published. So a device of the state topic
//! that no scope knows is gone, where a complete sweep of its scope has begun since it was last seen; its tombstone is
//! published once more. Doing so twice does no harm: the mapper knows the second for old.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use anyhow::anyhow;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{read, read_table};
use crate::collector::ledger::Ledger;
use crate::collector::raw::{self, Labels};
use crate::collector::source;
use crate::config::Config;
use crate::inert::inert;
use crate::kafka::{Message, Setback, TransactionalProducer, client, statistics};
use crate::mapper::changelog::Changelog;
use crate::profile::Scope;
use crate::record::partition_for;

/// Tombstones a transaction.
const BATCH: usize = 1000;

/// What was found, and done.
#[derive(Debug, Serialize)]
pub struct Reconciled {
    /// Whether nothing was published.
    pub dry_run: bool,
    /// Those that are gone.
    pub gone: Vec<Gone>,
    /// Those that no scope knows, and of which none can tell that they are gone.
    pub left_alone: Vec<LeftAlone>,
}

/// A device that is gone.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Gone {
    /// Instance ID.
    pub id: String,
    /// The scope that does not list it any more, `source/account/region`.
    pub scope: String,
    /// When the record of its last event was observed.
    pub last_seen: DateTime<Utc>,
    /// When the complete sweep began that says so.
    pub missed: DateTime<Utc>,
}

/// A device that no scope knows.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct LeftAlone {
    /// Instance ID.
    pub id: String,
    /// Why nothing can be said of it.
    pub reason: String,
}

/// A device of the state topic.
struct Known {
    observed_at: i64,
    account: Option<String>,
    region: Option<String>,
}

/// Finds the devices that are gone, and publishes their tombstones unless it is a dry run.
///
/// # Errors
/// When Kafka does not tell or take everything, or the state is of another profile or a newer release.
pub fn reconcile(config: &Config, dry_run: bool) -> anyhow::Result<Reconciled> {
    let known_to_scopes =
        |ledgers: &BTreeMap<String, Ledger>, id: &str| ledgers.values().any(|ledger| ledger.entry(id).is_some());
    let (_, before) = read(config)?;
    let (partitions, mut devices) = unknown_devices(config, &|id| known_to_scopes(&before, id))?;
    // Whatever was in the state by now was known to its scope before: what the mapper learned meanwhile drops out.
    let (_, ledgers) = read(config)?;
    devices.retain(|id, _| !known_to_scopes(&ledgers, id));
    let mut found = Reconciled { dry_run, gone: Vec::new(), left_alone: Vec::new() };
    for (id, device) in devices {
        match judge(id, &device, &ledgers) {
            Ok(gone) => found.gone.push(gone),
            Err(left_alone) => found.left_alone.push(left_alone),
        }
    }
    if !dry_run && !found.gone.is_empty() {
        publish(config, partitions, &found.gone)?;
    }
    Ok(found)
}

/// The devices of the state topic that are there and not known, by ID; and the partitions of the topic.
fn unknown_devices(config: &Config, is_known: &dyn Fn(&str) -> bool) -> anyhow::Result<(i32, BTreeMap<String, Known>)> {
    let (mapping, changelog) = (config.mapping(), Changelog::new(config.mapper.profile)?);
    let mut devices: HashMap<String, Known> = HashMap::new();
    let mut take = |_: i32, key: &[u8], value: Option<&[u8]>| {
        let about = |error: &dyn fmt::Display| {
            format!("a record of the state topic cannot be read, key {:?}: {error}", String::from_utf8_lossy(key))
        };
        let id = std::str::from_utf8(key).map_err(|error| about(&error))?;
        if is_known(id) {
            return Ok(());
        }
        let state = value.map(|value| changelog.decode(value)).transpose().map_err(|error| about(&error))?;
        let Some((state, rendering)) = state.as_ref().and_then(|state| Some((state, state.present()?))) else {
            devices.remove(id);
            return Ok(());
        };
        let device = mapping.device_from_json(&rendering.device).map_err(|error| about(&error))?;
        let Scope { account, region } = device.scope();
        let [account, region] = [account, region].map(|part| part.map(str::to_owned));
        devices.insert(id.to_owned(), Known { observed_at: state.observed_at, account, region });
        Ok(())
    };
    let partitions = read_table(config, &config.kafka.topics.state, &mut take)?;
    Ok((partitions, devices.into_iter().collect()))
}

/// Whether the scopes can tell that a device that none of them knows is gone. Pure.
fn judge(id: String, device: &Known, ledgers: &BTreeMap<String, Ledger>) -> Result<Gone, LeftAlone> {
    // What a scope or a profile does not tell may be anything.
    let fits = |a: &Option<String>, b: &Option<String>| a.is_none() || b.is_none() || a == b;
    let covering = ledgers.iter().filter_map(|(key, ledger)| {
        let scope = source::Scope::of_key(key);
        let head = ledger.head.as_ref().filter(|head| !head.out_of_scope)?;
        (fits(&scope.account, &device.account) && fits(&scope.region, &device.region)).then_some((key, head))
    });
    let mut gone: Option<(&String, i64)> = None;
    for (key, head) in covering {
        match head.last_complete.filter(|began| *began > device.observed_at) {
            None => {
                return Err(LeftAlone { id, reason: format!("{key} had no complete sweep since it was last seen") });
            }
            Some(began) if gone.is_none_or(|(_, latest)| began > latest) => gone = Some((key, began)),
            Some(_) => {}
        }
    }
    let Some((scope, began)) = gone else {
        let of = |part: &Option<String>| part.clone().unwrap_or_else(|| "unknown".to_owned());
        let reason =
            format!("no scope that is swept covers it: account {}, region {}", of(&device.account), of(&device.region));
        return Err(LeftAlone { id, reason });
    };
    let at = |ms| DateTime::from_timestamp_millis(ms).unwrap_or_default();
    Ok(Gone { id, scope: scope.clone(), last_seen: at(device.observed_at), missed: at(began) })
}

fn publish(config: &Config, partitions: i32, gone: &[Gone]) -> anyhow::Result<()> {
    let kafka = &config.kafka;
    let member = format!("{}-reconcile", config.instance_id.0);
    let mut producer =
        TransactionalProducer::new(client::producer(kafka, &member), kafka.transaction_timeout, statistics::nobody())?;
    producer.renew()?;
    let sweep_id = Uuid::now_v7().to_string();
    for batch in gone.chunks(BATCH) {
        let sent = publish_batch(config, partitions, &mut producer, &sweep_id, batch);
        if let Err(setback) = sent {
            if matches!(setback, Setback::Abort(_) | Setback::TooLarge(_)) {
                let _ = producer.abort();
            }
            let more = "tombstones could not all be published; the same command again does the rest";
            return Err(anyhow!(setback).context(more));
        }
    }
    Ok(())
}

fn publish_batch(
    config: &Config,
    partitions: i32,
    producer: &mut TransactionalProducer,
    sweep_id: &str,
    batch: &[Gone],
) -> Result<(), Setback> {
    producer.begin()?;
    for Gone { id, scope, last_seen, missed } in batch {
        let scope = source::Scope::of_key(scope);
        let source = config.collector.sources.iter().find(|source| source.name == scope.source);
        let labels = source.map(|source| Labels {
            category: source.category.clone(),
            fields: source.fields.clone().into_iter().collect(),
        });
        // As of the sweep that missed it: should it be seen again, that is later, and brings it back.
        let headers = raw::headers(&scope, sweep_id, &labels.unwrap_or_default(), *missed);
        let tombstone = raw::tombstone(id, "absent", Some(*last_seen), *missed, &headers);
        producer.send(Message {
            topic: &config.kafka.topics.raw,
            partition: Some(partition_for(id.as_bytes(), partitions)),
            timestamp: tombstone.timestamp,
            key: Some(id.as_bytes()),
            value: None,
            headers: &tombstone.headers,
        })?;
    }
    producer.commit()
}

impl fmt::Display for Reconciled {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |at: &DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
        for Gone { id, scope, last_seen, missed } in &self.gone {
            writeln!(
                formatter,
                "{}: gone: last seen {}, not listed by {} at {}",
                inert(id),
                time(last_seen),
                inert(scope),
                time(missed)
            )?;
        }
        for LeftAlone { id, reason } in &self.left_alone {
            writeln!(formatter, "{}: left alone: {}", inert(id), inert(&reason.to_string()))?;
        }
        let done = if self.dry_run { "would be published" } else { "published" };
        writeln!(formatter, "{} tombstones {done}, {} devices left alone", self.gone.len(), self.left_alone.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::ledger::Head;

    fn ledgers(scopes: &[(&str, Option<i64>)]) -> BTreeMap<String, Ledger> {
        let ledger = |last_complete| {
            let mut ledger = Ledger::default();
            ledger.head = Some(Head { last_complete, ..Head::begun("s", 1) });
            ledger
        };
        scopes.iter().map(|(scope, last_complete)| ((*scope).to_owned(), ledger(*last_complete))).collect()
    }

    fn device(account: Option<&str>, region: Option<&str>) -> Known {
        let [account, region] = [account, region].map(|part| part.map(str::to_owned));
        Known { observed_at: 100, account, region }
    }

    fn judged(device: &Known, scopes: &[(&str, Option<i64>)]) -> Result<String, String> {
        let judged = judge("i-1".to_owned(), device, &ledgers(scopes));
        judged.map(|gone| gone.scope).map_err(|left| left.reason)
    }

    #[test]
    fn a_device_that_no_scope_knows_is_gone_once_its_scope_was_swept_since() {
        let device = device(Some("1"), Some("eu"));
        let others = [("a/2/eu", None), ("a/1/us", Some(5))];
        let with = |last_complete| [&[("a/1/eu", last_complete)][..], &others].concat();
        assert_eq!(judged(&device, &with(Some(101))), Ok("a/1/eu".to_owned()));
        for before in [None, Some(99), Some(100)] {
            assert!(judged(&device, &with(before)).unwrap_err().contains("a/1/eu had no complete sweep"));
        }
        assert!(
            judged(&device, &others).unwrap_err().contains("no scope that is swept covers it: account 1, region eu")
        );
    }

    #[test]
    fn where_account_or_region_are_not_told_all_that_may_cover_it_must_have_been_swept() {
        let known = [("a/1/eu", Some(101)), ("a/1/us", Some(103)), ("b/-/-", Some(102))];
        assert_eq!(judged(&device(Some("1"), None), &known), Ok("a/1/us".to_owned()));
        assert_eq!(judged(&device(None, None), &known), Ok("a/1/us".to_owned()));
        assert!(judged(&device(None, Some("eu")), &[("a/1/eu", Some(101)), ("b/-/-", Some(1))]).is_err());
        assert!(judged(&device(None, None), &[]).is_err());
    }

    #[test]
    fn a_scope_that_is_swept_no_more_tells_nothing() {
        let mut ledgers = ledgers(&[("a/1/eu", Some(101))]);
        for ledger in ledgers.values_mut() {
            ledger.head.as_mut().unwrap().out_of_scope = true;
        }
        assert!(judge("i-1".to_owned(), &device(Some("1"), Some("eu")), &ledgers).is_err());
    }
}
