//! Pipelines put together: files that include others, stages that are left out,
//! stages that are repeated.

use super::*;

/// Files in a folder, the first of them planned; messages have `DIR` for the folder.
fn planned(files: &[(&str, &str)], sets: &[&str]) -> Result<Plan, String> {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    let settings = Settings { sets: sets.iter().map(|set| (*set).to_owned()).collect(), ..Settings::default() };
    load(&folder.path().join(files[0].0), TOYS, &settings).map_err(|problems| {
        let text = problems.to_string().replace(&folder.path().display().to_string(), "DIR");
        text.lines().filter(|line| !line.contains(" | ")).collect::<Vec<_>>().join("\n")
    })
}

fn fine(files: &[(&str, &str)], sets: &[&str]) -> Plan {
    planned(files, sets).unwrap_or_else(|problems| panic!("{problems}"))
}

const DATA: &str = "\
name: data
seed: 3
vars: {path: a.jsonl, n: 1}
stages:
  prompts: {op: load, with: {path: '${path}', as: prompt}}
  base: {op: import_model, with: {from: x}}
  sampled: {op: sample, inputs: {prompts: prompts, model: base}, with: {n: '${n}', label: b}}
tables:
  main: {sql: '@sampled.counts'}
";

#[test]
fn an_included_file_keeps_its_names_variables_and_seed() {
    let main = "\
seed: 9
vars: {where: b.jsonl}
include:
  - {file: parts/data.yaml, prefix: first}
  - {file: parts/data.yaml, prefix: second, vars: {path: '${where}', n: 2}}
stages:
  prompts: {op: load, with: {path: c.jsonl, as: prompt}}
  judged: {op: evaluate, inputs: {models: {x: first_base}, prompts: second_prompts}}
";
    let plan = fine(&[("main.yaml", main), ("parts/data.yaml", DATA)], &[]);
    assert_eq!(
        describe(&plan),
        "\
first_prompts
first_base
first_sampled prompts: first_prompts.rows; model: first_base.model as b;
tables.first_main sampled.counts: first_sampled.counts;
second_prompts
second_base
second_sampled prompts: second_prompts.rows; model: second_base.model as b;
tables.second_main sampled.counts: second_sampled.counts;
prompts
judged models: first_base.model as x; prompts: second_prompts.rows;
"
    );
    let path = |index: usize| plan.nodes[index].resolved.params["path"].as_str().map(str::to_owned);
    assert_eq!((path(0), path(4), path(8)), (Some("a.jsonl".into()), Some("b.jsonl".into()), Some("c.jsonl".into())));
    assert_eq!(plan.nodes[6].resolved.params["n"], 2);
    assert_eq!((plan.nodes[0].seed, plan.nodes[8].seed), (3, 9));
    assert!(plan.nodes[0].file.as_ref().is_some_and(|file| file.ends_with("parts/data.yaml")));
    assert_eq!((plan.nodes[8].file.clone(), plan.nodes[0].line, plan.nodes[8].line), (None, 5, 7));
}

#[test]
fn included_files_include_others_and_a_prefix_may_be_left_out() {
    let main = "include: [{file: middle.yaml, prefix: m}, {file: plain.yaml}]\nseed: 4\n";
    let middle =
        "include: [{file: deep/data.yaml, prefix: d}]\nstages:\n  own: {op: merge, inputs: {models: d_base}}\n";
    let plain = "stages:\n  base: {op: import_model, with: {from: y}}\n";
    let files = [("main.yaml", main), ("middle.yaml", middle), ("deep/data.yaml", DATA), ("plain.yaml", plain)];
    let plan = fine(&files, &["m_d_sampled.n=5"]);
    let names: Vec<String> = plan.nodes.iter().map(|node| node.id.to_string()).collect();
    assert_eq!(names, ["m_d_prompts", "m_d_base", "m_d_sampled", "tables.m_d_main", "m_own", "base"]);
    assert_eq!(plan.nodes[2].resolved.params["n"], 5);
    assert_eq!(plan.nodes.iter().map(|node| node.seed).collect::<Vec<_>>(), [3, 3, 3, 3, 4, 4]);
}

