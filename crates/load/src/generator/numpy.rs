//! Two generators of numpy: `default_rng` for random prompts, and the legacy one of `numpy.random.seed` for the gaps between
//! requests. Sources: numpy's `SeedSequence` and `legacy-distributions`;
//! O'Neill's PCG XSL-RR 128/64; Lemire's bounded integers; Marsaglia and Tsang's, and Ahrens and Dieter's gamma.

use super::mersenne::Mersenne;

const POOL: usize = 4;
const MULTIPLIER: u128 = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645;

/// PCG64, with the unused half of a number after drawing 32 bits.
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

/// The legacy generator, as seeded by `numpy.random.seed`.
#[derive(Clone)]
pub struct Legacy {
    mersenne: Mersenne,
    /// The second of a pair of normal numbers.
    normal: Option<f64>,
}

impl Legacy {
    /// `numpy.random.seed(seed)`; only the lower 32 bits of the seed are used (numpy refuses longer seeds).
    pub fn new(seed: u64) -> Self {
        Self { mersenne: Mersenne::from_number(seed as u32), normal: None }
    }

    /// `standard_gamma(shape)`, `shape` greater than 0.
    pub fn gamma(&mut self, shape: f64) -> f64 {
        if shape == 1.0 {
            return self.exponential();
        }
        if shape < 1.0 {
            return self.small_gamma(shape);
        }
        let b = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * b).sqrt();
        loop {
            let normal = self.normal();
            let v = 1.0 + c * normal;
            if v <= 0.0 {
                continue;
            }
            let (v, u) = (v * v * v, self.mersenne.fraction());
            let square = normal * normal;
            if u < 1.0 - 0.0331 * square * square || u.ln() < 0.5 * square + b * (1.0 - v + v.ln()) {
                return b * v;
            }
        }
    }

    fn small_gamma(&mut self, shape: f64) -> f64 {
        loop {
            let (u, v) = (self.mersenne.fraction(), self.exponential());
            let (x, most) = if u <= 1.0 - shape {
                (u.powf(1.0 / shape), v)
            } else {
                let y = -((1.0 - u) / shape).ln();
                ((1.0 - shape + shape * y).powf(1.0 / shape), v + y)
            };
            if x <= most {
                return x;
            }
        }
    }

    fn exponential(&mut self) -> f64 {
        -(1.0 - self.mersenne.fraction()).ln()
    }

    fn normal(&mut self) -> f64 {
        if let Some(normal) = self.normal.take() {
            return normal;
        }
        loop {
            let (x, y) = (2.0 * self.mersenne.fraction() - 1.0, 2.0 * self.mersenne.fraction() - 1.0);
            let square = x * x + y * y;
            if square < 1.0 && square != 0.0 {
                let factor = (-2.0 * square.ln() / square).sqrt();
                self.normal = Some(factor * x);
                return factor * y;
            }
        }
    }
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
    fn a_seed_gives_the_gaps_of_numpys_legacy_generator() {
        // numpy.random.seed(seed); [numpy.random.gamma(shape=shape, scale=1) for _ in range(6)]
        for (seed, shape, expected) in [
            (
                0,
                1.0,
                [
                    0.79587450816311,
                    1.2559307629658378,
                    0.9232231458040688,
                    0.7872011523172707,
                    0.5510484910954992,
                    1.0381592949436094,
                ],
            ),
            (
                0,
                0.3,
                [
                    0.13533681858277738,
                    0.1849933806609573,
                    0.057109334869726934,
                    0.06361341880419374,
                    0.4943278127175497,
                    0.1518010188334639,
                ],
            ),
            (
                7,
                0.9,
                [
                    0.0573341026894501,
                    0.4881671790940971,
                    3.9459022786131435,
                    0.5995578867408298,
                    0.24934052624489064,
                    1.0317201285839848,
                ],
            ),
            (
                0,
                2.5,
                [
                    5.93870070324508,
                    2.8106696416847097,
                    6.242122324898662,
                    1.0230247220453648,
                    2.018256337283051,
                    2.828990115987052,
                ],
            ),
            (
                4294967295,
                16.0,
                [
                    18.375837645184006,
                    18.468062649559936,
                    11.767137733606804,
                    16.81995000116076,
                    15.493051975456853,
                    16.67210626375616,
                ],
            ),
        ] {
            let mut legacy = Legacy::new(seed);
            for expected in expected {
                let drawn = legacy.gamma(shape);
                assert!((drawn / expected - 1.0_f64).abs() < 1e-12, "seed {seed}, shape {shape}: {drawn} {expected}");
            }
        }
    }

    #[test]
    fn a_range_of_one_number_draws_nothing() {
        let mut generator = Generator::new(0);
        assert_eq!((generator.below(1), generator.below(0)), (0, 0));
        assert_eq!(generator.below(10_000), Generator::new(0).below(10_000));
    }
}
