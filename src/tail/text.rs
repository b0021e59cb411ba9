//! How records are shown to people: a line each, and under it what differs. Pure.
//!
//! Lines carry colours; whoever prints them takes these away where there is no terminal. What comes from a record can be
//! anything: only [`inert`] text of bounded length gets into a line.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use chrono::{DateTime, SecondsFormat};
use serde_json::Value;

use super::Topic;
use super::decode::Decoded;
use super::filter::Subject;
use crate::demo::table::sign;
use crate::inert::{cut, inert};
use crate::record::dump::hex;
use crate::record::{REASON, RawRecord};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const BEFORE: Style = AnsiColor::Red.on_default();
const AFTER: Style = AnsiColor::Green.on_default();

/// The longest text of a key, a name and the like, in columns.
const MAX_WORD: usize = 64;
/// The longest value of a field, or note.
const MAX_VALUE: usize = 300;
/// The longest value as a whole.
const MAX_JSON: usize = 1000;

/// The lines of a record, each with its end.
pub fn lines(topic: Topic, record: &RawRecord<'_>, subject: &Subject<'_>, decoded: &Decoded) -> String {
    let mut line = Lines::default();
    let at = DateTime::from_timestamp_millis(record.observed_at_ms()).unwrap_or_default();
    line.word(DIM, &at.to_rfc3339_opts(SecondsFormat::Secs, true));
    let value = match decoded {
        Decoded::Tombstone => &Value::Null,
        Decoded::Value(value) => value,
        Decoded::Unreadable(note) => {
            line.mark("unreadable", record);
            line.text(BEFORE, note, MAX_VALUE);
            line.place(record);
            return line.done();
        }
    };
    match topic {
        Topic::Events => line.event(record, subject),
        Topic::Raw => line.raw(record, subject, value),
        Topic::DeadLetters => {
            line.mark("rejected", record);
            line.subject(subject);
            let header = |name| record.header(name).unwrap_or("-");
            line.text(BEFORE, &format!("{}: {}", header("error-kind"), header("error")), MAX_VALUE);
            line.place(record);
        }
        Topic::State | Topic::Sweeps | Topic::Health => {
            line.word(BOLD, &key(record));
            match decoded {
                Decoded::Tombstone => line.text(DIM, "forgotten", MAX_WORD),
                _ => line.text(Style::new(), &value.to_string(), MAX_JSON),
            }
        }
    }
    line.done()
}

fn key(record: &RawRecord<'_>) -> String {
    match record.key.map(|key| (std::str::from_utf8(key), key)) {
        None => "-".to_owned(),
        Some((Ok(text), _)) => text.to_owned(),
        Some((Err(_), bytes)) => format!("0x{}", hex(bytes)),
    }
}

