//! Where instances come from: the one trait that the EC2 API, a file and the simulated fleet share.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::fault::Fault;
use crate::record::canonical::Instance;

/// A future on the heap, so that sources of several kinds can be swept alike.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The members of a reservation that go into each of its instances which has none of that name.
pub const RESERVATION_MEMBERS: [&str; 3] = ["OwnerId", "RequesterId", "ReservationId"];

/// What one sweep covers: a region of an account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

impl Scope {
    /// The scope that is displayed like this.
    pub fn of_key(key: &str) -> Self {
        let mut parts = key.splitn(3, '/').map(str::to_owned);
        let source = parts.next().unwrap_or_default();
        let mut part = || parts.next().filter(|part| part != "-");
        Self { source, account: part(), region: part() }
    }

    /// Source, account and region as the labels of a metric; empty where only the instances tell.
    pub fn labels(&self) -> [&str; 3] {
        [&self.source, self.account.as_deref().unwrap_or_default(), self.region.as_deref().unwrap_or_default()]
    }
}

/// The scopes of a source, as far as they could be found out. "No answer" is not "an empty answer".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discovery {
    /// Those that are to be swept.
    pub scopes: Vec<Scope>,
    /// What could not be asked; scopes of these accounts may exist all the same.
    pub unknown: Vec<Unknown>,
}

/// A part of a source whose scopes could not be found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The account whose regions are not known; `None`: the accounts themselves are not.
    pub account: Option<String>,
    /// Why.
    pub fault: Fault,
}

/// Some instances of a scope, as they were at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// When the source answered.
    pub observed_at: DateTime<Utc>,
    /// Instances as the AWS CLI prints them, with the reservation's members merged in. Anything that is not one is among
    /// them too, without an ID: nothing is lost here.
    pub instances: Vec<Instance>,
}

/// The tags of instances by their ID, as in the member `Tags`.
pub type TagsById = BTreeMap<String, Vec<Map<String, Value>>>;

/// Something that lists instances.
pub trait Source: Send + Sync {
    /// The scopes that it covers now. What could not be found out is in the answer.
    fn scopes(&self) -> BoxFuture<'_, Discovery>;

    /// Begins to list a scope. Nothing is asked for before the first [`Pages::next`].
    fn pages(&self, scope: &Scope) -> Box<dyn Pages + '_>;

    /// Another way to ask, where there is one. A source without it is believed at its word.
    fn second_look(&self) -> Option<&dyn SecondLook> {
        None
    }

    /// Whether a second sweep can bring anything.
    fn can_repeat(&self) -> bool {
        true
    }
}

/// The pages of one sweep.
pub trait Pages: Send {
    /// The next page; `None` once the source has said that there are no more, and only then.
    ///
    /// What can be tried again was tried again when this fails: the sweep is incomplete.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Page>, Fault>>;
}

/// Asking about particular instances, since a listing is served from caches and may lack what is there.
pub trait SecondLook: Send + Sync {
    /// Those of these instances that exist, whatever the source's own filters say.
    fn instances<'a>(&'a self, scope: &'a Scope, ids: &'a [String]) -> BoxFuture<'a, Result<Page, Fault>>;

    /// The tags of these instances, as in the member `Tags`; one that has none is left out.
    fn tags<'a>(&'a self, scope: &'a Scope, ids: &'a [String]) -> BoxFuture<'a, Result<TagsById, Fault>>;

    /// Whom the source asks as, in words: account and role. Told when an answer is hard to believe.
    fn identity<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Result<String, Fault>>;

    /// Whether the source narrows its listing by filters, so that an instance can exist and not be listed.
    fn is_filtered(&self) -> bool;
}
