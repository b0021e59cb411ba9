//! Asking about particular instances: by filter, since one unknown ID among the parameters fails a call altogether.

use aws_sdk_ec2::operation::describe_tags::DescribeTagsOutput;
use aws_sdk_ec2::types::Filter;
use chrono::Utc;

use super::answer::Decoding;
use super::fault::Failure;
use super::pages::{Tokens, Which};
use super::{Api, observed_at};
use crate::collector::fault::Fault;
use crate::collector::source::{BoxFuture, Page, Scope, SecondLook, TagsById};
use crate::collector::xml::{self, DescribeTagsPage};

#[cfg(test)]
mod tests;

/// Values that a filter takes.
pub(super) const FILTER_VALUES: usize = 200;
/// Tags a page of DescribeTags.
const TAGS: i32 = 1000;
const CALL: &str = "DescribeTags";

/// A filter of EC2.
pub(super) fn filter(name: &str, values: &[String]) -> Filter {
    Filter::builder().name(name).set_values(Some(values.to_vec())).build()
}

impl SecondLook for Api {
    fn instances<'a>(&'a self, scope: &'a Scope, ids: &'a [String]) -> BoxFuture<'a, Result<Page, Fault>> {
        Box::pin(async move {
            let deadline = self.calls.deadline();
            // The page is as old as its oldest part.
            let mut page = Page { observed_at: Utc::now(), instances: Vec::new() };
            for ids in ids.chunks(FILTER_VALUES) {
                let mut tokens = Tokens::new();
                while let Some(token) = tokens.next() {
                    let answer = self.describe_instances(scope, deadline, Which::Ids(ids), token).await?;
                    page.observed_at = observed_at(answer.date.as_deref(), page.observed_at);
                    tokens.follow("DescribeInstances", answer.content.next_token)?;
                    let mut instances = answer.content.instances;
                    if let Some(images) = &self.images {
                        images.add(self, scope, &mut instances).await;
                    }
                    page.instances.extend(instances);
                }
            }
            Ok(page)
        })
    }

    fn tags<'a>(&'a self, scope: &'a Scope, ids: &'a [String]) -> BoxFuture<'a, Result<TagsById, Fault>> {
        Box::pin(async move {
            let deadline = self.calls.deadline();
            let mut tags = TagsById::new();
            for ids in ids.chunks(FILTER_VALUES) {
                let mut tokens = Tokens::new();
                while let Some(token) = tokens.next() {
                    let attempt = |client| describe_tags(client, ids.to_vec(), token.map(str::to_owned));
                    let page = self.calls.call(scope, CALL, deadline, attempt).await?;
                    tokens.follow(CALL, page.next_token)?;
                    for (id, tag) in page.tags {
                        tags.entry(id).or_default().push(tag);
                    }
                }
            }
            Ok(tags)
        })
    }

    fn identity<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(async move { Ok(self.calls.identity(scope).await?.arn) })
    }

    fn is_filtered(&self) -> bool {
        self.listing.is_filtered()
    }
}

async fn describe_tags(
    client: aws_sdk_ec2::Client,
    ids: Vec<String>,
    token: Option<String>,
) -> Result<DescribeTagsPage, Failure> {
    // Decoded here like instances, since what is cut must not pass for instances without tags.
    let decoding = Decoding::new(xml::decode_tags, || DescribeTagsOutput::builder().build());
    let request = client
        .describe_tags()
        .filters(filter("resource-id", &ids))
        .filters(filter("resource-type", &["instance".to_owned()]))
        .max_results(TAGS)
        .set_next_token(token);
    let sent = request.customize().interceptor(decoding.clone()).send().await;
    Ok(decoding.answer(CALL, sent)?.content)
}
