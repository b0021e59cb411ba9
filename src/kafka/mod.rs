//! Kafka clients: their settings, transactions whose errors become a few outcomes, and topics.

pub mod client;
pub mod topics;
mod transaction;

pub use transaction::{Message, Setback, TransactionalProducer};
