//! The status page: who sees what of it, and how it looks in a browser.

mod access;
mod look;
mod served;
