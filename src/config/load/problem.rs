//! What is wrong with a config: every problem, in the order of the file.

use crate::text::Language;
use crate::text::config::ConfigText;

/// One thing that is wrong, and where. Holds nothing secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Path of the key, such as `providers[2].url`; empty for the file as a whole.
    pub place: String,
    /// What is wrong.
    pub text: ConfigText,
}

/// Everything that is wrong with a config; at least one problem.
#[derive(Debug, Clone, PartialEq)]
pub struct Problems {
    language: Language,
    problems: Vec<Problem>,
}

impl Problem {
    /// One sentence: key, offending value (masked when secret), what was expected.
    pub fn say(&self, language: Language) -> String {
        let sentence = self.text.say(language);
        if self.place.is_empty() { sentence } else { format!("{}: {sentence}", self.place) }
    }
}

impl Problems {
    /// A config that cannot even be read as a whole.
    pub(super) fn one(language: Language, text: ConfigText) -> Self {
        Self { language, problems: vec![Problem { place: String::new(), text }] }
    }

    /// Those problems, unless there are none.
    pub(super) fn of(language: Language, problems: Vec<Problem>) -> Option<Self> {
        (!problems.is_empty()).then_some(Self { language, problems })
    }

    /// The language the config asks for as far as that can be read, else the default.
    pub fn language(&self) -> Language {
        self.language
    }

    /// The problems in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    /// One sentence each.
    pub fn say(&self, language: Language) -> Vec<String> {
        self.iter().map(|problem| problem.say(language)).collect()
    }
}
