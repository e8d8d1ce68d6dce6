//! What a fuzzer does, in short and the same each time: all its seeds (tests/seeds), and changes of them.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Calls with every seed of a target and then with `count` mutations of them; returns how many were
/// accepted.
pub fn each_mutation(target: &str, count: usize, call: impl Fn(&[u8]) -> bool) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/seeds")
        .join(target);
    let files =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut seeds: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    seeds.sort();
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| fs::read(seed).unwrap()).collect();
    assert!(
        seeds.len() >= 10,
        "{} seeds in {}",
        seeds.len(),
        folder.display()
    );
    let mut random = Random(1);
    let mutations = (0..count).map(|_| {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(2) {
            let other = &seeds[random.below(seeds.len())];
            random.mutate(&mut bytes, other);
        }
        bytes
    });
    let accepted = seeds.iter().cloned().chain(mutations).filter(|bytes| {
        catch_unwind(AssertUnwindSafe(|| call(bytes)))
            .unwrap_or_else(|_| panic!("{target} fails with \"{}\"", bytes.escape_ascii()))
    });
    accepted.count()
}

/// xorshift64*: S. Vigna, *An experimental exploration of Marsaglia's xorshift generators*, 2016.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        high as usize % count.max(1)
    }

    /// A part of `bytes` from `from` to `to`.
    fn range(&mut self, bytes: &[u8]) -> (usize, usize) {
        let from = self.below(bytes.len() + 1);
        let most = (bytes.len() - from).min(1 << self.below(8));
        (from, from + self.below(most + 1))
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        /// Where parsers have edges: signs, digits, quotes, brackets, lengths.
        const BYTES: &[u8] = b"\0\x01\x7f\x80\xff \n\"'\\-+.,:;0189(){}[]<>|=LTFa_u";
        let (from, to) = self.range(bytes);
        let (start, end) = self.range(other);
        match self.below(7) {
            0 => drop(bytes.drain(from..to)),
            1 => drop(bytes.splice(from..to, other[start..end].iter().copied())),
            2 => bytes.insert(from, BYTES[self.below(BYTES.len())]),
            3 => bytes.truncate(from),
            4 => bytes.extend_from_slice(&other[start..end]),
            5 => {
                for byte in &mut bytes[from..to] {
                    *byte ^= 1 << self.below(8);
                }
            }
            _ => match bytes.get_mut(from) {
                Some(byte) => *byte = BYTES[self.below(BYTES.len())],
                None => bytes.push(0),
            },
        }
    }
}
