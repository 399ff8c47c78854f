//! Which processes of this machine have TCP connections with each other, as the kernel tells.

use std::collections::{BTreeMap, BTreeSet};

/// An established connection: this end's port, and the other end's.
type Ports = (u16, u16);

/// The inodes of the sockets that a process has open.
fn sockets(pid: u32) -> BTreeSet<u64> {
    let folder = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process");
    folder
        .filter_map(|entry| {
            let to = std::fs::read_link(entry.ok()?.path()).ok()?;
            let inode = to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            inode.parse().ok()
        })
        .collect()
}

/// All established TCP connections, by inode.
fn established(pid: u32) -> BTreeMap<u64, Ports> {
    const ESTABLISHED: &str = "01";
    let mut found = BTreeMap::new();
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let parts: Vec<&str> = line.split_whitespace().collect();
            let port = |at: usize| {
                let (_, port) = parts.get(at)?.rsplit_once(':')?;
                u16::from_str_radix(port, 16).ok()
            };
            let inode = parts.get(9).and_then(|inode| inode.parse().ok());
            if let (Some(here), Some(there), Some(&ESTABLISHED), Some(inode)) = (port(1), port(2), parts.get(3), inode)
            {
                found.insert(inode, (here, there));
            }
        }
    }
    found
}

/// Which of these processes are connected with which, by their places in the list; each pair once, the smaller one first.
#[must_use]
pub fn connected(pids: &[u32]) -> BTreeSet<(usize, usize)> {
    let ports: Vec<BTreeSet<Ports>> = pids
        .iter()
        .map(|pid| {
            let (own, all) = (sockets(*pid), established(*pid));
            all.into_iter()
                .filter(|(inode, _)| own.contains(inode))
                .map(|(_, ports)| ports)
                .collect()
        })
        .collect();
    let mut found = BTreeSet::new();
    for (at, own) in ports.iter().enumerate() {
        for (other, theirs) in ports.iter().enumerate().skip(at + 1) {
            if own.iter().any(|(here, there)| theirs.contains(&(*there, *here))) {
                found.insert((at, other));
            }
        }
    }
    found
}
