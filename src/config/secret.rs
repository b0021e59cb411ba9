//! Text that must not be shown.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// What is shown instead.
const REDACTED: &str = "(redacted)";

/// A secret: reads like text, prints and serializes as `(redacted)`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Scalar")]
pub struct Secret(String);

/// YAML reads `true` and `5` as what they look like; where text is wanted they are text.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Scalar {
    Text(String),
    Flag(bool),
    Integer(i64),
    Float(f64),
}

impl From<Scalar> for String {
    fn from(scalar: Scalar) -> Self {
        match scalar {
            Scalar::Text(text) => text,
            Scalar::Flag(flag) => flag.to_string(),
            Scalar::Integer(number) => number.to_string(),
            Scalar::Float(number) => number.to_string(),
        }
    }
}

impl From<Scalar> for Secret {
    fn from(scalar: Scalar) -> Self {
        Self(scalar.into())
    }
}

impl Secret {
    /// The text itself: for the call that needs it, and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}
