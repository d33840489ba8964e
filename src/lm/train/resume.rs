//! The state of a training on disk, so that a killed one goes on where it was: weights, the optimizer's moments and
//! its count, and the curve so far. Data order and learning rate follow from the count of updates and the seed alone.
//! It must not know the store; it is given a folder, and a name for the training that the folder belongs to.
//!
//! A state is one file: a head, the curve, three flat buffers, and the BLAKE3 of all that. It is written under another
//! name, synced and renamed, and the last two are kept. What is damaged, or of another training, is not used.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use fuseline_torch::tch::{Device, Tensor, no_grad};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TraceRow;
use super::optim::AdamW;
use crate::error::{Error, Result};

const MAGIC: &[u8] = b"fuseline training state 1\n";
const SUFFIX: &str = ".state";
/// States that are kept: should the last one be damaged, there is the one before.
const KEPT: usize = 2;
/// Elements that are copied at once, so that a state needs no second copy in memory.
const PART: i64 = 1 << 18;
const CHECKSUM_BYTES: u64 = 32;

/// How often a training keeps its state.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointEvery {
    /// After so many updates; 0 is never. What was kept before is used all the same.
    Steps(u64),
    /// At the first update after so many seconds; 0 is never.
    Seconds(f64),
}

/// A minute's work is what a crash may cost.
impl Default for CheckpointEvery {
    fn default() -> Self {
        Self::Seconds(60.0)
    }
}

impl CheckpointEvery {
    /// Whether the interval is one: at least 0.
    pub(super) fn is_sound(self) -> bool {
        match self {
            Self::Steps(_) => true,
            Self::Seconds(seconds) => seconds.is_finite() && seconds >= 0.0,
        }
    }

    fn is_never(self) -> bool {
        matches!(self, Self::Steps(0)) || self == Self::Seconds(0.0)
    }
}

/// Where a training keeps its state.
pub struct Checkpoints<'a> {
    /// A folder of this training alone; it is made when it is needed.
    pub folder: &'a Path,
    /// What tells this training from every other: a state under another name is refused.
    pub identity: &'a str,
    /// Told what the user should know: a state that is refused or cannot be written. Neither ends a training.
    pub tell: &'a dyn Fn(String),
}

/// What a state must agree in with the training that goes on from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct About {
    pub identity: String,
    pub seed: u64,
    pub total: u64,
    pub rows: usize,
    /// Elements of all parameters, and their type and device.
    pub elements: usize,
    pub kind: String,
}

/// The head of a state.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    about: About,
    step: u64,
    names: Vec<String>,
    trace_rows: u64,
}

/// Where a training goes on.
pub(super) struct Resumed {
    /// Finished updates.
    pub step: u64,
    /// Their curve.
    pub trace: Vec<TraceRow>,
}

impl About {
    pub fn new(checkpoints: &Checkpoints, adam: &AdamW, seed: u64, total: u64, rows: usize) -> Self {
        let values = adam.state()[0];
        let device = if values.device() == Device::Cpu { "cpu" } else { "cuda" };
        let kind = format!("{:?} on {device}", values.kind());
        Self { identity: checkpoints.identity.to_owned(), seed, total, rows, elements: values.numel(), kind }
    }
}

/// Keeps the states of one training.
pub(super) struct Keeper<'a> {
    checkpoints: &'a Checkpoints<'a>,
    every: CheckpointEvery,
    about: About,
    step: u64,
    since: Instant,
    /// Whether a failed write was told; a full disk would tell it every time.
    failed: bool,
}

impl<'a> Keeper<'a> {
    /// A keeper of states under these.
    pub fn new(checkpoints: &'a Checkpoints<'a>, every: CheckpointEvery, about: About) -> Self {
        Self { checkpoints, every, about, step: 0, since: Instant::now(), failed: false }
    }

    /// Brings weights and optimizer to the last sound state, if there is one.
    ///
    /// An error is a disk that no longer gives the bytes that it has just given: the weights are then changed in part.
    pub fn resume(&mut self, adam: &mut AdamW) -> Result<Option<Resumed>> {
        for path in states(self.checkpoints.folder).into_iter().rev() {
            match self.open(&path, adam) {
                Ok((mut file, resumed)) => {
                    restore(&mut file, adam).map_err(|source| Error::Read { path, source })?;
                    adam.set_updates(resumed.step);
                    self.step = resumed.step;
                    return Ok(Some(resumed));
                }
                Err(why) => {
                    (self.checkpoints.tell)(format!("the checkpoint {} is not used: {why}", path.display()));
                    let _ = fs::remove_file(&path);
                }
            }
        }
        Ok(None)
    }

