//! The lifecycle of a device, as a specification: `docs/mapping.md`, "What counts as a change".

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::profile::Profile;
use crate::record::{OBSERVED_AT, canonical};

const ID: &str = "i-0123456789abcdef0";
const LIMIT: usize = 4096;

fn rules() -> Rules {
    Rules::new(Mapping::default(), 12, LIMIT)
}

/// An instance with every member that the profile renders, and some that it does not.
fn running() -> Value {
    json!({
        "InstanceId": ID,
        "OwnerId": "123456789012",
        "ImageId": "ami-1",
        "InstanceType": "m5.large",
        "State": {"Code": 16, "Name": "running"},
        "LaunchTime": "2026-01-01T00:00:00.000Z",
        "Placement": {"AvailabilityZone": "eu-west-1a", "Tenancy": "default"},
        "SubnetId": "subnet-1",
        "VpcId": "vpc-1",
        "Hypervisor": "xen",
        "Architecture": "x86_64",
        "PlatformDetails": "Linux/UNIX",
        "PublicDnsName": "web.example.com",
        "PrivateDnsName": "ip-10-0-0-1.internal",
        "PublicIpAddress": "203.0.113.1",
        "PrivateIpAddress": "10.0.0.1",
        "IamInstanceProfile": {"Arn": "arn:aws:iam::123456789012:instance-profile/web", "Id": "AIPA1"},
        "Monitoring": {"State": "disabled"},
        "StateTransitionReason": "",
        "Tags": [
            {"Key": "Name", "Value": "web"},
            {"Key": "aws:autoscaling:groupName", "Value": "asg-1"},
            {"Key": "team", "Value": "a"},
        ],
        "SecurityGroups": [{"GroupId": "sg-1", "GroupName": "web"}],
        "NetworkInterfaces": [{
            "NetworkInterfaceId": "eni-1",
            "Attachment": {"DeviceIndex": 0, "NetworkCardIndex": 0, "Status": "attached"},
            "Description": "front",
            "MacAddress": "02:00:00:00:00:01",
            "PrivateIpAddress": "10.0.0.1",
            "PrivateDnsName": "ip-10-0-0-1.internal",
        }],
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/xvda", "Ebs": {"AttachTime": "2026-01-01T00:00:05.000Z", "VolumeId": "vol-1"}},
            {"DeviceName": "/dev/xvdb", "Ebs": {"AttachTime": "2026-01-02T00:00:00.000Z", "VolumeId": "vol-2"}},
        ],
    })
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut instance = running();
    change(&mut instance);
    instance
}

fn named(name: &str) -> Value {
    with(|instance| instance["Tags"][0]["Value"] = name.into())
}

fn terminated() -> Value {
    with(|instance| instance["State"] = json!({"Code": 48, "Name": "terminated"}))
}

fn remove(instance: &mut Value, member: &str) {
    instance.as_object_mut().unwrap().remove(member).unwrap();
}

/// A record.
#[derive(Debug)]
struct Sent {
    partition: i32,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(&'static str, String)>,
}

impl Sent {
    /// As it lies there.
    fn at(&self, offset: i64) -> RawRecord<'_> {
        RawRecord {
            partition: self.partition,
            offset,
            timestamp_ms: WRITTEN,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: self.headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect(),
        }
    }
}

/// 2026-01-01T00:00:00Z.
const EPOCH: i64 = 1_767_225_600_000;
/// When every record was written, to Kafka's mind: after all that is observed here.
const WRITTEN: i64 = EPOCH + 365 * 24 * 3600 * 1000;

/// A record of the device, in its partition, observed `at` milliseconds after 2026-01-01.
fn sent(at: i64, value: Option<&Value>) -> Sent {
    Sent {
        partition: partition_for(ID.as_bytes(), rules().partitions),
        key: Some(ID.into()),
        value: value.map(|value| value.to_string().into_bytes()),
        headers: vec![(OBSERVED_AT, rfc3339_ms(EPOCH + at))],
    }
}

/// What another process would have noted of an instance.
fn digest_by_another_process(instance: &Value) -> Digest {
    Digest::by(Secret([1; 32]), instance.to_string().as_bytes(), None, None)
}

/// What is known of one device, and what follows from the records about it.
struct Roll {
    devices: Devices,
    /// What the state topic says last of a device.
    written: Option<DeviceState>,
    offset: i64,
    unreadable: Vec<String>,
}

impl Roll {
    fn new() -> Self {
        Self { devices: Devices::default(), written: None, offset: 0, unreadable: Vec::new() }
    }

    /// A roll on which the device has been seen running at 100.
    fn called() -> Self {
        let mut roll = Self::new();
        assert_eq!(roll.sees(100, &running()), "created");
        roll
    }

    fn sees(&mut self, at: i64, instance: &Value) -> String {
        self.takes(&sent(at, Some(instance)))
    }

    fn misses(&mut self, at: i64) -> String {
        self.takes(&sent(at, None))
    }

    fn takes(&mut self, sent: &Sent) -> String {
        told(&self.decide(sent))
    }

    /// Decides, and keeps what follows as the engine does.
    fn decide(&mut self, sent: &Sent) -> Decision {
        let record = sent.at(self.offset);
        self.offset += 1;
        self.unreadable.clear();
        let unreadable = &mut self.unreadable;
        let decision = decide(&rules(), &record, &self.devices, &mut |path| unreadable.push(path.to_owned()));
        let key = String::from_utf8_lossy(sent.key.as_deref().unwrap_or_default());
        match &decision {
            Decision::Emit(emission) => {
                self.written = Some(emission.state.clone());
                self.devices.put(&key, Some(emission.state.clone()));
            }
            Decision::Same(known) => self.devices.learn(&key, *known),
            Decision::Unchanged | Decision::Stale | Decision::Reject(_) => {}
        }
        decision
    }

