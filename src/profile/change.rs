//! What happened to a device: what an event says beside the device itself.

use super::diff::FieldChange;
use crate::record::RawRecord;
use crate::record::{FIELD_PREFIX, OBSERVED_AT, SOURCE, SOURCE_CATEGORY, SWEEP_ID};

/// What an event says of its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// First seen, or seen again after it was gone.
    Created,
    /// Rendered otherwise than in its last event.
    Updated,
    /// Terminated, or no longer there.
    Removed(Removal),
    /// The same raw record, rendered otherwise by a newer mapping.
    Remapped,
}

/// Why a device was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Removal {
    /// EC2 said so.
    Terminated,
    /// A tombstone said so: EC2 no longer lists it.
    Absent,
}

impl Change {
    /// The header `change`.
    pub fn name(self) -> &'static str {
        match self {
            Change::Created => "created",
            Change::Updated => "updated",
            Change::Removed(_) => "removed",
            Change::Remapped => "remapped",
        }
    }

    /// The header `reason`.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Change::Removed(Removal::Terminated) => Some("terminated"),
            Change::Removed(Removal::Absent) => Some("absent"),
            Change::Created | Change::Updated | Change::Remapped => None,
        }
    }
}

/// The half of an event that is stamped when it is written: it is neither compared nor kept with the device.
///
/// Times are milliseconds since the epoch.
#[derive(Debug, Clone)]
pub struct Occurrence<'a> {
    /// What happened.
    pub change: Change,
    /// What differs, for `updated` and `remapped`.
    pub fields: &'a [FieldChange],
    /// Number of the event in the life of its device, from 1.
    pub revision: i64,
    /// When the record behind it was observed.
    pub observed_at: i64,
    /// When the device was first observed.
    pub first_seen: i64,
    /// When it was last seen to be there.
    pub last_seen: i64,
    /// When it last changed.
    pub last_change: i64,
    /// What the collector says beside the instance.
    pub origin: Origin<'a>,
}

impl<'a> Occurrence<'a> {
    /// The first sighting of a device.
    pub fn created(observed_at: i64, origin: Origin<'a>) -> Self {
        let (first_seen, last_seen, last_change) = (observed_at, observed_at, observed_at);
        Self {
            change: Change::Created,
            fields: &[],
            revision: 1,
            observed_at,
            first_seen,
            last_seen,
            last_change,
            origin,
        }
    }
}

/// Which source and which sweep a raw record comes from, by its headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The observation time as it was received.
    pub original_time: Option<&'a str>,
    /// The sweep.
    pub sweep_id: Option<&'a str>,
    /// Name of the source.
    pub source: Option<&'a str>,
    /// Category of the source.
    pub category: Option<&'a str>,
    /// Fields of the source, by name; of two of one name the last.
    pub fields: Vec<(&'a str, &'a str)>,
}

impl<'a> Origin<'a> {
    /// What the headers of `record` tell.
    pub fn of(record: &RawRecord<'a>) -> Self {
        let text = |name: &str| record.header(name).filter(|text| !text.is_empty());
        let mut names: Vec<_> = record.headers.iter().filter_map(|(name, _)| name.strip_prefix(FIELD_PREFIX)).collect();
        names.sort_unstable();
        names.dedup();
        let value = |name: &str| text(&format!("{FIELD_PREFIX}{name}"));
        Self {
            original_time: text(OBSERVED_AT),
            sweep_id: text(SWEEP_ID),
            source: text(SOURCE),
            category: text(SOURCE_CATEGORY),
            fields: names.into_iter().filter_map(|name| Some((name, value(name)?))).collect(),
        }
    }
}
