//! Nothing is written and no group is joined: what differs is only told.

use super::{Interrupt, Outlet, Teller, onlooker};
use crate::config::Config;
use crate::kafka::{Onlooker, Setback, Unavailable};
use crate::mapper::decide::Emission;
use crate::mapper::state::Devices;
use crate::record::RawRecord;
use crate::replay::report::Changed;

pub(super) struct DryRun {
    group: Onlooker,
}

impl DryRun {
    /// Looks at the live group of `config`; `client` begins its client's ID.
    pub(super) fn new(config: &Config, client: &str) -> anyhow::Result<Self> {
        Ok(Self { group: onlooker(config, client)? })
    }
}

impl Outlet for DryRun {
    fn committed(&mut self, partition: i32) -> Result<Option<i64>, Unavailable> {
        Ok(self.group.committed(&[partition])?.remove(&partition).flatten())
    }

    fn restored(&mut self, _: &Devices, _: &mut Teller<'_>) {}

    fn beat(&mut self, teller: &mut Teller<'_>) -> Result<(), Interrupt> {
        self.group.serve();
        // Whoever was told has seen enough.
        teller.failed.take().map_or(Ok(()), |error| Err(Interrupt::End(error.into())))
    }

    fn emit(
        &mut self,
        record: &RawRecord<'_>,
        emission: &mut Emission,
        teller: &mut Teller<'_>,
    ) -> Result<(), Interrupt> {
        teller.told(&Changed::new(record, emission));
        Ok(())
    }

    fn settle(&mut self, _: &mut Teller<'_>) -> Result<(), Interrupt> {
        Ok(())
    }

    fn recover(&mut self, setback: Setback) -> anyhow::Result<()> {
        Err(setback.into())
    }
}
