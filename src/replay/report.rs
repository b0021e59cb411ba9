//! What a comparison with the live state has found: totals, fields, samples; for people and for programs.
//!
//! For programs it is one JSON object a line (`docs/replay.md` has the members): `change`, for each device as it is found
//! or, in place, once its transaction is committed; and at the end `summary`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use serde_json::{Value, json};

use crate::inert::inert;
use crate::mapper::decide::Emission;
use crate::profile::diff::{FieldChange, entries};
use crate::profile::{MAPPING_VERSION, Profile};
use crate::record::RawRecord;

/// Names that are given as samples of a count.
const NAMES: usize = 10;
/// Kinds of fields that are counted one by one: of tags there may be any number.
const MAX_FIELDS: usize = 1000;
/// What the fields beyond are called.
const OTHER_FIELDS: &str = "(others)";
/// Largest `diff` of a line, in bytes of JSON: that of the header.
const MAX_DIFF_BYTES: usize = 16 * 1024;
/// Longest value in the table, in characters.
const MAX_VALUE: usize = 60;

/// A device that comes out differently.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// The instance ID.
    pub device: String,
    /// Where the record that counts lies.
    pub partition: i32,
    /// Its offset there.
    pub raw_offset: i64,
    /// Of the event.
    pub revision: i64,
    /// What differs.
    pub fields: Vec<FieldChange>,
}

impl Changed {
    /// The device of an emission made from `record`.
    pub fn new(record: &RawRecord<'_>, emission: &Emission) -> Self {
        Self {
            device: String::from_utf8_lossy(record.key.unwrap_or_default()).into_owned(),
            partition: record.partition,
            raw_offset: record.offset,
            revision: emission.state.revision,
            fields: emission.fields.clone(),
        }
    }

    /// The line for programs.
    pub fn line(&self) -> Value {
        let Self { device, partition, raw_offset, revision, fields } = self;
        let paths: Vec<_> = fields.iter().map(|field| field.path.as_str()).collect();
        json!({
            "type": "change",
            "device": device,
            "raw_partition": partition,
            "raw_offset": raw_offset,
            "revision": revision,
            "changed": paths,
            "diff": entries(fields, MAX_DIFF_BYTES),
        })
    }
}

/// Devices, or keys, that have something in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Named {
    /// How many.
    pub count: u64,
    /// Some of them.
    pub samples: Vec<String>,
}

impl Named {
    /// One more.
    pub fn note(&mut self, name: &str) {
        self.count += 1;
        if self.samples.len() < NAMES {
            self.samples.push(name.to_owned());
        }
    }

    fn add(&mut self, other: Named) {
        self.count += other.count;
        self.samples.extend(other.samples);
        self.samples.truncate(NAMES);
    }
}

/// What was found of one partition, beside the devices that come out differently.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Devices that are there.
    pub devices: u64,
    /// Removed devices that are remembered; they stay removed.
    pub gone: u64,
    /// Of the devices, those of which raw has no record that counts and that today's mapping takes.
    pub without_record: Named,
    /// Of the devices, those whose end lies in a record that was a dead letter.
    pub ends: Named,
    /// Keys with a record that today's mapping takes, and no state.
    pub unknown: Named,
    /// Keys whose newest record today's mapping rejects, by kind of rejection.
    pub rejected: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        let Tally { devices, gone, without_record, ends, unknown, rejected } = other;
        self.devices += devices;
        self.gone += gone;
        self.without_record.add(without_record);
        self.ends.add(ends);
        self.unknown.add(unknown);
        for (kind, count) in rejected {
            *self.rejected.entry(kind).or_default() += count;
        }
    }
}

/// Whether what was found was also written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It would be.
    DryRun,
    /// It is.
    InPlace,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Report {
    mode: Mode,
    profile: Profile,
    tally: Tally,
    changed: u64,
    fields: BTreeMap<String, u64>,
    samples: Vec<Changed>,
    /// Samples that are kept.
    most: usize,
}

impl Report {
    /// Of nothing yet; keeps up to `samples` of the devices that come out differently.
    pub fn new(mode: Mode, profile: Profile, samples: usize) -> Self {
        let (tally, fields) = (Tally::default(), BTreeMap::new());
        Self { mode, profile, tally, changed: 0, fields, samples: Vec::new(), most: samples }
    }

