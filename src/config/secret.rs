//! Text that must not be shown.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

/// What is shown instead.
const REDACTED: &str = "(redacted)";
/// Of a file that holds one secret; a chain of certificates in `ssl.ca.pem` takes a fraction of that.
const MAX_SECRET_BYTES: u64 = 1 << 20;

/// A secret: written as text, or as `{file: PATH}` whose content it is; prints and serializes as `(redacted)`, and is
/// wiped from memory with its last owner.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WrittenSecret")]
pub struct Secret(Zeroizing<String>);

/// A secret as it is written.
#[derive(Deserialize)]
#[serde(untagged, expecting = "neither text nor {file: PATH}")]
enum WrittenSecret {
    Here(Scalar),
    There(InFile),
}

/// No struct: that could be written as a list too.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum InFile {
    File(PathBuf),
}

/// YAML reads `true` and `5` as what they look like; where text is wanted they are text.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Scalar {
    Text(String),
    Flag(bool),
    Integer(i64),
    Float(f64),
}

impl From<Scalar> for String {
    fn from(scalar: Scalar) -> Self {
        match scalar {
            Scalar::Text(text) => text,
            Scalar::Flag(flag) => flag.to_string(),
            Scalar::Integer(number) => number.to_string(),
            Scalar::Float(number) => number.to_string(),
        }
    }
}

impl TryFrom<WrittenSecret> for Secret {
    type Error = String;

    fn try_from(written: WrittenSecret) -> Result<Self, String> {
        match written {
            WrittenSecret::Here(scalar) => Ok(Self(String::from(scalar).into())),
            WrittenSecret::There(InFile::File(file)) => {
                content(&file).map(|text| Self(text.into())).map_err(|why| format!("the file {} {why}", file.display()))
            }
        }
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned().into())
    }
}

/// What a file holds, without the line's end that editors put behind it. No message repeats any of it.
fn content(path: &Path) -> Result<String, String> {
    let mut bytes = Zeroizing::new(Vec::new());
    let read = File::open(path).and_then(|file| file.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(format!("is larger than {MAX_SECRET_BYTES} bytes"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    if text.is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}

impl Secret {
    /// The text itself: for the call that needs it, and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Settings {
        password: Secret,
    }

    fn read(written: serde_json::Value) -> Result<Settings, String> {
        serde_json::from_value(serde_json::json!({"password": written})).map_err(|error| error.to_string())
    }

    fn file(content: &[u8]) -> (tempfile::NamedTempFile, serde_json::Value) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let written = serde_json::json!({"file": file.path()});
        (file, written)
    }

    #[test]
    fn a_secret_is_written_as_text_or_read_from_a_file_without_the_last_line_end() {
        for (written, text) in [("hunter2".into(), "hunter2"), (12345.into(), "12345"), (true.into(), "true")] {
            assert_eq!(read(written).unwrap().password.expose(), text);
        }
        for content in ["hunter2", "hunter2\n", "hunter2\r\n"] {
            let (_file, written) = file(content.as_bytes());
            assert_eq!(read(written).unwrap().password.expose(), "hunter2");
        }
        let (_file, written) = file(b" two\nlines \n\n");
        assert_eq!(read(written).unwrap().password.expose(), " two\nlines \n");
    }

    #[test]
    fn what_is_no_secret_is_refused_and_nothing_of_it_repeated() {
        let large = vec![b'x'; (MAX_SECRET_BYTES + 1) as usize];
        for (content, part) in [(&b"hunter2\xff"[..], "not UTF-8"), (b"\n", "is empty"), (&large, "larger than")] {
            let (file, written) = file(content);
            let message = read(written).unwrap_err();
            assert!(message.contains(part) && message.contains(file.path().to_str().unwrap()), "{message}");
            assert!(message.len() < 200 && !message.contains("hunter2"), "{message}");
        }
        let missing = read(serde_json::json!({"file": "/nowhere/password"})).unwrap_err();
        assert!(missing.contains("/nowhere/password cannot be read: No such file"), "{missing}");
        for other in [serde_json::json!({"files": "hunter2"}), serde_json::json!(["hunter2"]), serde_json::Value::Null]
        {
            assert_eq!(read(other).unwrap_err(), "neither text nor {file: PATH}");
        }
    }

    #[test]
    fn it_is_wiped_and_never_shown() {
        fn is_wiped<T: zeroize::ZeroizeOnDrop>(_: &T) {}
        let settings = read("hunter2".into()).unwrap();
        is_wiped(&settings.password.0);
        assert_eq!(
            format!("{settings:?} {}", serde_json::json!(settings.password)),
            "Settings { password: (redacted) } \"(redacted)\""
        );
    }
}
