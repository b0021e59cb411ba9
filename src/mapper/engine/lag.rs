//! How far behind a partition is, in records and in seconds. Pure.

/// What the age of the unread is told from. Times are milliseconds since the epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// Of the last record that was mapped.
    last_record: Option<i64>,
    /// When there was last nothing more to read.
    at_end: Option<i64>,
}

/// How far behind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::mapper) struct Lag {
    /// Records that are still to be read.
    pub(in crate::mapper) records: u64,
    /// Age of the last record that was mapped, 0 at the end; `None` where none was.
    pub(in crate::mapper) seconds: Option<f64>,
}

impl Reading {
    /// A record was mapped.
    pub(super) fn mapped(&mut self, timestamp_ms: i64) {
        // A producer may leave it out.
        if timestamp_ms > 0 {
            self.last_record = Some(timestamp_ms);
        }
    }

    /// The lag with so many `records` to be read.
    pub(super) fn lag(&mut self, records: u64, now: i64) -> Lag {
        if records == 0 {
            self.at_end = Some(now);
            return Lag { records, seconds: Some(0.0) };
        }
        // What is unread came after the partition was last read to its end: a topic that rests for a day is not a day
        // behind with its next record.
        let since = self.last_record.max(self.at_end);
        Lag { records, seconds: since.map(|since| (now - since).max(0) as f64 / 1000.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_end_nothing_is_late() {
        let mut reading = Reading::default();
        reading.mapped(1_000);
        assert_eq!(reading.lag(0, 500_000), Lag { records: 0, seconds: Some(0.0) });
    }

    #[test]
    fn behind_it_is_as_late_as_the_last_record_is_old() {
        let mut reading = Reading::default();
        assert_eq!(reading.lag(7, 9_000).seconds, None, "nothing was mapped yet");
        reading.mapped(2_500);
        assert_eq!(reading.lag(7, 9_000), Lag { records: 7, seconds: Some(6.5) });
    }

    #[test]
    fn after_a_rest_it_is_no_later_than_the_end_of_the_rest() {
        let mut reading = Reading::default();
        reading.mapped(1_000);
        reading.lag(0, 100_000);
        assert_eq!(reading.lag(1, 103_000).seconds, Some(3.0));
    }

    #[test]
    fn a_clock_that_runs_ahead_and_a_missing_timestamp_do_no_harm() {
        let mut reading = Reading::default();
        reading.mapped(0);
        assert_eq!(reading.lag(1, 5_000).seconds, None);
        reading.mapped(8_000);
        assert_eq!(reading.lag(1, 5_000).seconds, Some(0.0));
    }
}
