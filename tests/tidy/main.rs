//! Rules that matter and that a machine can hold: who imports whom, what is linked, sizes of files, words.

mod golden;
mod imports;
mod sources;
