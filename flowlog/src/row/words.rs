//! The closed lists of words in the record.

use netverdict_policy::{
    Confidence, Direction, FailedDimension, Reason, Role, Verdict,
    model::{Action, Tier},
    named,
};

use crate::layout::Named;

named! {
    /// Why a row exists.
    RecordType {
        /// First of its flow key in the window.
        Verdict = "verdict",
        /// Repeats of a denied flow key on one CPU; `count` is exact.
        Update = "update",
        /// A connection ended; volumes are final.
        Close = "close",
    }
}
named! { LaneName { Denied = "denied", Flow = "flow" } }
named! {
    /// The source that saw the verdict.
    Receiver {
        /// Our own probe, through its rings.
        Ring = "ring",
        /// Calico's flow log.
        Goldmane = "goldmane",
    }
}
named! { Reporter { Source = "source", Destination = "destination" } }
named! { DispositionName { Forwarded = "forwarded", Dropped = "dropped" } }
named! { ModeName { Enforce = "enforce", Audit = "audit", Observe = "observe" } }
named! {
    /// How the verdict came to be.
    Method { Enforced = "enforced", Reported = "reported", Evaluated = "evaluated", Inferred = "inferred" }
}
named! {
    /// Kind of an end of a flow. The `Unknown…` kinds say why nothing is known.
    EndpointKind {
        Pod = "pod",
        Node = "node",
        Service = "service",
        /// Outside every range of the cluster.
        External = "external",
        /// In a pod range, and no pod is known to own it.
        UnknownPod = "unknown_pod",
        /// The kernel named an owner whose meaning is lost.
        UnknownOwner = "unknown_owner",
        Unknown = "unknown",
    }
}
named! {
    /// Why a packet was dropped that no policy denied.
    DropReason { Malformed = "malformed", ShortFragment = "short_fragment" }
}
named! {
    /// Why events are missing.
    GapCause {
        RingFull = "ring_full",
        QueueFull = "queue_full",
        DiskFull = "disk_full",
        UploadAbandoned = "upload_abandoned",
        UncleanStop = "unclean_stop",
        /// From the birth of an interface to its attachment.
        Unattached = "unattached",
        /// Programs are attached, and the pod is not known: its packets are judged as not ready.
        Unbound = "unbound",
        /// Removed by retention or by the cap on disk use.
        Expired = "expired",
        /// Events that could not be read: an unknown kind or ABI version, or a damaged batch.
        Unreadable = "unreadable",
        /// The cluster source could not be read whole: policies or pods may be older than they should.
        SourceStale = "source_stale",
    }
}
named! {
    /// A change log's rows either put a value or delete it.
    ChangeKind { Put = "put", Delete = "delete" }
}
named! {
    /// State of a collector, as it reports it.
    CollectorState { Started = "started", Running = "running", Stopped = "stopped" }
}

macro_rules! words {
    ($($word:ty),+ $(,)?) => {
        $(impl Named for $word {
            fn name(self) -> &'static str {
                self.as_str()
            }

            fn of_name(name: &str) -> Option<Self> {
                Self::from_name(name)
            }
        })+
    };
    // The engine's words that have no `from_name`.
    ($($word:ident: $($variant:ident),+;)+) => {
        $(impl Named for $word {
            fn name(self) -> &'static str {
                self.as_str()
            }

            fn of_name(name: &str) -> Option<Self> {
                [$(Self::$variant),+].into_iter().find(|word| word.as_str() == name)
            }
        })+
    };
}
words!(
    RecordType,
    LaneName,
    Receiver,
    Reporter,
    DispositionName,
    ModeName,
    Method,
    EndpointKind,
    DropReason,
    GapCause,
    ChangeKind,
    CollectorState,
    Verdict,
    Reason,
    Confidence,
    Role,
    FailedDimension,
);
words! {
    Direction: Egress, Ingress;
    Tier: Admin, NetworkPolicy, Baseline;
    Action: Accept, Deny, Pass;
}
