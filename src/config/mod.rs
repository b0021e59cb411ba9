//! Configuration: one YAML or JSON file, overridden by `ROLLCALL_*` variables, overridden by flags.
//!
//! [`layers`] merges the three into one document and reads it into the types below, which hold what every part of the
//! program is built from; [`check`] refuses what no type can. The documentation of the fields is the reference page.

mod aws;
mod check;
pub mod import;
pub mod layers;
mod oauth;
pub mod rules;
mod secret;
mod source;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use aws::{
    ACCOUNT_ID, Account, AwsSource, Credentials, Endpoints, Organization, PARTITIONS, PageSize, Partition, Regions,
    Role, RoleArn, StaticKeys, WebIdentity,
};
pub use check::Fault;
pub use layers::{ConfigError, Override, load, parse};
pub use oauth::{MskIam, OAuth, Oidc};
pub use secret::Secret;
pub use source::{AccountId, FileSource, SimulatedSource, Source, SourceKind};

use crate::profile::encode::Encoding;
use crate::profile::{Profile, TimeField};

/// Everything that can be configured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How this process is called: in client and transactional IDs. Must be unique among the replicas of a stage and the
    /// same after a restart. Default: the host name.
    pub instance_id: InstanceId,
    /// Kafka and its topics.
    pub kafka: Kafka,
    /// The schema registry; without one, events are written self-contained.
    pub registry: Option<Registry>,
    /// Stage 1.
    pub collector: Collector,
    /// Stage 2.
    pub mapper: Mapper,
    /// The admin port: status page, metrics and health.
    pub admin: Admin,
    /// Logs.
    pub log: Log,
}

/// A name that Kafka takes in a client ID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub String);

impl Default for InstanceId {
    fn default() -> Self {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty()).unwrap_or(name);
        let name = name.trim();
        Self(if name.is_empty() { "rollcall" } else { name }.to_owned())
    }
}

/// Kafka.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// Comma-separated `host:port`.
    pub bootstrap_servers: String,
    /// Names of the topics.
    pub topics: Topics,
    /// Partitions of `raw`, `state` and `events` where `rollcall topics` creates them.
    pub partitions: i32,
    /// Partitions of `sweeps` where `rollcall topics` creates it.
    pub sweep_partitions: i32,
    /// Replicas of the topics where `rollcall topics` creates them; -1 is the brokers' default.
    pub replication_factor: i32,
    /// How long a transaction may take; after that Kafka aborts it.
    #[serde(with = "duration")]
    pub transaction_timeout: Duration,
    /// Largest record that is produced, in bytes; the dead-letter topic must take it.
    pub max_message_bytes: usize,
    /// How the groups of both stages share out partitions.
    pub group_protocol: GroupProtocol,
    /// Whether members of the groups keep their partitions over a restart that is over within the session timeout.
    pub static_membership: bool,
    /// Where the tokens of SASL OAUTHBEARER come from; without, that mechanism is not used.
    pub oauth: Option<OAuth>,
    /// Any property of librdkafka, for all clients: TLS, SASL, timeouts.
    pub properties: BTreeMap<String, Secret>,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            bootstrap_servers: "localhost:9092".to_owned(),
            topics: Topics::default(),
            partitions: 12,
            sweep_partitions: 12,
            replication_factor: -1,
            transaction_timeout: Duration::from_secs(30),
            max_message_bytes: 8 << 20,
            group_protocol: GroupProtocol::Classic,
            static_membership: false,
            oauth: None,
            properties: BTreeMap::new(),
        }
    }
}

/// How a group shares out partitions. Both move only those that must move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupProtocol {
    /// The members do, cooperatively.
    Classic,
    /// The brokers do (KIP-848), from Kafka 4.0 on.
    Consumer,
}

impl GroupProtocol {
    /// As it is configured.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
        }
    }
}

/// Names of the topics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Topics {
    /// Raw records.
    pub raw: String,
    /// What the collector remembers.
    pub sweeps: String,
    /// Change events.
    pub events: String,
    /// Latest devices, the mapper's memory.
    pub state: String,
    /// Rejected records.
    pub dead_letters: String,
    /// Health events.
    pub health: String,
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            raw: "ec2.instances.raw".to_owned(),
            sweeps: "ec2.sweeps".to_owned(),
            events: "ocsf.device.events".to_owned(),
            state: "ocsf.device.state".to_owned(),
            dead_letters: "ec2.instances.dlq".to_owned(),
            health: "rollcall.health".to_owned(),
        }
    }
}

/// The schema registry (Confluent's REST API).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// Base address.
    pub url: String,
    /// Who registers the schema.
    #[serde(default)]
    pub mode: RegistryMode,
    /// Basic authentication: who we are,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// and what proves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// A bearer token, instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// Certificates that are trusted beside the system's, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The client's certificate and those that lead to its CA, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// Its private key, PEM (PKCS #8).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

