//! A running cluster: starts one, or finds one that runs.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{
    certificates, cgroups, control_plane, images,
    keeper::Lifeline,
    namespaces::{self, Namespaces},
    network, node,
    plan::{self, Node, Plan, Shape},
    removal,
};
use crate::{
    command::{output, quietly, succeeds},
    services::wait,
    setup::ClusterPrograms,
};

/// Builds machines with two cores are slow to start it at times.
const PATIENCE: Duration = Duration::from_secs(180);
const DNS_SERVER: &str = include_str!("dns.yaml");

/// A cluster that runs. It is removed on drop if this process started it, unless it was told to stay.
#[derive(Debug)]
pub struct Cluster {
    plan: Plan,
    programs: ClusterPrograms,
    outside: Namespaces,
    nodes: Vec<(Node, Namespaces)>,
    lifeline: Option<Lifeline>,
    /// While it starts.
    lock: Option<File>,
}

impl Cluster {
    /// Starts one, in place of what an earlier run of this `instance` may have left. `say` is told each step.
    pub fn start(instance: &str, shape: Shape, programs: ClusterPrograms, say: impl Fn(&str)) -> Result<Self> {
        let plan = Plan::new(instance, shape);
        let lock = removal::lock(&plan.folder)?;
        removal::remove_locked(&plan.folder)?;
        fs::create_dir_all(plan.logs())?;
        let lifeline = Lifeline::start(&plan.folder, &plan.logs().join("keeper.log"))?;
        let started = Instant::now();
        let say = |step: &str| say(&format!("{:5.1} s  {step}", started.elapsed().as_secs_f32()));
        certificates::make(&plan, lifeline.api)?;
        control_plane::write_files(&plan)?;
        say("certificates");
        let mut cluster = Self::make_namespaces(plan, programs, lifeline, lock)?;
        say("namespaces");
        cluster.start_programs(&say)?;
        fs::write(cluster.plan.shape_file(), cluster.plan.shape.to_string())?;
        cluster.lock = None;
        Ok(cluster)
    }

    /// The one that runs as `instance`, if there is one and no part of it was killed.
    pub fn open(instance: &str, programs: ClusterPrograms) -> Result<Option<Self>> {
        let Ok(shape) = fs::read_to_string(plan::folder(instance).join("shape")) else { return Ok(None) };
        let plan = Plan::new(instance, Shape::read(&shape)?);
        if !namespaces::is_kept(&plan.folder) {
            return Ok(None);
        }
        let find = |arguments: &[&str]| Namespaces::find(arguments, &plan.folder);
        let nodes = plan.nodes().map(|node| Some((node.clone(), find(&["--node", &node.name])?)));
        let (Some(outside), Some(nodes)) = (find(&[]), nodes.collect::<Option<Vec<_>>>()) else { return Ok(None) };
        Ok(Some(Self { plan, programs, outside, nodes, lifeline: None, lock: None }))
    }

