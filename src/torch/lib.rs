//! The door to libtorch: re-exports `tch`, finds out which device can be used and
//! sets how many threads one operation may use; and products of rows on the CPU that
//! libtorch has not: those of which no row depends on another.
//!
//! It must not know models, pipelines or files of ours. It is the only crate that
//! names `tch` as a dependency, so that the version of libtorch is pinned in one place.

pub use tch;

pub mod product;
pub mod simd;

use tch::{Cuda, Device};

use std::ffi::CString;
use std::sync::OnceLock;

/// The library that holds libtorch's CUDA kernels; it registers itself when it is opened.
const CUDA_LIBRARY: &str = "libtorch_cuda.so";

/// Returns the first CUDA device if libtorch's CUDA library opens and finds a driver
/// and a device, else the CPU. The library is opened once per process.
pub fn device() -> Device {
    if cuda_can_be_used() { Device::Cuda(0) } else { Device::Cpu }
}

/// Says whether CUDA kernels can run in this process.
pub fn cuda_can_be_used() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| open_cuda_library() && Cuda::is_available())
}

/// Sets how many threads one operation may use. One thread is the fastest for models of
/// a few million parameters, and makes sums independent of the machine's core count.
///
/// Counts below one are taken as one.
pub fn set_threads(threads: usize) {
    tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
}

/// Returns how many threads one operation may use now.
pub fn threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}

/// Opens the CUDA library beside `libtorch_cpu.so`, or else on the loader's path.
fn open_cuda_library() -> bool {
    let beside = std::fs::read_to_string("/proc/self/maps").ok().and_then(|maps| {
        let line = maps.lines().find(|line| line.ends_with("/libtorch_cpu.so"))?;
        let path = &line[line.find('/')?..];
        let candidate = std::path::Path::new(path).with_file_name(CUDA_LIBRARY);
        candidate.exists().then(|| candidate.to_string_lossy().into_owned())
    });
    beside.is_some_and(|path| open(&path)) || open(CUDA_LIBRARY)
}

/// Opens a shared library for the rest of the process's life, its symbols visible to all.
#[allow(unsafe_code)] // `dlopen` is the only way to load CUDA support at run time.
fn open(library: &str) -> bool {
    let Ok(name) = CString::new(library) else { return false };
    // SAFETY: `name` is a valid C string for the call; the handle is never closed, so no
    // code of the library can be unmapped while in use.
    !unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) }.is_null()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn the_chosen_device_adds() {
        let device = device();
        let two = Tensor::ones([1], (Kind::Float, device)) + 1.0;
        assert_eq!(f64::try_from(two).unwrap(), 2.0);
    }

    #[test]
    fn threads_are_at_least_one() {
        set_threads(0);
        assert_eq!(threads(), 1);
    }
}
