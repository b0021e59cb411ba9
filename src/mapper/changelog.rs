//! Device states as they lie on the state topic, the mapper's memory between runs.
//!
//! The value is Avro in single-object encoding (`schemas/device-state.avsc`), so that each record names the schema that
//! wrote it. Schemas of past releases stay embedded here; one that is not here was written by a newer release.

use std::borrow::Cow;
use std::sync::LazyLock;

use apache_avro::Schema;
use serde::{Deserialize, Serialize, Serializer};

use super::port::{Destination, Output};
use super::state::{DeviceState, Known, Life, Removal, Rendering};
use crate::avro::{DecodeError, SingleObject, by_place_and_back, embedded};
use crate::profile::{Fingerprint, MAPPING_VERSION, Profile};
use crate::record::{Digest, RawRecord, Secret};

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| embedded(include_str!("../../schemas/device-state.avsc")));
/// Those that releases wrote with, the oldest first. A release that changes the schema adds its predecessor's.
static PAST: LazyLock<[Schema; 1]> =
    LazyLock::new(|| [include_str!("../../schemas/released/0.1.0/device-state.avsc")].map(embedded));

/// Why a record of the state topic cannot be taken over. The partition is left alone then.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The messages tell.
pub enum StateError {
    #[error(transparent)]
    Unreadable(#[from] DecodeError),
    #[error("it was written by mapping version {found}, this is version {MAPPING_VERSION}; upgrade this one")]
    NewerMapping { found: i32 },
    #[error(
        "it was written by profile {found:?}, this is {expected:?}; a profile needs a group and a state topic of its own"
    )]
    OtherProfile { found: String, expected: &'static str },
}

/// `schemas/device-state.avsc`, member for member.
#[derive(Serialize, Deserialize)]
#[serde(rename = "DeviceState", remote = "Self")]
struct Written<'a> {
    profile: Cow<'a, str>,
    mapping_version: i32,
    fingerprint: i64,
    revision: i64,
    observed_at: i64,
    raw_offset: i64,
    first_seen: i64,
    last_change: i64,
    #[serde(with = "apache_avro::serde::fixed")]
    digest: [u8; 16],
    #[serde(with = "apache_avro::serde::fixed")]
    digest_key: [u8; 32],
    device: Option<Cow<'a, str>>,
    removed: Option<Removal>,
}

by_place_and_back!(Written<'_> {
    profile, mapping_version, fingerprint, revision, observed_at, raw_offset, first_seen, last_change, digest as Fixed,
    digest_key as Fixed, device, removed,
});

/// Bytes of a fixed number, by place.
struct Fixed<'a, const N: usize>(&'a [u8; N]);

impl<const N: usize> Serialize for Fixed<'_, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        apache_avro::serde::fixed::serialize(self.0, serializer)
    }
}

/// Reads and writes device states of one profile.
pub struct Changelog {
    profile: Profile,
    format: SingleObject<Written<'static>>,
}

impl Changelog {
    /// States of `profile`.
    ///
    /// # Errors
    /// None with the embedded schema.
    pub fn new(profile: Profile) -> Result<Self, apache_avro::Error> {
        Self::reading(profile, &*PAST)
    }

    fn reading(profile: Profile, past: &'static [Schema]) -> Result<Self, apache_avro::Error> {
        let format = past.iter().try_fold(SingleObject::new(&SCHEMA)?, SingleObject::reading)?;
        Ok(Self { profile, format })
    }

    /// The record of the state topic that says `state` of the device that `record` is about.
    ///
    /// # Errors
    /// None that a state can cause.
    pub fn record(&self, record: &RawRecord<'_>, state: &DeviceState) -> Result<Output, apache_avro::Error> {
        Ok(Output {
            destination: Destination::State,
            partition: record.partition,
            key: record.key.map(<[u8]>::to_vec),
            value: Some(self.encode(state)?),
            headers: Vec::new(),
        })
    }

    /// The value of a state record.
    ///
    /// # Errors
    /// None that a state can cause.
    pub fn encode(&self, state: &DeviceState) -> Result<Vec<u8>, apache_avro::Error> {
        let (known, device, removed) = match &state.life {
            Life::Present(rendering) => (Some(rendering.known), Some(Cow::Borrowed(&*rendering.device)), None),
            Life::Gone(removal) => (None, None, Some(*removal)),
        };
        let written = Written {
            profile: self.profile.name().into(),
            mapping_version: MAPPING_VERSION,
            fingerprint: known.map_or(0, |known| known.fingerprint.0),
            revision: state.revision,
            observed_at: state.observed_at,
            raw_offset: state.raw_offset,
            first_seen: state.first_seen,
            last_change: state.last_change,
            digest: known.map_or([0; 16], |known| known.digest.hash),
            digest_key: known.map_or([0; 32], |known| known.digest.secret.0),
            device,
            removed,
        };
        self.format.encode(&written)
    }

