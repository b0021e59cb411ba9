//! From a file of dumped raw records, in the place of the raw topic.

use std::io::Write as _;

use serde_json::json;
use tempfile::NamedTempFile;

use super::topic::{DEVICES, feed};
use super::{Replay, replay};
use crate::support::kafka::{Read, TestTopics, read_committed};

/// The raw topic as a file, a record a line.
fn dump(topics: &TestTopics) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    for record in topics.read("raw") {
        let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| String::from_utf8(bytes.clone()).unwrap());
        let headers: Vec<_> = record.headers.iter().map(|(name, value)| json!([name, text(value)])).collect();
        let line = json!({
            "timestamp": 4_000_000_000_000_u64, "key": text(&record.key), "headers": headers, "value": text(&record.value),
        });
        writeln!(file, "{line}").unwrap();
    }
    file
}

/// Of an event: partition, key, value, change and revision.
type Said<'a> = (i32, &'a str, Option<&'a [u8]>, Option<&'a str>, Option<&'a str>);

/// What is the same wherever the raw record lay.
fn said(records: &[Read]) -> Vec<Said<'_>> {
    records
        .iter()
        .map(|it| (it.partition, it.key(), it.value.as_deref(), it.header("change"), it.header("revision")))
        .collect()
}

#[test]
fn a_dump_of_the_raw_topic_is_mapped_as_the_topic_is() {
    let topics = TestTopics::create(4);
    feed(&topics);
    let file = dump(&topics);
    let path = file.path().to_str().unwrap();
    let (from_topic, from_file) = (topics.name("from-topic"), topics.name("from-file"));
    replay(&["--name", &from_topic, "--output-topic", &from_topic], &topics.config());
    let arguments = ["--name", &from_file, "--output-topic", &from_file, "--input", path];
    let summary = replay(&arguments, &topics.config());
    assert_eq!(summary["offsets"], topics.read("raw").len());
    assert_eq!(summary["rejected"], json!({"foreign-key": 1, "not-an-object": 1}));
    let (expected, events) = (read_committed(&from_topic), read_committed(&from_file));
    assert_eq!(said(&events), said(&expected));
    assert_eq!(
        events[0].header("raw-topic").unwrap(),
        topics.name("from-file.state"),
        "by whose partitions it is counted"
    );
    let states = |topic: &str| topics.table(topic).into_keys().collect::<Vec<_>>();
    assert_eq!(states("from-file.state"), states("from-topic.state"));
    let again = replay(&arguments, &topics.config());
    assert_eq!((&again["records"], &again["complete"]), (&json!({}), &json!(true)), "there is nothing left to do");
}

#[test]
fn a_replay_of_a_file_that_is_killed_goes_on_and_says_everything_once() {
    let topics = TestTopics::create(4);
    feed(&topics);
    let file = dump(&topics);
    let mut config = topics.config();
    config["mapper"]["max_batch_records"] = json!(1);
    let output = topics.name("out");
    let arguments = ["--name", &output, "--output-topic", &output, "--input", file.path().to_str().unwrap()];
    for least in [1, 80] {
        let mut replay = Replay::start(&arguments, &config);
        replay.wait_for_events(&output, least);
        replay.kill();
    }
    assert!(read_committed(&output).len() < DEVICES, "it was killed on its way");
    assert_eq!(replay(&arguments, &config)["complete"], true);
    let whole = topics.name("whole");
    replay(&["--name", &whole, "--output-topic", &whole], &topics.config());
    assert_eq!(said(&read_committed(&output)), said(&read_committed(&whole)));
}

#[test]
fn a_file_that_is_none_or_is_another_one_is_refused() {
    let topics = TestTopics::create(2);
    let mut file = NamedTempFile::new().unwrap();
    writeln!(file, r#"{{"timestamp": 1, "key": "i-1", "value": null}}"#).unwrap();
    let output = topics.name("out");
    let run = |path: &str| {
        let arguments = ["--name", &output, "--output-topic", &output, "--input", path];
        let (code, _, err) = Replay::start(&arguments, &topics.config()).end();
        (code, err)
    };
    let path = &file.path().to_str().unwrap().to_owned();
    let (code, err) = run(path);
    assert_eq!(code, Some(0), "{err}");
    writeln!(file).unwrap();
    let (code, err) = run(path);
    assert_eq!(code, Some(1));
    assert!(err.contains("was begun otherwise"), "{err}");
    writeln!(file, r#"{{"key": "i-2"}}"#).unwrap();
    let (code, err) = run(path);
    assert_eq!(code, Some(1));
    assert!(err.contains("line 3 is no raw record") && err.contains("missing field `timestamp`"), "{err}");
    let (code, err) = run("/nowhere/raw.ndjson");
    assert_eq!(code, Some(1));
    assert!(err.contains("/nowhere/raw.ndjson cannot be read"), "{err}");
    let (code, err) = run("-");
    assert_eq!(code, Some(1));
    assert!(err.contains("standard input cannot be read a second time"), "{err}");
}
