//! The tokens of a response, reported and estimated, of a stream or of a document.

use std::fmt;

use super::estimate::{self, Output};
use super::usage::{self, Reported, Scanner};

/// The tokens of a response, as far as known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Measured {
    /// The provider's report.
    pub reported: Reported,
    /// The estimated completion.
    pub completion: u64,
    /// It broke off: its provider may have reported fewer than it has produced.
    pub is_cut: bool,
}

/// Tokens of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Tokens of the prompt.
    pub prompt: u64,
    /// They are estimated.
    pub is_prompt_estimated: bool,
    /// Tokens of the completion.
    pub completion: u64,
    /// They are estimated.
    pub is_completion_estimated: bool,
}

impl Measured {
    /// The tokens of a complete document.
    pub fn of_document(document: &[u8], output: Output) -> Self {
        let reported = usage::in_document(document);
        let is_reported = reported.completion.is_some_and(|tokens| tokens > 0);
        let completion = if is_reported { 0 } else { estimate::completion(document, output) };
        Self { reported, completion, is_cut: false }
    }

    /// Whether its provider reports anything.
    pub fn is_reported(&self) -> bool {
        self.reported != Reported::default()
    }

    /// The tokens of the call, whose prompt is estimated as `prompt` tokens.
    pub fn used(&self, prompt: u64) -> Used {
        let Reported { prompt: reported, completion } = self.reported;
        // Some providers write zeros where they do not count.
        let is_empty = reported.unwrap_or(0) == 0 && completion.unwrap_or(0) == 0;
        let reported = reported.filter(|_| !is_empty);
        let least = if self.is_cut { self.completion } else { 0 };
        let completion = completion.filter(|reported| !is_empty && *reported >= least);
        Used {
            prompt: reported.unwrap_or(prompt),
            is_prompt_estimated: reported.is_none(),
            completion: completion.unwrap_or(self.completion),
            is_completion_estimated: completion.is_none(),
        }
    }
}

/// The format of the log: `12+34`, and `~12+34` where any of it is estimated.
impl fmt::Display for Used {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.is_estimated() { "~" } else { "" };
        write!(formatter, "{mark}{}+{}", self.prompt, self.completion)
    }
}

impl Used {
    /// Prompt and completion.
    pub fn total(&self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }

    /// Whether any of it is estimated.
    pub fn is_estimated(&self) -> bool {
        self.is_prompt_estimated || self.is_completion_estimated
    }
}

/// Measures a stream while it passes.
#[derive(Debug, Default)]
pub struct Meter {
    output: Output,
    /// Measures all of its text; otherwise samples of it.
    is_exact: bool,
    /// Pieces of complete events so far, and their bytes.
    pieces: u64,
    bytes: u64,
    /// Bytes of the pieces whose text was measured, and of that text.
    sampled: u64,
    text: u64,
    /// Bytes that are no events.
    plain: u64,
    reported: Reported,
    large: Scanner,
}

impl Meter {
    /// A meter for a stream without events so far. `is_exact`: a limit depends on it.
    pub fn new(output: Output, is_exact: bool) -> Self {
        Self { output, is_exact, ..Self::default() }
    }

    /// Looks for reports in events; the last may be cut.
    pub fn report(&mut self, events: &[u8]) {
        self.reported = self.reported.and(usage::in_events(events));
    }

    /// Reads the data of an event.
    pub fn data(&mut self, data: &[u8]) {
        // Most events report nothing, which one search shows.
        if usage::mentions(data) {
            self.reported = self.reported.and(usage::in_document(data));
        }
        self.sample(data);
    }

    /// Begins an event that is too large to be held. Its text is not measured: such an event holds a file, or repeats earlier
    /// text.
    pub fn begin_large(&mut self) {
        self.large = Scanner::default();
    }

    /// Reads a piece of such an event.
    pub fn large(&mut self, piece: &[u8]) {
        self.large.feed(piece);
        self.reported = self.reported.and(self.large.reported());
    }

    /// Counts bytes that are no events.
    pub fn plain(&mut self, bytes: usize) {
        self.plain += bytes as u64;
    }