    /// Keeps the state after an update if it is time to.
    pub fn after(&mut self, step: u64, adam: &AdamW, trace: &[TraceRow]) {
        let due = match self.every {
            CheckpointEvery::Steps(steps) => step - self.step >= steps,
            CheckpointEvery::Seconds(seconds) => self.since.elapsed().as_secs_f64() >= seconds,
        };
        if due && step < self.about.total {
            self.keep(step, adam, trace);
        }
    }

    /// Keeps the state now, unless states are never kept.
    pub fn keep(&mut self, step: u64, adam: &AdamW, trace: &[TraceRow]) {
        if step == self.step || self.every.is_never() {
            return;
        }
        match self.write(step, adam, trace) {
            Ok(()) => self.failed = false,
            Err(error) => {
                if !self.failed {
                    let folder = self.checkpoints.folder.display();
                    (self.checkpoints.tell)(format!("failed to write a checkpoint to {folder}: {error}"));
                }
                self.failed = true;
            }
        }
        (self.step, self.since) = (step, Instant::now());
    }

    fn write(&self, step: u64, adam: &AdamW, trace: &[TraceRow]) -> io::Result<()> {
        let folder = self.checkpoints.folder;
        fs::create_dir_all(folder)?;
        let path = folder.join(format!("step-{step:012}{SUFFIX}"));
        let temporary = path.with_extension("new");
        let mut names: Vec<String> = Vec::new();
        let mut rows = Vec::with_capacity(trace.len() * 20);
        for row in trace {
            let name = names.iter().position(|name| *name == row.name).unwrap_or_else(|| {
                names.push(row.name.clone().into_owned());
                names.len() - 1
            });
            rows.extend(row.step.to_le_bytes());
            rows.extend((name as u32).to_le_bytes());
            rows.extend(row.value.to_bits().to_le_bytes());
        }
        let head = Head { about: self.about.clone(), step, names, trace_rows: trace.len() as u64 };
        let head = serde_json::to_vec(&head).expect("a head is plain data");
        let mut file = Hashing { inner: BufWriter::new(File::create(&temporary)?), hasher: blake3::Hasher::new() };
        file.write_all(MAGIC)?;
        file.write_all(&(head.len() as u64).to_le_bytes())?;
        file.write_all(&head)?;
        file.write_all(&rows)?;
        let mut bytes = Vec::new();
        for part in adam.state().into_iter().flat_map(parts) {
            bytes.resize(part.numel() * part.kind().elt_size_in_bytes(), 0);
            part.copy_data_u8(&mut bytes, part.numel());
            file.write_all(&bytes)?;
        }
        let checksum = file.hasher.finalize();
        let mut file = file.inner;
        file.write_all(checksum.as_bytes())?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(folder)?.sync_all()?;
        let mut kept = states(folder);
        kept.truncate(kept.len().saturating_sub(KEPT));
        kept.iter().try_for_each(fs::remove_file)
    }

    /// Reads a state up to its buffers, after all of it was compared with its checksum.
    fn open(&self, path: &Path, adam: &AdamW) -> Result<(BufReader<File>, Resumed), String> {
        let unreadable = |error: io::Error| format!("it cannot be read: {error}");
        let damaged = || "it is damaged".to_owned();
        let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(unreadable)?);
        let bytes = file.get_ref().metadata().map_err(unreadable)?.len();
        if bytes < CHECKSUM_BYTES || !is_whole(&mut file, bytes).map_err(unreadable)? {
            return Err(damaged());
        }
        file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic).map_err(unreadable)?;
        let head_bytes = number(&mut file).map_err(unreadable)?;
        if magic != MAGIC || head_bytes > bytes {
            return Err("it is of another version".to_owned());
        }
        let mut head = vec![0; head_bytes as usize];
        file.read_exact(&mut head).map_err(unreadable)?;
        let head: Head = serde_json::from_slice(&head).map_err(|_| damaged())?;
        if head.about != self.about || head.step > self.about.total {
            return Err("it is of another training".to_owned());
        }
        let mut trace = Vec::new();
        for _ in 0..head.trace_rows {
            let step = number(&mut file).map_err(unreadable)?;
            let mut name = [0; 4];
            file.read_exact(&mut name).map_err(unreadable)?;
            let value = f64::from_bits(number(&mut file).map_err(unreadable)?);
            let name = head.names.get(u32::from_le_bytes(name) as usize).ok_or_else(damaged)?;
            trace.push(TraceRow { step, name: name.clone().into(), value });
        }
        let rest = bytes - file.stream_position().map_err(unreadable)? - CHECKSUM_BYTES;
        if rest != adam.state().into_iter().map(bytes_of).sum::<u64>() {
            return Err(damaged());
        }
        Ok((file, Resumed { step: head.step, trace }))
    }
}

