//! Avro's single-object encoding: each value names the schema that wrote it.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use apache_avro::rabin::Rabin;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{AvroResult, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Has values of a type, whose members are two or more and listed in the order of its schema, written to Avro by place, and to
/// JSON as it is derived for it (`#[serde(remote = "Self")]`). By name, apache-avro looks each member up in a tree, and
/// hashes its place to find out whether it came early: half of the time that an event takes.
macro_rules! by_place {
    ($type:ty { $($member:ident $(as $written:path)?),+ $(,)? }) => {
        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use ::serde::ser::SerializeTuple as _;
                if serializer.is_human_readable() {
                    return Self::serialize(self, serializer);
                }
                let mut record = serializer.serialize_tuple([$(stringify!($member)),+].len())?;
                $(record.serialize_element($crate::avro::by_place!(@ &self.$member $(, $written)?))?;)+
                record.end()
            }
        }
    };
    (@ $value:expr) => { $value };
    (@ $value:expr, $written:path) => { &$written($value) };
}
pub(crate) use by_place;

/// The same for a type that is read, too.
macro_rules! by_place_and_back {
    ($type:ty { $($members:tt)+ }) => {
        $crate::avro::by_place!($type { $($members)+ });
        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::deserialize(deserializer)
            }
        }
    };
}
pub(crate) use by_place_and_back;

/// An empty list as null, by place.
pub(crate) fn null_if_empty<T>(list: &Vec<T>) -> Option<&Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}

/// Room for a value: most need no more.
const TYPICAL_BYTES: usize = 2048;

/// Bytes 0 and 1 of the encoding.
pub const MARKER: [u8; 2] = [0xC3, 0x01];

/// What precedes a value: the marker, and CRC-64-AVRO of the parsing canonical form of the schema that wrote it.
pub fn single_object_header(schema: &Schema) -> Vec<u8> {
    [MARKER.as_slice(), &fingerprint(schema)].concat()
}

fn fingerprint(schema: &Schema) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&schema.fingerprint::<Rabin>().bytes);
    bytes
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

