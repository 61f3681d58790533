//! Links and addresses in the network namespace of the calling thread, over rtnetlink.

use std::{collections::BTreeSet, net::IpAddr, os::fd::AsRawFd};

use futures::{StreamExt, TryStreamExt};
use rtnetlink::{
    Handle, new_connection,
    packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage},
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
        nsid::{NsidAttribute, NsidMessage},
    },
};

use super::{
    discovered::{LinkLayer, Uplink},
    namespaces::Namespace,
};
use crate::error::ProbeError;

/// An interface of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostLink {
    pub(super) ifindex: u32,
    pub(super) name: String,
    /// The host's id (`nsid`) of the network namespace of the other end; `None` if there is no other end in another
    /// namespace.
    pub(super) peer_namespace: Option<i32>,
    /// Index of the other end in its namespace; 0 if there is none.
    pub(super) peer_ifindex: u32,
    /// `None` for loopback.
    pub(super) link: Option<LinkLayer>,
}

impl HostLink {
    pub(super) fn uplink(&self) -> Option<Uplink> {
        let Self { ifindex, name, link, .. } = self;
        Some(Uplink { ifindex: *ifindex, name: name.clone(), link: (*link)? })
    }
}

/// An interface and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) ifindex: u32,
    pub(super) name: String,
    /// The kind of an interface that leads out of its namespace without a host end: see [`leads_past`].
    pub(super) leads_past: Option<&'static str>,
    /// Empty for kinds without one.
    pub(super) hardware_address: Vec<u8>,
    pub(super) addresses: Vec<IpAddr>,
}

/// The host's interfaces, and the host's id (`nsid`) of each namespace. The id is `None` if the host has not assigned
/// one: then no interface leads there.
pub(super) async fn host(namespaces: &[Namespace]) -> Result<(Vec<HostLink>, Vec<Option<i32>>), ProbeError> {
    with_connection(async |handle| {
        // Links first: the kernel assigns ids to the namespaces behind them when it lists the links.
        let links = links(&handle).await?.iter().map(host_link).collect();
        let mut ids = Vec::with_capacity(namespaces.len());
        for namespace in namespaces {
            ids.push(namespace_id(&handle, namespace).await?);
        }
        Ok((links, ids))
    })
    .await
}

/// The interfaces of this namespace, as ways out of it.
pub(super) async fn uplinks() -> Result<Vec<Uplink>, ProbeError> {
    with_connection(async |handle| {
        Ok(links(&handle).await?.iter().filter_map(|link| host_link(link).uplink()).collect())
    })
    .await
}

/// All addresses of this namespace's interfaces, link-local ones included. Without loopback addresses, which no packet on
/// a wire has.
pub(super) async fn own_addresses() -> Result<BTreeSet<IpAddr>, ProbeError> {
    with_connection(async |handle| {
        let addresses = addresses(&handle).await?;
        Ok(addresses.iter().filter_map(own_address).filter(|address| !address.is_loopback()).collect())
    })
    .await
}

/// The interfaces of this namespace.
pub(super) async fn interfaces() -> Result<Vec<Interface>, ProbeError> {
    with_connection(async |handle| {
        let addresses = addresses(&handle).await?;
        let interface = |link: &LinkMessage| {
            let ifindex = link.header.index;
            let hardware_address = link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Address(address) => Some(address.clone()),
                _ => None,
            });
            Interface {
                ifindex,
                name: host_link(link).name,
                leads_past: leads_past(link),
                hardware_address: hardware_address.unwrap_or_default(),
                addresses: addresses
                    .iter()
                    .filter(|message| message.header.index == ifindex)
                    .filter_map(own_address)
                    .collect(),
            }
        };
        Ok(links(&handle).await?.iter().map(interface).collect())
    })
    .await
}

/// Runs `ask` with a netlink connection, and ends the connection with it.
async fn with_connection<T>(ask: impl AsyncFnOnce(Handle) -> Result<T, ProbeError>) -> Result<T, ProbeError> {
    let (connection, handle, _) = new_connection().map_err(|error| ProbeError::netlink("connecting", &error))?;
    tokio::select! {
        answer = ask(handle) => answer,
        () = connection => Err(ProbeError::netlink("asking", &"connection ended")),
    }
}

