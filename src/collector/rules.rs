//! Processing rules at work on an instance, before anything of it leaves for Kafka.
//!
//! In order, each on what the ones before have left: a `deny` that matches ends it; where there are `allow` rules one of
//! them has to match; `hash` and `mask` replace texts, numbers and flags where they are, so that the record keeps its
//! shape. What is null stays null: there is nothing to hide. Neither the instance's ID nor the key of a tag is ever
//! replaced, whatever a rule's path leads to.

use std::borrow::Cow;
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value};
use sha2::Sha256;

use crate::config::Secret;
use crate::config::rules::{Condition, Path, Rule, Step};

#[cfg(test)]
mod tests;

/// Of a hash, so many bytes are kept: enough that two values never meet.
const HASH_BYTES: usize = 16;

/// What becomes of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is published.
    Keep,
    /// It exists, but is nobody's business: it is out of scope.
    Deny,
}

/// The rules of a source, ready to be applied.
#[derive(Debug, Default)]
pub struct Rules {
    actions: Vec<Action>,
    has_allow: bool,
}

#[derive(Debug)]
enum Action {
    Allow(Condition),
    Deny(Condition),
    Replace(Path, Replacement),
}

enum Replacement {
    Hash(Hmac<Sha256>),
    Text(String),
}

/// There is a rule `hash`, and no key for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("collector.hash_key is not set; a rule hash needs it")]
pub struct NoHashKey;

impl Rules {
    /// From the configuration: a source's rules and `collector.hash_key`.
    ///
    /// # Errors
    /// When there is a rule `hash` and no key.
    pub fn new(rules: &[Rule], hash_key: Option<&Secret>) -> Result<Self, NoHashKey> {
        let hasher = || {
            let key = hash_key.ok_or(NoHashKey)?.expose();
            // HMAC takes a key of any length.
            Hmac::<Sha256>::new_from_slice(key.as_bytes()).map_err(|_| NoHashKey)
        };
        let action = |rule: &Rule| {
            Ok(match rule {
                Rule::Allow(condition) => Action::Allow(condition.clone()),
                Rule::Deny(condition) => Action::Deny(condition.clone()),
                Rule::Hash(hash) => Action::Replace(hash.field.path().clone(), Replacement::Hash(hasher()?)),
                Rule::Mask(mask) => Action::Replace(mask.field.path().clone(), Replacement::Text(mask.with.clone())),
            })
        };
        let actions = rules.iter().map(action).collect::<Result<Vec<_>, _>>()?;
        let has_allow = actions.iter().any(|action| matches!(action, Action::Allow(_)));
        Ok(Self { actions, has_allow })
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// Applies them. What is denied may have been changed too; it is not to be used.
    pub fn apply(&self, instance: &mut Map<String, Value>) -> Fate {
        let mut is_allowed = !self.has_allow;
        for action in &self.actions {
            match action {
                Action::Allow(condition) => is_allowed = is_allowed || meets(instance, condition),
                Action::Deny(condition) if meets(instance, condition) => return Fate::Deny,
                Action::Deny(_) => {}
                Action::Replace(path, replacement) => {
                    replace_in(instance, path.steps(), Depth::Instance, &|value| replacement.replace(value));
                }
            }
        }
        if is_allowed { Fate::Keep } else { Fate::Deny }
    }
}

impl Replacement {
    fn replace(&self, scalar: &mut Value) {
        let Some(text) = text(scalar) else { return };
        let replaced = match self {
            Self::Text(text) => text.clone(),
            Self::Hash(keyed) => hash(keyed, &text),
        };
        *scalar = Value::String(replaced);
    }
}

/// Without the key.
impl fmt::Debug for Replacement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hash(_) => formatter.write_str("Hash"),
            Self::Text(text) => write!(formatter, "Text({text:?})"),
        }
    }
}

fn hash(keyed: &Hmac<Sha256>, text: &str) -> String {
    let mut mac = keyed.clone();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().iter().take(HASH_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

/// The text of a scalar; `None` for null, and for what is no scalar.
fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(flag) => Some(Cow::Borrowed(if *flag { "true" } else { "false" })),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn meets(instance: &Map<String, Value>, condition: &Condition) -> bool {
    let holds = |value: &Value| match &condition.matches {
        Some(globs) => text(value).is_some_and(|text| globs.matches(&text)),
        None => match value {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Object(object) => !object.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::Bool(_) | Value::Number(_) => true,
        },
    };
    finds_in(instance, condition.field.steps(), &holds)
}

/// Whether it holds for one of the values that the steps lead to.
fn finds(value: &Value, steps: &[Step], holds: &impl Fn(&Value) -> bool) -> bool {
    match (value, steps) {
        (Value::Array(list), _) => list.iter().any(|element| finds(element, steps, holds)),
        (_, []) => holds(value),
        (Value::Object(object), _) => finds_in(object, steps, holds),
        _ => false,
    }
}

fn finds_in(object: &Map<String, Value>, steps: &[Step], holds: &impl Fn(&Value) -> bool) -> bool {
    let Some((step, rest)) = steps.split_first() else { return false };
    match member(object, step) {
        Some(name) => object.get(name).is_some_and(|value| finds(value, rest, holds)),
        None => *step == Step::Any && object.values().any(|value| finds(value, rest, holds)),
    }
}

/// Whether an object is the instance itself: only there is `InstanceId` the record's key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Instance,
    Within,
}

/// Replaces every scalar that the steps lead to.
fn replace(value: &mut Value, steps: &[Step], replaced: &impl Fn(&mut Value)) {
    match (value, steps) {
        (Value::Array(list), _) => list.iter_mut().for_each(|element| replace(element, steps, replaced)),
        (value, []) => replaced(value),
        (Value::Object(object), _) => replace_in(object, steps, Depth::Within, replaced),
        _ => {}
    }
}

fn replace_in(object: &mut Map<String, Value>, steps: &[Step], depth: Depth, replaced: &impl Fn(&mut Value)) {
    let Some((step, rest)) = steps.split_first() else { return };
    let stays = |name: &str| name == "Key" || (depth == Depth::Instance && name == "InstanceId");
    match member(object, step) {
        Some(name) if !stays(name) => {
            if let Some(value) = object.get_mut(name) {
                replace(value, rest, replaced);
            }
        }
        None if *step == Step::Any => {
            let members = object.iter_mut().filter(|(name, _)| !stays(name));
            members.for_each(|(_, value)| replace(value, rest, replaced));
        }
        _ => {}
    }
}

/// The one member that a step leads to, where it leads to one.
fn member<'s>(object: &Map<String, Value>, step: &'s Step) -> Option<&'s str> {
    match step {
        Step::Member(name) => Some(name),
        Step::Tag(glob) => {
            let key = object.get("Key").and_then(Value::as_str)?;
            glob.matches(key).then_some("Value")
        }
        Step::Any => None,
    }
}
