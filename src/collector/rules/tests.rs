use super::*;
use proptest::prelude::*;
use serde_json::json;

const KEY: &str = "0123456789abcdef";

fn rules(written: Value) -> Rules {
    let rules: Vec<Rule> = serde_json::from_value(written).unwrap();
    Rules::new(&rules, Some(&secret(KEY))).unwrap()
}

fn secret(text: &str) -> Secret {
    serde_json::from_value(text.into()).unwrap()
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!("an object") };
    object
}

fn instance() -> Map<String, Value> {
    object(json!({
        "InstanceId": "i-1",
        "State": {"Code": 16, "Name": "running"},
        "EbsOptimized": false,
        "KeyName": "",
        "SecurityGroups": [],
        "Tags": [{"Key": "env", "Value": "prod-eu"}, {"Key": "secret/a", "Value": "s3"}, {"Key": "bare"}],
        "NetworkInterfaces": [
            {"PrivateIpAddress": "10.0.0.1", "Groups": [{"GroupId": "sg-1"}, {"GroupId": "sg-2"}]},
            {"PrivateIpAddress": "10.0.0.2", "Association": {"PublicIp": "192.0.2.1"}},
        ],
    }))
}

#[track_caller]
fn fate(rules_written: Value) -> Fate {
    rules(rules_written).apply(&mut instance())
}

fn applied(rules_written: Value) -> Value {
    let mut instance = instance();
    assert_eq!(rules(rules_written).apply(&mut instance), Fate::Keep);
    Value::Object(instance)
}

fn denies(field: &str, matches: Value) -> bool {
    fate(json!([{"deny": {"field": field, "matches": matches}}])) == Fate::Deny
}

// === Conditions ===

#[test]
fn no_rules_keep_everything_as_it_is() {
    let rules = rules(json!([]));
    assert!(rules.is_empty());
    let mut kept = instance();
    assert_eq!((rules.apply(&mut kept), kept), (Fate::Keep, instance()));
}

#[test]
fn a_path_leads_through_members_and_every_element_of_a_list() {
    for (field, matches) in [
        ("State.Name", json!("running")),
        ("State.Name", json!(["stopped", "run*"])),
        ("NetworkInterfaces.PrivateIpAddress", json!("10.0.0.2")),
        ("NetworkInterfaces.Groups.GroupId", json!("sg-2")),
        ("NetworkInterfaces.*.PublicIp", json!("192.0.2.?")),
        ("*.Name", json!("running")),
    ] {
        assert!(denies(field, matches.clone()), "{field} {matches}");
    }
    for (field, matches) in [
        ("State.Name", json!("run")),
        ("State.Name", json!("Running")),
        ("State", json!("*")),
        ("State.Name.More", json!("*")),
        ("NetworkInterfaces.PrivateIpAddress", json!("10.0.0.3")),
        ("Missing", json!("*")),
    ] {
        assert!(!denies(field, matches.clone()), "{field} {matches}");
    }
}

#[test]
fn a_tag_is_picked_by_its_key() {
    assert!(denies("Tags[env]", json!("prod*")));
    assert!(denies("Tags[e*]", json!("prod-eu")));
    assert!(denies("Tags[secret/?]", json!("s3")));
    assert!(!denies("Tags[Env]", json!("prod*")));
    assert!(!denies("Tags[secret/*]", json!("prod*")));
    assert!(!denies("Tags[bare]", json!("*")));
    assert!(denies("Tags.Key", json!("bare")));
}

#[test]
fn numbers_and_flags_match_by_their_json() {
    assert!(denies("State.Code", json!(16)) && denies("State.Code", json!("1?")));
    assert!(denies("EbsOptimized", json!(false)) && !denies("EbsOptimized", json!(true)));
}

#[test]
fn without_a_pattern_anything_that_is_not_empty_matches() {
    for (field, exists) in [
        ("State", true),
        ("State.Code", true),
        ("EbsOptimized", true),
        ("Tags[env]", true),
        ("NetworkInterfaces", true),
        ("KeyName", false),
        ("SecurityGroups", false),
        ("Tags[bare]", false),
        ("Missing", false),
    ] {
        let fate = fate(json!([{"deny": {"field": field}}]));
        assert_eq!(fate == Fate::Deny, exists, "{field}");
    }
}

// === Order ===

