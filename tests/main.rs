//! The tests that go through the front door: one binary, so that it links once.

mod exactly_once;
mod mapping;
mod support;
