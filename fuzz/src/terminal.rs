//! What `rollcall tail` prints of a record: a terminal must obey nothing of it but our own colours.

use rollcall::record::RawRecord;
use rollcall::tail::Topic;
use rollcall::tail::decode::Decoded;
use rollcall::tail::filter::Subject;
use rollcall::tail::{json, text};
use serde_json::Value;

/// Shows a record in both forms.
pub fn shows(topic: Topic, record: &RawRecord<'_>, decoded: &Decoded) {
    let value = if let Decoded::Value(value) = decoded { Some(value) } else { None };
    let lines = text::lines(topic, record, &Subject::of(record, value), decoded);
    let lines = lines.strip_suffix('\n').expect("the last line has an end");
    assert!(without_colours(lines).split('\n').all(is_inert), "a terminal would obey {lines:?}");
    let mut line = Vec::new();
    json::write("topic", record, decoded, &mut line).expect("a record can be written");
    let line = std::str::from_utf8(&line).expect("JSON is UTF-8");
    let line = line.strip_suffix('\n').expect("a line has an end");
    assert!(is_inert(line), "a terminal would obey {line:?}");
    serde_json::from_str::<Value>(line).expect("a line is JSON");
}

fn is_inert(line: &str) -> bool {
    // Controls, and what changes the direction of writing.
    line.chars().all(|shown| {
        !shown.is_control()
            && !matches!(shown, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    })
}

/// The text without `ESC [ digits m`, as our styles are written.
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|sign: char| sign.is_ascii_digit() || sign == ';');
        plain.push_str(rest.strip_prefix('m').unwrap_or("\u{1b}"));
    }
    plain
}
