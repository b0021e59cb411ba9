//! Equal instances give equal bytes, and nothing gets lost.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

fn canonical(value: Value) -> Value {
    serde_json::from_str(&json_of(value)).expect("JSON")
}

fn json_of(value: Value) -> String {
    String::from_utf8(to_bytes(object(value))).expect("UTF-8")
}

#[test]
fn members_are_in_alphabetical_order() {
    let instance = json!({"VpcId": "vpc-1", "State": {"Name": "running", "Code": 16}, "ImageId": "ami-1"});
    let expected = r#"{"ImageId":"ami-1","State":{"Code":16,"Name":"running"},"VpcId":"vpc-1"}"#;
    assert_eq!(json_of(instance), expected);
}

#[test]
fn nothing_is_added_or_dropped() {
    let instance = json!({"A": null, "B": "", "C": [], "D": {}, "E": [null, "", [], {}], "F": 1.5, "G": -1});
    assert_eq!(json_of(instance), r#"{"A":null,"B":"","C":[],"D":{},"E":["",[],null,{}],"F":1.5,"G":-1}"#);
}

#[test]
fn tags_are_ordered_by_key() {
    let instance = json!({"Tags": [{"Key": "b", "Value": "1"}, {"Key": "a", "Value": "2"}, {"Value": "0"}]});
    let expected = json!({"Tags": [{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "1"}, {"Value": "0"}]});
    assert_eq!(canonical(instance), expected);
}

#[test]
fn groups_are_ordered_by_id_and_then_by_name() {
    let groups = json!([
        {"GroupId": "sg-2", "GroupName": "a"},
        {"GroupName": "b"},
        {"GroupName": "a"},
        {"GroupId": "sg-1", "GroupName": "z"},
    ]);
    let ordered = json!([
        {"GroupId": "sg-1", "GroupName": "z"},
        {"GroupId": "sg-2", "GroupName": "a"},
        {"GroupName": "a"},
        {"GroupName": "b"},
    ]);
    let instance = json!({"SecurityGroups": groups, "NetworkInterfaces": [{"Groups": groups}]});
    let expected = json!({"SecurityGroups": ordered, "NetworkInterfaces": [{"Groups": ordered}]});
    assert_eq!(canonical(instance), expected);
}

#[test]
fn interfaces_are_ordered_by_card_and_device_as_numbers() {
    let interface = |id: &str, attachment: Value| json!({"NetworkInterfaceId": id, "Attachment": attachment});
    let ordered = json!([
        interface("eni-9", json!({"NetworkCardIndex": 0, "DeviceIndex": 0})),
        interface("eni-8", json!({"NetworkCardIndex": 0, "DeviceIndex": 2})),
        interface("eni-7", json!({"NetworkCardIndex": 0, "DeviceIndex": 10})),
        interface("eni-6", json!({"NetworkCardIndex": 1, "DeviceIndex": 1})),
        interface("eni-5", json!({"DeviceIndex": 0})),
        {"NetworkInterfaceId": "eni-1"},
        {"NetworkInterfaceId": "eni-2"},
    ]);
    let mut reversed = ordered.clone();
    reversed.as_array_mut().expect("a list").reverse();
    assert_eq!(canonical(json!({"NetworkInterfaces": reversed})), json!({"NetworkInterfaces": ordered}));
}

#[test]
fn the_root_device_comes_first() {
    let instance = |devices: [&str; 3]| {
        let devices = devices.map(|device| json!({"DeviceName": device}));
        json!({"RootDeviceName": "/dev/xvda", "BlockDeviceMappings": devices})
    };
    let expected = instance(["/dev/xvda", "/dev/sdb", "/dev/sdf"]);
    assert_eq!(canonical(instance(["/dev/sdf", "/dev/xvda", "/dev/sdb"])), expected);
}

#[test]
fn the_primary_address_comes_first() {
    let v4 = |text: &str, primary: bool| json!({"PrivateIpAddress": text, "Primary": primary});
    let v6 = |text: &str, primary: bool| json!({"Ipv6Address": text, "IsPrimaryIpv6": primary});
    let instance = json!({"NetworkInterfaces": [{
        "PrivateIpAddresses": [v4("10.0.0.3", false), v4("10.0.0.2", false), v4("10.0.0.9", true)],
        "Ipv6Addresses": [v6("fd00::2", false), v6("fd00::9", true), {"Ipv6Address": "fd00::1"}],
    }]});
    let expected = json!({"NetworkInterfaces": [{
        "PrivateIpAddresses": [v4("10.0.0.9", true), v4("10.0.0.2", false), v4("10.0.0.3", false)],
        "Ipv6Addresses": [v6("fd00::9", true), {"Ipv6Address": "fd00::1"}, v6("fd00::2", false)],
    }]});
    assert_eq!(canonical(instance), expected);
}

#[test]
fn any_other_list_is_ordered_by_the_json_of_its_elements() {
    let instance = json!({
        "Licenses": [{"LicenseConfigurationArn": "b"}, {"LicenseConfigurationArn": "a"}],
        "Monitoring": {"MetricCategoryIds": ["z", "a"]},
        "New": [["b", "a"], [2, 10], ["a", "a"]],
    });
    let expected = json!({
        "Licenses": [{"LicenseConfigurationArn": "a"}, {"LicenseConfigurationArn": "b"}],
        "Monitoring": {"MetricCategoryIds": ["a", "z"]},
        "New": [["a", "a"], ["a", "b"], [10, 2]],
    });
    assert_eq!(canonical(instance), expected);
}

#[test]
fn the_high_byte_of_the_state_code_is_masked() {
    let code = |code: Value| canonical(json!({"State": {"Code": code}}))["State"]["Code"].take();
    assert_eq!(code(json!(16)), json!(16));
    assert_eq!(code(json!(0x0110)), json!(16));
    assert_eq!(code(json!(-240)), json!(16));
    assert_eq!(code(json!(u64::MAX)), json!(255));
    assert_eq!(code(json!("272")), json!("272"));
    assert_eq!(code(json!(272.5)), json!(272.5));
    let elsewhere = json!({"StateReason": {"Code": 272}, "New": {"State": {"Code": 272}}});
    assert_eq!(canonical(elsewhere.clone()), elsewhere);
}

#[test]
fn wrong_types_are_kept_and_still_have_an_order() {
    let instance = json!({
        "State": "running", "RootDeviceName": 7, "Tags": {"Key": "a"},
        "SecurityGroups": ["sg-2", {"GroupId": 5}, null, "sg-1", {"GroupId": "sg-3"}],
        "BlockDeviceMappings": [{"DeviceName": 7}, 7],
    });
    let expected = json!({
        "State": "running", "RootDeviceName": 7, "Tags": {"Key": "a"},
        "SecurityGroups": [{"GroupId": "sg-3"}, "sg-1", "sg-2", null, {"GroupId": 5}],
        "BlockDeviceMappings": [7, {"DeviceName": 7}],
    });
    assert_eq!(canonical(instance), expected);
}

/// The names that matter here, and two that do not.
const NAMES: [&str; 24] = [
    "Attachment",
    "BlockDeviceMappings",
    "Code",
    "DeviceIndex",
    "DeviceName",
    "GroupId",
    "GroupName",
    "Groups",
    "Ipv6Address",
    "Ipv6Addresses",
    "IsPrimaryIpv6",
    "Key",
    "NetworkCardIndex",
    "NetworkInterfaceId",
    "NetworkInterfaces",
    "New",
    "Primary",
    "PrivateIpAddress",
    "PrivateIpAddresses",
    "RootDeviceName",
    "SecurityGroups",
    "State",
    "Tags",
    "Value",
];

/// Anything that looks like an instance from afar: members of such names, of any type.
fn any_instance() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2..300_i64).prop_map(Value::from),
        // Such as survive being written and read.
        (-999..999).prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        "[ab\"é]{0,2}".prop_map(Value::from),
    ];
    object_of(leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![vec(inner.clone(), 0..6).prop_map(Value::from), object_of(inner)]
    }))
}

