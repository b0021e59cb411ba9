//! What time and operators do to topics and groups while nobody looks: nothing is skipped silently, and each refusal
//! names remedies that work.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

use crate::collector::Pipeline;
use crate::support::kafka::{TestTopics, ends, flush, producer, send};
use crate::support::operator::{add_partitions, configure, delete_group, delete_records};
use crate::support::process::{Stage, config_file, rollcall};
use crate::support::stages::{map_all, wait_until_mapped};
use crate::support::{server, wait_for};

const LIMIT: Duration = Duration::from_secs(60);
const DEVICES: usize = 24;

fn ids() -> impl Iterator<Item = String> {
    (0..DEVICES).map(|number| format!("i-{number:017x}"))
}

fn value(id: &str, name: &str) -> String {
    json!({"InstanceId": id, "State": {"Name": "running"}, "Tags": [{"Key": "Name", "Value": name}]}).to_string()
}

/// Every device gets that name.
fn rename(topics: &TestTopics, name: &str) {
    let producer = producer();
    for id in ids() {
        send(&producer, &topics.name("raw"), Some(id.as_bytes()), Some(value(&id, name).as_bytes()), &[], None);
    }
    flush(&producer);
}

/// How often each name was told.
fn names(topics: &TestTopics) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for event in topics.read("events") {
        *names.entry(event.json()["device"]["name"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    names
}

fn told(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

/// A mapper that cannot go on: 1, and all of `parts` in what it says.
fn refuses(config: &Value, parts: &[&str]) {
    let mut mapper = Stage::start(&["map"], config);
    assert_eq!(mapper.wait(LIMIT).code(), Some(1), "log:\n{}", mapper.tail());
    // Its last words may still be on their way.
    wait_for("its last words", LIMIT, || {
        let said = mapper.tail();
        parts.iter().all(|part| said.contains(part)).then_some(())
    });
}

fn map_from_state(topics: &TestTopics, config: &Value) {
    let mapper = Stage::start(&["map", "--resume-from-state"], config);
    wait_until_mapped(topics);
    assert_eq!(mapper.stop(), Some(0));
}

// === Offsets ===

#[test]
fn deleted_offsets_stop_the_mapper_and_from_the_state_it_goes_on_without_a_loss_or_a_repetition() {
    let topics = TestTopics::create(3);
    let config = topics.config();
    rename(&topics, "one");
    map_all(&topics, &config);
    rename(&topics, "two");
    delete_group(&topics.name("mapper"));
    let remedies = ["no committed offset", "--resume-from-state", "sweeps reconcile", "mapper.group_id"];
    refuses(&config, &remedies);
    assert_eq!(names(&topics), told(&[("one", DEVICES)]));

    map_from_state(&topics, &config);
    assert_eq!(names(&topics), told(&[("one", DEVICES), ("two", DEVICES)]));
    // Once is enough, for partitions without news too.
    delete_group(&topics.name("mapper"));
    let mapper = Stage::start(&["map", "--resume-from-state"], &config);
    wait_for("new offsets", LIMIT, || (topics.committed("mapper", "raw").len() == 3).then_some(()));
    assert_eq!(mapper.stop(), Some(0));
    rename(&topics, "three");
    map_all(&topics, &config);
    assert_eq!(names(&topics), told(&[("one", DEVICES), ("two", DEVICES), ("three", DEVICES)]));
}

#[test]
fn records_that_were_deleted_unread_stop_the_mapper_and_from_the_state_it_goes_on_with_what_is_left() {
    let topics = TestTopics::create(1);
    let config = topics.config();
    rename(&topics, "one");
    map_all(&topics, &config);
    rename(&topics, "two");
    rename(&topics, "three");
    let left = 5;
    delete_records(&topics.name("raw"), &BTreeMap::from([(0, (3 * DEVICES - left) as i64)]));
    refuses(&config, &["were deleted unread", "--resume-from-state", "sweeps reconcile"]);
    assert_eq!(names(&topics), told(&[("one", DEVICES)]));
    map_from_state(&topics, &config);
    assert_eq!(names(&topics), told(&[("one", DEVICES), ("three", left)]));
    rename(&topics, "four");
    map_all(&topics, &config);
    assert_eq!(names(&topics), told(&[("one", DEVICES), ("three", left), ("four", DEVICES)]));
}

#[test]
fn a_partition_where_only_the_last_commit_marker_was_left_to_expire_goes_on() {
    let topics = TestTopics::create(1);
    let (raw, config) = (topics.name("raw"), topics.config());
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", server("KAFKA")).set("transactional.id", &topics.prefix);
    let producer: BaseProducer = client.create().unwrap();
    producer.init_transactions(LIMIT).unwrap();
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::to(&raw).key("i-1").payload(&value("i-1", "one"))).map_err(|(error, _)| error).unwrap();
    producer.commit_transaction(LIMIT).unwrap();
    map_all(&topics, &config);
    assert_eq!((topics.committed("mapper", "raw")[&0], ends(&raw, 1)[&0]), (1, 2));
    delete_records(&raw, &BTreeMap::from([(0, 2)]));
    rename(&topics, "two");
    map_all(&topics, &config);
    assert_eq!(names(&topics), told(&[("one", 1), ("two", DEVICES)]));
}

// === Partitions ===

#[test]
fn partitions_that_are_added_to_raw_while_the_mapper_runs_stop_it() {
    let topics = TestTopics::create(2);
    let mut config = topics.config();
    config["kafka"]["properties"]["topic.metadata.refresh.interval.ms"] = json!(500);
    let mut mapper = Stage::start(&["map"], &config);
    rename(&topics, "one");
    wait_until_mapped(&topics);
    add_partitions(&topics.name("raw"), 3);
    assert_eq!(mapper.wait(LIMIT).code(), Some(1), "log:\n{}", mapper.tail());
    let event = mapper.wait_for("the engine cannot go on", LIMIT);
    let error = event["error"].as_str().unwrap();
    for part in ["partition 2 was added", "had 2 when this process started", "create new topics"] {
        assert!(error.contains(part), "{part:?} not in {error}");
    }
    assert_eq!(names(&topics), told(&[("one", DEVICES)]));
}

#[test]
fn partitions_that_were_added_while_the_mapper_was_away_keep_it_from_starting() {
    let topics = TestTopics::create(2);
    let config = topics.config();
    rename(&topics, "one");
    map_all(&topics, &config);
    add_partitions(&topics.name("raw"), 3);
    refuses(&config, &["has 2 partitions, raw has 3", "create new topics"]);
    // Where somebody gave the state the same number, the states themselves tell.
    add_partitions(&topics.name("state"), 3);
    refuses(&config, &["partitions were added to raw and state", "create new topics"]);
    assert_eq!(names(&topics), told(&[("one", DEVICES)]));
}

// === Tombstones that were compacted away ===

/// `sweeps reconcile` with more arguments; its answer.
fn reconcile(config: &Value, more: &[&str]) -> Value {
    let file = config_file(config);
    let command = ["sweeps", "reconcile", "--output", "json", "-c"];
    let output = rollcall().args(command).arg(file.path()).args(more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn ids_of(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap()).collect()
}

#[test]
fn a_removal_whose_tombstone_was_compacted_away_unread_is_told_of_and_made_good() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.json");
    let fleet_is = |ids: &[&str]| {
        let placed = |id: &&str| json!({"InstanceId": id, "State": {"Name": "running"}, "Placement": {"AvailabilityZone": "eu-west-1a"}});
        std::fs::write(&path, json!(ids.iter().map(placed).collect::<Vec<_>>()).to_string()).unwrap();
    };
    let file = json!({"path": &path, "account": "111122223333", "region": "eu-west-1"});
    let pipeline = Pipeline::new(json!([{"name": "fleet", "interval": "10s", "category": "test/fleet", "file": file}]));
    let Pipeline { topics, config } = &pipeline;
    let raw = topics.name("raw");
    let settings = [("cleanup.policy", "compact"), ("segment.ms", "100"), ("min.cleanable.dirty.ratio", "0")];
    configure(&raw, &[&settings[..], &[("delete.retention.ms", "0"), ("max.message.bytes", "4000000")]].concat());

    // One that the collector does not know lies in another account.
    let foreign = json!({"InstanceId": "i-foreign", "OwnerId": "999999999999", "State": {"Name": "running"}});
    let producer = producer();
    send(&producer, &raw, Some(b"i-foreign"), Some(foreign.to_string().as_bytes()), &[], None);
    flush(&producer);
    fleet_is(&["i-1", "i-2", "i-3"]);
    pipeline.sweep();
    map_all(topics, config);
    fleet_is(&["i-2", "i-3"]);
    pipeline.sweep();
    assert_eq!(pipeline.sweep()[0]["removed"], 1);
    assert!(pipeline.removed().iter().any(|record| record.key() == "i-1"));
    // Each sweep closes a segment; the broker cleans closed ones, and takes tombstones at the second time.
    wait_for("the tombstone to be compacted away", Duration::from_secs(240), || {
        pipeline.sweep();
        pipeline.raw().iter().all(|record| record.key() != "i-1").then_some(())
    });

    let mut mapper = Stage::start(&["map"], config);
    let warning = mapper.wait_for("removals may have been missed", LIMIT);
    assert!(warning["reason"].as_str().unwrap().contains("rollcall sweeps reconcile"), "{warning}");
    wait_until_mapped(topics);
    assert!(mapper.metric("rollcall_mapper_long_outages_total", "") >= 1.0);
    let removed = || -> Vec<_> {
        topics.read("events").into_iter().filter(|event| event.header("change") == Some("removed")).collect()
    };
    assert_eq!(removed(), []);

    let before = pipeline.raw().len();
    let dry = reconcile(config, &["--dry-run"]);
    assert_eq!((ids_of(&dry["gone"]), ids_of(&dry["left_alone"])), (vec!["i-1"], vec!["i-foreign"]));
    assert_eq!(pipeline.removed(), [], "a dry run wrote something");
    assert!(pipeline.raw().len() <= before);

    let done = reconcile(config, &[]);
    assert_eq!(
        (ids_of(&done["gone"]), &done["gone"][0]["scope"]),
        (vec!["i-1"], &json!("fleet/111122223333/eu-west-1"))
    );
    let event = wait_for("the removal", LIMIT, || removed().pop());
    assert_eq!((event.key(), event.header("reason"), event.header("revision")), ("i-1", Some("absent"), Some("2")));
    wait_until_mapped(topics);
    let again = reconcile(config, &[]);
    assert_eq!((ids_of(&again["gone"]), ids_of(&again["left_alone"])), (vec![], vec!["i-foreign"]));
    assert_eq!(removed().len(), 1);
    // Should it come back, it is news.
    fleet_is(&["i-1", "i-2", "i-3"]);
    pipeline.sweep();
    wait_until_mapped(topics);
    let last = topics.read("events").into_iter().rfind(|event| event.key() == "i-1").unwrap();
    assert_eq!((last.header("change"), last.header("revision")), (Some("created"), Some("3")));
    assert_eq!(mapper.stop(), Some(0));
}
