//! What stages run on, and the energy that their GPUs draw meanwhile, where
//! NVIDIA's management library tells. It is loaded when a stage first holds a
//! GPU; where it is missing nothing is measured and nothing fails.

use nvml_wrapper::Nvml;

/// Tells of GPUs by their numbers, those of `/dev/nvidiaN`.
pub(crate) trait Meter: Sync {
    /// What a GPU is called.
    fn name(&self, gpu: u32) -> Option<String>;

    /// The energy that a GPU drew since its driver was loaded, in millijoules.
    fn millijoules(&self, gpu: u32) -> Option<u64>;
}

impl Meter for Nvml {
    fn name(&self, gpu: u32) -> Option<String> {
        find(self, gpu)?.name().ok()
    }

    fn millijoules(&self, gpu: u32) -> Option<u64> {
        find(self, gpu)?.total_energy_consumption().ok()
    }
}

/// The library counts devices in the order of their bus, and only those that it sees.
fn find(nvml: &Nvml, gpu: u32) -> Option<nvml_wrapper::Device<'_>> {
    let all = (0..nvml.device_count().ok()?).filter_map(|index| nvml.device_by_index(index).ok());
    all.into_iter().find(|device| device.minor_number().is_ok_and(|number| number == gpu))
}

/// The library, if it is here.
pub(crate) fn library() -> Option<Nvml> {
    Nvml::init().ok()
}

/// What an attempt ran on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Drawn {
    /// `cpu`, or what its GPUs are called.
    pub device: String,
    /// The energy that its GPUs drew while it ran, its own and that of whoever
    /// else used them.
    pub energy_joules: Option<f64>,
}

/// Does some work that holds GPUs, and says on what it ran.
pub(crate) fn measure<T>(meter: Option<&dyn Meter>, gpus: &[u32], work: impl FnOnce() -> T) -> (T, Drawn) {
    if gpus.is_empty() {
        return (work(), Drawn { device: "cpu".to_owned(), energy_joules: None });
    }
    let energy = || gpus.iter().map(|gpu| meter?.millijoules(*gpu)).sum::<Option<u64>>();
    let before = energy();
    let done = work();
    // A driver that was loaded anew counts from zero.
    let millijoules = energy().zip(before).and_then(|(after, before)| after.checked_sub(before));
    let energy_joules = millijoules.map(|millijoules| millijoules as f64 / 1000.0);
    (done, Drawn { device: called(meter, gpus), energy_joules })
}

/// `NVIDIA H200`, or `2 × NVIDIA H200`; GPUs of several kinds one after the other.
fn called(meter: Option<&dyn Meter>, gpus: &[u32]) -> String {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for gpu in gpus {
        let name = meter.and_then(|meter| meter.name(*gpu)).unwrap_or_else(|| "gpu".to_owned());
        match kinds.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => kinds.push((name, 1)),
        }
    }
    let said = kinds.into_iter().map(|(name, count)| if count == 1 { name } else { format!("{count} × {name}") });
    said.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Two GPUs of one kind and one of another; each has drawn what is set, and its number on top.
    struct Fake(AtomicU64);

    impl Meter for Fake {
        fn name(&self, gpu: u32) -> Option<String> {
            (gpu < 3).then(|| if gpu < 2 { "A100" } else { "T4" }.to_owned())
        }

        fn millijoules(&self, gpu: u32) -> Option<u64> {
            (gpu < 3).then(|| self.0.load(Ordering::Relaxed) + u64::from(gpu))
        }
    }

    #[test]
    fn energy_is_what_the_counters_rose_by() {
        let fake = Fake(AtomicU64::new(5000));
        let drawn = |gpus: &[u32], to: u64| measure(Some(&fake), gpus, || fake.0.store(to, Ordering::Relaxed)).1;
        let of = |device: &str, energy_joules| Drawn { device: device.to_owned(), energy_joules };
        assert_eq!(drawn(&[1], 6500), of("A100", Some(1.5)));
        assert_eq!(drawn(&[0, 1], 7500), of("2 × A100", Some(2.0)));
        assert_eq!(drawn(&[0, 2], 8000), of("A100, T4", Some(1.0)));
        assert_eq!(drawn(&[], 9000), of("cpu", None));
        assert_eq!(drawn(&[0], 10), of("A100", None), "the counter began anew");
        assert_eq!(drawn(&[0, 7], 20), of("A100, gpu", None), "a GPU that nobody knows");
    }

    #[test]
    fn without_the_library_a_gpu_is_a_gpu() {
        assert_eq!(measure(None, &[0, 1], || 5), (5, Drawn { device: "2 × gpu".to_owned(), energy_joules: None }));
    }
}
