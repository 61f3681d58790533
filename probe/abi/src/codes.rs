//! Enums that events and maps hold as one byte. `TryFrom` refuses a byte that is not listed.

/// Generates a one-byte enum with a checked conversion from its byte.
macro_rules! code {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $value:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$variant_meta])* $variant = $value),+ }

        impl $name {
            /// Every value, in numeric order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
        }

        impl TryFrom<u8> for $name {
            /// The byte that is not in the list.
            type Error = u8;

            #[inline(always)]
            fn try_from(byte: u8) -> Result<Self, u8> {
                match byte { $($value => Ok(Self::$variant),)+ other => Err(other) }
            }
        }
    };
}

code! {
    /// Kind of an event.
    EventKind {
        /// One packet was judged: [`crate::VerdictEvent`].
        Verdict = 1,
    }
}

code! {
    /// Which ring an event goes to. Denials have their own, so that a flood of allowed flows cannot push them out.
    Lane {
        /// Events with the verdict denied, whether or not the packet was dropped.
        Denied = 0,
        /// All other events.
        Flow = 1,
    }
}

code! {
    /// Why an event or a frame has no record. The first two are the lane whose ring had no room.
    LossClass {
        Denied = 0,
        Flow = 1,
        /// A frame that was dropped, but is no flow of the pod: neither the frame nor the packet was addressed to it.
        Flooded = 2,
    }
}

impl From<Lane> for LossClass {
    #[inline(always)]
    fn from(lane: Lane) -> Self {
        match lane {
            Lane::Denied => Self::Denied,
            Lane::Flow => Self::Flow,
        }
    }
}

code! {
    /// Relative to the endpoint behind the veth on which the program runs.
    Direction {
        /// From the pod (tcx ingress on the host side of its veth).
        Egress = 0,
        /// To the pod (tcx egress on the host side of its veth).
        Ingress = 1,
    }
}

code! {
    /// The result of evaluation for one flow in one direction.
    Verdict {
        Allowed = 1,
        Denied = 2,
        Unknown = 3,
    }
}

code! {
    /// The datapath's treatment of the packet.
    Disposition {
        Forwarded = 1,
        Dropped = 2,
    }
}

code! {
    /// A node's treatment of a denial.
    Mode {
        /// Judge and record; never drop.
        Observe = 0,
        /// Like observe, with every policy audited: the record also has the verdict that enforcement would give.
        Audit = 1,
        /// Drop denied packets.
        Enforce = 2,
    }
}

code! {
    /// An enforcing node's treatment of a connection through a Service whose backend cannot be known.
    Unresolved {
        /// Forward and record it, with the verdict unknown.
        Pass = 0,
        /// Drop and record it.
        Deny = 1,
    }
}

code! {
    /// The reason of a verdict, as far as the kernel knows it. For `ByPolicy` the attribution id stands for the reason.
    KernelReason {
        /// See the attribution id.
        ByPolicy = 0,
        /// The packet's source address does not belong to the pod that sent it.
        SpoofedSource = 1,
        /// The endpoint's tables are not complete yet.
        PolicyNotReady = 2,
        /// The destination is the address of a Service, and which backend it stands for is not known.
        ServiceNotResolved = 3,
        /// Allowed only because the connection is older than the policy. The attribution is that of the denial which a new
        /// connection would get.
        EstablishedStale = 4,
        /// The connection began before the endpoint was attached, and was allowed in reverse orientation.
        Midstream = 5,
        /// Not a policy reason: a header is truncated or inconsistent.
        Malformed = 6,
        /// Not a policy reason: a first fragment with an incomplete transport header.
        ShortFragment = 7,
        /// A pod reached itself through a Service (E-8).
        SelfTraffic = 8,
    }
}
