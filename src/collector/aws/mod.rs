//! Source `aws`: the EC2 API, an account and a region a scope.
//!
//! ```text
//!  sessions ──client──▶ calls ──answers──▶ pages, second look ──instances──▶ sweep
//! ```
//!
//! The SDK signs, routes and names errors. Trying again is decided here, where the deadline of the sweep and the budget
//! of the account are known ([`call`]), and a response is decoded by us too ([`xml`](super::xml)): the SDK knows the members of its
//! release only.

mod answer;
mod budget;
pub mod call;
mod fault;
mod gate;
mod http;
mod images;
mod keys;
mod organization;
mod pages;
pub(crate) mod probe;
mod second_look;
pub mod session;
#[cfg(test)]
mod stand_in;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::source::{BoxFuture, Discovery, Pages, Scope, SecondLook, Source};
use crate::config::AwsSource;
use call::{Access, CallObserver, Calls, RealTime, Time};
use fault::classify;
use images::Images;
use pages::{Ec2Pages, Listing};
use session::Sessions;

/// The EC2 API.
pub struct Ec2 {
    sessions: Arc<Sessions>,
    api: Api,
}

/// What is asked of EC2, and how.
struct Api {
    calls: Calls,
    listing: Listing,
    images: Option<Images>,
}

impl Ec2 {
    /// The source called `name`. A call that fails for a while is given up after `give_up_after`.
    pub fn new(name: &str, aws: AwsSource, give_up_after: Duration) -> Self {
        let sessions = Arc::new(Sessions::new(name, aws.clone()));
        let api = Api::new(sessions.clone(), Arc::new(RealTime), &aws, give_up_after);
        Self { sessions, api }
    }

    /// Tells of each call.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn CallObserver>) -> Self {
        self.api.calls.observed_by(observer);
        self
    }
}

impl Api {
    fn new(access: Arc<dyn Access>, time: Arc<dyn Time>, aws: &AwsSource, give_up_after: Duration) -> Self {
        Self {
            calls: Calls::new(access, time, aws.calls_per_second, give_up_after),
            listing: Listing::new(aws),
            images: aws.images.then(Images::default),
        }
    }
}

impl Source for Ec2 {
    fn scopes(&self) -> BoxFuture<'_, Discovery> {
        Box::pin(self.sessions.discover())
    }

    fn pages(&self, scope: &Scope) -> Box<dyn Pages + '_> {
        Box::new(Ec2Pages::new(&self.api, scope))
    }

    fn second_look(&self) -> Option<&dyn SecondLook> {
        Some(&self.api)
    }
}

/// When EC2 answered, by its own clock; never later than now.
fn observed_at(date: Option<&str>, now: DateTime<Utc>) -> DateTime<Utc> {
    let answered = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok());
    answered.map_or(now, |answered| answered.to_utc().min(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_ec2s_but_never_later_than_ours() {
        let now: DateTime<Utc> = "2026-01-02T03:04:05Z".parse().unwrap();
        let earlier: DateTime<Utc> = "2026-01-02T03:04:03Z".parse().unwrap();
        assert_eq!(observed_at(Some("Fri, 02 Jan 2026 03:04:03 GMT"), now), earlier);
        assert_eq!(observed_at(Some("Fri, 02 Jan 2026 03:05:00 GMT"), now), now);
        assert_eq!(observed_at(Some("today"), now), now);
        assert_eq!(observed_at(None, now), now);
    }
}
