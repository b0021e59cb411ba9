//! How far the restores are that are under way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Between two lines in the log.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// From when the first partition begins until none is left, its restores are one piece of work.
#[derive(Debug, Default)]
pub(super) struct Restores {
    began: Option<Instant>,
    looked: Option<Instant>,
    told: Option<Instant>,
    /// How much each partition was when it began, those included that are done.
    totals: BTreeMap<i32, u64>,
}

/// Records are counted by offsets: what compaction took out is among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::mapper) struct Progress {
    /// Those that are being restored.
    pub partitions: Vec<i32>,
    /// Records read so far.
    pub read: u64,
    /// Records to be read in all.
    pub total: u64,
    /// How long it will take at this pace.
    pub left: Duration,
}

impl Progress {
    pub(in crate::mapper) fn percent(&self) -> u64 {
        self.read * 100 / self.total.max(1)
    }

    pub(in crate::mapper) fn remaining(&self) -> u64 {
        self.total - self.read
    }
}

impl Restores {
    /// Whether it is time to look at what remains.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.looked.is_none_or(|looked| now - looked >= LOOK_EVERY)
    }

    /// Takes in what remains of each partition; how far they are, where there are any.
    pub(super) fn look(&mut self, remaining: &BTreeMap<i32, u64>, now: Instant) -> Option<Progress> {
        if remaining.is_empty() {
            *self = Self::default();
            return None;
        }
        let began = *self.began.get_or_insert(now);
        self.told.get_or_insert(now);
        self.looked = Some(now);
        for (partition, remaining) in remaining {
            let total = self.totals.entry(*partition).or_default();
            // One that was begun anew may be more.
            *total = (*total).max(*remaining);
        }
        let total = self.totals.values().sum();
        let left: u64 = remaining.values().sum();
        let read = total - left;
        let pace = read as f64 / (now - began).as_secs_f64();
        let seconds = if pace > 0.0 { left as f64 / pace } else { 0.0 };
        let left = Duration::from_secs_f64(seconds.min(1e9));
        Some(Progress { partitions: remaining.keys().copied().collect(), read, total, left })
    }

    /// This partition will not be restored to its end here.
    pub(super) fn forget(&mut self, partition: i32) {
        self.totals.remove(&partition);
    }

    /// Whether it is time for a line in the log.
    pub(super) fn is_to_be_told(&mut self, now: Instant) -> bool {
        let is_due = self.told.is_some_and(|told| now - told >= TELL_EVERY);
        if is_due {
            self.told = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remaining<const N: usize>(partitions: [(i32, u64); N]) -> BTreeMap<i32, u64> {
        partitions.into()
    }

    #[test]
    fn what_is_done_counts_until_nothing_is_left() {
        let (mut restores, began) = (Restores::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        let look = |restores: &mut Restores, seconds, left| restores.look(&left, at(seconds)).unwrap();
        let first = look(&mut restores, 0, remaining([(1, 600), (2, 400)]));
        assert_eq!((first.read, first.total, first.percent()), (0, 1000, 0));
        let second = look(&mut restores, 2, remaining([(1, 300), (2, 200)]));
        assert_eq!((second.read, second.percent(), second.remaining()), (500, 50, 500));
        assert_eq!(second.left, Duration::from_secs(2));
        let third = look(&mut restores, 3, remaining([(1, 100)]));
        assert_eq!((third.partitions, third.read, third.total), (vec![1], 900, 1000));
        assert_eq!(restores.look(&remaining([]), at(4)), None);
        let next = look(&mut restores, 5, remaining([(3, 10)]));
        assert_eq!((next.read, next.total), (0, 10));
    }

    #[test]
    fn what_is_given_up_counts_no_longer() {
        let (mut restores, began) = (Restores::default(), Instant::now());
        restores.look(&remaining([(1, 600), (2, 400)]), began);
        restores.forget(1);
        let progress = restores.look(&remaining([(2, 300)]), began + Duration::from_secs(1)).unwrap();
        assert_eq!((progress.read, progress.total), (100, 400));
    }

    #[test]
    fn the_log_is_told_every_few_seconds_and_not_of_what_is_done_before() {
        let (mut restores, began) = (Restores::default(), Instant::now());
        restores.look(&remaining([(1, 1)]), began);
        assert!(!restores.is_to_be_told(began + Duration::from_secs(4)));
        assert!(restores.is_to_be_told(began + Duration::from_secs(5)));
        assert!(!restores.is_to_be_told(began + Duration::from_secs(9)));
        assert!(restores.is_to_be_told(began + Duration::from_secs(10)));
        restores.look(&remaining([]), began + Duration::from_secs(11));
        assert!(!restores.is_to_be_told(began + Duration::from_secs(20)));
    }
}
