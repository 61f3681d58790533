//! Functions that make nested columns readable: attributions as names, near misses as sentences, any column as JSON.

use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray, StructArray},
    datatypes::DataType,
};
use datafusion::{
    common::exec_err,
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};

use super::columns::{answer, columns, texts};
use crate::cells;

/// `policy_names(decided_by)`: the policies that decided, with the rule if there is one: `db/default-deny,
/// db/allow-api#0`. Without policies that passed the flow on or are only staged. Empty if none decided.
pub(super) fn policy_names() -> ScalarUDF {
    ListText { name: "policy_names", line: policy_name, separator: ", ", signature: signature() }.into()
}

/// `near_misses(near_miss)`: `db/allow-api#0: pod label app=web is not app=api`.
pub(super) fn near_misses() -> ScalarUDF {
    ListText { name: "near_misses", line: near_miss, separator: "; ", signature: signature() }.into()
}

/// `to_json(value)`: a nested value as JSON text.
pub(crate) fn to_json() -> ScalarUDF {
    ToJson { signature: signature() }.into()
}

fn signature() -> Signature {
    Signature::any(1, Volatility::Immutable)
}

/// One list item, by the names of its fields.
struct Item<'a> {
    fields: &'a [(String, StringArray)],
    row: usize,
}

impl Item<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let (_, column) = self.fields.iter().find(|(field, _)| field == name)?;
        column.is_valid(self.row).then(|| column.value(self.row)).filter(|text| !text.is_empty())
    }

    fn policy(&self) -> String {
        let name = self.get("name").unwrap_or_default();
        let rule = self.get("rule_index").map(|index| format!("#{index}")).unwrap_or_default();
        match self.get("namespace") {
            Some(namespace) => format!("{namespace}/{name}{rule}"),
            None => format!("{name}{rule}"),
        }
    }
}

fn policy_name(item: &Item<'_>) -> Option<String> {
    matches!(item.get("role"), None | Some("decided" | "isolating" | "default")).then(|| item.policy())
}

fn near_miss(item: &Item<'_>) -> Option<String> {
    let why = item.get("detail").or_else(|| item.get("failed")).unwrap_or_default();
    Some(format!("{}: {why}", item.policy()))
}

/// A list of structs as one text, item by item.
#[derive(Debug)]
struct ListText {
    name: &'static str,
    line: fn(&Item<'_>) -> Option<String>,
    separator: &'static str,
    signature: Signature,
}

impl PartialEq for ListText {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for ListText {}

impl std::hash::Hash for ListText {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for ListText {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let column = cells::plain_column(&columns(&args)?[0])?;
        let Some((offsets, items)) = list(&column) else {
            return exec_err!("{} expects a list as in column decided_by, found {}", self.name, column.data_type());
        };
        let fields = items
            .fields()
            .iter()
            .zip(items.columns())
            .filter(|(_, column)| !cells::is_nested(column.data_type()))
            .map(|(field, column)| Ok((field.name().clone(), texts(column)?)))
            .collect::<Result<Vec<_>>>()?;
        let lines: StringArray = (0..column.len())
            .map(|row| {
                column.is_valid(row).then(|| {
                    let lines =
                        (offsets[row]..offsets[row + 1]).filter_map(|row| (self.line)(&Item { fields: &fields, row }));
                    lines.collect::<Vec<_>>().join(self.separator)
                })
            })
            .collect();
        answer(lines)
    }
}

/// A list column's offsets and items.
fn list(column: &ArrayRef) -> Option<(Vec<usize>, StructArray)> {
    if let Some(list) = column.as_list_opt::<i32>() {
        let offsets = list.offsets().iter().map(|offset| usize::try_from(*offset)).collect::<Result<_, _>>().ok()?;
        return Some((offsets, list.values().as_struct_opt()?.clone()));
    }
    let list = column.as_list_opt::<i64>()?;
    let offsets = list.offsets().iter().map(|offset| usize::try_from(*offset)).collect::<Result<_, _>>().ok()?;
    Some((offsets, list.values().as_struct_opt()?.clone()))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToJson {
    signature: Signature,
}

impl ScalarUDFImpl for ToJson {
    fn name(&self) -> &str {
        "to_json"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Array(cells::json_text(&columns(&args)?[0])?))
    }
}
