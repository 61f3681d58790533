//! The pod that a process belongs to, from its cgroup path.
//!
//! The kubelet names the cgroup of a pod `pod<uid>` below `kubepods…`. With the cgroupfs driver the path is
//! `/kubepods/burstable/pod<uid>`; with the systemd driver it is
//! `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice`, with `_` in place of `-` in the uid.

use std::{fs, path::Path};

/// The longest accepted uid: a UUID has 36 characters, the digest of a static pod 32.
const LONGEST_UID: usize = 36;

/// The pod uid in the text of `/proc/<pid>/cgroup`; `None` if the process is not in a pod's cgroup.
pub(super) fn pod_uid(cgroup: &str) -> Option<String> {
    // Lines are `hierarchy:controllers:path`. Cgroup version 1 has several, which agree.
    cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(pod_uid_in_path)
}

fn pod_uid_in_path(path: &str) -> Option<String> {
    let mut below_kubepods = false;
    for part in path.split('/') {
        below_kubepods |= part.contains("kubepods");
        if !below_kubepods {
            continue;
        }
        let part = part.strip_suffix(".slice").unwrap_or(part);
        let uid = part.strip_prefix("pod").or_else(|| part.rsplit_once("-pod").map(|(_, uid)| uid));
        if let Some(uid) = uid.map(|uid| uid.replace('_', "-"))
            && is_uid(&uid)
        {
            return Some(uid);
        }
    }
    None
}

fn is_uid(uid: &str) -> bool {
    (8..=LONGEST_UID).contains(&uid.len()) && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// The start time of a process, in clock ticks since boot, and its pod; `None` if it is not in a pod's cgroup or has ended.
pub(super) fn pod_of(process: &Path) -> Option<(u64, String)> {
    let uid = pod_uid(&fs::read_to_string(process.join("cgroup")).ok()?)?;
    let started = start_time(&fs::read_to_string(process.join("stat")).ok()?)?;
    Some((started, uid))
}

/// Field 22 of `/proc/<pid>/stat`. Field 2, the command, is in parentheses and may contain any character, parentheses
/// included.
fn start_time(stat: &str) -> Option<u64> {
    let (_, after_command) = stat.rsplit_once(')')?;
    after_command.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0b6f5a0e-54a1-4f8c-9d3e-1f2a3b4c5d6e";

    fn check(cgroup: &str, expected: Option<&str>) {
        assert_eq!(pod_uid(cgroup).as_deref(), expected, "{cgroup}");
    }

    #[test]
    fn both_cgroup_drivers_name_the_pod() {
        check(&format!("0::/kubepods/burstable/pod{UID}/3f1c"), Some(UID));
        check(&format!("0::/kubepods/pod{UID}"), Some(UID));
        let escaped = UID.replace('-', "_");
        check(
            &format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{escaped}.slice/cri-containerd-9.scope"
            ),
            Some(UID),
        );
        check(&format!("0::/kubepods.slice/kubepods-pod{escaped}.slice\n"), Some(UID));
    }

    #[test]
    fn version_1_nested_clusters_and_relative_paths() {
        check(
            &format!("12:pids:/kubepods/besteffort/pod{UID}/x\n11:memory:/kubepods/besteffort/pod{UID}/x\n"),
            Some(UID),
        );
        let escaped = UID.replace('-', "_");
        check(
            &format!("0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{escaped}.slice/cri.scope"),
            Some(UID),
        );
        check(&format!("0::/../../pod{UID}/x"), None);
        check(&format!("0::/../kubepods-pod{escaped}.slice/x"), Some(UID));
    }

    #[test]
    fn static_pods_have_a_digest_for_a_uid() {
        check("0::/kubepods/pod7f1c8d2e9a0b4c6d8e1f2a3b4c5d6e7f/x", Some("7f1c8d2e9a0b4c6d8e1f2a3b4c5d6e7f"));
    }

    #[test]
    fn other_cgroups_are_no_pods() {
        for cgroup in ["", "0::/", "0::/user.slice", "0::/kubepods/burstable", "0::/podman/pod-of-mine", "nonsense"] {
            check(cgroup, None);
        }
        check("0::/kubepods/podxyz../../etc", None);
        check(&format!("0::/kubepods/pod{}", "a".repeat(400)), None);
    }

    #[test]
    fn start_time_is_found_behind_any_command_name() {
        let rest = "S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        assert_eq!(start_time(&format!("7 (a) b) {rest}")), Some(12345));
        assert_eq!(start_time("7 (a"), None);
        assert_eq!(start_time("7 (a) S 1"), None);
    }
}
