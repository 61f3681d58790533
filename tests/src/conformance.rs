//! The conformance cases: policies, flows, and the expected decisions, read from `conformance/*.yaml`.
//!
//! It runs nothing itself: a suite takes [`cases`], sends each flow its own way, and asks [`ExpectedPoint::differences`].
//! [`FlowCase::needs`] and [`inexpressible`] name the flows that a way cannot send.

mod expected;
mod file;
mod v1alpha1;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use netverdict_manifest::{Finding, Object};
use netverdict_policy::{End, Flow, ObjectKey, Snapshot, Verdict, model::Pod};
use serde_json::Value;

pub use self::{expected::ExpectedPoint, file::State};
use self::{
    expected::Names,
    file::{FlowText, StepText, Table},
};

/// One numbered case, in one spelling.
#[derive(Clone, Debug)]
pub struct Case {
    /// `T-001`.
    pub id: String,
    /// The behaviour that it shows.
    pub says: String,
    pub spelling: Spelling,
    /// In order: each changes the state that the one before it left.
    pub steps: Vec<Step>,
}

/// In which version the ordered tiers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spelling {
    /// ClusterNetworkPolicy, or no ordered tier at all.
    V1alpha2,
    /// AdminNetworkPolicy and BaselineAdminNetworkPolicy, translated from the former.
    V1alpha1,
}

/// A state of the cluster and the facts that have to hold in it.
#[derive(Clone, Debug)]
pub struct Step {
    /// Everything that there is, as Kubernetes objects.
    pub manifests: Vec<Value>,
    /// DNS names and the addresses that they are known to have.
    pub names: BTreeMap<String, BTreeSet<std::net::IpAddr>>,
    /// All of it, read.
    pub snapshot: Arc<Snapshot>,
    /// Findings of reading and linting.
    pub findings: Vec<Finding>,
    /// Codes that have to be among the findings. Without any, nothing of severity error may be.
    pub expected_findings: Vec<String>,
    pub flows: Vec<FlowCase>,
}

/// One flow, and its expected outcome.
#[derive(Clone, Debug)]
pub struct FlowCase {
    /// As the file has it.
    pub text: String,
    /// After a Service's address has become its backend's.
    pub flow: Flow,
    pub state: State,
    /// The Service's address that the source connects to, where it is one.
    pub via: Option<SocketAddr>,
    pub verdict: Verdict,
    /// Source egress before destination ingress.
    pub points: Vec<ExpectedPoint>,
    needs: BTreeSet<Need>,
}

/// Abilities that a way of sending needs for a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Connections that were allowed before a change.
    Established,
    /// Recognises replies and ICMP errors.
    ConnectionTracking,
    NeighbourDiscovery,
    /// Translates a Service's address.
    Service,
    /// Tells a pod that reaches itself through a Service from a pod that reaches its own address.
    ServiceHairpin,
    /// Sees traffic of a pod to itself.
    SelfTraffic,
    /// Knows that a connection was let through by a name that no longer has the address.
    NameOutlived,
    /// Judges packets that pass by no pod's interface.
    HostNetwork,
}

/// Needs that the real programs lack, at the host's side of pods' interfaces.
pub const KERNEL_LACKS: &[Need] = &[Need::ServiceHairpin, Need::SelfTraffic, Need::NameOutlived, Need::HostNetwork];

impl FlowCase {
    pub fn needs(&self) -> &BTreeSet<Need> {
        &self.needs
    }
}

impl Case {
    /// Whether some flow needs one of these.
    pub fn needs_any(&self, lacking: &[Need]) -> bool {
        self.steps.iter().flat_map(|step| &step.flows).any(|flow| lacking.iter().any(|need| flow.needs.contains(need)))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.spelling {
            Spelling::V1alpha2 => f.write_str(&self.id),
            Spelling::V1alpha1 => write!(f, "{} as v1alpha1", self.id),
        }
    }
}

/// Where the files are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance")
}

/// Every case, by number, in all its spellings.
///
/// # Errors
/// A file cannot be read, or has content that no case may have.
pub fn cases() -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for path in files(&folder())? {
        let table: Table = read_yaml(&path)?;
        let fixture = match &table.fixture {
            Some(name) => fixture(&folder().join("fixtures").join(format!("{name}.yaml")))?,
            None => Vec::new(),
        };
        for case in &table.cases {
            let mut spellings = vec![Spelling::V1alpha2];
            if table.also_v1alpha1 && case.v1alpha1 {
                spellings.push(Spelling::V1alpha1);
            }
            for spelling in spellings {
                let read = build(case, spelling, &fixture);
                cases.push(read.with_context(|| format!("{}, {}", path.display(), case.id))?);
            }
        }
    }
    cases.sort_by(|a, b| (&a.id, a.spelling).cmp(&(&b.id, b.spelling)));
    Ok(cases)
}

/// Way of sending → case → why it cannot send all of the case's flows.
pub fn inexpressible() -> anyhow::Result<BTreeMap<String, BTreeMap<String, String>>> {
    read_yaml(&folder().join(INEXPRESSIBLE))
}

const INEXPRESSIBLE: &str = "inexpressible.yaml";

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        let is_table = path.extension().is_some_and(|extension| extension == "yaml");
        if is_table && path.file_name().is_none_or(|name| name != INEXPRESSIBLE) {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn read_yaml<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    // `y` is a namespace here, not a truth.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(&text, options).with_context(|| format!("cannot understand {}", path.display()))
}

