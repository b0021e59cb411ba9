//! x
#![allow(missing_docs)]
use chrono::{DateTime, Utc};
use serde_json::Value;
pub struct Row<'a> {
    pub at: DateTime<Utc>,
    pub change: &'a str,
    pub reason: Option<&'a str>,
    pub id: &'a str,
    pub device: &'a Value,
    pub fields: &'a [(String, Value, Value)],
}
pub struct Summary {
    pub swept: u64,
    pub unchanged: u64,
    pub created: u64,
    pub updated: u64,
    pub removed: u64,
    pub sweeps: u64,
    pub elapsed: std::time::Duration,
}
impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(
            f,
            "{} swept {} unchanged {} created {} updated {} removed",
            self.swept, self.unchanged, self.created, self.updated, self.removed
        )
    }
}
pub fn header(_: usize) -> String {
    "h".into()
}
pub fn row(row: &Row, _: usize) -> String {
    format!("{} {} {} {:?}", row.at, row.change, row.id, row.fields)
}
