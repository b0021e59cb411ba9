//! What `/metrics` says of a run on Apache Kafka, and that the README says the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

use crate::support::kafka::{TestTopics, flush, producer, send};
use crate::support::process::Stage;
use crate::support::stages::wait_until_mapped;
use crate::support::wait_for;

const LIMIT: Duration = Duration::from_secs(60);
const LAG_RECORDS: &str = "rollcall_mapper_lag_records";
const LAG_SECONDS: &str = "rollcall_mapper_lag_seconds";

/// A configuration whose clients tell their statistics often.
fn config(topics: &TestTopics) -> Value {
    let mut config = topics.config();
    config["kafka"]["properties"]["statistics.interval.ms"] = json!(100);
    config
}

/// A sample: name, labels, value.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// What `/metrics` says, and the type of each metric.
struct Page {
    types: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

impl Page {
    fn of(stage: &mut Stage) -> Self {
        let answer = stage.get("/metrics");
        let (_, text) = answer.split_once("\r\n\r\n").unwrap();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let types = types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect();
        Self { types, samples: text.lines().filter(|line| line.starts_with("rollcall_")).map(sample).collect() }
    }

    /// The metric that a sample is of: a histogram has samples of three names.
    fn metric(&self, sample: &Sample) -> String {
        let parts = ["_bucket", "_sum", "_count"].into_iter();
        let histograms = parts.filter_map(|part| sample.name.strip_suffix(part));
        let is_one = |name: &&str| self.types.get(*name).is_some_and(|kind| kind == "histogram");
        histograms.into_iter().find(is_one).unwrap_or(&sample.name).to_owned()
    }

    /// The label names of each metric.
    fn labels(&self) -> BTreeMap<String, BTreeSet<String>> {
        let names = |sample: &Sample| sample.labels.keys().filter(|name| *name != "le").cloned().collect();
        self.samples.iter().map(|sample| (self.metric(sample), names(sample))).collect()
    }

    /// The values of a metric with one label, by that label.
    fn by_label(&self, name: &str) -> BTreeMap<String, f64> {
        let samples = self.samples.iter().filter(|sample| sample.name == name);
        samples.map(|sample| (sample.labels.values().next().unwrap().clone(), sample.value)).collect()
    }

    fn value(&self, name: &str, label: &str) -> Option<f64> {
        self.by_label(name).get(label).copied()
    }
}

/// Reads a line as in `name{label="value"} 1`. No value of ours has a quote in it.
fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.trim_end_matches('}').split_terminator("\",").map(|label| {
        let (name, value) = label.split_once("=\"").unwrap();
        (name.to_owned(), value.trim_end_matches('"').to_owned())
    });
    Sample { name: name.to_owned(), labels: labels.collect(), value: value.parse().unwrap() }
}

/// Writes instances to a raw topic in transactions, so that markers follow them.
struct Transactions(BaseProducer);

impl Transactions {
    fn begin(topics: &TestTopics) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", topics.brokers()).set("transactional.id", topics.name("foreign"));
        let producer: BaseProducer = config.set("partitioner", "murmur2_random").create().unwrap();
        producer.init_transactions(LIMIT).unwrap();
        Self(producer)
    }

    /// One transaction of records that fit (`true`) or are rejected.
    fn write(&self, topics: &TestTopics, records: &[bool]) {
        self.0.begin_transaction().unwrap();
        for fits in records {
            let id = instance_id();
            let value = if *fits { instance(&id) } else { "no instance".to_owned() };
            self.0
                .send(BaseRecord::to(&topics.name("raw")).key(&id).payload(&value))
                .map_err(|(error, _)| error)
                .unwrap();
        }
        flush(&self.0);
    }

    fn commit(&self) {
        self.0.commit_transaction(LIMIT).unwrap();
    }

    fn abort(&self) {
        self.0.abort_transaction(LIMIT).unwrap();
    }
}

fn instance_id() -> String {
    format!("i-{:017x}", fastrand::u64(1 << 40..1 << 60))
}

fn instance(id: &str) -> String {
    json!({"InstanceId": id, "OwnerId": "123456789012", "State": {"Code": 16, "Name": "running"}}).to_string()
}

fn wait_for_lag(mapper: &mut Stage, records: f64) -> Page {
    wait_for("the lag", LIMIT, || {
        let page = Page::of(mapper);
        let is_there = page.value(LAG_RECORDS, "0") == Some(records) && page.value(LAG_SECONDS, "0").is_some();
        is_there.then_some(page)
    })
}