    /// Notes a device that comes out differently.
    pub fn changed(&mut self, changed: &Changed) {
        self.changed += 1;
        let mut kinds: Vec<_> = changed.fields.iter().map(|field| kind_of(&field.path)).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let is_room = self.fields.len() < MAX_FIELDS || self.fields.contains_key(&kind);
            let kind = if is_room { kind } else { OTHER_FIELDS.to_owned() };
            *self.fields.entry(kind).or_default() += 1;
        }
        if self.samples.len() < self.most {
            self.samples.push(changed.clone());
        }
    }

    /// Notes a partition that is done.
    pub fn add(&mut self, tally: Tally) {
        self.tally.add(tally);
    }

    /// Devices that come out differently.
    pub fn devices_changed(&self) -> u64 {
        self.changed
    }

    fn unchanged(&self) -> u64 {
        let Tally { devices, without_record, ends, .. } = &self.tally;
        devices.saturating_sub(self.changed + without_record.count + ends.count)
    }

    /// The kinds of fields with the devices in which they differ, most first.
    fn fields(&self) -> Vec<(&str, u64)> {
        let mut fields: Vec<_> = self.fields.iter().map(|(path, devices)| (path.as_str(), *devices)).collect();
        fields.sort_by_key(|(_, devices)| std::cmp::Reverse(*devices));
        fields
    }

    /// The last line for programs.
    pub fn summary(&self) -> Value {
        let Tally { devices, gone, without_record, ends, unknown, rejected } = &self.tally;
        let fields: Vec<_> =
            self.fields().into_iter().map(|(path, devices)| json!({"path": path, "devices": devices})).collect();
        json!({
            "type": "summary",
            "mode": self.mode,
            "profile": self.profile,
            "mapping_version": MAPPING_VERSION,
            "devices": devices,
            "changed": self.changed,
            "unchanged": self.unchanged(),
            "without_record": without_record,
            "ends": ends,
            "gone": gone,
            "unknown": unknown,
            "rejected": rejected,
            "fields": fields,
        })
    }

    /// The table, with colours: whoever prints it does so through `anstream`, which takes them out where they do not
    /// belong.
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Infallible: into memory.
        let _ = self.write_table(&mut text);
        text
    }

    fn write_table(&self, text: &mut String) -> std::fmt::Result {
        let Tally { devices, gone, without_record, ends, unknown, rejected } = &self.tally;
        let changed = match self.mode {
            Mode::DryRun => "would be remapped",
            Mode::InPlace => "remapped",
        };
        writeln!(text, "{BOLD}{:>9}  DEVICES{BOLD:#}", "COUNT")?;
        let mut row = |count: u64, what: &str| writeln!(text, "{count:>9}  {what}");
        row(*devices, "in the state")?;
        row(self.changed, changed)?;
        row(self.unchanged(), "unchanged")?;
        let left = [
            (without_record, "without a raw record that could be mapped again, left as they are"),
            (ends, "whose end was a dead letter, left as they are: --from-dlq"),
            (unknown, "not in the state, left out: dead letters of then (--from-dlq), or long gone"),
        ];
        for (named, what) in left.into_iter().filter(|(named, _)| named.count > 0) {
            row(named.count, &format!("{what}: {}", names(named)))?;
        }
        for (kind, count) in rejected {
            row(*count, &format!("whose newest record is rejected today ({kind}); an older one counts"))?;
        }
        if *gone > 0 {
            row(*gone, "removed and remembered, left as they are")?;
        }
        if !self.fields.is_empty() {
            writeln!(text, "\n{BOLD}{:>9}  FIELD{BOLD:#}", "DEVICES")?;
            for (path, devices) in self.fields() {
                writeln!(text, "{devices:>9}  {}", one_line(path))?;
            }
        }
        if !self.samples.is_empty() {
            writeln!(text, "\n{BOLD}SAMPLES{BOLD:#}")?;
        }
        for Changed { device, fields, .. } in &self.samples {
            writeln!(text, "{}", one_line(device))?;
            for FieldChange { path, from, to } in fields {
                let [from, to] = [from, to].map(short);
                let path = one_line(path);
                writeln!(text, "  {path}: {BEFORE}{from}{BEFORE:#} → {AFTER}{to}{AFTER:#}")?;
            }
        }
        Ok(())
    }
}

const BOLD: Style = Style::new().bold();
const BEFORE: Style = AnsiColor::Red.on_default();
const AFTER: Style = AnsiColor::Green.on_default();

