//! From the content of one XML element to a JSON value.

use std::borrow::Cow;

use serde_json::map::Entry;
use serde_json::{Map, Value};

use crate::collector::aws::shape::Shape;

/// What was found between an opening tag and its closing one.
#[derive(Default)]
pub(super) struct Content<'b> {
    text: Cow<'b, str>,
    items: Vec<Value>,
    members: Map<String, Value>,
}

impl<'b> Content<'b> {
    pub(super) fn add_text(&mut self, text: Cow<'b, str>) {
        if self.has_children() && is_blank(&text) {
            return; // indentation
        }
        if self.text.is_empty() {
            self.text = text;
        } else {
            self.text.to_mut().push_str(&text);
        }
    }

    /// Adds a child: a member where it has a name, else an item.
    pub(super) fn add_child(&mut self, name: Option<String>, value: Value) {
        if !self.has_children() && is_blank(&self.text) {
            self.text = Cow::Borrowed("");
        }
        match name {
            Some(name) => add_member(&mut self.members, name, value),
            None => self.items.push(value),
        }
    }

    pub(super) fn into_value(self, shape: Shape) -> Value {
        match shape {
            Shape::List(_) => self.into_list(),
            Shape::Struct(_) => self.into_object(),
            // Also where the model says that it is a number: what came is kept.
            _ if !self.members.is_empty() => self.into_object(),
            _ if !self.items.is_empty() => self.into_list(),
            Shape::Boolean => match self.text.parse::<bool>() {
                Ok(flag) => Value::from(flag),
                Err(_) => self.into_text(),
            },
            Shape::Integer => match self.text.parse::<i64>() {
                Ok(number) => Value::from(number),
                Err(_) => self.into_text(),
            },
            Shape::Any => self.into_text(),
        }
    }

    fn has_children(&self) -> bool {
        !(self.members.is_empty() && self.items.is_empty())
    }

    fn into_text(self) -> Value {
        Value::String(self.text.into_owned())
    }

    // EC2 puts no text beside elements. Should it ever, that is kept, too.

    fn into_list(mut self) -> Value {
        if !is_blank(&self.text) {
            self.items.push(Value::String(self.text.into_owned()));
        }
        Value::Array(self.items)
    }

    fn into_object(mut self) -> Value {
        for item in self.items {
            add_member(&mut self.members, "Item".to_owned(), item);
        }
        if !is_blank(&self.text) {
            let text = Value::String(self.text.into_owned());
            add_member(&mut self.members, "#text".to_owned(), text);
        }
        Value::Object(self.members)
    }
}

/// Members of one name become a list, so that none gets lost. It is flat, for else its form would depend on the order
/// in which they come.
fn add_member(members: &mut Map<String, Value>, name: String, value: Value) {
    match members.entry(name) {
        Entry::Vacant(place) => {
            place.insert(value);
        }
        Entry::Occupied(mut place) => {
            let mut values = as_list(place.get_mut().take());
            values.append(&mut as_list(value));
            place.insert(Value::Array(values));
        }
    }
}

fn as_list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        value => vec![value],
    }
}

/// Whether there is nothing but what XML calls white space.
pub(super) fn is_blank(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}
