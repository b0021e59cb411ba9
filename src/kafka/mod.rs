//! Kafka clients: their settings, membership in a group, a compacted topic as memory, transactions whose errors become a
//! few outcomes, and topics.

pub mod client;
mod membership;
mod notices;
mod table;
pub mod topics;
mod transaction;

pub use membership::{Membership, Rebalance};
pub use notices::Notices;
pub use table::{Restored, TableReader, TakeRecord};
pub use transaction::{Message, Setback, TransactionalProducer};

/// The client cannot go on; its owner ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fatal(pub String);

/// Kafka did not answer; the same call may succeed later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);
