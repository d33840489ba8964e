//! What a process does between fork and exec to shut itself in. Only system
//! calls, on data that was laid out before: the process is a copy of one with
//! many threads, where even an allocation may wait for ever.
//!
//! With namespaces the program is the grandchild of what was forked first: the
//! first cannot be in the new namespace of processes itself, the second is its
//! process 1, which no signal of the program reaches, and whose end ends all.

#![allow(unsafe_code)] // System calls, see above.

use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{c_int, c_long, c_ulong, rlimit, sock_filter, sock_fprog};

use super::root::{Root, Step};
use super::{Layer, Limits, filter};

/// The user and group of who owns nothing, by custom.
const NOBODY: u32 = 65_534;
/// From here on users that no machine has are taken, one a program, because the kernel counts processes by user.
const FIRST_OWN_USER: u32 = 0x7000_0000;

/// Everything that the child needs.
pub struct Plan {
    root: Option<Root>,
    /// Where to go without a root of its own.
    folder: CString,
    /// What to write to `uid_map` and `gid_map`, with a namespace of users.
    maps: Option<[CString; 2]>,
    user: Option<u32>,
    filter: Option<Vec<sock_filter>>,
    limits: Vec<(c_int, u64)>,
}

/// An error of a layer, as a number that fits where std carries the number of a system error.
type Failure = i32;

fn failure(layer: Layer) -> Failure {
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    (layer as i32 + 1) << 16 | errno
}

/// The layer behind an error of `spawn`, and why it failed.
pub fn failed(error: &io::Error) -> Option<(Layer, io::Error)> {
    let code = error.raw_os_error()?;
    let layer = Layer::ALL.into_iter().find(|layer| *layer as i32 + 1 == code >> 16)?;
    Some((layer, io::Error::from_raw_os_error(code & 0xffff)))
}

