//! numpy's `default_rng`, as far as vLLM's random prompts need it: a seed gives the numbers that numpy gives. Pure.
//! Sources: numpy's `SeedSequence`; O'Neill's PCG XSL-RR 128/64; Lemire's bounded integers.

const POOL: usize = 4;
const MULTIPLIER: u128 = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645;

/// PCG64, and the half of a number that is left from drawing 32 bits.
#[derive(Debug, Clone)]
pub struct Generator {
    state: u128,
    increment: u128,
    half: Option<u32>,
}

impl Generator {
    /// `numpy.random.default_rng(seed)`.
    pub fn new(seed: u64) -> Self {
        let [high, low, increment_high, increment_low] = spread(seed);
        let wide = |high: u64, low: u64| (u128::from(high) << 64) | u128::from(low);
        let increment = (wide(increment_high, increment_low) << 1) | 1;
        let mut generator = Self { state: increment.wrapping_add(wide(high, low)), increment, half: None };
        generator.step();
        generator
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    fn next_u32(&mut self) -> u32 {
        if let Some(half) = self.half.take() {
            return half;
        }
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        let word = folded.rotate_right((self.state >> 122) as u32);
        self.half = Some((word >> 32) as u32);
        word as u32
    }

    /// `integers(0, end)`; 0 where `end` is 0 or 1.
    pub fn below(&mut self, end: u32) -> u32 {
        if end <= 1 {
            return 0;
        }
        let threshold = end.wrapping_neg() % end;
        loop {
            let product = u64::from(self.next_u32()) * u64::from(end);
            if product as u32 >= threshold {
                return (product >> 32) as u32;
            }
        }
    }
}

/// The four words that `SeedSequence(seed)` seeds PCG64 with.
fn spread(seed: u64) -> [u64; 4] {
    let entropy = [seed as u32, (seed >> 32) as u32];
    let mut hash = 0x43b0_d7e5_u32;
    let mut mixed_in = |value: u32| {
        let value = value ^ hash;
        hash = hash.wrapping_mul(0x931e_8875);
        let value = value.wrapping_mul(hash);
        value ^ (value >> 16)
    };
    let mut pool = [entropy[0], entropy[1], 0, 0].map(&mut mixed_in);
    for source in 0..POOL {
        for target in 0..POOL {
            if source != target {
                let value = 0xca01_f9dd_u32
                    .wrapping_mul(pool[target])
                    .wrapping_sub(0x4973_f715_u32.wrapping_mul(mixed_in(pool[source])));
                pool[target] = value ^ (value >> 16);
            }
        }
    }
    let mut hash = 0x8b51_f9dd_u32;
    let mut words = pool.iter().cycle().map(|value| {
        let value = value ^ hash;
        hash = hash.wrapping_mul(0x58f3_8ded);
        let value = value.wrapping_mul(hash);
        u64::from(value ^ (value >> 16))
    });
    std::array::from_fn(|_| {
        let low = words.next().unwrap_or_default();
        low | (words.next().unwrap_or_default() << 32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_numbers_of_numpy() {
        // numpy.random.default_rng(seed).integers(0, end, size=6)
        for (seed, end, expected) in [
            (0, 10000, [8506, 6369, 5111, 2697, 3078, 409]),
            (1, 3, [1, 1, 2, 2, 0, 0]),
            (42, 16381, [1462, 12678, 10722, 7189, 7093, 14064]),
            (1099511627781, 4294967295, [60812778, 20355822, 1932608277, 1600238595, 3933126262, 2522131181]),
            (7, 2147483649, [1926751966, 1241873585, 1790251937, 483628757, 119253154, 644602188]),
        ] {
            let mut generator = Generator::new(seed);
            let drawn: Vec<u32> = (0..6).map(|_| generator.below(end)).collect();
            assert_eq!(drawn, expected, "seed {seed}, end {end}");
        }
    }

    #[test]
    fn a_range_of_one_number_draws_nothing() {
        let mut generator = Generator::new(0);
        assert_eq!((generator.below(1), generator.below(0)), (0, 0));
        assert_eq!(generator.below(10_000), Generator::new(0).below(10_000));
    }
}
