//! The control groups of a bed: every process of it, and every child of one, is in them.
//!
//! That is what makes `down` certain: shims of containerd and pods' processes have other
//! parents and no file of pids, but they cannot leave their group.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::error::{During, Result};
use crate::process::{KILL_PATIENCE, ProcessId, Signal, until};

const MOUNT: &str = "/sys/fs/cgroup";

/// The largest share of the processors that a group can be given, with version 1 and 2. Pods
/// without requests have next to none, and beside a build on the same machine a fleet would
/// miss its own deadlines.
const WEIGHTS: [(&str, &str); 2] = [("cpu.shares", "262144"), ("cpu.weight", "10000")];

/// The groups below one name.
#[derive(Debug, Clone)]
pub(crate) struct Groups {
    name: String,
}

impl Groups {
    pub(crate) fn of(bed: &str) -> Self {
        Self { name: format!("{bed}-testbed") }
    }

    /// The root of a node's pods, as the kubelet names it.
    pub(crate) fn pods_root(&self, node: &str) -> String {
        format!("/{}/{node}", self.name)
    }

    /// The hierarchies in which the kubelet wants its root to exist: one, or with version 1
    /// one for each controller.
    fn hierarchies() -> Vec<PathBuf> {
        let mount = Path::new(MOUNT);
        if mount.join("cgroup.controllers").exists() {
            return vec![mount.to_owned()];
        }
        let Ok(folders) = fs::read_dir(mount) else { return Vec::new() };
        let paths = folders.filter_map(|folder| Some(folder.ok()?.path()));
        // "cpu" and "cpu,cpuacct" may be links to one folder; making a group twice is no harm.
        paths.filter(|path| path.join("cgroup.procs").exists()).collect()
    }

    /// The hierarchy by which processes are found.
    fn finder(&self) -> PathBuf {
        let (mount, pids) = (Path::new(MOUNT), Path::new(MOUNT).join("pids"));
        if pids.is_dir() { pids } else { mount.to_owned() }.join(&self.name)
    }

    /// The pods of one node, in the hierarchy by which processes are found.
    pub(crate) fn pods(&self, node: &str) -> PathBuf {
        self.finder().join(node)
    }

    /// What a process writes itself into, to belong to the bed.
    pub(crate) fn system_procs(&self) -> PathBuf {
        self.finder().join("system/cgroup.procs")
    }

    /// Makes the groups of the bed's own processes and of each node's pods.
    pub(crate) fn make(&self, nodes: &[String]) -> Result<()> {
        for hierarchy in Self::hierarchies() {
            let top = hierarchy.join(&self.name);
            for group in nodes.iter().map(|node| top.join(node)).chain([top.join("system")]) {
                fs::create_dir_all(&group).during(|| group.display().to_string())?;
                // Version 1 leaves these empty, and no process can enter such a group.
                for setting in ["cpuset.cpus", "cpuset.mems"] {
                    let inherited = fs::read_to_string(hierarchy.join(setting));
                    let Ok(inherited) = inherited else { continue };
                    for group in [&top, &group] {
                        let path = group.join(setting);
                        if path.exists() {
                            fs::write(&path, &inherited).during(|| path.display().to_string())?;
                        }
                    }
                }
            }
            for (setting, most) in WEIGHTS {
                let path = top.join(setting);
                if path.exists() {
                    fs::write(&path, most).during(|| path.display().to_string())?;
                }
            }
        }
        Ok(())
    }

    /// All processes in the groups.
    pub(crate) fn processes(&self) -> Vec<ProcessId> {
        processes_below(&self.finder())
    }

    /// Kills all processes in the groups, again and again until none is left: one that was
    /// about to fork has a child that the first look did not see.
    pub(crate) fn kill_all(&self) -> Result<()> {
        let hint = format!("see {}", self.finder().display());
        until("the end of the bed's processes", KILL_PATIENCE, &hint, || {
            let left = self.processes();
            for process in &left {
                process.signal(Signal::KILL)?;
            }
            Ok(left.is_empty().then_some(()))
        })
    }

    /// Removes the groups, which must be empty.
    pub(crate) fn remove(&self) -> Result<()> {
        for hierarchy in Self::hierarchies() {
            let top = hierarchy.join(&self.name);
            let mut groups = folders_below(&top);
            groups.reverse();
            groups.iter().try_for_each(|group| remove_group(group))?;
        }
        Ok(())
    }
}

/// A group stays busy for a moment after its last process ended.
fn remove_group(group: &Path) -> Result<()> {
    for _ in 0..50 {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => return other.during(|| format!("removing {}", group.display())),
        }
    }
    fs::remove_dir(group).during(|| format!("removing {}", group.display()))
}

/// A folder and all folders below it, parents first.
pub(crate) fn folders_below(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if top.is_dir() {
        found.push(top.to_owned());
    }
    let mut next = 0;
    while let Some(folder) = found.get(next).cloned() {
        next += 1;
        let Ok(children) = fs::read_dir(&folder) else { continue };
        let children = children.filter_map(std::result::Result::ok);
        let folders = children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir()));
        found.extend(folders.map(|folder| folder.path()));
    }
    found
}

/// The processes in a group and in all groups below it.
pub(crate) fn processes_below(top: &Path) -> Vec<ProcessId> {
    let groups = folders_below(top).into_iter();
    let texts = groups.filter_map(|group| fs::read_to_string(group.join("cgroup.procs")).ok());
    let pids = texts
        .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>());
    pids.filter_map(ProcessId::of).collect()
}