#[test]
fn problems_name_the_included_file() {
    let main = "\
vars: {list: [1]}
include:
  - {file: data.yaml, prefix: d, vars: {pth: x, n: many, path: '${list}'}}
  - {file: dato.yaml}
  - {file: broken.yaml}
  - {file: main.yaml, prefix: again}
  - {file: data.yaml, prefix: d}
  - {file: data.yaml, prefix: D}
  - {file: 3}
  - {fil: data.yaml}
  - data.yaml
  - {file: '${x}'}
stages:
  s: {op: merge, inputs: {models: [d_bas, bsae]}}
";
    let broken = "\
stages:
  a: {op: sampel}
  b: {op: merge, inputs: {models: [s, c]}}
  c: {op: import_model, with: {from: '${q}', frm: 1}}
";
    let said = planned(&[("main.yaml", main), ("data.yaml", DATA), ("broken.yaml", broken)], &["d_base.fron=1"]);
    assert_eq!(
        said.err().expect("problems"),
        r#"error: in `--set d_base.fron=1`: unknown parameter "fron" of operator "import_model"
  help: did you mean "from"?
error: DIR/main.yaml:3:41: unknown variable "pth"
  help: did you mean "path"?
error: DIR/main.yaml:3:49: variable "n": expected a number, found the text "many"
error: DIR/main.yaml:3:58: variable "path": expected a text, found a list
error: DIR/main.yaml:4:12: "DIR/dato.yaml" does not exist
  help: did you mean "DIR/data.yaml"? the path is taken from the folder of this file
error: DIR/main.yaml:6:12: the file includes itself: main.yaml -> main.yaml
error: DIR/main.yaml:8:31: "D" is not a prefix, expected a lower-case letter, then letters, digits and _
error: DIR/main.yaml:9:12: expected the path of a pipeline file, found 3
error: DIR/main.yaml:10:5: expected the path of a pipeline file, found nothing
error: DIR/main.yaml:10:6: unknown field "fil" of an included file
  help: did you mean "file"?
error: DIR/main.yaml:11:5: expected a file to include, such as {file: data.yaml}, found the text "data.yaml"
error: DIR/main.yaml:12:12: unknown variable "x"
  help: expected list
error: DIR/main.yaml:14:36: unknown stage "d_bas"
  help: did you mean "d_base"?
error: DIR/main.yaml:14:43: unknown stage "bsae"
  help: expected one of d_prompts, d_base, d_sampled, tables.d_main, a, b, c, s
error: DIR/broken.yaml:2:11: unknown operator "sampel"
  help: did you mean "sample"? `fuseline ops` lists them all
error: DIR/broken.yaml:3:36: unknown stage "s"
  help: expected one of a, b, c
error: DIR/broken.yaml:4:38: unknown variable "q"
  help: say it under `vars:`; a plain "${" is written "$${"
error: DIR/broken.yaml:4:46: unknown parameter "frm" of operator "import_model"
  help: did you mean "from"?
error: DIR/data.yaml:5:3: stage "d_prompts" is there already, from DIR/data.yaml
  help: include one of the files with another prefix
error: DIR/data.yaml:6:3: stage "d_base" is there already, from DIR/data.yaml
  help: include one of the files with another prefix
error: DIR/data.yaml:7:3: stage "d_sampled" is there already, from DIR/data.yaml
  help: include one of the files with another prefix
error: DIR/data.yaml:9:3: stage "tables.d_main" is there already, from DIR/data.yaml
  help: include one of the files with another prefix"#
    );
}

#[test]
fn an_included_file_that_is_no_yaml_has_its_place() {
    let said = planned(&[("main.yaml", "include: [{file: bad.yaml}]\n"), ("bad.yaml", "stages: [a\n")], &[]);
    assert!(said.err().is_some_and(|said| said.starts_with("error: DIR/bad.yaml:2:1: not valid YAML: ")));
    let said = planned(&[("main.yaml", "include: [{file: bad.yaml}]\n"), ("bad.yaml", "- a\n")], &[]);
    assert_eq!(said.err().as_deref(), Some("error: DIR/bad.yaml: expected a map with \"stages\", found a list"));
}

const CHOICE: &str = "\
vars: {dpo: true, wrpo: true}
stages:
  base: {op: import_model, with: {from: x}}
  p: {op: load, with: {path: x, as: prompt}}
  dpo: {op: import_model, with: {from: y}, when: '${dpo}'}
  wrpo: {op: import_model, with: {from: z}, when: '${wrpo}'}
  list: {op: merge, inputs: {models: [base, dpo, wrpo]}}
  map: {op: evaluate, inputs: {models: {b: base, d: dpo, w: wrpo}}}
  pair: {op: merge, inputs: {models: [dpo, wrpo]}}
  one: {op: sample, inputs: {prompts: p, model: [dpo, wrpo]}, with: {label: me}, when: false}
  alone: {op: merge, inputs: {models: wrpo}}
  after: {op: evaluate, inputs: {models: {a: alone}}}
  swept: {matrix: {k: [true, false]}, op: import_model, with: {from: x}, when: '${k}'}
  gathered: {op: merge, inputs: {models: swept}}
  matched: {matrix: {k: [true, false]}, op: merge, inputs: {models: swept}}
