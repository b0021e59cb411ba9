//! Bytes of a record to the JSON that they stand for, by what they begin with. Pure: who knows a schema tells it.

use std::collections::HashMap;
use std::io::Read;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use serde_json::Value;

use crate::avro::{MARKER, embedded, single_object_header};
use crate::record::dump::hex;

/// Every schema that a release has written with, and those that this one writes with.
const SCHEMAS: [&str; 10] = [
    include_str!("../../schemas/sekoia.avsc"),
    include_str!("../../schemas/ocsf.avsc"),
    include_str!("../../schemas/cse.avsc"),
    include_str!("../../schemas/device-state.avsc"),
    include_str!("../../schemas/sweep-head.avsc"),
    include_str!("../../schemas/sweep-entry.avsc"),
    include_str!("../../schemas/sweep-acceptance.avsc"),
    include_str!("../../schemas/released/0.1.0/sekoia.avsc"),
    include_str!("../../schemas/released/0.1.0/ocsf.avsc"),
    include_str!("../../schemas/released/0.1.0/cse.avsc"),
];
/// How many answers of the registry are kept. Whoever may write to a topic can make up IDs.
const MOST_IDS: usize = 1000;
/// How much is shown of bytes that nobody can read.
const SHOWN_BYTES: usize = 16;

/// What became of a record's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// There is none.
    Tombstone,
    /// It could be read.
    Value(Value),
    /// It could not, for this reason.
    Unreadable(String),
}

/// The registry has to be asked for this schema first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unasked(pub u32);

/// Decodes values, of whatever form.
pub struct Decoder {
    by_fingerprint: HashMap<Vec<u8>, Schema>,
    by_id: HashMap<u32, Result<Schema, String>>,
}

impl Default for Decoder {
    fn default() -> Self {
        let schemas = SCHEMAS.into_iter().map(embedded);
        let by_fingerprint = schemas.map(|schema| (single_object_header(&schema), schema)).collect();
        Self { by_fingerprint, by_id: HashMap::new() }
    }
}

impl Decoder {
    /// Reads a value that is Avro in one of two framings, or JSON.
    ///
    /// # Errors
    /// When the registry has to be asked: see [`learn`](Self::learn).
    pub fn decode(&self, value: Option<&[u8]>) -> Result<Decoded, Unasked> {
        let Some(bytes) = value else { return Ok(Decoded::Tombstone) };
        if bytes.starts_with(&MARKER)
            && let Some((header, datum)) = bytes.split_at_checked(MARKER.len() + 8)
        {
            return Ok(match self.by_fingerprint.get(header) {
                Some(schema) => avro(schema, datum, bytes),
                None => {
                    let fingerprint = hex(&header[MARKER.len()..]);
                    unreadable(
                        bytes,
                        &format!("Avro of an unknown schema (fingerprint {fingerprint}; a newer release?)"),
                    )
                }
            });
        }
        if let Some((&[0, a, b, c, d], datum)) = bytes.split_first_chunk::<5>() {
            let id = u32::from_be_bytes([a, b, c, d]);
            return match self.by_id.get(&id).ok_or(Unasked(id))? {
                Ok(schema) => Ok(avro(schema, datum, bytes)),
                Err(reason) => Ok(unreadable(bytes, &format!("framed for schema ID {id}: {reason}"))),
            };
        }
        Ok(json(bytes))
    }

    /// Takes what the registry says of an ID: the schema, or why there is none.
    pub fn learn(&mut self, id: u32, schema: Result<String, String>) {
        if self.by_id.len() >= MOST_IDS {
            self.by_id.clear();
        }
        let parsed = schema.and_then(|text| {
            Schema::parse_str(&text).map_err(|error| format!("the registry's schema is not one of Avro ({error})"))
        });
        self.by_id.insert(id, parsed);
    }
}

fn avro(schema: &Schema, datum: &[u8], bytes: &[u8]) -> Decoded {
    let mut datum = Datum { rest: datum, ran_dry: false };
    let read = GenericDatumReader::builder(schema).build().and_then(|reader| reader.read_value(&mut datum));
    match read.and_then(Value::try_from) {
        Ok(_) if datum.ran_dry => unreadable(bytes, "damaged Avro (it ends too early)"),
        Ok(_) if !datum.rest.is_empty() => {
            unreadable(bytes, &format!("Avro with {} bytes left over", datum.rest.len()))
        }
        Ok(value) => Decoded::Value(value),
        Err(error) => unreadable(bytes, &format!("damaged Avro ({error})")),
    }
}

/// Notes when more is read than there is: the library takes a text or an optional member that is cut off for null.
struct Datum<'a> {
    rest: &'a [u8],
    ran_dry: bool,
}

impl Read for Datum<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.ran_dry |= self.rest.len() < buffer.len();
        self.rest.read(buffer)
    }
}

/// Reads a value that is JSON.
pub fn json(bytes: &[u8]) -> Decoded {
    match serde_json::from_slice(bytes) {
        Ok(value) => Decoded::Value(value),
        Err(_) => unreadable(bytes, "neither Avro nor JSON"),
    }
}

