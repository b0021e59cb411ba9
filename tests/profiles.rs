//! What makes an event in the profiles `ocsf` and `cse`, and what it tells.

use std::collections::BTreeSet;

use rollcall::profile::Profile;
use rollcall::profile::ignore::Ignore;
use serde_json::{Value, json};

use crate::support::instances::full;
use crate::support::mapper::{ID, Mapper, headers};
use crate::support::schema::complaints;

/// The full instance with another value at a pointer.
fn with(at: &str, value: Value) -> Value {
    let mut instance = full();
    let (parent, name) = at.rsplit_once('/').unwrap();
    match instance.pointer_mut(parent).unwrap() {
        Value::Object(members) => drop(members.insert(name.to_owned(), value)),
        other => other[name.parse::<usize>().unwrap()] = value,
    }
    instance
}

// === ocsf ===

#[test]
fn what_settles_or_follows_another_change_makes_no_event_alone() {
    for (at, value) in [
        ("/State/Code", json!(16)),
        ("/State/Code", json!(99)),
        ("/StateReason", json!({"Code": "Client.UserInitiatedShutdown", "Message": "x"})),
        ("/StateTransitionReason", json!("User initiated (2026-01-01 00:00:00 GMT)")),
        ("/MetadataOptions/State", json!("pending")),
        ("/NetworkInterfaces/0/Attachment/Status", json!("attaching")),
        ("/NetworkInterfaces/0/Status", json!("associated")),
        ("/BlockDeviceMappings/1/Ebs/Status", json!("attaching")),
        ("/Monitoring/State", json!("disabling")),
        ("/UsageOperationUpdateTime", json!("2026-01-01T00:00:00.000Z")),
        ("/CapacityReservationId", json!("cr-1")),
        ("/CapacityReservationSpecification", json!({"CapacityReservationPreference": "open"})),
        ("/Placement/HostId", json!("h-2")),
        ("/Placement/GroupName", json!("g-2")),
        ("/Placement/GroupId", json!("pg-2")),
        ("/Future", json!("a member that the model does not know")),
    ] {
        let mut mapper = Mapper::new(Profile::Ocsf);
        mapper.takes(Some(&full()), &headers()).unwrap();
        let event = mapper.takes(Some(&with(at, value)), &headers());
        assert!(event.is_none(), "{at} made an event: {}", event.unwrap().json["message"]);
    }
}

#[test]
fn each_other_difference_is_an_update_that_names_exactly_its_paths() {
    for (at, value, paths) in [
        ("/State/Name", json!("stopped"), vec!["unmapped.state.name"]),
        ("/Monitoring/State", json!("pending"), vec!["unmapped.monitoring.state"]),
        ("/MetadataOptions/HttpTokens", json!("required"), vec!["unmapped.metadata_options.http_tokens"]),
        ("/Tags/2/Value", json!("b"), vec!["unmapped.tags[team].value"]),
        ("/Tags/0/Value", json!("api"), vec!["device.name", "unmapped.tags[Name].value"]),
        ("/KeyName", json!("other"), vec!["unmapped.key_name"]),
        ("/IamInstanceProfile/Arn", json!("arn:x"), vec!["unmapped.iam_instance_profile.arn"]),
        ("/SecurityGroups/1/GroupId", json!("sg-3"), vec!["device.groups[sg-2]", "device.groups[sg-3]"]),
        (
            "/NetworkInterfaces/0/PrivateIpAddresses/1/PrivateIpAddress",
            json!("10.0.0.3"),
            vec![
                "device.network_interfaces[eni-1 10.0.0.2]",
                "device.network_interfaces[eni-1 10.0.0.3]",
                "unmapped.network_interfaces[eni-1].addresses[10.0.0.2]",
                "unmapped.network_interfaces[eni-1].addresses[10.0.0.3]",
            ],
        ),
        (
            "/NetworkInterfaces/0/Attachment/AttachTime",
            json!("2025-12-01T00:00:01.000Z"),
            vec![
                "device.created_time",
                "device.created_time_dt",
                "unmapped.network_interfaces[eni-1].attachment.attach_time",
            ],
        ),
        (
            "/NetworkInterfaces/0/SourceDestCheck",
            json!(false),
            vec!["unmapped.network_interfaces[eni-1].source_dest_check"],
        ),
        ("/BlockDeviceMappings/1/Ebs/VolumeId", json!("vol-3"), vec!["unmapped.volumes[/dev/xvdb].volume_id"]),
        ("/CpuOptions/CoreCount", json!(4), vec!["device.hw_info.cpu_cores"]),
        ("/LaunchTime", json!("2026-01-03T00:00:00.000Z"), vec!["device.boot_time", "device.boot_time_dt"]),
        ("/PublicIpAddress", json!("nonsense"), vec!["device.ip", "unmapped.rejected"]),
    ] {
        let mut mapper = Mapper::new(Profile::Ocsf);
        mapper.takes(Some(&full()), &headers()).unwrap();
        let told = mapper.takes(Some(&with(at, value)), &headers()).unwrap_or_else(|| panic!("no event for {at}"));
        assert_eq!(told.json["message"], format!("{ID} updated: {}", paths.join(", ")), "{at}");
        let fields = told.json["unmapped"]["change"]["fields"].as_array().unwrap();
        let listed: Vec<_> = fields.iter().map(|field| field["path"].as_str().unwrap()).collect();
        assert_eq!(listed, paths, "{at}");
        assert!(fields.iter().all(|field| field["from"] != field["to"]), "{at}");
    }
}

