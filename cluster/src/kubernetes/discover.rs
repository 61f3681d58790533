//! Which of the kinds that we read an API server serves, and in which version.

use std::collections::BTreeSet;

use kube::{
    Client,
    api::{ApiResource, GroupVersionKind},
    discovery::{self, ApiGroup, verbs},
    error::DiscoveryError,
};

/// The group that is part of every cluster, named by no more than its version.
const CORE: &str = "";

/// Groups that every API server has.
const BUILT_IN: &[&str] = &[CORE, "networking.k8s.io"];

/// Whether kinds of the group are read that a cluster may have or not.
pub(super) fn is_extension(group: &str) -> bool {
    let mut groups = netverdict_manifest::kinds_read().flat_map(|(api_versions, _)| api_versions);
    groups.any(|read| read.split_once('/').is_some_and(|(of, _)| of == group && !BUILT_IN.contains(&of)))
}

/// The kinds to be watched: of the built-in groups those that are read, of the others every kind that is served now, since
/// a kind that is not read may deny too.
pub(super) async fn watched(client: &Client) -> kube::Result<Vec<ApiResource>> {
    let mut watched = Vec::new();
    let mut asked = BTreeSet::new();
    for (api_versions, kind) in netverdict_manifest::kinds_read() {
        let Some(newest) = api_versions.first() else { continue };
        let (group, version) = newest.split_once('/').unwrap_or((CORE, newest));
        if BUILT_IN.contains(&group) {
            watched.push(ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind)));
        } else if asked.insert(group) {
            watched.extend(of_group(client, group).await?);
        }
    }
    Ok(watched)
}

/// Every kind of a group that can be watched, in the newest version that we read, or else in the version that the cluster
/// prefers. None where the group is not served.
async fn of_group(client: &Client, name: &str) -> kube::Result<Vec<ApiResource>> {
    let group = match discovery::group(client, name).await {
        Err(kube::Error::Discovery(DiscoveryError::MissingApiGroup(_))) => return Ok(Vec::new()),
        group => group?,
    };
    let mut served: Vec<ApiResource> = Vec::new();
    let read = netverdict_manifest::kinds_read()
        .flat_map(|(api_versions, kind)| api_versions.iter().map(move |api_version| (*api_version, kind)));
    let preferred = group.recommended_resources().into_iter();
    let others = group.versions().flat_map(|version| group.versioned_resources(version));
    let of_version = group.versions().flat_map(|version| group.versioned_resources(version)).collect::<Vec<_>>();
    let ours = read.filter_map(|(api_version, kind)| {
        of_version.iter().find(|(known, _)| known.api_version == api_version && known.kind == kind).cloned()
    });
    for (resource, capabilities) in ours.chain(preferred).chain(others) {
        let can = |verb| capabilities.supports_operation(verb);
        if can(verbs::LIST) && can(verbs::WATCH) && !served.iter().any(|known| known.kind == resource.kind) {
            served.push(resource);
        }
    }
    Ok(served)
}

/// Of the kinds that are read, those that the cluster serves: in the newest version that we read, or else in the cluster's
/// preferred version, whose objects the reader of manifests will then name as not enforced.
pub(super) async fn served(client: &Client) -> kube::Result<Vec<ApiResource>> {
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
