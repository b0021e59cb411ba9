//! From the JSON configuration of Sumo Logic's "CSE AWS EC2 Inventory" sources to a configuration of ours.
//!
//! Pure: text in, a document and notes out. Everything that a source says is either in the document or in a note, and
//! no message repeats a value of `authentication`, except a role's ARN. `docs/import-sumo.md` has the table.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value};

#[cfg(test)]
mod tests;

/// What `schemaRef.type` says of the sources that this can read.
const SOURCE_TYPE: &str = "CSE AWS EC2 Inventory";
/// Minutes between sweeps where the source does not say.
const POLLING_INTERVAL: u64 = 600;

/// What came of it.
#[derive(Debug)]
pub struct Translation {
    /// The sources as a configuration.
    pub document: Document,
    /// What is not in it, and what is to be done: one sentence each, with the member's name first.
    pub notes: Vec<String>,
}

/// A configuration, in the order in which people write it.
#[derive(Debug, Serialize)]
pub struct Document {
    collector: Collector,
}

#[derive(Debug, Serialize)]
struct Collector {
    sources: Vec<Source>,
}

#[derive(Debug, Serialize)]
struct Source {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<String, String>,
    siem_forward: bool,
    polling_interval: u64,
    aws: Aws,
}

#[derive(Debug, Serialize)]
struct Aws {
    regions: Regions,
    #[serde(flatten)]
    access: Access,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Regions {
    All(&'static str),
    Listed(Vec<String>),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Access {
    Accounts([Role; 1]),
    Credentials(Credentials),
}

#[derive(Debug, Serialize)]
struct Role {
    role_arn: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Credentials {
    Static(AccessKey),
}

/// The secret part stays out of files.
#[derive(Debug, Serialize)]
struct AccessKey {
    access_key_id: String,
}

/// Why a text cannot be translated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// It is not JSON.
    #[error("is not JSON: {0}")]
    NotJson(String),
    /// A member is missing, or says what cannot be.
    #[error("{member}: {message}")]
    Member {
        /// Its path.
        member: String,
        /// What is wrong, and what is needed.
        message: String,
    },
}

fn wrong(member: impl Into<String>, message: impl Into<String>) -> ImportError {
    ImportError::Member { member: member.into(), message: message.into() }
}

/// Translates `{"source": {"config": …}}`, `{"sources": […]}`, a bare `config`, or a list of any of these.
///
/// # Errors
/// When it is not JSON, when it is the configuration of something else, or when a member is missing or wrong.
pub fn translate(text: &str) -> Result<Translation, ImportError> {
    let value: Value = serde_json::from_str(text).map_err(|error| ImportError::NotJson(error.to_string()))?;
    let mut notes = Vec::new();
    let mut configs = Vec::new();
    unwrap(value, "", &mut configs, &mut notes)?;
    if configs.is_empty() {
        return Err(wrong("source", "there is none; {\"source\": {\"config\": {…}}} is needed, or a list of such"));
    }
    let mut sources = Vec::new();
    let mut names = BTreeSet::new();
    for (place, config) in configs {
        let source = Reader { members: config, place, notes: &mut notes }.source(sources.len())?;
        if !names.insert(source.name.clone()) {
            return Err(wrong("name", format!("two sources are called {:?}; names must be unique", source.name)));
        }
        sources.push(source);
    }
    Ok(Translation { document: Document { collector: Collector { sources } }, notes })
}

/// Finds the `config` objects and where they are; notes what is around them.
fn unwrap(
    value: Value,
    place: &str,
    configs: &mut Vec<(String, Map<String, Value>)>,
    notes: &mut Vec<String>,
) -> Result<(), ImportError> {
    match value {
        Value::Array(list) => {
            let mut elements = list.into_iter().enumerate();
            elements.try_for_each(|(index, element)| unwrap(element, &format!("{place}[{index}]"), configs, notes))
        }
        Value::Object(mut object) => {
            let inner = ["source", "sources", "config"].iter().find_map(|name| Some((*name, object.remove(*name)?)));
            let Some((name, inner)) = inner else {
                configs.push((place.to_owned(), object));
                return Ok(());
            };
            let of_type = object.get("schemaRef").and_then(|schema| schema["type"].as_str());
            if let Some(other) = of_type.filter(|name| *name != SOURCE_TYPE) {
                let message = format!("{other:?} is the configuration of something else; {SOURCE_TYPE:?} is needed");
                return Err(wrong(join(place, "schemaRef.type"), message));
            }
            notes.extend(object.keys().map(|name| format!("{}: {}", join(place, name), why_left_out(name))));
            let is_config = name == "config" && !inner.is_object();
            if is_config || !(inner.is_object() || inner.is_array()) {
                return Err(wrong(join(place, name), "is not a JSON object"));
            }
            unwrap(inner, &join(place, name), configs, notes)
        }
        _ => Err(wrong(if place.is_empty() { "document" } else { place }, "is not a JSON object")),
    }
}

fn join(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
}

fn why_left_out(name: &str) -> &'static str {
    match name {
        "api.version" => "left out; Rollcall's configuration has no version",
        "schemaRef" | "sourceType" => "left out; the key `aws` says what kind of source it is",
        "state" => "left out; a source collects while `rollcall collect` runs",
        "filters" => {
            "left out: WHAT IT HID OR DROPPED WILL BE PUBLISHED until it is written as `rules`; a regular expression \
             on a text has no counterpart in rules on fields"
        }
        _ => "left out; it has no counterpart",
    }
}

/// Takes the members of a `config`, and notes what is left.
struct Reader<'n> {
    members: Map<String, Value>,
    /// The path of `config`.
    place: String,
    notes: &'n mut Vec<String>,
}

impl Reader<'_> {
    fn source(mut self, index: usize) -> Result<Source, ImportError> {
        let name = self.name()?;
        let description = self.text("description")?;
        let category = self.text("category")?;
        let (fields, siem_forward) = self.fields()?;
        let polling_interval = self.polling_interval()?;
        let regions = self.regions()?;
        let access = self.access(index)?;
        for (name, value) in std::mem::take(&mut self.members) {
            if !value.is_null() {
                self.note(&name, why_left_out(&name));
            }
        }
        Ok(Source { name, description, category, fields, siem_forward, polling_interval, aws: Aws { regions, access } })
    }