    /// Reads the value of a state record.
    ///
    /// # Errors
    /// When the record is none of ours, damaged, of another profile, or from a newer release.
    pub fn decode(&self, value: &[u8]) -> Result<DeviceState, StateError> {
        let written = self.format.decode(value)?;
        if written.profile != self.profile.name() {
            return Err(StateError::OtherProfile {
                found: written.profile.into_owned(),
                expected: self.profile.name(),
            });
        }
        if written.mapping_version > MAPPING_VERSION {
            return Err(StateError::NewerMapping { found: written.mapping_version });
        }
        let life = match (written.device, written.removed) {
            (Some(device), None) => {
                let digest = Digest { secret: Secret(written.digest_key), hash: written.digest };
                let known = Known { digest, fingerprint: Fingerprint(written.fingerprint) };
                Life::Present(Rendering { known, device: device.into_owned() })
            }
            (None, Some(removal)) => Life::Gone(removal),
            _ => return Err(DecodeError::Damaged("neither present nor gone".to_owned()).into()),
        };
        Ok(DeviceState {
            revision: written.revision,
            observed_at: written.observed_at,
            raw_offset: written.raw_offset,
            first_seen: written.first_seen,
            last_change: written.last_change,
            life,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state(life: Life) -> DeviceState {
        DeviceState {
            revision: 3,
            observed_at: 1_756_218_878_123,
            raw_offset: 42,
            first_seen: 1_756_000_000_000,
            last_change: 1_756_218_878_123,
            life,
        }
    }

    fn present() -> DeviceState {
        state(Life::Present(Rendering {
            known: Known { digest: Digest { secret: Secret([8; 32]), hash: [7; 16] }, fingerprint: Fingerprint(-5) },
            device: r#"{"uid":"i-1"}"#.into(),
        }))
    }

    #[test]
    fn what_is_written_is_read() {
        let changelog = Changelog::new(Profile::Sekoia).unwrap();
        for state in [present(), state(Life::Gone(Removal::Absent)), state(Life::Gone(Removal::Terminated))] {
            assert_eq!(changelog.decode(&changelog.encode(&state).unwrap()), Ok(state));
        }
    }

    #[test]
    fn what_an_older_release_wrote_is_read() {
        // One that knew no removed devices, and kept something that is dropped since.
        let mut older: serde_json::Value =
            serde_json::from_str(include_str!("../../schemas/device-state.avsc")).unwrap();
        let fields = older["fields"].as_array_mut().unwrap();
        fields.retain(|field| field["name"] != "removed");
        fields.insert(0, serde_json::json!({"name": "dropped", "type": "string"}));
        let older: &'static [Schema] = vec![embedded(&older.to_string())].leak();

        let changelog = Changelog::reading(Profile::Sekoia, older).unwrap();
        let today = changelog.encode(&present()).unwrap();
        // Behind the header: the member that was dropped since, then as today without the last member, one byte of null.
        let header = crate::avro::single_object_header(&older[0]);
        let written = [&header, [2, b'x'].as_slice(), &today[header.len()..today.len() - 1]].concat();
        assert_eq!(changelog.decode(&written), Ok(present()));
        assert!(matches!(
            Changelog::new(Profile::Sekoia).unwrap().decode(&written),
            Err(StateError::Unreadable(DecodeError::NewerFormat(_)))
        ));
    }

    #[test]
    fn every_schema_that_was_released_is_embedded() {
        let released = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/released")).unwrap();
        for release in released {
            let path = release.unwrap().path().join("device-state.avsc");
            let schema = std::fs::read_to_string(&path).unwrap();
            assert!(PAST.contains(&embedded(&schema)), "{}", path.display());
        }
    }

    #[test]
    fn what_others_wrote_is_refused() {
        let changelog = Changelog::new(Profile::Sekoia).unwrap();
        let good = changelog.encode(&present()).unwrap();
        assert_eq!(changelog.decode(b"{}"), Err(DecodeError::Foreign.into()));
        assert_eq!(changelog.decode(b""), Err(DecodeError::Foreign.into()));
        let mut newer = good.clone();
        newer[2] ^= 1;
        assert!(matches!(changelog.decode(&newer), Err(StateError::Unreadable(DecodeError::NewerFormat(_)))));
        assert!(matches!(
            changelog.decode(&good[..good.len() - 3]),
            Err(StateError::Unreadable(DecodeError::Damaged(_)))
        ));
    }

    fn any_life() -> impl Strategy<Value = Life> {
        let known = (any::<[u8; 32]>(), any::<[u8; 16]>(), any::<i64>()).prop_map(|(secret, hash, fingerprint)| {
            Known { digest: Digest { secret: Secret(secret), hash }, fingerprint: Fingerprint(fingerprint) }
        });
        let present = (known, any::<String>()).prop_map(|(known, device)| Life::Present(Rendering { known, device }));
        prop_oneof![present, Just(Life::Gone(Removal::Absent)), Just(Life::Gone(Removal::Terminated))]
    }

    proptest! {
        #[test]
        fn any_state_is_read_as_it_was_written(
            life in any_life(),
            [revision, observed_at, raw_offset, first_seen, last_change]: [i64; 5],
        ) {
            let state = DeviceState { revision, observed_at, raw_offset, first_seen, last_change, life };
            for profile in Profile::ALL {
                let changelog = Changelog::new(profile).unwrap();
                let written = changelog.encode(&state).unwrap();
                prop_assert_eq!(changelog.decode(&written), Ok(state.clone()));
            }
        }
    }
}
