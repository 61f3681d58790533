//! The import circles that stay for now, each with its reason. None may be added or grow, and a circle that is gone has to
//! leave the list.

/// The reason, and the files.
pub(super) const KNOWN: &[(&str, &[&str])] = &[
    ("children use types of their parent", &["collector/src/control.rs", "collector/src/control/missing.rs"]),
    (
        "children use types of their parent",
        &["collector/src/receive/goldmane.rs", "collector/src/receive/goldmane/policies.rs"],
    ),
    (
        "children use types of their parent",
        &[
            "collector/src/store.rs",
            "collector/src/store/commit.rs",
            "collector/src/store/journal.rs",
            "collector/src/store/memtable.rs",
            "collector/src/store/retention.rs",
        ],
    ),
    ("children use types of their parent", &["collector/src/wal/log.rs", "collector/src/wal/log/frames.rs"]),
    ("children use types of their parent", &["policy/engine/src/laws.rs", "policy/engine/src/laws/kernel.rs"]),
    ("children use types of their parent", &["query/src/state.rs", "query/src/state/heads.rs"]),
    (
        "children use types of their parent",
        &[
            "query/src/tables.rs",
            "query/src/tables/committed.rs",
            "query/src/tables/files.rs",
            "query/src/tables/footer.rs",
            "query/src/tables/scan.rs",
        ],
    ),
];
