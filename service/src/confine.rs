//! System calls that a service gives up when it starts: an attacker inside of it cannot use them.
//!
//! A filter of `seccomp`, beside that of the container runtime or systemd: this one knows the program. A refused call fails with
//! `EPERM`.

use std::{collections::BTreeMap, env::consts::ARCH};

use rustix::io::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter_all_threads};
use thiserror::Error;

/// Calls that a program may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// To start programs.
    Programs,
    /// To load BPF programs, and to enter namespaces.
    Kernel,
}

#[derive(Debug, Error)]
pub enum ConfineError {
    #[error("no filter of system calls for this processor: {0}")]
    Filter(#[from] seccompiler::BackendError),
    #[error("the kernel does not take a filter of system calls: {0}")]
    Kernel(#[from] seccompiler::Error),
}

/// Of no use to any of our services: other processes' memory, kernel modules and images, clocks, keys, root directories, and
/// calls with a history of holes.
const NEVER: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_personality,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_userfaultfd,
];
const PROGRAMS: &[libc::c_long] = &[libc::SYS_execve, libc::SYS_execveat];
const KERNEL: &[libc::c_long] =
    &[libc::SYS_bpf, libc::SYS_mount, libc::SYS_perf_event_open, libc::SYS_setns, libc::SYS_unshare];

/// Gives up all but these calls, for every thread and for good.
///
/// # Errors
/// The kernel has no such filters, or none for this processor is known.
pub fn confine(kept: &[Kept]) -> Result<(), ConfineError> {
    let groups = [(Kept::Programs, PROGRAMS), (Kept::Kernel, KERNEL)];
    let given_up = groups.into_iter().filter(|(group, _)| !kept.contains(group)).map(|(_, calls)| calls);
    let rules: BTreeMap<_, _> = given_up.chain([NEVER]).flatten().map(|call| (*call, Vec::new())).collect();
    let refused = SeccompAction::Errno(Errno::PERM.raw_os_error().unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, TargetArch::try_from(ARCH)?)?;
    Ok(apply_filter_all_threads(&BpfProgram::try_from(filter)?)?)
}

#[cfg(test)]
mod tests {
    use std::{
        io::ErrorKind,
        process::{Command, exit},
    };

    use super::*;

    /// A filter cannot be taken off again: the test runs in a process of its own.
    #[test]
    fn a_confined_process_starts_no_program_unless_it_has_to() {
        const ALONE: &str = "NETVERDICT_TEST_CONFINED";
        let starts = || Command::new("true").status();
        match std::env::var(ALONE).as_deref() {
            Ok("all") => {
                confine(&[]).unwrap();
                let error = starts().unwrap_err();
                exit(if error.kind() == ErrorKind::PermissionDenied { 7 } else { 1 });
            }
            Ok(_) => {
                confine(&[Kept::Programs]).unwrap();
                exit(if starts().unwrap().success() { 7 } else { 1 });
            }
            Err(_) => {}
        }
        for kept in ["all", "some"] {
            let mut alone = Command::new(std::env::current_exe().unwrap());
            alone.arg("a_confined_process_starts_no_program_unless_it_has_to").env(ALONE, kept);
            assert_eq!(alone.output().unwrap().status.code(), Some(7), "{kept}");
        }
    }
}
