//! Name and owner of the image that an instance was started from, which DescribeInstances does not tell.
//!
//! An addition that may be lacking: whatever goes wrong here, the page is published without it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_ec2::operation::describe_images::DescribeImagesOutput;
use serde_json::{Map, Value};

use super::Api;
use super::answer::Decoding;
use super::fault::Failure;
use super::second_look::{FILTER_VALUES, filter};
use crate::collector::fault::Fault;
use crate::collector::source::Scope;
use crate::collector::xml;
use crate::record::canonical::Instance;

#[cfg(test)]
mod tests;

const CALL: &str = "DescribeImages";
/// The member that is added.
const MEMBER: &str = "Image";
/// Images remembered.
const CAPACITY: usize = 10_000;
/// How long what is known of an image is believed; its name never changes, but it may come to be shared.
const FRESH_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long a page waits for its images.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two warnings of a scope.
const WARN_EVERY: Duration = Duration::from_secs(3600);

/// An image in a region, as an account sees it.
type Key = (Option<String>, Option<String>, String);

/// What is known of images.
#[derive(Default)]
pub(super) struct Images {
    cache: Mutex<HashMap<Key, Entry>>,
    warned: Mutex<HashMap<Scope, Instant>>,
}

struct Entry {
    at: Instant,
    /// `None`: deregistered, or not shared with the account.
    image: Option<Map<String, Value>>,
}

impl Images {
    /// Adds the member to those instances whose image is known.
    pub(super) async fn add(&self, api: &Api, scope: &Scope, instances: &mut [Instance]) {
        let mut opened: Vec<_> = instances.iter().map(|instance| instance.to_map().unwrap_or_default()).collect();
        let ids: BTreeSet<String> = opened.iter().filter_map(image_id).map(str::to_owned).collect();
        let unknown = self.unknown(scope, ids, api.calls.now());
        let deadline = api.calls.deadline_in(PATIENCE);
        for ids in unknown.chunks(FILTER_VALUES) {
            let attempt = |client| describe_images(client, ids.to_vec());
            match api.calls.call(scope, CALL, deadline, attempt).await {
                Ok(found) => self.remember(scope, ids, found, api.calls.now()),
                Err(fault) => {
                    self.warn(scope, &fault, api.calls.now());
                    break;
                }
            }
        }
        // What is outdated and could not be asked anew is still better than none: the record would go back and forth.
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        for (instance, members) in instances.iter_mut().zip(&mut opened) {
            let known = image_id(members).and_then(|id| cache.get(&key(scope, id)));
            if let Some(image) = known.and_then(|entry| entry.image.clone()) {
                members.entry(MEMBER).or_insert(Value::Object(image));
                *instance = Instance::of_map(members);
            }
        }
    }

    fn unknown(&self, scope: &Scope, ids: BTreeSet<String>, now: Instant) -> Vec<String> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |entry: &Entry| now.saturating_duration_since(entry.at) < FRESH_FOR;
        ids.into_iter().filter(|id| !cache.get(&key(scope, id)).is_some_and(is_fresh)).collect()
    }

    fn remember(&self, scope: &Scope, ids: &[String], mut found: BTreeMap<String, Map<String, Value>>, now: Instant) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() + ids.len() > CAPACITY {
            drop_older_half(&mut cache);
        }
        for id in ids {
            cache.insert(key(scope, id), Entry { at: now, image: found.remove(id) });
        }
    }

    fn warn(&self, scope: &Scope, error: &Fault, now: Instant) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.get(scope).is_some_and(|at| now.saturating_duration_since(*at) < WARN_EVERY) {
            return;
        }
        warned.insert(scope.clone(), now);
        tracing::warn!(%scope, %error, remedy = error.kind.remedy(), "instances are published without their images");
    }
}

fn drop_older_half(cache: &mut HashMap<Key, Entry>) {
    let mut times: Vec<Instant> = cache.values().map(|entry| entry.at).collect();
    times.sort_unstable();
    if let Some(middle) = times.get(times.len() / 2) {
        cache.retain(|_, entry| entry.at > *middle);
    }
}

fn key(scope: &Scope, id: &str) -> Key {
    (scope.account.clone(), scope.region.clone(), id.to_owned())
}

fn image_id(instance: &Map<String, Value>) -> Option<&str> {
    instance.get("ImageId").and_then(Value::as_str).filter(|id| !id.is_empty())
}

async fn describe_images(
    client: aws_sdk_ec2::Client,
    ids: Vec<String>,
) -> Result<BTreeMap<String, Map<String, Value>>, Failure> {
    // Decoded here like instances, since what is cut must not pass for images that are gone.
    let decoding = Decoding::new(xml::decode_images, || DescribeImagesOutput::builder().build());
    // Others' deprecated images, and disabled ones, are left out unless they are asked for.
    let request =
        client.describe_images().filters(filter("image-id", &ids)).include_deprecated(true).include_disabled(true);
    let sent = request.customize().interceptor(decoding.clone()).send().await;
    let images = decoding.answer(CALL, sent)?.content;
    let images = images.into_iter().filter_map(|image| Some((image.get("ImageId")?.as_str()?.to_owned(), image)));
    Ok(images.collect())
}
