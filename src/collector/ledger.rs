//! What the collector remembers of a scope: how its last sweep ended, and every instance that was ever published and is
//! not known to be gone. It lives on `ec2.sweeps`; this is the copy in memory, some fifty bytes an instance. Pure.

pub mod record;

use std::collections::HashMap;

use compact_str::CompactString;

pub use record::{Acceptance, Entry, Head, InstanceState, Standing, Verdict};
use record::{Key, Record};

/// Whether a sweep has seen an instance: the number of the last sweep that did, of this process.
type SweepNumber = u32;

/// The memory of one scope.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger {
    /// The last sweep; none before the first.
    pub head: Option<Head>,
    /// What an operator accepted and was not used yet.
    pub acceptance: Option<Acceptance>,
    known: HashMap<CompactString, Slot>,
    sweep: SweepNumber,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Slot {
    entry: Entry,
    seen: SweepNumber,
}

/// Something that a committed transaction changed in the memory.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// How the sweep stands.
    Head(Head),
    /// An instance, or that it is gone.
    Entry(CompactString, Option<Entry>),
    /// An acceptance was used.
    Used,
}

/// A known instance that the sweep has not seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Missing {
    /// Its ID.
    pub id: CompactString,
    /// What is known of it.
    pub entry: Entry,
}

impl Ledger {
    /// Takes over a record of the topic, at a restart.
    pub fn restore(&mut self, record: Record) {
        match record {
            Record::Head(head) => self.head = head,
            Record::Acceptance(acceptance) => self.acceptance = acceptance,
            Record::Entry(id, entry) => self.put(id, entry),
        }
    }

    /// Takes over what a transaction has committed.
    pub fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Head(head) => self.head = Some(head),
                Change::Entry(id, entry) => self.put(id, entry),
                Change::Used => self.acceptance = None,
            }
        }
    }

    /// Takes over what a transaction was to commit whose outcome is unknown. An instance of it may have been published,
    /// so it is known from here on, and the next sweep that lists it tells the topic again. What may be gone is kept.
    pub fn doubt(&mut self, changes: Vec<Change>) {
        for change in changes {
            if let Change::Entry(id, Some(entry)) = change
                && !entry.is_out_of_scope()
            {
                self.put(id, Some(Entry { standing: Standing::IN_DOUBT, ..entry }));
            }
        }
    }

    fn put(&mut self, id: CompactString, entry: Option<Entry>) {
        match entry {
            None => drop(self.known.remove(&id)),
            Some(entry) => {
                // A sweep that tells of an instance has seen it.
                self.known.insert(id, Slot { entry, seen: self.sweep });
            }
        }
    }

    /// Begins a sweep: nothing is seen yet.
    pub fn begin(&mut self) {
        self.sweep = self.sweep.wrapping_add(1).max(1);
    }

    /// Notes that a known instance was listed. One that is not known becomes so with the commit of its record.
    pub fn mark_seen(&mut self, id: &str) {
        if let Some(slot) = self.known.get_mut(id) {
            slot.seen = self.sweep;
        }
    }

    /// What is known of an instance.
    pub fn entry(&self, id: &str) -> Option<Entry> {
        self.known.get(id).map(|slot| slot.entry)
    }

    /// The instances that count for the listing and were not seen, by ID.
    pub fn missing(&self) -> Vec<Missing> {
        let unseen = self.known.iter().filter(|(_, slot)| slot.seen != self.sweep && !slot.entry.is_out_of_scope());
        let mut missing: Vec<_> = unseen.map(|(id, slot)| Missing { id: id.clone(), entry: slot.entry }).collect();
        missing.sort_by(|a, b| a.id.cmp(&b.id));
        missing
    }

    /// How many instances are known that should be listed and were not last seen on their way out.
    pub fn alive(&self) -> usize {
        self.known.values().filter(|slot| !slot.entry.is_out_of_scope() && !slot.entry.state.is_ending()).count()
    }

    /// How many instances are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no instance is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// How many instances that should be listed are in each state, as [`InstanceState::ALL`].
    pub fn by_state(&self) -> [usize; InstanceState::ALL.len()] {
        let mut counts = [0; InstanceState::ALL.len()];
        for slot in self.known.values().filter(|slot| !slot.entry.is_out_of_scope()) {
            counts[slot.entry.state as usize] += 1;
        }
        counts
    }

    /// Known instances that some complete sweep has missed.
    pub fn suspects(&self) -> usize {
        let is_suspect = |slot: &&Slot| matches!(slot.entry.standing, Standing::Suspect { absences: 1.., .. });
        self.known.values().filter(is_suspect).count()
    }
}

/// The ledgers of one partition, as they are restored.
#[derive(Debug, Default)]
pub struct Ledgers(pub HashMap<String, Ledger>);

