//! Memory of the process: how much there is, how much requests and responses may hold, and how much each of
//! them holds.
//!
//! A process has one heap, so there is one budget, fixed at the start ([`set_budget`]). Whatever grows with a
//! client's or a provider's input takes a [`Share`] of it *before* it grows, and returns it on drop. Without
//! a share it is refused, so that no allocation of such a size can fail.

mod machine;

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::{LITTLE, MAX_DEFAULT_MEMORY, MIN_BUDGET, OWN_MEMORY, SLOT_MEMORY, THREAD_STACK};

pub use machine::available;

/// The budget, bytes.
static BUDGET: AtomicUsize = AtomicUsize::new(budget_of(MAX_DEFAULT_MEMORY));
/// Most threads of a pool.
static THREADS: AtomicUsize = AtomicUsize::new(threads_within(MAX_DEFAULT_MEMORY));
/// Bytes of all shares together.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// The kinds of holders. Each may grow while all shares together stay below its part of the budget: work in
/// progress takes precedence over new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Our own response that its client is still reading; anyone may ask for the model list. A quarter.
    Own,
    /// A request, or a provider's response that its client is still reading. A half.
    Request,
    /// A response, or an event of one, that is collected from a provider. Three quarters.
    Response,
    /// Working memory of a request in flight, of any size. All of it.
    Slot,
}

impl Holder {
    /// Bytes of all shares up to which this holder may grow.
    fn part(self) -> usize {
        let quarters = match self {
            Self::Own => 1,
            Self::Request => 2,
            Self::Response => 3,
            Self::Slot => 4,
        };
        BUDGET.load(Ordering::Relaxed) / 4 * quarters
    }
}

#[derive(Debug)]
pub struct Share {
    holder: Holder,
    bytes: usize,
}

impl Share {
    /// An empty share.
    pub fn new(holder: Holder) -> Self {
        Self { holder, bytes: 0 }
    }

    /// Resizes the share. Returns whether there is room; if not, it stays unchanged. A share of at most
    /// [`LITTLE`] bytes may use the whole budget.
    #[must_use]
    pub fn set(&mut self, bytes: usize) -> bool {
        self.set_within(bytes, self.holder.part())
    }

