//! What is on the topics, and what EC2 has shown: two histories that must agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use rollcall::record::partition_for;
use serde_json::Value;

use crate::support::ec2::{FastEc2, Fields, Listing, Machine, State};
use crate::support::kafka::{Read, TestTopics};

static HEAD: LazyLock<Schema> =
    LazyLock::new(|| Schema::parse_str(include_str!("../../../schemas/sweep-head.avsc")).unwrap());
/// What comes before the Avro of a single object: a mark and the schema's fingerprint.
const SINGLE_OBJECT: usize = 10;
/// `observed-at` may be EC2's clock, which has no fractions of a second.
const CLOCK: TimeDelta = TimeDelta::seconds(2);

/// How a sweep stood when a transaction was committed.
pub struct Head {
    pub scope: String,
    pub sweep: String,
    pub began: DateTime<Utc>,
    pub ended: Option<DateTime<Utc>>,
    verdict: String,
}

/// The heads on `ec2.sweeps`, in the order of the log.
fn heads(topics: &TestTopics) -> Vec<Head> {
    let is_head = |record: &&Read| record.key().matches('/').count() == 2 && !record.key().contains('!');
    let records = topics.read("sweeps");
    let reader = GenericDatumReader::builder(&HEAD).build().unwrap();
    let heads = records.iter().filter(is_head).filter_map(|record| {
        let mut avro = record.value.as_deref()?.get(SINGLE_OBJECT..)?;
        let head: Value = reader.read_value(&mut avro).unwrap().try_into().unwrap();
        let time = |name: &str| head[name].as_i64().and_then(DateTime::from_timestamp_millis);
        let text = |name: &str| head[name].as_str().unwrap().to_owned();
        Some(Head {
            scope: record.key().to_owned(),
            sweep: text("sweep_id"),
            began: time("began").unwrap(),
            ended: time("ended"),
            verdict: text("verdict"),
        })
    });
    heads.collect()
}

/// The complete sweeps, as they stood at their ends.
pub fn complete(topics: &TestTopics) -> Vec<Head> {
    let complete = heads(topics).into_iter().filter(|head| head.verdict == "Complete");
    complete.map(|head| (head.sweep.clone(), head)).collect::<BTreeMap<_, _>>().into_values().collect()
}

/// The complete sweeps of each scope that began after a moment; not those of a clock that was ahead.
pub fn complete_since(topics: &TestTopics, moment: DateTime<Utc>) -> BTreeMap<String, BTreeSet<String>> {
    let mut complete = BTreeMap::<_, BTreeSet<_>>::new();
    let is_since = |head: &Head| head.verdict == "Complete" && head.began > moment && head.began <= Utc::now();
    for head in heads(topics).into_iter().filter(is_since) {
        complete.entry(head.scope).or_default().insert(head.sweep);
    }
    complete
}

/// All of it, at the end.
pub struct Evidence {
    raw: Vec<Read>,
    heads: Vec<Head>,
    model: BTreeMap<String, Machine>,
    listings: Vec<Listing>,
    /// Raw records that no consumer sees.
    pub aborted: usize,
    pub tombstones: usize,
}

impl Evidence {
    pub fn gather(topics: &TestTopics, ec2: &FastEc2) -> Self {
        let raw = topics.read("raw");
        let aborted = topics.read_uncommitted("raw").len() - raw.len();
        let tombstones = raw.iter().filter(|record| record.value.is_none()).count();
        Self { heads: heads(topics), model: ec2.model(), listings: ec2.listings(), aborted, tombstones, raw }
    }

    pub fn summary(&self) -> String {
        let sweeps = |verdict: &str| self.of_verdict(verdict).len();
        format!(
            "{} instances ever, {} listings; {} raw records of {} instances, {} of them tombstones, {} more aborted; {} \
             sweeps were complete, {} incomplete, {} died; {} instances were published by those alone; {} times an \
             instance was as it was throughout a complete sweep",
            self.model.len(),
            self.listings.len(),
            self.raw.len(),
            self.raw.iter().map(Read::key).collect::<BTreeSet<_>>().len(),
            self.tombstones,
            self.aborted,
            sweeps("Complete"),
            sweeps("Incomplete"),
            self.died().len(),
            self.ghosts(),
            self.steady().len(),
        )
    }

    /// The last word of each sweep that ended so.
    fn of_verdict(&self, verdict: &str) -> BTreeMap<&str, &Head> {
        let heads = self.heads.iter().filter(|head| head.verdict == verdict);
        heads.map(|head| (head.sweep.as_str(), head)).collect()
    }

