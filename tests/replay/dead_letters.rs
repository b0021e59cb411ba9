//! From the dead letters: what would be accepted now goes through once more.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::{Replay, id, instance, replay};
use crate::support::kafka::{TestTopics, flush, producer, send};
use crate::support::stages::map_all;
use crate::support::wait_for;

#[test]
fn dead_letters_that_would_be_accepted_now_are_sent_again_as_they_came_and_the_others_stay() {
    let topics = TestTopics::create(4);
    let (producer, raw) = (producer(), topics.name("raw"));
    let mut large = instance(&id(1), "large");
    large["Padding"] = json!("x".repeat(3000));
    let overtaken = instance(&id(2), "before");
    let astray = instance(&id(3), "astray");
    let write = |key: usize, value: &serde_json::Value, at: &str, partition: Option<i32>| {
        let headers = [("observed-at", at), ("source", "prod")];
        send(&producer, &raw, Some(id(key).as_bytes()), Some(value.to_string().as_bytes()), &headers, partition);
    };
    let mut padded = overtaken.clone();
    padded["Padding"] = json!("x".repeat(3000));
    write(1, &large, "2026-05-01T00:00:00.000Z", None);
    write(2, &padded, "2026-05-01T00:00:00.000Z", None);
    write(2, &instance(&id(2), "after"), "2026-05-01T00:00:01.000Z", None);
    let home = rollcall::record::partition_for(id(3).as_bytes(), 4);
    write(3, &astray, "2026-05-01T00:00:00.000Z", Some((home + 1) % 4));
    write(4, &json!({"InstanceId": "another"}), "2026-05-01T00:00:00.000Z", None);
    flush(&producer);

    let mut config = topics.config();
    config["mapper"]["max_record_bytes"] = json!(2000);
    map_all(&topics, &config);
    assert_eq!(topics.read("events").len(), 1);
    let letters = topics.read("dlq");
    assert_eq!(letters.len(), 4);

    // The limit is raised.
    config["mapper"]["max_record_bytes"] = json!(100_000);
    let name = topics.name("repaired");
    let before = topics.read("raw").len();
    let dry = replay(&["--from-dlq", "--name", &name, "--dry-run"], &config);
    assert_eq!((&dry["records"], &dry["rejected"]), (&json!({"sent": 3}), &json!({"foreign-key": 1})));
    assert_eq!(topics.read("raw").len(), before, "a dry run writes nothing");

    let done = replay(&["--from-dlq", "--name", &name], &config);
    assert_eq!((&done["records"], &done["rejected"]), (&json!({"sent": 3}), &json!({"foreign-key": 1})));
    let sent: Vec<_> = topics.read("raw").into_iter().filter(|record| record.header("source").is_some()).collect();
    let sent = sent.iter().filter(|record| record.key() == id(1)).collect::<Vec<_>>();
    assert_eq!((&sent[0].value, &sent[0].headers), (&sent[1].value, &sent[1].headers), "as it came");
    map_all(&topics, &config);
    let events = topics.read("events");
    let names: BTreeMap<_, _> = events
        .iter()
        .map(|event| (event.key().to_owned(), event.json()["device"]["name"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [(1, "large"), (2, "after"), (3, "astray")].map(|(number, name)| (id(number), name.to_owned()));
    assert_eq!(names, BTreeMap::from(expected));
    assert_eq!(events.len(), 3, "what was overtaken meanwhile is stale");
    assert_eq!(topics.read("dlq").len(), 4, "nothing was rejected a second time");

    let again = replay(&["--from-dlq", "--name", &name], &config);
    assert_eq!((&again["records"], &again["complete"]), (&json!({}), &json!(true)));
}

#[test]
fn a_record_without_a_time_of_its_own_keeps_the_one_that_kafka_gave_it() {
    let topics = TestTopics::create(1);
    let (producer, raw) = (producer(), topics.name("raw"));
    let mut large = instance(&id(1), "large");
    large["Padding"] = json!("x".repeat(3000));
    send(&producer, &raw, Some(id(1).as_bytes()), Some(large.to_string().as_bytes()), &[], None);
    flush(&producer);
    let mut config = topics.config();
    config["mapper"]["max_record_bytes"] = json!(2000);
    map_all(&topics, &config);
    config["mapper"]["max_record_bytes"] = json!(100_000);
    replay(&["--from-dlq", "--name", &topics.name("n")], &config);
    map_all(&topics, &config);
    let [event] = &topics.read("events")[..] else { panic!("one event") };
    let [letter] = &topics.read("dlq")[..] else { panic!("one dead letter") };
    assert_eq!(event.header("observed-at"), letter.header("raw-timestamp"));
}

#[test]
fn each_is_sent_once_though_the_replay_is_killed() {
    const LETTERS: usize = 20_000;
    let topics = TestTopics::create(4);
    let (producer, dlq, raw) = (producer(), topics.name("dlq"), topics.name("raw"));
    for number in 0..LETTERS {
        let value = instance(&id(number), &"x".repeat(500)).to_string();
        let headers = [("error-kind", "too-large"), ("raw-topic", raw.as_str())];
        send(&producer, &dlq, Some(id(number).as_bytes()), Some(value.as_bytes()), &headers, None);
    }
    flush(&producer);
    let (name, config) = (topics.name("killed"), topics.config());
    let arguments = ["--from-dlq", "--name", &name];
    let mut killed = Replay::start(&arguments, &config);
    wait_for("some to be sent", Duration::from_secs(60), || (!topics.read_uncommitted("raw").is_empty()).then_some(()));
    killed.kill();
    let before = topics.read("raw").len();
    assert!(before < LETTERS, "it was killed on its way, not at {before}");
    assert_eq!(replay(&arguments, &config)["complete"], true);
    let mut keys: Vec<_> = topics.read("raw").iter().map(|record| record.key().to_owned()).collect();
    keys.sort();
    assert_eq!(keys, (0..LETTERS).map(id).collect::<Vec<_>>());
}
