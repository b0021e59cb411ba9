//! Decodes the body of a DescribeInstances response, losing nothing.
//!
//! The SDK's own types drop every member that is newer than the SDK, and an inventory should not lag behind EC2. So the
//! XML is read here. Names and types are those that the AWS CLI prints, for all members that the service model knows
//! (`shape.rs`); any other is kept as it looks. Attributes carry nothing in this protocol and are ignored.
//!
//! A body is decoded whole or not at all. One that ends early or has no `reservationSet` is an error: as a short page
//! it would make the instances that it lacks look gone.

use serde_json::{Map, Value};

use crate::collector::source::RESERVATION_MEMBERS;
use content::is_blank;
use decoder::Decoder;

mod content;
mod decoder;
#[cfg(test)]
mod tests;

/// What a DescribeInstances response held.
#[derive(Debug, Clone, PartialEq)]
pub struct DescribeInstancesPage {
    /// The instances in the order of the response, with the [`RESERVATION_MEMBERS`].
    pub instances: Vec<Map<String, Value>>,
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
    #[error("expected <{ROOT}>, found <{found}> before byte {at}")]
    OtherRoot {
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
    #[error("no <reservationSet> in the response")]
    NoReservationSet,
    /// A next page that cannot be asked for would end the sweep early.
    #[error("<nextToken> is not one text but {found}")]
    NextToken {
        /// What was decoded.
        found: Value,
    },
}

const ROOT: &str = "DescribeInstancesResponse";
const MAX_DEPTH: usize = 64;

/// Reads the body of one response.
pub fn decode(body: &[u8]) -> Result<DescribeInstancesPage, DecodeError> {
    let mut response = Decoder::new(body).response()?;
    let Some(Value::Array(reservations)) = response.remove("Reservations") else {
        return Err(DecodeError::NoReservationSet);
    };
    let next_token = match response.remove("NextToken") {
        None => None,
        Some(Value::String(token)) => Some(token).filter(|token| !is_blank(token)),
        Some(found) => return Err(DecodeError::NextToken { found }),
    };
    let mut page = DescribeInstancesPage { instances: Vec::new(), next_token };
    for mut reservation in structures(reservations) {
        let Some(Value::Array(instances)) = reservation.remove("Instances") else {
            continue;
        };
        for mut instance in structures(instances) {
            for name in RESERVATION_MEMBERS {
                if let Some(value) = reservation.get(name) {
                    instance.entry(name).or_insert_with(|| value.clone());
                }
            }
            page.instances.push(instance);
        }
    }
    Ok(page)
}

/// The items of a list of structures, which can have nothing else in it but stray text.
fn structures(items: Vec<Value>) -> impl Iterator<Item = Map<String, Value>> {
    items.into_iter().filter_map(|item| match item {
        Value::Object(structure) => Some(structure),
        _ => None,
    })
}
