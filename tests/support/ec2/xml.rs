//! XML as a tree whose texts stay as they were written, byte for byte, so that only what is edited changes.

use quick_xml::Reader;
use quick_xml::events::Event;

/// A piece of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Element(Element),
    /// Text, references, declarations, comments: as written.
    Raw(String),
}

/// An element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    pub name: String,
    /// What follows the name in its start tag, as written.
    attributes: String,
    pub children: Vec<Node>,
}

/// A document: what stands before the root, and the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    before: String,
    pub root: Element,
}

impl Document {
    /// Reads a document; `None` when it is not well-formed.
    pub fn parse(source: &str) -> Option<Self> {
        let mut reader = Reader::from_str(source);
        let mut open = vec![Element::new("")];
        let mut from = 0;
        loop {
            let event = reader.read_event().ok()?;
            let to = usize::try_from(reader.buffer_position()).ok()?;
            let written = &source[from..to];
            from = to;
            match event {
                Event::Start(_) => open.push(Element::started(written)),
                Event::Empty(_) => open.last_mut()?.children.push(Node::Element(Element::started(written))),
                Event::End(_) => {
                    let closed = open.pop()?;
                    open.last_mut()?.children.push(Node::Element(closed));
                }
                Event::Eof => break,
                _ => open.last_mut()?.children.push(Node::Raw(written.to_owned())),
            }
        }
        let [top] = <[Element; 1]>::try_from(open).ok()?;
        let mut before = String::new();
        for node in top.children {
            match node {
                Node::Raw(raw) => before.push_str(&raw),
                Node::Element(root) => return Some(Self { before, root }),
            }
        }
        None
    }

    /// Writes it.
    pub fn write(&self) -> String {
        let mut to = self.before.clone();
        self.root.write(&mut to);
        to
    }
}

impl Element {
    /// An empty element.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), attributes: String::new(), children: Vec::new() }
    }

    /// From a start tag as written: `<name …>` or `<name …/>`.
    fn started(tag: &str) -> Self {
        let inner = tag.trim_start_matches('<').trim_end_matches('>').trim_end_matches('/');
        let (name, attributes) = inner.split_at(inner.find(char::is_whitespace).unwrap_or(inner.len()));
        Self { name: name.to_owned(), attributes: attributes.to_owned(), children: Vec::new() }
    }

    fn write(&self, to: &mut String) {
        to.push_str(&format!("<{}{}>", self.name, self.attributes));
        for child in &self.children {
            match child {
                Node::Raw(raw) => to.push_str(raw),
                Node::Element(element) => element.write(to),
            }
        }
        to.push_str(&format!("</{}>", self.name));
    }

    /// The elements in it.
    pub fn elements(&self) -> impl Iterator<Item = &Element> {
        self.children.iter().filter_map(|child| match child {
            Node::Element(element) => Some(element),
            Node::Raw(_) => None,
        })
    }

    /// The same, to be edited.
    pub fn elements_mut(&mut self) -> impl Iterator<Item = &mut Element> {
        self.children.iter_mut().filter_map(|child| match child {
            Node::Element(element) => Some(element),
            Node::Raw(_) => None,
        })
    }

    /// The first element of that name in it.
    pub fn get(&self, name: &str) -> Option<&Element> {
        self.elements().find(|element| element.name == name)
    }

    /// The same, to be edited.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Element> {
        self.elements_mut().find(|element| element.name == name)
    }

    /// The element at a path, to be edited; it is made where it is not there.
    pub fn at_mut(&mut self, path: &[&str]) -> &mut Element {
        let Some((first, rest)) = path.split_first() else { return self };
        if self.get(first).is_none() {
            self.children.push(Node::Element(Element::new(first)));
        }
        self.get_mut(first).unwrap().at_mut(rest)
    }

    /// Its text as written, references and all.
    pub fn text(&self) -> String {
        let raw = self.children.iter().filter_map(|child| match child {
            Node::Raw(raw) => Some(raw.as_str()),
            Node::Element(_) => None,
        });
        raw.collect::<String>().trim().to_owned()
    }

    /// Puts `written` in the place of all that is in it.
    pub fn set(&mut self, written: &str) {
        self.children = vec![Node::Raw(written.to_owned())];
    }

    /// Keeps only the elements that `keep` says.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut Element) -> bool) {
        self.children.retain_mut(|child| match child {
            Node::Element(element) => keep(element),
            Node::Raw(_) => true,
        });
    }

    /// Brings every list in it, at any depth, into a random order.
    pub fn shuffle(&mut self, random: &mut fastrand::Rng) {
        self.elements_mut().for_each(|element| element.shuffle(random));
        if self.elements().all(|element| element.name == "item") {
            let mut items: Vec<Element> = self.elements().cloned().collect();
            random.shuffle(&mut items);
            for place in self.elements_mut() {
                *place = items.pop().unwrap();
            }
        }
    }

    /// Every instance of a DescribeInstances answer, to be edited.
    pub fn instances_mut(&mut self) -> impl Iterator<Item = &mut Element> {
        let reservations = self.get_mut("reservationSet").into_iter().flat_map(Element::elements_mut);
        let lists = reservations.filter_map(|reservation| reservation.get_mut("instancesSet"));
        lists.flat_map(Element::elements_mut)
    }
}
