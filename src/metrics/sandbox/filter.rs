//! The filter of system calls, as a program of the kernel's packet filter
//! (seccomp, mode 2).
//!
//! A list of what is refused, not of what is allowed: interpreters and their
//! libraries use new calls from release to release, and namespaces and limits
//! hold what this list lets through.

use libc::{c_long, sock_filter};

/// Calls that fail with EPERM.
const REFUSED: &[c_long] = &[
    libc::SYS_socket,
    libc::SYS_io_uring_setup,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// `clone` that makes a namespace.
const NEW_NAMESPACE: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// Offsets in what the filter sees of a call: number, architecture, low half of the first argument.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_ANY: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

fn say(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// Goes on with the next instruction where the test holds, else skips it.
fn test(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 1, k }
}

fn fail(errno: i32) -> sock_filter {
    say(RETURN, libc::SECCOMP_RET_ERRNO | errno as u32)
}

/// The filter.
pub fn program() -> Vec<sock_filter> {
    let mut program = vec![
        say(LOAD, ARCH),
        sock_filter { code: IF_EQUAL, jt: 1, jf: 0, k: ARCHITECTURE },
        say(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        say(LOAD, NUMBER),
        // The numbers of x86's second interface, which no other architecture has either.
        test(IF_AT_LEAST, 0x4000_0000),
        fail(libc::ENOSYS),
    ];
    for number in REFUSED {
        program.extend([test(IF_EQUAL, *number as u32), fail(libc::EPERM)]);
    }
    // Its arguments lie in memory that a filter cannot see; libraries fall back to `clone`.
    program.extend([test(IF_EQUAL, libc::SYS_clone3 as u32), fail(libc::ENOSYS)]);
    program.extend([
        sock_filter { code: IF_EQUAL, jt: 0, jf: 3, k: libc::SYS_clone as u32 },
        say(LOAD, FIRST_ARGUMENT),
        test(IF_ANY, NEW_NAMESPACE),
        fail(libc::EPERM),
        say(RETURN, libc::SECCOMP_RET_ALLOW),
    ]);
    program
}
