//! The latest changes, as an operator wants to see them: bounded in number and in size, and copied at a bounded rate, so
//! that a mapper at full speed spends nothing on them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use crate::inert::inert;
use crate::mapper::decide::Emission;
use crate::profile::diff::FieldChange;

/// Changes that are kept.
pub const KEPT: usize = 200;
/// Changes that are copied in a second, once as many as are kept were copied at once.
pub const A_SECOND: u32 = 20;
/// Fields that are kept of a change,
const MAX_FIELDS: usize = 8;
/// and characters of each text.
const MAX_TEXT: usize = 160;

/// A change of a device, cut to what a page shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// When the instance was observed.
    pub at: DateTime<Utc>,
    /// `created`, `updated`, `removed` or `remapped`.
    pub change: &'static str,
    /// Of a removal.
    pub reason: Option<&'static str>,
    /// The instance.
    pub instance: String,
    /// Its name.
    pub name: Option<String>,
    /// Its account.
    pub account: Option<String>,
    /// Its region.
    pub region: Option<String>,
    /// Number of the event in the life of its device.
    pub revision: i64,
    /// What a new device is: type, state, address.
    pub summary: String,
    /// What differs, the first of them.
    pub fields: Vec<Field>,
    /// Fields that differ too.
    pub more_fields: usize,
}

/// A field that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Field {
    /// As in the header `changed`.
    pub path: String,
    /// Before; `None` where it was absent.
    pub from: Option<String>,
    /// After; `None` where it is absent.
    pub to: Option<String>,
}

impl Change {
    /// What an event tells.
    pub fn of(instance: &str, emission: &Emission) -> Self {
        let json = emission.device.to_json().and_then(|json| serde_json::from_str::<Value>(&json)).unwrap_or_default();
        // In profile `ocsf` it is in a member, beside what belongs to the cloud.
        let device = json.get("device").unwrap_or(&json);
        let text = |name: &str| device.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let scope = emission.device.scope();
        let is_new = emission.change.name() == "created";
        let summary = ["model", "state", "ip"].into_iter().filter(|_| is_new).filter_map(text).collect::<Vec<_>>();
        Self {
            at: DateTime::from_timestamp_millis(emission.state.observed_at).unwrap_or_default(),
            change: emission.change.name(),
            reason: emission.change.reason(),
            instance: cut(instance),
            name: text("name").or_else(|| text("hostname")).filter(|name| *name != instance).map(cut),
            account: scope.account.map(cut),
            region: scope.region.map(cut),
            revision: emission.state.revision,
            summary: cut(&summary.join(", ")),
            fields: emission.fields.iter().take(MAX_FIELDS).map(Field::of).collect(),
            more_fields: emission.fields.len().saturating_sub(MAX_FIELDS),
        }
    }
}

impl Field {
    fn of(change: &FieldChange) -> Self {
        Self { path: cut(&change.path), from: shown(&change.from), to: shown(&change.to) }
    }
}

fn shown(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(cut(text)),
        other => Some(cut(&other.to_string())),
    }
}

/// Short enough, and without what would write over the text around it, such as a change of writing direction.
fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        None => inert(text),
        Some((end, _)) => format!("{}…", inert(&text[..end])),
    }
}

/// The changes that were committed last.
#[derive(Debug)]
pub struct Latest {
    kept: Mutex<VecDeque<Change>>,
    allowance: Mutex<Allowance>,
}

impl Default for Latest {
    fn default() -> Self {
        Self { kept: Mutex::default(), allowance: Mutex::new(Allowance::new(Instant::now())) }
    }
}

impl Latest {
    /// Whether one more may be copied now.
    pub fn has_room(&self, now: Instant) -> bool {
        self.allowance.lock().unwrap_or_else(PoisonError::into_inner).take(now)
    }

    /// Changes that were committed, the oldest first.
    pub fn add(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        let mut kept = self.kept();
        kept.extend(changes.iter().cloned());
        let too_many = kept.len().saturating_sub(KEPT);
        kept.drain(..too_many);
    }

    /// All of them, the latest first.
    pub fn all(&self) -> Vec<Change> {
        self.kept().iter().rev().cloned().collect()
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Change>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many changes may be copied: [`KEPT`] at once, then [`A_SECOND`].
#[derive(Debug)]
struct Allowance {
    left: f64,
    told: Instant,
}

impl Allowance {
    /// A full one.
    fn new(now: Instant) -> Self {
        Self { left: KEPT as f64, told: now }
    }

    /// Takes one, if there is one.
    fn take(&mut self, now: Instant) -> bool {
        let earned = now.duration_since(self.told).as_secs_f64() * f64::from(A_SECOND);
        self.told = now;
        self.left = (self.left + earned).min(KEPT as f64);
        let is_allowed = self.left >= 1.0;
        if is_allowed {
            self.left -= 1.0;
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn change(revision: i64) -> Change {
        Change {
            at: DateTime::UNIX_EPOCH,
            change: "updated",
            reason: None,
            instance: "i-1".to_owned(),
            name: None,
            account: None,
            region: None,
            revision,
            summary: String::new(),
            fields: Vec::new(),
            more_fields: 0,
        }
    }

    #[test]
    fn the_latest_are_kept_the_latest_first() {
        let latest = Latest::default();
        for batch in (0..500).collect::<Vec<_>>().chunks(7) {
            latest.add(&batch.iter().copied().map(change).collect::<Vec<_>>());
        }
        let revisions: Vec<_> = latest.all().iter().map(|change| change.revision).collect();
        assert_eq!(revisions, (300..500).rev().collect::<Vec<_>>());
    }

    #[test]
    fn many_at_once_are_copied_and_then_some_a_second() {
        let began = Instant::now();
        let mut allowance = Allowance::new(began);
        let mut copied_at = |seconds| {
            let now = began + Duration::from_secs(seconds);
            (0..10_000).filter(|_| allowance.take(now)).count()
        };
        assert_eq!(copied_at(0), KEPT);
        assert_eq!(copied_at(1), A_SECOND as usize);
        assert_eq!(copied_at(3), 2 * A_SECOND as usize);
        assert_eq!(copied_at(3600), KEPT, "a long rest earns no more than is kept");
    }

    #[test]
    fn a_value_is_cut_to_what_a_page_shows_and_cannot_turn_the_text_around_it() {
        assert_eq!(cut("web\u{202E}1\n"), "web\u{FFFD}1␊");
        let field = FieldChange { path: "device.name".to_owned(), from: Value::Null, to: json!("ä".repeat(5000)) };
        let field = Field::of(&field);
        assert_eq!((field.from, field.to), (None, Some(format!("{}…", "ä".repeat(MAX_TEXT)))));
    }
}
