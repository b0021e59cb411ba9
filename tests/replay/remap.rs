//! `replay --dry-run` and `--in-place`: what today's mapping makes of what the live mapper has read.
//!
//! The change of the mapping: a mapper that ignores names runs first, and then the configuration lets them out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::DateTime;
use rollcall::mapper::changelog::Changelog;
use rollcall::mapper::state::{DeviceState, Known, Life, Rendering};
use rollcall::profile::{Fingerprint, Profile};
use rollcall::record::{Digest, Secret, partition_for};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Replay, id};
use crate::support::kafka::{Read, TestTopics, flush, send};
use crate::support::process::Stage;
use crate::support::stages::{map_all, wait_until_mapped};
use crate::support::wait_for;

const PARTITIONS: i32 = 4;
const LIMIT: Duration = Duration::from_secs(60);
const PROFILES: [&str; 2] = ["sekoia", "ocsf"];

// === Steps ===

/// Topics, and who writes to raw.
struct Trial {
    topics: TestTopics,
    profile: &'static str,
}

impl Trial {
    fn new(profile: &'static str) -> Self {
        Self { topics: TestTopics::create(PARTITIONS), profile }
    }

    /// Today's configuration.
    fn config(&self) -> Value {
        let mut config = self.topics.config();
        config["mapper"]["profile"] = json!(self.profile);
        config
    }

    /// The one before, to which a name alone was no change.
    fn config_before(&self) -> Value {
        let mut config = self.config();
        config["mapper"]["ignore"] = json!({"fields": ["device.name"], "tags": ["Name"]});
        config
    }

    /// Produces raw records, each of a device, seen at a second, as this value.
    fn see(&self, records: &[(&str, i64, Option<Value>)]) {
        let producer = self.topics.producer();
        for (id, at, value) in records {
            let value = value.as_ref().map(|value| value.to_string().into_bytes());
            let at = [("observed-at", time(*at))];
            let headers = at.each_ref().map(|(name, value)| (*name, value.as_str()));
            send(&producer, &self.topics.name("raw"), Some(id.as_bytes()), value.as_deref(), &headers, None);
        }
        flush(&producer);
    }

    /// A sweep of a fleet: devices by number, with their names.
    fn sweep<'n>(&self, at: i64, devices: impl IntoIterator<Item = (usize, &'n str)>) {
        let devices: Vec<_> =
            devices.into_iter().map(|(number, name)| (id(number), running(&id(number), name))).collect();
        let records: Vec<_> = devices.iter().map(|(id, value)| (id.as_str(), at, Some(value.clone()))).collect();
        self.see(&records);
    }

    /// The events, without those that were there before.
    fn events(&self, before: usize) -> Vec<Read> {
        let mut events = self.topics.read("events");
        events.sort_by_key(|event| header(event, "change") == "remapped");
        events.split_off(before)
    }

    fn dry_run(&self) -> Report {
        Report::of(replay("--dry-run", &self.config()).expect(0))
    }

    fn in_place(&self) -> Report {
        Report::of(replay("--in-place", &self.config()).expect(0))
    }

    /// Waits until the group has no members any more: of one that was killed the session must end.
    fn in_place_when_alone(&self) -> Report {
        wait_for("the group to be empty", LIMIT, || {
            let ended = replay("--in-place", &self.config());
            let is_in_use = ended.code == 1 && ended.stderr.contains("has other members");
            (!is_in_use).then(|| Report::of(ended.expect(0)))
        })
    }
}

fn time(at: i64) -> String {
    let at = DateTime::from_timestamp_millis(1_780_000_000_000 + at * 1000).unwrap();
    at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

fn instance(id: &str, name: &str, state: &str, kind: &str) -> Value {
    json!({
        "InstanceId": id, "OwnerId": "123456789012", "InstanceType": kind, "State": {"Code": 16, "Name": state},
        "LaunchTime": "2026-01-01T00:00:00.000Z", "Tags": [{"Key": "Name", "Value": name}],
    })
}

fn running(id: &str, name: &str) -> Value {
    instance(id, name, "running", "m5.large")
}

struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        self
    }
}

