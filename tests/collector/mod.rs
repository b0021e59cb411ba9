//! The collector: nothing missed, nothing falsely gone. Scenario by scenario, on Apache Kafka.

#[cfg(feature = "aws")]
pub mod access;
#[cfg(feature = "aws")]
mod check;
#[cfg(feature = "aws")]
pub mod churn;
#[cfg(feature = "aws")]
mod faults;
mod memory;
#[cfg(feature = "aws")]
mod policy;
#[cfg(feature = "aws")]
mod processing;
#[cfg(feature = "aws")]
mod size;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::support::kafka::{Read, TestTopics, read_committed};
use crate::support::process::{Stage, config_file, rollcall};
#[cfg(feature = "aws")]
use crate::support::stages::map_all;

/// Credentials that the test servers take for the owner of everything, and nothing of the machine's own.
pub const AWS: [(&str, &str); 5] = [
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("AWS_CONFIG_FILE", "/dev/null"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
];

/// Seventeen regions: with two accounts 34 scopes.
pub const SEVENTEEN_REGIONS: [&str; 17] = [
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "eu-central-1",
    "eu-north-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
    "ca-central-1",
    "sa-east-1",
    "ap-south-1",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-southeast-1",
    "ap-southeast-2",
];

/// Sources, and topics of their own.
pub struct Pipeline {
    pub topics: TestTopics,
    pub config: Value,
}

impl Pipeline {
    pub fn new(sources: Value) -> Self {
        let topics = TestTopics::create(3);
        let mut config = topics.config();
        config["collector"]["sources"] = sources;
        Self { topics, config }
    }

    pub fn raw(&self) -> Vec<Read> {
        read_committed(&self.topics.name("raw"))
    }

    /// Maps what is on the raw topic; all events so far.
    #[cfg(feature = "aws")]
    pub fn events(&self) -> Vec<Read> {
        map_all(&self.topics, &self.config);
        read_committed(&self.topics.name("events"))
    }

    /// One sweep of everything; what it logs at the end of each scope.
    pub fn sweep(&self) -> Vec<Value> {
        self.sweep_with(&self.config)
    }

    pub fn sweep_with(&self, config: &Value) -> Vec<Value> {
        let mut collector = Stage::start_with_env(&["collect", "--once"], config, &AWS);
        let end = collector.wait(Duration::from_secs(60));
        assert!(end.code().is_some(), "log:\n{}", collector.tail());
        collector.tail();
        let verdicts = ["sweep complete", "sweep incomplete", "sweep held"];
        let is_end = |event: &&Value| verdicts.iter().any(|verdict| event["message"] == *verdict);
        collector.seen.iter().filter(is_end).cloned().collect()
    }

    pub fn removed(&self) -> Vec<Read> {
        read_committed(&self.topics.name("raw")).into_iter().filter(|record| record.value.is_none()).collect()
    }

    pub fn health(&self) -> Vec<Value> {
        read_committed(&self.topics.name("health")).iter().map(Read::json).collect()
    }

    pub fn list(&self) -> BTreeMap<String, Value> {
        let file = config_file(&self.config);
        let output = rollcall().args(["sweeps", "list", "-o", "json", "-c"]).arg(file.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        lines.into_iter().map(|line| (line["scope"].as_str().unwrap().to_owned(), line)).collect()
    }

    pub fn accept(&self, scope: &str) -> std::process::Output {
        let file = config_file(&self.config);
        rollcall().args(["sweeps", "accept", scope, "-c"]).arg(file.path()).output().unwrap()
    }
}

fn keys(records: &[Read]) -> Vec<String> {
    records.iter().map(|record| record.key().to_owned()).collect()
}
