//! Who asks for a run, for the ledger: the login, what was typed, and the commit
//! that is checked out here.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fuseline_engine::ledger::Caller;

/// Who asks, as this process sees it.
pub fn here() -> Caller {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let commit = std::env::current_dir().ok().and_then(|folder| commit(&folder));
    Caller { user: Some(user()), command: command(&arguments), commit }
}

/// Who types.
pub fn user() -> String {
    let named = |name| std::env::var(name).ok().filter(|user| !user.is_empty());
    let by_number = || fs::metadata("/proc/self").map(|meta| format!("user {}", meta.uid()));
    named("USER").or_else(|| named("LOGNAME")).or_else(|| by_number().ok()).unwrap_or_else(|| "unknown".to_owned())
}

/// What was typed, as a shell would take it.
fn command(arguments: &[String]) -> String {
    let mut text = "fuseline".to_owned();
    for argument in arguments {
        let argument = without_credentials(argument);
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c);
        text.push(' ');
        match !argument.is_empty() && argument.chars().all(plain) {
            true => text.push_str(&argument),
            false => text.push_str(&format!("'{}'", argument.replace('\'', "'\\''"))),
        }
    }
    text
}

/// An address without what may be a password: `USER:PASSWORD@`, and what stands behind a `?`.
fn without_credentials(argument: &str) -> String {
    let Some((before, address)) = argument.split_once("://") else { return argument.to_owned() };
    let address = address.split_once('?').map_or(address, |(address, _)| address);
    let (place, path) = address.split_once('/').map_or((address, None), |(place, path)| (place, Some(path)));
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    let path = path.map(|path| format!("/{path}")).unwrap_or_default();
    format!("{before}://{place}{path}")
}

/// The commit that a folder's repository has checked out. What was changed since is not told.
fn commit(folder: &Path) -> Option<String> {
    let git = folder.ancestors().map(|folder| folder.join(".git")).find(|git| git.exists())?;
    // A further work tree has a file that names its folder, and shares the branches of the first.
    let own = match git.is_dir() {
        true => git,
        false => git.parent()?.join(fs::read_to_string(&git).ok()?.strip_prefix("gitdir:")?.trim()),
    };
    let shared: PathBuf = match fs::read_to_string(own.join("commondir")) {
        Ok(path) => own.join(path.trim()),
        Err(_) => own.clone(),
    };
    let head = fs::read_to_string(own.join("HEAD")).ok()?;
    let Some(branch) = head.trim().strip_prefix("ref: ") else { return is_hash(head.trim()) };
    let loose = [&own, &shared].into_iter().find_map(|folder| fs::read_to_string(folder.join(branch)).ok());
    let packed = || {
        let all = fs::read_to_string(shared.join("packed-refs")).ok()?;
        all.lines().find_map(|line| line.strip_suffix(branch)?.strip_suffix(' ').map(str::to_owned))
    };
    is_hash(loose.or_else(packed)?.trim())
}

fn is_hash(text: &str) -> Option<String> {
    (text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_can_be_typed_again_but_for_passwords() {
        let typed = |arguments: &[&str]| command(&arguments.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(typed(&["run", "p.yaml", "--set", "beta=0.1"]), "fuseline run p.yaml --set beta=0.1");
        assert_eq!(typed(&["sql", "p.yaml", "SELECT 'a'", ""]), "fuseline sql p.yaml 'SELECT '\\''a'\\''' ''");
        assert_eq!(typed(&["--remote=https://me:pw@host/a?sig=x"]), "fuseline --remote=https://host/a");
        assert_eq!(typed(&["--remote", "s3://bucket/a@b"]), "fuseline --remote s3://bucket/a@b");
    }

    #[test]
    fn the_commit_of_a_repository_is_found() {
        let home = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = home.path().join(name);
            fs::create_dir_all(path.parent().expect("in a folder")).expect("made");
            fs::write(path, text).expect("written");
        };
        let of = |folder: &str| commit(&home.path().join(folder));
        let (one, two) = ("1".repeat(40), "2".repeat(40));
        write("a/.git/HEAD", "ref: refs/heads/main\n");
        write("a/deep/er/file", "");
        assert_eq!(of("a"), None, "nothing is committed yet");
        write("a/.git/packed-refs", &format!("# pack-refs\n{two} refs/heads/xmain\n{one} refs/heads/main\n"));
        assert_eq!(of("a/deep/er"), Some(one.clone()));
        write("a/.git/refs/heads/main", &format!("{two}\n"));
        assert_eq!(of("a"), Some(two));
        // A further work tree on a branch of its own.
        write("b/.git", "gitdir: ../a/.git/worktrees/b\n");
        write("a/.git/worktrees/b/HEAD", "ref: refs/heads/side\n");
        write("a/.git/worktrees/b/commondir", "../..\n");
        write("a/.git/refs/heads/side", &format!("{one}\n"));
        assert_eq!(of("b"), Some(one.clone()));
        write("a/.git/worktrees/b/HEAD", &format!("{one}\n"));
        assert_eq!(of("b"), Some(one));
    }
}
