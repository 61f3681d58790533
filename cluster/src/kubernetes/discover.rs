//! Which of the kinds that we read an API server serves, and in which version.

use kube::{
    Client,
    api::{ApiResource, GroupVersionKind},
    discovery::{self, ApiGroup},
};

/// The group that is part of every cluster, named by no more than its version.
const CORE: &str = "";

/// Of the kinds that are read, those that the cluster serves: in the newest version that we read, or else in the one that
/// it prefers, whose objects the reader of manifests will then name as not enforced.
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
