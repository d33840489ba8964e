//! How one Rust value lies in an Arrow column.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int64Type};

use super::Message;

/// A Rust type with one Arrow type.
pub trait Cell: Sized {
    /// Whether the column may hold nulls.
    const NULLABLE: bool = false;
    /// The Arrow type.
    fn data_type() -> DataType;
    /// The value of a row; `None` where a null stands that may not.
    fn read(array: &dyn Array, row: usize) -> Option<Self>;
    /// A column of values.
    fn build<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef
    where
        Self: 'a;
}

macro_rules! primitive {
    ($rust:ty, $array:ty, $type:expr, $value:expr) => {
        impl Cell for $rust {
            fn data_type() -> DataType {
                $type
            }
            fn read(array: &dyn Array, row: usize) -> Option<Self> {
                let array = array.as_any().downcast_ref::<$array>()?;
                array.is_valid(row).then(|| $value(array.value(row)))
            }
            fn build<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
                Arc::new(values.cloned().map(Some).collect::<$array>())
            }
        }
        impl Cell for Option<$rust> {
            const NULLABLE: bool = true;
            fn data_type() -> DataType {
                $type
            }
            fn read(array: &dyn Array, row: usize) -> Option<Self> {
                let array = array.as_any().downcast_ref::<$array>()?;
                Some(array.is_valid(row).then(|| $value(array.value(row))))
            }
            fn build<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
                Arc::new(values.cloned().collect::<$array>())
            }
        }
    };
}
primitive!(String, StringArray, DataType::Utf8, str::to_owned);
primitive!(i64, Int64Array, DataType::Int64, std::convert::identity);
primitive!(f64, Float64Array, DataType::Float64, std::convert::identity);
primitive!(bool, BooleanArray, DataType::Boolean, std::convert::identity);

/// A list column of a primitive, whose absence is a null.
macro_rules! list {
    ($rust:ty, $arrow:ty, $array:ty, $type:expr) => {
        impl Cell for Option<Vec<$rust>> {
            const NULLABLE: bool = true;
            fn data_type() -> DataType {
                DataType::List(Arc::new(Field::new("item", $type, true)))
            }
            fn read(array: &dyn Array, row: usize) -> Option<Self> {
                let array = array.as_any().downcast_ref::<ListArray>()?;
                if array.is_null(row) {
                    return Some(None);
                }
                let items = array.value(row);
                Some(Some(items.as_any().downcast_ref::<$array>()?.values().to_vec()))
            }
            fn build<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
                let lists = values.map(|list| list.as_ref().map(|items| items.iter().copied().map(Some)));
                Arc::new(ListArray::from_iter_primitive::<$arrow, _, _>(lists))
            }
        }
    };
}
list!(i64, Int64Type, Int64Array, DataType::Int64);
list!(f64, Float64Type, Float64Array, DataType::Float64);

/// A column of lists of lists of a primitive, whose absence is a null.
macro_rules! lists {
    ($rust:ty, $builder:ty, $array:ty, $type:expr) => {
        impl Cell for Option<Vec<Vec<$rust>>> {
            const NULLABLE: bool = true;
            fn data_type() -> DataType {
                let inner = DataType::List(Arc::new(Field::new("item", $type, true)));
                DataType::List(Arc::new(Field::new("item", inner, true)))
            }
            fn read(array: &dyn Array, row: usize) -> Option<Self> {
                let array = array.as_any().downcast_ref::<ListArray>()?;
                if array.is_null(row) {
                    return Some(None);
                }
                let lists = array.value(row);
                let lists = lists.as_any().downcast_ref::<ListArray>()?;
                let list = |place| Some(lists.value(place).as_any().downcast_ref::<$array>()?.values().to_vec());
                Some(Some((0..lists.len()).map(list).collect::<Option<_>>()?))
            }
            fn build<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
                let mut rows = ListBuilder::new(ListBuilder::new(<$builder>::new()));
                for row in values {
                    for list in row.iter().flatten() {
                        rows.values().append_value(list.iter().copied().map(Some));
                    }
                    rows.append(row.is_some());
                }
                Arc::new(rows.finish())
            }
        }
    };
}
lists!(i64, Int64Builder, Int64Array, DataType::Int64);
lists!(f64, Float64Builder, Float64Array, DataType::Float64);

impl Cell for Vec<String> {
    fn data_type() -> DataType {
        DataType::List(Arc::new(Field::new("item", DataType::Utf8, false)))
    }

    fn read(array: &dyn Array, row: usize) -> Option<Self> {
        let array = array.as_any().downcast_ref::<ListArray>()?;
        if array.is_null(row) {
            return None;
        }
        let items = array.value(row);
        let items = items.as_any().downcast_ref::<StringArray>()?;
        Some((0..items.len()).map(|i| items.value(i).to_owned()).collect())
    }

    fn build<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
        let mut lists = ListBuilder::new(StringBuilder::new()).with_field(Field::new("item", DataType::Utf8, false));
        for texts in values {
            texts.iter().for_each(|text| lists.values().append_value(text));
            lists.append(true);
        }
        Arc::new(lists.finish())
    }
}

fn message_fields() -> Fields {
    Fields::from(vec![Field::new("role", DataType::Utf8, false), Field::new("content", DataType::Utf8, false)])
}

impl Cell for Vec<Message> {
    fn data_type() -> DataType {
        DataType::List(Arc::new(Field::new("item", DataType::Struct(message_fields()), false)))
    }

    fn read(array: &dyn Array, row: usize) -> Option<Self> {
        let array = array.as_any().downcast_ref::<ListArray>()?;
        if array.is_null(row) {
            return None;
        }
        let items = array.value(row);
        let items = items.as_any().downcast_ref::<StructArray>()?;
        let roles = items.column(0).as_any().downcast_ref::<StringArray>()?;
        let contents = items.column(1).as_any().downcast_ref::<StringArray>()?;
        let message = |i| Message { role: roles.value(i).to_owned(), content: contents.value(i).to_owned() };
        Some((0..items.len()).map(message).collect())
    }

    fn build<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
        let fields = message_fields();
        let columns: Vec<Box<dyn ArrayBuilder>> = vec![Box::new(StringBuilder::new()), Box::new(StringBuilder::new())];
        let field = Field::new("item", DataType::Struct(fields.clone()), false);
        let mut lists = ListBuilder::new(StructBuilder::new(fields, columns)).with_field(field);
        for messages in values {
            for message in messages {
                let item = lists.values();
                for (column, text) in [&message.role, &message.content].into_iter().enumerate() {
                    item.field_builder::<StringBuilder>(column).expect("two text columns").append_value(text);
                }
                item.append(true);
            }
            lists.append(true);
        }
        Arc::new(lists.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_lists_come_back() {
        let rows = [Some(vec![vec![1, 2], vec![], vec![3]]), None, Some(vec![])];
        let column = <Option<Vec<Vec<i64>>>>::build(rows.iter());
        assert_eq!(column.data_type(), &<Option<Vec<Vec<i64>>>>::data_type());
        let back: Vec<Option<Vec<Vec<i64>>>> = (0..3).map(|row| Cell::read(&column, row).expect("a cell")).collect();
        assert_eq!(back, rows);
    }
}