impl Plan {
    pub fn new(layers: &[Layer], root: Option<Root>, folder: CString, limits: &Limits) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let is_root = unsafe { libc::geteuid() } == 0;
        let own_users = root.is_some() && !is_root;
        let line = |id: u32| CString::new(format!("{NOBODY} {id} 1\n")).expect("no NUL");
        let maps = own_users.then(|| unsafe { [line(libc::geteuid()), line(libc::getegid())] });
        let serial = (std::process::id() << 10 & 0x0fff_fc00) | (COUNT.fetch_add(1, Ordering::Relaxed) & 0x3ff);
        let user = (is_root && layers.contains(&Layer::User)).then_some(FIRST_OWN_USER + serial);
        // Beside the program there are the two that wait for it.
        let processes = limits.processes + 2;
        Self {
            root,
            folder,
            maps,
            user,
            filter: layers.contains(&Layer::Filter).then(filter::program),
            limits: vec![
                (libc::RLIMIT_CPU as c_int, limits.cpu_seconds),
                (libc::RLIMIT_AS as c_int, limits.memory_bytes),
                (libc::RLIMIT_FSIZE as c_int, limits.file_bytes),
                (libc::RLIMIT_NPROC as c_int, processes),
                (libc::RLIMIT_NOFILE as c_int, limits.open_files),
                (libc::RLIMIT_CORE as c_int, 0),
            ],
        }
    }

    /// Has the child of a command shut itself in.
    pub fn enter_before(self, command: &mut Command) {
        // Safe: `enter` makes system calls only.
        unsafe { command.pre_exec(move || self.enter().map_err(io::Error::from_raw_os_error)) };
    }

    fn enter(&self) -> Result<(), Failure> {
        unsafe {
            libc::setsid();
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            match &self.root {
                Some(root) => self.enter_namespaces(root)?,
                None => {
                    libc::chdir(self.folder.as_ptr());
                }
            }
            if let Some(user) = self.user {
                drop_to(user)?;
            }
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            // A change of user takes this back.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if self.root.is_some() {
                for _ in 0..2 {
                    fork_and_wait_outside()?;
                }
            }
            for (what, limit) in &self.limits {
                // The CPU limit's hard end comes a second later than the signal that can be caught.
                let hard = if *what == libc::RLIMIT_CPU as c_int { *limit + 1 } else { *limit };
                let limit = rlimit { rlim_cur: *limit, rlim_max: hard };
                libc::setrlimit(*what as _, &limit);
            }
            if let Some(filter) = &self.filter {
                let program = sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
                let program: *const sock_fprog = &program;
                check(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER as c_ulong, program), Layer::Filter)?;
            }
        }
        Ok(())
    }

    unsafe fn enter_namespaces(&self, root: &Root) -> Result<(), Failure> {
        let layer = Layer::Namespaces;
        let users = if self.maps.is_some() { libc::CLONE_NEWUSER } else { 0 };
        let own = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        let null = std::ptr::null();
        unsafe {
            check(libc::unshare(users | own), layer)?;
            if let Some([users, groups]) = &self.maps {
                write(c"/proc/self/setgroups", c"deny")?;
                write(c"/proc/self/uid_map", users)?;
                write(c"/proc/self/gid_map", groups)?;
            }
            // Nothing that is mounted from here on is seen outside.
            check(libc::mount(null, c"/".as_ptr(), null, libc::MS_REC | libc::MS_PRIVATE, null.cast()), layer)?;
            let safe = libc::MS_NOSUID | libc::MS_NODEV;
            let tmpfs = c"tmpfs".as_ptr();
            check(libc::mount(tmpfs, root.at.as_ptr(), tmpfs, safe, root.options.as_ptr().cast()), layer)?;
            for step in &root.steps {
                match step {
                    Step::Folder(at) => {
                        // One that is there already is as good.
                        libc::mkdir(at.as_ptr(), 0o755);
                    }
                    Step::Link { to, at } => check(libc::symlink(to.as_ptr(), at.as_ptr()), layer)?,
                    Step::Bind { from, at, is_file, flags } => {
                        if *is_file {
                            let made = libc::open(at.as_ptr(), libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC, 0o644);
                            check(made, layer)?;
                            libc::close(made);
                        } else {
                            libc::mkdir(at.as_ptr(), 0o755);
                        }
                        let bind = libc::MS_BIND | libc::MS_REC;
                        check(libc::mount(from.as_ptr(), at.as_ptr(), null, bind, null.cast()), layer)?;
                        let flags =
                            *flags as c_ulong | libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | libc::MS_NOSUID;
                        check(libc::mount(null, at.as_ptr(), null, flags, null.cast()), layer)?;
                    }
                }
            }
            check(libc::chmod(root.scratch.as_ptr(), 0o1777), layer)?;
            check(libc::chdir(root.at.as_ptr()), layer)?;
            check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()), layer)?;
            check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH), layer)?;
            check(libc::chdir(c"/tmp".as_ptr()), layer)
        }
    }
}

/// Whether a call went well.
fn check(result: impl Into<c_long>, layer: Layer) -> Result<(), Failure> {
    if result.into() < 0 { Err(failure(layer)) } else { Ok(()) }
}

unsafe fn write(path: &std::ffi::CStr, text: &std::ffi::CStr) -> Result<(), Failure> {
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        check(file, Layer::Namespaces)?;
        let written = libc::write(file, text.as_ptr().cast(), text.count_bytes());
        let result = check(written as c_long, Layer::Namespaces);
        libc::close(file);
        result
    }
}

/// Becomes a user without groups or rights. The raw calls: the library's would ask threads that this process does not have.
unsafe fn drop_to(user: u32) -> Result<(), Failure> {
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()), Layer::User)?;
        for id in [user, NOBODY] {
            let group = libc::syscall(libc::SYS_setresgid, id, id, id);
            // Where users are few, as in some containers, all programs share one.
            if group == 0 && libc::syscall(libc::SYS_setresuid, id, id, id) == 0 {
                return Ok(());
            }
        }
    }
    Err(failure(Layer::User))
}

/// Goes on as a child; the parent waits for it and ends as it does.
unsafe fn fork_and_wait_outside() -> Result<(), Failure> {
    unsafe {
        let child = libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0);
        check(child, Layer::Namespaces)?;
        if child == 0 {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            return Ok(());
        }
        // The program's pipes end with the program.
        libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
        loop {
            let mut status = 0;
            let ended = libc::waitpid(-1, &mut status, 0);
            if ended as c_long == child {
                let code =
                    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
                libc::_exit(code);
            }
            if ended < 0 && io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
                libc::_exit(127);
            }
        }
    }
}
