//! A status page of a process that does not run: what its stages would tell is told by the test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use rollcall::admin;
use rollcall::collector::fault::{Fault, FaultKind};
use rollcall::collector::health::{Health, Next, State};
use rollcall::collector::source::Scope;
use rollcall::config::{Admin, Secret};
use rollcall::status::history::Totals;
use rollcall::status::latest::{Change, Field};
use rollcall::status::report::Watched;
use rollcall::status::{Board, PartitionStanding, Reason};
use rollcall::telemetry;
use rollcall::telemetry::metrics::Metrics;
use tokio_util::sync::CancellationToken;

pub const TOKEN: &str = "a-token-of-some-length";
/// Of the devices that [`Served::fill`] tells of.
pub const DEVICE: &str = "i-0c0ffee0000000007";

/// Served until it is dropped.
pub struct Served {
    pub address: SocketAddr,
    pub health: Arc<Health>,
    pub board: Arc<Board>,
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<telemetry::health::Health>,
    stop: CancellationToken,
    _runtime: tokio::runtime::Runtime,
}

impl Served {
    /// On loopback.
    pub fn start(token: Option<&str>) -> Self {
        Self::start_on("127.0.0.1:0", token)
    }

    pub fn start_on(listen: &str, token: Option<&str>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let (board, readiness) = (Arc::<Board>::default(), Arc::<telemetry::health::Health>::default());
        let health = Arc::new(Health::new("test", Box::new(|_, _| ()), Box::new(|_, _, _| ())));
        let _ = board.sources.set(health.clone());
        let watched = Watched {
            instance_id: "rollcall-0".to_owned(),
            started: Instant::now(),
            metrics: metrics.clone(),
            health: readiness.clone(),
            board: board.clone(),
        };
        let admin = Admin { listen: listen.to_owned(), token: token.map(Secret::from) };
        let stop = CancellationToken::new();
        let address = runtime.block_on(admin::serve(&admin, watched, stop.clone())).unwrap();
        Self { address, health, board, metrics, readiness, stop, _runtime: runtime }
    }

    /// The page's address.
    pub fn page(&self) -> String {
        format!("http://127.0.0.1:{}/", self.address.port())
    }

    /// 34 scopes, three of them in error; twelve partitions, one of them held; 200 changes; two hours of work behind it.
    pub fn fill(&self) {
        let scopes = scopes();
        for state in [State::Pending, State::Started, State::Initialized, State::Authenticated] {
            self.health.reached("production", state);
            self.health.reached("acquired-companies", state);
        }
        let collector = &self.metrics.collector;
        let now = Utc::now();
        for (index, scope) in scopes.iter().enumerate() {
            let fault = match index {
                4 => Some(Fault::new(
                    FaultKind::Denied,
                    format!(
                        "DescribeInstances: UnauthorizedOperation: You are not authorized to perform this operation on {DEVICE}."
                    ),
                )),
                17 => Some(Fault::new(
                    FaultKind::Throttled,
                    "DescribeInstances: RequestLimitExceeded: Request limit exceeded.",
                )),
                30 => Some(Fault::new(FaultKind::Vanished, "312 of 340 known instances were not listed")),
                _ => None,
            };
            self.health.swept(scope, fault.as_ref());
            let next = if index == 9 { Next::Now } else { Next::At(now + TimeDelta::seconds(13 * index as i64 + 5)) };
            self.health.next_sweep(scope, Some(next));
            let labels = scope.labels();
            collector
                .last_complete
                .with_label_values(&labels)
                .set((now - TimeDelta::seconds(7 * index as i64)).timestamp());
            collector.known.with_label_values(&labels).set(1 + 1234 * (index as i64 % 7));
            collector.suspects.with_label_values(&labels).set(i64::from(index % 11 == 3));
        }
        for source in ["production", "acquired-companies"] {
            collector.interval.with_label_values(&[source]).set(300);
        }
        let mapper = &self.metrics.mapper;
        let standing = |partition| PartitionStanding {
            partition,
            phase: if partition == 7 { "held" } else { "running" },
            devices: 10_000 + 731 * partition as usize,
        };
        self.board.engine("0", (0..12).map(standing).collect(), None);
        self.hold("a record of the state topic cannot be taken over: it was written by mapping version 2, this is version 1; upgrade this one", 7);
        for partition in 0..12 {
            let label = partition.to_string();
            mapper.lag_records.with_label_values(&[&label]).set(if partition == 7 { 41_233 } else { partition % 3 });
            mapper.lag_seconds.with_label_values(&[&label]).set(if partition == 7 { 318.4 } else { 0.0 });
        }
        mapper.state_bytes.with_label_values(&["0"]).set(61_000_000);
        mapper.dead_letters.with_label_values(&["misrouted"]).inc_by(3);
        mapper.dead_letters.with_label_values(&["not-an-object"]).inc_by(14);
        self.board.latest.add(&(0..200).map(change).collect::<Vec<_>>());
        // As if it had run for a quarter of an hour, where the machine has.
        let past = 180 * rollcall::status::history::EVERY;
        let began = Instant::now().checked_sub(past).unwrap_or_else(Instant::now);
        let mut totals = Totals::default();
        for look in 0..180_u32 {
            let wave = 1.0 + (f64::from(look) / 9.0).sin();
            totals.swept += 4000.0 * wave;
            totals.mapped += 4000.0 * wave;
            totals.events += 23.0 * (1.0 + (f64::from(look) / 5.0).cos());
            let lag = if look > 120 { 5.3 * f64::from(look - 120) } else { 0.0 };
            self.board.history.add(totals, lag, lag * 132.0, began + look * Duration::from_secs(5));
        }
        let more = |total: f64, a_second: f64| (total + 5.0 * a_second) as u64;
        self.metrics.collector.instances.with_label_values(&["production"]).inc_by(more(totals.swept, 1400.0));
        let events = more(totals.events, 6.0);
        mapper.records.with_label_values(&["updated"]).inc_by(events);
        mapper.records.with_label_values(&["unchanged"]).inc_by(more(totals.mapped, 1400.0) - events);
    }

