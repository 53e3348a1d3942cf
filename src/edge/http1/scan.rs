//! Where tokens and values end, found many bytes at a time.

use super::tables::TOKEN;

/// How many bytes of a token `bytes` begins with.
pub(super) fn token_end(bytes: &[u8]) -> usize {
    let (eights, _) = bytes.as_chunks::<8>();
    let mut plain = 0;
    for eight in eights {
        let others = others_in(*eight);
        if others != 0 {
            plain += others.trailing_zeros() as usize / 8;
            break;
        }
        plain += 8;
    }
    // Nearly always nothing: tokens have other characters, too, but field names do not use them.
    let rest = bytes.get(plain..).unwrap_or_default();
    plain + rest.iter().take_while(|byte| TOKEN[usize::from(**byte)]).count()
}

/// The highest bit of each byte that is neither a letter nor a digit nor a hyphen, and no other bit.
fn others_in(eight: [u8; 8]) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES * 0x80;
    const LOW: u64 = ONES * 0x7f;
    // Seven bits in each byte, so that no sum below reaches the next one.
    let from = |bytes: u64, first: u8| bytes + ONES * u64::from(0x80 - first);
    let word = u64::from_le_bytes(eight);
    let seven = word & LOW;
    let lower = seven | (ONES * 0x20);
    let letters = from(lower, b'a') & !from(lower, b'z' + 1);
    let digits = from(seven, b'0') & !from(seven, b'9' + 1);
    let hyphens = !((seven ^ (ONES * u64::from(b'-'))) + LOW);
    (!(letters | digits | hyphens) | word) & HIGH
}

/// Where the first control character other than a tab is. Looks at 16 bytes at a time.
pub(super) fn first_control(bytes: &[u8]) -> Option<usize> {
    let (blocks, rest) = bytes.as_chunks::<16>();
    for (index, block) in blocks.iter().enumerate() {
        // Compiled to a few vector instructions.
        let suspect = block.iter().fold(0, |found, byte| found | u8::from(*byte < 0x20) | u8::from(*byte == 0x7f));
        if suspect != 0
            && let Some(found) = control_in(*block)
        {
            return Some(index * 16 + found);
        }
    }
    rest.iter().position(|byte| is_control(*byte)).map(|found| blocks.len() * 16 + found)
}

fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7f
}

/// Where in `block` the first control character other than a tab is.
fn control_in(block: [u8; 16]) -> Option<usize> {
    const ONES: u128 = u128::MAX / 255;
    const HIGH: u128 = ONES * 0x80;
    let word = u128::from_le_bytes(block);
    let deletes = word ^ (ONES * 0x7f);
    let suspects = ((word.wrapping_sub(ONES * 0x20) & !word) | (deletes.wrapping_sub(ONES) & !deletes)) & HIGH;
    // The lowest mark is exact; those above it may be borrowed from it.
    let first = suspects.trailing_zeros() as usize / 8;
    if block.get(first).is_some_and(|byte| is_control(*byte)) {
        Some(first)
    } else {
        block.iter().position(|byte| is_control(*byte))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_byte_is_judged_alike_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            let plain = byte.is_ascii_alphanumeric() || byte == b'-';
            for place in 0..8 {
                let mut eight = *b"a-Z09-zA";
                eight[place] = byte;
                let others = others_in(eight);
                assert_eq!(others, if plain { 0 } else { 0x80 << (8 * place) }, "{byte:#x} at {place}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_token_ends_where_the_table_says(bytes in prop::collection::vec(any::<u8>(), 0..40), ascii in "[ -~]{0,40}") {
            for bytes in [&bytes[..], ascii.as_bytes()] {
                let end = bytes.iter().take_while(|byte| TOKEN[usize::from(**byte)]).count();
                prop_assert_eq!(token_end(bytes), end);
            }
        }
    }
}
