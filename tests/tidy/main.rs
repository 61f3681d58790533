//! Rules that matter and that a machine can hold: who imports whom, circles, what is linked, sizes of files, rule numbers, words.

mod chart;
mod circles;
mod golden;
mod imports;
mod rules;
mod sources;
mod words;