#[test]
fn a_partition_with_unread_records_shows_how_many_and_one_read_to_its_trailing_markers_shows_none() {
    let topics = TestTopics::create(1);
    let mut config = config(&topics);
    let foreign = Transactions::begin(&topics);
    foreign.write(&topics, &[true; 5]);
    foreign.commit();
    config["mapper"]["max_reject_streak"] = json!(3);
    let mut mapper = Stage::start(&["map"], &config);
    mapper.wait_until_ready();
    wait_until_mapped(&topics);
    let page = wait_for_lag(&mut mapper, 0.0);
    assert_eq!(page.value(LAG_SECONDS, "0"), Some(0.0));

    // It stops at the third of these, and reads nothing of this transaction for good.
    foreign.write(&topics, &[false, false, false, true, true, true, true]);
    foreign.commit();
    // Seven records, the marker behind them, and the one before them: it goes on from the last record that it has.
    let page = wait_for_lag(&mut mapper, 9.0);
    let seconds = page.value(LAG_SECONDS, "0").unwrap();
    wait_for("the lag to grow old", LIMIT, || {
        (Page::of(&mut mapper).value(LAG_SECONDS, "0") > Some(seconds + 0.2)).then_some(())
    });
    assert_eq!(page.value("rollcall_mapper_records_total", "rejected"), None, "counted, and never committed");
    assert_eq!(page.value("rollcall_mapper_transactions_total", "aborted"), Some(1.0));
    assert_eq!(mapper.stop(), Some(0));

    // Nothing but markers may follow: of an aborted transaction, and of one after it.
    foreign.write(&topics, &[true; 2]);
    foreign.abort();
    config["mapper"]["max_reject_streak"] = json!(0);
    let mut mapper = Stage::start(&["map"], &config);
    mapper.wait_until_ready();
    wait_until_mapped(&topics);
    let page = wait_for_lag(&mut mapper, 0.0);
    assert_eq!(page.value(LAG_SECONDS, "0"), Some(0.0));
    // It counts once it has heard of its commit.
    wait_for("what was committed to be counted", LIMIT, || {
        let page = Page::of(&mut mapper);
        let delays = page.samples.iter().find(|sample| sample.name == "rollcall_mapper_event_delay_seconds_count")?;
        let counted = ["rejected", "created"].map(|outcome| page.value("rollcall_mapper_records_total", outcome));
        ((counted, delays.value) == ([Some(3.0), Some(4.0)], 4.0)).then_some(())
    });
    assert_eq!(mapper.stop(), Some(0));

    // And after a restart nothing is read at all but the markers.
    let mut mapper = Stage::start(&["map"], &config);
    mapper.wait_until_ready();
    wait_for_lag(&mut mapper, 0.0);
    assert_eq!(mapper.stop(), Some(0));
}

#[test]
fn the_lag_of_a_partition_is_shown_by_the_process_that_has_it_and_by_no_other() {
    let topics = TestTopics::create(4);
    let with_lag = |mapper: &mut Stage| BTreeSet::from_iter(Page::of(mapper).by_label(LAG_RECORDS).into_keys());
    let all = BTreeSet::from(["0", "1", "2", "3"].map(str::to_owned));
    let mut first = Stage::start(&["map"], &config(&topics));
    first.wait_until_ready();
    wait_for("all partitions", LIMIT, || (with_lag(&mut first) == all).then_some(()));
    let mut other = config(&topics);
    other["instance_id"] = json!(format!("{}-2", topics.prefix));
    let mut second = Stage::start(&["map"], &other);
    second.wait_until_ready();
    wait_for("the partitions to be shared out", LIMIT, || {
        let (of_first, of_second) = (with_lag(&mut first), with_lag(&mut second));
        (of_first.len() == 2 && of_second.len() == 2 && of_first.is_disjoint(&of_second)).then_some(())
    });
    assert_eq!(Page::of(&mut first).by_label(LAG_SECONDS).len(), 2);
    assert_eq!(second.stop(), Some(0));
    wait_for("all partitions again", LIMIT, || (with_lag(&mut first) == all).then_some(()));
}

