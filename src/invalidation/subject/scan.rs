//! Finding the first byte that a token cannot carry, eight bytes at a time.
//!
//! The word tests are the "determine if a word has a zero byte" family of S. E. Anderson's *Bit
//! Twiddling Hacks*. Each may flag too much, but only **above** a byte that is rightly flagged (a
//! borrow or a carry runs upwards), so that the lowest flag of their union is exact.

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Whether a token carries this byte as it stands: visible ASCII other than `.`, `*`, `>`, `%`.
#[inline(always)]
pub(super) const fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e) && !matches!(byte, b'.' | b'*' | b'>' | b'%')
}

/// The position of the first byte that is not plain.
#[inline]
pub(super) fn first_special(bytes: &[u8]) -> Option<usize> {
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let flags = special_flags(u64::from_le_bytes(*word));
        if flags != 0 {
            return Some(index * 8 + flags.trailing_zeros() as usize / 8);
        }
    }
    let done = words.len() * 8;
    if let (Some(last), false) = (bytes.last_chunk::<8>(), tail.is_empty()) {
        // The last word overlaps what is known to be plain already.
        let flags = special_flags(u64::from_le_bytes(*last));
        return (flags != 0).then(|| bytes.len() - 8 + flags.trailing_zeros() as usize / 8);
    }
    tail.iter()
        .position(|&byte| !is_plain(byte))
        .map(|at| done + at)
}

/// The high bit of each byte that is not plain; exact at the lowest flag, see the module's text.
#[inline(always)]
const fn special_flags(word: u64) -> u64 {
    let below = word.wrapping_sub(LOW * 0x21) & !word;
    let above = word.wrapping_add(LOW) | word;
    let one_of = has(word, b'.') | has(word, b'*') | has(word, b'>') | has(word, b'%');
    (below | above | one_of) & HIGH
}

/// Flags the bytes of `word` that equal `byte`, before masking with [`HIGH`].
#[inline(always)]
const fn has(word: u64, byte: u8) -> u64 {
    let zero_where_equal = word ^ (LOW * byte as u64);
    zero_where_equal.wrapping_sub(LOW) & !zero_where_equal
}
