//! What the collector remembers between sweeps, restarts and replicas. The source is a file: what it says is what is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Pipeline, keys};
use crate::support::kafka::read_committed;
use crate::support::process::Stage;
use crate::support::wait_for;

/// A fleet in a file, and a pipeline of its own.
struct Fleet {
    pipeline: Pipeline,
    folder: tempfile::TempDir,
}

impl std::ops::Deref for Fleet {
    type Target = Pipeline;
    fn deref(&self) -> &Pipeline {
        &self.pipeline
    }
}

const SCOPE: &str = "fleet/111122223333/eu-west-1";

impl Fleet {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pipeline = Pipeline::new(json!([source(&folder.path().join("fleet.json"))]));
        Self { pipeline, folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("fleet.json")
    }

    fn is(&self, ids: impl IntoIterator<Item = String>) {
        self.are(ids.into_iter().map(|id| (id, "running")));
    }

    fn are(&self, instances: impl IntoIterator<Item = (String, &'static str)>) {
        let instance = |(id, state)| json!({"InstanceId": id, "State": {"Name": state}});
        let instances: Vec<_> = instances.into_iter().map(instance).collect();
        std::fs::write(self.path(), json!(instances).to_string()).unwrap();
    }
}

fn source(path: &std::path::Path) -> Value {
    json!({"name": "fleet", "interval": "10s",
           "file": {"path": path, "account": "111122223333", "region": "eu-west-1"}})
}

fn wait_for_sweep(collector: &mut Stage, scope: &str) {
    while collector.wait_for("sweep complete", Duration::from_secs(60))["scope"] != scope {}
}

fn ids(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|number| format!("i-{number:017x}"))
}

#[test]
fn an_instance_that_two_complete_sweeps_miss_is_gone_once_though_each_is_by_another_process() {
    let fleet = Fleet::new();
    fleet.is(ids(0..5));
    fleet.sweep();
    fleet.is(ids(1..5));
    assert_eq!(fleet.sweep()[0]["removed"], 0);
    assert_eq!(keys(&fleet.removed()), Vec::<String>::new());
    assert_eq!(fleet.list()[SCOPE]["suspects"], 1);
    assert_eq!(fleet.sweep()[0]["removed"], 1);
    fleet.sweep();
    let removed = fleet.removed();
    assert_eq!(keys(&removed), ids(0..1).collect::<Vec<_>>());
    assert_eq!(removed[0].header("reason"), Some("absent"));
    assert!(removed[0].header("last-seen").unwrap() < removed[0].header("observed-at").unwrap());
    assert_eq!(fleet.list()[SCOPE]["known"], 4);
}

#[test]
fn an_instance_that_one_sweep_misses_is_not_gone() {
    let fleet = Fleet::new();
    fleet.is(ids(0..5));
    fleet.sweep();
    fleet.is(ids(1..5));
    fleet.sweep();
    fleet.is(ids(0..5));
    fleet.sweep();
    fleet.is(ids(1..5));
    fleet.sweep();
    assert_eq!(keys(&fleet.removed()), Vec::<String>::new(), "absences count in a row only");
}

#[test]
fn one_that_was_terminated_is_gone_with_the_first_sweep_that_misses_it() {
    let fleet = Fleet::new();
    let all = ids(0..3).zip(["running", "terminated", "shutting-down"]);
    fleet.are(all);
    fleet.sweep();
    fleet.is(ids(0..1));
    fleet.sweep();
    assert_eq!(keys(&fleet.removed()).len(), 2);
}

#[test]
fn a_fleet_of_no_instances_is_legal() {
    let fleet = Fleet::new();
    fleet.is(ids(0..0));
    assert_eq!(fleet.sweep()[0]["message"], "sweep complete");
    fleet.is(ids(0..3));
    fleet.sweep();
    fleet.is(ids(0..0));
    fleet.sweep();
    fleet.sweep();
    assert_eq!(fleet.removed().len(), 3, "few may vanish altogether");
}