    /// Measures the text of events; the last may be cut.
    pub fn sample(&mut self, piece: &[u8]) {
        self.pieces += 1;
        self.bytes += piece.len() as u64;
        if self.is_exact || self.pieces.is_power_of_two() {
            self.sampled += piece.len() as u64;
            self.text += estimate::text_in_events(piece, self.output);
        }
    }

    /// The tokens so far.
    pub fn measured(&self) -> Measured {
        let text = u128::from(self.text) * u128::from(self.bytes) / u128::from(self.sampled.max(1));
        let text = estimate::text_tokens(u64::try_from(text).unwrap_or(u64::MAX));
        let completion = match self.output {
            Output::Text | Output::TextWithRepeats => text + estimate::text_tokens(self.plain),
            Output::Images | Output::Sound => estimate::file_tokens(self.plain + self.bytes),
            Output::Figures => 0,
        };
        Measured { reported: self.reported, completion, is_cut: false }
    }
}

#[cfg(test)]
mod tests {
    use super::{Measured, Meter, Output, Reported, Used};

    fn pass(meter: &mut Meter, events: &[u8]) {
        meter.sample(events);
        meter.report(events);
    }

    fn used(prompt: u64, completion: u64, is_estimated: bool) -> Used {
        Used { prompt, completion, is_prompt_estimated: is_estimated, is_completion_estimated: is_estimated }
    }

    #[test]
    fn unreported_tokens_are_estimated() {
        for (usage, expected) in [
            (r#","usage":{"prompt_tokens":3,"completion_tokens":5}"#, used(3, 5, false)),
            (r#","usage":{"prompt_tokens":3,"completion_tokens":0}"#, used(3, 0, false)),
            (r#","usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#, used(70, 2, true)),
            (r#","usage":null"#, used(70, 2, true)),
            ("", used(70, 2, true)),
            (
                r#","usage":{"prompt_tokens":-5,"completion_tokens":5}"#,
                Used { is_prompt_estimated: true, ..used(70, 5, false) },
            ),
            (r#","usage":{"prompt_tokens":3}"#, Used { is_completion_estimated: true, ..used(3, 2, false) }),
        ] {
            let document = format!(r#"{{"choices":[{{"text":"12345678"}}]{usage}}}"#);
            let measured = Measured::of_document(document.as_bytes(), Output::Text);
            assert_eq!(measured.used(70), expected, "{document}");
        }
        assert_eq!(used(12, 34, true).to_string(), "~12+34");
        assert_eq!(used(12, 34, false).to_string(), "12+34");
    }

    #[test]
    fn truncated_stream_costs_its_visible_part() {
        let mut meter = Meter::new(Output::Text, true);
        pass(&mut meter, b"data: {\"message\":{\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\n");
        for _ in 0..100 {
            pass(&mut meter, b"data: {\"delta\":{\"text\":\"1234\"}}\n\n");
        }
        let cut = Measured { is_cut: true, ..meter.measured() };
        assert_eq!(cut.used(70), Used { is_completion_estimated: true, ..used(9, 100, false) });
        pass(&mut meter, b"data: {\"usage\":{\"output_tokens\":90}}\n\n");
        assert_eq!(meter.measured().used(70), used(9, 90, false));
    }

    #[test]
    fn samples_tell_about_as_much_as_all() {
        for is_exact in [true, false] {
            let mut meter = Meter::new(Output::Text, is_exact);
            pass(&mut meter, b"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n");
            for _ in 0..1000 {
                pass(&mut meter, b"data: {\"choices\":[{\"delta\":{\"content\":\"1234\"}}]}\n\n");
            }
            let tokens = meter.measured().completion;
            assert!(if is_exact { tokens == 1000 } else { (800..=1000).contains(&tokens) }, "{tokens}");
        }
    }

    #[test]
    fn bytes_that_are_no_events_count_by_what_they_are() {
        for (output, tokens) in [(Output::Sound, 2), (Output::Text, 512), (Output::Figures, 0)] {
            let mut meter = Meter::new(output, true);
            meter.plain(1000);
            meter.plain(1048);
            assert_eq!(meter.measured().completion, tokens, "{output:?}");
            assert_eq!(meter.measured().reported, Reported::default());
        }
    }
}
