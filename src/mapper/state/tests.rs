//! What a transaction taught is taken back with it, and only that.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::profile::Fingerprint;
use crate::record::{Digest, Secret};

/// Of few secrets and rules, so that devices have some in common.
fn known(number: u8) -> Known {
    let digest = Digest { secret: Secret([number / 2; 32]), hash: [number; 16] };
    Known { digest, fingerprint: Fingerprint((number / 3).into()) }
}

fn state(observed_at: i64, life: Life) -> DeviceState {
    DeviceState { revision: 1, observed_at, raw_offset: 0, first_seen: 0, last_change: observed_at, life }
}

fn present(observed_at: i64, device: &str) -> DeviceState {
    state(observed_at, Life::Present(Rendering { known: known(0), device: device.into() }))
}

fn gone(observed_at: i64) -> DeviceState {
    state(observed_at, Life::Gone(Removal::Absent))
}

fn gone_ids(devices: &Devices, horizon: i64, most: usize) -> Vec<String> {
    devices.gone_before(horizon, most).into_iter().map(String::from).collect()
}

#[test]
fn nothing_is_known_at_first() {
    let devices = Devices::default();
    assert!(devices.is_empty());
    assert_eq!(devices.get("i-1"), None);
    assert_eq!(gone_ids(&devices, i64::MAX, 10), [""; 0]);
}

#[test]
fn what_is_settled_stands() {
    let mut devices = Devices::default();
    devices.put("i-1", Some(present(1, "a")));
    devices.settle();
    devices.roll_back();
    assert_eq!(devices.get("i-1"), Some(present(1, "a")));
}

#[test]
fn what_is_rolled_back_never_was() {
    let mut devices = Devices::default();
    devices.put("i-1", Some(present(1, "a")));
    devices.put("i-2", Some(present(1, "b")));
    devices.settle();
    devices.put("i-1", Some(present(2, "c")));
    devices.put("i-1", Some(gone(3)));
    devices.put("i-2", None);
    devices.put("i-3", Some(present(2, "d")));
    devices.roll_back();
    assert_eq!(devices.get("i-1"), Some(present(1, "a")));
    assert_eq!(devices.get("i-2"), Some(present(1, "b")));
    assert_eq!(devices.get("i-3"), None);
    assert_eq!(devices.len(), 2);
    assert_eq!(gone_ids(&devices, i64::MAX, 10), [""; 0]);
}

#[test]
fn a_second_roll_back_takes_nothing_more() {
    let mut devices = Devices::default();
    devices.put("i-1", Some(present(1, "a")));
    devices.roll_back();
    devices.restore("i-1", Some(present(2, "b")));
    devices.roll_back();
    assert_eq!(devices.get("i-1"), Some(present(2, "b")));
}

#[test]
fn what_is_restored_cannot_be_taken_back() {
    let mut devices = Devices::default();
    devices.restore("i-1", Some(present(1, "a")));
    devices.restore("i-2", Some(present(1, "b")));
    devices.restore("i-2", None);
    devices.roll_back();
    assert_eq!((devices.get("i-1"), devices.get("i-2")), (Some(present(1, "a")), None));
}

#[test]
fn other_bytes_that_render_to_the_device_are_learned() {
    let mut devices = Devices::default();
    devices.put("i-1", Some(present(1, "a")));
    devices.settle();
    devices.learn("i-1", known(7));
    assert_eq!(devices.known("i-1"), Some(known(7)));
    // It is true of the device whether or not the transaction comes about.
    devices.roll_back();
    assert_eq!(devices.known("i-1"), Some(known(7)));
    devices.put("i-1", Some(gone(2)));
    assert_eq!(devices.known("i-1"), None);
    devices.roll_back();
    assert_eq!(devices.known("i-1"), Some(known(7)));
}

#[test]
fn what_is_learned_of_a_device_that_never_was_is_forgotten_with_it() {
    let mut devices = Devices::default();
    devices.put("i-1", Some(present(1, "a")));
    devices.settle();
    devices.put("i-1", Some(present(2, "b")));
    devices.learn("i-1", known(7));
    devices.roll_back();
    assert_eq!(devices.get("i-1"), Some(present(1, "a")));
}

