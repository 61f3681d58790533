//! Bounded queues between threads and tasks, whose depth and capacity are metrics.
//!
//! A queue without a bound hides a consumer that is too slow until memory ends. With one, the producer waits (`send`),
//! or decides itself how to go on without room (`try_send`).

use std::{
    sync::mpsc::{self, Receiver, RecvError, RecvTimeoutError, SendError, SyncSender, TryRecvError, TrySendError},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

/// Between attempts of a task to send into a full queue: the receiver is a thread and wakes no task.
const RETRY: Duration = Duration::from_millis(5);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabel {
    /// From the calls of [`QueueMetrics::bounded`]: a closed list.
    queue: &'static str,
}

/// The metrics of all queues of a service. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct QueueMetrics {
    depth: Family<QueueLabel, Gauge>,
    capacity: Family<QueueLabel, Gauge>,
}

impl QueueMetrics {
    /// As `queue_depth` and `queue_capacity` below the registry's prefix.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("queue_depth", "Items that wait in a queue", self.depth.clone());
        registry.register("queue_capacity", "Items that a queue has room for", self.capacity.clone());
    }

    /// A queue with room for `capacity` items, at least one, under a name of its own.
    pub fn bounded<T>(&self, queue: &'static str, capacity: usize) -> (QueueSender<T>, QueueReceiver<T>) {
        let capacity = capacity.max(1);
        let label = QueueLabel { queue };
        self.capacity.get_or_create(&label).set(i64::try_from(capacity).unwrap_or(i64::MAX));
        let depth = self.depth.get_or_create(&label).clone();
        let (sender, receiver) = mpsc::sync_channel(capacity);
        (QueueSender { sender, depth: depth.clone() }, QueueReceiver { receiver, depth })
    }
}

/// The end that items are put into. Clones share the queue.
#[derive(Debug)]
pub struct QueueSender<T> {
    sender: SyncSender<T>,
    depth: Gauge,
}

impl<T> Clone for QueueSender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), depth: self.depth.clone() }
    }
}

impl<T> QueueSender<T> {
    /// A sender without a receiver, for work whose results are not needed: it refuses every item.
    pub fn disconnected() -> Self {
        Self { sender: mpsc::sync_channel(1).0, depth: Gauge::default() }
    }

    /// Waits for room. It blocks: not for a task.
    ///
    /// # Errors
    /// The receiver is gone.
    pub fn send(&self, item: T) -> Result<(), SendError<T>> {
        // Counted before: the receiver may take the item, and count it off, before `send` returns.
        self.depth.inc();
        self.sender.send(item).inspect_err(|_| _ = self.depth.dec())
    }

    /// Does not wait.
    ///
    /// # Errors
    /// There is no room, or the receiver is gone.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        self.depth.inc();
        self.sender.try_send(item).inspect_err(|_| _ = self.depth.dec())
    }

    /// For a task: waits for room without blocking its thread.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn send_async(&self, mut item: T) -> Result<(), SendError<T>> {
        loop {
            item = match self.try_send(item) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(item)) => item,
                Err(TrySendError::Disconnected(item)) => return Err(SendError(item)),
            };
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// The end that items are taken from.
#[derive(Debug)]
pub struct QueueReceiver<T> {
    receiver: Receiver<T>,
    depth: Gauge,
}

impl<T> QueueReceiver<T> {
    /// Waits for an item.
    ///
    /// # Errors
    /// The queue is empty and every sender is gone.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.receiver.recv().inspect(|_| _ = self.depth.dec())
    }

    /// # Errors
    /// No item came in time, or the queue is empty and every sender is gone.
    pub fn recv_timeout(&self, at_most: Duration) -> Result<T, RecvTimeoutError> {
        self.receiver.recv_timeout(at_most).inspect(|_| _ = self.depth.dec())
    }

    /// # Errors
    /// The queue is empty; every sender may be gone.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.receiver.try_recv().inspect(|_| _ = self.depth.dec())
    }

    /// Items that wait now.
    pub fn try_iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.try_recv().ok())
    }
}

impl<T> Drop for QueueReceiver<T> {
    fn drop(&mut self) {
        // Waiting items are dropped with the queue and must not be counted for ever.
        self.try_iter().for_each(drop);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn a_full_queue_takes_nothing_and_its_depth_is_a_metric() {
        let (metrics, mut registry) = (QueueMetrics::default(), Registry::with_prefix("netverdict_test"));
        metrics.register(&mut registry);
        let (sender, receiver) = metrics.bounded("inputs", 2);
        sender.send(1).unwrap();
        sender.try_send(2).unwrap();
        assert!(matches!(sender.try_send(3), Err(TrySendError::Full(3))));
        let found = text(&registry);
        assert!(found.contains("netverdict_test_queue_depth{queue=\"inputs\"} 2\n"), "{found}");
        assert!(found.contains("netverdict_test_queue_capacity{queue=\"inputs\"} 2\n"), "{found}");
        assert_eq!(receiver.recv(), Ok(1));
        assert!(text(&registry).contains("netverdict_test_queue_depth{queue=\"inputs\"} 1\n"));
        drop(receiver);
        assert!(matches!(sender.try_send(4), Err(TrySendError::Disconnected(4))));
        assert!(text(&registry).contains("netverdict_test_queue_depth{queue=\"inputs\"} 0\n"));
    }

    #[tokio::test]
    async fn a_task_waits_for_room_without_blocking() {
        let (sender, receiver) = QueueMetrics::default().bounded("inputs", 1);
        sender.send_async(1).await.unwrap();
        // On this one thread, the second item is sent only if waiting for room lets the taker run.
        let taken = async {
            tokio::task::yield_now().await;
            receiver.try_recv()
        };
        let (sent, taken) = tokio::join!(sender.send_async(2), taken);
        assert_eq!((sent, taken), (Ok(()), Ok(1)));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [2]);
        drop(receiver);
        assert!(sender.send_async(3).await.is_err());
    }
}
