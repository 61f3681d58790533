//! The connection table: connections that pass, so that their replies and later packets are neither judged nor recorded
//! again.

use core::mem::MaybeUninit;

use netverdict_abi::{
    Connection, ConnectionKey, KernelReason, Verdict,
    map::connection_flag::{CLOSING, EGRESS, ESTABLISHED, FROM_LOW, STALE},
};

use crate::{
    atomic,
    decide::Answer,
    maps,
    packet::{Packet, Words, protocol, tcp_flag},
    packet_context::PacketContext,
    subprogram::{ScalarReturn, scalar_return, zero},
};

/// How long a TCP connection is remembered after a FIN or RST, in nanoseconds.
const CLOSING_TIMEOUT: u64 = 10_000_000_000;
/// Revision of an entry that was opened before the endpoint's tables were complete: re-evaluated with every packet
/// until they are.
const NEVER_JUDGED: u64 = u64::MAX;

/// The connection that a packet belongs to: its key in the table, and the packet's orientation.
pub struct FlowTuple {
    /// A [`ConnectionKey`] in words, because the compiler would write its small fields with calls of `memset`.
    words: [u32; size_of::<ConnectionKey>() / 4],
    /// The packet runs from the low end of the key to the high one.
    from_low: bool,
}

impl FlowTuple {
    /// The tuple of the packet's headers.
    #[inline(always)]
    pub fn of(packet: &Packet, ifindex: u32) -> Self {
        let source = (&packet.source, packet.source_port);
        Self::between(source, (&packet.destination, packet.destination_port), packet.protocol, ifindex)
    }

    /// From the sender, as it was before any translation, to the destination as it is now.
    #[inline(always)]
    pub fn of_sender(packet: &Packet, ifindex: u32) -> Self {
        let source = (&packet.original_source, packet.original_source_port);
        Self::between(source, (&packet.destination, packet.destination_port), packet.protocol, ifindex)
    }

    /// Each end is an address and a port.
    #[inline(always)]
    pub fn between(source: (&Words, u16), destination: (&Words, u16), protocol: u8, ifindex: u32) -> Self {
        let from_low = is_low(source.0, source.1, destination.0, destination.1);
        let ((low, low_port), (high, high_port)) = if from_low { (source, destination) } else { (destination, source) };
        let [[p0, p1], [p2, p3]] = [low_port.to_ne_bytes(), high_port.to_ne_bytes()];
        let ports = u32::from_ne_bytes([p0, p1, p2, p3]);
        let last = u32::from_ne_bytes([protocol, 0, 0, 0]);
        let [l0, l1, l2, l3] = *low;
        let [h0, h1, h2, h3] = *high;
        Self { words: [ifindex, l0, l1, l2, l3, h0, h1, h2, h3, ports, last], from_low }
    }

    #[inline(always)]
    fn key(&self) -> &ConnectionKey {
        const { assert!(align_of::<ConnectionKey>() == align_of::<u32>()) };
        // SAFETY: same size and alignment, and any bytes are a key.
        unsafe { &*self.words.as_ptr().cast() }
    }

    /// The connection's entry, unless it has expired or is not permitted in enforce mode while the node enforces.
    #[inline(always)]
    pub fn find(&self, context: &PacketContext<'_>) -> Option<Entry> {
        let connection = maps::CONNECTIONS.get_ptr_mut(self.key())?;
        // SAFETY: memory of the map, which is reused after an eviction but never unmapped.
        let found = unsafe { &*connection };
        if found.expires_at <= context.now || (context.enforces() && !allowed_in_any_mode(found)) {
            return None;
        }
        Some(Entry { connection, original: (found.flags & FROM_LOW != 0) == self.from_low })
    }

    /// Remembers a connection that passes. `reversed`: the packet is the first one seen, but it is a reply. If the
    /// insertion fails (table full, bucket locked), later packets are judged as new ones.
    #[inline(never)]
    pub fn open(&self, packet: &Packet, context: &PacketContext<'_>, answer: &Answer, reversed: bool) -> ScalarReturn {
        let mut flags = 0;
        if self.from_low != reversed {
            flags |= FROM_LOW;
        }
        if context.is_egress() != reversed {
            flags |= EGRESS;
        }
        if closes(packet) {
            flags |= CLOSING;
        }
        let mut connection = MaybeUninit::<Connection>::uninit();
        // SAFETY: every field is a number.
        let connection = unsafe {
            let connection = &mut *connection.as_mut_ptr();
            zero(connection);
            connection
        };
        connection.expires_at = context.now.saturating_add(timeout(packet.protocol, flags, context));
        connection.revision = revision_of(answer, context);
        connection.attribution = answer.attribution;
        connection.verdict = answer.verdict as u8;
        connection.reason = answer.reason as u8;
        connection.flags = flags;
        connection.packets = 1;
        connection.bytes = u64::from(context.length);
        let _ = maps::CONNECTIONS.insert(self.key(), &*connection, 0);
        scalar_return()
    }
}

