//! How the demo shows changes: a table that grows by one line a change, and a summary. Pure.
//!
//! Lines fit the given width, from 80 columns up. They carry colours; whoever prints them does so through `anstream`,
//! which takes the colours away where there is no terminal. What comes from a record can be anything (tags are written
//! by whoever may launch instances): only [`inert`] text gets into a line.

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::inert::{cut, inert, width_of};

const PLAIN: Style = Style::new();
const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// Between two fields that differ.
const SEPARATOR: &str = ", ";

/// Fields that tell most of a change come first.
const TELLING: [&str; 6] = ["state", "ip", "name", "model", "groups", "network_interfaces"];
/// Fields that follow others come last.
const FOLLOWING: [&str; 4] = ["boot_time", "created_time", "desc", "hostname"];

/// One change of one device.
pub struct Row<'a> {
    /// When the instance was seen.
    pub at: DateTime<Utc>,
    /// `created`, `updated`, `removed` or `remapped`.
    pub change: &'a str,
    /// Of a removal.
    pub reason: Option<&'a str>,
    /// The instance.
    pub id: &'a str,
    /// The `device` of the event.
    pub device: &'a Value,
    /// What differs: path, before, after.
    pub fields: &'a [(String, Value, Value)],
}

/// The line above the first row.
pub fn header(width: usize) -> String {
    let columns = Columns::fitting(width);
    let cells = [
        (columns.time, "TIME"),
        (columns.change, if columns.change == 1 { "" } else { "CHANGE" }),
        (columns.id, "INSTANCE"),
        (columns.name, "NAME"),
        (columns.account, if columns.account == 5 { "ACCT" } else { "ACCOUNT" }),
        (columns.zone, "ZONE"),
    ];
    let mut line = Line::default();
    for (width, title) in cells {
        line.cell(BOLD, title, width, 0);
    }
    line.text(BOLD, "WHAT", columns.what);
    line.done()
}

/// The line of one change.
pub fn row(row: &Row<'_>, width: usize) -> String {
    let columns = Columns::fitting(width);
    let text = |pointer: &str| row.device.pointer(pointer).and_then(Value::as_str);
    let (sign, style) = sign(row.change);
    let change = if columns.change == 1 { sign.to_owned() } else { format!("{sign} {}", row.change) };
    // The mapping names what has no name by its ID, which is shown already.
    let name = text("/name").filter(|name| *name != row.id).unwrap_or("-");
    let mut line = Line::default();
    line.cell(DIM, &row.at.format("%H:%M:%S").to_string(), columns.time, 0);
    line.cell(style, &change, columns.change, 0);
    line.cell(PLAIN, row.id, columns.id, 5);
    line.cell(BOLD, name, columns.name, 0);
    line.cell(DIM, text("/org/uid").unwrap_or("-"), columns.account, columns.account - 1);
    line.cell(DIM, text("/region").unwrap_or("-"), columns.zone, 3);
    match row.change {
        "created" => line.text(PLAIN, &what_came(row.device, columns.what), columns.what),
        "removed" => line.text(PLAIN, row.reason.unwrap_or("gone"), columns.what),
        _ => line.fields(row.fields, columns.what),
    }
    line.done()
}

/// How a change is marked.
pub fn sign(change: &str) -> (&'static str, Style) {
    let (sign, color) = match change {
        "created" => ("+", AnsiColor::Green),
        "updated" => ("~", AnsiColor::Yellow),
        "removed" => ("-", AnsiColor::Red),
        "remapped" => ("*", AnsiColor::Blue),
        _ => ("?", AnsiColor::Magenta),
    };
    (sign, color.on_default().bold())
}

