//! Python's `random`, as far as vLLM's datasets need it: a seed gives the choices that Python gives. Pure.
//! Sources: Matsumoto and Nishimura's Mersenne Twister (MT19937); CPython's `random` module.

const WORDS: usize = 624;
const AHEAD: usize = 397;

/// The Mersenne Twister.
#[derive(Clone)]
pub struct Random {
    words: [u32; WORDS],
    used: usize,
}

impl Random {
    /// `random.seed(seed)`.
    pub fn new(seed: u64) -> Self {
        let key = [seed as u32, (seed >> 32) as u32];
        let key = if key[1] == 0 { &key[..1] } else { &key[..] };
        let mut words = [0_u32; WORDS];
        words[0] = 19_650_218;
        for i in 1..WORDS {
            words[i] = 1_812_433_253_u32.wrapping_mul(folded(words[i - 1])).wrapping_add(i as u32);
        }
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

    fn next_u32(&mut self) -> u32 {
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

    /// A number below `end`, as `choice` and `shuffle` draw it; 0 where `end` is 0.
    fn below(&mut self, end: u32) -> u32 {
        let bits = u32::BITS - end.leading_zeros();
        if bits == 0 {
            return 0;
        }
        loop {
            let drawn = self.next_u32() >> (u32::BITS - bits);
            if drawn < end {
                return drawn;
            }
        }
    }

    /// `shuffle(items)`.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u32 + 1) as usize);
        }
    }

    /// `choice(items)`; `None` where there are none.
    pub fn choice<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len() as u32) as usize)
    }

    /// `choices(items, k=count)`: with repetition; none where there are none.
    pub fn choices<'a, T>(&mut self, items: &'a [T], count: usize) -> Vec<&'a T> {
        (0..count).filter_map(|_| items.get((self.fraction() * items.len() as f64) as usize)).collect()
    }

    /// `random()`: from 0 to below 1.
    fn fraction(&mut self) -> f64 {
        let (high, low) = (self.next_u32() >> 5, self.next_u32() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }
}

fn folded(word: u32) -> u32 {
    word ^ (word >> 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_choices_of_python() {
        // random.seed(seed); a = list(range(12)); random.shuffle(a)
        // b = [random.choice(a) for _ in range(5)]; c = random.choices(a, k=5)
        for (seed, shuffled, chosen, repeated) in [
            (0_u64, [1, 9, 8, 5, 10, 2, 3, 7, 4, 0, 11, 6], [4, 8, 10, 8, 9], [7, 5, 11, 6, 0]),
            (1_u64, [7, 11, 0, 8, 5, 6, 3, 10, 4, 1, 9, 2], [10, 7, 3, 3, 1], [1, 7, 6, 4, 0]),
            (1099511627781_u64, [3, 5, 2, 9, 6, 7, 1, 10, 0, 4, 11, 8], [9, 11, 1, 8, 5], [4, 2, 11, 5, 7]),
        ] {
            let mut random = Random::new(seed);
            let mut items: Vec<u32> = (0..12).collect();
            random.shuffle(&mut items);
            assert_eq!(items, shuffled, "seed {seed}");
            let one_by_one: Vec<u32> = (0..5).filter_map(|_| random.choice(&items).copied()).collect();
            assert_eq!(one_by_one, chosen, "seed {seed}");
            let at_once: Vec<u32> = random.choices(&items, 5).into_iter().copied().collect();
            assert_eq!(at_once, repeated, "seed {seed}");
        }
    }

    #[test]
    fn the_numbers_stay_pythons_beyond_one_round_of_the_generator() {
        // random.seed(3); [random.choice(range(1000)) for _ in range(2000)][-3:]
        let mut random = Random::new(3);
        let thousand: Vec<u32> = (0..1000).collect();
        let drawn: Vec<u32> = (0..2000).filter_map(|_| random.choice(&thousand).copied()).collect();
        assert_eq!(drawn[1997..], [367, 719, 615]);
    }

    #[test]
    fn nothing_is_chosen_from_nothing() {
        let mut random = Random::new(0);
        assert_eq!(random.choice::<u32>(&[]), None);
        assert!(random.choices::<u32>(&[], 3).is_empty());
    }
}
