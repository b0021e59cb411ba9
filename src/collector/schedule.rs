//! When a scope is swept. Pure, and a function of the scope and the clock alone, so that every replica and every restart
//! agree: a slot of the schedule is swept once, neither skipped nor repeated.
//!
//! ```text
//!  slot k-1          slot k            slot k+1
//!  |--due------------|----due----------|-due-------------|   interval each, from the scope's own phase
//! ```

use std::time::Duration;

use super::ledger::{Head, Verdict};
use crate::record::partition_for;

/// Part of an interval by which a sweep is moved within its slot, so that scopes do not fall due together.
const JITTER: f64 = 0.1;
/// What cannot succeed before somebody acts is tried at most so often.
const PROBE: Duration = Duration::from_secs(60);

/// The schedule of one scope.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    interval_ms: i64,
    /// Where in an interval the slots of this scope begin.
    phase_ms: i64,
    scope: String,
}

impl Schedule {
    /// A sweep of `scope` every `interval`.
    pub fn new(scope: &str, interval: Duration) -> Self {
        let interval_ms = (interval.as_millis() as i64).max(1);
        Self { interval_ms, phase_ms: spread(scope, interval_ms), scope: scope.to_owned() }
    }

    /// When the next sweep is due, given how the last one went; at or before `now`: at once. Milliseconds since the epoch.
    pub fn due(&self, last: Option<&Head>, needs_somebody: bool, now: i64) -> i64 {
        let Some(last) = last else { return now };
        // Its collector died over it: the slot was not swept.
        if last.verdict == Verdict::Sweeping {
            return now;
        }
        let swept = self.slot(last.began);
        let current = self.slot(now);
        // A clock that was ahead must not stop the sweeps.
        let next = if swept > current { current + 1 } else { swept + 1 };
        let due = self.time_in(next.max(current));
        let probe = PROBE.as_millis() as i64;
        let earliest = if needs_somebody { (last.began + probe).min(now + probe) } else { i64::MIN };
        // Had the collector been away, its slots in between are gone; the current one is not.
        due.max(earliest)
    }

    fn slot(&self, at: i64) -> i64 {
        (at - self.phase_ms).div_euclid(self.interval_ms)
    }

    fn time_in(&self, slot: i64) -> i64 {
        let room = (self.interval_ms as f64 * JITTER) as i64;
        self.phase_ms + slot * self.interval_ms + spread(&format!("{}#{slot}", self.scope), room.max(1))
    }
}

/// A number below `limit` that is the same for the same text.
fn spread(text: &str, limit: i64) -> i64 {
    let limit = i32::try_from(limit).unwrap_or(i32::MAX);
    i64::from(partition_for(text.as_bytes(), limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(300);
    const NOW: i64 = 1_767_323_045_000;

    fn schedule() -> Schedule {
        Schedule::new("prod/123456789012/eu-west-1", INTERVAL)
    }

    fn ended(began: i64) -> Head {
        Head { verdict: Verdict::Complete, ended: Some(began + 1000), ..Head::begun("s", began) }
    }

    #[test]
    fn the_first_sweep_is_due_at_once() {
        assert_eq!(schedule().due(None, false, NOW), NOW);
    }

    #[test]
    fn each_slot_is_swept_once_whoever_asks_and_whenever() {
        let schedule = schedule();
        let first = schedule.due(Some(&ended(NOW)), false, NOW);
        let mut last = ended(first);
        for _ in 0..100 {
            let due = schedule.due(Some(&last), false, last.began + 1);
            assert_eq!(schedule.slot(due), schedule.slot(last.began) + 1);
            let asked_later = schedule.due(Some(&last), false, due - 1);
            assert_eq!(asked_later, due, "a restart does not move it");
            last = ended(due);
        }
        let cadence = (last.began - first) as f64 / 100.0;
        assert!((cadence - 300_000.0).abs() < 600.0, "{cadence} ms between sweeps: it drifts");
    }

    #[test]
    fn after_an_absence_one_sweep_is_due_at_once_and_then_the_cadence_goes_on() {
        let schedule = schedule();
        let now = NOW + 20 * 300_000;
        let now = schedule.time_in(schedule.slot(now)) + 1;
        let due = schedule.due(Some(&ended(NOW)), false, now);
        assert!(due <= now, "{due} {now}");
        assert!(schedule.due(Some(&ended(now)), false, now) > now);
    }

    #[test]
    fn a_sweep_that_died_is_done_again_in_its_slot() {
        assert_eq!(schedule().due(Some(&Head::begun("s", NOW - 10)), false, NOW), NOW);
    }

    #[test]
    fn what_needs_somebody_is_probed_at_most_once_a_minute() {
        let schedule = Schedule::new("s/1/r", Duration::from_secs(10));
        let last = ended(NOW);
        assert!(schedule.due(Some(&last), false, NOW) < NOW + 22_000);
        assert!(schedule.due(Some(&last), true, NOW) >= NOW + 60_000);
    }

    #[test]
    fn a_clock_that_was_ahead_does_not_stop_the_sweeps() {
        let due = schedule().due(Some(&ended(NOW + 86_400_000)), false, NOW);
        assert!(due <= NOW + 2 * 300_000);
    }

    #[test]
    fn scopes_do_not_fall_due_together() {
        let due = |region: usize| {
            let schedule = Schedule::new(&format!("prod/1/r-{region}"), INTERVAL);
            schedule.due(Some(&ended(NOW)), false, NOW)
        };
        let mut times: Vec<_> = (0..34).map(due).collect();
        times.sort_unstable();
        assert!(times[33] - times[0] > 150_000, "they are spread over the interval: {times:?}");
    }
}
