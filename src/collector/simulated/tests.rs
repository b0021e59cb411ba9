//! An invented fleet is lively, and consistent with itself.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::fleet::Fleet;

type Instances = BTreeMap<String, Map<String, Value>>;

const ACCOUNT: &str = "111122223333";
const REGION: &str = "eu-west-1";

/// Minutes after some moment.
fn at(minutes: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_760_000_000 + minutes * 60, 0).unwrap()
}

fn fleet(seed: u64, instances: usize) -> Fleet {
    Fleet::new(seed, ACCOUNT, REGION, instances, at(0))
}

fn by_id(fleet: &Fleet) -> Instances {
    let instances = fleet.instances();
    let count = instances.len();
    let by_id: Instances = instances.into_iter().map(|instance| (text(&instance, "/InstanceId"), instance)).collect();
    assert_eq!(by_id.len(), count, "an ID that two instances have");
    by_id
}

fn at_path<'a>(instance: &'a Map<String, Value>, path: &str) -> &'a Value {
    let (member, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    let rest = if rest.is_empty() { String::new() } else { format!("/{rest}") };
    instance.get(member).and_then(|value| value.pointer(&rest)).unwrap_or(&Value::Null)
}

fn text(instance: &Map<String, Value>, path: &str) -> String {
    at_path(instance, path).as_str().unwrap_or_default().to_owned()
}

fn tag(instance: &Map<String, Value>, key: &str) -> Value {
    let tags = instance["Tags"].as_array().unwrap();
    tags.iter().find(|tag| tag["Key"] == key).map_or(Value::Null, |tag| tag["Value"].clone())
}

fn length(instance: &Map<String, Value>, list: &str) -> usize {
    instance[list].as_array().unwrap().len()
}

/// What an observer would say of the difference between two sweeps.
fn differences(before: &Instances, after: &Instances) -> Vec<String> {
    let mut seen = Vec::new();
    for (id, new) in after {
        let state = text(new, "/State/Name");
        let Some(old) = before.get(id) else {
            seen.push(format!("launched {state}"));
            continue;
        };
        let old_state = text(old, "/State/Name");
        if old_state != state {
            seen.push(format!("{old_state} to {state}"));
        }
        if state.starts_with("term") || state.starts_with("shut") {
            continue;
        }
        let is_other = |path: &str| at_path(old, path) != at_path(new, path);
        let is_start = old_state == "stopped" && state == "running";
        if is_start && !at_path(new, "/PublicIpAddress").is_null() {
            assert!(is_other("/LaunchTime") && is_other("/PublicIpAddress") && is_other("/PublicDnsName"));
            seen.push("address after a start".to_owned());
        }
        let (groups, old_groups) = (length(new, "SecurityGroups"), length(old, "SecurityGroups"));
        let happened = [
            ("name", tag(old, "Name") != tag(new, "Name")),
            ("owner", tag(old, "owner") != tag(new, "owner")),
            ("group added", groups > old_groups),
            ("group removed", groups < old_groups),
            ("group replaced", groups == old_groups && is_other("/SecurityGroups")),
            ("size", is_other("/InstanceType") && state == "stopped"),
            ("interface added", length(new, "NetworkInterfaces") > length(old, "NetworkInterfaces")),
            ("profile attached", is_other("/IamInstanceProfile")),
        ];
        seen.extend(happened.iter().filter(|(_, did)| *did).map(|(what, _)| (*what).to_owned()));
    }
    let forgotten = before.iter().filter(|(id, _)| !after.contains_key(*id));
    seen.extend(forgotten.map(|(_, old)| format!("forgotten {}", text(old, "/State/Name"))));
    seen
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let (mut one, mut other) = (fleet(7, 60), fleet(7, 60));
    for sweep in 1..20 {
        assert_eq!(one.instances(), other.instances());
        one.advance(at(sweep));
        other.advance(at(sweep));
    }
    assert_ne!(one.instances(), fleet(8, 60).instances());
}

#[test]
fn nothing_changes_between_two_intervals() {
    let mut fleet = fleet(7, 60);
    fleet.advance(at(1));
    assert_eq!(fleet.instances(), fleet.instances());
}

#[test]
fn everything_happens_within_ten_intervals() {
    for seed in 0..6 {
        let mut fleet = fleet(seed, 60);
        let mut before = by_id(&fleet);
        let mut seen = BTreeSet::new();
        for sweep in 1..=10 {
            fleet.advance(at(sweep));
            let after = by_id(&fleet);
            let happened = differences(&before, &after);
            assert!((1..=12).contains(&happened.len()), "a few percent of 60 are not {}", happened.len());
            seen.extend(happened);
            before = after;
        }
        let expected = [
            "forgotten terminated",
            "group added",
            "group removed",
            "group replaced",
            "interface added",
            "launched pending",
            "name",
            "owner",
            "pending to running",
            "profile attached",
            "running to shutting-down",
            "running to stopped",
            "shutting-down to terminated",
            "size",
            "stopped to running",
        ];
        let missing: Vec<_> = expected.into_iter().filter(|what| !seen.contains(*what)).collect();
        assert!(missing.is_empty(), "seed {seed}: {missing:?} did not happen");
        assert!((50..=70).contains(&before.len()), "the fleet of 60 has become {}", before.len());
    }
}

