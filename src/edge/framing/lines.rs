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
        let mut colon = 0;
        for byte in line {
            if !TOKEN[usize::from(*byte)] {
                break;
            }
            colon += 1;
        }
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

/// Where the first control character other than a tab is. Looks at eight bytes at a time.
pub(super) fn first_control(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES * 0x80;
    let control = |byte: &u8| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f;
    let (eights, rest) = bytes.as_chunks::<8>();
    for (index, eight) in eights.iter().enumerate() {
        let word = u64::from_le_bytes(*eight);
        let deletes = word ^ (ONES * 0x7f);
        let suspects = (word.wrapping_sub(ONES * 0x20) & !word) | (deletes.wrapping_sub(ONES) & !deletes);
        if suspects & HIGH != 0
            && let Some(found) = eight.iter().position(control)
        {
            return Some(index * 8 + found);
        }
    }
    rest.iter().position(control).map(|found| eights.len() * 8 + found)
}