    /// Sweeps that never had a verdict.
    fn died(&self) -> BTreeSet<&str> {
        let ended: BTreeSet<_> =
            self.heads.iter().filter(|head| head.ended.is_some()).map(|head| &head.sweep).collect();
        self.heads.iter().filter(|head| !ended.contains(&head.sweep)).map(|head| head.sweep.as_str()).collect()
    }

    /// Instances that only sweeps that died have published.
    fn ghosts(&self) -> usize {
        let died = self.died();
        let (by_dead, by_others): (Vec<_>, Vec<_>) = self
            .raw
            .iter()
            .filter(|record| record.value.is_some())
            .partition(|record| died.contains(record.header("sweep-id").unwrap()));
        let ids =
            |records: Vec<&Read>| records.into_iter().map(|record| record.key().to_owned()).collect::<BTreeSet<_>>();
        ids(by_dead).difference(&ids(by_others)).count()
    }

    /// Whose last record is not what EC2 shows: no change is lost, and no ghost remains.
    pub fn wrong_at_the_end(&self) -> Vec<String> {
        let last: BTreeMap<&str, &Read> = self.raw.iter().map(|record| (record.key(), record)).collect();
        let unknown = last.keys().filter(|id| !self.model.contains_key(**id)).map(|id| format!("{id}: never was"));
        let wrong = self.model.values().filter_map(|machine| {
            let is_right = match last.get(machine.id.as_str()) {
                // It came and went unseen.
                None => machine.now().state == State::Vanished,
                Some(record) if machine.is_listed() => shows(record, machine.now()),
                Some(record) => record.value.is_none(),
            };
            (!is_right)
                .then(|| format!("{}: {:?}, told as {}", machine.id, machine.now(), told(last.get(&*machine.id))))
        });
        unknown.chain(wrong).collect()
    }

    /// Tombstones of what EC2 listed then, or had not failed to list twice.
    pub fn false_removals(&self) -> Vec<String> {
        let mut before = BTreeMap::new();
        let mut wrong = Vec::new();
        for record in &self.raw {
            if record.value.is_some() {
                before.insert(record.key(), record);
                continue;
            }
            let Some(machine) = self.model.get(record.key()) else { continue };
            let at = observed_at(record);
            let was_ending =
                before.get(record.key()).is_some_and(|record| record.json()["State"]["Name"] == "terminated");
            let missed = self.listings.iter().filter(|listing| {
                let is_its = listing.account == machine.account && listing.region == machine.region;
                let ended = listing.ended.filter(|ended| *ended <= at + CLOCK);
                is_its && !listing.is_filtered && ended.is_some_and(|ended| was_hidden(machine, listing.began, ended))
            });
            let missed = missed.count();
            if !was_hidden(machine, at, at + CLOCK) || missed < if was_ending { 1 } else { 2 } {
                wrong.push(format!(
                    "{}: {}, missed by {missed} listings; {:?}",
                    record.key(),
                    told(Some(&record)),
                    machine.history
                ));
            }
        }
        wrong
    }

    /// Records of a sweep behind those of a later sweep of the same scope: the IDs of sweeps grow with time.
    pub fn steps_back(&self) -> Vec<String> {
        let mut newest = BTreeMap::<(i32, String), &str>::new();
        let mut wrong = Vec::new();
        let raw = self.raw.iter().map(|record| {
            let header = |name| record.header(name).unwrap();
            let scope = ["source", "aws-account", "aws-region"].map(header).join("/");
            (record.partition, scope, header("sweep-id"), format!("raw {}@{}", record.partition, record.offset))
        });
        let heads = self.heads.iter().map(|head| (-1, head.scope.clone(), head.sweep.as_str(), "sweeps".to_owned()));
        for (partition, scope, sweep, place) in raw.chain(heads) {
            let newest = newest.entry((partition, scope.clone())).or_insert(sweep);
            if sweep < *newest {
                wrong.push(format!("{place}: {sweep} of {scope} behind {newest}"));
            }
            *newest = sweep.max(newest);
        }
        wrong
    }

