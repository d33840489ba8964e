//! What can go wrong in the engine's own work, apart from the problems of a
//! pipeline file (those are collected by the plan) and from a stage's failure.
//!
//! Every variant knows who can act on it; the exit code follows from that.

use std::io;
use std::path::{Path, PathBuf};

use fuseline_contract::table::TableError;
use fuseline_contract::{Cause, Digest, StageError};

/// What to do about a store that cannot be written.
const OTHER_STORE: &str = "choose a folder that you may write with --store DIR or FUSELINE_STORE";

/// What to do about a disk that fails.
const FAILING_DISK: &str = "look for faults of the disk in the system's log, then run again: finished stages are kept, and fuseline fsck checks them";

/// A failure of the store, the scheduler or a worker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the store or of a run could not be read or written.
    #[error("failed to {what} {}: {source}", path.display())]
    Io {
        /// What was tried, as in "read" or "create".
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file or folder that the user named could not be read.
    #[error("failed to read {}: {source}", path.display())]
    External {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder is no store of ours.
    #[error("{} is not a fuseline store: it holds other files", root.display())]
    NotAStore {
        /// The folder.
        root: PathBuf,
    },
    /// The store was made by another version.
    #[error("the store {} has format {found:?}, this program reads {expected:?}", root.display())]
    Format {
        /// The store.
        root: PathBuf,
        /// Its format.
        found: String,
        /// Ours.
        expected: String,
    },
    /// A blob is not in the store.
    #[error("blob {} is missing from the store", digest.short())]
    BlobMissing {
        /// Which.
        digest: Digest,
    },
    /// A blob's bytes are not those that its name promises.
    #[error("blob {} does not hold what its name promises; it was moved to {}", digest.short(), quarantine.display())]
    BlobCorrupt {
        /// Which.
        digest: Digest,
        /// Where it lies now.
        quarantine: PathBuf,
    },
    /// A file of the store does not parse.
    #[error("{} is damaged: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A weight file is not in the safetensors format.
    #[error("{} is not a safetensors file: {detail}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A column of a type that cannot be stored.
    #[error("column {column:?} is {found}, which cannot be stored")]
    ColumnType {
        /// The column.
        column: String,
        /// Its type.
        found: String,
    },
    /// Two columns of one name.
    #[error("column {column:?} appears twice")]
    ColumnTwice {
        /// The column.
        column: String,
    },
    /// A single row that is too long to be remembered.
    #[error("a row of {bytes} bytes is too long for the row memo")]
    RowTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A table that Arrow or a row type refuses.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Arrow refused.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// Parquet refused.
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
    /// The address of a remote store means nothing.
    #[error("{url:?} is not the address of a store: {message}")]
    RemoteAddress {
        /// As written.
        url: String,
        /// What is wrong with it.
        message: String,
    },
    /// A remote store could not be read or written.
    #[error("remote {url}: {message}")]
    Remote {
        /// Which.
        url: String,
        /// What happened.
        message: String,
    },
    /// A stage could not be prepared; the error is complete.
    #[error("{0}")]
    Stage(StageError),
}

impl Error {
    /// An I/O error with what was tried.
    pub fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }

    /// Who can act.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Io { .. }
            | Self::BlobMissing { .. }
            | Self::BlobCorrupt { .. }
            | Self::Damaged { .. }
            | Self::Remote { .. } => Cause::Environment,
            Self::External { source, .. } => match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory => {
                    Cause::Input
                }
                _ => Cause::Environment,
            },
            Self::NotAStore { .. } | Self::Format { .. } | Self::RemoteAddress { .. } => Cause::Input,
            Self::Safetensors { .. }
            | Self::ColumnType { .. }
            | Self::ColumnTwice { .. }
            | Self::RowTooLong { .. }
            | Self::Table(_)
            | Self::Arrow(_)
            | Self::Parquet(_) => Cause::Bug,
            Self::Stage(error) => error.cause,
        }
    }

    /// What to type or change, if we know.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { what, source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Some("free some disk space, then run again: finished stages are kept".to_owned())
                }
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotADirectory => {
                    Some(OTHER_STORE.to_owned())
                }
                io::ErrorKind::WriteZero => Some(FAILING_DISK.to_owned()),
                _ if source.raw_os_error() == Some(nix::errno::Errno::EIO as i32) => Some(FAILING_DISK.to_owned()),
                // Below /proc and its like nothing can be made.
                io::ErrorKind::NotFound if what.starts_with("create") => Some(OTHER_STORE.to_owned()),
                _ => None,
            },
            Self::NotAStore { .. } => {
                Some("choose an empty or new folder with --store DIR or FUSELINE_STORE".to_owned())
            }
            Self::Format { .. } => Some("choose another store with --store DIR or FUSELINE_STORE".to_owned()),
            Self::RemoteAddress { .. } => {
                Some("write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER".to_owned())
            }
            Self::Remote { .. } => Some(
                "look at the address, the network and the credentials in the environment (AWS_*, GOOGLE_*, AZURE_*)"
                    .to_owned(),
            ),
            Self::BlobMissing { .. } | Self::BlobCorrupt { .. } => {
                Some("run the pipeline again: the stage that made it is run anew".to_owned())
            }
            Self::External { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("paths are taken from the working directory".to_owned())
            }
            Self::Stage(error) => error.hint.clone(),
            _ => None,
        }
    }
}

impl From<Error> for StageError {
    fn from(error: Error) -> Self {
        match error {
            Error::Stage(error) => error,
            error => {
                let failed = Self::new(error.cause(), error.to_string());
                match error.hint() {
                    Some(hint) => failed.hint(hint),
                    None => failed,
                }
            }
        }
    }
}

/// What the engine's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Names an I/O error's place; for chaining on `std::io` results.
pub(crate) trait At<T> {
    /// Adds what was tried and where.
    fn at(self, what: &'static str, path: &Path) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::io(what, path, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_the_environments_and_says_what_to_do() {
        let error = Error::io("write", Path::new("x"), io::Error::from(io::ErrorKind::StorageFull));
        let error = StageError::from(error);
        assert_eq!(error.cause, Cause::Environment);
        assert!(error.hint.is_some_and(|hint| hint.contains("disk space")));
    }
}
