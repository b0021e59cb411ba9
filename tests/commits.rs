//! Commits whose end is in the dark: the mapper does not hear of its own, or its successor comes before the last marker.

use std::time::Duration;

use rollcall::record::partition_for;
use serde_json::json;

use crate::support::kafka::{Read, TestTopics, flush, send};
use crate::support::kafka_proxy::{Fate, Request};
use crate::support::process::Stage;
use crate::support::servers::{Broker, Cluster};
use crate::support::stages::{wait_until_committed, wait_until_mapped};
use crate::support::wait_for;

const PATIENCE: Duration = Duration::from_secs(60);

/// Publishes an instance of that name.
fn publish(topics: &TestTopics, id: &str, name: &str) {
    let instance = json!({"InstanceId": id, "OwnerId": "123456789012", "Tags": [{"Key": "Name", "Value": name}]});
    let producer = topics.producer();
    let raw = topics.name("raw");
    send(&producer, &raw, Some(id.as_bytes()), Some(instance.to_string().as_bytes()), &[], None);
    flush(&producer);
}

/// What the events tell, in their order on each partition: change, instance and name.
fn told(events: &[Read]) -> Vec<String> {
    let name = |event: &Read| event.json()["device"]["name"].as_str().unwrap().to_owned();
    events.iter().map(|event| format!("{} {} {}", event.header("change").unwrap(), event.key(), name(event))).collect()
}

/// What a mapper did that could not hear how its commits ended.
struct Done {
    /// Events that were written and never committed.
    uncommitted: usize,
    renewed: f64,
    /// Records that were an update, as counted.
    updates: f64,
}

/// A mapper that cannot hear how its commits end, three times, on a broker that gets them or does not.
fn commits_without_an_answer(fate: Fate) -> Done {
    let broker = Broker::start_behind_proxy(&["transaction.abort.timed.out.transaction.cleanup.interval.ms=1000"]);
    let topics = TestTopics::create_on(&broker.address(), 1);
    let mut config = topics.config();
    config["kafka"]["transaction_timeout"] = json!("3s");
    let mut mapper = Stage::start(&["map"], &config);
    mapper.wait_until_ready();
    publish(&topics, "i-1", "before");
    wait_until_mapped(&topics);
    for round in 1..=3 {
        broker.proxy().set(Request::EndTxn, fate);
        publish(&topics, "i-1", &format!("update-{round}"));
        publish(&topics, &format!("i-new-{round}"), "new");
        let failed = mapper.wait_for("transaction failed", PATIENCE);
        assert!(failed["setback"].as_str().unwrap().contains("must be renewed"), "its outcome is unknown: {failed}");
        if fate == Fate::Lost {
            // The old producer asks again until it is given up. Once its successor has written, it is.
            let update = format!("updated i-1 update-{round}");
            wait_for("a second attempt", PATIENCE, || {
                let written = told(&topics.read_uncommitted("events"));
                (written.iter().filter(|event| **event == update).count() >= 2).then_some(())
            });
        }
        broker.proxy().clear();
        // Says nothing new where the mapper remembers what it has told.
        publish(&topics, "i-1", &format!("update-{round}"));
        wait_until_mapped(&topics);
    }
    publish(&topics, "i-1", "after");
    wait_until_mapped(&topics);
    let rounds =
        (1..=3).flat_map(|round| [format!("updated i-1 update-{round}"), format!("created i-new-{round} new")]);
    let mut expected = vec!["created i-1 before".to_owned()];
    expected.extend(rounds);
    expected.push("updated i-1 after".to_owned());
    let events = topics.read("events");
    assert_eq!(told(&events), expected);
    Done {
        uncommitted: topics.read_uncommitted("events").len() - events.len(),
        renewed: mapper.metric("rollcall_mapper_transactions_total", "renewed"),
        updates: mapper.metric("rollcall_mapper_records_total", "updated"),
    }
}

