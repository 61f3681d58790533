//! Compression as registries and archives have it, by the program of every Linux.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};

/// Compressed without a name and a time, so that the same bytes give the same bytes. `level`: 1 to 9.
pub(crate) fn gzip(bytes: &[u8], level: u8) -> Result<Vec<u8>> {
    let mut command = Command::new("gzip");
    command.args(["--no-name", &format!("-{level}")]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("could not start `gzip`: install it with your package manager")?;
    let mut input = child.stdin.take().context("standard input is piped")?;
    thread::scope(|scope| {
        // A pipe holds 64 KiB: writing and reading take turns.
        let writing = scope.spawn(move || input.write_all(bytes));
        let output = child.wait_with_output()?;
        let written = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        if !output.status.success() {
            bail!("`gzip` ended with {}", output.status);
        }
        written?;
        Ok(output.stdout)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_pipe_holds_is_compressed_and_the_same_each_time() {
        let bytes: Vec<u8> =
            (0..1_u32 << 18).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let compressed = gzip(&bytes, 1).unwrap();
        assert!(compressed.len() > 1 << 17 && compressed.starts_with(&[0x1f, 0x8b]));
        assert_eq!(gzip(&bytes, 1).unwrap(), compressed);
    }
}
