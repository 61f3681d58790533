//! The import circles that stay for now, each with its reason. None may be added or grow, and a circle that is gone has to
//! leave the list.

/// The reason, and the files.
pub(super) const KNOWN: &[(&str, &[&str])] = &[
    (
        "to be cut",
        &[
            "cli/src/command.rs",
            "cli/src/command/completion.rs",
            "cli/src/command/eval.rs",
            "cli/src/command/eval/answer.rs",
            "cli/src/command/eval/batch.rs",
            "cli/src/command/eval/batch/asked.rs",
            "cli/src/command/eval/walk.rs",
            "cli/src/command/flows.rs",
            "cli/src/command/lint.rs",
            "cli/src/command/probe.rs",
            "cli/src/command/sql.rs",
            "cli/src/command/why.rs",
            "cli/src/command/why/explain.rs",
            "cli/src/program.rs",
        ],
    ),
    ("a parent and its children", &["collector/src/control.rs", "collector/src/control/missing.rs"]),
    (
        "a parent and its children",
        &[
            "collector/src/store.rs",
            "collector/src/store/commit.rs",
            "collector/src/store/held.rs",
            "collector/src/store/journal.rs",
            "collector/src/store/retention.rs",
        ],
    ),
    ("a parent and its children", &["collector/src/wal/log.rs", "collector/src/wal/log/frames.rs"]),
    (
        "to be cut",
        &[
            "flowlog/src/columns.rs",
            "flowlog/src/columns/changes.rs",
            "flowlog/src/columns/flows.rs",
            "flowlog/src/columns/nested.rs",
            "flowlog/src/columns/state.rs",
            "flowlog/src/schema.rs",
        ],
    ),
    (
        "a parent and its children",
        &[
            "flowlog/src/read.rs",
            "flowlog/src/read/columns.rs",
            "flowlog/src/read/flows.rs",
            "flowlog/src/read/tables.rs",
        ],
    ),
    ("a parent and its children", &["policy/engine/src/laws.rs", "policy/engine/src/laws/kernel.rs"]),
    (
        "to be cut",
        &[
            "policy/manifest/src/address.rs",
            "policy/manifest/src/fields.rs",
            "policy/manifest/src/finding.rs",
            "policy/manifest/src/kind.rs",
            "policy/manifest/src/kind/admin_network_policy.rs",
            "policy/manifest/src/kind/baseline_admin_network_policy.rs",
            "policy/manifest/src/kind/cluster_network_policy.rs",
            "policy/manifest/src/kind/network_policy.rs",
            "policy/manifest/src/kind/ordered.rs",
            "policy/manifest/src/kind/port.rs",
            "policy/manifest/src/kind/rule.rs",
            "policy/manifest/src/nulls.rs",
            "policy/manifest/src/object.rs",
            "policy/manifest/src/selector.rs",
        ],
    ),
    (
        "a parent and its children",
        &[
            "policy/manifest/src/lint.rs",
            "policy/manifest/src/lint/addresses.rs",
            "policy/manifest/src/lint/dns.rs",
            "policy/manifest/src/lint/dns/servers.rs",
            "policy/manifest/src/lint/hosts.rs",
            "policy/manifest/src/lint/order.rs",
            "policy/manifest/src/lint/ports.rs",
            "policy/manifest/src/lint/selection.rs",
        ],
    ),
    ("to be cut", &["probe/ebpf/src/judge.rs", "probe/ebpf/src/record.rs"]),
    ("to be cut", &["probe/ebpf/src/maps.rs", "probe/ebpf/src/scene.rs"]),
    (
        "a parent and its children",
        &[
            "probe/ebpf/src/packet.rs",
            "probe/ebpf/src/packet/ethernet.rs",
            "probe/ebpf/src/packet/ip.rs",
            "probe/ebpf/src/packet/transport.rs",
        ],
    ),
    (
        "a parent and its children",
        &[
            "probe/loader/src/discover.rs",
            "probe/loader/src/discover/inside.rs",
            "probe/loader/src/discover/namespaces.rs",
            "probe/loader/src/discover/netlink.rs",
        ],
    ),
    ("a parent and its children", &["probe/loader/src/maps.rs", "probe/loader/src/maps/revision.rs"]),
    (
        "to be cut",
        &[
            "query/src/execute.rs",
            "query/src/records.rs",
            "query/src/state/fresh.rs",
            "query/src/state/kept.rs",
            "query/src/state/logs.rs",
            "query/src/threads.rs",
        ],
    ),
    (
        "a parent and its children",
        &[
            "query/src/functions.rs",
            "query/src/functions/addresses.rs",
            "query/src/functions/names.rs",
            "query/src/functions/postgres.rs",
        ],
    ),
    (
        "a parent and its children",
        &["query/src/http.rs", "query/src/http/sql.rs", "query/src/http/status.rs", "query/src/http/why.rs"],
    ),
    ("to be cut", &["query/src/postgres/session.rs", "query/src/postgres/settings.rs"]),
    ("a parent and its children", &["query/src/state.rs", "query/src/state/heads.rs"]),
    (
        "a parent and its children",
        &["query/src/tables.rs", "query/src/tables/files.rs", "query/src/tables/footer.rs", "query/src/tables/scan.rs"],
    ),
    (
        "a parent and its children",
        &["query/src/why.rs", "query/src/why/attempt.rs", "query/src/why/judged.rs", "query/src/why/sentence.rs"],
    ),
];
