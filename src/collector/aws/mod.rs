//! Source `aws`: the EC2 API, an account and a region a scope.
//!
//! The SDK signs, routes, retries and names errors. What it makes of a response is set aside: it knows the members of
//! its release only. The record is decoded from the body itself ([`xml`]).

mod capture;
mod http;
mod keys;
mod organization;
pub mod session;
mod shape;
pub mod xml;

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::fault::{Fault, FaultKind};
use super::source::{BoxFuture, Discovery, Page, Pages, Scope, Source};
use crate::config::AwsSource;
use capture::Capture;
use session::Sessions;

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
    aws: AwsSource,
    sessions: Sessions,
}

impl Ec2 {
    /// The source called `name`.
    pub fn new(name: &str, aws: AwsSource) -> Self {
        Self { sessions: Sessions::new(name, aws.clone()), aws }
    }
}

impl Source for Ec2 {
    fn scopes(&self) -> BoxFuture<'_, Discovery> {
        Box::pin(self.sessions.discover())
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
                None => self.ec2.sessions.ec2(&self.scope).await?,
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
fn classify<E, R>(call: &str, error: SdkError<E, R>) -> Fault
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + 'static,
{
    let code = error.code().map(str::to_owned);
    let described = match (&code, error.message()) {
        (Some(code), message) => format!("{call}: {code}: {}", message.unwrap_or("no message")),
        (None, _) => format!("{call}: {}", keys::causes(&error)),
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
