//! Takes the roll of an EC2 fleet: every device, every change, once.
//!
//! ```text
//! EC2 API ──pages──▶ collector ──▶ ec2.instances.raw ──▶ mapper ──▶ ocsf.device.events   (changes)
//!                                  key: instance ID       │ ▲  └──▶ ec2.instances.dlq    (rejected)
//!                                                         ▼ │
//!                                                  ocsf.device.state (compacted)
//! ```
//!
//! **Delivery.** The collector publishes every instance at every sweep, each page in a transaction. The mapper emits an
//! event only when a device appeared, changed or went away; events, device states and offsets are one transaction, so a
//! `read_committed` consumer sees each change exactly once, whatever is killed when. [`mapper::engine`] tells how.
//!
//! # Layout
//! - [`record`]: the raw record, the contract between the stages
//! - [`collector`]: stage 1, from sources to raw records
//! - [`device`], [`profile`]: from raw record to event; pure
//! - [`mapper`]: stage 2, from raw records to change events
//! - [`kafka`], [`registry`], [`avro`]: the outside world, and the form of what is kept there
//! - [`replay`]: raw records mapped again, by the mapper's own loop
//! - [`stage`]: starting and ending the stages; [`render`], [`check`], [`sweeps`], [`tail`], [`policy`], [`schema`] and [`demo`]:
//!   a command each
//! - [`cli`], [`config`]: what is asked for
//! - [`admin`], [`status`], [`telemetry`]: what is told; [`inert`]: so that a terminal only shows it

#![forbid(unsafe_code)]

pub mod admin;
pub mod avro;
pub mod check;
pub mod cli;
pub mod collector;
pub mod config;
pub mod demo;
pub mod device;
pub mod inert;
pub mod kafka;
pub mod mapper;
pub mod policy;
pub mod profile;
pub mod record;
pub mod registry;
pub mod render;
pub mod replay;
pub mod schema;
pub mod stage;
pub mod status;
pub mod sweeps;
pub mod tail;
pub mod telemetry;
