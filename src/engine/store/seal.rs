//! A seal on small JSON files: what does not verify itself by its name carries
//! a checksum, so that a flipped byte makes it unreadable, which counts as
//! absent, and never gives another value.
//!
//! The last member of the object is `"check"`, the first half of the blake3 of
//! all bytes before it; so sealed files are plain JSON, and sealed lines plain
//! JSON lines.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What stands between the object's other members and the checksum's digits.
const BEFORE: &[u8] = b",\"check\":\"";
/// And behind the digits.
const AFTER: &[u8] = b"\"}";
const DIGITS: usize = 32;

fn check(bytes: &[u8]) -> String {
    let mut hex = blake3::hash(bytes).to_hex().to_string();
    hex.truncate(DIGITS);
    hex
}

/// The sealed bytes of a value, which must be a JSON object with members; one line.
pub fn seal(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("plain data");
    let closed = bytes.pop();
    debug_assert!(closed == Some(b'}') && bytes.len() > 1, "only objects with members are sealed");
    let digits = check(&bytes);
    bytes.extend([BEFORE, digits.as_bytes(), AFTER].concat());
    bytes
}

/// A value out of sealed bytes; nothing if they are not as they were written.
pub fn unseal<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let rest = bytes.strip_suffix(AFTER)?;
    let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(DIGITS)?)?;
    let members = rest.strip_suffix(BEFORE)?;
    (check(members).as_bytes() == digits).then_some(())?;
    serde_json::from_slice(&[members, b"}"].concat()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_sealed_value_is_json_and_no_flipped_bit_gives_another() {
        let value = json!({"a": 1, "text": "x}y\"", "inner": {"check": "no"}});
        let sealed = seal(&value);
        assert_eq!(unseal::<Value>(&sealed).as_ref(), Some(&value));
        let plain: Value = serde_json::from_slice(&sealed).expect("it is JSON");
        assert_eq!(plain["text"], value["text"]);
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut flipped = sealed.clone();
                flipped[at] ^= 1 << bit;
                assert_eq!(unseal::<Value>(&flipped), None, "byte {at}, bit {bit}");
            }
        }
        for length in 0..sealed.len() {
            assert_eq!(unseal::<Value>(&sealed[..length]), None, "cut to {length}");
        }
    }
}
