//! The sections of the page. Each has an `id`, by which the script puts a newer one in its place.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::super::latest::{A_SECOND, Change, Field, KEPT};
use super::super::report::{FaultReport, Report, ScopeReport, SourceReport};
use super::spark::spark;
use super::{count, figure, moment, span};

/// What somebody should look at, and the section that has more of it.
pub(super) fn troubles(report: &Report) -> Vec<(String, &'static str)> {
    let waiting = report.waiting_for.iter().map(|(part, reason)| (format!("{part}: {reason}"), "#partitions"));
    let stuck = report.stuck_seconds.iter();
    let stuck = stuck.map(|(part, seconds)| (format!("{part} has not turned for {seconds} s"), "#partitions"));
    let mut troubles: Vec<_> = waiting.chain(stuck).collect();
    if let Some(collector) = &report.collector {
        let scopes = collector.scopes.len();
        let counted = [
            (collector.scopes.iter().filter(|scope| scope.fault.is_some()).count(), "in state Error"),
            (collector.scopes.iter().filter(|scope| scope.is_stale).count(), "without a complete sweep for too long"),
        ];
        let counted = counted.into_iter().filter(|(number, _)| *number > 0);
        troubles.extend(counted.map(|(number, what)| (format!("{number} of {scopes} scopes {what}"), "#scopes")));
        let lost = collector.sources.iter().filter(|source| source.fault.is_some() && source.in_error == 0);
        troubles.extend(lost.map(|source| (format!("source {} in state Error", source.name), "#scopes")));
    }
    let dead = report.dead_letters.values().sum::<u64>();
    if dead > 0 {
        troubles.push((format!("{} dead letters since the start", count(dead)), "#dead-letters"));
    }
    troubles
}

pub(super) fn attention(troubles: &[(String, &'static str)]) -> Markup {
    html! {
        section #attention aria-labelledby="h-attention" {
            h2 #h-attention.quiet { "Attention" }
            @if troubles.is_empty() {
                p.calm { span.dot.good {} "Ready. Nothing needs attention." }
            } @else {
                ul { @for (text, place) in troubles { li { span.dot.bad {} a href=(place) { (text) } } } }
            }
        }
    }
}

pub(super) fn flow(report: &Report) -> Markup {
    let of = |value: fn(&super::super::history::Sample) -> f64| report.samples.iter().map(value).collect::<Vec<_>>();
    let mut figures = Vec::new();
    if report.collector.is_some() {
        figures.push(("Instances swept", "a second", of(|sample| sample.swept)));
    }
    if report.mapper.is_some() {
        figures.push(("Records mapped", "a second", of(|sample| sample.mapped)));
        figures.push(("Events", "a second", of(|sample| sample.events)));
        figures.push(("Lag", "seconds", of(|sample| sample.lag_seconds)));
        figures.push(("Unread", "records", of(|sample| sample.lag_records)));
    }
    html! {
        section #flow aria-labelledby="h-flow" {
            h2 #h-flow { "Flow" small { "last 15 minutes" } }
            div.figures {
                @for (name, unit, values) in &figures {
                    @let last = values.last().copied().unwrap_or_default();
                    @let most = values.iter().copied().fold(0.0, f64::max);
                    div.figure {
                        h3 { (name) }
                        p { strong { (figure(last)) } " " (unit) }
                        (spark(values, &format!("{name}: now {}, at most {} {unit}", figure(last), figure(most))))
                        p.note { "at most " (figure(most)) }
                    }
                }
                @if figures.is_empty() { p.note { "No stage runs yet." } }
            }
        }
    }
}

// === Scopes ===

