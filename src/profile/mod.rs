//! Profiles: what of an instance becomes an event, and in which form. Pure.
//!
//! A profile has two halves. It renders an instance to a [`Device`], which is what is compared, kept and reported; and a
//! device to an [`Event`], on which it stamps what belongs to this event only ([`Occurrence`]). Everything else (state,
//! changes, encodings) knows devices only as JSON, and events through serde.

pub mod change;
pub mod cse;
pub mod diff;
pub mod encode;
mod fold;
pub mod ignore;
pub mod ocsf;
pub mod os;
pub mod sekoia;

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::device::{Instance, region_in};
use change::Occurrence;
use diff::FieldChange;
use ignore::Ignore;

/// Version of the mapping. A higher one re-renders every device that a lower one wrote: raise it with every change that
/// can alter an event, and only then.
pub const MAPPING_VERSION: i32 = 1;

/// `State.Name` of an instance that will not come back.
pub const TERMINATED: &str = "terminated";

/// The choice of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The events of Sekoia's AWS devices connector.
    #[default]
    Sekoia,
    /// OCSF as its own schema has it, for whoever validates.
    Ocsf,
    /// The records of Sumo Logic's Cloud SIEM EC2 inventory source.
    Cse,
}

impl Profile {
    /// All of them.
    pub const ALL: [Profile; 3] = [Profile::Sekoia, Profile::Ocsf, Profile::Cse];

    /// The name, as configured and as the header `profile` has it.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Sekoia => "sekoia",
            Profile::Ocsf => "ocsf",
            Profile::Cse => "cse",
        }
    }

    /// The Avro schema of its events.
    pub fn schema_json(self) -> &'static str {
        match self {
            Profile::Sekoia => include_str!("../../schemas/sekoia.avsc"),
            Profile::Ocsf => include_str!("../../schemas/ocsf.avsc"),
            Profile::Cse => include_str!("../../schemas/cse.avsc"),
        }
    }

    /// Where the paths of a device's members begin.
    fn root(self) -> &'static str {
        match self {
            Profile::Sekoia => "device",
            Profile::Ocsf | Profile::Cse => "",
        }
    }

    /// What tells the elements of its lists apart.
    fn identities(self) -> &'static diff::Identities {
        match self {
            Profile::Sekoia | Profile::Cse => &[&["uid"]],
            Profile::Ocsf => ocsf::IDENTITIES,
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping {
    /// The choice of events.
    pub profile: Profile,
    /// What `time` says.
    pub time: TimeField,
    /// What never makes an event alone, beside what the profile says.
    pub ignore: Ignore,
    /// Labels of every event.
    pub labels: Vec<String>,
    /// The tenant whose events these are.
    pub tenant_uid: Option<String>,
}

/// Stands for a [`Mapping`] and its version: devices of equal fingerprint were rendered by equal rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub i64);

/// What was swept, for instances that do not tell it themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scope<'a> {
    /// The account.
    pub account: Option<&'a str>,
    /// The region.
    pub region: Option<&'a str>,
}

/// What a profile renders of an instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Device {
    /// Of profile `sekoia`.
    Sekoia(Box<sekoia::Device>),
    /// Of profile `ocsf`.
    Ocsf(Box<ocsf::Inventory>),
    /// Of profile `cse`.
    Cse(cse::Device),
}