#[test]
fn a_start_brings_another_public_address() {
    let mut fleet = fleet(1, 300);
    let mut before = by_id(&fleet);
    let mut starts = 0;
    for sweep in 1..50 {
        fleet.advance(at(sweep));
        let after = by_id(&fleet);
        starts += differences(&before, &after).iter().filter(|what| *what == "address after a start").count();
        before = after;
    }
    assert!(starts > 0);
}

#[test]
fn a_terminated_instance_is_listed_twice_more_and_never_comes_back() {
    let mut fleet = fleet(3, 60);
    let mut terminated: BTreeMap<String, usize> = BTreeMap::new();
    let mut forgotten = BTreeSet::new();
    let mut before = by_id(&fleet);
    for sweep in 1..100 {
        fleet.advance(at(sweep));
        let after = by_id(&fleet);
        for (id, instance) in &after {
            assert!(!forgotten.contains(id), "{id} came back");
            match text(instance, "/State/Name").as_str() {
                "terminated" => *terminated.entry(id.clone()).or_default() += 1,
                state => assert!(!terminated.contains_key(id), "{id} was terminated and is {state}"),
            }
        }
        for id in before.keys().filter(|id| !after.contains_key(*id)) {
            assert_eq!(terminated.get(id), Some(&2), "{id}");
            forgotten.insert(id.clone());
        }
        before = after;
    }
    assert!(forgotten.len() > 20);
}

#[test]
fn no_two_scopes_share_an_id() {
    let scopes = [(1, ACCOUNT, REGION), (2, ACCOUNT, REGION), (1, "444455556666", REGION), (1, ACCOUNT, "us-east-1")];
    let mut ids = BTreeSet::new();
    for (seed, account, region) in scopes {
        for id in by_id(&Fleet::new(seed, account, region, 100, at(0))).into_keys() {
            let digits = id.strip_prefix("i-").unwrap();
            assert!(digits.len() == 17 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
            assert!(ids.insert(id));
        }
    }
    assert_eq!(ids.len(), 400);
}

#[test]
fn an_instance_looks_like_one() {
    let fleet = fleet(1, 300);
    let instances = fleet.instances();
    let having = |path: &str| instances.iter().filter(|instance| !at_path(instance, path).is_null()).count();
    for path in ["/PublicIpAddress", "/Ipv6Address", "/InstanceLifecycle", "/IamInstanceProfile", "/StateReason"] {
        assert!((10..250).contains(&having(path)), "{path}: {} of 300", having(path));
    }
    let without_name = instances.iter().filter(|instance| tag(instance, "Name").is_null()).count();
    let scaled = instances.iter().filter(|instance| !tag(instance, "aws:autoscaling:groupName").is_null()).count();
    assert!((10..100).contains(&without_name) && (50..250).contains(&scaled));

    let systems: BTreeSet<_> = instances
        .iter()
        .map(|instance| ["/PlatformDetails", "/Architecture"].map(|path| text(instance, path)))
        .collect();
    let expected = [
        ["Linux/UNIX", "arm64"],
        ["Linux/UNIX", "arm64_mac"],
        ["Linux/UNIX", "x86_64"],
        ["Red Hat Enterprise Linux", "x86_64"],
        ["SUSE Linux", "x86_64"],
        ["Ubuntu Pro Linux", "arm64"],
        ["Windows", "x86_64"],
    ];
    assert_eq!(systems, expected.map(|system| system.map(str::to_owned)).into());

    for instance in &instances {
        let json = serde_json::to_string(instance).unwrap();
        assert!((2_500..4_500).contains(&json.len()), "{} bytes", json.len());
        assert!(!json.contains("null"), "{json}");
        assert_eq!(instance["OwnerId"], ACCOUNT);
        assert!(text(instance, "/ReservationId").starts_with("r-"));
        assert!(text(instance, "/Placement/AvailabilityZone").starts_with(REGION));
        assert!(text(instance, "/Placement/AvailabilityZoneId").starts_with("euw1-az"));
        assert_eq!(at_path(instance, "/NetworkInterfaces/0/PrivateIpAddress"), &instance["PrivateIpAddress"]);
        assert_eq!(at_path(instance, "/NetworkInterfaces/0/Groups"), &instance["SecurityGroups"]);
        let public = at_path(instance, "/PublicIpAddress");
        assert_eq!(at_path(instance, "/NetworkInterfaces/0/Association/PublicIp"), public);
        assert_eq!(text(instance, "/PublicDnsName").is_empty(), public.is_null());
        let launched = text(instance, "/LaunchTime");
        assert!(launched.len() == 24 && launched.ends_with(".000Z"), "{launched}");
        assert!(DateTime::parse_from_rfc3339(&launched).unwrap() < at(0));
    }
}

#[test]
fn no_address_is_given_twice() {
    let instances = fleet(5, 2_000).instances();
    for path in ["/PublicIpAddress", "/PrivateIpAddress", "/NetworkInterfaces/0/MacAddress"] {
        let given: Vec<_> = instances.iter().map(|instance| text(instance, path)).filter(|ip| !ip.is_empty()).collect();
        assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), given.len(), "{path}");
    }
}

#[test]
fn fleets_of_any_size_advance() {
    for instances in [0, 1, 2, 26] {
        let mut fleet = fleet(1, instances);
        for sweep in 1..100 {
            fleet.advance(at(sweep));
        }
    }
}
