//! Source `aws`: the EC2 API, an account and a region a scope.
//!
//! The SDK signs, routes, retries and names errors. What it makes of a response is set aside: it knows the members of
//! its release only. The record is decoded from the body itself ([`xml`]).

mod capture;
mod shape;
pub mod xml;

use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_sdk_ec2::config::Region;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_sdk_ec2::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::sync::OnceCell;

use super::fault::{Fault, FaultKind};
use super::source::{BoxFuture, Discovery, Page, Pages, Scope, Source, Unknown};
use crate::config::{Account, AwsSource};
use capture::Capture;

/// Codes that stay until somebody changes credentials, permissions or the account.
const CONFIG_CODES: [&str; 13] = [
    "AccessDenied",
    "AccessDeniedException",
    "AuthFailure",
    "Blocked",
    "InvalidClientTokenId",
    "InvalidParameterCombination",
    "InvalidParameterValue",
    "MissingAuthenticationToken",
    "OptInRequired",
    "PendingVerification",
    "SignatureDoesNotMatch",
    "UnauthorizedOperation",
    "UnrecognizedClientException",
];

/// The EC2 API.
pub struct Ec2 {
    name: String,
    aws: AwsSource,
    /// Credentials of the process, made at the first use.
    base: OnceCell<SdkConfig>,
}

impl Ec2 {
    /// The source called `name`.
    pub fn new(name: &str, aws: AwsSource) -> Self {
        Self { name: name.to_owned(), aws, base: OnceCell::new() }
    }

    async fn base(&self) -> &SdkConfig {
        let load = || async {
            let timeouts = TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(5))
                .operation_attempt_timeout(Duration::from_secs(60))
                .operation_timeout(Duration::from_secs(180));
            let mut loader = aws_config::from_env().timeout_config(timeouts.build());
            if let Some(url) = &self.aws.endpoint_url {
                loader = loader.endpoint_url(url);
            }
            // STS is asked in a region that is surely enabled: the first one that is swept.
            if let Some(region) = self.aws.regions.first() {
                loader = loader.region(Region::new(region.clone()));
            }
            loader.load().await
        };
        self.base.get_or_init(load).await
    }

    async fn client(&self, scope: &Scope) -> aws_sdk_ec2::Client {
        let base = self.base().await;
        let mut config = aws_sdk_ec2::config::Builder::from(base);
        config = config.region(scope.region.clone().map(Region::new));
        let account = self.aws.accounts.iter().find(|account| account.id() == scope.account.as_deref());
        if let Some(account) = account {
            config = config.credentials_provider(assume(account, base).await);
        }
        aws_sdk_ec2::Client::from_conf(config.build())
    }

    /// The account that the credentials belong to.
    async fn own_account(&self) -> Result<String, Fault> {
        let client = aws_sdk_sts::Client::new(self.base().await);
        let identity = client.get_caller_identity().send().await;
        let identity = identity.map_err(|error| classify("GetCallerIdentity", error))?;
        identity
            .account
            .ok_or_else(|| Fault::new(FaultKind::Unreadable, "GetCallerIdentity: the answer names no account"))
    }
}

async fn assume(account: &Account, base: &SdkConfig) -> AssumeRoleProvider {
    let mut role = AssumeRoleProvider::builder(&account.role_arn).session_name(&account.session_name).configure(base);
    if let Some(external_id) = &account.external_id {
        role = role.external_id(external_id.expose());
    }
    role.build().await
}

impl Source for Ec2 {
    fn scopes(&self) -> BoxFuture<'_, Discovery> {
        Box::pin(async {
            let accounts = match self.aws.accounts.as_slice() {
                [] => match self.own_account().await {
                    Ok(account) => vec![account],
                    Err(fault) => {
                        return Discovery { scopes: Vec::new(), unknown: vec![Unknown { account: None, fault }] };
                    }
                },
                accounts => accounts.iter().filter_map(Account::id).map(str::to_owned).collect(),
            };
            let regions = &self.aws.regions;
            let scope = |account: &String, region: &String| Scope {
                source: self.name.clone(),
                account: Some(account.clone()),
                region: Some(region.clone()),
            };
            let scopes = accounts.iter().flat_map(|account| regions.iter().map(move |region| scope(account, region)));
            Discovery { scopes: scopes.collect(), unknown: Vec::new() }
        })
    }

    fn pages(&self, scope: &Scope) -> Box<dyn Pages + '_> {
        Box::new(Ec2Pages { ec2: self, scope: scope.clone(), client: None, next: Next::First })
    }
}

