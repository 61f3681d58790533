//! Looks again whenever something may have changed: at once when the kernel says so, and every now and then anyway.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, SystemTime},
};

use futures::{StreamExt, channel::mpsc::UnboundedReceiver};
use rtnetlink::{
    MulticastGroup, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
    sys::SocketAddr,
};
use tokio::{task::JoinHandle, time::Instant};

use super::{Discovered, Look, Sighting, look};
use crate::error::ProbeError;

/// Events come in bursts: one look serves them all.
const SETTLE: Duration = Duration::from_millis(20);
/// An interface is there before the processes of its pod: how often, and how long, to look for them.
const EAGER_PAUSE: Duration = Duration::from_millis(200);
const EAGER_FOR: Duration = Duration::from_secs(10);

type Messages = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// Everything there is, then every change.
pub struct Watch {
    /// `None`: no events; it lives by looking alone.
    events: Option<Events>,
    interval: Duration,
    known: BTreeMap<u32, Discovered>,
    /// When each interface of the host was seen to appear; `None` for those of the first look.
    births: HashMap<u32, Option<SystemTime>>,
    queue: VecDeque<Sighting>,
    next_look: Instant,
    eager_until: Instant,
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
    /// Starts with everything there is; [`Self::next`] tells it first. `interval` is the time between full looks, which
    /// find what no event told: a pod's first process, an address that was added.
    ///
    /// # Errors
    /// The first look failed. Without events it goes on by looking alone.
    pub async fn start(interval: Duration) -> Result<Self, ProbeError> {
        // First the events, then the look: nothing that appears in between is missed.
        let events = match listen() {
            Ok(events) => Some(events),
            Err(error) => {
                tracing::warn!(error = %error, "no link events, looking every interval instead");
                None
            }
        };
        let now = Instant::now();
        let mut watch = Self {
            events,
            interval,
            known: BTreeMap::new(),
            births: HashMap::new(),
            queue: VecDeque::new(),
            next_look: now + interval,
            eager_until: now,
        };
        let look = look().await?;
        watch.births = look.interfaces.iter().map(|ifindex| (*ifindex, None)).collect();
        watch.compare(look);
        Ok(watch)
    }

    /// Waits for the next. Dropping the future loses nothing.
    ///
    /// # Errors
    /// A look failed; the next call looks again, an interval later.
    pub async fn next(&mut self) -> Result<Sighting, ProbeError> {
        loop {
            if let Some(sighting) = self.queue.pop_front() {
                return Ok(sighting);
            }
            tokio::select! {
                message = next_message(&mut self.events) => match message {
                    Some(message) => self.hear(&message),
                    None => {
                        tracing::warn!("link events ended, looking every interval instead");
                        self.events = None;
                    }
                },
                () = tokio::time::sleep_until(self.next_look) => {
                    // Only afterwards is the next one due: were this future dropped meanwhile, it would look again.
                    let result = look().await;
                    self.next_look = Instant::now() + self.interval;
                    self.compare(result?);
                }
            }
        }
    }

    fn hear(&mut self, message: &NetlinkMessage<RouteNetlinkMessage>) {
        match &message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                self.births.entry(link.header.index).or_insert_with(|| Some(SystemTime::now()));
                self.look_soon();
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                let ifindex = link.header.index;
                self.births.remove(&ifindex);
                if self.known.remove(&ifindex).is_some() {
                    self.queue.push_back(Sighting::Gone { ifindex });
                }
            }
            // The kernel dropped events because nobody read them in time.
            NetlinkPayload::Overrun(_) => self.look_soon(),
            _ => {}
        }
    }

    fn look_soon(&mut self) {
        let now = Instant::now();
        self.next_look = self.next_look.min(now + SETTLE);
        self.eager_until = now + EAGER_FOR;
    }

    /// Queues what differs from what is known.
    fn compare(&mut self, look: Look) {
        let Look { found, interfaces } = look;
        for mut discovered in found {
            let ifindex = discovered.ifindex;
            // No event told: it appeared between two looks at the latest now.
            let born = self.births.entry(ifindex).or_insert_with(|| Some(SystemTime::now()));
            discovered.born = *born;
            if self.known.get(&ifindex) != Some(&discovered) {
                self.known.insert(ifindex, discovered.clone());
                self.queue.push_back(Sighting::Found(discovered));
            }
        }
        // Only what the host has no more is gone: a namespace that could not be looked into keeps its interface.
        let gone: Vec<_> = self.known.keys().copied().filter(|ifindex| !interfaces.contains(ifindex)).collect();
        for ifindex in gone {
            self.known.remove(&ifindex);
            self.queue.push_back(Sighting::Gone { ifindex });
        }
        if self.events.is_none() {
            self.births.retain(|ifindex, _| interfaces.contains(ifindex));
        }
        let now = Instant::now();
        if now < self.eager_until && self.known.values().any(|discovered| discovered.pod_uid.is_none()) {
            self.next_look = self.next_look.min(now + EAGER_PAUSE);
        }
    }
}

fn listen() -> std::io::Result<Events> {
    let (connection, _, messages) = new_multicast_connection(&[MulticastGroup::Link])?;
    Ok(Events { messages, connection: tokio::spawn(connection) })
}

/// The next message; `None` when there will be none. Waits forever without events.
async fn next_message(events: &mut Option<Events>) -> Option<NetlinkMessage<RouteNetlinkMessage>> {
    match events {
        Some(events) => events.messages.next().await.map(|(message, _)| message),
        None => std::future::pending().await,
    }
}
