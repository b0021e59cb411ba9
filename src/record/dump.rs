//! A raw record as one line of JSON: what `rollcall tail raw --output json` writes and `rollcall replay --input` reads.
//!
//! It holds all that Kafka keeps of a record, so that it can be loaded again as it was: key, value and headers byte by
//! byte, the headers in their order. Bytes are text where they are UTF-8, else `{"hex": "…"}`; null is null.
//! `schemas/raw-record.md` describes it.

use serde::{Deserialize, Serialize, Serializer};

use super::RawRecord;

/// A record, dumped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpedRecord {
    /// The topic that it lay on.
    #[serde(default)]
    topic: String,
    /// Its partition there.
    #[serde(default)]
    partition: i32,
    /// Its offset there.
    #[serde(default)]
    offset: i64,
    /// Kafka's timestamp, milliseconds since the epoch; 0 where it had none.
    timestamp: i64,
    key: Option<Bytes>,
    /// Name and value, in the order of the record.
    #[serde(default)]
    headers: Vec<(String, Option<Bytes>)>,
    /// Null is a tombstone. Must be said: who forgets it does not mean that an instance is gone.
    #[serde(deserialize_with = "Option::deserialize")]
    value: Option<Bytes>,
}

impl DumpedRecord {
    /// Dumps a record of `topic`.
    pub fn of(topic: &str, record: &RawRecord<'_>) -> Self {
        let bytes = |bytes: &[u8]| Bytes(bytes.to_vec());
        let header = |(name, value): &(&str, Option<&[u8]>)| ((*name).to_owned(), value.map(bytes));
        Self {
            topic: topic.to_owned(),
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp_ms,
            key: record.key.map(bytes),
            headers: record.headers.iter().map(header).collect(),
            value: record.value.map(bytes),
        }
    }

    /// The key.
    pub fn key(&self) -> Option<&[u8]> {
        slice(&self.key)
    }

    /// The record again, as one that lies at `offset` of `partition`.
    pub fn raw(&self, partition: i32, offset: i64) -> RawRecord<'_> {
        RawRecord {
            partition,
            offset,
            timestamp_ms: self.timestamp,
            key: self.key(),
            value: slice(&self.value),
            headers: self.headers.iter().map(|(name, value)| (name.as_str(), slice(value))).collect(),
        }
    }
}

fn slice(bytes: &Option<Bytes>) -> Option<&[u8]> {
    bytes.as_ref().map(|bytes| bytes.0.as_slice())
}

/// Bytes, in JSON: text where they are UTF-8, else `{"hex": "…"}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Written::Hex { hex: hex(&self.0) }.serialize(serializer),
        }
    }
}

/// How bytes are written.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = r#"bytes are text, or {"hex": "…"}"#)]
enum Written {
    Text(String),
    Hex { hex: String },
}

impl TryFrom<Written> for Bytes {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written::Text(text) => Ok(Self(text.into_bytes())),
            Written::Hex { hex } => unhex(&hex).map(Self).ok_or_else(|| format!("{hex:?} is not hexadecimal")),
        }
    }
}

/// Two digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some((digit(*high)? << 4 | digit(*low)?) as u8));
    if rest.is_empty() { bytes.collect() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn record<'a>(value: Option<&'a [u8]>, headers: &[(&'a str, Option<&'a [u8]>)]) -> RawRecord<'a> {
        let headers = headers.to_vec();
        RawRecord { partition: 3, offset: 42, timestamp_ms: 1_780_000_000_000, key: Some(b"i-1"), value, headers }
    }

    fn line(record: &RawRecord<'_>) -> String {
        serde_json::to_string(&DumpedRecord::of("raw", record)).unwrap()
    }

    /// All of a record that can be compared.
    type All<'a> = (i32, i64, i64, Option<&'a [u8]>, Option<&'a [u8]>, Vec<(&'a str, Option<&'a [u8]>)>);

    fn all<'a>(record: &RawRecord<'a>) -> All<'a> {
        let RawRecord { partition, offset, timestamp_ms, key, value, headers } = record.clone();
        (partition, offset, timestamp_ms, key, value, headers)
    }

    #[test]
    fn a_line_is_what_the_contract_says() {
        let record = record(Some(br#"{"InstanceId": "i-1"}"#), &[("observed-at", Some(b"now")), ("empty", None)]);
        let expected = r#"{"topic":"raw","partition":3,"offset":42,"timestamp":1780000000000,"key":"i-1","headers":[["observed-at","now"],["empty",null]],"value":"{\"InstanceId\": \"i-1\"}"}"#;
        assert_eq!(line(&record), expected);
    }

    #[test]
    fn a_record_comes_back_byte_by_byte() {
        let values: [Option<&[u8]>; 5] =
            [None, Some(b""), Some(b"{ }\n"), Some(b"\xff\x00\xfe"), Some("ü\u{202e}".as_bytes())];
        for value in values {
            for key in [None, Some(&b""[..]), Some(b"\x80")] {
                let headers = [("b", Some(&b"2"[..])), ("a", Some(b"\xc3")), ("b", Some(b"1")), ("a", None)];
                let record = RawRecord { key, ..record(value, &headers) };
                let read: DumpedRecord = serde_json::from_str(&line(&record)).unwrap();
                assert_eq!(all(&read.raw(3, 42)), all(&record));
            }
        }
    }

    #[test]
    fn what_is_not_text_is_hexadecimal() {
        assert!(line(&record(Some(b"\xff\x0a"), &[])).ends_with(r#""value":{"hex":"ff0a"}}"#));
        assert!(line(&record(None, &[])).ends_with(r#""value":null}"#));
    }

    #[test]
    fn where_it_lay_and_what_it_does_not_have_may_be_left_out() {
        let read: DumpedRecord = serde_json::from_str(r#"{"timestamp": 7, "key": "i-1", "value": null}"#).unwrap();
        let again = read.raw(5, 9);
        assert_eq!(all(&again), (5, 9, 7, Some(&b"i-1"[..]), None, vec![]));
        assert_eq!(read.key(), Some(&b"i-1"[..]));
    }

    #[test]
    fn a_line_that_is_no_record_is_refused_with_the_reason() {
        let reason = |line: &str| serde_json::from_str::<DumpedRecord>(line).unwrap_err().to_string();
        assert!(reason(r#"{"timestamp": 7, "key": "i-1"}"#).contains("missing field `value`"));
        assert!(reason(r#"{"key": "i-1", "value": null}"#).contains("missing field `timestamp`"));
        let value = |value: &str| reason(&format!(r#"{{"timestamp": 7, "key": "i-1", "value": {value}}}"#));
        assert!(value("{}").contains(r#"bytes are text, or {"hex": "…"}"#));
        for wrong in ["0", "zz", "+1", "é"] {
            assert!(value(&format!(r#"{{"hex": "{wrong}"}}"#)).contains("is not hexadecimal"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_record_comes_back(
            timestamp_ms: i64,
            key in option::of(vec(any::<u8>(), 0..9)),
            value in option::of(vec(any::<u8>(), 0..99)),
            headers in vec((any::<String>(), option::of(vec(any::<u8>(), 0..9))), 0..4),
        ) {
            let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            let record = RawRecord {
                partition: 3, offset: 42, timestamp_ms, key: key.as_deref(), value: value.as_deref(), headers,
            };
            let read: DumpedRecord = serde_json::from_str(&line(&record)).unwrap();
            prop_assert_eq!(all(&read.raw(3, 42)), all(&record));
        }
    }
}
