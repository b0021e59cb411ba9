//! A raw record that is written already, with what a sweep has to know of it.

use serde_json::{Map, Value};

use super::{Members, Node, member, write};

/// An instance in its canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Member `InstanceId`; `None` where there is none, or it is empty.
    pub id: Option<Box<str>>,
    /// Member `State.Name`.
    pub state: Option<Box<str>>,
    /// Member `OwnerId`: the account.
    pub owner: Option<Box<str>>,
    /// Whether it has any tags.
    pub has_tags: bool,
    /// The value of the raw record.
    pub json: Vec<u8>,
}

impl Instance {
    /// Of what was decoded.
    pub fn of(members: Members<'_>) -> Self {
        let text = |node: Option<&Node<'_>>| node?.as_str().filter(|text| !text.is_empty()).map(Box::from);
        Self {
            id: text(member(&members, "InstanceId")),
            owner: text(member(&members, "OwnerId")),
            state: text(member(&members, "State").and_then(|state| state.get("Name"))),
            has_tags: matches!(member(&members, "Tags"), Some(Node::List(tags)) if !tags.is_empty()),
            json: write(members),
        }
    }

    /// Of anything: what is no object has no ID, and is kept as it is.
    pub fn of_value(value: &Value) -> Self {
        match value {
            Value::Object(members) => Self::of_map(members),
            other => Self { id: None, state: None, owner: None, has_tags: false, json: other.to_string().into_bytes() },
        }
    }

    /// Of what was parsed, or changed.
    pub fn of_map(instance: &Map<String, Value>) -> Self {
        Self::of(super::node::members_of(instance))
    }

    /// For whoever has to look into it, or to change it; `None` of what is no object.
    pub fn to_map(&self) -> Option<Map<String, Value>> {
        serde_json::from_slice(&self.json).ok()
    }
}