    fn note(&mut self, member: &str, message: impl AsRef<str>) {
        self.notes.push(format!("{}: {}", join(&self.place, member), message.as_ref()));
    }

    fn wrong(&self, member: &str, message: impl Into<String>) -> ImportError {
        wrong(join(&self.place, member), message)
    }

    /// A member; null is as good as none.
    fn take(&mut self, member: &str) -> Option<Value> {
        self.members.remove(member).filter(|value| !value.is_null())
    }

    fn text(&mut self, member: &str) -> Result<Option<String>, ImportError> {
        match self.take(member) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(member, "is not a text")),
        }
    }

    fn required(&mut self, member: &str) -> Result<String, ImportError> {
        match self.text(member)?.filter(|text| !text.trim().is_empty()) {
            Some(text) => Ok(text),
            None => Err(self.wrong(member, "is missing; it is required")),
        }
    }

    /// Ours is a part of keys.
    fn name(&mut self) -> Result<String, ImportError> {
        let given = self.required("name")?;
        let name = given.replace(|c: char| c == '/' || c.is_control(), "-");
        if name != given {
            self.note("name", format!("{given:?} has a slash or a control character in it, and became {name:?}"));
        }
        Ok(name)
    }

    fn fields(&mut self) -> Result<(BTreeMap<String, String>, bool), ImportError> {
        let given = match self.take("fields") {
            None => Map::new(),
            Some(Value::Object(fields)) => fields,
            Some(_) => return Err(self.wrong("fields", "is not a JSON object")),
        };
        let mut fields = BTreeMap::new();
        for (name, value) in given {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text,
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                Value::Array(_) | Value::Object(_) => {
                    return Err(self.wrong(&format!("fields.{name}"), "is neither text nor number nor flag"));
                }
            };
            fields.insert(name, text);
        }
        let siem_forward = match fields.remove("_siemForward").as_deref() {
            Some("true") => true,
            Some("false") => false,
            None => {
                self.note(
                    "fields._siemForward",
                    "is missing, which is off there and on here; wrote siem_forward: false",
                );
                false
            }
            Some(other) => {
                return Err(self.wrong("fields._siemForward", format!("{other:?} is neither true nor false")));
            }
        };
        Ok((fields, siem_forward))
    }

    fn polling_interval(&mut self) -> Result<u64, ImportError> {
        match self.take("polling_interval") {
            None => {
                let message = format!(
                    "is missing, which is {POLLING_INTERVAL} minutes there and 5 here; wrote {POLLING_INTERVAL}"
                );
                self.note("polling_interval", message);
                Ok(POLLING_INTERVAL)
            }
            Some(value) => match value.as_u64() {
                Some(minutes @ 1..=10_080) => Ok(minutes),
                _ => Err(self.wrong("polling_interval", format!("{value} is not allowed: 1 to 10080 whole minutes"))),
            },
        }
    }

    fn regions(&mut self) -> Result<Regions, ImportError> {
        const NEEDED: &str = "a list of regions is needed, as in [\"us-east-2\"], or [\"all\"]";
        let regions = match self.take("limitToRegions") {
            Some(Value::Array(regions)) => regions,
            Some(_) => return Err(self.wrong("limitToRegions", NEEDED)),
            None => return Err(self.wrong("limitToRegions", format!("is missing; {NEEDED}"))),
        };
        let names: Option<Vec<_>> = regions.iter().map(|region| region.as_str().map(str::to_owned)).collect();
        match names {
            Some(names) if names.iter().any(|name| name == "all") => {
                if names.len() > 1 {
                    self.note("limitToRegions", "has \"all\" among others; wrote regions: all");
                }
                Ok(Regions::All("all"))
            }
            Some(names) if !names.is_empty() => Ok(Regions::Listed(names)),
            _ => Err(self.wrong("limitToRegions", NEEDED)),
        }
    }

    fn access(&mut self, index: usize) -> Result<Access, ImportError> {
        let members = match self.take("authentication") {
            Some(Value::Object(members)) => members,
            Some(_) => return Err(self.wrong("authentication", "is not a JSON object")),
            None => return Err(self.wrong("authentication", "is missing; it is required")),
        };
        let place = join(&self.place, "authentication");
        let mut given = Reader { members, place, notes: &mut *self.notes };
        let access = match given.required("type")?.as_str() {
            "AWSRoleBasedAuthentication" => {
                let role_arn = given.required("roleARN")?;
                if is_placeholder(&role_arn) {
                    let message =
                        format!("{role_arn:?} is a placeholder, and will be refused at start: put the role's own in");
                    given.note("roleARN", message);
                }
                given.note(
                    "roleARN",
                    "its trust policy names Sumo Logic's account and external ID; let it trust your collector",
                );
                Access::Accounts([Role { role_arn }])
            }
            "S3BucketAuthentication" => {
                let access_key_id = given.required("awsId")?;
                if is_placeholder(&access_key_id) {
                    given.note("awsId", "is a placeholder, and will not be accepted: put the key's own ID in");
                }
                let secret = given.required("awsKey")?;
                let variable =
                    format!("ROLLCALL_COLLECTOR__SOURCES__{index}__AWS__CREDENTIALS__STATIC__SECRET_ACCESS_KEY");
                let what =
                    if is_placeholder(&secret) { "is a placeholder" } else { "is a secret, which is not printed" };
                given.note("awsKey", format!("{what}; set {variable}"));
                Access::Credentials(Credentials::Static(AccessKey { access_key_id }))
            }
            other => {
                let message = format!("{other:?} is not known: AWSRoleBasedAuthentication or S3BucketAuthentication");
                return Err(given.wrong("type", message));
            }
        };
        for (name, value) in std::mem::take(&mut given.members) {
            if !value.is_null() {
                given.note(&name, "left out; this type of authentication does not use it");
            }
        }
        Ok(access)
    }
}

/// Values are made unreadable with `X` in examples.
fn is_placeholder(value: &str) -> bool {
    value.contains("XXXX")
}
