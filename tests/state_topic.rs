//! The mapper's memory: what is on the state topic and what it makes of it, how it tells of a restore, and what happens
//! where the memory of the process does not suffice.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rollcall::record::partition_for;
use serde_json::{Value, json};

use crate::support::kafka::{TestTopics, flush, send};
use crate::support::process::Stage;
use crate::support::stages::{map_all, wait_until_mapped};
use crate::support::wait_for;

const LIMIT: Duration = Duration::from_secs(60);

/// IDs that belong into a partition.
fn ids_of(partition: i32, partitions: i32) -> impl Iterator<Item = String> {
    let ids = (0..).map(|number: u64| format!("i-{number:017x}"));
    ids.filter(move |id| partition_for(id.as_bytes(), partitions) == partition)
}

fn send_instance(topics: &TestTopics, producer: &BaseProducer, id: &str, name: &str) {
    let instance = json!({"InstanceId": id, "Tags": [{"Key": "Name", "Value": name}]}).to_string();
    send(producer, &topics.name("raw"), Some(id.as_bytes()), Some(instance.as_bytes()), &[], None);
}

/// Produces to a partition of the state topic.
fn send_state(topics: &TestTopics, key: &str, value: Option<&[u8]>, partition: i32) {
    let producer = topics.producer();
    send(&producer, &topics.name("state"), Some(key.as_bytes()), value, &[], Some(partition));
    flush(&producer);
}

/// How often each device has come out.
fn told(topics: &TestTopics) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for event in topics.read("events") {
        *told.entry(event.key().to_owned()).or_default() += 1;
    }
    told
}

/// Waits for a reason in `/readyz`.
fn wait_for_reason(mapper: &mut Stage, reason: &str) -> String {
    wait_for(reason, LIMIT, || Some(mapper.get("/readyz")).filter(|answer| answer.contains(reason)))
}

// === Records that are not as they should be ===

#[test]
fn what_cannot_be_read_holds_its_partition_with_the_reason_until_it_is_taken_away_and_the_others_go_on() {
    let topics = TestTopics::create(2);
    let producer = topics.producer();
    let ids: Vec<_> = (0..2).map(|partition| ids_of(partition, 2).take(3).collect::<Vec<_>>()).collect();
    ids.iter().flatten().for_each(|id| send_instance(&topics, &producer, id, "a"));
    flush(&producer);
    map_all(&topics, &topics.config());

    let good = topics.table("state")[&ids[0][0]].clone();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    // Behind the header of ten bytes: the length of the profile's name, the name, the mapping version.
    let (profile, version) = (11, 11 + "sekoia".len());
    let later = ids_of(1, 2).skip(3);
    for ((what, bytes, reason), later) in [
        ("foreign", b"{\"owner\": \"someone else\"}".to_vec(), "something else writes to the topic"),
        ("damaged", good[..good.len() - 5].to_vec(), "it is damaged"),
        ("longer", [good.as_slice(), b"\0"].concat(), "1 bytes are left over"),
        ("newer format", with(2, good[2] ^ 1), "by a newer release; upgrade this one"),
        ("newer mapping", with(version, 100), "it was written by mapping version 50"),
        ("other profile", with(profile, b'S'), "a profile needs a group and a state topic of its own"),
    ]
    .into_iter()
    .zip(later)
    {
        send_state(&topics, what, Some(&bytes), 0);
        let mut mapper = Stage::start(&["map"], &topics.config());
        let ready = wait_for_reason(&mut mapper, reason);
        for part in ["HTTP/1.1 503", "raw partition 0"] {
            assert!(ready.contains(part), "{part} not in {ready}");
        }
        // Which record it is only the log tells: it may be an instance.
        let (key, held) = (format!("its key: {what:?}"), mapper.wait_for("partition held", LIMIT));
        assert!(!ready.contains(&key) && held["reason"].as_str().unwrap().ends_with(&key), "{ready}{held}");
        assert_eq!(mapper.metric("rollcall_mapper_partitions", "held"), 1.0);
        send_instance(&topics, &producer, &later, "a");
        flush(&producer);
        wait_for("the other partition", LIMIT, || told(&topics).contains_key(&later).then_some(()));
        assert_eq!(mapper.stop(), Some(0));
        send_state(&topics, what, None, 0);
    }

    let mut mapper = Stage::start(&["map"], &topics.config());
    mapper.wait_until_ready();
    // All is known: the same again says nothing, and something else is told.
    ids.iter().flatten().for_each(|id| send_instance(&topics, &producer, id, "a"));
    send_instance(&topics, &producer, &ids[0][1], "b");
    flush(&producer);
    wait_until_mapped(&topics);
    let told = told(&topics);
    assert_eq!(ids.iter().flatten().map(|id| told[id]).collect::<Vec<_>>(), [1, 2, 1, 1, 1, 1]);
    assert_eq!(mapper.stop(), Some(0));
}

