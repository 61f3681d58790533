//! Files that are made from what the code says. `NETVERDICT_UPDATE_GOLDEN=1` writes them anew.

use std::fs;

use xtask::command::root;

/// The file at a path of the repository is what was found.
pub fn check(file: &str, found: &str, remedy: &str) {
    let path = root().join(file);
    if std::env::var_os("NETVERDICT_UPDATE_GOLDEN").is_some() {
        fs::write(&path, found).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if expected == found {
        return;
    }
    let (old, new): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let same = old.iter().zip(&new).take_while(|(one, other)| one == other).count();
    panic!(
        "{file} is not what the code says, from line {}: {remedy}, then set NETVERDICT_UPDATE_GOLDEN=1 and run this test \
         again\nin the file: {:?}\nfound:       {:?}",
        same + 1,
        old.get(same).unwrap_or(&""),
        new.get(same).unwrap_or(&""),
    );
}
