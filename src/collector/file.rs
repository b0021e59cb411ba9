//! Source `file`: the output of `aws ec2 describe-instances`, or instances one a line, from a file or standard input.

use std::path::{Path, PathBuf};

use chrono::Utc;
use serde_json::{Map, Value};
use tokio::io::AsyncReadExt;

use super::fault::{Fault, FaultKind};
use super::source::{BoxFuture, Discovery, Page, Pages, RESERVATION_MEMBERS, Scope, Source};
use crate::config::FileSource;
use crate::record::canonical::Instance;

/// What is read of a file: the fleet of a hundred thousand instances takes half of that.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Instances a page.
const PAGE: usize = 1000;

/// A file of instances; the scope is what the configuration says of it.
pub struct FileInstances {
    name: String,
    file: FileSource,
}

impl FileInstances {
    /// The source called `name`.
    pub fn new(name: &str, file: FileSource) -> Self {
        Self { name: name.to_owned(), file }
    }
}

impl Source for FileInstances {
    fn scopes(&self) -> BoxFuture<'_, Discovery> {
        let scope = Scope {
            source: self.name.clone(),
            account: self.file.account.as_ref().map(|account| account.0.clone()),
            region: self.file.region.clone(),
        };
        Box::pin(async { Discovery { scopes: vec![scope], unknown: Vec::new() } })
    }

    fn pages(&self, _: &Scope) -> Box<dyn Pages + '_> {
        Box::new(FilePages { path: self.file.path.clone(), rest: None })
    }

    /// Standard input can be read once.
    fn can_repeat(&self) -> bool {
        self.file.path != Path::new("-")
    }
}

struct FilePages {
    path: PathBuf,
    /// What is not yet handed over; `None` before the file is read.
    rest: Option<Vec<Value>>,
}

impl Pages for FilePages {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Page>, Fault>> {
        Box::pin(async {
            if self.rest.is_none() {
                let text =
                    read(&self.path).await.map_err(|error| Fault::new(FaultKind::InvalidFile, error.to_string()))?;
                let instances = instances(&text).map_err(|error| {
                    Fault::new(
                        FaultKind::InvalidFile,
                        format!("{} is not what describe-instances prints: {error}", self.path.display()),
                    )
                })?;
                self.rest = Some(instances);
            }
            let rest = self.rest.as_mut().filter(|rest| !rest.is_empty());
            Ok(rest.map(|rest| {
                let instances = rest.drain(..rest.len().min(PAGE)).map(|value| Instance::of_value(&value)).collect();
                Page { observed_at: Utc::now(), instances }
            }))
        })
    }
}

/// All of a file, or of standard input where the path is `-`.
///
/// # Errors
/// When it cannot be read, or is not UTF-8; the message names the file.
pub async fn read(path: &Path) -> Result<String, std::io::Error> {
    let read = async {
        let mut text = String::new();
        if path == Path::new("-") {
            tokio::io::stdin().take(MAX_FILE_BYTES + 1).read_to_string(&mut text).await?;
        } else {
            let file = tokio::fs::File::open(path).await?;
            // What is surely too large is not even begun.
            let size = file.metadata().await?.len();
            if size <= MAX_FILE_BYTES {
                file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).await?;
            } else {
                return Err(too_large());
            }
        }
        if text.len() as u64 > MAX_FILE_BYTES { Err(too_large()) } else { Ok(text) }
    };
    read.await.map_err(|error| std::io::Error::new(error.kind(), format!("{} cannot be read: {error}", path.display())))
}

fn too_large() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::FileTooLarge, format!("it is larger than {MAX_FILE_BYTES} bytes"))
}

/// The instances in a text: `{"Reservations": […]}`, or a list of reservations or instances, or one of these a line.
///
/// # Errors
/// When the text is not JSON; the message names line and column.
pub fn instances(text: &str) -> Result<Vec<Value>, serde_json::Error> {
    let mut found = Vec::new();
    for document in serde_json::Deserializer::from_str(text).into_iter() {
        flatten(document?, &Map::new(), &mut found);
    }
    Ok(found)
}

fn flatten(value: Value, reservation: &Map<String, Value>, found: &mut Vec<Value>) {
    match value {
        Value::Array(list) => list.into_iter().for_each(|element| flatten(element, reservation, found)),
        Value::Object(mut object) => {
            if let Some(reservations) = object.remove("Reservations") {
                flatten(reservations, reservation, found);
            } else if let Some(instances) = object.remove("Instances") {
                object.retain(|name, _| RESERVATION_MEMBERS.contains(&name.as_str()));
                flatten(instances, &object, found);
            } else {
                for (name, member) in reservation {
                    object.entry(name.clone()).or_insert_with(|| member.clone());
                }
                found.push(Value::Object(object));
            }
        }
        other => found.push(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_cli_prints_becomes_instances_with_their_reservations_members() {
        let text = json!({"Reservations": [
            {"OwnerId": "1", "ReservationId": "r-1", "Groups": [], "Instances": [{"InstanceId": "i-1"}, {"InstanceId": "i-2", "OwnerId": "2"}]},
            {"Instances": []},
        ]});
        assert_eq!(
            instances(&text.to_string()).unwrap(),
            [
                json!({"InstanceId": "i-1", "OwnerId": "1", "ReservationId": "r-1"}),
                json!({"InstanceId": "i-2", "OwnerId": "2", "ReservationId": "r-1"}),
            ]
        );
    }

    #[tokio::test]
    async fn a_file_that_is_too_large_is_not_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MAX_FILE_BYTES + 1).unwrap();
        let error = read(file.path()).await.unwrap_err().to_string();
        assert!(
            error.contains("larger than 1073741824 bytes") && error.contains(file.path().to_str().unwrap()),
            "{error}"
        );
    }

    #[test]
    fn lines_lists_and_single_instances_are_read_alike() {
        let expected = [json!({"InstanceId": "i-1"}), json!({"InstanceId": "i-2"})];
        for text in [
            "{\"InstanceId\":\"i-1\"}\n\n{\"InstanceId\":\"i-2\"}\n",
            "[{\"InstanceId\":\"i-1\"},{\"InstanceId\":\"i-2\"}]",
            "{\"Instances\":[{\"InstanceId\":\"i-1\"}]}\n{\"InstanceId\":\"i-2\"}",
        ] {
            assert_eq!(instances(text).unwrap(), expected, "{text}");
        }
        assert_eq!(instances("").unwrap(), Vec::<Value>::new());
    }

    #[test]
    fn what_is_no_instance_is_handed_on_and_what_is_no_json_is_an_error() {
        assert_eq!(instances("[1, {\"a\": 2}]").unwrap(), [json!(1), json!({"a": 2})]);
        assert!(instances("{\"InstanceId\": \"i-1\"}\n{oops").unwrap_err().to_string().contains("line 2"));
    }
}
