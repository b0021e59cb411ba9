//! Lines that fit, say what matters, and are harmless.

use std::time::Duration;

use anstream::adapter::strip_str;
use serde_json::json;

use super::*;

const ID: &str = "i-011e63a6bed20b70e";

fn device() -> Value {
    json!({
        "uid": ID, "name": "web-prod-12", "model": "t4g.medium", "os": {"name": "Linux/UNIX", "type": "Linux"},
        "ip": "198.18.25.54", "region": "eu-west-1a", "state": "running", "org": {"uid": "111122223333"},
    })
}

fn coloured(change: &str, device: &Value, fields: &[(&str, Value, Value)], width: usize) -> String {
    let fields: Vec<_> = fields.iter().map(|(path, from, to)| ((*path).to_owned(), from.clone(), to.clone())).collect();
    let at = DateTime::from_timestamp(1_760_000_000, 0).unwrap();
    let reason = (change == "removed").then_some("terminated");
    row(&Row { at, change, reason, id: ID, device, fields: &fields }, width)
}

fn plain(change: &str, device: &Value, fields: &[(&str, Value, Value)], width: usize) -> String {
    strip_str(&coloured(change, device, fields, width)).to_string()
}

/// What a row of 100 columns says in its last one.
fn what(change: &str, device: &Value, fields: &[(&str, Value, Value)]) -> String {
    let line = plain(change, device, fields, 100);
    line.chars().skip(65).collect()
}

fn started() -> Vec<(&'static str, Value, Value)> {
    vec![
        ("device.boot_time", json!("2025-01-01T00:00:00Z"), json!("2025-02-01T00:00:00Z")),
        ("device.desc", json!("AMI: ami-1, State: stopped"), json!("AMI: ami-1, State: running")),
        ("device.ip", json!("10.0.0.1"), json!("198.18.25.54")),
        ("device.state", json!("stopped"), json!("running")),
    ]
}

#[test]
fn rows_of_each_kind_at_100_columns() {
    let header = strip_str(&header(100)).to_string();
    assert_eq!(header, "TIME       INSTANCE            NAME             ACCT  ZONE       WHAT");
    let front = format!("{ID} web-prod-12      …3333 eu-west-1a");
    for (change, fields, expected) in [
        ("created", vec![], format!("08:53:20 + {front} t4g.medium, Linux, 198.18.25.54")),
        ("updated", started(), format!("08:53:20 ~ {front} state: stopped → running (+3 more)")),
        ("removed", vec![], format!("08:53:20 - {front} terminated")),
        ("remapped", vec![("device.type", json!("a"), json!("b"))], format!("08:53:20 * {front} type: a → b")),
    ] {
        assert_eq!(plain(change, &device(), &fields, 100), expected);
    }
}

#[test]
fn narrow_and_wide_terminals_get_less_and_more() {
    assert_eq!(
        plain("updated", &device(), &started(), 80),
        "08:53:20 ~ i-011e…0b70e web-prod-12 …3333 eu-west-1a state: stopped → running +3"
    );
    assert_eq!(
        plain("updated", &device(), &started(), 160),
        "08:53:20 ~ updated  i-011e63a6bed20b70e web-prod-12          111122223333 eu-west-1a      \
         state: stopped → running, ip: 10.0.0.1 → 198.18.25.54 (+2 more)"
    );
}

