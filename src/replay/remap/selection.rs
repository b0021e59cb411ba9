//! Which raw record of each device counts: the one that the live mapper would render the device from, had it today's
//! mapping. Pure.
//!
//! The state of a device tells which record wrote it last. What came later was either older news, which must not turn
//! the device back, or rendered to the same device, and so was not written. Of these, the newest counts.

use std::collections::HashMap;

use compact_str::CompactString;

use crate::mapper::state::DeviceState;
use crate::record::RawRecord;

/// Stands for a key: those of the raw topic are written by anybody, of any length.
type KeyDigest = [u8; 16];

/// What is known of one key.
#[derive(Default)]
struct Entry {
    state: Known,
    search: Search,
}

/// How far the record that counts is found.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Search {
    /// No record was seen that may count.
    #[default]
    Open,
    /// The newest so far: observation time and offset.
    Newest(i64, i64),
    /// The newest is one that today's mapping rejects: of the next reading the newest counts that it takes.
    Picky(Option<(i64, i64)>),
    /// It was handed out.
    Done,
}

impl Search {
    fn newest(self) -> Option<(i64, i64)> {
        match self {
            Search::Newest(observed_at, offset) => Some((observed_at, offset)),
            Search::Picky(newest) => newest,
            Search::Open | Search::Done => None,
        }
    }
}

/// What the state topic knows of a device.
#[derive(Default)]
enum Known {
    #[default]
    Nothing,
    Gone,
    Present {
        id: CompactString,
        /// When the record behind the state was observed, and where it lies.
        observed_at: i64,
        raw_offset: i64,
    },
}

/// The keys of one partition, and the record of each that counts.
pub struct Selection {
    keys: HashMap<KeyDigest, Entry>,
    /// Whatever lies before it had been mapped when the states were read.
    committed: i64,
}

impl Selection {
    /// Of a partition whose group had committed this offset before its states were read.
    pub fn new(committed: i64) -> Self {
        Self { keys: HashMap::new(), committed }
    }

    /// Takes over what the state topic says.
    pub fn restore(&mut self, id: &str, state: Option<&DeviceState>) {
        let state = match state {
            None => Known::Nothing,
            Some(state) if state.present().is_none() => Known::Gone,
            Some(state) => {
                Known::Present { id: id.into(), observed_at: state.observed_at, raw_offset: state.raw_offset }
            }
        };
        self.keys.entry(digest(id.as_bytes())).or_default().state = state;
    }

    /// The offset before which everything lies that can count. A mapper that runs meanwhile may have written states from
    /// beyond its committed offset as it was.
    pub fn end(&self) -> i64 {
        let beyond = |entry: &Entry| match entry.state {
            Known::Present { raw_offset, .. } => raw_offset + 1,
            Known::Nothing | Known::Gone => 0,
        };
        self.keys.values().map(beyond).max().unwrap_or_default().max(self.committed)
    }

    /// Notes a record of the raw topic. `accepts` tells whether today's mapping takes it; it is asked where it matters.
    pub fn note(&mut self, record: &RawRecord<'_>, accepts: &dyn Fn(&RawRecord<'_>) -> bool) {
        let entry = self.keys.entry(digest(record.key.unwrap_or_default())).or_default();
        let (observed_at, offset) = (record.observed_at_ms(), record.offset);
        let may_count = match &entry.state {
            // Of these nothing is written: they are reported only.
            Known::Nothing => offset < self.committed,
            Known::Gone => false,
            Known::Present { observed_at: written, raw_offset, .. } => {
                // Beyond the committed offset only what is in the state is known to be mapped.
                observed_at >= *written && (offset == *raw_offset || (*raw_offset..self.committed).contains(&offset))
            }
        };
        let newest = Some((observed_at, offset));
        if !may_count || newest <= entry.search.newest() {
            return;
        }
        match &mut entry.search {
            Search::Open | Search::Newest(..) => entry.search = Search::Newest(observed_at, offset),
            Search::Picky(found) if accepts(record) => *found = newest,
            Search::Picky(_) | Search::Done => {}
        }
    }

    /// The offsets of the records that count, ascending.
    pub fn offsets(&self) -> Vec<i64> {
        let mut offsets: Vec<_> = self.keys.values().filter_map(|entry| Some(entry.search.newest()?.1)).collect();
        offsets.sort_unstable();
        offsets
    }

    /// Whether this record counts; asked again it no longer does.
    pub fn take(&mut self, record: &RawRecord<'_>) -> bool {
        let counts = |entry: &&mut Entry| entry.search.newest().is_some_and(|(_, offset)| offset == record.offset);
        let entry = self.keys.get_mut(&digest(record.key.unwrap_or_default())).filter(counts);
        entry.map(|entry| entry.search = Search::Done).is_some()
    }

    /// A record that was taken is one that today's mapping rejects: an older one of a device that is there counts.
    pub fn reject(&mut self, record: &RawRecord<'_>) {
        if let Some(entry) = self.keys.get_mut(&digest(record.key.unwrap_or_default()))
            && matches!(entry.state, Known::Present { .. })
        {
            entry.search = Search::Picky(None);
        }
    }

    /// Whether another reading is needed, for devices whose newest record was rejected.
    pub fn is_picky(&self) -> bool {
        self.keys.values().any(|entry| matches!(entry.search, Search::Picky(_)))
    }

    /// How many devices are there, and how many removed ones are remembered.
    pub fn count(&self) -> (u64, u64) {
        self.keys.values().fold((0, 0), |(present, gone), entry| match entry.state {
            Known::Present { .. } => (present + 1, gone),
            Known::Gone => (present, gone + 1),
            Known::Nothing => (present, gone),
        })
    }

    /// The devices that are there and for which no record was taken.
    pub fn without_record(&self) -> impl Iterator<Item = &str> {
        self.keys.values().filter(|entry| entry.search != Search::Done).filter_map(|entry| match &entry.state {
            Known::Present { id, .. } => Some(id.as_str()),
            Known::Nothing | Known::Gone => None,
        })
    }
}

