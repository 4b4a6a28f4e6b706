//! A histogram as the programs keep it: four buckets to a power of two, so a value is known to a fifth.

use crate::ring::Record;

/// Buckets; the last takes what is larger.
pub const BUCKETS: usize = 160;

/// Bytes of `struct histogram`.
pub const SIZE: usize = 16 + 4 * BUCKETS;

/// `struct histogram` of `bpf/histogram.h`, copies of several CPUs added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// All values together.
    pub sum: u64,
    /// The largest.
    pub max: u64,
    /// How many values fell into each bucket.
    pub buckets: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { sum: 0, max: 0, buckets: vec![0; BUCKETS] }
    }
}

impl Histogram {
    /// From a record's next [`SIZE`] bytes.
    pub fn read(record: &mut Record<'_>) -> Self {
        let (sum, max) = (record.u64(), record.u64());
        Self { sum, max, buckets: (0..BUCKETS).map(|_| record.u32().into()).collect() }
    }

    /// The copies that several CPUs have of one, added up.
    pub fn joined(copies: &[[u8; SIZE]]) -> Self {
        let mut all = Self::default();
        copies.iter().for_each(|copy| all.add(&Self::read(&mut Record(copy))));
        all
    }

    /// Puts another one's values in.
    pub fn add(&mut self, other: &Self) {
        self.sum += other.sum;
        self.max = self.max.max(other.max);
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
    }

    /// Values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Smallest value of bucket `i`: the first eight are a value each.
    pub fn floor(i: usize) -> u64 {
        if i < 8 { i as u64 } else { (4 + i as u64 % 4) << (i / 4 - 1) }
    }

    /// The bucket of a value: what `bucket_of` does in C.
    pub fn bucket_of(value: u64) -> usize {
        if value < 8 {
            return value as usize;
        }
        let log = value.ilog2() as usize;
        ((log - 1) * 4 + (value >> (log - 2) & 3) as usize).min(BUCKETS - 1)
    }

    /// The value below which a share `p` of all values lies: the upper end of that one's bucket, at most `max`.
    pub fn percentile(&self, p: f64) -> u64 {
        let wanted = (p * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (i, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= wanted {
                return (Self::floor(i + 1) - 1).min(self.max);
            }
        }
        self.max
    }

    /// By powers of two, for drawing: lower end and count, from the first to the last that is not empty.
    pub fn powers(&self) -> Vec<(u64, u64)> {
        let mut powers: Vec<(u64, u64)> = Vec::new();
        for (i, n) in self.buckets.iter().enumerate() {
            let floor = Self::floor(i);
            let power = if floor == 0 { 0 } else { 1 << floor.ilog2() };
            match powers.last_mut() {
                Some((last, count)) if *last == power => *count += n,
                _ => powers.push((power, *n)),
            }
        }
        let first = powers.iter().position(|(_, n)| *n > 0).unwrap_or(powers.len());
        let last = powers.iter().rposition(|(_, n)| *n > 0).map_or(first, |l| l + 1);
        powers[first..last].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[u64]) -> Histogram {
        let mut h = Histogram::default();
        for v in values {
            h.buckets[Histogram::bucket_of(*v)] += 1;
            h.sum += v;
            h.max = h.max.max(*v);
        }
        h
    }

    #[test]
    fn a_bucket_holds_what_is_between_its_floor_and_the_next() {
        for i in 0..BUCKETS - 1 {
            assert_eq!(Histogram::bucket_of(Histogram::floor(i)), i);
            assert_eq!(Histogram::bucket_of(Histogram::floor(i + 1) - 1), i);
        }
        assert_eq!(Histogram::bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_right_to_a_fifth() {
        let values: Vec<u64> = (1..=10_000).map(|i| i * 37).collect();
        let h = of(&values);
        for p in [0.01, 0.5, 0.9, 0.99, 1.0] {
            let truth = values[((p * 10_000.0) as usize).max(1) - 1] as f64;
            let said = h.percentile(p) as f64;
            assert!(said >= truth && said <= truth * 1.26, "{p}: {truth} {said}");
        }
        assert_eq!(h.percentile(1.0), 370_000);
    }

    #[test]
    fn powers_are_drawn_without_empty_ends() {
        assert_eq!(of(&[5, 6, 17, 40]).powers(), [(4, 2), (8, 0), (16, 1), (32, 1)]);
        assert_eq!(of(&[]).powers(), []);
    }
}