fn fixture(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (objects, findings) = netverdict_manifest::read(&text, &path.to_string_lossy());
    ensure!(findings.is_empty(), "{}: {findings:?}", path.display());
    Ok(objects.into_iter().map(|object| object.value).collect())
}

fn build(case: &file::CaseText, spelling: Spelling, fixture: &[Value]) -> anyhow::Result<Case> {
    let mut world = World { spelling, objects: fixture.to_vec(), names: BTreeMap::new() };
    world.apply(&case.base)?;
    let steps = if case.steps.is_empty() {
        vec![world.step(&case.base)?]
    } else {
        ensure!(case.base.flows.is_empty(), "flows beside steps; put them into a step");
        let take = |step| {
            world.apply(step)?;
            world.step(step)
        };
        case.steps.iter().map(take).collect::<anyhow::Result<_>>()?
    };
    Ok(Case { id: case.id.clone(), says: case.says.clone(), spelling, steps })
}

/// Objects and names after the steps so far.
struct World {
    spelling: Spelling,
    objects: Vec<Value>,
    names: BTreeMap<String, BTreeSet<std::net::IpAddr>>,
}

impl World {
    fn apply(&mut self, step: &StepText) -> anyhow::Result<()> {
        for object in step.objects.iter().chain(&step.policies) {
            let object = file::with_version(object.clone())?;
            let object = match self.spelling {
                Spelling::V1alpha2 => object,
                Spelling::V1alpha1 => v1alpha1::translated(object),
            };
            match self.objects.iter_mut().find(|other| identity(other) == identity(&object)) {
                Some(other) => *other = object,
                None => self.objects.push(object),
            }
        }
        for name in &step.remove {
            let before = self.objects.len();
            self.objects.retain(|object| identity(object) != *name);
            ensure!(self.objects.len() < before, "nothing is called {name}");
        }
        if let Some(names) = &step.names {
            self.names.clone_from(names);
        }
        Ok(())
    }

    fn step(&self, text: &StepText) -> anyhow::Result<Step> {
        let objects =
            self.objects.iter().map(|value| object(value.clone())).collect::<anyhow::Result<Vec<Object>>>()?;
        let mut reading = netverdict_manifest::snapshot(&objects);
        reading.snapshot.names.clone_from(&self.names);
        let mut findings = reading.findings.clone();
        findings.extend(netverdict_manifest::lint(&reading));
        let snapshot = Arc::new(reading.snapshot);
        let names = Names::of(&snapshot);
        let flows = text.flows.iter().map(|flow| {
            let built = flow_case(flow, &snapshot, &names, text.names.is_some());
            built.with_context(|| flow.flow.clone())
        });
        Ok(Step {
            flows: flows.collect::<anyhow::Result<_>>()?,
            manifests: self.objects.clone(),
            names: self.names.clone(),
            snapshot,
            findings,
            expected_findings: text.findings.clone(),
        })
    }
}

fn object(value: Value) -> anyhow::Result<Object> {
    let read = netverdict_manifest::object_from_value(value, netverdict_manifest::Origin::Api);
    read.map_err(|finding| anyhow::anyhow!("{finding}"))
}

/// `NetworkPolicy x/deny`.
fn identity(value: &Value) -> String {
    let text = |pointer| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let key = ObjectKey::new(text("/metadata/namespace"), text("/metadata/name"));
    format!("{} {key}", text("/kind"))
}

fn flow_case(text: &FlowText, snapshot: &Snapshot, names: &Names, names_change: bool) -> anyhow::Result<FlowCase> {
    let flow = text.read()?;
    let source = pod(snapshot, &flow.source)?;
    let destination = pod(snapshot, &flow.destination)?;
    let points: Vec<_> = [
        (netverdict_policy::PointName::SourceEgress, source, &text.egress),
        (netverdict_policy::PointName::DestinationIngress, destination, &text.ingress),
    ]
    .into_iter()
    .map(|(name, pod, expected)| match (pod.filter(|pod| pod.takes_part()), expected) {
        (Some(pod), expected) => Ok(Some(ExpectedPoint::new(name, pod.key(), expected.as_ref(), names)?)),
        (None, None) => Ok(None),
        (None, Some(_)) => bail!("{name} is expected of what is no pod that takes part"),
    })
    .filter_map(Result::transpose)
    .collect::<anyhow::Result<_>>()?;
    let mut needs = BTreeSet::new();
    let mut need = |what, is_needed| {
        if is_needed {
            needs.insert(what);
        }
    };
    let to_itself = flow.source == flow.destination;
    need(Need::Established, text.state == State::Established);
    need(Need::ConnectionTracking, matches!(text.state, State::Reply | State::Related));
    need(Need::NeighbourDiscovery, text.state == State::NeighbourDiscovery);
    need(Need::Service, text.via.is_some());
    need(Need::ServiceHairpin, text.via.is_some() && to_itself);
    need(Need::SelfTraffic, to_itself);
    need(Need::NameOutlived, text.state == State::Established && names_change);
    need(Need::HostNetwork, points.is_empty());
    Ok(FlowCase {
        text: text.flow.clone(),
        flow,
        state: text.state,
        via: text.via,
        verdict: text.verdict,
        points,
        needs,
    })
}

fn pod<'a>(snapshot: &'a Snapshot, end: &End) -> anyhow::Result<Option<&'a Pod>> {
    match end {
        End::Address(_) => Ok(None),
        End::Pod(key) => match snapshot.pods.get(key) {
            Some(pod) => Ok(Some(pod)),
            None => bail!("there is no pod {key}"),
        },
    }
}