fn replay(mode: &str, config: &Value) -> Ended {
    replay_as(mode, "json", config)
}

fn replay_as(mode: &str, form: &str, config: &Value) -> Ended {
    let (code, stdout, stderr) = Replay::start(&[mode, "--output", form], config).end();
    Ended { code: code.unwrap(), stdout, stderr }
}

// === Views ===

/// What `--output json` tells.
#[derive(Debug)]
struct Report {
    changes: Vec<Value>,
    summary: Value,
}

impl Report {
    fn of(ended: Ended) -> Self {
        let mut lines: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let summary = lines.pop().expect("a summary");
        assert_eq!(summary["type"], "summary");
        let report = Self { changes: lines, summary };
        let of = |name: &str| report.summary[name].as_u64().unwrap();
        let left = ["without_record", "ends"].map(|name| report.summary[name]["count"].as_u64().unwrap());
        assert_eq!(of("devices"), of("changed") + of("unchanged") + left[0] + left[1], "{}", report.summary);
        assert_eq!(of("changed"), report.changes.len() as u64);
        report
    }

    /// The devices with all that is told of them, in the order of their IDs.
    fn devices(&self) -> BTreeMap<&str, Value> {
        let devices: BTreeMap<_, _> =
            self.changes.iter().map(|change| (change["device"].as_str().unwrap(), change.clone())).collect();
        assert_eq!(devices.len(), self.changes.len(), "a device twice");
        devices
    }

    fn count(&self, name: &str) -> Value {
        self.summary[name].get("count").unwrap_or(&self.summary[name]).clone()
    }
}

fn header<'e>(event: &'e Read, name: &str) -> &'e str {
    event.header(name).unwrap_or_default()
}

/// What an event says, as a report would tell it.
fn told(event: &Read) -> Value {
    let number = |name: &str| header(event, name).parse::<i64>().unwrap();
    let json = |name: &str| serde_json::from_str::<Value>(header(event, name)).unwrap();
    json!({
        "type": "change", "device": event.key(), "revision": number("revision"),
        "raw_partition": number("raw-partition"), "raw_offset": number("raw-offset"),
        "changed": json("changed"), "diff": json("diff"),
    })
}

/// That the events are remappings of just these devices, each once.
fn assert_remapped_once(events: &[Read], devices: impl IntoIterator<Item = usize>) {
    assert!(events.iter().all(|event| header(event, "change") == "remapped"));
    let mut keys: Vec<_> = events.iter().map(Read::key).collect();
    keys.sort_unstable();
    assert_eq!(keys, Vec::from_iter(devices.into_iter().map(id)));
}

// === What comes out ===

