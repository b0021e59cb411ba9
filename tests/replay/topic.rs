//! Into topics of its own: once more, all of it or a part, and exactly once whatever is killed.

use std::collections::BTreeMap;
use std::time::Duration;

use rollcall::mapper::changelog::Changelog;
use rollcall::mapper::state::{DeviceState, Life};
use rollcall::profile::Profile;
use rollcall::record::{AWS_ACCOUNT, AWS_REGION, Digest, Secret};
use serde_json::{Value, json};

use super::{Feed, Replay, id, instance, replay};
use crate::support::kafka::{Read, TestTopics, read_committed};
use crate::support::stages::map_all;
use crate::support::wait_for;

pub const DEVICES: usize = 300;

/// A fleet that comes, changes, and partly goes; and two records that are none.
pub fn feed(topics: &TestTopics) -> Feed {
    let mut feed = Feed::new(topics);
    feed.tell((0..DEVICES).map(|number| (id(number), Some(instance(&id(number), "first")))));
    feed.tell((0..DEVICES / 3).map(|number| (id(number), Some(instance(&id(number), "second")))));
    feed.tell((0..DEVICES / 10).map(|number| (id(number), None)));
    feed.tell([(id(7777), Some(json!(["no instance"]))), (id(8888), Some(json!({"InstanceId": "another"})))]);
    feed
}

/// What a reader compares: all but the offset.
fn contents(records: &[Read]) -> Vec<Read> {
    records.iter().map(|record| Read { offset: 0, timestamp: 0, ..record.clone() }).collect()
}

/// What states say, their digests by one key: each process has its own. Each is of the raw record that the state names.
fn states(topics: &TestTopics, topic: &str) -> BTreeMap<String, DeviceState> {
    let (changelog, raw) = (Changelog::new(Profile::Sekoia).unwrap(), topics.read("raw"));
    let state = |id: &str, value: &[u8]| {
        let mut state = changelog.decode(value).unwrap();
        if let Life::Present(rendering) = &mut state.life {
            let is_named = |record: &&Read| record.key() == id && record.offset == state.raw_offset;
            let record = raw.iter().find(is_named).expect("the record that the state names");
            let digest = |key| {
                let header = |name| record.header(name);
                Digest::by(key, record.value.as_deref().unwrap(), header(AWS_ACCOUNT), header(AWS_REGION))
            };
            assert_eq!(rendering.known.digest, digest(rendering.known.digest.secret), "{id}");
            rendering.known.digest = digest(Secret([0; 32]));
        }
        state
    };
    topics.table(topic).into_iter().map(|(id, value)| (id.clone(), state(&id, &value))).collect()
}

#[test]
fn two_replays_of_one_log_are_byte_identical_and_are_what_the_mapper_said() {
    let topics = TestTopics::create(4);
    feed(&topics);
    for encoding in ["avro", "json"] {
        for profile in ["sekoia", "ocsf", "cse"] {
            let mut config = topics.config();
            config["mapper"]["encoding"] = json!(encoding);
            config["mapper"]["profile"] = json!(profile);
            config["mapper"]["engines"] = json!(2);
            let run = |name: &str| {
                let (name, output) = (format!("{}-{name}", topics.prefix), topics.name(name));
                let summary = replay(&["--name", &name, "--output-topic", &output], &config);
                assert_eq!(summary["complete"], true);
                assert_eq!(summary["records"]["created"], DEVICES);
                assert_eq!(summary["records"]["updated"], DEVICES / 3);
                assert_eq!(summary["records"]["removed"], DEVICES / 10);
                assert_eq!(summary["rejected"], json!({"foreign-key": 1, "not-an-object": 1}));
                contents(&read_committed(&output))
            };
            let [first, second] = ["a", "b"].map(|which| run(&format!("{which}-{profile}-{encoding}")));
            assert_eq!(first.len(), DEVICES + DEVICES / 3 + DEVICES / 10);
            assert_eq!(first, second, "{profile}, {encoding}");
        }
    }
    map_all(&topics, &topics.config());
    assert_eq!(contents(&read_committed(&topics.name("a-sekoia-json"))), contents(&topics.read("events")));
    assert_eq!(states(&topics, "a-sekoia-json.state"), states(&topics, "state"));
    assert_eq!(topics.read("dlq").len(), 2, "those of the mapper, and none of the replays");
}

#[test]
fn a_replay_that_is_killed_goes_on_under_its_name_and_says_everything_once() {
    let topics = TestTopics::create(4);
    let mut feed = feed(&topics);
    let mut config = topics.config();
    // Many transactions, so that a kill falls between two or into one.
    config["mapper"]["max_batch_records"] = json!(1);
    let (name, output) = (topics.name("killed"), topics.name("out"));
    let arguments = ["--name", &name, "--output-topic", &output];
    for least in [1, 50, 100] {
        let mut replay = Replay::start(&arguments, &config);
        replay.wait_for_events(&output, least);
        replay.kill();
        // What comes after the start is not of this replay.
        feed.tell([(id(5000 + least), Some(instance(&id(5000 + least), "late")))]);
    }
    assert!(read_committed(&output).len() < DEVICES, "it was killed on its way");
    let summary = replay(&arguments, &config);
    assert_eq!(summary["complete"], true);
    let events = read_committed(&output);
    assert_eq!(events.len(), DEVICES + DEVICES / 3 + DEVICES / 10);
    let fresh = topics.name("fresh");
    replay(&["--name", &fresh, "--output-topic", &fresh, "--to", "now"], &topics.config());
    let late = |event: &&Read| event.json()["device"]["name"] != "late";
    let once: Vec<_> = read_committed(&fresh).iter().filter(late).cloned().collect();
    assert_eq!(contents(&events), contents(&once));

    let again = replay(&arguments, &config);
    assert_eq!((&again["complete"], &again["records"]), (&json!(true), &json!({})), "there is nothing left to do");
}

