//! Keys and random numbers, the same in every run.

use smol_str::SmolStr;

/// The name of key `n`, of a length that services use.
#[must_use]
pub fn key(n: usize) -> String {
    format!("order/{n:07}")
}

/// The name of key `n`, in place: a list of such names is one piece of memory.
#[must_use]
pub fn short_key(n: usize) -> SmolStr {
    smol_str::format_smolstr!("order/{n:07}")
}

/// The names of the first `n` keys.
#[must_use]
pub fn keys(n: usize) -> Vec<String> {
    (0..n).map(key).collect()
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, and its seed is all its state.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    #[inline]
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.draw()) * n as u128) >> 64) as usize
    }

    /// A number in 0..1.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Zipf's distribution with exponent 1 over `0..n`: the `k`-th key is as popular as the first is
/// divided by `k + 1`.
#[derive(Clone, Debug)]
pub struct Zipf {
    cumulated: Vec<f64>,
}

impl Zipf {
    /// Over `n` keys, at least one.
    #[must_use]
    pub fn new(n: usize) -> Self {
        let mut sum = 0.0;
        let mut cumulated: Vec<f64> = (1..=n.max(1))
            .map(|k| {
                sum += 1.0 / k as f64;
                sum
            })
            .collect();
        for share in &mut cumulated {
            *share /= sum;
        }
        Self { cumulated }
    }

    /// A key.
    #[inline]
    pub fn draw(&self, random: &mut Random) -> usize {
        let unit = random.unit();
        self.cumulated
            .partition_point(|&share| share < unit)
            .min(self.cumulated.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::{Random, Zipf, key, short_key};

    #[test]
    fn both_names_are_the_same_and_the_short_one_is_in_place() {
        for n in [0, 7, 999_999] {
            assert_eq!(short_key(n), key(n));
            assert!(!short_key(n).is_heap_allocated());
        }
    }

    #[test]
    fn zipf_halves_from_the_first_key_to_the_second() {
        let zipf = Zipf::new(100);
        let mut random = Random::new(1);
        let mut seen = [0_u32; 100];
        for _ in 0..100_000 {
            seen[zipf.draw(&mut random)] += 1;
        }
        let ratio = f64::from(seen[0]) / f64::from(seen[1]);
        assert!((1.8..2.2).contains(&ratio), "{ratio}");
        assert!(seen[99] > 0);
    }

    #[test]
    fn below_stays_below_and_reaches_every_number() {
        let mut random = Random::new(7);
        let mut seen = [false; 10];
        for _ in 0..1_000 {
            seen[random.below(10)] = true;
        }
        assert!(seen.iter().all(|&s| s));
    }
}