/// Type, operating system and address, as much of it as has room.
fn what_came(device: &Value, width: usize) -> String {
    let text = |pointer: &str| device.pointer(pointer).and_then(Value::as_str).map(inert);
    let join = |parts: [Option<String>; 3]| parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let [model, system, family, ip] = ["/model", "/os/name", "/os/type", "/ip"].map(text);
    // EC2 says Linux/UNIX of a Mac, too.
    let system = system.filter(|name| name != "Linux/UNIX").or(family.clone());
    let full = [model.clone(), system, ip.clone()];
    let shorter = [model.clone(), family, ip.clone()];
    let shortest = join([model, None, ip]);
    [full, shorter].map(join).into_iter().find(|text| width_of(text) <= width).unwrap_or(shortest)
}

/// Widths of the columns; between two of them is a blank.
struct Columns {
    time: usize,
    change: usize,
    id: usize,
    name: usize,
    account: usize,
    zone: usize,
    what: usize,
}

impl Columns {
    /// What changed gets what the others leave, but never so little that it could as well be missing.
    fn fitting(width: usize) -> Self {
        let [change, id, name, account, zone] = match width {
            ..100 => [1, 12, 11, 5, 10],
            100..130 => [1, 19, 16, 5, 10],
            130.. => [10, 19, 20, 12, 15],
        };
        let time = 8;
        let taken = [time, change, id, name, account, zone].iter().map(|width| width + 1).sum();
        Self { time, change, id, name, account, zone, what: width.saturating_sub(taken).max(16) }
    }
}

/// A line under construction.
#[derive(Default)]
struct Line {
    line: String,
}

impl Line {
    /// A column: filled up with blanks, or cut to its width, but not in the last `end` of its own columns.
    fn cell(&mut self, style: Style, text: &str, width: usize, end: usize) {
        let text = cut(&inert(text), width, end);
        let fill = width - width_of(&text).min(width) + 1;
        self.line.push_str(&format!("{style}{text}{style:#}{:fill$}", ""));
    }

    /// Text that is cut to a width.
    fn text(&mut self, style: Style, text: &str, width: usize) {
        let text = cut(&inert(text), width, 0);
        self.line.push_str(&format!("{style}{text}{style:#}"));
    }

    /// As many of the fields as have room, and how many more there are.
    fn fields(&mut self, fields: &[(String, Value, Value)], width: usize) {
        let mut fields: Vec<_> = fields.iter().map(Field::of).collect();
        fields.sort_by_key(|field| field.rank);
        let more = |shown: usize, in_words: bool| match fields.len() - shown {
            0 => String::new(),
            left_out if in_words => format!(" (+{left_out} more)"),
            left_out => format!(" +{left_out}"),
        };
        let fits = |&(shown, in_words): &(usize, bool)| {
            let taken = fields.iter().take(shown).map(Field::width).sum::<usize>() + SEPARATOR.len() * (shown - 1);
            shown <= fields.len() && taken + more(shown, in_words).len() <= width
        };
        let choices = [(2, true), (1, true), (1, false)];
        let (shown, in_words) = choices.into_iter().find(fits).unwrap_or((fields.len().min(1), false));
        let more = more(shown, in_words);
        let room = if shown == 1 { width.saturating_sub(more.len()) } else { usize::MAX };
        let mut last = None;
        for field in &fields[..shown] {
            if last.is_some() {
                self.text(PLAIN, SEPARATOR, SEPARATOR.len());
            }
            field.write(self, room, last == Some(&field.name));
            last = Some(&field.name);
        }
        self.text(DIM, &more, width);
    }

    fn done(self) -> String {
        self.line.trim_end().to_owned()
    }
}

/// A field that differs, as it is shown.
struct Field {
    rank: usize,
    name: String,
    change: Difference,
}

enum Difference {
    /// A field that was absent, or an element of a list.
    Came(String),
    Went(String),
    Became(String, String),
}

