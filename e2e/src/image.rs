//! Container images from programs of this machine, without a registry: one layer with the
//! programs and the shared libraries that they load, in an OCI layout.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::cache::{remove_tree, sha256, write};
use crate::error::{During, Error, Result, finished, output_of};

/// An image to be made.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its name and tag, as pods will call it.
    pub name: String,
    /// The programs. They lie in the root folder; the first one is what a container runs.
    pub programs: Vec<PathBuf>,
}

// A number that is no user of any distribution: what runs as it owns nothing on a node.
const USER: u32 = 65_532;

impl Image {
    /// An image of some programs.
    ///
    /// # Errors
    /// When the name has no tag, or there is no program.
    pub fn new(name: &str, programs: &[PathBuf]) -> Result<Self> {
        let tag = name.rsplit('/').next().and_then(|last| last.split_once(':'));
        if tag.is_none_or(|(repository, tag)| repository.is_empty() || tag.is_empty()) {
            return Err(Error::Refused(format!("the image {name:?} needs a tag, like node:e2e")));
        }
        if name.ends_with(":latest") {
            let why = "a node would try to fetch it, since `latest` is always pulled";
            return Err(Error::Refused(format!("the image {name:?}: {why}")));
        }
        if programs.is_empty() {
            return Err(Error::Refused(format!("the image {name:?} has no program")));
        }
        Ok(Self { name: name.to_owned(), programs: programs.to_vec() })
    }

    /// The full name by which a container runtime knows it.
    #[must_use]
    pub fn full_name(&self) -> String {
        let (first, rest) = self.name.split_once('/').unwrap_or(("", &self.name));
        if first.contains(['.', ':']) || first == "localhost" {
            self.name.clone()
        } else if first.is_empty() {
            format!("docker.io/library/{rest}")
        } else {
            format!("docker.io/{}", self.name)
        }
    }

    /// Writes the image as a tar file, which `ctr images import`, `docker load` and
    /// `kind load image-archive` take.
    ///
    /// # Errors
    /// When a program or one of its libraries is missing.
    pub fn write_to(&self, tar: &Path) -> Result<()> {
        let work = tar.with_extension("unpacked");
        remove_tree(&work)?;
        let written = self.write_layout(&work).and_then(|layout| archive(&layout, tar));
        remove_tree(&work)?;
        written
    }

    fn write_layout(&self, work: &Path) -> Result<PathBuf> {
        let (root, layout) = (work.join("root"), work.join("layout"));
        self.furnish(&root)?;
        let layer_tar = work.join("layer.tar");
        archive(&root, &layer_tar)?;
        let layer = fs::read(&layer_tar).during(|| layer_tar.display().to_string())?;
        let blobs = layout.join("blobs/sha256");
        let layer_descriptor = blob(&blobs, "application/vnd.oci.image.layer.v1.tar", &layer)?;
        let config = to_bytes(&json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {
                "User": format!("{USER}:{USER}"),
                "Env": ["PATH=/"],
                "Entrypoint": [format!("/{}", file_name(&self.programs[0])?)],
                "WorkingDir": "/",
            },
            // The layer is not compressed, so its two digests are one.
            "rootfs": {"type": "layers", "diff_ids": [layer_descriptor["digest"]]},
        }))?;
        let config = blob(&blobs, "application/vnd.oci.image.config.v1+json", &config)?;
        let manifest = to_bytes(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": [layer_descriptor],
        }))?;
        let mut manifest = blob(&blobs, "application/vnd.oci.image.manifest.v1+json", &manifest)?;
        let tag = self.name.rsplit(':').next().unwrap_or_default();
        manifest["annotations"] = json!({
            "io.containerd.image.name": self.full_name(),
            "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        write(&layout.join("index.json"), to_bytes(&index)?)?;
        write(&layout.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#)?;
        Ok(layout)
    }

    /// Lays out the file system of the image.
    fn furnish(&self, root: &Path) -> Result<()> {
        let mut libraries = BTreeSet::new();
        for program in &self.programs {
            libraries.extend(libraries_of(program)?);
            let inside = root.join(file_name(program)?);
            copy(program, &inside)?;
            fs::set_permissions(&inside, fs::Permissions::from_mode(0o755))
                .during(|| inside.display().to_string())?;
        }
        for library in libraries {
            // Links are followed: what is loaded by this path is found at this path.
            copy(&library, &root.join(library.strip_prefix("/").unwrap_or(&library)))?;
        }
        write(&root.join("etc/passwd"), format!("node:x:{USER}:{USER}:node:/:/sbin/nologin\n"))?;
        write(&root.join("etc/group"), format!("node:x:{USER}:\n"))?;
        write(&root.join("etc/nsswitch.conf"), "hosts: files dns\n")?;
        let tmp = root.join("tmp");
        fs::create_dir_all(&tmp).during(|| tmp.display().to_string())?;
        fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777))
            .during(|| tmp.display().to_string())
    }
}

