//! `rollcall replay` on Apache Kafka.

mod dead_letters;
mod file;
mod remap;
mod topic;

use std::io::Read as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::support::kafka::{TestTopics, exists, flush, producer, read_committed, send};
use crate::support::process::{config_file, rollcall};
use crate::support::wait_for;

/// 2026-05-28T20:26:40Z, before the tests run: when the first record was observed.
const BEGAN: i64 = 1_780_000_000_000;

/// Writes raw records to the raw topic, each observed a millisecond after the one before.
struct Feed {
    topics: TestTopics,
    told: i64,
}

impl Feed {
    fn new(topics: &TestTopics) -> Self {
        Self { topics: topics.clone(), told: 0 }
    }

    /// `None` is a tombstone.
    fn tell(&mut self, records: impl IntoIterator<Item = (String, Option<Value>)>) {
        let (producer, topic) = (producer(), self.topics.name("raw"));
        for (id, instance) in records {
            self.told += 1;
            let at = DateTime::from_timestamp_millis(BEGAN + self.told).unwrap();
            let at = at.to_rfc3339_opts(SecondsFormat::Millis, true);
            let value = instance.map(|instance| instance.to_string().into_bytes());
            let headers = [("observed-at", at.as_str()), ("aws-account", "123456789012"), ("aws-region", "eu-west-1")];
            send(&producer, &topic, Some(id.as_bytes()), value.as_deref(), &headers, None);
        }
        flush(&producer);
    }
}

fn id(number: usize) -> String {
    format!("i-{number:017x}")
}

/// An instance called `name`.
fn instance(id: &str, name: &str) -> Value {
    json!({
        "InstanceId": id, "OwnerId": "123456789012", "InstanceType": "m5.large", "State": {"Code": 16, "Name": "running"},
        "LaunchTime": "2026-01-01T00:00:00.000Z", "Placement": {"AvailabilityZone": "eu-west-1a"},
        // What profile cse tells of an instance.
        "PrivateDnsName": format!("{name}.internal"),
        "Tags": [{"Key": "Name", "Value": name}],
    })
}

/// `rollcall replay ARGUMENTS` under way; killed when dropped.
struct Replay {
    child: Child,
    _config: NamedTempFile,
}

impl Replay {
    fn start(arguments: &[&str], config: &Value) -> Self {
        let config = config_file(config);
        let child = rollcall()
            .arg("replay")
            .args(arguments)
            .arg("--config")
            .arg(config.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, _config: config }
    }

    /// Waits for its end: exit code, standard output, standard error.
    fn end(mut self) -> (Option<i32>, String, String) {
        let [mut out, mut err] = [String::new(), String::new()];
        let mut stderr = self.child.stderr.take().unwrap();
        let reading = std::thread::spawn(move || {
            stderr.read_to_string(&mut err).unwrap();
            err
        });
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        let status = wait_for("the end of the replay", Duration::from_secs(60), || self.child.try_wait().unwrap());
        (status.code(), out, reading.join().unwrap())
    }

    /// Waits until `output` has so many events.
    fn wait_for_events(&mut self, output: &str, least: usize) {
        wait_for("some events", Duration::from_secs(60), || {
            if exists(output) && read_committed(output).len() >= least {
                return Some(());
            }
            assert!(self.child.try_wait().unwrap().is_none(), "the replay ended before it had said {least} events");
            None
        });
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `rollcall replay ARGUMENTS` to its good end; what it says, as JSON.
fn replay(arguments: &[&str], config: &Value) -> Value {
    let (code, out, err) = Replay::start(&[arguments, &["--output", "json"]].concat(), config).end();
    assert_eq!(code, Some(0), "{out}\n{err}");
    serde_json::from_str(&out).unwrap()
}
