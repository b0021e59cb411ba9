//! How an event is written: JSON, or Avro framed for a schema registry or for none.

use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::{Deserialize, Serialize};

use super::{Event, Profile};
use crate::avro::{embedded, single_object_header};

/// Room for an event: most need no more.
const TYPICAL_BYTES: usize = 4096;

/// The configured choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Avro: Confluent wire format with a schema registry, single-object encoding without.
    #[default]
    Avro,
    /// One JSON object.
    Json,
}

/// What precedes an Avro datum, so that a reader finds the schema that wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Confluent wire format: a zero byte and the registry's schema ID.
    Confluent {
        /// The ID under which the registry knows the schema.
        schema_id: u32,
    },
    /// Avro's single-object encoding: two marker bytes and the fingerprint of the schema.
    SingleObject,
}

static SEKOIA: LazyLock<Schema> = LazyLock::new(|| embedded(Profile::Sekoia.schema_json()));
static OCSF: LazyLock<Schema> = LazyLock::new(|| embedded(Profile::Ocsf.schema_json()));
static CSE: LazyLock<Schema> = LazyLock::new(|| embedded(Profile::Cse.schema_json()));

/// An event could not be written by its schema.
#[derive(Debug, thiserror::Error)]
#[error("the event cannot be encoded: {0}")]
pub struct EncodeError(String);

/// Writes events of one profile in one encoding.
pub struct Encoder {
    form: Form,
}

enum Form {
    Json,
    Avro { header: Vec<u8>, writer: GenericDatumWriter<'static> },
}

impl Encoder {
    /// Events as JSON.
    pub fn json() -> Self {
        Self { form: Form::Json }
    }

    /// Events of `profile` as Avro.
    ///
    /// # Errors
    /// None with the embedded schemas.
    pub fn avro(profile: Profile, framing: Framing) -> Result<Self, EncodeError> {
        let schema: &'static Schema = match profile {
            Profile::Sekoia => &SEKOIA,
            Profile::Ocsf => &OCSF,
            Profile::Cse => &CSE,
        };
        let header = match framing {
            Framing::Confluent { schema_id } => [&[0], schema_id.to_be_bytes().as_slice()].concat(),
            Framing::SingleObject => single_object_header(schema),
        };
        let writer = GenericDatumWriter::builder(schema).build().map_err(|error| EncodeError(error.to_string()))?;
        Ok(Self { form: Form::Avro { header, writer } })
    }

    /// The bytes of one event.
    ///
    /// # Errors
    /// When the event does not fit the schema: a fault of this program, not of the record.
    pub fn encode(&self, event: &Event<'_>) -> Result<Vec<u8>, EncodeError> {
        match &self.form {
            Form::Json => serde_json::to_vec(event).map_err(|error| EncodeError(error.to_string())),
            Form::Avro { header, writer } => {
                let mut bytes = Vec::with_capacity(TYPICAL_BYTES);
                bytes.extend_from_slice(header);
                writer.write_ser(&mut bytes, event).map_err(|error| EncodeError(error.to_string()))?;
                Ok(bytes)
            }
        }
    }
}
