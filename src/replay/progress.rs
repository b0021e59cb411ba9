//! How far a replay is: told by what is committed, shown as a bar on a terminal and as a line in the log elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::io::IsTerminal;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::plan::Ranges;

/// How often the log tells, where no bar does.
const TELL_EVERY: Duration = Duration::from_secs(10);
const BAR: &str = "{bar:30} {percent:>3} %  {human_pos} of {human_len}  {rate}/s  {eta_precise} left";

/// How far each partition of a range is. Shared by the engines that read and whoever watches.
pub struct Progress {
    partitions: BTreeMap<i32, Partition>,
}

struct Partition {
    range: Range<i64>,
    /// Up to where it is committed.
    at: AtomicI64,
    is_done: AtomicBool,
}

impl Progress {
    /// Of `ranges`, where `standing` is what an earlier start has done.
    pub fn new(ranges: &Ranges, standing: &BTreeMap<i32, i64>) -> Self {
        let partition = |(number, range): (&i32, &Range<i64>)| {
            let at = standing.get(number).copied().unwrap_or(range.start).clamp(range.start, range.end);
            (*number, Partition { range: range.clone(), at: at.into(), is_done: (at == range.end).into() })
        };
        Self { partitions: ranges.iter().map(partition).collect() }
    }

    /// Where the part of a partition ends; nothing of a partition that is not in the plan.
    pub fn end(&self, partition: i32) -> i64 {
        self.partitions.get(&partition).map_or(0, |partition| partition.range.end)
    }

    /// What is before `offset` is committed.
    pub fn committed(&self, partition: i32, offset: i64) {
        if let Some(partition) = self.partitions.get(&partition) {
            partition.at.store(offset.min(partition.range.end), Ordering::Relaxed);
        }
    }

    /// All of the partition's part is committed.
    pub fn done(&self, partition: i32) {
        if let Some(partition) = self.partitions.get(&partition) {
            partition.at.store(partition.range.end, Ordering::Relaxed);
            partition.is_done.store(true, Ordering::Release);
        }
    }

    /// Whether everything is.
    pub fn is_done(&self) -> bool {
        self.partitions.values().all(|partition| partition.is_done.load(Ordering::Acquire))
    }

    /// Offsets in all, and those behind us.
    pub fn offsets(&self) -> (u64, u64) {
        let sum = |of: &dyn Fn(&Partition) -> i64| self.partitions.values().map(of).sum::<i64>().unsigned_abs();
        let at = |partition: &Partition| partition.at.load(Ordering::Relaxed) - partition.range.start;
        (sum(&|partition| partition.range.end - partition.range.start), sum(&at))
    }
}

/// Shows a [`Progress`].
pub struct Display {
    bar: Option<ProgressBar>,
    /// When work began, and with how much done.
    began: (Instant, u64),
    told: Instant,
}

impl Display {
    /// On standard error: a bar, where that is a terminal.
    pub fn new(progress: &Progress) -> Self {
        let (total, done) = progress.offsets();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(5));
            // The template is a constant that a test draws.
            let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.with_key("rate", |state: &ProgressState, text: &mut dyn fmt::Write| {
                // Where it cannot be written there is nothing to be done.
                let _ = write!(text, "{}", HumanCount(state.per_sec() as u64));
            }));
            bar.set_position(done);
            // Its rate is that of this start.
            bar.reset_eta();
            bar
        });
        Self { bar, began: (Instant::now(), done), told: Instant::now() }
    }

    /// Shows where it is now.
    pub fn show(&mut self, progress: &Progress) {
        let (total, done) = progress.offsets();
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None if self.told.elapsed() >= TELL_EVERY => {
                self.told = Instant::now();
                let (began, before) = self.began;
                let rate = (done - before.min(done)) as f64 / began.elapsed().as_secs_f64();
                let left = if rate > 0.0 { ((total - done) as f64 / rate).round() as u64 } else { 0 };
                let percent = done * 100 / total.max(1);
                tracing::info!(
                    percent,
                    done,
                    total,
                    records_per_second = rate.round(),
                    seconds_left = left,
                    "replaying"
                );
            }
            None => {}
        }
    }

    /// Takes the bar away: what follows is text.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges() -> Ranges {
        Ranges::from([(0, 10..20), (1, 5..5)])
    }

    #[test]
    fn it_is_done_when_each_partition_is() {
        let progress = Progress::new(&ranges(), &BTreeMap::new());
        assert_eq!(progress.offsets(), (10, 0));
        assert!(!progress.is_done());
        progress.committed(0, 17);
        assert_eq!(progress.offsets(), (10, 7));
        progress.done(0);
        assert_eq!(progress.offsets(), (10, 10));
        assert!(progress.is_done(), "an empty part is done from the beginning");
    }

    #[test]
    fn it_goes_on_where_an_earlier_start_stopped() {
        let progress = Progress::new(&ranges(), &BTreeMap::from([(0, 15)]));
        assert_eq!(progress.offsets(), (10, 5));
        assert!(Progress::new(&ranges(), &BTreeMap::from([(0, 20)])).is_done());
    }

    #[test]
    fn the_bar_can_be_drawn() {
        ProgressStyle::with_template(BAR).unwrap();
    }
}
