//! Decodes the body of a response of EC2, losing nothing of an instance.
//!
//! The SDK's own types drop every member that is newer than the SDK, and an inventory should not lag behind EC2. So the
//! XML is read here, by nobody but us: this builds, and is fuzzed, without the SDK. Names and types are those that the AWS CLI prints, for all members that the service model knows
//! (`shape.rs`); any other is kept as it looks. Attributes carry nothing in this protocol and are ignored.
//!
//! A body is decoded whole or not at all. One that ends early or has no `reservationSet` is an error: as a short page
//! it would make the instances that it lacks look gone.

use serde_json::{Map, Value};

use crate::collector::source::RESERVATION_MEMBERS;
use crate::record::canonical::{Instance, Members, Name, Node, member, to_map};
use content::is_blank;
use decoder::Decoder;
use shape::{IMAGES_RESPONSE, INSTANCES_RESPONSE, REGIONS_RESPONSE, Shape, TAGS_RESPONSE};

mod content;
mod decoder;
mod shape;
#[cfg(test)]
mod tests;

/// What a DescribeInstances response held.
#[derive(Debug, Clone, PartialEq)]
pub struct DescribeInstancesPage<I = Map<String, Value>> {
    /// The instances in the order of the response, with the [`RESERVATION_MEMBERS`].
    pub instances: Vec<I>,
    /// The token that fetches the next page; none on the last one.
    pub next_token: Option<String>,
}

/// What a DescribeTags response held.
#[derive(Debug, Clone, PartialEq)]
pub struct DescribeTagsPage {
    /// Each with the ID of what it is on, as in the member `Tags`.
    pub tags: Vec<(String, Map<String, Value>)>,
    /// The token that fetches the next page; none on the last one.
    pub next_token: Option<String>,
}

/// Why a body is not a page. Positions count bytes from the start of the body.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Nothing, or nothing but white space and comments.
    #[error("no XML element in a body of {length} bytes")]
    Empty {
        /// The body's length.
        length: usize,
    },
    /// Not XML, or broken off inside a tag or an entity.
    #[error("malformed XML at byte {at}: {reason}")]
    Malformed {
        /// Where the part begins or ends that is not as it should be.
        at: u64,
        /// What is wrong with it.
        reason: quick_xml::Error,
    },
    /// Broken off between two tags.
    #[error("the body ends at byte {at}, inside <{element}>")]
    Truncated {
        /// The body's length.
        at: u64,
        /// The innermost element that is open there.
        element: String,
    },
    /// Text before the root element, or anything at all after it.
    #[error("content outside of the root element, before byte {at}")]
    OutsideRoot {
        /// Where it ends.
        at: u64,
    },
    /// Another response, such as an error.
    #[error("expected <{expected}>, found <{found}> before byte {at}")]
    OtherRoot {
        /// The root element that was asked for.
        expected: &'static str,
        /// The root element.
        found: String,
        /// Where its opening tag ends.
        at: u64,
    },
    /// Deeper than anything that EC2 sends, and than is safe to recurse into.
    #[error("elements nested more than {MAX_DEPTH} levels deep, before byte {at}")]
    TooDeep {
        /// Where the opening tag of the first one too deep ends.
        at: u64,
    },
    /// No answer is not an empty answer.
    #[error("no <{element}> in the response")]
    NoList {
        /// The list that is lacking.
        element: &'static str,
    },
    /// A next page that cannot be asked for would end the sweep early.
    #[error("<nextToken> is not one text but {found}")]
    NextToken {
        /// What was decoded.
        found: Value,
    },
}

const ROOT: &str = "DescribeInstancesResponse";
const MAX_DEPTH: usize = 64;

/// Reads the body of a DescribeInstances response.
///
/// # Errors
/// When it is anything else, or not all of one.
pub fn decode(body: &[u8]) -> Result<DescribeInstancesPage, DecodeError> {
    decode_with(body, to_map)
}

/// The same, with the instances as raw records.
///
/// # Errors
/// When it is anything else, or not all of one.
pub fn decode_raw(body: &[u8]) -> Result<DescribeInstancesPage<Instance>, DecodeError> {
    decode_with(body, Instance::of)
}

