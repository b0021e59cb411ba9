//! What the process tells of itself.

pub mod health;
pub mod log;
pub mod metrics;
