//! Where the reading begins, as a person says it.

use std::str::FromStr;

use crate::replay::position::Position;

/// Most records of a partition that are looked for from its end.
const MOST: usize = 100_000;

/// A place in every partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// As a replay has it.
    At(Position),
    /// The last so many records of each partition.
    Last(usize),
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "beginning" {
            return Ok(Self::At(Position::Earliest));
        }
        if let Some(count) = text.strip_prefix('-') {
            return match count.parse() {
                Ok(count @ 1..=MOST) => Ok(Self::Last(count)),
                _ => Err(format!("{text:?} is not -1 to -{MOST}, the last so many records of each partition")),
            };
        }
        text.parse().map(Self::At).map_err(|_| {
            format!(
                "{text:?} is no place in a topic; write beginning, now, a time as in 2026-01-02T03:04:05Z, how long ago as \
                 in 6h, an offset as in 1200, or -10 for the last ten records of each partition"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_start_is_a_place_or_a_number_of_last_records() {
        let at = |text: &str| text.parse::<Start>();
        assert_eq!(at("beginning"), Ok(Start::At(Position::Earliest)));
        assert_eq!(at("earliest"), Ok(Start::At(Position::Earliest)));
        assert_eq!(at("now"), Ok(Start::At(Position::Now)));
        assert_eq!(at("1200"), Ok(Start::At(Position::Offset(1200))));
        assert_eq!(at("6h"), Ok(Start::At(Position::Ago(Duration::from_secs(6 * 3600)))));
        assert_eq!(at("-10"), Ok(Start::Last(10)));
        for (wrong, complaint) in
            [("yesterday", "beginning, now"), ("-0", "-1 to"), ("-x", "-1 to"), ("-100001", "-1 to")]
        {
            assert!(at(wrong).unwrap_err().contains(complaint), "{wrong}");
        }
    }
}
