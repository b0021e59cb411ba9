//! Foreign text that a terminal only shows, alone or in JSON, and how wide it is.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};
use unicode_width::UnicodeWidthChar;

/// What stands for a character that cannot be shown.
const REPLACEMENT: char = '\u{FFFD}';
/// Marks above and below one character; more of them would run into the lines around it.
const MAX_MARKS: usize = 2;

/// The text without anything that a terminal obeys or hides: control characters become their pictures (`␛`), and what
/// is unassigned or invisible, such as a change of writing direction, becomes `�`.
pub fn inert(text: &str) -> String {
    let mut marks = 0;
    let mut inert = String::with_capacity(text.len());
    for character in text.chars() {
        let shown = match character {
            '\0'..='\u{1F}' => char::from_u32(0x2400 + u32::from(character)).unwrap_or(REPLACEMENT),
            ' '..='~' => character,
            '\u{7F}' => '\u{2421}',
            // Some terminals make the character before it wider, some do not.
            '\u{FE0E}' | '\u{FE0F}' => continue,
            _ if is_printable(character) => character,
            _ => REPLACEMENT,
        };
        marks = if width(shown) == 0 { marks + 1 } else { 0 };
        // A mark at the very beginning would go onto what precedes the text.
        if marks > MAX_MARKS || (marks > 0 && inert.is_empty()) {
            inert.push(REPLACEMENT);
            marks = 0;
        } else {
            inert.push(shown);
        }
    }
    inert
}

/// JSON with `\\u…` in place of what a terminal obeys or hides; it means the same. Ends of lines stay: JSON has none in its texts.
pub fn escaped(json: &str) -> Cow<'_, str> {
    let is_shown = |character| matches!(character, ' '..='~' | '\n') || is_printable(character);
    if json.chars().all(is_shown) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if is_shown(character) {
            text.push(character);
        } else {
            text.extend(character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    Cow::Owned(text)
}

/// Writes one JSON object, escaped, and the end of its line.
///
/// # Errors
/// When it cannot be written.
pub fn write_line(line: &impl Serialize, output: &mut dyn Write) -> io::Result<()> {
    line.serialize(&mut Serializer::with_formatter(&mut *output, Escaping(CompactFormatter)))?;
    output.write_all(b"\n")
}

/// Compact, and escapes what a terminal does not merely show.
struct Escaping(CompactFormatter);

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        self.0.write_string_fragment(writer, &escaped(fragment))
    }
}

/// Text that fits the width: where it does not, `…` takes the place of what is before its last `end` columns.
pub fn cut(text: &str, limit: usize, end: usize) -> String {
    if width_of(text) <= limit {
        return text.to_owned();
    }
    let end = end.min(limit.saturating_sub(1));
    let head = prefix(text.chars(), limit.saturating_sub(end + 1));
    let tail: Vec<_> = prefix(text.chars().rev(), end).chars().rev().collect();
    let ellipsis = if limit == 0 { "" } else { "…" };
    format!("{head}{ellipsis}{}", String::from_iter(tail))
}

/// How many columns a terminal needs for inert text.
pub fn width_of(text: &str) -> usize {
    text.chars().map(width).sum()
}

/// The characters that fit the width.
fn prefix(characters: impl Iterator<Item = char>, limit: usize) -> String {
    let mut taken = 0;
    characters
        .take_while(|character| {
            taken += width(*character);
            taken <= limit
        })
        .collect()
}

fn width(character: char) -> usize {
    character.width().unwrap_or_default()
}

/// Whether a terminal shows it, by the standard library's tables, which it has for `{:?}`: there, neither controls nor formats,
/// separators, private and unassigned characters are.
pub fn is_printable(character: char) -> bool {
    // Behind a letter, because marks are printable only there; quotes and backslash are escaped for another reason.
    matches!(character, '\'' | '"' | '\\') || !format!("a{character}").escape_debug().skip(1).any(|part| part == '\\')
}
