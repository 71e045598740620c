//! Dates and times of day in messages, files and log lines: the Gregorian calendar without leap seconds.

use std::fmt;
use std::time::{Duration, SystemTime};

/// Seconds.
pub const DAY: i64 = 86_400;

/// The first and the last time that a year of four digits allows, seconds since 1970.
const RANGE: (i64, i64) = (-62_135_596_800, 253_402_300_799);

/// Days of 400 years, and days from March of the year 0 to 1970.
const DAYS: (i64, i64) = (146_097, 719_468);

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// In the order of days since 1970, which began with a Thursday.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

/// A date and a time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateTime {
    year: i64,
    month: i64,
    day: i64,
    /// Seconds since midnight.
    second: i64,
}

/// A local time.
#[derive(Debug, Clone, Copy)]
pub struct LocalTime {
    time: DateTime,
    millisecond: i64,
    /// Seconds.
    ahead_of_utc: i32,
}

/// Seconds since 1970, UTC.
pub fn seconds(time: SystemTime) -> i64 {
    let since = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(RANGE.1);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => since(after),
        Err(before) => -since(before.duration()),
    }
}

impl DateTime {
    /// The time so many seconds after 1970, or the nearest time in [`RANGE`].
    pub fn of(seconds: i64) -> Self {
        let seconds = seconds.clamp(RANGE.0, RANGE.1);
        // Years that begin with March: the leap day is their last.
        let days = seconds.div_euclid(DAY) + DAYS.1;
        let (era, day) = (days.div_euclid(DAYS.0), days.rem_euclid(DAYS.0));
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (year * 365 + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        Self {
            year: era * 400 + year + i64::from(month >= 10),
            month: if month < 10 { month + 3 } else { month - 9 },
            day: day - (153 * month + 2) / 5 + 1,
            second: seconds.rem_euclid(DAY),
        }
    }

    /// Seconds since 1970.
    pub fn seconds(self) -> i64 {
        let (year, month) =
            if self.month > 2 { (self.year, self.month - 3) } else { (self.year - 1, self.month + 9) };
        let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
        let day = (153 * month + 2) / 5 + self.day - 1 + year * 365 + year / 4 - year / 100;
        (era * DAYS.0 + day - DAYS.1) * DAY + self.second
    }

    /// A date as `2026-01-31`, its midnight.
    pub fn from_date(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-').map(number);
        let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
        Self { year, month, day, second: 0 }.checked()
    }

    /// A date in any of the three formats that a recipient must accept (RFC 9110 section 5.6.7). Its day of the week is ignored.
    pub fn from_http(text: &str) -> Option<Self> {
        let mut parts = text.split([' ', ',', '-']).filter(|part| !part.is_empty());
        let mut next = || parts.next();
        let (_, first, second, third, fourth) = (next()?, next()?, next()?, next()?, next()?);
        let (day, month, year, time) = match number(first) {
            Some(day) => (day, second, third, fourth),
            None => (number(second)?, first, fourth, third),
        };
        let year = match (number(year)?, year.len()) {
            (year, 2) => year + if year < 50 { 2000 } else { 1900 },
            (year, _) => year,
        };
        let month = MONTHS.iter().zip(1..).find(|(name, _)| **name == month)?.1;
        let mut parts = time.splitn(3, ':').map(number);
        let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
        // A leap second counts as the second after it.
        let is_time = hours < 24 && minutes < 60 && seconds <= 60;
        let date = Self { year, month, day, second: 0 }.checked()?;
        is_time.then(|| Self::of(date.seconds() + hours * 3600 + minutes * 60 + seconds))
    }

    /// The time in the format of a `Date` field.
    pub fn to_http(self) -> String {
        let weekday = self.seconds().div_euclid(DAY).rem_euclid(7);
        let mut text = WEEKDAYS[weekday as usize].to_owned();
        push(&mut text, ", ", self.day, 2);
        text.push(' ');
        text.push_str(MONTHS[self.month as usize - 1]);
        push(&mut text, " ", self.year, 4);
        self.push_time(&mut text, " ");
        text.push_str(" GMT");
        text
    }

    /// Adds the date, as `2026-01-31`.
    pub fn push_date(self, text: &mut String) {
        push(text, "", self.year, 4);
        push(text, "-", self.month, 2);
        push(text, "-", self.day, 2);
    }

    /// Adds the date and the time of day, as `09:30:00`.
    pub fn push_time(self, text: &mut String, between: &str) {
        push(text, between, self.second / 3600, 2);
        push(text, ":", self.second / 60 % 60, 2);
        push(text, ":", self.second % 60, 2);
    }

    /// `None`: there is no such date.
    fn checked(self) -> Option<Self> {
        let is_near = (0..=9999).contains(&self.year) && (1..=12).contains(&self.month) && self.day < 32;
        (is_near && Self::of(self.seconds()) == self).then_some(self)
    }
}

impl LocalTime {
    /// The time of seconds since 1970 and milliseconds, in a zone that is so many seconds ahead of UTC.
    pub fn of((seconds, millisecond): (i64, i32), ahead_of_utc: i32) -> Self {
        let time = DateTime::of(seconds.saturating_add(ahead_of_utc.into()));
        Self { time, millisecond: millisecond.into(), ahead_of_utc }
    }

