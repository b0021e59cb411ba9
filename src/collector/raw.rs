//! From what a source lists to raw records.

use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};

use super::ledger::InstanceState;
use super::publisher::{Destination, Headers, Outgoing};
use super::source::Scope;
use crate::record;
use crate::record::canonical::Instance;

/// What the headers of a source's records say beside the scope.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    /// Header `source-category`.
    pub category: Option<String>,
    /// Headers `field.<name>`.
    pub fields: Vec<(String, String)>,
}

/// What the memory keeps of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// `State.Name`.
    pub state: InstanceState,
    /// Whether it shows tags.
    pub tagged: bool,
}

impl Observation {
    /// Of an instance.
    pub fn of(instance: &Instance) -> Self {
        Self { state: InstanceState::from_name(instance.state.as_deref()), tagged: instance.has_tags }
    }
}

/// The headers of the records of one observation.
pub fn headers(scope: &Scope, sweep_id: &str, labels: &Labels, observed_at: DateTime<Utc>) -> Headers {
    let mut headers = vec![
        (Cow::Borrowed(record::SCHEMA), record::SCHEMA_VERSION.to_owned()),
        (record::OBSERVED_AT.into(), time(observed_at)),
        (record::SWEEP_ID.into(), sweep_id.to_owned()),
        (record::SOURCE.into(), scope.source.clone()),
    ];
    let optional = [
        (record::SOURCE_CATEGORY, labels.category.as_deref()),
        (record::AWS_ACCOUNT, scope.account.as_deref()),
        (record::AWS_REGION, scope.region.as_deref()),
        (record::AWS_PARTITION, scope.region.as_deref().map(record::aws_partition_of)),
    ];
    headers.extend(optional.into_iter().filter_map(|(name, value)| Some((name.into(), value?.to_owned()))));
    let fields = labels.fields.iter();
    headers.extend(fields.map(|(name, value)| (format!("{}{name}", record::FIELD_PREFIX).into(), value.clone())));
    headers.into_iter().map(|(name, value)| (name, Some(value.into_bytes()))).collect()
}

/// The raw record of an instance.
pub fn instance(id: &str, json: Vec<u8>, headers: &Headers) -> Outgoing {
    Outgoing {
        destination: Destination::Raw,
        key: Some(id.to_owned()),
        value: Some(json),
        headers: Arc::clone(headers),
        timestamp: None,
    }
}

/// What has no ID has no place on the raw topic, and goes to the dead letters.
pub fn no_instance(json: Vec<u8>, headers: &Headers) -> Outgoing {
    let more = [
        ("error-kind", "no-instance-id".to_owned()),
        ("error", "the source listed something without an InstanceId".to_owned()),
        ("failed-at", time(Utc::now())),
    ];
    Outgoing {
        destination: Destination::DeadLetters,
        key: None,
        value: Some(json),
        headers: with(headers, more),
        timestamp: None,
    }
}

/// The instance is gone: a tombstone. `headers` are those of `observed_at`. To the mapper nothing is seen after Kafka's time
/// of the record, which a clock that is behind would set too early.
pub fn tombstone(
    id: &str,
    reason: &str,
    last_seen: Option<DateTime<Utc>>,
    observed_at: DateTime<Utc>,
    headers: &Headers,
) -> Outgoing {
    let mut more = vec![(record::REASON, reason.to_owned())];
    more.extend(last_seen.map(|at| (record::LAST_SEEN, time(at))));
    Outgoing {
        destination: Destination::Raw,
        key: Some(id.to_owned()),
        value: None,
        headers: with(headers, more),
        timestamp: Some(observed_at.max(Utc::now()).timestamp_millis()),
    }
}

fn with(headers: &Headers, more: impl IntoIterator<Item = (&'static str, String)>) -> Headers {
    let more = more.into_iter().map(|(name, value)| (name.into(), Some(value.into_bytes())));
    headers.iter().cloned().chain(more).collect()
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
