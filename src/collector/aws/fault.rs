//! What follows from an error of the SDK: a [`Fault`], and what the next attempt has to know of it.
//!
//! Errors are told apart by AWS's code, and where there is none by how far the call came.

use std::error::Error;
use std::time::Duration;

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use super::http::TooLarge;
use crate::collector::fault::{Fault, FaultKind};
use FaultKind::{AccountRetired, Clock, Credentials, Denied, InvalidRequest, RegionDisabled, Throttled, Unavailable};

#[cfg(test)]
mod tests;

/// The codes that mean something here. They are also the only ones that metrics have as labels.
const CODES: [(&str, FaultKind); 55] = [
    ("AccessDenied", Denied),
    ("AccessDeniedException", Denied),
    ("UnauthorizedOperation", Denied),
    ("AuthFailure", Credentials),
    ("ExpiredToken", Credentials),
    ("ExpiredTokenException", Credentials),
    ("IDPRejectedClaim", Credentials),
    ("IncompleteSignature", Credentials),
    ("InvalidClientTokenId", Credentials),
    ("InvalidIdentityToken", Credentials),
    ("InvalidSignatureException", Credentials),
    ("MissingAuthenticationToken", Credentials),
    ("RequestExpired", Credentials),
    ("SignatureDoesNotMatch", Credentials),
    ("UnrecognizedClientException", Credentials),
    ("RequestTimeTooSkewed", Clock),
    ("RegionDisabledException", RegionDisabled),
    ("AWSOrganizationsNotInUseException", AccountRetired),
    ("Blocked", AccountRetired),
    ("OptInRequired", AccountRetired),
    ("PendingVerification", AccountRetired),
    ("SubscriptionRequiredException", AccountRetired),
    ("BandwidthLimitExceeded", Throttled),
    ("EC2ThrottledException", Throttled),
    ("LimitExceededException", Throttled),
    ("PriorRequestNotComplete", Throttled),
    ("ProvisionedThroughputExceededException", Throttled),
    ("RequestLimitExceeded", Throttled),
    ("RequestThrottled", Throttled),
    ("RequestThrottledException", Throttled),
    ("SlowDown", Throttled),
    ("ThrottledException", Throttled),
    ("Throttling", Throttled),
    ("ThrottlingException", Throttled),
    ("TooManyRequestsException", Throttled),
    ("TransactionInProgressException", Throttled),
    ("IDPCommunicationError", Unavailable),
    ("InternalError", Unavailable),
    ("InternalFailure", Unavailable),
    ("InternalServerError", Unavailable),
    ("RequestTimeout", Unavailable),
    ("RequestTimeoutException", Unavailable),
    ("ServerInternal", Unavailable),
    ("ServiceUnavailable", Unavailable),
    ("ServiceUnavailableException", Unavailable),
    ("Unavailable", Unavailable),
    ("DryRunOperation", InvalidRequest),
    ("InvalidAction", InvalidRequest),
    ("InvalidInstanceID.Malformed", InvalidRequest),
    ("InvalidInstanceID.NotFound", InvalidRequest),
    ("InvalidParameter", InvalidRequest),
    ("InvalidParameterCombination", InvalidRequest),
    ("InvalidParameterValue", InvalidRequest),
    ("UnknownParameter", InvalidRequest),
    ("ValidationError", InvalidRequest),
];

/// Codes of credentials that were good once.
const AGED: [&str; 3] = ["ExpiredToken", "ExpiredTokenException", "RequestExpired"];
/// Codes of signatures that are refused, which is also said where their time is too far off.
const SIGNATURE: [&str; 2] = ["InvalidSignatureException", "SignatureDoesNotMatch"];
/// How far a clock may be off before AWS refuses signatures.
pub(super) const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(5);
/// Codes that a region gives which is not enabled for the account, to credentials that are good elsewhere.
const REGIONAL: [&str; 3] = ["AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException"];

/// What AWS's message goes on with behind the reason.
const WHAT_WAS_SIGNED: &str = "The Canonical String for this request";
/// Bytes of a message that are kept.
const LONGEST_MESSAGE: usize = 1000;

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Failure {
    pub fault: Fault,
    /// AWS's code, where an answer came that has one.
    pub code: Option<String>,
    /// How long AWS asks to wait.
    pub retry_after: Option<Duration>,
    /// AWS's own clock.
    pub date: Option<DateTime<Utc>>,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self { fault, code: None, retry_after: None, date: None }
    }
}

