//! Objects as a cluster's API server has them now: every kind that a verdict can depend on, read once.
//!
//! All or nothing: without one of the kinds a verdict would be a guess, so what may not be listed is an error. A kind
//! that the cluster does not serve has no objects there.

mod error;

use std::{path::PathBuf, time::Duration};

use clap::Args;
use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, TypeMeta},
    config::{KubeConfigOptions, Kubeconfig},
    discovery::{self, ApiGroup},
};
use netverdict_manifest::{Finding, Object, Origin};

pub(crate) use self::error::ClusterError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An API server itself gives up after a minute.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(70);
/// Objects an answer: what kubectl asks for too.
const PAGE: u32 = 500;
/// How often a list is begun anew when it changed too much while we turned its pages.
const MOST_BEGINNINGS: usize = 3;
/// The group that is part of every cluster, named by no more than its version.
const CORE: &str = "";

/// Which cluster to ask.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct ClusterOptions {
    /// Kubeconfig of the cluster to read [default: $KUBECONFIG, ~/.kube/config, or the pod's own account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// What a cluster holds.
#[derive(Debug)]
pub(crate) struct Holdings {
    pub(crate) objects: Vec<Object>,
    /// Objects that are none.
    pub(crate) findings: Vec<Finding>,
    /// That of the context: what a name without namespace means.
    pub(crate) namespace: String,
}

impl ClusterOptions {
    /// Whether the user said which cluster.
    pub(crate) fn is_named(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }

    /// Reads it. `tell` hears how far it is.
    pub(crate) async fn read(&self, tell: &mut dyn FnMut(&str)) -> Result<Holdings, ClusterError> {
        let mut config = self.config().await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(ANSWER_TIMEOUT);
        config.reset_reader_on_write = true;
        let server = config.cluster_url.to_string();
        let namespace = config.default_namespace.clone();
        let failed = |doing: &str, source| ClusterError::asking(&server, doing, source);
        let client = Client::try_from(config).map_err(|source| failed("connect", source))?;
        let mut holdings = Holdings { objects: Vec::new(), findings: Vec::new(), namespace };
        for resource in served(&client).await.map_err(|source| failed("ask which kinds it serves", source))? {
            let objects = list(&client, &resource, tell)
                .await
                .map_err(|source| failed(&format!("list {}", resource.plural), source))?;
            holdings.add(objects, &resource.plural)?;
        }
        Ok(holdings)
    }

    async fn config(&self) -> Result<Config, ClusterError> {
        let kubeconfig = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path).map_err(ClusterError::Kubeconfig)?,
            None => match Kubeconfig::read() {
                Ok(kubeconfig) => kubeconfig,
                // A pod has an account instead, unless a context was asked for, which it has not.
                Err(_) if self.context.is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() => {
                    return Config::incluster().map_err(ClusterError::InCluster);
                }
                Err(source) => return Err(ClusterError::Kubeconfig(source)),
            },
        };
        let known: Vec<&str> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
        if let Some(context) = self.context.as_deref().filter(|context| !known.contains(context)) {
            return Err(ClusterError::UnknownContext { context: context.to_owned(), known: known.join(", ") });
        }
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(ClusterError::Kubeconfig)
    }
}

/// Of the kinds that are read, those that the cluster serves: in the newest version that we read, or else in the one that
/// it prefers, whose objects the reader of manifests will then name as not enforced.
async fn served(client: &Client) -> kube::Result<Vec<ApiResource>> {
    let mut groups: Vec<ApiGroup> = Vec::new();
    let mut served = Vec::new();
    let present = client.list_api_groups().await?;
    for (api_versions, kind) in netverdict_manifest::kinds_read() {
        let read = api_versions.iter().map(|read| read.split_once('/').unwrap_or((CORE, read)));
        let Some((group, version)) = read.clone().next() else { continue };
        if group == CORE {
            served.push(ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind)));
            continue;
        }
        if !present.groups.iter().any(|known| known.name == group) {
            continue;
        }
        if !groups.iter().any(|known| known.name() == group) {
            groups.push(discovery::group(client, group).await?);
        }
        let Some(group) = groups.iter().find(|known| known.name() == group) else { continue };
        let mut resources = read.flat_map(|(_, version)| group.versioned_resources(version));
        let ours = resources.find(|(resource, _)| resource.kind == kind);
        served.extend(ours.or_else(|| group.recommended_kind(kind)).map(|(resource, _)| resource));
    }
    Ok(served)
}

/// Everything of one kind, in all namespaces.
async fn list(client: &Client, resource: &ApiResource, tell: &mut dyn FnMut(&str)) -> kube::Result<Vec<DynamicObject>> {
    let api = Api::<DynamicObject>::all_with(client.clone(), resource);
    let types = TypeMeta { api_version: resource.api_version.clone(), kind: resource.kind.clone() };
    let mut beginnings = 1;
    let mut objects: Vec<DynamicObject> = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        tell(&format!("reading {} {}", objects.len(), resource.plural));
        let page = match api.list(&params).await {
            Ok(page) => page,
            // The list that we were turning the pages of is no longer kept.
            Err(kube::Error::Api(status)) if status.code == 410 && beginnings < MOST_BEGINNINGS => {
                beginnings += 1;
                objects.clear();
                params = ListParams::default().limit(PAGE);
                continue;
            }
            Err(error) => return Err(error),
        };
        objects.extend(page.items.into_iter().map(|mut object| {
            // Items of a list do not repeat the kind.
            object.types = Some(types.clone());
            object.metadata.managed_fields = None;
            object
        }));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = ListParams::default().limit(PAGE).continue_token(&token),
            None => return Ok(objects),
        }
    }
}

impl Holdings {
    fn add(&mut self, objects: Vec<DynamicObject>, plural: &str) -> Result<(), ClusterError> {
        for object in objects {
            let value = serde_json::to_value(object)
                .map_err(|source| ClusterError::Object { plural: plural.to_owned(), source })?;
            match netverdict_manifest::object_from_value(value, Origin::Api) {
                Ok(object) => self.objects.push(object),
                Err(finding) => self.findings.push(finding),
            }
        }
        Ok(())
    }
}
