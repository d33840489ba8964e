//! Pipelines over toy operators: what they become, and what is said of bad ones.

use std::path::PathBuf;
use std::time::Instant;

use fuseline_contract::rows::{METRIC, PROMPT, RESPONSE};
use fuseline_contract::{ExternalFile, Input, Kind, Operator, Output, Ports, Problems as Checks};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::*;
use crate::graph::{Graph, outputs};
use crate::select::Selector;
use crate::store::Store;

mod compose;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadConfig {
    path: PathBuf,
    #[serde(default, rename = "as")]
    rows: Option<Rows>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Rows {
    Prompt,
    Metric,
}

struct Load;
impl Operator for Load {
    const NAME: &'static str = "load";
    const VERSION: u32 = 1;
    const MANUAL: &'static str = "Reads.";
    const EXAMPLE: &'static str = "";
    type Config = LoadConfig;
    fn ports(config: &LoadConfig) -> Ports {
        let kind = match config.rows {
            None => Kind::AnyTable,
            Some(Rows::Prompt) => Kind::Rows(&PROMPT),
            Some(Rows::Metric) => Kind::Rows(&METRIC),
        };
        Ports { inputs: vec![], outputs: vec![Output::new("rows", kind, "rows")] }
    }
    fn files(config: &LoadConfig) -> Vec<ExternalFile> {
        vec![ExternalFile::new("path", &config.path)]
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    from: String,
}

struct Import;
impl Operator for Import {
    const NAME: &'static str = "import_model";
    const VERSION: u32 = 1;
    const MANUAL: &'static str = "Imports.";
    const EXAMPLE: &'static str = "";
    type Config = ModelConfig;
    fn ports(_: &ModelConfig) -> Ports {
        Ports { inputs: vec![], outputs: vec![Output::new("model", Kind::Model, "model")] }
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SampleConfig {
    #[serde(default = "one")]
    n: u32,
    #[serde(default)]
    temperature: f64,
    #[serde(default)]
    stop: Vec<String>,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    label: Option<String>,
}

#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Limits {
    #[serde(default)]
    tokens: u32,
}

fn one() -> u32 {
    1
}

struct Sample;
impl Operator for Sample {
    const NAME: &'static str = "sample";
    const VERSION: u32 = 1;
    const MANUAL: &'static str = "Samples.";
    const EXAMPLE: &'static str = "op: sample\nwith: {n: 2}\n";
    type Config = SampleConfig;
    fn ports(_: &SampleConfig) -> Ports {
        Ports {
            inputs: vec![
                Input::one("prompts", Kind::Rows(&PROMPT), "prompts"),
                Input::one("model", Kind::Model, "model").labelled(),
            ],
            outputs: vec![
                Output::new("rows", Kind::Rows(&RESPONSE), "rows"),
                Output::new("counts", Kind::Rows(&METRIC), "counts"),
            ],
        }
    }
    fn check(config: &SampleConfig, problems: &mut Checks) {
        problems.require(config.n > 0, "n", || "expected at least 1, found 0".into());
        problems.require(config.temperature >= 0.0, "temperature", || "expected at least 0".into());
    }
}

struct Evaluate;
impl Operator for Evaluate {
    const NAME: &'static str = "evaluate";
    const VERSION: u32 = 1;
    const MANUAL: &'static str = "Evaluates.";
    const EXAMPLE: &'static str = "";
    type Config = SampleConfig;
    fn ports(_: &SampleConfig) -> Ports {
        Ports {
            inputs: vec![
                Input::many("models", Kind::Model, "models").labelled(),
                Input::optional("prompts", Kind::Rows(&PROMPT), "prompts"),
            ],
            outputs: vec![Output::new("rows", Kind::Rows(&METRIC), "rows")],
        }
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MergeConfig {}

struct Merge;
impl Operator for Merge {
    const NAME: &'static str = "merge";
    const VERSION: u32 = 1;
    const MANUAL: &'static str = "Merges.";
    const EXAMPLE: &'static str = "";
    type Config = MergeConfig;
    fn ports(_: &MergeConfig) -> Ports {
        Ports {
            inputs: vec![Input::many("models", Kind::Model, "models")],
            outputs: vec![Output::new("model", Kind::Model, "model")],
        }
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableConfig {
    sql: String,
}

struct Table;
impl Operator for Table {
    const NAME: &'static str = "table";
    const VERSION: u32 = 1;
    const MANUAL: &'static str = "Tables.";
    const EXAMPLE: &'static str = "";
    type Config = TableConfig;
    fn ports(config: &TableConfig) -> Ports {
        let names = config.sql.split_whitespace().filter_map(|word| word.strip_prefix('@'));
        Ports {
            inputs: names.map(|name| Input::one(name, Kind::AnyTable, "named").implicit()).collect(),
            outputs: vec![Output::new("rows", Kind::AnyTable, "rows")],
        }
    }
}

pub(crate) static TOYS: &[Entry] = &[
    Entry::of::<Load>(),
    Entry::of::<Import>(),
    Entry::of::<Sample>(),
    Entry::of::<Evaluate>(),
    Entry::of::<Merge>(),
    Entry::of::<Table>(),
];

fn load_with(text: &str, sets: &[&str], check_files: bool) -> Result<Plan, Problems> {
    let settings = Settings { sets: sets.iter().map(|set| (*set).to_owned()).collect(), check_files };
    load_text(text, FilePath::new("p.yaml"), TOYS, &settings)
}

fn plan(text: &str) -> Plan {
    load_with(text, &[], false).unwrap_or_else(|problems| panic!("{problems}"))
}

/// What is said, without the lines of source text.
fn problems_with(text: &str, sets: &[&str], check_files: bool) -> String {
    let problems = load_with(text, sets, check_files).err().expect("problems").to_string();
    let kept = problems.lines().filter(|line| !line.contains(" | "));
    kept.collect::<Vec<_>>().join("\n")
}

fn problems(text: &str) -> String {
    problems_with(text, &[], false)
}

/// Every node on a line: its id and what is bound.
fn describe(plan: &Plan) -> String {
    let mut text = String::new();
    for node in &plan.nodes {
        text.push_str(&node.id.to_string());
        for bound in &node.inputs {
            text.push_str(&format!(" {}:", bound.port));
            for source in &bound.from {
                let producer = &plan.nodes[source.node];
                let output = &producer.resolved.ports.outputs[source.output].name;
                text.push_str(&format!(" {}.{output}", producer.id));
                source.label.iter().for_each(|label| text.push_str(&format!(" as {label}")));
                source.axes.iter().for_each(|(axis, value)| text.push_str(&format!(" +{axis}={value}")));
                text.push(';');
            }
        }
        text.push('\n');
    }
    text
}

pub(crate) const BASE: &str = "\
name: tiny
seed: 7
vars: {sources: [owl, fox], n: 2}
stages:
  prompts: {op: load, with: {path: 'a${n}.jsonl', as: prompt}}
  source:
    matrix: {source: '${sources}'}
    op: import_model
    with: {from: 'models/${source}'}
  sampled:
    matrix: {source: '${sources}'}
    op: sample
    inputs: {prompts: prompts, model: source}
    with: {n: '${n}', temperature: 1}
    tags: [slow]
    resources: {cpus: 2, mem: 1GiB}
  merged: {op: merge, inputs: {models: source}}
tables:
  main: {sql: SELECT @sampled @sampled.counts}
";

#[test]
fn matching_gathering_and_labels() {
    let plan = plan(BASE);
    assert_eq!(
        describe(&plan),
        "\
prompts
source[source=owl]
source[source=fox]
sampled[source=owl] prompts: prompts.rows; model: source[source=owl].model as owl;
sampled[source=fox] prompts: prompts.rows; model: source[source=fox].model as fox;
merged models: source[source=fox].model +source=fox; source[source=owl].model +source=owl;
tables.main sampled: sampled[source=fox].rows +source=fox; sampled[source=owl].rows +source=owl; sampled.counts: sampled[source=fox].counts +source=fox; sampled[source=owl].counts +source=owl;
"
    );
    let sampled = &plan.nodes[3];
    assert_eq!((sampled.seed, sampled.line, sampled.tags.as_slice()), (7, 10, ["slow".to_owned()].as_slice()));
    assert_eq!((sampled.resources.cpus, sampled.resources.mem_bytes), (2, Some(1 << 30)));
    assert_eq!(sampled.resolved.params["n"], 2);
    assert_eq!(plan.nodes[0].resolved.params["path"], "a2.jsonl");
    assert_eq!(plan.nodes[6].line, 19);
}

#[test]
fn a_plan_does_not_depend_on_comments_key_order_or_names_of_variables() {
    let other = BASE
        .replace(
            "op: sample\n    inputs: {prompts: prompts, model: source}",
            "inputs: {model: source, prompts: prompts} # c\n    op: sample",
        )
        .replace("{sources", "{animals");
    let (a, b) = (plan(BASE), plan(&other));
    assert_eq!(describe(&a), describe(&b));
    assert!(a.nodes.iter().zip(&b.nodes).all(|(a, b)| a.resolved.key == b.resolved.key));
}

#[test]
fn labels_of_every_kind() {
    let text = "\
stages:
  base: {op: import_model, with: {from: x}}
  tuned: {matrix: {beta: [0.1, 0.01], seed: [1, 2]}, op: import_model, with: {from: y}}
  p: {op: load, with: {path: x, as: prompt}}
  named: {op: evaluate, inputs: {models: {b: base, t: 'tuned[beta=0.1,seed=1]'}}}
  own: {op: sample, inputs: {prompts: p, model: base}, with: {label: me}}
  wins: {op: sample, inputs: {prompts: p, model: 'tuned[beta=0.1,seed=1]'}, with: {label: me}}
  axis: {matrix: {model: [base, tuned]}, op: evaluate, inputs: {models: '${model}'}}
  chosen: {matrix: {b: [0.1]}, op: evaluate, inputs: {models: 'tuned[beta=${b}]'}}
";
    let described = describe(&plan(text));
    let of = |stage: &str| described.lines().filter(|line| line.starts_with(stage)).collect::<Vec<_>>();
    assert_eq!(of("named"), ["named models: base.model as b; tuned[beta=0.1,seed=1].model as t;"]);
    assert_eq!(of("own"), ["own prompts: p.rows; model: base.model as me;"]);
    assert_eq!(of("wins"), ["wins prompts: p.rows; model: tuned[beta=0.1,seed=1].model as me;"]);
    assert_eq!(
        of("axis"),
        [
            "axis[model=base] models: base.model as base;",
            "axis[model=tuned] models: tuned[beta=0.01,seed=1].model as 0.01/tuned +beta=0.01 +seed=1; \
             tuned[beta=0.01,seed=2].model as 0.01/tuned +beta=0.01 +seed=2; \
             tuned[beta=0.1,seed=1].model as 0.1/tuned +beta=0.1 +seed=1; \
             tuned[beta=0.1,seed=2].model as 0.1/tuned +beta=0.1 +seed=2;"
        ]
    );
    assert_eq!(
        of("chosen"),
        [
            "chosen[b=0.1] models: tuned[beta=0.1,seed=1].model as 0.1 +seed=1; tuned[beta=0.1,seed=2].model as 0.1 +seed=2;"
        ]
    );
}

#[test]
fn seeds_of_axis_stage_and_pipeline() {
    let text = "\
seed: 5
vars: {s: 9}
stages:
  a: {op: load, with: {path: x}}
  b: {op: load, with: {path: x}, seed: '${s}'}
  c: {op: load, with: {path: x}, seed: 9, matrix: {seed: [3, 4]}}
";
    assert_eq!(plan(text).nodes.iter().map(|node| node.seed).collect::<Vec<_>>(), [5, 9, 3, 4]);
}

#[test]
fn arguments_override_variables_and_parameters() {
    let sets =
        ["n=3", "sources=[elk]", "sampled.temperature=0.5", "sampled.limits.tokens=9", "tables.main.sql='@prompts'"];
    let plan = load_with(BASE, &sets, false).unwrap_or_else(|problems| panic!("{problems}"));
    let sampled = plan.nodes.iter().find(|node| node.id.stage == "sampled").expect("sampled");
    assert_eq!(sampled.id.to_string(), "sampled[source=elk]");
    assert_eq!(
        sampled.resolved.params,
        serde_json::json!({"n": 3, "temperature": 0.5, "stop": [], "limits": {"tokens": 9}, "label": null})
    );
    assert!(describe(&plan).contains("tables.main prompts: prompts.rows;\n"));
}

#[test]
fn bad_arguments() {
    let sets =
        ["sorces=[a]", "sampled.temprature=1", "sample.n=1", "sampled.n=[", "n", "sampled.limits.tokens=x", "seed=1"];
    assert_eq!(
        problems_with(BASE, &sets, false),
        r#"error: in `--set sampled.n=[`: the value is not valid YAML: did not find expected node content
error: in `--set n`: expected NAME=VALUE or STAGE.PARAM=VALUE
error: in `--set seed=1`: unknown variable "seed"
  help: expected one of sources, n
error: in `--set sorces=[a]`: unknown variable "sorces"
  help: did you mean "sources"?
error: in `--set sample.n=1`: unknown stage "sample"
  help: did you mean "sampled"?
error: in `--set sampled.temprature=1`: unknown parameter "temprature" of operator "sample"
  help: did you mean "temperature"?
error: in `--set sampled.limits.tokens=x`: parameter "limits.tokens": expected an integer from 0, found the text "x""#
    );
    assert_eq!(
        problems_with(BASE, &["n=0"], false),
        "error: p.yaml:14:15: parameter \"n\": expected at least 1, found 0\n  help: ${n} is 0 (from `--set n=0`)"
    );
}

#[test]
fn a_variable_keeps_its_kind() {
    let text = "vars: {n: 1, t: x, b: true, l: [1], m: {a: 1}, e: , same: '${n}'}\nstages:\n  a: {op: load, with: {path: x}}\n";
    let sets = ["n=2.5", "t=7", "b=1", "l=x", "m=[1]", "e=[1]", "same='x'"];
    assert_eq!(
        problems_with(text, &sets, false),
        r#"error: in `--set b=1`: variable "b": expected true or false, found 1
error: in `--set l=x`: variable "l": expected a list, found the text "x"
error: in `--set m=[1]`: variable "m": expected a map, found a list
error: in `--set same='x'`: variable "same": expected a number, found the text "x"
error: in `--set t=7`: variable "t": expected a text, found 7
  help: quote it to give a text: --set 't="7"'"#
    );
    assert!(load_with(text, &["t='7'", "n=3", "l=[]", "e=x", "same=${n}"], false).is_ok());
}

#[test]
fn variables_that_never_end_are_refused() {
    let chain = |n: usize| (0..n).map(|i| format!("v{i}: '${{v{}}}', ", i + 1)).collect::<String>();
    let text = |vars: String| format!("vars: {{{vars}}}\nstages:\n  a: {{op: load, with: {{path: x}}}}\n");
    assert_eq!(load_with(&text(format!("{}v9: 1", chain(9))), &[], false).map(|_| ()), Ok(()));
    let deep = problems(&text(format!("{}v9000: 1", chain(9000))));
    assert!(deep.contains("variables refer to each other over 500 steps"), "{deep}");
    let doubled = (0..60).map(|i| format!("v{i}: '${{v{0}}}${{v{0}}}', ", i + 1)).collect::<String>();
    let large = problems(&text(format!("{doubled}v60: xxxx")));
    assert!(large.contains("is larger than 16 MiB"), "{large}");
}

#[test]
fn everything_unknown_is_said_at_once() {
    let text = "\
name: x
sead: 1
repeats: {}
vars: {a: 1}
stages:
  prompts: {op: load, with: {path: x, as: promt}}
  base: {op: import_model, with: {from: '${b}'}}
  s:
    op: sampel
  t:
    op: sample
    whn: true
    inputs: {promts: prompts, model: basse, prompts: prompts.row}
    with: {temprature: 1, n: many, stop: [1], limits: {token: 1}}
  u:
    matrix: {x: [1, 2]}
    op: evaluate
    inputs: {models: 't[y=1]', prompts: 'u[x=3]'}
  v: {op: import_model}
  w: {op: merge, inputs: {model: prompts}}
tables:
  main: {sql: '@evaluatd'}
";
    assert_eq!(
        problems(text),
        r#"error: p.yaml:2:1: unknown field "sead" at the top level
  help: did you mean "seed"?
error: p.yaml:3:1: unknown field "repeats" at the top level
  help: did you mean "repeat"?
error: p.yaml:6:43: parameter "as": unknown value "promt"
  help: did you mean "prompt"?
error: p.yaml:7:41: unknown variable "b"
  help: expected a
error: p.yaml:9:9: unknown operator "sampel"
  help: did you mean "sample"? `fuseline ops` lists them all
error: p.yaml:12:5: unknown field "whn" of a stage
  help: did you mean "when"?
error: p.yaml:13:38: unknown stage "basse"
  help: did you mean "base"?
error: p.yaml:14:12: unknown parameter "temprature" of operator "sample"
  help: did you mean "temperature"?
error: p.yaml:14:30: parameter "n": expected an integer from 0, found the text "many"
error: p.yaml:14:43: parameter "stop.0": expected a text, found 1
error: p.yaml:14:56: unknown field "token" of parameter "limits"
  help: did you mean "tokens"?
error: p.yaml:18:22: stage "t" has no axis "y"
error: p.yaml:18:41: stage "u" has no instance with x=3
  help: expected one of 1, 2
error: p.yaml:19:3: operator "import_model" needs the parameter "from"
  help: add `from:` under `with`; `fuseline ops import_model` explains it
error: p.yaml:20:18: stage "w" lacks the input "models": a model
  help: say `inputs: {models: STAGE}`
error: p.yaml:20:27: unknown input "model" of operator "merge"
  help: did you mean "models"?
error: p.yaml:22:15: unknown stage "evaluatd"
  help: expected one of prompts, base, s, t, u, v, w, tables.main"#
    );
}

#[test]
fn everything_else_that_is_wrong_is_said_at_once() {
    let text = "\
stages:
  m: {matrix: {k: [1, 2, 3]}, op: import_model, with: {from: x}}
  base: {op: import_model, with: {from: x}}
  p: {op: load, with: {path: x, as: metric}}
  q: {op: load, with: {path: x, as: prompt}}
  kind: {op: sample, inputs: {prompts: p, model: q}}
  output: {op: sample, inputs: {prompts: t.counts, model: base}}
  t: {op: sample, inputs: {prompts: q, model: base}}
  many: {op: sample, inputs: {prompts: q, model: m}}
  lacks: {op: sample, inputs: {model: 'm[k=1]'}}
  empty: {op: merge, inputs: {models: []}}
  label: {op: evaluate, inputs: {models: [base, base]}}
  value: {matrix: {k: [2, 4]}, op: merge, inputs: {models: m}}
  form: {op: merge, inputs: {models: {a: {b: c}}}}
  name: {op: merge, inputs: {models: 'm[k'}}
  none: {matrix: {k: []}, op: merge, inputs: {models: base}}
  own: {op: load, with: {path: x}, seed: -1, tags: slow, uncacheable: 1, resources: {cpus: 0, mem: lots, gpu: 1}}
  System: {op: load, with: {path: x}}
  tables: {op: load, with: {path: x}}
  text: 3
  noop: {with: {}}
";
    assert_eq!(
        problems(text),
        r#"error: p.yaml:6:40: "p" does not fit the input "prompts": Metric rows do not fit Prompt rows: column "prompt_id" is missing
  help: it takes a table of Prompt rows
error: p.yaml:6:50: "q" does not fit the input "model": a table of Prompt rows is not a model
  help: it takes a model
error: p.yaml:7:42: "t.counts" does not fit the input "prompts": Metric rows do not fit Prompt rows: column "prompt_id" is missing
  help: "t.rows" would
error: p.yaml:7:59: "base" has no label for the input "model", which writes one into its rows
  help: add `label: NAME` under `with`
error: p.yaml:8:47: "base" has no label for the input "model", which writes one into its rows
  help: add `label: NAME` under `with`
error: p.yaml:9:43: the input "model" takes one model, but 3 are bound: m[k=1], m[k=2], m[k=3]
  help: choose one (m[k=1]), or give the stage the axis "k" too
error: p.yaml:10:23: stage "lacks" lacks the input "prompts": a table of Prompt rows
  help: say `inputs: {prompts: STAGE}`
error: p.yaml:11:31: stage "empty" lacks the input "models": a model
  help: say `inputs: {models: STAGE}`
error: p.yaml:12:43: "base" has no label for the input "models", which writes one into its rows
  help: name it: `inputs: {models: {LABEL: base}}`
error: p.yaml:12:49: "base" has no label for the input "models", which writes one into its rows
  help: name it: `inputs: {models: {LABEL: base}}`
error: p.yaml:13:60: stage "m" has no instance with k=4
  help: expected one of 1, 2, 3
error: p.yaml:14:42: expected a stage, a list of stages or a map from label to stages, found a map
error: p.yaml:15:38: "m[k" does not name a stage, expected STAGE, STAGE.OUTPUT or STAGE[AXIS=VALUE]
error: p.yaml:16:19: axis "k" has no value
error: p.yaml:17:42: expected a seed, an integer from 0, found -1
error: p.yaml:17:52: expected a list of tags without spaces, found "slow"
  help: such as `tags: [slow]`
error: p.yaml:17:71: expected true or false, found 1
error: p.yaml:17:92: expected an integer from 1, found 0
error: p.yaml:17:100: expected a size such as 8GiB, or bytes, found the text "lots"
error: p.yaml:17:106: unknown field "gpu" of `resources`
  help: did you mean "gpus"?
error: p.yaml:18:3: "System" is not a stage's name, expected a lower-case letter, then letters, digits and _
error: p.yaml:19:3: the name "tables" is taken
  help: choose another name for the stage
error: p.yaml:20:9: expected a stage with "op", found 3
error: p.yaml:21:3: stage "noop" has no "op"
  help: `fuseline ops` lists the operators"#
    );
}

#[test]
fn cycles_name_everything_on_them() {
    let text = "\
stages:
  a: {op: merge, inputs: {models: c}}
  b: {op: merge, inputs: {models: a}}
  c: {op: merge, inputs: {models: [b]}}
  d: {op: merge, inputs: {models: d}}
  e: {op: merge, inputs: {models: d}}
  f: {matrix: {x: [1, 2]}, op: merge, inputs: {models: 'f[x=1]'}}
";
    assert_eq!(
        problems(text),
        r#"error: p.yaml:2:35: stages form a cycle: a -> b -> c -> a
  help: an input may not need, directly or not, the stage that takes it
error: p.yaml:5:35: stages form a cycle: d -> d
  help: an input may not need, directly or not, the stage that takes it
error: p.yaml:7:56: stages form a cycle: f[x=1] -> f[x=1]
  help: an input may not need, directly or not, the stage that takes it"#
    );
}

#[test]
fn duplicates_and_no_numbers_are_found_with_the_rest() {
    let text = "\
stages:
  a: {op: load, with: {path: x}}
  b: {op: sample, with: {temperature: .nan, n: 1, n: 2}}
  a: {op: merge}
";
    assert_eq!(
        problems(text),
        r#"error: p.yaml:3:39: NaN is not a value here, expected a finite number
error: p.yaml:3:51: "n" stands here for the second time
error: p.yaml:4:3: "a" stands here for the second time"#
    );
}

#[test]
fn files_that_are_not_there() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("prompts.jsonl"), "").expect("written");
    let text = format!(
        "vars: {{data: '{}'}}\nstages:\n  a: {{op: load, with: {{path: '${{data}}/promts.jsonl'}}}}\n  b: {{op: load, with: {{path: '${{data}}/prompts.jsonl'}}}}\n  c: {{op: load, with: {{path: none/x}}}}\n  d: {{op: load, with: {{path: '${{data}}/none/x'}}}}\n",
        folder.path().display()
    );
    let said = problems_with(&text, &[], true).replace(&folder.path().display().to_string(), "DATA");
    assert_eq!(
        said,
        r#"error: p.yaml:3:30: "DATA/promts.jsonl" does not exist
  help: ${data} is the text "DATA" (line 1); did you mean "DATA/prompts.jsonl"?
error: p.yaml:5:30: "none/x" does not exist
  help: relative paths are taken from the working directory
error: p.yaml:6:30: "DATA/none/x" does not exist
  help: ${data} is the text "DATA" (line 1); set it with `--set data=VALUE`; relative paths are taken from the working directory"#
    );
    assert!(load_with(&text, &[], false).is_ok());
}

#[test]
fn files_that_are_no_pipelines() {
    assert_eq!(problems(""), "error: p.yaml: expected a map with \"stages\", found nothing");
    assert_eq!(problems("- a\n"), "error: p.yaml: expected a map with \"stages\", found a list");
    assert!(problems("name: x\n").starts_with("error: p.yaml: there is no \"stages\"\n"));
    assert!(problems("stages: {}\n").starts_with("error: p.yaml:1:1: there is no stage"));
    assert!(problems("stages: [a\n").starts_with("error: p.yaml:2:1: not valid YAML: "));
    let missing = load(FilePath::new("none.yaml"), TOYS, &Settings::default()).err().expect("a problem");
    assert!(missing.to_string().starts_with("error: none.yaml: failed to read the pipeline: "), "{missing}");
}

#[test]
fn selections() {
    let plan = plan(BASE);
    let store = Store::open("/nowhere/store").expect("opening looks at nothing");
    let selector = Selector::new(&plan, &store);
    let select = |text: &str| -> Result<Vec<String>, String> {
        let nodes = selector.select(&[text.to_owned()]).map_err(|problems| problems.to_string())?;
        Ok(nodes.into_iter().map(|node| plan.nodes[node].id.to_string()).collect())
    };
    let fine = |text: &str| select(text).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(fine("sampled"), ["sampled[source=owl]", "sampled[source=fox]"]);
    assert_eq!(fine("sampled[source=owl]"), ["sampled[source=owl]"]);
    assert_eq!(fine("+sampled[source=owl]"), ["prompts", "source[source=owl]", "sampled[source=owl]"]);
    assert_eq!(fine("prompts+"), ["prompts", "sampled[source=owl]", "sampled[source=fox]", "tables.main"]);
    assert_eq!(fine("tag:slow").len(), 2);
    assert_eq!(fine("tables.main"), ["tables.main"]);
    let wrong = |text: &str| select(text).expect_err("wrong");
    assert_eq!(wrong("sampeld"), "error: in `sampeld`: unknown stage \"sampeld\"\n  help: did you mean \"sampled\"?\n");
    assert_eq!(
        wrong("sampled[source=fix]"),
        "error: in `sampled[source=fix]`: stage \"sampled\" has no instance with source=fix\n  help: did you mean \"fox\"?\n"
    );
    assert_eq!(
        wrong("sampled[sorce=fox]"),
        "error: in `sampled[sorce=fox]`: stage \"sampled\" has no axis \"sorce\"\n  help: did you mean \"source\"?\n"
    );
    assert_eq!(wrong("tag:slo"), "error: in `tag:slo`: no stage has the tag \"slo\"\n  help: did you mean \"slow\"?\n");
    assert_eq!(
        wrong("sampled.rows"),
        "error: in `sampled.rows`: a selection names stages, not outputs\n  help: leave out .rows\n"
    );
    assert_eq!(outputs(&plan, "sampled[source=fox].counts").map_err(|p| p.to_string()), Ok(vec![(4, 1)]));
    assert!(outputs(&plan, "sampled.count").is_err_and(|p| p.to_string().contains("did you mean \"counts\"?")));
}

#[test]
fn drawings() {
    let plan = plan(BASE);
    let graph = Graph::of(&plan);
    assert_eq!(
        graph.mermaid(),
        "\
flowchart LR
  s0[\"prompts<br/><i>load</i>\"]
  s1[\"source ×2<br/><i>import_model</i>\"]
  s2[\"sampled ×2<br/><i>sample</i>\"]
  s3[\"merged<br/><i>merge</i>\"]
  s4[\"tables.main<br/><i>table</i>\"]
  s0 --> s2
  s1 --> s2
  s1 --> s3
  s2 -->|counts| s4
"
    );
    assert!(graph.dot().contains("  s2 [label=\"sampled ×2\\nsample\"];\n"));
    assert!(graph.dot().contains("  s2 -> s4 [label=\"counts\"];\n"));
}

#[test]
fn ten_thousand_instances() {
    let axis = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>().join(", ");
    let text = format!(
        "vars: {{a: [{}], b: [{}]}}\nstages:\n  p: {{op: load, with: {{path: x, as: prompt}}}}\n  m: {{matrix: {{a: '${{a}}'}}, op: import_model, with: {{from: 'm${{a}}'}}}}\n  s: {{matrix: {{a: '${{a}}', b: '${{b}}'}}, op: sample, inputs: {{prompts: p, model: m}}, with: {{temperature: '${{b}}'}}}}\ntables:\n  t: {{sql: '@s'}}\n",
        axis(100),
        axis(99)
    );
    let start = Instant::now();
    let plan = plan(&text);
    println!("planned {} instances in {:?}", plan.nodes.len(), start.elapsed());
    assert_eq!(plan.nodes.len(), 1 + 100 + 9900 + 1);
    assert_eq!(plan.nodes.last().map(|node| node.inputs[0].from.len()), Some(9900));
    let wide =
        text.replace("{path: x, as: prompt}", "{path: x, as: prompt}, matrix: {x: '${a}', y: '${a}', z: '${b}'}");
    assert_eq!(
        problems(&wide),
        "error: p.yaml:3:46: too many instances: a pipeline may have 100000\n  help: shorten the matrix, or name points with `include` alone"
    );
}

/// Cuts, doubles and swaps pieces of valid text: whatever comes out is a plan
/// or problems with places in the text, never a panic.
#[test]
fn no_text_makes_it_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let pieces: Vec<&str> = BASE.split_inclusive([' ', '\n', ':', '{', '}', ',', '$', '[', ']']).collect();
    let mut plans = 0;
    for _ in 0..3000 {
        let mut mutated = pieces.clone();
        for _ in 0..1 + random(3) {
            let (a, b) = (random(mutated.len()), random(mutated.len()));
            match random(3) {
                0 => drop(mutated.remove(a)),
                1 => mutated.insert(a, mutated[b]),
                _ => mutated.swap(a, b),
            }
        }
        let text = mutated.concat();
        match load_with(&text, &["n=3"], false) {
            Ok(_) => plans += 1,
            Err(problems) => {
                assert!(!problems.0.is_empty());
                for problem in &problems.0 {
                    if let Place::Spot { line, column, .. } = &problem.place {
                        assert!(*line <= text.lines().count() + 1 && *column >= 1, "{text}\n{problem}");
                    }
                }
            }
        }
    }
    assert!(plans > 0, "some mutations are harmless");
}
