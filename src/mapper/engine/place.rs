//! Where a partition goes on, once its devices are there. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Found, LostOffsets};

/// What the operator can do about a lost offset.
const REMEDIES: &str = "Nothing was skipped. Remedies: restore the group's name (mapper.group_id) or its offsets; or run \
                        `rollcall map --resume-from-state` once, which goes on behind the last record that the state \
                        knows, at least from the first that is left, and then `rollcall sweeps reconcile`, for removals \
                        that were missed; or start afresh with new topics for state and events";

/// Where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Where the group stands; `None` is the beginning.
    Kept(Option<i64>),
    /// Somewhere else.
    Moved {
        offset: i64,
        reason: String,
        /// Whether the group is to be told at once.
        is_new: bool,
    },
}

/// Where to go on; or why that is not known, and what to do.
pub(super) fn place(found: &Found, lost_offsets: LostOffsets) -> Result<Place, String> {
    let Found { committed, log, last_written } = found;
    let is_kept = |offset: i64| (log.start..=log.end).contains(&offset);
    let committed = committed.map(|committed| committed.offset);
    let (wanted, reason) = match (committed, last_written) {
        (None, None) => return Ok(Place::Kept(None)),
        (Some(offset), _) if is_kept(offset) => return Ok(Place::Kept(committed)),
        (Some(offset), _) if offset + 1 == log.start => {
            // What lies behind the last record is the marker of its transaction, which is never read.
            let reason = format!("the log begins at {}, one after the committed {offset}", log.start);
            return Ok(Place::Moved { offset: log.start, reason, is_new: false });
        }
        (Some(offset), _) if offset < log.start => {
            (offset, format!("the records from the committed offset {offset} to {} were deleted unread", log.start))
        }
        (Some(offset), _) => {
            (offset, format!("it ends at {}, before the committed offset {offset}: it was created anew", log.end))
        }
        (None, Some(last)) => (
            last + 1,
            "the group has no committed offset, but the state topic knows devices: the offsets were deleted or \
             expired, or the group was renamed"
                .to_owned(),
        ),
    };
    match lost_offsets {
        LostOffsets::Stop => Err(format!("{reason}. {REMEDIES}")),
        LostOffsets::FromState => {
            let offset = if is_kept(wanted) { wanted } else { log.start };
            Ok(Place::Moved { offset, reason, is_new: true })
        }
    }
}

/// Why tombstones between the committed offset and the end may have been compacted away unread; `None` where they
/// cannot.
pub(super) fn missed_tombstones(found: &Found, kept: Option<Duration>, now: DateTime<Utc>) -> Option<String> {
    let (committed, kept) = (found.committed?, kept?);
    let away = (now - committed.at?).to_std().ok()?;
    // What is last is not compacted, and behind the last record lies a marker.
    let has_news = found.log.end - committed.offset > 1;
    (away > kept && has_news).then(|| {
        format!(
            "the last commit is {away:.0?} old, raw keeps tombstones for {kept:?} (delete.retention.ms): devices that \
             were removed meanwhile may stay for ever. `rollcall sweeps reconcile` finds and removes them"
        )
    })
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::mapper::port::Committed;

    fn found(committed: Option<i64>, log: std::ops::Range<i64>, last_written: Option<i64>) -> Found {
        Found { committed: committed.map(|offset| Committed { offset, at: None }), log, last_written }
    }

    fn moved_to(found: &Found) -> i64 {
        match place(found, LostOffsets::FromState) {
            Ok(Place::Moved { offset, is_new: true, .. }) => offset,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_first_start_begins_at_the_beginning_and_a_later_one_where_the_group_stands() {
        for lost_offsets in [LostOffsets::Stop, LostOffsets::FromState] {
            assert_eq!(place(&found(None, 5..9, None), lost_offsets), Ok(Place::Kept(None)));
            for offset in [5, 7, 9] {
                let kept = Ok(Place::Kept(Some(offset)));
                assert_eq!(place(&found(Some(offset), 5..9, Some(6)), lost_offsets), kept);
            }
        }
    }

    #[test]
    fn a_lost_offset_stops_and_names_what_to_do() {
        for (lost, says) in [
            (found(None, 0..9, Some(4)), "no committed offset"),
            (found(Some(2), 5..9, Some(1)), "from the committed offset 2 to 5 were deleted"),
            (found(Some(20), 0..9, Some(19)), "created anew"),
        ] {
            let reason = place(&lost, LostOffsets::Stop).unwrap_err();
            for part in [says, "--resume-from-state", "sweeps reconcile", "mapper.group_id"] {
                assert!(reason.contains(part), "{part:?} not in {reason}");
            }
        }
    }

    #[test]
    fn from_the_state_it_goes_on_behind_the_last_record_known_and_within_the_log() {
        assert_eq!(moved_to(&found(None, 0..9, Some(4))), 5);
        assert_eq!(moved_to(&found(None, 7..9, Some(4))), 7);
        assert_eq!(moved_to(&found(None, 0..3, Some(4))), 0);
        assert_eq!(moved_to(&found(Some(2), 5..9, Some(1))), 5);
        assert_eq!(moved_to(&found(Some(20), 0..9, Some(19))), 0);
    }

    #[test]
    fn a_marker_that_was_deleted_behind_the_last_record_is_no_loss() {
        let idle = place(&found(Some(8), 9..9, Some(7)), LostOffsets::Stop);
        assert!(matches!(idle, Ok(Place::Moved { offset: 9, is_new: false, .. })), "{idle:?}");
    }

    #[test]
    fn tombstones_are_missed_after_an_outage_that_is_longer_than_they_are_kept_where_something_came_meanwhile() {
        let now = DateTime::from_timestamp(1_780_000_000, 0).unwrap();
        let (hour, away) = (Duration::from_secs(3600), |hours| Some(now - TimeDelta::hours(hours)));
        let missed = |at, end, kept| {
            let found = Found { committed: Some(Committed { offset: 5, at }), log: 0..end, last_written: None };
            missed_tombstones(&found, kept, now).is_some()
        };
        assert!(missed(away(2), 9, Some(hour)));
        assert!(!missed(away(1), 9, Some(hour)), "they are still there");
        assert!(!missed(away(2), 6, Some(hour)), "nothing came but a marker");
        assert!(!missed(away(2), 9, None), "raw is not compacted");
        assert!(!missed(None, 9, Some(hour)), "an older release or a tool committed");
    }
}
