//! Profile `cse`: the same records as Sumo Logic's Cloud SIEM EC2 inventory source.
//!
//! Authority: that product's documentation page. What it sends along as metadata fields is in the value too, and each is
//! a Kafka header besides. `schemas/cse.avsc` is the event in Avro.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::change::{Occurrence, Origin};
use crate::device::Instance;

/// The field that says whether Cloud SIEM gets the record; on, unless a source says otherwise.
const FORWARD: &str = "_siemForward";

/// What the profile renders of an instance. A difference in here is a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Public, else private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Public, else private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Account and instance, or the instance alone.
    #[serde(rename = "uniqueId")]
    pub unique_id: String,
}

/// The event, around a device.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[allow(missing_docs)] // schemas/cse.avsc describes each.
pub struct Event<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<&'a str>,
    #[serde(rename = "uniqueId")]
    pub unique_id: &'a str,
    #[serde(rename = "_siemVendor", skip_serializing_if = "Option::is_none")]
    pub siem_vendor: Option<&'a str>,
    #[serde(rename = "_siemProduct", skip_serializing_if = "Option::is_none")]
    pub siem_product: Option<&'a str>,
    #[serde(rename = "_siemDataType", skip_serializing_if = "Option::is_none")]
    pub siem_data_type: Option<&'a str>,
    #[serde(rename = "_source", skip_serializing_if = "Option::is_none")]
    pub source: Option<&'a str>,
    #[serde(rename = "_sourceCategory", skip_serializing_if = "Option::is_none")]
    pub source_category: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<&'a str, &'a str>,
}

impl Device {
    /// Renders the instance `uid`; `account` is the one that was swept.
    pub fn render(uid: &str, instance: &Instance<'_>, account: Option<&str>) -> Self {
        let text = |member: Option<&str>| member.map(str::to_owned);
        Self {
            ip: text(instance.public_ip_address.text().or(instance.private_ip_address.text())),
            hostname: text(instance.public_dns_name.text().or(instance.private_dns_name.text())),
            unique_id: match instance.account(account) {
                Some(account) => format!("{account}-{uid}"),
                None => uid.to_owned(),
            },
        }
    }

    /// The event that reports this device.
    pub fn event<'a>(&'a self, occurrence: &Occurrence<'a>) -> Event<'a> {
        let Origin { source, category, fields, .. } = &occurrence.origin;
        let fields: BTreeMap<_, _> = fields.iter().copied().collect();
        let is_forwarded = !fields.get(FORWARD).is_some_and(|value| value.eq_ignore_ascii_case("false"));
        let siem = |value| is_forwarded.then_some(value);
        Event {
            ip: self.ip.as_deref(),
            hostname: self.hostname.as_deref(),
            unique_id: &self.unique_id,
            siem_vendor: siem("Amazon"),
            siem_product: siem("AWS EC2 Inventory"),
            siem_data_type: siem("Inventory"),
            source: *source,
            source_category: *category,
            fields,
        }
    }
}

impl<'a> Event<'a> {
    /// The metadata fields, as Kafka headers have them. The page's own win over configured ones of their name.
    pub fn headers(&self) -> Vec<(&'a str, &'a str)> {
        let own = [
            ("_siemVendor", self.siem_vendor),
            ("_siemProduct", self.siem_product),
            ("_siemDataType", self.siem_data_type),
            ("_source", self.source),
            ("_sourceCategory", self.source_category),
        ];
        let mut headers: Vec<_> = own.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let configured = self.fields.iter().filter(|(name, _)| own.iter().all(|(own, _)| own != *name));
        headers.extend(configured.map(|(name, value)| (*name, *value)));
        headers
    }
}
