//! The independent clients in `tests/clients`: other people's libraries, none of our code.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::server;

/// Runs a client of `tests/clients`; its standard output.
///
/// # Panics
/// When it fails, with what it complained of.
pub fn client(script: &str, arguments: &[&str]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    let output = Command::new(server("PYTHON")).arg(path).args(arguments).output().unwrap();
    assert!(output.status.success(), "{script} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The JSON lines that a client prints.
pub fn lines(script: &str, arguments: &[&str]) -> Vec<Value> {
    client(script, arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
