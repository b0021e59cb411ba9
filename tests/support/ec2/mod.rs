//! EC2 for the collector's tests: moto behind a proxy that plays faults, and a fast server for large fleets.
//!
//! ```ignore
//! let proxy = FaultProxy::start(&server("EC2"));
//! let rule = proxy.when(on("DescribeInstances").region("eu-west-1").page(2), Fault::unavailable());
//! // … three sweeps against proxy.url() …
//! proxy.lift(rule);
//! ```

// What the scenarios need, each a part of it.
#![allow(dead_code, unused_imports)]

mod call;
mod credentials;
mod fast;
mod fault;
mod fleet;
mod life;
mod proxy;
mod wire;
mod xml;

pub use call::Call;
pub use credentials::{CredentialsServer, SERVED_SECRET};
pub use fast::{FastEc2, Listing};
pub use fault::{Fault, When, on, on_any};
pub use fleet::{Fields, FleetSpec, Machine, State};
pub use life::Life;
pub use proxy::{FaultProxy, RuleId};