pub(super) fn scopes(report: &Report) -> Markup {
    let Some(collector) = &report.collector else { return html! {} };
    html! {
        section #scopes aria-labelledby="h-scopes" {
            h2 #h-scopes { "Sources and scopes" small { (collector.scopes.len()) " scopes here" } }
            ul.sources { @for source in &collector.sources { (source_line(source, report.at)) } }
            @if !collector.scopes.is_empty() {
                table {
                    thead {
                        tr {
                            th scope="col" { "State" }
                            th scope="col" { "Scope" }
                            th scope="col" { "Complete sweep" }
                            th scope="col" { "Next sweep" }
                            th.number scope="col" { "Known" }
                            th.number scope="col" { "Suspects" }
                        }
                    }
                    tbody { @for scope in &collector.scopes { (scope_rows(scope, report.at)) } }
                }
            }
        }
    }
}

fn source_line(source: &SourceReport, now: DateTime<Utc>) -> Markup {
    html! {
        li {
            (state(source.state))
            b { (source.name) }
            @if let Some(since) = source.since { span { "for " (duration(since, now)) } }
            @if let Some(seconds) = source.interval_seconds {
                span { "every " (span(chrono::TimeDelta::seconds(seconds as i64))) }
            }
            @if source.in_error > 0 { span.bad { (source.in_error) " of " (source.scopes) " scopes in error" } }
            // A fault of a scope is told there.
            @if let Some(what) = source.fault.as_ref().filter(|_| source.in_error == 0) { (fault(what, None)) }
        }
    }
}

fn scope_rows(scope: &ScopeReport, now: DateTime<Utc>) -> Markup {
    let number = |number: Option<u64>| number.map_or_else(|| "–".to_owned(), count);
    html! {
        tr.error[scope.fault.is_some()] {
            td { (state(scope.state)) }
            th scope="row" {
                b { (scope.source) }
                @if let Some(account) = &scope.account { span { (account) } }
                @if let Some(region) = &scope.region { span { (region) } }
            }
            td.warn[scope.is_stale] data-label="Complete sweep" {
                @if let Some(at) = scope.last_complete { (moment(at, now)) } @else { "none yet" }
            }
            td data-label="Next sweep" {
                @match scope.next_sweep {
                    _ if scope.is_sweeping => "under way",
                    Some(at) if at <= now => "waits for its turn",
                    Some(at) => (moment(at, now)),
                    None => "–",
                }
            }
            td.number data-label="Known" { (number(scope.known)) }
            td.number.warn[scope.suspects.unwrap_or_default() > 0] data-label="Suspects" { (number(scope.suspects)) }
        }
        @if let Some(what) = &scope.fault {
            tr.fault {
                td colspan="6" {
                    (fault(what, scope.since.map(|since| duration(since, now))))
                }
            }
        }
    }
}

fn duration(since: DateTime<Utc>, now: DateTime<Utc>) -> Markup {
    html! { time datetime=(super::iso(since)) title=(super::iso(since)) { (span(now - since)) } }
}

fn fault(what: &FaultReport, since: Option<Markup>) -> Markup {
    html! {
        p.what {
            strong.bad { (what.kind) } " "
            span.note { (what.class) @if let Some(since) = since { ", for " (since) } }
            @if let Some(message) = &what.message { " " (message) }
        }
        p.remedy { (marked(what.remedy)) }
    }
}