fn object_of(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    let name = prop::sample::select(NAMES.as_slice()).prop_map(str::to_owned);
    vec((name, value), 0..8).prop_map(|members| members.into_iter().collect())
}

/// The same instance, with the elements of each list in another order.
fn shuffled(value: Value, seed: &mut u64) -> Value {
    match value {
        Value::Array(list) => {
            let mut list: Vec<Value> = list.into_iter().map(|element| shuffled(element, seed)).collect();
            for end in (1..list.len()).rev() {
                *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                list.swap(end, (*seed >> 33) as usize % (end + 1));
            }
            Value::Array(list)
        }
        Value::Object(members) => members.into_iter().map(|(name, value)| (name, shuffled(value, seed))).collect(),
        leaf => leaf,
    }
}

/// An order of its own making, to tell whether two values hold the same.
fn as_multiset(value: Value) -> Value {
    match value {
        Value::Array(list) => {
            let mut list: Vec<Value> = list.into_iter().map(as_multiset).collect();
            list.sort_by_key(Value::to_string);
            Value::Array(list)
        }
        Value::Object(members) => members.into_iter().map(|(name, value)| (name, as_multiset(value))).collect(),
        leaf => leaf,
    }
}

#[test]
fn a_name_with_a_capital_is_written_so_and_escaped_where_it_must_be() {
    let members = ["name", "enaSrdSpecification", "\"a", "é", "x\ny", "Z"]
        .map(|name| (Name::new(name).capitalised(), Node::Null));
    let expected = r#"{"\"a":null,"EnaSrdSpecification":null,"Name":null,"X\ny":null,"Z":null,"é":null}"#;
    assert_eq!(String::from_utf8(write(members.into())).expect("UTF-8"), expected);
}

