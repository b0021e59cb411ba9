//! Where a replay begins and ends, as a person says it.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

/// A place in every partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The first record that is there.
    Earliest,
    /// Behind the last record that is committed when the replay is begun.
    Now,
    /// The first record that was written then or later, milliseconds since the epoch.
    Time(i64),
    /// So long before the replay is begun.
    Ago(Duration),
    /// This offset.
    Offset(i64),
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "earliest" => return Ok(Self::Earliest),
            "now" => return Ok(Self::Now),
            _ => {}
        }
        if let Some(offset) = text.parse::<i64>().ok().filter(|offset| *offset >= 0) {
            return Ok(Self::Offset(offset));
        }
        if let Ok(at) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::Time(at.timestamp_millis()));
        }
        humantime::parse_duration(text).map(Self::Ago).map_err(|_| {
            format!(
                "{text:?} is no place in a topic; write earliest, now, a time as in 2026-01-02T03:04:05Z, how long ago \
                 as in 6h, or an offset as in 1200"
            )
        })
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Earliest => f.write_str("earliest"),
            Self::Now => f.write_str("now"),
            Self::Time(at) => match DateTime::from_timestamp_millis(*at) {
                Some(at) => f.write_str(&at.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
                None => write!(f, "{at} ms"),
            },
            Self::Ago(ago) => humantime::format_duration(*ago).fmt(f),
            Self::Offset(offset) => offset.fmt(f),
        }
    }
}

impl Position {
    /// The time that is meant, milliseconds since the epoch, where one is.
    pub fn time(self, now: DateTime<Utc>) -> Option<i64> {
        match self {
            Self::Time(at) => Some(at),
            Self::Ago(ago) => Some(now.timestamp_millis().saturating_sub(ago.as_millis() as i64)),
            Self::Earliest | Self::Now | Self::Offset(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_word_a_time_a_duration_or_an_offset() {
        let at = |text: &str| text.parse::<Position>();
        assert_eq!(at("earliest"), Ok(Position::Earliest));
        assert_eq!(at("now"), Ok(Position::Now));
        assert_eq!(at("1200"), Ok(Position::Offset(1200)));
        assert_eq!(at("2026-01-02T03:04:05Z"), Ok(Position::Time(1_767_323_045_000)));
        assert_eq!(at("6h"), Ok(Position::Ago(Duration::from_secs(6 * 3600))));
        for wrong in ["", "yesterday", "-1", "2026-01-02"] {
            assert!(at(wrong).unwrap_err().contains("write earliest, now"), "{wrong}");
        }
    }

    #[test]
    fn a_place_is_told_as_it_was_said() {
        for said in ["earliest", "now", "1200", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.600Z", "6h 30m"] {
            assert_eq!(said.parse::<Position>().unwrap().to_string(), said);
        }
    }

    #[test]
    fn how_long_ago_counts_from_now() {
        let now = DateTime::from_timestamp_millis(10_000).unwrap();
        assert_eq!(Position::Ago(Duration::from_secs(4)).time(now), Some(6_000));
        assert_eq!(Position::Earliest.time(now), None);
    }
}
