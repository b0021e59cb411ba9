//! `rollcall render`: instances to events without Kafka, the way to try a mapping.

use std::io::{self, Write};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;

use crate::inert::write_line;
use crate::profile::change::{Occurrence, Origin};
use crate::profile::{Mapping, Scope};

/// What the instances themselves do not tell.
#[derive(Debug, Clone)]
pub struct Context {
    /// When they were observed.
    pub observed_at: DateTime<Utc>,
    /// The account, for instances that do not name their owner.
    pub account: Option<String>,
    /// The region, which they do not name.
    pub region: Option<String>,
}

/// What came of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Rendered {
    /// Events written.
    pub events: usize,
    /// Instances that cannot be mapped; each was named on the way.
    pub rejected: usize,
}

/// Writes the event that `created` would be, one a line, for each instance. `complain` is told of each that cannot be
/// mapped, and of members that could not be read.
///
/// # Errors
/// When the output cannot be written.
pub fn render(
    mapping: &Mapping,
    context: &Context,
    instances: &[Value],
    output: &mut dyn Write,
    complain: &mut dyn FnMut(String),
) -> io::Result<Rendered> {
    let mut rendered = Rendered::default();
    let observed_at = context.observed_at.timestamp_millis();
    let original_time = context.observed_at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let origin = Origin { original_time: Some(&original_time), ..Origin::default() };
    let occurrence = Occurrence::created(observed_at, origin);
    let scope = Scope { account: context.account.as_deref(), region: context.region.as_deref() };
    for (index, value) in instances.iter().enumerate() {
        let number = index + 1;
        let text = value.to_string();
        let instance = match mapping.read(&text) {
            Ok(instance) => instance,
            Err(error) => {
                rendered.rejected += 1;
                complain(format!("instance {number} is not a JSON object: {error}"));
                continue;
            }
        };
        let Some(id) = instance.instance_id.text() else {
            rendered.rejected += 1;
            complain(format!("instance {number} has no InstanceId, or one that is not text"));
            continue;
        };
        instance.unreadable(&mut |path| complain(format!("{id}: {path} cannot be read and is taken for absent")));
        let mut device = mapping.render(id, &instance, scope);
        write_line(&mapping.event(&mut device, &occurrence), output)?;
        rendered.events += 1;
    }
    output.flush()?;
    Ok(rendered)
}
