//! Whoever may tag an instance writes into what others read. A Name that would clear a screen, forge a line of a log, turn
//! the direction of writing or become a formula goes through all of the pipeline, and no output does as it says.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::kafka::TestTopics;
use crate::support::process::{Stage, config_file, rollcall};
use crate::support::stages::wait_until_mapped;

/// A formula to whoever opens it as a table, a second line, and what a terminal obeys.
const NASTY: &str = "=cmd|' /C calc'!A0\r\n2026-01-01T00:00:00Z ERROR forged\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}fdp\
                     \u{2066}\u{200b}\u{feff}\u{2028}\u{7f}\u{0},\";\t<script>alert(1)</script>";

/// What was printed, by whom.
#[derive(Default)]
struct Printed(BTreeMap<String, String>);

impl Printed {
    fn run(&mut self, arguments: &[&str], config: &Value) {
        let file = config_file(config);
        let mut command = rollcall();
        command.args(arguments).arg("--config").arg(file.path()).stdin(Stdio::null());
        let output = command.output().unwrap();
        for (stream, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
            let text = String::from_utf8(bytes).unwrap();
            self.0.insert(format!("{} > {stream}", arguments.join(" ")), text);
        }
    }

    /// Nothing in it is obeyed, and nothing of it begins a line.
    fn check(&self) {
        for (by, text) in &self.0 {
            for line in text.lines() {
                let obeyed = line.chars().find(|c| {
                    c.is_control()
                        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
                });
                assert_eq!(obeyed, None, "{by}: {line:?}");
                let begins =
                    ["=", "+cmd", "-cmd", "@", "2026-01-01T00:00:00Z ERROR"].iter().find(|it| line.starts_with(**it));
                assert_eq!(begins, None, "{by}: {line:?}");
            }
        }
    }

    fn shows(&self, by: &str) {
        let text = &self.0[by];
        assert!(text.contains("cmd|"), "{by} does not show the name at all: {text}");
    }
}

#[test]
fn a_hostile_name_is_shown_everywhere_and_obeyed_nowhere() {
    for format in ["text", "json"] {
        let topics = TestTopics::create(1);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instances.json");
        let instance = |id: &str, more: Value| {
            let mut instance = json!({"InstanceId": id, "OwnerId": "123456789012", "InstanceType": NASTY,
                "State": {"Name": NASTY}, "Tags": [{"Key": "Name", "Value": NASTY}, {"Key": NASTY, "Value": NASTY}]});
            instance.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            instance
        };
        let unreadable = json!({"Tags": NASTY, "NetworkInterfaces": NASTY, "LaunchTime": NASTY});
        let all = json!([instance("i-0a", json!({})), instance(NASTY, unreadable), NASTY]);
        std::fs::write(&path, all.to_string()).unwrap();
        let mut config = topics.config();
        config["log"] = json!({"format": format, "filter": "trace"});
        config["collector"]["sources"] = json!([{"name": "file", "file": {"path": path}}]);
        let mut printed = Printed::default();

        printed.run(&["collect", "--once"], &config);
        let mut mapper = Stage::start(&["map"], &config);
        wait_until_mapped(&topics);
        mapper.signal("TERM");
        mapper.wait(Duration::from_secs(60));
        mapper.tail();
        let said = mapper.seen.iter().map(|event| match event {
            Value::String(line) => format!("{line}\n"),
            // It was parsed: that it was one line is shown by that.
            event => format!("{}\n", event["timestamp"]),
        });
        printed.0.insert("map > stderr".to_owned(), said.collect());
        assert!(
            topics
                .read("events")
                .iter()
                .any(|event| event.json()["device"]["name"] == NASTY || event.json().to_string().contains("forged"))
        );

        for topic in ["events", "raw", "state", "sweeps", "dead-letters", "health"] {
            for form in ["text", "json"] {
                printed.run(&["tail", topic, "--until-end", "--output", form], &config);
            }
        }
        let path = path.to_str().unwrap();
        printed.run(&["render", "--input", path], &config);
        printed.run(&["demo", "--from", path, "--sweeps", "2"], &json!({}));
        printed.run(&["check"], &config);
        let mut other = config.clone();
        other["mapper"]["profile"] = "sekoia".into();
        other["mapper"]["time"] = "observed".into();
        other["log"]["filter"] = "error".into();
        for form in ["text", "json"] {
            printed.run(&["sweeps", "list", "--output", form], &config);
            printed.run(&["sweeps", "reconcile", "--dry-run", "--output", form], &config);
            printed.run(&["replay", "--in-place", "--dry-run", "--output", form], &other);
        }
        printed.check();
        for form in ["text", "json"] {
            printed.shows(&format!("tail events --until-end --output {form} > stdout"));
            printed.shows(&format!("tail raw --until-end --output {form} > stdout"));
        }
        printed.shows(&format!("render --input {path} > stdout"));
        printed.shows(&format!("demo --from {path} --sweeps 2 > stdout"));
    }
}
