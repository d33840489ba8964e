//! What DataFusion wants to know of a function of single rows, around a plain Rust function of arrays.

use std::hash::{Hash, Hasher};

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

/// A function of single rows.
#[derive(Debug)]
pub(super) struct Scalar {
    name: &'static str,
    signature: Signature,
    gives: DataType,
    run: fn(&[ArrayRef]) -> Result<ArrayRef>,
}

impl Scalar {
    /// A function whose arguments are brought to one of these lists of types.
    pub fn new(
        name: &'static str,
        takes: &[&[DataType]],
        gives: DataType,
        run: fn(&[ArrayRef]) -> Result<ArrayRef>,
    ) -> Self {
        let forms = takes.iter().map(|types| TypeSignature::Exact(types.to_vec())).collect();
        Self { name, signature: Signature::one_of(forms, Volatility::Immutable), gives, run }
    }

    /// A function that takes any types and casts them itself.
    pub fn of_any(
        name: &'static str,
        n_arguments: usize,
        gives: DataType,
        run: fn(&[ArrayRef]) -> Result<ArrayRef>,
    ) -> Self {
        Self { name, signature: Signature::any(n_arguments, Volatility::Immutable), gives, run }
    }
}

// A name stands for one function.
impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Scalar {}

impl Hash for Scalar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Scalar {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.gives.clone())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let arrays = arguments.args.into_iter().map(|value| value.into_array(rows)).collect::<Result<Vec<_>>>()?;
        (self.run)(&arrays).map(ColumnarValue::Array)
    }
}