impl Failure {
    /// Of an operation of the SDK called `call`.
    pub(super) fn of<E>(call: &str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let meta = ProvideErrorMetadata::meta(error);
        let response = error.raw_response();
        let header = |name| response.and_then(|response| response.headers().get(name));
        let status = response.map(|response| response.status());
        let code = meta.code().map(str::to_owned);
        let kind = match (error, &code) {
            (SdkError::ServiceError(_), Some(code)) => kind_of_code(code, status.map(|status| status.as_u16())),
            // A body that the SDK could not read.
            (SdkError::ServiceError(_), None) => match status {
                Some(status) if status.is_success() => FaultKind::Unreadable,
                Some(status) => kind_of_status(status.as_u16()),
                None => Unavailable,
            },
            (SdkError::ResponseError(_), _) if chain(error).any(|cause| cause.is::<TooLarge>()) => InvalidRequest,
            (SdkError::ResponseError(_), _) => FaultKind::Unreadable,
            (SdkError::TimeoutError(_), _) => Unavailable,
            (SdkError::DispatchFailure(failure), _) if failure.is_io() || failure.is_timeout() => Unavailable,
            // Not sent for lack of credentials, or not answered.
            _ => kind_of_causes(error),
        };
        let request_id = meta.extra("aws_request_id").or_else(|| header("x-amzn-requestid"));
        let mut message = match (error, &code) {
            (_, Some(code)) => format!("{call}: {code}: {}", meta.message().unwrap_or("no message")),
            (SdkError::ServiceError(_), None) if kind != FaultKind::Unreadable => {
                format!("{call}: no code in the answer")
            }
            _ => format!("{call}: {}", in_words(error)),
        };
        // A wrong signature is told with what should have been signed, and the session's token is a part of that.
        if let Some(signed) = message.find(WHAT_WAS_SIGNED) {
            message.truncate(message[..signed].trim_end().len());
        }
        // A refusal may come with kilobytes of encoded policy.
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
        if let (None, Some(status)) = (&code, status) {
            message.push_str(&format!(" (HTTP status {})", status.as_u16()));
        }
        if let Some(id) = request_id {
            message.push_str(&format!(" (request {id})"));
        }
        let number = |name| header(name)?.trim().parse::<u64>().ok();
        let retry_after =
            number("x-amz-retry-after").map(Duration::from_millis).or(number("retry-after").map(Duration::from_secs));
        Self {
            fault: Fault::new(kind, message),
            code,
            retry_after,
            date: header("date").and_then(|date| DateTime::parse_from_rfc2822(date).ok()).map(|date| date.to_utc()),
        }
    }

    /// Whether new credentials may help.
    pub(super) fn is_aged(&self) -> bool {
        self.code.as_deref().is_some_and(|code| AGED.contains(&code))
    }

    /// The fault of this machine's clock, where it is off so far that it explains why the signature was refused.
    pub(super) fn of_the_clock(&self) -> Option<Fault> {
        let (date, ours) = (self.date?, Utc::now());
        let is_signature = self.is_aged() || self.code.as_deref().is_some_and(|code| SIGNATURE.contains(&code));
        (is_signature && (ours - date).abs() > CLOCK_TOLERANCE).then(|| {
            let (there, here) = (date.to_rfc3339(), ours.to_rfc3339_opts(SecondsFormat::Secs, true));
            Fault::new(Clock, format!("{}; it is {there} there, {here} here", self.fault.message))
        })
    }

    /// Whether it may only be that the region is not enabled.
    pub(super) fn may_be_regional(&self) -> bool {
        self.code.as_deref().is_some_and(|code| REGIONAL.contains(&code))
    }

    /// Whether the request was refused for this parameter.
    pub(super) fn refuses(&self, parameter: &str) -> bool {
        self.fault.kind == InvalidRequest && self.fault.message.contains(parameter)
    }

    /// The code as a label: one of a fixed list.
    pub(super) fn label(&self) -> &'static str {
        match &self.code {
            Some(code) => CODES.iter().find(|(known, _)| known == code).map_or("other", |(known, _)| known),
            None => self.fault.kind.name(),
        }
    }
}

/// What follows from an error of an operation called `call`.
pub(super) fn classify<E>(call: &str, error: SdkError<E, HttpResponse>) -> Fault
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    Failure::of(call, &error).fault
}

fn kind_of_code(code: &str, status: Option<u16>) -> FaultKind {
    let known = CODES.iter().find(|(known, _)| *known == code).map(|(_, kind)| *kind);
    known.unwrap_or_else(|| match status {
        _ if code.starts_with("Throttling") => Throttled,
        _ if code.starts_with("InvalidParameter") => InvalidRequest,
        Some(status) => kind_of_status(status),
        None => Unavailable,
    })
}

fn kind_of_status(status: u16) -> FaultKind {
    match status {
        401 | 403 => Denied,
        408 => Unavailable,
        429 => Throttled,
        400..=499 => InvalidRequest,
        _ => Unavailable,
    }
}

/// Of a request without an answer: what the sessions say of keys that could not be had; else it is about the network.
fn kind_of_causes(error: &(dyn Error + 'static)) -> FaultKind {
    chain(error).find_map(|cause| cause.downcast_ref::<Fault>()).map_or(Unavailable, |fault| fault.kind)
}

/// An error and its causes.
pub(super) fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// The error and its causes, each once. The SDK's own display adds the debug form of the response,
/// headers, body and all: there may be keys in it.
pub(super) fn in_words(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for more in chain(error).map(ToString::to_string) {
        if text.is_empty() {
            text = more;
        } else if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
    }
    text
}
