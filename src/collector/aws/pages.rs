//! DescribeInstances, page by page.
//!
//! The SDK's paginator takes a repeated token for the end, which would be a sweep that is short without saying so. Here
//! a token that was seen before in this sweep is a fault, and only an answer without a token is the end.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput;
use aws_sdk_ec2::types::Filter;
use chrono::Utc;

use super::Api;
use super::answer::{Answer, Decoding};
use super::call::Deadline;
use super::fault::Failure;
use super::{observed_at, second_look};
use crate::collector::fault::{Fault, FaultKind};
use crate::collector::source::{BoxFuture, Page, Pages, Scope};
use crate::collector::xml::{self, DescribeInstancesPage};
use crate::config::AwsSource;
use crate::record::canonical::Instance;

#[cfg(test)]
mod tests;

const CALL: &str = "DescribeInstances";
/// The parameter that also lists what AWS services manage in the account, where the account hides it.
const MANAGED: &str = "IncludeManagedResources";

/// How a source lists.
pub(super) struct Listing {
    page_size: i32,
    filters: BTreeMap<String, Vec<String>>,
    /// Until the endpoint refuses the parameter.
    asks_for_managed: AtomicBool,
}

/// What is listed.
#[derive(Clone, Copy)]
pub(super) enum Which<'a> {
    /// Whatever the source's filters let through.
    Filtered,
    /// These, whatever the filters say.
    Ids(&'a [String]),
}

impl Listing {
    pub(super) fn new(aws: &AwsSource) -> Self {
        Self { page_size: aws.page_size.0, filters: aws.filters.clone(), asks_for_managed: AtomicBool::new(true) }
    }

    pub(super) fn is_filtered(&self) -> bool {
        !self.filters.is_empty()
    }

    fn filters(&self, which: Which<'_>) -> Option<Vec<Filter>> {
        match which {
            Which::Ids(ids) => Some(vec![second_look::filter("instance-id", ids)]),
            Which::Filtered if self.filters.is_empty() => None,
            Which::Filtered => {
                Some(self.filters.iter().map(|(name, values)| second_look::filter(name, values)).collect())
            }
        }
    }
}

impl Api {
    /// One page.
    pub(super) async fn describe_instances(
        &self,
        scope: &Scope,
        deadline: Deadline,
        which: Which<'_>,
        token: Option<&str>,
    ) -> Result<Answer<DescribeInstancesPage<Instance>>, Fault> {
        let listing = &self.listing;
        let attempt = |client: aws_sdk_ec2::Client| {
            let request = client
                .describe_instances()
                .max_results(listing.page_size)
                .set_filters(listing.filters(which))
                .set_next_token(token.map(str::to_owned));
            async move {
                let asks = listing.asks_for_managed.load(Ordering::Relaxed);
                let answer = send(request.clone().set_include_managed_resources(asks.then_some(true))).await;
                match answer {
                    Err(refused) if asks && refused.refuses(MANAGED) => {
                        if listing.asks_for_managed.swap(false, Ordering::Relaxed) {
                            let error = &refused.fault;
                            tracing::warn!(%scope, %error, "the endpoint does not know {MANAGED}: it is left out now");
                        }
                        send(request).await
                    }
                    answer => answer,
                }
            }
        };
        let answer = self.calls.call(scope, CALL, deadline, attempt).await?;
        check_owner(scope, &answer.content.instances)?;
        Ok(answer)
    }
}

/// An answer about another account is none about this one: the credentials were changed behind our back, and all that is
/// known of the scope would look gone.
fn check_owner(scope: &Scope, instances: &[Instance]) -> Result<(), Fault> {
    let Some(account) = &scope.account else { return Ok(()) };
    let stranger = instances.iter().find_map(|instance| instance.owner.as_deref().filter(|owner| owner != account));
    match stranger {
        None => Ok(()),
        Some(owner) => {
            let message = format!(
                "{CALL}: asked for account {account}, the answer is about {owner}: the credentials lead elsewhere"
            );
            Err(Fault::new(FaultKind::Credentials, message))
        }
    }
}

type Request = aws_sdk_ec2::operation::describe_instances::builders::DescribeInstancesFluentBuilder;

async fn send(request: Request) -> Result<Answer<DescribeInstancesPage<Instance>>, Failure> {
    let decoding = Decoding::new(xml::decode_raw, || DescribeInstancesOutput::builder().build());
    let sent = request.customize().interceptor(decoding.clone()).send().await;
    decoding.answer(CALL, sent)
}

/// Which page is next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    First,
    Token(String),
    None,
}

/// Follows the tokens of one listing.
pub(super) struct Tokens {
    next: Next,
    /// Every token of this listing: one a page.
    seen: HashSet<String>,
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self { next: Next::First, seen: HashSet::new() }
    }

    /// The token to ask with, which is none for the first page; `None` after the last one.
    pub(super) fn next(&self) -> Option<Option<&str>> {
        match &self.next {
            Next::First => Some(None),
            Next::Token(token) => Some(Some(token)),
            Next::None => None,
        }
    }

    /// Notes the token that an answer had.
    pub(super) fn follow(&mut self, call: &str, token: Option<String>) -> Result<(), Fault> {
        let Some(token) = token else {
            self.next = Next::None;
            return Ok(());
        };
        if !self.seen.insert(token.clone()) {
            let page = self.seen.len() + 1;
            let message = format!("{call}: the answer for page {page} names a token that was used before as the next");
            return Err(Fault::new(FaultKind::RepeatedToken, message));
        }
        self.next = Next::Token(token);
        Ok(())
    }
}

/// The pages of one sweep.
pub(super) struct Ec2Pages<'a> {
    api: &'a Api,
    scope: Scope,
    /// From the first call on.
    deadline: Option<Deadline>,
    tokens: Tokens,
}

impl<'a> Ec2Pages<'a> {
    pub(super) fn new(api: &'a Api, scope: &Scope) -> Self {
        Self { api, scope: scope.clone(), deadline: None, tokens: Tokens::new() }
    }
}

impl Pages for Ec2Pages<'_> {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Page>, Fault>> {
        Box::pin(async {
            let Some(token) = self.tokens.next() else { return Ok(None) };
            let deadline = *self.deadline.get_or_insert_with(|| self.api.calls.deadline());
            let answer = self.api.describe_instances(&self.scope, deadline, Which::Filtered, token).await?;
            self.tokens.follow(CALL, answer.content.next_token)?;
            let mut instances = answer.content.instances;
            if let Some(images) = &self.api.images {
                images.add(self.api, &self.scope, &mut instances).await;
            }
            let observed_at = observed_at(answer.date.as_deref(), Utc::now());
            Ok(Some(Page { observed_at, instances }))
        })
    }
}