    /// It stays when this process ends.
    pub fn let_stay(mut self) -> Result<()> {
        self.lifeline.take().map_or(Ok(()), Lifeline::let_stay)
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn nodes(&self) -> &[(Node, Namespaces)] {
        &self.nodes
    }

    /// The first node, which has the control plane.
    pub fn node(&self) -> Namespaces {
        self.nodes[0].1
    }

    /// A host of the nodes' network that is no part of the cluster.
    pub fn outside(&self) -> Namespaces {
        self.outside
    }

    /// kubectl with the rights of an administrator.
    pub fn kubectl(&self) -> Command {
        let mut kubectl = Command::new(self.programs.kubernetes.join("kubectl"));
        kubectl.env("KUBECONFIG", self.plan.kubeconfig());
        kubectl
    }

    /// Imports the images of a `docker save` archive on every node.
    pub fn load(&self, archive: &Path) -> Result<()> {
        std::thread::scope(|scope| {
            let imports: Vec<_> = self.nodes.iter().map(|(_, node)| scope.spawn(|| import(*node, archive))).collect();
            imports.into_iter().try_for_each(|import| import.join().expect("an import does not panic"))
        })
    }

    fn make_namespaces(plan: Plan, programs: ClusterPrograms, lifeline: Lifeline, lock: File) -> Result<Self> {
        let log = plan.logs().join("namespaces.log");
        let outside = Namespaces::create(&[], &plan.folder, &log)?;
        let mut nodes = Vec::new();
        for node in plan.nodes() {
            node::write_files(&plan, &node, &programs.cni_plugins)?;
            cgroups::create(&node.cgroup)?;
            let namespaces = Namespaces::create(&["--node", &node.name], &plan.folder, &log)?;
            nodes.push((node, namespaces));
        }
        network::connect(&plan, outside, &nodes)?;
        Ok(Self { plan, programs, outside, nodes, lifeline: Some(lifeline), lock: Some(lock) })
    }

    fn start_programs(&self, say: &impl Fn(&str)) -> Result<()> {
        let (plan, programs) = (&self.plan, &self.programs.kubernetes);
        let (first, _) = &self.nodes[0];
        let archive = images::write(
            &images::Programs {
                agnhost: &programs.join("agnhost"),
                coredns: &self.programs.coredns,
                busybox: &self.programs.busybox,
            },
            programs.join("images.tar"),
        )?;
        let mut children = Children::default();
        for (node, namespaces) in &self.nodes {
            children.start(self, node, *namespaces, node::containerd(node))?;
        }
        for program in control_plane::first_half(plan, programs, first) {
            children.start(self, first, self.node(), program)?;
        }
        for (_, node) in &self.nodes {
            let answers = || node.enter(|| succeeds(Command::new("ctr").arg("version")));
            children.wait("containerd answers", answers)?;
        }
        self.load(&archive)?;
        say("containerd runs and has the images");
        children.wait("the API server is ready", || Ok(self.is_ready()))?;
        say("the API server is ready");
        for program in control_plane::second_half(plan, programs) {
            children.start(self, first, self.node(), program)?;
        }
        for (node, namespaces) in &self.nodes {
            for program in node::agents(plan, programs, node) {
                children.start(self, node, *namespaces, program)?;
            }
        }
        self.apply(&DNS_SERVER.replace("IMAGE", &images::coredns()).replace("ADDRESS", &plan::DNS.to_string()))?;
        for (node, _) in &self.nodes {
            let name = format!("node/{}", node.name);
            let [v4, v6] = node.pod_ranges();
            // As on a cluster whose controllers hand the ranges out: here the CNI configuration has them already.
            let ranges = json!({ "spec": { "podCIDR": v4, "podCIDRs": [v4, v6] } }).to_string();
            children.wait("every node is registered", || Ok(self.asks(&["patch", &name, "-p", &ranges])))?;
            children.wait("every node is Ready", || {
                Ok(self.asks(&["wait", "--for=condition=Ready", &name, "--timeout=2s"]))
            })?;
        }
        // Without it no pod is admitted.
        children.wait("pods have an account", || Ok(self.asks(&["-n", "default", "get", "serviceaccount/default"])))?;
        say("every node is Ready");
        let dns = ["-n", "kube-system", "wait", "--for=condition=Available", "deployment/coredns", "--timeout=2s"];
        children.wait("names are resolved", || Ok(self.asks(&dns)))?;
        say("names are resolved");
        Ok(())
    }

    /// Kills a program of the first node, as a crash would.
    pub fn kill(&self, program: &str) -> Result<()> {
        self.node().kill(program)
    }

    /// Starts a program of the first node that was killed.
    pub fn restart(&self, program: &str) -> Result<()> {
        let (plan, programs) = (&self.plan, &self.programs.kubernetes);
        let (node, namespaces) = &self.nodes[0];
        let control_plane = control_plane::first_half(plan, programs, node);
        let all = control_plane.into_iter().chain(control_plane::second_half(plan, programs));
        let mut all = all.chain(node::agents(plan, programs, node)).chain([node::containerd(node)]);
        let (name, command) =
            all.find(|(name, _)| *name == program).with_context(|| format!("no program {program}"))?;
        namespaces.start(command, &self.log(node, name)).map(drop)
    }

    /// Whether its API server answers.
    pub fn is_ready(&self) -> bool {
        self.asks(&["get", "--raw", "/readyz", "--request-timeout=5s"])
    }

    fn asks(&self, arguments: &[&str]) -> bool {
        succeeds(self.kubectl().args(arguments))
    }

    /// `kubectl apply` of a manifest.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        let file = self.plan.folder.join("applied.yaml");
        fs::write(&file, manifest)?;
        quietly(self.kubectl().args(["apply", "-f"]).arg(&file))
    }

    /// The output of kubectl.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        output(self.kubectl().args(arguments))
    }

    fn log(&self, node: &Node, program: &str) -> PathBuf {
        self.plan.logs().join(format!("{}-{program}.log", node.name))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.lifeline.is_none() {
            return;
        }
        let folder = &self.plan.folder;
        let lock = self.lock.take().map_or_else(|| removal::lock(folder), Ok);
        if let Err(error) = lock.and_then(|_lock| removal::remove_locked(folder)) {
            eprintln!("{error:#}");
        }
    }
}

/// The programs of a cluster while it starts: one that ends then has failed.
#[derive(Default)]
struct Children(Vec<(String, PathBuf, Child)>);

impl Children {
    fn start(
        &mut self,
        cluster: &Cluster,
        node: &Node,
        namespaces: Namespaces,
        (name, command): (&str, Command),
    ) -> Result<()> {
        let log = cluster.log(node, name);
        let child = namespaces.start(command, &log)?;
        self.0.push((format!("{name} of {}", node.name), log, child));
        Ok(())
    }

    fn wait(&mut self, condition: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        wait(condition, PATIENCE, || {
            for (name, log, child) in &mut self.0 {
                if let Some(status) = child.try_wait()? {
                    let said = fs::read_to_string(log).unwrap_or_default();
                    let last: Vec<&str> = said.lines().rev().take(10).collect();
                    let last: Vec<&str> = last.into_iter().rev().collect();
                    bail!("{name} ended with {status}; it said:\n{}", last.join("\n"));
                }
            }
            done()
        })
    }
}

fn import(node: Namespaces, archive: &Path) -> Result<()> {
    let file = File::open(archive).with_context(|| format!("could not read {}", archive.display()))?;
    let mut ctr = Command::new("ctr");
    // Read from standard input: the archive may lie where the node has a folder of its own.
    ctr.args(["-n", "k8s.io", "images", "import", "-"]).stdin(file).stdout(Stdio::piped()).stderr(Stdio::piped());
    let done = node.enter(|| ctr.output())??;
    if !done.status.success() {
        bail!("{} cannot be imported: {}", archive.display(), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}
