//! The normal form of a path: clients write base URLs with `/v1` and without, with a slash at their end and without.

/// The path with exactly one `/v1` before it, and no empty segment.
pub fn meant(path: &str) -> String {
    let mut meant = String::with_capacity(path.len() + 3);
    meant.push_str("/v1");
    for segment in
        path.split('/').filter(|segment| !segment.is_empty()).skip_while(|segment| *segment == "v1")
    {
        meant.push('/');
        meant.push_str(segment);
    }
    meant
}

/// Whether the path has a last part, and no empty segment.
pub fn is_whole(rest: &str) -> bool {
    rest.split('/').all(|segment| !segment.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{is_whole, meant};

    #[test]
    fn path_gets_its_version_once_and_loses_empty_segments() {
        for (path, expected) in [
            ("/chat/completions", "/v1/chat/completions"),
            ("/v1/v1/chat/completions", "/v1/chat/completions"),
            ("//v1/chat/completions", "/v1/chat/completions"),
            ("/v1//chat//completions/", "/v1/chat/completions"),
            ("/v1/v1/v1//models/p/v1/", "/v1/models/p/v1"),
            ("/v1x/models", "/v1/v1x/models"),
            ("/models/a%2F%2Fb", "/v1/models/a%2F%2Fb"),
            ("/", "/v1"),
            ("*", "/v1/*"),
        ] {
            assert_eq!(meant(path), expected);
            assert_eq!(meant(expected), expected);
        }
        assert!(is_whole("a/b") && !is_whole("") && !is_whole("a/") && !is_whole("/a") && !is_whole("a//b"));
    }
}