#[test]
fn what_differs_is_told_by_name() {
    let group = |name: &str| json!({"uid": "sg-1", "name": name});
    let none = Value::Null;
    for (path, from, to, expected) in [
        ("device.groups[sg-1]", none.clone(), group("web"), "groups: +web"),
        ("device.groups[sg-1]", group("web"), none.clone(), "groups: -web"),
        ("device.groups[sg-1].name", json!("a"), json!("b"), "groups.name: a → b"),
        ("device.network_interfaces[eni-1]", none.clone(), json!({"uid": "eni-1"}), "interfaces: +eni-1"),
        ("device.autoscale_uid", none.clone(), json!("asg"), "autoscale_uid: +asg"),
        ("device.is_managed", json!(false), json!(true), "is_managed: false → true"),
        ("device.x", json!([1]), json!([]), "x: [1] → []"),
    ] {
        assert_eq!(what("updated", &device(), &[(path, from, to)]), expected);
    }
    let replaced =
        [("device.groups[sg-1]", group("web"), none.clone()), ("device.groups[sg-2]", none, group("web-v2"))];
    assert_eq!(what("updated", &device(), &replaced), "groups: -web, +web-v2");
    assert_eq!(what("updated", &device(), &[]), "");
}

#[test]
fn what_is_new_is_kept_when_there_is_no_room_for_what_was() {
    let renamed = [("device.name", json!("worker-prod-01"), json!("worker-prod-01-canary"))];
    assert_eq!(what("updated", &device(), &renamed), "name: work… → worker-prod-01-canary");
    let long = [("device.name", json!("a".repeat(50)), json!("b".repeat(50)))];
    assert_eq!(what("updated", &device(), &long), "name: aaaaaaa… → bbbbbbbbbbbbbbbbb…");
}

#[test]
fn a_new_device_shows_as_much_as_has_room() {
    let with = |model: &str, os: Value| {
        let mut device = device();
        device["model"] = json!(model);
        device["os"] = os;
        what("created", &device, &[])
    };
    let rhel = json!({"name": "Red Hat Enterprise Linux", "type": "Linux"});
    assert_eq!(with("m7i.xlarge", rhel), "m7i.xlarge, Linux, 198.18.25.54");
    assert_eq!(with("m7i.xlarge", json!({"name": "SUSE Linux"})), "m7i.xlarge, 198.18.25.54");
    assert_eq!(with("t3.nano", json!({"name": "SUSE Linux"})), "t3.nano, SUSE Linux, 198.18.25.54");
    assert_eq!(with("mac2.metal", json!({"name": "Linux/UNIX", "type": "macOS"})), "mac2.metal, macOS, 198.18.25.54");
    assert_eq!(with("u-24tb1.112xlarge", json!({"name": "Linux/UNIX"})), "u-24tb1.112xlarge, 198.18.25.54");
}

#[test]
fn a_device_without_anything_is_a_row() {
    assert_eq!(plain("created", &json!({}), &[], 100).trim_end(), format!("08:53:20 + {ID} -                -     -"));
    let mut unnamed = device();
    unnamed["name"] = json!(ID);
    assert!(plain("created", &unnamed, &[], 100).contains(&format!("{ID} -     ")));
}

/// Texts that a terminal would obey, or that would hide or move what is around them.
const NASTY: [&str; 8] = [
    "\u{1b}[2J\u{1b}]0;owned\u{7}",
    "a\r\nb\tc\0\u{7f}",
    "\u{9b}31m\u{85}",
    "abc\u{202e}fdp.exe\u{2066}",
    "\u{200b}\u{feff}\u{2028}\u{e0041}",
    "\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}",
    "日本語のとても長い名前のサーバー、東京リージョン、本番環境、データベース、その一、その二、その三",
    "🖥\u{fe0f}👩\u{200d}🚀🇩🇪 e\u{301}tat \u{a0} ok 'quoted' \"\\\"",
];

