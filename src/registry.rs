//! The schema registry, by Confluent's REST API: asked once, when the mapper starts, and by `check`; never on the record
//! path.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::config::Registry;

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
const ANSWER: Duration = Duration::from_secs(10);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// How long a registry that cannot be reached is waited for.
const GIVE_UP_AFTER: Duration = Duration::from_secs(120);

/// Why a schema has no ID.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It will say the same until somebody changes something.
    #[error("the schema registry at {url} refuses subject {subject:?}: {reason}")]
    Refused {
        /// Its address.
        url: String,
        /// The subject.
        subject: String,
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

#[derive(Deserialize)]
struct Registered {
    id: u32,
}

#[derive(Deserialize)]
struct Complaint {
    message: String,
    #[serde(default)]
    error_code: Option<i64>,
}

/// The ID of `schema` under the subject `{topic}-value`, where it is registered if it is not yet. A registry that cannot
/// be reached is asked again for two minutes.
///
/// # Errors
/// See [`RegistryError`].
pub async fn register(
    registry: &Registry,
    topic: &str,
    schema: &str,
    stop: &CancellationToken,
) -> Result<u32, RegistryError> {
    let mut backoff = Duration::from_millis(250);
    let deadline = tokio::time::Instant::now() + GIVE_UP_AFTER;
    loop {
        let error = match attempt(registry, &format!("{topic}-value"), schema).await {
            Err(error @ RegistryError::Unavailable { .. }) if tokio::time::Instant::now() < deadline => error,
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

/// What the registry says of a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compatibility {
    /// The subject's last version goes with it.
    Compatible,
    /// The subject has no version yet.
    New,
    /// It would be refused, for this reason.
    Incompatible(String),
}

#[derive(Deserialize)]
struct Compatible {
    is_compatible: bool,
    #[serde(default)]
    messages: Vec<String>,
}

/// Whether `schema` could be registered under `subject`. Asks once, and registers nothing.
///
/// # Errors
/// See [`RegistryError`].
pub async fn compatibility(registry: &Registry, subject: &str, schema: &str) -> Result<Compatibility, RegistryError> {
    let path = ["compatibility", "subjects", subject, "versions", "latest"];
    let (status, body) = post(registry, subject, &path, schema).await?;
    // Only a registry's own "not found" has a code: another server's must not pass for it.
    let is_unknown =
        || serde_json::from_slice::<Complaint>(&body).is_ok_and(|complaint| complaint.error_code.is_some());
    if status == reqwest::StatusCode::NOT_FOUND && is_unknown() {
        return Ok(Compatibility::New);
    }
    let answer: Compatible = understood(registry, subject, status, &body)?;
    let reasons = || if answer.messages.is_empty() { "no reason given".to_owned() } else { answer.messages.join("; ") };
    Ok(if answer.is_compatible { Compatibility::Compatible } else { Compatibility::Incompatible(reasons()) })
}

async fn attempt(registry: &Registry, subject: &str, schema: &str) -> Result<u32, RegistryError> {
    let (status, body) = post(registry, subject, &["subjects", subject, "versions"], schema).await?;
    understood(registry, subject, status, &body).map(|registered: Registered| registered.id)
}

/// Sends a schema; status and body of the answer.
async fn post(
    registry: &Registry,
    subject: &str,
    path: &[&str],
    schema: &str,
) -> Result<(reqwest::StatusCode, Vec<u8>), RegistryError> {
    let url = registry.url.trim_end_matches('/');
    let unavailable = |error: reqwest::Error| RegistryError::Unavailable {
        url: url.to_owned(),
        // Its own text repeats the address, user and password included.
        reason: std::error::Error::source(&error).map_or_else(|| "no answer".to_owned(), ToString::to_string),
    };
    let client = reqwest::Client::builder().timeout(ANSWER).build().map_err(unavailable)?;
    let mut address = reqwest::Url::parse(url).map_err(|error| refused(url, subject, &error))?;
    address
        .path_segments_mut()
        .map_err(|()| refused(url, subject, &"not an address of a server"))?
        .pop_if_empty()
        .extend(path);
    let body = json!({"schemaType": "AVRO", "schema": schema}).to_string();
    let request = client.post(address).header("content-type", MEDIA_TYPE).header("accept", MEDIA_TYPE).body(body);
    let response = request.send().await.map_err(unavailable)?;
    let status = response.status();
    let body = response.bytes().await.map_err(unavailable)?;
    Ok((status, body.to_vec()))
}

/// What a successful answer holds.
fn understood<T: serde::de::DeserializeOwned>(
    registry: &Registry,
    subject: &str,
    status: reqwest::StatusCode,
    body: &[u8],
) -> Result<T, RegistryError> {
    let url = registry.url.trim_end_matches('/');
    if status.is_success() {
        return serde_json::from_slice(body).map_err(|error| refused(url, subject, &error));
    }
    let message = serde_json::from_slice(body).map_or_else(|_| "no message".to_owned(), |c: Complaint| c.message);
    let reason = format!("{status}: {message}");
    if status.is_server_error() || status == reqwest::StatusCode::TOO_MANY_REQUESTS {
        return Err(RegistryError::Unavailable { url: url.to_owned(), reason });
    }
    Err(refused(url, subject, &reason))
}

fn refused(url: &str, subject: &str, reason: &dyn std::fmt::Display) -> RegistryError {
    RegistryError::Refused { url: url.to_owned(), subject: subject.to_owned(), reason: reason.to_string() }
}
