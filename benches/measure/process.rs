//! Rollcall in a process of its own, on topics of its own, looked at from outside.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rollcall::profile::Profile;
use serde_json::{Value, json};

pub const PARTITIONS: i32 = 12;
const READY_WITHIN: Duration = Duration::from_secs(300);
/// Linux's clock ticks, in which CPU time is told.
const TICKS_PER_SECOND: f64 = 100.0;

/// Topics of one measurement, and the configuration on them.
pub struct Topics {
    pub brokers: String,
    pub name: String,
    config: tempfile::NamedTempFile,
}

impl Topics {
    pub fn create(profile: Profile) -> anyhow::Result<Self> {
        let brokers = std::env::var("ROLLCALL_TEST_KAFKA").context("no ROLLCALL_TEST_KAFKA; run ./dev bench")?;
        let name = format!("bench-{}", uuid::Uuid::now_v7().simple());
        let topic = |topic: &str| format!("{name}.{topic}");
        let config = json!({
            "instance_id": name,
            "kafka": {
                "bootstrap_servers": brokers, "partitions": PARTITIONS, "sweep_partitions": 1, "replication_factor": 1,
                "topics": {
                    "raw": topic("raw"), "sweeps": topic("sweeps"), "events": topic("events"),
                    "state": topic("state"), "dead_letters": topic("dlq"), "health": topic("health"),
                },
            },
            "collector": {"group_id": topic("collector")},
            "mapper": {"group_id": topic("mapper"), "profile": profile.name()},
            "admin": {"listen": "127.0.0.1:0"},
            "log": {"format": "json"},
        });
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(config.to_string().as_bytes())?;
        let topics = Self { brokers, name, config: file };
        let created = topics.rollcall(&["topics", "--create"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        // Anything else than warnings of a single broker would show at the start.
        if created.code() == Some(2) {
            bail!("the topics cannot be created");
        }
        Ok(topics)
    }

    pub fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }

    /// Where the configuration lies.
    pub fn config(&self) -> &std::path::Path {
        self.config.path()
    }

    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    pub fn rollcall(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
        command.args(arguments).arg("--config").arg(self.config.path()).stdin(Stdio::null());
        command
    }

    /// Starts `rollcall map`, once its admin port is open.
    pub fn start_mapper(&self) -> anyhow::Result<Mapper> {
        let began = Instant::now();
        let mut child = self.rollcall(&["map"]).stderr(Stdio::piped()).spawn()?;
        let mut log = BufReader::new(child.stderr.take().context("no log")?).lines();
        let address = loop {
            let line: Value = serde_json::from_str(&log.next().context("it ended")??)?;
            if line["message"] == "admin port open" {
                break line["address"].as_str().context("no address")?.to_owned();
            }
        };
        // Or the pipe would fill.
        std::thread::spawn(move || log.for_each(drop));
        Ok(Mapper { child, address, began })
    }

    /// Takes topics away, to have their space back.
    pub fn delete(&self, names: &[&str]) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let topics: Vec<_> = names.iter().map(|name| self.topic(name)).collect();
        let names: Vec<_> = topics.iter().map(String::as_str).collect();
        let deleted = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(async { admin.delete_topics(&names, &AdminOptions::new()).await })?;
        for outcome in deleted {
            outcome.map_err(|(topic, code)| anyhow::anyhow!("{topic}: {code}"))?;
        }
        Ok(())
    }
}

/// A mapper that runs; killed when dropped.
pub struct Mapper {
    child: Child,
    address: String,
    began: Instant,
}

impl Mapper {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it is ready and knows so many devices; how long that took from its start.
    pub fn wait_until_ready(&mut self, devices: usize) -> anyhow::Result<Duration> {
        // Between two steps of a rebalance, what is owned may be ready and not be all.
        while !self.get("/readyz")?.starts_with("HTTP/1.1 200")
            || self.metric("rollcall_mapper_partitions")? != f64::from(PARTITIONS)
            || self.metric("rollcall_mapper_devices")? != devices as f64
        {
            if self.began.elapsed() > READY_WITHIN || self.child.try_wait()?.is_some() {
                bail!("not ready: {}", self.get("/readyz")?);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(self.began.elapsed())
    }

    /// The sum of a metric over its series.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        Ok(metrics(&self.get("/metrics")?).get(name).copied().unwrap_or_default())
    }

    /// How many raw records had that outcome.
    pub fn mapped(&self, outcome: &str) -> anyhow::Result<usize> {
        let label = format!("rollcall_mapper_records_total{{outcome=\"{outcome}\"}} ");
        let text = self.get("/metrics")?;
        Ok(text.lines().find_map(|line| line.strip_prefix(&label)?.parse().ok()).unwrap_or_default())
    }

    fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Ends it as an operator would.
    pub fn stop(mut self) -> anyhow::Result<()> {
        Command::new("kill").arg(self.id().to_string()).status()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sum of each metric over its series.
fn metrics(text: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("rollcall_")) {
        if let (Some(name), Some(value)) = (line.split(['{', ' ']).next(), line.rsplit(' ').next()) {
            *sums.entry(name.to_owned()).or_default() += value.parse().unwrap_or(0.0);
        }
    }
    sums
}

/// Bytes in RAM, now and at most.
pub fn memory(pid: u32) -> anyhow::Result<[u64; 2]> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
        anyhow::Ok(line.trim_end_matches("kB").trim().parse::<u64>()? << 10)
    };
    Ok([of("VmRSS:")?, of("VmHWM:")?])
}

/// Forgets how much memory it once had.
pub fn forget_peak(pid: u32) -> anyhow::Result<()> {
    Ok(std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

/// CPU time of a process, user's and kernel's, in seconds.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold anything.
    let fields: Vec<_> = stat.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|ticks| ticks.parse::<f64>().ok()).context("no such field");
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}