#[test]
fn no_text_gets_out_of_its_column_or_does_anything() {
    let harmless = json!("x");
    for nasty in NASTY {
        let mut strange = device();
        for pointer in ["/name", "/model", "/os/name", "/os/type", "/ip", "/region", "/org/uid"] {
            *strange.pointer_mut(pointer).unwrap() = json!(nasty);
        }
        let path = format!("device.groups[{nasty}].{nasty}");
        let fields = |value: &Value| vec![(path.clone(), value.clone(), value.clone()); 3];
        let [strange_fields, usual_fields] = [json!(nasty), harmless.clone()].map(|value| fields(&value));
        for (width, change) in [80, 99, 100, 120, 130, 200]
            .map(|width| ["created", "updated", "removed", nasty].map(|change| (width, change)))
            .concat()
        {
            let at = DateTime::from_timestamp(1_760_000_000, 0).unwrap();
            let strange_row =
                Row { at, change, reason: Some(nasty), id: nasty, device: &strange, fields: &strange_fields };
            let line = row(&strange_row, width);
            let kept: Vec<_> =
                line.split('\u{1b}').skip(1).map(|rest| rest.split_inclusive('m').next().unwrap()).collect();
            assert!(kept.iter().all(|code| code.starts_with('[') && code.len() <= 4), "{line:?}");
            assert!(!line.replace('\u{1b}', "").chars().any(char::is_control), "{line:?}");
            let hidden = ['\u{202e}', '\u{2066}', '\u{200b}', '\u{feff}', '\u{2028}', '\u{e0041}', '\u{200d}'];
            assert!(!line.contains(hidden), "{line:?}");
            assert!(!line.contains("\u{301}\u{301}\u{301}"), "{line:?}");
            let text = strip_str(&line).to_string();
            assert!(width_of(&text) <= width, "{} columns of {width}: {text}", width_of(&text));
            let usual_row = Row { fields: &usual_fields, ..strange_row };
            assert!(width_of(&strip_str(&row(&usual_row, width)).to_string()) <= width);
        }
    }
}

#[test]
fn what_is_replaced_can_be_seen() {
    assert_eq!(inert(NASTY[0]), "␛[2J␛]0;owned␇");
    assert_eq!(inert(NASTY[1]), "a␍␊b␉c␀␡");
    assert_eq!(inert(NASTY[2]), "�31m�");
    assert_eq!(inert(NASTY[3]), "abc�fdp.exe�");
    assert_eq!(inert(NASTY[7]), "🖥👩�🚀🇩🇪 e\u{301}tat � ok 'quoted' \"\\\"");
}

#[test]
fn texts_are_cut_by_what_a_terminal_shows() {
    assert_eq!(cut("abcdef", 6, 0), "abcdef");
    assert_eq!(cut("abcdef", 4, 0), "abc…");
    assert_eq!(cut("abcdef", 4, 2), "a…ef");
    assert_eq!(cut("日本語", 6, 0), "日本語");
    assert_eq!(cut("日本語", 5, 0), "日本…");
    assert_eq!(cut("日本語", 4, 0), "日…");
    assert_eq!(cut("日本語", 4, 3), "…語");
    assert_eq!((cut("abc", 1, 9), cut("abc", 0, 0)), ("…".to_owned(), String::new()));
}

#[test]
fn the_colours_are_those_of_the_changes() {
    for (change, code) in [("created", "32"), ("updated", "33"), ("removed", "31"), ("remapped", "34")] {
        assert!(coloured(change, &device(), &[], 100).contains(&format!("\u{1b}[{code}m")), "{change}");
    }
}

#[test]
fn the_summary_adds_up() {
    let summary = Summary {
        swept: 12_900,
        unchanged: 12_345,
        created: 300,
        updated: 244,
        removed: 11,
        sweeps: 43,
        elapsed: Duration::from_millis(61_300),
    };
    let expected = "\
12,900 records in 43 sweeps, 61.3 s, 210 records/s
  + created            300
  ~ updated            244
  - removed             11
    unchanged       12,345  95.7 % said nothing new: 555 events instead of 12,900";
    assert_eq!(strip_str(&summary.to_string()).to_string(), expected);
    let nothing = strip_str(&Summary::default().to_string()).to_string();
    assert!(nothing.starts_with("0 records in 0 sweeps, 0.0 s\n"), "{nothing}");
    let number = |number| grouped(number);
    assert_eq!([number(0), number(999), number(1_000), number(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
}
