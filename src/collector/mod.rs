//! Stage 1: what the sources list, published as raw records.
//!
//! ```text
//!              ┌─ second look ─┐
//!  source ──pages──▶ sweep ──records, memory──▶ press ──transaction──▶ raw topic, ec2.sweeps
//!                      ▲                          │
//!                      └── ledgers of what is ours┘
//! ```
//!
//! Replicas share the scopes: a scope hashes to a partition of `ec2.sweeps`, and whoever owns the partition sweeps it.
//! [`roster`] brings together what is to be swept and what is ours; a [`scope`] is a task, and fails on its own; all
//! share one [`press`].

pub mod absence;
#[cfg(feature = "aws")]
pub mod aws;
pub mod fault;
pub mod file;
pub mod health;
pub mod ledger;
pub mod press;
pub mod publisher;
pub mod raw;
pub mod roster;
pub mod rules;
pub mod schedule;
pub mod scope;
pub mod simulated;
pub mod source;
pub mod sweep;
pub mod xml;

use ledger::Verdict;

/// When sweeping ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// After so many sweeps of each scope that is ours.
    Times(u32),
    /// When asked to stop.
    Forever,
}

/// What came of a stage that ended by itself.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Sweeps that were complete.
    pub complete: usize,
    /// Sweeps, or whole sources, that were not.
    pub incomplete: usize,
}

impl Outcome {
    fn and(self, other: Self) -> Self {
        Self { complete: self.complete + other.complete, incomplete: self.incomplete + other.incomplete }
    }

    fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Complete => Self { complete: 1, incomplete: 0 },
            Verdict::Sweeping | Verdict::Incomplete | Verdict::Held => Self { complete: 0, incomplete: 1 },
        }
    }
}
