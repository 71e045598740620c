//! Documents made large: any element repeated, any string lengthened, so that what a reader of them costs can be held
//! against their size.

use std::ops::Range;

/// A place in a JSON document that can be made larger.
#[derive(Debug, Clone)]
enum Place {
    /// An element of an array or a member of an object, its key included.
    Item(Range<usize>),
    /// What stands between the quotes of a string, a key's too.
    Text(Range<usize>),
}

/// How a place is made larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// The item again and again, the same each time; of a string, its text.
    Repeat,
    /// The item again and again, its ids, names and numbers other ones each time.
    Distinct,
    /// One long string.
    Lengthen,
    /// A string of the length that most bounds on names let through.
    Name,
    /// The item or the string in arrays in arrays.
    Nest,
}

/// All of them.
pub const GROWTHS: [Growth; 5] =
    [Growth::Repeat, Growth::Distinct, Growth::Lengthen, Growth::Name, Growth::Nest];

/// Length of [`Growth::Name`], bytes.
const NAME: usize = 200;

/// Every way to grow a document in one place, by the number of the growth and of the place, each document once. None for what is no JSON.
pub fn steps(document: &str) -> Vec<(usize, usize)> {
    let places = find(document).unwrap_or_default();
    let growths = |place: &Place| match place {
        Place::Item(_) => [Growth::Repeat, Growth::Distinct].iter(),
        Place::Text(_) => [Growth::Repeat, Growth::Lengthen, Growth::Name].iter(),
    };
    let number = |growth: &Growth| GROWTHS.iter().position(|it| it == growth).unwrap_or_default();
    let of_place = |(at, place)| growths(place).map(move |growth| (number(growth), at));
    places.iter().enumerate().flat_map(of_place).collect()
}

/// The document with its place of that number (modulo their count) grown by some `budget` bytes. `None`: it is no JSON.
pub fn grow(document: &str, place: usize, growth: Growth, budget: usize) -> Option<String> {
    let found = find(document)?;
    let place = found.get(place % found.len().max(1))?;
    if growth == Growth::Nest {
        let (start, end) = place.ends();
        let levels = budget / "[]".len();
        let pieces = [
            &document[..start],
            &"[".repeat(levels),
            &document[start..end],
            &"]".repeat(levels),
            &document[end..],
        ];
        return Some(pieces.concat());
    }
    let (at, added) = match (place, growth) {
        (Place::Text(text), Growth::Lengthen) => (text.start, "x".repeat(budget)),
        (Place::Text(text), Growth::Name) => (text.start, "n".repeat(NAME.min(budget))),
        (Place::Text(text), _) => {
            let text = &document[text.clone()];
            (place.end(), text.repeat(budget / text.len().max(1)))
        }
        (Place::Item(item), Growth::Distinct) => (item.end, distinct(&document[item.clone()], budget)),
        (Place::Item(item), _) => {
            let copy = [",", &document[item.clone()]].concat();
            (item.end, copy.repeat(budget / copy.len()))
        }
    };
    Some([&document[..at], &added, &document[at..]].concat())
}

impl Place {
    /// Where it begins and ends, the quotes of a string included.
    fn ends(&self) -> (usize, usize) {
        match self {
            Self::Item(range) => (range.start, range.end),
            Self::Text(range) => (range.start - 1, range.end + 1),
        }
    }

    fn end(&self) -> usize {
        match self {
            Self::Item(range) | Self::Text(range) => range.end,
        }
    }
}

/// Copies of an item, a comma ahead of each, in which every number, and every string with a digit in it, is another one.
fn distinct(item: &str, budget: usize) -> String {
    let mut copies = String::new();
    for number in 1.. {
        copies.push(',');
        let mut rest = item;
        while let Some(digits) = rest.find(|it: char| it.is_ascii_digit()) {
            let (before, after) = rest.split_at(digits);
            let end = after.find(|it: char| !it.is_ascii_digit()).unwrap_or(after.len());
            copies.push_str(before);
            // The first digit of an escape must stay one.
            copies.push_str(if before.ends_with("\\u") { &after[..end] } else { "1" });
            if !before.ends_with("\\u") {
                copies.push_str(&number.to_string());
            }
            rest = &after[end..];
        }
        copies.push_str(rest);
        if copies.len() >= budget {
            break;
        }
    }
    copies
}

fn find(document: &str) -> Option<Vec<Place>> {
    // What the scan below takes for granted, its depth included.
    serde_json::from_str::<serde_json::Value>(document).ok()?;
    let mut scan = Scan { document: document.as_bytes(), at: 0, found: Vec::new() };
    scan.value();
    Some(scan.found)
}

/// Goes through a document that is known to be JSON.
struct Scan<'a> {
    document: &'a [u8],
    at: usize,
    found: Vec<Place>,
}

impl Scan<'_> {
    fn peek(&mut self) -> u8 {
        while self.document.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.document.get(self.at).copied().unwrap_or_default()
    }

    fn value(&mut self) {
        match self.peek() {
            b'{' | b'[' => self.items(),
            b'"' => self.string(),
            _ => {
                let is_scalar =
                    |byte: &u8| !matches!(byte, b',' | b'}' | b']') && !byte.is_ascii_whitespace();
                self.at += self.document[self.at..].iter().take_while(|byte| is_scalar(byte)).count();
            }
        }
    }

    fn items(&mut self) {
        self.at += 1;
        while !matches!(self.peek(), b'}' | b']' | 0) {
            let start = self.at;
            self.value();
            if self.peek() == b':' {
                self.at += 1;
                self.value();
            }
            self.found.push(Place::Item(start..self.at));
            if self.peek() == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
    }

    fn string(&mut self) {
        let start = self.at + 1;
        self.at = start;
        while self.document[self.at] != b'"' {
            self.at += if self.document[self.at] == b'\\' { 2 } else { 1 };
        }
        self.found.push(Place::Text(start..self.at));
        self.at += 1;
    }
}
