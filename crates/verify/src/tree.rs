//! A tree of hashes over leaves, as RFC 9162, section 2.1, defines it: a leaf begins with a zero, an inner node with a one,
//! and no leaf stands in it twice. A path shows that a leaf is in it.

use sha2::{Digest as _, Sha256};

use crate::Root;

/// The hash of a leaf that is made of these parts.
pub(crate) fn leaf(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update([0]);
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

fn inner(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update([1]);
    hash.update(left);
    hash.update(right);
    hash.finalize().into()
}

/// A tree, with all its nodes: the leaves, then each level above, the root alone in the last one. What has no neighbour on
/// a level stands on the next one as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tree(Vec<Vec<[u8; 32]>>);

impl Tree {
    /// The tree over hashes of leaves.
    pub(crate) fn new(leaves: Vec<[u8; 32]>) -> Self {
        let mut levels = vec![leaves];
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            let pairs = level.chunks(2).map(|pair| match pair {
                [left, right] => inner(left, right),
                [alone] => *alone,
                _ => [0; 32],
            });
            let next = pairs.collect();
            levels.push(next);
        }
        Self(levels)
    }

    /// The root; of no leaves the hash of nothing.
    pub(crate) fn root(&self) -> Root {
        let root = self.0.last().and_then(|level| level.first());
        Root::from_bytes(root.copied().unwrap_or_else(|| Sha256::digest([]).into()))
    }

    /// The neighbours of a leaf and of what stands above it, from below: its path. `None` if there is no such leaf.
    pub(crate) fn path(&self, index: u32) -> Option<Vec<[u8; 32]>> {
        let mut at = usize::try_from(index).ok()?;
        self.0.first()?.get(at)?;
        let mut path = Vec::new();
        for level in &self.0 {
            path.extend(level.get(at ^ 1));
            at >>= 1;
        }
        Some(path)
    }
}

/// Whether a path leads from a leaf, of so many, to the root (RFC 9162, section 2.1.3.2).
pub(crate) fn leads(leaf: [u8; 32], index: u32, leaves: u32, path: &[[u8; 32]], root: &Root) -> bool {
    if index >= leaves {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, leaves - 1, leaf);
    for beside in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = inner(beside, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = inner(&hash, beside);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition of RFC 9162, section 2.1.1, word for word.
    fn defined(leaves: &[[u8; 32]]) -> [u8; 32] {
        match leaves {
            [] => Sha256::digest([]).into(),
            [one] => *one,
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                inner(&defined(left), &defined(right))
            }
        }
    }

    fn leaves(count: u32) -> Vec<[u8; 32]> {
        (0..count).map(|index| leaf(&[&index.to_be_bytes()])).collect()
    }

    #[test]
    fn a_root_is_the_one_of_rfc_9162() {
        for count in 0..=70 {
            let leaves = leaves(count);
            assert_eq!(
                Tree::new(leaves.clone()).root().as_bytes(),
                &defined(&leaves),
                "{count} leaves"
            );
        }
    }

    #[test]
    fn each_leaf_has_a_path_and_no_other_leaf_has_it() {
        for count in 1..=70 {
            let leaves = leaves(count);
            let tree = Tree::new(leaves.clone());
            let root = tree.root();
            for index in 0..count {
                let path = tree.path(index).unwrap();
                for (other, leaf) in (0..).zip(&leaves) {
                    assert_eq!(
                        leads(*leaf, index, count, &path, &root),
                        other == index,
                        "{index} of {count}"
                    );
                }
                // Neither at another place, nor in a tree of another size where the way is another, nor with more or less.
                assert!((0..count).all(|at| at == index || !leads(leaves[index as usize], at, count, &path, &root)));
                let longer = [&path[..], &[[0; 32]]].concat();
                assert!(!leads(leaves[index as usize], index, count, &longer, &root));
                if let Some((_, shorter)) = path.split_last() {
                    assert!(!leads(leaves[index as usize], index, count, shorter, &root));
                }
            }
            assert_eq!(tree.path(count), None);
        }
    }
}
