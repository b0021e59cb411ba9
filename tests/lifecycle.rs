//! A device's life over restarts, and states that others wrote: other profiles, newer and older mappings.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::BaseProducer;
use rollcall::mapper::changelog::Changelog;
use rollcall::mapper::state::{DeviceState, Life};
use rollcall::profile::{Fingerprint, MAPPING_VERSION, Profile};
use rollcall::record::partition_for;
use serde_json::{Value, json};

use crate::support::kafka::{Read, TestTopics, flush, producer, send};
use crate::support::process::Stage;
use crate::support::stages::{map_all, wait_until_mapped};
use crate::support::{server, wait_for};

const LIMIT: Duration = Duration::from_secs(60);
const ID: &str = "i-0123456789abcdef0";

/// A raw topic that others fill, and a mapper that is started for each step.
struct Pipeline {
    topics: TestTopics,
    config: Value,
    producer: BaseProducer,
}

fn instance(id: &str, state: &str) -> Option<Value> {
    let zone = "eu-west-1a";
    Some(json!({
        "InstanceId": id, "OwnerId": "111122223333", "State": {"Name": state}, "Placement": {"AvailabilityZone": zone},
    }))
}

/// A moment of the day on which all of this happens.
fn at(minute: u32) -> String {
    format!("2026-02-01T10:{minute:02}:00.000Z")
}

impl Pipeline {
    fn new(partitions: i32) -> Self {
        let topics = TestTopics::create(partitions);
        Self { config: topics.config(), topics, producer: producer() }
    }