    fn state(&self) -> DeviceState {
        self.devices.get(ID).expect("a state")
    }

    /// The state as a release with other rules would have left it: `rewrite` is what it rendered otherwise.
    fn was_written_by_another_mapping(&mut self, rewrite: impl FnOnce(&mut Value)) {
        let mut state = self.written.clone().expect("a state");
        let Life::Present(rendering) = &mut state.life else { panic!("it is gone") };
        rendering.known.fingerprint.0 ^= 1;
        let mut device = serde_json::from_str(&rendering.device).unwrap();
        rewrite(&mut device);
        rendering.device = device.to_string();
        self.devices.restore(ID, Some(state));
    }
}

/// A decision in a line.
fn told(decision: &Decision) -> String {
    match decision {
        Decision::Unchanged => "nothing".to_owned(),
        Decision::Same(_) => "nothing, and it is learned".to_owned(),
        Decision::Stale => "stale".to_owned(),
        Decision::Reject(rejection) => format!("rejected: {}", rejection.kind()),
        Decision::Emit(emission) => {
            let paths = emission.fields.iter().map(|field| format!(" {}", field.path));
            let reason = emission.change.reason().map(|reason| format!(" {reason}"));
            format!("{}{}{}", emission.change.name(), reason.unwrap_or_default(), paths.collect::<String>())
        }
    }
}

fn emission(decision: Decision) -> Emission {
    match decision {
        Decision::Emit(emission) => *emission,
        other => panic!("no event but {other:?}"),
    }
}

fn device_of(emission: &Emission) -> Value {
    serde_json::from_str(&emission.device.to_json().unwrap()).unwrap()
}

// === The situations of the contract, row by row ===

#[test]
fn no_state_is_created() {
    let mut roll = Roll::new();
    let event = emission(roll.decide(&sent(100, Some(&running()))));
    assert_eq!(event.change, Change::Created);
    assert_eq!(event.fields, []);
    assert_eq!(device_of(&event)["uid"], ID);
    let state = roll.state();
    assert_eq!((state.revision, state.raw_offset), (1, 0));
    assert_eq!((state.first_seen, state.last_change, state.observed_at), (EPOCH + 100, EPOCH + 100, EPOCH + 100));
}

#[test]
fn a_device_that_is_rendered_otherwise_is_updated() {
    let mut roll = Roll::called();
    let event = emission(roll.decide(&sent(200, Some(&named("db")))));
    assert_eq!(event.change, Change::Updated);
    let change = FieldChange { path: "device.name".to_owned(), from: json!("web"), to: json!("db") };
    assert_eq!(event.fields, [change]);
    assert_eq!(device_of(&event)["name"], "db");
    let state = roll.state();
    assert_eq!((state.revision, state.raw_offset), (2, 1));
    assert_eq!((state.first_seen, state.last_change, state.observed_at), (EPOCH + 100, EPOCH + 200, EPOCH + 200));
}

#[test]
fn an_unchanged_record_under_another_mapping_that_renders_otherwise_is_remapped() {
    let mut roll = Roll::called();
    roll.was_written_by_another_mapping(|device| device["os"]["name"] = "linux".into());
    assert_eq!(roll.sees(200, &running()), "remapped device.os.name");
    let state = roll.state();
    assert_eq!((state.revision, state.raw_offset), (2, 1));
    // The device has not changed, only what is told of it.
    assert_eq!((state.first_seen, state.last_change, state.observed_at), (EPOCH + 100, EPOCH + 100, EPOCH + 200));
    assert_eq!(roll.sees(300, &running()), "nothing");
}

#[test]
fn an_unchanged_record_under_another_mapping_that_renders_the_same_is_nothing() {
    let mut roll = Roll::called();
    roll.was_written_by_another_mapping(|_| {});
    assert_eq!(roll.sees(200, &running()), "nothing, and it is learned");
    assert_eq!(roll.sees(300, &running()), "nothing");
    assert_eq!(roll.state().revision, 1);
}

#[test]
fn a_changed_record_under_another_mapping_is_updated() {
    let mut roll = Roll::called();
    roll.was_written_by_another_mapping(|device| device["os"]["name"] = "linux".into());
    assert_eq!(roll.sees(200, &named("db")), "updated device.name device.os.name");
    assert_eq!(roll.state().last_change, EPOCH + 200);
}

#[test]
fn a_known_device_that_is_terminated_is_removed_as_it_was_last_known_but_for_its_state() {
    let mut roll = Roll::called();
    let known = device_of(&emission(Roll::new().decide(&sent(100, Some(&running())))));
    // EC2 strips most of what a terminated instance was.
    let last = json!({"InstanceId": ID, "State": {"Name": "terminated"}});
    let event = emission(roll.decide(&sent(200, Some(&last))));
    assert_eq!(event.change, Change::Removed(Removal::Terminated));
    assert_eq!((event.change.name(), event.change.reason()), ("removed", Some("terminated")));
    assert_eq!(event.fields, []);
    let mut expected = known;
    expected["state"] = "terminated".into();
    expected["desc"] = "AMI: ami-1, State: terminated".into();
    assert_eq!(device_of(&event), expected);
    let state = roll.state();
    assert_eq!(state.life, Life::Gone(Removal::Terminated));
    assert_eq!((state.revision, state.raw_offset), (2, 1));
    assert_eq!((state.first_seen, state.last_change, state.observed_at), (EPOCH + 100, EPOCH + 200, EPOCH + 200));
}

