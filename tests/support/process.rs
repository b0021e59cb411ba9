//! The program as a child process, with its log.

use std::io::{BufRead, BufReader, Read as _, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::NamedTempFile;

/// The program, built by cargo.
pub fn rollcall() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
    // What the shell has set must not configure the program under test.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROLLCALL_")) {
        command.env_remove(name);
    }
    command
}

/// A configuration file for the program.
pub fn config_file(config: &Value) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(config.to_string().as_bytes()).unwrap();
    file
}

/// The program, ended.
pub struct Run {
    pub stdout: String,
    pub stderr: String,
    pub code: Option<i32>,
}

impl Run {
    /// `rollcall ARGUMENTS` with a configuration, to its end.
    pub fn of(arguments: &[&str], config: &Value) -> Self {
        let file = config_file(config);
        let Output { status, stdout, stderr } =
            rollcall().args(arguments).arg("--config").arg(file.path()).output().unwrap();
        let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        Self { stdout, stderr, code: status.code() }
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn complains_of(&self, parts: &[&str]) -> &Self {
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?} in:\n{}", self.stderr);
        }
        self
    }

    #[track_caller]
    pub fn keeps(&self, secret: &str) -> &Self {
        assert!(!self.stdout.contains(secret) && !self.stderr.contains(secret), "{secret} is told");
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// A stage that runs; killed when dropped.
pub struct Stage {
    child: Child,
    log: Receiver<Value>,
    /// Everything that was logged and waited past.
    pub seen: Vec<Value>,
    config: NamedTempFile,
}

impl Stage {
    /// Starts `rollcall ARGUMENTS` with a configuration that logs JSON.
    pub fn start(arguments: &[&str], config: &Value) -> Self {
        Self::start_with_env(arguments, config, &[])
    }

    pub fn start_with_env(arguments: &[&str], config: &Value, env: &[(&str, &str)]) -> Self {
        let config = config_file(config);
        let mut child = rollcall()
            .args(arguments)
            .arg("--config")
            .arg(config.path())
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, log) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Self { child, log, seen: Vec::new(), config }
    }

    /// Waits for a log event with that message; the event.
    pub fn wait_for(&mut self, message: &str, limit: Duration) -> Value {
        self.try_wait_for(&[message], limit)
            .unwrap_or_else(|| panic!("no {message:?} in {limit:?}; log:\n{}", self.tail()))
    }

    /// Waits for a log event with one of these messages.
    pub fn try_wait_for(&mut self, messages: &[&str], limit: Duration) -> Option<Value> {
        let deadline = Instant::now() + limit;
        loop {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    self.seen.push(event.clone());
                    if messages.iter().any(|message| event["message"] == *message) {
                        return Some(event);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// The last lines of the log.
    pub fn tail(&mut self) -> String {
        // Of one that has ended all will come.
        let patience = if self.has_ended() { Duration::from_secs(10) } else { Duration::ZERO };
        while let Ok(event) = self.log.recv_timeout(patience) {
            self.seen.push(event);
        }
        let last = self.seen.len().saturating_sub(30);
        self.seen[last..].iter().map(|event| format!("{event}\n")).collect()
    }

    /// Waits until it answers `ok` at `/readyz`.
    pub fn wait_until_ready(&mut self) {
        let address = self.admin_address();
        super::wait_for("readiness", Duration::from_secs(180), || {
            assert!(self.child.try_wait().unwrap().is_none(), "it ended; log:\n{}", self.tail());
            get(&address, "/readyz").filter(|answer| answer.starts_with("HTTP/1.1 200"))
        });
    }

    /// The admin port's answer to a GET, once the port is known from the log.
    pub fn get(&mut self, path: &str) -> String {
        get(&self.admin_address(), path).expect("an answer")
    }

    /// The address of a page of the admin port, for a browser.
    pub fn address(&mut self, path: &str) -> String {
        format!("http://{}{path}", self.admin_address())
    }

    fn admin_address(&mut self) -> String {
        let opened = self.seen.iter().find(|event| event["message"] == "admin port open").cloned();
        let opened = opened.unwrap_or_else(|| self.wait_for("admin port open", Duration::from_secs(60)));
        opened["address"].as_str().unwrap().to_owned()
    }

    /// The sum of a metric over the label sets that contain `labels`.
    pub fn metric(&mut self, name: &str, labels: &str) -> f64 {
        let text = self.get("/metrics");
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(labels));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// CPU time that it has used, user and system.
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.child.id())
    }

    /// Its memory.
    #[allow(dead_code)]
    pub fn memory(&self) -> Memory {
        memory(self.child.id())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by its name, as in `TERM`.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Writes its configuration file anew and asks it to read it.
    pub fn reconfigure(&self, config: &Value) {
        std::fs::write(self.config.path(), config.to_string()).unwrap();
        self.signal("HUP");
    }

    /// Waits for the end.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        super::wait_for("the end of the program", limit, || self.child.try_wait().unwrap())
    }

    /// Whether it ended by itself.
    #[allow(dead_code)]
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// SIGTERM, and the exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait(Duration::from_secs(30)).code()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a process a signal by its name, as in `TERM`.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().unwrap();
    assert!(sent.success());
}

/// CPU time that a process has used, user and system.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // After the command, which may have spaces; utime and stime, in hundredths of a second.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    [11, 12].iter().map(|index| fields[*index].parse::<f64>().unwrap() / 100.0).sum()
}

/// Memory of a process that is in RAM, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub now: u64,
    /// The most that it ever was.
    pub peak: u64,
}

/// The memory of a process, by Linux.
pub fn memory(pid: u32) -> Memory {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
        line.trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
    };
    Memory { now: of("VmRSS:"), peak: of("VmHWM:") }
}

/// The answer to a GET, if somebody listens.
pub fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
