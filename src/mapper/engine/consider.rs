//! What follows from one record, without a word to Kafka.

use compact_str::CompactString;

use super::super::changelog::Changelog;
use super::super::dead_letter::dead_letter;
use super::super::decide::{Decision, Rules, decide};
use super::super::event;
use super::super::observer::Observer;
use super::super::port::{Fatal, Output};
use super::super::state::{DeviceState, Known};
use super::super::tally::Told;
use super::{Partition, Settings};
use crate::profile::encode::Encoder;
use crate::record::RawRecord;

/// What follows from one record.
pub(super) struct Effects {
    /// Offset to go on from.
    pub(super) next: i64,
    pub(super) outputs: Vec<Output>,
    pub(super) memory: Memory,
    pub(super) told: Told,
    /// Why no more should be rejected.
    pub(super) tripped: Option<String>,
}

/// What becomes of what is known of the device.
pub(super) enum Memory {
    Nothing,
    Put(CompactString, DeviceState),
    Learn(CompactString, Known),
}

/// What the engine decides with.
pub(super) struct Mind {
    pub(super) rules: Rules,
    pub(super) encoder: Encoder,
    pub(super) changelog: Changelog,
    pub(super) settings: Settings,
    pub(super) observer: Observer,
}

impl Mind {
    /// Decides on a record of a partition, and makes what is to be written.
    ///
    /// # Errors
    /// When an event or a state cannot be encoded: a fault of this program.
    pub(super) fn consider(&self, record: &RawRecord<'_>, partition: &mut Partition) -> Result<Effects, Fatal> {
        let mut unreadable = Vec::new();
        let decision = decide(&self.rules, record, &partition.devices, &mut |field| {
            tracing::debug!(field, "member unreadable, taken for absent");
            unreadable.push(field.to_owned());
        });
        let shown = match &decision {
            Decision::Emit(emission) => self.observer.shown(record.key, emission),
            _ => None,
        };
        let told = Told::of(&decision, unreadable).shown_as(shown);
        partition.reading.mapped(record.timestamp_ms);
        let tripped = partition.breaker.note(matches!(decision, Decision::Reject(_)), self.settings.breaker);
        let id = || record.key.map(CompactString::from_utf8_lossy).unwrap_or_default();
        let fault = |error: &dyn std::fmt::Display| Fatal(format!("{} cannot be written: {error}", id()));
        let (outputs, memory) = match decision {
            Decision::Unchanged | Decision::Stale => (Vec::new(), Memory::Nothing),
            Decision::Same(known) => (Vec::new(), Memory::Learn(id(), known)),
            Decision::Reject(rejection) => {
                let (offset, kind) = (record.offset, rejection.kind());
                tracing::warn!(partition = record.partition, offset, kind, "record rejected");
                let now = chrono::Utc::now().timestamp_millis();
                (vec![dead_letter(record, &rejection, &self.settings.raw_topic, now)], Memory::Nothing)
            }
            Decision::Emit(mut emission) => {
                let event = event::record(record, &mut emission, &self.rules, &self.encoder, &self.settings.raw_topic)
                    .map_err(|error| fault(&error))?;
                let state = self.changelog.record(record, &emission.state).map_err(|error| fault(&error))?;
                (vec![event, state], Memory::Put(id(), emission.state))
            }
        };
        let observed_at = match &memory {
            Memory::Nothing => None,
            Memory::Put(_, state) => Some(state.observed_at),
            Memory::Learn(..) => Some(record.observed_at_ms()),
        };
        if let Some(later) = observed_at.filter(|at| *at > partition.record_time) {
            // A clock that runs ahead must not make removed devices forgotten.
            let now = chrono::Utc::now().timestamp_millis();
            partition.record_time = partition.record_time.max(later.min(now));
        }
        Ok(Effects { next: record.offset + 1, outputs, memory, told, tripped })
    }
}
