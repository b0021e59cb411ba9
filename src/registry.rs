//! The schema registry, by Confluent's REST API: asked once, when the mapper starts, and by `check` and `schema`; never on
//! the record path. [`http`] has how it is asked, [`difference`] what is shown of two schemas.

pub mod difference;
mod http;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config;
use difference::{Difference, differences};
use http::{Answer, Http};

const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// How long a registry that cannot be reached is waited for.
const GIVE_UP_AFTER: Duration = Duration::from_secs(120);
/// What is repeated of a registry's own words: some send both schemas in them.
const MAX_WORDS: usize = 1000;

/// Why a schema has no ID.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The subject's level of compatibility forbids it.
    #[error("the schema registry at {url} refuses our schema for subject {subject:?}: {reason}{contrast}")]
    Incompatible {
        /// Its address.
        url: String,
        /// The subject.
        subject: String,
        /// Its own reason.
        reason: String,
        /// What differs.
        contrast: Box<Contrast>,
    },
    /// Only looked up, and not there.
    #[error(
        "the schema registry at {url} does not have our schema under subject {subject:?}, and registry.mode is verify; \
         whoever may register it does so with `rollcall schema register`{contrast}"
    )]
    Missing {
        /// Its address.
        url: String,
        /// The subject.
        subject: String,
        /// What differs.
        contrast: Box<Contrast>,
    },
    /// It does not know us.
    #[error(
        "the schema registry at {url} does not let this client in ({status}): check registry.username and \
         registry.password, registry.token, or the client's certificate, and what they are allowed"
    )]
    Denied {
        /// Its address.
        url: String,
        /// What it answers.
        status: StatusCode,
    },
    /// One side does not take the other's certificate.
    #[error(
        "the schema registry at {url}: {reason}; check registry.ca_file, the host name and the validity of its \
         certificate, registry.certificate_file and registry.key_file"
    )]
    Untrusted {
        /// Its address.
        url: String,
        /// What TLS says.
        reason: String,
    },
    /// A file that the configuration names.
    #[error("{key}: {path:?}: {reason}")]
    File {
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It will say the same until somebody changes something.
    #[error(
        "the schema registry at {url} does not do what is asked: {reason}; registry.url is the base of Confluent's API"
    )]
    Refused {
        /// Its address.
        url: String,
        /// Status and message.
        reason: String,
    },
    /// It may answer later.
    #[error("the schema registry at {url} cannot be reached: {reason}")]
    Unavailable {
        /// Its address.
        url: String,
        /// Status or error.
        reason: String,
    },
    /// The process was stopped meanwhile.
    #[error("stopped while waiting for the schema registry")]
    Stopped,
}

impl RegistryError {
    /// Whether it may come right by itself.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Stopped)
    }
}

/// A schema in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// What Confluent's wire format puts before each value.
    pub id: u32,
    /// Its number under the subject.
    pub version: u32,
}

/// Our schema against the subject's latest one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Contrast {
    /// The latest version; none under a new subject.
    pub version: Option<u32>,
    /// What differs.
    pub differences: Vec<Difference>,
    /// Why that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

impl fmt::Display for Contrast {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(version) = self.version else { return Ok(()) };
        write!(formatter, "\n  ours against version {version}, the latest:")?;
        match &self.unknown {
            Some(why) => write!(formatter, " {why}")?,
            None if self.differences.is_empty() => formatter.write_str(" no difference in any field")?,
            None => {}
        }
        self.differences.iter().try_for_each(|difference| write!(formatter, "\n    {difference}"))
    }
}

/// What there is under a subject, beside our schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Examined {
    /// The subject.
    pub subject: String,
    /// Its level of compatibility, where the registry tells.
    pub level: Option<String>,
    /// Our schema, where it is there.
    pub registered: Option<Registered>,
    /// Why the registry would not take it.
    pub refused: Option<String>,
    /// What differs.
    pub latest: Contrast,
}

#[derive(Deserialize)]
struct Id {
    id: u32,
}

#[derive(Deserialize)]
struct Latest {
    version: u32,
    schema: String,
}

#[derive(Deserialize)]
struct Known {
    schema: String,
}

#[derive(Deserialize)]
struct Compatible {
    is_compatible: bool,
    #[serde(default)]
    messages: Vec<String>,
}

#[derive(Deserialize)]
struct Level {
    #[serde(rename = "compatibilityLevel")]
    level: String,
}

#[derive(Deserialize)]
struct Complaint {
    message: String,
    #[serde(default)]
    error_code: Option<i64>,
}

/// The subject of a topic's values.
pub fn subject(topic: &str) -> String {
    format!("{topic}-value")
}

/// A registry. Each method but [`Client::pin`] asks once.
pub struct Client(Http);

