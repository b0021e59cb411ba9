//! `rollcall tail`: shows what is written to a topic, as it comes.
//!
//! [`follow`] reads, [`decode`] finds out what a value says, [`filter`] chooses, [`text`] and [`json`] show; here is what
//! binds them together: no group is joined and nothing is committed. A schema ID that nobody knows yet is asked of the registry, once.

pub mod decode;
pub mod filter;
mod follow;
pub mod json;
pub mod start;
pub mod text;

use std::io::Write;
use std::time::Duration;

use clap::ValueEnum;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Topics};
use crate::inert::write_line;
use crate::record::RawRecord;
use crate::record::dump::DumpedRecord;
use crate::registry::{self, RegistryError};
use decode::{Decoded, Decoder, Unasked};
use filter::{Filter, Subject};
use follow::{Follower, Polled};
use start::Start;

/// How long a registry that cannot be reached is waited for.
const REGISTRY_PATIENCE: Duration = Duration::from_secs(10);

/// What is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Topic {
    /// Change events
    Events,
    /// Raw records: the instances as they were seen
    Raw,
    /// Rejected records
    #[value(alias = "dlq")]
    DeadLetters,
    /// The mapper's memory
    State,
    /// The collectors' memory
    Sweeps,
    /// Health events
    Health,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Events, Self::Raw, Self::DeadLetters, Self::State, Self::Sweeps, Self::Health];

    /// Its configured name.
    pub fn name(self, topics: &Topics) -> &str {
        match self {
            Self::Events => &topics.events,
            Self::Raw => &topics.raw,
            Self::DeadLetters => &topics.dead_letters,
            Self::State => &topics.state,
            Self::Sweeps => &topics.sweeps,
            Self::Health => &topics.health,
        }
    }

    /// Whether its records are instances as they were seen: their bytes matter, and are shown as they are.
    fn is_raw(self) -> bool {
        matches!(self, Self::Raw | Self::DeadLetters)
    }
}

/// What is shown, and how.
#[derive(Debug, Clone)]
pub struct Order {
    /// What is followed.
    pub topic: Topic,
    /// From where on.
    pub start: Start,
    /// Not further than to where the topic ends now.
    pub to_the_end: bool,
    /// So many records at most.
    pub count: Option<u64>,
    /// Which.
    pub filter: Filter,
    /// For programs; else for people.
    pub as_json: bool,
}

/// A filter that no record of the topic could ever pass; what is wrong with it.
pub fn fault(order: &Order) -> Option<String> {
    let Filter { instances, accounts, regions, changes } = &order.filter;
    let is_of_instances = order.topic == Topic::Events || order.topic.is_raw();
    let faults = [
        ("--change", "events", !changes.is_empty() && order.topic != Topic::Events),
        ("--account", "events, raw and dead-letters", !accounts.is_empty() && !is_of_instances),
        ("--region", "events, raw and dead-letters", !regions.is_empty() && !is_of_instances),
        (
            "--instance",
            "events, raw, dead-letters and state",
            !instances.is_empty() && matches!(order.topic, Topic::Sweeps | Topic::Health),
        ),
    ];
    let (flag, topics, _) = faults.into_iter().find(|(.., is_wrong)| *is_wrong)?;
    Some(format!("{flag} goes with {topics}: the others do not tell it"))
}

/// Shows records until there is nothing more to show, or until `stop`. Blocks; needs a runtime of several threads.
///
/// # Errors
/// When Kafka or the registry does not answer, or the output cannot be written.
pub fn tail(order: &Order, config: &Config, stop: &CancellationToken, output: &mut dyn Write) -> anyhow::Result<()> {
    let topic = order.topic.name(&config.kafka.topics);
    let mut follower = Follower::open(config, topic, order.start, order.to_the_end, stop)?;
    tracing::info!(topic, partitions = follower.partitions(), "following");
    let mut screen = Screen { order, topic, config, stop, decoder: Decoder::default(), output, shown: 0 };
    loop {
        let is_done = screen.is_full() || (order.to_the_end && follower.is_at_end());
        if is_done || stop.is_cancelled() {
            return Ok(screen.output.flush()?);
        }
        let polled = follower.poll(&mut |record| screen.take(record))?;
        if polled == Polled::Nothing {
            screen.output.flush()?;
        }
    }
}

/// Where records are shown.
struct Screen<'a> {
    order: &'a Order,
    topic: &'a str,
    config: &'a Config,
    stop: &'a CancellationToken,
    decoder: Decoder,
    output: &'a mut dyn Write,
    shown: u64,
}

impl Screen<'_> {
    fn is_full(&self) -> bool {
        self.order.count.is_some_and(|count| self.shown >= count)
    }

    fn take(&mut self, record: &RawRecord<'_>) -> anyhow::Result<()> {
        let decoded = match self.decode(record.value) {
            Err(RegistryError::Stopped) => return Ok(()),
            decoded => decoded?,
        };
        let value = if let Decoded::Value(value) = &decoded { Some(value) } else { None };
        let subject = Subject::of(record, value);
        if !self.order.filter.lets_through(record, &subject) {
            return Ok(());
        }
        if !self.order.as_json {
            self.output.write_all(text::lines(self.order.topic, record, &subject, &decoded).as_bytes())?;
        } else if self.order.topic.is_raw() {
            write_line(&DumpedRecord::of(self.topic, record), self.output)?;
        } else {
            json::write(self.topic, record, &decoded, self.output)?;
        }
        self.shown += 1;
        Ok(())
    }

    fn decode(&mut self, value: Option<&[u8]>) -> Result<Decoded, RegistryError> {
        if let (true, Some(bytes)) = (self.order.topic.is_raw(), value) {
            return Ok(decode::json(bytes));
        }
        loop {
            match self.decoder.decode(value) {
                Ok(decoded) => return Ok(decoded),
                Err(Unasked(id)) => {
                    let schema = self.ask(id)?;
                    self.decoder.learn(id, schema);
                }
            }
        }
    }

    /// The schema of an ID, or why there is none.
    fn ask(&self, id: u32) -> Result<Result<String, String>, RegistryError> {
        let Some(registry) = &self.config.registry else {
            return Ok(Err("no schema registry is configured (registry.url)".to_owned()));
        };
        let registry = registry::Client::new(registry)?;
        let asked = Handle::current().block_on(registry.by_id(id, REGISTRY_PATIENCE, self.stop))?;
        Ok(asked.ok_or_else(|| "the schema registry knows no such schema".to_owned()))
    }
}
