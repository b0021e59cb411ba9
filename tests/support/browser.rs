//! Headless Chromium, driven over the HTTP API of chromedriver (W3C WebDriver, and Chrome's own protocol beside it).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{server, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

/// A browser with one window; it ends when it is dropped.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// Starts one.
    pub fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("chromedriver: {error}; run `./dev test`"));
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut ports = lines.filter_map(|line| {
            let (_, port) = line.trim_end_matches('.').split_once("started successfully on port ")?;
            port.parse().ok()
        });
        let port = ports.next().expect("chromedriver tells its port");
        // It goes on talking, and must not find nobody listening.
        std::thread::spawn(move || ports.for_each(drop));
        let profile = TempDir::new().unwrap();
        let mut browser = Self { driver, port, session: String::new(), _profile: profile };
        let profile = format!("--user-data-dir={}", browser._profile.path().display());
        // As root there is no sandbox; in a container /dev/shm is small.
        let arguments = json!(["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", profile]);
        let options = json!({"args": arguments});
        let timeouts = json!({"script": LIMIT.as_millis() as u64 * 2, "pageLoad": LIMIT.as_millis() as u64 * 2});
        let wanted = json!({"browserName": "chrome", "goog:chromeOptions": options, "timeouts": timeouts});
        let wanted = json!({"capabilities": {"alwaysMatch": wanted}});
        // On a machine that is busy Chromium at times does not begin in the time that its driver gives it.
        let mut attempts = (0..3).map(|_| browser.try_ask("/session", &wanted));
        let session = attempts.find_map(Result::ok).expect("Chromium starts");
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    /// Opens an address and waits until it is loaded.
    pub fn open(&self, address: &str) {
        self.command("url", &json!({"url": address}));
    }

    /// Runs the body of a function in the page; what it returns.
    pub fn run(&self, body: &str) -> Value {
        self.command("execute/sync", &json!({"script": body, "args": []}))
    }

    /// Waits until an expression is true in the page.
    pub fn wait_until(&self, what: &str, expression: &str, limit: Duration) {
        wait_for(what, limit, || (self.run(&format!("return Boolean({expression})")) == true).then_some(()));
    }

    /// The text that the first such element shows.
    pub fn text(&self, selector: &str) -> String {
        let text = self.run(&format!("return document.querySelector({})?.innerText", json!(selector)));
        text.as_str().unwrap_or_else(|| panic!("no {selector} on the page")).to_owned()
    }

    /// Types into an input, as somebody at the keyboard.
    pub fn type_into(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.command(&format!("element/{element}/value"), &json!({"text": text}));
    }

    /// Clicks.
    pub fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.command(&format!("element/{element}/click"), &json!({}));
    }

    fn element(&self, selector: &str) -> String {
        let found = self.command("element", &json!({"using": "css selector", "value": selector}));
        found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned()
    }

    /// The window's size in CSS pixels, as a phone or a desktop would have it.
    pub fn resize(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// `light` or `dark`.
    pub fn prefer(&self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", &features);
    }

    /// Pages that are opened from now on run no scripts of theirs.
    pub fn forbid_scripts(&self) {
        self.devtools("Emulation.setScriptExecutionDisabled", &json!({"value": true}));
    }

    /// All cookies, also those that scripts do not see.
    pub fn cookies(&self) -> Value {
        self.devtools("Network.getAllCookies", &json!({}))["cookies"].clone()
    }

    /// The page from its top, as PNG.
    pub fn screenshot(&self) -> Vec<u8> {
        let shot = self.devtools("Page.captureScreenshot", &json!({"format": "png"}));
        base64(shot["data"].as_str().unwrap())
    }

    /// What axe-core finds wrong with the page: rule, and where.
    pub fn violations(&self) -> Vec<String> {
        let axe = std::fs::read_to_string(server("AXE")).unwrap();
        self.run(&format!("{axe}\nreturn true"));
        let script = "const done = arguments[arguments.length - 1]; axe.run(document).then(found => done(\
                      found.violations.flatMap(rule => rule.nodes.map(node => `${rule.id}: ${node.target} ${node.failureSummary}`))))";
        let found = self.command("execute/async", &json!({"script": script, "args": []}));
        serde_json::from_value(found).unwrap()
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.command("goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    fn command(&self, command: &str, parameters: &Value) -> Value {
        self.ask(&format!("/session/{}/{command}", self.session), parameters)
    }

    fn ask(&self, path: &str, body: &Value) -> Value {
        self.try_ask(path, body).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn try_ask(&self, path: &str, body: &Value) -> Result<Value, String> {
        let mut answer = request(self.port, "POST", path, &body.to_string());
        let value = answer["value"].take();
        let is_error = value["error"].is_string() && value["stacktrace"].is_string();
        if is_error { Err(format!("{}: {}", value["error"], value["message"])) } else { Ok(value) }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It takes its Chromium along.
        if !self.session.is_empty() {
            request(self.port, "DELETE", &format!("/session/{}", self.session), "");
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn request(port: u16, method: &str, path: &str, body: &str) -> Value {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(3 * LIMIT)).unwrap();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    serde_json::from_slice(&body).unwrap_or_default()
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte));
    let mut bytes = Vec::with_capacity(text.len());
    let (mut held, mut bits) = (0_u32, 0);
    for digit in digits {
        held = held << 6 | digit as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    bytes
}