/// A valid entry, and the orientation of the present packet.
pub struct Entry {
    connection: *mut Connection,
    /// The packet runs in the direction of the connection's first packet.
    pub original: bool,
}

impl Entry {
    #[inline(always)]
    pub fn get(&self) -> &Connection {
        // SAFETY: as in `find`.
        unsafe { &*self.connection }
    }

    /// Counts the packet and extends the expiry.
    #[inline(always)]
    pub fn touch(&self, packet: &Packet, context: &PacketContext<'_>) {
        // SAFETY: as in `find`. Two CPUs may be here with packets of both directions: the counters are atomic, and a
        // flag that is lost to a concurrent write is set by a later packet.
        unsafe {
            let connection = self.connection;
            let before = (*connection).flags;
            let mut flags = before;
            if !self.original {
                flags |= ESTABLISHED;
            }
            if closes(packet) {
                flags |= CLOSING;
            }
            if flags != before {
                (*connection).flags = flags;
            }
            (*connection).expires_at = context.now.saturating_add(timeout(packet.protocol, flags, context));
            atomic::add(&raw mut (*connection).packets, 1);
            atomic::add(&raw mut (*connection).bytes, u64::from(context.length));
        }
    }

    /// Sets one of [`netverdict_abi::map::connection_flag`].
    #[inline(always)]
    pub fn set(&self, flag: u8) {
        // SAFETY: as in `find`, and as in `touch` a flag that is lost to a concurrent write is set by a later packet.
        unsafe { (*self.connection).flags |= flag };
    }

    /// Clears a flag; false if it was not set.
    #[inline(always)]
    pub fn take(&self, flag: u8) -> bool {
        let was_set = self.get().flags & flag != 0;
        if was_set {
            // SAFETY: as in `set`.
            unsafe { (*self.connection).flags &= !flag };
        }
        was_set
    }

    /// Stores the answer of a re-evaluation; false if another CPU stored it first.
    #[inline(always)]
    pub fn update(&self, answer: &Answer, context: &PacketContext<'_>) -> bool {
        let revision = revision_of(answer, context);
        // SAFETY: as in `find`.
        unsafe {
            let connection = self.connection;
            if atomic::exchange(&raw mut (*connection).revision, revision) == revision && revision != NEVER_JUDGED {
                return false;
            }
            (*connection).attribution = answer.attribution;
            (*connection).verdict = answer.verdict as u8;
            (*connection).reason = answer.reason as u8;
            (*connection).flags &= !STALE;
        }
        true
    }

    /// Marks a connection that the present tables would deny; true the first time, when it has to be recorded.
    #[inline(always)]
    pub fn mark_stale(&self, context: &PacketContext<'_>) -> bool {
        // SAFETY: as in `find`.
        unsafe {
            let connection = self.connection;
            if atomic::exchange(&raw mut (*connection).revision, context.revision) == context.revision
                || (*connection).flags & STALE != 0
            {
                return false;
            }
            (*connection).flags |= STALE;
        }
        true
    }

    /// Whether the entry was judged with this answer before.
    #[inline(always)]
    pub fn has_answer(&self, answer: &Answer) -> bool {
        let connection = self.get();
        connection.verdict == answer.verdict as u8
            && connection.reason == answer.reason as u8
            && connection.attribution == answer.attribution
    }

    /// Whether the packet repeats a request that was neither replied to nor closed.
    #[inline(always)]
    pub fn is_repeated_request(&self) -> bool {
        self.original && self.get().flags & (ESTABLISHED | CLOSING) == 0
    }
}

/// Whether the connection may pass in every mode. All others passed only because the node observes or audits, and stop
/// passing when it enforces.
#[inline(always)]
pub fn allowed_in_any_mode(connection: &Connection) -> bool {
    connection.verdict == Verdict::Allowed as u8 || connection.reason == KernelReason::ServiceNotResolved as u8
}

#[inline(always)]
fn revision_of(answer: &Answer, context: &PacketContext<'_>) -> u64 {
    if answer.reason == KernelReason::PolicyNotReady { NEVER_JUDGED } else { context.revision }
}

#[inline(always)]
fn closes(packet: &Packet) -> bool {
    packet.protocol == protocol::TCP && packet.tcp_flags & (tcp_flag::FIN | tcp_flag::RST) != 0
}

#[inline(always)]
fn timeout(protocol: u8, flags: u8, context: &PacketContext<'_>) -> u64 {
    if protocol != protocol::TCP {
        context.settings.other_timeout
    } else if flags & CLOSING != 0 {
        CLOSING_TIMEOUT
    } else if flags & ESTABLISHED != 0 {
        context.settings.tcp_established_timeout
    } else {
        context.settings.other_timeout
    }
}

/// Orders ends by address, then port, each as a big-endian number.
#[inline(always)]
fn is_low(one: &Words, one_port: u16, other: &Words, other_port: u16) -> bool {
    for word in 0..4 {
        if one[word] != other[word] {
            return u32::from_be(one[word]) < u32::from_be(other[word]);
        }
    }
    one_port <= other_port
}
