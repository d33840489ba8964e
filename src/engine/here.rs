//! Where and when this process runs: the machine's name and the time, for
//! leases and the ledger. Neither is ever in a key.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// This machine's name.
pub(crate) fn host() -> String {
    static HOST: OnceLock<String> = OnceLock::new();
    let ask = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    HOST.get_or_init(ask).clone()
}
