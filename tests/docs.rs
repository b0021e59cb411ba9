//! What the documentation says is there, and what is there is documented.

use std::collections::BTreeSet;

use rollcall::collector::fault::FaultKind;

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

#[test]
fn the_page_on_troubleshooting_has_a_row_for_every_kind_of_fault_with_its_class_and_remedy() {
    let page = include_str!("../docs/troubleshooting.md");
    let kinds: Vec<_> = page
        .lines()
        .filter_map(|line| {
            let cells: Vec<_> = line.strip_prefix("| `")?.strip_suffix(" |")?.splitn(4, " | ").collect();
            let [kind, class, meaning, remedy] = cells[..] else { return None };
            assert!(!meaning.is_empty());
            Some((kind.trim_end_matches('`'), class.trim_matches('`'), remedy))
        })
        .collect();
    let expected = FaultKind::ALL.map(|kind| (kind.name(), kind.class().name(), kind.remedy()));
    assert_eq!(kinds, expected);
}
