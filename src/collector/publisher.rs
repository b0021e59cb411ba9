//! The way to Kafka: what sweeps hand over, and what they are told of the scopes that are theirs.
//!
//! All scopes of a process share one transactional producer, on a thread of its own ([`super::press`]): pages that wait
//! for it at the same time share a transaction.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::ledger::{Acceptance, Ledger};
use crate::kafka::Header;

/// Publications that may wait for a transaction, whichever scope they are of.
const QUEUE: usize = 16;

/// Headers that many records share.
pub type Headers = Arc<[Header]>;

/// Which topic a record goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Raw records, partitioned by key.
    Raw,
    /// The collector's memory: the partition of the lease.
    Sweeps,
    /// What has no place on the raw topic.
    DeadLetters,
}

/// A record on its way.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Outgoing {
    pub destination: Destination,
    pub key: Option<String>,
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
    /// Kafka's, milliseconds since the epoch; `None` is now.
    pub timestamp: Option<i64>,
}

/// The right to write for the scopes of a partition of `ec2.sweeps`, until it is given up. The group's own fencing knows
/// members, not partitions; the epoch tells an old right from a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Partition of `ec2.sweeps`.
    pub partition: i32,
    /// Counts up with each partition that this process is given.
    pub epoch: u64,
}

/// What becomes of partitions of `ec2.sweeps`, and of what others write there.
#[derive(Debug)]
pub enum Ownership {
    /// A partition is ours, and this is its memory.
    Gained {
        /// The right to write.
        lease: Lease,
        /// By scope.
        ledgers: HashMap<String, Ledger>,
    },
    /// It is no longer.
    Lost(Lease),
    /// The group has told us for the first time what is ours, be it nothing; all of it is restored.
    Settled,
    /// An operator has accepted, or an acceptance was used.
    Acceptance {
        /// `source/account/region`.
        scope: String,
        /// `None` once it was used.
        acceptance: Option<Acceptance>,
    },
}

/// The records were not published, and will not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Somebody else sweeps the scope now, or the process stops.
    #[error("the scope is no longer this collector's")]
    NotOwner,
    /// Kafka did not take it.
    #[error("not published: {0}")]
    Kafka(String),
}

/// Records that are committed together.
pub(super) struct Publication {
    pub(super) lease: Lease,
    pub(super) records: Vec<Outgoing>,
    pub(super) done: oneshot::Sender<Result<(), PublishError>>,
}

/// Hands records to the publishing thread.
#[derive(Clone)]
pub struct Publisher {
    queue: mpsc::Sender<Publication>,
}

impl Publisher {
    /// A publisher, and what it hands over.
    pub(super) fn new() -> (Self, mpsc::Receiver<Publication>) {
        let (queue, publications) = mpsc::channel(QUEUE);
        (Self { queue }, publications)
    }

    /// Publishes records in one transaction, and returns when it is committed. Whoever stops waiting must take the
    /// outcome for unknown.
    ///
    /// # Errors
    /// When the lease is no longer good, or the process stops first.
    pub async fn publish(&self, lease: Lease, records: Vec<Outgoing>) -> Result<(), PublishError> {
        let (done, outcome) = oneshot::channel();
        let publication = Publication { lease, records, done };
        self.queue.send(publication).await.map_err(|_| PublishError::NotOwner)?;
        outcome.await.unwrap_or(Err(PublishError::NotOwner))
    }
}
