//! stub
pub mod config;
pub mod device;
pub mod kafka;
pub mod mapper;
pub mod profile;
pub mod record;
pub mod telemetry;
