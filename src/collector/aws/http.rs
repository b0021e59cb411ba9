//! How AWS is reached: through a proxy or not, and whose certificates are trusted. What the SDK's own client lacks.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::super::fault::{Fault, FaultKind};
use crate::config::AwsSource;

/// Where credentials are handed out to the machine, the task or the pod: never through a proxy.
const ALWAYS_DIRECT: &str = "169.254.169.254,169.254.170.2,169.254.170.23,fd00:ec2::254,fd00:ec2::23";
/// What is read of a file of certificates; the whole of Mozilla's takes a quarter of that.
const MAX_CA_BYTES: u64 = 1 << 20;

/// What is read of an answer. A page of a thousand instances takes some eight megabytes.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// An answer that is not read to its end.
#[derive(Debug, thiserror::Error)]
#[error("the answer is larger than {MAX_ANSWER_BYTES} bytes; lower page_size")]
pub(super) struct TooLarge;

/// The client for all calls of a source.
///
/// # Errors
/// When the file of certificates, or the proxy, cannot be used.
pub(super) async fn client(aws: &AwsSource) -> Result<SharedHttpClient, Fault> {
    let (tls, proxy) = (tls(aws).await?, proxy(aws, &std::env::var("NO_PROXY").unwrap_or_default())?);
    Ok(SharedHttpClient::new(Http { tls, proxy, connectors: Mutex::default() }))
}

async fn tls(aws: &AwsSource) -> Result<TlsContext, Fault> {
    let mut trusted = TrustStore::default();
    if let Some(path) = &aws.ca_file {
        let invalid = |reason: String| Fault::new(FaultKind::InvalidFile, format!("ca_file {path:?}: {reason}"));
        let size = tokio::fs::metadata(path).await.map_err(|error| invalid(error.to_string()))?.len();
        if size > MAX_CA_BYTES {
            return Err(invalid(format!("{size} bytes are too many: {MAX_CA_BYTES} at most")));
        }
        let pem = tokio::fs::read(path).await.map_err(|error| invalid(error.to_string()))?;
        // The SDK panics on what it cannot read.
        match reqwest::Certificate::from_pem_bundle(&pem) {
            Ok(certificates) if !certificates.is_empty() => trusted = trusted.with_pem_certificate(pem),
            _ => return Err(invalid("holds no certificate in PEM form, or one that cannot be read".to_owned())),
        }
    }
    TlsContext::builder().with_trust_store(trusted).build().map_err(|error| {
        Fault::new(FaultKind::InvalidFile, format!("the certificates to trust cannot be used: {error}"))
    })
}

fn proxy(aws: &AwsSource, no_proxy: &str) -> Result<ProxyConfig, Fault> {
    let Some(url) = &aws.proxy else { return Ok(ProxyConfig::from_env()) };
    let invalid = |error| Fault::new(FaultKind::InvalidRequest, format!("proxy {url:?}: {error}"));
    let mut proxy = ProxyConfig::all(url.as_str()).map_err(invalid)?.no_proxy(format!("{ALWAYS_DIRECT},{no_proxy}"));
    if let (Some(user), Some(password)) = (&aws.proxy_username, &aws.proxy_password) {
        // They are put into the URL as they are, and a URL that cannot be read means no proxy at all.
        proxy = proxy.with_basic_auth(escaped(user.expose()), escaped(password.expose()));
    }
    Ok(proxy)
}

/// Every byte that could mean something in a URL as `%` and its number.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| {
        if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(escape).collect()
}

/// How long to wait for a connection, and for an answer.
type Timeouts = (Option<Duration>, Option<Duration>);

/// A connector, with its pool of connections, for each pair of timeouts.
struct Http {
    tls: TlsContext,
    proxy: ProxyConfig,
    connectors: Mutex<HashMap<Timeouts, SharedHttpConnector>>,
}

impl HttpClient for Http {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let timeouts = (settings.connect_timeout(), settings.read_timeout());
        let build = || {
            let mut builder =
                Connector::builder().connector_settings(settings.clone()).proxy_config(self.proxy.clone());
            builder.set_sleep_impl(components.sleep_impl());
            let builder = builder.tls_provider(Provider::Rustls(CryptoMode::AwsLc));
            SharedHttpConnector::new(Bounded(builder.tls_context(self.tls.clone()).build()))
        };
        let mut connectors = self.connectors.lock().unwrap_or_else(PoisonError::into_inner);
        connectors.entry(timeouts).or_insert_with(build).clone()
    }
}

/// A connector whose answers end at [`MAX_ANSWER_BYTES`] at the latest.
#[derive(Debug)]
struct Bounded<C>(C);

impl<C: HttpConnector> HttpConnector for Bounded<C> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async {
            let mut answer = answer.await?;
            let body = Limited::new(answer.take_body(), MAX_ANSWER_BYTES);
            let body = body.map_err(|error| if error.is::<LengthLimitError>() { TooLarge.into() } else { error });
            *answer.body_mut() = SdkBody::from_body_1_x(body);
            Ok(answer)
        })
    }
}

/// The proxy's password stays out of it.
impl fmt::Debug for Http {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Http")
    }
}
