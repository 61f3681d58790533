//! The contents of each Debian package. Programs, licences and bills of materials are in all of them.

/// A Debian package.
pub(super) struct Recipe {
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    /// Lines of at most 79 letters.
    pub(super) description: &'static [&'static str],
    pub(super) section: &'static str,
    /// Other packages, beside the libraries that the programs are linked with. `=` is the version of this one.
    pub(super) depends: &'static [&'static str],
    pub(super) recommends: &'static [&'static str],
    /// In `/usr/bin`.
    pub(super) programs: &'static [&'static str],
    pub(super) files: &'static [File],
    /// Folders of the administrator's.
    pub(super) folders: &'static [&'static str],
    /// Scripts of `deploy/debian`.
    pub(super) scripts: &'static [&'static str],
}

/// A file of a package. What is below `etc` is the administrator's to change.
pub(super) struct File {
    pub(super) source: Source,
    /// Without the first slash.
    pub(super) path: &'static str,
}

pub(super) enum Source {
    /// A file of the repository.
    Repository(&'static str),
    /// A program of the repository.
    Script(&'static str),
    Completion(&'static str),
    BpfObject,
}

pub(super) const PACKAGES: [Recipe; 3] = [
    Recipe {
        name: "netverdict",
        summary: "which network policy decided (command line and kubectl plugin)",
        description: &[
            "Netverdict is the flow log of policy decisions for Kubernetes. The tool asks the",
            "record which policies allowed or denied a connection, as they stood when it",
            "happened, and evaluates and lints policies before they are applied.",
        ],
        section: "net",
        depends: &[],
        recommends: &["ca-certificates"],
        programs: &["netverdict", "kubectl-verdict"],
        files: &[
            File {
                source: Source::Script("deploy/kubectl/kubectl_complete-verdict"),
                path: "usr/bin/kubectl_complete-verdict",
            },
            File { source: Source::Completion("bash"), path: "usr/share/bash-completion/completions/netverdict" },
            File { source: Source::Completion("zsh"), path: "usr/share/zsh/vendor-completions/_netverdict" },
            File { source: Source::Completion("fish"), path: "usr/share/fish/vendor_completions.d/netverdict.fish" },
            File { source: Source::Repository("docs/packages.md"), path: "usr/share/doc/netverdict/packages.md" },
            File { source: Source::Repository("docs/uninstall.md"), path: "usr/share/doc/netverdict/uninstall.md" },
            File { source: Source::Repository("docs/kubernetes.md"), path: "usr/share/doc/netverdict/kubernetes.md" },
            File { source: Source::Repository("docs/cni.md"), path: "usr/share/doc/netverdict/cni.md" },
            File { source: Source::Repository("docs/eval.md"), path: "usr/share/doc/netverdict/eval.md" },
            File { source: Source::Repository("docs/record.md"), path: "usr/share/doc/netverdict/record.md" },
            File { source: Source::Repository("docs/semantics.md"), path: "usr/share/doc/netverdict/semantics.md" },
        ],
        folders: &[],
        scripts: &[],
    },
    Recipe {
        name: "netverdict-collector",
        summary: "enforces network policy on a node, and records who decided",
        description: &[
            "The collector attaches eBPF programs to the interfaces of pods, which judge each",
            "packet by network policy, and writes for every connection which policy decided",
            "to Parquet files. It needs Linux 6.6 or newer with BTF. Nothing is enforced",
            "until its mode says so.",
        ],
        section: "net",
        depends: &["netverdict (= =)", "systemd (>= 250)", "init-system-helpers"],
        recommends: &["netverdict-query (= =)"],
        programs: &["netverdict-collector", "netverdict-cni"],
        files: &[
            File { source: Source::BpfObject, path: "usr/lib/netverdict/netverdict.bpf.o" },
            File {
                source: Source::Repository("deploy/systemd/netverdict-collector.service"),
                path: "usr/lib/systemd/system/netverdict-collector.service",
            },
            File {
                source: Source::Repository("deploy/systemd/netverdict.sysusers"),
                path: "usr/lib/sysusers.d/netverdict-collector.conf",
            },
            File {
                source: Source::Repository("deploy/systemd/netverdict-collector.tmpfiles"),
                path: "usr/lib/tmpfiles.d/netverdict-collector.conf",
            },
            File { source: Source::Repository("deploy/systemd/collector.env"), path: "etc/netverdict/collector.env" },
        ],
        folders: &["etc/netverdict/manifests"],
        scripts: &["postinst", "prerm", "postrm"],
    },
    Recipe {
        name: "netverdict-query",
        summary: "answers which network policy decided, from the record",
        description: &[
            "The query service reads the Parquet files that collectors wrote, and the rows",
            "that are in no file yet, and answers over HTTP and the PostgreSQL protocol. It",
            "holds no privilege.",
        ],
        section: "net",
        depends: &["netverdict (= =)", "systemd (>= 250)", "init-system-helpers"],
        recommends: &["ca-certificates"],
        programs: &["netverdict-query"],
        files: &[
            File {
                source: Source::Repository("deploy/systemd/netverdict-query.service"),
                path: "usr/lib/systemd/system/netverdict-query.service",
            },
            File {
                source: Source::Repository("deploy/systemd/netverdict.sysusers"),
                path: "usr/lib/sysusers.d/netverdict-query.conf",
            },
            File { source: Source::Repository("deploy/systemd/query.env"), path: "etc/netverdict/query.env" },
        ],
        folders: &[],
        scripts: &["postinst", "prerm", "postrm"],
    },
];