#[test]
fn a_dry_run_names_exactly_the_devices_and_fields_that_in_place_then_lets_out() {
    for profile in PROFILES {
        let trial = Trial::new(profile);
        trial.sweep(1, (0..40).map(|n| (n, "a")));
        // Renamed: nothing to this mapper. Of some the type changes as well: their new name rides on that.
        trial.sweep(2, (0..15).map(|n| (n, "b")));
        let of = |n: usize, state, kind| instance(&id(n), "b", state, kind);
        let ids: Vec<_> = (15..23).map(id).collect();
        let ends = |n: usize| if n < 20 { of(n, "running", "m5.xlarge") } else { of(n, "terminated", "m5.large") };
        let records: Vec<_> = ids.iter().zip(15..).map(|(id, n)| (id.as_str(), 2, Some(ends(n)))).collect();
        trial.see(&records);
        // An equal sweep: the newest record of a device is not the one that it was last written from.
        trial.sweep(3, (0..15).map(|n| (n, "b")));
        map_all(&trial.topics, &trial.config_before());
        let before = trial.topics.read("events").len();
        assert_eq!(before, 40 + 8, "{profile}: a name alone came out");

        let would = trial.dry_run();
        assert_eq!(trial.topics.read("events").len(), before);
        assert_eq!(Vec::from_iter(would.devices().into_keys()), Vec::from_iter((0..15).map(id)), "{profile}");
        assert_eq!((would.count("devices"), would.count("gone")), (json!(37), json!(3)));
        for change in &would.changes {
            let paths = change["changed"].as_array().unwrap();
            assert!(paths.contains(&json!("device.name")), "{change}");
            let name = change["diff"].as_array().unwrap().iter().find(|field| field["path"] == "device.name").unwrap();
            assert_eq!((&name["from"], &name["to"]), (&json!("a"), &json!("b")));
        }
        let fields = would.summary["fields"].as_array().unwrap();
        assert!(fields.contains(&json!({"path": "device.name", "devices": 15})), "{fields:?}");

        let did = trial.in_place();
        let events = trial.events(before);
        assert_remapped_once(&events, 0..15);
        let emitted: BTreeMap<_, _> = events.iter().map(|event| (event.key(), told(event))).collect();
        assert_eq!(would.devices(), emitted, "{profile}");
        assert_eq!(did.devices(), emitted, "{profile}");
        for event in &events {
            assert_eq!(header(event, "revision"), "2");
            assert_eq!(header(event, "observed-at"), time(3));
            assert_eq!(header(event, "profile"), profile);
            if profile == "ocsf" {
                let at = |name: &str| event.json()["device"][name].clone();
                assert_eq!(at("modified_time_dt"), time(1), "a remapping is no change of the device");
            }
        }
        let [mut would, mut did] = [would.summary, did.summary];
        assert_eq!((would["mode"].take(), did["mode"].take()), (json!("dry-run"), json!("in-place")));
        assert_eq!(would, did);
    }
}

#[test]
fn what_has_come_out_in_place_does_not_again_and_the_live_mapper_goes_on_from_it() {
    for profile in PROFILES {
        let trial = Trial::new(profile);
        trial.sweep(1, (0..20).map(|n| (n, "a")));
        trial.sweep(2, (0..10).map(|n| (n, "b")));
        map_all(&trial.topics, &trial.config_before());
        let offsets = trial.topics.committed("mapper", "raw");
        assert_eq!(trial.in_place().changes.len(), 10);
        assert_eq!(trial.topics.committed("mapper", "raw"), offsets);
        let (events, states) = (trial.topics.read("events"), trial.topics.read("state"));

        assert_eq!(trial.in_place().changes, [json!(null); 0]);
        assert_eq!(trial.dry_run().changes, [json!(null); 0]);
        assert_eq!(trial.topics.read("events"), events, "{profile}");
        assert_eq!(trial.topics.read("state"), states, "{profile}: unchanged devices cost something");

        trial.sweep(3, (0..20).map(|n| (n, if n < 10 { "b" } else { "a" })));
        map_all(&trial.topics, &trial.config());
        assert_eq!(trial.topics.read("events"), events, "{profile}: the live mapper was not quiet");
        trial.sweep(4, [(0, "c"), (10, "c")]);
        map_all(&trial.topics, &trial.config());
        let known: BTreeSet<_> = events.iter().map(|event| (event.partition, event.offset)).collect();
        let all = trial.topics.read("events");
        let news = all.iter().filter(|event| !known.contains(&(event.partition, event.offset)));
        let news: BTreeMap<_, _> =
            news.map(|event| (event.key(), (header(event, "change"), header(event, "revision")))).collect();
        let (remapped, other) = (id(0), id(10));
        let expected = [(remapped.as_str(), ("updated", "3")), (other.as_str(), ("updated", "2"))];
        assert_eq!(news, BTreeMap::from(expected), "{profile}");
    }
}

