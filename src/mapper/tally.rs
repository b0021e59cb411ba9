//! What the records of a batch came to. It is counted when the batch is committed: what an aborted transaction held is
//! read again, and would count twice.

use std::collections::BTreeMap;

use super::decide::{Change, Decision};
use crate::status::latest;

/// What a raw record came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // As in [`Decision`].
pub enum Outcome {
    Created,
    Updated,
    Removed,
    Remapped,
    Unchanged,
    Stale,
    Rejected,
}

impl Outcome {
    /// Every outcome, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Created, Self::Updated, Self::Removed, Self::Remapped, Self::Unchanged, Self::Stale, Self::Rejected];

    /// As in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Removed => "removed",
            Self::Remapped => "remapped",
            Self::Unchanged => "unchanged",
            Self::Stale => "stale",
            Self::Rejected => "rejected",
        }
    }
}

/// What one record came to. Small, since there is one for each record.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    outcome: Outcome,
    /// Why it was rejected.
    rejection: Option<&'static str>,
    /// When it was observed, if an event follows from it.
    observed_at: Option<i64>,
    /// Paths of the members that could not be read.
    field_errors: Vec<String>,
    /// What an operator is shown of the event.
    change: Option<Box<latest::Change>>,
}

impl Told {
    /// Of the decision on a record with these `field_errors`.
    pub fn of(decision: &Decision, field_errors: Vec<String>) -> Self {
        let told = |outcome| Self { outcome, rejection: None, observed_at: None, field_errors, change: None };
        match decision {
            Decision::Unchanged | Decision::Same(_) => told(Outcome::Unchanged),
            Decision::Stale => told(Outcome::Stale),
            Decision::Reject(rejection) => Self { rejection: Some(rejection.kind()), ..told(Outcome::Rejected) },
            Decision::Emit(emission) => {
                let outcome = match emission.change {
                    Change::Created => Outcome::Created,
                    Change::Updated => Outcome::Updated,
                    Change::Removed(_) => Outcome::Removed,
                    Change::Remapped => Outcome::Remapped,
                };
                Self { observed_at: Some(emission.state.observed_at), ..told(outcome) }
            }
        }
    }

    /// With what an operator is shown of the event.
    #[must_use]
    pub fn shown_as(self, change: Option<Box<latest::Change>>) -> Self {
        Self { change, ..self }
    }
}

/// Counts of one batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    outcomes: [usize; Outcome::ALL.len()],
    /// Rejected records, by kind.
    pub rejections: BTreeMap<&'static str, u64>,
    /// Members that could not be read, by path.
    pub field_errors: BTreeMap<String, u64>,
    /// When the records behind the events were observed, milliseconds since the epoch, and how many of them at once: a
    /// sweep observes many.
    pub observed_at: Vec<(i64, u64)>,
    /// Some of the events.
    pub changes: Vec<latest::Change>,
}

impl Tally {
    /// Counts a record.
    pub fn add(&mut self, told: Told) {
        self.outcomes[told.outcome as usize] += 1;
        if let Some(at) = told.observed_at {
            match self.observed_at.last_mut() {
                Some((last, count)) if *last == at => *count += 1,
                _ => self.observed_at.push((at, 1)),
            }
        }
        self.changes.extend(told.change.map(|change| *change));
        if let Some(kind) = told.rejection {
            *self.rejections.entry(kind).or_default() += 1;
        }
        for field in told.field_errors {
            *self.field_errors.entry(field).or_default() += 1;
        }
    }

    /// The outcomes that there were, and how often.
    pub fn outcomes(&self) -> impl Iterator<Item = (Outcome, usize)> {
        Outcome::ALL.into_iter().zip(self.outcomes).filter(|(_, count)| *count > 0)
    }

    /// All records.
    pub fn records(&self) -> usize {
        self.outcomes.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::decide::Rejection;
    use super::*;

    #[test]
    fn the_outcomes_are_in_the_order_of_their_numbers() {
        assert!(Outcome::ALL.into_iter().enumerate().all(|(index, outcome)| outcome as usize == index));
    }

    #[test]
    fn a_batch_is_the_sum_of_its_records() {
        let mut batch = Tally::default();
        let rejected = || Told::of(&Decision::Reject(Rejection::NoKey), vec!["LaunchTime".to_owned()]);
        batch.add(Told::of(&Decision::Unchanged, Vec::new()));
        batch.add(rejected());
        batch.add(rejected());
        assert_eq!(batch.records(), 3);
        assert_eq!(Vec::from_iter(batch.outcomes()), [(Outcome::Unchanged, 1), (Outcome::Rejected, 2)]);
        assert_eq!(batch.rejections, [("no-key", 2)].into());
        assert_eq!(batch.field_errors, [("LaunchTime".to_owned(), 2)].into());
        assert!(batch.observed_at.is_empty(), "no event, no delay");
    }

    #[test]
    fn what_was_observed_at_once_is_noted_once() {
        let mut batch = Tally::default();
        for at in [5, 5, 7, 5] {
            batch.add(Told { observed_at: Some(at), ..Told::of(&Decision::Unchanged, Vec::new()) });
        }
        assert_eq!(batch.observed_at, [(5, 2), (7, 1), (5, 1)]);
    }
}
