//! Between a receiver and the log: the port once it is bound, and the queue that it hands its batches to.

use std::{net::SocketAddr, pin::Pin};

use netverdict_service::{
    queue::{QueueMetrics, QueueReceiver, QueueSender},
    shutdown::Shutdown,
};

use crate::{drain::Delivery, metrics::Metrics};

/// Deliveries that may wait for the log.
pub const WAITING: usize = 2;

/// Runs a receiver until a stop is requested.
pub type Serve = Box<dyn FnOnce(Inlet) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// A receiver whose port is bound and that waits to be served.
pub struct BoundReceiver {
    /// As in logs, metrics and the ready file: one of a closed list.
    pub name: &'static str,
    pub address: SocketAddr,
    pub serve: Serve,
}

/// The side of the log that takes a receiver's batches.
#[derive(Clone)]
pub struct Inlet {
    pub deliveries: QueueSender<Delivery>,
    pub metrics: Metrics,
    pub end: Shutdown,
}

/// The queue between receivers and the log.
pub fn deliveries(queues: &QueueMetrics) -> (QueueSender<Delivery>, QueueReceiver<Delivery>) {
    queues.bounded("deliveries", WAITING)
}
