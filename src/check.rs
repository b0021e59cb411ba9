//! `rollcall check`: is everything in place? One line a question, nothing written, nothing swept.
//!
//! ```text
//!  Kafka: brokers, topics, groups ─┐
//!  registry: reached, compatible ──┼──▶ lines ──▶ table or JSON, exit code
//!  each source: who, where, may I ─┘
//! ```
//!
//! What fails is a line and hides nothing else; what was not asked because of it says so. All waits are bounded.

#[cfg(feature = "aws")]
mod aws;
mod kafka;
mod table;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use crate::collector::fault::{Class, Fault, FaultKind};
use crate::collector::file;
use crate::config::{self, Config, RegistryMode, SourceKind};
use crate::profile::encode::Encoding;
use crate::registry::{self, Contrast, Examined, Registered, RegistryError};

pub use table::table;

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// It works, but somebody should know.
    Warning,
    /// It does not work.
    Failed,
    /// Not asked.
    Skipped,
}

impl Outcome {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// A question and its answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// What is asked for, as in `identity`, `topic` or `ec2:DescribeInstances`.
    pub what: String,
    /// Of what: a source, `source/account`, `source/account/region`, a topic, an address.
    pub scope: String,
    /// What came of it.
    pub result: Outcome,
    /// What was found. No secrets.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Who has to act.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// What is wrong, as in health events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
}

impl Line {
    fn new(what: &str, scope: impl Into<String>, result: Outcome, detail: impl Into<String>) -> Self {
        let (what, scope, detail) = (what.to_owned(), scope.into(), detail.into());
        Self { what, scope, result, detail, remedy: None, class: None, kind: None }
    }

    fn ok(what: &str, scope: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(what, scope, Outcome::Ok, detail)
    }

    fn warning(what: &str, scope: impl Into<String>, detail: impl Into<String>, remedy: &str) -> Self {
        Self { remedy: Some(remedy.to_owned()), ..Self::new(what, scope, Outcome::Warning, detail) }
    }

    fn skipped(what: &str, scope: impl Into<String>, because: &str) -> Self {
        Self::new(what, scope, Outcome::Skipped, because)
    }

    fn failed(what: &str, scope: impl Into<String>, fault: &Fault) -> Self {
        Self {
            remedy: Some(fault.kind.remedy().to_owned()),
            class: Some(fault.class()),
            kind: Some(fault.kind.name()),
            ..Self::new(what, scope, Outcome::Failed, fault.to_string())
        }
    }

    fn with_remedy(self, remedy: &str) -> Self {
        Self { remedy: Some(remedy.to_owned()), ..self }
    }
}

/// Tells how far it is, where somebody watches.
#[derive(Default)]
pub struct Progress(AtomicUsize);

impl Progress {
    fn done(&self, lines: usize) {
        let done = self.0.fetch_add(lines, Ordering::Relaxed) + lines;
        self.show(&format!("\r{done} checks done"));
    }

    /// Takes its line away again.
    fn clear(&self) {
        self.show("\r\x1b[K");
    }

    fn show(&self, text: &str) {
        let mut stderr = std::io::stderr();
        if stderr.is_terminal() {
            // Whoever cannot see it does without.
            let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
        }
    }
}

/// Asks everything that the configuration depends on.
pub async fn check(config: &Config) -> Vec<Line> {
    let progress = Progress::default();
    let counted = async |lines: Vec<Line>| {
        progress.done(lines.len());
        lines
    };
    let kafka = async { counted(kafka::check(config).await).await };
    let registry = async { counted(registry(config).await).await };
    let (kafka, registry, sources) = tokio::join!(kafka, registry, sources(config, &progress));
    progress.clear();
    [kafka, registry, sources].concat()
}

