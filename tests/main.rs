//! The tests that go through the front door: one binary, so that it links once.

mod mapping;