    /// Adds date and time of day, to the millisecond.
    pub fn push(self, text: &mut String, between: &str) {
        self.time.push_date(text);
        self.time.push_time(text, between);
        push(text, ".", self.millisecond, 3);
    }

    /// Adds the zone's offset from UTC in the format of RFC 3339.
    pub fn push_offset(self, text: &mut String) {
        let minutes = i64::from(self.ahead_of_utc.unsigned_abs() / 60);
        push(text, if self.ahead_of_utc < 0 { "-" } else { "+" }, minutes / 60, 2);
        push(text, ":", minutes % 60, 2);
    }
}

/// In the format of RFC 3339, for UTC.
impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.push_date(&mut text);
        self.push_time(&mut text, "T");
        text.push('Z');
        f.write_str(&text)
    }
}

fn number(digits: &str) -> Option<i64> {
    let is_number = (1..=4).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

/// Adds `before` and a number of so many digits.
fn push(text: &mut String, before: &str, number: i64, digits: u32) {
    text.push_str(before);
    for place in (0..digits).rev() {
        text.push(char::from(b'0' + (number / 10_i64.pow(place) % 10) as u8));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{DateTime, RANGE, seconds};

    #[test]
    fn a_date_is_that_of_its_seconds() {
        for (seconds, date, http) in [
            (0, "1970-01-01T00:00:00Z", "Thu, 01 Jan 1970 00:00:00 GMT"),
            (-1, "1969-12-31T23:59:59Z", "Wed, 31 Dec 1969 23:59:59 GMT"),
            (784_111_777, "1994-11-06T08:49:37Z", "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "2000-02-29T00:00:00Z", "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_107_542_400, "2100-03-01T00:00:00Z", "Mon, 01 Mar 2100 00:00:00 GMT"),
            (RANGE.0, "0001-01-01T00:00:00Z", "Mon, 01 Jan 0001 00:00:00 GMT"),
            (i64::MAX, "9999-12-31T23:59:59Z", "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            let time = DateTime::of(seconds);
            assert_eq!((time.to_string().as_str(), time.to_http().as_str()), (date, http));
            assert_eq!(time.seconds(), seconds.min(RANGE.1), "{date}");
            assert_eq!(DateTime::from_http(http), Some(time), "{http}");
        }
        for second in (RANGE.0..RANGE.1).step_by(86_400 * 13 + 7) {
            assert_eq!(DateTime::of(second).seconds(), second);
        }
    }

    #[test]
    fn every_form_of_a_date_in_http_is_read() {
        for date in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(DateTime::from_http(date).map(DateTime::seconds), Some(784_111_777), "{date}");
        }
        let leap = DateTime::from_http("Sat, 31 Dec 2016 23:59:60 GMT");
        assert_eq!(leap, Some(DateTime::of(1_483_228_800)));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in
            ["", "2026", "2026-01", "2026-02-29", "2026-13-01", "2026-00-10", "2026-01-00", "2026-1-1-1"]
        {
            assert_eq!(DateTime::from_date(text), None, "{text}");
        }
        assert_eq!(DateTime::from_date("2024-02-29").map(DateTime::seconds), Some(1_709_164_800));
        for text in [
            "",
            "soon",
            "Mon, 99 Foo 2026 00:00:00 GMT",
            "Sun, 31 Feb 2026 00:00:00 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 99999999999999999999 08:49:37 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(DateTime::from_http(text), None, "{text}");
        }
    }

    #[test]
    fn seconds_count_from_1970_either_way() {
        let start = SystemTime::UNIX_EPOCH;
        assert_eq!(seconds(start + Duration::from_millis(1500)), 1);
        assert_eq!(seconds(start - Duration::from_secs(5)), -5);
    }
}
