//! From the bytes of a response to the members of its root element.
//!
//! quick-xml cuts the body into tags and texts and checks that tags pair up. What it leaves to its caller is done here:
//! that there is one root element, that it is closed, and that nesting ends somewhere.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::escape::{EscapeError, resolve_xml_entity};
use quick_xml::events::{BytesRef, BytesStart, Event};

use super::content::{Content, is_blank, leaf};
use super::shape::Shape;
use super::{DecodeError, MAX_DEPTH};
use crate::record::canonical::{Members, Node};

/// Reads elements into JSON values as they come, without a tree of the document in between.
pub(super) struct Decoder<'b, 's> {
    reader: Reader<&'b [u8]>,
    /// What the reader reads, as far as it is text. It tells by itself where that ends.
    text: &'b str,
    /// Where the objects of a [`Shape::Stream`] go.
    sink: &'s mut dyn FnMut(Members<'b>),
    body_length: usize,
    /// The length of the byte order marks: the reader must not see any, for it would not count it.
    mark_length: u64,
}

impl<'b, 's> Decoder<'b, 's> {
    pub(super) fn new(body: &'b [u8], sink: &'s mut dyn FnMut(Members<'b>)) -> Self {
        let mut bytes = body;
        while let Some(rest) = bytes.strip_prefix("\u{feff}".as_bytes()) {
            bytes = rest;
        }
        Self {
            reader: Reader::from_reader(bytes),
            text: valid_start(bytes),
            sink,
            body_length: body.len(),
            mark_length: (body.len() - bytes.len()) as u64,
        }
    }

    /// The members of the root element, which has to be the one that is expected and the only one.
    pub(super) fn response(mut self, expected: &'static str, shape: Shape) -> Result<Members<'b>, DecodeError> {
        let Some(root) = self.tag_outside_root()? else {
            return Err(DecodeError::Empty { length: self.body_length });
        };
        if root.name != expected {
            return Err(DecodeError::OtherRoot { expected, found: root.name.to_owned(), at: self.position() });
        }
        let response = self.element(&root, shape, 1)?;
        match (response, self.tag_outside_root()?) {
            (Node::Object(response), None) => Ok(response),
            _ => Err(self.outside_root()),
        }
    }

    /// The next opening tag; none at the end of the body.
    fn tag_outside_root(&mut self) -> Result<Option<Tag<'b>>, DecodeError> {
        loop {
            match self.reader.read_event().map_err(|reason| self.malformed(reason))? {
                Event::Start(tag) => return Ok(Some(self.tag(&tag, false))),
                Event::Empty(tag) => return Ok(Some(self.tag(&tag, true))),
                Event::Eof => return Ok(None),
                Event::Text(text) if is_blank(&text) => {}
                Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) | Event::End(_) => {
                    return Err(self.outside_root());
                }
                Event::Comment(_) | Event::PI(_) | Event::Decl(_) | Event::DocType(_) => {}
            }
        }
    }

