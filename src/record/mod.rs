//! The raw record: what the collector publishes and the mapper reads.
//!
//! Key: the instance ID. Value: one EC2 instance as canonical JSON ([`canonical`]), or null when the instance is gone.
//! What varies from sweep to sweep (when, by which sweep) is in the headers, so that two sweeps of an unchanged
//! instance give identical bytes. `schemas/raw-record.md` is the contract for whoever feeds the topic otherwise.

pub mod canonical;
mod digest;
pub mod dump;
mod partition;

pub use digest::{Digest, Secret};
pub use partition::partition_for;

use chrono::DateTime;

/// When EC2 answered, RFC 3339 with milliseconds. Without it the Kafka timestamp counts.
pub const OBSERVED_AT: &str = "observed-at";
/// Identifies the sweep that saw the instance.
pub const SWEEP_ID: &str = "sweep-id";
/// The account that was swept, twelve digits.
pub const AWS_ACCOUNT: &str = "aws-account";
/// The region that was swept, as in `eu-west-1`.
pub const AWS_REGION: &str = "aws-region";
/// The partition of that region, as in `aws` or `aws-cn`.
pub const AWS_PARTITION: &str = "aws-partition";
/// On a tombstone: why the instance is taken for gone, `absent` or `terminated`.
pub const REASON: &str = "reason";
/// On a tombstone: when the last sweep began that listed the instance, RFC 3339 with milliseconds.
pub const LAST_SEEN: &str = "last-seen";
/// Form of the value: [`SCHEMA_VERSION`].
pub const SCHEMA: &str = "schema";
/// Name of the configured source.
pub const SOURCE: &str = "source";
/// Category of the configured source.
pub const SOURCE_CATEGORY: &str = "source-category";
/// Header `field.<name>`: a field that the source's configuration adds.
pub const FIELD_PREFIX: &str = "field.";
/// Header value of [`SCHEMA`].
pub const SCHEMA_VERSION: &str = "ec2-instance/1";

/// The AWS partition of a region, by its prefix: `aws` unless the name tells another.
pub fn aws_partition_of(region: &str) -> &'static str {
    crate::config::Partition::of_region(region).map_or("aws", |partition| partition.name)
}

/// A record of the raw topic, borrowed from the client's fetch buffer.
#[derive(Debug, Clone)]
pub struct RawRecord<'a> {
    /// Partition of the raw topic.
    pub partition: i32,
    /// Offset within it.
    pub offset: i64,
    /// Kafka's timestamp, milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// The instance ID, if whoever wrote the record kept to the contract.
    pub key: Option<&'a [u8]>,
    /// The instance; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// In the order of the record.
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

impl<'a> RawRecord<'a> {
    /// The last header of that name that is text.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let found = self.headers.iter().rev().find(|(header, _)| *header == name)?;
        std::str::from_utf8(found.1?).ok()
    }

    /// When the instance was seen, milliseconds since the epoch: the header, else Kafka's timestamp. Nothing is seen
    /// after it was written: a later header is a wrong clock, and would make all that follows look outdated.
    pub fn observed_at_ms(&self) -> i64 {
        let told = self.header(OBSERVED_AT).and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        match told.map(|at| at.timestamp_millis()) {
            Some(at) if self.timestamp_ms > 0 => at.min(self.timestamp_ms),
            Some(at) => at,
            None => self.timestamp_ms,
        }
    }

    /// Size of key and value, for the bounds of a batch.
    pub fn len(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }

    /// Neither key nor value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
