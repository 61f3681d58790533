//! The network between nodes: a bridge in a namespace of its own, which stands for the rest of the world, and an uplink of
//! each node to it. Pods reach the other node's pods over their nodes' routes, as with a flat network.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    namespaces::Namespaces,
    plan::{Cni, Node, OUTSIDE_V4, OUTSIDE_V6, PIN_ROOT, PLUGIN, Plan, RUN_DIR},
};
use crate::topology::ip_batch;

pub(super) fn connect(plan: &Plan, outside: Namespaces, nodes: &[(Node, Namespaces)]) -> Result<()> {
    let mut world = format!(
        "link set lo up\n\
         link add uplinks type bridge mcast_snooping 0\n\
         address add {OUTSIDE_V4}/24 dev uplinks\n\
         address add {OUTSIDE_V6}/64 dev uplinks nodad\n\
         link set uplinks up\n"
    );
    for (node, namespaces) in nodes {
        let (name, process) = (&node.name, namespaces.process());
        let [pods_v4, pods_v6] = node.pod_ranges();
        writeln!(world, "link add {name} type veth peer name uplink netns {process}")?;
        writeln!(world, "link set {name} master uplinks up")?;
        writeln!(world, "route add {pods_v4} via {}\nroute add {pods_v6} via {}", node.v4(), node.v6())?;
    }
    outside.enter_network(|| ip_batch(&world))??;
    for (node, namespaces) in nodes {
        let mut batch = format!(
            "link set lo up\n\
             address add {}/24 dev uplink\n\
             address add {}/64 dev uplink nodad\n\
             link set uplink up\n\
             route add default via {OUTSIDE_V4}\n\
             route add default via {OUTSIDE_V6}\n",
            node.v4(),
            node.v6()
        );
        for other in plan.nodes().filter(|other| other != node) {
            let [pods_v4, pods_v6] = other.pod_ranges();
            writeln!(batch, "route add {pods_v4} via {}\nroute add {pods_v6} via {}", other.v4(), other.v6())?;
        }
        namespaces.enter_network(|| ip_batch(&batch))??;
    }
    Ok(())
}

/// What containerd is told about the network of pods. `with_product`: our plugin is chained behind the others.
pub(super) fn cni_configuration(node: &Node, cni: Cni, with_product: bool) -> Value {
    let [v4, v6] = node.pod_ranges();
    let addresses = json!({
        "type": "host-local",
        "ranges": [[{ "subnet": v4 }], [{ "subnet": v6 }]],
        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
    });
    let plugin = match cni {
        Cni::Ptp => json!({ "type": "ptp", "ipMasq": false, "ipam": addresses }),
        Cni::Bridge => json!({
            "type": "bridge", "bridge": "pods", "isGateway": true, "hairpinMode": true, "ipMasq": false,
            "ipam": addresses,
        }),
    };
    let mut plugins = vec![plugin, json!({ "type": "portmap", "capabilities": { "portMappings": true } })];
    if with_product {
        // The cluster runs before the product does: its first pods start unjudged.
        plugins.push(json!({
            "type": PLUGIN, "pinRoot": PIN_ROOT, "runDir": RUN_DIR, "onUnavailable": "allow",
        }));
    }
    json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": plugins })
}
