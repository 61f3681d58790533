//! Parts that the services share, written once: telemetry, secrets and tokens, system calls given up, shutdown, threads and
//! tasks, queues, health, TLS, and HTTP servers with limits. It knows nothing of flows, SQL or Kubernetes.
//!
//! # The task model
//!
//! **A thread** is work that blocks: the kernel's rings, files, compiling, evaluation. The threads of a service are a
//! [`thread_group::ThreadGroup`]. **A task** is work that waits for sockets, timers and signals; the long-lived tasks of
//! a service are a [`task_group::TaskGroup`], and the tasks of connections belong to the server that accepted them. A
//! task never blocks: it gives work that does to a thread (`spawn_blocking`, or the query threads) and awaits the
//! result. No thread or task is detached: its group, server or caller joins it.
//!
//! **How it ends.** There is one [`shutdown::Shutdown`], passed in by `main`. A signal requests it; so does the end of
//! any thread or task before its time, with its error or panic as the reason, which becomes the exit code. Then parts end in
//! the direction of the data: first producers (cluster source, control, accept loops), then consumers. A
//! consumer ends when its queue is empty and all senders are gone, so nothing that was accepted is lost. Ports that report
//! the service's state (health, metrics) end last.
//!
//! **Queues.** Every queue between threads or tasks is a [`queue`]: bounded, with depth and capacity as
//! metrics. Where a producer must not wait, it drops items that the next item replaces; for items that must not be dropped
//! the producer waits.

pub mod bearer;
pub mod confine;
pub mod connection_limit;
pub mod endpoint_url;
pub mod error_chain;
pub mod health;
pub mod http_server;
pub mod quantity;
pub mod queue;
pub mod secret;
pub mod shutdown;
pub mod task_group;
pub mod telemetry;
pub mod thread_group;
pub mod tls;
pub mod variable;