    /// A sweep of a minute tells of an instance.
    fn tells(&self, id: &str, value: Option<Value>, minute: u32) {
        let value = value.map(|value| value.to_string());
        let headers = [("observed-at", at(minute)), ("sweep-id", format!("sweep-{minute}"))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        let raw = self.topics.name("raw");
        send(&self.producer, &raw, Some(id.as_bytes()), value.as_deref().map(str::as_bytes), &headers, None);
        flush(&self.producer);
    }

    /// A mapper starts, maps what is there, and ends; all events so far, as change, reason and revision.
    fn mapped(&self) -> Vec<String> {
        map_all(&self.topics, &self.config);
        self.topics.read("events").iter().map(told).collect()
    }

    fn states(&self) -> BTreeMap<String, DeviceState> {
        let changelog = Changelog::new(Profile::Sekoia).unwrap();
        self.topics.table("state").into_iter().map(|(id, value)| (id, changelog.decode(&value).unwrap())).collect()
    }

    /// Writes a state as another release would.
    fn writes_state(&self, id: &str, value: &[u8]) {
        let partition = partition_for(id.as_bytes(), self.topics.partitions);
        send(&self.producer, &self.topics.name("state"), Some(id.as_bytes()), Some(value), &[], Some(partition));
        flush(&self.producer);
    }

    /// A mapper starts, holds a partition and says why; then it ends. Nothing was written and nothing committed.
    fn is_held(&self, config: &Value, says: &str) {
        let everything = || ["events", "state", "dlq"].map(|topic| self.topics.read(topic));
        let (before, committed) = (everything(), self.topics.committed("mapper", "raw"));
        let mut mapper = Stage::start(&["map"], config);
        let held = mapper.wait_for("partition held", LIMIT);
        let reason = held["reason"].as_str().unwrap();
        assert!(reason.contains(says) && reason.contains(ID), "{says:?} and the key not in {reason}");
        wait_for("not ready, with the reason", LIMIT, || {
            let ready = mapper.get("/readyz");
            assert!(!ready.contains(ID), "anybody may read this: {ready}");
            (ready.starts_with("HTTP/1.1 503") && ready.contains("raw partition 0") && ready.contains(says))
                .then_some(())
        });
        assert_eq!(mapper.stop(), Some(0));
        assert_eq!(everything(), before);
        assert_eq!(self.topics.committed("mapper", "raw"), committed);
    }
}

fn told(event: &Read) -> String {
    let of = |name| event.header(name).unwrap_or("-");
    format!("{} {} {}", of("change"), of("reason"), of("revision"))
}

// === Removals ===

#[test]
fn what_was_terminated_and_is_running_in_the_cache_of_a_later_sweep_does_not_come_back() {
    let pipeline = Pipeline::new(1);
    pipeline.tells(ID, instance(ID, "running"), 0);
    pipeline.tells(ID, instance(ID, "terminated"), 5);
    pipeline.tells(ID, instance(ID, "running"), 10);
    let life = ["created - 1", "removed terminated 2"];
    assert_eq!(pipeline.mapped(), life);
    // A mapper that has it from the state topic decides the same.
    pipeline.tells(ID, instance(ID, "running"), 15);
    pipeline.tells(ID, None, 20);
    pipeline.tells(ID, instance(ID, "stopped"), 25);
    assert_eq!(pipeline.mapped(), life);
}

#[test]
fn what_vanished_and_returns_is_created_again_by_a_newer_observation_and_by_no_older_one() {
    let pipeline = Pipeline::new(1);
    pipeline.tells(ID, instance(ID, "running"), 0);
    pipeline.tells(ID, None, 10);
    let mut life = vec!["created - 1", "removed absent 2"];
    assert_eq!(pipeline.mapped(), life);

    pipeline.tells(ID, instance(ID, "stopped"), 5);
    pipeline.tells(ID, instance(ID, "running"), 10);
    let mut mapper = Stage::start(&["map"], &pipeline.config);
    wait_until_mapped(&pipeline.topics);
    // It counts once it has heard of its commit.
    wait_for("two stale records", LIMIT, || {
        (mapper.metric("rollcall_mapper_records_total", "stale") == 2.0).then_some(())
    });
    assert_eq!(mapper.stop(), Some(0));
    assert_eq!(pipeline.mapped(), life, "an observation that is not newer than the removal brought it back");

    pipeline.tells(ID, instance(ID, "running"), 20);
    life.push("created - 3");
    assert_eq!(pipeline.mapped(), life);
    let state = &pipeline.states()[ID];
    let ms = |minute| chrono::DateTime::parse_from_rfc3339(&at(minute)).unwrap().timestamp_millis();
    assert_eq!((state.first_seen, state.last_change, state.revision), (ms(0), ms(20), 3));
}

// === Foreign producers ===

#[test]
fn of_a_producer_with_another_partitioner_the_misrouted_are_dead_letters_and_the_others_flow() {
    let pipeline = Pipeline::new(3);
    // librdkafka's own, CRC32.
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", server("KAFKA")).set("partitioner", "consistent");
    let foreign: BaseProducer = config.create().unwrap();
    let ids: BTreeSet<_> = (0..60).map(|number| format!("i-{number:017x}")).collect();
    for id in &ids {
        let value = instance(id, "running").unwrap().to_string();
        send(&foreign, &pipeline.topics.name("raw"), Some(id.as_bytes()), Some(value.as_bytes()), &[], None);
    }
    flush(&foreign);
    let events = pipeline.mapped().len();
    let is_at_home = |record: &Read| record.partition == partition_for(record.key().as_bytes(), 3);
    let (right, wrong): (Vec<_>, Vec<_>) = pipeline.topics.read("raw").into_iter().partition(is_at_home);
    let keys =
        |records: &[Read]| -> BTreeSet<String> { records.iter().map(|record| record.key().to_owned()).collect() };
    let letters = pipeline.topics.read("dlq");
    assert_eq!((events, letters.len()), (right.len(), wrong.len()));
    assert!(events > 5 && letters.len() > 5, "{events} events and {} dead letters put it to no test", letters.len());
    assert_eq!(keys(&pipeline.topics.read("events")), keys(&right));
    assert_eq!(keys(&letters), keys(&wrong));
    assert!(letters.iter().all(|letter| letter.header("error-kind") == Some("misrouted")));
}

// === States that others wrote ===

#[test]
fn another_profile_on_existing_state_is_refused_and_says_what_it_needs() {
    let pipeline = Pipeline::new(1);
    pipeline.tells(ID, instance(ID, "running"), 0);
    pipeline.mapped();
    pipeline.tells(ID, instance(ID, "stopped"), 5);
    for profile in ["ocsf", "cse"] {
        let mut config = pipeline.config.clone();
        config["mapper"]["profile"] = profile.into();
        pipeline.is_held(&config, "a profile needs a group and a state topic of its own");
    }
    assert_eq!(pipeline.mapped(), ["created - 1", "updated - 2"]);
}

/// Where a state has its mapping version: behind the header of ten bytes and the profile's name.
const VERSION_AT: usize = 10 + 1 + "sekoia".len();

/// The same state, as a mapping of another version wrote it.
fn by_version(state: &[u8], version: u8) -> Vec<u8> {
    let mut written = state.to_vec();
    // Avro's zigzag.
    assert_eq!(i32::from(written[VERSION_AT]), 2 * MAPPING_VERSION);
    written[VERSION_AT] = 2 * version;
    written
}

#[test]
fn a_state_that_a_newer_mapping_wrote_holds_its_partition_and_is_not_rewritten() {
    let pipeline = Pipeline::new(1);
    pipeline.tells(ID, instance(ID, "running"), 0);
    pipeline.mapped();
    let state = pipeline.topics.table("state").remove(ID).unwrap();
    pipeline.writes_state(ID, &by_version(&state, MAPPING_VERSION as u8 + 1));
    pipeline.tells(ID, instance(ID, "stopped"), 5);
    pipeline.is_held(&pipeline.config, "upgrade this one");
}

#[test]
fn after_an_upgrade_the_next_sweep_remaps_the_devices_that_come_out_otherwise_and_no_others() {
    const DEVICES: usize = 40;
    let pipeline = Pipeline::new(2);
    let ids: Vec<_> = (0..DEVICES).map(|number| format!("i-{number:017x}")).collect();
    let sweep = |minute| ids.iter().for_each(|id| pipeline.tells(id, instance(id, "running"), minute));
    sweep(0);
    assert_eq!(pipeline.mapped().len(), DEVICES);

    // As if the last release had another name for the vendor in some of them.
    let changelog = Changelog::new(Profile::Sekoia).unwrap();
    let otherwise: BTreeSet<_> = ids.iter().step_by(13).cloned().collect();
    for (id, mut state) in pipeline.states() {
        if let Life::Present(rendering) = &mut state.life {
            rendering.known.fingerprint = Fingerprint(7);
            if otherwise.contains(&id) {
                let device = rendering.device.replace("\"eu-west-1a\"", "\"eu-west-1\"");
                assert_ne!(*device, *rendering.device);
                rendering.device = device;
            }
        }
        pipeline.writes_state(&id, &by_version(&changelog.encode(&state).unwrap(), MAPPING_VERSION as u8 - 1));
    }
    for minute in [5, 10] {
        sweep(minute);
        pipeline.mapped();
        let events = pipeline.topics.read("events");
        let remapped: BTreeMap<_, _> =
            events.iter().filter(|event| told(event) == "remapped - 2").map(|event| (event.key(), event)).collect();
        assert!(remapped.keys().copied().eq(otherwise.iter().map(String::as_str)), "{:?}", remapped.keys());
        assert!(remapped.values().all(|event| event.header("changed") == Some(r#"["device.region"]"#)));
        assert_eq!(events.len(), DEVICES + otherwise.len(), "more came out");
    }
}
