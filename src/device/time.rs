//! Instants as EC2 and those who copy it write them.

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};

/// 1973-03-03T00:00:00Z: an earlier instant is milliseconds taken for seconds, or no instant at all.
const EARLIEST: i64 = 99_964_800;
/// 9999-12-31T23:59:59Z, the last that RFC 3339 can write.
const LATEST: i64 = 253_402_300_799;

/// Reads RFC 3339 and its relatives: `Z` or an offset (`+05:30`, `-0800`) or none (UTC), with or without a fraction, or
/// a date alone. Fractions are kept to the millisecond, floored. `None`: unreadable, or outside 1973-03-03 to 9999-12-31.
pub fn parse(text: &str) -> Option<DateTime<Utc>> {
    let at = DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"))
        .map(|at| at.to_utc())
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").map(|at| at.and_utc()))
        .or_else(|_| NaiveDate::parse_from_str(text, "%Y-%m-%d").map(|day| day.and_time(Default::default()).and_utc()))
        .ok()?;
    let at = DateTime::from_timestamp_millis(at.timestamp_millis())?;
    (EARLIEST..=LATEST).contains(&at.timestamp()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<i64> {
        parse(text).map(|at| at.timestamp())
    }

    #[test]
    fn every_form_that_the_contract_names_is_read() {
        for text in [
            "2025-08-26T14:34:38.000Z",
            "2025-08-26T14:34:38Z",
            "2025-08-26T14:34:38",
            "2025-08-26T14:34:38.999999999Z",
            "2025-08-26T20:04:38+05:30",
            "2025-08-26T06:34:38-0800",
            "2025-08-26T14:34:38+00:00",
        ] {
            assert_eq!(seconds(text), Some(1_756_218_878), "{text}");
        }
        assert_eq!(seconds("2025-08-26"), Some(1_756_166_400));
    }

    #[test]
    fn fractions_are_floored() {
        assert_eq!(parse("2025-08-26T14:34:38.1239Z").map(|at| at.timestamp_millis()), Some(1_756_218_878_123));
    }

    #[test]
    fn what_is_no_instant_of_ours_is_unreadable() {
        for text in
            ["", "yesterday", "1973-03-02T23:59:59Z", "1960-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "1756218878"]
        {
            assert_eq!(seconds(text), None, "{text}");
        }
        assert_eq!(seconds("1973-03-03"), Some(EARLIEST));
        assert_eq!(seconds("9999-12-31T23:59:59Z"), Some(LATEST));
    }
}
