//! How records are shown to programs: one JSON object a line. Pure.
//!
//! What a terminal would obey or hide is escaped (`\u001b`, `\u202e`), wherever the line goes: to a program it is the same.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use super::decode::Decoded;
use crate::inert::write_line;
use crate::record::RawRecord;
use crate::record::dump::Bytes;

/// A record whose value was decoded.
#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    /// Kafka's, milliseconds since the epoch.
    timestamp: i64,
    key: Option<Bytes>,
    /// Of two of a name the last counts.
    headers: BTreeMap<&'a str, Option<Bytes>>,
    /// Null is a tombstone; what could not be decoded is as [`Bytes`] are, and has a note.
    value: Shown<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    Value(&'a Value),
    Bytes(Option<Bytes>),
}

/// Writes a record of `topic` and its decoded value.
///
/// # Errors
/// When it cannot be written.
pub fn write(topic: &str, record: &RawRecord<'_>, decoded: &Decoded, output: &mut dyn Write) -> io::Result<()> {
    let bytes = |bytes: &[u8]| Bytes(bytes.to_vec());
    let (value, note) = match decoded {
        Decoded::Tombstone => (Shown::Bytes(None), None),
        Decoded::Value(value) => (Shown::Value(value), None),
        Decoded::Unreadable(note) => (Shown::Bytes(record.value.map(bytes)), Some(note.as_str())),
    };
    let line = Line {
        topic,
        partition: record.partition,
        offset: record.offset,
        timestamp: record.timestamp_ms,
        key: record.key.map(bytes),
        headers: record.headers.iter().map(|(name, value)| (*name, value.map(bytes))).collect(),
        value,
        note,
    };
    write_line(&line, output)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::inert::is_printable;
    use crate::record::dump::DumpedRecord;

    fn record<'a>(key: &'a [u8], value: Option<&'a [u8]>) -> RawRecord<'a> {
        let headers = vec![("b", Some(&b"1"[..])), ("a", Some(b"\xff")), ("b", Some(b"2")), ("c", None)];
        RawRecord { partition: 3, offset: 42, timestamp_ms: 7, key: Some(key), value, headers }
    }

    fn line(record: &RawRecord<'_>, decoded: &Decoded) -> String {
        let mut line = Vec::new();
        write("t", record, decoded, &mut line).unwrap();
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_line_is_what_the_documentation_says() {
        let value = Decoded::Value(json!({"device": {"uid": "i-1"}}));
        assert_eq!(
            line(&record(b"i-1", Some(b"x")), &value),
            "{\"topic\":\"t\",\"partition\":3,\"offset\":42,\"timestamp\":7,\"key\":\"i-1\",\
             \"headers\":{\"a\":{\"hex\":\"ff\"},\"b\":\"2\",\"c\":null},\"value\":{\"device\":{\"uid\":\"i-1\"}}}\n"
        );
    }

    #[test]
    fn a_tombstone_is_null_and_what_cannot_be_read_has_a_note() {
        assert!(line(&record(b"k", None), &Decoded::Tombstone).ends_with(",\"value\":null}\n"));
        let unreadable = Decoded::Unreadable("who knows".to_owned());
        assert!(
            line(&record(b"k", Some(b"\xff")), &unreadable)
                .ends_with(",\"value\":{\"hex\":\"ff\"},\"note\":\"who knows\"}\n")
        );
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_comes_back_unharmed() {
        let nasty = "a\u{1b}[2J\u{7}\u{7f}\u{9b}31m\u{202e}fdp\u{2066}\u{200b}\u{e0001}\r\n\t\"\\ ü 🖥 é";
        let value = json!({nasty: [nasty]});
        let line = line(&record(nasty.as_bytes(), Some(b"x")), &Decoded::Value(value.clone()));
        let text = line.strip_suffix('\n').unwrap();
        assert!(text.chars().all(is_printable), "{text}");
        assert!(text.contains("\\u001b[2J") && text.contains("\\u009b") && text.contains("\\u202e"), "{text}");
        assert!(text.contains("\\udb40\\udc01") && text.contains("ü 🖥 é"), "{text}");
        let read: Value = serde_json::from_str(text).unwrap();
        assert_eq!((&read["key"], &read["value"]), (&json!(nasty), &value));
    }

    #[test]
    fn a_dumped_record_is_escaped_too_and_comes_back_byte_by_byte() {
        let dumped = DumpedRecord::of("t", &record(b"i-1", Some("{\"a\":\"\u{202e}\u{9b}\"}".as_bytes())));
        let mut text = Vec::new();
        write_line(&dumped, &mut text).unwrap();
        assert!(text.is_ascii());
        assert_eq!(serde_json::from_slice::<DumpedRecord>(&text).unwrap(), dumped);
    }
}
