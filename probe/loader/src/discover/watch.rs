//! Watches the pods' interfaces and the node's own addresses: reads them shortly after each event, and at a fixed interval
//! for changes without an event.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::IpAddr,
    time::{Duration, SystemTime},
};

use futures::{StreamExt, channel::mpsc::UnboundedReceiver};
use rtnetlink::{
    MulticastGroup, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{AddressFamily, RouteNetlinkMessage},
    sys::SocketAddr,
};
use tokio::{task::JoinHandle, time::Instant};

use super::{
    discovered::{Discovered, Sighting, Uncovered, Uplink},
    netlink,
    scan::{Scan, scan_host},
};
use crate::error::ProbeError;

/// How long to wait after an event before the scan, because events come in bursts.
const SETTLE: Duration = Duration::from_millis(20);
/// An interface exists before the processes of its pod do. After an event, while a pod is not known, scans follow at
/// this interval …
const FREQUENT_INTERVAL: Duration = Duration::from_millis(200);
/// … for this long.
const FREQUENT_FOR: Duration = Duration::from_secs(10);

/// An interface that is deleted loses its addresses with an event for each.
const EVENTS: [MulticastGroup; 3] = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];

type Messages = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// Reports every interface, then every change of the interfaces and of the node's own addresses.
pub struct Watch {
    /// `None`: events are not available; changes are found by the scans at the interval.
    events: Option<Events>,
    interval: Duration,
    known: BTreeMap<u32, Discovered>,
    /// When each interface of the host appeared; `None` for those of the first scan.
    births: HashMap<u32, Option<SystemTime>>,
    queue: VecDeque<Sighting>,
    next_scan: Instant,
    frequent_until: Instant,
    own_addresses: BTreeSet<IpAddr>,
    next_read: Instant,
    uncovered: BTreeSet<Uncovered>,
    uplinks: Vec<Uplink>,
}