/// The schema registry, where there is one.
async fn registry(config: &Config) -> Vec<Line> {
    const WHAT: &str = "registry";
    let Some(configured) = &config.registry else { return Vec::new() };
    let scope = configured.url.clone();
    if config.mapper.encoding != Encoding::Avro {
        let because = "mapper.encoding is json: the registry is never asked";
        return vec![Line::skipped(WHAT, scope, because)];
    }
    let subject = registry::subject(&config.kafka.topics.events);
    let schema = config.mapper.profile.schema_json();
    let examined = async { registry::Client::new(configured)?.examine(&subject, schema).await };
    let refused = |message: String| Line::failed(WHAT, &scope, &Fault::new(FaultKind::Registry, message));
    let line = match examined.await {
        Ok(Examined { refused: Some(why), latest, .. }) => {
            refused(format!("subject {subject} has a schema that ours is not compatible with: {why}{latest}"))
                .with_remedy("use another topic for the events, or change the subject's compatibility")
        }
        Ok(Examined { registered: Some(Registered { id, version }), .. }) => {
            Line::ok(WHAT, &scope, format!("subject {subject} has the schema: version {version}, ID {id}"))
        }
        Ok(Examined { latest, .. }) if configured.mode == RegistryMode::Verify => {
            refused(format!("subject {subject} does not have our schema, and registry.mode is verify{latest}"))
                .with_remedy("have it registered: `rollcall schema register`")
        }
        Ok(Examined { latest: Contrast { version: None, .. }, .. }) => {
            Line::ok(WHAT, &scope, format!("reached; subject {subject} is new: the mapper registers it"))
        }
        Ok(_) => Line::ok(WHAT, &scope, format!("the schema is compatible with subject {subject}")),
        Err(error) if error.is_passing() => {
            Line::failed(WHAT, &scope, &Fault::new(FaultKind::Kafka, error.to_string()))
                .with_remedy("check registry.url, the registry itself, and the network")
        }
        Err(error @ RegistryError::Refused { .. }) => {
            refused(error.to_string()).with_remedy("check registry.url: it is the base of Confluent's REST API")
        }
        Err(error) => refused(error.to_string()),
    };
    vec![line]
}

async fn sources(config: &Config, progress: &Progress) -> Vec<Line> {
    let sources = &config.collector.sources;
    if sources.is_empty() {
        let remedy = "configure one to collect; a mapper needs none";
        return vec![Line::warning("sources", "collector.sources", "there are none", remedy)];
    }
    #[cfg(feature = "aws")]
    let (mut aws, twice) = aws::check(sources, progress).await;
    let mut lines = Vec::new();
    for source in sources {
        #[cfg(feature = "aws")]
        lines.extend(aws.remove(&source.name).unwrap_or_default());
        let own = other(source).await;
        progress.done(own.iter().len());
        lines.extend(own);
    }
    #[cfg(feature = "aws")]
    lines.extend(twice);
    lines
}

/// A source that needs no network.
async fn other(source: &config::Source) -> Option<Line> {
    let name = &source.name;
    match &source.kind {
        #[cfg(feature = "aws")]
        SourceKind::Aws(_) => None,
        #[cfg(not(feature = "aws"))]
        SourceKind::Aws(_) => {
            let fault = Fault::new(FaultKind::InvalidRequest, "this program was built without the feature `aws`");
            Some(Line::failed("source", name, &fault).with_remedy("use a build with the feature `aws`"))
        }
        SourceKind::Simulated(simulated) => {
            Some(Line::ok("source", name, format!("an invented fleet of {} instances", simulated.instances)))
        }
        SourceKind::File(of) if of.path == Path::new("-") => {
            Some(Line::skipped("file", name, "standard input can be read once, by the collector"))
        }
        SourceKind::File(of) => {
            let shown = of.path.display();
            let read = match file::read(&of.path).await {
                Ok(text) => file::instances(&text)
                    .map_err(|error| format!("{shown} is not what describe-instances prints: {error}")),
                Err(error) => Err(error.to_string()),
            };
            Some(match read {
                Ok(instances) => Line::ok("file", name, format!("{shown} holds {} instances", instances.len())),
                Err(message) => Line::failed("file", name, &Fault::new(FaultKind::InvalidFile, message)),
            })
        }
    }
}

/// Who has to act first, if anybody: where several things failed, it is whoever can change a configuration, since waiting
/// will not help.
pub fn worst(lines: &[Line]) -> Option<Class> {
    lines.iter().filter(|line| line.result == Outcome::Failed).filter_map(|line| line.class).min()
}