/// An event of a profile.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Event<'a> {
    /// Of profile `sekoia`.
    Sekoia(sekoia::Event<'a>),
    /// Of profile `ocsf`.
    Ocsf(Box<ocsf::Event<'a>>),
    /// Of profile `cse`.
    Cse(cse::Event<'a>),
}

impl Mapping {
    /// Changes whenever a device could come out differently.
    pub fn fingerprint(&self) -> Fingerprint {
        // The others are of the event, not of the device: they alter nothing that is compared.
        let Self { profile, ignore, time: _, labels: _, tenant_uid: _ } = self;
        // What is no longer ignored must come out, though the raw record is the same.
        let ignored: String = ignore.written().iter().map(|ignored| format!("\n{ignored}")).collect();
        let hash = blake3::hash(format!("{MAPPING_VERSION} {}{ignored}", profile.name()).as_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash.as_bytes()[..8]);
        Fingerprint(i64::from_le_bytes(bytes))
    }

    /// Reads the value of a raw record, as far as the profile renders it.
    ///
    /// # Errors
    /// When it is not one JSON object.
    pub fn read<'a>(&self, value: &'a str) -> Result<Instance<'a>, serde_json::Error> {
        match self.profile {
            Profile::Sekoia | Profile::Cse => Instance::in_common(value),
            Profile::Ocsf => Instance::in_full(value),
        }
    }

    /// Renders the instance `uid`.
    pub fn render(&self, uid: &str, instance: &Instance<'_>, scope: Scope<'_>) -> Device {
        match self.profile {
            Profile::Sekoia => Device::Sekoia(Box::new(sekoia::Device::render(uid, instance, scope.account))),
            Profile::Ocsf => Device::Ocsf(Box::new(ocsf::Inventory::render(uid, instance, scope))),
            Profile::Cse => Device::Cse(cse::Device::render(uid, instance, scope.account)),
        }
    }

    /// Reads a device back from its canonical JSON.
    ///
    /// # Errors
    /// When the text is no device of this profile.
    pub fn device_from_json(&self, json: &str) -> Result<Device, serde_json::Error> {
        match self.profile {
            Profile::Sekoia => serde_json::from_str(json).map(Device::Sekoia),
            Profile::Ocsf => serde_json::from_str(json).map(Device::Ocsf),
            Profile::Cse => serde_json::from_str(json).map(Device::Cse),
        }
    }

    /// What differs between two devices in canonical JSON; nothing, where all that does never makes an event alone.
    pub fn differences(&self, before: &str, after: &str) -> Vec<FieldChange> {
        if before == after {
            return Vec::new();
        }
        // What is quiet is taken out by paths, of both alike: what is the same in both makes no difference to that.
        let [mut before, mut after] = diff::contrast(before, after);
        let differences = diff::diff(self.profile.root(), self.profile.identities(), &before, &after);
        self.fold(&mut before);
        self.fold(&mut after);
        if before == after { Vec::new() } else { differences }
    }

    /// Takes out of a device what never makes an event alone.
    fn fold(&self, device: &mut Value) {
        match self.profile {
            Profile::Sekoia => fold::without(device, &[&["created_time"]]),
            Profile::Ocsf => ocsf::fold(device),
            Profile::Cse => {}
        }
        self.ignore.fold(self.profile.root(), device);
    }

    /// The event that reports `device`, stamped with what belongs to this event only. In profile `ocsf` that is stamped on
    /// the device itself: afterwards it is not one to be compared or kept.
    pub fn event<'a>(&'a self, device: &'a mut Device, occurrence: &Occurrence<'a>) -> Event<'a> {
        match device {
            Device::Sekoia(device) => {
                let observed_at = DateTime::from_timestamp_millis(occurrence.observed_at).unwrap_or_default();
                Event::Sekoia(device.event(observed_at, self.time))
            }
            Device::Ocsf(inventory) => {
                Event::Ocsf(Box::new(inventory.event(occurrence, &self.labels, self.tenant_uid.as_deref())))
            }
            Device::Cse(device) => Event::Cse(device.event(occurrence)),
        }
    }
}

impl Device {
    /// Canonical JSON: equal devices give equal text.
    ///
    /// # Errors
    /// None that a device can cause.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        match self {
            Device::Sekoia(device) => to_json(device),
            Device::Ocsf(inventory) => inventory.to_json(),
            Device::Cse(device) => to_json(device),
        }
    }

    /// Where it is, as far as the profile tells.
    pub fn scope(&self) -> Scope<'_> {
        match self {
            Device::Sekoia(device) => Scope {
                account: device.org.as_ref().map(|org| org.uid.as_str()),
                region: device.region.as_deref().and_then(region_in),
            },
            Device::Ocsf(inventory) => Scope {
                account: inventory.cloud.account.as_ref().map(|account| account.uid.as_str()),
                region: inventory.cloud.region.as_deref(),
            },
            Device::Cse(device) => {
                // `account-instance`, or the instance alone, whose own dash follows an `i`.
                let account = device.unique_id.split_once('-').map(|(account, _)| account);
                Scope { account: account.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())), region: None }
            }
        }
    }

    /// The device as it is reported once terminated.
    pub fn terminated(self) -> Self {
        match self {
            Device::Sekoia(device) => Device::Sekoia(Box::new(device.in_state(TERMINATED))),
            Device::Ocsf(inventory) => Device::Ocsf(Box::new(inventory.terminated())),
            // The page knows no state.
            Device::Cse(device) => Device::Cse(device),
        }
    }
}

/// As serde_json does it, in room that most devices need no more of.
fn to_json(device: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut json = Vec::with_capacity(2048);
    serde_json::to_writer(&mut json, device)?;
    Ok(String::from_utf8(json).expect("JSON is UTF-8"))
}

impl<'a> Event<'a> {
    /// Kafka headers that the profile asks for, beside those that every event has.
    pub fn headers(&self) -> Vec<(&'a str, &'a str)> {
        match self {
            Event::Sekoia(_) | Event::Ocsf(_) => Vec::new(),
            Event::Cse(event) => event.headers(),
        }
    }
}