// === Transactions at the end ===

fn transactional_producer(topics: &TestTopics, id: &str) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", topics.brokers()).set("transactional.id", topics.name(id));
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(Duration::from_secs(30)).unwrap();
    producer
}

/// Begins a transaction that writes a state; what it wrote is on the topic when this returns.
fn begin_writing(topics: &TestTopics, producer: &BaseProducer, key: &str, value: &[u8]) {
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::to(&topics.name("state")).key(key).payload(value).partition(0)).unwrap();
    producer.flush(Duration::from_secs(30)).unwrap();
}

/// A device with two states: what they are, the second one being the last.
fn mapped_twice(topics: &TestTopics) -> (String, [Vec<u8>; 2]) {
    let producer = topics.producer();
    let id = ids_of(0, 1).next().unwrap();
    let states = ["a", "b"].map(|name| {
        send_instance(topics, &producer, &id, name);
        flush(&producer);
        map_all(topics, &topics.config());
        topics.table("state")[&id].clone()
    });
    (id, states)
}

#[test]
fn an_aborted_transaction_at_the_end_of_the_state_leaves_no_trace() {
    let topics = TestTopics::create(1);
    let (id, [first, _]) = mapped_twice(&topics);
    let zombie = transactional_producer(&topics, "zombie");
    for _ in 0..3 {
        begin_writing(&topics, &zombie, &id, &first);
        zombie.abort_transaction(Duration::from_secs(30)).unwrap();
    }
    let mut mapper = Stage::start(&["map"], &topics.config());
    mapper.wait_until_ready();
    // Were the first state believed, this would be an event.
    let producer = topics.producer();
    send_instance(&topics, &producer, &id, "b");
    send_instance(&topics, &producer, &id, "c");
    flush(&producer);
    wait_until_mapped(&topics);
    assert_eq!(told(&topics)[&id], 3);
    assert_eq!(mapper.stop(), Some(0));
}

#[test]
fn a_restore_waits_for_a_transaction_that_is_open_and_takes_what_it_comes_to() {
    for is_committed in [false, true] {
        let topics = TestTopics::create(1);
        let (id, [first, _]) = mapped_twice(&topics);
        let zombie = transactional_producer(&topics, "zombie");
        begin_writing(&topics, &zombie, &id, &first);
        let mut mapper = Stage::start(&["map"], &topics.config());
        mapper.wait_for("restore must wait", LIMIT);
        wait_for_reason(&mut mapper, "restoring 1 partition");
        if is_committed {
            zombie.commit_transaction(Duration::from_secs(30)).unwrap();
        } else {
            zombie.abort_transaction(Duration::from_secs(30)).unwrap();
        }
        wait_for_reason(&mut mapper, "200 OK");
        let producer = topics.producer();
        send_instance(&topics, &producer, &id, "b");
        flush(&producer);
        wait_until_mapped(&topics);
        assert_eq!(told(&topics)[&id], if is_committed { 3 } else { 2 }, "committed: {is_committed}");
        assert_eq!(mapper.stop(), Some(0));
    }
}

// === Progress ===

#[test]
fn a_restore_tells_how_far_it_is_until_it_is_done() {
    let topics = TestTopics::create(1);
    let (_, [state, _]) = mapped_twice(&topics);
    // Each in a batch of its own, and a fetch for each batch: slow enough to be looked at.
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", topics.brokers()).set("batch.num.messages", "1");
    let producer: BaseProducer = config.create().unwrap();
    let ids: Vec<_> = ids_of(0, 1).take(3000).collect();
    for id in &ids {
        send(&producer, &topics.name("state"), Some(id.as_bytes()), Some(&state), &[], Some(0));
    }
    flush(&producer);
    let mut config = topics.config();
    config["kafka"]["properties"]["fetch.message.max.bytes"] = json!(1);
    let mut mapper = Stage::start(&["map"], &config);
    let name = "rollcall_mapper_restore_remaining_records{";
    let percent = |ready: &str| ready.split_once("restoring 1 partition, ")?.1.split_once(" %")?.0.parse::<u64>().ok();
    let mut seen = Vec::new();
    wait_for("the end of the restore", LIMIT, || {
        let ready = mapper.get("/readyz");
        if let Some(percent) = percent(&ready) {
            seen.push((percent, mapper.metric(name, "engine=\"0\"")));
        }
        ready.contains("200 OK").then_some(())
    });
    assert!(seen.iter().any(|(percent, _)| (1..100).contains(percent)), "{seen:?}");
    assert!(seen.iter().any(|(_, remaining)| (1.0..3010.0).contains(remaining)), "{seen:?}");
    assert!(seen.is_sorted_by_key(|(percent, _)| *percent), "{seen:?}");
    assert!(!mapper.get("/metrics").contains(name), "the series is gone");
    assert_eq!(mapper.metric("rollcall_mapper_devices", ""), ids.len() as f64);
    let total = mapper.metric("rollcall_mapper_state_bytes{", "");
    assert_eq!(mapper.metric("rollcall_mapper_state_bytes_per_device", ""), (total / ids.len() as f64).floor());
    assert_eq!(mapper.stop(), Some(0));
}