#[test]
fn a_commit_that_arrived_and_whose_answer_was_lost_is_not_done_again() {
    let Done { uncommitted, renewed, updates } = commits_without_an_answer(Fate::AnswerLost);
    assert_eq!((uncommitted, renewed, updates), (0, 3.0, 4.0), "something was done twice");
}

#[test]
fn a_commit_that_never_arrived_is_done_again_from_its_beginning() {
    let Done { uncommitted, renewed, updates } = commits_without_an_answer(Fate::Lost);
    assert!(uncommitted >= 3 && renewed >= 3.0, "{uncommitted} events were aborted, {renewed} producers renewed");
    assert_eq!(updates, 4.0, "what was done again is counted once, with its commit");
}

/// The partition of `__consumer_offsets` that has a group's offsets: by Java's hash of its name, whose sign is dropped
/// (`Utils.abs`).
fn offsets_partition(group: &str) -> i32 {
    const PARTITIONS: i32 = 10;
    let hash = group.bytes().fold(0_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte)));
    hash.saturating_abs() % PARTITIONS
}

#[test]
fn the_partition_of_a_groups_offsets_is_the_brokers() {
    // Its hash is negative; a broker of Kafka 4.4 told the partition.
    assert_eq!(offsets_partition("t-01a2259718ff75a78af91ffac727f83a.mapper"), 7);
}

/// A mapper is killed when the marker of its last transaction is on the offsets and not yet on the state. `successor`
/// follows it; `tells` is what it logs while it waits.
fn killed_between_two_markers(successor: &str, tells: &str, why: &str) {
    let mut cluster = Cluster::start_behind_proxies(&[]);
    let topics = TestTopics::create_replicated(&cluster.address(), Cluster::SIZE as i32);
    let config = |name: &str| {
        let mut config = topics.config();
        config["instance_id"] = name.into();
        config
    };
    let mut mapper = Stage::start(&["map"], &config("first"));
    mapper.wait_until_ready();
    // State and offsets are led by different brokers, so that one marker can come and the other not.
    let offsets = topics.leader("__consumer_offsets", offsets_partition(&topics.name("mapper")));
    let states: Vec<_> = (0..topics.partitions).map(|number| topics.leader(&topics.name("state"), number)).collect();
    let partition = states.iter().position(|broker| *broker != offsets).expect("leaders on different brokers");
    let mut ids = (0..).map(|number| format!("i-{number}"));
    let id = ids.find(|id| partition_for(id.as_bytes(), topics.partitions) as usize == partition).unwrap();
    publish(&topics, &id, "one");
    wait_until_mapped(&topics);

    cluster.broker(states[partition]).proxy().set(Request::WriteTxnMarkers, Fate::Held);
    publish(&topics, &id, "two");
    // Only stable offsets are told: their marker is there.
    wait_until_committed(&topics);
    mapper.kill();
    assert_ne!(topics.stable_ends("state"), topics.ends("state"), "the state's marker is there");

    // The state that can be read says "one", the offsets are behind "two".
    publish(&topics, &id, "two");
    let mut mapper = Stage::start(&["map"], &config(successor));
    // Kafka that is slow to answer is told alike.
    while !mapper.wait_for(tells, PATIENCE).to_string().contains(why) {}
    publish(&topics, &id, "three");
    cluster.broker(states[partition]).proxy().clear();
    wait_until_mapped(&topics);
    let expected = ["created", "updated", "updated"].iter().zip(["one", "two", "three"]);
    let expected: Vec<_> = expected.map(|(change, name)| format!("{change} {id} {name}")).collect();
    assert_eq!(told(&topics.read("events")), expected);
    assert_eq!(mapper.stop(), Some(0));
}

#[test]
fn another_mapper_waits_for_the_last_marker_of_one_that_was_killed() {
    killed_between_two_markers("second", "restore must wait", "has an open transaction");
}

#[test]
fn a_mapper_that_starts_again_waits_for_the_last_marker_of_its_former_self() {
    killed_between_two_markers("first", "waiting for Kafka", "init_transactions");
}
