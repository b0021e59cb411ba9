//! From the bytes of a response to the members of its root element.
//!
//! quick-xml cuts the body into tags and texts and checks that tags pair up. What it leaves to its caller is done here:
//! that there is one root element, that it is closed, and that nesting ends somewhere.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::escape::{EscapeError, resolve_xml_entity};
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::name::QName;

use super::content::{Content, is_blank};
use super::{DecodeError, MAX_DEPTH};
use crate::collector::aws::shape::Shape;
use crate::record::canonical::{Members, Node};

/// Reads elements into JSON values as they come, without a tree of the document in between.
pub(super) struct Decoder<'b> {
    reader: Reader<&'b [u8]>,
    text: &'b [u8],
    body_length: usize,
    /// The length of the byte order mark, which the reader does not see and hence not count.
    mark_length: u64,
}

impl<'b> Decoder<'b> {
    pub(super) fn new(body: &'b [u8]) -> Self {
        let text = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
        Self {
            reader: Reader::from_reader(text),
            text,
            body_length: body.len(),
            mark_length: (body.len() - text.len()) as u64,
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
            match self.event()? {
                Event::Start(tag) => return self.tag(&tag, false).map(Some),
                Event::Empty(tag) => return self.tag(&tag, true).map(Some),
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
        let content = if tag.is_empty { Content::default() } else { self.content(tag, shape, depth)? };
        Ok(content.into_value(shape))
    }

    /// Reads up to the closing tag, and its children on the way.
    fn content(&mut self, parent: &Tag<'b>, shape: Shape, depth: usize) -> Result<Content<'b>, DecodeError> {
        let mut content = Content::default();
        loop {
            let child = match self.event()? {
                Event::Start(tag) => self.tag(&tag, false)?,
                Event::Empty(tag) => self.tag(&tag, true)?,
                Event::End(_) => return Ok(content),
                Event::Eof => {
                    return Err(DecodeError::Truncated { at: self.position(), element: parent.name.to_owned() });
                }
                other => {
                    if let Some(text) = self.text(other)? {
                        content.add_text(text);
                    }
                    continue;
                }
            };
            let (name, child_shape) = shape.child(child.name);
            let value = self.element(&child, child_shape, depth + 1)?;
            content.add_child(name, value);
        }
    }

    fn text(&self, event: Event<'b>) -> Result<Option<Cow<'b, str>>, DecodeError> {
        match event {
            Event::Text(text) => Ok(Some(text.xml10_content())),
            Event::CData(text) => Ok(Some(text.xml10_content())),
            Event::GeneralRef(reference) => self.resolve(&reference).map(Some),
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
    fn tag(&self, tag: &BytesStart<'b>, is_empty: bool) -> Result<Tag<'b>, DecodeError> {
        let end = usize::try_from(self.reader.buffer_position()).unwrap_or(usize::MAX);
        let closing = if is_empty { "/>".len() } else { ">".len() };
        let start = end.checked_sub(closing + tag.len());
        let name = start.and_then(|start| self.text.get(start..start + tag.name().as_ref().len()));
        let name = name.and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
        debug_assert_eq!(name, tag.name().as_ref());
        Ok(Tag { name: QName(name).local_name().into_inner(), is_empty })
    }

    fn event(&mut self) -> Result<Event<'b>, DecodeError> {
        self.reader
            .read_event()
            .map_err(|reason| DecodeError::Malformed { at: self.mark_length + self.reader.error_position(), reason })
    }

    fn position(&self) -> u64 {
        self.mark_length + self.reader.buffer_position()
    }

    fn outside_root(&self) -> DecodeError {
        DecodeError::OutsideRoot { at: self.position() }
    }
}

/// An opening tag.
struct Tag<'b> {
    /// The name, without a namespace prefix.
    name: &'b str,
    /// Whether it is its own closing tag: `<tagSet/>`.
    is_empty: bool,
}