fn digest(key: &[u8]) -> KeyDigest {
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(key).as_bytes()[..16]);
    digest
}

/// Ranges that hold these ascending offsets, and not more than `gap` others in a row.
pub fn ranges(offsets: &[i64], gap: i64) -> Vec<(i64, i64)> {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for offset in offsets {
        match ranges.last_mut() {
            Some((_, to)) if offset - *to <= gap => *to = offset + 1,
            _ => ranges.push((*offset, offset + 1)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapper::state::{Known as Rendered, Life, Removal, Rendering};
    use crate::profile::Fingerprint;
    use crate::record::{Digest, Secret};

    const COMMITTED: i64 = 100;

    fn present(observed_at: i64, raw_offset: i64) -> DeviceState {
        let digest = Digest { secret: Secret([0; 32]), hash: [0; 16] };
        let known = Rendered { digest, fingerprint: Fingerprint(0) };
        let life = Life::Present(Rendering { known, device: "{}".into() });
        DeviceState { revision: 1, observed_at, raw_offset, first_seen: 0, last_change: 0, life }
    }

    fn record(offset: i64, timestamp_ms: i64) -> RawRecord<'static> {
        RawRecord { partition: 0, offset, timestamp_ms, key: Some(b"i-1"), value: None, headers: Vec::new() }
    }

    fn noted(state: Option<&DeviceState>, records: &[(i64, i64)]) -> Selection {
        let mut selection = Selection::new(COMMITTED);
        selection.restore("i-1", state);
        records.iter().for_each(|(offset, at)| selection.note(&record(*offset, *at), &|_| panic!("not asked")));
        selection
    }

    #[test]
    fn the_newest_observation_since_the_state_counts_and_of_equal_ones_the_later_record() {
        let state = present(10, 5);
        assert_eq!(noted(Some(&state), &[(5, 10)]).offsets(), [5]);
        assert_eq!(noted(Some(&state), &[(5, 10), (6, 12), (7, 11)]).offsets(), [6]);
        assert_eq!(noted(Some(&state), &[(5, 10), (6, 12), (7, 12)]).offsets(), [7]);
    }

    #[test]
    fn older_news_that_came_later_does_not_count_nor_newer_news_that_came_before() {
        // At offset 3 lies a newer observation that was overruled, since the record at 5 was accepted after it.
        assert_eq!(noted(Some(&present(10, 5)), &[(3, 20), (5, 10), (6, 9)]).offsets(), [5]);
        assert_eq!(noted(Some(&present(10, 5)), &[(6, 9)]).offsets(), [0; 0]);
    }

    #[test]
    fn beyond_the_committed_offset_only_what_is_in_the_state_counts() {
        let selection = noted(Some(&present(10, 120)), &[(99, 30), (110, 30), (120, 10), (121, 30)]);
        assert_eq!(selection.offsets(), [120]);
        assert_eq!(selection.end(), 121);
        assert_eq!(noted(Some(&present(10, 5)), &[]).end(), COMMITTED);
        assert_eq!(noted(None, &[(99, 1), (100, 2)]).offsets(), [99]);
    }

    #[test]
    fn of_a_removed_device_no_record_counts() {
        let gone = DeviceState { life: Life::Gone(Removal::Terminated), ..present(10, 5) };
        let selection = noted(Some(&gone), &[(5, 10), (6, 20)]);
        assert_eq!(selection.offsets(), [0; 0]);
        assert_eq!(selection.count(), (0, 1));
    }

    #[test]
    fn a_record_is_taken_once_and_a_device_without_one_is_named() {
        let mut selection = noted(Some(&present(10, 5)), &[(5, 10), (6, 11)]);
        assert_eq!(Vec::from_iter(selection.without_record()), ["i-1"]);
        assert!(!selection.take(&record(5, 10)));
        assert!(selection.take(&record(6, 11)));
        assert!(!selection.take(&record(6, 11)));
        assert_eq!(selection.without_record().count(), 0);
        selection.note(&record(7, 12), &|_| true);
        assert_eq!(selection.offsets(), [0; 0]);
    }

    #[test]
    fn where_the_newest_record_is_rejected_the_newest_counts_that_is_not() {
        let log = [(5, 10), (6, 11), (7, 12), (8, 13)];
        let mut selection = noted(Some(&present(10, 5)), &log);
        assert!(selection.take(&record(8, 13)));
        selection.reject(&record(8, 13));
        assert!(selection.is_picky());
        let accepts = |record: &RawRecord<'_>| record.offset < 7;
        log.iter().for_each(|(offset, at)| selection.note(&record(*offset, *at), &accepts));
        assert_eq!(selection.offsets(), [6]);
        assert!(selection.take(&record(6, 11)));
        assert!(!selection.is_picky());
    }

    #[test]
    fn ranges_leave_long_gaps_out() {
        assert_eq!(ranges(&[], 10), []);
        assert_eq!(ranges(&[3, 4, 14, 26, 27], 10), [(3, 15), (26, 28)]);
    }
}
