//! What leaves for Kafka: rules, filters, and what is added to an instance.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::faults::{Account, REGIONS};
use super::{AWS, keys};
use crate::support::ec2::{Fault, on};
use crate::support::kafka::Read;
use crate::support::process::Stage;

const HASH_KEY: &str = "sixteen bytes and some more";

/// One region, so that what is denied is all there is to look at.
fn account(instances: usize) -> Account {
    let mut account = Account::with(instances);
    account.pipeline.config["collector"]["hash_key"] = HASH_KEY.into();
    account.pipeline.config["collector"]["sources"][0]["aws"]["regions"] = json!([REGIONS[0]]);
    account
}

impl Account {
    fn ruled(&self, rules: Value) -> Value {
        let mut config = self.config.clone();
        config["collector"]["sources"][0]["rules"] = rules;
        config
    }

    fn filtered(&self, filters: Value) -> Value {
        let mut config = self.config.clone();
        config["collector"]["sources"][0]["aws"]["filters"] = filters;
        config
    }

    /// A complete sweep; what it counted.
    #[track_caller]
    fn complete(&self, config: &Value) -> Value {
        let ends = self.sweep_with(config);
        let [end] = &ends[..] else { panic!("{ends:?}") };
        assert_eq!(end["message"], "sweep complete", "{end}");
        end.clone()
    }

    /// Instances of the region that run and have tags.
    fn running(&self) -> Vec<String> {
        let fleet = self.fleet();
        let runs = |id: &String| fleet[id].1["State"]["Name"] == "running";
        self.tagged(REGIONS[0]).into_iter().filter(runs).collect()
    }

    fn tag(&self, id: &str, tag: &str) {
        self.edit(REGIONS[0], "tag", id, tag);
    }
}

/// The last record of each instance; `None`: a tombstone.
fn latest(records: Vec<Read>) -> BTreeMap<String, Option<Value>> {
    let value = |record: &Read| record.value.as_ref().map(|_| record.json());
    records.iter().map(|record| (record.key().to_owned(), value(record))).collect()
}

// === Rules ===

#[test]
fn nothing_of_a_masked_or_hashed_value_is_in_any_record_of_any_topic() {
    let account = account(6);
    let id = account.running()[0].clone();
    account.tag(&id, "secret-token=hunter2-7f3a");
    let rules = json!([
        {"mask": {"field": "Tags[secret*]", "with": "***"}},
        {"mask": {"field": "KeyName"}},
        {"hash": {"field": "PrivateIpAddress"}},
        {"hash": {"field": "PrivateDnsName"}},
        {"hash": {"field": "NetworkInterfaces.PrivateIpAddress"}},
        {"hash": {"field": "NetworkInterfaces.PrivateDnsName"}},
        {"hash": {"field": "NetworkInterfaces.PrivateIpAddresses.*"}},
        {"hash": {"field": "Tags[Name]"}},
    ]);
    let config = account.ruled(rules);
    account.complete(&config);
    account.complete(&config);
    account.events();

    let fleet = account.fleet();
    let here = fleet.iter().filter(|(_, (region, _))| region == REGIONS[0]);
    let name = |instance: &Value| {
        let tags = instance["Tags"].as_array()?;
        tags.iter().find(|tag| tag["Key"] == "Name")?["Value"].as_str().map(str::to_owned)
    };
    let mut hidden = vec!["hunter2-7f3a".to_owned(), HASH_KEY.to_owned()];
    for (_, (_, instance)) in here.clone() {
        hidden.extend(instance["PrivateIpAddress"].as_str().map(str::to_owned));
        hidden.extend(name(instance).map(|name| name.trim().chars().take(60).collect()));
    }
    assert!(hidden.len() > 6, "{hidden:?}");
    let mut records = 0;
    for topic in ["raw", "sweeps", "events", "state", "dlq", "health"] {
        for record in account.topics.read(topic) {
            records += 1;
            let headers = record.headers.iter().filter_map(|(_, value)| value.clone());
            let parts = record.key.iter().chain(&record.value).cloned().chain(headers);
            for part in parts {
                // A dash becomes another sign in JSON's escapes: the text is looked for as it is and as JSON has it.
                let text = String::from_utf8_lossy(&part);
                for value in &hidden {
                    let escaped = json!(value).to_string();
                    let escaped = escaped.trim_matches('"');
                    let is_there = text.contains(value.as_str()) || text.contains(escaped);
                    assert!(!is_there, "{value:?} on {topic}: {text}");
                }
            }
        }
    }
    assert!(records > 12);
    let raw = latest(account.raw());
    let record = raw[&id].clone().unwrap();
    let tags: BTreeMap<_, _> =
        record["Tags"].as_array().unwrap().iter().map(|tag| (tag["Key"].as_str().unwrap(), &tag["Value"])).collect();
    assert_eq!(tags["secret-token"], "***", "its key is no secret");
    let address = record["PrivateIpAddress"].as_str().unwrap();
    assert!(address.len() == 32 && address.bytes().all(|byte| byte.is_ascii_hexdigit()), "{address}");
    assert_eq!(record["NetworkInterfaces"][0]["PrivateIpAddress"], address, "equal values stay equal");
}