    /// Complete sweeps of one slot of the schedule: an interval each, from the scope's own phase.
    pub fn double_sweeps(&self, interval: Duration) -> Vec<String> {
        let interval = interval.as_millis() as i64;
        let mut slots = BTreeMap::<_, Vec<_>>::new();
        for head in self.of_verdict("Complete").into_values() {
            let phase = i64::from(partition_for(head.scope.as_bytes(), interval as i32));
            let slot = (head.began.timestamp_millis() - phase).div_euclid(interval);
            slots.entry((&head.scope, slot)).or_default().push((head.began, head.ended, &head.sweep));
        }
        let double = slots.into_iter().filter(|(_, sweeps)| sweeps.len() > 1);
        double.map(|((scope, slot), sweeps)| format!("{scope}, slot {slot}: {sweeps:?}")).collect()
    }

    /// What EC2 showed from the beginning of a complete sweep to its end, without a change: sweep, instance, fields.
    fn steady(&self) -> Vec<(&Head, &Machine, &Fields)> {
        let mut steady = Vec::new();
        for head in self.of_verdict("Complete").into_values() {
            let Some(sweep_ended) = head.ended else { continue };
            let of_scope = |account: &str, region: &str| head.scope == format!("fleet/{account}/{region}");
            // Its own listing, where only one was begun meanwhile: shorter than the sweep, so more is steady.
            let within: Vec<_> = self
                .listings
                .iter()
                .filter(|listing| of_scope(&listing.account, &listing.region) && !listing.is_filtered)
                .filter(|listing| listing.began >= head.began && listing.began <= sweep_ended)
                .collect();
            let (began, ended) = match within[..] {
                [Listing { began, ended: Some(ended), .. }] => (*began, *ended),
                _ => (head.began, sweep_ended),
            };
            for machine in self.model.values().filter(|machine| of_scope(&machine.account, &machine.region)) {
                let fields = machine.throughout(began, ended).filter(|fields| fields.state != State::Vanished);
                steady.extend(fields.map(|fields| (head, machine, fields)));
            }
        }
        steady
    }

    /// What a complete sweep has not published though EC2 showed it all the while.
    pub fn lost(&self) -> Vec<String> {
        let mut published = BTreeMap::<_, Vec<_>>::new();
        for record in self.raw.iter().filter(|record| record.value.is_some()) {
            published.entry((record.header("sweep-id").unwrap(), record.key())).or_default().push(record);
        }
        let is_lost = |(head, machine, fields): &(&Head, &Machine, &Fields)| {
            let records = published.get(&(head.sweep.as_str(), machine.id.as_str()));
            !records.is_some_and(|records| records.iter().any(|record| shows(record, fields)))
        };
        let lost = self.steady().into_iter().filter(is_lost);
        lost.map(|(head, machine, fields)| format!("{} {}: {}: {fields:?}", head.scope, head.sweep, machine.id))
            .collect()
    }

    /// Sweeps that want an operator: as much does not vanish here.
    pub fn held(&self) -> Vec<String> {
        self.of_verdict("Held").into_values().map(|head| format!("{} {}", head.scope, head.sweep)).collect()
    }
}

/// Whether it was vanished at some moment of a time.
fn was_hidden(machine: &Machine, from: DateTime<Utc>, to: DateTime<Utc>) -> bool {
    let is_vanished = |fields: &Fields| fields.state == State::Vanished;
    let at_first = machine.history.iter().rev().find(|(at, _)| *at <= from);
    at_first.is_some_and(|(_, fields)| is_vanished(fields))
        || machine.history.iter().any(|(at, fields)| from < *at && *at <= to && is_vanished(fields))
}

/// Whether a raw record shows an instance so.
fn shows(record: &Read, fields: &Fields) -> bool {
    if record.value.is_none() {
        return false;
    }
    let instance = record.json();
    let tags = instance["Tags"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let tags: BTreeMap<_, _> = tags.iter().map(|tag| (text(&tag["Key"]), text(&tag["Value"]))).collect();
    instance["State"]["Name"] == fields.state.name()
        && instance["LaunchTime"] == fields.launched_at.to_rfc3339_opts(SecondsFormat::Millis, true)
        && tags == fields.tags
}

fn observed_at(record: &Read) -> DateTime<Utc> {
    record.header("observed-at").unwrap().parse().unwrap()
}

fn told(record: Option<&&Read>) -> String {
    let Some(record) = record else { return "nothing".to_owned() };
    let what = record.value.as_ref().map(|_| record.json());
    let of = |value: &Value| format!("{} {} {}", value["State"]["Name"], value["LaunchTime"], value["Tags"]);
    format!(
        "{}@{} {} of {}",
        record.partition,
        record.offset,
        what.as_ref().map_or("tombstone".to_owned(), of),
        record.header("observed-at").unwrap_or_default()
    )
}
