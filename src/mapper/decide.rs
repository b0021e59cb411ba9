//! The mapper's one decision: a raw record and what is known of its device, to what follows. Pure: no clock, no I/O.
//!
//! The lifecycle it follows is `docs/mapping.md`, "What counts as a change".

use chrono::DateTime;

use super::state::{DeviceState, Devices, Known, Life, Rendering};
pub use crate::profile::change::{Change, Removal};
use crate::profile::diff::FieldChange;
use crate::profile::{Device, Fingerprint, Mapping, Scope, TERMINATED};
use crate::record::{AWS_ACCOUNT, AWS_REGION, Digest, LAST_SEEN, REASON, RawRecord, Secret, partition_for};

/// Why a record is a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The messages tell.
pub enum Rejection {
    #[error("the record has no key; it must be the instance ID")]
    NoKey,
    #[error("the key is not UTF-8; it must be the instance ID")]
    UnreadableKey,
    #[error("the value has {size} bytes, {limit} are allowed (mapper.max_record_bytes)")]
    TooLarge { size: usize, limit: usize },
    #[error("the record lies in partition {found}, its key belongs into {expected} of {partitions} (murmur2)")]
    Misrouted { found: i32, expected: i32, partitions: i32 },
    #[error("the value is not UTF-8: {0}")]
    NotUtf8(std::str::Utf8Error),
    #[error("the value is not a JSON object: {0}")]
    NotAnObject(String),
    #[error("the value has no InstanceId, or one that is not text")]
    NoInstanceId,
    #[error("the key is not the value's InstanceId, {instance_id:?}")]
    ForeignKey { instance_id: String },
}

impl Rejection {
    /// A bounded word for metrics and for the header `error-kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Rejection::NoKey => "no-key",
            Rejection::UnreadableKey => "unreadable-key",
            Rejection::TooLarge { .. } => "too-large",
            Rejection::Misrouted { .. } => "misrouted",
            Rejection::NotUtf8(_) => "not-utf8",
            Rejection::NotAnObject(_) => "not-an-object",
            Rejection::NoInstanceId => "no-instance-id",
            Rejection::ForeignKey { .. } => "foreign-key",
        }
    }
}

/// What follows from a record.
#[derive(Debug)]
pub enum Decision {
    /// Nothing: what it says is known.
    Unchanged,
    /// Nothing, and records like this one need not be looked at again: they render to the device that is known.
    Same(Known),
    /// Nothing: it is older than what the device's last event was made from.
    Stale,
    /// An event.
    Emit(Box<Emission>),
    /// A dead letter.
    Reject(Rejection),
}

/// An event to be written, and the state that follows from it.
#[derive(Debug)]
pub struct Emission {
    /// What happened.
    pub change: Change,
    /// What differs, for `updated` and `remapped`.
    pub fields: Vec<FieldChange>,
    /// When the device was last seen to be there, milliseconds since the epoch.
    pub last_seen: i64,
    /// The device that is reported.
    pub device: Device,
    /// The device's state from now on.
    pub state: DeviceState,
}

/// What decides beside the record and the state.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How instances are rendered.
    pub mapping: Mapping,
    /// Of the mapping.
    fingerprint: Fingerprint,
    /// Partitions of the raw topic.
    pub partitions: i32,
    /// Largest value that is parsed, in bytes.
    pub max_record_bytes: usize,
}

impl Rules {
    /// Those of a raw topic with so many partitions.
    pub fn new(mapping: Mapping, partitions: i32, max_record_bytes: usize) -> Self {
        Self { fingerprint: mapping.fingerprint(), mapping, partitions, max_record_bytes }
    }
}

/// Decides on one record. `unreadable` is called with the path of each member that had to be taken for absent.
pub fn decide(rules: &Rules, record: &RawRecord<'_>, devices: &Devices, unreadable: &mut dyn FnMut(&str)) -> Decision {
    let key = match check_envelope(rules, record) {
        Ok(key) => key,
        Err(rejection) => return Decision::Reject(rejection),
    };
    let Some(value) = record.value else {
        let is_told = record.header(REASON) == Some(TERMINATED);
        return removed(rules, record, devices.get(key), if is_told { Removal::Terminated } else { Removal::Absent });
    };
    let scope = Scope { account: record.header(AWS_ACCOUNT), region: record.header(AWS_REGION) };
    let digest = |secret| Digest::by(secret, value, scope.account, scope.region);
    let known = Known { digest: digest(Secret::own()), fingerprint: rules.fingerprint };
    let last = devices.known(key);
    if last == Some(known) {
        return Decision::Unchanged;
    }
    // By the secret of a process that is gone, or of another mapper.
    let is_known = last.is_some_and(|last| {
        last.digest == if last.digest.secret == known.digest.secret { known.digest } else { digest(last.digest.secret) }
    });
    if is_known && last.is_some_and(|last| last.fingerprint == known.fingerprint) {
        return Decision::Same(known);
    }
    let text = match std::str::from_utf8(value) {
        Ok(text) => text,
        Err(error) => return Decision::Reject(Rejection::NotUtf8(error)),
    };
    let instance = match rules.mapping.read(text) {
        Ok(instance) => instance,
        Err(error) => return Decision::Reject(Rejection::NotAnObject(error.to_string())),
    };
    match instance.instance_id.text() {
        None => return Decision::Reject(Rejection::NoInstanceId),
        Some(id) if id != key => {
            let instance_id = id.to_owned();
            return Decision::Reject(Rejection::ForeignKey { instance_id });
        }
        Some(_) => {}
    }
    instance.unreadable(unreadable);
    if instance.state_name() == Some(TERMINATED) {
        return removed(rules, record, devices.get(key), Removal::Terminated);
    }
    let device = rules.mapping.render(key, &instance, scope);
    seen(&rules.mapping, record, devices.get(key), (known, is_known), device)
}

