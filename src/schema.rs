//! `rollcall schema`: the Avro schemas, and what the registry has and would take of that of the events.

use std::fmt;

use serde::Serialize;

use crate::profile::Profile;
use crate::registry::{Client, Examined, Registered, RegistryError};

/// What is written in Avro.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Of {
    /// The events of a profile
    Events,
    /// The state topic's values
    State,
    /// The sweeps topic's values: the head of a scope,
    SweepHead,
    /// its instances,
    SweepEntry,
    /// and what was accepted to be gone
    SweepAcceptance,
}

impl Of {
    /// The schema.
    pub fn json(self, profile: Profile) -> &'static str {
        match self {
            Self::Events => profile.schema_json(),
            Self::State => include_str!("../schemas/device-state.avsc"),
            Self::SweepHead => include_str!("../schemas/sweep-head.avsc"),
            Self::SweepEntry => include_str!("../schemas/sweep-entry.avsc"),
            Self::SweepAcceptance => include_str!("../schemas/sweep-acceptance.avsc"),
        }
    }
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Report {
    /// Of `schema register`.
    Registered {
        /// The subject.
        subject: String,
        /// Where it is.
        #[serde(flatten)]
        registered: Registered,
    },
    /// Of `schema check`.
    Examined(Examined),
}

/// Registers a schema.
///
/// # Errors
/// See [`RegistryError`].
pub async fn register(client: &Client, subject: &str, schema: &str) -> Result<Report, RegistryError> {
    let id = client.register(subject, schema).await?;
    // Not every registry tells the version when it registers.
    let found = client.find(subject, schema).await?;
    let registered = found.filter(|found| found.id == id).ok_or_else(|| client.lost(subject, id))?;
    Ok(Report::Registered { subject: subject.to_owned(), registered })
}

/// Asks what the registry would say.
///
/// # Errors
/// See [`RegistryError`].
pub async fn check(client: &Client, subject: &str, schema: &str) -> Result<Report, RegistryError> {
    client.examine(subject, schema).await.map(Report::Examined)
}

impl Report {
    /// Whether nobody has to act.
    pub fn is_good(&self) -> bool {
        match self {
            Self::Registered { .. } => true,
            Self::Examined(examined) => examined.refused.is_none(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered { subject, registered: Registered { id, version } } => {
                writeln!(formatter, "{subject}: ID {id}, version {version}")
            }
            Self::Examined(Examined { subject, level, registered, refused, latest }) => {
                let level = level.as_deref().unwrap_or("the registry's default");
                let verdict = match (refused, registered, latest.version) {
                    (Some(why), ..) => format!("incompatible: {why}"),
                    (None, Some(Registered { id, version }), _) => format!("registered: ID {id}, version {version}"),
                    (None, None, None) => "new: it has no schema yet".to_owned(),
                    (None, None, Some(_)) => "compatible, and not yet registered".to_owned(),
                };
                writeln!(formatter, "{subject} (compatibility {level}): {verdict}{latest}")
            }
        }
    }
}
