//! Stage 2: raw records to change events, exactly once.
//!
//! A process runs N [`engine`]s, each on a thread of its own and a member of the consumer group; nothing is shared
//! between them but the bound of their memory ([`budget`]). [`decide`] is the pure middle, [`state`] and [`changelog`] are the memory, [`port`] is what the engine
//! needs of Kafka and [`kafka_port`] is Kafka.

pub mod bounds;
pub mod budget;
pub mod changelog;
pub mod dead_letter;
pub mod decide;
pub mod engine;
pub mod event;
pub mod kafka_port;
pub mod observer;
pub mod port;
pub mod state;
pub mod tally;