#[test]
fn late_news_turns_no_device_back_and_what_is_gone_stays_gone() {
    let trial = Trial::new("sekoia");
    let [renamed, changed, terminated, absent] = [id(0), id(1), id(2), id(3)];
    let ids = [&renamed, &changed, &terminated, &absent];
    trial.see(&ids.map(|id| (id.as_str(), 10, Some(running(id, "a")))));
    trial.see(&[
        (&renamed, 20, Some(running(&renamed, "b"))),
        // Older than what came before it, newer than what the state was written from.
        (&renamed, 15, Some(running(&renamed, "stale"))),
        (&changed, 20, Some(instance(&changed, "b", "running", "m5.xlarge"))),
        (&changed, 15, Some(running(&changed, "stale"))),
        (&terminated, 20, Some(instance(&terminated, "a", "terminated", "m5.large"))),
        // A cached read.
        (&terminated, 30, Some(running(&terminated, "back"))),
        (&absent, 20, None),
        (&absent, 15, Some(running(&absent, "stale"))),
    ]);
    map_all(&trial.topics, &trial.config_before());
    let before = trial.topics.read("events").len();
    assert_eq!(before, 4 + 3);

    let would = trial.dry_run();
    assert_eq!(trial.in_place().devices(), would.devices());
    let events = trial.events(before);
    assert_remapped_once(&events, [0]);
    assert_eq!(events[0].json()["device"]["name"], "b");
    assert_eq!((would.count("devices"), would.count("gone")), (json!(2), json!(2)));
}

#[test]
fn where_the_newest_record_is_rejected_an_older_one_counts_and_dead_letters_stay_dead() {
    let trial = Trial::new("sekoia");
    let [device, unknown, ending] = [id(0), id(1), id(2)];
    let mut long = running(&unknown, "long");
    long["Padding"] = json!("x".repeat(1000));
    let mut end = instance(&ending, "a", "terminated", "m5.large");
    end["Padding"] = json!("x".repeat(1000));
    trial.see(&[
        (&device, 1, Some(running(&device, "a"))),
        (&device, 2, Some(running(&device, "b"))),
        (&device, 3, Some(json!(["no instance"]))),
        (&unknown, 1, Some(long)),
        (&ending, 1, Some(running(&ending, "a"))),
        (&ending, 2, Some(end)),
    ]);
    let mut config = trial.config_before();
    config["mapper"]["max_record_bytes"] = json!(500);
    map_all(&trial.topics, &config);
    let before = trial.topics.read("events").len();
    assert_eq!((before, trial.topics.read("dlq").len()), (2, 3));

    let would = trial.dry_run();
    let did = trial.in_place();
    assert_eq!(did.devices(), would.devices());
    let events = trial.events(before);
    assert_remapped_once(&events, [0]);
    assert_eq!(events[0].json()["device"]["name"], "b");
    assert_eq!(did.summary["rejected"], json!({"not-an-object": 1}));
    assert_eq!(did.summary["unknown"], json!({"count": 1, "samples": [unknown]}));
    assert_eq!(did.summary["ends"], json!({"count": 1, "samples": [ending]}));
    assert_eq!(trial.topics.read("dlq").len(), 3);
}

// === States of other releases ===

/// A state as an older mapping would have written it, from the record at that offset.
fn crafted(profile: Profile, value: Option<&Value>, raw_offset: i64) -> Vec<u8> {
    let value = value.map_or_else(String::new, Value::to_string);
    let digest = Digest::by(Secret([1; 32]), value.as_bytes(), None, None);
    let known = Known { digest, fingerprint: Fingerprint(1) };
    let device = r#"{"uid":"old"}"#.into();
    let seen = DateTime::parse_from_rfc3339(&time(1)).unwrap().timestamp_millis();
    let state = DeviceState {
        revision: 7,
        observed_at: seen,
        raw_offset,
        first_seen: seen,
        last_change: seen,
        life: Life::Present(Rendering { known, device }),
    };
    Changelog::new(profile).unwrap().encode(&state).unwrap()
}

