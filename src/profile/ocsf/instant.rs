//! Instants as OCSF has them: milliseconds since the epoch, and the same as text.

use chrono::{DateTime, SecondsFormat, Utc};

/// Milliseconds since the epoch that cannot be seconds, and that RFC 3339 can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instant(i64);

impl Instant {
    /// 1973-03-03T09:46:40Z. As many seconds are the year 5138: what is below is seconds.
    const EARLIEST: i64 = 100_000_000_000;
    /// The last that RFC 3339 can write.
    const LATEST: i64 = 253_402_300_799_999;

    /// `None` outside the bounds: no instant of an instance.
    pub(super) fn of(at: &DateTime<Utc>) -> Option<Self> {
        let ms = at.timestamp_millis();
        (Self::EARLIEST..=Self::LATEST).contains(&ms).then_some(Self(ms))
    }

    /// The nearest within the bounds, for what must be there.
    pub(super) fn clamped(ms: i64) -> Self {
        Self(ms.clamp(Self::EARLIEST, Self::LATEST))
    }

    pub(super) fn ms(self) -> i64 {
        self.0
    }

    /// RFC 3339, UTC, three decimals.
    pub(super) fn dt(self) -> String {
        DateTime::from_timestamp_millis(self.0).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
    }
}