impl Client {
    /// One that asks as the configuration says.
    ///
    /// # Errors
    /// When a file that it names cannot be used.
    pub fn new(registry: &config::Registry) -> Result<Self, RegistryError> {
        Http::new(registry).map(Self)
    }

    /// The ID that events are written with: registered or looked up, as `mode` says. A registry that cannot be reached is
    /// asked again for two minutes.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn pin(
        &self,
        mode: config::RegistryMode,
        subject: &str,
        schema: &str,
        stop: &CancellationToken,
    ) -> Result<u32, RegistryError> {
        patiently(GIVE_UP_AFTER, stop, async || match mode {
            config::RegistryMode::Register => self.register(subject, schema).await,
            config::RegistryMode::Verify => match self.find(subject, schema).await? {
                Some(found) => Ok(found.id),
                None => {
                    let contrast = self.contrast(subject, schema).await?.into();
                    Err(RegistryError::Missing { url: self.0.shown(), subject: subject.to_owned(), contrast })
                }
            },
        })
        .await
    }

    /// The schema's ID, registered where it is not yet.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let answer = self.post(&["subjects", subject, "versions"], None, schema).await?;
        if answer.status == StatusCode::CONFLICT {
            // Another who registers the same at this moment may have been quicker: some registries then refuse the second.
            if let Some(found) = self.find(subject, schema).await? {
                return Ok(found.id);
            }
            let contrast = self.contrast(subject, schema).await?.into();
            let (url, subject, reason) = (self.0.shown(), subject.to_owned(), answer.reason());
            return Err(RegistryError::Incompatible { url, subject, reason, contrast });
        }
        self.understood(&answer).map(|Id { id }| id)
    }

    /// The schema as it is registered under the subject, if it is.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn find(&self, subject: &str, schema: &str) -> Result<Option<Registered>, RegistryError> {
        self.if_known(&self.post(&["subjects", subject], None, schema).await?)
    }

    /// The schema that the registry knows by `id`; `None` where it knows none. A registry that cannot be reached is asked
    /// again for `patience`.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn by_id(
        &self,
        id: u32,
        patience: Duration,
        stop: &CancellationToken,
    ) -> Result<Option<String>, RegistryError> {
        let number = id.to_string();
        patiently(patience, stop, async || {
            let known: Option<Known> = self.if_known(&self.get(&["schemas", "ids", &number], None).await?)?;
            Ok(known.map(|Known { schema }| schema))
        })
        .await
    }

    /// What differs from the subject's latest schema.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn contrast(&self, subject: &str, schema: &str) -> Result<Contrast, RegistryError> {
        let answer = self.get(&["subjects", subject, "versions", "latest"], None).await?;
        let Some(latest): Option<Latest> = self.if_known(&answer)? else { return Ok(Contrast::default()) };
        let (differences, unknown) = match differences(&latest.schema, schema) {
            Ok(differences) => (differences, None),
            Err(why) => (Vec::new(), Some(printable(&why))),
        };
        Ok(Contrast { version: Some(latest.version), differences, unknown })
    }

    /// What the registry would say to our schema. Registers nothing.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn examine(&self, subject: &str, schema: &str) -> Result<Examined, RegistryError> {
        let latest = self.contrast(subject, schema).await?;
        let path = ["compatibility", "subjects", subject, "versions", "latest"];
        let compatible: Option<Compatible> = match latest.version {
            Some(_) => self.if_known(&self.post(&path, Some("verbose=true"), schema).await?)?,
            None => None,
        };
        let refused = compatible.filter(|answer| !answer.is_compatible).map(|answer| {
            let why = answer.messages.join("; ");
            if why.is_empty() { "no reason given".to_owned() } else { printable(&why) }
        });
        let level = self.get(&["config", subject], Some("defaultToGlobal=true")).await?;
        let level: Option<Level> = self.if_known(&level)?;
        let registered = self.find(subject, schema).await?;
        let level = level.map(|Level { level }| printable(&level));
        Ok(Examined { subject: subject.to_owned(), level, registered, refused, latest })
    }

    /// It said that the schema is registered, and does not find it.
    pub(crate) fn lost(&self, subject: &str, id: u32) -> RegistryError {
        let reason = format!("it registered the schema under {subject:?} with ID {id}, and does not find it there");
        RegistryError::Refused { url: self.0.shown(), reason }
    }

    async fn get(&self, path: &[&str], query: Option<&str>) -> Result<Answer, RegistryError> {
        self.0.send(Method::GET, path, query, None).await
    }

    async fn post(&self, path: &[&str], query: Option<&str>, schema: &str) -> Result<Answer, RegistryError> {
        let body = json!({"schemaType": "AVRO", "schema": schema}).to_string();
        self.0.send(Method::POST, path, query, Some(body)).await
    }

    /// What an answer holds, unless it is that there is no such thing.
    fn if_known<T: serde::de::DeserializeOwned>(&self, answer: &Answer) -> Result<Option<T>, RegistryError> {
        // Only a registry's own "not found" has a code: another server's must not pass for it.
        let is_its_own = || answer.complaint().is_some_and(|complaint| complaint.error_code.is_some());
        if answer.status == StatusCode::NOT_FOUND && is_its_own() {
            return Ok(None);
        }
        self.understood(answer).map(Some)
    }

    /// What a successful answer holds.
    fn understood<T: serde::de::DeserializeOwned>(&self, answer: &Answer) -> Result<T, RegistryError> {
        let (url, status) = (self.0.shown(), answer.status);
        if status.is_success() {
            return serde_json::from_slice(&answer.body)
                .map_err(|error| RegistryError::Refused { url, reason: error.to_string() });
        }
        Err(match status {
            // Its words are not repeated: they may be about the credentials.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Denied { url, status },
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                RegistryError::Unavailable { url, reason: answer.reason() }
            }
            _ if status.is_server_error() => RegistryError::Unavailable { url, reason: answer.reason() },
            _ => RegistryError::Refused { url, reason: answer.reason() },
        })
    }
}

