//! The records of `ec2.sweeps`: their keys, and their Avro values (`schemas/sweep-*.avsc`).

use std::fmt;
use std::sync::LazyLock;

use apache_avro::Schema;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::avro::{DecodeError, SingleObject, embedded};

/// Ends the key of an acceptance. No region has it in its name.
const ACCEPTANCE: &str = "!accept";

/// What a record is about. A scope is `source/account/region`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key<'a> {
    /// The scope's last sweep.
    Head(&'a str),
    /// An instance of the scope.
    Entry(&'a str, &'a str),
    /// An operator's word on the scope.
    Acceptance(&'a str),
}

impl<'a> Key<'a> {
    /// Reads a key; `None` where it is not one of ours.
    pub fn parse(key: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(key).ok()?;
        if let Some(scope) = text.strip_suffix(ACCEPTANCE).filter(|scope| scope.split('/').count() == 3) {
            return Some(Self::Acceptance(scope));
        }
        let mut slashes = text.match_indices('/').map(|(at, _)| at);
        let (_, _) = (slashes.next()?, slashes.next()?);
        Some(match slashes.next() {
            None => Self::Head(text),
            Some(at) => Self::Entry(&text[..at], &text[at + 1..]),
        })
    }

    /// The scope that the record belongs to.
    pub fn scope(&self) -> &'a str {
        match self {
            Self::Head(scope) | Self::Entry(scope, _) | Self::Acceptance(scope) => scope,
        }
    }
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(scope) => formatter.write_str(scope),
            Self::Entry(scope, id) => write!(formatter, "{scope}/{id}"),
            Self::Acceptance(scope) => write!(formatter, "{scope}{ACCEPTANCE}"),
        }
    }
}

/// How a sweep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "SweepVerdict")]
pub enum Verdict {
    /// Not yet; or its collector died.
    Sweeping,
    /// Every page was received, and every instance published.
    Complete,
    /// Not so; nothing may be concluded from what is missing.
    Incomplete,
    /// Complete, but more had vanished than is believed without an operator.
    Held,
}

impl Verdict {
    /// As in metrics and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sweeping => "sweeping",
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Held => "held",
        }
    }
}

/// A scope's last sweep. Times are milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "SweepHead")]
pub struct Head {
    /// Header `sweep-id` of its raw records.
    pub sweep_id: String,
    /// When it began.
    pub began: i64,
    /// When it ended.
    pub ended: Option<i64>,
    /// How.
    pub verdict: Verdict,
    /// Kind of what made it incomplete.
    pub fault: Option<String>,
    /// When the last complete sweep began.
    pub last_complete: Option<i64>,
    /// Instances whose absence is held back.
    pub missing: i64,
    /// Digest of the source's filters at the last complete sweep.
    pub filters: i64,
    /// Whether the configuration no longer names this scope.
    pub out_of_scope: bool,
    /// The latest observation that was published: a tombstone is not older.
    pub observed: i64,
}

impl Head {
    /// A sweep that has just begun.
    pub fn begun(sweep_id: &str, began: i64) -> Self {
        Self {
            sweep_id: sweep_id.to_owned(),
            began,
            ended: None,
            verdict: Verdict::Sweeping,
            fault: None,
            last_complete: None,
            missing: 0,
            filters: 0,
            out_of_scope: false,
            observed: 0,
        }
    }
}

/// `State.Name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum InstanceState {
    Pending,
    Running,
    ShuttingDown,
    Terminated,
    Stopping,
    Stopped,
    /// Missing, or newer than this release.
    Other,
}

impl InstanceState {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Running,
        Self::ShuttingDown,
        Self::Terminated,
        Self::Stopping,
        Self::Stopped,
        Self::Other,
    ];

    /// As in metrics: EC2's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Other => "other",
        }
    }

    /// From `State.Name` of an instance.
    pub fn from_name(name: Option<&str>) -> Self {
        Self::ALL.into_iter().find(|state| Some(state.name()) == name).unwrap_or(Self::Other)
    }

    /// Whether the instance is on its way out: that it vanishes is expected.
    pub fn is_ending(self) -> bool {
        matches!(self, Self::ShuttingDown | Self::Terminated)
    }
}

/// What is known of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// When it was last published.
    pub state: InstanceState,
    /// Whether it had tags then.
    pub tagged: bool,
    /// Whether it is where it should be.
    pub standing: Standing,
}

/// Whether an instance is where it should be. Times are seconds since the epoch: there are many of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The last complete sweep listed it.
    Present,
    /// It did not.
    Suspect {
        /// Complete sweeps in a row that did not.
        absences: u8,
        /// When the first of them began.
        first_missed: u32,
        /// When the last one began that did, as far as is known; 0 where it is not.
        last_seen: u32,
    },
    /// It exists, but filters or rules leave it out.
    OutOfScope,
}

impl Standing {
    /// Nobody knows whether it was published, and no complete sweep has missed it yet. Never on the topic.
    pub const IN_DOUBT: Self = Self::Suspect { absences: 0, first_missed: 0, last_seen: 0 };
}

impl Entry {
    /// Whether filters or rules leave it out.
    pub fn is_out_of_scope(&self) -> bool {
        self.standing == Standing::OutOfScope
    }
}

/// An operator's word that what vanished from a scope is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "SweepAcceptance")]
pub struct Acceptance {
    /// How many may be missing.
    pub missing: i64,
    /// When it was given, milliseconds since the epoch.
    pub at: i64,
}

/// A record; `None` is a null, which forgets.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Record {
    Head(Option<Head>),
    Entry(CompactString, Option<Entry>),
    Acceptance(Option<Acceptance>),
}

