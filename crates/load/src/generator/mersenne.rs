//! The Mersenne Twister MT19937 of Matsumoto and Nishimura, which is used by Python and by numpy's legacy generator.

const WORDS: usize = 624;
const AHEAD: usize = 397;

/// The generator.
#[derive(Clone)]
pub struct Mersenne {
    words: [u32; WORDS],
    used: usize,
}

impl Mersenne {
    /// A generator with one number as its seed (`init_genrand`).
    pub fn from_number(seed: u32) -> Self {
        let mut words = [seed; WORDS];
        for i in 1..WORDS {
            words[i] = 1_812_433_253_u32.wrapping_mul(folded(words[i - 1])).wrapping_add(i as u32);
        }
        Self { words, used: WORDS }
    }

    /// A generator with a key of at least one number as its seed (`init_by_array`).
    pub fn from_key(key: &[u32]) -> Self {
        let mut words = Self::from_number(19_650_218).words;
        // Two passes over all words but the first, which follows the last.
        for round in 0..2 * WORDS - 1 {
            let i = 1 + round % (WORDS - 1);
            let multiplier = if round < WORDS { 1_664_525 } else { 1_566_083_941 };
            let mixed = words[i] ^ folded(words[i - 1]).wrapping_mul(multiplier);
            let j = round % key.len();
            words[i] = if round < WORDS {
                mixed.wrapping_add(key[j]).wrapping_add(j as u32)
            } else {
                mixed.wrapping_sub(i as u32)
            };
            if i == WORDS - 1 {
                words[0] = words[i];
            }
        }
        words[0] = 0x8000_0000;
        Self { words, used: WORDS }
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == WORDS {
            for i in 0..WORDS {
                let joined = (self.words[i] & 0x8000_0000) | (self.words[(i + 1) % WORDS] & 0x7fff_ffff);
                let twist = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
                self.words[i] = self.words[(i + AHEAD) % WORDS] ^ (joined >> 1) ^ twist;
            }
            self.used = 0;
        }
        let mut word = self.words[self.used];
        self.used += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// A number in [0, 1), in steps of 2^-53.
    pub fn fraction(&mut self) -> f64 {
        let (high, low) = (self.next_u32() >> 5, self.next_u32() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }
}

fn folded(word: u32) -> u32 {
    word ^ (word >> 30)
}
