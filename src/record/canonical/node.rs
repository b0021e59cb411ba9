//! An instance on its way to its canonical form. It borrows names and texts from where they were read, and has members
//! in a plain list: a map would cost more than all the rest.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Node<'b> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(Cow<'b, str>),
    /// A list.
    List(Vec<Node<'b>>),
    /// An object.
    Object(Members<'b>),
}

/// The members of an object, in any order.
pub type Members<'b> = Vec<(Name<'b>, Node<'b>)>;

/// The name of a member: a text, or one whose first letter is to be a capital. That one need not be copied either.
#[derive(Debug, Clone, Copy)]
pub struct Name<'b> {
    /// The first eight bytes as they are to be, zeroes behind them: most comparisons of names end here.
    start: u64,
    text: &'b str,
}

impl<'b> Name<'b> {
    /// The text itself.
    #[inline]
    pub const fn new(text: &'b str) -> Self {
        Self { start: start(text), text }
    }

    /// The same with a capital.
    #[inline]
    pub const fn capitalised(self) -> Self {
        let mut start = self.start.to_be_bytes();
        start[0].make_ascii_uppercase();
        Self { start: u64::from_be_bytes(start), text: self.text }
    }

    /// Whether this is the name.
    #[inline]
    pub fn is(&self, name: &str) -> bool {
        *self == Name::new(name)
    }

    /// The name, if it is one of those whose lists have an order of their own; else an empty text.
    pub(super) fn known(&self) -> &'static str {
        const LISTS: [&str; 7] = [
            "Tags",
            "SecurityGroups",
            "Groups",
            "NetworkInterfaces",
            "BlockDeviceMappings",
            "PrivateIpAddresses",
            "Ipv6Addresses",
        ];
        LISTS.into_iter().find(|list| self.is(list)).unwrap_or_default()
    }

    fn first(&self) -> u8 {
        self.start.to_be_bytes()[0]
    }

    fn rest(&self) -> &'b [u8] {
        self.text.as_bytes().get(8..).unwrap_or_default()
    }

    fn to_text(self) -> String {
        let mut text = self.text.to_owned();
        if let Some(first) = text.get_mut(..1)
            && self.first().is_ascii_uppercase()
        {
            first.make_ascii_uppercase();
        }
        text
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        let at = bytes.len() + 1;
        write_text(self.text, bytes);
        // A first letter is never escaped.
        if self.first().is_ascii_uppercase() {
            bytes[at] = self.first();
        }
    }
}

/// The first eight bytes, zeroes behind them.
#[inline]
const fn start(text: &str) -> u64 {
    let text = text.as_bytes();
    if let Some(start) = text.first_chunk() {
        return u64::from_be_bytes(*start);
    }
    let (mut start, mut at) = ([0; 8], 0);
    while at < text.len() {
        start[at] = text[at];
        at += 1;
    }
    u64::from_be_bytes(start)
}

impl PartialEq for Name<'_> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.start == other.start && self.text.len() == other.text.len() && self.rest() == other.rest()
    }
}

impl Eq for Name<'_> {}

impl Ord for Name<'_> {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        let by_rest = || self.rest().cmp(other.rest()).then(self.text.len().cmp(&other.text.len()));
        self.start.cmp(&other.start).then_with(by_rest)
    }
}

impl PartialOrd for Name<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<'b> Node<'b> {
    /// The member of an object.
    pub fn get(&self, name: &str) -> Option<&Node<'b>> {
        match self {
            Node::Object(members) => member(members, name),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_i64(&self) -> Option<i64> {
        match self {
            Node::Number(number) => number.as_i64(),
            _ => None,
        }
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Node::Bool(true)))
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Node::Null => bytes.extend_from_slice(b"null"),
            Node::Bool(true) => bytes.extend_from_slice(b"true"),
            Node::Bool(false) => bytes.extend_from_slice(b"false"),
            Node::Number(number) => write_json(number, bytes),
            Node::Text(text) => write_text(text, bytes),
            Node::List(list) => {
                bytes.push(b'[');
                for (index, element) in list.iter().enumerate() {
                    if index > 0 {
                        bytes.push(b',');
                    }
                    element.write(bytes);
                }
                bytes.push(b']');
            }
            Node::Object(members) => write_members(members, bytes),
        }
    }
}

impl<'v> From<&'v Value> for Node<'v> {
    fn from(value: &'v Value) -> Self {
        match value {
            Value::Null => Node::Null,
            Value::Bool(flag) => Node::Bool(*flag),
            Value::Number(number) => Node::Number(number.clone()),
            Value::String(text) => Node::Text(Cow::Borrowed(text)),
            Value::Array(list) => Node::List(list.iter().map(Node::from).collect()),
            Value::Object(members) => Node::Object(members_of(members)),
        }
    }
}

impl From<Node<'_>> for Value {
    fn from(node: Node<'_>) -> Self {
        match node {
            Node::Null => Value::Null,
            Node::Bool(flag) => Value::Bool(flag),
            Node::Number(number) => Value::Number(number),
            Node::Text(text) => Value::String(text.into_owned()),
            Node::List(list) => Value::Array(list.into_iter().map(Value::from).collect()),
            Node::Object(members) => Value::Object(to_map(members)),
        }
    }
}

/// The members of an object that was parsed before.
pub(super) fn members_of(object: &Map<String, Value>) -> Members<'_> {
    object.iter().map(|(name, value)| (Name::new(name), Node::from(value))).collect()
}

/// The same as a map of its own.
pub fn to_map(members: Members<'_>) -> Map<String, Value> {
    members.into_iter().map(|(name, value)| (name.to_text(), Value::from(value))).collect()
}

/// The member of that name.
pub fn member<'m, 'b>(members: &'m Members<'b>, name: &str) -> Option<&'m Node<'b>> {
    members.iter().find(|(member, _)| member.is(name)).map(|(_, value)| value)
}

pub(super) fn member_mut<'m, 'b>(members: &'m mut Members<'b>, name: &str) -> Option<&'m mut Node<'b>> {
    members.iter_mut().find(|(member, _)| member.is(name)).map(|(_, value)| value)
}

/// Members of the same name stay in their order.
pub fn sort_by_name(members: &mut Members<'_>) {
    members.sort_by_key(|(name, _)| *name);
}

pub(super) fn write_members(members: &Members<'_>, bytes: &mut Vec<u8>) {
    bytes.push(b'{');
    for (index, (name, value)) in members.iter().enumerate() {
        if index > 0 {
            bytes.push(b',');
        }
        name.write(bytes);
        bytes.push(b':');
        value.write(bytes);
    }
    bytes.push(b'}');
}

fn write_text(text: &str, bytes: &mut Vec<u8>) {
    // Without a way out of the loop, it takes many bytes at a time.
    let is_special = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    if text.bytes().fold(false, |found, byte| found | is_special(byte)) {
        return write_json(text, bytes);
    }
    bytes.push(b'"');
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(b'"');
}

fn write_json(value: &(impl serde::Serialize + ?Sized), bytes: &mut Vec<u8>) {
    let written = serde_json::to_writer(bytes, value);
    debug_assert!(written.is_ok(), "a Vec takes any JSON");
}
