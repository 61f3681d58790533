//! The flow that is evaluated, from what the user gave and defaults.

use netverdict_policy::{End, Family, Flow, Snapshot, evaluate::usual_family, model::Protocol};

/// The flow to evaluate. The default protocol is TCP, the default family that of the ends.
pub(super) fn flow_between(
    snapshot: &Snapshot,
    source: End,
    destination: End,
    protocol: Option<Protocol>,
    port: Option<u16>,
    family: Option<Family>,
) -> anyhow::Result<Flow> {
    let of_address = [&source, &destination].into_iter().find_map(|end| match end {
        End::Address(address) => Some(Family::of(*address)),
        End::Pod(_) => None,
    });
    let family = match (family, of_address) {
        (Some(family), Some(found)) if family != found => {
            anyhow::bail!(
                "the family is {}, but an end has an {} address; leave the family out, or give addresses of it",
                family.as_str(),
                found.as_str()
            )
        }
        (Some(family), _) => family,
        (None, _) => usual_family(snapshot, [&source, &destination]),
    };
    let protocol = match (protocol.unwrap_or(Protocol::TCP), family) {
        (Protocol::ICMP, Family::V6) => Protocol::ICMPV6,
        (protocol, _) => protocol,
    };
    // A port of a protocol that has none means nothing, as in a record.
    Ok(Flow { source, destination, protocol, port: port.filter(|_| protocol.has_ports()), family })
}