// === The bound of the memory ===

const DEVICES: usize = 400;

/// Maps so many devices of each of two partitions; the memory that they take, and their IDs.
fn mapped(topics: &TestTopics, config: &Value) -> (usize, [Vec<String>; 2]) {
    let producer = topics.producer();
    let ids = [0, 1].map(|partition| ids_of(partition, 2).take(DEVICES).collect::<Vec<_>>());
    ids.iter().flatten().for_each(|id| send_instance(topics, &producer, id, id));
    flush(&producer);
    let mut mapper = Stage::start(&["map"], config);
    mapper.wait_until_ready();
    wait_until_mapped(topics);
    let bytes = wait_for("all of them", LIMIT, || {
        let is_complete = mapper.metric("rollcall_mapper_devices", "") == 2.0 * DEVICES as f64;
        is_complete.then(|| mapper.metric("rollcall_mapper_state_bytes{", "") as usize)
    });
    assert_eq!(mapper.stop(), Some(0));
    (bytes, ids)
}

#[test]
fn a_partition_that_does_not_fit_is_refused_until_another_mapper_shares_the_work() {
    let topics = TestTopics::create(2);
    let mut config = topics.config();
    let (bytes, ids) = mapped(&topics, &config);
    config["mapper"]["max_state_bytes"] = json!(bytes * 3 / 4);
    let mut mapper = Stage::start(&["map"], &config);
    let held = mapper.wait_for("partition held", LIMIT)["partition"].as_u64().unwrap() as usize;
    let ready = wait_for_reason(&mut mapper, "mapper.max_state_bytes");
    for part in ["HTTP/1.1 503", &format!("raw partition {held}"), &(bytes * 3 / 4).to_string(), "start more mappers"] {
        assert!(ready.contains(part), "{part} not in {ready}");
    }
    assert_eq!(mapper.metric("rollcall_mapper_max_state_bytes", ""), (bytes * 3 / 4) as f64);
    // The other one runs, and what the refused one had taken is free again.
    let producer = topics.producer();
    send_instance(&topics, &producer, &ids[1 - held][0], "other");
    send_instance(&topics, &producer, &ids[held][0], "other");
    flush(&producer);
    wait_for("an event of the other", LIMIT, || (told(&topics)[&ids[1 - held][0]] == 2).then_some(()));
    assert!(mapper.metric("rollcall_mapper_state_bytes{", "") <= bytes as f64 * 0.6);
    assert_eq!(mapper.metric("rollcall_mapper_partitions", "held"), 1.0);

    config["instance_id"] = json!(topics.name("second"));
    let mut second = Stage::start(&["map"], &config);
    wait_for_reason(&mut mapper, "200 OK");
    wait_for_reason(&mut second, "200 OK");
    wait_for("an event of the one that was refused", LIMIT, || (told(&topics)[&ids[held][0]] == 2).then_some(()));
    assert_eq!((mapper.stop(), second.stop()), (Some(0), Some(0)));
    assert_eq!(told(&topics).values().sum::<usize>(), 2 * DEVICES + 2);
}

#[test]
fn a_partition_that_grows_past_the_bound_is_held_between_two_transactions_and_loses_nothing() {
    let topics = TestTopics::create(2);
    let mut config = topics.config();
    let (bytes, ids) = mapped(&topics, &config);
    config["mapper"]["max_state_bytes"] = json!(bytes * 5 / 4);
    config["mapper"]["max_batch_records"] = json!(50);
    let mut mapper = Stage::start(&["map"], &config);
    mapper.wait_until_ready();
    let producer = topics.producer();
    let more: Vec<_> = ids_of(0, 2).skip(DEVICES).take(4 * DEVICES).collect();
    more.iter().for_each(|id| send_instance(&topics, &producer, id, id));
    flush(&producer);
    assert_eq!(mapper.wait_for("partition held", LIMIT)["partition"], 0);
    wait_for_reason(&mut mapper, "mapper.max_state_bytes");
    send_instance(&topics, &producer, &ids[1][0], "other");
    flush(&producer);
    wait_for("an event of the other partition", LIMIT, || (told(&topics)[&ids[1][0]] == 2).then_some(()));
    assert!(told(&topics).len() < 2 * DEVICES + more.len());
    assert_eq!(mapper.stop(), Some(0));

    config["mapper"]["max_state_bytes"] = json!(bytes * 10);
    map_all(&topics, &config);
    let told = told(&topics);
    assert!(more.iter().all(|id| told[id] == 1));
    assert_eq!(told.values().sum::<usize>(), 2 * DEVICES + 1 + more.len());
}
