//! The connections that pass, so that replies and later packets are not judged and not recorded again.

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
    scene::Scene,
    subprogram::{Done, done, zero},
};

/// How long a TCP connection is remembered after a FIN or RST, in nanoseconds.
const CLOSING_TIMEOUT: u64 = 10_000_000_000;
/// Revision of an entry that no complete table has judged: it is judged again with every packet until one has.
const NEVER_JUDGED: u64 = u64::MAX;

/// Where a packet belongs in the table.
pub struct Place {
    /// A [`ConnectionKey`] in words: its small fields would be written by calls of `memset`.
    words: [u32; size_of::<ConnectionKey>() / 4],
    /// The packet runs from the low end of the key to the high one.
    from_low: bool,
}

impl Place {
    #[inline(always)]
    pub fn of(packet: &Packet, ifindex: u32) -> Self {
        let from_low = is_low(&packet.source, packet.source_port, &packet.destination, packet.destination_port);
        let (low, low_port, high, high_port) = if from_low {
            (&packet.source, packet.source_port, &packet.destination, packet.destination_port)
        } else {
            (&packet.destination, packet.destination_port, &packet.source, packet.source_port)
        };
        let [[p0, p1], [p2, p3]] = [low_port.to_ne_bytes(), high_port.to_ne_bytes()];
        let ports = u32::from_ne_bytes([p0, p1, p2, p3]);
        let last = u32::from_ne_bytes([packet.protocol, 0, 0, 0]);
        let [l0, l1, l2, l3] = *low;
        let [h0, h1, h2, h3] = *high;
        Self { words: [ifindex, l0, l1, l2, l3, h0, h1, h2, h3, ports, last], from_low }
    }

    #[inline(always)]
    fn key(&self) -> &ConnectionKey {
        const { assert!(align_of::<ConnectionKey>() == align_of::<u32>()) };
        // SAFETY: same size and alignment, and every field is a number.
        unsafe { &*self.words.as_ptr().cast() }
    }

    /// The entry, unless it has expired or the node would not let it stand.
    #[inline(always)]
    pub fn find(&self, scene: &Scene<'_>) -> Option<Entry> {
        let connection = maps::CONNECTIONS.get_ptr_mut(self.key())?;
        // SAFETY: memory of the map; an evicted entry is reused, never unmapped.
        let found = unsafe { &*connection };
        if found.expires_at <= scene.now || (scene.enforces() && !passes_by_right(found)) {
            return None;
        }
        Some(Entry { connection, original: (found.flags & FROM_LOW != 0) == self.from_low })
    }

    /// Remembers a connection that passes. `reversed`: the packet is the first one seen, but runs against the original
    /// direction. A full table (or one that is locked) changes nothing else.
    #[inline(never)]
    pub fn open(&self, packet: &Packet, scene: &Scene<'_>, answer: &Answer, reversed: bool) -> Done {
        let mut flags = 0;
        if self.from_low != reversed {
            flags |= FROM_LOW;
        }
        if scene.is_egress() != reversed {
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
        connection.expires_at = scene.now.saturating_add(timeout(packet.protocol, flags, scene));
        connection.revision = revision_of(answer, scene);
        connection.attribution = answer.attribution;
        connection.verdict = answer.verdict as u8;
        connection.reason = answer.reason as u8;
        connection.flags = flags;
        connection.packets = 1;
        connection.bytes = u64::from(scene.length);
        let _ = maps::CONNECTIONS.insert(self.key(), &*connection, 0);
        done()
    }
}

/// An entry that is in force, and how the packet at hand lies to it.
pub struct Entry {
    connection: *mut Connection,
    /// The packet runs in the original direction.
    pub original: bool,
}

impl Entry {
    #[inline(always)]
    pub fn get(&self) -> &Connection {
        // SAFETY: as in `find`.
        unsafe { &*self.connection }
    }

    /// Counts the packet and puts the expiry off.
    #[inline(always)]
    pub fn touch(&self, packet: &Packet, scene: &Scene<'_>) {
        // SAFETY: as in `find`. Packets of both directions may be here on two CPUs at once: the counters are atomic; of
        // two different flags that are raised in the same instant one may have to wait for the next packet.
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
            (*connection).expires_at = scene.now.saturating_add(timeout(packet.protocol, flags, scene));
            atomic::add(&raw mut (*connection).packets, 1);
            atomic::add(&raw mut (*connection).bytes, u64::from(scene.length));
        }
    }

    /// Takes on a newer judgement of the original direction; false if another CPU was first.
    #[inline(always)]
    pub fn take_on(&self, answer: &Answer, scene: &Scene<'_>) -> bool {
        let revision = revision_of(answer, scene);
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

    /// Notes that the present tables would deny it; true the first time, when it has to be recorded.
    #[inline(always)]
    pub fn grow_stale(&self, scene: &Scene<'_>) -> bool {
        // SAFETY: as in `find`.
        unsafe {
            let connection = self.connection;
            if atomic::exchange(&raw mut (*connection).revision, scene.revision) == scene.revision
                || (*connection).flags & STALE != 0
            {
                return false;
            }
            (*connection).flags |= STALE;
        }
        true
    }

    /// Judged alike before.
    #[inline(always)]
    pub fn agrees(&self, answer: &Answer) -> bool {
        let connection = self.get();
        connection.verdict == answer.verdict as u8
            && connection.reason == answer.reason as u8
            && connection.attribution == answer.attribution
    }

    /// A request that is under way: nothing came back yet and nothing ended it.
    #[inline(always)]
    pub fn awaits_answer(&self) -> bool {
        self.original && self.get().flags & (ESTABLISHED | CLOSING) == 0
    }
}

/// What opened it may pass in every mode. The rest is what `observe` and `audit` let through: it ends with the mode.
#[inline(always)]
pub fn passes_by_right(connection: &Connection) -> bool {
    connection.verdict == Verdict::Allowed as u8 || connection.reason == KernelReason::ServiceNotResolved as u8
}

#[inline(always)]
fn revision_of(answer: &Answer, scene: &Scene<'_>) -> u64 {
    if answer.reason == KernelReason::PolicyNotReady { NEVER_JUDGED } else { scene.revision }
}

#[inline(always)]
fn closes(packet: &Packet) -> bool {
    packet.protocol == protocol::TCP && packet.tcp_flags & (tcp_flag::FIN | tcp_flag::RST) != 0
}

#[inline(always)]
fn timeout(protocol: u8, flags: u8, scene: &Scene<'_>) -> u64 {
    if protocol != protocol::TCP {
        scene.settings.other_timeout
    } else if flags & CLOSING != 0 {
        CLOSING_TIMEOUT
    } else if flags & ESTABLISHED != 0 {
        scene.settings.tcp_established_timeout
    } else {
        scene.settings.other_timeout
    }
}

/// Ends are ordered by address, then port, as the numbers that they are on the wire.
#[inline(always)]
fn is_low(one: &Words, one_port: u16, other: &Words, other_port: u16) -> bool {
    for word in 0..4 {
        if one[word] != other[word] {
            return u32::from_be(one[word]) < u32::from_be(other[word]);
        }
    }
    one_port <= other_port
}
