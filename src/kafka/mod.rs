//! Kafka clients: their settings, membership in a group, a compacted topic as memory, transactions whose errors become a
//! few outcomes, and topics.

pub mod advice;
pub mod ask;
pub mod auth;
pub mod client;
mod membership;
mod notices;
mod onlooker;
mod range;
mod reasons;
pub mod statistics;
mod table;
pub mod topics;
mod transaction;

pub use membership::{Committed, Membership, Rebalance, consumer_error};
pub use notices::Notices;
pub use onlooker::Onlooker;
pub use range::{Next, RangeReader};
pub use reasons::Reasons;
pub use table::{Restored, TableReader, TakeRecord};
pub use transaction::{Header, Message, Setback, TransactionalProducer};

/// The client cannot go on; its owner ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fatal(pub String);

/// Kafka did not answer; the same call may succeed later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

impl Unavailable {
    /// Whether it did answer: that this is not allowed. It will say so until somebody allows it.
    pub fn is_denied(&self) -> bool {
        // In librdkafka's words.
        self.0.contains(" authorization failed")
    }
}
