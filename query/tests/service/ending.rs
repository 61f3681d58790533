//! How the service ends.

use std::time::Duration;

use crate::world::{World, bound};

/// Its ports end as soon as the end is requested, perhaps before the service looks at why one ended.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_that_was_asked_for_is_no_failure() {
    let world = World::new().await;
    // Which of the two ends it sees first is chance: each time it must be the request.
    for _ in 0..10 {
        let (service, stop) = bound(&world, &[]).await.expect("it starts");
        let address = service.address("http").expect("a port of that name");
        stop.request();
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        service.run().await.expect("no failure");
    }
}
