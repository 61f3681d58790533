//! The objects that a command works on: manifests, what a cluster holds, or manifests laid over a cluster.

use std::path::{Path, PathBuf};

use clap::Args;
use netverdict_cluster::{Change, Fault, Layer, Layers, Scope};
use netverdict_manifest::{Finding, Object};

use crate::{
    cluster::ClusterOptions,
    manifests::{self, Manifests},
    terminal::Terminal,
};

const CLUSTER: Layer = Layer(0);
/// Over the cluster: what is about to be applied replaces what is there.
const MANIFESTS: Layer = Layer(1);

/// Where objects come from: what is named; where nothing is, the cluster that kubectl would ask.
#[derive(Args, Debug)]
pub(crate) struct Sources {
    /// Files or folders with manifests, - for standard input; may be given several times
    #[arg(short, long = "filename", num_args = 1.., value_name = "PATH")]
    filename: Vec<PathBuf>,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Objects {
    pub(crate) objects: Vec<Object>,
    /// Documents and objects that could not be read.
    pub(crate) findings: Vec<Finding>,
    pub(crate) origin: ObjectsOrigin,
    /// That of the cluster's context: what a name without namespace means there.
    pub(crate) namespace: Option<String>,
}

/// Where it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObjectsOrigin {
    Manifests,
    Cluster,
    /// A cluster, where an object that the manifests have too is theirs.
    ManifestsOverCluster,
}

impl ObjectsOrigin {
    /// The beginning of a sentence about what is there.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Manifests => "the manifests hold",
            Self::Cluster => "the cluster holds",
            Self::ManifestsOverCluster => "the manifests and the cluster hold",
        }
    }
}

impl Sources {
    /// Reads them. What is wrong with single documents and objects is a finding.
    ///
    /// # Errors
    /// A file, or the cluster, cannot be read at all.
    pub(crate) async fn read(&self, terminal: &mut Terminal) -> anyhow::Result<Objects> {
        let files = (!self.filename.is_empty()).then(|| manifests::read(&self.filename)).transpose()?;
        match files {
            Some(Manifests { objects, findings, .. }) if !self.cluster.is_named() => {
                Ok(Objects { objects, findings, origin: ObjectsOrigin::Manifests, namespace: None })
            }
            files => {
                let mut layers = Layers::default();
                let read = self.cluster.read(&mut layers, CLUSTER, &mut |text| terminal.progress(text)).await;
                terminal.end_progress();
                Ok(lay_over(files, layers, read?))
            }
        }
    }
}

/// `namespace`: of the cluster's context.
fn lay_over(files: Option<Manifests>, mut layers: Layers, namespace: String) -> Objects {
    let mut findings: Vec<Finding> = layers.faults().filter_map(finding).collect();
    let origin = match files {
        None => ObjectsOrigin::Cluster,
        Some(files) => {
            // All files are one scope: the order in which they were named decides which of two objects counts.
            layers.apply(MANIFESTS, Change::replace(&Scope::File(Path::new("-f").into()), files.objects));
            findings.extend(files.findings);
            ObjectsOrigin::ManifestsOverCluster
        }
    };
    Objects { objects: layers.into_objects(), findings, origin, namespace: Some(namespace) }
}

/// Objects of an API are refused one by one, each with a finding.
fn finding(fault: &Fault) -> Option<Finding> {
    match fault {
        Fault::Refused(finding) => Some((**finding).clone()),
        Fault::Unreadable(_) => None,
    }
}