#[test]
fn an_instance_says_what_a_sweep_has_to_know() {
    let of = |value: Value| Instance::of_map(&object(value));
    let full = of(json!({"Tags": [{"Key": "a"}], "State": {"Name": "running", "Code": 272}, "InstanceId": "i-1"}));
    assert_eq!((full.id.as_deref(), full.state.as_deref(), full.has_tags), (Some("i-1"), Some("running"), true));
    let json = r#"{"InstanceId":"i-1","State":{"Code":16,"Name":"running"},"Tags":[{"Key":"a"}]}"#;
    assert_eq!(String::from_utf8_lossy(&full.json), json);
    assert_eq!(Instance::of_map(&full.to_map().unwrap()), full);
    for less in [json!({}), json!({"Tags": [], "State": "running", "InstanceId": ""}), json!({"Tags": {"Key": "a"}})] {
        let less = of(less);
        assert_eq!((less.id, less.state, less.has_tags), (None, None, false));
    }
}

proptest! {
    #[test]
    fn names_are_ordered_as_their_texts_are(a in "[ab\0é]{0,10}", b in "[ab\0é]{0,10}") {
        prop_assert_eq!(Name::new(&a).cmp(&Name::new(&b)), a.cmp(&b));
        prop_assert_eq!(Name::new(&a) == Name::new(&b), a == b);
        let capital = |text: &str| text.get(..1).map_or(text.to_owned(), |first| first.to_ascii_uppercase() + &text[1..]);
        prop_assert_eq!(Name::new(&a).capitalised().cmp(&Name::new(&b)), capital(&a).cmp(&b));
    }

    #[test]
    fn the_bytes_are_those_that_serde_json_writes(instance in any_instance()) {
        let written = json_of(instance);
        let read: Value = serde_json::from_str(&written).expect("JSON");
        prop_assert_eq!(read.to_string(), written);
    }

    #[test]
    fn the_order_of_lists_does_not_matter(instance in any_instance(), mut seed: u64) {
        prop_assert_eq!(json_of(shuffled(instance.clone(), &mut seed)), json_of(instance));
    }

    #[test]
    fn the_canonical_form_is_its_own_canonical_form(instance in any_instance()) {
        let once = canonical(instance);
        prop_assert_eq!(canonical(once.clone()), once);
    }

    #[test]
    fn only_the_state_code_and_the_order_change(instance in any_instance()) {
        let mut expected = instance.clone();
        if let Some(code) = expected.pointer_mut("/State/Code").filter(|_| instance["State"].is_object())
            && let Some(number) = code.as_i64()
        {
            *code = (number & 0xFF).into();
        }
        prop_assert_eq!(as_multiset(canonical(instance)), as_multiset(expected));
    }
}