#[test]
fn what_the_configuration_ignores_makes_no_event_alone_until_it_is_no_longer_ignored() {
    let mut mapper = Mapper::new(Profile::Ocsf);
    let ignored = |fields: &[&str], tags: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Ignore::new(&owned(fields), &owned(tags)).unwrap()
    };
    mapper.rules.mapping.ignore = ignored(&["unmapped.key_name", "device.network_interfaces[].hostname"], &["t*m"]);
    mapper.takes(Some(&full()), &headers()).unwrap();
    assert!(mapper.takes(Some(&with("/KeyName", json!("other"))), &headers()).is_none());
    assert!(mapper.takes(Some(&with("/NetworkInterfaces/1/PrivateDnsName", json!("x"))), &headers()).is_none());
    let tagged = with("/Tags/2/Value", json!("b"));
    assert!(mapper.takes(Some(&tagged), &headers()).is_none());
    assert!(mapper.takes(Some(&tagged), &headers()).is_none());
    mapper.rules.mapping.ignore = ignored(&[], &[]);
    let told = mapper.takes(Some(&tagged), &headers()).unwrap().json;
    assert!(told["message"].as_str().unwrap().ends_with(": unmapped.tags[team].value"), "{}", told["message"]);
}

#[test]
fn what_is_quiet_rides_on_the_next_event() {
    let mut mapper = Mapper::new(Profile::Ocsf);
    mapper.takes(Some(&full()), &headers()).unwrap();
    let mut stopped = with("/StateTransitionReason", json!("User initiated (later)"));
    assert!(mapper.takes(Some(&stopped), &headers()).is_none());
    stopped["State"] = json!({"Code": 80, "Name": "stopped"});
    let event = mapper.takes(Some(&stopped), &headers()).unwrap().json;
    assert_eq!(event["unmapped"]["state_transition_reason"], "User initiated (later)");
    let expected = "unmapped.state.code, unmapped.state.name, unmapped.state_transition_reason";
    assert_eq!(event["message"], format!("{ID} updated: {expected}"));
}

#[test]
fn a_removal_is_another_activity_with_its_reason_and_the_last_sighting() {
    let mut terminated = full();
    terminated["State"] = json!({"Code": 48, "Name": "terminated"});
    let mut later = headers();
    later[0].1 = "2026-02-03T00:00:00Z".to_owned();
    let mut told = later.clone();
    told.push(("last-seen", "2026-02-02T00:00:00Z".to_owned()));
    let (running, ended) = (json!({"code": 16, "name": "running"}), json!({"code": 48, "name": "terminated"}));
    for (record, headers, reason, last_seen, state) in [
        (Some(&terminated), &later, "terminated", "2026-02-03T00:00:00.000Z", &ended),
        (None, &later, "absent", "2026-02-01T00:00:00.123Z", &running),
        (None, &told, "absent", "2026-02-02T00:00:00.000Z", &running),
    ] {
        let mut mapper = Mapper::new(Profile::Ocsf);
        mapper.takes(Some(&full()), &self::headers()).unwrap();
        let event = mapper.takes(record, headers).unwrap().json;
        assert_eq!(complaints(&event), Vec::<String>::new());
        assert_eq!((&event["activity_id"], &event["type_uid"]), (&json!(99), &json!(500_199)));
        assert_eq!(event["activity_name"], "Removed");
        assert_eq!(event["type_name"], "Device Inventory Info: Other");
        assert_eq!(event["unmapped"]["change"], json!({"kind": "removed", "reason": reason}));
        assert_eq!(event["unmapped"]["state"], *state);
        assert_eq!(event["device"]["first_seen_time_dt"], "2026-02-01T00:00:00.123Z");
        assert_eq!(event["device"]["last_seen_time_dt"], last_seen);
        assert_eq!(event["time_dt"], "2026-02-03T00:00:00.000Z");
        assert_eq!(event["metadata"]["sequence"], 2);
        assert_eq!(event["message"], format!("{ID} removed: {reason}"));
    }
}

