//! What the mapper knows of the devices of one partition, and how to take back what an aborted transaction learned.

use std::collections::{BTreeSet, HashMap};

use crate::profile::Fingerprint;
pub use crate::profile::change::Removal;
use crate::record::Digest;

/// What is known of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceState {
    /// Number of its last event, from 1; goes on after a removal.
    pub revision: i64,
    /// When the record behind its last event was observed, milliseconds since the epoch.
    pub observed_at: i64,
    /// Offset of that record in the raw topic.
    pub raw_offset: i64,
    /// When the device was first observed.
    pub first_seen: i64,
    /// When it last changed; a remapping is no change.
    pub last_change: i64,
    /// Whether it is there.
    pub life: Life,
}

/// Whether a device is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// It is, and looks so.
    Present(Rendering),
    /// It was removed; kept for a while, since late news of it must not bring it back.
    Gone(Removal),
}

/// The device of the last event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendering {
    /// A raw record and rules that render to it.
    pub known: Known,
    /// Canonical JSON.
    pub device: Box<str>,
}

/// Raw bytes and rules that together render to the device in the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Of the raw record.
    pub digest: Digest,
    /// Of the mapping.
    pub fingerprint: Fingerprint,
}

impl DeviceState {
    /// The last rendering, where the device is present.
    pub fn present(&self) -> Option<&Rendering> {
        match &self.life {
            Life::Present(rendering) => Some(rendering),
            Life::Gone(_) => None,
        }
    }

    /// Whether raw bytes and rules are known to give the device that is known.
    pub fn renders_from(&self, known: Known) -> bool {
        self.present().is_some_and(|rendering| rendering.known == known)
    }
}

/// The devices of one partition. Changes since the last [`settle`](Self::settle) can be taken back.
#[derive(Debug, Default)]
pub struct Devices {
    devices: HashMap<Box<str>, DeviceState>,
    /// The removed ones by the time of their removal.
    gone: BTreeSet<(i64, Box<str>)>,
    /// What was there before each change of the open transaction, oldest first.
    undo: Vec<(Box<str>, Option<DeviceState>)>,
}

impl Devices {
    /// What is known of a device.
    pub fn get(&self, id: &str) -> Option<&DeviceState> {
        self.devices.get(id)
    }

    /// How many are known, removed ones included.
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// Sets or forgets what is known of a device, within the open transaction.
    pub fn put(&mut self, id: &str, state: Option<DeviceState>) {
        let before = self.replace(id.into(), state);
        self.undo.push((id.into(), before));
    }

    /// Takes over what the state topic says: nothing to take back.
    pub fn restore(&mut self, id: &str, state: Option<DeviceState>) {
        self.replace(id.into(), state);
    }

    /// Notes other raw bytes that render to the device that is known. Holds whether or not the transaction does.
    pub fn learn(&mut self, id: &str, known: Known) {
        if let Some(Life::Present(rendering)) = self.devices.get_mut(id).map(|state| &mut state.life) {
            rendering.known = known;
        }
    }

    /// The first `most` devices that were removed before `horizon`, milliseconds since the epoch.
    pub fn gone_before(&self, horizon: i64, most: usize) -> Vec<Box<str>> {
        self.gone.iter().take(most).take_while(|(at, _)| *at < horizon).map(|(_, id)| id.clone()).collect()
    }

    /// The transaction was committed: its changes stand.
    pub fn settle(&mut self) {
        self.undo.clear();
    }

    /// The transaction was aborted: its changes never were.
    pub fn roll_back(&mut self) {
        while let Some((id, before)) = self.undo.pop() {
            self.replace(id, before);
        }
    }

    fn replace(&mut self, id: Box<str>, state: Option<DeviceState>) -> Option<DeviceState> {
        let removed_at = |state: &DeviceState| matches!(state.life, Life::Gone(_)).then_some(state.observed_at);
        if let Some(at) = state.as_ref().and_then(removed_at) {
            self.gone.insert((at, id.clone()));
        }
        let after = state.as_ref().and_then(removed_at);
        let before = match state {
            Some(state) => self.devices.insert(id.clone(), state),
            None => self.devices.remove(&id),
        };
        if let Some(at) = before.as_ref().and_then(removed_at).filter(|at| Some(*at) != after) {
            self.gone.remove(&(at, id));
        }
        before
    }
}

#[cfg(test)]
mod tests;
