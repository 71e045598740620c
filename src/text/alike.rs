//! Names that look alike: which known name a misspelt one may mean.

/// Longest name to compare, bytes: a longer one is no typing error.
pub const MAX_COMPARED: usize = 64;

/// The known name that a misspelt one may mean: the one with the fewest edits, at most one for every three bytes. Case counts nothing.
pub fn meant<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > MAX_COMPARED {
        return None;
    }
    let (name, most) = (name.to_lowercase(), name.len() / 3);
    known
        .filter(|known| known.len().abs_diff(name.len()) <= most)
        .map(|known| (edits(&name, &known.to_lowercase()), known))
        .filter(|(edits, _)| *edits <= most)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, known)| known)
}

/// Edit distance: insertions, deletions, substitutions.
pub fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{edits, meant};

    #[test]
    fn distance_counts_edits() {
        for (a, b, distance) in
            [("", "", 0), ("abc", "abc", 0), ("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3)]
        {
            assert_eq!(edits(a, b), distance, "{a} {b}");
        }
    }

    #[test]
    fn misspelt_name_means_the_one_that_is_near() {
        let known = || ["zhipu", "deepseek", "p1", "openai"].into_iter();
        for (name, expected) in [
            ("zhpu", Some("zhipu")),
            ("Deep-Seek", Some("deepseek")),
            ("P1", Some("p1")),
            ("p2", None),
            ("open", None),
            ("", None),
            (&*"z".repeat(65), None),
        ] {
            assert_eq!(meant(name, known()), expected, "{name}");
        }
    }
}
