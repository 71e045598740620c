//! The poller's connections and their places.

use crossbeam_channel::Sender;

use super::conn::Conn;

/// A connection's place in the poller's table; it is free again when this is dropped.
pub struct Slot {
    pub(super) token: u64,
    gone: Sender<u64>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        // There is room for every slot's one message; the poller being gone is the only failure.
        let _ = self.gone.try_send(self.token);
    }
}

/// The poller's connections. A token is a place and how often it was used, so that an event for a connection that
/// is gone does not meet the next one in its place.
pub struct Table<T> {
    pub(super) places: Vec<Place<T>>,
    free: Vec<u32>,
    max: usize,
    /// Places of connections that are only told why they are not served.
    pub(super) refused: usize,
    gone: Sender<u64>,
}

pub struct Place<T> {
    generation: u32,
    refused: bool,
    pub(super) conn: Option<Conn<T>>,
}

impl<T> Table<T> {
    /// Room for `max` connections; `gone` is told of each that ends.
    pub(super) fn new(max: usize, gone: Sender<u64>) -> Self {
        Self { places: Vec::new(), free: Vec::new(), max, refused: 0, gone }
    }

    /// Places that are taken, wherever their connections are.
    pub(super) fn used(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// A place, if there is one; `refused`: for a connection that is only told why it is not served.
    pub(super) fn reserve(&mut self, refused: bool) -> Option<Slot> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.places.len() < self.max => {
                self.places.push(Place { generation: 0, refused: false, conn: None });
                u32::try_from(self.places.len() - 1).ok()?
            }
            None => return None,
        };
        let place = &mut self.places[index as usize];
        place.refused = refused;
        self.refused += usize::from(refused);
        let generation = place.generation;
        Some(Slot { token: token(index, generation), gone: self.gone.clone() })
    }

    /// A connection has ended: its place is free.
    pub(super) fn release(&mut self, gone: u64) {
        let (index, _) = split(gone);
        let place = &mut self.places[index as usize];
        // Half the range: the top bit marks tokens that are no connection.
        place.generation = (place.generation + 1) & 0x7fff_ffff;
        self.refused -= usize::from(std::mem::take(&mut place.refused));
        self.free.push(index);
    }

    /// A connection is here to wait.
    pub(super) fn put(&mut self, conn: Conn<T>) {
        let (index, _) = split(conn.wire.slot.token);
        self.places[index as usize].conn = Some(conn);
    }

    /// Takes the connection that this token means, if it is here.
    pub(super) fn take(&mut self, token: u64) -> Option<Conn<T>> {
        let (index, generation) = split(token);
        let place = self.places.get_mut(index as usize)?;
        if place.generation == generation { place.conn.take() } else { None }
    }
}

/// The token of a place that was used so often.
pub(super) fn token(index: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

/// A token's place, and how often it was used.
pub(super) fn split(token: u64) -> (u32, u32) {
    (token as u32, (token >> 32) as u32)
}
