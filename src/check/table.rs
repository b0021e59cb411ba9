//! The lines for people: aligned, what fails with what to do under it, and a summary.

use std::fmt::Write;

use super::{Line, Outcome};

/// Longest that a column is made for the sake of one value.
const WIDEST: usize = 60;

/// The table. It has no colours, so that it is the same in a file.
pub fn table(lines: &[Line]) -> String {
    let width = |of: fn(&Line) -> &str| {
        let widths = lines.iter().map(|line| of(line).chars().count());
        widths.filter(|width| *width <= WIDEST).max().unwrap_or_default()
    };
    let (what_width, scope_width) = (width(|line| &line.what).max(4), width(|line| &line.scope).max(5));
    let mut text = format!("{:7}  {:what_width$}  {:scope_width$}  DETAIL\n", "RESULT", "WHAT", "SCOPE");
    for Line { what, scope, result, detail, remedy, class, kind } in lines {
        let what_happened = one_line(detail);
        // Infallible: into memory.
        let _ = writeln!(text, "{:7}  {what:what_width$}  {scope:scope_width$}  {what_happened}", result.name());
        if let Some(remedy) = remedy {
            let told = class.zip(*kind).map(|(class, kind)| format!(" ({}, {kind})", class.name()));
            let _ = writeln!(text, "{:7}  → {remedy}{}", "", told.unwrap_or_default());
        }
    }
    let count = |result| lines.iter().filter(|line| line.result == result).count();
    let counted = [Outcome::Ok, Outcome::Warning, Outcome::Failed, Outcome::Skipped].map(|result| {
        let name = result.name();
        format!("{} {name}", count(result))
    });
    let _ = writeln!(text, "{}", counted.join(", "));
    text
}

/// What AWS writes may have line ends in it, and worse.
fn one_line(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::fault::{Fault, FaultKind};

    #[test]
    fn columns_are_aligned_and_what_fails_says_what_to_do() {
        let lines = [
            Line::ok("kafka", "localhost:9092", "3 brokers"),
            Line::failed("ec2:DescribeTags", "prod/1/eu", &Fault::new(FaultKind::Denied, "not\nallowed")),
        ];
        let remedy = FaultKind::Denied.remedy();
        let expected = format!(
            "RESULT   WHAT              SCOPE           DETAIL\n\
             ok       kafka             localhost:9092  3 brokers\n\
             failed   ec2:DescribeTags  prod/1/eu       not allowed\n         \
             → {remedy} (ThirdPartyConfig, denied)\n\
             1 ok, 0 warning, 1 failed, 0 skipped\n"
        );
        assert_eq!(table(&lines), expected);
    }
}
