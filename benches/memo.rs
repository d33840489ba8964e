//! Measures the row memo: durable rows a second, look-up of a million
//! remembered rows, recovery after a kill. Each part runs in a process of its
//! own, so that its peak memory is its own.
//!
//!     cargo bench --workspace --bench memo            # in a folder for temporary files
//!     cargo bench --workspace --bench memo -- DIR     # on the disk of DIR
//!
//! Prints Markdown.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use fuseline_contract::RowKey;
use fuseline_engine::Store;
use fuseline_engine::store::memo::RowMemo;
use nix::sys::resource::{UsageWho, getrusage};

const ROWS: u64 = 1_000_000;
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
        ["part", part, folder] => measure(part, Path::new(folder)),
        [folder] => all(Path::new(folder)),
        _ => all(&std::env::temp_dir()),
    }
}

fn all(within: &Path) {
    let home = tempfile::tempdir_in(within).expect("a folder to write to");
    println!("| what | seconds | rows a second | peak MiB |\n|---|---|---|---|");
    for (part, folder) in [
        ("write", "rows"),
        ("look up", "rows"),
        ("look up none of", "rows"),
        ("look up 100 of", "rows"),
        ("leave a journal of", "journal"),
        ("recover a journal of", "journal"),
        ("look up", "journal"),
    ] {
        let status = Command::new(std::env::current_exe().expect("this program"))
            .args(["part", part])
            .arg(home.path().join(folder))
            .status()
            .expect("it starts");
        assert!(status.success(), "{part}");
    }
}

fn measure(part: &str, folder: &Path) {
    let store = Store::open(folder).expect("opens");
    store.prepare().expect("prepares");
    let clock = Instant::now();
    match part {
        "write" => {
            let memo = RowMemo::open(&store, "bench").expect("opens");
            (0..ROWS).for_each(|number| memo.put(&key(number), &row(number), false).expect("put"));
            memo.finish().expect("synced");
        }
        "leave a journal of" => {
            let memo = RowMemo::with_segments_of(&store, "bench", NEVER_FULL).expect("opens");
            (0..ROWS).for_each(|number| memo.put(&key(number), &row(number), false).expect("put"));
            tell(part, clock);
            // No destructor runs, as after a kill.
            std::process::exit(0);
        }
        "recover a journal of" => {
            RowMemo::open(&store, "bench").expect("opens");
            let index = std::fs::read_dir(folder.join("memo/bench")).expect("there");
            assert!(index.flatten().any(|entry| entry.path().extension().is_some_and(|kind| kind == "index")));
        }
        _ => {
            let (first, step, expected) = match part {
                "look up none of" => (ROWS, 1, 0),
                "look up 100 of" => (0, ROWS / 100, 100),
                _ => (0, 1, ROWS as usize),
            };
            let numbers: Vec<u64> = (0..ROWS / step).map(|number| first + number * step).collect();
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
            return tell(part, clock);
        }
    }
    tell(part, clock);
}

fn tell(part: &str, clock: Instant) {
    let seconds = clock.elapsed().as_secs_f64();
    let peak = getrusage(UsageWho::RUSAGE_SELF).expect("Unix tells").max_rss() as f64 / 1024.0;
    println!("| {part} {ROWS} rows | {seconds:.2} | {:.0} | {peak:.0} |", ROWS as f64 / seconds);
}
