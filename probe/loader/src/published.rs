//! The registry of published maps: the kernel maps that a publication fills. Each is one entry in the list below and
//! one implementation of [`map::PublishedMap`]. The publisher ([`crate::publish`]) walks the list and knows none of
//! them by name.

mod addresses;
mod blocks;
mod columns;
pub(crate) mod encode;
pub(crate) mod endpoint_records;
pub(crate) mod floor;
pub(crate) mod map;
mod pairs;
pub(crate) mod registered;
pub(crate) mod subject_record;

use std::path::Path;

use self::{
    addresses::Addresses,
    blocks::Blocks,
    columns::{ColumnPorts, ColumnRanges, Columns},
    endpoint_records::EndpointRecords,
    map::PublishedMap,
    pairs::Pairs,
    registered::{Registered, Steps},
};
use crate::{error::ProbeError, maps::occupancy::MapOccupancy, options::ProbeOptions};

macro_rules! published_maps {
    ($($(#[$meta:meta])* $field:ident: $map:ty),+ $(,)?) => {
        /// Every published map, opened.
        pub(crate) struct PublishedMaps {
            $($(#[$meta])* pub(crate) $field: Registered<$map>),+
        }

        impl PublishedMaps {
            /// Opens the maps that are pinned in `folder`.
            ///
            /// # Errors
            /// A map is missing or has another layout than this build expects.
            pub(crate) fn open(folder: &Path) -> Result<Self, ProbeError> {
                Ok(Self { $($field: Registered::open(folder)?),+ })
            }

            /// Every map, in the order in which a publication writes them. Deleting and undoing go the other way.
            pub(crate) fn in_order(&mut self) -> impl DoubleEndedIterator<Item = &mut dyn Steps> {
                [$(&mut self.$field as &mut dyn Steps),+].into_iter()
            }

            /// How full each map is.
            pub(crate) fn occupancy(&self) -> Vec<MapOccupancy> {
                vec![$(self.$field.occupancy()),+]
            }

            /// The name of each map, and the limit that it is created with.
            pub(crate) fn limits(options: &ProbeOptions) -> impl Iterator<Item = (&'static str, u32)> {
                [$((<$map>::NAME, <$map>::limit(options))),+].into_iter()
            }
        }
    };
}

// An entry is written before the entries that refer to it, so that a program which finds a reference also finds its target.
published_maps! {
    column_ports: ColumnPorts,
    column_ranges: ColumnRanges,
    columns: Columns,
    pairs: Pairs,
    addresses: Addresses,
    blocks: Blocks,
    endpoints: EndpointRecords,
}
