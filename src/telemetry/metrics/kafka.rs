//! What the Kafka clients tell of themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec};

use super::Maker;
use crate::kafka::statistics::{Listeners, Statistics, Tell};

/// Metrics of the Kafka clients, by client and engine; those of connections by the broker's node ID too.
pub struct KafkaMetrics {
    /// Seconds from request to answer, the 99th percentile of the last interval.
    round_trip: GaugeVec,
    retries: IntCounterVec,
    timeouts: IntCounterVec,
    connects: IntCounterVec,
    disconnects: IntCounterVec,
    /// In the producer's queue.
    queued_records: IntGaugeVec,
    queued_bytes: IntGaugeVec,
    /// Fetched and not yet taken.
    fetched_records: IntGaugeVec,
    fetched_bytes: IntGaugeVec,
    rebalances: IntCounterVec,
}

impl KafkaMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Result<Self, prometheus::Error> {
        let client = &["client", "engine"];
        let broker = &["client", "engine", "broker"];
        Ok(Self {
            round_trip: make.fractions(
                "rollcall_kafka_broker_round_trip_p99_seconds",
                "From request to answer, 99th percentile of the last statistics interval.",
                broker,
            )?,
            retries: make.counters("rollcall_kafka_request_retries_total", "Requests that were sent again.", broker)?,
            timeouts: make.counters(
                "rollcall_kafka_request_timeouts_total",
                "Requests that were not answered in time.",
                broker,
            )?,
            connects: make.counters("rollcall_kafka_connects_total", "Attempts to connect to a broker.", broker)?,
            disconnects: make.counters(
                "rollcall_kafka_disconnects_total",
                "Connections to a broker that ended.",
                broker,
            )?,
            queued_records: make.gauges(
                "rollcall_kafka_producer_queue_records",
                "Records in the producer's queue.",
                client,
            )?,
            queued_bytes: make.gauges(
                "rollcall_kafka_producer_queue_bytes",
                "Bytes in the producer's queue.",
                client,
            )?,
            fetched_records: make.gauges(
                "rollcall_kafka_fetch_queue_records",
                "Records that were fetched and not yet taken.",
                client,
            )?,
            fetched_bytes: make.gauges(
                "rollcall_kafka_fetch_queue_bytes",
                "Bytes that were fetched and not yet taken.",
                client,
            )?,
            rebalances: make.counters(
                "rollcall_kafka_rebalances_total",
                "Rebalances that gave or took partitions.",
                client,
            )?,
        })
    }

    /// Who is told by the clients of a stage: `clients` are the names of its consumer and its producer.
    pub fn listeners(self: &Arc<Self>, clients: [&'static str; 2], engine: &str) -> Listeners {
        let [consumer, producer] = clients.map(|client| self.listener(client, engine));
        Listeners { consumer, producer }
    }

    fn listener(self: &Arc<Self>, client: &'static str, engine: &str) -> Tell {
        let (metrics, engine) = (Arc::clone(self), engine.to_owned());
        let told = Mutex::new(Told::default());
        Arc::new(move |statistics| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            metrics.take([client, &engine], &mut told, statistics);
        })
    }

    fn take(&self, client: [&str; 2], told: &mut Told, statistics: &Statistics) {
        let is_producer = client[0].ends_with("producer");
        if told.client != statistics.name {
            // A producer that was renewed counts from zero.
            *told = Told { client: statistics.name.clone(), nodes: std::mem::take(&mut told.nodes), ..Told::default() };
        }
        let mut round_trips = BTreeMap::new();
        for (name, broker) in &statistics.brokers {
            let node = broker.node.map_or_else(|| "bootstrap".to_owned(), |node| node.to_string());
            let labels = [client[0], client[1], &node];
            let counters = [
                (&self.retries, broker.retries),
                (&self.timeouts, broker.timeouts),
                (&self.connects, broker.connects),
                (&self.disconnects, broker.disconnects),
            ];
            for (which, (counter, value)) in counters.into_iter().enumerate() {
                counter.with_label_values(&labels).inc_by(told.more(name, which, value));
            }
            if let Some(micros) = broker.round_trip.p99() {
                let slowest: &mut u64 = round_trips.entry(node).or_default();
                *slowest = micros.max(*slowest);
            }
        }
        for node in &told.nodes {
            if !round_trips.contains_key(node) {
                let _ = self.round_trip.remove_label_values(&[client[0], client[1], node]);
            }
        }
        for (node, micros) in &round_trips {
            self.round_trip.with_label_values(&[client[0], client[1], node]).set(*micros as f64 / 1e6);
        }
        told.nodes = round_trips.into_keys().collect();
        let set = |gauge: &IntGaugeVec, value: u64| {
            gauge.with_label_values(&client).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        if is_producer {
            set(&self.queued_records, statistics.queued_records.unwrap_or_default());
            set(&self.queued_bytes, statistics.queued_bytes.unwrap_or_default());
        } else {
            let (records, bytes) = statistics.fetched();
            set(&self.fetched_records, records);
            set(&self.fetched_bytes, bytes);
            self.rebalances.with_label_values(&client).inc_by(told.more("", 0, statistics.rebalances()));
        }
    }
}

