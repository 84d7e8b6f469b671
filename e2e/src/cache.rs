//! Where built things lie: outside the clone, one folder for each recipe, whole or not there.
//!
//! A recipe is everything that decides the result (versions, sums, flags, sources); its hash is
//! part of the folder's name, so that an edited recipe is built anew and an old one stays usable.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{During, Error, Result};

/// The folder of all built things.
///
/// # Errors
/// When neither `E2E_CACHE`, `XDG_CACHE_HOME` nor `HOME` says where it could be.
pub fn root() -> Result<PathBuf> {
    if let Some(own) = env::var_os("E2E_CACHE") {
        return Ok(own.into());
    }
    let caches = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    caches.map(|folder| folder.join("stationmaster/testbed")).ok_or_else(|| Error::Missing {
        what: "a cache folder".to_owned(),
        how: "set HOME, XDG_CACHE_HOME or E2E_CACHE".to_owned(),
    })
}

/// The sha256 of some bytes, in hex.
#[must_use]
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A thing to build.
#[derive(Debug)]
pub(crate) struct Recipe<'a> {
    /// A name for people; with the version.
    pub(crate) name: String,
    /// All that decides the result.
    pub(crate) inputs: Vec<&'a [u8]>,
}

impl Recipe<'_> {
    /// Where the result lies, or will lie.
    pub(crate) fn folder(&self) -> Result<PathBuf> {
        // Lengths keep the inputs apart: "ab","c" and "a","bc" are two recipes.
        let parts = self.inputs.iter().flat_map(|input| {
            let length = (input.len() as u64).to_le_bytes();
            length.into_iter().chain(input.iter().copied())
        });
        let hash = sha256(&parts.collect::<Vec<u8>>());
        Ok(root()?.join(format!("{}-{}", self.name, &hash[..12])))
    }

    /// The result, if it was built before.
    pub(crate) fn found(&self) -> Result<Option<PathBuf>> {
        Ok(Some(self.folder()?).filter(|folder| folder.is_dir()))
    }

    /// The result; `build` fills an empty folder with it unless it is there already.
    ///
    /// Of two builders at once the second waits and then finds the first one's work; a killed
    /// builder leaves a folder under another name, which the next one removes.
    pub(crate) fn built(&self, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let folder = self.folder()?;
        if folder.is_dir() {
            return Ok(folder);
        }
        let root = root()?;
        fs::create_dir_all(&root).during(|| root.display().to_string())?;
        let lock_path = root.join(format!(".{}.lock", self.name));
        let lock = File::create(&lock_path).during(|| lock_path.display().to_string())?;
        lock.lock().during(|| lock_path.display().to_string())?;
        if folder.is_dir() {
            return Ok(folder);
        }
        let unfinished = root.join(format!(".{}.unfinished", self.name));
        remove_tree(&unfinished)?;
        fs::create_dir(&unfinished).during(|| unfinished.display().to_string())?;
        build(&unfinished)?;
        fs::rename(&unfinished, &folder).during(|| folder.display().to_string())?;
        Ok(folder)
    }
}

/// Removes a folder with all that is in it; one that is not there is as good as removed.
pub(crate) fn remove_tree(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.during(|| format!("removing {}", folder.display())),
    }
}

/// Writes a file and the folders above it.
pub(crate) fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).during(|| folder.display().to_string())?;
    }
    fs::write(path, contents).during(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_that_differ_only_in_where_they_are_cut_are_two_recipes() {
        let folder = |inputs| Recipe { name: "x".to_owned(), inputs }.folder().unwrap();
        assert_ne!(folder(vec![b"ab", b"c"]), folder(vec![b"a", b"bc"]));
    }

    #[test]
    fn sha256_is_the_usual_one() {
        assert!(sha256(b"abc").starts_with("ba7816bf8f01cfea"));
    }
}