/// `schemas/sweep-entry.avsc`, member for member.
#[derive(Serialize, Deserialize)]
#[serde(rename = "SweepEntry")]
struct WrittenEntry {
    state: InstanceState,
    tagged: bool,
    absences: i32,
    first_missed: Option<i64>,
    last_seen: Option<i64>,
    out_of_scope: bool,
}

impl From<Entry> for WrittenEntry {
    fn from(Entry { state, tagged, standing }: Entry) -> Self {
        let (absences, first_missed, last_seen) = match standing {
            Standing::Suspect { absences, first_missed, last_seen } => {
                (absences, Some(first_missed.into()), (last_seen > 0).then_some(last_seen.into()))
            }
            Standing::Present | Standing::OutOfScope => (0, None, None),
        };
        let out_of_scope = standing == Standing::OutOfScope;
        Self { state, tagged, absences: absences.into(), first_missed, last_seen, out_of_scope }
    }
}

impl From<WrittenEntry> for Entry {
    fn from(written: WrittenEntry) -> Self {
        let seconds = |time: Option<i64>| time.and_then(|time| u32::try_from(time).ok()).unwrap_or_default();
        let standing = match written.first_missed {
            _ if written.out_of_scope => Standing::OutOfScope,
            None => Standing::Present,
            first_missed => Standing::Suspect {
                absences: written.absences.clamp(0, 255) as u8,
                first_missed: seconds(first_missed),
                last_seen: seconds(written.last_seen),
            },
        };
        Self { state: written.state, tagged: written.tagged, standing }
    }
}

struct Formats {
    head: SingleObject<Head>,
    entry: SingleObject<WrittenEntry>,
    acceptance: SingleObject<Acceptance>,
}

static HEAD: LazyLock<Schema> = LazyLock::new(|| embedded(include_str!("../../../schemas/sweep-head.avsc")));
static ENTRY: LazyLock<Schema> = LazyLock::new(|| embedded(include_str!("../../../schemas/sweep-entry.avsc")));
static ACCEPTED: LazyLock<Schema> = LazyLock::new(|| embedded(include_str!("../../../schemas/sweep-acceptance.avsc")));

static FORMATS: LazyLock<Formats> = LazyLock::new(|| {
    let broken = "an embedded schema is usable";
    Formats {
        head: SingleObject::new(&HEAD).expect(broken),
        entry: SingleObject::new(&ENTRY).expect(broken),
        acceptance: SingleObject::new(&ACCEPTED).expect(broken),
    }
});

impl Record {
    /// The value of the record; `None` is a null.
    ///
    /// # Panics
    /// When a schema does not fit its type: a fault of the build, which the first test finds.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let fits = "a record fits its embedded schema";
        match self {
            Self::Head(head) => head.as_ref().map(|head| FORMATS.head.encode(head).expect(fits)),
            Self::Entry(_, entry) => entry.map(|entry| FORMATS.entry.encode(&entry.into()).expect(fits)),
            Self::Acceptance(acceptance) => {
                acceptance.as_ref().map(|acceptance| FORMATS.acceptance.encode(acceptance).expect(fits))
            }
        }
    }

    /// Reads the value of the record under `key`.
    ///
    /// # Errors
    /// When it is none of ours, damaged, or of a newer release.
    pub fn decode(key: &Key<'_>, value: Option<&[u8]>) -> Result<Self, DecodeError> {
        Ok(match key {
            Key::Head(_) => Self::Head(value.map(|value| FORMATS.head.decode(value)).transpose()?),
            Key::Entry(_, id) => {
                let written = value.map(|value| FORMATS.entry.decode(value)).transpose()?;
                Self::Entry((*id).into(), written.map(Entry::from))
            }
            Key::Acceptance(_) => Self::Acceptance(value.map(|value| FORMATS.acceptance.decode(value)).transpose()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        for key in [
            Key::Head("s/1/r"),
            Key::Entry("s/-/-", "i-1"),
            Key::Entry("s/1/r", "a/b"),
            Key::Entry("s/1/r", "i!accept"),
            Key::Acceptance("s/1/r"),
        ] {
            assert_eq!(Key::parse(key.to_string().as_bytes()), Some(key));
        }
        for foreign in ["", "s", "s/1", "s!accept"] {
            assert_eq!(Key::parse(foreign.as_bytes()), None, "{foreign}");
        }
    }

    #[test]
    fn values_are_read_as_they_are_written() {
        let suspect = Standing::Suspect { absences: 2, first_missed: 1_700_000_000, last_seen: 0 };
        for standing in [Standing::Present, suspect, Standing::OutOfScope] {
            let record =
                Record::Entry("i-1".into(), Some(Entry { state: InstanceState::Stopping, tagged: false, standing }));
            assert_eq!(Record::decode(&Key::Entry("s", "i-1"), record.encode().as_deref()), Ok(record));
        }
        let head = Head { ended: Some(2), fault: Some("denied".to_owned()), ..Head::begun("id", 1) };
        let record = Record::Head(Some(head));
        assert_eq!(Record::decode(&Key::Head("s"), record.encode().as_deref()), Ok(record));
        assert_eq!(Record::decode(&Key::Head("s"), None), Ok(Record::Head(None)));
    }

    #[test]
    fn the_states_are_in_the_order_of_their_numbers_and_have_the_names_that_they_are_read_by() {
        for (index, state) in InstanceState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, index);
            assert_eq!(InstanceState::from_name(Some(state.name())), state);
        }
        assert_eq!(InstanceState::from_name(Some("hibernating")), InstanceState::Other);
        assert_eq!(InstanceState::from_name(None), InstanceState::Other);
    }
}
