//! One EC2 instance, as far as a profile renders it: the middle between raw record and event. Pure.
//!
//! Members and types are those of EC2's `Instance` (API version 2016-11-15), read leniently: a member of a wrong type
//! counts as absent and is named by [`Instance::unreadable`], the rest of the instance stands. What every profile renders is
//! always read, the rest of the model only where a profile asks for it.

mod detail;
pub mod details;
mod lenient;
mod model;
pub mod time;

use chrono::{DateTime, Utc};
use serde::de::DeserializeSeed as _;

pub use detail::{Detail, Json, Named, replaced, write_members};
pub use details::{Instance, Interface};
use lenient::{Depth, InCommon, InFull, Inspect, Whole};
pub use lenient::{List, Member, Path, Text};

/// The tag whose value is an instance's name.
pub const NAME_TAG: &str = "Name";
/// Set by EC2 Auto Scaling on the instances that it launches.
pub const AUTOSCALING_TAG: &str = "aws:autoscaling:groupName";

impl<'a> Instance<'a> {
    /// Reads what every profile renders of the value of a raw record.
    ///
    /// # Errors
    /// When it is not one JSON object.
    pub fn in_common(value: &'a str) -> Result<Self, serde_json::Error> {
        Self::read::<InCommon>(value)
    }

    /// Reads all members of the model.
    ///
    /// # Errors
    /// When `value` is not one JSON object.
    pub fn in_full(value: &'a str) -> Result<Self, serde_json::Error> {
        Self::read::<InFull>(value)
    }

    fn read<D: Depth>(value: &'a str) -> Result<Self, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(value);
        let instance = Whole::<D, Self>::default().deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(match instance {
            Member::Known(instance) => instance,
            Member::Absent | Member::Bad => Self::default(),
        })
    }

    /// The value of the tag with exactly that key; of several, the least.
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags.items().filter(|tag| tag.key.text() == Some(key)).filter_map(|tag| tag.value.text()).min()
    }

    /// The name of the instance's state, as in `running`.
    pub fn state_name(&self) -> Option<&str> {
        self.state.known()?.name.text()
    }

    /// Interfaces by (card, device index, ID), what is missing last.
    pub fn interfaces_in_order(&self) -> Vec<&Interface<'a>> {
        let mut interfaces: Vec<_> = self.network_interfaces.items().collect();
        interfaces.sort_by_cached_key(|interface| {
            let attachment = interface.attachment.known();
            let index = |member: Option<&Member<i64>>| member.and_then(Member::known).copied().unwrap_or(i64::MAX);
            let card = index(attachment.map(|attachment| &attachment.network_card_index));
            let device = index(attachment.map(|attachment| &attachment.device_index));
            let id = interface.network_interface_id.text();
            (card, device, id.is_none(), id.map(str::to_owned))
        });
        interfaces
    }

    /// Attach time of the first block device that the record lists.
    pub fn first_attach_time(&self) -> Option<&DateTime<Utc>> {
        let first = self.block_device_mappings.known()?.first()?;
        first.known()?.ebs.known()?.attach_time.known()
    }

    /// The zone, as in `eu-west-1a`.
    pub fn availability_zone(&self) -> Option<&str> {
        self.placement.known()?.availability_zone.text()
    }

    /// The region: what was swept, else what the zone begins with.
    pub fn region<'b>(&'b self, swept: Option<&'b str>) -> Option<&'b str> {
        swept.filter(|region| !region.is_empty()).or_else(|| region_in(self.availability_zone()?))
    }

    /// The instance's own IPv6 address, else the first of its primary interface.
    pub fn first_ipv6(&self) -> Option<&str> {
        self.ipv6_address.text().or_else(|| {
            let mut addresses: Vec<_> = self.interfaces_in_order().first()?.ipv6_addresses.items().collect();
            addresses
                .sort_by_key(|address| (address.is_primary_ipv6.known() != Some(&true), address.ipv6_address.text()));
            addresses.into_iter().find_map(|address| address.ipv6_address.text())
        })
    }

    /// The account: the reservation's owner, else what the collector says that it swept.
    pub fn account<'b>(&'b self, swept: Option<&'b str>) -> Option<&'b str> {
        self.owner_id.text().or(swept.filter(|account| !account.is_empty()))
    }

    /// Calls `report` with the path of each member that is there but cannot be read, as in
    /// `NetworkInterfaces[].MacAddress`.
    pub fn unreadable(&self, report: &mut dyn FnMut(&str)) {
        Inspect::unreadable(self, Path::Root, &mut |path| report(&path.to_string()));
    }
}

/// What a text begins with that is the name of a region: two to four letters, words, and a number, as in `us-gov-west-1`.
pub fn region_in(text: &str) -> Option<&str> {
    let is_word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    let mut parts = text.split('-');
    let mut end = parts.next().filter(|part| is_word(part) && (2..=4).contains(&part.len()))?.len();
    for (words, part) in parts.enumerate() {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            return (words > 0).then(|| &text[..end + 1 + digits]);
        }
        if !is_word(part) {
            return None;
        }
        end += 1 + part.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Instance, region_in};

    #[test]
    fn what_no_profile_renders_in_common_is_read_and_complained_of_in_full_only() {
        let value = r#"{"InstanceId": "i-1", "KeyName": "ops", "EbsOptimized": 5, "Placement": {"Tenancy": 5},
            "IamInstanceProfile": {"Arn": 5}, "Tags": 5}"#;
        let read = |instance: Instance<'_>| {
            let mut unreadable = Vec::new();
            instance.unreadable(&mut |path| unreadable.push(path.to_owned()));
            (instance.key_name.text().map(str::to_owned), instance.iam_instance_profile.known().is_some(), unreadable)
        };
        let common = (None, true, vec!["Tags".to_owned()]);
        assert_eq!(read(Instance::in_common(value).unwrap()), common);
        let unreadable = ["EbsOptimized", "IamInstanceProfile.Arn", "Placement.Tenancy", "Tags"].map(str::to_owned);
        assert_eq!(read(Instance::in_full(value).unwrap()), (Some("ops".to_owned()), true, unreadable.to_vec()));
    }

    #[test]
    fn of_members_of_one_name_the_last_one_counts() {
        let instance = Instance::in_common(r#"{"ImageId": 5, "InstanceId": "i-1", "ImageId": "ami-1"}"#).unwrap();
        assert_eq!(instance.image_id.text(), Some("ami-1"));
    }

    #[test]
    fn a_zone_begins_with_its_region() {
        for (zone, region) in [
            ("eu-west-1a", "eu-west-1"),
            ("us-gov-west-1b", "us-gov-west-1"),
            ("us-west-2-lax-1a", "us-west-2"),
            ("eusc-de-east-1a", "eusc-de-east-1"),
            ("ap-southeast-12c", "ap-southeast-12"),
        ] {
            assert_eq!(region_in(zone), Some(region), "{zone}");
        }
        for zone in ["", "eu", "eu-west", "eu-1a", "e-west-1a", "europe-west-1a", "EU-west-1a", "eu--1a", "eu-west1a-1"]
        {
            assert_eq!(region_in(zone), None, "{zone}");
        }
    }
}
