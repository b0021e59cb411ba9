//! Processing rules as they are written: which instances leave for Kafka, and what of them is hidden.
//!
//! A list of maps of one key each, in order: `- deny: {field: State.Name, matches: [stopped, terminated]}`. What can be
//! refused without seeing an instance is refused here, so that no rule does nothing in silence: a misspelled rule
//! might be the one that keeps a secret.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use wildmatch::WildMatch;

use super::check::Faults;
use super::secret::Scalar;
use super::{Collector, Source};

/// One rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// Where there are such rules, an instance must meet one of them.
    Allow(Condition),
    /// An instance that meets this is left out.
    Deny(Condition),
    /// Replaces values by a keyed hash: equal values stay equal.
    Hash(Hash),
    /// Replaces values by a text.
    Mask(Mask),
}

/// What an instance can meet: one of the field's values matches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Where to look.
    pub field: Path,
    /// What to find; without it, anything that is not empty.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub matches: Option<Globs>,
}

/// `hash`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hash {
    /// What to replace.
    pub field: Target,
}

/// `mask`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mask {
    /// What to replace.
    pub field: Target,
    /// By what.
    #[serde(default = "five_signs")]
    pub with: String,
}

/// Shows that something was there.
fn five_signs() -> String {
    "#####".to_owned()
}

/// A key without a value is a slip, and must not mean "anything".
fn written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Globs>, D::Error> {
    Globs::deserialize(deserializer).map(Some)
}

/// Where in an instance: names of members with dots between them, `*` for any, at the end perhaps `[GLOB]`, which picks
/// from a list of `{"Key", "Value"}` the values of the keys that match. Lists are gone into by themselves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Path {
    text: String,
    steps: Vec<Step>,
}

/// A part of a path.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Into the member of this name.
    Member(String),
    /// Into every member.
    Any,
    /// Into the value of a tag whose key matches.
    Tag(WildMatch),
}

impl Path {
    /// Its parts, at least one.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

impl TryFrom<String> for Path {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match steps(&text) {
            Ok(steps) => Ok(Self { text, steps }),
            Err(why) => Err(format!(
                "{text:?} is not the path of a field: {why}; as in Placement.AvailabilityZone or Tags[env]"
            )),
        }
    }
}

impl From<Path> for String {
    fn from(path: Path) -> Self {
        path.text
    }
}

fn steps(text: &str) -> Result<Vec<Step>, &'static str> {
    let mut steps = Vec::new();
    let mut rest = text;
    loop {
        let (name, after) = rest.split_at(rest.find(['.', '[', ']']).unwrap_or(rest.len()));
        steps.push(member(name)?);
        if let Some(next) = after.strip_prefix('.') {
            rest = next;
            continue;
        }
        if !after.is_empty() {
            let key = after.strip_prefix('[').and_then(|key| key.strip_suffix(']'));
            let key = key.ok_or("brackets hold the key of a tag, and nothing follows them")?;
            if key.is_empty() || key.contains(['[', ']']) {
                return Err("a tag's key is needed in the brackets, with * for any text and ? for any character");
            }
            steps.push(Step::Tag(WildMatch::new(key)));
        }
        return Ok(steps);
    }
}

fn member(name: &str) -> Result<Step, &'static str> {
    match name {
        "" => Err("the name of a member is missing"),
        "*" => Ok(Step::Any),
        _ if name.contains(['*', '?']) => Err("* can only take the place of a whole name"),
        // As EC2's have; a rule for `tags` would never do anything.
        _ if !name.starts_with(|first: char| first.is_ascii_uppercase()) => {
            Err("names of members begin with a capital")
        }
        _ => Ok(Step::Member(name.to_owned())),
    }
}

/// The path of what may be replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Path", into = "Path")]
pub struct Target(Path);

impl Target {
    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl TryFrom<Path> for Target {
    type Error = String;

    fn try_from(path: Path) -> Result<Self, String> {
        use Step::{Any, Member};
        let is = |step: &Step, name: &str| matches!(step, Member(member) if member == name);
        let why = match path.steps() {
            [id] if is(id, "InstanceId") || *id == Any => "InstanceId is the key of the record, it must stay as it is",
            [.., tags] if is(tags, "Tags") => "that is a list of pairs; name the tags, as in Tags[*]",
            [.., key] if is(key, "Key") => "a tag's key must stay as it is; name the tags, as in Tags[*]",
            [.., tags, Any] if is(tags, "Tags") => "a tag's key must stay as it is; name the tags, as in Tags[*]",
            _ => return Ok(Self(path)),
        };
        Err(format!("{:?} cannot be hashed or masked: {why}", path.text))
    }
}

impl From<Target> for Path {
    fn from(target: Target) -> Self {
        target.0
    }
}

/// Patterns: `*` stands for any text, `?` for any character, capitals count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "WrittenGlobs", into = "WrittenGlobs")]
pub struct Globs(Vec<WildMatch>);

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "a pattern or a list of patterns is needed")]
enum WrittenGlobs {
    One(Scalar),
    Many(Vec<Scalar>),
}

impl Globs {
    /// Whether one of them matches the whole text.
    pub fn matches(&self, text: &str) -> bool {
        self.0.iter().any(|glob| glob.matches(text))
    }
}

impl TryFrom<WrittenGlobs> for Globs {
    type Error = String;

    fn try_from(written: WrittenGlobs) -> Result<Self, String> {
        let patterns = match written {
            WrittenGlobs::One(pattern) => vec![pattern],
            WrittenGlobs::Many(patterns) => patterns,
        };
        if patterns.is_empty() {
            return Err("the list is empty; leave the key out where any value will do".to_owned());
        }
        Ok(Self(patterns.into_iter().map(|pattern| WildMatch::new(&String::from(pattern))).collect()))
    }
}

