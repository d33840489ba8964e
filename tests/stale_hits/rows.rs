//! Tiny inputs for any operator, out of its ports: rows of every row type from
//! the type's columns, and a model with random weights; and what a run gives.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use fuseline_contract::operator::Entry;
use fuseline_contract::port::{Input, Kind};
use fuseline_contract::rows::{self, RowType};
use serde_json::{Map, Value, json};

use crate::harness::Home;

const N_ROWS: usize = 4;

fn value(column: &str, data_type: &DataType, row: usize) -> Value {
    match data_type {
        DataType::Boolean => json!(row.is_multiple_of(2)),
        kind if kind.is_integer() => json!(row),
        kind if kind.is_floating() => json!(row as f64 / 2.0),
        DataType::List(item) => match item.data_type() {
            DataType::Struct(_) => json!([{"role": "user", "content": format!("{row} + 2?")}]),
            kind => json!([value(column, kind, row)]),
        },
        _ if column == "meta" => json!("{}"),
        _ if column.ends_with("_id") => json!(format!("p{row}")),
        _ => json!(format!("{column} {}", row % 2)),
    }
}

fn lines(kind: &RowType) -> String {
    let row = |row: usize| {
        let columns = kind
            .columns()
            .iter()
            .map(|column| (column.name.to_owned(), value(column.name, column.field().data_type(), row)));
        let mut line = columns.collect::<Map<_, _>>();
        if kind.name == rows::RESPONSE.name {
            // Tests that come along, as `run_tests` reads them.
            let tests = [("prompt", "def two():\n"), ("test", "def check(f): assert f() == 2"), ("entry_point", "two")];
            line.extend(tests.map(|(column, text)| (column.to_owned(), json!(text))));
        }
        format!("{}\n", Value::Object(line))
    };
    (0..N_ROWS).map(row).collect()
}

fn provider(port: &Input) -> Value {
    let stage = match port.kind {
        Kind::Rows(rows) => format!("rows_{}", rows.name.to_lowercase()),
        Kind::AnyTable => "rows_prompt".to_owned(),
        Kind::Model | Kind::Endpoint | Kind::AnyModel => "model".to_owned(),
    };
    if port.labelled { json!({"owl": stage}) } else { json!(stage) }
}

/// The parameters under which an operator runs on any machine: the script of
/// `command`'s example needs a package, for which a copy of the input stands.
fn runnable(entry: &Entry, params: &Value) -> Value {
    let mut params = params.clone();
    for name in entry.secret {
        params.as_object_mut().expect("parameters are a map").remove(*name);
    }
    if entry.name == "command" {
        params["program"] = json!("cp");
        params["args"] = json!(["{input.prompts}", "{output.rows}"]);
        params["files"] = json!({});
    }
    params
}

/// Runs an operator under parameters on generated inputs; gives the folder's
/// name, which is the artifact's digest, of every output.
pub fn run(entry: &Entry, params: &Value) -> BTreeMap<String, String> {
    let home = Home::new();
    std::os::unix::fs::symlink(crate::root().join("pipelines"), home.path("pipelines")).expect("linked");
    let mut stages = Map::new();
    for kind in rows::ALL {
        let name = kind.name.to_lowercase();
        home.write(&format!("{name}.jsonl"), lines(kind));
        stages.insert(
            format!("rows_{name}"),
            json!({"op": "load", "with": {"path": format!("{name}.jsonl"), "as": name}}),
        );
    }
    stages.insert(
        "vocabulary".into(),
        json!({"op": "train_tokenizer", "inputs": {"texts": "rows_example"}, "with": {"kind": "byte_level_bpe", "vocab_size": 280, "chat": "chatml"}}),
    );
    stages.insert(
        "model".into(),
        json!({"op": "init_model", "inputs": {"tokenizer": "vocabulary"}, "with": {"family": "llama", "hidden_size": 8, "intermediate_size": 8, "layers": 1, "heads": 2, "max_positions": 64}}),
    );
    // References must be of the very pairs.
    stages.insert(
        "rows_logprob".into(),
        json!({"op": "logprobs", "inputs": {"texts": "rows_preference", "model": {"owl": "model"}}}),
    );
    let params = runnable(entry, params);
    let resolved = entry.resolve(&params).expect("the parameters are right");
    let inputs: Map<String, Value> =
        resolved.ports.inputs.iter().map(|port| (port.name.clone(), provider(port))).collect();
    stages.insert("tried".into(), json!({"op": entry.name, "inputs": inputs, "with": params}));
    // JSON is YAML, but for secrets.
    home.write("p.yaml", json!({"name": "tried", "stages": stages}).to_string());
    home.ok(&["run", "p.yaml", "--target", "tried"]);
    let digest = |output: &str| {
        let folder = home.ok(&["path", "p.yaml", &format!("tried.{output}")]);
        std::path::Path::new(folder.trim()).file_name().expect("a name").to_string_lossy().into_owned()
    };
    resolved.ports.outputs.iter().map(|output| (output.name.clone(), digest(&output.name))).collect()
}