#[test]
fn the_same_event_has_the_same_uid_and_another_has_another() {
    let uid_of = |instance: &Value, headers: &[(&str, String)]| {
        let event = Mapper::new(Profile::Ocsf).takes(Some(instance), headers).unwrap().json;
        event["metadata"]["uid"].as_str().unwrap().to_owned()
    };
    let uid = uid_of(&full(), &headers());
    assert_eq!(uid_of(&with("/KeyName", json!("other")), &headers()), uid);
    let (mut later, mut elsewhere) = (headers(), headers());
    later[0].1 = "2026-02-01T00:00:00.124Z".to_owned();
    elsewhere[2].1 = "eu-west-2".to_owned();
    let of_another_account = uid_of(&with("/OwnerId", json!("1")), &headers());
    let distinct = BTreeSet::from([uid, uid_of(&full(), &later), uid_of(&full(), &elsewhere), of_another_account]);
    assert_eq!(distinct.len(), 4);
}

#[test]
fn the_order_of_lists_makes_no_ocsf_event() {
    fn reversed(value: &mut Value) {
        match value {
            Value::Array(list) => {
                list.reverse();
                list.iter_mut().for_each(reversed);
            }
            Value::Object(members) => members.values_mut().for_each(reversed),
            _ => {}
        }
    }
    let mut mapper = Mapper::new(Profile::Ocsf);
    mapper.takes(Some(&full()), &headers()).unwrap();
    let mut other = full();
    reversed(&mut other);
    assert_ne!(other, full());
    let event = mapper.takes(Some(&other), &headers());
    assert!(event.is_none(), "{}", event.unwrap().json["message"]);
}

#[test]
fn labels_are_what_happened_the_configured_ones_and_those_of_the_source() {
    let event = Mapper::new(Profile::Ocsf).takes(Some(&full()), &headers()).unwrap().json;
    let expected = ["inventory:created", "env:prod", "source:prod", "source-category:aws/inventory", "team:blue"];
    assert_eq!(event["metadata"]["labels"], json!(expected));
    assert_eq!(
        (&event["metadata"]["tenant_uid"], &event["metadata"]["correlation_uid"]),
        (&json!("acme"), &json!("0197-sweep"))
    );
}

// === cse ===

#[test]
fn a_cse_record_has_the_fields_of_its_source_in_the_value_and_as_headers() {
    let mut headers = headers();
    headers.push(("field.change", "mine".to_owned()));
    let told = Mapper::new(Profile::Cse).takes(Some(&full()), &headers).unwrap();
    let expected = json!({
        "ip": "203.0.113.1",
        "hostname": "ec2-203-0-113-1.eu-west-1.compute.amazonaws.com",
        "uniqueId": "012345678901-i-0123456789abcdef0",
        "_siemVendor": "Amazon",
        "_siemProduct": "AWS EC2 Inventory",
        "_siemDataType": "Inventory",
        "_source": "prod",
        "_sourceCategory": "aws/inventory",
        "fields": {"change": "mine", "team": "blue"},
    });
    assert_eq!(told.json, expected);
    for (name, value) in [
        ("_siemVendor", "Amazon"),
        ("_siemProduct", "AWS EC2 Inventory"),
        ("_siemDataType", "Inventory"),
        ("_source", "prod"),
        ("_sourceCategory", "aws/inventory"),
        ("team", "blue"),
        ("labels", r#"["env:prod"]"#),
        // A field cannot pass for what happened.
        ("change", "created"),
    ] {
        let found: Vec<_> = told.headers.iter().filter(|(header, _)| header == name).collect();
        assert_eq!(found, [&(name.to_owned(), value.to_owned())]);
    }
    headers.push(("field._siemForward", "false".to_owned()));
    let told = Mapper::new(Profile::Cse).takes(Some(&full()), &headers).unwrap().json;
    assert_eq!((told.get("_siemVendor"), &told["_source"]), (None, &json!("prod")));
}

#[test]
fn cse_falls_back_to_private_names_and_addresses_and_to_the_instance_alone() {
    let private =
        json!({"InstanceId": ID, "PrivateIpAddress": "10.0.0.1", "PrivateDnsName": "ip-10-0-0-1", "PublicDnsName": ""});
    let told = Mapper::new(Profile::Cse).takes(Some(&private), &[]).unwrap().json;
    assert_eq!((&told["ip"], &told["hostname"]), (&json!("10.0.0.1"), &json!("ip-10-0-0-1")));
    assert_eq!(told["uniqueId"], ID);
    let swept = [("aws-account", "111122223333".to_owned())];
    let told = Mapper::new(Profile::Cse).takes(Some(&private), &swept).unwrap().json;
    assert_eq!(told["uniqueId"], format!("111122223333-{ID}"));
}

#[test]
fn in_cse_another_source_or_state_makes_no_event() {
    let mut mapper = Mapper::new(Profile::Cse);
    mapper.takes(Some(&full()), &headers()).unwrap();
    assert!(mapper.takes(Some(&with("/State", json!({"Name": "stopped"}))), &[]).is_none());
    let told = mapper.takes(Some(&with("/PublicIpAddress", json!("203.0.113.2"))), &headers()).unwrap();
    assert!(told.headers.contains(&("changed".to_owned(), r#"["ip"]"#.to_owned())));
}
