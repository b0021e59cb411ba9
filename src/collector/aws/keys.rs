//! Credentials: where they come from, when they are renewed, and what is done when they cannot be.
//!
//! Each kind has one [`Keys`] for all who use it. They are renewed ahead of their expiry, by one caller while the others
//! wait; keys that are still good are kept while the renewal fails. The SDK's own cache is set aside: it renews ten
//! seconds ahead, asks again at once after a refusal, and hides the reason from who has to act on it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_smithy_runtime_api::client::result::ConnectorError;
use tokio::sync::Mutex;

use super::super::fault::{Class, Fault, FaultKind};
use super::super::source::BoxFuture;
use super::classify;
use super::fault::{chain, in_words};
use crate::config::{Role, WebIdentity};

/// How long before their expiry keys are renewed, at least: AWS hands out new ones no earlier than this.
const AHEAD: Duration = Duration::from_secs(300);
/// Keys are not fetched again before this, whatever they say.
const AT_LEAST: Duration = Duration::from_secs(30);
/// When keys that name no expiry are asked for again: files and processes may have new ones.
const WITHOUT_EXPIRY: Duration = Duration::from_secs(900);
/// How long a fetch may take, with the SDK's retries.
const WITHIN: Duration = Duration::from_secs(60);
/// How long a refusal is believed: wrong keys for ever are one call a minute.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// How long another failure is believed: as long as callers that failed together need to hear of it.
const FAILED_FOR: Duration = Duration::from_secs(1);
/// Keys this young are not forgotten: who complains was refused with the ones before.
const YOUNG: Duration = Duration::from_secs(1);
/// The longest token that STS takes.
const MAX_TOKEN_BYTES: u64 = 20_000;

/// Tells the time; tests have their own.
#[derive(Clone)]
pub(super) struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    pub(super) fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(super) fn now(&self) -> SystemTime {
        (self.0)()
    }
}

/// How long a fault is believed before it is worth a call again.
pub(super) fn believed_for(fault: &Fault) -> Duration {
    if fault.class() == Class::ThirdPartyConfig { REFUSED_FOR } else { FAILED_FOR }
}

/// Where keys come from.
pub(super) enum Origin {
    /// The SDK: its default chain, a profile, or keys that stay the same.
    Sdk { provider: SharedCredentialsProvider, name: String },
    /// A role that is entered with a token from a file.
    WebIdentity { web: WebIdentity, sts: aws_sdk_sts::Client },
    /// A role that is assumed with other keys.
    Role { role: Role, with: Arc<Keys>, sts: aws_sdk_sts::Client },
}

/// Keys of one kind.
pub(super) struct Keys {
    origin: Origin,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// The last failure, and until when it is believed.
    failed: Option<(Fault, SystemTime)>,
}

struct Held {
    credentials: Credentials,
    fetched: SystemTime,
    renew: SystemTime,
}

impl Held {
    /// Renewed five minutes ahead, or a tenth of their life where that is more, but never in the first half of it: who
    /// hands out keys that end soon will hand out the same ones again.
    fn new(credentials: Credentials, fetched: SystemTime) -> Self {
        let renew = match credentials.expiry() {
            None => fetched + WITHOUT_EXPIRY,
            Some(expiry) => {
                let life = expiry.duration_since(fetched).unwrap_or_default();
                // With a clock that is ahead they have ended before they come.
                (expiry - AHEAD.max(life / 10).min(life / 2)).max(fetched + AT_LEAST)
            }
        };
        Self { credentials, fetched, renew }
    }

    fn is_good(&self, now: SystemTime) -> bool {
        self.credentials.expiry().is_none_or(|expiry| now < expiry)
    }
}

impl Keys {
    pub(super) fn new(origin: Origin, clock: Clock) -> Self {
        Self { origin, clock, state: Mutex::default() }
    }

