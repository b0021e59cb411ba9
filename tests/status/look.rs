//! The page in Chromium.

use std::time::Duration;

use rollcall::collector::fault::{Fault, FaultKind};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::served::{DEVICE, Served, TOKEN, change, scope};
use crate::support::browser::Browser;
use crate::support::kafka::TestTopics;
use crate::support::process::Stage;

const LIMIT: Duration = Duration::from_secs(60);
/// A desktop and a phone.
const SIZES: [(u32, u32); 2] = [(1440, 900), (390, 844)];
/// Names that somebody who may launch instances could give to them.
const HOSTILE: [&str; 2] = ["<script>window.pwned = 1</script>", "\"><img src=x onerror=\"window.pwned = 2\">"];
/// Lets the script of the page fetch at once, as it does when somebody comes back to it.
const REFRESH: &str = "document.dispatchEvent(new Event('visibilitychange'));";

fn assert_legible(browser: &Browser, what: &str) {
    let seen = browser.run(include_str!("page.js"));
    assert_eq!(seen["found"], json!([]), "{what}");
    assert!(seen["texts"].as_u64() > Some(1000), "{what}: {seen}");
}

#[test]
fn thirty_four_scopes_and_two_hundred_changes_are_legible_on_a_phone_and_on_a_desktop_in_light_and_dark() {
    let browser = Browser::start();
    let served = Served::start(None);
    served.fill();
    for (width, height) in SIZES {
        browser.resize(width, height);
        for scheme in ["light", "dark"] {
            let what = format!("{width} px, {scheme}");
            browser.prefer(scheme);
            browser.open(&served.page());
            assert_eq!(browser.run("return document.querySelectorAll('#scopes tbody tr:not(.fault)').length"), 34);
            assert_eq!(browser.run("return document.querySelectorAll('.changes li').length"), 200);
            assert_legible(&browser, &what);
            assert_eq!(browser.violations(), Vec::<String>::new(), "{what}");
            keep(&browser, width, scheme);
        }
    }
}

/// Keeps a screenshot in the folder `ROLLCALL_TEST_SCREENSHOTS`, where that is set.
fn keep(browser: &Browser, width: u32, scheme: &str) {
    if let Ok(folder) = std::env::var("ROLLCALL_TEST_SCREENSHOTS") {
        std::fs::write(format!("{folder}/status-page-{width}-{scheme}.png"), browser.screenshot()).unwrap();
    }
}

#[test]
fn a_scope_that_goes_into_error_and_back_is_seen_on_the_open_page_and_not_while_it_is_paused() {
    let served = Served::start(None);
    let browser = Browser::start();
    browser.open(&served.page());
    let scope = scope("production", "123456789012", "eu-west-1");
    served.health.swept(&scope, None);
    // By itself, every few seconds.
    browser.wait_until("the scope", "document.querySelector('#scopes tbody')?.innerText.includes('Collecting')", LIMIT);
    assert!(browser.text("#attention").contains("Nothing needs attention"));

    served.health.swept(&scope, Some(&Fault::new(FaultKind::Denied, "UnauthorizedOperation")));
    served.board.latest.add(&[change(1)]);
    browser.run(REFRESH);
    browser.wait_until("the error", "document.querySelector('#scopes tr.error')?.innerText.includes('Error')", LIMIT);
    let scopes = browser.text("#scopes");
    for part in ["denied", "ThirdPartyConfig", "UnauthorizedOperation", "rollcall policy"] {
        assert!(scopes.contains(part), "{part:?} not in {scopes}");
    }
    assert!(browser.text("#attention").contains("1 of 1 scopes in state Error"));
    assert!(browser.run("return document.title").as_str().unwrap().starts_with('●'));

    browser.run("window.asked = 0; const ask = window.fetch; window.fetch = (...of) => { window.asked += 1; return ask(...of) }");
    browser.wait_until("a fetch", "window.asked > 0", LIMIT);
    browser.click("#pause");
    assert_eq!(browser.run("return document.querySelector('#pause').getAttribute('aria-pressed')"), "true");
    assert!(browser.text("#told").starts_with("Paused"));
    served.health.swept(&scope, None);
    let asked = format!("const before = window.asked; {REFRESH} return window.asked - before");
    assert_eq!(browser.run(&asked), 0);
    assert!(browser.text("#scopes tr.error").contains("Error"));
    browser.click("#pause");
    browser.wait_until("the end of the error", "!document.querySelector('#scopes tr.error')", LIMIT);
    assert!(browser.text("#attention").contains("Nothing needs attention"));
}

#[test]
fn without_scripts_the_essentials_are_there_and_a_link_that_reloads() {
    let served = Served::start(None);
    served.fill();
    let browser = Browser::start();
    browser.forbid_scripts();
    browser.open(&served.page());
    let page = browser.text("body");
    for part in [
        "raw partition 7",
        "3 of 34 scopes in state Error",
        "denied",
        "grant the action",
        "Instances swept",
        "misrouted",
        "orders-db-prod-07",
        "running",
        "→",
        "stopped",
        DEVICE,
        "Reload",
    ] {
        assert!(page.contains(part), "{part:?} not in {page}");
    }
    assert_eq!(browser.run("return document.querySelector('#pause').hidden"), true);
    served.metrics.mapper.dead_letters.with_label_values(&["too-large"]).inc();
    browser.click(".controls a");
    browser.wait_until("the reloaded page", "document.body.innerText.includes('too-large')", LIMIT);
}

