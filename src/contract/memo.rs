//! Rows that were paid for once: an operator that pays per row asks here first
//! and leaves every finished row here at once.
//!
//! A row's key ([`RowKey`]) names everything that decides the row and nothing
//! else: no position, no stage, no pipeline. So the same row is shared by all
//! stages and pipelines of a store, and one more prompt costs one more row.

use std::fmt;

use crate::error::StageError;
use crate::hash::Domain;
use crate::operator::Operator;
use crate::value::Value;

/// What decides one row: BLAKE3 under a domain of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey(pub [u8; 32]);

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A function from one row's input to its result, with everything that is the
/// same for all rows of a stage.
#[derive(Debug, Clone)]
pub struct RowFunction {
    name: &'static str,
    common: blake3::Hasher,
}

impl RowFunction {
    /// The row function of an operator: its name, version, parts and numerics
    /// class, and what else decides every row, such as the model's content and
    /// the parameters. A parameter at the value that does nothing is best left
    /// out, so that keys outlive the parameters that are added later.
    pub fn of<T: Operator>(decides: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        let parts = Value::map(T::PARTS.iter().map(|part| (part.name, Value::from(part.version))));
        let function = Value::map([
            ("name", T::NAME.into()),
            ("version", T::VERSION.into()),
            ("parts", parts),
            ("numerics", T::TRAITS.numerics.map_or(Value::Null, Value::from)),
            ("decides", Value::map(decides)),
        ]);
        let mut common = Domain::RowKey.hasher();
        common.update(&function.encode());
        Self { name: T::NAME, common }
    }

    /// Its name: the operator's.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The key of a row: exactly what the function sees of it.
    pub fn key(&self, row: &Value) -> RowKey {
        // An encoding says where it ends, so two of them in a row are not ambiguous.
        RowKey(*self.common.clone().update(&row.encode()).finalize().as_bytes())
    }
}

/// The rows of one row function that are remembered.
pub trait Memo: Sync {
    /// Hands out every row that is remembered, with the place of its key in
    /// `keys`, in no fixed order. `take` says whether it can use the row; one
    /// that it cannot counts as not remembered.
    fn get_many(&self, keys: &[RowKey], take: &mut dyn FnMut(usize, &[u8]) -> bool) -> Result<(), StageError>;

    /// Remembers a finished row; from now on it survives the end of this
    /// process. Never call it for a row that failed or was cut short.
    fn put(&self, key: &RowKey, row: &[u8]) -> Result<(), StageError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::{Part, Traits};
    use crate::port::Ports;

    struct Toy<const VERSION: u32>;

    impl<const V: u32> Operator for Toy<V> {
        const NAME: &'static str = "toy";
        const VERSION: u32 = V;
        const PARTS: &'static [Part] = &[Part { name: "lm.toy", version: 3 }];
        const TRAITS: Traits = Traits { uses_seed: true, numerics: Some("f32/cpu"), ..Traits::PURE };
        const MANUAL: &'static str = "A toy.";
        const EXAMPLE: &'static str = "op: toy";
        type Config = ();

        fn ports((): &()) -> Ports {
            Ports { inputs: vec![], outputs: vec![] }
        }
    }

    fn key<T: Operator>(decides: &'static str, value: u32, row: &str) -> RowKey {
        RowFunction::of::<T>([(decides, value.into())]).key(&row.into())
    }

    #[test]
    fn everything_that_decides_a_row_changes_its_key() {
        let base = key::<Toy<1>>("tokens", 1, "a");
        assert_eq!(base, key::<Toy<1>>("tokens", 1, "a"));
        for other in [
            key::<Toy<2>>("tokens", 1, "a"),
            key::<Toy<1>>("tokens", 2, "a"),
            key::<Toy<1>>("limit", 1, "a"),
            key::<Toy<1>>("tokens", 1, "b"),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_row_key_is_the_hash_of_two_encodings() {
        // Written out, so that no change of the code can move remembered rows unnoticed.
        let function = Value::map([
            ("name", Value::from("toy")),
            ("version", 1u32.into()),
            ("parts", Value::map([("lm.toy", Value::from(3u32))])),
            ("numerics", "f32/cpu".into()),
            ("decides", Value::map([("tokens", Value::from(1u32))])),
        ]);
        let mut preimage = function.encode();
        preimage.extend(Value::from("a").encode());
        assert_eq!(key::<Toy<1>>("tokens", 1, "a").0, blake3::derive_key("fuseline 2026 row key v1", &preimage));
    }
}