/// Writes a state of a device; its partition.
fn put_state(trial: &Trial, id: &str, state: &[u8]) -> i32 {
    let producer = trial.topics.producer();
    let partition = partition_for(id.as_bytes(), PARTITIONS);
    send(&producer, &trial.topics.name("state"), Some(id.as_bytes()), Some(state), &[], Some(partition));
    flush(&producer);
    partition
}

#[test]
fn what_an_older_mapping_has_written_comes_out_and_a_device_without_a_raw_record_is_named_and_left_alone() {
    let trial = Trial::new("sekoia");
    trial.sweep(1, (0..20).map(|n| (n, "a")));
    map_all(&trial.topics, &trial.config());
    let before = trial.topics.read("events").len();
    let raw = trial.topics.read("raw");
    let record = raw.iter().find(|record| record.key() == id(3)).unwrap();
    put_state(&trial, &id(3), &crafted(Profile::Sekoia, Some(&running(&id(3), "a")), record.offset));
    put_state(&trial, &id(77), &crafted(Profile::Sekoia, None, 0));

    let would = trial.dry_run();
    let did = trial.in_place();
    assert_eq!(did.devices(), would.devices());
    let events = trial.events(before);
    assert_remapped_once(&events, [3]);
    assert_eq!(header(&events[0], "revision"), "8");
    assert_eq!(did.summary["without_record"], json!({"count": 1, "samples": [id(77)]}));
    assert_eq!(did.count("devices"), 21);
    assert_eq!(trial.topics.table("state")[&id(77)], crafted(Profile::Sekoia, None, 0));
}

#[test]
fn a_state_of_a_newer_mapping_or_of_another_profile_is_an_error_and_nothing_is_written() {
    let mut newer = crafted(Profile::Sekoia, None, 0);
    let version = newer.windows(6).position(|window| window == b"sekoia").unwrap() + 6;
    newer[version] += 2;
    for (state, complaint) in [(newer, "upgrade this one"), (crafted(Profile::Ocsf, None, 0), "ocsf")] {
        let trial = Trial::new("sekoia");
        trial.sweep(1, (0..20).map(|n| (n, "a")));
        trial.sweep(2, (0..20).map(|n| (n, "b")));
        map_all(&trial.topics, &trial.config_before());
        // In the last partition: those before it are done by then, if nobody has looked.
        let last = (100..).map(id).find(|id| partition_for(id.as_bytes(), PARTITIONS) == PARTITIONS - 1).unwrap();
        put_state(&trial, &last, &state);
        let (events, states) = (trial.topics.read_uncommitted("events"), trial.topics.read_uncommitted("state"));
        for mode in ["--dry-run", "--in-place"] {
            let ended = replay(mode, &trial.config()).expect(1);
            let told = &ended.stderr;
            assert!(told.contains(complaint) && told.contains(&last), "{mode}: {told}");
        }
        assert_eq!(trial.topics.read_uncommitted("events"), events);
        assert_eq!(trial.topics.read_uncommitted("state"), states);
    }
}

#[test]
fn offsets_that_are_not_the_mappers_are_an_error_and_nothing_read_yet_is_nothing() {
    let trial = Trial::new("sekoia");
    trial.sweep(1, (0..20).map(|n| (n, "a")));
    let nothing = trial.dry_run();
    assert_eq!((nothing.count("devices"), nothing.count("unknown")), (json!(0), json!(0)));
    map_all(&trial.topics, &trial.config_before());
    let mut config = trial.config();
    config["mapper"]["group_id"] = json!(trial.topics.name("misspelt"));
    for mode in ["--dry-run", "--in-place"] {
        let ended = replay(mode, &config).expect(1);
        assert!(ended.stderr.contains("mapper.group_id is not that of the mapper"), "{}", ended.stderr);
    }
}

