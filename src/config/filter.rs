//! A list of model patterns.

use regex::Error;
use regex::bytes::{Regex, RegexBuilder};

use crate::limits::MAX_REGEX;

/// Size limit of the first attempt to compile a pattern, bytes.
const LEAST_SIZE: usize = 1024;

/// Regular expressions; a model passes when one of them matches anywhere in its full id.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    patterns: Vec<Pattern>,
}

/// One regular expression.
#[derive(Debug, Clone)]
pub struct Pattern {
    regex: Regex,
    /// Upper bound of its compiled size, bytes.
    size: usize,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// The pattern is malformed, or compiles to more than [`MAX_REGEX`] bytes.
    pub fn new(text: &str) -> Result<Self, Error> {
        match Self::compile(text, true) {
            // A pattern that ignores case does so for ASCII alone: the table of all other letters is 80 KB.
            Err(Error::Syntax(reason)) => Self::compile(text, false).map_err(|_| Error::Syntax(reason)),
            compiled => compiled,
        }
    }

    fn compile(text: &str, is_unicode: bool) -> Result<Self, Error> {
        let mut size = LEAST_SIZE;
        loop {
            match RegexBuilder::new(text).unicode(is_unicode).size_limit(size).build() {
                Err(Error::CompiledTooBig(_)) if size < MAX_REGEX => size = MAX_REGEX.min(4 * size),
                compiled => return compiled.map(|regex| Self { regex, size }),
            }
        }
    }
}

impl FromIterator<Pattern> for Filter {
    fn from_iter<I: IntoIterator<Item = Pattern>>(patterns: I) -> Self {
        Self { patterns: patterns.into_iter().collect() }
    }
}

impl Filter {
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether any pattern matches.
    pub fn matches(&self, id: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.regex.is_match(id.as_bytes()))
    }

    /// The patterns as the config file has them.
    pub fn patterns(&self) -> impl ExactSizeIterator<Item = &str> {
        self.patterns.iter().map(|pattern| pattern.regex.as_str())
    }

    /// Upper bound of the cost of one byte of an id, in about a third of a nanosecond: without its fast
    /// engines `regex` may visit everything it compiled.
    pub fn cost(&self) -> usize {
        self.patterns.iter().map(|pattern| pattern.size).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{Filter, Pattern};
    use crate::limits::MAX_REGEX;

    #[test]
    fn pattern_that_ignores_case_ignores_that_of_ascii() {
        let matches =
            |text: &str, id: &str| Pattern::new(text).map(|pattern| pattern.regex.is_match(id.as_bytes()));
        for (text, id, expected) in [
            ("(?i)gpt-[a-z]+$", "openai/GPT-Mini", true),
            ("(?i)^模型-a", "模型-A", true),
            ("(?i)é", "É", false),
            ("^..$", "模型", true),
            (r"^\w+$", "模型", true),
            ("[模型]$", "大模", true),
        ] {
            assert_eq!(matches(text, id), Ok(expected), "{text} {id}");
        }
        for text in ["(", "(?i)(", r"\p{Greek}", "(?i)[模]"] {
            let error = Pattern::new(text).expect_err(text).to_string();
            assert!(!error.contains("not allowed here"), "{error}");
        }
    }

    #[test]
    fn cost_of_a_filter_grows_with_what_its_patterns_compile_to() {
        let cost =
            |text: &str| Pattern::new(text).map(|pattern| [pattern].into_iter().collect::<Filter>().cost());
        assert_eq!(cost("gpt"), Ok(1024));
        assert_eq!(cost("(a|x){1,200}y"), Ok(65_536));
        assert_eq!(cost("(a|x){1,1000}y"), Ok(MAX_REGEX));
        assert!(cost("(a{1000}){1000}").is_err() && cost("a(").is_err());
        let both: Filter =
            ["a", "b"].into_iter().map(|text| Pattern::new(text).expect("a pattern")).collect();
        assert_eq!((both.cost(), Filter::default().cost()), (2048, 0));
        assert!(both.matches("xb") && !both.matches("x"));
    }
}
