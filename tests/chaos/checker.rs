//! The judge of a run: what must be on the topics, by the rules of `docs/mapping.md` written down a second time. It knows
//! nothing of the program: neither its code nor its types.
//!
//! The fleet's history says what the raw topic may hold, and how it must end; the raw topic says which events there must
//! be. An event names the record that it was made from, so that each can be asked for by name: one that is missing is
//! *lost*, one that is there twice is *duplicated*, whatever else does not fit is *wrong*.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

#[cfg(test)]
mod tests;

/// What an event shows of an instance, as far as it changes here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Look {
    pub name: String,
    pub state: String,
    /// RFC 3339, whole seconds.
    pub launched: String,
}

/// What a raw record says of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    Seen(Look),
    Terminated,
    Absent,
}

/// A raw record that a consumer may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    pub partition: i32,
    pub offset: i64,
    pub id: String,
    /// When it was observed, milliseconds since the epoch.
    pub at: i64,
    pub sight: Sight,
    /// All that EC2 showed; none in a tombstone.
    pub shown: Option<String>,
    /// The sweep that brought it.
    pub sweep: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Created,
    Updated,
    Removed,
}

/// An event that a consumer may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub partition: i32,
    pub offset: i64,
    pub id: String,
    /// Partition and offset of the raw record that it was made from.
    pub cause: (i32, i64),
    pub revision: u64,
    pub what: What,
    pub look: Look,
}

/// What is kept of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub revision: u64,
    /// None once it is gone.
    pub look: Option<Look>,
}

/// What does not agree, in words.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Findings {
    pub lost: Vec<String>,
    pub duplicated: Vec<String>,
    pub wrong: Vec<String>,
}

impl Findings {
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    pub fn join(mut self, other: Self) -> Self {
        self.lost.extend(other.lost);
        self.duplicated.extend(other.duplicated);
        self.wrong.extend(other.wrong);
        self
    }
}

/// What must be told of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub id: String,
    pub revision: u64,
    pub what: What,
    pub look: Look,
}

/// A device as its records have it so far.
struct Device {
    revision: u64,
    /// When the last record was observed of which an event was made.
    at: i64,
    look: Look,
    life: Life,
}

#[derive(PartialEq)]
enum Life {
    Present,
    Terminated,
    Absent,
}

/// The events that must be there, by what they are made from. The records are in the order of their offsets.
pub fn expected(raw: &[Raw]) -> BTreeMap<(i32, i64), Expected> {
    let mut devices = BTreeMap::<&str, Device>::new();
    let mut expected = BTreeMap::new();
    for record in raw {
        let known = devices.get(record.id.as_str());
        let Some((what, look)) = told(known, record) else { continue };
        let life = match (what, &record.sight) {
            (What::Removed, Sight::Absent) => Life::Absent,
            (What::Removed, _) => Life::Terminated,
            _ => Life::Present,
        };
        let revision = known.map_or(0, |device| device.revision) + 1;
        devices.insert(&record.id, Device { revision, at: record.at, look: look.clone(), life });
        expected.insert((record.partition, record.offset), Expected { id: record.id.clone(), revision, what, look });
    }
    expected
}

/// What a record tells of a device that is known so.
fn told(known: Option<&Device>, record: &Raw) -> Option<(What, Look)> {
    let Some(device) = known else {
        return match &record.sight {
            Sight::Seen(look) => Some((What::Created, look.clone())),
            Sight::Terminated | Sight::Absent => None,
        };
    };
    // What was observed earlier is no news.
    if record.at < device.at {
        return None;
    }
    match (&device.life, &record.sight) {
        (Life::Present, Sight::Seen(look)) => (*look != device.look).then(|| (What::Updated, look.clone())),
        (Life::Present, Sight::Absent) => Some((What::Removed, device.look.clone())),
        (Life::Present, Sight::Terminated) => {
            Some((What::Removed, Look { state: "terminated".to_owned(), ..device.look.clone() }))
        }
        // EC2 may have answered from a cache: seen again at the same time, it is gone still.
        (Life::Absent, Sight::Seen(look)) => (record.at > device.at).then(|| (What::Created, look.clone())),
        (Life::Absent | Life::Terminated, _) => None,
    }
}

/// Holds events and states against the raw records.
pub fn events(raw: &[Raw], events: &[Event], states: &BTreeMap<String, State>, partitions: i32) -> Findings {
    let mut findings = Findings::default();
    for record in raw.iter().filter(|record| partition_of(&record.id, partitions) != record.partition) {
        findings.wrong.push(format!("{record:?} does not lie where its key belongs"));
    }
    let expected = expected(raw);
    let mut told = BTreeSet::new();
    // By device and partition: where several partitions have a device's events, revisions alone tell their order.
    let mut last = BTreeMap::<(&str, i32), u64>::new();
    for event in events {
        let due = expected.get(&event.cause);
        let is_as_due = due.is_some_and(|due| {
            (&due.id, due.revision, due.what, &due.look) == (&event.id, event.revision, event.what, &event.look)
        });
        if due.is_some() && !told.insert(event.cause) {
            findings.duplicated.push(format!("{event:?}"));
            continue;
        }
        if !is_as_due {
            findings.wrong.push(format!("{event:?}, due was {due:?}"));
            continue;
        }
        let before = last.insert((&event.id, event.partition), event.revision);
        if before.is_some_and(|before| before >= event.revision) {
            findings.wrong.push(format!("{event:?} comes behind revision {before:?}"));
        }
    }
    let lost = expected.iter().filter(|(cause, _)| !told.contains(*cause));
    findings.lost = lost.map(|(cause, due)| format!("of raw {cause:?}: {due:?}")).collect();

    let mut final_states = BTreeMap::new();
    for due in expected.values() {
        let look = (due.what != What::Removed).then(|| due.look.clone());
        let state = State { revision: due.revision, look };
        let newest: &mut State = final_states.entry(due.id.clone()).or_insert_with(|| state.clone());
        if newest.revision < state.revision {
            *newest = state;
        }
    }
    let ids: BTreeSet<_> = final_states.keys().chain(states.keys()).collect();
    for id in ids {
        let (due, found) = (final_states.get(id), states.get(id));
        if due != found {
            findings.wrong.push(format!("the state of {id} is {found:?}, due is {due:?}"));
        }
    }
    findings
}

