//! `fuseline-worker ATTEMPT`: runs one stage in a process of its own, or serves
//! a model. Started by `fuseline`, never typed by people; the only executable with libtorch.

mod handover;
mod tasks;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(attempt), None) => {
            let status = fuseline_engine::worker::main(&PathBuf::from(attempt), fuseline_operators::WORKER);
            ExitCode::from(status)
        }
        (Some(word), Some(task)) if word == handover::WORD => ExitCode::from(tasks::run(&task.to_string_lossy())),
        _ => {
            eprintln!("fuseline-worker is started by fuseline; type `fuseline run PIPELINE`");
            ExitCode::from(2)
        }
    }
}