tables:
  main: {sql: '@after'}
";

#[test]
fn a_stage_whose_when_is_false_is_left_out_of_lists_maps_and_gathers() {
    let whole = plan(CHOICE);
    assert_eq!(
        whole.notes,
        [
            "matched[k=false] is left out: all that its input \"models\" takes is left out (swept)",
            "one is left out: its `when` is false",
            "swept[k=false] is left out: its `when` is false"
        ]
    );
    let described = describe(&whole);
    assert!(described.contains("gathered models: swept[k=true].model +k=true;\n"), "{described}");
    let less = load_with(CHOICE, &["wrpo=false"], false).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(
        describe(&less),
        "\
base
p
dpo
list models: base.model; dpo.model;
map models: base.model as b; dpo.model as d;
pair models: dpo.model;
swept[k=true]
gathered models: swept[k=true].model +k=true;
matched[k=true] models: swept[k=true].model;
"
    );
    assert_eq!(
        less.notes[..3],
        [
            "after is left out: all that its input \"models\" takes is left out (alone)",
            "alone is left out: all that its input \"models\" takes is left out (wrpo)",
            "matched[k=false] is left out: all that its input \"models\" takes is left out (swept)"
        ]
    );
    let store = Store::open("/nowhere/store").expect("opening looks at nothing");
    let selector = Selector::new(&less, &store);
    let refused = |text: &str| selector.select(&[text.to_owned()]).expect_err("left out").to_string();
    assert_eq!(refused("wrpo"), "error: in `wrpo`: stage \"wrpo\" is left out: its `when` is false\n");
    assert_eq!(
        refused("swept[k=false]"),
        "error: in `swept[k=false]`: swept[k=false] is left out: its `when` is false\n"
    );
}

#[test]
fn of_two_alternatives_the_one_that_is_there_is_taken() {
    let text = CHOICE.replace("with: {label: me}, when: false", "with: {label: me}");
    assert!(problems(&text).contains("the input \"model\" takes one model, but 2 are bound: dpo, wrpo"));
    let plan = load_with(&text, &["dpo=false"], false).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(describe(&plan).contains("one prompts: p.rows; model: wrpo.model as me;\n"));
}

#[test]
fn when_is_a_boolean() {
    assert_eq!(
        problems(
            "vars: {x: maybe}\nstages:\n  a: {op: load, with: {path: x}, when: '${x}'}\n  b: {op: load, with: {path: x}, when: 1}\n"
        ),
        "error: p.yaml:3:40: expected true or false, found the text \"maybe\"\n\
         error: p.yaml:4:40: expected true or false, found 1"
    );
}

#[test]
fn files_of_stages_that_are_left_out_need_not_be_there() {
    let text = "stages:\n  a: {op: load, with: {path: none/a}, when: false}\n  b: {op: load, with: {path: none/b}}\n";
    let said = problems_with(text, &[], true);
    assert!(said.contains("none/b") && !said.contains("none/a"), "{said}");
}

const ROUNDS: &str = "\
vars: {times: 3}
repeat:
  round:
    times: '${times}'
    stages: [sampled, scored, tuned]
    carry: {policy: [base, tuned]}
stages:
  base: {op: import_model, with: {from: x}}
  prompts: {op: load, with: {path: x, as: prompt}}
  sampled: {op: sample, inputs: {prompts: prompts, model: policy}, with: {n: '${round}'}}
  scored: {op: evaluate, inputs: {models: {p: policy}, prompts: prompts}}
  tuned: {op: merge, inputs: {models: [policy, base]}}
  last: {op: evaluate, inputs: {models: 'tuned[round=3]'}}
  every: {op: evaluate, inputs: {models: tuned}}
";