/// Writes values of one schema; reads these, and those that its predecessors wrote.
pub struct SingleObject<T> {
    header: Vec<u8>,
    writer: GenericDatumWriter<'static>,
    /// By the fingerprint of the schema that wrote.
    readers: BTreeMap<[u8; 8], GenericDatumReader<'static>>,
    /// Covariant: a `T` that borrows is written by what reads one that owns.
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> SingleObject<T> {
    /// Values of `schema`.
    ///
    /// # Errors
    /// None with a schema that parses.
    pub fn new(schema: &'static Schema) -> AvroResult<Self> {
        let format = Self {
            header: single_object_header(schema),
            writer: GenericDatumWriter::builder(schema).build()?,
            readers: BTreeMap::new(),
            of: PhantomData,
        };
        format.reading(schema)
    }

    /// Reads what a past schema wrote, too. What `T` no longer has is skipped; what it has gained must have a default
    /// there. Not Avro's own resolution, which here is slow and takes a value that ends too early for null.
    ///
    /// # Errors
    /// None with a schema that parses.
    pub fn reading(mut self, past: &'static Schema) -> AvroResult<Self> {
        self.readers.insert(fingerprint(past), GenericDatumReader::builder(past).build()?);
        Ok(self)
    }

    /// The bytes of a value.
    ///
    /// # Errors
    /// When the value does not fit the schema.
    pub fn encode(&self, value: &T) -> AvroResult<Vec<u8>> {
        let mut bytes = Vec::with_capacity(TYPICAL_BYTES);
        bytes.extend_from_slice(&self.header);
        self.writer.write_ser(&mut bytes, value)?;
        Ok(bytes)
    }

    /// The value of bytes.
    ///
    /// # Errors
    /// When they are none of ours, damaged, or of a schema that this release does not know.
    pub fn decode(&self, bytes: &[u8]) -> Result<T, DecodeError> {
        let rest = bytes.strip_prefix(&MARKER).ok_or(DecodeError::Foreign)?;
        let (writer, mut datum) = rest.split_first_chunk::<8>().ok_or(DecodeError::Foreign)?;
        let unknown = || DecodeError::NewerFormat(u64::from_le_bytes(*writer));
        let reader = self.readers.get(writer).ok_or_else(unknown)?;
        let value = reader.read_deser(&mut datum).map_err(|error| DecodeError::Damaged(error.to_string()))?;
        if !datum.is_empty() {
            return Err(DecodeError::Damaged(format!("{} bytes are left over", datum.len())));
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    #[serde(rename = "Thing")]
    struct Thing {
        name: String,
        #[serde(default = "seven")]
        size: i64,
        #[serde(alias = "color")]
        colour: Option<String>,
    }

    fn seven() -> i64 {
        7
    }

    static TODAY: LazyLock<Schema> = LazyLock::new(|| {
        embedded(
            r#"{"type": "record", "name": "Thing", "fields": [
                {"name": "name", "type": "string"},
                {"name": "size", "type": "long", "default": 7},
                {"name": "colour", "type": ["null", "string"], "default": null}]}"#,
        )
    });
    /// The size was not known yet, the weight has been dropped since, and a name has changed.
    static PAST: LazyLock<Schema> = LazyLock::new(|| {
        embedded(
            r#"{"type": "record", "name": "Thing", "fields": [
                {"name": "weight", "type": {"type": "array", "items": "double"}},
                {"name": "name", "type": "string"},
                {"name": "color", "type": ["null", "string"], "default": null}]}"#,
        )
    });

    #[derive(Serialize, serde::Deserialize)]
    #[serde(rename = "Thing")]
    struct PastThing {
        weight: Vec<f64>,
        name: String,
        color: Option<String>,
    }

    fn written_in_the_past() -> Vec<u8> {
        let thing = PastThing { weight: vec![1.5, 2.5], name: "n".to_owned(), color: Some("red".to_owned()) };
        SingleObject::<PastThing>::new(&PAST).unwrap().encode(&thing).unwrap()
    }

    #[test]
    fn what_a_past_schema_wrote_is_read_as_of_todays() {
        let format = SingleObject::<Thing>::new(&TODAY).unwrap().reading(&PAST).unwrap();
        let expected = Thing { name: "n".to_owned(), size: 7, colour: Some("red".to_owned()) };
        assert_eq!(format.decode(&written_in_the_past()), Ok(expected));
        let thing = || Thing { name: "today".to_owned(), size: 1, colour: None };
        assert_eq!(format.decode(&format.encode(&thing()).unwrap()), Ok(thing()));
    }

    #[test]
    fn by_place_the_same_is_written_as_by_name() {
        #[derive(Serialize)]
        struct ByName {
            name: String,
            #[serde(rename = "kind", skip_serializing_if = "Option::is_none")]
            of: Option<String>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            parts: Vec<i32>,
        }
        #[derive(Serialize)]
        #[serde(remote = "Self")]
        struct ByPlace {
            name: String,
            #[serde(rename = "kind", skip_serializing_if = "Option::is_none")]
            of: Option<String>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            parts: Vec<i32>,
        }
        by_place!(ByPlace { name, of, parts as null_if_empty });
        let schema = embedded(
            r#"{"type": "record", "name": "Thing", "fields": [
                {"name": "name", "type": "string"},
                {"name": "kind", "type": ["null", "string"], "default": null},
                {"name": "parts", "type": ["null", {"type": "array", "items": "int"}], "default": null}]}"#,
        );
        fn written(schema: &Schema, thing: &impl Serialize) -> (Vec<u8>, String) {
            let mut bytes = Vec::new();
            GenericDatumWriter::builder(schema).build().unwrap().write_ser(&mut bytes, thing).unwrap();
            (bytes, serde_json::to_string(thing).unwrap())
        }
        for (of, parts) in [(None, vec![]), (Some("x"), vec![1, 2]), (None, vec![3])] {
            let name = ByName { name: "n".to_owned(), of: of.map(str::to_owned), parts };
            let place = ByPlace { name: name.name.clone(), of: name.of.clone(), parts: name.parts.clone() };
            assert_eq!(written(&schema, &place), written(&schema, &name));
        }
    }

    #[test]
    fn what_an_unknown_schema_wrote_is_refused_by_its_fingerprint() {
        let format = SingleObject::<Thing>::new(&TODAY).unwrap();
        let told = u64::from_le_bytes(fingerprint(&PAST));
        assert_eq!(format.decode(&written_in_the_past()), Err(DecodeError::NewerFormat(told)));
    }

    #[test]
    fn bytes_that_are_missing_or_left_over_are_damage() {
        let format = SingleObject::<Thing>::new(&TODAY).unwrap().reading(&PAST).unwrap();
        let today = format.encode(&Thing { name: "n".to_owned(), size: 1, colour: None }).unwrap();
        for good in [today, written_in_the_past()] {
            let longer = [good.as_slice(), &[0]].concat();
            for damaged in [&good[..good.len() - 1], &longer] {
                let decoded = format.decode(damaged);
                assert!(matches!(decoded, Err(DecodeError::Damaged(_))), "{decoded:?}");
            }
        }
    }
}
