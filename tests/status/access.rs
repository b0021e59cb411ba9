//! Who sees what, and what the admin port bears.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rollcall::status::{PartitionStanding, Restoring};
use serde_json::{Value, json};

use super::served::{DEVICE, Served, TOKEN, change};

/// Sends a request as it is; the answer until the port closes, which it must.
fn send(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", address.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // It may be refused before it is sent.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(served: &Served, path: &str, headers: &[&str]) -> String {
    let own = format!("Host: localhost:{}", served.address.port());
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let host = if headers.contains("Host:") { String::new() } else { format!("{own}\r\n") };
    send(served.address, &format!("GET {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n"))
}

fn sign_in(served: &Served, form: &str) -> String {
    let length = form.len();
    let head = "Content-Type: application/x-www-form-urlencoded\r\nConnection: close";
    send(
        served.address,
        &format!("POST /sign-in HTTP/1.1\r\nHost: x\r\n{head}\r\nContent-Length: {length}\r\n\r\n{form}"),
    )
}

#[track_caller]
fn expect(answer: &str, status: u16) {
    let line = answer.lines().next().unwrap_or_default();
    assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{status} expected: {answer}");
}

fn json_of(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// Nothing that can tell of a device.
#[track_caller]
fn tells_no_device(answer: &str) {
    for device in ["i-0c0ffee", DEVICE, "orders-db", "UnauthorizedOperation", "203.0.113.17"] {
        assert!(!answer.contains(device), "{device} in {answer}");
    }
}

const ALL: [&str; 5] = ["/", "/status", "/metrics", "/healthz", "/readyz"];

#[test]
fn without_the_token_no_page_tells_of_a_device_and_with_it_the_page_does() {
    let served = Served::start(Some(TOKEN));
    served.fill();
    for path in ALL {
        tells_no_device(&get(&served, path, &[]));
    }
    let page = get(&served, "/", &[]);
    expect(&page, 200);
    for part in ["3 of 34 scopes", "denied", "grant the action", "raw partition 7", "upgrade this one", "misrouted"] {
        assert!(page.contains(part), "{part:?} is for everybody: {page}");
    }
    assert!(page.contains("action=\"sign-in\""));
    let status = json_of(&get(&served, "/status", &[]));
    assert_eq!(
        (&status["changes"], &status["collector"]["scopes"][0]["fault"]["message"]),
        (&Value::Null, &Value::Null)
    );

    let bearer = format!("Authorization: Bearer {TOKEN}");
    let status = json_of(&get(&served, "/status", &[&bearer]));
    assert_eq!(status["changes"].as_array().map(Vec::len), Some(200));
    assert_eq!(status["changes"][0]["instance"], "i-0c0ffee0000000199", "the latest first");
    let held = status["mapper"]["partitions"][7]["held"].as_str().unwrap();
    assert!(held.contains(DEVICE), "{held}");
    assert!(get(&served, "/", &[&bearer]).contains("UnauthorizedOperation"));
}

#[test]
fn where_others_can_reach_it_nobody_sees_devices_unless_a_token_is_set() {
    let served = Served::start_on("0.0.0.0:0", None);
    served.fill();
    for path in ALL {
        tells_no_device(&get(&served, path, &[]));
    }
    assert!(get(&served, "/", &[]).contains("admin.token"));
    expect(&sign_in(&served, &format!("token={TOKEN}")), 404);
}

#[test]
fn on_this_machine_no_token_is_needed_but_a_name_of_this_machine() {
    let served = Served::start(None);
    served.fill();
    assert!(get(&served, "/", &[]).contains("orders-db"));
    for path in ["/", "/status"] {
        let rebound = get(&served, path, &["Host: evil.example:9464"]);
        expect(&rebound, 421);
        tells_no_device(&rebound);
    }
    // What machines ask for has no devices in it, and they come under any name.
    expect(&get(&served, "/metrics", &["Host: collector:9464"]), 200);
}

#[test]
fn a_wrong_token_is_refused_and_never_comes_in_an_address() {
    let served = Served::start(Some(TOKEN));
    served.fill();
    let wrong = get(&served, "/status", &["Authorization: Bearer a-token-of-some-lengti"]);
    expect(&wrong, 401);
    tells_no_device(&wrong);
    for path in [format!("/?token={TOKEN}"), format!("/status?token={TOKEN}")] {
        tells_no_device(&get(&served, &path, &[]));
    }
    let wrong = sign_in(&served, "token=wrong");
    expect(&wrong, 403);
    assert!(!wrong.to_lowercase().contains("set-cookie") && wrong.contains("not the token"));
}

#[test]
fn a_cookie_that_is_forged_or_expired_shows_nothing() {
    let served = Served::start(Some(TOKEN));
    served.fill();
    let answer = sign_in(&served, &format!("token={TOKEN}"));
    expect(&answer, 303);
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && !cookie.contains(TOKEN), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    assert!(get(&served, "/", &[&format!("Cookie: {cookie}")]).contains("orders-db"));

    let (name, value) = cookie.split_once('=').unwrap();
    let (expires, seal) = value.split_once('.').unwrap();
    let last = if seal.ends_with('0') { "1" } else { "0" };
    let forged = [
        format!("{}.{seal}", expires.parse::<i64>().unwrap() + 1),
        format!("1000000000.{seal}"),
        format!("{expires}.{}{last}", &seal[..seal.len() - 1]),
        TOKEN.to_owned(),
    ];
    for value in forged {
        tells_no_device(&get(&served, "/", &[&format!("Cookie: {name}={value}")]));
    }
}

#[test]
fn an_engine_that_restores_tells_how_far_it_is() {
    let served = Served::start(None);
    let standing = PartitionStanding { partition: 3, phase: "restoring", devices: 17 };
    let restoring = Restoring { percent: 42, remaining: 58_000, seconds_left: 75 };
    served.board.engine("1", vec![standing], Some(restoring));
    let page = get(&served, "/", &[]);
    for part in ["restores its devices", "42 %", "58\u{202F}000 records left", "1 min 15 s", "restoring"] {
        assert!(page.contains(part), "{part:?} not in {page}");
    }
    served.board.engine("1", vec![standing], None);
    assert!(!get(&served, "/", &[]).contains("restores its devices"));
}

#[test]
fn every_answer_forbids_foreign_content_and_frames() {
    let served = Served::start(None);
    for path in ["/", "/page.css", "/page.js", "/status", "/metrics", "/no/such/page"] {
        let head = get(&served, path, &[]).split("\r\n\r\n").next().unwrap().to_lowercase();
        for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "nosniff", "no-store"] {
            assert!(head.contains(part), "{part:?} not in the head of {path}: {head}");
        }
        assert!(!head.contains("unsafe"), "{head}");
    }
}