/// Which page is next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    First,
    Token(String),
    None,
}

/// DescribeInstances, page by page. The SDK's paginator takes a repeated token for the end, which would be a sweep that
/// is short without saying so.
struct Ec2Pages<'a> {
    ec2: &'a Ec2,
    scope: Scope,
    client: Option<aws_sdk_ec2::Client>,
    next: Next,
}

impl Pages for Ec2Pages<'_> {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Page>, Fault>> {
        Box::pin(async {
            let token = match &self.next {
                Next::First => None,
                Next::Token(token) => Some(token.clone()),
                Next::None => return Ok(None),
            };
            let client = match self.client.take() {
                Some(client) => client,
                None => self.ec2.client(&self.scope).await,
            };
            let capture = Capture::default();
            let request =
                client.describe_instances().max_results(self.ec2.aws.page_size.0).set_next_token(token.clone());
            let answer = request.customize().interceptor(capture.clone()).send().await;
            self.client = Some(client);
            answer.map_err(|error| classify("DescribeInstances", error))?;
            let response = capture.take().ok_or_else(|| unreadable("the response has no body"))?;
            let page = xml::decode(&response.body).map_err(|error| unreadable(&error.to_string()))?;
            self.next = match page.next_token {
                None => Next::None,
                Some(repeated) if Some(&repeated) == token.as_ref() => {
                    return Err(unreadable("the response repeats the token of its own page"));
                }
                Some(token) => Next::Token(token),
            };
            Ok(Some(Page {
                observed_at: observed_at(response.date.as_deref(), Utc::now()),
                instances: page.instances.into_iter().map(Value::Object).collect(),
            }))
        })
    }
}

/// When EC2 answered, by its own clock; never later than now.
fn observed_at(date: Option<&str>, now: DateTime<Utc>) -> DateTime<Utc> {
    let answered = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok());
    answered.map_or(now, |answered| answered.to_utc().min(now))
}

fn unreadable(reason: &str) -> Fault {
    Fault::new(FaultKind::Unreadable, format!("DescribeInstances: {reason}"))
}

/// What follows from an error of the SDK.
fn classify<E>(call: &str, error: SdkError<E>) -> Fault
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let code = error.code().map(str::to_owned);
    let described = match (&code, error.message()) {
        (Some(code), message) => format!("{call}: {code}: {}", message.unwrap_or("no message")),
        (None, _) => format!("{call}: {}", DisplayErrorContext(&error)),
    };
    let is_config = match &error {
        SdkError::ConstructionFailure(_) => true,
        // Credentials that cannot be had.
        SdkError::DispatchFailure(failure) => failure.is_user() || failure.is_other(),
        _ => code.is_some_and(|code| CONFIG_CODES.contains(&code.as_str())),
    };
    Fault::new(if is_config { FaultKind::Credentials } else { FaultKind::Unavailable }, described)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_ec2s_but_never_later_than_ours() {
        let now: DateTime<Utc> = "2026-01-02T03:04:05Z".parse().unwrap();
        let earlier: DateTime<Utc> = "2026-01-02T03:04:03Z".parse().unwrap();
        assert_eq!(observed_at(Some("Fri, 02 Jan 2026 03:04:03 GMT"), now), earlier);
        assert_eq!(observed_at(Some("Fri, 02 Jan 2026 03:05:00 GMT"), now), now);
        assert_eq!(observed_at(Some("today"), now), now);
        assert_eq!(observed_at(None, now), now);
    }
}
