//! Lists of names. Most names are on none, and one look at a table excludes most of those.

#[derive(Debug)]
pub struct Names {
    lists: &'static [&'static [&'static str]],
    /// The lengths of the names, a bit each, by their first letter in any case.
    lengths: [u64; 32],
}

impl Names {
    /// The names on these lists, each of 1 to 63 bytes.
    pub const fn on(lists: &'static [&'static [&'static str]]) -> Self {
        let (mut lengths, mut list) = ([0; 32], 0);
        while list < lists.len() {
            let mut at = 0;
            while at < lists[list].len() {
                let name = lists[list][at].as_bytes();
                lengths[(name[0] & 31) as usize] |= 1 << name.len();
                at += 1;
            }
            list += 1;
        }
        Self { lists, lengths }
    }

    /// Whether `name` is one of them.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.may_contain(name) && self.lists.iter().copied().flatten().any(|other| other.as_bytes() == name)
    }

    /// Whether `name` may be one of them in some case; `false`: it is none.
    pub fn may_contain(&self, name: &[u8]) -> bool {
        let Some(first) = name.first() else { return false };
        name.len() < 64 && self.lengths[usize::from(first & 31)] >> name.len() & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::Names;

    #[test]
    fn contains_is_true_for_the_names_on_the_lists_alone() {
        let names = Names::on(&[&["te"], &["upgrade", "x-request-id"]]);
        for name in ["te", "upgrade", "x-request-id"] {
            assert!(names.contains(name.as_bytes()));
            assert!(names.may_contain(name.to_ascii_uppercase().as_bytes()));
        }
        for other in ["", "t", "tee", "to", "TE", "accept", "x-request-ie", &"t".repeat(66)] {
            assert!(!names.contains(other.as_bytes()), "{other}");
        }
    }
}
