//! The clock of the processes of a stage, which can be stepped: Debian's libfaketime before the C library.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// It reads the machine's clock, and what it is set apart by.
pub struct Clock {
    folder: TempDir,
}

impl Clock {
    pub fn new() -> Self {
        let clock = Self { folder: tempfile::tempdir().unwrap() };
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/env/waits.c");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(clock.waits()).arg(source).status();
        assert!(built.unwrap().success(), "{source} is compiled");
        clock.step("+0");
        clock
    }

    /// Sets it apart from the machine's, in seconds. The processes look once a second.
    pub fn step(&self, by: &str) {
        // Whole at any moment.
        let new = self.folder.path().join("new");
        std::fs::write(&new, by).unwrap();
        std::fs::rename(new, self.apart()).unwrap();
    }

    /// What processes have in their environment that go by it.
    pub fn env(&self) -> Vec<(String, String)> {
        let of = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![
            of("LD_PRELOAD", &format!("{}:{}", library().display(), self.waits().display())),
            of("FAKETIME_TIMESTAMP_FILE", self.apart().to_str().unwrap()),
            of("FAKETIME_CACHE_DURATION", "1"),
            of("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    }

    fn apart(&self) -> PathBuf {
        self.folder.path().join("apart")
    }

    fn waits(&self) -> PathBuf {
        self.folder.path().join("waits.so")
    }
}

/// The one for programs with threads.
fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
    let found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    found.expect("libfaketime, which `./dev test` installs")
}