#[test]
fn a_known_device_with_a_tombstone_is_removed_as_it_was_last_known() {
    let mut roll = Roll::called();
    let known = device_of(&emission(Roll::new().decide(&sent(100, Some(&running())))));
    let event = emission(roll.decide(&sent(200, None)));
    assert_eq!(event.change, Change::Removed(Removal::Absent));
    assert_eq!((event.change.name(), event.change.reason()), ("removed", Some("absent")));
    assert_eq!(event.fields, []);
    assert_eq!(device_of(&event), known);
    let state = roll.state();
    assert_eq!(state.life, Life::Gone(Removal::Absent));
    assert_eq!((state.revision, state.raw_offset), (2, 1));
    assert_eq!((state.first_seen, state.last_change, state.observed_at), (EPOCH + 100, EPOCH + 200, EPOCH + 200));
}

#[test]
fn a_tombstone_that_says_terminated_is_a_termination() {
    let mut roll = Roll::called();
    let mut tombstone = sent(200, None);
    tombstone.headers.push((REASON, "terminated".to_owned()));
    let event = emission(roll.decide(&tombstone));
    assert_eq!(event.change, Change::Removed(Removal::Terminated));
    assert_eq!(device_of(&event)["state"], "terminated");
    assert_eq!(roll.sees(300, &running()), "nothing", "what is terminated stays so");
}

#[test]
fn a_device_was_last_seen_between_its_last_event_and_its_end() {
    for (told, seen) in [(Some(50), 100), (Some(150), 150), (Some(900), 200), (None, 100)] {
        let mut roll = Roll::called();
        let mut tombstone = sent(200, None);
        tombstone.headers.extend(told.map(|at| (LAST_SEEN, rfc3339_ms(EPOCH + at))));
        assert_eq!(emission(roll.decide(&tombstone)).last_seen, EPOCH + seen, "{told:?}");
    }
}

#[test]
fn terminated_or_a_tombstone_is_nothing_for_a_device_that_is_unknown() {
    let mut roll = Roll::new();
    assert_eq!(roll.sees(100, &terminated()), "nothing");
    assert_eq!(roll.misses(100), "nothing");
    assert!(roll.devices.is_empty());
}

#[test]
fn terminated_or_a_tombstone_is_nothing_for_a_device_that_is_gone() {
    for leave in [Roll::misses as fn(&mut Roll, i64) -> String, |roll, at| roll.sees(at, &terminated())] {
        let mut roll = Roll::called();
        assert!(leave(&mut roll, 200).starts_with("removed"));
        let gone = roll.state();
        for at in [150, 200, 300] {
            assert_eq!(roll.sees(at, &terminated()), "nothing");
            assert_eq!(roll.misses(at), "nothing");
        }
        assert_eq!(roll.state(), gone);
    }
}

#[test]
fn seen_again_after_a_termination_is_nothing_however_much_later() {
    let mut roll = Roll::called();
    assert_eq!(roll.sees(200, &terminated()), "removed terminated");
    for at in [200, 201, 1_000_000_000] {
        assert_eq!(roll.sees(at, &running()), "nothing");
        assert_eq!(roll.sees(at, &named("db")), "nothing");
    }
    assert_eq!(roll.sees(199, &running()), "stale");
    assert_eq!(roll.state().revision, 2);
}

#[test]
fn seen_again_later_after_an_absence_is_created_and_the_revision_goes_on() {
    let mut roll = Roll::called();
    assert_eq!(roll.sees(150, &named("db")), "updated device.name");
    assert_eq!(roll.misses(200), "removed absent");
    assert_eq!(roll.sees(201, &named("db")), "created");
    let state = roll.state();
    assert_eq!((state.revision, state.raw_offset), (4, 3));
    assert_eq!((state.first_seen, state.last_change, state.observed_at), (EPOCH + 100, EPOCH + 201, EPOCH + 201));
    assert_eq!(roll.misses(202), "removed absent");
}

#[test]
fn seen_again_after_an_absence_but_not_later_is_stale() {
    let mut roll = Roll::called();
    assert_eq!(roll.misses(200), "removed absent");
    // EC2 serves cached reads: what was observed before the absence, or with it, does not bring the device back.
    assert_eq!(roll.sees(199, &running()), "stale");
    assert_eq!(roll.sees(200, &running()), "stale");
    assert_eq!(roll.state().life, Life::Gone(Removal::Absent));
}

// === Staleness ===

#[test]
fn what_is_older_than_the_last_event_is_stale() {
    let mut roll = Roll::called();
    let before = roll.state();
    assert_eq!(roll.sees(99, &named("db")), "stale");
    assert_eq!(roll.sees(99, &terminated()), "stale");
    assert_eq!(roll.misses(99), "stale");
    assert_eq!(roll.state(), before);
}

#[test]
fn what_is_as_old_as_the_last_event_counts() {
    assert_eq!(Roll::called().sees(100, &named("db")), "updated device.name");
    assert_eq!(Roll::called().sees(100, &terminated()), "removed terminated");
    assert_eq!(Roll::called().misses(100), "removed absent");
}

#[test]
fn only_records_that_wrote_make_others_stale() {
    // Whether a record is stale follows from the log alone: what was seen without an event is forgotten by a restart.
    let mut roll = Roll::called();
    assert_eq!(roll.sees(300, &running()), "nothing");
    assert_eq!(
        roll.sees(400, &with(|instance| instance["Monitoring"]["State"] = "enabled".into())),
        "nothing, and it is learned"
    );
    assert_eq!(roll.sees(200, &named("db")), "updated device.name");
}

#[test]
fn without_a_readable_observation_time_kafkas_counts() {
    for header in [None, Some("yesterday"), Some("")] {
        let mut roll = Roll::new();
        let mut record = sent(100, Some(&running()));
        record.headers = header.map(|text| (OBSERVED_AT, text.to_owned())).into_iter().collect();
        assert_eq!(roll.takes(&record), "created");
        assert_eq!(roll.state().observed_at, WRITTEN, "{header:?}");
    }
}

