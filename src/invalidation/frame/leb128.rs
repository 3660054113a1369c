//! Unsigned LEB128 (DWARF 5, section 7.6), shortest form only.

use super::FrameError;

/// The most bytes that a `u64` takes.
pub(crate) const MAX_LEN: usize = 10;

/// Takes one integer off the front: its value and what follows.
///
/// # Errors
/// `Truncated` when the bytes end before the integer does; `Integer` when it is padded with zero
/// groups, or does not fit 64 bits.
#[inline]
pub(crate) fn read(bytes: &[u8]) -> Result<(u64, &[u8]), FrameError> {
    match bytes {
        [first, rest @ ..] if *first < 0x80 => Ok((u64::from(*first), rest)),
        _ => read_long(bytes),
    }
}

fn read_long(bytes: &[u8]) -> Result<(u64, &[u8]), FrameError> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().enumerate().take(MAX_LEN) {
        let group = u64::from(byte & 0x7F);
        let shift = 7 * index as u32;
        if index == MAX_LEN - 1 && byte > 1 {
            return Err(FrameError::Integer);
        }
        value |= group << shift;
        if byte < 0x80 {
            return match group {
                0 if index > 0 => Err(FrameError::Integer),
                _ => Ok((value, &bytes[index + 1..])),
            };
        }
    }
    Err(FrameError::Truncated)
}

/// Appends one integer.
#[inline]
pub(crate) fn write(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
