//! Record ids: 15 characters that tell case apart, 3 that make them safe where case is lost (facts 7.5).

use smol_str::SmolStr;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const CHECKS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";

/// The three check characters of a 15-character id.
fn checksum(id: &str) -> [char; 3] {
    let mut sums = [0_usize; 3];
    for (position, byte) in id.bytes().take(15).enumerate() {
        if byte.is_ascii_uppercase() {
            sums[position / 5] |= 1 << (position % 5);
        }
    }
    sums.map(|sum| char::from(CHECKS[sum]))
}

/// The 18-character form of an id of 15 or 18 characters; `None` if it is no id or its check characters are wrong.
pub(super) fn to18(id: &str) -> Option<SmolStr> {
    if !matches!(id.len(), 15 | 18) || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let (base, check) = id.split_at(15);
    let expected = checksum(base).iter().collect::<String>();
    (check.is_empty() || check.eq_ignore_ascii_case(&expected)).then(|| SmolStr::from(format!("{base}{expected}")))
}

/// The id of record `number` of the object with this three-character prefix.
pub(super) fn make(prefix: &str, number: u64) -> SmolStr {
    let mut tail = [b'0'; 10];
    let mut rest = number;
    for place in tail.iter_mut().rev() {
        *place = DIGITS[(rest % 62) as usize];
        rest /= 62;
    }
    let base = format!("{prefix}Wk{}", String::from_utf8_lossy(&tail));
    let check = checksum(&base).iter().collect::<String>();
    SmolStr::from(base + &check)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_characters_match_known_ids() {
        for (id, check) in [
            ("a0RE000000IJmcN", "MAT"),
            ("a01M00000062mPg", "IAI"),
            ("001M000000qfPyS", "IAU"),
            ("0F9E000000092w2", "KAA"),
            ("AbCdEfGhIjKlMnO", "VKV"),
            ("aBcDEfgHIJKLMNO", "025"),
            ("0055J000001D89M", "QAS"),
        ] {
            assert_eq!(to18(id).unwrap(), format!("{id}{check}"));
            assert_eq!(to18(&format!("{id}{}", check.to_lowercase())).unwrap(), format!("{id}{check}"));
        }
    }

    #[test]
    fn wrong_ids_are_refused() {
        assert_eq!(to18("001M000000qfPySIAA"), None);
        assert_eq!(to18("001M000000qfPy"), None);
        assert_eq!(to18("001M000000qfPy/"), None);
    }

    #[test]
    fn made_ids_are_valid_and_distinct() {
        let first = make("001", 1);
        assert_eq!(to18(&first).unwrap(), first);
        assert_eq!(first.len(), 18);
        assert_ne!(first, make("001", 62));
    }
}
