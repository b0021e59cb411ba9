//! Logs, on standard error: text for people, JSON for machines. A line is an event, whatever is in it: what others wrote,
//! in tags, keys and answers, is shown and never obeyed.

use std::fmt::{self, Debug};
use std::io::{self, IsTerminal, Write};

use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{FilterExt, ParseError, filter_fn};
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{Log, LogFormat};
use crate::inert::{escaped, inert};

/// Parts of the AWS SDK that tell secrets by the way, and the most that is taken of them. The first warns of credentials
/// that it cannot get by printing the whole answer, which may hold keys; the second prints every answer, tags that are to
/// be masked and all.
const SPEAK_TOO_MUCH: [(&str, Level); 2] = [("aws_config", Level::ERROR), ("aws_smithy_runtime", Level::DEBUG)];

/// Starts logging.
///
/// # Errors
/// When the filter cannot be read.
pub fn init(log: &Log) -> Result<(), ParseError> {
    // A second start, in tests, keeps the first.
    let _ = subscriber(log, io::stderr().is_terminal(), io::stderr)?.try_init();
    Ok(())
}

fn subscriber<W: Write + 'static>(
    log: &Log,
    is_terminal: bool,
    output: impl Fn() -> W + Send + Sync + 'static,
) -> Result<impl Subscriber + Send + Sync, ParseError> {
    let filter = EnvFilter::try_new(&log.filter)?;
    let configured = log.filter.clone();
    let discreet = filter_fn(move |event| !tells_too_much(&configured, event)).with_max_level_hint(LevelFilter::TRACE);
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !is_terminal,
    };
    let layer = tracing_subscriber::fmt::layer().with_ansi(is_terminal);
    let layer = if json {
        let layer = layer.json().flatten_event(true).with_current_span(false).with_span_list(false);
        layer.with_writer(move || Escaping(output())).boxed()
    } else {
        layer.fmt_fields(debug_fn(field).delimited(" ")).with_target(false).with_writer(output).boxed()
    };
    Ok(tracing_subscriber::registry().with(layer.with_filter(filter.and(discreet))))
}

fn tells_too_much(configured: &str, event: &Metadata<'_>) -> bool {
    let is_of =
        |name: &str| event.target().strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    // Whoever names it has asked for it.
    SPEAK_TOO_MUCH.iter().any(|(name, most)| is_of(name) && event.level() > most && !configured.contains(name))
}

/// A field of an event as text.
fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let shown = inert(&format!("{value:?}"));
    if field.name() == "message" { writer.write_str(&shown) } else { write!(writer, "{}={shown}", field.name()) }
}

/// Escapes in a line of JSON what a terminal would obey or hide: there it can only be within a text.
struct Escaping<W>(W);

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(line) {
            Ok(text) => self.0.write_all(escaped(text).as_bytes())?,
            Err(_) => self.0.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, format: LogFormat, speak: impl FnOnce()) -> String {
        let paper = Paper::default();
        let log = Log { filter: filter.to_owned(), format };
        let output = paper.clone();
        tracing::subscriber::with_default(subscriber(&log, false, move || output.clone()).unwrap(), speak);
        let bytes = paper.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_event_is_one_line_and_nothing_of_it_is_obeyed() {
        let nasty = "a\u{1b}[2J\r\n2026-01-01T00:00:00Z ERROR forged\u{202e}\u{200b}\u{9b}31m\u{7f}\u{2028}b";
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged("info", format, || tracing::warn!(tag = nasty, shown = %nasty, "{nasty}"));
            assert_eq!((text.lines().count(), text.chars().last()), (1, Some('\n')), "{text:?}");
            let obeyed = text.trim_end().chars().find(|c| !crate::inert::is_printable(*c));
            assert_eq!(obeyed, None, "{text:?}");
        }
        let text = logged("info", LogFormat::Json, || tracing::warn!(shown = %nasty, "m"));
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&event["shown"], &event["message"]), (&nasty.into(), &"m".into()));
        let text = logged("info", LogFormat::Text, || tracing::warn!(count = 2, what = %"two words", "it is so"));
        assert!(text.ends_with(" WARN it is so count=2 what=two words\n"), "{text:?}");
    }

    #[test]
    fn the_sdks_answers_are_not_logged_unless_somebody_asks_for_them_by_name() {
        let speak = || {
            tracing::warn!(target: "aws_config::imds", "keys");
            tracing::error!(target: "aws_config", "denied");
            tracing::trace!(target: "aws_smithy_runtime::client::orchestrator", "answer");
            tracing::debug!(target: "aws_smithy_runtime", "attempt");
            tracing::trace!(target: "aws_smithy", "stranger");
        };
        for (filter, heard) in [
            ("off", ""),
            ("info", "denied"),
            ("debug", "denied attempt"),
            ("trace", "denied attempt stranger"),
            ("info,aws_config=debug", "keys denied"),
            ("info,aws_smithy_runtime=trace", "denied answer attempt"),
        ] {
            let text = logged(filter, LogFormat::Text, speak);
            let words: Vec<_> = text.lines().filter_map(|line| line.rsplit(' ').next()).collect();
            assert_eq!(words.join(" "), heard, "{filter}");
        }
        assert!(subscriber(&Log { filter: "what=is=that".to_owned(), ..Log::default() }, false, io::sink).is_err());
    }
}