#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn text(&mut self, style: Style, text: &str, width: usize) {
        if !self.text.is_empty() && !self.text.ends_with(['\n', ' ']) {
            self.text.push_str("  ");
        }
        self.styled(style, text, width);
    }

    fn styled(&mut self, style: Style, text: &str, width: usize) {
        // Cut before it is looked at character by character: it may have megabytes.
        let text = cut(&inert(head(text, width)), width, 0);
        let _ = write!(self.text, "{style}{text}{style:#}");
    }

    fn word(&mut self, style: Style, text: &str) {
        self.text(style, text, MAX_WORD);
    }

    /// What happened, and to whom.
    fn mark(&mut self, change: &str, record: &RawRecord<'_>) {
        let (sign, style) = sign(change);
        self.word(style, &format!("{sign} {change:<8}"));
        self.word(BOLD, &key(record));
    }

    fn subject(&mut self, subject: &Subject<'_>) {
        for (style, text) in [(BOLD, subject.name), (DIM, subject.account), (DIM, subject.region)] {
            self.word(style, text.unwrap_or("-"));
        }
    }

    /// Where it lies.
    fn place(&mut self, record: &RawRecord<'_>) {
        self.word(DIM, &format!("[{}] {}", record.partition, record.offset));
    }

    fn event(&mut self, record: &RawRecord<'_>, subject: &Subject<'_>) {
        self.mark(record.header("change").unwrap_or("?"), record);
        self.subject(subject);
        if let Some(revision) = record.header("revision") {
            self.word(DIM, &format!("r{revision}"));
        }
        if let Some(reason) = record.header(REASON) {
            self.word(BEFORE, reason);
        }
        let diff: Option<Vec<Value>> = record.header("diff").and_then(|diff| serde_json::from_str(diff).ok());
        for field in diff.unwrap_or_default() {
            self.field(&field);
        }
    }

    /// A field of the header `diff`: path, before and after, or how many were left out.
    fn field(&mut self, field: &Value) {
        self.text.push_str("\n    ");
        let Some(path) = field["path"].as_str() else {
            return self.text(DIM, &format!("… and {} more", field["left_out"]), MAX_WORD);
        };
        self.styled(Style::new(), &format!("{path}: "), MAX_VALUE);
        self.value(BEFORE, &field["from"]);
        self.styled(Style::new(), " → ", MAX_WORD);
        self.value(AFTER, &field["to"]);
    }

    fn value(&mut self, style: Style, value: &Value) {
        match value {
            Value::Null => self.styled(DIM, "(absent)", MAX_WORD),
            Value::String(text) if !text.is_empty() => self.styled(style, text, MAX_VALUE),
            other => self.styled(style, &other.to_string(), MAX_VALUE),
        }
    }

    fn raw(&mut self, record: &RawRecord<'_>, subject: &Subject<'_>, value: &Value) {
        self.mark(if record.value.is_some() { "seen" } else { "gone" }, record);
        self.subject(subject);
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
        for text in [text("/State/Name"), text("/InstanceType"), record.header(REASON)].into_iter().flatten() {
            self.word(Style::new(), text);
        }
        self.word(DIM, &format!("{} bytes", record.value.map_or(0, <[u8]>::len)));
        self.place(record);
    }

    fn done(mut self) -> String {
        self.text.push('\n');
        self.text
    }
}

