//! Observables: what an analyst searches for, once more in one list.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Cloud, Device};
use crate::avro::by_place;

/// Observables of an event, at most.
const MAX_OBSERVABLES: usize = 8192;

/// OCSF's `observable`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(remote = "Self")]
#[allow(missing_docs)]
pub struct Observable<'a> {
    pub name: &'static str,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub type_id: i32,
    pub value: &'a str,
}

by_place!(Observable<'_> { name, kind, type_id, value });

const HOSTNAME: (i32, &str) = (1, "Hostname");
const IP_ADDRESS: (i32, &str) = (2, "IP Address");
const MAC_ADDRESS: (i32, &str) = (3, "MAC Address");
const GROUP_UID: (i32, &str) = (33, "Group Object: uid");
const ACCOUNT_UID: (i32, &str) = (35, "Account Object: uid");
const DEVICE_UID: (i32, &str) = (47, "Device Object: uid");

/// Every value once for each path, in the order of the paths and of their lists.
pub(super) fn of<'a>(device: &'a Device, cloud: &'a Cloud) -> Vec<Observable<'a>> {
    let mut found = Vec::new();
    let mut known = BTreeSet::new();
    let mut add = |name: &'static str, (type_id, kind): (i32, &'static str), value: Option<&'a String>| {
        if let Some(value) = value.filter(|value| known.insert((name, value.as_str()))) {
            found.push(Observable { name, kind, type_id, value });
        }
    };
    add("cloud.account.uid", ACCOUNT_UID, cloud.account.as_ref().map(|account| &account.uid));
    for group in &device.groups {
        add("device.groups.uid", GROUP_UID, group.uid.as_ref());
    }
    add("device.hostname", HOSTNAME, device.hostname.as_ref());
    add("device.ip", IP_ADDRESS, device.ip.as_ref());
    add("device.mac", MAC_ADDRESS, device.mac.as_ref());
    for interface in &device.network_interfaces {
        add("device.network_interfaces.hostname", HOSTNAME, interface.hostname.as_ref());
        add("device.network_interfaces.ip", IP_ADDRESS, interface.ip.as_ref());
        add("device.network_interfaces.mac", MAC_ADDRESS, interface.mac.as_ref());
    }
    add("device.uid", DEVICE_UID, Some(&device.uid));
    found.truncate(MAX_OBSERVABLES);
    found
}
