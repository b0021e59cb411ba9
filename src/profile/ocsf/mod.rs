//! Profile `ocsf`: OCSF's Device Inventory Info (class 5001) with the profiles cloud, datetime and host, as the official
//! schema validates it.
//!
//! The shapes below are the event as it is written, member for member, in JSON and in Avro (`schemas/ocsf.avsc`). An
//! absent member is left out of JSON and null in Avro. [`Inventory`] is the half that is compared and kept; what else an
//! event has is stamped on it, or follows from it. Nothing is invented: what EC2 does not tell is absent.
//!
//! Another version of OCSF: [`VERSION`] alone for 1.7 and 1.8; for 1.9, which moves the CPU's attributes, [`hardware`] too.

mod device;
mod hardware;
mod instant;
mod network;
mod observable;
mod unmapped;

use serde::{Deserialize, Serialize};

pub use device::{Device, Group, Image, Os};
pub use hardware::HwInfo;
pub use network::NetworkInterface;
pub use observable::Observable;
pub use unmapped::Unmapped;

use super::change::{Change, Occurrence};
use super::diff::Identities;
use super::{Scope, TERMINATED, fold, to_json};
use crate::avro::{by_place, by_place_and_back};
use crate::device::Instance;
use instant::Instant;

/// The version of OCSF that the events are written in.
pub const VERSION: &str = "1.6.0";
/// EC2's number for the state `terminated`.
const TERMINATED_CODE: i64 = 48;
// Bounds, so that an event of the largest record can still be sent. EC2 stays far below: an instance has some hundred
// addresses, a description 255 characters.

/// Paths that a message names, at most,
const PATHS_IN_MESSAGE: usize = 20;
/// and their bytes.
const MAX_MESSAGE_BYTES: usize = 2048;
/// Differences that `unmapped.change` tells, in bytes of JSON.
const MAX_CHANGE_BYTES: usize = 512 * 1024;

/// What tells the elements of the lists apart: interfaces, of which one has an entry for each address; tags; volumes.
pub(super) const IDENTITIES: &Identities =
    &[&["uid"], &["uid", "ip"], &["name"], &["device_name"], &["ip"], &["secondary_interface_id"]];

/// What the profile renders of an instance. A difference in here is a change.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[allow(missing_docs)]
pub struct Inventory {
    pub cloud: Cloud,
    pub device: Device,
    #[serde(default)]
    pub unmapped: Unmapped,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
#[allow(missing_docs)]
pub struct Cloud {
    pub provider: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_partition: Option<String>,
}

by_place_and_back!(Cloud { provider, account, region, zone, cloud_partition });

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
#[allow(missing_docs)]
pub struct Account {
    pub uid: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub type_id: i32,
}

by_place_and_back!(Account { uid, kind, type_id });

/// The event, around an inventory.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(remote = "Self")]
#[allow(missing_docs)] // The members are OCSF's; schemas/ocsf.avsc describes each.
pub struct Event<'a> {
    pub activity_id: i32,
    pub activity_name: &'static str,
    pub category_name: &'static str,
    pub category_uid: i32,
    pub class_name: &'static str,
    pub class_uid: i32,
    pub type_name: &'static str,
    pub type_uid: i64,
    pub severity: &'static str,
    pub severity_id: i32,
    pub status: &'static str,
    pub status_id: i32,
    pub time: i64,
    pub time_dt: String,
    pub timezone_offset: i32,
    pub message: String,
    pub metadata: Metadata<'a>,
    pub cloud: &'a Cloud,
    pub device: &'a Device,
    pub observables: Vec<Observable<'a>>,
    pub unmapped: unmapped::Stamped<'a>,
}

by_place!(Event<'_> {
    activity_id, activity_name, category_name, category_uid, class_name, class_uid, type_name, type_uid, severity,
    severity_id, status, status_id, time, time_dt, timezone_offset, message, metadata, cloud, device, observables,
    unmapped,
});

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(remote = "Self")]
#[allow(missing_docs)]
pub struct Metadata<'a> {
    pub version: &'static str,
    pub profiles: Vec<&'static str>,
    pub product: Product,
    pub log_name: &'static str,
    pub log_provider: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_time: Option<&'a str>,
    pub uid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_uid: Option<&'a str>,
    pub sequence: i64,
    pub labels: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_uid: Option<&'a str>,
}

by_place!(Metadata<'_> {
    version, profiles, product, log_name, log_provider, original_time, uid, correlation_uid, sequence, labels,
    tenant_uid,
});

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(remote = "Self")]
#[allow(missing_docs)]
pub struct Product {
    pub name: &'static str,
    pub uid: &'static str,
    pub vendor_name: &'static str,
    pub version: &'static str,
}

by_place!(Product { name, uid, vendor_name, version });

impl Inventory {
    /// Renders the instance `uid`; `scope` is what was swept.
    pub fn render(uid: &str, instance: &Instance<'_>, scope: Scope<'_>) -> Self {
        let region = instance.region(scope.region);
        let account = instance.account(scope.account);
        let partition = region.and_then(device::partition_of);
        let arn = || Some(format!("arn:{}:ec2:{}:{}:instance/{uid}", partition?, region?, account?));
        let mut rejected = network::Rejected::default();
        let device = Device::render(uid, instance, region, arn(), &mut rejected);
        Self {
            cloud: Cloud {
                provider: "AWS".to_owned(),
                account: account.map(|account| Account {
                    uid: account.to_owned(),
                    kind: "AWS Account".to_owned(),
                    type_id: 10,
                }),
                region: region.map(str::to_owned),
                zone: instance.availability_zone().map(str::to_owned),
                cloud_partition: partition.map(str::to_owned),
            },
            unmapped: Unmapped::render(instance, &device, &rejected),
            device,
        }
    }

