//! How often a region of an account is called: a token bucket whose rate learns from what AWS refuses.
//!
//! AWS keeps a bucket per account, region and API, which others in the account draw on too. So the rate is not known:
//! it begins at half of what is allowed here, is cut by half by every throttle and rises a little with every success.
//! Time is passed in; nothing waits here.

use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// Calls that may be made at once after a rest.
const BURST: f64 = 2.0;
/// Part of the present rate that a success adds: some 35 of them make up for a throttle.
const RISE: f64 = 0.02;
/// The rate is not cut below this part of the allowed one.
const LEAST: f64 = 1.0 / 32.0;
/// Longest pause that AWS is granted.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The budget of one account in one region.
#[derive(Debug)]
pub(super) struct Budget {
    /// Calls a second, at most.
    allowed: f64,
    /// Calls a second, now.
    rate: f64,
    tokens: f64,
    /// When `tokens` was right; later than now during a pause.
    at: Instant,
}

impl Budget {
    pub(super) fn new(calls_per_second: f64, now: Instant) -> Self {
        Self { allowed: calls_per_second, rate: calls_per_second / 2.0, tokens: BURST, at: now }
    }

    /// Takes a token, or says how long to wait before asking again.
    pub(super) fn take(&mut self, now: Instant) -> Duration {
        if now > self.at {
            self.tokens = (self.tokens + (now - self.at).as_secs_f64() * self.rate).min(BURST);
            self.at = now;
        }
        let pause = self.at.saturating_duration_since(now);
        // What a float lacks of a whole token is not worth another wait.
        if pause.is_zero() && self.tokens >= 1.0 - 1e-6 {
            self.tokens -= 1.0;
            return Duration::ZERO;
        }
        pause + Duration::from_secs_f64((1.0 - self.tokens).max(0.0) / self.rate)
    }

    /// AWS refused a call: half the rate, after the pause that it asks for, or else one second.
    pub(super) fn throttled(&mut self, now: Instant, retry_after: Option<Duration>) {
        // Calls that were under way together are refused together, and are one sign.
        if now >= self.at {
            self.rate = (self.rate / 2.0).max(self.allowed * LEAST);
        }
        let pause = retry_after.unwrap_or(Duration::from_secs(1)).min(LONGEST_PAUSE);
        self.at = self.at.max(now + pause);
        self.tokens = 0.0;
    }

    /// AWS took a call.
    pub(super) fn succeeded(&mut self) {
        self.rate = (self.rate * (1.0 + RISE)).min(self.allowed);
    }
}
