//! Measures the row memo: durable rows a second, look-up of remembered rows,
//! recovery after a kill. Each part runs in a process of its own, so that its
//! peak memory is its own.
//!
//!     cargo bench --workspace --bench memo                   # in a folder for temporary files
//!     cargo bench --workspace --bench memo -- DIR            # on the disk of DIR
//!     cargo bench --workspace --bench memo -- DIR ROWS       # of other than a million rows
//!
//! A row is durable as the memo promises: it outlives its process as soon as it
//! is put, and a power cut after two seconds; the time of writing ends when all
//! rows are on the disk. What is looked up was written just before, so it comes
//! out of the page cache, and every row is compared. Prints Markdown: medians
//! and the slowest of all rounds, and the largest memory of any.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use fuseline_contract::RowKey;
use fuseline_engine::Store;
use fuseline_engine::store::memo::RowMemo;
use nix::sys::resource::{UsageWho, getrusage};

const ROWS: u64 = 1_000_000;
/// How often everything is measured.
const ROUNDS: usize = 5;
/// A short answer as `sample` remembers it.
const ROW_BYTES: usize = 250;
/// Larger than what is written: one journal without an index, as a kill leaves it.
const NEVER_FULL: u64 = 1 << 40;

fn key(number: u64) -> RowKey {
    RowKey(blake3::derive_key("bench rows", &number.to_le_bytes()))
}

fn row(number: u64) -> Vec<u8> {
    let mut row = vec![b'a' + (number % 26) as u8; ROW_BYTES];
    row[..8].copy_from_slice(&number.to_le_bytes());
    row
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["part", part, folder, rows] => measure(part, Path::new(folder), number(rows)),
        [folder, rows] => all(Path::new(folder), number(rows)),
        [folder] => all(Path::new(folder), ROWS),
        _ => all(&std::env::temp_dir(), ROWS),
    }
}

fn number(text: &str) -> u64 {
    text.parse().expect("ROWS is a number")
}

/// The parts in order: what is done, in which folder, and of how many rows a
/// rate is told.
fn parts(rows: u64) -> [(&'static str, &'static str, u64); 7] {
    [
        ("write", "rows", rows),
        ("look up all", "rows", rows),
        ("look up as many others", "rows", rows),
        ("look up every hundredth", "rows", rows / 100),
        ("write a journal and be killed", "journal", rows),
        ("recover the journal", "journal", rows),
        ("look up all of it", "journal", rows),
    ]
}

fn all(within: &Path, rows: u64) {
    let mut measured = vec![(Vec::new(), 0.0_f64); parts(rows).len()];
    for _ in 0..ROUNDS {
        let home = tempfile::tempdir_in(within).expect("a folder to write to");
        for ((part, folder, _), (seconds, peak)) in parts(rows).into_iter().zip(&mut measured) {
            let output = Command::new(std::env::current_exe().expect("this program"))
                .args(["part", part])
                .arg(home.path().join(folder))
                .arg(rows.to_string())
                .stderr(Stdio::inherit())
                .output()
                .expect("it starts");
            assert!(output.status.success(), "{part}");
            let said = String::from_utf8(output.stdout).expect("two numbers");
            let mut numbers = said.split_whitespace().map(|number| number.parse::<f64>().expect("two numbers"));
            seconds.push(numbers.next().expect("seconds"));
            *peak = peak.max(numbers.next().expect("a peak"));
        }
    }
    println!("{rows} rows of {ROW_BYTES} bytes, {ROUNDS} rounds\n");
    println!("| what | seconds (slowest) | rows a second | peak MiB |\n|---|---|---|---|");
    for ((part, _, of), (mut seconds, peak)) in parts(rows).into_iter().zip(measured) {
        seconds.sort_by(f64::total_cmp);
        let (median, slowest) = (seconds[ROUNDS / 2], seconds[ROUNDS - 1]);
        println!("| {part} | {median:.2} ({slowest:.2}) | {:.0} | {peak:.0} |", of as f64 / median);
    }
}

/// Does a part, and says how many seconds and MiB it took.
fn measure(part: &str, folder: &Path, rows: u64) {
    let store = Store::open(folder).expect("opens");
    store.prepare().expect("prepares");
    let clock = Instant::now();
    match part {
        "write" => {
            let memo = RowMemo::open(&store, "bench").expect("opens");
            (0..rows).for_each(|number| memo.put(&key(number), &row(number), false).expect("put"));
            memo.finish().expect("synced");
        }
        "write a journal and be killed" => {
            let memo = RowMemo::with_segments_of(&store, "bench", NEVER_FULL).expect("opens");
            (0..rows).for_each(|number| memo.put(&key(number), &row(number), false).expect("put"));
            tell(clock);
            // No destructor runs, as after a kill.
            std::process::exit(0);
        }
        "recover the journal" => {
            RowMemo::open(&store, "bench").expect("opens");
            let index = std::fs::read_dir(folder.join("memo/bench")).expect("there");
            assert!(index.flatten().any(|entry| entry.path().extension().is_some_and(|kind| kind == "index")));
        }
        _ => {
            let (first, step, expected) = match part {
                "look up as many others" => (rows, 1, 0),
                "look up every hundredth" => (0, 100, (rows / 100) as usize),
                _ => (0, 1, rows as usize),
            };
            let numbers: Vec<u64> = (0..rows / step).map(|number| first + number * step).collect();
            let keys: Vec<RowKey> = numbers.iter().map(|number| key(*number)).collect();
            let clock = Instant::now();
            let memo = RowMemo::open(&store, "bench").expect("opens");
            let mut bytes = 0;
            let mut take = |place: usize, row: &[u8]| {
                assert_eq!(row[..8], numbers[place].to_le_bytes());
                bytes += row.len();
                true
            };
            let looked = memo.get_many(&keys, &mut take).expect("looked");
            assert_eq!((looked.found, looked.damaged, bytes), (expected, 0, expected * ROW_BYTES));
            return tell(clock);
        }
    }
    tell(clock);
}

fn tell(clock: Instant) {
    let seconds = clock.elapsed().as_secs_f64();
    let peak = getrusage(UsageWho::RUSAGE_SELF).expect("Unix tells").max_rss() as f64 / 1024.0;
    println!("{seconds} {peak}");
}
