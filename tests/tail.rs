//! `rollcall tail` on Apache Kafka.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::support::kafka::{TestTopics, flush, send};
use crate::support::process::{config_file, rollcall, signal};
use crate::support::stages::map_all;
use crate::support::{server, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

/// What a tag may hold: sequences that clear the screen, set the title, turn the direction of writing.
const NASTY: &str = "a\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}fdp";

fn instance(id: &str, name: &str, ip: &str) -> Value {
    json!({
        "InstanceId": id, "OwnerId": "123456789012", "InstanceType": "m5.large", "State": {"Code": 16, "Name": "running"},
        "LaunchTime": "2026-01-01T00:00:00.000Z", "Placement": {"AvailabilityZone": "eu-west-1a"},
        "PrivateIpAddress": ip, "Tags": [{"Key": "Name", "Value": name}],
    })
}

/// Writes a raw record; `None` is a tombstone.
fn tell(topics: &TestTopics, id: &str, value: Option<&Value>, second: u32) {
    let producer = topics.producer();
    let at = format!("2026-02-03T04:05:{second:02}.000Z");
    let headers = [("observed-at", at.as_str()), ("aws-account", "123456789012"), ("aws-region", "eu-west-1")];
    let value = value.map(|value| value.to_string().into_bytes());
    send(&producer, &topics.name("raw"), Some(id.as_bytes()), value.as_deref(), &headers, None);
    flush(&producer);
}

/// Topics on which a device came, changed and went, and another came.
fn told(mapper: &Value, registry: bool) -> (TestTopics, Value) {
    let topics = TestTopics::create(2);
    let config = config(&topics, mapper, registry);
    tell(&topics, "i-1", Some(&instance("i-1", "web", "10.0.0.1")), 1);
    tell(&topics, "i-2", Some(&instance("i-2", NASTY, "10.0.1.1")), 1);
    tell(&topics, "i-1", Some(&instance("i-1", "web", "10.0.0.2")), 2);
    tell(&topics, "i-1", None, 3);
    map_all(&topics, &config);
    (topics, config)
}

fn config(topics: &TestTopics, mapper: &Value, registry: bool) -> Value {
    let mut config = topics.config();
    for (key, value) in mapper.as_object().unwrap() {
        config["mapper"][key] = value.clone();
    }
    if registry {
        config["registry"] = json!({"url": server("REGISTRY")});
    }
    config
}

/// `rollcall tail ARGUMENTS` under way; killed when dropped.
struct Tail {
    child: Child,
    lines: Receiver<String>,
    log: Receiver<String>,
    _config: NamedTempFile,
}

impl Tail {
    fn start(arguments: &[&str], config: &Value) -> Self {
        let config = config_file(config);
        let mut command: Command = rollcall();
        command.arg("tail").args(arguments).arg("--config").arg(config.path());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = received(child.stdout.take().unwrap());
        let log = received(child.stderr.take().unwrap());
        Self { child, lines, log, _config: config }
    }

    /// Waits until it knows where to begin.
    fn wait_until_it_follows(&self) {
        while !self.log.recv_timeout(LIMIT).expect("it follows").contains("\"following\"") {}
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(LIMIT).expect("a line")
    }

    /// Waits for its end: exit code, standard output, standard error.
    fn end(mut self) -> (Option<i32>, Vec<String>, String) {
        let status = wait_for("the end of the tail", LIMIT, || self.child.try_wait().unwrap());
        (status.code(), self.lines.iter().collect(), self.log.iter().collect())
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn received(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    lines
}

/// What is there, to its end.
fn tail(arguments: &[&str], config: &Value) -> Vec<String> {
    let (code, lines, log) = Tail::start(&[arguments, &["--until-end"]].concat(), config).end();
    assert_eq!(code, Some(0), "{log}");
    lines
}

fn tail_json(arguments: &[&str], config: &Value) -> Vec<Value> {
    let lines = tail(&[arguments, &["--output", "json"]].concat(), config);
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn events_of_every_profile_are_read_in_every_encoding() {
    for profile in ["sekoia", "ocsf", "cse"] {
        for (encoding, registry) in [("json", false), ("avro", false), ("avro", true)] {
            let (topics, config) = told(&json!({"profile": profile, "encoding": encoding}), registry);
            let form = format!("{profile}, {encoding}, {registry}");
            let events = tail_json(&["--instance", "i-1"], &config);
            let changes: Vec<_> = events.iter().map(|event| event["headers"]["change"].as_str().unwrap()).collect();
            assert_eq!(changes, ["created", "updated", "removed"], "{form}");
            for event in &events {
                assert_eq!((&event["key"], &event["topic"]), (&json!("i-1"), &json!(topics.name("events"))), "{form}");
                assert!(event.get("note").is_none() && event["timestamp"].as_i64() > Some(0), "{event}");
            }
            let ip = |event: &Value| event["value"].pointer("/device/ip").or(event["value"].get("ip")).cloned();
            assert_eq!(ip(&events[1]), Some(json!("10.0.0.2")), "{form}");
            let text = tail(&["--instance", "i-1", "--change", "updated"], &config);
            assert!(text[0].starts_with("2026-02-03T04:05:02Z  ~ updated   i-1  "), "{form}: {text:?}");
            assert!(text[0].contains("  123456789012  "), "{form}: {text:?}");
            assert!(text[1..].iter().any(|line| line.ends_with("ip: 10.0.0.1 → 10.0.0.2")), "{form}: {text:?}");
        }
    }
}

#[test]
fn what_is_shown_is_chosen_by_instance_account_region_change_and_count() {
    let (_topics, config) = told(&json!({}), false);
    let keys = |arguments: &[&str]| -> Vec<String> {
        let mut keys: Vec<_> = tail_json(arguments, &config)
            .iter()
            .map(|line| format!("{} {}", line["key"].as_str().unwrap(), line["headers"]["change"].as_str().unwrap()))
            .collect();
        keys.sort();
        keys
    };
    let all = ["i-1 created", "i-1 removed", "i-1 updated", "i-2 created"];
    assert_eq!(keys(&[]), all);
    assert_eq!(keys(&["--instance", "i-2", "--instance", "i-1"]), all);
    assert_eq!(keys(&["--instance", "i-2"]), ["i-2 created"]);
    assert_eq!(keys(&["--change", "created,removed"]), ["i-1 created", "i-1 removed", "i-2 created"]);
    assert_eq!(keys(&["--account", "123456789012", "--region", "eu-west-1"]), all);
    assert_eq!(keys(&["--account", "210987654321"]), [""; 0]);
    assert_eq!(keys(&["--region", "eu-west-2"]), [""; 0]);
    assert_eq!(keys(&["-n", "3"]).len(), 3);
}

#[test]
fn the_last_records_of_each_partition_are_found_whatever_lies_between() {
    let topics = TestTopics::create(1);
    let mut config = topics.config();
    // A transaction, and so a marker, for each.
    config["mapper"]["max_batch_records"] = json!(1);
    for number in 0..5 {
        tell(&topics, "i-1", Some(&instance("i-1", "web", &format!("10.0.0.{number}"))), number);
    }
    map_all(&topics, &config);
    let ips = |from: &str| -> Vec<Value> {
        tail_json(&["--from", from], &config).iter().map(|event| event["value"]["device"]["ip"].clone()).collect()
    };
    assert_eq!(ips("-1"), ["10.0.0.4"]);
    assert_eq!(ips("-3"), ["10.0.0.2", "10.0.0.3", "10.0.0.4"]);
    assert_eq!(ips("-50").len(), 5);
    assert_eq!(ips("beginning").len(), 5);
    assert_eq!(ips("1h").len(), 5);
    assert_eq!(ips("2099-01-01T00:00:00Z").len(), 0);
    assert_eq!(ips("now").len(), 0);
}

#[test]
fn it_follows_from_now_on_until_it_is_interrupted() {
    let (topics, config) = told(&json!({"encoding": "avro"}), false);
    let tail = Tail::start(&[], &config);
    tail.wait_until_it_follows();
    tell(&topics, "i-3", Some(&instance("i-3", "late", "10.0.2.1")), 9);
    map_all(&topics, &config);
    let line = tail.line();
    assert!(line.contains("+ created   i-3  late  123456789012  eu-west-1  r1"), "{line}");
    signal(tail.child.id(), "INT");
    let (code, lines, log) = tail.end();
    assert_eq!((code, lines.len()), (Some(0), 0), "{log}");
    assert!(topics.committed("tail", "events").is_empty());
}

#[test]
fn raw_records_are_dumped_as_they_are() {
    let (topics, config) = told(&json!({}), false);
    let producer = topics.producer();
    let raw = topics.name("raw");
    send(&producer, &raw, Some(b"k\xff"), Some(b"\xff\x00 no JSON"), &[("b", "2"), ("a", NASTY), ("b", "1")], None);
    flush(&producer);
    for arguments in [&["raw"][..], &["--raw"]] {
        let lines = tail(&[arguments, &["--output", "json"]].concat(), &config);
        assert!(lines.iter().all(|line| line.is_ascii() && !line.contains('\u{1b}')), "{lines:?}");
        let mut dumped: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        dumped.sort_by_key(|record| (record["partition"].as_i64(), record["offset"].as_i64()));
        let read = topics.read("raw");
        assert_eq!(dumped.len(), read.len());
        let bytes = |value: &Value| match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone().into_bytes()),
            other => {
                let hex = other["hex"].as_str().unwrap();
                Some((0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect())
            }
        };
        for (dumped, read) in dumped.iter().zip(read) {
            assert_eq!((&dumped["partition"], &dumped["offset"]), (&json!(read.partition), &json!(read.offset)));
            assert_eq!((bytes(&dumped["key"]), bytes(&dumped["value"])), (read.key, read.value));
            let headers: Vec<_> = dumped["headers"].as_array().unwrap().iter().collect();
            let headers: Vec<_> = headers.iter().map(|h| (h[0].as_str().unwrap().to_owned(), bytes(&h[1]))).collect();
            assert_eq!(headers, read.headers);
        }
    }
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), tail(&["raw", "--output", "json"], &config).join("\n")).unwrap();
    let (name, output) = (topics.name("replay"), topics.name("out"));
    let mut command = rollcall();
    command.args(["replay", "--name", &name, "--output-topic", &output, "--output", "json", "--input"]);
    let out = command.arg(file.path()).arg("--config").arg(config_file(&config).path()).output().unwrap();
    let summary: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(summary["records"], json!({"created": 2, "updated": 1, "removed": 1, "rejected": 1}), "{summary}");
}

#[test]
fn nothing_that_a_terminal_would_obey_gets_out_on_any_topic() {
    let (topics, config) = told(&json!({}), false);
    let producer = topics.producer();
    for topic in ["raw", "events", "dlq", "state", "sweeps", "health"] {
        let headers = [("change", NASTY), ("error", NASTY), ("diff", NASTY)];
        send(&producer, &topics.name(topic), Some(NASTY.as_bytes()), Some(NASTY.as_bytes()), &headers, None);
    }
    flush(&producer);
    for topic in ["raw", "events", "dead-letters", "dlq", "state", "sweeps", "health"] {
        for form in ["text", "json"] {
            let lines = tail(&[topic, "--output", form], &config);
            assert!(!lines.is_empty());
            for line in lines {
                let obeyed = line.chars().find(|c| c.is_control() || ('\u{202a}'..='\u{202e}').contains(c));
                assert_eq!(obeyed, None, "{topic}: {line:?}");
            }
        }
    }
}

#[test]
fn foreign_records_are_shown_with_a_note() {
    let (topics, config) = told(&json!({}), true);
    let producer = topics.producer();
    for value in [&b"\xff\xfe"[..], b"\xc3\x01unknown!", b"\0\x7f\xff\xff\xffxyz"] {
        send(&producer, &topics.name("events"), Some(b"foreign"), Some(value), &[], Some(0));
    }
    flush(&producer);
    let text = tail(&["--instance", "foreign"], &config);
    for (line, note) in text.iter().zip([
        "neither Avro nor JSON: 2 bytes 0xfffe",
        "Avro of an unknown schema (fingerprint 756e6b6e6f776e21",
        "framed for schema ID 2147483647: the schema registry knows no such schema",
    ]) {
        assert!(line.contains("? unreadable  foreign  ") && line.contains(note), "{line}");
    }
    assert_eq!(text.len(), 3);
    let lines = tail_json(&["--instance", "foreign"], &config);
    assert_eq!(lines[0]["value"], json!({"hex": "fffe"}));
    assert_eq!(lines[0]["note"], "neither Avro nor JSON: 2 bytes 0xfffe");
}

#[test]
fn without_the_registry_it_says_so_and_ends() {
    let (_topics, mut config) = told(&json!({"encoding": "avro"}), true);
    config["registry"] = json!({"url": "http://127.0.0.1:1"});
    let (code, lines, log) = Tail::start(&["--until-end"], &config).end();
    assert_eq!((code, lines.len()), (Some(1), 0), "{log}");
    assert!(log.contains("the schema registry at http://127.0.0.1:1 cannot be reached"), "{log}");
    config.as_object_mut().unwrap().remove("registry");
    let lines = tail(&[], &config);
    assert!(lines.iter().all(|line| line.contains("no schema registry is configured (registry.url)")), "{lines:?}");
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let (_topics, config) = told(&json!({}), false);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let config = config_file(&config);
    let mut command = rollcall();
    command.args(["tail", "--from", "beginning"]).arg("--config").arg(config.path());
    let mut child = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    drop(command);
    let status = wait_for("the end", LIMIT, || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_filter_that_nothing_could_pass_is_refused() {
    let topics = TestTopics::named(1);
    for arguments in [["raw", "--change", "created"], ["health", "--instance", "i-1"], ["state", "--account", "1"]] {
        let (code, _, log) = Tail::start(&arguments, &topics.config()).end();
        assert_eq!(code, Some(2), "{log}");
        assert!(log.contains(arguments[1]) && log.contains("goes with"), "{log}");
    }
}

#[test]
fn a_topic_that_is_not_there_is_named() {
    let topics = TestTopics::named(1);
    let (code, _, log) = Tail::start(&[], &topics.config()).end();
    assert_eq!(code, Some(1));
    assert!(log.contains(&format!("there is no topic {}", topics.name("events"))), "{log}");
}