/// A path without the identities of list elements: `device.groups[sg-1]` is of the kind `device.groups[]`.
fn kind_of(path: &str) -> String {
    let mut kind = String::new();
    let mut rest = path;
    while let Some((before, inside)) = rest.split_once('[') {
        kind.push_str(before);
        kind.push_str("[]");
        // An identity may hold brackets of its own: it ends where the path goes on, or where that ends.
        let end = inside.match_indices(']').find(|(at, _)| inside[at + 1..].starts_with('.') || inside.len() == at + 1);
        rest = end.map_or("", |(at, _)| &inside[at + 1..]);
    }
    kind + rest
}

fn names(named: &Named) -> String {
    let more = if named.count > named.samples.len() as u64 { ", …" } else { "" };
    one_line(&named.samples.join(", ")) + more
}

fn short(value: &Value) -> String {
    let text = one_line(&value.to_string());
    match text.char_indices().nth(MAX_VALUE) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// What AWS, or somebody else, writes may have line ends in it, and worse.
fn one_line(text: &str) -> String {
    inert(&text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect::<String>())
}

/// Where the devices that come out differently are told, as they are found.
pub type Tell<'a> = dyn FnMut(&Changed) -> io::Result<()> + 'a;

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(device: &str, fields: &[(&str, Value, Value)]) -> Changed {
        let field = |(path, from, to): &(&str, Value, Value)| FieldChange {
            path: (*path).to_owned(),
            from: from.clone(),
            to: to.clone(),
        };
        let fields = fields.iter().map(field).collect();
        Changed { device: device.to_owned(), partition: 1, raw_offset: 7, revision: 2, fields }
    }

    fn report(mode: Mode) -> Report {
        let mut report = Report::new(mode, Profile::Sekoia, 1);
        let groups = [("device.groups[sg-1]", json!(null), json!(1)), ("device.groups[sg-2].name", json!(1), json!(2))];
        report.changed(&changed("i-1", &groups));
        let name = ("device.name", json!("old\nname"), json!("n".repeat(100)));
        report.changed(&changed("i-2", &[groups[0].clone(), groups[0].clone(), name]));
        let without_record = Named { count: 1, samples: vec!["i-3".to_owned()] };
        report.add(Tally { devices: 4, without_record, ..Tally::default() });
        report.add(Tally { devices: 5, gone: 2, rejected: BTreeMap::from([("too-large", 3)]), ..Tally::default() });
        report
    }

    #[test]
    fn the_summary_counts_devices_and_kinds_of_fields() {
        let summary = report(Mode::DryRun).summary();
        let expected = json!({
            "type": "summary", "mode": "dry-run", "profile": "sekoia", "mapping_version": MAPPING_VERSION,
            "devices": 9, "changed": 2, "unchanged": 6, "gone": 2, "rejected": {"too-large": 3},
            "without_record": {"count": 1, "samples": ["i-3"]},
            "ends": {"count": 0, "samples": []}, "unknown": {"count": 0, "samples": []},
            "fields": [
                {"path": "device.groups[]", "devices": 2},
                {"path": "device.groups[].name", "devices": 1},
                {"path": "device.name", "devices": 1},
            ],
        });
        assert_eq!(summary, expected);
    }

    #[test]
    fn the_table_shows_totals_fields_and_as_many_samples_as_wanted() {
        let table = anstream::adapter::strip_str(&report(Mode::InPlace).table()).to_string();
        let expected = "    COUNT  DEVICES
        9  in the state
        2  remapped
        6  unchanged
        1  without a raw record that could be mapped again, left as they are: i-3
        3  whose newest record is rejected today (too-large); an older one counts
        2  removed and remembered, left as they are

  DEVICES  FIELD
        2  device.groups[]
        1  device.groups[].name
        1  device.name

SAMPLES
i-1
  device.groups[sg-1]: null → 1
  device.groups[sg-2].name: 1 → 2
";
        assert_eq!(table, expected);
    }

    #[test]
    fn a_value_is_one_line_of_bounded_length() {
        assert_eq!(short(&json!("a\u{7f}b")), r#""a b""#);
        assert_eq!(short(&json!("n".repeat(100))).chars().count(), MAX_VALUE + 1);
    }

    #[test]
    fn the_kind_of_a_path_has_no_identities() {
        for (path, kind) in [
            ("device.name", "device.name"),
            ("device.groups[sg-1]", "device.groups[]"),
            ("a[x y].b[z].c", "a[].b[].c"),
            ("unmapped.tags[a]b[c].value", "unmapped.tags[].value"),
            ("unmapped.tags[a[b]", "unmapped.tags[]"),
            ("odd[", "odd[]"),
        ] {
            assert_eq!(kind_of(path), kind);
        }
    }
}