#[test]
fn what_is_hostile_in_a_name_is_escaped() {
    let served = Served::start(None);
    served.board.engine("0", Vec::new(), None);
    let hostile = "\"><img src=x onerror=alert(1)><script>alert(2)</script>";
    let mut change = change(0);
    change.name = Some(hostile.to_owned());
    change.region = Some(hostile.to_owned());
    change.fields[0].to = Some(hostile.to_owned());
    served.board.latest.add(&[change]);
    served.readiness.not_ready(hostile, hostile);
    let page = get(&served, "/", &[]);
    assert!(!page.contains("<img") && page.matches("<script").count() == 1, "{page}");
    let places = ["what is waited for", "its reason", "name", "region", "after"];
    assert_eq!(page.matches("&lt;script&gt;alert(2)&lt;/script&gt;").count(), places.len(), "{page}");
    assert_eq!(json_of(&get(&served, "/status", &[]))["changes"][0]["name"], json!(hostile));
}

#[test]
fn a_head_that_is_too_large_or_has_too_many_headers_is_refused() {
    let served = Served::start(None);
    expect(&get(&served, "/readyz", &[&format!("X-Long: {}", "x".repeat(12_000))]), 200);
    expect(&get(&served, "/readyz", &[&format!("X-Long: {}", "x".repeat(64_000))]), 431);
    let many: Vec<_> = (0..200).map(|number| format!("X-{number}: 1")).collect();
    expect(&get(&served, "/readyz", &many.iter().map(String::as_str).collect::<Vec<_>>()), 431);
    expect(&get(&served, &format!("/{}", "x".repeat(64_000)), &[]), 431);
}

#[test]
fn a_form_that_is_too_large_is_refused() {
    let served = Served::start(Some(TOKEN));
    expect(&sign_in(&served, &format!("token={}", "x".repeat(10_000))), 413);
    let endless = "POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\ntoken=";
    let answer = send(served.address, &format!("{endless}{}", "x".repeat(10_000)));
    expect(&answer, 413);
}

#[test]
fn a_client_that_does_not_finish_its_request_is_left_and_others_are_served_meanwhile() {
    let served = Served::start(Some(TOKEN));
    let slow = |begin: &str| {
        let mut stream = TcpStream::connect(served.address).unwrap();
        stream.write_all(begin.as_bytes()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        stream
    };
    let head = slow("GET / HTTP/1.1\r\nHost: local");
    let body = slow("POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\ntoken=");
    let idle: Vec<_> = (0..40).map(|_| slow("")).collect();
    expect(&get(&served, "/healthz", &[]), 200);
    for mut stream in [head, body].into_iter().chain(idle) {
        // Closed by the other side, whatever it says before.
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    }
}
