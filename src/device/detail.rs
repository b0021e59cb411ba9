//! Members as details of an event: what of an instance is kept as it is, in canonical JSON.

use std::borrow::Cow;
use std::iter;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;

use super::lenient::Member;

/// A member as a detail of an event, in canonical JSON: as it is, save that names are in snake case, instants in one form,
/// and lists, whose order means nothing, in that of their JSON. It is written at once, without a tree of values.
pub trait Detail {
    /// Appends the JSON; whether it says something. Where it does not, nothing is appended.
    fn write(&self, json: &mut Vec<u8>) -> bool;
}

/// A detail that is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Json(Vec<u8>);

impl Json {
    /// The JSON of a detail; `None` where nothing is said.
    pub fn of(detail: &(impl Detail + ?Sized)) -> Option<Self> {
        let mut json = Vec::with_capacity(256);
        detail.write(&mut json).then_some(Self(json))
    }

    /// The object of these members, which are in the order of their names; `None` where they say nothing.
    pub fn object<'m>(members: impl IntoIterator<Item = Named<'m>>) -> Option<Self> {
        let mut json = Vec::with_capacity(256);
        write_object(&mut json, members).then_some(Self(json))
    }

    /// The list of these, in this order; `None` where there are none.
    pub fn list(elements: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut json = vec![b'['];
        for element in elements {
            if json.len() > 1 {
                json.push(b',');
            }
            json.extend(element.0);
        }
        json.push(b']');
        (json.len() > 2).then_some(Self(json))
    }
}

/// A member of an object: its name, and what is said of it.
pub type Named<'m> = (&'m str, &'m dyn Detail);

/// These members, one after the other.
pub fn named<const N: usize>(members: [Named<'_>; N]) -> impl Iterator<Item = Named<'_>> {
    members.into_iter()
}

/// Members, with others in place of their namesakes or beside them. Both are in the order of their names.
pub fn replaced<'m>(
    members: impl IntoIterator<Item = Named<'m>>,
    others: impl IntoIterator<Item = Named<'m>>,
) -> impl Iterator<Item = Named<'m>> {
    let (mut members, mut others) = (members.into_iter().peekable(), others.into_iter().peekable());
    iter::from_fn(move || {
        let Some((other, _)) = others.peek() else { return members.next() };
        if let Some(member) = members.next_if(|(name, _)| name < other) {
            return Some(member);
        }
        members.next_if(|(name, _)| name == other);
        others.next()
    })
}

/// Appends those of the members that say something, each as `"name":value`, in the order in which they come, which must
/// be that of their names.
pub fn write_members<'m>(json: &mut Vec<u8>, members: impl IntoIterator<Item = Named<'m>>) {
    let (start, mut last) = (json.len(), "");
    for (name, member) in members {
        debug_assert!(last < name, "{name} follows {last}");
        last = name;
        let before = json.len();
        if before > start {
            json.push(b',');
        }
        json.push(b'"');
        json.extend_from_slice(name.as_bytes());
        json.extend_from_slice(b"\":");
        if !member.write(json) {
            json.truncate(before);
        }
    }
}

/// Appends an object of the members that say something; whether there are any.
pub fn write_object<'m>(json: &mut Vec<u8>, members: impl IntoIterator<Item = Named<'m>>) -> bool {
    let start = json.len();
    json.push(b'{');
    write_members(json, members);
    if json.len() == start + 1 {
        json.truncate(start);
        return false;
    }
    json.push(b'}');
    true
}

impl Detail for Json {
    fn write(&self, json: &mut Vec<u8>) -> bool {
        json.extend_from_slice(&self.0);
        true
    }
}

impl<T: Detail> Detail for Option<T> {
    fn write(&self, json: &mut Vec<u8>) -> bool {
        self.as_ref().is_some_and(|detail| detail.write(json))
    }
}

impl<T: Detail> Detail for Member<T> {
    fn write(&self, json: &mut Vec<u8>) -> bool {
        self.known().is_some_and(|detail| detail.write(json))
    }
}

/// What serde writes is a detail as it is.
macro_rules! plain {
    ($($kind:ty)*) => {$(
        impl Detail for $kind {
            fn write(&self, json: &mut Vec<u8>) -> bool {
                serde_json::to_writer(json, self).is_ok()
            }
        }
    )*};
}

plain! { &str String Cow<'_, str> bool i64 Value }

impl Detail for DateTime<Utc> {
    fn write(&self, json: &mut Vec<u8>) -> bool {
        self.to_rfc3339_opts(SecondsFormat::Millis, true).write(json)
    }
}

impl<T: Detail> Detail for Vec<T> {
    fn write(&self, json: &mut Vec<u8>) -> bool {
        let mut elements: Vec<_> = self.iter().filter_map(Json::of).collect();
        elements.sort_unstable();
        Json::list(elements).write(json)
    }
}