/// A text of ours, in which backquotes mark what is typed.
fn marked(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

fn state(name: Option<&str>) -> Markup {
    let class = match name {
        Some("Collecting" | "running") => "good",
        Some("Error" | "held") => "bad",
        _ => "idle",
    };
    html! { span.state { span class=(format!("dot {class}")) {} (name.unwrap_or("not yet swept")) } }
}

// === The mapper ===

pub(super) fn partitions(report: &Report) -> Markup {
    let Some(mapper) = &report.mapper else { return html! {} };
    let devices = mapper.partitions.iter().map(|partition| partition.devices as u64).sum();
    html! {
        section #partitions aria-labelledby="h-partitions" {
            h2 #h-partitions { "Partitions of raw" small { (count(devices)) " devices in " (megabytes(mapper.state_bytes)) } }
            @for (engine, progress) in &mapper.restoring {
                p.restoring {
                    label for=(format!("restore-{engine}")) { "Engine " (engine) " restores its devices" }
                    progress id=(format!("restore-{engine}")) max="100" value=(progress.percent) {}
                    span {
                        (progress.percent) " %, " (count(progress.remaining)) " records left"
                        @if progress.seconds_left > 0 {
                            ", about " (span(chrono::TimeDelta::seconds(progress.seconds_left as i64)))
                        }
                    }
                }
            }
            @if mapper.partitions.is_empty() {
                p.note { "None is assigned to this process." }
            } @else {
                table {
                    thead {
                        tr {
                            th scope="col" { "State" }
                            th scope="col" { "Partition" }
                            th.number scope="col" { "Devices" }
                            th.number scope="col" { "Unread" }
                            th.number scope="col" { "Lag" }
                        }
                    }
                    tbody {
                        @for partition in &mapper.partitions {
                            tr.error[partition.phase == "held"] {
                                td { (state(Some(partition.phase))) }
                                th scope="row" { b { (partition.partition) } span { "engine " (partition.engine) } }
                                td.number data-label="Devices" { (count(partition.devices as u64)) }
                                td.number data-label="Unread" {
                                    (partition.lag_records.map_or_else(|| "–".to_owned(), count))
                                }
                                td.number data-label="Lag" {
                                    @match partition.lag_seconds {
                                        Some(seconds) => { (figure(seconds)) " s" }
                                        None => "–",
                                    }
                                }
                            }
                            @if let Some(reason) = &partition.held {
                                tr.fault { td colspan="5" { p.what { (reason) } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", figure(bytes as f64 / 1e6))
}

pub(super) fn dead_letters(report: &Report) -> Markup {
    html! {
        section #dead-letters aria-labelledby="h-dead" {
            h2 #h-dead { "Dead letters" small { "since the start" } }
            @if report.dead_letters.is_empty() {
                p.calm { span.dot.good {} "None." }
            } @else {
                table.short {
                    thead { tr { th scope="col" { "Reason" } th.number scope="col" { "Records" } } }
                    tbody {
                        @for (kind, number) in &report.dead_letters {
                            tr { th scope="row" { (kind) } td.number { (count(*number)) } }
                        }
                    }
                }
                p.note { code { "rollcall tail dead-letters" } " shows them with their reasons." }
            }
        }
    }
}

// === Changes ===

pub(super) fn changes(report: &Report) -> Markup {
    let Some(changes) = &report.changes else { return html! {} };
    if report.mapper.is_none() {
        return html! {};
    }
    html! {
        section #changes aria-labelledby="h-changes" {
            h2 #h-changes { "Latest changes" small { "the last " (KEPT) "; where more than " (A_SECOND) " come in a second, some of them" } }
            @if changes.is_empty() { p.note { "None since the start." } }
            ol.changes { @for change in changes { (change_line(change)) } }
        }
    }
}

fn change_line(change: &Change) -> Markup {
    let sign = match change.change {
        "created" => "+",
        "removed" => "−",
        "remapped" => "*",
        _ => "~",
    };
    html! {
        li class=(change.change) {
            span.when { (super::clock(change.at)) }
            span.kind { span.sign aria-hidden="true" { (sign) } (change.change) }
            span.device {
                @if let Some(name) = &change.name { b { (name) } }
                code { (change.instance) }
            }
            span.place {
                @if let Some(account) = &change.account { span { (account) } }
                @if let Some(region) = &change.region { span { (region) } }
            }
            div.told {
                @if let Some(reason) = change.reason { p { (reason) } }
                @if !change.summary.is_empty() { p { (change.summary) } }
                @for field in &change.fields { (field_line(field)) }
                @if change.more_fields > 0 { p.note { "and " (change.more_fields) " more" } }
            }
        }
    }
}

fn field_line(field: &Field) -> Markup {
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    html! {
        p.field {
            span.path { (field.path) }
            del { (value(&field.from)) }
            span.arrow { "→" }
            ins { (value(&field.to)) }
        }
    }
}
