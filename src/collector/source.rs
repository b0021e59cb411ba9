//! Where instances come from: the one trait that the EC2 API, a file and the simulated fleet share.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use chrono::{DateTime, Utc};
use serde_json::Value;

/// A future on the heap, so that sources of several kinds can be swept alike.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The members of a reservation that go into each of its instances which has none of that name.
pub const RESERVATION_MEMBERS: [&str; 3] = ["OwnerId", "RequesterId", "ReservationId"];

/// What one sweep covers: a region of an account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Name of the source.
    pub source: String,
    /// Account ID, twelve digits; `None` where only the instances tell.
    pub account: Option<String>,
    /// As in `eu-west-1`; `None` where only the instances tell.
    pub region: Option<String>,
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |part: &Option<String>| part.clone().unwrap_or_else(|| "-".to_owned());
        write!(formatter, "{}/{}/{}", self.source, of(&self.account), of(&self.region))
    }
}

/// Some instances of a scope, as they were at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// When the source answered.
    pub observed_at: DateTime<Utc>,
    /// Instances as the AWS CLI prints them, with the reservation's members merged in. Anything that is not one is
    /// published too, for the mapper to reject: nothing is lost here.
    pub instances: Vec<Value>,
}

/// Why a sweep is incomplete, by what follows from it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SweepError {
    /// Somebody must change credentials, permissions or configuration first.
    #[error("{0}")]
    Config(String),
    /// The source may answer the next time.
    #[error("{0}")]
    Unavailable(String),
}

/// Something that lists instances.
pub trait Source: Send + Sync {
    /// The scopes that it covers.
    fn scopes(&self) -> BoxFuture<'_, Result<Vec<Scope>, SweepError>>;

    /// Begins to list a scope. Nothing is asked for before the first [`Pages::next`].
    fn pages(&self, scope: &Scope) -> Box<dyn Pages + '_>;

    /// Whether a second sweep can bring anything.
    fn can_repeat(&self) -> bool {
        true
    }
}

/// The pages of one sweep.
pub trait Pages: Send {
    /// The next page; `None` once the source has said that there are no more, and only then.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Page>, SweepError>>;
}
