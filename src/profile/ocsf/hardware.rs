//! What is known of the processor. The one place for these attributes: OCSF 1.9 moves all four to `cpu_info_list`.

use serde::{Deserialize, Serialize};

use crate::avro::by_place_and_back;
use crate::device::Instance;

/// OCSF's `device_hw_info`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
#[allow(missing_docs)]
pub struct HwInfo {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_architecture: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_architecture_id: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_bits: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<i32>,
}

by_place_and_back!(HwInfo { cpu_architecture, cpu_architecture_id, cpu_bits, cpu_cores });

impl HwInfo {
    /// `None` where nothing is known.
    pub(super) fn of(instance: &Instance<'_>) -> Option<Self> {
        let (name, id, bits) = match instance.architecture.text() {
            Some("i386") => (Some("x86"), Some(1), Some(32)),
            Some("x86_64" | "x86_64_mac") => (Some("x86"), Some(1), Some(64)),
            Some("arm64" | "arm64_mac") => (Some("ARM"), Some(2), Some(64)),
            // As a name of the source's own it would contradict its number.
            Some("Other") => (Some("Unknown"), Some(0), None),
            Some(other) => (Some(other), Some(99), None),
            None => (None, None, None),
        };
        let info = Self {
            cpu_architecture: name.map(str::to_owned),
            cpu_architecture_id: id,
            cpu_bits: bits,
            cpu_cores: cores(instance),
        };
        (info != Self::default()).then_some(info)
    }
}

/// Cores, where it is a number of cores.
pub(super) fn cores(instance: &Instance<'_>) -> Option<i32> {
    let told = *instance.cpu_options.known()?.core_count.known()?;
    i32::try_from(told).ok().filter(|cores| *cores > 0)
}
