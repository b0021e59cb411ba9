//! What the mapper knows of the devices of one partition, and how to take back what an aborted transaction learned.

mod origins;
mod packed;

use std::collections::{BTreeSet, HashMap};

use compact_str::CompactString;
use origins::Origins;
use packed::Packed;

use crate::profile::Fingerprint;
pub use crate::profile::change::Removal;
use crate::record::Digest;

/// What a removed device takes in the order of removals, whose nodes are two thirds full.
const GONE_BYTES: usize = size_of::<(i64, CompactString)>() * 3 / 2;

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
    pub device: String,
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
}

/// The devices of one partition. Changes since the last [`settle`](Self::settle) can be taken back.
#[derive(Debug, Default)]
pub struct Devices {
    devices: HashMap<CompactString, Packed>,
    /// The removed ones by the time of their removal.
    gone: BTreeSet<(i64, CompactString)>,
    /// What was there before each change of the open transaction, oldest first.
    undo: Vec<(CompactString, Option<Packed>)>,
    /// What digests of theirs are made by.
    origins: Origins,
    /// What the devices and those of their IDs that are long take on the heap, bytes.
    on_heap: usize,
}

impl Devices {
    /// What is known of a device. It has to be decompressed: ask [`known`](Self::known) first.
    pub fn get(&self, id: &str) -> Option<DeviceState> {
        self.devices.get(id).map(|packed| packed.unpack(&self.origins))
    }

    /// A raw record and rules that give the device that is known, where it is present.
    pub fn known(&self, id: &str) -> Option<Known> {
        self.devices.get(id)?.known(&self.origins)
    }

    /// How many are known, removed ones included.
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// The memory that they take, in bytes, by what the allocator is known to add. The open transaction is not in it.
    pub fn bytes(&self) -> usize {
        // The table keeps an eighth of its slots free, and a byte of its own for each.
        let slots = self.devices.capacity().div_ceil(7) * 8;
        slots * (size_of::<(CompactString, Packed)>() + 1)
            + self.on_heap
            + self.gone.len() * GONE_BYTES
            + self.origins.bytes()
    }

    /// Sets or forgets what is known of a device, within the open transaction.
    pub fn put(&mut self, id: &str, state: Option<DeviceState>) {
        let packed = state.map(|state| Packed::of(&state, &mut self.origins));
        let before = self.replace(id.into(), packed);
        self.undo.push((id.into(), before));
    }

    /// Takes over what the state topic says: nothing to take back.
    pub fn restore(&mut self, id: &str, state: Option<DeviceState>) {
        let packed = state.map(|state| Packed::of(&state, &mut self.origins));
        self.replace(id.into(), packed);
    }

    /// Notes another raw record and rules that render to the device that is known. Holds whether or not the transaction
    /// does.
    pub fn learn(&mut self, id: &str, known: Known) {
        if let Some(packed) = self.devices.get_mut(id) {
            packed.learn(known, &mut self.origins);
        }
    }

    /// The first `most` devices that were removed before `horizon`, milliseconds since the epoch.
    pub fn gone_before(&self, horizon: i64, most: usize) -> Vec<CompactString> {
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

    fn replace(&mut self, id: CompactString, packed: Option<Packed>) -> Option<Packed> {
        let after = packed.as_ref().and_then(Packed::removed_at);
        if let Some(at) = after {
            self.gone.insert((at, id.clone()));
        }
        let on_heap = |packed: &Packed| {
            let long_id = if id.is_heap_allocated() { allocated(id.len()) } else { 0 };
            long_id + allocated(packed.len())
        };
        self.on_heap += packed.as_ref().map_or(0, on_heap);
        let before = match packed {
            Some(packed) => self.devices.insert(id.clone(), packed),
            None => self.devices.remove(&id),
        };
        self.on_heap -= before.as_ref().map_or(0, on_heap);
        if let Some(at) = before.as_ref().and_then(Packed::removed_at).filter(|at| Some(*at) != after) {
            self.gone.remove(&(at, id));
        }
        before
    }
}

/// What the allocator, mimalloc, takes for so many bytes: pairs of words, then four sizes between two powers of two.
fn allocated(bytes: usize) -> usize {
    let words = bytes.div_ceil(8).max(1);
    let step = if words <= 8 { 2 } else { 1 << ((words - 1).ilog2() - 2) };
    words.next_multiple_of(step) * 8
}

#[cfg(test)]
mod tests;