#[test]
fn a_collector_shows_what_it_remembers_before_it_has_swept() {
    let topics = TestTopics::create(1);
    let mut config = config(&topics);
    config["collector"]["sources"] = json!([{"name": "fleet", "interval": "7d", "simulated": {}}]);
    // Of all scopes, once each has been swept completely.
    let remembered = |collector: &mut Stage| {
        wait_for("complete sweeps", LIMIT, || {
            let page = Page::of(collector);
            let of = |name: &str| Vec::from_iter(page.samples.iter().filter(|sample| sample.name == name).cloned());
            let known = of("rollcall_collector_known_instances");
            let complete = of("rollcall_collector_last_complete_sweep_timestamp_seconds");
            let swept = of("rollcall_collector_sweeps_total");
            (!known.is_empty() && known.len() == complete.len()).then_some(([known, complete], swept))
        })
    };
    let mut first = Stage::start(&["collect"], &config);
    let (before, _) = remembered(&mut first);
    assert_eq!(first.stop(), Some(0));
    assert!(before[0].iter().all(|sample| sample.value > 0.0), "{before:?}");

    let mut second = Stage::start(&["collect"], &config);
    let (after, swept) = remembered(&mut second);
    assert_eq!((after, swept), (before, Vec::new()));
    assert_eq!(second.stop(), Some(0));
}

#[cfg(feature = "aws")]
#[test]
fn the_readme_and_a_run_of_everything_have_the_same_metrics_with_the_same_labels() {
    use crate::collector::AWS;
    use crate::support::server;

    let topics = TestTopics::create(2);
    let mut config = config(&topics);
    let listing = tempfile::NamedTempFile::new().unwrap();
    let nameless = json!({"Reservations": [{"Instances": [{"InstanceType": "m5.large"}]}]});
    std::fs::write(listing.path(), nameless.to_string()).unwrap();
    config["collector"]["sources"] = json!([
        {"name": "moto", "aws": {"regions": ["mx-central-1"], "endpoint_url": server("EC2")}},
        {"name": "fleet", "interval": "10s", "simulated": {}},
        {"name": "listing", "file": {"path": listing.path()}},
    ]);
    let mut everything = Stage::start_with_env(&["run"], &config, &AWS);
    everything.wait_until_ready();
    let (raw, foreign, id) = (topics.name("raw"), producer(), instance_id());
    let unreadable = json!({"InstanceId": id, "NetworkInterfaces": [{"MacAddress": 5}]}).to_string();
    send(&foreign, &raw, Some(id.as_bytes()), Some(unreadable.as_bytes()), &[], None);
    send(&foreign, &raw, None, Some(b"{}"), &[], Some(0));
    flush(&foreign);

    let mut documented = documented();
    // There only while an engine restores, as its own test sees.
    documented.remove("rollcall_mapper_restore_remaining_records").unwrap();
    let deadline = Instant::now() + LIMIT;
    let sum = |page: &Page, name: &str| -> f64 {
        page.samples.iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
    };
    let counts = |page: &Page| {
        ["rollcall_collector_instances_in_state", "rollcall_collector_known_instances"].map(|name| sum(page, name))
    };
    // While a sweep ends, one is counted before the other.
    let page = wait_for("every metric", LIMIT * 2, || {
        let page = Page::of(&mut everything);
        let [in_state, known] = counts(&page);
        ((page.labels() == documented && in_state == known) || Instant::now() > deadline).then_some(page)
    });
    assert_eq!(page.labels(), documented);
    check_conventions(&page);
    let [in_state, known] = counts(&page);
    assert_eq!(in_state, known);
    assert!(in_state > 0.0);
    assert_eq!(everything.stop(), Some(0));
}

/// The README's table: the labels of each metric.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let rows = include_str!("../README.md").lines().filter_map(|line| line.strip_prefix("| `rollcall_"));
    rows.map(|row| {
        let (name, rest) = row.split_once("` |").unwrap();
        let (labels, meaning) = rest.split_once('|').unwrap();
        assert!(meaning.len() > 5, "{name}");
        let labels = labels.split(',').map(|label| label.trim().trim_matches('`').to_owned());
        (format!("rollcall_{name}"), labels.filter(|label| !label.is_empty()).collect())
    })
    .collect()
}

/// Prometheus' conventions, and bounds.
fn check_conventions(page: &Page) {
    for (name, kind) in &page.types {
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        let is_base = |unit: &str| !["ms", "milliseconds", "minutes", "hours", "kb", "mb", "percent"].contains(&unit);
        assert!(name.split('_').all(is_base), "{name}");
    }
    for sample in &page.samples {
        for (label, value) in &sample.labels {
            let is_instance = value.len() > 9 && value.starts_with("i-");
            assert!(!is_instance && value.len() < 80, "{}: {label}={value:?}", sample.name);
        }
    }
}
