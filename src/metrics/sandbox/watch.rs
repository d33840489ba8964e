//! The parent's side: reads what a program says until it ends, says too much or
//! is out of time.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::time::{Duration, Instant};

use super::{Limits, Outcome};

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal, such as 11 for a fault of memory.
    Killed(i32),
    /// It ran out of time, on the clock or of the CPU.
    OutOfTime,
    /// It wrote more than it may.
    TooMuchOutput,
}

/// How long to wait between looks at a program that has closed its output but has not ended.
const PAUSE: Duration = Duration::from_millis(2);

/// Reads and waits.
pub fn watch(mut child: Child, limits: &Limits) -> io::Result<Outcome> {
    let deadline = Instant::now() + limits.wall;
    let mut pipes: Vec<(Box<dyn Pipe>, Vec<u8>)> = vec![
        (Box::new(child.stdout.take().expect("a pipe")), Vec::new()),
        (Box::new(child.stderr.take().expect("a pipe")), Vec::new()),
    ];
    let stopped = read(&mut pipes, deadline, limits.output_bytes).transpose();
    let ended = match stopped {
        Some(end) => end.map(Some),
        None => wait(&mut child, deadline),
    };
    // Whatever happened, nothing of it goes on.
    kill(&mut child);
    let status = child.wait()?;
    let end = ended?.unwrap_or_else(|| match (status.code(), status.signal()) {
        (_, Some(signal)) => of_signal(signal),
        // The processes that wait for the program end with 128 and its signal.
        (Some(code), None) if code > 128 => of_signal(code - 128),
        (code, None) => End::Exited(code.unwrap_or(-1)),
    });
    let mut said = pipes.into_iter().map(|(_, said)| said);
    let mut next = || {
        let mut said = said.next().unwrap_or_default();
        said.truncate(limits.output_bytes);
        said
    };
    Ok(Outcome { end, stdout: next(), stderr: next() })
}

fn of_signal(signal: i32) -> End {
    if signal == libc::SIGXCPU { End::OutOfTime } else { End::Killed(signal) }
}

trait Pipe: Read + AsRawFd {}
impl<T: Read + AsRawFd> Pipe for T {}

/// Reads until both pipes end; says why where it stopped before.
#[allow(unsafe_code)] // poll reads and writes a plain array.
fn read(pipes: &mut [(Box<dyn Pipe>, Vec<u8>)], deadline: Instant, most: usize) -> io::Result<Option<End>> {
    let mut open = vec![true; pipes.len()];
    let mut buffer = vec![0; 64 << 10];
    while open.contains(&true) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Some(End::OutOfTime));
        }
        let of = |(index, (pipe, _)): (usize, &(Box<dyn Pipe>, Vec<u8>))| libc::pollfd {
            fd: if open[index] { pipe.as_raw_fd() } else { -1 },
            events: libc::POLLIN,
            revents: 0,
        };
        let mut asked: Vec<libc::pollfd> = pipes.iter().enumerate().map(of).collect();
        let timeout = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1);
        let ready = unsafe { libc::poll(asked.as_mut_ptr(), asked.len() as libc::nfds_t, timeout) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        for (index, asked) in asked.iter().enumerate().filter(|(_, asked)| asked.revents != 0) {
            debug_assert!(asked.fd >= 0);
            let (pipe, said) = &mut pipes[index];
            match pipe.read(&mut buffer)? {
                0 => open[index] = false,
                n => said.extend_from_slice(&buffer[..n]),
            }
        }
        if pipes.iter().map(|(_, said)| said.len()).sum::<usize>() > most {
            return Ok(Some(End::TooMuchOutput));
        }
    }
    Ok(None)
}

/// Waits for a program that says no more.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<End>> {
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            return Ok(Some(End::OutOfTime));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(None)
}

/// Kills the program with its group, if it has not been waited for.
#[allow(unsafe_code)] // A signal to a process group that this one made.
fn kill(child: &mut Child) {
    if let Ok(None) = child.try_wait() {
        unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
        // It may have ended in between, which is what is wanted.
        child.kill().unwrap_or_default();
    }
}
