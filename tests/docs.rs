//! What the documentation says is there, and what is there is documented.

use std::collections::BTreeSet;

/// The words of a text that begin with `rollcall_` and are in `quotes`.
fn metrics(text: &'static str, quotes: char) -> BTreeSet<&'static str> {
    text.split(quotes).filter(|word| word.starts_with("rollcall_") && !word.contains(char::is_whitespace)).collect()
}

#[test]
fn the_readme_documents_every_metric_and_no_other() {
    let registered = metrics(include_str!("../src/telemetry/metrics.rs"), '"');
    let documented = metrics(include_str!("../README.md"), '`');
    assert!(registered.len() >= 15, "{registered:?}");
    assert_eq!(registered, documented);
}
