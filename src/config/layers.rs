//! From file, environment and flags to one document, and from there to [`Config`].

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};
use zeroize::{Zeroize, Zeroizing};

use super::check::{self, Fault};
use super::{Config, Secret};

/// Many times the largest list of accounts.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// Prefix of the variables that override the file; `__` separates the parts of a key.
const PREFIX: &str = "ROLLCALL_";
/// Names under the prefix that are no keys but our own.
const NOT_KEYS: [&str; 3] = ["CONFIG", "CACHE", "TEST_"];
/// In the names that Kubernetes sets for a service whose name begins with `rollcall`.
const OF_KUBERNETES: [&str; 2] = ["SERVICE_", "PORT"];

/// A value that takes the place of what the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The key's parts, as in `["kafka", "bootstrap_servers"]`.
    key: Vec<String>,
    /// The value, of a password as it may be; YAML, where the key does not take text.
    value: Secret,
    /// Where it comes from, for messages.
    origin: String,
}

impl Override {
    /// From a flag: `kafka.bootstrap_servers=localhost:9092`.
    ///
    /// # Errors
    /// When there is no `=`.
    pub fn from_flag(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, as in mapper.profile=sekoia")?;
        Ok(Self::new(key, value, "--set"))
    }

    /// The value of `key`, written with dots, as given by `origin`.
    pub fn new(key: &str, value: &str, origin: &str) -> Self {
        let parts: Vec<_> = match key.strip_prefix("kafka.properties.") {
            // The names of these have dots in them.
            Some(property) => vec!["kafka", "properties", property],
            None => key.split('.').collect(),
        };
        let key = parts.into_iter().map(str::to_owned).collect();
        Self { key, value: value.into(), origin: origin.to_owned() }
    }

    /// How deep the key lies: a whole structure has to be set before what is in it.
    pub fn depth(&self) -> usize {
        self.key.len()
    }

    /// From a variable, if it is one of ours: `ROLLCALL_KAFKA__BOOTSTRAP_SERVERS`, or, since a variable's name can have
    /// no dots, `ROLLCALL_KAFKA__PROPERTIES__SASL_PASSWORD`.
    pub fn from_variable(name: &str, value: &str) -> Option<Self> {
        let key = name.strip_prefix(PREFIX).filter(|key| !key.is_empty())?;
        let is_of_kubernetes = !key.contains("__") && OF_KUBERNETES.iter().any(|part| key.contains(part));
        if is_of_kubernetes || NOT_KEYS.iter().any(|other| key.starts_with(other)) {
            return None;
        }
        let mut key: Vec<_> = key.to_lowercase().split("__").map(str::to_owned).collect();
        // Behind a property may be the `file` that holds it.
        if let [kafka, properties, property, ..] = &mut key[..]
            && (kafka.as_str(), properties.as_str()) == ("kafka", "properties")
        {
            *property = property.replace('_', ".");
        }
        Some(Self { key, value: value.into(), origin: name.to_owned() })
    }
}

/// What is wrong with a configuration: all that could be found at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub Vec<Fault>);

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the configuration cannot be used")?;
        for Fault { key, message } in &self.0 {
            write!(formatter, "\n  {key}: {message}")?;
        }
        Ok(())
    }
}

impl ConfigError {
    fn one(key: impl Into<String>, message: impl Into<String>) -> Self {
        let (key, message) = (key.into(), message.into());
        Self(vec![Fault { key, message }])
    }
}

/// Reads and checks the configuration. Later overrides win over earlier ones.
///
/// # Errors
/// When the file cannot be read, or when a key is unknown or its value not allowed.
pub fn load(file: Option<&Path>, overrides: &[Override]) -> Result<Config, ConfigError> {
    let Some(path) = file else { return parse("", overrides) };
    let name = path.display().to_string();
    let mut text = Zeroizing::new(String::new());
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| ConfigError::one(&name, format!("cannot be read: {error}")))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::one(name, format!("is larger than {MAX_FILE_BYTES} bytes")));
    }
    of_text(&name, &text, overrides)
}

/// The same, of what a file holds.
///
/// # Errors
/// When the text is not YAML, or when a key is unknown or its value not allowed.
pub fn parse(text: &str, overrides: &[Override]) -> Result<Config, ConfigError> {
    of_text("configuration", text, overrides)
}

fn of_text(name: &str, text: &str, overrides: &[Override]) -> Result<Config, ConfigError> {
    let mut document = Document(document(name, text)?);
    for change in overrides {
        apply(&mut document, change)?;
    }
    let config = read(&document.0).map_err(|fault| ConfigError(vec![fault]))?;
    let faults = check::faults(&config);
    if faults.is_empty() { Ok(config) } else { Err(ConfigError(faults)) }
}

/// All keys as they were written, secrets among them: wiped when it has been read.
#[derive(Clone)]
struct Document(Value);

