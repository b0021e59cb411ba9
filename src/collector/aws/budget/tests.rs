//! The budget against buckets as AWS has them, in simulated time.

use super::*;

/// AWS's side: so many tokens, refilled at one a second.
struct Server {
    tokens: f64,
    at: Instant,
}

impl Server {
    const CAPACITY: f64 = 5.0;

    fn new(now: Instant) -> Self {
        Self { tokens: Self::CAPACITY, at: now }
    }

    fn takes_a_call(&mut self, now: Instant) -> bool {
        self.tokens = (self.tokens + (now - self.at).as_secs_f64()).min(Self::CAPACITY);
        self.at = now;
        let takes = self.tokens >= 1.0;
        if takes {
            self.tokens -= 1.0;
        }
        takes
    }
}

/// Calls made and calls refused until so many pages have come, and the time that took.
fn sweep(pages: u32, calls_per_second: f64, retry_after: Option<Duration>) -> (u32, u32, Duration) {
    let began = Instant::now();
    let mut now = began;
    let (mut budget, mut server) = (Budget::new(calls_per_second, now), Server::new(now));
    let (mut calls, mut refused) = (0, 0);
    while calls - refused < pages {
        loop {
            let wait = budget.take(now);
            if wait.is_zero() {
                break;
            }
            now += wait;
        }
        now += Duration::from_millis(50);
        calls += 1;
        if server.takes_a_call(now) {
            budget.succeeded();
        } else {
            refused += 1;
            budget.throttled(now, retry_after);
        }
        assert!(calls < 10 * pages, "it does not end");
    }
    (calls, refused, now - began)
}

#[test]
fn scopes_of_twelve_pages_behind_buckets_of_five_complete_with_few_calls_refused() {
    let (mut calls, mut refused) = (0, 0);
    for _ in 0..34 {
        let (made, throttled, time) = sweep(12, 2.0, None);
        assert!(time < Duration::from_secs(20), "{time:?}");
        calls += made;
        refused += throttled;
    }
    assert!(refused * 10 < calls, "{refused} of {calls}");
}

#[test]
fn long_sweeps_settle_near_the_rate_that_aws_has() {
    for calls_per_second in [2.0, 5.0, 20.0] {
        let (calls, refused, time) = sweep(1000, calls_per_second, None);
        assert!(refused * 10 < calls, "{calls_per_second}: {refused} of {calls}");
        assert!(time < Duration::from_secs(2000), "{calls_per_second}: {time:?}");
    }
}

#[test]
fn the_first_two_calls_do_not_wait_and_the_next_ones_do() {
    let now = Instant::now();
    let mut budget = Budget::new(2.0, now);
    assert_eq!(budget.take(now), Duration::ZERO);
    assert_eq!(budget.take(now), Duration::ZERO);
    assert_eq!(budget.take(now), Duration::from_secs(1));
    assert_eq!(budget.take(now + Duration::from_secs(1)), Duration::ZERO);
}

#[test]
fn rest_saves_up_no_more_than_the_burst() {
    let now = Instant::now();
    let mut budget = Budget::new(2.0, now);
    let later = now + Duration::from_secs(3600);
    assert_eq!([0; 3].map(|_| budget.take(later).is_zero()), [true, true, false]);
}

#[test]
fn a_throttle_pauses_for_as_long_as_aws_asks() {
    let now = Instant::now();
    let mut budget = Budget::new(2.0, now);
    budget.throttled(now, Some(Duration::from_secs(7)));
    // The pause, and then a token at half the rate.
    assert_eq!(budget.take(now), Duration::from_secs(7 + 2));
    assert!(!budget.take(now + Duration::from_secs(8)).is_zero());
    assert!(budget.take(now + Duration::from_secs(9)).is_zero());
}

#[test]
fn an_absurd_pause_is_cut() {
    let now = Instant::now();
    let mut budget = Budget::new(2.0, now);
    budget.throttled(now, Some(Duration::from_secs(u64::MAX / 2)));
    assert!(budget.take(now) < LONGEST_PAUSE + Duration::from_secs(3));
}

#[test]
fn calls_refused_together_are_one_sign() {
    let now = Instant::now();
    let (mut once, mut thrice) = (Budget::new(2.0, now), Budget::new(2.0, now));
    once.throttled(now, None);
    for _ in 0..3 {
        thrice.throttled(now, None);
    }
    assert_eq!(once.rate.to_bits(), thrice.rate.to_bits());
}

#[test]
fn the_rate_stays_between_its_bounds() {
    let mut now = Instant::now();
    let mut budget = Budget::new(2.0, now);
    for _ in 0..100 {
        now += Duration::from_secs(10);
        budget.throttled(now, None);
    }
    assert!((budget.rate - 2.0 * LEAST).abs() < 1e-9);
    for _ in 0..10_000 {
        budget.succeeded();
    }
    assert!((budget.rate - 2.0).abs() < 1e-9);
}
