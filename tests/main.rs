//! The tests that go through the front door: one binary, so that it links once.

#[cfg(feature = "aws")]
mod chaos;
mod cli;
mod collector;
mod commits;
mod dead_letters;
mod demo;
mod deploy;
mod docs;
mod events;
mod exactly_once;
mod facts;
mod fuzz;
mod harness;
mod hostile;
mod import;
mod kafka_security;
mod lifecycle;
#[cfg(feature = "aws")]
mod limits;
mod mapping;
mod metrics;
mod ocsf;
mod other_events;
mod outages;
#[cfg(feature = "aws")]
mod pipeline;
mod profiles;
mod rebalance;
mod registry;
mod replay;
mod schemas;
#[cfg(feature = "aws")]
mod secrets;
mod simulation;
mod state_topic;
mod status;
mod supply;
mod support;
mod tail;
