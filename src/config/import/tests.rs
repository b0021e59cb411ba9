use super::*;
use serde_json::json;

const ROLE: &str = "arn:aws:iam::123456789012:role/inventory";
const SECRET: &str = "hunter2-7f3a";

fn by_role() -> Value {
    json!({
        "name": "AWS Inventory",
        "fields": {"_siemForward": true},
        "limitToRegions": ["all"],
        "authentication": {"type": "AWSRoleBasedAuthentication", "roleARN": ROLE},
        "polling_interval": 600,
    })
}

fn by_key() -> Value {
    let mut config = by_role();
    config["authentication"] = json!({"type": "S3BucketAuthentication", "awsId": "AKIAEXAMPLE", "awsKey": SECRET});
    config
}

#[track_caller]
fn translated(given: &Value) -> (Value, String) {
    let Translation { document, notes } = translate(&given.to_string()).unwrap();
    (serde_json::to_value(document).unwrap(), notes.join("\n"))
}

#[track_caller]
fn source(given: &Value) -> (Value, String) {
    let (mut document, notes) = translated(given);
    (document["collector"]["sources"][0].take(), notes)
}

fn error(given: &Value) -> String {
    translate(&given.to_string()).unwrap_err().to_string()
}

#[test]
fn a_source_with_a_role_is_one_account() {
    let (source, notes) = source(&by_role());
    assert_eq!(
        source,
        json!({
            "name": "AWS Inventory", "siem_forward": true, "polling_interval": 600,
            "aws": {"regions": "all", "accounts": [{"role_arn": ROLE}]},
        })
    );
    assert!(notes.starts_with("authentication.roleARN: its trust policy") && notes.lines().count() == 1, "{notes}");
}

#[test]
fn a_secret_goes_into_neither_the_document_nor_a_note_but_its_variable_is_told() {
    let mut second = by_key();
    second["name"] = "second".into();
    let (document, notes) = translated(&json!([by_role(), {"config": second, "state": {}}]));
    let key = json!({"static": {"access_key_id": "AKIAEXAMPLE"}});
    assert_eq!(document["collector"]["sources"][1]["aws"], json!({"regions": "all", "credentials": key}));
    assert!(!document.to_string().contains(SECRET) && !notes.contains(SECRET), "{document} {notes}");
    let variable = "ROLLCALL_COLLECTOR__SOURCES__1__AWS__CREDENTIALS__STATIC__SECRET_ACCESS_KEY";
    assert!(notes.contains("[1].config.authentication.awsKey") && notes.contains(variable), "{notes}");
}

#[test]
fn all_that_is_said_of_a_source_is_carried_over() {
    let mut config = by_role();
    config["description"] = "what runs".into();
    config["category"] = "aws/inventory".into();
    config["fields"] = json!({"_siemForward": "false", "team": "blue", "level": 5, "old": null});
    config["limitToRegions"] = json!(["us-east-2", "eu-west-1"]);
    config["polling_interval"] = 5.into();
    let (source, _) = source(&config);
    assert_eq!(source["description"], "what runs");
    assert_eq!(source["category"], "aws/inventory");
    assert_eq!(source["fields"], json!({"team": "blue", "level": "5"}));
    assert_eq!(source["siem_forward"], false);
    assert_eq!(source["aws"]["regions"], json!(["us-east-2", "eu-west-1"]));
    assert_eq!(source["polling_interval"], 5);
}

#[test]
fn what_is_not_said_is_as_it_is_there_and_noted() {
    let mut config = by_role();
    config["polling_interval"] = Value::Null;
    config.as_object_mut().unwrap().remove("fields");
    let (source, notes) = source(&config);
    assert_eq!((&source["polling_interval"], &source["siem_forward"]), (&json!(600), &json!(false)));
    assert!(
        notes.contains("polling_interval: is missing") && notes.contains("fields._siemForward: is missing"),
        "{notes}"
    );
}

#[test]
fn every_member_without_a_counterpart_is_noted_by_its_path() {
    let mut config = by_role();
    config["filters"] = json!([{"filterType": "Mask", "regexp": SECRET}]);
    config["hashAlgorithm"] = "MD5".into();
    config["authentication"]["awsKey"] = SECRET.into();
    let whole = json!({
        "api.version": "v1",
        "source": {"config": config, "state": {"state": "Collecting"}, "schemaRef": {"type": SOURCE_TYPE}, "sourceType": "Universal"},
    });
    let (_, notes) = translated(&whole);
    for member in [
        "api.version:",
        "source.state:",
        "source.schemaRef:",
        "source.sourceType:",
        "source.config.filters: left out: WHAT IT HID",
        "source.config.hashAlgorithm:",
        "source.config.authentication.awsKey: left out",
    ] {
        assert!(notes.lines().any(|note| note.starts_with(member)), "{member} not in\n{notes}");
    }
    assert!(!notes.contains(SECRET), "{notes}");
}