    /// Canonical JSON.
    ///
    /// # Errors
    /// None that a device can cause.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        #[derive(Serialize)]
        struct Mapped<'a> {
            cloud: &'a Cloud,
            device: &'a Device,
        }
        let mut json = to_json(&Mapped { cloud: &self.cloud, device: &self.device })?;
        if !self.unmapped.is_empty() {
            // It is JSON already, which serde_json would check once more.
            json.truncate(json.len() - 1);
            json.extend([r#","unmapped":"#, &self.unmapped.to_json(), "}"]);
        }
        Ok(json)
    }

    /// The same device, terminated.
    pub fn terminated(mut self) -> Self {
        self.unmapped.set_state(TERMINATED, TERMINATED_CODE);
        self
    }

    /// The event that reports this inventory, on which it stamps the times of the device's life.
    pub fn event<'a>(
        &'a mut self,
        occurrence: &Occurrence<'a>,
        labels: &[String],
        tenant_uid: Option<&'a str>,
    ) -> Event<'a> {
        self.device.stamp(occurrence);
        let time = Instant::clamped(occurrence.observed_at);
        let time_dt = time.dt();
        let activity = Activity::of(occurrence.change);
        Event {
            activity_id: activity.id,
            activity_name: activity.name,
            category_name: "Discovery",
            category_uid: 5,
            class_name: "Device Inventory Info",
            class_uid: 5001,
            type_name: activity.type_name,
            type_uid: 500_100 + i64::from(activity.id),
            severity: "Informational",
            severity_id: 1,
            status: "Success",
            status_id: 1,
            time: time.ms(),
            metadata: self.metadata(occurrence, &time_dt, labels, tenant_uid),
            time_dt,
            timezone_offset: 0,
            message: message(&self.device.uid, occurrence),
            cloud: &self.cloud,
            device: &self.device,
            observables: observable::of(&self.device, &self.cloud),
            unmapped: self.unmapped.stamped(occurrence),
        }
    }

    fn metadata<'a>(
        &self,
        occurrence: &Occurrence<'a>,
        time_dt: &str,
        labels: &[String],
        tenant_uid: Option<&'a str>,
    ) -> Metadata<'a> {
        let origin = &occurrence.origin;
        let change = format!("inventory:{}", occurrence.change.name());
        let source = origin.source.map(|name| format!("source:{name}"));
        let category = origin.category.map(|category| format!("source-category:{category}"));
        let fields = origin.fields.iter().map(|(name, value)| format!("{name}:{value}"));
        Metadata {
            version: VERSION,
            profiles: vec!["cloud", "datetime", "host"],
            product: Product { name: "AWS EC2", uid: "ec2", vendor_name: "AWS", version: "2016-11-15" },
            log_name: "DescribeInstances",
            log_provider: "ec2.amazonaws.com",
            original_time: origin.original_time,
            uid: self.event_uid(time_dt, occurrence.change),
            correlation_uid: origin.sweep_id,
            sequence: occurrence.revision,
            labels: [change]
                .into_iter()
                .chain(labels.iter().cloned())
                .chain(source)
                .chain(category)
                .chain(fields)
                .collect(),
            tenant_uid,
        }
    }

    /// The same for the same event, whenever and by whomever it is made.
    fn event_uid(&self, time_dt: &str, change: Change) -> String {
        let account = self.cloud.account.as_ref().map_or("", |account| &account.uid);
        let region = self.cloud.region.as_deref().unwrap_or_default();
        let mut hasher = blake3::Hasher::new();
        for part in [account, region, &self.device.uid, time_dt, change.name()] {
            // A length first, so that no part can pass for the end of what precedes it.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

/// What OCSF calls that which happened.
struct Activity {
    id: i32,
    name: &'static str,
    type_name: &'static str,
}

impl Activity {
    fn of(change: Change) -> Self {
        match change {
            Change::Created | Change::Updated | Change::Remapped => {
                Self { id: 2, name: "Collect", type_name: "Device Inventory Info: Collect" }
            }
            Change::Removed(_) => Self { id: 99, name: "Removed", type_name: "Device Inventory Info: Other" },
        }
    }
}

/// One line: what happened to what, and where.
fn message(uid: &str, occurrence: &Occurrence<'_>) -> String {
    let mut message = format!("{uid} {}", occurrence.change.name());
    let paths: Vec<_> = occurrence.fields.iter().take(PATHS_IN_MESSAGE).map(|field| field.path.as_str()).collect();
    let reason = occurrence.change.reason().unwrap_or_default();
    let what = if paths.is_empty() { reason.to_owned() } else { paths.join(", ") };
    if !what.is_empty() {
        message.push_str(": ");
        message.push_str(&what);
    }
    if occurrence.fields.len() > PATHS_IN_MESSAGE {
        message.push_str(&format!(" and {} more", occurrence.fields.len() - PATHS_IN_MESSAGE));
    }
    // Paths hold names of tags, which anybody may write.
    if message.len() > MAX_MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        message.push('…');
    }
    message.replace(|c: char| c.is_control() || ['\u{2028}', '\u{2029}'].contains(&c), " ")
}

/// Takes out of an inventory what never makes an event alone, and makes of a settling word what it settles to.
pub(super) fn fold(inventory: &mut serde_json::Value) {
    fold::without(inventory, unmapped::QUIET);
    fold::without(inventory, &[&["device", "created_time"], &["device", "created_time_dt"]]);
    unmapped::settle(inventory);
}