async fn addresses(handle: &Handle) -> Result<Vec<AddressMessage>, ProbeError> {
    let listed = handle.address().get().execute().try_collect().await;
    listed.map_err(|error| ProbeError::netlink("listing addresses", &error))
}

async fn links(handle: &Handle) -> Result<Vec<LinkMessage>, ProbeError> {
    handle.link().get().execute().try_collect().await.map_err(|error| ProbeError::netlink("listing interfaces", &error))
}

fn host_link(link: &LinkMessage) -> HostLink {
    let mut host = HostLink {
        ifindex: link.header.index,
        name: String::new(),
        peer_namespace: None,
        peer_ifindex: 0,
        link: link_layer(link.header.link_layer_type),
    };
    let mut is_pair = false;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => host.name.clone_from(name),
            LinkAttribute::Link(index) => host.peer_ifindex = *index,
            LinkAttribute::LinkNetNsId(id) => host.peer_namespace = Some(*id),
            LinkAttribute::LinkInfo(info) => {
                is_pair |= info.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Veth | InfoKind::Netkit)));
            }
            _ => {}
        }
    }
    if !is_pair {
        host.peer_namespace = None;
    }
    host
}

/// The kind of an interface that leads out of its namespace without a pair: a child of an interface in another
/// namespace, or a device that the host gave away. A child of an interface of its own namespace uses that one.
fn leads_past(link: &LinkMessage) -> Option<&'static str> {
    let flags = link.header.flags;
    if flags.contains(LinkFlags::Loopback) || !flags.contains(LinkFlags::Up) {
        return None;
    }
    let mut kind = None;
    let mut has_parent_elsewhere = false;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::LinkNetNsId(_) => has_parent_elsewhere = true,
            LinkAttribute::LinkInfo(info) => {
                kind = info.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.clone()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    match kind {
        Some(InfoKind::MacVlan | InfoKind::MacVtap) if has_parent_elsewhere => Some("macvlan"),
        Some(InfoKind::IpVlan | InfoKind::IpVtap) if has_parent_elsewhere => Some("ipvlan"),
        Some(InfoKind::Vlan) if has_parent_elsewhere => Some("vlan"),
        // Hardware, physical or virtual functions, has no kind.
        None if matches!(link.header.link_layer_type, LinkLayerType::Ether | LinkLayerType::Infiniband) => {
            Some("device")
        }
        _ => None,
    }
}

fn link_layer(kind: LinkLayerType) -> Option<LinkLayer> {
    match kind {
        LinkLayerType::Loopback => None,
        LinkLayerType::Ether => Some(LinkLayer::Ethernet),
        LinkLayerType::None
        | LinkLayerType::Rawip
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit
        | LinkLayerType::Ipgre
        | LinkLayerType::Ip6gre
        | LinkLayerType::Ppp => Some(LinkLayer::Bare),
        _ => Some(LinkLayer::Other),
    }
}

async fn namespace_id(handle: &Handle, namespace: &Namespace) -> Result<Option<i32>, ProbeError> {
    let Ok(descriptor) = u32::try_from(namespace.file.as_raw_fd()) else { return Ok(None) };
    let mut message = NsidMessage::default();
    message.attributes.push(NsidAttribute::Fd(descriptor));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(message));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let mut answers =
        handle.clone().request(request).map_err(|error| ProbeError::netlink("asking for a namespace's id", &error))?;
    let mut id = None;
    while let Some(answer) = answers.next().await {
        match answer.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(message)) => {
                id = message.attributes.iter().find_map(|attribute| match attribute {
                    // A negative id: none was assigned.
                    NsidAttribute::Id(id) if *id >= 0 => Some(*id),
                    _ => None,
                });
            }
            NetlinkPayload::Error(error) if error.code.is_some() => {
                return Err(ProbeError::netlink("asking for a namespace's id", &error));
            }
            _ => {}
        }
    }
    Ok(id)
}

/// The interface's own address: on point-to-point links the `Address` attribute is that of the other end.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}
