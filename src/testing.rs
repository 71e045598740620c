//! Shared by unit tests.

/// Reproducible pseudo-random numbers: xorshift, by George Marsaglia.
pub(crate) struct Random(u64);

impl Random {
    /// Each seed has its own sequence.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number below `bound`.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The high half is more random.
        (self.0 >> 32) as u32 % bound.max(1)
    }
}
