//! What librdkafka tells of a client every few seconds, as far as we want to know it.
//!
//! Its lag is none of it: `consumer_lag` compares with what this client commits by itself, and a transactional consumer
//! commits nothing by itself. The offsets that a lag can be told from are.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Takes the statistics of one client, on the thread that serves it.
pub type Tell = Arc<dyn Fn(&Statistics) + Send + Sync>;

/// Who is told of the clients of a stage.
#[derive(Clone)]
pub struct Listeners {
    /// Of the member of its group.
    pub consumer: Tell,
    /// Of its producer.
    pub producer: Tell,
}

/// Nobody is told.
pub fn nobody() -> Tell {
    Arc::new(|_| {})
}

/// The statistics of one client. Counters began with the client; what librdkafka does not tell, or tells as a negative
/// number, is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Statistics {
    /// Of the client: no other of this process has it.
    pub name: String,
    /// Records in the producer's queue.
    #[serde(rename = "msg_cnt", deserialize_with = "figure")]
    pub queued_records: Option<u64>,
    /// Bytes in the producer's queue.
    #[serde(rename = "msg_size", deserialize_with = "figure")]
    pub queued_bytes: Option<u64>,
    /// By a name that says how the client came to know it: a node may be there more than once.
    pub brokers: BTreeMap<String, Broker>,
    topics: BTreeMap<String, Topic>,
    #[serde(rename = "cgrp")]
    group: Group,
}

/// A connection to a broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Broker {
    /// `None` before the cluster has told it.
    #[serde(rename = "nodeid", deserialize_with = "figure")]
    pub node: Option<u64>,
    /// Requests that were sent again.
    #[serde(rename = "txretries", deserialize_with = "figure")]
    pub retries: Option<u64>,
    /// Requests that were not answered in time.
    #[serde(rename = "req_timeouts", deserialize_with = "figure")]
    pub timeouts: Option<u64>,
    /// Attempts to connect.
    #[serde(deserialize_with = "figure")]
    pub connects: Option<u64>,
    /// Connections that ended.
    #[serde(deserialize_with = "figure")]
    pub disconnects: Option<u64>,
    /// Microseconds from request to answer, since the last statistics.
    #[serde(rename = "rtt")]
    pub round_trip: Window,
}

/// A distribution over the time since the last statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Window {
    #[serde(rename = "cnt", deserialize_with = "figure")]
    count: Option<u64>,
    #[serde(deserialize_with = "figure")]
    p99: Option<u64>,
}