impl From<Globs> for WrittenGlobs {
    fn from(globs: Globs) -> Self {
        Self::Many(globs.0.iter().map(|glob| Scalar::Text(glob.pattern())).collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// The shortest key of a hash; an instance's addresses and names are soon guessed under a shorter one.
const HASH_KEY_BYTES: usize = 16;

/// Notes where the key of the hashes is missing, or too short.
pub(super) fn check_hash_key(collector: &Collector, faults: &mut Faults) {
    let has_hash = |source: &Source| source.rules.iter().any(|rule| matches!(rule, Rule::Hash(_)));
    match (&collector.hash_key, collector.sources.iter().find(|source| has_hash(source))) {
        (Some(key), _) => faults.unless(
            key.expose().len() >= HASH_KEY_BYTES,
            "collector.hash_key",
            format!("has {} bytes; {HASH_KEY_BYTES} random ones are needed, or more", key.expose().len()),
        ),
        (None, Some(source)) => faults.add(
            "collector.hash_key",
            format!(
                "is not set; the rules of source {:?} hash, and need it: {HASH_KEY_BYTES} random bytes or more",
                source.name
            ),
        ),
        (None, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(rule: Value) -> Result<Rule, String> {
        serde_path_to_error::deserialize(&rule).map_err(|error| error.to_string())
    }

    #[test]
    fn rules_are_written_as_maps_of_one_key_and_read_back_as_they_were() {
        for rule in [
            json!({"allow": {"field": "Tags[env]", "matches": "prod*"}}),
            json!({"deny": {"field": "State.Name", "matches": ["stopped", "terminated"]}}),
            json!({"deny": {"field": "Tags[kubernetes.io/cluster/*]"}}),
            json!({"hash": {"field": "NetworkInterfaces.*.PrivateIpAddress"}}),
            json!({"mask": {"field": "Tags[*]", "with": ""}}),
        ] {
            let read_once = read(rule.clone()).unwrap();
            assert_eq!(read(serde_json::to_value(&read_once).unwrap()), Ok(read_once), "{rule}");
        }
    }

    #[test]
    fn patterns_that_look_like_numbers_or_flags_are_text() {
        let Ok(Rule::Deny(condition)) = read(json!({"deny": {"field": "EbsOptimized", "matches": [true, 5]}})) else {
            panic!("a rule");
        };
        let globs = condition.matches.unwrap();
        assert!(globs.matches("true") && globs.matches("5") && !globs.matches("6"));
    }

    #[test]
    fn a_mask_is_five_signs_unless_told_otherwise() {
        let Ok(Rule::Mask(mask)) = read(json!({"mask": {"field": "KeyName"}})) else { panic!("a rule") };
        assert_eq!(mask.with, "#####");
    }

    #[test]
    fn what_can_do_nothing_is_refused_with_the_reason() {
        for (rule, reason) in [
            (json!({"drop": {"field": "KeyName"}}), "allow"),
            (json!({"deny": {"fields": "KeyName"}}), "unknown field `fields`"),
            (json!({"deny": {"field": ""}}), "name of a member is missing"),
            (json!({"deny": {"field": "A..B"}}), "name of a member is missing"),
            (json!({"deny": {"field": "[env]"}}), "name of a member is missing"),
            (json!({"deny": {"field": "tags[env]"}}), "begin with a capital"),
            (json!({"deny": {"field": "Priv*.X"}}), "whole name"),
            (json!({"deny": {"field": "Tags[env].Value"}}), "nothing follows"),
            (json!({"deny": {"field": "Tags[env"}}), "nothing follows"),
            (json!({"deny": {"field": "Tags]"}}), "nothing follows"),
            (json!({"deny": {"field": "Tags[]"}}), "a tag's key is needed"),
            (json!({"deny": {"field": "Tags[a][b]"}}), "a tag's key is needed"),
            (json!({"deny": {"field": "KeyName", "matches": []}}), "the list is empty"),
            (json!({"deny": {"field": "KeyName", "matches": null}}), "a pattern or a list of patterns"),
            (json!({"hash": {"field": "KeyName", "matches": "x"}}), "unknown field `matches`"),
        ] {
            let error = read(rule.clone()).unwrap_err();
            assert!(error.contains(reason), "{rule} gave {error}");
        }
    }

    #[test]
    fn neither_the_instance_id_nor_the_key_of_a_tag_can_be_replaced() {
        for (field, reason) in [
            ("InstanceId", "key of the record"),
            ("*", "key of the record"),
            ("Tags", "Tags[*]"),
            ("Tags.Key", "Tags[*]"),
            ("Tags.*", "Tags[*]"),
            ("NetworkInterfaces.Tags", "Tags[*]"),
            ("*.Key", "Tags[*]"),
        ] {
            for rule in ["hash", "mask"] {
                let error = read(json!({rule: {"field": field}})).unwrap_err();
                assert!(error.contains(field) && error.contains(reason), "{rule} {field} gave {error}");
            }
            assert!(read(json!({"deny": {"field": field}})).is_ok(), "{field}");
        }
    }

    #[test]
    fn the_example_of_the_readme_is_a_configuration() {
        let (_, section) = include_str!("../../README.md").split_once("### Processing rules").unwrap();
        let (yaml, _) = section.split_once("```yaml\n").unwrap().1.split_once("```").unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), yaml).unwrap();
        let config = crate::config::load(Some(file.path()), &[]).unwrap();
        assert_eq!(config.collector.sources[0].rules.len(), 4, "{yaml}");
        assert!(config.collector.hash_key.is_some());
    }
}