#[test]
fn what_is_denied_is_not_published_and_what_an_allow_names_is_all_that_is() {
    let account = account(6);
    let running = account.running();
    let [dev, prod] = [&running[0], &running[1]];
    account.tag(dev, "env=dev");
    account.tag(prod, "env=prod");
    account.complete(
        &account.ruled(json!([{"allow": {"field": "Tags[env]"}}, {"deny": {"field": "Tags[env]", "matches": "d*"}}])),
    );
    assert_eq!(Vec::from_iter(latest(account.raw()).into_keys()), std::slice::from_ref(prod));
    account.complete(&account.ruled(json!([{"deny": {"field": "Tags[env]", "matches": "dev"}}])));
    let published = latest(account.raw());
    assert!(!published.contains_key(dev) && published.len() > 2, "{published:?}");
}

#[test]
fn one_that_becomes_denied_is_out_of_scope_and_a_tombstone_once_it_terminates() {
    let account = account(6);
    let id = account.running()[0].clone();
    let config = account.ruled(json!([{"deny": {"field": "Tags[env]", "matches": "dev"}}]));
    account.complete(&config);
    account.events();
    account.tag(&id, "env=dev");
    assert_eq!(account.complete(&config)["out_of_scope"], 1);
    assert_eq!(account.complete(&config)["out_of_scope"], 0, "told once");
    assert_eq!(keys(&account.removed()), Vec::<String>::new());
    let record = latest(account.raw())[&id].clone().unwrap();
    assert!(!record.to_string().contains("\"env\""), "its last record is the one from before: {record}");

    account.edit(REGIONS[0], "terminate", &id, "-");
    assert_eq!(account.complete(&config)["removed"], 1);
    account.complete(&config);
    let removed = account.removed();
    assert_eq!(keys(&removed), std::slice::from_ref(&id));
    assert_eq!(removed[0].header("reason"), Some("terminated"));
    let of_it: Vec<_> = account.events().into_iter().filter(|event| event.key() == id).collect();
    assert_eq!(of_it.last().unwrap().header("change"), Some("removed"));
}

// === Filters ===

#[test]
fn filters_list_less_and_narrower_ones_put_out_of_scope_without_removing() {
    let account = account(8);
    let running = account.running();
    for (id, tag) in running.iter().zip(["env=prod", "env=prod", "env=test"]) {
        account.tag(id, tag);
    }
    let wide = account.filtered(json!({"tag:env": ["prod", "test"]}));
    account.complete(&wide);
    account.complete(&wide);
    assert_eq!(Vec::from_iter(latest(account.raw()).into_keys()).len(), 3);
    let asked = account.proxy.calls("DescribeInstances", REGIONS[0]).pop().unwrap();
    assert_eq!(asked.filters()["tag:env"], ["prod", "test"]);

    let narrow = account.filtered(json!({"tag:env": ["prod"]}));
    assert_eq!(account.complete(&narrow)["out_of_scope"], 1);
    account.complete(&narrow);
    account.complete(&narrow);
    assert_eq!(keys(&account.removed()), Vec::<String>::new());
    // An instance that moves out of the filter's sight exists: it is found by its ID.
    account.tag(&running[1], "env=test");
    account.complete(&narrow);
    account.complete(&narrow);
    assert_eq!(keys(&account.removed()), Vec::<String>::new());
    assert_eq!(account.complete(&wide)["out_of_scope"], 0, "back in scope");
    assert!(account.events().iter().all(|event| event.header("change") != Some("removed")));
}

// === Images ===

#[test]
fn images_are_named_in_the_record_and_their_lack_is_one_warning() {
    let mut account = account(6);
    account.pipeline.config["collector"]["sources"][0]["aws"]["images"] = true.into();
    let denied = account.proxy.when(on("DescribeImages"), Fault::denied());
    let mut collector = Stage::start_with_env(&["collect"], &account.config, &AWS);
    let message = "instances are published without their images";
    for _ in 0..2 {
        collector.wait_for("sweep complete", std::time::Duration::from_secs(60));
    }
    let warnings = collector.seen.iter().filter(|event| event["message"] == message).count();
    assert_eq!(warnings, 1, "for two sweeps of two pages");
    assert_eq!(collector.stop(), Some(0));
    assert!(latest(account.raw()).values().flatten().all(|record| record["Image"].is_null()));
    account.proxy.lift(denied);

    account.complete(&account.config);
    for (id, record) in latest(account.raw()) {
        let image = &record.as_ref().unwrap()["Image"];
        assert_eq!(image["ImageId"], record.as_ref().unwrap()["ImageId"], "{id}");
        assert!(image["Name"].is_string() && image["OwnerId"].is_string(), "{id}: {image}");
    }
    let asked = account.proxy.calls("DescribeImages", REGIONS[0]);
    assert!(asked.iter().all(|call| call.filters().contains_key("image-id")), "{asked:?}");
}