#[test]
fn what_claims_to_be_observed_after_it_was_written_was_observed_then() {
    let mut roll = Roll::new();
    let mut record = sent(0, Some(&running()));
    record.headers = vec![(OBSERVED_AT, "2099-01-01T00:00:00.000Z".to_owned())];
    assert_eq!(roll.takes(&record), "created");
    assert_eq!(roll.state().observed_at, WRITTEN);
}

#[test]
fn an_observation_time_with_an_offset_is_the_same_instant() {
    let mut roll = Roll::new();
    let mut record = sent(0, Some(&running()));
    record.headers = vec![(OBSERVED_AT, "2026-01-01T05:30:00.007+05:30".to_owned())];
    assert_eq!(roll.takes(&record), "created");
    assert_eq!(roll.state().observed_at, EPOCH + 7);
}

#[test]
fn a_member_that_occurs_twice_costs_no_instance() {
    let mut roll = Roll::new();
    let mut record = sent(100, Some(&running()));
    let text = String::from_utf8(record.value.unwrap()).unwrap();
    record.value = Some(text.replacen('{', r#"{"ImageId":"ami-first","ImageId":"ami-second","#, 1).into_bytes());
    assert_eq!(roll.takes(&record), "created");
}

// === The fast path ===

#[test]
fn the_same_bytes_observed_later_are_not_looked_at() {
    let mut roll = Roll::called();
    // A state that no look at the record would leave alone.
    let mut state = roll.written.clone().unwrap();
    let Life::Present(rendering) = &mut state.life else { panic!("it is gone") };
    rendering.device = "no device at all".into();
    roll.devices.restore(ID, Some(state.clone()));
    assert_eq!(roll.sees(200, &running()), "nothing");
    // By the secret of the process that wrote, and from then on by that of this one.
    let Life::Present(rendering) = &mut state.life else { panic!("it is gone") };
    rendering.known.digest = digest_by_another_process(&running());
    roll.devices.restore(ID, Some(state));
    assert_eq!(roll.sees(210, &running()), "nothing, and it is learned");
    assert_eq!(roll.sees(250, &running()), "nothing");
    assert_eq!(roll.sees(300, &with(|instance| instance["New"] = 1.into())), "updated device");
}

#[test]
fn the_bytes_that_another_process_mapped_by_other_rules_are_remapped() {
    let mut roll = Roll::called();
    roll.was_written_by_another_mapping(|device| device["hostname"] = "old".into());
    let mut state = roll.state();
    let Life::Present(rendering) = &mut state.life else { panic!("it is gone") };
    rendering.known.digest = digest_by_another_process(&running());
    roll.devices.restore(ID, Some(state));
    assert_eq!(roll.sees(200, &running()), "remapped device.hostname");
}

#[test]
fn a_record_that_renders_the_same_lets_the_next_of_its_kind_pass() {
    let mut roll = Roll::called();
    let seen = with(|instance| instance["KeyName"] = "ops".into());
    let state = roll.state();
    assert_eq!(roll.sees(200, &seen), "nothing, and it is learned");
    assert_eq!(roll.sees(300, &seen), "nothing");
    let after = roll.state();
    assert_eq!(
        (after.revision, after.observed_at, after.raw_offset),
        (state.revision, state.observed_at, state.raw_offset)
    );
}

#[test]
fn headers_that_the_mapping_does_not_read_are_not_looked_at() {
    let mut roll = Roll::called();
    let mut record = sent(200, Some(&running()));
    record.headers.extend([("sweep-id", "another".to_owned()), ("field.team", "b".to_owned())]);
    assert_eq!(roll.takes(&record), "nothing");
}

#[test]
fn the_account_that_was_swept_is_looked_at() {
    let without_owner = with(|instance| remove(instance, "OwnerId"));
    let mut roll = Roll::new();
    assert_eq!(roll.sees(100, &without_owner), "created");
    let mut record = sent(200, Some(&without_owner));
    record.headers.push((AWS_ACCOUNT, "012345678901".to_owned()));
    assert_eq!(roll.takes(&record), "updated device.org");
    assert_eq!(roll.takes(&record), "nothing");
}

// === What is rendered, member by member ===

/// A mutation of the instance and the paths that it changes.
type Mutation = fn(&mut Value);
type Case = (&'static str, Mutation, &'static [&'static str]);

const RENDERED: &[Case] = &[
    ("name", |i| i["Tags"][0]["Value"] = "db".into(), &["device.name"]),
    ("name tag gone", |i| drop(i["Tags"].as_array_mut().unwrap().remove(0)), &["device.name"]),
    ("public name", |i| i["PublicDnsName"] = "db.example.com".into(), &["device.hostname"]),
    ("public name gone", |i| remove(i, "PublicDnsName"), &["device.hostname"]),
    ("public address", |i| i["PublicIpAddress"] = "203.0.113.2".into(), &["device.ip"]),
    ("public address gone", |i| remove(i, "PublicIpAddress"), &["device.ip"]),
    ("type", |i| i["InstanceType"] = "m5.xlarge".into(), &["device.model"]),
    ("type gone", |i| remove(i, "InstanceType"), &["device.model"]),
    ("image", |i| i["ImageId"] = "ami-2".into(), &["device.desc", "device.image_id"]),
    ("state", |i| i["State"] = json!({"Code": 80, "Name": "stopped"}), &["device.desc", "device.state"]),
    ("state gone", |i| remove(i, "State"), &["device.desc", "device.state"]),
    ("zone", |i| i["Placement"]["AvailabilityZone"] = "eu-west-1b".into(), &["device.region"]),
    ("subnet", |i| i["SubnetId"] = "subnet-2".into(), &["device.subnet"]),
    ("network", |i| i["VpcId"] = "vpc-2".into(), &["device.domain"]),
    ("hypervisor", |i| i["Hypervisor"] = "nitro".into(), &["device.hypervisor"]),
    ("profile gone", |i| remove(i, "IamInstanceProfile"), &["device.is_managed"]),
    ("profile emptied", |i| i["IamInstanceProfile"] = json!({"Arn": "", "Id": null}), &["device.is_managed"]),
    ("scaling group", |i| i["Tags"][1]["Value"] = "asg-2".into(), &["device.autoscale_uid"]),
    ("scaling group gone", |i| drop(i["Tags"].as_array_mut().unwrap().remove(1)), &["device.autoscale_uid"]),
    ("launch", |i| i["LaunchTime"] = "2026-02-01T00:00:00.000Z".into(), &["device.boot_time"]),
    ("owner", |i| i["OwnerId"] = "012345678901".into(), &["device.org.name", "device.org.uid"]),
    ("owner gone", |i| remove(i, "OwnerId"), &["device.org"]),
    ("details", |i| i["PlatformDetails"] = "Red Hat Enterprise Linux".into(), &["device.os.name"]),
    (
        "details of another system",
        |i| i["PlatformDetails"] = "Windows".into(),
        &["device.os.name", "device.os.type", "device.os.type_id"],
    ),
    ("architecture", |i| i["Architecture"] = "arm64_mac".into(), &["device.os.type", "device.os.type_id"]),
    ("group renamed", |i| i["SecurityGroups"][0]["GroupName"] = "db".into(), &["device.groups[sg-1].name"]),
    (
        "group added",
        |i| i["SecurityGroups"].as_array_mut().unwrap().insert(0, json!({"GroupId": "sg-2", "GroupName": "db"})),
        &["device.groups[sg-2]"],
    ),
    (
        "group exchanged",
        |i| i["SecurityGroups"][0]["GroupId"] = "sg-2".into(),
        &["device.groups[sg-1]", "device.groups[sg-2]"],
    ),
    ("groups gone", |i| i["SecurityGroups"] = json!([]), &["device.groups[sg-1]"]),
    (
        "interface's address",
        |i| i["NetworkInterfaces"][0]["PrivateIpAddress"] = "10.0.0.2".into(),
        &["device.network_interfaces[eni-1].ip"],
    ),
    (
        "interface's MAC",
        |i| i["NetworkInterfaces"][0]["MacAddress"] = "02:00:00:00:00:02".into(),
        &["device.network_interfaces[eni-1].mac"],
    ),
    (
        "interface's host name",
        |i| i["NetworkInterfaces"][0]["PrivateDnsName"] = "db.internal".into(),
        &["device.network_interfaces[eni-1].hostname"],
    ),
    (
        "interface's description",
        |i| i["NetworkInterfaces"][0]["Description"] = "back".into(),
        &["device.network_interfaces[eni-1].name"],
    ),
    (
        "interface added",
        |i| i["NetworkInterfaces"].as_array_mut().unwrap().insert(0, json!({"NetworkInterfaceId": "eni-2"})),
        &["device.network_interfaces[eni-2]"],
    ),
    (
        "interface exchanged",
        |i| i["NetworkInterfaces"][0]["NetworkInterfaceId"] = "eni-2".into(),
        &["device.network_interfaces[eni-1]", "device.network_interfaces[eni-2]"],
    ),
    ("interfaces gone", |i| i["NetworkInterfaces"] = json!([]), &["device.network_interfaces[eni-1]"]),
    (
        "many at once",
        |i| {
            i["Tags"][0]["Value"] = "db".into();
            i["PublicIpAddress"] = "203.0.113.2".into();
            i["BlockDeviceMappings"][0]["Ebs"]["AttachTime"] = "2026-01-01T00:00:06.000Z".into();
        },
        // The attach time is no event by itself, but rides along.
        &["device.created_time", "device.ip", "device.name"],
    ),
];

#[test]
fn every_member_that_is_rendered_is_one_update_with_exactly_its_paths() {
    for (what, change, paths) in RENDERED {
        let mut roll = Roll::called();
        let changed = with(change);
        assert_eq!(roll.sees(200, &changed), format!("updated {}", paths.join(" ")), "{what}");
        assert_eq!(roll.sees(300, &changed), "nothing", "{what}");
        assert_eq!(roll.sees(400, &running()), format!("updated {}", paths.join(" ")), "{what} and back");
    }
}

#[test]
fn the_table_above_leaves_out_no_member_that_can_change() {
    /// The same for every instance, or for one instance for ever.
    const CONSTANT: [&str; 4] = ["uid", "type", "type_id", "vendor_name"];
    let device = device_of(&emission(Roll::new().decide(&sent(100, Some(&running())))));
    for member in device.as_object().unwrap().keys().filter(|member| !CONSTANT.contains(&member.as_str())) {
        let path = format!("device.{member}");
        let is_it =
            |other: &&str| other.strip_prefix(&path).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric));
        assert!(RENDERED.iter().any(|(_, _, paths)| paths.iter().any(is_it)), "{path}");
    }
}

#[test]
fn a_later_launch_moves_the_creation_along_where_no_volume_tells_it() {
    let launched = |time: &str| {
        with(|instance| {
            remove(instance, "BlockDeviceMappings");
            instance["LaunchTime"] = time.into();
        })
    };
    let mut roll = Roll::new();
    assert_eq!(roll.sees(100, &launched("2026-01-01T00:00:00Z")), "created");
    assert_eq!(roll.sees(200, &launched("2026-02-01T00:00:00Z")), "updated device.boot_time device.created_time");
}

#[test]
fn what_is_hidden_by_what_is_preferred_is_no_change() {
    let mut roll = Roll::called();
    let hidden = with(|instance| {
        instance["PrivateDnsName"] = "other.internal".into();
        instance["PrivateIpAddress"] = "10.9.9.9".into();
        instance["Ipv6Address"] = "2001:db8::1".into();
    });
    assert_eq!(roll.sees(200, &hidden), "nothing, and it is learned");
}

// === What is not rendered, or quiet ===

const NOT_RENDERED: &[(&str, Mutation)] = &[
    ("created_time", |i| i["BlockDeviceMappings"][0]["Ebs"]["AttachTime"] = "2026-03-01T00:00:00Z".into()),
    ("created_time gone", |i| remove(i, "BlockDeviceMappings")),
    ("another volume", |i| i["BlockDeviceMappings"][1]["Ebs"]["VolumeId"] = "vol-3".into()),
    ("state code", |i| i["State"]["Code"] = 272.into()),
    ("state reason", |i| i["StateReason"] = json!({"Code": "pending", "Message": "pending"})),
    ("transition reason", |i| i["StateTransitionReason"] = "User initiated".into()),
    ("another tag", |i| i["Tags"][2]["Value"] = "b".into()),
    ("tag of another case", |i| i["Tags"][2] = json!({"Key": "name", "Value": "b"})),
    ("monitoring", |i| i["Monitoring"]["State"] = "pending".into()),
    ("key", |i| i["KeyName"] = "ops".into()),
    ("tenancy", |i| i["Placement"]["Tenancy"] = "dedicated".into()),
    ("profile exchanged", |i| i["IamInstanceProfile"]["Id"] = "AIPA2".into()),
    ("attachment", |i| i["NetworkInterfaces"][0]["Attachment"]["Status"] = "attaching".into()),
    ("groups of an interface", |i| i["NetworkInterfaces"][0]["Groups"] = json!([{"GroupId": "sg-9"}])),
    ("fraction of the launch", |i| i["LaunchTime"] = "2026-01-01T00:00:00.999Z".into()),
    ("platform that the details outrank", |i| i["Platform"] = "windows".into()),
    ("member that nobody knows", |i| i["New"] = json!({"deep": [1, {"er": null}]})),
    ("empties", |i| {
        i["Ipv6Address"] = "".into();
        i["KeyName"] = Value::Null;
        i["Platform"] = json!({});
    }),
];

#[test]
fn what_is_not_rendered_and_what_is_quiet_is_nothing() {
    for (what, change) in NOT_RENDERED {
        let mut roll = Roll::called();
        let changed = with(change);
        assert_eq!(roll.sees(200, &changed), "nothing, and it is learned", "{what}");
        assert_eq!(roll.sees(300, &changed), "nothing", "{what}");
        assert_eq!(roll.state().revision, 1, "{what}");
    }
}

#[test]
fn the_order_of_members_and_lists_is_no_change() {
    let mut roll = Roll::called();
    let reversed = with(|instance| {
        instance["SecurityGroups"].as_array_mut().unwrap().push(json!({"GroupId": "sg-0", "GroupName": "a"}));
        instance["NetworkInterfaces"].as_array_mut().unwrap().push(json!({"NetworkInterfaceId": "eni-0"}));
    });
    assert!(roll.sees(200, &reversed).starts_with("updated"));
    let shuffled = with(|instance| {
        instance["SecurityGroups"].as_array_mut().unwrap().insert(0, json!({"GroupName": "a", "GroupId": "sg-0"}));
        instance["NetworkInterfaces"].as_array_mut().unwrap().insert(0, json!({"NetworkInterfaceId": "eni-0"}));
        instance["Tags"].as_array_mut().unwrap().reverse();
    });
    assert_eq!(roll.sees(300, &shuffled), "nothing, and it is learned");
}

// === Rejections ===

/// What is done to a good record, and the kind of rejection that follows.
type Spoiled = (&'static str, fn(&mut Sent));

const REJECTED: &[Spoiled] = &[
    ("no-key", |record| record.key = None),
    ("no-key", |record| record.key = Some(Vec::new())),
    ("unreadable-key", |record| record.key = Some(vec![b'i', 0xFF])),
    ("too-large", |record| record.value = Some(vec![b' '; LIMIT + 1])),
    ("misrouted", |record| record.partition = (record.partition + 1) % 12),
    ("not-utf8", |record| record.value.as_mut().unwrap().extend([0xC3, 0x28])),
    ("not-an-object", |record| record.value = Some(Vec::new())),
    ("not-an-object", |record| record.value = Some(b"oops".to_vec())),
    ("not-an-object", |record| record.value = Some(b"null".to_vec())),
    ("not-an-object", |record| record.value = Some(b"[]".to_vec())),
    ("not-an-object", |record| record.value = Some(format!(" [{}]", running()).into_bytes())),
    // The members of an instance, in alphabetical order and without their names.
    ("not-an-object", |record| record.value = Some(json!(["", [], "", {}, "", ID]).to_string().into_bytes())),
    ("not-an-object", |record| record.value = Some(format!("{0}{0}", running()).into_bytes())),
    ("not-an-object", |record| record.value.as_mut().unwrap().truncate(100)),
    ("no-instance-id", |record| record.value = Some(b"{}".to_vec())),
    ("no-instance-id", |record| record.value = Some(b"{\"InstanceId\": 7}".to_vec())),
    ("no-instance-id", |record| record.value = Some(b"{\"InstanceId\": \"\"}".to_vec())),
    ("no-instance-id", |record| record.value = Some(b"{\"InstanceId\": null}".to_vec())),
    ("foreign-key", |record| record.value = Some(b"{\"InstanceId\": \"i-other\"}".to_vec())),
    ("foreign-key", |record| record.value = Some(b"{\"InstanceId\": \"I-0123456789ABCDEF0\"}".to_vec())),
];

#[test]
fn what_cannot_be_mapped_is_rejected_by_its_kind_and_leaves_the_device_alone() {
    for (kind, spoil) in REJECTED {
        for mut roll in [Roll::new(), Roll::called()] {
            let before = roll.devices.get(ID);
            let mut record = sent(200, Some(&named("db")));
            spoil(&mut record);
            let shown = record.value.as_deref().map(String::from_utf8_lossy);
            assert_eq!(roll.takes(&record), format!("rejected: {kind}"), "{shown:?}");
            assert_eq!(roll.devices.get(ID), before);
            assert_eq!(roll.devices.len(), usize::from(before.is_some()));
        }
    }
}

#[test]
fn a_tombstone_without_a_good_key_is_rejected_too() {
    for (kind, spoil) in [REJECTED[0], REJECTED[1], REJECTED[2], REJECTED[4]] {
        let mut record = sent(200, None);
        spoil(&mut record);
        assert_eq!(Roll::called().takes(&record), format!("rejected: {kind}"));
    }
}

#[test]
fn a_value_of_exactly_the_largest_size_is_mapped() {
    let mut record = sent(100, Some(&running()));
    record.value.as_mut().unwrap().resize(LIMIT, b' ');
    assert_eq!(Roll::new().takes(&record), "created");
}

#[test]
fn every_key_has_one_partition() {
    let record = || sent(100, Some(&running()));
    let home = record().partition;
    for partition in (0..12).filter(|partition| *partition != home) {
        assert_eq!(Roll::new().takes(&Sent { partition, ..record() }), "rejected: misrouted");
    }
    assert_eq!(Roll::new().takes(&record()), "created");
}

#[test]
fn a_rejection_says_what_was_found_and_what_is_expected() {
    let message = |spoil: fn(&mut Sent)| {
        let mut record = sent(100, Some(&running()));
        spoil(&mut record);
        match Roll::new().decide(&record) {
            Decision::Reject(rejection) => rejection.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let says = |text: String, parts: &[&str]| assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    says(message(|record| record.value = Some(vec![b' '; LIMIT + 1])), &["4097", "4096", "mapper.max_record_bytes"]);
    let home = sent(0, None).partition;
    says(message(|record| record.partition += 1), &[&(home + 1).to_string(), &home.to_string(), "12", "murmur2"]);
    says(message(|record| record.value = Some(b"{\"InstanceId\": \"i-other\"}".to_vec())), &["i-other"]);
    says(message(|record| record.value = Some(b"{\n  oops}".to_vec())), &["line 2"]);
}

// === Members that cannot be read ===

#[test]
fn a_member_of_a_wrong_type_is_reported_and_taken_for_absent() {
    let mut roll = Roll::called();
    let odd = with(|instance| {
        instance["PublicIpAddress"] = 7.into();
        instance["LaunchTime"] = "yesterday".into();
        instance["NetworkInterfaces"][0]["MacAddress"] = json!(["02:00:00:00:00:01"]);
        instance["SecurityGroups"].as_array_mut().unwrap().push("sg-2".into());
    });
    let paths = ["device.boot_time", "device.ip", "device.network_interfaces[eni-1].mac"];
    assert_eq!(roll.sees(200, &odd), format!("updated {}", paths.join(" ")));
    roll.unreadable.sort();
    assert_eq!(
        roll.unreadable,
        ["LaunchTime", "NetworkInterfaces[].MacAddress", "PublicIpAddress", "SecurityGroups[]"]
    );
}

#[test]
fn what_is_known_is_not_reported_again() {
    let mut roll = Roll::new();
    let odd = with(|instance| instance["PublicIpAddress"] = 7.into());
    assert_eq!(roll.sees(100, &odd), "created");
    assert_eq!(roll.unreadable, ["PublicIpAddress"]);
    assert_eq!(roll.sees(200, &odd), "nothing");
    assert!(roll.unreadable.is_empty());
}

// === Properties ===

/// Names of the model, so that wrong types meet every reader; and one that nobody knows.
const NAMES: [&str; 36] = [
    "Architecture",
    "AttachTime",
    "Attachment",
    "AvailabilityZone",
    "BlockDeviceMappings",
    "Description",
    "DeviceIndex",
    "Ebs",
    "GroupId",
    "GroupName",
    "IamInstanceProfile",
    "ImageId",
    "InstanceType",
    "Ipv6Address",
    "Ipv6Addresses",
    "IsPrimaryIpv6",
    "Key",
    "LaunchTime",
    "MacAddress",
    "Name",
    "NetworkCardIndex",
    "NetworkInterfaceId",
    "NetworkInterfaces",
    "New",
    "OwnerId",
    "Placement",
    "Platform",
    "PlatformDetails",
    "PrivateDnsName",
    "PrivateIpAddress",
    "PublicDnsName",
    "PublicIpAddress",
    "SecurityGroups",
    "State",
    "Tags",
    "Value",
];

fn object_of(value: impl Strategy<Value = Value>, most: usize) -> impl Strategy<Value = Map<String, Value>> {
    vec((prop::sample::select(NAMES.as_slice()), value), 0..most)
        .prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(|Name|running|terminated|windows|[a-c\"\\\\é\u{0}]{1,3})".prop_map(Value::from),
        "(19|20)[0-9]{2}-0[1-9]-[0-3][0-9]T00:00:00Z".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![vec(inner.clone(), 0..5).prop_map(Value::from), object_of(inner, 5).prop_map(Value::from)]
    })
}

/// Anything that has the device's ID.
fn any_instance() -> impl Strategy<Value = Map<String, Value>> {
    object_of(any_value(), 14).prop_map(|mut instance| {
        instance.insert("InstanceId".to_owned(), ID.into());
        instance
    })
}

fn any_record() -> impl Strategy<Value = Sent> {
    let bytes = || prop::option::of(vec(any::<u8>(), 0..40));
    let json = any_value().prop_map(|value| Some(value.to_string().into_bytes()));
    let value =
        prop_oneof![bytes(), json, any_instance().prop_map(|value| Some(Value::from(value).to_string().into()))];
    let key = prop_oneof![bytes(), Just(Some(ID.into()))];
    let home = sent(0, None).partition;
    let partition = prop_oneof![Just(home), any::<i32>()];
    let headers = vec((prop::sample::select([OBSERVED_AT, AWS_ACCOUNT, AWS_REGION].as_slice()), any::<String>()), 0..4);
    (partition, key, value, headers).prop_map(|(partition, key, value, headers)| Sent {
        partition,
        key,
        value,
        headers,
    })
}

/// The same, with the elements of each list in another order.
fn shuffled(value: &Value, random: &mut fastrand::Rng) -> Value {
    match value {
        Value::Array(list) => {
            let mut list: Vec<_> = list.iter().map(|element| shuffled(element, random)).collect();
            random.shuffle(&mut list);
            list.into()
        }
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), shuffled(value, random))).collect(),
        leaf => leaf.clone(),
    }
}

/// A record whose value is in the form in which the collector writes it.
fn canonical(at: i64, instance: Value) -> Sent {
    let Value::Object(instance) = instance else { panic!("no object") };
    Sent { value: Some(canonical::to_bytes(instance)), ..sent(at, None) }
}

proptest! {
    #[test]
    fn no_record_makes_it_panic(records in vec(any_record(), 1..12)) {
        let mut roll = Roll::new();
        for record in &records {
            roll.takes(record);
        }
    }

    #[test]
    fn in_every_profile_every_record_is_decided_and_again_the_same_way(records in vec(any_record(), 1..6)) {
        for profile in Profile::ALL {
            let rules = Rules::new(Mapping { profile, ..Mapping::default() }, 12, LIMIT);
            let mut devices = Devices::default();
            for (offset, sent) in (0..).zip(&records) {
                let decision = decide(&rules, &sent.at(offset), &devices, &mut |_| {});
                let again = decide(&rules, &sent.at(offset), &devices, &mut |_| {});
                prop_assert_eq!(format!("{decision:?}"), format!("{again:?}"));
                if let Decision::Emit(emission) = decision {
                    devices.put(std::str::from_utf8(sent.key.as_deref().unwrap()).unwrap(), Some(emission.state));
                }
            }
        }
    }

    #[test]
    fn one_bad_member_never_loses_the_instance(instance in any_instance()) {
        let text = Value::from(instance).to_string();
        prop_assume!(text.len() <= LIMIT);
        let record = Sent { value: Some(text.into_bytes()), ..sent(100, None) };
        let told = Roll::new().takes(&record);
        prop_assert!(told == "created" || told == "nothing", "{told}");
    }

    #[test]
    fn the_same_record_again_is_nothing(before in any_instance(), after in any_instance()) {
        let mut roll = Roll::new();
        for (at, instance) in [(100, before), (200, after)] {
            let record = sent(at, Some(&instance.into()));
            roll.takes(&record);
            let state = roll.devices.get(ID);
            prop_assert_eq!(roll.takes(&record), if record.value.as_ref().unwrap().len() > LIMIT { "rejected: too-large" } else { "nothing" });
            prop_assert_eq!(roll.devices.get(ID), state);
        }
    }

    #[test]
    fn the_order_of_lists_never_makes_an_event(instance in any_instance(), seed: u64) {
        let instance = Value::from(instance);
        let again = shuffled(&instance, &mut fastrand::Rng::with_seed(seed));
        let mut roll = Roll::new();
        let first = canonical(100, instance);
        prop_assume!(first.value.as_ref().unwrap().len() <= LIMIT);
        roll.takes(&first);
        prop_assert_eq!(roll.takes(&canonical(200, again)), "nothing");
    }

    #[test]
    fn the_order_of_lists_makes_no_event_without_the_canonical_form_either(seed: u64) {
        let mut roll = Roll::called();
        let mut random = fastrand::Rng::with_seed(seed);
        for at in [200, 300] {
            // Another volume may be the first now; its attach time is quiet.
            let told = roll.sees(at, &shuffled(&running(), &mut random));
            prop_assert!(told.starts_with("nothing"), "{told}");
        }
    }

    #[test]
    fn revisions_have_no_gap_and_time_never_runs_back(
        news in vec((0..20_i64, prop::sample::select([0_u8, 1, 2, 3].as_slice())), 1..30)
    ) {
        let mut roll = Roll::new();
        let (mut revision, mut observed_at, mut first_seen) = (0, i64::MIN, None);
        for (at, what) in news {
            let record = match what {
                0 => sent(at, None),
                1 => sent(at, Some(&terminated())),
                2 => sent(at, Some(&named("a"))),
                _ => sent(at, Some(&named("b"))),
            };
            if let Decision::Emit(emission) = roll.decide(&record) {
                let state = emission.state;
                prop_assert_eq!(state.revision, revision + 1);
                prop_assert!(state.observed_at >= observed_at);
                prop_assert_eq!(state.first_seen, *first_seen.get_or_insert(state.observed_at));
                (revision, observed_at) = (state.revision, state.observed_at);
            }
        }
    }
}
