//! The tuples of a conntrack entry, as the kernel lays them out.

/// `struct nf_conntrack_tuple`. Ports in network order; of ICMP, the identifier and the type and code.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tuple {
    pub source: [u32; 4],
    pub source_port: u16,
    pub family: u16,
    pub destination: [u32; 4],
    pub destination_port: u16,
    pub protocol: u8,
    _direction: u8,
}

/// From the first tuple of `struct nf_conn` to the end of the second.
#[repr(C)]
pub struct Tuples {
    pub original: Tuple,
    _list_node: [u32; 4],
    pub reply: Tuple,
}