fn unreadable(bytes: &[u8], what: &str) -> Decoded {
    let shown = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let begin = if bytes.is_empty() { String::new() } else { format!(" 0x{}", hex(shown)) };
    let more = if shown.len() < bytes.len() { "…" } else { "" };
    Decoded::Unreadable(format!("{what}: {} bytes{begin}{more}", bytes.len()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::device::Instance;
    use crate::profile::change::{Occurrence, Origin};
    use crate::profile::encode::{Encoder, Framing};
    use crate::profile::{Mapping, Profile, Scope};

    /// An event of the profile, encoded.
    fn event(profile: Profile, encoder: &Encoder) -> Vec<u8> {
        let mapping = Mapping { profile, ..Mapping::default() };
        let instance = r#"{"InstanceId": "i-1", "OwnerId": "123456789012", "State": {"Name": "running"}}"#;
        let mut device = mapping.render("i-1", &Instance::in_full(instance).unwrap(), Scope::default());
        encoder.encode(&mapping.event(&mut device, &Occurrence::created(1_780_000_000_000, Origin::default()))).unwrap()
    }

    fn single_object(profile: Profile) -> Vec<u8> {
        event(profile, &Encoder::avro(profile, Framing::SingleObject).unwrap())
    }

    fn without_absent(value: &Value) -> Value {
        match value {
            Value::Object(members) => members
                .iter()
                .map(|(name, member)| (name.clone(), without_absent(member)))
                .filter(|(_, member)| !member.is_null() && *member != json!([]) && *member != json!({}))
                .collect(),
            Value::Array(elements) => elements.iter().map(without_absent).collect(),
            other => other.clone(),
        }
    }

    #[track_caller]
    fn value(decoded: Result<Decoded, Unasked>) -> Value {
        let Ok(Decoded::Value(mut value)) = decoded else { panic!("{decoded:?}") };
        // Avro has no type for just any JSON: profile `ocsf` writes that as text.
        value.as_object_mut().unwrap().remove("unmapped");
        without_absent(&value)
    }

    #[track_caller]
    fn reason(decoded: Result<Decoded, Unasked>) -> String {
        let Ok(Decoded::Unreadable(reason)) = decoded else { panic!("{decoded:?}") };
        reason
    }

    #[test]
    fn an_event_says_the_same_in_every_encoding() {
        let mut decoder = Decoder::default();
        for (profile, schema_id) in Profile::ALL.into_iter().zip(7..) {
            let json = value(decoder.decode(Some(&event(profile, &Encoder::json()))));
            assert_eq!(value(decoder.decode(Some(&single_object(profile)))), json);
            let framed = event(profile, &Encoder::avro(profile, Framing::Confluent { schema_id }).unwrap());
            assert_eq!(decoder.decode(Some(&framed)), Err(Unasked(schema_id)));
            decoder.learn(schema_id, Ok(profile.schema_json().to_owned()));
            assert_eq!(value(decoder.decode(Some(&framed))), json);
        }
    }

    #[test]
    fn every_schema_of_the_repository_is_known() {
        fn schemas(folder: &Path) -> Vec<Schema> {
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            entries
                .flat_map(|path| match path.extension() {
                    _ if path.is_dir() => schemas(&path),
                    Some(extension) if extension == "avsc" => vec![embedded(&std::fs::read_to_string(path).unwrap())],
                    _ => Vec::new(),
                })
                .collect()
        }
        let schemas = schemas(&Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas"));
        assert!(schemas.len() >= 10);
        let decoder = Decoder::default();
        for schema in schemas {
            assert!(decoder.by_fingerprint.contains_key(&single_object_header(&schema)), "{:?}", schema.name());
        }
    }

    #[test]
    fn a_tombstone_is_no_value() {
        assert_eq!(Decoder::default().decode(None), Ok(Decoded::Tombstone));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_size_and_beginning() {
        let mut decoder = Decoder::default();
        let foreign = |bytes: &[u8]| reason(decoder.decode(Some(bytes)));
        assert_eq!(foreign(b""), "neither Avro nor JSON: 0 bytes");
        assert_eq!(foreign(b"\x1b[2J"), "neither Avro nor JSON: 4 bytes 0x1b5b324a");
        assert_eq!(foreign(&[0xFF; 40]), format!("neither Avro nor JSON: 40 bytes 0x{}…", "ff".repeat(16)));
        let unknown = foreign(b"\xc3\x01\x01\x02\x03\x04\x05\x06\x07\x08rest");
        assert!(unknown.starts_with("Avro of an unknown schema (fingerprint 0102030405060708; a newer"), "{unknown}");
        let bytes = [single_object(Profile::Sekoia), b"xyz".to_vec()].concat();
        assert!(foreign(&bytes).starts_with("Avro with 3 bytes left over"));
        decoder.learn(9, Err("the registry knows no such schema".to_owned()));
        let unknown = reason(decoder.decode(Some(b"\0\0\0\0\x09abc")));
        assert_eq!(unknown, "framed for schema ID 9: the registry knows no such schema: 8 bytes 0x0000000009616263");
        decoder.learn(9, Ok("message M {}".to_owned()));
        assert!(reason(decoder.decode(Some(b"\0\0\0\0\x09abc"))).contains("is not one of Avro"));
    }

    #[test]
    fn damaged_bytes_are_told_and_never_end_the_program() {
        let decoder = Decoder::default();
        for profile in Profile::ALL {
            let bytes = single_object(profile);
            for length in 10..bytes.len() {
                assert!(reason(decoder.decode(Some(&bytes[..length]))).starts_with("damaged Avro"), "{length}");
            }
            for place in 0..bytes.len() {
                for flipped in [0x01, 0x40, 0x80, 0xFF] {
                    let mut bytes = bytes.clone();
                    bytes[place] ^= flipped;
                    let _ = decoder.decode(Some(&bytes));
                }
            }
        }
    }

    #[test]
    fn what_is_kept_of_the_registry_is_bounded() {
        let mut decoder = Decoder::default();
        (0..5000).for_each(|id| decoder.learn(id, Err(String::new())));
        assert!(decoder.by_id.len() <= MOST_IDS);
    }
}
