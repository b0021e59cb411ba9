//! From the content of one XML element to a JSON value.

use std::borrow::Cow;

use super::shape::Shape;
use crate::record::canonical::{Members, Name, Node, sort_by_name};

/// What was found between an opening tag and its closing one.
#[derive(Default)]
pub(super) struct Content<'b> {
    text: Cow<'b, str>,
    items: Vec<Node<'b>>,
    members: Members<'b>,
}

impl<'b> Content<'b> {
    /// Nothing but this text, so far.
    pub(super) fn of(text: Cow<'b, str>) -> Self {
        Self { text, ..Self::default() }
    }

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
    #[inline]
    pub(super) fn add_child(&mut self, name: Option<Name<'b>>, value: Node<'b>) {
        if !self.has_children() && is_blank(&self.text) {
            self.text = Cow::Borrowed("");
        }
        match name {
            Some(name) => {
                if self.members.is_empty() {
                    self.members.reserve(8);
                }
                self.members.push((name, value));
            }
            None => self.items.push(value),
        }
    }

    pub(super) fn into_value(self, shape: Shape) -> Node<'b> {
        match shape {
            Shape::List(_) | Shape::Stream(_) => self.into_list(),
            Shape::Struct(_) => Node::Object(self.into_members()),
            // Also where the model says that it is a number: what came is kept.
            _ if !self.members.is_empty() => Node::Object(self.into_members()),
            _ if !self.items.is_empty() => self.into_list(),
            _ => leaf(self.text, shape),
        }
    }

    /// Whether white space that comes now is indentation: there are children, and no text beside them.
    pub(super) fn may_be_indented(&self) -> bool {
        self.has_children() && self.text.is_empty()
    }

    fn has_children(&self) -> bool {
        !(self.members.is_empty() && self.items.is_empty())
    }

    // EC2 puts no text beside elements. Should it ever, that is kept, too.

    fn into_list(mut self) -> Node<'b> {
        if !is_blank(&self.text) {
            self.items.push(Node::Text(self.text));
        }
        Node::List(self.items)
    }

    fn into_members(mut self) -> Members<'b> {
        self.members.extend(self.items.into_iter().map(|item| (Name::new("Item"), item)));
        if !is_blank(&self.text) {
            self.members.push((Name::new("#text"), Node::Text(self.text)));
        }
        merged(self.members)
    }
}

/// The value of an element without children.
#[inline]
pub(super) fn leaf<'b>(text: Cow<'b, str>, shape: Shape) -> Node<'b> {
    match shape {
        Shape::Boolean => text.parse().map_or(Node::Text(text), Node::Bool),
        Shape::Integer => match text.parse::<i64>() {
            Ok(number) => Node::Number(number.into()),
            Err(_) => Node::Text(text),
        },
        Shape::Any => Node::Text(text),
        Shape::List(_) | Shape::Stream(_) | Shape::Struct(_) => Content::of(text).into_value(shape),
    }
}

/// Members of one name become a list, so that none gets lost. It is flat, for else its form would depend on the order
/// in which they come.
fn merged(mut members: Members<'_>) -> Members<'_> {
    sort_by_name(&mut members);
    if members.is_sorted_by(|(a, _), (b, _)| a != b) {
        return members;
    }
    let mut merged: Members<'_> = Vec::with_capacity(members.len());
    for (name, value) in members {
        match merged.last_mut() {
            Some((last, values)) if *last == name => append(values, value),
            _ => merged.push((name, value)),
        }
    }
    merged
}

fn append<'b>(values: &mut Node<'b>, more: Node<'b>) {
    let list = match std::mem::replace(values, Node::Null) {
        Node::List(list) => list,
        value => vec![value],
    };
    *values = Node::List(list);
    let Node::List(list) = values else { return };
    match more {
        Node::List(mut more) => list.append(&mut more),
        value => list.push(value),
    }
}

/// Whether there is nothing but what XML calls white space.
pub(super) fn is_blank(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}
