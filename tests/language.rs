//! The language of the pipeline file, by running it: several files, stages that
//! are left out, turns, seeds.

use crate::harness::Home;

const LESSONS: &str = "\
name: lessons
seed: 3
vars: {n: 4}
stages:
  drawn: {op: make_dataset, with: {split: train, tasks: {addition: '${n}'}}}
  counted: {op: sql, with: {sql: SELECT count(*) AS n FROM drawn}}
";

#[test]
fn an_included_file_shares_its_results_with_itself_run_alone() {
    let home = Home::new();
    std::fs::create_dir(home.path("parts")).expect("a folder of our own");
    home.write("parts/lessons.yaml", LESSONS);
    home.write(
        "p.yaml",
        "seed: 8\n\
         include: [{file: parts/lessons.yaml, prefix: few}, {file: parts/lessons.yaml, prefix: many, vars: {n: 9}}]\n\
         tables: {main: {sql: \"SELECT few_counted.n AS few, many_counted.n AS many FROM few_counted, many_counted\"}}\n",
    );
    home.ok(&["run", "parts/lessons.yaml"]);
    assert_eq!(home.ran("p.yaml", &[]), ["many_counted", "many_drawn", "tables.main"]);
    assert_eq!(home.ok(&["table", "p.yaml", "main", "--format", "csv"]), "few,many\r\n4,9\r\n");
    assert_eq!(home.ran("p.yaml", &["--set", "many_drawn.tasks.addition=4"]), ["tables.main"]);
}

#[test]
fn a_stage_that_is_switched_off_does_not_run_and_the_plan_says_so() {
    let home = Home::new();
    home.write(
        "p.yaml",
        "vars: {second: true}\n\
         stages:\n  \
           a: {op: make_dataset, with: {split: train, tasks: {addition: 2}}}\n  \
           b: {op: make_dataset, with: {split: test, tasks: {addition: 3}}, when: '${second}'}\n  \
           both: {op: sql, inputs: {rows: [a, b]}, with: {sql: SELECT count(*) AS n FROM rows}}\n  \
           later: {op: sql, with: {sql: SELECT count(*) AS n FROM b}}\n",
    );
    assert_eq!(home.ran("p.yaml", &["--set", "second=false"]), ["a", "both"]);
    assert_eq!(
        home.ok(&["sql", "p.yaml", "--set", "second=false", "--format", "csv", "SELECT n FROM both"]),
        "n\r\n2\r\n"
    );
    let plan = home.ok(&["plan", "p.yaml", "--set", "second=false"]);
    assert!(
        plan.contains("note: b is left out: its `when` is false\n")
            && plan.contains("note: later is left out: all that its input \"b\" takes is left out (b)\n"),
        "{plan}"
    );
    assert_eq!(home.ran("p.yaml", &[]), ["b", "both", "later"]);
    let refused = home.fuseline(&["run", "p.yaml", "--set", "second=false", "--target", "later"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("stage \"later\" is left out"), "{}", refused.stderr);
}

#[test]
fn turns_carry_results_on_and_one_more_turn_runs_that_turn_alone() {
    let home = Home::new();
    home.write(
        "p.yaml",
        "vars: {times: 3}\n\
         repeat: {round: {times: '${times}', stages: [doubled], carry: {previous: [start, doubled]}}}\n\
         stages:\n  \
           start: {op: sql, with: {sql: SELECT 1 AS x}}\n  \
           doubled: {op: sql, with: {sql: SELECT x * 2 AS x FROM previous}}\n\
         tables: {main: {sql: \"SELECT round, x FROM doubled ORDER BY round\"}}\n",
    );
    assert_eq!(
        home.ran("p.yaml", &[]),
        ["doubled[round=1]", "doubled[round=2]", "doubled[round=3]", "start", "tables.main"]
    );
    assert_eq!(home.ok(&["table", "p.yaml", "--format", "csv"]), "round,x\r\n1,2\r\n2,4\r\n3,8\r\n");
    assert_eq!(home.ran("p.yaml", &["--set", "times=4"]), ["doubled[round=4]", "tables.main"]);
}

#[test]
fn what_does_not_depend_on_the_seed_is_made_once_for_all_seeds() {
    let home = Home::new();
    home.write(
        "p.yaml",
        "stages:\n  \
           drawn: {matrix: {seed: [1, 2, 3]}, op: make_dataset, with: {split: train, tasks: {addition: 5}}}\n  \
           fixed: {matrix: {seed: [1, 2, 3]}, op: sql, with: {sql: SELECT 1 AS x}}\n  \
           after: {matrix: {seed: [1, 2, 3]}, op: sql, with: {sql: SELECT x + 1 AS y FROM fixed}}\n  \
           joined: {matrix: {seed: [1, 2, 3]}, op: sql, with: {sql: SELECT prompt_id FROM drawn}}\n",
    );
    let ran = home.ran("p.yaml", &[]);
    let of = |stage: &str| ran.iter().filter(|name| name.starts_with(stage)).count();
    assert_eq!((of("drawn"), of("fixed"), of("after"), of("joined")), (3, 1, 1, 3), "{ran:?}");
    assert_eq!(home.ran("p.yaml", &[]), [""; 0]);
}

#[test]
fn the_starter_file_runs_as_it_says() {
    let home = Home::new();
    assert_eq!(home.ok(&["init"]), "wrote pipeline.yaml; now: fuseline run pipeline.yaml\n");
    assert_eq!(home.ok(&["check", "pipeline.yaml"]), "pipeline.yaml: 11 stages, no problems\n");
    let again = home.fuseline(&["init"]);
    assert_eq!((again.code, again.stdout.as_str()), (Some(2), ""));
    assert!(again.stderr.contains("pipeline.yaml is there already"), "{}", again.stderr);
    let quick = ["--set", "tuned.train.steps=2", "--set", "words=30", "--set", "exam.tasks.reverse_word=3"];
    let table = home.ok(&[&["run", "pipeline.yaml"], &quick[..]].concat());
    assert!(table.contains("0.001") && table.contains("0.004") && table.contains("reverse_word"), "{table}");
    let plan = home.fuseline(&[&["plan", "pipeline.yaml", "--set", "measure=false"], &quick[..]].concat());
    assert_eq!(plan.code, Some(0), "{}", plan.stderr);
    assert!(plan.stdout.contains("note: tables.accuracy is left out"), "{}", plan.stdout);
}
