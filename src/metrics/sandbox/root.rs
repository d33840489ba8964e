//! The files that a program sees, planned before it is begun: between fork and
//! exec nothing may be allocated.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Folders of the system that an interpreter needs, where they are.
const SYSTEM: &[&str] =
    &["/usr", "/bin", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/etc/ld.so.cache", "/etc/alternatives"];
/// Devices that programs use.
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];
/// Mount flags by the flags that a file system shows: what it has must be kept when it is bound.
const KEPT: &[(u64, u64)] = &[
    (libc::ST_NOSUID, libc::MS_NOSUID),
    (libc::ST_NODEV, libc::MS_NODEV),
    (libc::ST_NOEXEC, libc::MS_NOEXEC),
    (libc::ST_NOATIME, libc::MS_NOATIME),
    (libc::ST_NODIRATIME, libc::MS_NODIRATIME),
    (libc::ST_RELATIME, libc::MS_RELATIME),
];

/// One thing to be made in the new root.
pub enum Step {
    Folder(CString),
    Link {
        to: CString,
        at: CString,
    },
    /// A file or folder of the machine, read-only, with the flags of its own file system.
    Bind {
        from: CString,
        at: CString,
        is_file: bool,
        flags: u64,
    },
}

/// A root of its own: a tmpfs with a few of the machine's folders bound into it.
pub struct Root {
    /// Where the tmpfs is mounted.
    pub at: CString,
    pub options: CString,
    pub steps: Vec<Step>,
    /// The program's own folder, which it may write.
    pub scratch: CString,
}

impl Root {
    /// Plans a root at a folder: `given` appears as `/work`, prefixes of the interpreter where they are.
    pub fn plan(at: &Path, given: &Path, prefixes: &[PathBuf], size_bytes: u64) -> io::Result<Self> {
        let mut root = Self {
            at: c_path(at),
            options: CString::new(format!("mode=755,size={size_bytes},nr_inodes=4096")).expect("no NUL"),
            steps: Vec::new(),
            scratch: c_path(&at.join("tmp")),
        };
        let mut folders: Vec<PathBuf> = Vec::new();
        for path in SYSTEM.iter().chain(DEVICES).map(Path::new) {
            root.show(at, path, path, &mut folders)?;
        }
        for prefix in prefixes {
            if !folders.iter().any(|shown| prefix.starts_with(shown)) {
                root.show(at, prefix, prefix, &mut folders)?;
            }
        }
        root.show(at, given, Path::new("/work"), &mut folders)?;
        root.steps.push(Step::Folder(root.scratch.clone()));
        Ok(root)
    }

    /// Plans that a path of the machine is seen under a path of the root; one that is not there is left out.
    fn show(&mut self, at: &Path, from: &Path, to: &Path, folders: &mut Vec<PathBuf>) -> io::Result<()> {
        let Ok(metadata) = from.symlink_metadata() else { return Ok(()) };
        let place = at.join(to.strip_prefix("/").unwrap_or(to));
        // Folders on the way, which may have been made already.
        let mut way = at.to_owned();
        for part in to.parent().unwrap_or(Path::new("/")).components().filter(|part| *part != Component::RootDir) {
            way.push(part);
            self.steps.push(Step::Folder(c_path(&way)));
        }
        if metadata.is_symlink() {
            self.steps.push(Step::Link { to: c_path(&from.read_link()?), at: c_path(&place) });
            return Ok(());
        }
        if metadata.is_dir() {
            folders.push(to.to_owned());
        }
        let flags = flags_of(from)?;
        self.steps.push(Step::Bind { from: c_path(from), at: c_path(&place), is_file: !metadata.is_dir(), flags });
        Ok(())
    }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path without NUL")
}

#[allow(unsafe_code)] // statvfs fills a plain structure.
fn flags_of(path: &Path) -> io::Result<u64> {
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    if unsafe { libc::statvfs(c_path(path).as_ptr(), &mut found) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let kept = KEPT.iter().filter(|(shown, _)| found.f_flag as u64 & shown != 0);
    Ok(kept.fold(0, |flags, (_, kept)| flags | kept))
}
