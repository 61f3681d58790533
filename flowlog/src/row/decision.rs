//! A decision and its id, and the columns that hold it: all of it in `attributions`, only the deciding tier and policies
//! in `flows`, whose own columns hold the rest.

use std::sync::Arc;

use arrow::array::ArrayRef;
use netverdict_policy::{AttributionId, Confidence, Decision, Reason, Reference, Verdict, model::Tier};
use serde::{Deserialize, Serialize};

use crate::layout::{Cells, Codec, Column, Columns, Deciders, Number, TooLarge, Word, Wrong, columns, gather};

/// A decision and its id, shared by all rows that it decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AttributionValue {
    pub id: AttributionId,
    pub decision: Decision,
}

impl Default for AttributionValue {
    /// Nothing is known of it.
    fn default() -> Self {
        let (verdict, reason) = (Verdict::Unknown, Reason::AttributionUnknown);
        let (verdict_if_enforced, tier, confidence, references) = (None, None, Confidence::Exact, Vec::new());
        let decision = Decision { verdict, verdict_if_enforced, reason, tier, confidence, references };
        Self { id: AttributionId::NONE, decision }
    }
}

columns! {
    /// A decision as columns.
    struct DecisionColumns {
        /// 63 bits of the hash of this row; the same on every node
        attribution_id: AttributionId as Number = AttributionId::NONE,
        /// allowed, denied, unknown
        verdict: Verdict as Word = Verdict::Unknown,
        /// the verdict with audited policies enforced; null unless one takes part
        verdict_if_enforced: Option<Verdict> as Word,
        /// why the verdict is what it is
        reason: Reason as Word = Reason::AttributionUnknown,
        /// tier that decided; null where none did
        tier: Option<Tier> as Word,
        /// exact, ambiguous, partial
        confidence: Confidence as Word = Confidence::Exact,
        /// policies that took part, in order of evaluation; empty: none did
        decided_by: Vec<Reference> as Deciders,
    }
}

/// All of a decision.
pub(crate) struct Whole;

impl Codec<Arc<AttributionValue>> for Whole {
    fn columns(_field: Column) -> Vec<Column> {
        DecisionColumns::columns()
    }

    fn fill<'a>(values: impl Iterator<Item = &'a Arc<AttributionValue>>) -> Result<Vec<ArrayRef>, TooLarge> {
        let columns = |value: &Arc<AttributionValue>| {
            let AttributionValue { id, decision } = &**value;
            let Decision { verdict, verdict_if_enforced, reason, tier, confidence, references } = decision.clone();
            let (attribution_id, decided_by) = (*id, references);
            DecisionColumns { attribution_id, verdict, verdict_if_enforced, reason, tier, confidence, decided_by }
        };
        let rows: Vec<DecisionColumns> = values.map(columns).collect();
        DecisionColumns::fill(&rows.iter().collect::<Vec<_>>())
    }

    fn read(cells: &mut Cells<'_>) -> Result<Arc<AttributionValue>, Wrong> {
        let DecisionColumns { attribution_id, verdict, verdict_if_enforced, reason, tier, confidence, decided_by } =
            DecisionColumns::read(cells)?;
        let references = decided_by;
        let decision = Decision { verdict, verdict_if_enforced, reason, tier, confidence, references };
        Ok(Arc::new(AttributionValue { id: attribution_id, decision }))
    }
}

columns! {
    /// Tier and policies that decided.
    struct DecidedByColumns {
        /// tier that decided; null where none did
        tier: Option<Tier> as Word,
        /// policies that took part, in order of evaluation; empty: none did; null: not policy, or not known (reason tells)
        decided_by: Vec<Reference> as Deciders,
    }
}

/// Tier and policies that decided, in a row whose other columns hold the rest of the decision.
pub(crate) struct DecidedBy;

impl Codec<Option<Arc<AttributionValue>>> for DecidedBy {
    fn columns(_field: Column) -> Vec<Column> {
        DecidedByColumns::columns().into_iter().map(|column| column.nullable(true)).collect()
    }

    fn fill<'a>(values: impl Iterator<Item = &'a Option<Arc<AttributionValue>>>) -> Result<Vec<ArrayRef>, TooLarge> {
        let address = |value: &AttributionValue| std::ptr::from_ref(value).addr();
        let weight = |value: &AttributionValue| Deciders::weight(&value.decision.references);
        gather(values.map(Option::as_deref), address, weight, |distinct| {
            let columns = |value: &&AttributionValue| {
                let Decision { tier, references, .. } = &value.decision;
                DecidedByColumns { tier: *tier, decided_by: references.clone() }
            };
            let rows: Vec<DecidedByColumns> = distinct.iter().map(columns).collect();
            DecidedByColumns::fill(&rows.iter().collect::<Vec<_>>())
        })
    }

    fn read(cells: &mut Cells<'_>) -> Result<Option<Arc<AttributionValue>>, Wrong> {
        let known = !cells.peek(1).is_null();
        let DecidedByColumns { tier, decided_by: references } = DecidedByColumns::read(cells)?;
        if !known {
            return Ok(None);
        }
        let decision = Decision {
            verdict: cells.at("verdict", <Word as Codec<Verdict>>::read)?,
            verdict_if_enforced: cells.at("verdict_if_enforced", <Word as Codec<Option<Verdict>>>::read)?,
            reason: cells.at("reason", <Word as Codec<Reason>>::read)?,
            tier,
            confidence: cells.at("confidence", <Word as Codec<Confidence>>::read)?,
            references,
        };
        let id = cells.at("attribution_id", <Number as Codec<AttributionId>>::read)?;
        let value = AttributionValue { id, decision };
        Ok(Some(cells.known().share(&value, || Arc::new(value.clone()))))
    }
}
