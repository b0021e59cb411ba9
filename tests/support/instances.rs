//! Instances that EC2 could send, and what it never would: every member of the model, with mutations anywhere.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

/// An instance with every member that profile `ocsf` has a home for, and many that it has not.
pub fn full() -> Value {
    serde_json::from_str(include_str!("../data/full-instance.json")).unwrap()
}

/// An instance with every member of the model, of its type.
fn of_the_model() -> Value {
    let page: Value = serde_json::from_str(include_str!("../data/describe-instances/every-member.json")).unwrap();
    let mut instance = page["Reservations"][0]["Instances"][0].clone();
    instance["OwnerId"] = json!("012345678901");
    instance
}

const WORDS: [&str; 20] = [
    "",
    " ",
    "\u{0}",
    "a\nb\u{2028}c\u{7f}",
    "\u{202e}gnirts",
    "\u{1f980}",
    "\"\\",
    "Other",
    "Unknown",
    "null",
    "Name",
    "terminated",
    "windows",
    "SQL Server Standard",
    "a mac",
    "x86_64_mac",
    "i386",
    "z80",
    "u7i.metal-24xl",
    "inventory:removed",
];
const TIMES: [&str; 9] = [
    "1970-01-01T00:00:01Z",
    "1973-03-03T00:00:00Z",
    "1973-03-03T09:46:39.999Z",
    "1973-03-03T09:46:40Z",
    "1767225600",
    "9999-12-31T23:59:59.999Z",
    "10000-01-01T00:00:00Z",
    "2026-01-01T00:00:00+05:30",
    "2026-01-01",
];
const ADDRESSES: [&str; 14] = [
    "11.00.1.15",
    "256.1.1.1",
    "1.2.3",
    "1.2.3.4 ",
    "0x7f.1",
    "198.51.100.7",
    "::ffff:1.2.3.4",
    "2001:DB8:0:0:0:0:0:1",
    "fe80::1%eth0",
    "0000:0000:0000:0000:0000:ffff:255.255.255.255",
    "02-00-00-00-00-0A",
    "0200.0000.0001",
    "02:00:00:00:00:0G",
    "02:00:00:00:00:01:02",
];
const ZONES: [&str; 4] = ["us-gov-west-1b", "cn-north-1a", "moon-1", "eu-west-1"];

/// What is nearly right for a member of that name.
fn nearly_right(name: &str) -> &'static [&'static str] {
    match name {
        _ if name.ends_with("Time") => &TIMES,
        _ if name.contains("Ip") || name.contains("Address") => &ADDRESSES,
        "AvailabilityZone" => &ZONES,
        _ => &WORDS,
    }
}

/// What somebody or some bug might send in the place of a member.
fn hostile() -> impl Strategy<Value = Value> {
    let texts = [&WORDS[..], &TIMES, &ADDRESSES, &ZONES].concat();
    let text = prop_oneof![
        8 => prop::sample::select(texts).prop_map(Value::from),
        1 => any::<String>().prop_map(Value::from),
        1 => Just(Value::from("x".repeat(5000))),
    ];
    let leaf = prop_oneof![
        12 => text,
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => prop::sample::select(vec![0_i64, -1, 1, 99, i64::MAX, i64::MIN, 1_767_225_600]).prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        let object = vec((prop::sample::select(vec!["Key", "Value", "Name", "PrivateIpAddress"]), inner.clone()), 0..3);
        let object =
            object.prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        prop_oneof![vec(inner, 0..3).prop_map(Value::from), object]
    })
}

/// A change anywhere in an instance.
#[derive(Debug, Clone)]
enum Mutation {
    NearlyRight(Index),
    Set(Value),
    Drop,
    Repeat,
}

/// The pointers of all that is in `value`, but for the ID.
fn pointers(at: String, value: &Value, found: &mut Vec<String>) {
    if at == "/InstanceId" {
        return;
    }
    if !at.is_empty() {
        found.push(at.clone());
    }
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| {
                pointers(format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), value, found)
            });
        }
        Value::Array(elements) => {
            elements.iter().enumerate().for_each(|(index, value)| pointers(format!("{at}/{index}"), value, found));
        }
        _ => {}
    }
}

fn mutate(instance: &mut Value, index: &Index, mutation: Mutation) {
    let mut found = Vec::new();
    pointers(String::new(), instance, &mut found);
    let Some(at) = (!found.is_empty()).then(|| index.get(&found)) else { return };
    match mutation {
        Mutation::NearlyRight(index) => {
            let texts = nearly_right(at.rsplit('/').next().unwrap());
            *instance.pointer_mut(at).unwrap() = (*index.get(texts)).into();
        }
        Mutation::Set(value) => *instance.pointer_mut(at).unwrap() = value,
        Mutation::Drop | Mutation::Repeat => {
            let (parent, last) = at.rsplit_once('/').unwrap();
            match (instance.pointer_mut(parent).unwrap(), mutation) {
                (Value::Object(members), Mutation::Drop) => {
                    drop(members.remove(&last.replace("~1", "/").replace("~0", "~")))
                }
                (Value::Array(elements), Mutation::Drop) => drop(elements.remove(last.parse::<usize>().unwrap())),
                (Value::Array(elements), _) => elements.push(elements[last.parse::<usize>().unwrap()].clone()),
                _ => {}
            }
        }
    }
}

/// An instance of that ID with up to so many mutations.
pub fn any_instance(most: usize) -> impl Strategy<Value = Value> {
    let base = prop_oneof![4 => Just(full()), 1 => Just(of_the_model()), 1 => Just(json!({}))];
    let mutation = prop_oneof![6 => any::<Index>().prop_map(Mutation::NearlyRight), 4 => hostile().prop_map(Mutation::Set), 2 => Just(Mutation::Drop), 1 => Just(Mutation::Repeat)];
    (base, vec((any::<Index>(), mutation), 0..=most)).prop_map(|(mut instance, mutations)| {
        mutations.into_iter().for_each(|(index, mutation)| mutate(&mut instance, &index, mutation));
        instance["InstanceId"] = full()["InstanceId"].clone();
        instance
    })
}

/// Headers of a raw record, most of them well-formed.
pub fn any_headers() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let odd = || prop_oneof![Just(String::new()), any::<String>(), Just("1970-01-01T00:00:01Z".to_owned())];
    let header = |name: &'static str, usual: &'static str| {
        prop::option::of(prop_oneof![4 => Just(usual.to_owned()), 1 => odd()]).prop_map(move |value| (name, value))
    };
    (
        header("observed-at", "2026-02-01T00:00:00.123Z"),
        header("sweep-id", "0197-sweep"),
        header("aws-account", "998877665544"),
        header("aws-region", "us-gov-west-1"),
        header("source", "prod"),
        header("source-category", "aws/inventory"),
        header("field.team", "blue"),
        header("last-seen", "2026-01-31T00:00:00Z"),
    )
        .prop_map(|(a, b, c, d, e, f, g, h)| {
            [a, b, c, d, e, f, g, h].into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
        })
}
