//! Debug information, which is shipped apart from programs; and the requirements of programs on the system.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    command::{output, quietly},
    setup,
};

/// The programs of binutils.
#[derive(Clone, Debug)]
pub(crate) struct Symbols {
    strip: PathBuf,
    objcopy: PathBuf,
    readelf: PathBuf,
}

impl Symbols {
    /// Installs them if they are not there.
    pub(crate) fn tools() -> Result<Self> {
        let [strip, objcopy, readelf] = ["strip", "objcopy", "readelf"].map(setup::binutils);
        Ok(Self { strip: strip?, objcopy: objcopy?, readelf: readelf? })
    }

    /// Writes the program without symbols and debug information.
    pub(crate) fn strip(&self, program: &Path, to: &Path) -> Result<()> {
        quietly(Command::new(&self.strip).arg("--strip-all").arg("-o").arg(to).arg(program))
    }

    /// Writes the symbols and line tables of the program, without the program.
    pub(crate) fn keep_debug(&self, program: &Path, to: &Path) -> Result<()> {
        quietly(Command::new(&self.objcopy).arg("--only-keep-debug").arg(program).arg(to))
    }

    /// The number by which debuggers find the symbols of a program, in hexadecimal digits.
    pub(crate) fn build_id(&self, program: &Path) -> Result<String> {
        let notes = output(Command::new(&self.readelf).args(["--notes", "--wide"]).arg(program))?;
        let found = notes.split("Build ID: ").nth(1).and_then(|rest| Some(rest.split_whitespace().next()?.to_owned()));
        found.with_context(|| format!("{} has no build id: link it with --build-id", program.display()))
    }

    /// The oldest glibc that has every version of a symbol that the program asks for, as its minor number: 34 is 2.34.
    pub(crate) fn oldest_glibc(&self, program: &Path) -> Result<u32> {
        let versions = output(Command::new(&self.readelf).args(["--version-info", "--wide"]).arg(program))?;
        newest_version(&versions).with_context(|| format!("{} is not linked with glibc", program.display()))
    }
}

fn newest_version(versions: &str) -> Option<u32> {
    let minor = |part: &str| -> Option<u32> {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    versions.split("GLIBC_2.").skip(1).filter_map(minor).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_of_a_symbol_is_the_oldest_glibc_that_will_do() {
        let versions = "  0x0010:   Name: GLIBC_2.2.5  Flags: none  Version: 9\n  0x0020:   Name: GLIBC_2.34  Flags: none  \
                        Version: 8\n  0x0030:   Name: GLIBC_2.9  Flags: none\n  0x0040:   Name: GCC_3.0  Flags: none\n";
        assert_eq!(newest_version(versions), Some(34));
        assert_eq!(newest_version("No version information found in this file.\n"), None);
    }

    /// The program of this test stands for the product's.
    #[test]
    fn a_program_is_split_into_what_runs_and_what_debugs() {
        let folder = std::env::temp_dir().join(format!("netverdict-symbols-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let program = std::env::current_exe().unwrap();
        let (stripped, debug) = (folder.join("stripped"), folder.join("debug"));
        let tools = Symbols::tools().unwrap();
        tools.strip(&program, &stripped).unwrap();
        tools.keep_debug(&program, &debug).unwrap();
        let id = tools.build_id(&program).unwrap();
        let ids = [&stripped, &debug].map(|file| tools.build_id(file).unwrap());
        let size = |path: &Path| std::fs::metadata(path).unwrap().len();
        let sizes = (size(&stripped), size(&program));
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(ids, [id.clone(), id]);
        assert!(sizes.0 < sizes.1, "{sizes:?}");
    }
}
