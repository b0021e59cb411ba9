//! What is shown: by instance, account, region and change. Pure.

use clap::ValueEnum;
use serde_json::Value;

use crate::device::{NAME_TAG, region_in};
use crate::record::{AWS_ACCOUNT, AWS_REGION, RawRecord};

/// Which records are shown. What is left empty lets everything through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Instance IDs.
    pub instances: Vec<String>,
    /// Accounts, twelve digits.
    pub accounts: Vec<String>,
    /// Regions.
    pub regions: Vec<String>,
    /// What happened.
    pub changes: Vec<Kind>,
}

/// The header `change`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)] // As in `Change`.
pub enum Kind {
    Created,
    Updated,
    Removed,
    Remapped,
}

/// Who a record is about, as far as it tells, in whatever profile or as a raw record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The instance.
    pub id: Option<&'a str>,
    /// Its name, where it has one.
    pub name: Option<&'a str>,
    /// Its account.
    pub account: Option<&'a str>,
    /// Its region.
    pub region: Option<&'a str>,
}

impl<'a> Subject<'a> {
    /// Of a record and its decoded value.
    pub fn of(record: &RawRecord<'a>, value: Option<&'a Value>) -> Self {
        let text = |pointers: &[&str]| pointers.iter().find_map(|pointer| value?.pointer(pointer)?.as_str());
        let id = record.key.and_then(|key| std::str::from_utf8(key).ok());
        let tags = value.and_then(|value| value.get("Tags")?.as_array());
        let named = tags.and_then(|tags| tags.iter().find(|tag| tag["Key"] == NAME_TAG)?["Value"].as_str());
        let name = named.or_else(|| text(&["/device/name", "/hostname"]));
        // Profile `cse` has the account in front of the instance.
        let prefix = || text(&["/uniqueId"])?.strip_suffix(id?)?.strip_suffix('-');
        let account = text(&["/OwnerId", "/cloud/account/uid", "/device/org/uid"]).or_else(prefix);
        let region = text(&["/cloud/region", "/device/region", "/Placement/AvailabilityZone"]);
        Self {
            id,
            // The mapping names what has no name by its ID.
            name: name.filter(|name| Some(*name) != id),
            account: account.or_else(|| record.header(AWS_ACCOUNT)),
            // Profile `sekoia` has the zone there.
            region: region.map(|text| region_in(text).unwrap_or(text)).or_else(|| record.header(AWS_REGION)),
        }
    }
}

impl Filter {
    /// Whether a record is shown.
    pub fn lets_through(&self, record: &RawRecord<'_>, subject: &Subject<'_>) -> bool {
        let is_among = |wanted: &[String], is: Option<&str>| {
            wanted.is_empty() || is.is_some_and(|is| wanted.iter().any(|wanted| wanted == is))
        };
        let name = |kind: &Kind| {
            kind.to_possible_value().is_some_and(|value| record.header("change") == Some(value.get_name()))
        };
        is_among(&self.instances, subject.id)
            && is_among(&self.accounts, subject.account)
            && is_among(&self.regions, subject.region)
            && (self.changes.is_empty() || self.changes.iter().any(name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record<'a>(headers: &[(&'a str, &'a str)]) -> RawRecord<'a> {
        let headers = headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect();
        RawRecord { partition: 0, offset: 0, timestamp_ms: 0, key: Some(b"i-1"), value: None, headers }
    }

    fn subject<'a>(name: Option<&'a str>, account: &'a str, region: Option<&'a str>) -> Subject<'a> {
        Subject { id: Some("i-1"), name, account: Some(account), region }
    }

    #[test]
    fn who_a_record_is_about_is_told_by_every_form_of_it() {
        let sekoia = json!({"device": {"name": "web", "org": {"uid": "1"}, "region": "eu-west-1a"}});
        let ocsf = json!({"device": {"name": "web"}, "cloud": {"account": {"uid": "2"}, "region": "eu-west-1"}});
        let raw = json!({"OwnerId": "3", "Placement": {"AvailabilityZone": "eu-west-1b"}, "Tags": [{"Key": "Name", "Value": "web"}]});
        for (value, account) in [(sekoia, "1"), (ocsf, "2"), (raw, "3")] {
            assert_eq!(Subject::of(&record(&[]), Some(&value)), subject(Some("web"), account, Some("eu-west-1")));
        }
        let cse = json!({"uniqueId": "4-i-1", "hostname": "ip-1"});
        assert_eq!(Subject::of(&record(&[]), Some(&cse)), subject(Some("ip-1"), "4", None));
        let tombstone = record(&[("aws-account", "5"), ("aws-region", "us-east-1")]);
        assert_eq!(Subject::of(&tombstone, None), subject(None, "5", Some("us-east-1")));
    }

    #[test]
    fn a_name_that_is_only_the_id_is_none() {
        let value = json!({"device": {"name": "i-1"}});
        assert_eq!(Subject::of(&record(&[]), Some(&value)).name, None);
    }

    #[test]
    fn nothing_asked_for_is_everything_and_of_several_one_must_match() {
        let record = record(&[("change", "updated")]);
        let subject = subject(None, "1", Some("eu-west-1"));
        let passes = |filter: Filter| filter.lets_through(&record, &subject);
        let some = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(passes(Filter::default()));
        assert!(passes(Filter { instances: some(&["i-0", "i-1"]), ..Filter::default() }));
        assert!(!passes(Filter { instances: some(&["i-0", "i-11"]), ..Filter::default() }));
        assert!(passes(Filter { accounts: some(&["1"]), ..Filter::default() }));
        assert!(!passes(Filter { accounts: some(&["2"]), instances: some(&["i-1"]), ..Filter::default() }));
        assert!(!passes(Filter { regions: some(&["eu-west-2"]), ..Filter::default() }));
        assert!(passes(Filter { changes: vec![Kind::Created, Kind::Updated], ..Filter::default() }));
        assert!(!passes(Filter { changes: vec![Kind::Removed], ..Filter::default() }));
    }

    #[test]
    fn what_does_not_tell_is_not_what_is_asked_for() {
        let filter = Filter { accounts: vec!["1".to_owned()], ..Filter::default() };
        assert!(!filter.lets_through(&record(&[]), &Subject::default()));
        let filter = Filter { changes: vec![Kind::Created], ..Filter::default() };
        assert!(!filter.lets_through(&record(&[]), &Subject::default()));
    }
}