/// What the mapper does with its schema at start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistryMode {
    /// Registers it where it is not yet.
    #[default]
    Register,
    /// Looks it up: somebody else registers.
    Verify,
}

/// Stage 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Collector {
    /// The consumer group whose members share the scopes.
    pub group_id: String,
    /// What to sweep.
    pub sources: Vec<Source>,
    /// Scopes that are swept at the same time, at most.
    pub concurrency: NonZeroUsize,
    /// Key of the hashes that rules `hash` put in place of values, 16 bytes and more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_key: Option<Secret>,
}

impl Default for Collector {
    fn default() -> Self {
        let group_id = "rollcall-collector".to_owned();
        Self { group_id, sources: Vec::new(), concurrency: NonZeroUsize::MIN.saturating_add(15), hash_key: None }
    }
}

/// Stage 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mapper {
    /// The consumer group. One for each profile, with a state topic of its own.
    pub group_id: String,
    /// The form of the events.
    pub profile: Profile,
    /// The encoding of the events.
    pub encoding: Encoding,
    /// What `time` says, in profile `sekoia`.
    pub time: TimeField,
    /// What never makes an event alone.
    pub ignore: Ignore,
    /// Labels of every event: the header `labels`, and `metadata.labels` in profile `ocsf`.
    pub labels: Vec<String>,
    /// The tenant whose events these are, in profile `ocsf`.
    pub tenant_uid: Option<String>,
    /// Threads that map, each with partitions of its own. Default: one per core.
    pub engines: NonZeroUsize,
    /// A transaction is committed when it is this old, or five times as old while records wait,
    #[serde(with = "duration")]
    pub commit_interval: Duration,
    /// or has read so many raw records,
    pub max_batch_records: NonZeroUsize,
    /// or has written so many bytes.
    pub max_batch_bytes: NonZeroUsize,
    /// Largest record that is mapped, in bytes; a larger one is a dead letter.
    pub max_record_bytes: NonZeroUsize,
    /// Memory for the devices of all engines together, in bytes; a partition that does not fit is held. Default: half of
    /// what the cgroup or the machine has.
    pub max_state_bytes: NonZeroUsize,
    /// How long a removed device is remembered, so that late news of it cannot bring it back.
    #[serde(with = "duration")]
    pub gone_retention: Duration,
    /// Records of a partition that may be rejected in a row before it is held for somebody to look; 0: any number.
    pub max_reject_streak: usize,
}

impl Default for Mapper {
    fn default() -> Self {
        let at_least_one = |number| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
        Self {
            group_id: "rollcall-mapper".to_owned(),
            profile: Profile::Sekoia,
            encoding: Encoding::Avro,
            time: TimeField::Launched,
            ignore: Ignore::default(),
            labels: Vec::new(),
            tenant_uid: None,
            engines: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            commit_interval: Duration::from_millis(50),
            max_batch_records: at_least_one(100_000),
            max_batch_bytes: at_least_one(32 << 20),
            max_record_bytes: at_least_one(1 << 20),
            max_state_bytes: at_least_one(crate::mapper::budget::half_of_memory()),
            gone_retention: Duration::from_secs(7 * 24 * 3600),
            max_reject_streak: 100,
        }
    }
}

/// What never makes an event alone, beside what the profile says; the values ride on the next event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ignore {
    /// Paths as the header `changed` has them, with `[]` for any element of a list.
    pub fields: Vec<String>,
    /// Patterns of tag keys, with `*` and `?`.
    pub tags: Vec<String>,
}

/// The admin port: status page, metrics and health.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where the status page, `/metrics`, `/healthz` and `/readyz` are served; empty: nowhere.
    pub listen: String,
    /// What who wants to see devices on the status page must bring. Without it, only this machine sees them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9464".to_owned(), token: None }
    }
}

/// Logs, on standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Which events: a level, or directives as in `info,rollcall::mapper=debug`.
    pub filter: String,
    /// Their form.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Auto }
    }
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl Config {
    /// Where a mapping comes from.
    pub fn mapping(&self) -> crate::profile::Mapping {
        let Mapper { profile, time, ignore, labels, tenant_uid, .. } = &self.mapper;
        crate::profile::Mapping {
            profile: *profile,
            time: *time,
            // What it cannot read was refused when the configuration was loaded.
            ignore: crate::profile::ignore::Ignore::new(&ignore.fields, &ignore.tags).unwrap_or_default(),
            labels: labels.clone(),
            tenant_uid: tenant_uid.clone().filter(|tenant| !tenant.is_empty()),
        }
    }
}

/// Durations as people write them: `100ms`, `5m`, `1h 30m`.
mod duration {
    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|error| {
            D::Error::custom(format!("{text:?} is not a duration ({error}); write 100ms, 30s, 5m, 1h 30m or 7d"))
        })
    }
}
