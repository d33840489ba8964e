//! Stores with one thing wrong.

use fuseline_contract::StageId;

use super::*;
use crate::ledger::Ledger;
use crate::store::manifest::Made;
use crate::store::staging::{Copies, stage_model};
use crate::store::{adopt, publish};

fn store(home: &tempfile::TempDir) -> Store {
    let store = Store::open(home.path()).expect("opens");
    store.prepare().expect("prepares");
    store
}

/// Publishes a model folder with one file under a key.
fn publish(store: &Store, key: u8, text: &str) -> Record {
    let folder = store.temporary("model");
    fs::create_dir_all(&folder).expect("made");
    fs::write(folder.join("config.json"), text).expect("written");
    let staged = vec![("model".to_owned(), stage_model(&folder, &Copies::default()).expect("staged"))];
    let record = Record::new(Key([key; 32]), "toy", vec![], false, Made::default());
    let record = publish::publish(store, publish::Pending::new(record, staged)).expect("published").record;
    fs::remove_dir_all(folder).expect("removed");
    record
}

fn damages(store: &Store) -> Vec<(Damage, String)> {
    let report = fsck(store, Options::default()).expect("checked");
    report.findings.into_iter().map(|finding| (finding.damage, finding.path.display().to_string())).collect()
}

#[test]
fn what_killed_processes_leave_is_counted_and_no_damage() {
    let home = tempfile::tempdir().expect("a folder");
    let store = store(&home);
    publish(&store, 1, "{}");
    let root = home.path();
    for path in ["tmp/blob-x", "work/k/attempt/spec.json", "locks/k", "leases/k", "runs/unbegun/stages.ndjson"] {
        fs::create_dir_all(root.join(path).parent().expect("a folder")).expect("made");
        fs::write(root.join(path), "half").expect("written");
    }
    // Killed in the middle of a line.
    let ledger = Ledger::begin(&store, "toy", 1, Default::default()).expect("begins");
    fs::write(root.join("runs").join(ledger.run()).join("stages.ndjson"), "{\"id\": ").expect("torn");
    let report = fsck(&store, Options::default()).expect("checked");
    assert_eq!(report.findings, []);
    assert_eq!((report.scratch_files, report.runs, report.blobs, report.records), (2, 1, 2, 1));
    // The same of a run that ended is damage.
    ledger.end([0; 4], 0.1, 0).expect("ends");
    assert_eq!(damages(&store).len(), 1);
}

#[test]
fn what_is_in_the_wrong_place_is_found_and_moved_aside() {
    let home = tempfile::tempdir().expect("a folder");
    let store = store(&home);
    let (first, second) = (publish(&store, 1, "{}"), publish(&store, 2, "[1]"));
    store.view(&first.outputs[0].artifact).expect("a view");
    let place = |record: &Record| store.records(&record.key).join("1.rec");
    fs::copy(place(&first), place(&second)).expect("another key's record");
    fs::write(home.path().join("cas/notes.txt"), "mine").expect("written");
    let blob = store.blob(&first.outputs[0].artifact);
    let name = blob.file_name().expect("a name");
    fs::write(blob.with_file_name("readme"), "mine").expect("written");
    fs::create_dir_all(home.path().join("views").join(name).join("extra")).expect("made");
    fs::write(home.path().join("views").join(name).join("extra/file"), "mine").expect("written");
    let found: Vec<Damage> = damages(&store).into_iter().map(|(damage, _)| damage).collect();
    assert_eq!(found, [Damage::Foreign, Damage::Foreign, Damage::RecordUnreadable, Damage::ViewWrong]);
    let repaired = fsck(&store, Options { repair: true, fast: false }).expect("repaired");
    assert!(repaired.is_whole());
    assert_eq!((damages(&store), repaired.quarantined_files), (vec![], 4));
    assert!(store.lookup(&first.key).is_ok() && store.lookup(&second.key).is_err());
}

#[test]
fn a_record_that_says_something_else_than_its_manifest_is_found() {
    let home = tempfile::tempdir().expect("a folder");
    let store = store(&home);
    let honest = publish(&store, 1, "{}");
    let mut forged = honest.outputs.clone();
    forged[0].content = Digest::of_bytes(b"another");
    let record = Record::new(Key([2; 32]), "toy", forged, false, Made::default());
    adopt::adopt(&store, &record).expect("sealed all the same");
    let found: Vec<Damage> = damages(&store).into_iter().map(|(damage, _)| damage).collect();
    assert_eq!(found, [Damage::RecordDisagrees]);
}

#[test]
fn a_damaged_line_is_cut_out_of_the_ledger_and_the_others_stay() {
    let home = tempfile::tempdir().expect("a folder");
    let store = store(&home);
    let ledger = Ledger::begin(&store, "toy", 2, Default::default()).expect("begins");
    let path = home.path().join("runs").join(ledger.run()).join("stages.ndjson");
    let line = |name: &str| seal::seal(&serde_json::json!({ "id": StageId::plain(name) }));
    fs::write(&path, [line("a"), b"\n".to_vec(), b"{\"id\": 1}\n".to_vec(), line("b"), b"\n".to_vec()].concat())
        .expect("written");
    ledger.end([2, 0, 0, 0], 0.1, 0).expect("ends");
    let report = fsck(&store, Options { repair: true, fast: true }).expect("repaired");
    assert!(report.findings[0].detail.starts_with("1 of 3 lines"), "{:?}", report.findings);
    assert_eq!(fs::read(&path).expect("read"), [line("a"), b"\n".to_vec(), line("b"), b"\n".to_vec()].concat());
    assert_eq!(damages(&store), []);
}
