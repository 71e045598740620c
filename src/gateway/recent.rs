//! A bounded map that forgets the ids not used for longest.

use std::collections::HashMap;

use crate::limits::{MAX_RESPONSE_ID, MAX_RESPONSE_OWNERS};

/// At most [`MAX_RESPONSE_OWNERS`] values in two halves. A used value moves to the young half; when that is
/// full, the old half is dropped.
#[derive(Debug)]
pub struct Recent<V> {
    young: HashMap<String, V>,
    old: HashMap<String, V>,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<V> Recent<V> {
    /// The value of `id`.
    pub fn get(&mut self, id: &str) -> Option<&V> {
        if let Some((id, value)) = self.old.remove_entry(id) {
            self.put(id, value);
        }
        self.young.get(id)
    }

    /// Sets the value of `id`. An id longer than any real one is ignored.
    pub fn put(&mut self, id: String, value: V) {
        if id.len() > MAX_RESPONSE_ID {
            return;
        }
        if self.young.len() >= MAX_RESPONSE_OWNERS / 2 && !self.young.contains_key(&id) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&id);
        self.young.insert(id, value);
    }

    pub fn remove(&mut self, id: &str) {
        self.young.remove(id);
        self.old.remove(id);
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
