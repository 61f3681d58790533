//! The maps, under their names in `netverdict_abi::map::name`, where each is described. The sizes here are defaults;
//! user space sets its own when it loads the object.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use netverdict_abi::{
    AddressKey, Column, ColumnPortKey, ColumnRangeKey, Connection, ConnectionKey, Endpoint, FragmentKey,
    FragmentVerdict, LaneCounters, LossKey, OwnAddressKey, PairKey, PeerVersions, PolicyEntry, Settings,
};

use crate::{packet::Packet, subject::Subject, tuples::Tuples};

#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
pub static CURRENT_REVISION: Array<u64> = Array::with_max_entries(1, 0);

#[map]
pub static ENDPOINTS: HashMap<u32, Endpoint> = HashMap::with_max_entries(1024, 0);
#[map]
pub static OWN_ADDRESSES: HashMap<OwnAddressKey, u8> = HashMap::with_max_entries(8192, 0);

#[map]
pub static LOCAL_PODS: HashMap<AddressKey, u32> = HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

// Maps that grow with the cluster allocate an entry when it is written: a generous limit costs no memory in advance (ADR 1).
#[map]
pub static ADDRESSES: HashMap<AddressKey, PeerVersions> = HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);
#[map]
pub static BLOCKS: LpmTrie<AddressKey, PeerVersions> = LpmTrie::with_max_entries(65_536, BPF_F_NO_PREALLOC);
#[map]
pub static PAIRS: HashMap<PairKey, PolicyEntry> = HashMap::with_max_entries(1_048_576, BPF_F_NO_PREALLOC);
#[map]
pub static COLUMNS: HashMap<u32, Column> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);
#[map]
pub static COLUMN_PORTS: HashMap<ColumnPortKey, PolicyEntry> = HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);
#[map]
pub static COLUMN_RANGES: LpmTrie<ColumnRangeKey, PolicyEntry> = LpmTrie::with_max_entries(262_144, BPF_F_NO_PREALLOC);

// When these are full the least recently used entry is evicted: a flood of new connections costs history, never memory.
#[map]
pub static CONNECTIONS: LruHashMap<ConnectionKey, Connection> = LruHashMap::with_max_entries(65_536, 0);
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentVerdict> = LruHashMap::with_max_entries(4096, 0);

#[map]
pub static LANES: PerCpuArray<LaneCounters> = PerCpuArray::with_max_entries(2, 0);
#[map]
pub static LOSSES: LruHashMap<LossKey, u64> = LruHashMap::with_max_entries(4096, 0);
#[map]
pub static RING_DENIED: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
#[map]
pub static RING_FLOW: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Working memory, never pinned: the packet, and the packet that it quotes. They are in a map because the verifier
/// follows the value of each field on the stack along each path through the parser, and would check everything after it
/// once per combination.
#[map]
pub static SCRATCH: PerCpuArray<[Packet; 2]> = PerCpuArray::with_max_entries(1, 0);
/// Working memory, never pinned: the endpoint as a policy subject.
#[map]
pub static SUBJECT: PerCpuArray<Subject> = PerCpuArray::with_max_entries(1, 0);
/// Working memory, never pinned: the tuples of the packet's conntrack entry.
#[map]
pub static CONNTRACK: PerCpuArray<Tuples> = PerCpuArray::with_max_entries(1, 0);
