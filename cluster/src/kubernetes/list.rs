//! The source that reads a cluster once: every kind, page by page.

use std::{
    collections::{BTreeSet, VecDeque},
    future::Future,
};

use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams, TypeMeta},
};
use netverdict_manifest::Origin;

use super::{connect::Connection, discover::served, error::ClusterError};
use crate::source::{Change, Fault, Key, Location, Scope, Source, Update};

/// Objects an answer: the same number as kubectl's.
const PAGE: u32 = 500;
/// Restarts of a list whose pages expired while they were read.
const MOST_BEGINNINGS: usize = 3;

/// The present objects of a cluster, read once. It has no more to report after [`Update::InSync`].
pub struct ApiList {
    connection: Connection,
    /// The list that is being read first.
    lists: VecDeque<List>,
    ended: bool,
}

/// A list of one kind, in all namespaces.
struct List {
    resource: ApiResource,
    scope: Scope,
    /// Of the objects that were reported.
    keys: BTreeSet<Key>,
    /// Where the next page begins; `None` before the first.
    token: Option<String>,
    beginnings: usize,
}

impl ApiList {
    /// Asks which kinds the cluster serves.
    ///
    /// # Errors
    /// The API server cannot be reached, or refuses the request.
    pub async fn open(connection: Connection) -> Result<Self, ClusterError> {
        let resources = served(&connection.client)
            .await
            .map_err(|source| ClusterError::asking(&connection.server, "ask which kinds it serves", source))?;
        let lists = resources.into_iter().map(List::of).collect();
        Ok(Self { connection, lists, ended: false })
    }

    /// Progress: the number of objects read so far, and their kind in the plural.
    pub fn progress(&self) -> Option<(usize, &str)> {
        self.lists.front().map(|list| (list.keys.len(), list.resource.plural.as_str()))
    }

    async fn page(&mut self) -> Result<Option<Update>, ClusterError> {
        let Some(list) = self.lists.front_mut() else {
            return Ok(if std::mem::replace(&mut self.ended, true) { None } else { Some(Update::InSync) });
        };
        let page = list.page(&self.connection).await?;
        if list.token.is_none() {
            self.lists.pop_front();
        }
        Ok(Some(Update::Changes(page)))
    }
}

impl Source for ApiList {
    type Error = ClusterError;

    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn next(&mut self) -> impl Future<Output = Result<Option<Update>, ClusterError>> + Send {
        self.page()
    }
}

impl List {
    fn of(resource: ApiResource) -> Self {
        let scope = Scope::Kind { group: resource.group.as_str().into(), kind: resource.kind.as_str().into() };
        Self { resource, scope, keys: BTreeSet::new(), token: None, beginnings: 1 }
    }

    /// The next page. No token is left after the last one.
    async fn page(&mut self, connection: &Connection) -> Result<Vec<Change>, ClusterError> {
        let api = Api::<DynamicObject>::all_with(connection.client.clone(), &self.resource);
        let page = loop {
            let mut params = ListParams::default().limit(PAGE);
            if let Some(token) = &self.token {
                params = params.continue_token(token);
            }
            match api.list(&params).await {
                Ok(page) => break page,
                // The list that we were turning the pages of is no longer kept.
                Err(kube::Error::Api(status)) if status.code == 410 && self.beginnings < MOST_BEGINNINGS => {
                    self.beginnings += 1;
                    self.keys.clear();
                    self.token = None;
                }
                Err(source) => {
                    let doing = format!("list {}", self.resource.plural);
                    return Err(ClusterError::asking(&connection.server, &doing, source));
                }
            }
        };
        let mut changes = Vec::with_capacity(page.items.len() + 1);
        for object in page.items {
            changes.push(self.change(object)?);
        }
        self.token = page.metadata.continue_.filter(|token| !token.is_empty());
        if self.token.is_none() {
            changes.push(Change::Retain(self.scope.clone(), std::mem::take(&mut self.keys)));
        }
        Ok(changes)
    }

    fn change(&mut self, mut object: DynamicObject) -> Result<Change, ClusterError> {
        // Items of a list do not repeat the kind.
        object.types =
            Some(TypeMeta { api_version: self.resource.api_version.clone(), kind: self.resource.kind.clone() });
        object.metadata.managed_fields = None;
        let key = Key::Name {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: object.metadata.name.clone().unwrap_or_default(),
        };
        self.keys.insert(key.clone());
        let value = serde_json::to_value(object)
            .map_err(|source| ClusterError::Object { plural: self.resource.plural.clone(), source })?;
        Ok(match netverdict_manifest::object_from_value(value, Origin::Api) {
            Ok(object) => Change::Put(Location::new(&self.scope, key), object),
            Err(finding) => Change::Fault(self.scope.clone(), Some(key), vec![Fault::Refused(Box::new(finding))]),
        })
    }
}
