//! Each error of EC2 and STS that is known to occur, and who has to act.

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::error::ErrorMetadata;
use aws_sdk_ec2::operation::describe_instances::DescribeInstancesError;
use aws_smithy_types::body::SdkBody;

use super::*;
use crate::collector::fault::Class;

fn of(status: u16, code: &str) -> Failure {
    let meta = ErrorMetadata::builder().code(code).message("no").custom("aws_request_id", "r-1").build();
    let response = HttpResponse::new(status.try_into().expect("a status"), SdkBody::empty());
    Failure::of("Call", &SdkError::service_error(DescribeInstancesError::generic(meta), response))
}

#[test]
fn every_code_is_of_the_kind_that_its_remedy_is_for() {
    let cases = [
        (403, "UnauthorizedOperation", Denied),
        (403, "AccessDenied", Denied),
        (400, "AccessDeniedException", Denied),
        (401, "AuthFailure", Credentials),
        (403, "InvalidClientTokenId", Credentials),
        (403, "SignatureDoesNotMatch", Credentials),
        (400, "UnrecognizedClientException", Credentials),
        (403, "MissingAuthenticationToken", Credentials),
        (400, "RequestExpired", Credentials),
        (400, "ExpiredToken", Credentials),
        (403, "ExpiredTokenException", Credentials),
        (400, "OptInRequired", AccountRetired),
        (400, "PendingVerification", AccountRetired),
        (403, "Blocked", AccountRetired),
        (403, "SubscriptionRequiredException", AccountRetired),
        (403, "RegionDisabledException", RegionDisabled),
        (400, "IDPCommunicationError", Unavailable),
        (400, "InvalidIdentityToken", Credentials),
        (403, "IDPRejectedClaim", Credentials),
        (503, "RequestLimitExceeded", Throttled),
        (400, "Throttling", Throttled),
        (400, "ThrottlingException", Throttled),
        (400, "ThrottlingOfAnotherName", Throttled),
        (503, "EC2ThrottledException", Throttled),
        (500, "InternalError", Unavailable),
        (500, "InternalFailure", Unavailable),
        (503, "Unavailable", Unavailable),
        (503, "ServiceUnavailable", Unavailable),
        (502, "BadGatewayOfAProxy", Unavailable),
        (504, "GatewayTimeoutOfAProxy", Unavailable),
        (400, "InvalidInstanceID.NotFound", InvalidRequest),
        (400, "InvalidParameterValue", InvalidRequest),
        (400, "InvalidParameterCombination", InvalidRequest),
        (400, "InvalidParameterOfAnotherName", InvalidRequest),
        (400, "UnknownParameter", InvalidRequest),
        (400, "InvalidAction", InvalidRequest),
        (412, "DryRunOperation", InvalidRequest),
        (400, "AWSOrganizationsNotInUseException", AccountRetired),
        (400, "RequestTimeTooSkewed", Clock),
    ];
    for (status, code, kind) in cases {
        assert_eq!(of(status, code).fault.kind, kind, "{code}");
    }
}

#[test]
fn every_code_that_the_sdk_takes_for_a_throttle_is_one() {
    for code in aws_runtime_codes() {
        assert_eq!(of(400, code).fault.kind, Throttled, "{code}");
    }
}

/// As of aws-runtime 1.10.
fn aws_runtime_codes() -> [&'static str; 14] {
    [
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottledException",
        "TooManyRequestsException",
        "ProvisionedThroughputExceededException",
        "TransactionInProgressException",
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
        "LimitExceededException",
        "RequestThrottled",
        "SlowDown",
        "PriorRequestNotComplete",
        "EC2ThrottledException",
    ]
}

#[test]
fn no_code_is_listed_twice() {
    let mut codes = CODES.map(|(code, _)| code);
    codes.sort_unstable();
    assert!(codes.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn what_is_tried_again_is_of_the_generic_class_and_the_rest_is_not() {
    for (code, kind) in CODES {
        let is_transient = matches!(kind, Throttled | Unavailable);
        assert_eq!(of(400, code).fault.class() == Class::ThirdPartyGeneric, is_transient, "{code}");
    }
}

#[test]
fn the_message_has_call_code_text_and_request() {
    assert_eq!(of(403, "AccessDenied").fault.message, "Call: AccessDenied: no (request r-1)");
}

#[test]
fn a_long_message_is_cut_but_not_the_request() {
    let meta = ErrorMetadata::builder().code("AccessDenied").message("é".repeat(5000)).custom("aws_request_id", "r-1");
    let response = HttpResponse::new(403.try_into().expect("a status"), SdkBody::empty());
    let error = SdkError::service_error(DescribeInstancesError::generic(meta.build()), response);
    let message = Failure::of("Call", &error).fault.message;
    assert!(message.len() < LONGEST_MESSAGE + 30 && message.ends_with("é (request r-1)"), "{message}");
}

/// A request that was not sent, for such a reason.
fn not_sent(reason: impl Into<aws_sdk_ec2::error::BoxError>) -> FaultKind {
    let error: SdkError<DescribeInstancesError, HttpResponse> = SdkError::construction_failure(reason);
    Failure::of("Call", &error).fault.kind
}

#[test]
fn of_credentials_that_cannot_be_had_the_sessions_have_said_why() {
    for kind in [Credentials, Denied, Throttled, Unavailable] {
        assert_eq!(not_sent(CredentialsError::provider_error(Fault::new(kind, "no"))), kind);
    }
    assert_eq!(not_sent("connection closed"), Unavailable);
}
