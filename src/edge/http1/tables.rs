//! Which bytes may stand where (RFC 9110 section 5.6.2, RFC 3986), which the URI type takes, too.

/// Bytes of a token: methods and field names.
pub(super) static TOKEN: [bool; 256] = all_graphic_but(b"\"(),/:;<=>?@[\\]{}");

/// Bytes of a path. Looser than RFC 3986 where clients are, but always ASCII without controls. Not `?`: it ends a path.
pub(super) static PATH: [bool; 256] = all_graphic_but(b"#<>?`");

/// Bytes of a query.
pub(super) static QUERY: [bool; 256] = all_graphic_but(b"\"#<>");

/// Bytes of a host and port.
pub(super) static HOST: [bool; 256] = all_graphic_but(b"!\"#$%&'()*+,/;<=>?@\\^`{|}~");

const fn all_graphic_but(excluded: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte > 0x20 && byte < 0x7f;
        byte += 1;
    }
    let mut at = 0;
    while at < excluded.len() {
        table[excluded[at] as usize] = false;
        at += 1;
    }
    table
}
