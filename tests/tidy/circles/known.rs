//! The import circles that stay for now, each with its reason. None may be added or grow, and a circle that is gone has to
//! leave the list.

/// The reason, and the files.
pub(super) const KNOWN: &[(&str, &[&str])] = &[
    (
        "completion and errors list the commands, and commands print the name of the program",
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
    (
        "the executor owns the cache of policy states, which is filled through the executor",
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
        "children use types of their parent",
        &[
            "query/src/functions.rs",
            "query/src/functions/addresses.rs",
            "query/src/functions/names.rs",
            "query/src/functions/postgres.rs",
        ],
    ),
    (
        "children use types of their parent",
        &["query/src/http.rs", "query/src/http/sql.rs", "query/src/http/status.rs", "query/src/http/why.rs"],
    ),
    (
        "a session has settings, and a setting is checked against the session",
        &["query/src/postgres/session.rs", "query/src/postgres/settings.rs"],
    ),
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
    (
        "children use types of their parent",
        &["query/src/why.rs", "query/src/why/attempt.rs", "query/src/why/judged.rs", "query/src/why/sentence.rs"],
    ),
];