struct Events {
    messages: Messages,
    connection: JoinHandle<()>,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Watch {
    /// Scans once; [`Self::next`] returns the result first. `interval` is the time between scans without an event. They
    /// find changes that cause no link event: a pod's first process, an added address.
    ///
    /// # Errors
    /// The first scan failed, or the node's own addresses cannot be read. If events are not available, the watch works with scans alone.
    pub async fn start(interval: Duration) -> Result<Self, ProbeError> {
        // Events before the scan, so that an interface which appears in between is not missed.
        let events = match listen() {
            Ok(events) => Some(events),
            Err(error) => {
                tracing::warn!(error = %error, "events of interfaces are not available, scanning at the interval instead");
                None
            }
        };
        let own_addresses = netlink::own_addresses().await?;
        let now = Instant::now();
        let mut watch = Self {
            events,
            interval,
            known: BTreeMap::new(),
            births: HashMap::new(),
            queue: VecDeque::new(),
            next_scan: now + interval,
            frequent_until: now,
            own_addresses,
            next_read: now + interval,
            uncovered: BTreeSet::new(),
            uplinks: Vec::new(),
        };
        let scan = scan_host().await?;
        watch.births = scan.interfaces.iter().map(|ifindex| (*ifindex, None)).collect();
        watch.compare(scan);
        Ok(watch)
    }

    /// All addresses of the interfaces in this process's network namespace, which is the node's: addresses that the API
    /// server knows, and addresses of gateways, bridges and tunnels that it does not. The kubelet probes pods from any of
    /// them. With link-local addresses, without loopback ones.
    pub fn own_addresses(&self) -> &BTreeSet<IpAddr> {
        &self.own_addresses
    }

    /// Waits for the next sighting. Cancel-safe.
    ///
    /// # Errors
    /// A scan failed; a later call repeats it after the interval.
    pub async fn next(&mut self) -> Result<Sighting, ProbeError> {
        loop {
            if let Some(sighting) = self.queue.pop_front() {
                return Ok(sighting);
            }
            tokio::select! {
                message = next_message(&mut self.events) => match message {
                    Some(message) => self.handle(&message),
                    None => {
                        tracing::warn!("events of interfaces ended, scanning at the interval instead");
                        self.events = None;
                    }
                },
                () = tokio::time::sleep_until(self.next_scan) => {
                    // The next scan is scheduled after this one: if the future is dropped meanwhile, the scan is repeated.
                    let result = scan_host().await;
                    self.next_scan = Instant::now() + self.interval;
                    self.compare(result?);
                }
                () = tokio::time::sleep_until(self.next_read) => {
                    let result = netlink::own_addresses().await;
                    self.next_read = Instant::now() + self.interval;
                    let addresses = result?;
                    if addresses != self.own_addresses {
                        self.own_addresses = addresses;
                        return Ok(Sighting::OwnAddresses(self.own_addresses.clone()));
                    }
                }
            }
        }
    }

    fn handle(&mut self, message: &NetlinkMessage<RouteNetlinkMessage>) {
        match &message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                self.births.entry(link.header.index).or_insert_with(|| Some(SystemTime::now()));
                self.scan_soon();
            }
            // A message of the bridge family says that an interface has left its bridge. It is still there.
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))
                if link.header.interface_family == AddressFamily::Bridge => {}
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                let ifindex = link.header.index;
                self.births.remove(&ifindex);
                if self.known.remove(&ifindex).is_some() {
                    self.queue.push_back(Sighting::Gone { ifindex });
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_)) => {
                self.read_soon();
            }
            // The kernel dropped events because they were not read in time.
            NetlinkPayload::Overrun(_) => {
                self.scan_soon();
                self.read_soon();
            }
            _ => {}
        }
    }

    fn scan_soon(&mut self) {
        let now = Instant::now();
        self.next_scan = self.next_scan.min(now + SETTLE);
        self.frequent_until = now + FREQUENT_FOR;
    }

    fn read_soon(&mut self) {
        self.next_read = self.next_read.min(Instant::now() + SETTLE);
    }

    /// Queues the differences between a scan and the last one.
    fn compare(&mut self, scan: Scan) {
        let Scan { found, interfaces, uncovered, uplinks } = scan;
        if uncovered != self.uncovered {
            self.uncovered = uncovered;
            self.queue.push_back(Sighting::Uncovered(self.uncovered.clone()));
        }
        // Before the pods: a pod's egress is judged completely only with the ways out.
        if uplinks != self.uplinks {
            self.uplinks.clone_from(&uplinks);
            self.queue.push_back(Sighting::Uplinks(uplinks));
        }
        for mut discovered in found {
            let ifindex = discovered.ifindex;
            // Without an event, the time of the scan is the latest at which it can have appeared.
            let born = self.births.entry(ifindex).or_insert_with(|| Some(SystemTime::now()));
            discovered.born = *born;
            if self.known.get(&ifindex) != Some(&discovered) {
                self.known.insert(ifindex, discovered.clone());
                self.queue.push_back(Sighting::Found(discovered));
            }
        }
        // An interface is gone only if the host does not list it: its namespace may just not have been readable.
        let gone: Vec<_> = self.known.keys().copied().filter(|ifindex| !interfaces.contains(ifindex)).collect();
        for ifindex in gone {
            self.known.remove(&ifindex);
            self.queue.push_back(Sighting::Gone { ifindex });
        }
        if self.events.is_none() {
            self.births.retain(|ifindex, _| interfaces.contains(ifindex));
        }
        let now = Instant::now();
        if now < self.frequent_until && self.known.values().any(|discovered| discovered.pod_uid.is_none()) {
            self.next_scan = self.next_scan.min(now + FREQUENT_INTERVAL);
        }
    }
}

fn listen() -> std::io::Result<Events> {
    let (connection, _, messages) = new_multicast_connection(&EVENTS)?;
    Ok(Events { messages, connection: tokio::spawn(connection) })
}

/// The next message; `None` at the end of the stream. Never returns if events are not available.
async fn next_message(events: &mut Option<Events>) -> Option<NetlinkMessage<RouteNetlinkMessage>> {
    match events {
        Some(events) => events.messages.next().await.map(|(message, _)| message),
        None => std::future::pending().await,
    }
}