// === Others in the group ===

#[test]
fn in_place_is_refused_while_a_mapper_runs_and_a_dry_run_is_not() {
    let quick = json!({"session.timeout.ms": 2000, "heartbeat.interval.ms": 200});
    for (protocol, properties) in [("classic", quick), ("consumer", json!({}))] {
        let trial = Trial::new("sekoia");
        let [mut before, mut config] = [trial.config_before(), trial.config()];
        for config in [&mut before, &mut config] {
            config["kafka"]["group_protocol"] = json!(protocol);
            config["kafka"]["properties"] = properties.clone();
        }
        trial.sweep(1, (0..20).map(|n| (n, "a")));
        trial.sweep(2, (0..5).map(|n| (n, "b")));
        let mapper = Stage::start(&["map"], &before);
        wait_until_mapped(&trial.topics);
        let states = trial.topics.read_uncommitted("state");

        let would = Report::of(replay("--dry-run", &config).expect(0));
        assert_eq!(would.changes.len(), 5);
        let ended = replay("--in-place", &config).expect(1);
        assert!(ended.stderr.contains("has other members"), "{protocol}: {}", ended.stderr);
        assert_eq!(trial.topics.read_uncommitted("state"), states);

        // The mapper is none the worse for it.
        trial.sweep(3, [(30, "a")]);
        wait_until_mapped(&trial.topics);
        assert_eq!(trial.topics.table("state").len(), 21);
        assert_eq!(mapper.stop(), Some(0));
        let did = Report::of(replay("--in-place", &config).expect(0));
        assert_eq!(did.devices(), would.devices(), "{protocol}");
    }
}