#[test]
fn where_there_are_allow_rules_one_of_them_must_match() {
    let allow = |field: &str, glob: &str| json!({"allow": {"field": field, "matches": glob}});
    assert_eq!(fate(json!([allow("Tags[env]", "prod*")])), Fate::Keep);
    assert_eq!(fate(json!([allow("Tags[env]", "dev*")])), Fate::Deny);
    assert_eq!(fate(json!([allow("Tags[env]", "dev*"), allow("State.Name", "running")])), Fate::Keep);
    assert_eq!(fate(json!([allow("State.Name", "running"), allow("Tags[env]", "dev*")])), Fate::Keep);
}

#[test]
fn a_deny_wins_over_an_allow_whichever_comes_first() {
    let allow = json!({"allow": {"field": "Tags[env]", "matches": "prod*"}});
    let deny = json!({"deny": {"field": "State.Name", "matches": "running"}});
    assert_eq!(fate(json!([allow, deny])), Fate::Deny);
    assert_eq!(fate(json!([deny, allow])), Fate::Deny);
}

#[test]
fn a_rule_sees_what_the_rules_before_it_have_left() {
    let mask = json!({"mask": {"field": "State.Name"}});
    let deny = json!({"deny": {"field": "State.Name", "matches": "running"}});
    assert_eq!(fate(json!([deny, mask])), Fate::Deny);
    assert_eq!(fate(json!([mask, deny])), Fate::Keep);
    let allow = json!({"allow": {"field": "State.Name", "matches": "running"}});
    assert_eq!(fate(json!([allow, mask])), Fate::Keep);
    assert_eq!(fate(json!([mask, allow])), Fate::Deny);
}

// === Replacements ===

#[test]
fn a_mask_replaces_scalars_and_keeps_the_shape() {
    let masked = applied(json!([
        {"mask": {"field": "Tags[secret*]", "with": "***"}},
        {"mask": {"field": "NetworkInterfaces.PrivateIpAddress"}},
        {"mask": {"field": "State.*"}},
        {"mask": {"field": "Missing.Member"}},
    ]));
    let mut expected = Value::Object(instance());
    expected["Tags"][1]["Value"] = "***".into();
    expected["NetworkInterfaces"][0]["PrivateIpAddress"] = "#####".into();
    expected["NetworkInterfaces"][1]["PrivateIpAddress"] = "#####".into();
    expected["State"] = json!({"Code": "#####", "Name": "#####"});
    assert_eq!(masked, expected);
}

#[test]
fn what_is_no_scalar_is_left_as_it_is() {
    let mut with_null = instance();
    with_null.insert("KernelId".to_owned(), Value::Null);
    let before = with_null.clone();
    let rules = rules(json!([{"mask": {"field": "State"}}, {"mask": {"field": "KernelId"}}]));
    assert_eq!((rules.apply(&mut with_null), with_null), (Fate::Keep, before));
}

#[test]
fn a_hash_is_hmac_sha_256_as_rfc_4231_has_it_cut_to_sixteen_bytes() {
    for (key, data, expected) in [
        ("\x0b".repeat(20), "Hi There", "b0344c61d8db38535ca8afceaf0bf12b"),
        ("Jefe".to_owned(), "what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c7"),
    ] {
        let written: Vec<Rule> = serde_json::from_value(json!([{"hash": {"field": "KeyName"}}])).unwrap();
        let mut instance = object(json!({"KeyName": data}));
        Rules::new(&written, Some(&secret(&key))).unwrap().apply(&mut instance);
        assert_eq!(instance["KeyName"], expected);
    }
}

#[test]
fn equal_values_have_equal_hashes_and_a_tag_keeps_its_key() {
    let hashed = applied(json!([
        {"hash": {"field": "Tags[*]"}},
        {"hash": {"field": "NetworkInterfaces.PrivateIpAddress"}},
        {"hash": {"field": "State.Code"}},
    ]));
    let of = |text: &str| {
        let mut other = object(json!({"KeyName": text}));
        rules(json!([{"hash": {"field": "KeyName"}}])).apply(&mut other);
        other["KeyName"].clone()
    };
    let tags = json!([
        {"Key": "env", "Value": of("prod-eu")}, {"Key": "secret/a", "Value": of("s3")}, {"Key": "bare"},
    ]);
    assert_eq!(hashed["Tags"], tags);
    assert_eq!(hashed["NetworkInterfaces"][1]["PrivateIpAddress"], of("10.0.0.2"));
    assert_eq!(hashed["State"]["Code"], of("16"));
}

