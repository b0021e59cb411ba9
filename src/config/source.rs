//! A source: its name, what its records carry, how often it is swept, and where its instances come from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::aws::AwsSource;
use super::check::Faults;
use super::rules::Rule;
use super::{duration, secret};

/// The field that tells a SIEM's mapper whether the records of a source are for it.
const SIEM_FORWARD: &str = "_siemForward";
const MINUTE: u64 = 60;
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * MINUTE);

/// Something to sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "WrittenSource", into = "WrittenSource")]
pub struct Source {
    /// Unique name; header `source` of its records, and the first part of its scopes' keys.
    pub name: String,
    /// What it is there for; for people.
    pub description: Option<String>,
    /// Header `source-category` of its records.
    pub category: Option<String>,
    /// Header `field.<name>` of its records. `_siemForward` is among them where it was said.
    pub fields: BTreeMap<String, String>,
    /// Time between two sweeps of a scope.
    pub interval: Duration,
    /// How long a sweep that fails is tried again before the source counts as failed.
    pub give_up_after: Duration,
    /// What leaves for Kafka, and in which form.
    pub rules: Vec<Rule>,
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
    description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    category: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "texts")]
    fields: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    siem_forward: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interval: Option<Interval>,
    /// In minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    polling_interval: Option<u64>,
    #[serde(default = "ninety_minutes", with = "duration")]
    give_up_after: Duration,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rules: Vec<Rule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aws: Option<AwsSource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<FileSource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    simulated: Option<SimulatedSource>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
struct Interval(#[serde(with = "duration")] Duration);

impl TryFrom<WrittenSource> for Source {
    type Error = String;

    fn try_from(written: WrittenSource) -> Result<Self, String> {
        let name = &written.name;
        let interval = match (written.interval, written.polling_interval) {
            (Some(_), Some(_)) => {
                return Err(format!("source {name:?} has both interval and polling_interval; one says it all"));
            }
            (_, Some(minutes)) => polling_interval(minutes).map_err(|error| format!("source {name:?}: {error}"))?,
            (Some(Interval(interval)), None) => interval,
            (None, None) => Duration::from_secs(5 * MINUTE),
        };
        let kind = match (written.aws, written.file, written.simulated) {
            (Some(aws), None, None) => SourceKind::Aws(Box::new(aws)),
            (None, Some(file), None) => SourceKind::File(file),
            (None, None, Some(simulated)) => SourceKind::Simulated(simulated),
            _ => return Err(format!("source {name:?} needs exactly one of aws, file, simulated")),
        };
        let fields = with_siem_forward(written.fields, written.siem_forward)
            .map_err(|error| format!("source {name:?}: {error}"))?;
        Ok(Self {
            name: written.name,
            description: written.description,
            category: written.category,
            fields,
            interval,
            give_up_after: written.give_up_after,
            rules: written.rules,
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
            description: source.description,
            category: source.category,
            fields: source.fields,
            siem_forward: None,
            interval: Some(Interval(source.interval)),
            polling_interval: None,
            give_up_after: source.give_up_after,
            rules: source.rules,
            aws,
            file,
            simulated,
        }
    }
}

fn ninety_minutes() -> Duration {
    Duration::from_secs(90 * MINUTE)
}

/// YAML reads `true` and `5` as what they look like; the value of a field is text.
fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let fields = BTreeMap::<String, secret::Scalar>::deserialize(deserializer)?;
    Ok(fields.into_iter().map(|(name, value)| (name, value.into())).collect())
}

fn polling_interval(minutes: u64) -> Result<Duration, String> {
    let most = WEEK.as_secs() / MINUTE;
    if (1..=most).contains(&minutes) {
        Ok(Duration::from_secs(minutes * MINUTE))
    } else {
        Err(format!("polling_interval: {minutes} is not allowed: 1 to {most} minutes"))
    }
}

/// `siem_forward: false` is short for the field; `true` is what goes without saying.
fn with_siem_forward(
    mut fields: BTreeMap<String, String>,
    siem_forward: Option<bool>,
) -> Result<BTreeMap<String, String>, String> {
    match (fields.get(SIEM_FORWARD).map(String::as_str), siem_forward) {
        (Some("true"), Some(false)) | (Some("false"), Some(true)) => {
            Err(format!("siem_forward and fields.{SIEM_FORWARD} contradict each other"))
        }
        (Some("true" | "false"), _) | (None, None | Some(true)) => Ok(fields),
        (Some(other), _) => Err(format!("fields.{SIEM_FORWARD}: {other:?} is not allowed: true or false")),
        (None, Some(false)) => {
            fields.insert(SIEM_FORWARD.to_owned(), false.to_string());
            Ok(fields)
        }
    }
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
    /// A source of that kind, with defaults for the rest.
    pub fn new(name: &str, kind: SourceKind) -> Self {
        Self {
            name: name.to_owned(),
            description: None,
            category: None,
            fields: BTreeMap::new(),
            interval: Duration::from_secs(5 * MINUTE),
            give_up_after: ninety_minutes(),
            rules: Vec::new(),
            kind,
        }
    }

    /// Whether its records are for a SIEM; they are, unless it says otherwise.
    pub fn siem_forward(&self) -> bool {
        self.fields.get(SIEM_FORWARD).is_none_or(|value| value == "true")
    }

    /// How long what was not listed is given to appear before it is asked for.
    pub fn settling_delay(&self) -> Duration {
        match &self.kind {
            SourceKind::Aws(aws) => aws.settling_delay,
            SourceKind::File(_) | SourceKind::Simulated(_) => Duration::ZERO,
        }
    }

    /// Digest of what narrows the listing at the source; 0 where nothing does.
    pub fn filters_digest(&self) -> i64 {
        match &self.kind {
            SourceKind::Aws(aws) if !aws.filters.is_empty() => {
                let mut hasher = blake3::Hasher::new();
                for (name, values) in &aws.filters {
                    for text in std::iter::once(name).chain(values) {
                        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
                    }
                    hasher.update(&u64::MAX.to_le_bytes());
                }
                let mut digest = [0; 8];
                digest.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
                i64::from_le_bytes(digest)
            }
            _ => 0,
        }
    }

    /// Notes what no type can refuse.
    pub(super) fn check(&self, key: &str, faults: &mut Faults) {
        let name = &self.name;
        faults.unless(!name.is_empty(), &format!("{key}.name"), "is empty; a name is needed");
        // A scope's key is source/account/region.
        let is_plain = !name.contains(|c: char| c == '/' || c.is_control());
        let message = format!("{name:?} has a slash or a control character in it; it is a part of keys");
        faults.unless(is_plain, &format!("{key}.name"), message);
        for field in self.fields.keys() {
            let is_printable = !field.is_empty() && !field.contains(char::is_control);
            let message = format!("{field:?} is not allowed: a name that is not empty, without control characters");
            faults.unless(is_printable, &format!("{key}.fields"), message);
        }
        faults.between(&format!("{key}.interval"), self.interval, Duration::from_secs(10), WEEK);
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(24 * 60 * MINUTE));
        faults.between(&format!("{key}.give_up_after"), self.give_up_after, least, most);
        if let SourceKind::Aws(aws) = &self.kind {
            aws.check(&format!("{key}.aws"), faults);
        }
    }
}

#[cfg(test)]
mod tests;
