//! Closed lists, one byte each in events and maps. A value that is not listed is refused by `TryFrom`, never guessed.

/// Generates a one-byte enum with a checked way back.
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
    /// What an event reports.
    EventKind {
        /// One packet was judged: [`crate::VerdictEvent`].
        Verdict = 1,
    }
}

code! {
    /// Which ring an event goes to. Denials have their own, so that a flood of allowed flows cannot push them out.
    Lane {
        /// Everything whose verdict is denied, whatever happened to the packet.
        Denied = 0,
        /// Everything else.
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
    /// Seen from the endpoint whose veth the program sits on.
    Direction {
        /// From the pod (tcx ingress on the host side of its veth).
        Egress = 0,
        /// To the pod (tcx egress on the host side of its veth).
        Ingress = 1,
    }
}

code! {
    /// What evaluation concluded for one flow in one direction.
    Verdict {
        Allowed = 1,
        Denied = 2,
        Unknown = 3,
    }
}

code! {
    /// What the datapath did with the packet.
    Disposition {
        Forwarded = 1,
        Dropped = 2,
    }
}

code! {
    /// What the node does with a denial.
    Mode {
        /// Judge and record; never drop.
        Observe = 0,
        /// As observe; every policy counts as audited, so the record tells what enforcement would do.
        Audit = 1,
        /// Drop what is denied.
        Enforce = 2,
    }
}

code! {
    /// A reason that only the kernel can know. With `ByPolicy` the attribution id carries the reason.
    KernelReason {
        /// The attribution id says why.
        ByPolicy = 0,
        /// The packet's source address does not belong to the pod that sent it.
        SpoofedSource = 1,
        /// The endpoint's tables are not complete yet.
        PolicyNotReady = 2,
        /// The destination is a Service's address; its backend is not known here.
        ServiceNotResolved = 3,
        /// Allowed only because the connection is older than the policy; the attribution is what would deny it now.
        EstablishedStale = 4,
        /// A connection that was under way when the endpoint was attached; judged in the reverse orientation.
        Midstream = 5,
        /// Not policy: a header is truncated or contradicts itself.
        Malformed = 6,
        /// Not policy: a first fragment without its whole transport header.
        ShortFragment = 7,
    }
}
