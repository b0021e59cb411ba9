//! Stub until the processing rules land.
use serde_json::{Map, Value};

/// What becomes of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is published.
    Keep,
    /// It is left out.
    Deny,
}

/// Compiled rules.
#[derive(Debug, Clone, Default)]
pub struct Rules;

impl Rules {
    /// Applies them.
    pub fn apply(&self, _: &mut Map<String, Value>) -> Fate {
        Fate::Keep
    }
}
