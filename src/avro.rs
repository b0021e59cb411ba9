//! Avro's single-object encoding: each value names the schema that wrote it.

use std::marker::PhantomData;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{AvroResult, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::profile::encode::{SINGLE_OBJECT_MARKER, rabin_fingerprint};

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
            header: [SINGLE_OBJECT_MARKER.as_slice(), &rabin_fingerprint(schema)].concat(),
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
        let rest = bytes.strip_prefix(&SINGLE_OBJECT_MARKER).ok_or(DecodeError::Foreign)?;
        let (fingerprint, mut datum) = rest.split_first_chunk::<8>().ok_or(DecodeError::Foreign)?;
        if *fingerprint != self.header[SINGLE_OBJECT_MARKER.len()..] {
            return Err(DecodeError::NewerFormat(u64::from_le_bytes(*fingerprint)));
        }
        self.reader.read_deser(&mut datum).map_err(|error| DecodeError::Damaged(error.to_string()))
    }
}
