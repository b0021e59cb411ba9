//! Avro's single-object encoding: each value names the schema that wrote it.

use std::marker::PhantomData;

use apache_avro::rabin::Rabin;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{AvroResult, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes 0 and 1 of the encoding.
const MARKER: [u8; 2] = [0xC3, 0x01];

/// What precedes a value: the marker, and CRC-64-AVRO of the parsing canonical form of the schema that wrote it.
pub fn single_object_header(schema: &Schema) -> Vec<u8> {
    [MARKER.as_slice(), &schema.fingerprint::<Rabin>().bytes].concat()
}

/// Parses a schema that the binary carries.
///
/// # Panics
/// When the schema is broken: a fault of the build, which the first test that runs finds.
pub fn embedded(json: &str) -> Schema {
    Schema::parse_str(json).expect("an embedded schema is valid")
}

/// Why bytes are not a value of the schema.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The messages tell.
pub enum DecodeError {
    #[error("it is not in Avro's single-object encoding: something else writes to the topic")]
    Foreign,
    #[error("it was written with an unknown schema (fingerprint {0:016x}): by a newer release; upgrade this one")]
    NewerFormat(u64),
    #[error("it is damaged: {0}")]
    Damaged(String),
}

/// Writes and reads values of one schema.
pub struct SingleObject<T> {
    header: Vec<u8>,
    writer: GenericDatumWriter<'static>,
    reader: GenericDatumReader<'static>,
    of: PhantomData<fn(T) -> T>,
}

impl<T: Serialize + DeserializeOwned> SingleObject<T> {
    /// Values of `schema`.
    ///
    /// # Errors
    /// None with a schema that parses.
    pub fn new(schema: &'static Schema) -> AvroResult<Self> {
        Ok(Self {
            header: single_object_header(schema),
            writer: GenericDatumWriter::builder(schema).build()?,
            reader: GenericDatumReader::builder(schema).build()?,
            of: PhantomData,
        })
    }

    /// The bytes of a value.
    ///
    /// # Errors
    /// When the value does not fit the schema.
    pub fn encode(&self, value: &T) -> AvroResult<Vec<u8>> {
        let mut bytes = self.header.clone();
        self.writer.write_ser(&mut bytes, value)?;
        Ok(bytes)
    }

    /// The value of bytes.
    ///
    /// # Errors
    /// When they are none of ours, damaged, or of a schema that this release does not know.
    pub fn decode(&self, bytes: &[u8]) -> Result<T, DecodeError> {
        let rest = bytes.strip_prefix(&MARKER).ok_or(DecodeError::Foreign)?;
        let (fingerprint, mut datum) = rest.split_first_chunk::<8>().ok_or(DecodeError::Foreign)?;
        if *fingerprint != self.header[MARKER.len()..] {
            return Err(DecodeError::NewerFormat(u64::from_le_bytes(*fingerprint)));
        }
        self.reader.read_deser(&mut datum).map_err(|error| DecodeError::Damaged(error.to_string()))
    }
}
