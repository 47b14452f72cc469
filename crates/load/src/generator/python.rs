//! The functions of Python's `random` that data sets use. A seed gives the same choices as in Python.
//! Source: CPython's `random` module.

use super::mersenne::Mersenne;

/// Python's `random.Random`.
#[derive(Clone)]
pub struct Random(Mersenne);

impl Random {
    /// `random.seed(seed)`.
    pub fn new(seed: u64) -> Self {
        let key = [seed as u32, (seed >> 32) as u32];
        Self(Mersenne::from_key(if key[1] == 0 { &key[..1] } else { &key }))
    }

    /// A number below `end`, as `choice` and `shuffle` draw it; 0 if `end` is 0.
    fn below(&mut self, end: u32) -> u32 {
        let bits = u32::BITS - end.leading_zeros();
        if bits == 0 {
            return 0;
        }
        loop {
            let drawn = self.0.next_u32() >> (u32::BITS - bits);
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

    /// `choice(items)`; `None` if there are none.
    pub fn choice<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len() as u32) as usize)
    }

    /// `choices(items, k=count)`: with repetition; empty if there are none.
    pub fn choices<'a, T>(&mut self, items: &'a [T], count: usize) -> Vec<&'a T> {
        (0..count).filter_map(|_| items.get((self.0.fraction() * items.len() as f64) as usize)).collect()
    }
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
    fn the_numbers_are_those_of_python_beyond_one_round_of_the_generator() {
        // random.seed(3); [random.choice(range(1000)) for _ in range(2000)][-3:]
        let mut random = Random::new(3);
        let thousand: Vec<u32> = (0..1000).collect();
        let drawn: Vec<u32> = (0..2000).filter_map(|_| random.choice(&thousand).copied()).collect();
        assert_eq!(drawn[1997..], [367, 719, 615]);
    }

    #[test]
    fn a_choice_from_an_empty_list_is_empty() {
        let mut random = Random::new(0);
        assert_eq!(random.choice::<u32>(&[]), None);
        assert!(random.choices::<u32>(&[], 3).is_empty());
    }
}
