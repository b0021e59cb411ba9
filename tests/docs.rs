//! What the documentation says is there, and what is there is documented.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rollcall::collector::fault::FaultKind;

/// The words of a text that begin with `rollcall_` and are in `quotes`.
fn metrics(text: &'static str, quotes: char) -> BTreeSet<&'static str> {
    text.split(quotes).filter(|word| word.starts_with("rollcall_") && !word.contains(char::is_whitespace)).collect()
}

#[test]
fn the_readme_documents_every_metric_and_no_other() {
    let registered: BTreeSet<_> = [
        include_str!("../src/telemetry/metrics.rs"),
        include_str!("../src/telemetry/metrics/collector.rs"),
        include_str!("../src/telemetry/metrics/mapper.rs"),
        include_str!("../src/telemetry/metrics/kafka.rs"),
    ]
    .into_iter()
    .flat_map(|source| metrics(source, '"'))
    .collect();
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

#[test]
fn the_messages_that_the_page_on_troubleshooting_explains_are_those_of_the_program() {
    let (_, page) = include_str!("../docs/troubleshooting.md").split_once("## It does not start").unwrap();
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    // A message that goes over several lines is one.
    let code: String = files.iter().flat_map(|(_, text)| text.split("\\\n").map(str::trim_start)).collect();
    let mut explained = 0;
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.contains("what to do |")) {
        let messages = row.split(" | ").next().unwrap().split('`').skip(1).step_by(2);
        // Those with a number are examples.
        for message in messages.filter(|message| !message.contains(|char: char| char.is_ascii_digit())) {
            assert!(code.contains(message), "nothing says {message:?}");
            explained += 1;
        }
    }
    assert!(explained >= 18, "{explained}");
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    let mut folders = vec![root.join("src"), root.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                code += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    let named = include_str!("../SECURITY.md").split('`').filter_map(|word| word.rsplit_once("::"));
    let (of_fuzzing, named): (Vec<_>, Vec<_>) = named.partition(|(module, _)| *module == "fuzz");
    assert!(named.len() > 25 && of_fuzzing.len() > 5, "{named:?} {of_fuzzing:?}");
    let is_missing = |(_, test): &(&str, &str)| !code.contains(&format!("fn {test}("));
    let missing: Vec<_> = named.into_iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // Those are made by a macro.
    let made = include_str!("fuzz.rs").split("targets! {").last().unwrap().split('}').next().unwrap();
    assert!(of_fuzzing.iter().all(|(_, target)| made.split_whitespace().any(|name| name == *target)), "{of_fuzzing:?}");
}

// === Links ===

/// Every page, by its path from the root.
fn pages() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    for folder in ["", "docs", "schemas", "helm/rollcall"] {
        for path in std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

/// Where the links of a page lead that are not to other hosts. Pictures are no links.
fn links(text: &str) -> Vec<&str> {
    let is_picture = |before: &str| before.rsplit_once('[').is_some_and(|(rest, _)| rest.ends_with('!'));
    let links = text.match_indices("](").filter(|(at, _)| !is_picture(&text[..*at]));
    let links = links.map(|(at, _)| text[at + 2..].split(')').next().unwrap());
    links.filter(|link| !link.contains("://")).collect()
}

/// The anchors of a page, as GitHub makes them of its headings.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = kept.chars().filter(|char| char.is_alphanumeric() || " -_".contains(*char));
        kept.map(|char| if char == ' ' { '-' } else { char }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_of_every_page_leads_to_a_file_and_a_heading_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (pages, mut checked) = (pages(), 0);
    for (page, text) in &pages {
        for link in links(text) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { root.join(page) } else { root.join(page).parent().unwrap().join(file) };
            assert!(target.exists(), "{page}: {link}");
            if !anchor.is_empty() {
                let target = std::fs::read_to_string(&target).unwrap();
                assert!(anchors(&target).iter().any(|heading| heading == anchor), "{page}: {link}");
            }
            checked += 1;
        }
    }
    assert!(pages.len() > 20 && checked > 80, "{} pages, {checked} links", pages.len());
}

#[test]
fn the_readme_leads_to_every_page_and_has_one_picture() {
    let (pages, readme) = (pages(), include_str!("../README.md"));
    let links: BTreeSet<_> = links(readme).into_iter().map(|link| link.split('#').next().unwrap()).collect();
    let is_lost = |page: &&String| !page.starts_with("helm/") && *page != "README.md" && !links.contains(page.as_str());
    let lost: Vec<_> = pages.keys().filter(is_lost).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(readme.matches("![").count(), 1);
}

// === Names ===

/// Every file of the program.
fn sources(folder: &std::path::Path, found: &mut Vec<(String, String)>) {
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_str().unwrap().to_owned();
            found.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn the_page_on_limits_names_every_bound_of_the_code_and_no_other() {
    let (page, readme) = (include_str!("../docs/limits.md"), include_str!("../README.md"));
    let mut files = Vec::new();
    sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    // How much, by its name; not how often or how long, and not what is no bound of memory.
    let is_bound = |name: &str, rest: &str| {
        let begins = ["MAX", "MOST", "CAPACITY", "QUEUE", "KEPT", "LONGEST", "SHOWN_BYTES", "RECORDS_A_TURN"];
        begins.iter().any(|begin| name.starts_with(begin))
            && (rest.starts_with("usize") || rest.starts_with("u64"))
            && name != "MAX_INTERFACES"
    };
    let constants = |(file, text): &(String, String)| {
        let lines = text.lines().map(|line| line.strip_prefix("pub ").unwrap_or(line));
        let named = lines.filter_map(|line| line.strip_prefix("const ")?.split_once(": "));
        let bounds = named.filter(|(name, rest)| is_bound(name, rest));
        bounds.map(|(name, _)| (file.clone(), name.to_owned())).collect::<Vec<_>>()
    };
    let there: BTreeSet<_> = files.iter().flat_map(constants).collect();

    let (mut told, mut keys) = (BTreeSet::new(), 0);
    for line in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what |")) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 4, "{line}");
        // Names in quotes, then the file that they are in.
        let mut names = Vec::new();
        for (index, part) in cells[2].split('`').enumerate() {
            if index % 2 == 0 {
                if let Some(file) = part.split_whitespace().find(|word| word.starts_with("src/")) {
                    let file = file.trim_end_matches(',').to_owned();
                    told.extend(names.drain(..).map(|name: &str| (file.clone(), name.to_owned())));
                }
            } else if part.starts_with(char::is_uppercase) {
                names.push(part);
            } else {
                keys += 1;
                // Those of librdkafka are not in our table.
                let key = part.strip_prefix("collector.sources[].").unwrap_or(part);
                let is_ours = ["kafka.", "mapper.", "collector.", "aws."].iter().any(|begin| key.starts_with(begin));
                assert!(!is_ours || readme.contains(&format!("`{key}`")), "{part} is no key");
            }
        }
        assert!(names.is_empty(), "{line}");
    }
    assert!(keys >= 15, "{keys}");
    let missing: Vec<_> = there.difference(&told).collect();
    assert!(missing.is_empty(), "not on the page: {missing:?}");
    let gone = told.iter().filter(|(file, name)| {
        let text = files.iter().find(|(other, _)| other == file).map(|(_, text)| text.as_str());
        !text.is_some_and(|text| text.contains(&format!("const {name}: ")))
    });
    let gone: Vec<_> = gone.collect();
    assert!(gone.is_empty(), "no longer in the code: {gone:?}");
}
