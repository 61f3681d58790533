use crate::world::{World, ago};
#[tokio::test(flavor = "multi_thread")]
async fn zz_keep() {
    let mut world = World::new().await;
    let mut rows = world.attempt("shop/web", "db/pg", 5432, ago(60));
    rows.extend(world.attempt("shop/api", "db/pg", 5432, ago(50)));
    world.write(2, &rows);
    std::process::Command::new("cp").args(["-r", world.data().to_str().unwrap(), "/tmp/nvdata"]).status().unwrap();
}
