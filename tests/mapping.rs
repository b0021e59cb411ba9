//! The mapping contract, case by case: a raw record in, an event out. `tests/cases/README.md` tells the format.

use std::path::Path;

use chrono::DateTime;
use rollcall::profile::change::{Occurrence, Origin};
use rollcall::profile::{Mapping, Profile, Scope, TimeField};
use rollcall::record::{AWS_ACCOUNT, AWS_REGION, RawRecord};
use serde_json::Value;

use crate::support::cases::cases;

#[test]
fn every_case_of_the_contract_comes_out_as_written() {
    let cases = cases();
    let mut wrong = Vec::new();
    for (name, case) in &cases {
        let time = if case["options"]["time"] == "observed" { TimeField::Observed } else { TimeField::Launched };
        let mapping = Mapping { profile: Profile::Sekoia, time, ..Mapping::default() };
        let observed_at = DateTime::parse_from_rfc3339(case["observed_at"].as_str().unwrap()).unwrap().to_utc();
        let record = case["record"].to_string();
        let reading = mapping.read(&record).unwrap();
        let mut field_errors: Vec<String> = Vec::new();
        reading.unreadable(&mut |path| field_errors.push(path.to_string()));
        field_errors.sort();
        field_errors.dedup();
        let scope = Scope { account: case["headers"]["aws-account"].as_str(), region: None };
        let mut device = mapping.render(reading.instance_id.text().unwrap(), &reading, scope);
        let occurrence = Occurrence::created(observed_at.timestamp_millis(), Origin::default());
        let event = serde_json::to_value(mapping.event(&mut device, &occurrence)).unwrap();
        if event != case["event"] {
            wrong.push(format!("{name}: {}\n  expected {}\n  came out {event}", case["title"], case["event"]));
        }
        let mut expected: Vec<_> = case["field_errors"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        expected.sort_unstable();
        if field_errors != expected {
            wrong.push(format!("{name}: {}\n  unreadable {field_errors:?}, expected {expected:?}", case["title"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn a_dozen_cases_come_out_as_written_in_the_other_profiles_too() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/profiles");
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (name, case) in cases() {
        let Ok(text) = std::fs::read_to_string(folder.join(format!("{name}.json"))) else { continue };
        count += 1;
        let expected: Value = serde_json::from_str(&text).unwrap();
        let headers: Vec<_> = expected["headers"].as_object().unwrap().iter().collect();
        let id = case["record"]["InstanceId"].as_str().unwrap();
        let record = RawRecord {
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key: Some(id.as_bytes()),
            value: None,
            headers: headers.iter().map(|(name, value)| (name.as_str(), value.as_str().map(str::as_bytes))).collect(),
        };
        for profile in [Profile::Ocsf, Profile::Cse] {
            let mapping = Mapping { profile, ..Mapping::default() };
            let text = case["record"].to_string();
            let scope = Scope { account: record.header(AWS_ACCOUNT), region: record.header(AWS_REGION) };
            let mut device = mapping.render(id, &mapping.read(&text).unwrap(), scope);
            let occurrence = Occurrence::created(record.observed_at_ms(), Origin::of(&record));
            let mut event = serde_json::to_value(mapping.event(&mut device, &occurrence)).unwrap();
            if let Some(uid) = event.pointer_mut("/metadata/uid") {
                assert_eq!(uid.as_str().unwrap().len(), 32);
                *uid = "*".into();
            }
            if event != expected[profile.name()] {
                let expected = &expected[profile.name()];
                wrong.push(format!("{name}, {}:\n  expected {expected}\n  came out {event}", profile.name()));
            }
        }
    }
    assert!(count >= 12, "only {count} cases");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}