impl Field {
    fn of((path, before, after): &(String, Value, Value)) -> Self {
        let path = path.strip_prefix("device.").unwrap_or(path);
        let top = path.split(['.', '[']).next().unwrap_or(path);
        let rank = match (TELLING.iter().position(|name| *name == top), FOLLOWING.contains(&top)) {
            (Some(place), _) => place,
            (None, false) => TELLING.len(),
            (None, true) => TELLING.len() + 1,
        };
        // Which element of a list it is takes more room than it is worth: what came or went says so itself.
        let element = path.split_once('[').and_then(|(list, rest)| Some((list, rest.rsplit_once(']')?.1)));
        let name = element.map_or_else(|| path.to_owned(), |(list, member)| format!("{list}{member}"));
        let name = name.replace("network_interfaces", "interfaces");
        let change = match (before, after) {
            (Value::Null, after) => Difference::Came(shown(after)),
            (before, Value::Null) => Difference::Went(shown(before)),
            (before, after) => Difference::Became(shown(before), shown(after)),
        };
        Self { rank, name: inert(&name), change }
    }

    fn width(&self) -> usize {
        let values = match &self.change {
            Difference::Came(value) | Difference::Went(value) => width_of(value) + 1,
            Difference::Became(before, after) => width_of(before) + width_of(after) + 3,
        };
        width_of(&self.name) + 2 + values
    }

    /// Into so many columns; without its name, if that has just been said.
    fn write(&self, line: &mut Line, width: usize, is_named: bool) {
        let name = if is_named { String::new() } else { format!("{}: ", cut(&self.name, width / 2, 0)) };
        let room = width.saturating_sub(width_of(&name));
        line.text(PLAIN, &name, usize::MAX);
        match &self.change {
            Difference::Came(value) => line.text(BOLD, &format!("+{value}"), room),
            Difference::Went(value) => line.text(DIM, &format!("-{value}"), room),
            Difference::Became(before, after) => {
                // What it is now matters more than what it was.
                let room = room.saturating_sub(3);
                let rest = room.saturating_sub(width_of(after));
                let before = cut(before, if rest == 0 { room / 3 } else { rest }, 0);
                line.text(DIM, &before, usize::MAX);
                line.text(PLAIN, " → ", 3);
                line.text(BOLD, after, room.saturating_sub(width_of(&before)));
            }
        }
    }
}

/// A value; of an object, what names it.
fn shown(value: &Value) -> String {
    let named = ["name", "uid"].iter().find_map(|member| value.get(member)?.as_str());
    inert(&named.or(value.as_str()).map_or_else(|| value.to_string(), str::to_owned))
}

/// What a run came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Raw records, one for each instance of each sweep.
    pub swept: u64,
    /// Those of them that made no event.
    pub unchanged: u64,
    /// Events that report a new device.
    pub created: u64,
    /// Events that report a change.
    pub updated: u64,
    /// Events that report the end of a device.
    pub removed: u64,
    /// Complete sweeps.
    pub sweeps: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { swept, unchanged, created, updated, removed, sweeps, elapsed } = *self;
        let events = created + updated + removed;
        let seconds = elapsed.as_secs_f64();
        let plural = if sweeps == 1 { "" } else { "s" };
        let (records, sweeps) = (grouped(swept), grouped(sweeps));
        write!(formatter, "{BOLD}{records} records{BOLD:#} in {sweeps} sweep{plural}, {seconds:.1} s")?;
        if seconds > 0.0 {
            write!(formatter, ", {BOLD}{} records/s{BOLD:#}", grouped((swept as f64 / seconds).round() as u64))?;
        }
        writeln!(formatter)?;
        for (change, count) in [("created", created), ("updated", updated), ("removed", removed)] {
            let (sign, style) = sign(change);
            writeln!(formatter, "  {style}{sign} {change:<10}{style:#}{:>12}", grouped(count))?;
        }
        write!(formatter, "    {DIM}{:<10}{DIM:#}{:>12}", "unchanged", grouped(unchanged))?;
        if swept > 0 {
            let share = 100.0 * unchanged as f64 / swept as f64;
            write!(
                formatter,
                "  {DIM}{share:.1} % said nothing new: {} events instead of {}{DIM:#}",
                grouped(events),
                grouped(swept)
            )?;
        }
        Ok(())
    }
}

/// With commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
