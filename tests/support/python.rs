//! The independent clients in `tests/clients`: other people's libraries, none of our code.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::server;

/// Runs a client of `tests/clients`; its standard output.
///
/// # Panics
/// When it fails, with what it complained of.
pub fn client(script: &str, arguments: &[&str]) -> String {
    let output = run(script, arguments);
    assert!(output.status.success(), "{script} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a client that is refused; what it complained of.
///
/// # Panics
/// When it succeeds.
pub fn complaint(script: &str, arguments: &[&str]) -> String {
    let output = run(script, arguments);
    assert!(!output.status.success(), "{script} was to fail");
    String::from_utf8(output.stderr).unwrap()
}

fn run(script: &str, arguments: &[&str]) -> Output {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    Command::new(server("PYTHON")).arg(path).args(arguments).output().unwrap()
}

/// A folder with the certificate of a CA and one that it signed, with its key: see `make_ca.py`.
pub fn authority(arguments: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    client("make_ca.py", &[&["--dir", folder.path().to_str().unwrap()], arguments].concat());
    folder
}

/// The JSON lines that a client prints.
pub fn lines(script: &str, arguments: &[&str]) -> Vec<Value> {
    client(script, arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
