//! The command line: what can be typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use fuseline_engine::care::gc;

use crate::care;

/// Dataflow for LLM fusion and post-training.
#[derive(Debug, Parser)]
#[command(name = "fuseline", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,

    /// Where results lie.
    #[command(flatten)]
    pub location: Location,
}

/// Where results lie.
#[derive(Debug, Args)]
pub struct Location {
    /// Where artifacts lie.
    #[arg(long, global = true, env = "FUSELINE_STORE", default_value = ".fuseline", value_name = "DIR")]
    pub store: PathBuf,

    /// A shared store to take from what is not here: s3://, gs://, az:// or file:/// with credentials in the environment.
    #[arg(long, global = true, env = "FUSELINE_REMOTE", value_name = "URL", hide_env_values = true)]
    pub remote: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  fuseline init                                             a pipeline file to start from
  fuseline run pipelines/quickstart.yaml                    run what changed, print the tables
  fuseline plan pipelines/quickstart.yaml --set beta=0.05   what would rerun, and why
  fuseline sql pipelines/quickstart.yaml 'SELECT source, avg(reward) FROM scored GROUP BY source ORDER BY source'

Exit codes: 0 done, 1 a stage's own work failed, 2 the input is wrong, 3 the environment
failed, 4 a bug of ours, 5 `plan` found work, 130 interrupted.";

const SERVE_EXAMPLES: &str = "\
Examples:
  fuseline serve models/target --port 8000
  fuseline serve pipelines/quickstart.yaml wrpo --name wrpo
  curl http://127.0.0.1:8000/v1/chat/completions -d '{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}'

A request's seed is the seed of its first answer; the same seed, prompt and parameters give the same answer, whatever else
is asked meanwhile. Ctrl-C ends the server when what was asked is answered.";

const SQL_NAMES: &str = "\
Tables:
  scored, pairs.dropped            a stage's first output, all its instances, axes as columns; another output of it
  latest.scored, \"01KB3\".scored    the same of an earlier run: the latest of this pipeline, or any by the beginning of its id
  system.runs, system.stages, system.attempts,
  system.artifacts                                what ran when, where, why, and what it made

`fuseline ops sql` lists the functions that are not in every SQL.

Examples:
  fuseline sql pipelines/quickstart.yaml
  fuseline sql pipelines/quickstart.yaml 'SELECT avg(reward) FROM scored' --format json
  fuseline sql pipelines/quickstart.yaml -f losses.sql --format parquet -o losses.parquet
  echo 'SELECT * FROM latest.scored LIMIT 5;' | fuseline sql pipelines/quickstart.yaml";

/// A pipeline file and what is changed in it.
#[derive(Debug, Args)]
pub struct Pipeline {
    /// The pipeline file.
    #[arg(value_name = "PIPELINE")]
    pub path: PathBuf,

