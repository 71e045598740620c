//! Slots that are reused, and tokens that tell one use of a slot from the next.

use std::sync::{Arc, Mutex, PoisonError};

/// Two bits of a token above the number of uses are left for its kind.
const MAX_USES: u32 = 0x3fff_ffff;

/// A bounded set of places. A token holds a place and the number of its uses, so that a late event for a
/// previous user does not reach the next one.
pub struct Places<P> {
    all: Vec<Place<P>>,
    free: Vec<u32>,
    max: usize,
    left: Left,
}

struct Place<P> {
    uses: u32,
    content: P,
}

/// A taken place, freed when this is dropped, on any thread.
#[derive(Debug)]
pub struct Slot {
    /// Names the place and this use of it.
    pub(super) token: u64,
    left: Left,
}

/// Tokens of dropped slots, at most one per place.
#[derive(Debug, Clone, Default)]
struct Left(Arc<Mutex<Vec<u64>>>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.left.0.lock().unwrap_or_else(PoisonError::into_inner).push(self.token);
    }
}

impl<P> Places<P> {
    pub(super) fn new(max: usize) -> Self {
        Self { all: Vec::new(), free: Vec::new(), max, left: Left::default() }
    }

    /// Number of taken places.
    pub(super) fn used(&self) -> usize {
        self.all.len() - self.free.len()
    }

    /// Takes a place, if one is free.
    pub(super) fn take(&mut self, content: P) -> Option<Slot> {
        let index = match self.free.pop() {
            Some(index) => {
                self.all[index as usize].content = content;
                index
            }
            None if self.all.len() < self.max => {
                let index = u32::try_from(self.all.len()).ok()?;
                self.all.push(Place { uses: 0, content });
                index
            }
            None => return None,
        };
        Some(Slot { token: token(index, self.all[index as usize].uses), left: self.left.clone() })
    }

    /// The content of the place that this token names, while it is taken.
    pub(super) fn get(&mut self, token: u64) -> Option<&mut P> {
        let (index, uses) = split(token);
        self.all.get_mut(index as usize).filter(|place| place.uses == uses).map(|place| &mut place.content)
    }

    /// Frees the places of dropped slots, after calling `look` on each content.
    pub(super) fn free_left(&mut self, mut look: impl FnMut(&P)) {
        let mut list = self.left.0.lock().unwrap_or_else(PoisonError::into_inner);
        // As after most turns.
        if list.is_empty() {
            return;
        }
        let left = std::mem::take(&mut *list);
        drop(list);
        for (index, _) in left.into_iter().map(split) {
            let place = &mut self.all[index as usize];
            place.uses = (place.uses + 1) & MAX_USES;
            look(&place.content);
            self.free.push(index);
        }
    }

    /// The current token of a place, and its content.
    pub(super) fn at(&self, index: u32) -> (u64, &P) {
        let place = &self.all[index as usize];
        (token(index, place.uses), &place.content)
    }

    /// All tokens with the content of their places, including free ones.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &P)> {
        self.all.iter().zip(0..).map(|(place, index)| (token(index, place.uses), &place.content))
    }
}

fn token(index: u32, uses: u32) -> u64 {
    u64::from(uses) << 32 | u64::from(index)
}

/// The place of a token.
pub(super) fn index(token: u64) -> u32 {
    split(token).0
}

/// The place of a token, and the number of its uses.
fn split(token: u64) -> (u32, u32) {
    (token as u32, (token >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::{MAX_USES, Places, split, token};

    #[test]
    fn a_place_is_used_again_and_the_token_of_its_last_use_means_nothing() {
        let mut places = Places::new(2);
        let (one, other) = (places.take("one").expect("a place"), places.take("other").expect("a place"));
        assert!(places.take("third").is_none(), "there are two");
        let late = one.token;
        drop(one);
        assert!(places.take("third").is_none(), "not before it has been freed");
        let mut seen = Vec::new();
        places.free_left(|content| seen.push(*content));
        assert_eq!((seen, places.used()), (vec!["one"], 1));

        let third = places.take("third").expect("a place");
        assert_eq!(split(third.token).0, split(late).0, "the same place");
        assert_eq!(places.get(late), None);
        assert_eq!(places.get(third.token).copied(), Some("third"));
        assert_eq!(places.get(other.token).copied(), Some("other"));
        assert_eq!(places.get(token(2, 0)), None, "no such place");
    }

    #[test]
    fn the_uses_of_a_place_leave_two_bits_of_a_token() {
        let mut places = Places::new(1);
        places.all.push(super::Place { uses: MAX_USES, content: () });
        places.free.push(0);
        let last = places.take(()).expect("a place");
        assert_eq!(last.token >> 62, 0);
        drop(last);
        places.free_left(|()| {});
        assert_eq!(places.take(()).expect("a place").token, token(0, 0));
    }
}
