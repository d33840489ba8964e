//! `fuseline init`: a commented pipeline file to start from.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use fuseline_contract::StageError;

use crate::exit;

/// The file; `{FILE}` stands for its name.
const STARTER: &str = include_str!("starter.yaml");

/// Writes a starter file where there is none yet.
pub fn init(path: &Path) -> anyhow::Result<u8> {
    let shown = path.display();
    let mut file = match File::create_new(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(StageError::input(format!("{shown} is there already"))
                .hint("give another name: fuseline init NAME.yaml")
                .into());
        }
        Err(error) => return Err(StageError::io("create", path, &error).into()),
    };
    let text = STARTER.replace("{FILE}", &shown.to_string());
    file.write_all(text.as_bytes()).map_err(|error| StageError::io("write", path, &error))?;
    exit::print(&format!("wrote {shown}; now: fuseline run {shown}\n"))
}