impl Window {
    /// The 99th percentile; `None` where nothing was measured.
    pub fn p99(self) -> Option<u64> {
        self.p99.filter(|_| self.count > Some(0))
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Topic {
    partitions: BTreeMap<String, Partition>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Partition {
    #[serde(deserialize_with = "figure")]
    partition: Option<u64>,
    desired: bool,
    fetch_state: String,
    #[serde(deserialize_with = "figure")]
    fetchq_cnt: Option<u64>,
    #[serde(deserialize_with = "figure")]
    fetchq_size: Option<u64>,
    /// Behind the last record that the application was handed, markers stepped over; none after a seek.
    #[serde(deserialize_with = "figure")]
    app_offset: Option<u64>,
    #[serde(deserialize_with = "figure")]
    lo_offset: Option<u64>,
    #[serde(deserialize_with = "figure")]
    ls_offset: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Group {
    #[serde(deserialize_with = "figure")]
    rebalance_cnt: Option<u64>,
}

/// How far a partition that is ours was read, and how far it could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The partition.
    pub partition: i32,
    /// Where its log begins.
    pub start: i64,
    /// Where it ends for who reads what is committed: the last stable offset.
    pub end: i64,
    /// Where reading goes on; `None` where nothing was read since the last seek.
    pub position: Option<i64>,
}

impl Standing {
    /// Offsets that are still to be read, where reading began at `sought`. What was deleted will never be. `None` where
    /// the end is from before the seek, and not yet known anew.
    pub fn behind(self, sought: i64) -> Option<u64> {
        if self.position.is_none() && self.end < sought {
            return None;
        }
        let position = self.position.unwrap_or(sought).max(self.start);
        Some(u64::try_from(self.end - position).unwrap_or_default())
    }
}

impl Statistics {
    /// Reads librdkafka's JSON. What it has more is passed over.
    ///
    /// # Errors
    /// When it is no JSON, or not built as librdkafka says.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Partitions of `topic` that this client reads.
    pub fn standings(&self, topic: &str) -> Vec<Standing> {
        let offset = |figure: Option<u64>| i64::try_from(figure?).ok();
        let standing = |partition: &Partition| {
            Some(Standing {
                partition: i32::try_from(partition.partition?).ok()?,
                start: offset(partition.lo_offset).unwrap_or_default(),
                end: offset(partition.ls_offset)?,
                position: offset(partition.app_offset),
            })
        };
        let read = |partition: &&Partition| partition.desired && partition.fetch_state == "active";
        let partitions = self.topics.get(topic).into_iter().flat_map(|topic| topic.partitions.values());
        partitions.filter(read).filter_map(standing).collect()
    }

    /// Records and bytes that were fetched and not yet taken.
    pub fn fetched(&self) -> (u64, u64) {
        let partitions = self.topics.values().flat_map(|topic| topic.partitions.values());
        partitions.fold((0, 0), |(records, bytes), partition| {
            (records + partition.fetchq_cnt.unwrap_or_default(), bytes + partition.fetchq_size.unwrap_or_default())
        })
    }

    /// Rebalances of the group that this client took part in.
    pub fn rebalances(&self) -> Option<u64> {
        self.group.rebalance_cnt
    }
}

/// Reads what a client tells and hands it over. Never an error of ours: the figures are missing, and all else goes on.
pub(super) fn hear(json: &[u8], tell: &Tell) -> Option<Statistics> {
    match Statistics::parse(json) {
        Ok(statistics) => {
            tell(&statistics);
            Some(statistics)
        }
        Err(error) => {
            tracing::debug!(%error, "statistics of librdkafka that cannot be read");
            None
        }
    }
}

/// Anything else than a natural number is none.
fn figure<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_u64())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Statistics {
        Statistics::parse(value.to_string().as_bytes()).unwrap()
    }

    fn with(partition: Value) -> Statistics {
        read(&json!({"topics": {"raw": {"topic": "raw", "partitions": {"3": partition, "-1": {"partition": -1}}}}}))
    }

    /// Partition 3, read to 7 of 10.
    fn partition() -> Value {
        json!({"partition": 3, "desired": true, "fetch_state": "active", "fetchq_cnt": 2, "fetchq_size": 700,
               "app_offset": 7, "lo_offset": 0, "ls_offset": 10, "hi_offset": 12, "consumer_lag": -1})
    }

    fn partition_but(name: &str, value: Value) -> Statistics {
        let mut partition = partition();
        partition[name] = value;
        with(partition)
    }

    #[test]
    fn the_lag_is_the_last_stable_offset_minus_the_position() {
        let statistics = with(partition());
        let [standing] = statistics.standings("raw")[..] else { panic!("{statistics:?}") };
        assert_eq!(standing, Standing { partition: 3, start: 0, end: 10, position: Some(7) });
        assert_eq!(standing.behind(0), Some(3));
        assert_eq!(statistics.fetched(), (2, 700));
        assert!(statistics.standings("events").is_empty());
    }

    #[test]
    fn after_a_seek_the_position_is_what_was_sought() {
        let statistics = partition_but("app_offset", json!(-1001));
        assert_eq!(statistics.standings("raw")[0].behind(4), Some(6));
        assert_eq!(statistics.standings("raw")[0].behind(10), Some(0));
        assert_eq!(statistics.standings("raw")[0].behind(11), None, "the end is that of an earlier ownership");
    }

    #[test]
    fn what_was_deleted_is_no_lag_and_no_lag_is_negative() {
        assert_eq!(partition_but("lo_offset", json!(9)).standings("raw")[0].behind(0), Some(1));
        assert_eq!(partition_but("ls_offset", json!(5)).standings("raw")[0].behind(0), Some(0));
    }

    #[test]
    fn a_partition_that_is_not_ours_or_was_never_fetched_has_no_lag() {
        for (name, value) in [("desired", json!(false)), ("fetch_state", json!("stopped")), ("ls_offset", json!(-1001))]
        {
            assert!(partition_but(name, value).standings("raw").is_empty(), "{name}");
        }
    }

    #[test]
    fn what_is_unknown_missing_or_negative_is_passed_over() {
        let statistics = read(&json!({
            "name": "rdkafka#producer-2", "msg_cnt": -5, "msg_size": "7", "new_in_3_0": {"x": []},
            "brokers": {"GroupCoordinator": {"nodeid": -1, "txretries": 2, "connects": null,
                                             "rtt": {"cnt": 0, "p99": 900}}},
        }));
        assert_eq!((statistics.queued_records, statistics.queued_bytes), (None, None));
        let broker = &statistics.brokers["GroupCoordinator"];
        assert_eq!((broker.node, broker.retries, broker.connects, broker.timeouts), (None, Some(2), None, None));
        assert_eq!(broker.round_trip.p99(), None, "nothing was measured");
        assert_eq!(statistics.rebalances(), None);
    }

    #[test]
    fn what_is_no_json_is_told_to_nobody() {
        let tell: Tell = Arc::new(|_| panic!("told"));
        assert_eq!(hear(b"{\"msg_cnt\": 007}", &tell), None);
    }
}