fn decode_with<I>(body: &[u8], make: fn(Members<'_>) -> I) -> Result<DescribeInstancesPage<I>, DecodeError> {
    let mut instances = Vec::new();
    let mut add = |mut reservation: Members<'_>| {
        let Some(Node::List(list)) = take(&mut reservation, "Instances") else { return };
        for mut instance in structures(list) {
            for name in RESERVATION_MEMBERS {
                if let Some(value) = member(&reservation, name)
                    && member(&instance, name).is_none()
                {
                    instance.push((Name::new(name), value.clone()));
                }
            }
            instances.push(make(instance));
        }
    };
    let mut response = Decoder::new(body, &mut add).response(ROOT, INSTANCES_RESPONSE)?;
    if member(&response, "Reservations").is_none() {
        return Err(DecodeError::NoList { element: "reservationSet" });
    }
    let next_token = next_token(&mut response)?;
    Ok(DescribeInstancesPage { instances, next_token })
}

/// Reads the body of a DescribeTags response.
///
/// # Errors
/// When it is anything else, or not all of one.
pub fn decode_tags(body: &[u8]) -> Result<DescribeTagsPage, DecodeError> {
    let (tags, next_token) = decode_list(body, "DescribeTagsResponse", TAGS_RESPONSE, "Tags", "tagSet")?;
    let tags = tags.filter_map(|mut tag| {
        let Some(Node::Text(id)) = take(&mut tag, "ResourceId") else { return None };
        tag.retain(|(name, _)| name.is("Key") || name.is("Value"));
        Some((id.into_owned(), to_map(tag)))
    });
    Ok(DescribeTagsPage { tags: tags.collect(), next_token })
}

/// Reads the body of a DescribeImages response: `ImageId`, `Name` and `OwnerId` of each image.
///
/// # Errors
/// When it is anything else, or not all of one.
pub fn decode_images(body: &[u8]) -> Result<Vec<Map<String, Value>>, DecodeError> {
    let (images, _) = decode_list(body, "DescribeImagesResponse", IMAGES_RESPONSE, "Images", "imagesSet")?;
    let members = [("ImageId", "ImageId"), ("Name", "Name"), ("ImageOwnerId", "OwnerId")];
    let images = images.map(|image| {
        let members = members.into_iter().filter_map(|(wire, name)| {
            let text = member(&image, wire)?.as_str().filter(|text| !text.is_empty())?;
            Some((name.to_owned(), Value::from(text)))
        });
        members.collect()
    });
    Ok(images.collect())
}

/// Reads the body of a DescribeRegions response: `RegionName`, `OptInStatus` and so on of each region.
///
/// # Errors
/// When it is anything else, or not all of one.
pub fn decode_regions(body: &[u8]) -> Result<Vec<Map<String, Value>>, DecodeError> {
    let (regions, _) = decode_list(body, "DescribeRegionsResponse", REGIONS_RESPONSE, "Regions", "regionInfo")?;
    Ok(regions.map(to_map).collect())
}

/// The structures of the one list that a response has, and the next token.
fn decode_list<'b>(
    body: &'b [u8],
    root: &'static str,
    shape: Shape,
    name: &str,
    element: &'static str,
) -> Result<(impl Iterator<Item = Members<'b>>, Option<String>), DecodeError> {
    let mut response = Decoder::new(body, &mut |_| {}).response(root, shape)?;
    let Some(Node::List(list)) = take(&mut response, name) else {
        return Err(DecodeError::NoList { element });
    };
    let next_token = next_token(&mut response)?;
    Ok((structures(list), next_token))
}

fn next_token(response: &mut Members<'_>) -> Result<Option<String>, DecodeError> {
    match take(response, "NextToken") {
        None => Ok(None),
        Some(Node::Text(token)) => Ok(Some(token.into_owned()).filter(|token| !is_blank(token))),
        Some(found) => Err(DecodeError::NextToken { found: found.into() }),
    }
}

fn take<'b>(members: &mut Members<'b>, name: &str) -> Option<Node<'b>> {
    let at = members.iter().position(|(member, _)| member.is(name))?;
    Some(members.swap_remove(at).1)
}

/// The items of a list of structures, which can have nothing else in it but stray text.
fn structures(items: Vec<Node<'_>>) -> impl Iterator<Item = Members<'_>> {
    items.into_iter().filter_map(|item| match item {
        Node::Object(structure) => Some(structure),
        _ => None,
    })
}