#[test]
fn nothing_is_learned_of_what_is_gone_or_unknown() {
    let mut devices = Devices::default();
    devices.put("i-1", Some(gone(1)));
    devices.learn("i-1", known(7));
    devices.learn("i-2", known(7));
    assert_eq!(devices.get("i-1"), Some(gone(1)));
    assert_eq!(devices.known("i-1"), None);
    assert_eq!(devices.get("i-2"), None);
}

#[test]
fn the_longest_gone_come_first_and_only_those_before_the_horizon() {
    let mut devices = Devices::default();
    for (id, at) in [("i-1", 30), ("i-2", 10), ("i-3", 20), ("i-4", 10)] {
        devices.put(id, Some(gone(at)));
    }
    devices.put("i-5", Some(present(1, "a")));
    assert_eq!(gone_ids(&devices, 31, 10), ["i-2", "i-4", "i-3", "i-1"]);
    assert_eq!(gone_ids(&devices, 30, 10), ["i-2", "i-4", "i-3"]);
    assert_eq!(gone_ids(&devices, 31, 2), ["i-2", "i-4"]);
    assert_eq!(gone_ids(&devices, 10, 10), [""; 0]);
    assert_eq!(gone_ids(&devices, 31, 0), [""; 0]);
}

#[test]
fn who_comes_back_or_is_forgotten_is_no_longer_gone() {
    let mut devices = Devices::default();
    for id in ["i-1", "i-2", "i-3"] {
        devices.put(id, Some(gone(10)));
    }
    devices.put("i-1", Some(present(20, "a")));
    devices.put("i-2", None);
    devices.put("i-3", Some(gone(30)));
    assert_eq!(gone_ids(&devices, 25, 10), [""; 0]);
    assert_eq!(gone_ids(&devices, 31, 10), ["i-3"]);
}

// === What it takes ===

#[test]
fn what_it_takes_grows_with_what_is_known_and_ends_with_it() {
    let mut devices = Devices::default();
    assert_eq!(devices.bytes(), 0);
    let long_id = "i".repeat(100);
    devices.restore(&long_id, Some(present(1, "a")));
    let one = devices.on_heap;
    assert!(one >= 100);
    let text: String = std::iter::repeat_with(fastrand::alphanumeric).take(10_000).collect();
    devices.restore(&long_id, Some(present(1, &text)));
    // Random letters and digits have six bits each.
    assert!(devices.on_heap > one + 7000 && devices.on_heap < one + 8500, "{}", devices.on_heap);
    assert!(devices.bytes() > devices.on_heap);
    devices.restore(&long_id, Some(gone(1)));
    assert!(devices.on_heap <= one);
    devices.restore(&long_id, None);
    assert_eq!(devices.on_heap, 0);
}

#[test]
fn any_state_comes_out_as_it_went_in() {
    for number in [0, 1, -1, 63, 64, -64, -65, 8191, 8192, 1 << 62, i64::MAX, i64::MIN] {
        for life in [
            Life::Gone(Removal::Absent),
            Life::Gone(Removal::Terminated),
            Life::Present(Rendering { known: known(9), device: "".into() }),
            Life::Present(Rendering { known: known(9), device: "{\"name\":\"\u{1F4A5}\"}".repeat(2000) }),
        ] {
            let [observed_at, first_seen, last_change, revision, raw_offset] =
                [number, -7, number / 2, !number, number];
            let state = DeviceState { revision, observed_at, raw_offset, first_seen, last_change, life };
            let mut origins = Origins::default();
            let packed = Packed::of(&state, &mut origins);
            assert_eq!(packed.unpack(&origins), state);
            assert_eq!(packed.removed_at(), state.present().is_none().then_some(number));
        }
    }
}

// === Any sequence of steps, against a model that copies everything ===

#[derive(Debug, Clone)]
enum Step {
    Put(String, Option<DeviceState>),
    Learn(String, Known),
    Settle,
    RollBack,
}

fn any_id() -> impl Strategy<Value = String> {
    prop::sample::select(["i-1", "i-2", "i-3", "i-4"].as_slice()).prop_map(str::to_owned)
}

