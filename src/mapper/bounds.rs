//! How much one transaction takes.

use std::time::Duration;

use crate::config::Config;

/// How many times as old a transaction may be while records wait.
const IN_ARREARS: u32 = 5;

/// Bounds of a transaction.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// It is committed when it is this old and no record waits,
    pub age: Duration,
    /// or this old. Each transaction costs the brokers the same, whatever is in it: while records wait, fewer and longer
    /// ones have all of them mapped sooner.
    pub most_age: Duration,
    /// Or when so many records have been read in it,
    pub records: usize,
    /// or so many bytes written.
    pub bytes: usize,
}

impl Bounds {
    /// As the configuration has them. A transaction that is committed in time may be half as old as Kafka lets one be.
    pub fn new(config: &Config) -> Self {
        let mapper = &config.mapper;
        Self {
            age: mapper.commit_interval,
            most_age: (mapper.commit_interval * IN_ARREARS).min(config.kafka.transaction_timeout / 2),
            records: mapper.max_batch_records.get(),
            bytes: mapper.max_batch_bytes.get(),
        }
    }

    /// Whether a transaction of this age, for which so many records were read and bytes written, is to be committed.
    pub fn are_reached(&self, age: Duration, records: usize, bytes: usize, records_wait: bool) -> bool {
        let most = if records_wait { self.most_age } else { self.age };
        age >= most || records >= self.records || bytes >= self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_waits_for_its_age_and_longer_while_records_wait() {
        let bounds = Bounds::new(&Config::default());
        let is_due = |age, records_wait| bounds.are_reached(Duration::from_millis(age), 1, 1, records_wait);
        assert_eq!([49, 50].map(|age| is_due(age, false)), [false, true]);
        assert_eq!([50, 249, 250].map(|age| is_due(age, true)), [false, false, true]);
    }

    #[test]
    fn records_and_bytes_end_one_at_once() {
        let bounds = Bounds::new(&Config::default());
        assert!(!bounds.are_reached(Duration::ZERO, bounds.records - 1, bounds.bytes - 1, true));
        assert!(bounds.are_reached(Duration::ZERO, bounds.records, 1, true));
        assert!(bounds.are_reached(Duration::ZERO, 1, bounds.bytes, true));
    }

    #[test]
    fn none_gets_as_old_as_kafka_gives_it_up() {
        let mut config = Config::default();
        config.mapper.commit_interval = config.kafka.transaction_timeout / 2;
        assert_eq!(Bounds::new(&config).most_age, config.mapper.commit_interval);
    }
}
