//! Profiles: what of an instance becomes an event, and in which form. Pure.
//!
//! A profile renders an [`Instance`] to a [`Device`], which is what is compared, kept and reported, and a device to an
//! [`Event`]. Everything else (state, changes, encodings) knows devices and events only as JSON or through serde.

pub mod diff;
pub mod encode;
pub mod sekoia;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::device::Instance;

/// Version of the mapping. A higher one re-renders every device that a lower one wrote: raise it with every change that
/// can alter an event, and only then.
pub const MAPPING_VERSION: i32 = 1;

/// `State.Name` of an instance that will not come back.
pub const TERMINATED: &str = "terminated";

/// The choice of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The events of Sekoia's AWS devices connector.
    Sekoia,
}

impl Profile {
    /// The name, as configured and as the header `profile` has it.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Sekoia => "sekoia",
        }
    }

    /// The Avro schema of its events.
    pub fn schema_json(self) -> &'static str {
        match self {
            Profile::Sekoia => include_str!("../../schemas/sekoia.avsc"),
        }
    }
}

/// What an event's `time` says, in the profile that leaves the choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeField {
    /// When the instance was launched, as the vendor's page has it.
    #[default]
    Launched,
    /// When it was seen, for SIEMs that index by event time.
    Observed,
}

/// A profile with its options: all that decides how an instance is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// The choice of events.
    pub profile: Profile,
    /// What `time` says.
    pub time: TimeField,
}

/// Stands for a [`Mapping`] and its version: devices of equal fingerprint were rendered by equal rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint(pub i64);

/// What a profile renders of an instance.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Device {
    /// Of profile `sekoia`.
    Sekoia(sekoia::Device),
}

/// An event of a profile.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Event<'a> {
    /// Of profile `sekoia`.
    Sekoia(sekoia::Event<'a>),
}

impl Mapping {
    /// Changes whenever a device could come out differently.
    pub fn fingerprint(&self) -> Fingerprint {
        // `time` is of the event, not of the device: it alters nothing that is compared.
        let Self { profile, time: _ } = self;
        let hash = blake3::hash(format!("{MAPPING_VERSION} {}", profile.name()).as_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash.as_bytes()[..8]);
        Fingerprint(i64::from_le_bytes(bytes))
    }

    /// Renders the instance `uid`; `account` is the one that was swept.
    pub fn render(&self, uid: &str, instance: &Instance<'_>, account: Option<&str>) -> Device {
        match self.profile {
            Profile::Sekoia => Device::Sekoia(sekoia::Device::render(uid, instance, account)),
        }
    }

    /// Reads a device back from its canonical JSON.
    ///
    /// # Errors
    /// When the text is no device of this profile.
    pub fn device_from_json(&self, json: &str) -> Result<Device, serde_json::Error> {
        match self.profile {
            Profile::Sekoia => serde_json::from_str(json).map(Device::Sekoia),
        }
    }

    /// The event that reports `device` as seen at `observed_at`.
    pub fn event<'a>(&self, device: &'a Device, observed_at: DateTime<Utc>) -> Event<'a> {
        match device {
            Device::Sekoia(device) => Event::Sekoia(device.event(observed_at, self.time)),
        }
    }
}

impl Device {
    /// Canonical JSON: equal devices give equal text.
    ///
    /// # Errors
    /// None that a device can cause.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// The device as it is reported once terminated.
    pub fn terminated(self) -> Self {
        match self {
            Device::Sekoia(device) => Device::Sekoia(device.in_state(TERMINATED)),
        }
    }
}
