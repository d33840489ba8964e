//! Measures how a model folder gets into the store: hashed for its key, copied,
//! published; beside `cp -r` and `b3sum` of the same files in the same round. And
//! how long it takes to see that an unchanged one is unchanged, and to compare
//! the copy with its name when it is first used.
//!
//!     make peers                                      # for b3sum
//!     cargo bench --workspace --bench store           # 10 GiB in a folder for temporary files
//!     cargo bench --workspace --bench store -- DIR GIB
//!
//! It needs three times the room. Before each side the model is put out of the
//! page cache, so that both read it from the disk. What we publish is on the
//! disk when the clock stops; what `cp` wrote is not, so the time of bringing
//! it there is told too. Prints Markdown, medians of all rounds.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use fuseline_contract::{Digest, Key};
use fuseline_engine::Store;
use fuseline_engine::store::manifest::Made;
use fuseline_engine::store::publish::{Pending, publish};
use fuseline_engine::store::staging::{Copies, stage_model};
use fuseline_engine::store::{Record, files};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

const ROUNDS: usize = 3;
const GIB: u64 = 1 << 30;
/// A shard and a tensor, as models of billions of parameters have them.
const SHARD: u64 = 2 * GIB;
const TENSOR: u64 = 128 << 20;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [folder, gib] => all(Path::new(folder), gib.parse().expect("GIB is a whole number")),
        [folder] => all(Path::new(folder), 10),
        _ => all(&std::env::temp_dir(), 10),
    }
}

fn all(within: &Path, gib: u64) {
    let home = tempfile::tempdir_in(within).expect("a folder to write to");
    let model = home.path().join("model");
    make(&model, gib * GIB);
    let b3sum = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.peers/b3sum/bin/b3sum");
    if !b3sum.exists() {
        eprintln!("note: {} is not there; `make peers` builds it", b3sum.display());
    }
    let mut rows: Vec<(&str, Vec<f64>)> = Vec::new();
    let mut note = |what: &'static str, seconds: f64| match rows.iter_mut().find(|(row, _)| *row == what) {
        Some((_, all)) => all.push(seconds),
        None => rows.push((what, vec![seconds])),
    };
    for _ in 0..ROUNDS {
        ours(&home.path().join("store"), &model, &mut note);
        if b3sum.exists() {
            peers(&b3sum, &home.path().join("copy"), &model, &mut note);
        }
    }
    println!("a model of {gib} GiB in shards of {} GiB, {ROUNDS} rounds\n", SHARD / GIB);
    println!("| what | seconds |\n|---|---|");
    let median = |wanted: &str| {
        let mut all = rows.iter().find(|(what, _)| *what == wanted).map_or(vec![f64::NAN], |(_, all)| all.clone());
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    for (what, _) in &rows {
        println!("| {what} | {:.4} |", median(what));
    }
    let (ours, theirs) = (median(OURS), median("cp -r") + median("b3sum"));
    println!("| {OURS}, against cp and b3sum | {:.2} times |", ours / theirs);
    println!("| {OURS}, against cp, b3sum and sync | {:.2} times |", ours / (theirs + median("sync")));
}

const OURS: &str = "hash, copy and publish";

fn timed<T>(act: impl FnOnce() -> T) -> (f64, T) {
    let clock = Instant::now();
    let done = act();
    (clock.elapsed().as_secs_f64(), done)
}

fn open(root: &Path) -> Store {
    let store = Store::open(root).expect("opens");
    store.prepare().expect("prepares");
    store
}

fn ours(root: &Path, model: &Path, note: &mut dyn FnMut(&'static str, f64)) {
    forget(model);
    let store = open(root);
    let (hashed, tree) = timed(|| files::tree(&store, model).expect("hashed"));
    note("hash for the key", hashed);
    let folder = root.join("work/attempt");
    fs::create_dir_all(&folder).expect("made");
    let (copied, staged) = timed(|| {
        let copies = Copies::default();
        copies.add_all(&store, &paths(model), &folder).expect("copied");
        stage_model(&folder, &copies).expect("staged")
    });
    note("copy", copied);
    let (published, record) = timed(|| {
        let record = Record::new(Key([1; 32]), "import_model", Vec::new(), false, Made::default());
        publish(&store, Pending::new(record, vec![("model".to_owned(), staged)])).expect("published").record
    });
    note("publish", published);
    note(OURS, hashed + copied + published);
    // As a later run meets both.
    let later = open(root);
    let (seconds, again) = timed(|| files::tree(&later, model).expect("hashed"));
    assert_eq!(again, tree);
    note("check the unchanged folder again", seconds);
    let artifact: Digest = record.outputs[0].artifact;
    let (seconds, ()) = timed(|| later.verify_artifact(&artifact).expect("whole"));
    note("check the artifact when it is first used", seconds);
    let later = open(root);
    let (seconds, ()) = timed(|| later.verify_artifact(&artifact).expect("whole"));
    note("check the unchanged artifact again", seconds);
    fs::remove_dir_all(root).expect("ours");
}

fn peers(b3sum: &Path, copy: &Path, model: &Path, note: &mut dyn FnMut(&'static str, f64)) {
    forget(model);
    let run = |program: &Path, arguments: &[PathBuf]| {
        let status = Command::new(program).args(arguments).stdout(Stdio::null()).status().expect("it starts");
        assert!(status.success(), "{}", program.display());
    };
    let (seconds, ()) = timed(|| run(Path::new("cp"), &["-r".into(), model.to_owned(), copy.to_owned()]));
    note("cp -r", seconds);
    let (seconds, ()) = timed(|| run(b3sum, &paths(model)));
    note("b3sum", seconds);
    let (seconds, ()) = timed(|| run(Path::new("sync"), &paths(copy)));
    note("sync", seconds);
    fs::remove_dir_all(copy).expect("ours");
}

fn paths(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// Puts a folder's files out of the page cache.
fn forget(folder: &Path) {
    for path in paths(folder) {
        let file = File::open(path).expect("opens");
        file.sync_all().expect("synced");
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).expect("advised");
    }
}

/// A model folder of so many bytes of weights that nothing can compress.
fn make(folder: &Path, bytes: u64) {
    fs::create_dir(folder).expect("made");
    fs::write(folder.join("config.json"), "{\"model_type\": \"llama\"}").expect("written");
    let shards = bytes.div_ceil(SHARD);
    let mut state = 1_u64;
    for shard in 0..shards {
        let size = SHARD.min(bytes - shard * SHARD);
        let tensors = (0..size / TENSOR).map(|n| {
            let place = [n * TENSOR, (n + 1) * TENSOR];
            let entry = serde_json::json!({"dtype": "BF16", "shape": [TENSOR / 2], "data_offsets": place});
            (format!("layers.{shard}.{n}"), entry)
        });
        let header = serde_json::Value::Object(tensors.collect()).to_string();
        let name = format!("model-{:05}-of-{shards:05}.safetensors", shard + 1);
        let mut out = BufWriter::with_capacity(1 << 20, File::create(folder.join(name)).expect("created"));
        out.write_all(&(header.len() as u64).to_le_bytes()).expect("written");
        out.write_all(header.as_bytes()).expect("written");
        for _ in 0..size / TENSOR * (TENSOR / 8) {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            out.write_all(&state.to_le_bytes()).expect("written");
        }
        out.into_inner().expect("written").sync_all().expect("synced");
    }
}
