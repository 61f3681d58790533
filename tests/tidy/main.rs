//! Rules that a machine can check: imports between crates, circles, linked packages, sizes of files, rule numbers, words.

mod chart;
mod circles;
mod golden;
mod imports;
mod rules;
mod sources;
mod words;
