//! Two workloads of one namespace want to reach a web server in another. By default deny neither does; then one is
//! allowed, by namespace and label, and the other is told how near it came.

use serde_json::{Value, json};
use xtask::{
    cluster::{Attempt, Shape},
    demo::cluster::{ALLOW, DEFAULT_DENY, WORKLOADS},
};

use crate::world::World;

const PORT: u16 = 8080;

#[test]
fn a_denied_workload_is_told_which_policies_denied_it_and_what_was_nearest() {
    let Some(world) = World::start("live", Shape::default(), WORKLOADS) else { return };
    let (web, lol, miao) = (world.pod("app=lol-default"), world.pod("app=lol-yahoo"), world.pod("app=miao-yahoo"));
    let addresses = world.addresses("pod", &web, ".status.podIPs[*].ip");
    let destination = format!("{web}:{PORT}/TCP");
    for (client, address) in [&lol, &miao].into_iter().flat_map(|client| addresses.map(|address| (client, address))) {
        assert_eq!(world.connect(client, address, PORT), Attempt::Answered, "{client} without policies");
    }

    world.cluster.apply(DEFAULT_DENY).expect("applied");
    for (client, address) in [&lol, &miao].into_iter().flat_map(|client| addresses.map(|address| (client, address))) {
        world.until(Attempt::TimedOut, client, address, PORT);
    }
    for client in [&lol, &miao] {
        let point = world.denied_at_ingress(client, &destination);
        assert_eq!(names(&point["decided_by"]), ["default/default-deny-ingress"], "{point}");
    }

    world.cluster.apply(ALLOW).expect("applied");
    for address in addresses {
        world.until(Attempt::Answered, &lol, address, PORT);
        assert_eq!(world.connect(&miao, address, PORT), Attempt::TimedOut);
    }
    let answer = world.product.why(&lol, &destination).expect("an answer");
    assert_eq!(answer["verdict"], "allowed", "{answer}");
    let point = world.denied_at_ingress(&miao, &destination);
    let expected = ["default/allow-lol-yahoo-lol-default", "default/default-deny-ingress"];
    assert_eq!(names(&point["decided_by"]), expected, "{point}");
    // In words, as people read it.
    let text = world.product.netverdict(&["why", &miao, &destination]).expect("an answer");
    assert!(text.contains("allow-lol-yahoo-lol-default") && text.contains("app=miao-yahoo"), "{text}");
}

impl World {
    /// The point that denied the last connection. It must be on record: enforced, not evaluated afterwards.
    fn denied_at_ingress(&self, source: &str, destination: &str) -> Value {
        let answer = self.product.why(source, destination).expect("an answer");
        let point = &answer["points"][1];
        let expected = json!(["denied", "destination-ingress", "denied", "dropped", "enforced"]);
        let found = ["point", "verdict", "disposition", "method"].map(|field| &point[field]);
        assert_eq!(json!([answer["verdict"], found[0], found[1], found[2], found[3]]), expected, "{answer}");
        point.clone()
    }
}

fn names(deciders: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = |decider: &Value| format!("{}/{}", text(&decider["namespace"]), text(&decider["name"]));
    let mut names: Vec<String> = deciders.as_array().expect("deciders").iter().map(name).collect();
    names.sort();
    names
}
