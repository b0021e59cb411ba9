//! Tokens of SASL OAUTHBEARER: who we are, proved anew every few minutes.
//!
//! ```text
//!  client made ───────────────┐
//!  librdkafka asks (at 80 %) ─┴─▶ token() ──▶ held, or fetched: OIDC, MSK's signature
//! ```
//!
//! One token serves all clients of the process. It is fetched by one of them, in bounded time, while the others wait; a
//! failure is believed for some seconds, and librdkafka asks again ten seconds after one. Held tokens outlive failures.

#[cfg(feature = "aws")]
mod msk;
mod oidc;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime};

use rdkafka::ClientConfig;
use rdkafka::client::{Client, ClientContext, OAuthToken};
use tokio::runtime::{Builder, Runtime};
use zeroize::Zeroizing;

use crate::config::{Kafka, OAuth};

/// The property that librdkafka hands over when it asks for a token. Ours names the source.
const SOURCE: &str = "sasl.oauthbearer.config";
/// How long a fetch may take.
const WITHIN: Duration = Duration::from_secs(20);
/// How long a failure is believed: as long as clients that ask together need to hear of it.
const FAILED_FOR: Duration = Duration::from_secs(5);

/// All that tokens came from in this process; a client's configuration has the number of its own.
static SOURCES: Mutex<Vec<Arc<Source>>> = Mutex::new(Vec::new());

/// A token.
#[derive(Clone)]
struct Token {
    value: Zeroizing<String>,
    /// Whom it is of, as far as we know; brokers read that from the token.
    principal: String,
    expires: SystemTime,
}

/// A future of a fetch.
type Fetch = std::pin::Pin<Box<dyn Future<Output = Result<Token, String>> + Send>>;

/// Where tokens come from, and the one that is held.
struct Source {
    of: OAuth,
    fetch: Box<dyn Fn() -> Fetch + Send + Sync>,
    /// What fetches run on: whoever asks may be on a runtime already, where nothing may block on another.
    runtime: Runtime,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// The last failure, and until when it is believed.
    failed: Option<(String, SystemTime)>,
}

struct Held {
    token: Token,
    /// When another is fetched.
    renew: SystemTime,
}

/// Has a client that is made by `config` show tokens, where that is configured.
pub(super) fn configure(config: &mut ClientConfig, kafka: &Kafka) {
    let Some(oauth) = &kafka.oauth else { return };
    if !kafka.properties.contains_key("security.protocol") {
        config.set("security.protocol", "sasl_ssl");
    }
    config.set("sasl.mechanism", "OAUTHBEARER");
    match number(oauth) {
        Ok(number) => drop(config.set(SOURCE, number.to_string())),
        Err(error) => tracing::error!(%error, "there will be no tokens for Kafka"),
    }
}

/// The number of a source, a new one where it is not yet known.
fn number(oauth: &OAuth) -> std::io::Result<usize> {
    let mut sources = SOURCES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(number) = sources.iter().position(|source| source.of == *oauth) {
        return Ok(number);
    }
    sources.push(Arc::new(Source::new(oauth.clone(), fetcher(oauth))?));
    Ok(sources.len() - 1)
}

fn fetcher(oauth: &OAuth) -> Box<dyn Fn() -> Fetch + Send + Sync> {
    match oauth.clone() {
        OAuth::Oidc(oidc) => {
            let oidc = Arc::new(oidc);
            Box::new(move || {
                let oidc = oidc.clone();
                Box::pin(async move { oidc::fetch(&oidc).await })
            })
        }
        #[cfg(feature = "aws")]
        OAuth::MskIam(iam) => {
            let signer = Arc::new(msk::Signer::new(&iam));
            Box::new(move || {
                let signer = signer.clone();
                Box::pin(async move { signer.token().await })
            })
        }
        // Refused when the configuration is read.
        #[cfg(not(feature = "aws"))]
        OAuth::MskIam(_) => {
            Box::new(|| Box::pin(async { Err("this program was built without the feature `aws`".to_owned()) }))
        }
    }
}

/// Gives a client that was just made its first token: what it is asked for before it is polled would wait for one.
/// Without one it goes on asking.
pub(super) fn authenticate<C: ClientContext>(config: &ClientConfig, client: &Client<C>) {
    let Some(source) = config.get(SOURCE) else { return };
    // A failure is logged where it happens.
    if let Ok(token) = token(Some(source))
        && let Err(error) = kafka_token::set(client, &token)
    {
        tracing::warn!(error, "librdkafka does not take the token");
    }
}

/// A good token, from the source of that number: what contexts answer when librdkafka asks.
///
/// # Errors
/// Why there is none, without secrets.
pub fn token(source: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
    let number = source.and_then(|number| number.parse::<usize>().ok());
    let source = {
        let sources = SOURCES.lock().unwrap_or_else(PoisonError::into_inner);
        number.and_then(|number| sources.get(number).cloned())
    };
    let source = source.ok_or("kafka.oauth is not configured")?;
    let Token { value, principal, expires } = source.token(SystemTime::now())?;
    let lifetime = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let lifetime_ms = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
    Ok(OAuthToken { token: value.to_string(), principal_name: principal, lifetime_ms })
}

impl Source {
    fn new(of: OAuth, fetch: Box<dyn Fn() -> Fetch + Send + Sync>) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("kafka-tokens").enable_all().build()?;
        Ok(Self { of, fetch, runtime, state: Mutex::default() })
    }

    /// A good token.
    fn token(&self, mut now: SystemTime) -> Result<Token, String> {
        // Locked while one is fetched, so that one fetches and all wait.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = state.held.as_ref().filter(|held| now < held.renew) {
            return Ok(held.token.clone());
        }
        let begun = Instant::now();
        let failed = state.failed.take().filter(|(_, until)| now < *until);
        let (why, until) = match failed {
            Some(failed) => failed,
            None => match self.fetch() {
                Ok(token) => {
                    let expires = humantime::format_rfc3339_seconds(token.expires);
                    tracing::debug!(principal = token.principal, %expires, "token for Kafka");
                    let life = token.expires.duration_since(now).unwrap_or_default();
                    // Before librdkafka asks, which it does when a fifth is left.
                    state.held = Some(Held { token: token.clone(), renew: now + life * 3 / 4 });
                    return Ok(token);
                }
                Err(error) => {
                    tracing::warn!(error, "no token for Kafka");
                    // A provider that does not answer takes a while to fail.
                    now += begun.elapsed();
                    (error, now + FAILED_FOR)
                }
            },
        };
        state.failed = Some((why.clone(), until));
        match state.held.as_ref().filter(|held| now < held.token.expires) {
            Some(held) => Ok(held.token.clone()),
            None => Err(why),
        }
    }

    fn fetch(&self) -> Result<Token, String> {
        let (answered, answer) = mpsc::channel();
        let fetch = (self.fetch)();
        self.runtime.spawn(async move {
            let late = |_| Err(format!("kafka.oauth: no token within {} s", WITHIN.as_secs()));
            let token = tokio::time::timeout(WITHIN, fetch).await.unwrap_or_else(late);
            let _ = answered.send(token);
        });
        answer.recv().unwrap_or_else(|_| Err("kafka.oauth: the fetch of a token panicked".to_owned()))
    }
}