#[test]
fn who_calls_a_replay_by_its_name_takes_it_over_from_whoever_still_runs_it() {
    let topics = TestTopics::create(4);
    feed(&topics);
    let mut config = topics.config();
    config["mapper"]["max_batch_records"] = json!(1);
    let output = topics.name("out");
    let arguments = ["--name", &output, "--output-topic", &output];
    let mut first = Replay::start(&arguments, &config);
    first.wait_for_events(&output, 1);
    let summary = replay(&arguments, &topics.config());
    assert_eq!(summary["complete"], true);
    let (code, _, err) = first.end();
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("another process is in the group as"), "{err}");
    let whole = topics.name("whole");
    replay(&["--name", &whole, "--output-topic", &whole], &topics.config());
    assert_eq!(contents(&read_committed(&output)), contents(&read_committed(&whole)));
}

#[test]
fn a_part_is_chosen_by_time_or_offset() {
    let topics = TestTopics::create(1);
    let mut feed = Feed::new(&topics);
    feed.tell((0..10).map(|number| (id(number), Some(instance(&id(number), "first")))));
    // Kafka's time of a record is whole milliseconds: of those told before, and of none told after.
    let between = wait_for_the_next_millisecond();
    wait_for_the_next_millisecond();
    feed.tell((10..15).map(|number| (id(number), Some(instance(&id(number), "second")))));
    let names = |arguments: &[&str], output: &str| -> Vec<String> {
        let output = topics.name(output);
        replay(&[arguments, &["--name", &output, "--output-topic", &output]].concat(), &topics.config());
        read_committed(&output).iter().map(|event| event.key().to_owned()).collect()
    };
    let ids = |numbers: std::ops::Range<usize>| numbers.map(id).collect::<Vec<_>>();
    assert_eq!(names(&["--from", "3", "--to", "7"], "offsets"), ids(3..7));
    assert_eq!(names(&["--from", &between], "later"), ids(10..15));
    assert_eq!(names(&["--to", &between], "earlier"), ids(0..10));
    assert_eq!(names(&["--from", "1h"], "hour"), ids(0..15));
    assert_eq!(names(&["--from", "4000"], "none"), ids(0..0));
}

#[test]
fn what_would_mix_two_replays_is_refused_before_anything_is_written() {
    let topics = TestTopics::create(2);
    feed(&topics);
    let (one, two) = (topics.name("one"), topics.name("two"));
    replay(&["--name", &one, "--output-topic", &one], &topics.config());
    let before = read_committed(&one);
    let refused = |arguments: &[&str], config: &Value, needle: &str| {
        let (code, _, err) = Replay::start(arguments, config).end();
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains(needle), "{needle}: {err}");
    };
    let config = topics.config();
    refused(&["--name", &two, "--output-topic", &one], &config, "is not empty");
    refused(&["--name", &one, "--output-topic", &two], &config, "was begun otherwise");
    refused(&["--name", &one, "--output-topic", &one, "--profile", "cse"], &config, "was begun otherwise");
    refused(&["--name", &one, "--output-topic", &one, "--from", "3h"], &config, "from earliest to now");
    let live = topics.name("events");
    refused(&["--name", &two, "--output-topic", &live], &config, "is a topic of the running pipeline");
    let mut elsewhere = topics.config();
    elsewhere["kafka"]["topics"]["raw"] = json!(topics.name("nowhere"));
    refused(&["--name", &two, "--output-topic", &two], &elsewhere, "there is no topic");
    assert_eq!(read_committed(&one), before);
}

#[test]
fn a_replay_that_is_asked_to_stop_says_how_to_go_on() {
    let topics = TestTopics::create(2);
    feed(&topics);
    let mut config = topics.config();
    config["mapper"]["max_batch_records"] = json!(1);
    let output = topics.name("out");
    let mut replay = Replay::start(&["--name", &output, "--output-topic", &output], &config);
    replay.wait_for_events(&output, 1);
    crate::support::process::signal(replay.child.id(), "INT");
    let (code, out, err) = replay.end();
    assert_eq!(code, Some(1), "{err}");
    assert!(out.contains("stopped at") && out.contains("the same command goes on"), "{out}");
}

/// A time that is later than that of any record so far.
fn wait_for_the_next_millisecond() -> String {
    let begin = chrono::Utc::now().timestamp_millis();
    wait_for("the next millisecond", Duration::from_secs(5), || {
        let now = chrono::Utc::now();
        (now.timestamp_millis() > begin).then(|| now.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
    })
}