#[test]
fn nothing_is_removed_when_too_much_vanishes_until_an_operator_accepts_it() {
    let fleet = Fleet::new();
    fleet.is(ids(0..50));
    fleet.sweep();
    fleet.is(ids(30..50));
    for _ in 0..3 {
        assert_eq!(fleet.sweep()[0]["message"], "sweep held");
    }
    assert_eq!(keys(&fleet.removed()), Vec::<String>::new());
    assert_eq!(fleet.list()[SCOPE]["held"], 30);
    let health = fleet.health();
    let vanished: Vec<_> = health.iter().filter(|event| event["error"]["kind"] == "vanished").collect();
    assert!(vanished.iter().any(|event| event["scope"]["region"] == "eu-west-1"), "{health:?}");
    assert!(vanished[0]["error"]["remedy"].as_str().unwrap().contains("sweeps accept"));

    let accepted = fleet.accept(SCOPE);
    assert!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stderr));
    assert_eq!(fleet.sweep()[0]["message"], "sweep complete");
    assert_eq!(keys(&fleet.removed()), Vec::<String>::new(), "still two sweeps");
    fleet.sweep();
    assert_eq!(keys(&fleet.removed()).len(), 30);
    // It was for these thirty, and for nothing that vanishes later.
    fleet.is(ids(0..0));
    assert_eq!(fleet.sweep()[0]["message"], "sweep held");
    let again = fleet.list()[SCOPE]["accepted"].clone();
    assert_eq!(again, false);
}

#[test]
fn what_vanished_and_came_back_is_no_news() {
    let fleet = Fleet::new();
    fleet.is(ids(0..50));
    fleet.sweep();
    fleet.is(ids(0..0));
    assert_eq!(fleet.sweep()[0]["message"], "sweep held");
    fleet.is(ids(0..50));
    assert_eq!(fleet.sweep()[0]["message"], "sweep complete");
    assert_eq!(fleet.list()[SCOPE]["held"], 0);
    let refused = fleet.accept(SCOPE);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nothing to accept"));
    assert_eq!(keys(&fleet.removed()), Vec::<String>::new());
}

#[test]
fn an_unknown_scope_cannot_be_accepted_and_the_known_ones_are_named() {
    let fleet = Fleet::new();
    fleet.is(ids(0..1));
    fleet.sweep();
    let refused = fleet.accept("fleet/111122223333/eu-west-9");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains(SCOPE));
}

#[test]
fn an_incomplete_sweep_removes_nothing_and_says_why_once() {
    let fleet = Fleet::new();
    fleet.is(ids(0..5));
    fleet.sweep();
    std::fs::remove_file(fleet.path()).unwrap();
    for _ in 0..3 {
        let end = &fleet.sweep()[0];
        assert_eq!((&end["message"], &end["kind"]), (&json!("sweep incomplete"), &json!("invalid-file")));
    }
    assert_eq!(keys(&fleet.removed()), Vec::<String>::new());
    fleet.is(ids(0..5));
    fleet.sweep();
    assert_eq!(keys(&fleet.removed()), Vec::<String>::new());
}

#[test]
fn a_source_taken_out_of_the_configuration_is_out_of_scope_and_told_once() {
    let fleet = Fleet::new();
    fleet.is(ids(0..5));
    fleet.sweep();
    let mut other = fleet.config.clone();
    let path = fleet.folder.path().join("other.json");
    std::fs::write(&path, "[]").unwrap();
    other["collector"]["sources"] = json!([{"name": "other", "interval": "10s", "file": {"path": path}}]);
    for _ in 0..3 {
        fleet.sweep_with(&other);
    }
    assert_eq!(keys(&fleet.removed()), Vec::<String>::new());
    assert_eq!(fleet.list()[SCOPE]["out_of_scope"], true);
    let told = fleet.health();
    let told: Vec<_> = told.iter().filter(|event| event["out_of_scope"] == true).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["state"], &told[0]["devices"]), (&json!("Stopping"), &json!(5)));
    // Back in the configuration: as if nothing had been.
    fleet.sweep();
    assert_eq!(fleet.list()[SCOPE]["out_of_scope"], false);
    assert_eq!(keys(&fleet.removed()), Vec::<String>::new());
}