    /// Override a variable (NAME=VALUE) or a stage's parameter (STAGE.PARAM=VALUE); VALUE is YAML.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub sets: Vec<String>,
}

/// What is wanted of a pipeline. SELECT is STAGE, STAGE[axis=value], tag:NAME,
/// changed or failed; +SELECT adds what it needs, SELECT+ what needs it.
#[derive(Debug, Args)]
pub struct Wanted {
    /// Only these stages and what they need; SELECT is STAGE, STAGE[axis=value], tag:NAME, changed or
    /// failed, with + before it for what it needs, after it for what needs it.
    #[arg(long = "target", value_name = "SELECT")]
    pub targets: Vec<String>,
    /// Only these stages; refuses if an input that is not among them is not there.
    #[arg(long, value_name = "SELECT", conflicts_with = "targets")]
    pub only: Vec<String>,
    /// Take inputs that are not selected from another run (its id or the beginning of it).
    #[arg(long, value_name = "RUN")]
    pub defer: Option<String>,
    /// Run these stages even if their results are there.
    #[arg(long, value_name = "SELECT")]
    pub force: Vec<String>,
    /// Take the last results of these stages for their present keys, without running them.
    #[arg(long, value_name = "SELECT", requires = "reason")]
    pub accept: Vec<String>,
    /// Why they still hold; recorded with your name and shown with every result that rests on them.
    #[arg(long, value_name = "TEXT", requires = "accept", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub reason: Option<String>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run what changed and print the tables.
    Run {
        #[command(flatten)]
        pipeline: Pipeline,
        #[command(flatten)]
        wanted: Wanted,
        /// How many stages may run at once; as many as the processors allow by default.
        #[arg(long, value_name = "N")]
        jobs: Option<usize>,
        /// Go on with what does not need a failed stage.
        #[arg(long)]
        keep_going: bool,
        /// Refuse to run what this lock does not say, and compare the results with it.
        #[arg(long, value_name = "FILE")]
        locked: Option<PathBuf>,
        /// Print events as JSON lines on stdout instead of progress and tables.
        #[arg(long)]
        json: bool,
    },
    /// Say what would run and why; exit code 5 if anything would.
    Plan {
        #[command(flatten)]
        pipeline: Pipeline,
        #[command(flatten)]
        wanted: Wanted,
        /// Show each stage's parameters after defaults.
        #[arg(long)]
        values: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check the pipeline file; needs no data.
    Check {
        #[command(flatten)]
        pipeline: Pipeline,
        /// Print problems as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say why a stage would run, or what its result was made of.
    Why {
        #[command(flatten)]
        pipeline: Pipeline,
        /// The stage, written as an input is.
        #[arg(required_unless_present = "cell", conflicts_with = "cell")]
        stage: Option<String>,
        /// A table's cell instead: what it was made of, down to rows, parameters and files.
        #[arg(long, num_args = 3, value_names = ["TABLE", "ROW", "COLUMN"])]
        cell: Vec<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say why a stage's result is used as it is.
    WhyNot {
        #[command(flatten)]
        pipeline: Pipeline,
        /// The stage, written as an input is.
        stage: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say what differs between two runs: stages, metrics; with a stage, its rows.
    Diff {
        /// The first run: its id or the beginning of it.
        #[arg(value_name = "RUN")]
        before: String,
        /// The second run.
        #[arg(value_name = "RUN")]
        now: String,
        /// A stage, written as an input is: compare the rows of its output.
        stage: Option<String>,
        /// The columns that tell rows apart; those of the row type by default.
        #[arg(long, value_name = "COLUMN", value_delimiter = ',', requires = "stage")]
        key: Vec<String>,
        /// How far two floats may be apart, absolutely or relative to the larger.
        #[arg(long, value_name = "TOL", default_value_t = 0.0, value_parser = tolerance)]
        tol: f64,
        /// How many rows of each kind to show.
        #[arg(long, value_name = "N", default_value_t = 10)]
        limit: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write the digests behind a pipeline's results: what was asked, what came out.
    Lock {
        #[command(flatten)]
        pipeline: Pipeline,
        /// Write to a file instead of stdout.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Compare a pipeline and its results with a lock, or rerun stages aside and compare.
    Verify {
        #[command(flatten)]
        pipeline: Pipeline,
        /// Only these stages; all by default.
        #[arg(value_name = "SELECT")]
        stages: Vec<String>,
        /// The lock; PIPELINE with .lock.yaml in place of .yaml by default.
        #[arg(long, value_name = "FILE", conflicts_with = "rerun")]
        lock: Option<PathBuf>,
        /// Run the stages again, beside the store, and compare bytes. Every row is computed: what is remembered is not used.
        #[arg(long, requires = "stages")]
        rerun: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List stages: state, rows, size, age.
    Ls {
        #[command(flatten)]
        pipeline: Pipeline,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print a table of the pipeline.
    Table {
        #[command(flatten)]
        pipeline: Pipeline,
        /// Which table; all by default.
        name: Option<String>,
        /// How to write it.
        #[arg(long, default_value = "text")]
        format: TableFormat,
        /// Write to a file instead of stdout.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Ask SQL over the stages' tables; without a query, in a shell.
    #[command(after_help = SQL_NAMES)]
    Sql {
        #[command(flatten)]
        pipeline: Pipeline,
        /// The query; without one, statements are read from the terminal or from a pipe.
        query: Option<String>,
        /// Read the query from a file.
        #[arg(short, long, value_name = "FILE", conflicts_with = "query")]
        file: Option<PathBuf>,
        /// How to write the result; parquet needs -o.
        #[arg(long, default_value = "text")]
        format: SqlFormat,
        /// Write to a file instead of stdout.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// What sorts, groups and joins may hold in memory, such as 2GiB; more goes through files. Half of the machine's by default.
        #[arg(long, value_name = "SIZE", value_parser = care::bytes)]
        memory: Option<u64>,
    },
    /// Draw the DAG as text for a renderer.
    Graph {
        #[command(flatten)]
        pipeline: Pipeline,
        /// The renderer's language.
        #[arg(long, default_value = "mermaid")]
        format: GraphFormat,
    },
    /// Print what the last attempt at a stage wrote to its standard output and error.
    Logs {
        #[command(flatten)]
        pipeline: Pipeline,
        /// The stage, written as an input is.
        stage: String,
        /// The attempt of this run; a unique beginning of its id is enough.
        #[arg(long, value_name = "RUN")]
        run: Option<String>,
        /// Go on until the attempt ends.
        #[arg(short, long)]
        follow: bool,
    },
    /// Print the folder of a stage's output.
    Path {
        #[command(flatten)]
        pipeline: Pipeline,
        /// STAGE or STAGE.OUTPUT, written as an input is.
        stage: String,
    },
    /// Send results to a shared store; the pipeline's, with all they need.
    Push {
        #[command(flatten)]
        pipeline: Pipeline,
        /// s3://BUCKET/PREFIX, gs://…, az://CONTAINER/PREFIX or file:///FOLDER.
        url: String,
        /// Only these stages and what they need.
        #[arg(long = "target", value_name = "SELECT")]
        targets: Vec<String>,
    },
    /// Fetch a pipeline's results from a shared store.
    Pull {
        #[command(flatten)]
        pipeline: Pipeline,
        /// s3://BUCKET/PREFIX, gs://…, az://CONTAINER/PREFIX or file:///FOLDER.
        url: String,
        /// Only these stages and what they need.
        #[arg(long = "target", value_name = "SELECT")]
        targets: Vec<String>,
    },
    /// Copy a stage's outputs to a folder, as ordinary files with their lineage.
    Export {
        #[command(flatten)]
        pipeline: Pipeline,
        /// STAGE, STAGE.OUTPUT or STAGE[axis=value], written as an input is.
        stage: String,
        /// A new or empty folder.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// List the runs in the store.
    Runs {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check that the store is whole; exit code 3 if something is damaged.
    Fsck {
        /// Check sizes only and leave the bytes of blobs unread.
        #[arg(long)]
        fast: bool,
        /// Move what is damaged to quarantine/, so that the stages that made it run again.
        #[arg(long)]
        repair: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say which results nobody needs any more; with --yes, move them to the trash.
    Gc {
        /// Do it. What earlier collections put in the trash is deleted.
        #[arg(long)]
        yes: bool,
        /// Keep the results of so many latest runs of each pipeline.
        #[arg(long, value_name = "N", default_value_t = gc::KEEP_RUNS)]
        keep_runs: usize,
        /// Keep what was made or used within this time: 14d, 36h, 90m, 0.
        #[arg(long, value_name = "AGE", default_value = "14d", value_parser = care::age)]
        min_age: Duration,
        /// Let go of what kept results were made from.
        #[arg(long)]
        forget_inputs: bool,
        /// Keep results to this size (500MB, 20GB), pins excepted; those unused for longest go first.
        #[arg(long, value_name = "SIZE", value_parser = care::bytes)]
        max_bytes: Option<u64>,
        /// Let go of remembered rows too that were paid for before --min-age: those of this row
        /// function (sample, logprobs; see fuseline du). May be given several times.
        #[arg(long, value_name = "FUNCTION")]
        memo: Vec<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say how much room each stage's results take.
    Du {
        #[command(flatten)]
        pipeline: Pipeline,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Keep a stage's results, with what they were made from, under a name.
    Pin {
        /// The name.
        name: String,
        #[command(flatten)]
        pipeline: Pipeline,
        /// The stage, written as an input is.
        stage: String,
    },
    /// List the pins.
    Pins {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Free the name of a pin.
    Unpin {
        /// The name.
        name: String,
    },
    /// List the operators, or print the manual of one.
    Ops {
        /// The operator.
        name: Option<String>,
    },
    /// Print the JSON Schema of the pipeline file, for editors.
    Schema {
        /// Print that of a line of `run --json` instead, for programs.
        #[arg(long)]
        events: bool,
    },
    /// Serve a model over HTTP with OpenAI's interfaces: chat, completions, models, and /health.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve {
        #[command(flatten)]
        model: Model,
        /// The stage that made the model, written as an input is, where MODEL is a pipeline.
        stage: Option<String>,
        /// The name under which clients ask for it; without it the stage's or the folder's.
        #[arg(long)]
        name: Option<String>,
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1")]
        host: String,
        /// The port; 0 takes any that is free, and tells.
        #[arg(long, default_value_t = 8000)]
        port: u16,
        /// A file with the token that clients must send; without it FUSELINE_SERVE_TOKEN, and without that none.
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// Tokens of an answer at most.
        #[arg(long, default_value_t = 1024, value_name = "N", value_parser = positive)]
        max_tokens: usize,
        #[command(flatten)]
        room: Room,
    },
    /// Talk with a model in the terminal.
    Chat {
        #[command(flatten)]
        model: Model,
        /// The stage that made the model, written as an input is, where MODEL is a pipeline.
        stage: Option<String>,
        /// What the model is told first.
        #[arg(long, value_name = "TEXT")]
        system: Option<String>,
        /// Logits are divided by it; 0 takes the most likely token.
        #[arg(long, default_value_t = 0.7, value_name = "T", value_parser = temperature)]
        temperature: f64,
        /// Keeps the fewest tokens that together have this probability.
        #[arg(long, default_value_t = 1.0, value_name = "P", value_parser = share)]
        top_p: f64,
        /// Tokens of an answer at most.
        #[arg(long, default_value_t = 512, value_name = "N", value_parser = positive)]
        max_tokens: usize,
        /// The seed of the first answer.
        #[arg(long, default_value_t = 0, value_name = "N")]
        seed: u64,
        #[command(flatten)]
        room: Room,
    },
    /// Write a commented pipeline file to start from; it needs no data and no GPU.
    Init {
        /// The file; it must not be there yet.
        #[arg(value_name = "FILE", default_value = "pipeline.yaml")]
        path: PathBuf,
    },
}

/// A model: a folder, or a pipeline whose stage made one.
#[derive(Debug, Args)]
pub struct Model {
    /// A model folder, or a pipeline file.
    #[arg(value_name = "MODEL")]
    pub path: PathBuf,

    /// Override a variable (NAME=VALUE) or a stage's parameter (STAGE.PARAM=VALUE) of the pipeline; VALUE is YAML.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub sets: Vec<String>,
}

/// How much a model's engine takes.
#[derive(Debug, Args)]
pub struct Room {
    /// Samples that may wait; beyond them clients are told to come back.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = positive)]
    pub queue: usize,
    /// Tokens of a prompt with its answer at most; the model's own limit if that is less.
    #[arg(long, default_value_t = 4096, value_name = "N", value_parser = positive)]
    pub context: usize,
    /// Threads; without it all processors.
    #[arg(long, default_value_t = 0, value_name = "N", hide_default_value = true)]
    pub threads: usize,
}

impl Room {
    /// The same for the worker.
    pub fn task(&self) -> crate::handover::Room {
        crate::handover::Room { queue: self.queue, context: self.context, threads: self.threads }
    }
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=1 << 30).contains(n)).ok_or_else(|| "expected a number from 1".to_owned())
}

fn temperature(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|t: &f64| *t >= 0.0 && t.is_finite());
    number.ok_or_else(|| "expected a number from 0, such as 0.7".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|p| *p > 0.0 && *p <= 1.0);
    number.ok_or_else(|| "expected a number above 0 and at most 1".to_owned())
}

/// Reads a tolerance.
fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(tolerance) if tolerance >= 0.0 && tolerance.is_finite() => Ok(tolerance),
        _ => Err("expected a number from 0, such as 1e-6".to_owned()),
    }
}

/// How a paper table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// For a terminal.
    Text,
    /// Markdown.
    Md,
    /// LaTeX with booktabs.
    Latex,
    /// HTML.
    Html,
    /// CSV.
    Csv,
    /// JSON.
    Json,
}

/// How a query's result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SqlFormat {
    /// For a terminal.
    Text,
    /// CSV.
    Csv,
    /// JSON: a list of rows.
    Json,
    /// Parquet.
    Parquet,
}

/// How a graph is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// Mermaid.
    Mermaid,
    /// Graphviz.
    Dot,
}
