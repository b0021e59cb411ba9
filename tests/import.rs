//! `rollcall config import` as a user meets it: the two examples of Sumo Logic's page, and what comes of them.

use std::io::Write as _;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::support::process::rollcall;

const BY_ROLE: &str = include_str!("data/sumo/role-authentication.json");
const BY_KEY: &str = include_str!("data/sumo/key-authentication.json");
const SECRET: &str = "hunter2-7f3a";

/// `rollcall config import -` with this on standard input: exit code, standard output, standard error.
fn import(text: &str) -> (Option<i32>, String, String) {
    let mut command = rollcall();
    command.args(["config", "import", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    ended(child.wait_with_output().unwrap())
}

fn ended(Output { status, stdout, stderr }: Output) -> (Option<i32>, String, String) {
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn file_of(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn the_example_with_a_role_becomes_a_source_with_one_account() {
    let (code, stdout, notes) = import(BY_ROLE);
    assert_eq!(code, Some(0), "{notes}");
    let expected = "\
collector:
  sources:
  - name: AWS Inventory
    category: aws/inventory
    siem_forward: true
    polling_interval: 600
    aws:
      regions: all
      accounts:
      - role_arn: arn:aws:iam::9568827XXXX:role/C2C_EC2InventoryTest
";
    assert_eq!(stdout, expected);
    let noted: Vec<_> = notes.lines().map(|note| note.strip_prefix("rollcall: ").unwrap()).collect();
    for (note, expected) in noted.iter().zip([
        "api.version: left out",
        "source.schemaRef: left out",
        "source.sourceType: left out",
        "source.state: left out",
        "source.config.authentication.roleARN: \"arn:aws:iam::9568827XXXX:role/C2C_EC2InventoryTest\" is a placeholder",
        "source.config.authentication.roleARN: its trust policy",
    ]) {
        assert!(note.starts_with(expected), "{note:?} is not {expected:?}");
    }
    assert_eq!(noted.len(), 6, "{notes}");
}

#[test]
fn the_example_with_a_key_becomes_a_source_whose_secret_comes_from_a_variable() {
    let (code, stdout, notes) = import(BY_KEY);
    assert_eq!(code, Some(0), "{notes}");
    let expected = json!({"collector": {"sources": [{
        "name": "AWS Inventory",
        "category": "aws/inventory",
        "siem_forward": true,
        "polling_interval": 600,
        "aws": {"regions": "all", "credentials": {"static": {"access_key_id": "XXXXXXSVHNHFXXXXXXX"}}},
    }]}});
    assert_eq!(serde_saphyr::from_str::<Value>(&stdout).unwrap(), expected);
    for part in [
        "authentication.awsId: is a placeholder",
        "authentication.awsKey: is a placeholder; set \
         ROLLCALL_COLLECTOR__SOURCES__0__AWS__CREDENTIALS__STATIC__SECRET_ACCESS_KEY",
    ] {
        assert!(notes.contains(part), "{part:?} not in\n{notes}");
    }
    assert!(!notes.contains("trrIqHvXgMYJEQcwLfEQtyN") && !stdout.contains("trrIqHvXgMYJEQcwLfEQtyN"));
}

/// The example with these changes.
fn changed(example: &str, changes: &[(&str, Value)]) -> String {
    let mut document: Value = serde_json::from_str(example).unwrap();
    let config = document["source"]["config"].as_object_mut().unwrap();
    config.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    document.to_string()
}

/// What is in effect where this is the configuration.
#[track_caller]
fn in_effect(yaml: &str, variables: &[(&str, &str)]) -> Value {
    let file = file_of(yaml);
    let mut command = rollcall();
    command.args(["config", "--config"]).arg(file.path()).envs(variables.iter().copied());
    let (code, stdout, stderr) = ended(command.output().unwrap());
    assert_eq!(code, Some(0), "{yaml}\n{stderr}");
    assert!(!stdout.contains(SECRET), "{stdout}");
    let mut config: Value = serde_saphyr::from_str(&stdout).unwrap();
    config["collector"]["sources"][0].take()
}

#[test]
fn what_is_printed_is_a_configuration_of_ours() {
    let arn = "arn:aws:iam::012345678901:role/inventory";
    let awkward = "yes: 'no' #1 \"é\"";
    let text = changed(
        BY_ROLE,
        &[
            ("name", json!(awkward)),
            ("description", json!("0123\nand a second line: - [x]")),
            ("category", json!("5")),
            ("fields", json!({"on": true, "_siemForward": false, "team: blue": "null"})),
            ("limitToRegions", json!(["us-east-2", "eu-west-1"])),
            ("authentication", json!({"type": "AWSRoleBasedAuthentication", "roleARN": arn})),
            ("polling_interval", json!(90)),
        ],
    );
    let (code, yaml, notes) = import(&text);
    assert_eq!(code, Some(0), "{notes}");
    let source = in_effect(&yaml, &[]);
    assert_eq!(source["name"], awkward);
    assert_eq!(source["description"], "0123\nand a second line: - [x]");
    assert_eq!(source["category"], "5");
    assert_eq!(source["fields"], json!({"on": "true", "_siemForward": "false", "team: blue": "null"}));
    assert_eq!(source["interval"], "1h 30m");
    assert_eq!(source["aws"]["regions"], json!(["us-east-2", "eu-west-1"]));
    assert_eq!(source["aws"]["accounts"][0]["role_arn"], arn);
}

#[test]
fn all_regions_and_a_key_are_a_configuration_of_ours() {
    let key = json!({"type": "S3BucketAuthentication", "awsId": "AKIAIOSFODNN7EXAMPLE", "awsKey": SECRET});
    let (code, yaml, notes) = import(&changed(BY_KEY, &[("authentication", key)]));
    assert_eq!(code, Some(0), "{notes}");
    assert!(!yaml.contains(SECRET) && !notes.contains(SECRET), "{yaml}{notes}");
    let variable = "ROLLCALL_COLLECTOR__SOURCES__0__AWS__CREDENTIALS__STATIC__SECRET_ACCESS_KEY";
    assert!(notes.contains(variable), "{notes}");
    let source = in_effect(&yaml, &[(variable, SECRET)]);
    assert_eq!(source["interval"], "10h");
    assert_eq!(source["aws"]["regions"], "all");
    let key = json!({"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "(redacted)"});
    assert_eq!(source["aws"]["credentials"]["static"], key);
}

#[test]
fn a_file_is_read_without_any_configuration_of_ours() {
    let file = file_of(BY_ROLE);
    let mut command = rollcall();
    command.env("ROLLCALL_CONFIG", "/no/such/file").args(["config", "import"]).arg(file.path());
    let (code, stdout, stderr) = ended(command.output().unwrap());
    assert_eq!((code, stdout), (Some(0), import(BY_ROLE).1), "{stderr}");
}

#[test]
fn wrong_input_is_2_and_names_file_and_member_and_no_secret() {
    let unknown = json!({"type": "Kerberos", "awsKey": SECRET});
    for (text, parts) in [
        ("{", ["rollcall: - is not JSON", "line 1"]),
        ("[]", ["rollcall: -: source", "there is none"]),
        (&changed(BY_ROLE, &[("name", Value::Null)]), ["source.config.name", "missing"]),
        (&changed(BY_ROLE, &[("authentication", unknown)]), ["source.config.authentication.type", "Kerberos"]),
    ] {
        let (code, stdout, stderr) = import(text);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{text}");
        assert!(parts.iter().all(|part| stderr.contains(part)) && !stderr.contains(SECRET), "{text} gave {stderr}");
    }
    let missing = rollcall().args(["config", "import", "/no/such/file"]).output().unwrap();
    let (code, _, stderr) = ended(missing);
    assert!(code == Some(2) && stderr.contains("/no/such/file"), "{stderr}");
    assert_eq!(rollcall().args(["config", "import"]).output().unwrap().status.code(), Some(2));
}
