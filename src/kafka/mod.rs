//! Kafka clients: their settings, transactions whose errors become a few outcomes, and topics.

pub mod client;
mod transaction;

pub use transaction::{Message, Setback, TransactionalProducer};
