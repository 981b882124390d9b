//! Codes in words of 32 bits.

/// Where the codes of a word of AWQ come from, from the lowest bits on.
pub const AWQ_ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// Words of so many codes.
pub fn words(codes: usize, bits: u32) -> usize {
    (codes * bits as usize).div_ceil(32)
}

/// Codes one behind the other, from the lowest bit of the first word on; a code may go over into the next word.
pub fn pack(codes: impl Iterator<Item = u8>, bits: u32, to: &mut [u32]) {
    let mut at = 0usize;
    for code in codes {
        let (word, shift, code) = (at / 32, (at % 32) as u32, u32::from(code));
        to[word] |= code << shift;
        if shift + bits > 32 {
            to[word + 1] |= code >> (32 - shift);
        }
        at += bits as usize;
    }
}

/// Code `at` of words that `word` gives.
pub fn unpack(word: impl Fn(usize) -> u32, bits: u32, at: usize) -> u8 {
    let first = at * bits as usize;
    let (index, shift) = (first / 32, (first % 32) as u32);
    let mut code = word(index) >> shift;
    if shift + bits > 32 {
        code |= word(index + 1) << (32 - shift);
    }
    (code & ((1 << bits) - 1)) as u8
}

#[cfg(test)]
mod tests {
    use super::{pack, unpack, words};

    #[test]
    fn codes_come_back_of_any_number_of_bits() {
        for bits in 2..=8u32 {
            for count in [1usize, 7, 31, 32, 33, 100] {
                let codes: Vec<u8> = (0..count).map(|i| ((i * 37 + 11) % (1 << bits)) as u8).collect();
                let mut to = vec![0; words(count, bits)];
                pack(codes.iter().copied(), bits, &mut to);
                let back: Vec<u8> = (0..count).map(|at| unpack(|i| to[i], bits, at)).collect();
                assert_eq!(back, codes, "{bits} bits");
            }
        }
    }

    #[test]
    fn three_bits_go_over_from_word_to_word_as_gptq_has_them() {
        // The eleventh code has two bits in the first word and one in the second.
        let mut codes = vec![0u8; 32];
        (codes[0], codes[10], codes[11]) = (5, 0b110, 0b011);
        let mut to = vec![0; 3];
        pack(codes.into_iter(), 3, &mut to);
        assert_eq!(to, [5 | 0b10 << 30, 1 | 0b011 << 1, 0]);
    }
}