#[test]
fn who_signs_in_sees_devices_from_then_on_and_the_token_is_nowhere_in_the_page() {
    let served = Served::start(Some(TOKEN));
    served.fill();
    let browser = Browser::start();
    browser.resize(390, 844);
    browser.open(&served.page());
    assert_eq!(browser.violations(), Vec::<String>::new());
    assert!(!browser.text("body").contains("i-0c0ffee"));
    browser.type_into("#token", "not-the-token-at-all");
    browser.click("#access button");
    browser.wait_until("the refusal", "document.querySelector('#access [role=alert]')", LIMIT);
    assert!(!browser.text("body").contains("i-0c0ffee"));

    browser.type_into("#token", TOKEN);
    browser.click("#access button");
    browser.wait_until("the changes", "document.querySelectorAll('.changes li').length === 200", LIMIT);
    assert_eq!(browser.run("return location.pathname + location.search"), "/");
    assert!(browser.text("#partitions").contains(DEVICE), "why it is held, with the key");
    let source = browser.run("return document.documentElement.outerHTML + document.cookie");
    assert!(!source.as_str().unwrap().contains(TOKEN));
    let cookies = browser.cookies();
    assert_eq!(cookies.as_array().map(Vec::len), Some(1), "{cookies}");
    assert_eq!((&cookies[0]["httpOnly"], &cookies[0]["sameSite"]), (&json!(true), &json!("Strict")));
    assert!(!cookies.to_string().contains(TOKEN));
}

/// Instances as the AWS CLI prints them, with these names.
fn describe(names: &[&str]) -> String {
    let instance = |(number, name): (usize, &&str)| {
        json!({"InstanceId": format!("i-{number:017x}"), "State": {"Code": 16, "Name": "running"},
               "Tags": [{"Key": "Name", "Value": name}]})
    };
    let instances: Vec<Value> = names.iter().enumerate().map(instance).collect();
    json!({"Reservations": [{"OwnerId": "123456789012", "Instances": instances}]}).to_string()
}

#[test]
fn a_run_whose_file_breaks_and_is_mended_shows_it_and_what_is_hostile_in_the_file_is_only_text() {
    let topics = TestTopics::create(2);
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), describe(&HOSTILE)).unwrap();
    let mut config = topics.config();
    config["collector"]["sources"] = json!([{"name": "fleet", "interval": "10s", "file": {"path": file.path()}}]);
    let mut stage = Stage::start(&["run"], &config);
    stage.wait_until_ready();
    let browser = Browser::start();
    browser.open(&stage.address("/"));
    browser.wait_until("both instances", "document.querySelectorAll('.changes li').length === 2", LIMIT);
    browser.wait_until("a good scope", "document.querySelector('#scopes')?.innerText.includes('Collecting')", LIMIT);
    let names = browser.run("return [...document.querySelectorAll('.device b')].map(name => name.innerText).sort()");
    let mut expected = HOSTILE;
    expected.sort_unstable();
    assert_eq!(names, json!(expected));
    let partitions = browser.text("#partitions");
    assert_eq!((partitions.matches("running").count(), partitions.contains("2 devices")), (2, true), "{partitions}");
    let scopes = browser.text("#scopes tbody");
    assert!(scopes.contains(" ago") && (scopes.contains("in ") || scopes.contains("under way")), "{scopes}");
    assert_eq!(
        browser.run("return [typeof window.pwned, document.querySelectorAll('img, .changes script').length]"),
        json!(["undefined", 0])
    );

    std::fs::write(file.path(), "oops").unwrap();
    browser.wait_until(
        "the error",
        "document.querySelector('#scopes tr.fault')?.innerText.includes('invalid-file')",
        2 * LIMIT,
    );
    assert!(browser.text("#scopes tr.fault").contains("check the path"));
    assert!(browser.text("#attention").contains("1 of 1 scopes in state Error"));
    std::fs::write(file.path(), describe(&["mended", HOSTILE[1]])).unwrap();
    // What needs somebody is looked at once a minute.
    browser.wait_until("the end of the error", "!document.querySelector('#scopes tr.fault')", 4 * LIMIT);
    let change = "document.querySelector('.changes li.updated .told')?.innerText.includes('mended')";
    browser.wait_until("the new name", change, LIMIT);
    let told = browser.text(".changes li.updated .told");
    assert!(told.contains(HOSTILE[0]) && told.contains("device.name"), "before and after: {told}");
    assert_eq!(browser.run("return typeof window.pwned"), "undefined");
    drop(browser);
    assert_eq!(stage.stop(), Some(0));
}
