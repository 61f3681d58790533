//! The story of two workloads that want to reach a web server in another namespace, on a whole real cluster: default deny,
//! silence for both; then one is allowed, by namespace and label, and the other is told how near it came.

use std::net::IpAddr;

use anyhow::{Result, ensure};

use super::steps::{VISIBLE_WITHIN, say};
use crate::{
    cluster::{Attempt, Cluster, Product, Shape, agnhost},
    ebpf, machine,
    services::{self, Profile, wait},
    setup,
};

/// A cluster that runs already is another instance.
const INSTANCE: &str = "demo";
const PORT: u16 = 8080;
/// The workloads; AGNHOST stands for the image.
pub const WORKLOADS: &str = include_str!("cluster/workloads.yaml");
pub const DEFAULT_DENY: &str = include_str!("cluster/default-deny.yaml");
pub const ALLOW: &str = include_str!("cluster/allow.yaml");

pub(super) fn run() -> Result<()> {
    machine::kernel().map_err(anyhow::Error::msg)?;
    let programs = setup::cluster_programs()?;
    let object = ebpf::build()?;
    services::build(Profile::Dev)?;
    say(&format!("Kubernetes {} with a collector that enforces on its node", setup::KUBERNETES_VERSION));
    let cluster = Cluster::start(INSTANCE, Shape::default(), programs, |step| println!("  {step}"))?;
    let product = Product::start(&cluster, &object, Profile::Dev)?;

    say("A web server in one namespace, two workloads in another");
    apply(&cluster, "workloads.yaml", &WORKLOADS.replace("AGNHOST", &agnhost()))?;
    for namespace in ["default", "yahoo"] {
        show(
            &cluster,
            &["-n", namespace, "wait", "--for=condition=Available", "deployment", "--all", "--timeout=60s"],
        )?;
    }
    let [web, lol, miao] = ["lol-default", "lol-yahoo", "miao-yahoo"].map(|app| cluster.pod(&format!("app={app}")));
    let story = Story { web: web?, clients: [lol?, miao?], cluster: &cluster, product: &product };
    story.try_until([Attempt::Answered, Attempt::Answered])?;

    say("Default deny");
    apply(&cluster, "default-deny.yaml", DEFAULT_DENY)?;
    story.try_until([Attempt::TimedOut, Attempt::TimedOut])?;
    story.ask(0, "default-deny-ingress")?;

    say("One of them is allowed, by namespace and label");
    apply(&cluster, "allow.yaml", ALLOW)?;
    story.try_until([Attempt::Answered, Attempt::TimedOut])?;
    story.ask(0, "allowed")?;
    story.ask(1, "allow-lol-yahoo-lol-default")
}

struct Story<'a> {
    cluster: &'a Cluster,
    product: &'a Product,
    web: String,
    clients: [String; 2],
}

impl Story<'_> {
    /// Both clients try, over both families, until they fare as expected: a policy takes a moment to come into force.
    fn try_until(&self, expected: [Attempt; 2]) -> Result<()> {
        for address in self.cluster.pod_addresses(&self.web)? {
            let attempts = || -> Result<[Attempt; 2]> {
                let [lol, miao] = &self.clients;
                Ok([self.attempt(lol, address)?, self.attempt(miao, address)?])
            };
            wait(&format!("attempts to {address} fare as the policies ask"), VISIBLE_WITHIN, || {
                Ok(attempts()? == expected)
            })?;
            for (client, attempt) in self.clients.iter().zip(expected) {
                println!("  {client} to {address} port {PORT}: {attempt:?}");
            }
        }
        Ok(())
    }

    fn attempt(&self, client: &str, address: IpAddr) -> Result<Attempt> {
        self.cluster.connect(client, address, PORT)
    }

    fn ask(&self, client: usize, expected: &str) -> Result<()> {
        let destination = format!("{}:{PORT}/TCP", self.web);
        println!("$ kubectl verdict why {} {destination}", self.clients[client]);
        let answer = self.product.netverdict(&["why", &self.clients[client], &destination])?;
        answer.lines().for_each(|line| println!("  {line}"));
        ensure!(answer.contains(expected), "the answer does not say `{expected}`");
        Ok(())
    }
}

fn apply(cluster: &Cluster, name: &str, manifest: &str) -> Result<()> {
    println!("$ kubectl apply -f {name}");
    cluster.apply(manifest)
}

fn show(cluster: &Cluster, arguments: &[&str]) -> Result<()> {
    println!("$ kubectl {}", arguments.join(" "));
    cluster.ask(arguments)?.lines().for_each(|line| println!("  {line}"));
    Ok(())
}
