//! x
#![allow(missing_docs)]
use super::source::*;
use crate::config::SimulatedSource;
pub struct Simulated;
impl Simulated {
    pub fn new(_: &str, _: SimulatedSource) -> Self {
        Self
    }
}
impl Source for Simulated {
    fn scopes(&self) -> BoxFuture<'_, Result<Vec<Scope>, SweepError>> {
        Box::pin(async { Ok(vec![]) })
    }
    fn pages(&self, _: &Scope) -> Box<dyn Pages + '_> {
        todo!()
    }
}
