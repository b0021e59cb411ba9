//! One sweep of one scope, and its verdict: "no answer" is not "an empty answer".

use std::time::Instant;

use uuid::Uuid;

use super::fault::Fault;
use super::publisher::{Labels, PublishError, Publisher};
use super::source::{Pages, Scope};

/// How a sweep ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every page was received, and every instance published.
    Complete,
    /// Not so; nothing may be concluded from what is missing.
    Incomplete(Cause),
}

/// Why a sweep is incomplete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The source did not answer, or not to the end.
    #[error(transparent)]
    Source(#[from] Fault),
    /// Kafka did not take it.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// What a sweep did.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// Header `sweep-id` of its records; later sweeps have greater IDs.
    pub id: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Pages received.
    pub pages: usize,
    /// Instances published.
    pub instances: usize,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// Lists a scope and publishes what is listed, page by page.
pub async fn sweep(pages: &mut dyn Pages, scope: &Scope, labels: &Labels, publisher: &Publisher) -> Sweep {
    let began = Instant::now();
    let id = Uuid::now_v7().to_string();
    let mut sweep = Sweep { id, verdict: Verdict::Complete, pages: 0, instances: 0, seconds: 0.0 };
    if let Err(cause) = publish_all(pages, scope, labels, publisher, &mut sweep).await {
        sweep.verdict = Verdict::Incomplete(cause);
    }
    sweep.seconds = began.elapsed().as_secs_f64();
    sweep
}

async fn publish_all(
    pages: &mut dyn Pages,
    scope: &Scope,
    labels: &Labels,
    publisher: &Publisher,
    sweep: &mut Sweep,
) -> Result<(), Cause> {
    while let Some(page) = pages.next().await? {
        let instances = page.instances.len();
        sweep.pages += 1;
        publisher.publish(scope, &sweep.id, labels, page).await?;
        sweep.instances += instances;
    }
    Ok(())
}