    /// Good ones.
    pub(super) fn get(&self) -> BoxFuture<'_, Result<Credentials, Fault>> {
        Box::pin(async {
            // Held while they are fetched, so that one fetches and all wait.
            let mut state = self.state.lock().await;
            let now = self.clock.now();
            if let Some(held) = state.held.as_ref().filter(|held| now < held.renew) {
                return Ok(held.credentials.clone());
            }
            let failed = state.failed.take().filter(|(_, until)| now < *until);
            let (fault, until) = match failed {
                Some(failed) => failed,
                None => match self.fetch().await {
                    Ok(credentials) => {
                        state.held = Some(Held::new(credentials.clone(), now));
                        return Ok(credentials);
                    }
                    Err(fault) => {
                        tracing::warn!(error = %fault, "credentials cannot be had");
                        let until = now + believed_for(&fault);
                        (fault, until)
                    }
                },
            };
            state.failed = Some((fault.clone(), until));
            match state.held.as_ref().filter(|held| held.is_good(now)) {
                Some(held) => Ok(held.credentials.clone()),
                None => Err(fault),
            }
        })
    }

    /// AWS says that they have expired, whatever they say themselves: they are fetched anew, and what they were made of.
    pub(super) fn forget(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Origin::Role { with, .. } = &self.origin {
                with.forget().await;
            }
            let mut state = self.state.lock().await;
            let now = self.clock.now();
            let is_young = |held: &Held| now.duration_since(held.fetched).is_ok_and(|age| age < YOUNG);
            state.held = state.held.take().filter(is_young);
        })
    }

    async fn fetch(&self) -> Result<Credentials, Fault> {
        let fetched = tokio::time::timeout(WITHIN, async {
            match &self.origin {
                Origin::Sdk { provider, name } => {
                    provider.provide_credentials().await.map_err(|error| of_the_sdk(name, &error))
                }
                Origin::WebIdentity { web, sts } => enter(web, sts).await,
                Origin::Role { role, with, sts } => {
                    // Asked for here first, since the SDK would not tell why there are none.
                    with.get().await?;
                    assume(role, sts).await
                }
            }
        });
        let late = |_| Fault::new(FaultKind::Unavailable, format!("{self}: no credentials within {WITHIN:?}"));
        fetched.await.map_err(late)?
    }
}

/// The name, without secrets.
impl fmt::Display for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Sdk { name, .. } => formatter.write_str(name),
            Origin::WebIdentity { web, .. } => formatter.write_str(&web.role_arn),
            Origin::Role { role, .. } => formatter.write_str(&role.role_arn),
        }
    }
}

async fn assume(role: &Role, sts: &aws_sdk_sts::Client) -> Result<Credentials, Fault> {
    let request = sts.assume_role().role_arn(&role.role_arn).role_session_name(&role.session_name);
    let external_id = role.external_id.as_ref().map(|id| id.expose().to_owned());
    let answer = request.set_external_id(external_id).send().await;
    let call = format!("AssumeRole {}", role.role_arn);
    let answer = answer.map_err(|error| classify(&call, error))?;
    credentials(&call, answer.credentials)
}

async fn enter(web: &WebIdentity, sts: &aws_sdk_sts::Client) -> Result<Credentials, Fault> {
    let WebIdentity { role_arn, token_file, session_name } = web;
    let invalid = |reason: String| Fault::new(FaultKind::InvalidFile, format!("token_file {token_file:?}: {reason}"));
    let size = tokio::fs::metadata(token_file).await.map_err(|error| invalid(error.to_string()))?.len();
    if size > MAX_TOKEN_BYTES {
        return Err(invalid(format!("{size} bytes are no token: STS takes {MAX_TOKEN_BYTES} at most")));
    }
    let token = tokio::fs::read_to_string(token_file).await.map_err(|error| invalid(error.to_string()))?;
    let request = sts.assume_role_with_web_identity().role_arn(role_arn).role_session_name(session_name);
    let answer = request.web_identity_token(token.trim()).send().await;
    let call = format!("AssumeRoleWithWebIdentity {role_arn}");
    let answer = answer.map_err(|error| classify(&call, error))?;
    credentials(&call, answer.credentials)
}

fn credentials(call: &str, answer: Option<aws_sdk_sts::types::Credentials>) -> Result<Credentials, Fault> {
    let unreadable = || Fault::new(FaultKind::Unreadable, format!("{call}: the answer has no credentials"));
    let keys = answer.ok_or_else(unreadable)?;
    let expiry = SystemTime::try_from(keys.expiration).map_err(|_| unreadable())?;
    Ok(Credentials::new(keys.access_key_id, keys.secret_access_key, Some(keys.session_token), Some(expiry), "rollcall"))
}

/// What follows when the SDK has no credentials: usually somebody has to act, but not where nothing answered.
fn of_the_sdk(name: &str, error: &CredentialsError) -> Fault {
    let is_network = chain(error)
        .any(|cause| cause.downcast_ref::<ConnectorError>().is_some_and(|error| error.is_io() || error.is_timeout()));
    let is_late = matches!(error, CredentialsError::ProviderTimedOut(_));
    let kind = if is_network || is_late { FaultKind::Unavailable } else { FaultKind::Credentials };
    Fault::new(kind, format!("{name}: {}", in_words(error)))
}

/// Keys as the SDK's clients take them.
pub(super) struct Provider(pub(super) Arc<Keys>);

impl Provider {
    /// `base`, with these keys.
    pub(super) fn config(keys: &Arc<Keys>, base: &SdkConfig) -> SdkConfig {
        let provider = SharedCredentialsProvider::new(Self(keys.clone()));
        base.to_builder().credentials_provider(provider).build()
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Provider({})", self.0)
    }
}

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { self.0.get().await.map_err(CredentialsError::provider_error) })
    }
}