/// Reads the buffers of a state into those of a training.
fn restore(file: &mut impl Read, adam: &AdamW) -> io::Result<()> {
    let mut bytes = Vec::new();
    for mut part in adam.state().into_iter().flat_map(parts) {
        bytes.resize(part.numel() * part.kind().elt_size_in_bytes(), 0);
        file.read_exact(&mut bytes)?;
        let given = Tensor::from_data_size(&bytes, &part.size(), part.kind());
        no_grad(|| part.copy_(&given));
    }
    Ok(())
}

fn bytes_of(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}

/// Views of a flat buffer, in order.
fn parts(buffer: &Tensor) -> impl Iterator<Item = Tensor> + '_ {
    let n = buffer.numel() as i64;
    (0..n).step_by(PART as usize).map(move |start| buffer.narrow(0, start, PART.min(n - start)))
}

/// Whole states in a folder, the oldest first.
fn states(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries.filter(|path| path.to_string_lossy().ends_with(SUFFIX)).collect();
    // The count of updates stands in the name with all its digits.
    found.sort();
    found
}

/// Whether the last bytes of a file are the checksum of those before.
fn is_whole(file: &mut (impl Read + Seek), bytes: u64) -> io::Result<bool> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file.by_ref().take(bytes - CHECKSUM_BYTES))?;
    let mut checksum = [0; CHECKSUM_BYTES as usize];
    file.read_exact(&mut checksum)?;
    Ok(hasher.finalize() == checksum)
}