/// What EC2 showed of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    pub scope: String,
    /// Oldest first, each with its time in milliseconds since the epoch; none while it was not shown.
    pub shown: Vec<(i64, Option<String>)>,
}

/// By the instances' IDs.
pub type Histories = BTreeMap<String, History>;

impl History {
    /// What was shown from the beginning of a time to its end, without a change.
    fn throughout(&self, began: i64, ended: i64) -> Option<&String> {
        let (_, shown) = self.shown.iter().rev().find(|(at, _)| *at <= began)?;
        let changed = self.shown.iter().any(|(at, _)| began < *at && *at <= ended);
        shown.as_ref().filter(|_| !changed)
    }
}

/// A sweep that is on record as complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    pub id: String,
    pub scope: String,
    /// Milliseconds since the epoch, as its process had it.
    pub began: i64,
    pub ended: i64,
}

/// What a complete sweep has not published, though EC2 showed it all the while. `run` is when the run was: a sweep outside of
/// it had a clock that was stepped, and cannot be judged.
pub fn sweeps(raw: &[Raw], histories: &Histories, sweeps: &[Sweep], run: RangeInclusive<i64>) -> Findings {
    let published = raw.iter().filter_map(|record| Some((record.sweep.as_ref()?, &record.id, record.shown.as_ref()?)));
    let published: BTreeSet<_> = published.collect();
    let mut findings = Findings::default();
    for sweep in sweeps.iter().filter(|sweep| run.contains(&sweep.began) && run.contains(&sweep.ended)) {
        for (id, history) in histories.iter().filter(|(_, history)| history.scope == sweep.scope) {
            let Some(shown) = history.throughout(sweep.began, sweep.ended) else { continue };
            if !published.contains(&(&sweep.id, id, shown)) {
                findings.lost.push(format!("{id} was {shown} throughout {sweep:?}, which has not published it"));
            }
        }
    }
    findings
}

/// Holds the raw records against what EC2 showed: each in its order, the last one as it is in the end. `is_foreign` are the
/// records of others.
pub fn records(raw: &[Raw], histories: &Histories, is_foreign: impl Fn(&str) -> bool) -> Findings {
    let mut findings = Findings::default();
    let mut reached = BTreeMap::<&str, usize>::new();
    let mut last = BTreeMap::<&str, &Raw>::new();
    for record in raw.iter().filter(|record| !is_foreign(&record.id)) {
        last.insert(&record.id, record);
        let Some(history) = histories.get(&record.id) else {
            findings.wrong.push(format!("{record:?} is of an instance that never was"));
            continue;
        };
        let reached = reached.entry(&record.id).or_default();
        let left = &history.shown[*reached..];
        match left.iter().position(|(_, shown)| *shown == record.shown) {
            Some(further) => *reached += further,
            None => findings.wrong.push(format!("{record:?} is not what EC2 showed then: {left:?}")),
        }
    }
    for (id, history) in histories {
        let now = history.shown.last().and_then(|(_, shown)| shown.as_ref());
        match (now, last.get(id.as_str())) {
            (Some(now), None) => findings.lost.push(format!("{id} was never published: {now}")),
            (now, Some(record)) if record.shown.as_ref() != now => {
                findings.lost.push(format!("{id} is {now:?}, its last record is {record:?}"));
            }
            // It came and went between two sweeps.
            (None, None) | (_, Some(_)) => {}
        }
    }
    findings
}

/// Holds the states against how EC2 shows its instances in the end: whatever the clocks said meanwhile.
pub fn ends(states: &BTreeMap<String, State>, now: &BTreeMap<String, Option<Look>>) -> Findings {
    let state_of = |id: &str| states.get(id).and_then(|state| state.look.as_ref());
    let wrong = now.iter().filter(|(id, look)| state_of(id) != look.as_ref());
    let wrong = wrong.map(|(id, look)| format!("{id} is {look:?}, its state is {:?}", states.get(id)));
    Findings { wrong: wrong.collect(), ..Findings::default() }
}

/// The partition of a key, as Kafka's Java clients choose it: murmur2, seed 0x9747b28c, without its sign.
pub fn partition_of(key: &str, partitions: i32) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let bytes = key.as_bytes();
    let mut hash = 0x9747_b28c_u32 ^ bytes.len() as u32;
    let chunks = bytes.chunks_exact(4);
    let tail = chunks.remainder();
    for chunk in chunks {
        let k = u32::from_le_bytes(chunk.try_into().expect("four bytes")).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ (k ^ (k >> 24)).wrapping_mul(M);
    }
    if !tail.is_empty() {
        let rest = tail.iter().rev().fold(0_u32, |rest, byte| (rest << 8) | u32::from(*byte));
        hash = (hash ^ rest).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^= hash >> 15;
    (hash & 0x7fff_ffff) as i32 % partitions
}
