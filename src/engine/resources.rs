//! What this machine has, and what running stages hold of it.

use fuseline_contract::StageError;

use crate::plan::Resources;

/// What stages may use in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Threads.
    pub cpus: u32,
    /// GPU numbers.
    pub gpus: Vec<u32>,
    /// Memory in bytes; none if unknown.
    pub mem_bytes: Option<u64>,
}

impl Machine {
    /// What is here: processors that this process may use, memory, and the GPUs
    /// of an NVIDIA driver (those of `CUDA_VISIBLE_DEVICES`, if it is set).
    pub fn detect() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let mem_bytes = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
            .map(|kib| kib * 1024);
        let present: Vec<u32> = (0..16).filter(|n| std::path::Path::new(&format!("/dev/nvidia{n}")).exists()).collect();
        let gpus = match std::env::var("CUDA_VISIBLE_DEVICES") {
            Ok(list) => list.split(',').filter_map(|n| n.trim().parse().ok()).filter(|n| present.contains(n)).collect(),
            Err(_) => present,
        };
        Self { cpus, gpus, mem_bytes }
    }
}

/// What a running stage holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Threads.
    pub cpus: u32,
    /// GPU numbers.
    pub gpus: Vec<u32>,
    mem_bytes: u64,
}

/// What is free.
#[derive(Debug)]
pub struct Pool {
    machine: Machine,
    cpus: u32,
    gpus: Vec<u32>,
    mem_bytes: u64,
    jobs: usize,
}

impl Pool {
    /// Everything is free; at most `jobs` stages run at once.
    pub fn new(machine: Machine, jobs: Option<usize>) -> Self {
        Self {
            cpus: machine.cpus,
            gpus: machine.gpus.clone(),
            mem_bytes: machine.mem_bytes.unwrap_or(u64::MAX),
            jobs: jobs.unwrap_or(usize::MAX).max(1),
            machine,
        }
    }

    /// Why this can never be granted. More threads or memory than there are is
    /// not refused: such a stage gets all of them, alone.
    pub fn refuse(&self, wanted: &Resources) -> Option<StageError> {
        let (have, want) = (self.machine.gpus.len(), wanted.gpus as usize);
        (want > have).then(|| {
            StageError::environment(format!("the stage asks for {want} GPUs, this machine has {have}"))
                .hint("set gpus under resources to what there is, or leave it out to run on the CPU")
        })
    }

    /// Takes what a stage wants, if it is free now.
    pub fn take(&mut self, wanted: &Resources) -> Option<Granted> {
        let cpus = wanted.cpus.clamp(1, self.machine.cpus.max(1));
        let mem_bytes = wanted.mem_bytes.unwrap_or(0).min(self.machine.mem_bytes.unwrap_or(u64::MAX));
        let gpus = wanted.gpus as usize;
        if self.jobs == 0 || cpus > self.cpus || mem_bytes > self.mem_bytes || gpus > self.gpus.len() {
            return None;
        }
        self.jobs -= 1;
        self.cpus -= cpus;
        self.mem_bytes -= mem_bytes;
        Some(Granted { cpus, gpus: self.gpus.drain(..gpus).collect(), mem_bytes })
    }

    /// Gives back what a stage held.
    pub fn give(&mut self, granted: Granted) {
        self.jobs += 1;
        self.cpus += granted.cpus;
        self.mem_bytes += granted.mem_bytes;
        self.gpus.extend(granted.gpus);
        self.gpus.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(cpus: u32, gpus: u32, mem_bytes: Option<u64>) -> Resources {
        Resources { cpus, gpus, mem_bytes }
    }

    #[test]
    fn stages_run_side_by_side_while_all_resources_last() {
        let machine = Machine { cpus: 4, gpus: vec![0, 1], mem_bytes: Some(100) };
        let mut pool = Pool::new(machine, None);
        let first = pool.take(&wants(2, 1, Some(60))).expect("free");
        assert_eq!(first.gpus, [0]);
        assert_eq!(pool.take(&wants(1, 1, Some(60))), None, "memory");
        assert_eq!(pool.take(&wants(3, 0, None)), None, "threads");
        let second = pool.take(&wants(2, 1, Some(40))).expect("free");
        assert_eq!(second.gpus, [1]);
        pool.give(first);
        assert_eq!(pool.take(&wants(1, 1, None)).expect("free").gpus, [0]);
    }

    #[test]
    fn a_stage_that_wants_more_than_there_is_gets_all_but_no_gpu_is_made_up() {
        let mut pool = Pool::new(Machine { cpus: 2, gpus: vec![], mem_bytes: None }, Some(1));
        let all = pool.take(&wants(64, 0, Some(1 << 40))).expect("clamped");
        assert_eq!(all.cpus, 2);
        assert_eq!(pool.take(&wants(1, 0, None)), None);
        assert!(pool.refuse(&wants(1, 1, None)).is_some());
    }
}
