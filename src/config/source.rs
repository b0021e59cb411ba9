//! A source: its name, what its records carry, how often it is swept, and where its instances come from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::aws::AwsSource;
use super::check::Faults;
use super::{duration, secret};

/// Something to sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "WrittenSource", into = "WrittenSource")]
pub struct Source {
    /// Unique name; header `source` of its records.
    pub name: String,
    /// Header `source-category` of its records.
    pub category: Option<String>,
    /// Header `field.<name>` of its records.
    pub fields: BTreeMap<String, String>,
    /// Time between two sweeps of a scope.
    pub interval: Duration,
    /// How long a sweep may try before it is given up.
    pub give_up_after: Duration,
    /// Where the instances come from.
    pub kind: SourceKind,
}

/// Where instances come from.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceKind {
    /// The EC2 API.
    Aws(Box<AwsSource>),
    /// A file, or standard input.
    File(FileSource),
    /// An invented fleet.
    Simulated(SimulatedSource),
}

/// A [`Source`] as it is written: one of `aws`, `file` and `simulated` says what kind it is.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSource {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    category: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<String, String>,
    #[serde(default = "five_minutes", with = "duration")]
    interval: Duration,
    #[serde(default = "ninety_minutes", with = "duration")]
    give_up_after: Duration,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aws: Option<AwsSource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<FileSource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    simulated: Option<SimulatedSource>,
}

impl TryFrom<WrittenSource> for Source {
    type Error = String;

    fn try_from(written: WrittenSource) -> Result<Self, String> {
        let kind = match (written.aws, written.file, written.simulated) {
            (Some(aws), None, None) => SourceKind::Aws(Box::new(aws)),
            (None, Some(file), None) => SourceKind::File(file),
            (None, None, Some(simulated)) => SourceKind::Simulated(simulated),
            _ => return Err(format!("source {:?} needs exactly one of aws, file, simulated", written.name)),
        };
        Ok(Self {
            name: written.name,
            category: written.category,
            fields: written.fields,
            interval: written.interval,
            give_up_after: written.give_up_after,
            kind,
        })
    }
}

impl From<Source> for WrittenSource {
    fn from(source: Source) -> Self {
        let (mut aws, mut file, mut simulated) = (None, None, None);
        match source.kind {
            SourceKind::Aws(kind) => aws = Some(*kind),
            SourceKind::File(kind) => file = Some(kind),
            SourceKind::Simulated(kind) => simulated = Some(kind),
        }
        Self {
            name: source.name,
            category: source.category,
            fields: source.fields,
            interval: source.interval,
            give_up_after: source.give_up_after,
            aws,
            file,
            simulated,
        }
    }
}

fn ninety_minutes() -> Duration {
    Duration::from_secs(90 * 60)
}

fn five_minutes() -> Duration {
    Duration::from_secs(300)
}

/// An AWS account, twelve digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "secret::Scalar")]
pub struct AccountId(pub String);

impl TryFrom<secret::Scalar> for AccountId {
    type Error = String;

    fn try_from(scalar: secret::Scalar) -> Result<Self, String> {
        let text = String::from(scalar);
        if text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
            Ok(Self(text))
        } else {
            Err(format!("{text:?} is not an account ID: twelve digits"))
        }
    }
}

/// Output of `aws ec2 describe-instances`, or instances one a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSource {
    /// The file; `-` is standard input.
    pub path: PathBuf,
    /// Account, where the file does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    /// Region, where the file does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// An invented fleet that changes from sweep to sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimulatedSource {
    /// Instances to begin with.
    pub instances: usize,
    /// The same seed invents the same fleet.
    pub seed: u64,
}

impl Default for SimulatedSource {
    fn default() -> Self {
        Self { instances: 300, seed: 1 }
    }
}

impl Source {
    /// How long what was not listed is given to appear before it is asked for.
    pub fn settling_delay(&self) -> Duration {
        Duration::ZERO
    }

    /// Notes what no type can refuse.
    pub(super) fn check(&self, key: &str, faults: &mut Faults) {
        faults.unless(!self.name.is_empty(), &format!("{key}.name"), "is empty; a name is needed");
        let week = Duration::from_secs(7 * 24 * 3600);
        faults.between(&format!("{key}.interval"), self.interval, Duration::from_secs(10), week);
        if let SourceKind::Aws(aws) = &self.kind {
            aws.check(&format!("{key}.aws"), faults);
        }
    }
}
