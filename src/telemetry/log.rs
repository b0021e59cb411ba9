//! Logs, on standard error: text for people, JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::{Log, LogFormat};

/// The AWS SDK warns of credentials that it cannot get by printing the whole answer, which may hold keys.
const SPEAKS_TOO_MUCH: &str = "aws_config";

/// What is to be logged: as configured, but for what would tell secrets by the way.
fn filter(configured: &str) -> Result<EnvFilter, ParseError> {
    let filter = EnvFilter::try_new(configured)?;
    // Whoever names it has asked for it.
    if configured.contains(SPEAKS_TOO_MUCH) {
        return Ok(filter);
    }
    Ok(filter.add_directive(format!("{SPEAKS_TOO_MUCH}=error").parse()?))
}

/// Starts logging.
///
/// # Errors
/// When the filter cannot be read.
pub fn init(log: &Log) -> Result<(), ParseError> {
    let filter = filter(&log.filter)?;
    let is_terminal = std::io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !is_terminal,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(is_terminal);
    // A second start, in tests, keeps the first.
    let _ = if json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        builder.with_target(false).try_init()
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdks_answers_are_not_logged_unless_somebody_asks_for_them_by_name() {
        for (configured, effective) in [
            ("info", "aws_config=error,info"),
            ("trace", "aws_config=error,trace"),
            ("info,aws_config=debug", "aws_config=debug,info"),
        ] {
            assert_eq!(filter(configured).unwrap().to_string(), effective);
        }
        assert!(filter("what=is=that").is_err());
    }
}