impl Answer {
    fn complaint(&self) -> Option<Complaint> {
        serde_json::from_slice(&self.body).ok()
    }

    fn reason(&self) -> String {
        let message = self.complaint().map_or_else(|| "no message".to_owned(), |complaint| complaint.message);
        format!("{}: {}", self.status, printable(&message))
    }
}

/// Words of others, fit for a terminal and a log.
fn printable(words: &str) -> String {
    let mut text: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_WORDS).collect();
    if words.chars().nth(MAX_WORDS).is_some() {
        text.push('…');
    }
    text
}

/// Asks until there is an answer that will not pass, or `limit` is over.
async fn patiently<T>(
    limit: Duration,
    stop: &CancellationToken,
    ask: impl AsyncFn() -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    let mut backoff = Duration::from_millis(250);
    let deadline = Instant::now() + limit;
    loop {
        let answer = tokio::select! {
            answer = ask() => answer,
            () = stop.cancelled() => return Err(RegistryError::Stopped),
        };
        let error = match answer {
            Err(error @ RegistryError::Unavailable { .. }) if Instant::now() + backoff < deadline => error,
            outcome => return outcome,
        };
        tracing::warn!(%error, "waiting for the schema registry");
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            () = stop.cancelled() => return Err(RegistryError::Stopped),
        }
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn away() -> RegistryError {
        RegistryError::Unavailable { url: "http://registry".to_owned(), reason: "no answer".to_owned() }
    }

    #[tokio::test]
    async fn a_registry_that_is_away_is_asked_again_and_given_up_in_the_end() {
        let asked = Cell::new(0);
        let ask = async || {
            asked.set(asked.get() + 1);
            if asked.get() < 2 { Err(away()) } else { Ok(7) }
        };
        assert_eq!(patiently(GIVE_UP_AFTER, &CancellationToken::new(), ask).await.unwrap(), 7);

        let asked = Cell::new(0);
        let ask = async || {
            asked.set(asked.get() + 1);
            Err::<u32, _>(away())
        };
        let outcome = patiently(Duration::from_millis(300), &CancellationToken::new(), ask).await;
        assert!(matches!(outcome, Err(RegistryError::Unavailable { .. })), "{outcome:?}");
        assert_eq!(asked.get(), 2);
    }

    #[tokio::test]
    async fn what_will_not_pass_is_not_asked_again() {
        let asked = Cell::new(0);
        let ask = async || {
            asked.set(asked.get() + 1);
            Err::<u32, _>(RegistryError::Denied { url: String::new(), status: StatusCode::UNAUTHORIZED })
        };
        assert!(patiently(GIVE_UP_AFTER, &CancellationToken::new(), ask).await.is_err());
        assert_eq!(asked.get(), 1);
    }

    #[tokio::test]
    async fn a_stop_ends_a_wait_for_an_answer() {
        let stop = CancellationToken::new();
        stop.cancel();
        let outcome = patiently(GIVE_UP_AFTER, &stop, std::future::pending::<Result<u32, _>>).await;
        assert!(matches!(outcome, Err(RegistryError::Stopped)));
    }

    #[test]
    fn a_registrys_words_are_cut_and_have_no_control_characters() {
        let words = printable(&format!("\x1b[31m\n{}", "x".repeat(5000)));
        assert!(words.starts_with(" [31m x") && words.ends_with('…'));
        assert_eq!(words.chars().count(), MAX_WORDS + 1);
    }
}
