//! Output of the compiler, which all of its parts write to: ids, their meanings, and the tables.

use super::{
    catalogue::{Decisions, Owners},
    columns::Columns,
    policy_rules::PolicyRulesCache,
    terms::Terms,
    tracked_tables::TrackedTables,
};

#[derive(Debug)]
pub(super) struct CompilerOutput {
    pub(super) terms: Terms,
    pub(super) policy_rules: PolicyRulesCache,
    pub(super) decisions: Decisions,
    pub(super) owners: Owners,
    pub(super) columns: Columns,
    pub(super) tracked: TrackedTables,
}

impl CompilerOutput {
    /// Writes new columns to the tables, and removes unused ones.
    pub(super) fn write_columns(&mut self) {
        let (new, old) = self.columns.take_change();
        new.into_iter().for_each(|(id, column)| self.tracked.add_column(id, column));
        old.into_iter().for_each(|id| self.tracked.remove_column(id));
    }
}
