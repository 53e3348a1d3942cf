//! The quick way through ordinary header lines.

use super::tables::{HOST, TOKEN};
use super::{Field, Guard};

impl Guard {
    /// Takes the whole lines `rest` begins with, as long as nothing about them is doubtful: what this does not take, the
    /// states below judge byte by byte, and they would have taken these lines, too. Nearly every line of nearly every head is
    /// read here, at a fifth of the cost.
    pub(super) fn whole_lines(&mut self, rest: &[u8]) -> usize {
        let mut at = 0;
        while let Some(line) = rest.get(at..) {
            let Some(used) = self.whole_line(line) else { break };
            at += used;
        }
        at
    }

    fn whole_line(&mut self, line: &[u8]) -> Option<usize> {
        let colon = token_end(line);
        let (name, after) = line.split_at_checked(colon)?;
        let after = after.strip_prefix(b":")?;
        let end = first_control(after)?;
        let (value, after) = after.split_at_checked(end)?;
        if name.is_empty() || self.head.count >= self.limits.count || !after.starts_with(b"\r\n") {
            return None;
        }
        match field_called(name) {
            Field::Plain => {}
            Field::Host => {
                let host = value.trim_ascii();
                if self.head.hosts > 0 || host.is_empty() || !host.iter().all(|byte| HOST[usize::from(*byte)]) {
                    return None;
                }
                self.head.hosts = 1;
            }
            Field::Length => {
                let digits = value.trim_ascii();
                // Eighteen digits fit without a check.
                let plain = matches!(digits.len(), 1..=18) && digits.iter().all(u8::is_ascii_digit);
                if !plain || self.head.lengths > 0 || self.head.codings > 0 {
                    return None;
                }
                self.head.lengths = 1;
                self.head.length = digits.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0'));
            }
            Field::Coding => return None,
        }
        self.head.count += 1;
        Some(colon + 1 + end + 2)
    }
}

pub(super) fn field_called(name: &[u8]) -> Field {
    match name.len() {
        4 if name.eq_ignore_ascii_case(b"host") => Field::Host,
        14 if name.eq_ignore_ascii_case(b"content-length") => Field::Length,
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => Field::Coding,
        _ => Field::Plain,
    }
}

/// How many bytes of a token `bytes` begins with. Looks at four bytes before it decides.
fn token_end(bytes: &[u8]) -> usize {
    let (fours, _) = bytes.as_chunks::<4>();
    let whole =
        fours.iter().take_while(|four| four.iter().fold(true, |token, byte| token & TOKEN[usize::from(*byte)])).count()
            * 4;
    let rest = bytes.get(whole..).unwrap_or_default();
    whole + rest.iter().take_while(|byte| TOKEN[usize::from(**byte)]).count()
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
