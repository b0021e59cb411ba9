//! What the program is built from: licences and origins of all crates, as `deny.toml` allows them.
//!
//! `cargo deny` does more (`./dev deny`) and takes minutes to build; what can be told from cargo's own words is told here.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::process::Command;
use std::str::SplitWhitespace;

use serde_json::Value;

/// Crates of this repository.
const OURS: [&str; 2] = ["kafka-token", "rollcall"];
/// Crates that only fuzzing needs.
const OF_FUZZING: [&str; 3] = ["arbitrary", "libfuzzer-sys", "rollcall-fuzz"];

type Words<'a> = Peekable<SplitWhitespace<'a>>;

/// Every crate that goes into the program or its tests on Linux, with all features.
fn crates() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--all-features"])
        .args(["--filter-platform=x86_64-unknown-linux-gnu", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let crates = metadata["packages"].as_array().unwrap().clone();
    assert!(crates.len() > 250, "only {} crates", crates.len());
    crates
}

/// The licences that `deny.toml` allows.
fn allowed() -> BTreeSet<&'static str> {
    let (_, list) = include_str!("../deny.toml").split_once("\nallow = [").unwrap();
    list.split(']').next().unwrap().split('"').skip(1).step_by(2).collect()
}

/// Whether an SPDX expression leaves a way to take the crate by allowed licences alone.
fn is_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let is_allowed = any(&mut words, allowed);
    assert_eq!(words.next(), None, "{expression:?} is not understood");
    is_allowed
}

fn any(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    let mut is_allowed = all(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        is_allowed |= all(words, allowed);
    }
    is_allowed
}

fn all(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    let mut is_allowed = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        is_allowed &= one(words, allowed);
    }
    is_allowed
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let is_allowed = any(words, allowed);
        assert_eq!(words.next(), Some(")"));
        return is_allowed;
    }
    let licence = words.next().unwrap_or_default();
    let is_excepted = words.next_if_eq(&"WITH").is_some_and(|_| words.next().is_some());
    !is_excepted && allowed.contains(licence)
}

/// Name and version of each crate of a lock file.
fn locked(lock: &str) -> BTreeSet<(&str, &str)> {
    lock.split("[[package]]\n")
        .skip(1)
        .map(|entry| {
            let value = |name: &str| {
                let line = entry.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
                line.unwrap().trim_matches('"')
            };
            (value("name"), value("version"))
        })
        .collect()
}

#[test]
fn every_crate_can_be_taken_by_a_licence_that_is_allowed() {
    let allowed = allowed();
    let refused: Vec<_> = crates()
        .into_iter()
        .filter(|found| !found["license"].as_str().is_some_and(|licence| is_allowed(licence, &allowed)))
        .map(|found| format!("{} {}: {}", found["name"], found["version"], found["license"]))
        .collect();
    assert!(refused.is_empty(), "not of deny.toml: {refused:#?}");
}

#[test]
fn every_crate_is_from_the_public_registry() {
    for found in crates() {
        let source = found["source"].as_str();
        let is_ours = source.is_none() && OURS.iter().any(|ours| found["name"] == *ours);
        assert!(
            is_ours || source.is_some_and(|source| source.starts_with("registry+")),
            "{} {source:?}",
            found["name"]
        );
    }
}

#[test]
fn what_is_fuzzed_is_what_is_built() {
    let built = locked(include_str!("../Cargo.lock"));
    let fuzzed = locked(include_str!("../fuzz/Cargo.lock"));
    let others: Vec<_> = fuzzed.difference(&built).filter(|(name, _)| !OF_FUZZING.contains(name)).collect();
    assert!(others.is_empty(), "cargo update -p NAME --precise VERSION, in fuzz: {others:?}");
}

#[test]
fn an_expression_is_understood_as_spdx_means_it() {
    let allowed = BTreeSet::from(["MIT", "ISC"]);
    for good in ["MIT", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "MIT AND ISC", "(GPL-3.0 OR MIT) AND ISC"] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in
        ["GPL-3.0", "MIT AND GPL-3.0", "MIT WITH exception", "(MIT OR ISC) AND GPL-3.0", "GPL-3.0 OR (MIT AND GPL-2.0)"]
    {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}
