//! Source `simulated`: an invented fleet over three accounts and five regions that changes from sweep to sweep.

mod catalog;
mod describe;
mod fleet;
mod machine;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::fault::Fault;
use super::source::{BoxFuture, Discovery, Page, Pages, Scope, Source};
use crate::config::SimulatedSource;
use crate::record::canonical::Instance;
use chrono::Utc;
pub use fleet::Fleet;

const ACCOUNTS: [&str; 3] = ["111122223333", "444455556666", "777788889999"];
const REGIONS: [&str; 5] = ["eu-west-1", "us-east-1", "us-west-2", "ap-southeast-2", "sa-east-1"];

/// The invented fleet, a part of it in each scope.
pub struct Simulated {
    name: String,
    config: SimulatedSource,
    fleets: Mutex<HashMap<Scope, Fleet>>,
}

impl Simulated {
    /// The source called `name`.
    pub fn new(name: &str, config: SimulatedSource) -> Self {
        Self { name: name.to_owned(), config, fleets: Mutex::default() }
    }

    /// The instances of a scope at its next sweep: some time has passed since the last one.
    fn next(&self, scope: &Scope) -> Vec<Instance> {
        let now = Utc::now();
        let mut fleets = self.fleets.lock().unwrap_or_else(PoisonError::into_inner);
        let fleet = match fleets.get_mut(scope) {
            Some(fleet) => {
                fleet.advance(now);
                fleet
            }
            None => {
                let [account, region] = [&scope.account, &scope.region].map(|part| part.as_deref().unwrap_or_default());
                let share = self.config.instances.div_ceil(ACCOUNTS.len() * REGIONS.len());
                fleets.entry(scope.clone()).or_insert(Fleet::new(self.config.seed, account, region, share, now))
            }
        };
        fleet.instances().iter().map(Instance::of_map).collect()
    }
}

impl Source for Simulated {
    fn scopes(&self) -> BoxFuture<'_, Discovery> {
        let scope = |account: &str, region: &str| Scope {
            source: self.name.clone(),
            account: Some(account.to_owned()),
            region: Some(region.to_owned()),
        };
        let scopes = ACCOUNTS.iter().flat_map(|account| REGIONS.iter().map(move |region| scope(account, region)));
        let scopes = scopes.collect();
        Box::pin(async { Discovery { scopes, unknown: Vec::new() } })
    }

    fn pages(&self, scope: &Scope) -> Box<dyn Pages + '_> {
        Box::new(OnePage { source: self, scope: Some(scope.clone()) })
    }
}

/// A sweep of the invented fleet: everything at once.
struct OnePage<'a> {
    source: &'a Simulated,
    /// `None` once it has been handed over.
    scope: Option<Scope>,
}

impl Pages for OnePage<'_> {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Page>, Fault>> {
        let page = self.scope.take().map(|scope| Page { observed_at: Utc::now(), instances: self.source.next(&scope) });
        Box::pin(async { Ok(page) })
    }
}
