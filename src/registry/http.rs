//! A request to the registry and its answer: who we are, whom we trust, how long and how much is waited for.

use std::error::Error;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Identity, Method, StatusCode, Url, retry};
use zeroize::Zeroizing;

use super::RegistryError;
use crate::config::{Registry, Secret};

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Many times the largest schema.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// The whole of Mozilla's certificates takes a quarter of that.
const MAX_PEM_BYTES: u64 = 1 << 20;
/// How often a connection that breaks off is tried again, at once: all that we ask can be asked twice.
const RETRIES: u32 = 4;
const BROKEN_OFF: &str = "; a server that wants another client certificate, or one at all, may break off like that: see \
                          registry.certificate_file";

/// A registry's address, and what it asks of its clients.
pub(super) struct Http {
    client: reqwest::Client,
    url: Url,
    authorization: Authorization,
}

enum Authorization {
    None,
    Basic { username: String, password: Secret },
    Bearer(Secret),
}

/// Any answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
}

impl Http {
    /// Reads the files that the configuration names; sends nothing yet.
    pub(super) fn new(registry: &Registry) -> Result<Self, RegistryError> {
        let address = registry.url.trim_end_matches('/');
        let unfit = |error| RegistryError::Refused { url: address.to_owned(), reason: format!("{error}") };
        let url = Url::parse(address).map_err(unfit)?;
        let retries = retry::for_host(url.host_str().unwrap_or_default().to_owned())
            .max_retries_per_request(RETRIES)
            .classify_fn(|exchange| match exchange.error().and_then(|error| error.downcast_ref()) {
                Some(error) if breaks_off(error) => exchange.retryable(),
                _ => exchange.success(),
            });
        // The credentials are for the configured address, not for where that one points to.
        let mut client = reqwest::Client::builder().timeout(ANSWER_WITHIN).redirect(Policy::none()).retry(retries);
        if let Some(path) = &registry.ca_file {
            let certificates = Certificate::from_pem_bundle(&pem("registry.ca_file", path)?);
            let certificates = certificates.ok().filter(|found| !found.is_empty()).ok_or_else(|| {
                unusable("registry.ca_file", path, "holds no certificate in PEM form, or one that cannot be read")
            })?;
            client = client.tls_certs_merge(certificates);
        }
        if let (Some(certificate), Some(key)) = (&registry.certificate_file, &registry.key_file) {
            let (chain, secret) = (pem("registry.certificate_file", certificate)?, pem("registry.key_file", key)?);
            // The library's own words may hold parts of a file.
            let message = "is no private key in PEM form (PKCS #8, not encrypted) that goes with the certificate";
            let identity =
                Identity::from_pkcs8_pem(&chain, &secret).map_err(|_| unusable("registry.key_file", key, message))?;
            client = client.identity(identity);
        }
        // Where the key is another certificate's.
        let unfit = |error| RegistryError::Untrusted { url: address.to_owned(), reason: in_words(&error) };
        let client = client.build().map_err(unfit)?;
        let authorization = match (&registry.username, &registry.password, &registry.token) {
            (Some(username), Some(password), _) => {
                Authorization::Basic { username: username.clone(), password: password.clone() }
            }
            (_, _, Some(token)) => Authorization::Bearer(token.clone()),
            _ => Authorization::None,
        };
        Ok(Self { client, url, authorization })
    }

    /// The address, for messages: it has no secrets in it.
    pub(super) fn shown(&self) -> String {
        self.url.as_str().trim_end_matches('/').to_owned()
    }

    /// Asks once.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: Option<&str>,
        body: Option<String>,
    ) -> Result<Answer, RegistryError> {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url.set_query(query);
        let mut request = self.client.request(method, url).header(ACCEPT, MEDIA_TYPE);
        request = match &self.authorization {
            Authorization::None => request,
            Authorization::Basic { username, password } => request.basic_auth(username, Some(password.expose())),
            Authorization::Bearer(token) => request.bearer_auth(token.expose()),
        };
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, MEDIA_TYPE).body(body);
        }
        let mut response = request.send().await.map_err(|error| self.failed(&error))?;
        let (status, mut body) = (response.status(), Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(&error))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                let reason = format!("an answer of more than {MAX_ANSWER_BYTES} bytes");
                return Err(RegistryError::Refused { url: self.shown(), reason });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body })
    }

    fn failed(&self, error: &reqwest::Error) -> RegistryError {
        let (url, mut reason) = (self.shown(), in_words(error));
        // That one side does not take the other will not pass by waiting.
        if is_of_trust(&reason) {
            return RegistryError::Untrusted { url, reason };
        }
        if breaks_off(error) && self.url.scheme() == "https" {
            reason += BROKEN_OFF;
        }
        RegistryError::Unavailable { url, reason }
    }
}

/// TLS's error is of no type that we could name.
fn is_of_trust(reason: &str) -> bool {
    reason.contains("certificate") || reason.contains("SSL alert")
}

/// Whether there was a connection, and it ended before an answer began. With TLS 1.3 a server refuses a certificate after
/// the request has begun, and may close before its reason has arrived.
fn breaks_off(error: &reqwest::Error) -> bool {
    let is_no_http =
        causes(error).any(|cause| cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse));
    let is_early = error.is_request() && !error.is_connect() && !error.is_timeout();
    is_early && !is_no_http && !is_of_trust(&in_words(error))
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause| (*cause).source())
}

/// The causes of an error, each once; without its own text, which only repeats the address.
fn in_words(error: &reqwest::Error) -> String {
    let mut words: Vec<_> = causes(error).map(ToString::to_string).collect();
    words.dedup();
    if words.is_empty() { "no answer".to_owned() } else { words.join(": ") }
}

fn pem(key: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, RegistryError> {
    let mut found = Zeroizing::new(Vec::new());
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_PEM_BYTES + 1).read_to_end(&mut found));
    match read {
        Err(error) => Err(unusable(key, path, &error.to_string())),
        Ok(_) if found.len() as u64 > MAX_PEM_BYTES => Err(unusable(key, path, "is too large")),
        Ok(_) => Ok(found),
    }
}

fn unusable(key: &'static str, path: &Path, reason: &str) -> RegistryError {
    RegistryError::File { key, path: path.to_owned(), reason: reason.to_owned() }
}
