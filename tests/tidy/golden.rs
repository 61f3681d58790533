//! Contracts that are easy to change without noticing. `NETVERDICT_UPDATE_GOLDEN=1 cargo test -p netverdict-tests --test
//! tidy` writes them anew; the commit then says `Contract: …`. Those of the record are in `flowlog/tests/contract.rs`.

use netverdict_abi::{
    ABI_VERSION, AddressKey, Column, ColumnPortKey, ColumnRangeKey, Connection, ConnectionKey, Endpoint,
    EndpointClasses, FragmentKey, FragmentVerdict, LaneCounters, LossKey, OwnAddressKey, PairKey, Peer, PeerVersions,
    PolicyEntry, Settings, VerdictEvent,
};
use netverdict_tests::golden;
use zerocopy::IntoBytes;

/// Each struct of the ABI with the names, offsets and sizes of its fields, from the `Debug` of a value whose bytes count
/// up, so that a moved or resized field shows.
#[test]
fn the_kernel_abi_is_what_its_version_says() {
    let mut text = format!("version {ABI_VERSION}\n");
    macro_rules! layouts {
        ($($name:ident),+ $(,)?) => {$(
            let mut value = $name::default();
            for (number, byte) in value.as_mut_bytes().iter_mut().enumerate() {
                *byte = u8::try_from(number % 251).expect("under 251");
            }
            text.push_str(&format!("{} bytes: {value:?}\n", size_of::<$name>()));
        )+};
    }
    layouts!(
        VerdictEvent,
        Settings,
        Peer,
        PeerVersions,
        AddressKey,
        OwnAddressKey,
        PolicyEntry,
        EndpointClasses,
        Endpoint,
        PairKey,
        Column,
        ColumnPortKey,
        ColumnRangeKey,
        ConnectionKey,
        Connection,
        FragmentKey,
        FragmentVerdict,
        LaneCounters,
        LossKey,
    );
    check("abi.txt", &text, "raise netverdict_abi::ABI_VERSION");
}

fn check(name: &str, found: &str, remedy: &str) {
    golden::check(&format!("tests/golden/{name}"), found, remedy);
}
