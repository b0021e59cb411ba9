//! A file of dumped raw records in the place of the raw topic.
//!
//! Records are counted by partition, in the order of the file, and the count is the offset. What Kafka keeps, group,
//! offsets and fencing, it keeps by the partitions of the state topic, whose own records are not read here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};

use super::plan::Ranges;
use crate::record::dump::DumpedRecord;
use crate::record::partition_for;

/// The longest line that is read, in bytes: what a record may have, escaped.
const MAX_LINE: u64 = 64 << 20;

/// A file of dumped raw records, one a line, that has been looked through.
#[derive(Debug)]
pub struct Dump {
    path: PathBuf,
    /// Size in bytes: the file must not change while it is replayed.
    size: u64,
    /// Records, by partition.
    counts: Vec<i64>,
}

impl Dump {
    /// Looks through a file whose records are to lie in so many partitions.
    ///
    /// # Errors
    /// When it cannot be read, or a line is no record; the message names the line.
    pub fn scan(path: &Path, partitions: i32) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            bail!("--input -: standard input cannot be read a second time, and a replay must be able to; use a file");
        }
        let size = path.metadata().with_context(|| format!("{} cannot be read", path.display()))?.len();
        let mut dump = Self { path: path.to_owned(), size, counts: vec![0; partitions.max(1) as usize] };
        let mut lines = Lines::open(path)?;
        while let Some(record) = lines.next()? {
            let partition = dump.partition_of(&record);
            dump.counts[partition as usize] += 1;
        }
        Ok(dump)
    }

    /// What is said of it, so that another file cannot be taken for it.
    pub fn name(&self) -> String {
        format!("{} ({} bytes)", self.path.display(), self.size)
    }

    /// All of it.
    pub fn ranges(&self) -> Ranges {
        (0..).zip(&self.counts).map(|(partition, count)| (partition, 0..*count)).collect()
    }

    fn partition_of(&self, record: &DumpedRecord) -> i32 {
        // What has no key is rejected, wherever it lies.
        record.key().map_or(0, |key| partition_for(key, self.counts.len() as i32))
    }
}

/// The records of a file, with the numbers of their lines.
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    line: String,
    number: u64,
}

impl Lines {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::with_capacity(1 << 20, file),
            line: String::new(),
            number: 0,
        })
    }

    fn next(&mut self) -> anyhow::Result<Option<DumpedRecord>> {
        loop {
            self.line.clear();
            self.number += 1;
            let place = || format!("{}, line {}", self.path.display(), self.number);
            let mut limited = std::io::Read::take(&mut self.reader, MAX_LINE);
            if limited.read_line(&mut self.line).with_context(place)? == 0 {
                return Ok(None);
            }
            if self.line.trim().is_empty() {
                continue;
            }
            let record = serde_json::from_str(&self.line).with_context(|| {
                format!("{} is no raw record as `rollcall tail raw --output json` writes it", place())
            })?;
            return Ok(Some(record));
        }
    }
}

/// The records of a [`Dump`] for partitions that come and go.
pub struct Records {
    dump: Arc<Dump>,
    /// `None` where the file has to be read from its beginning.
    lines: Option<Lines>,
    /// How many records of each partition have been read.
    read: Vec<i64>,
    /// The running partitions, and where each goes on.
    running: BTreeMap<i32, i64>,
    /// Partitions of which nothing more comes.
    ended: Vec<i32>,
}

impl Records {
    /// All of a dump, once partitions run.
    pub fn new(dump: Arc<Dump>) -> Self {
        let read = vec![0; dump.counts.len()];
        Self { dump, lines: None, read, running: BTreeMap::new(), ended: Vec::new() }
    }

    /// The next record of a running partition, with its partition and offset.
    ///
    /// # Errors
    /// When the file cannot be read, or a line is no record.
    pub fn read(&mut self) -> anyhow::Result<Option<(i32, i64, DumpedRecord)>> {
        if self.running.is_empty() {
            return Ok(None);
        }
        let lines = match &mut self.lines {
            Some(lines) => lines,
            lines => {
                self.read.fill(0);
                lines.insert(Lines::open(&self.dump.path)?)
            }
        };
        while let Some(record) = lines.next()? {
            let partition = self.dump.partition_of(&record);
            let read = &mut self.read[partition as usize];
            let offset = *read;
            *read += 1;
            if self.running.get(&partition).is_some_and(|from| offset >= *from) {
                return Ok(Some((partition, offset, record)));
            }
        }
        self.ended = self.running.keys().copied().collect();
        Ok(None)
    }

    /// A partition whose end was reached since this was last asked.
    pub fn take_ended(&mut self) -> Option<i32> {
        self.ended.pop()
    }

    /// Hands over a partition's records from `offset` on.
    pub fn resume(&mut self, partition: i32, offset: i64) {
        self.running.insert(partition, offset);
        if self.read.get(partition as usize).is_some_and(|read| offset < *read) {
            self.lines = None;
        }
    }

    /// Leaves partitions out.
    pub fn pause(&mut self, partitions: &[i32]) {
        self.running.retain(|partition, _| !partitions.contains(partition));
    }
}
