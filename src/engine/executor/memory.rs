//! Whether the system ended processes for want of memory: only its counters tell such a SIGKILL from any other.

use std::fs;

/// How many processes the system has ended so far, in this process's control group and on the whole machine; what it
/// does not tell counts as none.
pub(crate) fn kills() -> u64 {
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let counters = files(&group).into_iter().chain(["/proc/vmstat".to_owned()]);
    counters.filter_map(|path| count(&fs::read_to_string(path).ok()?)).sum()
}

/// The files in which the control groups of `/proc/self/cgroup` count.
fn files(groups: &str) -> Vec<String> {
    let file = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let path = if path == "/" { "" } else { path };
        match controllers {
            "" => Some(format!("/sys/fs/cgroup{path}/memory.events")),
            _ if controllers.split(',').any(|name| name == "memory") => {
                Some(format!("/sys/fs/cgroup/memory{path}/memory.oom_control"))
            }
            _ => None,
        }
    };
    groups.lines().filter_map(file).collect()
}

/// The count in a file of names and numbers.
fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_both_versions_are_found() {
        assert_eq!(files("0::/user.slice/a.scope\n"), ["/sys/fs/cgroup/user.slice/a.scope/memory.events"]);
        assert_eq!(files("0::/\n"), ["/sys/fs/cgroup/memory.events"]);
        let first = "12:cpu,cpuacct:/x\n9:memory:/docker/7\n";
        assert_eq!(files(first), ["/sys/fs/cgroup/memory/docker/7/memory.oom_control"]);
        assert_eq!(count("low 0\nhigh 0\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"), Some(5));
        assert_eq!(count("pgfault 1\n"), None);
    }
}
