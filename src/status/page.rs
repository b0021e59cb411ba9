//! The report in HTML. Everything is in it; the script only fetches it anew. Whatever comes from outside goes through
//! maud, which escapes.

mod sections;
mod spark;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use maud::{DOCTYPE, Markup, html};

use super::report::Report;

/// Served beside it as `page.css`
pub const STYLE: &str = include_str!("page/page.css");
/// and `page.js`.
pub const SCRIPT: &str = include_str!("page/page.js");

/// Who looks at the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visitor {
    /// Somebody who sees all of it.
    Operator,
    /// Somebody who may bring the token; has just brought a wrong one, perhaps.
    MaySignIn {
        /// Whether it was wrong.
        has_failed: bool,
    },
    /// Somebody to whom devices are not shown, since there is no token to show.
    Stranger,
}

/// The page.
pub fn page(report: &Report, visitor: Visitor) -> Markup {
    let troubles = sections::troubles(report);
    let title = if troubles.is_empty() { "" } else { "● " };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) "Rollcall " (report.instance_id) }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="page.css";
                script src="page.js" defer {}
            }
            body {
                header {
                    div.name {
                        h1 { "Rollcall" }
                        span.instance { (report.instance_id) }
                    }
                    p #now {
                        span { "up " (span(TimeDelta::seconds(report.up_seconds as i64))) }
                        span { "version " (report.version) }
                        span { "as of " (clock(report.at)) " UTC" }
                    }
                    div.controls {
                        button #pause type="button" aria-pressed="false" hidden { "Pause" }
                        a href="./" { "Reload" }
                    }
                    p #told role="status" {}
                }
                main {
                    (sections::attention(&troubles))
                    (sign_in(visitor))
                    (sections::flow(report))
                    (sections::scopes(report))
                    div.pair {
                        (sections::partitions(report))
                        (sections::dead_letters(report))
                    }
                    (sections::changes(report))
                }
            }
        }
    }
}

fn sign_in(visitor: Visitor) -> Markup {
    match visitor {
        Visitor::Operator => html! {},
        Visitor::Stranger => html! {
            section #access aria-label="Access" {
                p { "Devices and the words of faults are not shown: set " code { "admin.token" } " to sign in for them." }
            }
        },
        Visitor::MaySignIn { has_failed } => html! {
            section #access aria-label="Access" {
                form method="post" action="sign-in" {
                    label for="token" { "Devices and the words of faults are shown to who has the token" }
                    input #token name="token" type="password" autocomplete="current-password" required;
                    button type="submit" { "Sign in" }
                    @if has_failed { p.bad role="alert" { "This is not the token." } }
                }
            }
        },
    }
}

/// A moment, with how long ago it was or how soon it will be.
fn moment(at: DateTime<Utc>, now: DateTime<Utc>) -> Markup {
    let text = if at > now { format!("in {}", span(at - now)) } else { format!("{} ago", span(now - at)) };
    html! { time datetime=(iso(at)) title=(iso(at)) { (text) } }
}

fn iso(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn clock(at: DateTime<Utc>) -> Markup {
    html! { time datetime=(iso(at)) { (at.format("%H:%M:%S")) } }
}

/// A time span in its two largest units.
fn span(span: TimeDelta) -> String {
    let seconds = span.num_seconds().max(0);
    let units = [(86400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let Some(first) = units.iter().position(|(size, _)| seconds >= *size) else { return "0 s".to_owned() };
    let (size, name) = units[first];
    let large = format!("{} {name}", seconds / size);
    // Seconds beside days say nothing.
    match units.get(first + 1) {
        Some((next, unit)) if seconds % size >= *next => format!("{large} {} {unit}", seconds % size / next),
        _ => large,
    }
}

/// A number with its thousands apart.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202F}');
        }
        text.push(digit);
    }
    text
}

/// A figure with as many digits as say something.
fn figure(value: f64) -> String {
    match value {
        _ if value >= 10.0 => count(value.round() as u64),
        _ if value > 0.0 && value < 0.05 => "< 0.1".to_owned(),
        _ if value == 0.0 => "0".to_owned(),
        _ => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_two_units() {
        for (seconds, text) in [
            (-5, "0 s"),
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (61, "1 min 1 s"),
            (3600, "1 h"),
            (3659, "1 h"),
            (90_061, "1 d 1 h"),
        ] {
            assert_eq!(span(TimeDelta::seconds(seconds)), text);
        }
    }

    #[test]
    fn figures_are_as_long_as_they_say_something() {
        for (value, text) in
            [(0.0, "0"), (0.01, "< 0.1"), (3.25, "3.2"), (12.4, "12"), (1_234_567.0, "1\u{202F}234\u{202F}567")]
        {
            assert_eq!(figure(value), text);
        }
    }
}