    /// A partition is held, because of a device.
    pub fn hold(&self, why: &str, partition: i32) {
        let reason = Reason { shown: why.to_owned(), key: Some(DEVICE.to_owned()) };
        self.readiness.not_ready(&format!("raw partition {partition}"), &reason.shown);
        self.board.held(partition, Some(reason));
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn scope(source: &str, account: &str, region: &str) -> Scope {
    Scope { source: source.to_owned(), account: Some(account.to_owned()), region: Some(region.to_owned()) }
}

fn scopes() -> Vec<Scope> {
    const REGIONS: [&str; 17] = [
        "af-south-1",
        "ap-east-1",
        "ap-northeast-1",
        "ap-northeast-3",
        "ap-southeast-2",
        "ca-central-1",
        "eu-central-1",
        "eu-north-1",
        "eu-south-2",
        "eu-west-1",
        "eu-west-3",
        "il-central-1",
        "me-central-1",
        "sa-east-1",
        "us-east-1",
        "us-gov-west-1",
        "us-west-2",
    ];
    let of = |(source, account)| REGIONS.map(|region| scope(source, account, region));
    [("production", "123456789012"), ("acquired-companies", "210987654321")].into_iter().flat_map(of).collect()
}

/// One of all kinds of change.
pub fn change(number: usize) -> Change {
    let kind = ["updated", "created", "updated", "removed", "updated", "remapped"][number % 6];
    let field = |path: &str, from: Option<&str>, to: Option<&str>| Field {
        path: path.to_owned(),
        from: from.map(str::to_owned),
        to: to.map(str::to_owned),
    };
    let fields = match number % 6 {
        0 => vec![
            field("device.state", Some("running"), Some("stopped")),
            field("device.ip", Some("203.0.113.17"), None),
        ],
        2 => vec![field(
            "device.groups[sg-0f1e2d3c4b5a69788].name",
            Some("web"),
            Some("web-and-a-much-longer-name-of-a-group"),
        )],
        4 => vec![field(
            "device.network_interfaces[eni-0123456789abcdef0].ip",
            None,
            Some("2001:db8:85a3:8d3:1319:8a2e:370:7348"),
        )],
        5 => vec![field("device.os.name", Some("Linux/UNIX"), Some("Amazon Linux"))],
        _ => Vec::new(),
    };
    Change {
        at: Utc::now() - TimeDelta::seconds(3 * (200 - number.min(200)) as i64),
        change: kind,
        reason: (kind == "removed").then_some("absent"),
        instance: format!("i-0c0ffee{number:010}"),
        name: (number % 5 != 1).then(|| {
            format!(
                "orders-db-{}",
                ["prod-07", "a-name-that-somebody-has-made-very-long-indeed-for-some-reason-or-other"]
                    [usize::from(number.is_multiple_of(13))]
            )
        }),
        account: Some("123456789012".to_owned()),
        region: Some("ap-northeast-1".to_owned()),
        revision: 3,
        summary: if kind == "created" { "m7i.large, running, 10.104.211.51".to_owned() } else { String::new() },
        fields,
        more_fields: usize::from(number % 6 == 2) * 3,
    }
}
