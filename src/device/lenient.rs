//! Members that may be missing or of the wrong type without costing the rest of the instance.
//!
//! A raw record is anybody's JSON. serde gives up at the first member of a wrong type; here such a member becomes
//! [`Member::Bad`], is skipped, and the parse goes on, in one pass and without a tree of values.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use chrono::{DateTime, Utc};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::time;

/// What a record says of one member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Member<T> {
    /// Missing, or null, or empty: `""`, `[]` and `{}` say no more than absence does.
    #[default]
    Absent,
    /// There, but of a type that the member cannot have.
    Bad,
    /// There and readable.
    Known(T),
}

impl<T> Member<T> {
    /// The value, where it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Member::Known(value) => Some(value),
            Member::Absent | Member::Bad => None,
        }
    }
}

/// Text that is not empty.
pub type Text<'a> = Member<Cow<'a, str>>;

/// A list that is not empty.
pub type List<T> = Member<Vec<T>>;

impl Text<'_> {
    /// The text, where it is known.
    pub fn text(&self) -> Option<&str> {
        self.known().map(AsRef::as_ref)
    }
}

impl<T> List<Member<T>> {
    /// The readable elements.
    pub fn items(&self) -> impl Iterator<Item = &T> {
        self.known().into_iter().flatten().filter_map(Member::known)
    }
}

/// How much of an object is read.
pub trait Depth {
    /// Whether all members of the model are, or only what every profile renders.
    const IN_FULL: bool;
}

/// What every profile renders.
pub struct InCommon;
/// All members of the model.
pub struct InFull;

impl Depth for InCommon {
    const IN_FULL: bool = false;
}

impl Depth for InFull {
    const IN_FULL: bool = true;
}

/// What JSON kind a type is read from; every kind that a type does not name is [`Member::Bad`].
pub trait Lenient<'de>: Sized {
    /// From a string.
    fn from_text(_: Cow<'de, str>) -> Member<Self> {
        Member::Bad
    }
    /// From an integer.
    fn from_integer(_: i64) -> Member<Self> {
        Member::Bad
    }
    /// From a boolean.
    fn from_bool(_: bool) -> Member<Self> {
        Member::Bad
    }
    /// From an array. An implementation reads it to its end.
    fn from_seq<D: Depth, A: SeqAccess<'de>>(mut seq: A) -> Result<Member<Self>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Member::Bad)
    }
    /// From an object. An implementation reads it to its end; of members of one name the last one counts.
    fn from_map<D: Depth, A: MapAccess<'de>>(mut map: A) -> Result<Member<Self>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Member::Bad)
    }
}

impl<'de: 'a, 'a> Lenient<'de> for Cow<'a, str> {
    fn from_text(text: Cow<'de, str>) -> Member<Self> {
        Member::Known(text)
    }
}

impl<'de> Lenient<'de> for DateTime<Utc> {
    fn from_text(text: Cow<'de, str>) -> Member<Self> {
        time::parse(&text).map_or(Member::Bad, Member::Known)
    }
}

impl<'de> Lenient<'de> for bool {
    fn from_bool(flag: bool) -> Member<Self> {
        Member::Known(flag)
    }
}

impl<'de> Lenient<'de> for i64 {
    fn from_integer(number: i64) -> Member<Self> {
        Member::Known(number)
    }
}

impl<'de, T: Lenient<'de>> Lenient<'de> for Vec<Member<T>> {
    fn from_seq<D: Depth, A: SeqAccess<'de>>(mut seq: A) -> Result<Member<Self>, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element_seed(Read::<D, _>::default())? {
            elements.push(element);
        }
        Ok(Member::Known(elements))
    }
}

/// Where a member lies in a record.
#[derive(Debug, Clone, Copy)]
pub enum Path<'a> {
    /// The record itself.
    Root,
    /// A member of an object.
    Member(&'a Path<'a>, &'static str),
    /// Any element of a list.
    Element(&'a Path<'a>),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Member(Path::Root, name) => formatter.write_str(name),
            Path::Member(parent, name) => write!(formatter, "{parent}.{name}"),
            Path::Element(parent) => write!(formatter, "{parent}[]"),
        }
    }
}

/// Finds what is there but could not be read.
pub trait Inspect {
    /// Reports the path of each [`Member::Bad`] in here; nothing, for a value without members.
    fn unreadable(&self, _path: Path<'_>, _report: &mut dyn FnMut(Path<'_>)) {}
}

impl Inspect for Cow<'_, str> {}
impl Inspect for DateTime<Utc> {}
impl Inspect for bool {}
impl Inspect for i64 {}

