//! The mapping contract, case by case: a raw record in, an event out. `tests/cases/README.md` tells the format.

use chrono::DateTime;
use rollcall::profile::change::{Occurrence, Origin};
use rollcall::profile::{Mapping, Profile, Scope, TimeField};
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
        let device = mapping.render(reading.instance.instance_id.text().unwrap(), &reading, scope);
        let occurrence = Occurrence::created(observed_at.timestamp_millis(), Origin::default());
        let event = serde_json::to_value(mapping.event(&device, &occurrence)).unwrap();
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
