//! The tests that go through the front door: one binary, so that it links once.

mod cli;
mod collector;
mod dead_letters;
mod demo;
mod docs;
mod events;
mod exactly_once;
mod facts;
mod harness;
mod import;
mod mapping;
mod ocsf;
mod other_events;
#[cfg(feature = "aws")]
mod pipeline;
mod profiles;
mod schemas;
mod support;