#[test]
fn a_dry_run_beside_a_busy_mapper_takes_no_change_of_a_device_for_one_of_the_mapping() {
    let trial = Trial::new("sekoia");
    trial.sweep(1, (0..200).map(|n| (n, "a")));
    // Quiet devices that today's mapping renders otherwise.
    trial.sweep(2, (0..10).map(|n| (n, "b")));
    let mapper = Stage::start(&["map"], &trial.config_before());
    wait_until_mapped(&trial.topics);
    let stop = CancellationToken::new();
    std::thread::scope(|scope| {
        // Also when something below fails.
        let _stop = stop.clone().drop_guard();
        scope.spawn(|| {
            for at in (3..).take_while(|_| !stop.is_cancelled()) {
                // The type is an update to the mapper, as it runs.
                let ids: Vec<_> = (100..200).map(id).collect();
                let value = |id: &String| instance(id, "a", "running", &format!("m{at}.large"));
                trial.see(&ids.iter().map(|id| (id.as_str(), at, Some(value(id)))).collect::<Vec<_>>());
                // A load, not a flood.
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        for _ in 0..4 {
            let mapped = || trial.topics.committed("mapper", "raw").into_values().sum::<i64>();
            let before = mapped();
            let would = trial.dry_run();
            let named: Vec<_> = would.devices().into_keys().map(str::to_owned).collect();
            assert_eq!(named, Vec::from_iter((0..10).map(id)), "{}", would.summary);
            assert_eq!((would.count("devices"), would.count("without_record")), (json!(200), json!(0)));
            assert!(mapped() > before, "the mapper was not busy");
        }
    });
    assert_eq!(mapper.stop(), Some(0));
}

const MANY: usize = 6000;

/// A fleet whose re-mapping takes some seconds.
fn long_trial() -> (Trial, Value, usize) {
    let trial = Trial::new("sekoia");
    trial.sweep(1, (0..MANY).map(|n| (n, "a")));
    trial.sweep(2, (0..MANY).map(|n| (n, "b")));
    map_all(&trial.topics, &trial.config_before());
    let before = trial.topics.read("events").len();
    assert_eq!(before, MANY);
    let mut config = trial.config();
    config["mapper"]["max_batch_records"] = json!(5);
    (trial, config, before)
}

#[test]
fn a_mapper_that_starts_under_way_ends_it_and_the_next_run_does_the_rest() {
    let (trial, config, before) = long_trial();
    let mut running = Stage::start(&["replay", "--in-place"], &config);
    running.wait_for("transaction committed", LIMIT);
    let mapper = Stage::start(&["map"], &trial.config());
    assert_eq!(running.wait(LIMIT).code(), Some(1));
    assert!(running.tail().contains("another member joined the group"), "{}", running.tail());
    let some = trial.topics.read("events").len() - before;
    assert!((1..MANY).contains(&some), "{some}");
    assert_eq!(mapper.stop(), Some(0));

    let rest = trial.in_place_when_alone();
    assert_eq!(rest.changes.len(), MANY - some);
    assert_remapped_once(&trial.events(before), 0..MANY);
}

#[test]
fn killed_at_any_moment_and_run_again_each_device_comes_out_once() {
    let (trial, config, before) = long_trial();
    let mut random = fastrand::Rng::with_seed(3);
    let mut kills = 0;
    for moment in ["transaction opened", "transaction committed", "transaction opened"] {
        wait_for("the group to be empty", LIMIT, || {
            let mut running = Stage::start(&["replay", "--in-place"], &config);
            running.try_wait_for(&[moment], LIMIT)?;
            std::thread::sleep(Duration::from_millis(random.u64(0..800)));
            running.kill();
            kills += 1;
            Some(())
        });
    }
    let some = trial.topics.read("events").len() - before;
    assert!((1..MANY).contains(&some), "{some}");
    let rest = trial.in_place_when_alone();
    assert_eq!(rest.changes.len(), MANY - some);
    let events = trial.events(before);
    assert_remapped_once(&events, 0..MANY);
    assert!(events.iter().all(|event| header(event, "revision") == "2"));
    let uncommitted = trial.topics.read_uncommitted("events").len() - events.len() - before;
    println!("{some} of {MANY} before the last run, {kills} kills; {uncommitted} written and never committed");
}

#[test]
fn one_that_the_group_gave_up_cannot_write_any_more() {
    let (trial, config, before) = long_trial();
    let mut running = Stage::start(&["replay", "--in-place"], &config);
    running.wait_for("transaction committed", LIMIT);
    running.signal("STOP");
    // Its session ends, and the partitions fall to a mapper.
    map_all(&trial.topics, &trial.config());
    let mapper = Stage::start(&["map"], &trial.config());
    trial.sweep(3, (0..MANY).map(|n| (n, "c")));
    wait_until_mapped(&trial.topics);
    let events = trial.topics.read("events");
    running.signal("CONT");
    assert_eq!(running.wait(LIMIT).code(), Some(1), "{}", running.tail());
    assert_eq!(trial.topics.read("events"), events);
    assert_eq!(mapper.stop(), Some(0));
    let updated = events.iter().filter(|event| header(event, "change") == "updated").count();
    assert_eq!(updated, MANY);
    assert!(events.len() > before + MANY, "nothing had come out before it was stopped");
}

#[test]
fn people_get_a_table() {
    let trial = Trial::new("sekoia");
    trial.sweep(1, (0..3).map(|n| (n, "a")));
    trial.sweep(2, [(1, "b")]);
    map_all(&trial.topics, &trial.config_before());
    let table = replay_as("--dry-run", "text", &trial.config()).expect(0).stdout;
    for line in [
        "        3  in the state",
        "        1  would be remapped",
        "        2  unchanged",
        "        1  device.name",
        r#"  device.name: "a" → "b""#,
    ] {
        assert!(table.lines().any(|told| told == line), "{line:?} is not in\n{table}");
    }
    assert!(!table.contains('\u{1b}'), "colours in a file");
}