#[test]
fn repeated_stages_are_unrolled_and_carry_what_the_turn_before_made() {
    assert_eq!(
        describe(&plan(ROUNDS)),
        "\
base
prompts
sampled[round=1] prompts: prompts.rows; model: base.model as policy;
scored[round=1] models: base.model as p; prompts: prompts.rows;
tuned[round=1] models: base.model; base.model;
sampled[round=2] prompts: prompts.rows; model: tuned[round=1].model as policy;
scored[round=2] models: tuned[round=1].model as p; prompts: prompts.rows;
tuned[round=2] models: tuned[round=1].model; base.model;
sampled[round=3] prompts: prompts.rows; model: tuned[round=2].model as policy;
scored[round=3] models: tuned[round=2].model as p; prompts: prompts.rows;
tuned[round=3] models: tuned[round=2].model; base.model;
last models: tuned[round=3].model as 3;
every models: tuned[round=1].model as 1 +round=1; tuned[round=2].model as 2 +round=2; tuned[round=3].model as 3 +round=3;
"
    );
    let plan = load_with(ROUNDS, &["times=4"], false).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(plan.nodes.iter().filter(|node| node.id.stage == "tuned").count(), 4);
    let rounds = plan.nodes.iter().filter(|node| node.id.stage == "sampled");
    assert_eq!(rounds.map(|node| node.resolved.params["n"].clone()).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn repeated_stages_have_axes_of_their_own_and_sql_takes_what_is_carried() {
    let text = "\
repeat:
  turn: {times: 2, stages: [tuned, asked], carry: {policy: [base, tuned], rows: [prompts.rows, asked]}}
stages:
  base: {matrix: {source: [owl, fox]}, op: import_model, with: {from: x}}
  prompts: {op: load, with: {path: x, as: prompt}}
  tuned: {matrix: {source: [owl, fox]}, op: merge, inputs: {models: policy}}
  asked: {op: table, with: {sql: '@rows'}}
";
    assert_eq!(
        describe(&plan(text)),
        "\
base[source=owl]
base[source=fox]
prompts
tuned[source=owl,turn=1] models: base[source=owl].model;
tuned[source=fox,turn=1] models: base[source=fox].model;
tuned[source=owl,turn=2] models: tuned[source=owl,turn=1].model;
tuned[source=fox,turn=2] models: tuned[source=fox,turn=1].model;
asked[turn=1] rows: prompts.rows;
asked[turn=2] rows: asked[turn=1].rows;
"
    );
}

#[test]
fn everything_wrong_with_repeat_is_said() {
    let text = "\
repeat:
  Round: {}
  a: {times: 0, stages: [s], carry: {}}
  b: {times: 2, stages: [t, s, tt, tables.x, 1], carry: {policy: [base, t], base: [base, t], q: [t, t], r: [base, base], w: base, v: [bass, t]}, tims: 1}
  c: 3
  d: {times: 1}
stages:
  base: {op: import_model, with: {from: x}}
  s: {op: merge, inputs: {models: base}}
  t: {op: merge, inputs: {models: [base, v]}}
  u: {op: merge, inputs: {models: policy}}
tables:
  x: {sql: '@u'}
";
    assert_eq!(
        problems(text),
        r#"error: p.yaml:2:3: "Round" is not an axis' name, expected a lower-case letter, then letters, digits and _
error: p.yaml:3:14: expected how many times, an integer from 1, found 0
error: p.yaml:4:32: unknown stage "tt"
  help: did you mean "t"?
error: p.yaml:4:36: unknown stage "tables.x"
  help: expected one of base, s, t, u
error: p.yaml:4:46: expected a stage's name, found 1
error: p.yaml:4:58: no repeated stage takes "policy"
  help: take it as an input, or leave it out
error: p.yaml:4:77: "base" is a stage already
  help: choose another name for what is carried
error: p.yaml:4:98: stage "t" is repeated itself, so it cannot come before the first turn
error: p.yaml:4:115: stage "base" is not repeated
  help: expected one of t, s
error: p.yaml:4:125: expected two stages, [FIRST, OF THE TURN BEFORE], found the text "base"
error: p.yaml:4:135: unknown stage "bass"
  help: did you mean "base"?
error: p.yaml:4:146: unknown field "tims" of `repeat`
  help: did you mean "times"?
error: p.yaml:5:6: expected "times", "stages" and "carry", found 3
error: p.yaml:6:6: expected a list of stages to repeat, found nothing
error: p.yaml:11:35: unknown stage "policy"
  help: expected one of base, s, t, u, tables.x
error: p.yaml:13:12: "u" does not fit the input "u": a model is not a table
  help: it takes a table"#
    );
}

#[test]
fn a_repeated_stage_has_no_such_axis_of_its_own() {
    let text = "\
repeat: {b: {times: 2, stages: [s]}}
stages:
  base: {op: import_model, with: {from: x}}
  s: {matrix: {b: [1]}, op: merge, inputs: {models: base}}
";
    assert_eq!(problems(text), "error: p.yaml:4:16: stage \"s\" is repeated over the axis \"b\" already");
    let wide = text.replace("times: 2", "times: 100000").replace("matrix: {b: [1]}, ", "");
    assert!(problems(&wide).contains("too many instances: a pipeline may have 100000"));
}