impl Drop for Document {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(list) => list.iter_mut().for_each(wipe),
        Value::Object(map) => map.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn document(name: &str, text: &str) -> Result<Value, ConfigError> {
    match yaml(text) {
        Ok(document @ Value::Object(_)) => Ok(document),
        Ok(Value::Null) => Ok(Value::Object(Map::new())),
        Ok(_) => Err(ConfigError::one(name, "is not a map of keys")),
        Err(error) => Err(ConfigError::one(name, format!("is neither YAML nor JSON: {error}"))),
    }
}

/// YAML, of which JSON is a part. Account IDs keep their leading zeros.
fn yaml(text: &str) -> Result<Value, String> {
    // No excerpt in a message: secrets may be near.
    let options = serde_saphyr::options! { leading_zero_numbers_as_strings: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

/// A variable is text. Where its key does not take text, the text is read as YAML.
fn apply(document: &mut Document, change: &Override) -> Result<(), ConfigError> {
    let key = change.key.join(".");
    let misplaced = |message: &str| ConfigError::one(&key, format!("{message} (from {})", change.origin));
    let mut as_text = document.clone();
    let Some(place) = place(&mut as_text.0, &change.key) else {
        return Err(misplaced("does not lead to a value"));
    };
    *place = Value::String(change.value.expose().to_owned());
    let fits = match read(&as_text.0) {
        Ok(_) => true,
        Err(fault) => !(fault.key == key || fault.key.starts_with(&format!("{key}."))),
    };
    if fits {
        *document = as_text;
        return Ok(());
    }
    let value = yaml(change.value.expose()).map_err(|error| misplaced(&error))?;
    if let Some(place) = self::place(&mut document.0, &change.key) {
        *place = value;
    }
    match read(&document.0) {
        Err(fault) if fault.key == key || fault.key.starts_with(&format!("{key}.")) => {
            Err(ConfigError::one(fault.key, format!("{} (from {})", fault.message, change.origin)))
        }
        _ => Ok(()),
    }
}

/// The place of a key, made where it is missing.
fn place<'a>(document: &'a mut Value, key: &[String]) -> Option<&'a mut Value> {
    key.iter().try_fold(document, |value, part| {
        if value.is_null() {
            *value = Value::Object(Map::new());
        }
        match value {
            Value::Object(map) => Some(map.entry(part.clone()).or_insert(Value::Null)),
            Value::Array(list) => list.get_mut(part.parse::<usize>().ok()?),
            _ => None,
        }
    })
}

fn read(document: &Value) -> Result<Config, Fault> {
    serde_path_to_error::deserialize(document).map_err(|error| {
        let key = error.path().to_string();
        Fault {
            key: if key == "." { "configuration".to_owned() } else { key.replace('[', ".").replace(']', "") },
            message: error.inner().to_string(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(yaml: &str, overrides: &[Override]) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), yaml).unwrap();
        load(Some(file.path()), overrides)
    }

    fn fault(yaml: &str) -> String {
        config(yaml, &[]).unwrap_err().0.iter().map(|fault| format!("{}: {}\n", fault.key, fault.message)).collect()
    }

    #[test]
    fn nothing_configured_is_the_defaults() {
        assert_eq!(load(None, &[]), Ok(Config::default()));
        assert_eq!(config("", &[]), Ok(Config::default()));
    }

    #[test]
    fn json_is_yaml() {
        let config = config(r#"{"kafka": {"partitions": 3}}"#, &[]).unwrap();
        assert_eq!(config.kafka.partitions, 3);
    }

    #[test]
    fn flags_win_over_variables_and_variables_over_the_file() {
        let variable = Override::from_variable("ROLLCALL_KAFKA__BOOTSTRAP_SERVERS", "variable:1").unwrap();
        let yaml = "kafka: {bootstrap_servers: 'file:1'}";
        assert_eq!(config(yaml, std::slice::from_ref(&variable)).unwrap().kafka.bootstrap_servers, "variable:1");
        let flag = Override::from_flag("kafka.bootstrap_servers=flag:1").unwrap();
        assert_eq!(config(yaml, &[variable, flag]).unwrap().kafka.bootstrap_servers, "flag:1");
    }

    #[test]
    fn what_overrides_may_be_a_secret_and_is_not_printed() {
        let variable = Override::from_variable("ROLLCALL_REGISTRY__PASSWORD", "hunter2").unwrap();
        let printed = format!("{variable:?}");
        assert!(printed.contains("ROLLCALL_REGISTRY__PASSWORD") && !printed.contains("hunter2"), "{printed}");
    }

    #[test]
    fn variables_are_text_numbers_or_whole_structures_as_their_key_takes() {
        let overrides = [
            Override::from_variable("ROLLCALL_INSTANCE_ID", "7").unwrap(),
            Override::from_variable("ROLLCALL_KAFKA__PARTITIONS", "7").unwrap(),
            Override::from_variable("ROLLCALL_MAPPER__COMMIT_INTERVAL", "250ms").unwrap(),
            Override::from_variable("ROLLCALL_COLLECTOR__SOURCES", "[{name: s, simulated: {instances: 5}}]").unwrap(),
            Override::from_variable("ROLLCALL_COLLECTOR__SOURCES__0__NAME", "t").unwrap(),
        ];
        let config = load(None, &overrides).unwrap();
        assert_eq!(config.instance_id.0, "7");
        assert_eq!(config.kafka.partitions, 7);
        assert_eq!(config.mapper.commit_interval.as_millis(), 250);
        assert_eq!(config.collector.sources[0].name, "t");
    }

    #[test]
    fn a_secret_may_lie_in_a_file_that_configuration_or_variable_names() {
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "hunter2\n").unwrap();
        let path = secret.path().to_str().unwrap();
        let overrides = [
            Override::from_variable("ROLLCALL_REGISTRY__PASSWORD__FILE", path).unwrap(),
            Override::from_variable("ROLLCALL_KAFKA__PROPERTIES__SASL_PASSWORD__FILE", path).unwrap(),
        ];
        let yaml =
            format!("{{registry: {{url: 'http://r', username: a}}, collector: {{hash_key: {{file: '{path}'}}}}}}");
        let error = config(&yaml, &overrides).unwrap_err();
        let [Fault { key, message }] = &error.0[..] else { panic!("only that key is too short: {error}") };
        assert!(key == "collector.hash_key" && !message.contains("hunter2"), "{error}");
        let config = config("registry: {url: 'http://r', username: a}", &overrides).unwrap();
        assert_eq!(config.registry.unwrap().password.unwrap().expose(), "hunter2");
        assert_eq!(config.kafka.properties["sasl.password"].expose(), "hunter2");
        let missing = Override::from_variable("ROLLCALL_REGISTRY__PASSWORD__FILE", "/nowhere").unwrap();
        let error = load(None, &[Override::new("registry.url", "http://r", "--set"), missing]).unwrap_err().to_string();
        assert!(error.contains("registry.password: the file /nowhere cannot be read"), "{error}");
        let large = tempfile::NamedTempFile::new().unwrap();
        large.as_file().set_len(MAX_FILE_BYTES + 1).unwrap();
        let error = load(Some(large.path()), &[]).unwrap_err().to_string();
        assert!(error.contains("is larger than 16777216 bytes"), "{error}");
    }

    #[test]
    fn other_peoples_variables_are_left_alone() {
        for name in ["PATH", "ROLLCALL_", "ROLLCALL_SERVICE_HOST", "ROLLCALL_MAPPER_PORT_9464_TCP", "ROLLCALL_CONFIG"] {
            assert_eq!(Override::from_variable(name, "x"), None, "{name}");
        }
    }

    #[test]
    fn an_unknown_key_names_itself_and_what_is_allowed() {
        let fault = fault("kafka: {bootstrap_server: x}");
        assert!(fault.contains("kafka.bootstrap_server"), "{fault}");
        assert!(fault.contains("unknown field") && fault.contains("`bootstrap_servers`"), "{fault}");
        let variable = Override::from_variable("ROLLCALL_KAFKA__BOTSTRAP", "x").unwrap();
        let error = load(None, &[variable]).unwrap_err().to_string();
        assert!(error.contains("kafka.botstrap") && error.contains("ROLLCALL_KAFKA__BOTSTRAP"), "{error}");
    }

    #[test]
    fn a_bad_value_names_key_value_and_what_is_allowed() {
        for (yaml, parts) in [
            ("mapper: {profile: splunk}", ["mapper.profile", "splunk", "sekoia"]),
            ("mapper: {commit_interval: soon}", ["mapper.commit_interval", "soon", "100ms"]),
            ("kafka: {partitions: many}", ["kafka.partitions", "many", "i32"]),
            ("kafka: {partitions: 0}", ["kafka.partitions", "0", "1"]),
            ("collector: {sources: [{name: a}]}", ["collector.sources.0", "a", "exactly one of aws, file, simulated"]),
        ] {
            let fault = fault(yaml);
            assert!(parts.iter().all(|part| fault.contains(part)), "{yaml} gave {fault}");
        }
    }

    #[test]
    fn all_that_no_type_can_refuse_is_told_at_once() {
        let fault = fault("kafka: {partitions: 0, sweep_partitions: -1}\nregistry: {url: nowhere}");
        assert_eq!(fault.lines().count(), 3, "{fault}");
    }

    #[test]
    fn an_address_with_a_password_is_refused_without_repeating_it() {
        let fault = fault("registry: {url: 'http://user:hunter2@registry:8081'}");
        assert!(fault.contains("registry.url") && !fault.contains("hunter2"), "{fault}");
    }

    #[test]
    fn account_ids_keep_their_zeros() {
        let config = config("collector: {sources: [{name: a, file: {path: x, account: 012345678901}}]}", &[]).unwrap();
        let super::super::SourceKind::File(file) = &config.collector.sources[0].kind else { panic!("a file") };
        assert_eq!(file.account.as_ref().unwrap().0, "012345678901");
    }
}