#[test]
fn placeholders_are_translated_and_noted() {
    let mut config = by_role();
    config["authentication"]["roleARN"] = "arn:aws:iam::9568827XXXX:role/x".into();
    let (translated, notes) = source(&config);
    assert_eq!(translated["aws"]["accounts"][0]["role_arn"], "arn:aws:iam::9568827XXXX:role/x");
    assert!(notes.contains("authentication.roleARN: \"arn:aws:iam::9568827XXXX:role/x\" is a placeholder"), "{notes}");
    let mut config = by_key();
    config["authentication"]["awsId"] = "XXXXXXSVH".into();
    config["authentication"]["awsKey"] = "XXXXXtrr".into();
    let (_, notes) = source(&config);
    assert!(notes.contains("awsId: is a placeholder") && notes.contains("awsKey: is a placeholder"), "{notes}");
    assert!(!notes.contains("XXXXXtrr"), "{notes}");
}

#[test]
fn lists_and_wrappings_are_unwrapped() {
    let sources = |given: Value| translated(&given).0["collector"]["sources"].as_array().unwrap().len();
    let second = || {
        let mut config = by_key();
        config["name"] = "second".into();
        config
    };
    assert_eq!(sources(by_role()), 1);
    assert_eq!(sources(json!({"config": by_role()})), 1);
    assert_eq!(sources(json!([by_role(), {"source": {"config": second()}}])), 2);
    assert_eq!(sources(json!({"api.version": "v1", "sources": [{"config": by_role()}, {"config": second()}]})), 2);
}

#[test]
fn a_slash_in_a_name_becomes_a_dash_and_equal_names_are_an_error() {
    let mut config = by_role();
    config["name"] = "aws/inventory".into();
    let (source, notes) = source(&config);
    assert_eq!(source["name"], "aws-inventory");
    assert!(notes.contains("name: \"aws/inventory\"") && notes.contains("\"aws-inventory\""), "{notes}");
    assert!(error(&json!([by_role(), by_role()])).contains("two sources are called \"AWS Inventory\""));
}

#[test]
fn what_cannot_be_translated_names_the_member_and_what_is_needed() {
    for (member, value, parts) in [
        ("/name", Value::Null, ["name:", "missing"]),
        ("/name", json!(5), ["name:", "text"]),
        ("/fields", json!([]), ["fields:", "object"]),
        ("/fields/_siemForward", json!("yes"), ["fields._siemForward:", "true nor false"]),
        ("/limitToRegions", Value::Null, ["limitToRegions:", "missing"]),
        ("/limitToRegions", json!([]), ["limitToRegions:", "us-east-2"]),
        ("/limitToRegions", json!("all"), ["limitToRegions:", "list"]),
        ("/limitToRegions", json!(["us-east-2", 5]), ["limitToRegions:", "list"]),
        ("/polling_interval", json!(0), ["polling_interval: 0", "1 to 10080"]),
        ("/polling_interval", json!(10_081), ["polling_interval: 10081", "1 to 10080"]),
        ("/polling_interval", json!(1.5), ["polling_interval: 1.5", "whole"]),
        ("/authentication", Value::Null, ["authentication:", "missing"]),
        ("/authentication", json!("role"), ["authentication:", "object"]),
        ("/authentication/type", Value::Null, ["authentication.type:", "missing"]),
        ("/authentication/type", json!("Kerberos"), ["authentication.type: \"Kerberos\"", "S3BucketAuthentication"]),
        ("/authentication/roleARN", json!(""), ["authentication.roleARN:", "missing"]),
    ] {
        let mut config = by_role();
        *config.pointer_mut(member).unwrap() = value;
        let error = error(&config);
        assert!(parts.iter().all(|part| error.contains(part)), "{member} gave {error}");
    }
    let mut config = by_key();
    config["authentication"]["awsKey"] = json!([SECRET]);
    let told = error(&config);
    assert!(told.contains("authentication.awsKey") && !told.contains(SECRET), "{told}");
    let foreign = json!({"source": {"config": by_role(), "schemaRef": {"type": "Okta"}}});
    assert!(error(&foreign).contains("source.schemaRef.type: \"Okta\""), "{}", error(&foreign));
    assert!(error(&json!([])).contains("there is none"));
    assert!(error(&json!({"source": 5})).contains("source: is not a JSON object"));
    assert!(error(&json!("x")).contains("document: is not a JSON object"));
    assert!(translate("{").unwrap_err().to_string().contains("line 1"));
}
