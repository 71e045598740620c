//! All problems of a config, in the order of the file.

use crate::text::Language;
use crate::text::config::ConfigText;

/// One problem and its place. It holds no secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Path of the key, such as `providers[2].url`; empty for the whole file.
    pub place: String,
    pub text: ConfigText,
}

/// All problems of a config; at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Problems {
    /// Path of the file, if there is one, in the form for a message.
    file: Option<String>,
    language: Option<Language>,
    problems: Vec<Problem>,
}

impl Problem {
    /// One sentence: key, wrong value (masked when secret), expected value.
    pub fn say(&self, language: Language) -> String {
        let sentence = self.text.say(language);
        if self.place.is_empty() { sentence } else { format!("{}: {sentence}", self.place) }
    }
}

impl Problems {
    /// The problem of a config that cannot be read at all.
    pub(super) fn one(language: Option<Language>, text: ConfigText) -> Self {
        Self { file: None, language, problems: vec![Problem { place: String::new(), text }] }
    }

    /// The problems, if there are any.
    pub(super) fn of(language: Option<Language>, problems: Vec<Problem>) -> Option<Self> {
        (!problems.is_empty()).then_some(Self { file: None, language, problems })
    }

    /// The problems of that file, which each sentence names.
    pub(super) fn of_file(self, file: String) -> Self {
        Self { file: Some(file), ..self }
    }

    /// The config's language; `None`: it cannot be read.
    pub fn language(&self) -> Option<Language> {
        self.language
    }

    /// The problems in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    /// One sentence each, after the name of the file.
    pub fn say(&self, language: Language) -> Vec<String> {
        let file = self.file.as_ref().map_or(String::new(), |file| format!("{file}: "));
        self.iter().map(|problem| format!("{file}{}", problem.say(language))).collect()
    }
}
