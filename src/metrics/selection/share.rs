//! The division of prompts in two parts, by a share and a seed.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;
use crate::rng::{hash, mix};

/// An exact share between 0 and 1, written `0.4` or `1/3`.
///
/// A binary 0.4 is not two fifths, and a third has no decimal: counts would come out one off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    numerator: u64,
    denominator: u64,
}

impl Share {
    /// FuseChat-3.0's SFT share of instruction prompts, 4 to 6.
    pub const FUSECHAT3_SFT: Self = Self { numerator: 2, denominator: 5 };
    /// WRPO's SFT share.
    pub const WRPO_SFT: Self = Self { numerator: 1, denominator: 3 };

    /// The share of `n`, rounded down.
    pub fn of(self, n: usize) -> usize {
        (n as u128 * u128::from(self.numerator) / u128::from(self.denominator)) as usize
    }
}

impl FromStr for Share {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::BadFraction { text: text.to_owned() };
        let (above, below) = match text.trim().split_once('/') {
            Some((above, below)) => (above.trim().to_owned(), below.trim().to_owned()),
            None => {
                let (whole, decimals) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
                (format!("{whole}{decimals}"), format!("1{}", "0".repeat(decimals.len())))
            }
        };
        let whole = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse::<u64>().ok()).flatten().ok_or_else(bad)
        };
        let (numerator, denominator) = (whole(&above)?, whole(&below)?);
        if denominator == 0 || numerator > denominator {
            return Err(bad());
        }
        let mut divisor = (numerator, denominator);
        while divisor.1 != 0 {
            divisor = (divisor.1, divisor.0 % divisor.1);
        }
        Ok(Self { numerator: numerator / divisor.0, denominator: denominator / divisor.0 })
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.numerator, self.denominator)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Share;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share between 0 and 1, such as 0.4 or \"1/3\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Share, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Share, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Share, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Share, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl JsonSchema for Share {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A share between 0 and 1, such as 0.4 or \"1/3\".",
            "type": ["number", "string"],
            "minimum": 0,
            "maximum": 1,
            "pattern": r"^\s*[0-9]+(\.[0-9]*|\s*/\s*[0-9]+)?\s*$",
        })
    }
}

/// Divides prompts at random: true for those of the first part, which is the share of all, rounded down.
///
/// Prompts are ordered by a hash of seed and `prompt_id`, and the first of that order are taken; so the division does not depend on the
/// order of the rows, and a few more prompts move few others. FuseChat-3.0 takes 2/5 for SFT, WRPO 1/3;
/// neither gives its shuffle.
pub fn divide(prompt_ids: &[&str], share: Share, seed: u64) -> Result<Vec<bool>, Error> {
    let mut seen = HashSet::new();
    if let Some(prompt_id) = prompt_ids.iter().find(|prompt_id| !seen.insert(**prompt_id)) {
        return Err(Error::DuplicatePrompt { prompt_id: (*prompt_id).to_owned() });
    }
    let mut order: Vec<usize> = (0..prompt_ids.len()).collect();
    order.sort_by_cached_key(|position| (mix(hash(prompt_ids[*position]) ^ mix(seed)), prompt_ids[*position]));
    let mut first = vec![false; prompt_ids.len()];
    for position in &order[..share.of(prompt_ids.len())] {
        first[*position] = true;
    }
    Ok(first)
}