#[test]
fn a_restart_keeps_the_cadence_and_neither_skips_nor_repeats_a_sweep() {
    let fleet = Fleet::new();
    fleet.is(ids(0..2));
    let mut collector = Stage::start(&["collect"], &fleet.config);
    // The first lies anywhere in its slot.
    for _ in 0..2 {
        collector.wait_for("sweep complete", Duration::from_secs(60));
    }
    collector.stop();
    let mut collector = Stage::start(&["collect"], &fleet.config);
    collector.wait_until_ready();
    collector.wait_for("sweep complete", Duration::from_secs(60));
    collector.stop();
    let sweeps: BTreeMap<_, _> = read_committed(&fleet.topics.name("raw"))
        .iter()
        .map(|record| (record.header("sweep-id").unwrap().to_owned(), record.header("observed-at").unwrap().to_owned()))
        .collect();
    assert_eq!(sweeps.len(), 3);
    let times: Vec<_> =
        sweeps.values().map(|time| chrono::DateTime::parse_from_rfc3339(time).unwrap().timestamp_millis()).collect();
    // The slots are ten seconds, jitter is below one: if one was skipped, it is 19 seconds at least.
    let apart = times[2] - times[1];
    assert!(apart < 17_000, "{apart} ms: a sweep was skipped");
    assert!(apart > 0);
}

#[test]
fn replicas_share_the_scopes_and_take_over_from_one_that_dies() {
    let fleet = Fleet::new();
    let scopes = 12;
    let sources: Vec<_> = (0..scopes)
        .map(|number| {
            let path = fleet.folder.path().join(format!("{number}.json"));
            let instances: Vec<_> = ids(number * 10..number * 10 + 3)
                .map(|id| json!({"InstanceId": id, "State": {"Name": "running"}}))
                .collect();
            std::fs::write(&path, json!(instances).to_string()).unwrap();
            json!({"name": format!("s{number}"), "interval": "10s", "file": {"path": path}})
        })
        .collect();
    let config = |instance: &str| {
        let mut config = fleet.config.clone();
        config["instance_id"] = format!("{}-{instance}", fleet.topics.prefix).into();
        config["collector"]["sources"] = json!(sources);
        config
    };
    let mut first = Stage::start(&["collect"], &config("a"));
    let mut second = Stage::start(&["collect"], &config("b"));
    first.wait_until_ready();
    second.wait_until_ready();
    let swept = |stage: &mut Stage| {
        stage.tail();
        let ends = stage.seen.iter().filter(|event| event["message"] == "sweep complete");
        ends.map(|event| event["scope"].as_str().unwrap().to_owned()).collect::<std::collections::BTreeSet<_>>()
    };
    wait_for("both to have swept their scopes", Duration::from_secs(90), || {
        let (a, b) = (swept(&mut first), swept(&mut second));
        (!a.is_empty() && !b.is_empty() && a.len() + b.len() >= scopes).then_some(())
    });
    drop(first);
    wait_for("the other to have swept everything", Duration::from_secs(60), || {
        (swept(&mut second).len() == scopes).then_some(())
    });
    assert_eq!(second.stop(), Some(0));
    assert_eq!(keys(&fleet.removed()), Vec::<String>::new());
}