    /// Like [`Self::set`], while all shares together have at most `part` bytes.
    fn set_within(&mut self, bytes: usize, part: usize) -> bool {
        if bytes == self.bytes {
            return true;
        }
        if bytes < self.bytes {
            HELD.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            self.bytes = bytes;
            return true;
        }
        let more = bytes - self.bytes;
        let held = HELD.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        let most = if bytes <= LITTLE { BUDGET.load(Ordering::Relaxed) } else { part };
        if held > most {
            HELD.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.bytes = bytes;
        true
    }

    /// Resizes the share even without room: the bytes exist already.
    pub fn admit(&mut self, bytes: usize) {
        self.give_back();
        HELD.fetch_add(bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }

    /// Adds another share to this one.
    pub fn take_over(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Returns all of it.
    pub fn give_back(&mut self) {
        HELD.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }

    /// Makes room in `bytes`, which this share counts, for `more` bytes and at most `size` in all. It doubles, or
    /// grows [`KNOWN_GROWTH`] times where its length is known. Without memory for that, bytes of unknown length
    /// grow by a quarter, and bytes of known length get all their room at once: a holder that has begun can then
    /// end, and no two holders block each other. Old and new memory coexist while it grows.
    ///
    /// # Errors
    /// There is no room; the share stays unchanged.
    pub fn make_room(&mut self, bytes: &mut Vec<u8>, more: usize, size: Size) -> Result<(), Shortage> {
        let (needed, capacity) = (bytes.len().saturating_add(more), bytes.capacity());
        if needed <= capacity {
            return Ok(());
        }
        let part = self.holder.part();
        let (Size::Known(most) | Size::AtMost(most)) = size;
        let most = most.max(needed);
        let (times, plenty, least) = match size {
            Size::Known(_) => (KNOWN_GROWTH, part / PLENTY, most),
            Size::AtMost(_) => (2, part, needed.saturating_add(needed / 4).min(most)),
        };
        let ample = needed.saturating_mul(times).max(LITTLE).min(most);
        for (wanted, part) in [(ample, plenty), (least, part)] {
            if self.set_within(capacity.saturating_add(wanted), part) {
                bytes.reserve_exact(wanted - bytes.len());
                self.admit(bytes.capacity());
                return Ok(());
            }
        }
        Err(if capacity.saturating_add(least) > part { Shortage::Lasting } else { Shortage::Passing })
    }
}

/// The final size of growing bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Exactly this.
    Known(usize),
    /// At most this.
    AtMost(usize),
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// Others hold the memory at the moment.
    Passing,
    /// No holder of this kind may have so much.
    Lasting,
}

/// Growth of bytes of known length, times what has arrived: most bodies have all their room after the first read.
const KNOWN_GROWTH: usize = 8;
/// While all shares together have at most one part in this many of the holder's, bytes of known length grow
/// [`KNOWN_GROWTH`] times.
const PLENTY: usize = 8;

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Default of `max_memory`, bytes: the available memory, up to [`MAX_DEFAULT_MEMORY`].
pub fn default_max() -> usize {
    available().min(MAX_DEFAULT_MEMORY)
}

/// Sets the budget of a process that may have `max_memory` bytes. Shares taken before the start stay counted.
pub fn set_budget(max_memory: usize) {
    BUDGET.store(budget_of(max_memory), Ordering::Relaxed);
    THREADS.store(threads_within(max_memory), Ordering::Relaxed);
    keep_freed(MAX_KEPT.min(budget_of(max_memory) / KEPT_PART));
}

/// Makes glibc keep the pages of freed buffers for the next ones: up to this size they are on a heap of the thread, which returns memory
/// above twice this size. glibc learns both bounds from the largest freed buffer that was no part of a heap. Without this, large
/// bodies pay for fresh pages each time, a sixth of their cost.
fn keep_freed(bytes: usize) {
    let mut buffer = Vec::<u8>::new();
    // It is never touched. Where it has no room, nothing changes.
    let _ = black_box(buffer.try_reserve_exact(bytes));
    drop(black_box(buffer));
}

/// Largest buffer whose pages stay with the process, bytes: most large bodies are smaller.
const MAX_KEPT: usize = 8 * 1024 * 1024;
/// Such a buffer is at most one part in this many of the budget, so that what a heap keeps is less than half of the allocator's losses.
const KEPT_PART: usize = 16;

/// Bytes that requests and responses hold, and the budget.
pub fn held() -> (usize, usize) {
    (HELD.load(Ordering::Relaxed), BUDGET.load(Ordering::Relaxed))
}

/// The rest of the memory after the process itself and the allocator's losses.
const fn budget_of(max_memory: usize) -> usize {
    let left = max_memory.saturating_sub(OWN_MEMORY) / 4 * 3;
    if left < MIN_BUDGET { MIN_BUDGET } else { left }
}

/// Number of small requests that fit at once into `max_memory` bytes.
pub const fn requests_within(max_memory: usize) -> usize {
    budget_of(max_memory) / SLOT_MEMORY
}

/// Number of threads of a pool that may have at most `most`.
pub fn threads(most: usize) -> usize {
    THREADS.load(Ordering::Relaxed).min(most)
}

/// The stacks of a pool count as address space even when untouched.
const fn threads_within(max_memory: usize) -> usize {
    let threads = max_memory / STACKS_PART / THREAD_STACK;
    if threads == 0 { 1 } else { threads }
}

/// The stacks of a pool may take one part in this many.
const STACKS_PART: usize = 16;

#[cfg(test)]
mod tests {
    use super::{Holder, PLENTY, Share, Shortage, Size, budget_of, requests_within, threads_within};
    use crate::limits::{MAX_DEFAULT_MEMORY, MIN_BUDGET};

    const MIB: usize = 1024 * 1024;

    #[test]
    fn budget_of_any_machine_leaves_room_for_the_process() {
        for (mib, budget) in
            [(0, MIN_BUDGET), (16, MIN_BUDGET), (64, 30 * MIB), (128, 78 * MIB), (256, 174 * MIB)]
        {
            assert_eq!(budget_of(mib * MIB), budget, "{mib} MiB");
        }
        assert!(budget_of(usize::MAX) > MAX_DEFAULT_MEMORY);
    }

    #[test]
    fn requests_of_the_default_config_have_room_on_64_mib() {
        let of = |mib: usize| requests_within(mib * MIB);
        assert_eq!((of(32), of(64), of(128), of(2048)), (21, 109, 285, 5551));
    }

    #[test]
    fn threads_follow_the_memory() {
        let of = |mib: usize| threads_within(mib * MIB);
        assert_eq!((of(0), of(64), of(256), of(2048)), (1, 8, 32, 256));
        assert_eq!(super::threads(2), 2);
    }

    // The budget is the process's: other tests have shares of it meanwhile, so only statements that hold for
    // any other shares are asserted here; `tests/it/small.rs` reaches the bounds.
    #[test]
    fn share_over_the_budget_is_refused_and_stays_what_it_was() {
        let mut share = Share::new(Holder::Request);
        assert!(share.set(1000));
        assert!(!share.set(usize::MAX / 2));
        assert_eq!(share.bytes, 1000);
        assert!(!share.set(budget_of(MAX_DEFAULT_MEMORY) / 2 + 4), "a request may have a half");
        assert_eq!(share.bytes, 1000);
        assert!(share.set(10) && share.bytes == 10);
    }

    #[test]
    fn room_is_made_by_doubling_up_to_the_most() {
        for size in [Size::AtMost(3 * MIB), Size::Known(3 * MIB)] {
            let (mut share, mut bytes) = (Share::new(Holder::Response), Vec::new());
            let mut grown = 0;
            while bytes.len() < 3 * MIB {
                let before = bytes.capacity();
                assert_eq!(share.make_room(&mut bytes, 1000, size), Ok(()));
                grown += usize::from(bytes.capacity() > before);
                bytes.extend_from_slice(&[0; 1000][..1000.min(3 * MIB - bytes.len())]);
                assert_eq!(share.bytes, bytes.capacity());
            }
            assert!(bytes.capacity() <= 3 * MIB + 1000, "{}", bytes.capacity());
            assert!(grown < 10, "{grown} times");
            let most = share.bytes;
            let too_much = share.make_room(&mut bytes, usize::MAX / 2, Size::AtMost(usize::MAX));
            assert_eq!((too_much, share.bytes), (Err(Shortage::Lasting), most));
        }
    }

    #[test]
    fn bytes_of_known_length_get_all_their_room_at_once_where_memory_is_not_plenty() {
        let part = Holder::Request.part();
        let (mut share, mut bytes) = (Share::new(Holder::Request), Vec::new());
        let whole = part / 2;
        assert_eq!(share.make_room(&mut bytes, part / PLENTY, Size::Known(whole)), Ok(()));
        assert!(bytes.capacity() >= whole, "{} of {whole}", bytes.capacity());
        let lasting = share.make_room(&mut bytes, whole + 1, Size::Known(part));
        assert_eq!((lasting, share.bytes), (Err(Shortage::Lasting), bytes.capacity()));
    }
}