/// Few values, so that equal ones meet.
fn any_put() -> impl Strategy<Value = Step> {
    let any_state = prop_oneof![
        (0..4_i64, "[ab]").prop_map(|(at, device)| Some(present(at, &device))),
        (0..4_i64).prop_map(|at| Some(gone(at))),
        Just(None),
    ];
    (any_id(), any_state).prop_map(|(id, state)| Step::Put(id, state))
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_put(),
        2 => (any_id(), 0..6_u8).prop_map(|(id, number)| Step::Learn(id, known(number))),
        1 => Just(Step::Settle),
        1 => Just(Step::RollBack),
    ]
}

type Table = BTreeMap<String, DeviceState>;

#[derive(Default)]
struct Model {
    settled: Table,
    open: Table,
    /// Devices that the open transaction has put.
    touched: BTreeSet<String>,
}

fn learn(table: &mut Table, id: &str, known: Known) {
    if let Some(DeviceState { life: Life::Present(rendering), .. }) = table.get_mut(id) {
        rendering.known = known;
    }
}

impl Model {
    fn take(&mut self, step: Step) {
        match step {
            Step::Put(id, state) => {
                self.touched.insert(id.clone());
                match state {
                    Some(state) => drop(self.open.insert(id, state)),
                    None => drop(self.open.remove(&id)),
                }
            }
            Step::Learn(id, known) => {
                learn(&mut self.open, &id, known);
                if !self.touched.contains(&id) {
                    learn(&mut self.settled, &id, known);
                }
            }
            Step::Settle => {
                self.settled = self.open.clone();
                self.touched.clear();
            }
            Step::RollBack => {
                self.open = self.settled.clone();
                self.touched.clear();
            }
        }
    }

    /// The removed ones by the time of their removal.
    fn gone(&self) -> Vec<(i64, String)> {
        let gone = self.open.iter().filter(|(_, state)| state.present().is_none());
        let mut gone: Vec<_> = gone.map(|(id, state)| (state.observed_at, id.clone())).collect();
        gone.sort();
        gone
    }
}

fn take(devices: &mut Devices, step: Step) {
    match step {
        Step::Put(id, state) => devices.put(&id, state),
        Step::Learn(id, known) => devices.learn(&id, known),
        Step::Settle => devices.settle(),
        Step::RollBack => devices.roll_back(),
    }
}

proptest! {
    #[test]
    fn after_any_steps_it_is_as_the_model_says(steps in vec(any_step(), 0..60), horizon in 0..5_i64, most in 0..5_usize) {
        let (mut devices, mut model) = (Devices::default(), Model::default());
        for step in steps {
            take(&mut devices, step.clone());
            model.take(step);
            prop_assert_eq!(devices.len(), model.open.len());
            for id in ["i-1", "i-2", "i-3", "i-4"] {
                let of_model = model.open.get(id);
                prop_assert_eq!(devices.get(id), of_model.cloned());
                let known = of_model.and_then(|state| Some(state.present()?.known));
                prop_assert_eq!(devices.known(id), known);
            }
            let gone = model.gone().into_iter().filter(|(at, _)| *at < horizon).take(most);
            prop_assert_eq!(gone_ids(&devices, horizon, most), gone.map(|(_, id)| id).collect::<Vec<_>>());
        }
    }

    #[test]
    fn roll_back_restores_exactly_what_was_settled(
        before in vec(any_step(), 0..40),
        transaction in vec(any_put(), 0..40),
    ) {
        let mut devices = Devices::default();
        before.into_iter().for_each(|step| take(&mut devices, step));
        devices.settle();
        let (settled, gone, on_heap) = (devices.devices.clone(), devices.gone.clone(), devices.on_heap);
        transaction.into_iter().for_each(|step| take(&mut devices, step));
        devices.roll_back();
        prop_assert_eq!(&devices.devices, &settled);
        prop_assert_eq!(&devices.gone, &gone);
        prop_assert_eq!(devices.on_heap, on_heap);
        prop_assert!(devices.undo.is_empty());
    }
}