#[test]
fn sources_come_and_go_at_sighup_without_a_restart_and_without_a_removal() {
    let fleet = Fleet::new();
    fleet.is(ids(0..5));
    let other = |interval: &str| json!({"name": "other", "interval": interval, "file": {"path": fleet.path(), "account": "111122223333", "region": "us-east-1"}});
    let with = |sources: &[Value]| {
        let mut config = fleet.config.clone();
        config["collector"]["sources"] = json!(sources);
        config
    };
    let first = fleet.config["collector"]["sources"][0].clone();
    let mut collector = Stage::start(&["collect"], &with(&[first.clone(), other("10s")]));
    const OTHER: &str = "other/111122223333/us-east-1";
    wait_for_sweep(&mut collector, OTHER);

    collector.reconfigure(&json!({"collector": {"sources": "nonsense"}}));
    collector.wait_for("the configuration was read again and is not taken over", Duration::from_secs(10));
    collector.reconfigure(&with(std::slice::from_ref(&first)));
    collector.wait_for("the source was changed or taken out of the configuration: it ends", Duration::from_secs(10));
    let gone = "out of scope: the configuration no longer names it; nothing is removed";
    assert_eq!(collector.wait_for(gone, Duration::from_secs(10))["devices"], 5);
    wait_for_sweep(&mut collector, SCOPE);
    assert_eq!(fleet.list()[OTHER]["out_of_scope"], true);

    // Back, and then with another interval: a source that is changed ends and begins.
    collector.reconfigure(&with(&[first.clone(), other("10s")]));
    wait_for_sweep(&mut collector, OTHER);
    assert_eq!(fleet.list()[OTHER]["out_of_scope"], false);
    collector.reconfigure(&with(&[first, other("11s")]));
    collector.wait_for("the source was changed or taken out of the configuration: it ends", Duration::from_secs(10));
    wait_for_sweep(&mut collector, OTHER);
    assert_eq!(collector.stop(), Some(0));
    assert_eq!(keys(&fleet.removed()), Vec::<String>::new());
    let states = |source: &str| {
        let events = fleet.health();
        let of_source = events.into_iter().filter(|event| event["source"] == source && event["scope"].is_null());
        of_source.map(|event| event["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let way = ["Pending", "Started", "Initialized", "Authenticated", "Collecting", "Stopping"];
    assert_eq!(states("fleet"), way);
    assert_eq!(states("other")[..way.len()], way);
}

#[test]
fn standard_input_is_swept_once_and_nothing_of_it_is_removed_later() {
    let fleet = Fleet::new();
    fleet.is(ids(0..3));
    let mut config = fleet.config.clone();
    let stdin = json!({"name": "stdin", "interval": "10s", "file": {"path": "-"}});
    config["collector"]["sources"] = json!([stdin, config["collector"]["sources"][0]]);
    let mut collector = Stage::start(&["collect"], &config);
    for _ in 0..3 {
        wait_for_sweep(&mut collector, SCOPE);
    }
    let of_stdin = |event: &&Value| event["message"] == "sweep complete" && event["scope"] == "stdin/-/-";
    assert_eq!(collector.seen.iter().filter(of_stdin).count(), 1);
    assert_eq!(collector.stop(), Some(0));
}

#[test]
fn of_two_sources_that_cover_the_same_the_first_is_swept_and_the_other_ends_and_is_told() {
    let fleet = Fleet::new();
    fleet.is(ids(0..3));
    let first = fleet.config["collector"]["sources"][0].clone();
    let mut second = first.clone();
    second["name"] = "second".into();
    let with = |sources: &[&Value]| {
        let mut config = fleet.config.clone();
        config["collector"]["sources"] = json!(sources);
        config
    };
    // The other is swept already when the first comes.
    const SECOND: &str = "second/111122223333/eu-west-1";
    let mut collector = Stage::start(&["collect"], &with(&[&second]));
    wait_for_sweep(&mut collector, SECOND);
    collector.reconfigure(&with(&[&first, &second]));
    wait_for_sweep(&mut collector, SCOPE);
    let seen = collector.seen.len();
    for _ in 0..2 {
        wait_for_sweep(&mut collector, SCOPE);
    }
    let is_second = |event: &&Value| event["message"] == "sweep complete" && event["scope"] == SECOND;
    assert_eq!(collector.seen[seen..].iter().find(is_second), None);
    assert_eq!(collector.stop(), Some(0));
    let health = fleet.health();
    let refused: Vec<_> = health.iter().filter(|event| event["error"]["kind"] == "invalid-request").collect();
    let message = refused[0]["error"]["message"].as_str().unwrap();
    assert!(message.contains(&format!("{SECOND} is not swept: {SCOPE}")), "{message}");
}

#[test]
fn a_record_that_is_too_large_makes_its_sweep_incomplete_and_no_other() {
    let fleet = Fleet::new();
    fleet.is(ids(0..3));
    let path = fleet.folder.path().join("large.json");
    let large = json!([{"InstanceId": "i-large", "State": {"Name": "running"}, "Note": "x".repeat(300_000)}]);
    std::fs::write(&path, large.to_string()).unwrap();
    let mut config = fleet.config.clone();
    config["kafka"]["max_message_bytes"] = 200_000.into();
    config["mapper"]["max_record_bytes"] = 100_000.into();
    let first = config["collector"]["sources"][0].clone();
    config["collector"]["sources"] = json!([{"name": "large", "interval": "10s", "file": {"path": path}}, first]);
    let mut collector = Stage::start(&["collect"], &config);
    let refused = collector.wait_for("sweep incomplete", Duration::from_secs(60));
    assert_eq!((&refused["scope"], &refused["kind"]), (&json!("large/-/-"), &json!("kafka")));
    assert!(refused["error"].as_str().unwrap().contains("kafka.max_message_bytes"), "{refused}");
    // The process lives on, and so do its other sweeps.
    for _ in 0..2 {
        wait_for_sweep(&mut collector, SCOPE);
    }
    assert_eq!(collector.stop(), Some(0));
    assert!(fleet.raw().iter().all(|record| record.key() != "i-large"));
}