/// What a client has told before.
#[derive(Default)]
struct Told {
    /// Its name: that of its successor is another.
    client: String,
    /// Its counters, by connection and number.
    counters: BTreeMap<(String, usize), u64>,
    /// Brokers that have a round trip.
    nodes: BTreeSet<String>,
}

impl Told {
    /// By how much a counter of the client has grown.
    fn more(&mut self, connection: &str, which: usize, value: Option<u64>) -> u64 {
        let Some(value) = value else { return 0 };
        let before = self.counters.insert((connection.to_owned(), which), value).unwrap_or_default();
        value.saturating_sub(before)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Metrics;
    use super::*;

    /// The metrics of a consumer and of a producer that have told `told`, one line each.
    fn lines(told: &[Value]) -> Vec<String> {
        let metrics = Metrics::new().unwrap();
        let listeners = metrics.kafka.listeners(["mapper-consumer", "mapper-producer"], "0");
        for json in told {
            let statistics = Statistics::parse(json.to_string().as_bytes()).unwrap();
            (listeners.consumer)(&statistics);
            (listeners.producer)(&statistics);
        }
        let text = metrics.render().unwrap();
        text.lines().filter(|line| line.contains("_kafka_") && !line.starts_with('#')).map(str::to_owned).collect()
    }

    fn of(client: &str, broker: Value) -> Value {
        json!({"name": client, "brokers": {"127.0.0.1:9092/1": broker}})
    }

    fn line(name: &str, labels: &str, value: &str) -> String {
        format!("rollcall_kafka_{name}{{{labels}}} {value}")
    }

    #[test]
    fn a_node_is_one_broker_however_the_client_came_to_know_it() {
        let lines = lines(&[json!({
            "name": "a", "msg_cnt": 4, "msg_size": 99, "cgrp": {"rebalance_cnt": 2},
            "brokers": {
                "127.0.0.1:9092/bootstrap": {"nodeid": -1, "connects": 5},
                "127.0.0.1:9092/1": {"nodeid": 1, "connects": 2, "rtt": {"cnt": 9, "p99": 1500}},
                "GroupCoordinator": {"nodeid": 1, "connects": 1, "rtt": {"cnt": 1, "p99": 250_000}},
            },
        })]);
        for expected in [
            line("connects_total", r#"broker="bootstrap",client="mapper-consumer",engine="0""#, "5"),
            line("connects_total", r#"broker="1",client="mapper-consumer",engine="0""#, "3"),
            line("broker_round_trip_p99_seconds", r#"broker="1",client="mapper-producer",engine="0""#, "0.25"),
            line("producer_queue_records", r#"client="mapper-producer",engine="0""#, "4"),
            line("producer_queue_bytes", r#"client="mapper-producer",engine="0""#, "99"),
            line("fetch_queue_records", r#"client="mapper-consumer",engine="0""#, "0"),
            line("rebalances_total", r#"client="mapper-consumer",engine="0""#, "2"),
        ] {
            assert!(lines.contains(&expected), "{expected}\n{lines:#?}");
        }
        let is_odd = |line: &&String| line.contains("producer_queue") && line.contains("consumer");
        assert_eq!(lines.iter().find(is_odd), None, "a consumer has no queue of a producer");
    }

    #[test]
    fn counters_go_on_when_a_client_is_replaced() {
        let told = [
            of("a", json!({"nodeid": 1, "txretries": 2})),
            of("a", json!({"nodeid": 1, "txretries": 5})),
            of("b", json!({"nodeid": 1, "txretries": 6})),
            of("b", json!({"nodeid": 1, "txretries": 6})),
        ];
        let expected = line("request_retries_total", r#"broker="1",client="mapper-producer",engine="0""#, "11");
        assert!(lines(&told).contains(&expected));
    }

    #[test]
    fn a_round_trip_goes_when_none_was_measured() {
        let measured = of("a", json!({"nodeid": 1, "rtt": {"cnt": 3, "p99": 700}}));
        let is_round_trip = |line: &String| line.contains("round_trip");
        assert!(lines(std::slice::from_ref(&measured)).iter().any(is_round_trip));
        let idle = of("a", json!({"nodeid": 1, "rtt": {"cnt": 0, "p99": 0}}));
        assert!(!lines(&[measured, idle]).iter().any(is_round_trip));
    }
}
