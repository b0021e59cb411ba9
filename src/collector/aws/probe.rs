//! Asking EC2 whether it would do something, without having it done: for `rollcall check`.

use std::time::Duration;

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::describe_images::DescribeImagesOutput;
use aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput;
use aws_sdk_ec2::operation::describe_tags::DescribeTagsOutput;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use chrono::{DateTime, TimeDelta, Utc};

use super::answer::{Answer, Decoding};
use super::fault::Failure;
use super::second_look::filter;
use super::session::Identity;
use super::{Api, Ec2};
use crate::collector::fault::{Fault, FaultKind};
use crate::collector::source::Scope;
use crate::collector::xml::DecodeError;

/// How long a question may take, with what is tried again.
const WITHIN: Duration = Duration::from_secs(20);
/// EC2's "yes".
const WOULD_SUCCEED: &str = "DryRunOperation";
/// An endpoint that does not know dry runs does what it is asked: then it had better be little.
const FEW: i32 = 5;
/// No such image.
const NO_IMAGE: &str = "ami-00000000000000000";

/// A call that a sweep makes in a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Describe {
    Instances,
    Tags,
    Images,
}

impl Describe {
    /// As in policies.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "ec2:DescribeInstances" => Some(Self::Instances),
            "ec2:DescribeTags" => Some(Self::Tags),
            "ec2:DescribeImages" => Some(Self::Images),
            _ => None,
        }
    }
}

/// It is permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Permission {
    /// Whether EC2 did it, for not knowing dry runs.
    pub is_done: bool,
    /// How far EC2's clock is ahead of this machine's.
    pub ahead: Option<TimeDelta>,
}

impl Permission {
    fn new(is_done: bool, date: Option<DateTime<Utc>>) -> Self {
        Self { is_done, ahead: date.map(|date| date - Utc::now()) }
    }
}

impl Ec2 {
    /// Who the credentials of an account (`None`: the process's own) make us.
    pub(crate) async fn identity(&self, account: Option<&str>) -> Result<Identity, Fault> {
        within("GetCallerIdentity", self.sessions.identity(account)).await
    }

    /// Whether the action is permitted there.
    pub(crate) async fn dry_run(&self, scope: &Scope, action: Describe) -> Result<Permission, Fault> {
        self.api.dry_run(scope, action).await
    }
}

impl Api {
    async fn dry_run(&self, scope: &Scope, action: Describe) -> Result<Permission, Fault> {
        let (calls, deadline) = (&self.calls, self.calls.deadline_in(WITHIN / 2));
        let images = || vec![filter("image-id", &[NO_IMAGE.to_owned()])];
        match action {
            Describe::Instances => {
                let attempt = |client: aws_sdk_ec2::Client| async move {
                    let decoding = Decoding::new(nothing, || DescribeInstancesOutput::builder().build());
                    let request = client.describe_instances().dry_run(true).max_results(FEW).customize();
                    permission("DescribeInstances", &decoding, request.interceptor(decoding.clone()).send().await)
                };
                within("DescribeInstances", calls.call(scope, "DescribeInstances", deadline, attempt)).await
            }
            Describe::Tags => {
                let attempt = |client: aws_sdk_ec2::Client| async move {
                    let decoding = Decoding::new(nothing, || DescribeTagsOutput::builder().build());
                    let request = client.describe_tags().dry_run(true).max_results(FEW).customize();
                    permission("DescribeTags", &decoding, request.interceptor(decoding.clone()).send().await)
                };
                within("DescribeTags", calls.call(scope, "DescribeTags", deadline, attempt)).await
            }
            Describe::Images => {
                let attempt = |client: aws_sdk_ec2::Client| async move {
                    let decoding = Decoding::new(nothing, || DescribeImagesOutput::builder().build());
                    let request = client.describe_images().dry_run(true).set_filters(Some(images())).customize();
                    permission("DescribeImages", &decoding, request.interceptor(decoding.clone()).send().await)
                };
                within("DescribeImages", calls.call(scope, "DescribeImages", deadline, attempt)).await
            }
        }
    }
}

async fn within<T>(call: &str, asked: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let late = |_| Err(Fault::new(FaultKind::Unavailable, format!("{call}: no answer within {WITHIN:?}")));
    tokio::time::timeout(WITHIN, asked).await.unwrap_or_else(late)
}

/// Only that there is an answer matters.
fn nothing(_: &[u8]) -> Result<(), DecodeError> {
    Ok(())
}

fn permission<O, E>(
    call: &str,
    decoding: &Decoding<(), O>,
    sent: Result<O, SdkError<E, HttpResponse>>,
) -> Result<Permission, Failure>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match decoding.answer(call, sent) {
        Ok(Answer { date, .. }) => {
            let date = date.and_then(|date| DateTime::parse_from_rfc2822(&date).ok());
            Ok(Permission::new(true, date.map(|date| date.to_utc())))
        }
        Err(failure) if failure.code.as_deref() == Some(WOULD_SUCCEED) => Ok(Permission::new(false, failure.date)),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::aws::stand_in::{Reply, StandIn, scope};

    async fn after(reply: Reply) -> Result<bool, FaultKind> {
        let ec2 = StandIn::says([reply]).await;
        let answer = ec2.api.dry_run(&scope("r-1"), Describe::Instances).await;
        answer.map(|permission| permission.is_done).map_err(|fault| fault.kind)
    }

    #[tokio::test]
    async fn a_dry_run_that_would_succeed_is_an_error_that_means_yes() {
        assert_eq!(after(Reply::error(412, "DryRunOperation")).await, Ok(false));
        assert_eq!(after(Reply::error(403, "UnauthorizedOperation")).await, Err(FaultKind::Denied));
    }

    #[tokio::test]
    async fn an_endpoint_that_knows_no_dry_run_has_answered() {
        assert_eq!(after(Reply::page(&["i-1"], None)).await, Ok(true));
    }
}
