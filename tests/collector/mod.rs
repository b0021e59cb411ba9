//! The collector: nothing missed, nothing falsely gone. Scenario by scenario, on Apache Kafka.

mod memory;