/// What can be said of a record without its value's meaning; its key.
fn check_envelope<'a>(rules: &Rules, record: &RawRecord<'a>) -> Result<&'a str, Rejection> {
    let key = record.key.filter(|key| !key.is_empty()).ok_or(Rejection::NoKey)?;
    let text = std::str::from_utf8(key).map_err(|_| Rejection::UnreadableKey)?;
    let size = record.value.map_or(0, <[u8]>::len);
    let limit = rules.max_record_bytes;
    if size > limit {
        return Err(Rejection::TooLarge { size, limit });
    }
    // A foreign partitioner would let one device live in two partitions.
    let expected = partition_for(key, rules.partitions);
    if expected != record.partition {
        return Err(Rejection::Misrouted { found: record.partition, expected, partitions: rules.partitions });
    }
    Ok(text)
}

/// The instance is there, and renders to `device`. `is_known`: so says a record that was mapped before, by whatever rules.
fn seen(
    mapping: &Mapping,
    record: &RawRecord<'_>,
    state: Option<DeviceState>,
    (known, is_known): (Known, bool),
    device: Device,
) -> Decision {
    let observed_at = record.observed_at_ms();
    let json = match device.to_json() {
        Ok(json) => json,
        Err(error) => return Decision::Reject(Rejection::NotAnObject(error.to_string())),
    };
    let (change, fields, revision, first_seen, last_change) = match state {
        None => (Change::Created, Vec::new(), 1, observed_at, observed_at),
        Some(state) if observed_at < state.observed_at => return Decision::Stale,
        Some(state) => match &state.life {
            // EC2 serves cached reads: what was terminated does not come back.
            Life::Gone(Removal::Terminated) => return Decision::Unchanged,
            Life::Gone(Removal::Absent) if observed_at == state.observed_at => return Decision::Stale,
            Life::Gone(Removal::Absent) => {
                (Change::Created, Vec::new(), state.revision + 1, state.first_seen, observed_at)
            }
            Life::Present(last) => {
                let fields = mapping.differences(&last.device, &json);
                if fields.is_empty() {
                    return Decision::Same(known);
                }
                let (change, last_change) =
                    if is_known { (Change::Remapped, state.last_change) } else { (Change::Updated, observed_at) };
                (change, fields, state.revision + 1, state.first_seen, last_change)
            }
        },
    };
    let life = Life::Present(Rendering { known, device: json });
    Decision::Emit(Box::new(Emission {
        change,
        fields,
        last_seen: observed_at,
        device,
        state: DeviceState { revision, observed_at, raw_offset: record.offset, first_seen, last_change, life },
    }))
}

/// The instance is gone.
fn removed(rules: &Rules, record: &RawRecord<'_>, state: Option<DeviceState>, reason: Removal) -> Decision {
    let observed_at = record.observed_at_ms();
    let Some((state, last)) = state.as_ref().and_then(|state| Some((state, state.present()?))) else {
        return Decision::Unchanged;
    };
    if observed_at < state.observed_at {
        return Decision::Stale;
    }
    let device = match rules.mapping.device_from_json(&last.device) {
        Ok(device) => device,
        // What this program wrote it can read; a state that it cannot is refused when it is restored.
        Err(error) => return Decision::Reject(Rejection::NotAnObject(format!("the known device: {error}"))),
    };
    Decision::Emit(Box::new(Emission {
        change: Change::Removed(reason),
        fields: Vec::new(),
        last_seen: match reason {
            // EC2 still lists it.
            Removal::Terminated => observed_at,
            Removal::Absent => last_seen(record).unwrap_or_default().max(state.observed_at).min(observed_at),
        },
        device: match reason {
            Removal::Terminated => device.terminated(),
            Removal::Absent => device,
        },
        state: DeviceState {
            revision: state.revision + 1,
            observed_at,
            raw_offset: record.offset,
            first_seen: state.first_seen,
            last_change: observed_at,
            life: Life::Gone(reason),
        },
    }))
}

/// When a tombstone says that the device was last seen.
fn last_seen(record: &RawRecord<'_>) -> Option<i64> {
    let at = DateTime::parse_from_rfc3339(record.header(LAST_SEEN)?).ok()?;
    Some(at.timestamp_millis())
}

/// RFC 3339, UTC, milliseconds: how headers write an instant.
pub fn rfc3339_ms(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms).unwrap_or_default().to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests;