/// The shared libraries that a program loads, its loader included; none if it is static.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    if !program.is_file() {
        return Err(Error::Missing {
            what: format!("the program {}", program.display()),
            how: "build it first".to_owned(),
        });
    }
    let ldd = finished(Command::new("ldd").arg(program))?;
    // ldd fails for a static program, saying so.
    let text = String::from_utf8_lossy(&ldd.stdout);
    if let Some(lost) = text.lines().find(|line| line.contains("not found")) {
        return Err(Error::Missing {
            what: format!("for {}: {}", program.display(), lost.trim()),
            how: "install that library".to_owned(),
        });
    }
    let paths = text.lines().filter_map(|line| {
        // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)" or "/lib64/ld-linux… (0x…)"
        let named = line.split_once("=>").map_or(line, |(_, path)| path);
        let path = named.split_whitespace().next()?;
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    Ok(paths.collect())
}

fn file_name(path: &Path) -> Result<&str> {
    path.file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| Error::Refused(format!("{} is not the name of a program", path.display())))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).during(|| folder.display().to_string())?;
    }
    fs::copy(from, to).during(|| format!("copying {}", from.display())).map(|_| ())
}

fn to_bytes(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Refused(error.to_string()))
}

/// Stores some bytes under their hash and says how a manifest names them.
fn blob(folder: &Path, media_type: &str, bytes: &[u8]) -> Result<Value> {
    let hash = sha256(bytes);
    write(&folder.join(&hash), bytes)?;
    let (digest, size) = (format!("sha256:{hash}"), bytes.len());
    Ok(json!({"mediaType": media_type, "digest": digest, "size": size}))
}

/// The same files give the same bytes, so an image that did not change keeps its digest.
fn archive(folder: &Path, tar: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command.args(["--create", "--sort=name", "--mtime=@0", "--owner=0", "--group=0"]);
    command.args(["--numeric-owner", "--format=gnu", "--file"]).arg(tar);
    output_of(command.arg("--directory").arg(folder).arg(".")).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_a_runtime_completes_them() {
        let full = |name: &str| Image::new(name, &["x".into()]).unwrap().full_name();
        assert_eq!(full("node:e2e"), "docker.io/library/node:e2e");
        assert_eq!(full("stationmaster/node:e2e"), "docker.io/stationmaster/node:e2e");
        assert_eq!(full("registry.example.com/node:e2e"), "registry.example.com/node:e2e");
        assert_eq!(full("localhost/node:e2e"), "localhost/node:e2e");
    }

    #[test]
    fn an_image_without_a_fixed_tag_is_refused() {
        let refused = |name: &str| Image::new(name, &["x".into()]).is_err();
        assert!(refused("node") && refused("node:") && refused("node:latest"));
        assert!(refused("localhost:5000/node"));
    }

    #[test]
    fn a_dynamic_program_brings_its_loader_and_the_same_image_twice_is_the_same() {
        let folder = std::env::temp_dir().join(format!("e2e-image-{}", std::process::id()));
        let image = Image::new("shell:1", &["/bin/sh".into()]).unwrap();
        let root = folder.join("root");
        image.furnish(&root).unwrap();
        assert!(root.join("sh").exists());
        let libraries = libraries_of(Path::new("/bin/sh")).unwrap();
        assert!(libraries.iter().any(|library| library.to_string_lossy().contains("ld-linux")));
        let [one, two] = [folder.join("1.tar"), folder.join("2.tar")];
        image.write_to(&one).unwrap();
        image.write_to(&two).unwrap();
        assert!(fs::read(one).unwrap() == fs::read(two).unwrap());
        remove_tree(&folder).unwrap();
    }
}