impl Ledgers {
    /// Takes over a record of the topic.
    ///
    /// # Errors
    /// When it is none of ours, damaged, or of a newer release; the message says which key.
    pub fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), String> {
        let about = |reason: &dyn std::fmt::Display| {
            format!(
                "a record of the sweeps topic cannot be taken over, key {:?}: {reason}",
                String::from_utf8_lossy(key)
            )
        };
        let parsed = Key::parse(key).ok_or_else(|| about(&"it is no key of a scope"))?;
        let scope = parsed.scope().to_owned();
        let record = Record::decode(&parsed, value).map_err(|error| about(&error))?;
        self.0.entry(scope).or_default().restore(record);
        Ok(())
    }

    /// The ledgers by scope, without those that were forgotten altogether.
    pub fn into_scopes(mut self) -> HashMap<String, Ledger> {
        self.0.retain(|_, ledger| *ledger != Ledger::default());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(state: InstanceState) -> Entry {
        Entry { state, tagged: true, standing: Standing::Present }
    }

    fn known(ids: &[&str]) -> Ledger {
        let mut ledger = Ledger::default();
        let changes = ids.iter().map(|id| Change::Entry((*id).into(), Some(entry(InstanceState::Running))));
        ledger.apply(changes.collect());
        ledger
    }

    #[test]
    fn what_a_sweep_has_not_seen_is_missing() {
        let mut ledger = known(&["i-1", "i-2", "i-3"]);
        ledger.begin();
        ledger.mark_seen("i-2");
        ledger.mark_seen("i-9");
        let missing: Vec<_> = ledger.missing().into_iter().map(|missing| missing.id).collect();
        assert_eq!(missing, ["i-1", "i-3"]);
        ledger.begin();
        assert_eq!(ledger.missing().len(), 3, "the next sweep starts anew");
    }

    #[test]
    fn an_instance_published_by_a_sweep_that_died_is_missed_by_the_next() {
        let mut ledger = known(&[]);
        ledger.begin();
        ledger.apply(vec![Change::Entry("i-ghost".into(), Some(entry(InstanceState::Running)))]);
        ledger.begin();
        assert_eq!(ledger.missing().len(), 1);
    }

    #[test]
    fn what_is_out_of_scope_is_known_but_never_missing() {
        let mut ledger = known(&["i-1"]);
        let out = Entry { standing: Standing::OutOfScope, ..entry(InstanceState::Running) };
        ledger.apply(vec![Change::Entry("i-2".into(), Some(out))]);
        ledger.begin();
        assert_eq!(ledger.missing().len(), 1);
        assert_eq!((ledger.len(), ledger.alive()), (2, 1));
    }

    #[test]
    fn a_partition_is_restored_scope_by_scope() {
        let head = Head { missing: 3, ..Head::begun("s-1", 5) };
        let mut ledgers = Ledgers::default();
        let mut put = |key: &Key<'_>, record: Record| {
            let value = record.encode();
            ledgers.restore(key.to_string().as_bytes(), value.as_deref()).unwrap();
        };
        put(&Key::Head("a/1/eu-west-1"), Record::Head(Some(head.clone())));
        put(&Key::Entry("a/1/eu-west-1", "i-1"), Record::Entry("i-1".into(), Some(entry(InstanceState::Stopped))));
        put(&Key::Entry("a/1/eu-west-1", "i-2"), Record::Entry("i-2".into(), Some(entry(InstanceState::Running))));
        put(&Key::Entry("a/1/eu-west-1", "i-2"), Record::Entry("i-2".into(), None));
        put(&Key::Acceptance("b/-/-"), Record::Acceptance(Some(Acceptance { missing: 7, at: 1 })));
        let scopes = ledgers.into_scopes();
        let a = &scopes["a/1/eu-west-1"];
        assert_eq!((a.head.as_ref(), a.len()), (Some(&head), 1));
        assert_eq!(a.entry("i-1"), Some(entry(InstanceState::Stopped)));
        assert_eq!(scopes["b/-/-"].acceptance, Some(Acceptance { missing: 7, at: 1 }));
    }

    #[test]
    fn a_record_of_somebody_else_is_refused_by_its_key() {
        let mut ledgers = Ledgers::default();
        assert!(ledgers.restore(b"stray", Some(b"x")).unwrap_err().contains("\"stray\""));
        assert!(ledgers.restore(b"a/1/r", Some(b"{}")).unwrap_err().contains("single-object"));
    }

    #[test]
    fn an_entry_takes_less_than_fifty_bytes() {
        assert!(size_of::<(CompactString, Slot)>() <= 48, "{}", size_of::<(CompactString, Slot)>());
    }
}
