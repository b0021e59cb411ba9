//! The record of the events topic: a device, encoded, and in the headers what happened to it.

use serde_json::{Value, json};

use super::decide::{Change, Emission, Rules, rfc3339_ms};
use super::port::{Destination, Header, Output};
use crate::profile::MAPPING_VERSION;
use crate::profile::change::{Occurrence, Origin};
use crate::profile::diff::{FieldChange, capped, entries};
use crate::profile::encode::{EncodeError, Encoder};
use crate::record::RawRecord;

/// Largest header `diff`, in bytes of JSON.
const MAX_DIFF_BYTES: usize = 16 * 1024;
/// Largest header `changed`, in bytes of JSON.
const MAX_CHANGED_BYTES: usize = 8 * 1024;
/// Room for the headers of an event: most need no more.
const TYPICAL_HEADERS: usize = 12;

/// The event that `emission` is, made from `record`. Its device is spent: see
/// [`Mapping::event`](crate::profile::Mapping::event).
///
/// # Errors
/// When the device does not fit the schema of its profile: a fault of this program.
pub fn record(
    record: &RawRecord<'_>,
    emission: &mut Emission,
    rules: &Rules,
    encoder: &Encoder,
    raw_topic: &str,
) -> Result<Output, EncodeError> {
    let state = &emission.state;
    let occurrence = Occurrence {
        change: emission.change,
        fields: &emission.fields,
        revision: state.revision,
        observed_at: state.observed_at,
        first_seen: state.first_seen,
        last_seen: emission.last_seen,
        last_change: state.last_change,
        origin: Origin::of(record),
    };
    let event = rules.mapping.event(&mut emission.device, &occurrence);
    let mut headers: Vec<Header> = Vec::with_capacity(TYPICAL_HEADERS);
    let mut tell = |name: &'static str, value: String| headers.push((name.into(), Some(value.into_bytes())));
    tell("change", emission.change.name().to_owned());
    if let Some(reason) = emission.change.reason() {
        tell("reason", reason.to_owned());
    }
    if matches!(emission.change, Change::Updated | Change::Remapped) {
        tell("changed", changed(&emission.fields));
        tell("diff", diff(&emission.fields));
    }
    tell("revision", state.revision.to_string());
    tell("observed-at", rfc3339_ms(state.observed_at));
    tell("profile", rules.mapping.profile.name().to_owned());
    tell("mapping-version", MAPPING_VERSION.to_string());
    tell("raw-topic", raw_topic.to_owned());
    tell("raw-partition", record.partition.to_string());
    tell("raw-offset", record.offset.to_string());
    if !rules.mapping.labels.is_empty() {
        tell("labels", json!(rules.mapping.labels).to_string());
    }
    // Who reads a header by its name must find ours, whatever a source's fields are called.
    let own = headers.len();
    for (name, value) in event.headers() {
        if headers[..own].iter().all(|(own, _)| own != name) {
            headers.push((name.to_owned().into(), Some(value.as_bytes().to_vec())));
        }
    }
    Ok(Output {
        destination: Destination::Events,
        partition: record.partition,
        key: record.key.map(<[u8]>::to_vec),
        value: Some(encoder.encode(&event)?),
        headers,
    })
}

/// JSON array of the paths.
fn changed(fields: &[FieldChange]) -> String {
    let paths = fields.iter().map(|field| Value::from(field.path.as_str()));
    Value::from(capped(paths, MAX_CHANGED_BYTES, |left_out| Value::from(format!("({left_out} more)")))).to_string()
}

/// JSON array of `{path, from, to}`.
fn diff(fields: &[FieldChange]) -> String {
    Value::from(entries(fields, MAX_DIFF_BYTES)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(path: &str, to: Value) -> FieldChange {
        let from = Value::Null;
        FieldChange { path: path.to_owned(), from, to }
    }

    #[test]
    fn before_and_after_of_each_field_are_told() {
        let fields = [field("device.ip", json!("1.2.3.4")), field("device.state", json!("running"))];
        assert_eq!(changed(&fields), r#"["device.ip","device.state"]"#);
        let told: Value = serde_json::from_str(&diff(&fields)).unwrap();
        assert_eq!(told[0], json!({"path": "device.ip", "from": null, "to": "1.2.3.4"}));
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let fields = [field("device.ip", json!("x")), field("device.name", json!("y".repeat(MAX_DIFF_BYTES)))];
        let told: Value = serde_json::from_str(&diff(&fields)).unwrap();
        assert_eq!(told[1], json!({"left_out": 1}));
    }
}
