//! What is known under ids, of those that were used last.

use std::collections::HashMap;

use crate::limits::{MAX_RESPONSE_ID, MAX_RESPONSE_OWNERS};

/// At most [`MAX_RESPONSE_OWNERS`] values, in two halves: what is used moves to the young one; when that is full, the old one is forgotten
/// whole.
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
    /// What is known under `id`.
    pub fn get(&mut self, id: &str) -> Option<&V> {
        if let Some((id, value)) = self.old.remove_entry(id) {
            self.put(id, value);
        }
        self.young.get(id)
    }

    /// Puts a value in the place of what was known under `id`. One longer than any real id is not remembered.
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

    /// Forgets `id`.
    pub fn remove(&mut self, id: &str) {
        self.young.remove(id);
        self.old.remove(id);
    }

    /// How many values are remembered.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
