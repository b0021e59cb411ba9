//! What today's mapping makes of the record that counts. Pure.

use crate::mapper::decide::{Change, Decision, Emission, Rejection, Rules, decide};
use crate::mapper::state::Devices;
use crate::record::RawRecord;

/// What a record that counts comes to.
#[derive(Debug)]
pub enum Finding {
    /// The device as it is known, or nothing that matters.
    Same,
    /// Another device: an event `remapped`, and the state that follows.
    Remapped(Box<Emission>),
    /// A device that the state does not know. It is left alone: its record was a dead letter, or it was removed so long
    /// ago that this was forgotten, and which of both it was cannot be told any more.
    Unknown,
    /// The end of a device that the state knows: its record was a dead letter. Left alone as well.
    Ends,
    /// Today's mapping does not take the record.
    Rejected(Rejection),
}

/// Judges the record that counts for its device. The live mapper has seen it, so nothing has happened to the device:
/// whatever differs is the mapping's doing.
pub fn judge(rules: &Rules, record: &RawRecord<'_>, devices: &Devices) -> Finding {
    match decide(rules, record, devices, &mut |_| {}) {
        Decision::Unchanged | Decision::Same(_) | Decision::Stale => Finding::Same,
        Decision::Reject(rejection) => Finding::Rejected(rejection),
        Decision::Emit(emission) => match emission.change {
            Change::Created => Finding::Unknown,
            Change::Removed(_) => Finding::Ends,
            Change::Updated | Change::Remapped => Finding::Remapped(Box::new(remapped(*emission, record, devices))),
        },
    }
}

/// The emission as a remapping: the device did not change.
fn remapped(mut emission: Emission, record: &RawRecord<'_>, devices: &Devices) -> Emission {
    emission.change = Change::Remapped;
    let id = record.key.and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default();
    if let Some(known) = devices.get(id) {
        emission.state.last_change = known.last_change;
    }
    emission
}

/// Whether today's mapping takes a record.
pub fn accepts(rules: &Rules, record: &RawRecord<'_>) -> bool {
    // Whatever is known of its device.
    !matches!(decide(rules, record, &Devices::default(), &mut |_| {}), Decision::Reject(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapper::state::{DeviceState, Life, Rendering};
    use crate::profile::{Mapping, Profile};
    use serde_json::json;

    fn rules(profile: Profile) -> Rules {
        let mapping = Mapping { profile, ..Mapping::default() };
        Rules::new(mapping, 1, 1 << 20)
    }

    fn value(name: &str, state: &str) -> Vec<u8> {
        let tags = json!([{"Key": "Name", "Value": name}]);
        json!({"InstanceId": "i-1", "State": {"Name": state}, "Tags": tags}).to_string().into_bytes()
    }

    fn record(offset: i64, value: Option<&[u8]>) -> RawRecord<'_> {
        RawRecord { partition: 0, offset, timestamp_ms: 1000 + offset, key: Some(b"i-1"), value, headers: Vec::new() }
    }

    /// Devices that know i-1 by this name.
    fn devices(rules: &Rules, name: &str) -> Devices {
        let mut devices = Devices::default();
        let value = value(name, "running");
        let Decision::Emit(emission) = decide(rules, &record(0, Some(&value)), &devices, &mut |_| {}) else {
            panic!("not created");
        };
        devices.restore("i-1", Some(emission.state));
        devices
    }

    #[test]
    fn what_differs_is_a_remapping_though_the_raw_record_is_another_one() {
        for profile in [Profile::Sekoia, Profile::Ocsf] {
            let rules = rules(profile);
            let devices = devices(&rules, "old");
            let value = value("new", "running");
            let finding = judge(&rules, &record(7, Some(&value)), &devices);
            let Finding::Remapped(emission) = finding else { panic!("{profile:?}: {finding:?}") };
            assert_eq!(emission.change, Change::Remapped);
            let DeviceState { revision, observed_at, raw_offset, last_change, first_seen, life } = emission.state;
            assert_eq!((revision, observed_at, raw_offset, last_change, first_seen), (2, 1007, 7, 1000, 1000));
            let Life::Present(Rendering { known, .. }) = life else { panic!("gone") };
            assert_eq!(known.fingerprint, rules.mapping.fingerprint());
        }
    }

    #[test]
    fn what_does_not_differ_is_nothing() {
        let rules = rules(Profile::Sekoia);
        let value = value("old", "running");
        assert!(matches!(judge(&rules, &record(7, Some(&value)), &devices(&rules, "old")), Finding::Same));
    }

    #[test]
    fn nothing_is_created_removed_or_rejected_in_place() {
        let rules = rules(Profile::Sekoia);
        let known = devices(&rules, "old");
        let running = value("old", "running");
        assert!(matches!(judge(&rules, &record(7, Some(&running)), &Devices::default()), Finding::Unknown));
        assert!(matches!(judge(&rules, &record(7, None), &Devices::default()), Finding::Same));
        assert!(matches!(judge(&rules, &record(7, Some(&value("old", "terminated"))), &known), Finding::Ends));
        assert!(matches!(judge(&rules, &record(7, None), &known), Finding::Ends));
        assert!(matches!(judge(&rules, &record(7, Some(b"[]")), &known), Finding::Rejected(_)));
        assert!(accepts(&rules, &record(7, Some(&running))) && !accepts(&rules, &record(7, Some(b"[]"))));
    }
}