#[test]
fn another_key_gives_another_hash_and_none_is_an_error_that_names_the_setting() {
    let written: Vec<Rule> = serde_json::from_value(json!([{"hash": {"field": "State.Name"}}])).unwrap();
    let hashed = |key: &str| {
        let mut instance = instance();
        Rules::new(&written, Some(&secret(key))).unwrap().apply(&mut instance);
        instance["State"]["Name"].clone()
    };
    assert_ne!(hashed(KEY), hashed("fedcba9876543210"));
    assert!(Rules::new(&written, None).unwrap_err().to_string().contains("collector.hash_key"));
}

#[test]
fn the_key_is_not_in_debug() {
    let shown = format!("{:?}", rules(json!([{"hash": {"field": "KeyName"}}])));
    assert!(shown.contains("KeyName") && shown.contains("Hash"), "{shown}");
    assert!(!shown.contains(KEY) && !shown.contains("48, 49, 50"), "{shown}");
}

// === Whatever comes ===

const NAMES: [&str; 8] = ["InstanceId", "Tags", "Key", "Value", "State", "Name", "Groups", "X"];

fn json() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(vec!["", "a", "env", "running"]).prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    scalar.prop_recursive(5, 64, 6, |inner| {
        let name = proptest::sample::select(&NAMES[..]).prop_map(str::to_owned);
        let pairs = (any::<String>(), inner.clone()).prop_map(|(key, value)| json!({"Key": key, "Value": value}));
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec(pairs, 0..4).prop_map(|tags| json!({"Tags": tags})),
            proptest::collection::btree_map(name, inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_instance() -> impl Strategy<Value = Map<String, Value>> {
    proptest::collection::btree_map(proptest::sample::select(&NAMES[..]), json(), 0..8)
        .prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn any_rules() -> impl Strategy<Value = Value> {
    const FIELDS: [&str; 9] =
        ["InstanceId", "Tags[*]", "Tags[e*]", "State.Name", "*.*", "*.Value", "Groups.*.X", "Tags.Value", "X"];
    let rule = (0..4, proptest::sample::select(&FIELDS[..])).prop_filter_map("refused", |(kind, field)| match kind {
        0 => Some(json!({"allow": {"field": field}})),
        1 => Some(json!({"deny": {"field": field, "matches": "?"}})),
        _ if field == "InstanceId" => None,
        2 => Some(json!({"hash": {"field": field}})),
        _ => Some(json!({"mask": {"field": field}})),
    });
    proptest::collection::vec(rule, 0..6).prop_map(Value::from)
}

/// The keys of all tags, in order.
fn tag_keys(value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::Array(list) => list.iter().for_each(|element| tag_keys(element, found)),
        Value::Object(object) => {
            found.extend(object.get("Key").cloned());
            object.values().for_each(|member| tag_keys(member, found));
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn any_rules_on_any_instance_give_the_same_each_time_and_spare_the_id(
        instance in any_instance(),
        written in any_rules(),
    ) {
        let rules = rules(written);
        let (mut once, mut twice) = (instance.clone(), instance.clone());
        prop_assert_eq!(rules.apply(&mut once), rules.apply(&mut twice));
        prop_assert_eq!(&once, &twice);
        prop_assert_eq!(once.get("InstanceId"), instance.get("InstanceId"));
        let mut keys = [Vec::new(), Vec::new()];
        tag_keys(&Value::Object(once), &mut keys[0]);
        tag_keys(&Value::Object(instance), &mut keys[1]);
        prop_assert_eq!(&keys[0], &keys[1]);
    }

    #[test]
    fn what_is_hidden_does_not_occur_in_the_record(
        mut instance in any_instance(),
        at in 0..4usize,
        hash in any::<bool>(),
    ) {
        const HIDDEN: &str = "hidden-2b7e151628aed2a6";
        let (field, value) = [
            ("Tags[password]", json!({"Key": "password", "Value": HIDDEN})),
            ("Tags[pass*]", json!([{"Key": "env", "Value": "a"}, {"Key": "password", "Value": HIDDEN}])),
            ("Tags.Value", json!([[{"Value": [HIDDEN, {"X": 1}]}]])),
            ("*.State.Name", json!([{"State": {"Name": HIDDEN}}, {"State": [{"Name": [HIDDEN]}]}])),
        ][at].clone();
        instance.insert("Tags".to_owned(), value);
        let rule = if hash { "hash" } else { "mask" };
        prop_assert!(Value::Object(instance.clone()).to_string().contains(HIDDEN));
        rules(json!([{rule: {"field": field}}])).apply(&mut instance);
        prop_assert!(!String::from_utf8(crate::record::canonical::to_bytes(instance)).unwrap().contains(HIDDEN));
    }
}