    /// The value of an element whose opening tag was just read.
    fn element(&mut self, tag: &Tag<'b>, shape: Shape, depth: usize) -> Result<Node<'b>, DecodeError> {
        if depth > MAX_DEPTH {
            return Err(DecodeError::TooDeep { at: self.position() });
        }
        if tag.is_empty {
            return Ok(leaf(Cow::Borrowed(""), shape));
        }
        self.reader.config_mut().trim_text_start = false;
        let mut content = Content::default();
        let first = self.reader.read_event();
        let mut is_open = match &first {
            // Most elements are a text and nothing else.
            Ok(Event::Text(text)) => {
                let text = text.xml10_content();
                let next = self.reader.read_event();
                if let Ok(Event::End(_)) = &next {
                    return Ok(leaf(text, shape));
                }
                content.add_text(text);
                self.content(&next, &mut content, tag, shape, depth)?
            }
            first => self.content(first, &mut content, tag, shape, depth)?,
        };
        while is_open {
            // Indentation is an event less for each child.
            self.reader.config_mut().trim_text_start = content.may_be_indented();
            let next = self.reader.read_event();
            is_open = self.content(&next, &mut content, tag, shape, depth)?;
        }
        Ok(content.into_value(shape))
    }

    /// Adds what the reader has come to, a child with all that is in it; whether the element goes on.
    ///
    /// Events are large, and are looked at where the reader has put them: to copy each was a tenth of the time.
    fn content(
        &mut self,
        event: &Result<Event<'b>, quick_xml::Error>,
        content: &mut Content<'b>,
        parent: &Tag<'b>,
        shape: Shape,
        depth: usize,
    ) -> Result<bool, DecodeError> {
        let child = match event {
            Ok(Event::Start(tag)) => self.tag(tag, false),
            Ok(Event::Empty(tag)) => self.tag(tag, true),
            Ok(Event::End(_)) => return Ok(false),
            Ok(Event::Eof) => {
                return Err(DecodeError::Truncated { at: self.position(), element: parent.name.to_owned() });
            }
            Ok(other) => {
                if let Some(text) = self.text(other)? {
                    content.add_text(text);
                }
                return Ok(true);
            }
            Err(reason) => return Err(self.malformed(reason.clone())),
        };
        let (name, child_shape) = shape.child(child.name);
        match self.element(&child, child_shape, depth + 1)? {
            Node::Object(members) if matches!(shape, Shape::Stream(_)) => (self.sink)(members),
            value => content.add_child(name, value),
        }
        Ok(true)
    }

    fn text(&self, event: &Event<'b>) -> Result<Option<Cow<'b, str>>, DecodeError> {
        match event {
            Event::Text(text) => Ok(Some(text.xml10_content())),
            Event::CData(text) => Ok(Some(text.xml10_content())),
            Event::GeneralRef(reference) => self.resolve(reference).map(Some),
            _ => Ok(None), // a comment or an instruction
        }
    }

    /// The text of `&amp;`, `&#38;` and the like. Entities that a document defines itself are not resolved.
    fn resolve(&self, reference: &BytesRef<'b>) -> Result<Cow<'b, str>, DecodeError> {
        let at = self.position();
        let malformed = |reason| DecodeError::Malformed { at, reason };
        if let Some(character) = reference.resolve_char_ref().map_err(malformed)? {
            return Ok(Cow::Owned(character.into()));
        }
        if let Some(text) = resolve_xml_entity(reference) {
            return Ok(Cow::Borrowed(text));
        }
        let name = reference.to_string();
        let unknown = EscapeError::UnrecognizedEntity(0..name.len(), name);
        Err(malformed(unknown.into()))
    }

    /// The tag that the reader has just passed. Its name is taken from the body, since the event does not lend it for
    /// long enough.
    fn tag(&self, tag: &BytesStart<'b>, is_empty: bool) -> Tag<'b> {
        let end = usize::try_from(self.reader.buffer_position()).unwrap_or(usize::MAX);
        let closing = if is_empty { "/>".len() } else { ">".len() };
        let qualified = tag.name().into_inner();
        let start = end.checked_sub(closing + tag.len());
        let name = start.and_then(|start| self.text.get(start..start + qualified.len())).unwrap_or_default();
        debug_assert_eq!(name, qualified);
        let local = name.bytes().position(|byte| byte == b':').map_or(0, |colon| colon + 1);
        Tag { name: &name[local..], is_empty }
    }

    fn malformed(&self, reason: quick_xml::Error) -> DecodeError {
        DecodeError::Malformed { at: self.mark_length + self.reader.error_position(), reason }
    }

    fn position(&self) -> u64 {
        self.mark_length + self.reader.buffer_position()
    }

    fn outside_root(&self) -> DecodeError {
        DecodeError::OutsideRoot { at: self.position() }
    }
}

/// What precedes the first byte that is not UTF-8.
fn valid_start(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}

/// An opening tag.
struct Tag<'b> {
    /// The name, without a namespace prefix.
    name: &'b str,
    /// Whether it is its own closing tag: `<tagSet/>`.
    is_empty: bool,
}
