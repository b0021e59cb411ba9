//! Rejected records: kept untouched with the reason, and a breaker, since a bad deploy must not drain a whole topic here.

use std::collections::VecDeque;

use super::decide::{Rejection, rfc3339_ms};
use super::port::{Destination, Output};
use crate::record::RawRecord;

/// The longest `error` header, in bytes: what the dead-letter topic must hold beyond a raw record is bounded by it.
const MAX_ERROR_BYTES: usize = 4096;

/// Header: the topic that the rejected record lies in.
pub const RAW_TOPIC: &str = "raw-topic";
/// Header: Kafka's time of the rejected record, RFC 3339.
pub const RAW_TIMESTAMP: &str = "raw-timestamp";
/// Header: when it was rejected, RFC 3339.
pub const FAILED_AT: &str = "failed-at";
/// The headers that a dead letter has beside those of its record.
pub const OWN_HEADERS: [&str; 7] =
    ["error-kind", "error", RAW_TOPIC, "raw-partition", "raw-offset", RAW_TIMESTAMP, FAILED_AT];

/// The record as it came, with what is wrong with it and where it lay.
pub fn dead_letter(record: &RawRecord<'_>, rejection: &Rejection, raw_topic: &str, now_ms: i64) -> Output {
    let mut error = rejection.to_string();
    error.truncate(error.floor_char_boundary(MAX_ERROR_BYTES));
    let told = [
        rejection.kind().to_owned(),
        error,
        raw_topic.to_owned(),
        record.partition.to_string(),
        record.offset.to_string(),
        rfc3339_ms(record.timestamp_ms),
        rfc3339_ms(now_ms),
    ];
    let own = OWN_HEADERS.into_iter().zip(told);
    let original = record.headers.iter().map(|(name, value)| ((*name).to_owned().into(), value.map(<[u8]>::to_vec)));
    Output {
        destination: Destination::DeadLetters,
        partition: record.partition,
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers: original.chain(own.map(|(name, value)| (name.into(), Some(value.into_bytes())))).collect(),
    }
}

/// Limits on how much may be rejected before somebody should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Rejected in a row, of one partition. Zero switches the breaker off.
    pub streak: usize,
}

const REMEDY: &str = "look at the error headers of the dead-letter topic, mend what writes the raw topic or roll the \
                      release back, and restart; mapper.max_reject_streak: 0 lets everything through";
/// How many of a partition's last records the share is taken of.
const WINDOW: usize = 1000;

/// Watches the rejections of one partition.
#[derive(Debug, Default)]
pub struct Breaker {
    streak: usize,
    window: VecDeque<bool>,
    rejected: usize,
}

impl Breaker {
    /// Notes whether a record was rejected; the reason to stop, where there is one.
    pub fn note(&mut self, rejected: bool, limits: BreakerLimits) -> Option<String> {
        self.streak = if rejected { self.streak + 1 } else { 0 };
        self.window.push_back(rejected);
        self.rejected += usize::from(rejected);
        if self.window.len() > WINDOW {
            self.rejected -= usize::from(self.window.pop_front() == Some(true));
        }
        if limits.streak == 0 {
            return None;
        }
        if self.streak >= limits.streak {
            return Some(format!("{} records in a row were rejected; {REMEDY}", self.streak));
        }
        let most = self.window.len() == WINDOW && self.rejected * 2 > WINDOW;
        most.then(|| format!("{} of the last {WINDOW} records were rejected; {REMEDY}", self.rejected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BreakerLimits = BreakerLimits { streak: 3 };

    #[test]
    fn a_streak_trips_it_and_a_good_record_ends_the_streak() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.note(true, LIMITS), None);
        assert_eq!(breaker.note(true, LIMITS), None);
        assert_eq!(breaker.note(false, LIMITS), None);
        assert_eq!(breaker.note(true, LIMITS), None);
        assert_eq!(breaker.note(true, LIMITS), None);
        assert!(breaker.note(true, LIMITS).is_some());
    }

    #[test]
    fn more_than_half_of_a_full_window_trips_it() {
        let mut breaker = Breaker::default();
        let tripped =
            (0..WINDOW).map(|n| breaker.note(n % 3 != 0, BreakerLimits { streak: 10 })).find_map(|reason| reason);
        assert!(tripped.unwrap().starts_with("666 of the last 1000 records were rejected"));
    }

    #[test]
    fn zero_switches_it_off() {
        let mut breaker = Breaker::default();
        assert!((0..5000).all(|_| breaker.note(true, BreakerLimits { streak: 0 }).is_none()));
    }
}