/// Enough of a text to fill so many columns, and to tell that there is more.
fn head(text: &str, width: usize) -> &str {
    // A character has up to two marks, and four bytes each.
    &text[..text.floor_char_boundary((width + 1) * 12)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NASTY: &str = "a\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}fdp.exe\u{2066}\r\nnext\u{7f}";

    fn record<'a>(key: &'a str, value: Option<&'a [u8]>, headers: &[(&'a str, &'a str)]) -> RawRecord<'a> {
        let headers = headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect();
        RawRecord {
            partition: 3,
            offset: 42,
            timestamp_ms: 1_780_000_000_000,
            key: Some(key.as_bytes()),
            value,
            headers,
        }
    }

    fn shown(topic: Topic, record: &RawRecord<'_>, decoded: &Decoded) -> String {
        let value = if let Decoded::Value(value) = decoded { Some(value) } else { None };
        lines(topic, record, &Subject::of(record, value), decoded)
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn device() -> Decoded {
        Decoded::Value(json!({"device": {"name": "web-1", "org": {"uid": "123456789012"}, "region": "eu-west-1a"}}))
    }

    #[test]
    fn an_event_is_a_line_and_its_fields_are_under_it() {
        let diff = json!([
            {"path": "device.ip", "from": "10.0.0.1", "to": "10.0.0.2"},
            {"path": "device.groups[sg-1]", "from": null, "to": {"uid": "sg-1"}},
            {"path": "device.desc", "from": "", "to": null},
            {"left_out": 7},
        ])
        .to_string();
        let headers =
            [("change", "updated"), ("revision", "4"), ("observed-at", "2026-01-02T03:04:05.678Z"), ("diff", &diff)];
        let text = shown(Topic::Events, &record("i-1", Some(b"x"), &headers), &device());
        let expected = [
            "2026-01-02T03:04:05Z  ~ updated   i-1  web-1  123456789012  eu-west-1  r4",
            "    device.ip: 10.0.0.1 → 10.0.0.2",
            "    device.groups[sg-1]: (absent) → {\"uid\":\"sg-1\"}",
            "    device.desc: \"\" → (absent)",
            "    … and 7 more",
        ];
        assert_eq!(plain(&text).lines().collect::<Vec<_>>(), expected);
        let coloured = format!("{BEFORE}10.0.0.1{BEFORE:#}");
        assert!(text.contains(&coloured) && text.contains(&format!("{AFTER}10.0.0.2{AFTER:#}")), "{text:?}");
    }

    #[test]
    fn a_removal_tells_its_reason() {
        let headers = [("change", "removed"), ("revision", "5"), ("reason", "terminated")];
        let text = plain(&shown(Topic::Events, &record("i-1", Some(b"x"), &headers), &device()));
        assert!(text.ends_with("- removed   i-1  web-1  123456789012  eu-west-1  r5  terminated\n"), "{text}");
    }

    #[test]
    fn a_raw_record_tells_what_was_seen_and_where_it_lies() {
        let value = json!({"OwnerId": "1", "State": {"Name": "running"}, "InstanceType": "m5.large"});
        let text = plain(&shown(Topic::Raw, &record("i-1", Some(b"12345"), &[]), &Decoded::Value(value)));
        assert!(text.ends_with("? seen      i-1  -  1  -  running  m5.large  5 bytes  [3] 42\n"), "{text}");
        let text = plain(&shown(Topic::Raw, &record("i-1", None, &[("reason", "absent")]), &Decoded::Tombstone));
        assert!(text.ends_with("? gone      i-1  -  -  -  absent  0 bytes  [3] 42\n"), "{text}");
    }

    #[test]
    fn what_cannot_be_read_is_shown_with_the_reason() {
        let text =
            plain(&shown(Topic::Events, &record("k", Some(b"x"), &[]), &Decoded::Unreadable("x bytes".to_owned())));
        assert!(text.ends_with("unreadable  k  x bytes  [3] 42\n"), "{text}");
    }

    #[test]
    fn a_key_may_be_missing_or_no_text() {
        let mut record = record("", Some(b"x"), &[]);
        record.key = Some(b"\xff\x1b");
        assert!(plain(&shown(Topic::Health, &record, &device())).contains("  0xff1b  {"));
        record.key = None;
        assert!(plain(&shown(Topic::Health, &record, &device())).contains("  -  {"));
    }

    #[test]
    fn nothing_that_a_terminal_would_obey_gets_through_from_anywhere() {
        let diff = json!([{"path": NASTY, "from": NASTY, "to": [NASTY]}, {"left_out": NASTY}]).to_string();
        let names = ["change", "revision", "reason", "error-kind", "error", "aws-account", "aws-region"];
        let mut headers: Vec<_> = names.iter().map(|name| (*name, NASTY)).collect();
        headers.push(("diff", &diff));
        let value = json!({
            "Tags": [{"Key": "Name", "Value": NASTY}], "State": {"Name": NASTY}, "InstanceType": NASTY, NASTY: NASTY,
            "device": {"name": NASTY, "org": {"uid": NASTY}, "region": NASTY},
        });
        let record = record(NASTY, Some(b"x"), &headers);
        for topic in Topic::ALL {
            for decoded in [Decoded::Value(value.clone()), Decoded::Tombstone, Decoded::Unreadable(NASTY.to_owned())] {
                let text = shown(topic, &record, &decoded);
                assert!(text.contains('a'), "{text:?}");
                let without_ours = plain_of_ours(&text);
                let obeyed = without_ours.chars().find(|c| *c != '\n' && !crate::inert::is_printable(*c));
                assert_eq!(obeyed, None, "{topic:?} {without_ours:?}");
                let lines = if topic == Topic::Events && !matches!(decoded, Decoded::Unreadable(_)) { 3 } else { 1 };
                assert_eq!(text.lines().count(), lines, "{topic:?} {text:?}");
            }
        }
    }

    /// Without the colours that this program sets, and no other sequence.
    fn plain_of_ours(text: &str) -> String {
        let mut rest = text;
        let mut plain = String::new();
        while let Some((before, after)) = rest.split_once("\u{1b}[") {
            plain.push_str(before);
            let (code, after) = after.split_once('m').unwrap();
            assert!(code.bytes().all(|byte| byte.is_ascii_digit()), "{code:?}");
            rest = after;
        }
        plain + rest
    }

    #[test]
    fn a_line_is_bounded_whatever_is_in_the_record() {
        let long = "x".repeat(1_000_000);
        let diff = json!([{"path": long, "from": long, "to": long}]).to_string();
        let value = Decoded::Value(json!({"device": {"name": long}}));
        for topic in Topic::ALL {
            let text = shown(topic, &record(&long, Some(b"x"), &[("diff", &diff), ("error", &long)]), &value);
            assert!(text.len() < 2500, "{topic:?}: {}", text.len());
        }
    }
}
