//! The dictionary: what devices of any fleet have in common.

use std::path::Path;

use anyhow::Context as _;
use rollcall::profile::Profile;

use super::fleet::{mapping, site};

/// More makes devices no smaller.
const BYTES: usize = 16 << 10;
/// Many small sites, so that nothing of one of them gets into the dictionary.
const SITES: u64 = 600;
const INSTANCES: usize = 5;
/// Sites that no measurement has.
const FIRST_SEED: u64 = 1 << 40;

pub fn write() -> anyhow::Result<()> {
    let samples: Vec<_> = (FIRST_SEED..FIRST_SEED + SITES).flat_map(|seed| site(seed, INSTANCES)).collect();
    let devices = Profile::ALL.map(mapping).map(|mapping| {
        let devices: Vec<_> = samples.iter().map(|sample| sample.render(&mapping)).collect();
        devices
    });
    let dictionary = zstd::dict::from_samples(&devices.concat(), BYTES).context("training")?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/mapper/state/devices.zdict");
    std::fs::write(&path, &dictionary).with_context(|| path.display().to_string())?;
    println!("{} bytes written to {}", dictionary.len(), path.display());
    Ok(())
}
