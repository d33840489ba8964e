//! Programs that try to get out, to stay, or to take the machine down.

use std::path::Path;
use std::time::Duration;

use super::*;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::open(Path::new("python3")).expect("python3 runs");
    for layer in sandbox.missing() {
        println!("this kernel refuses the sandbox's layer {}", layer.name());
    }
    sandbox
}

fn run_with(source: &str, limits: &Limits) -> (End, String, String) {
    let outcome = sandbox().run(&[("program.py", source.as_bytes())], b"", limits).expect("it begins");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (outcome.end, text(&outcome.stdout), text(&outcome.stderr))
}

fn run(source: &str) -> (End, String, String) {
    run_with(source, &Limits::default())
}

/// What holds only with all layers is not asserted where the kernel refuses one.
fn whole() -> bool {
    let whole = sandbox().missing().is_empty();
    if !whole {
        println!("skipped: this kernel refuses a layer");
    }
    whole
}

#[test]
fn a_program_runs_and_reads_its_input() {
    let files: &[(&str, &[u8])] = &[
        ("program.py", b"import sys, other\nprint(other.x + int(sys.stdin.read()))\nsys.exit(3)"),
        ("other.py", b"x = 1"),
    ];
    let outcome = sandbox().run(files, b"41", &Limits::default()).expect("it begins");
    assert_eq!(outcome.end, End::Exited(3));
    assert_eq!(outcome.stdout, b"42\n");
    let (end, _, stderr) = run("import os\nos.abort()");
    assert_eq!(end, End::Killed(6), "{stderr}");
}

#[test]
fn a_fork_bomb_stays_within_its_processes() {
    if !whole() {
        return;
    }
    let source = "import os\nn = 0\nwhile True:\n    try:\n        if os.fork() == 0:\n            import time; time.sleep(100)\n        n += 1\n    except OSError as error:\n        print(n, error.errno)\n        break\n";
    let (end, stdout, stderr) = run(source);
    assert_eq!((end, stdout.as_str()), (End::Exited(0), "15 11\n"), "{stderr}");
    let (end, ..) = run_with(
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n",
        &Limits { wall: Duration::from_secs(1), ..Limits::default() },
    );
    assert_eq!(end, End::OutOfTime);
}

#[test]
fn a_hundred_gibibytes_are_not_to_be_had() {
    let (end, stdout, _) = run("try:\n    x = bytearray(100 << 30)\nexcept MemoryError:\n    print('no')");
    assert_eq!((end, stdout.as_str()), (End::Exited(0), "no\n"));
}

#[test]
fn an_endless_print_is_cut() {
    let (end, stdout, _) = run("while True:\n    print('x' * 1000)");
    assert_eq!((end, stdout.len()), (End::TooMuchOutput, 1 << 20));
}

#[test]
fn time_ends_on_the_clock_and_of_the_processor() {
    let short = Limits { wall: Duration::from_millis(800), ..Limits::default() };
    assert_eq!(run_with("import time\nprint(1, flush=True)\ntime.sleep(100)", &short).0, End::OutOfTime);
    assert_eq!(run_with("import os, time\nos.close(1); os.close(2)\ntime.sleep(100)", &short).0, End::OutOfTime);
    assert_eq!(run_with("while True: pass", &Limits { cpu_seconds: 1, ..Limits::default() }).0, End::OutOfTime);
}

#[test]
fn nothing_is_written_or_read_outside() {
    if !whole() {
        return;
    }
    let home = std::env::home_dir().expect("a home");
    let mark = home.join(format!("fuseline-sandbox-test-{}", std::process::id()));
    let source = format!(
        "import os\ndef tried(what):\n    try:\n        what()\n        return 'done'\n    except OSError as error:\n        return 'refused'\nprint(tried(lambda: open({mark:?}, 'w')), tried(lambda: os.listdir('/proc')), tried(lambda: os.listdir({home:?})), tried(lambda: open('/work/program.py', 'a')), tried(lambda: open('/usr/x', 'w')), tried(lambda: open('here', 'w')), sorted(os.listdir('/')))\n"
    );
    let (_, stdout, stderr) = run(&source);
    assert!(!mark.exists());
    assert!(stdout.starts_with("refused refused "), "{stdout}{stderr}");
    assert!(stdout.contains(" refused refused done ["), "{stdout}{stderr}");
    assert!(!stdout.contains("'home'") && !stdout.contains("'etc/passwd'"), "{stdout}");
}

#[test]
fn files_are_small() {
    let (_, stdout, stderr) =
        run("try:\n    open('here', 'wb').write(b'x' * (100 << 20))\nexcept OSError:\n    print('refused')");
    assert_eq!(stdout, "refused\n", "{stderr}");
}

#[test]
fn there_is_no_socket() {
    if sandbox().missing().contains(&Layer::Filter) {
        println!("skipped: this kernel refuses filters");
        return;
    }
    let source = "import socket\nfor family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):\n    try:\n        socket.socket(family)\n        print('made')\n    except PermissionError:\n        print('refused')\n";
    assert_eq!(run(source).1, "refused\n".repeat(3));
}

#[test]
fn no_process_outside_is_reached() {
    if !whole() {
        return;
    }
    let mut bystander = std::process::Command::new("sleep").arg("100").spawn().expect("a process");
    let source = format!(
        "import os, signal\nprint(os.getpid(), os.getuid() == 0)\nfor pid in ({}, {}, -1, os.getppid()):\n    try:\n        os.kill(pid, signal.SIGKILL)\n        print('sent')\n    except OSError as error:\n        print(error.errno)\n",
        bystander.id(),
        std::process::id()
    );
    let (end, stdout, stderr) = run(&source);
    // Process 2 of its own; the two numbers mean nothing there (3); 1 is out of reach of -1, and ignores the last.
    assert!(stdout.starts_with("2 False\n3\n3\n"), "{stdout}{stderr}");
    assert_eq!(end, End::Exited(0), "{stdout}{stderr}");
    assert!(bystander.try_wait().expect("a child").is_none(), "the bystander lives");
    bystander.kill().expect("a child");
    bystander.wait().expect("a child");
}

#[test]
fn doors_into_the_kernel_are_shut() {
    if !whole() {
        return;
    }
    let source = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nfor call in (lambda: libc.unshare(0x10000000), lambda: libc.ptrace(0, 0, 0, 0), lambda: libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None), lambda: libc.setuid(0)):\n    print(call(), ctypes.get_errno() in (1, 22))\n";
    let (_, stdout, stderr) = run(source);
    assert_eq!(stdout, "-1 True\n".repeat(4), "{stderr}");
}

#[test]
fn nothing_is_left_behind() {
    let prefix = format!("{FOLDER}{}-", std::process::id());
    let left = || -> Vec<String> {
        let entries = std::fs::read_dir(std::env::temp_dir()).expect("a folder").flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(&prefix)).collect()
    };
    let (_, stdout, _) = run("open('left', 'w').write('x')\nimport os\nprint(os.listdir('.'))");
    assert_eq!(stdout, "['left']\n");
    // Other tests of this process have folders at the same time; each of those that are there now goes away.
    for name in left() {
        while left().contains(&name) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_command_that_is_no_interpreter_is_an_error() {
    let error = Sandbox::open(Path::new("/nowhere/python3")).expect_err("no such file");
    assert!(error.to_string().contains("/nowhere/python3"), "{error}");
    let error = Sandbox::open(Path::new("false")).expect_err("it fails");
    assert!(error.to_string().contains("does not run"), "{error}");
}