fn number(file: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Writes on and hashes what it writes.
struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::generate::tests::tiny;
    use crate::objectives::{Objective, Sft};
    use crate::train::tests::{DPO, pair_rows, quick, sft_rows, weights, wrpo, wrpo_rows};
    use crate::train::{Config, Control, StepReport, Summary, train};

    const TOTAL: u64 = 7;
    /// Where a training does not stop.
    const WHOLE: u64 = TOTAL + 1;

    fn config(every: CheckpointEvery) -> Config {
        Config { batch_size: 3, warmup_ratio: 0.3, weight_decay: 0.1, checkpoint_every: every, ..quick(TOTAL) }
    }

    /// What a training gave, and what it told.
    type Given = (Summary, Tensor, Vec<String>);

    /// Trains in a folder and stops after an update.
    fn part<O: Objective>(
        rows: Vec<O::Row>,
        objective: &O,
        every: CheckpointEvery,
        (folder, identity): (&Path, &str),
        stop: u64,
    ) -> Given {
        let decoder = tiny("llama", 60);
        let told = RefCell::new(Vec::new());
        let tell = |text| told.borrow_mut().push(text);
        let checkpoints = Checkpoints { folder, identity, tell: &tell };
        let mut on_step = |report: &StepReport| if report.step == stop { Control::Stop } else { Control::Continue };
        let summary = train(&decoder, rows, objective, &config(every), 5, Some(&checkpoints), &mut on_step).unwrap();
        let weights = weights(&decoder);
        (summary, weights, told.into_inner())
    }

    fn sft_part(folder: &Path, stop: u64) -> Given {
        part(sft_rows(), &Sft::default(), CheckpointEvery::Steps(2), (folder, "ours"), stop)
    }

    fn assert_equal(found: &Given, whole: &Given, resumed_at: Option<u64>) {
        assert_eq!(found.0.resumed_at, resumed_at);
        assert_eq!((&found.0.trace, found.0.steps), (&whole.0.trace, whole.0.steps));
        assert!(found.1.equal(&whole.1));
    }

    fn stopped_anywhere<O: Objective>(rows: impl Fn() -> Vec<O::Row>, objective: &O) {
        let never = tempfile::tempdir().unwrap();
        let whole = part(rows(), objective, CheckpointEvery::Steps(0), (never.path(), "ours"), WHOLE);
        assert_eq!(states(never.path()), [""; 0].map(PathBuf::from));
        // 0 is an unbroken training that keeps its state at every update.
        for stop in 0..TOTAL {
            let home = tempfile::tempdir().unwrap();
            let first = part(rows(), objective, CheckpointEvery::Steps(1), (home.path(), "ours"), stop);
            if stop == 0 {
                assert_equal(&first, &whole, None);
                continue;
            }
            assert_eq!((first.0.steps, first.0.stopped), (stop, true));
            let second = part(rows(), objective, CheckpointEvery::Steps(1), (home.path(), "ours"), WHOLE);
            assert_equal(&second, &whole, Some(stop));
        }
    }

    #[test]
    fn ask_16_a_training_stopped_anywhere_gives_the_same_bits() {
        stopped_anywhere(sft_rows, &Sft::default());
        stopped_anywhere(pair_rows, &DPO);
        stopped_anywhere(wrpo_rows, &wrpo(0.1, 0.01));
    }

    #[test]
    fn states_are_kept_when_due_and_the_last_two_stay() {
        let home = tempfile::tempdir().unwrap();
        // A stop keeps the state too, though it is not due.
        let _ = sft_part(home.path(), 5);
        let names: Vec<String> =
            states(home.path()).iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["step-000000000004.state", "step-000000000005.state"]);
        let home = tempfile::tempdir().unwrap();
        let _ = part(sft_rows(), &Sft::default(), CheckpointEvery::Seconds(1e6), (home.path(), "ours"), WHOLE);
        assert!(states(home.path()).is_empty());
        let _ = part(sft_rows(), &Sft::default(), CheckpointEvery::Seconds(1e-9), (home.path(), "ours"), WHOLE);
        // The last update needs no state: the model is written next.
        assert_eq!(states(home.path()).last().unwrap().file_name().unwrap(), "step-000000000006.state");
    }

    #[test]
    fn ask_16_a_damaged_or_torn_state_gives_way_to_the_one_before() {
        let kept = tempfile::tempdir().unwrap();
        let whole = sft_part(kept.path(), WHOLE);
        let kept = tempfile::tempdir().unwrap();
        let _ = sft_part(kept.path(), 5);
        let (before, last) = (fs::read(&states(kept.path())[0]).unwrap(), fs::read(&states(kept.path())[1]).unwrap());
        let mut damages: Vec<Vec<u8>> = [0, 1, 10, 1000, last.len() - 1].map(|length| last[..length].to_vec()).to_vec();
        let step = last.len() / 12;
        damages.extend((0..last.len()).step_by(step).map(|place| {
            let mut bytes = last.clone();
            bytes[place] ^= 0x10;
            bytes
        }));
        let places = |home: &Path| [4, 5].map(|step| home.join(format!("step-{step:012}{SUFFIX}")));
        for damaged in damages {
            let home = tempfile::tempdir().unwrap();
            let [one, two] = places(home.path());
            fs::write(&one, &before).unwrap();
            fs::write(&two, &damaged).unwrap();
            // What a crash in the middle of writing leaves.
            fs::write(home.path().join("step-000000000006.new"), &last[..last.len() / 2]).unwrap();
            let again = sft_part(home.path(), WHOLE);
            assert_equal(&again, &whole, Some(4));
            assert_eq!(again.2.len(), 1, "{:?}", again.2);
            assert!(again.2[0].contains("step-000000000005.state is not used: it is"), "{:?}", again.2);
            fs::write(&one, &damaged).unwrap();
            fs::write(&two, &damaged).unwrap();
            fs::remove_file(home.path().join("step-000000000006.state")).unwrap();
            let again = sft_part(home.path(), WHOLE);
            assert_equal(&again, &whole, None);
            assert_eq!(again.2.len(), 2, "{:?}", again.2);
        }
    }

    #[test]
    fn ask_16_a_state_of_another_training_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let _ = sft_part(home.path(), 4);
        let every = CheckpointEvery::Steps(0);
        let other = part(sft_rows(), &Sft::default(), CheckpointEvery::Steps(1), (home.path(), "theirs"), WHOLE);
        assert_eq!(other.0.resumed_at, None);
        assert!(other.2[0].ends_with("is not used: it is of another training"), "{:?}", other.2);
        let fresh = tempfile::tempdir().unwrap();
        let whole = part(sft_rows(), &Sft::default(), every, (fresh.path(), "theirs"), WHOLE);
        assert_equal(&whole, &other, None);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_told_once_and_ends_nothing() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        fs::write(&file, "x").unwrap();
        let given = part(sft_rows(), &Sft::default(), CheckpointEvery::Steps(1), (&file, "ours"), WHOLE);
        assert_eq!((given.0.steps, given.2.len()), (TOTAL, 1), "{:?}", given.2);
        assert!(given.2[0].starts_with("failed to write a checkpoint to "), "{:?}", given.2);
    }
}