impl<T: Inspect> Inspect for Vec<T> {
    fn unreadable(&self, path: Path<'_>, report: &mut dyn FnMut(Path<'_>)) {
        for element in self {
            element.unreadable(Path::Element(&path), report);
        }
    }
}

impl<T: Inspect> Inspect for Member<T> {
    fn unreadable(&self, path: Path<'_>, report: &mut dyn FnMut(Path<'_>)) {
        match self {
            Member::Absent => {}
            Member::Bad => report(path),
            Member::Known(value) => value.unreadable(path, report),
        }
    }
}

/// Anything, as long as it says something: an object of empty members does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Something;

impl Inspect for Something {}

impl<'de> Lenient<'de> for Something {
    fn from_text(_: Cow<'de, str>) -> Member<Self> {
        Member::Known(Something)
    }
    fn from_integer(_: i64) -> Member<Self> {
        Member::Known(Something)
    }
    fn from_bool(_: bool) -> Member<Self> {
        Member::Known(Something)
    }
    fn from_seq<D: Depth, A: SeqAccess<'de>>(mut seq: A) -> Result<Member<Self>, A::Error> {
        let mut said = Member::Absent;
        while let Some(element) = seq.next_element_seed(Read::<D, Something>::default())? {
            said = if element == Member::Absent { said } else { Member::Known(Something) };
        }
        Ok(said)
    }
    fn from_map<D: Depth, A: MapAccess<'de>>(mut map: A) -> Result<Member<Self>, A::Error> {
        let mut said = Member::Absent;
        while let Some((_, member)) = map.next_entry_seed(PhantomData::<IgnoredAny>, Read::<D, Something>::default())? {
            said = if member == Member::Absent { said } else { Member::Known(Something) };
        }
        Ok(said)
    }
}

/// Counts what it hands on, since `[]` and `{}` are absent whatever they should have held.
struct Counted<A> {
    inner: A,
    count: usize,
}

impl<A> Counted<A> {
    fn new(inner: A) -> Self {
        Self { inner, count: 0 }
    }

    fn absent_if_empty<T>(&self, member: Member<T>) -> Member<T> {
        if self.count == 0 { Member::Absent } else { member }
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for &mut Counted<A> {
    type Error = A::Error;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let key = self.inner.next_key_seed(seed)?;
        self.count += usize::from(key.is_some());
        Ok(key)
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.inner.next_value_seed(seed)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for &mut Counted<A> {
    type Error = A::Error;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let element = self.inner.next_element_seed(seed)?;
        self.count += usize::from(element.is_some());
        Ok(element)
    }
}

/// Reads a member.
pub struct Read<D, T>(PhantomData<(D, T)>);

impl<D, T> Default for Read<D, T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<'de, D: Depth, T: Lenient<'de>> DeserializeSeed<'de> for Read<D, T> {
    type Value = Member<T>;

    fn deserialize<S: Deserializer<'de>>(self, deserializer: S) -> Result<Self::Value, S::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, D: Depth, T: Lenient<'de>> Visitor<'de> for Read<D, T> {
    type Value = Member<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(if text.is_empty() { Member::Absent } else { T::from_text(Cow::Borrowed(text)) })
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(if text.is_empty() { Member::Absent } else { T::from_text(Cow::Owned(text.to_owned())) })
    }
    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(T::from_integer(number))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).map_or(Member::Bad, T::from_integer))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Member::Bad)
    }
    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(T::from_bool(flag))
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Member::Absent)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        let mut seq = Counted::new(seq);
        let member = T::from_seq::<D, _>(&mut seq)?;
        Ok(seq.absent_if_empty(member))
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let mut map = Counted::new(map);
        let member = T::from_map::<D, _>(&mut map)?;
        Ok(map.absent_if_empty(member))
    }
}

/// Reads an object that is not a member of another.
pub struct Whole<D, T>(PhantomData<(D, T)>);

impl<D, T> Default for Whole<D, T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<'de, D: Depth, T: Lenient<'de>> DeserializeSeed<'de> for Whole<D, T> {
    type Value = Member<T>;

    fn deserialize<S: Deserializer<'de>>(self, deserializer: S) -> Result<Self::Value, S::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, D: Depth, T: Lenient<'de>> Visitor<'de> for Whole<D, T> {
    type Value = Member<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::from_map::<D, _>(map)
    }
}

/// Reads the name of a member.
pub struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<S: Deserializer<'de>>(self, deserializer: S) -> Result<Self::Value, S::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }
    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }
    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}
