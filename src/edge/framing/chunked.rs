//! Chunk sizes, extensions and trailers.

use memchr::memchr;

use super::fault::Fault;
use super::{CHUNK_DIGITS, EXTENSION_BYTES, Guard, State, TRAILER_BYTES, check_name};

impl Guard {
    pub(super) fn chunk_size(&mut self, byte: u8) -> Result<usize, Fault> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if self.digits > 0 => return self.to(State::ChunkLf, 1),
            b';' if self.digits > 0 => return self.to(State::ChunkExtension, 1),
            _ => return Err(Fault::ChunkSize),
        };
        self.digits += 1;
        if self.digits > CHUNK_DIGITS || self.number >> 59 != 0 {
            return Err(Fault::ChunkSize);
        }
        self.number = (self.number << 4) | u64::from(digit);
        Ok(1)
    }

    pub(super) fn chunk_extension(&mut self, rest: &[u8]) -> Result<usize, Fault> {
        let used = self.plain_value(up_to(rest, EXTENSION_BYTES, self.extension_bytes), State::ChunkLf)?;
        self.extension_bytes = self.extension_bytes.saturating_add(u16::try_from(used).unwrap_or(u16::MAX));
        if self.extension_bytes > EXTENSION_BYTES { Err(Fault::ChunkExtension) } else { Ok(used) }
    }

    pub(super) fn trailer_name(&mut self, rest: &[u8]) -> Result<usize, Fault> {
        let rest = up_to(rest, TRAILER_BYTES, self.trailer_bytes);
        let colon = memchr(b':', rest);
        let name = colon.and_then(|colon| rest.get(..colon)).unwrap_or(rest);
        check_name(name)?;
        self.keep_name(name);
        self.count_trailer(name.len())?;
        match colon {
            None => Ok(name.len()),
            Some(_) if self.name_len == 0 => Err(Fault::FieldName),
            Some(colon) => self.to(State::TrailerValue, colon + 1),
        }
    }

    pub(super) fn count_trailer(&mut self, used: usize) -> Result<(), Fault> {
        self.trailer_bytes = self.trailer_bytes.saturating_add(u16::try_from(used).unwrap_or(u16::MAX));
        if self.trailer_bytes > TRAILER_BYTES { Err(Fault::Trailers) } else { Ok(()) }
    }
}

/// `rest` up to the byte that makes it more than `limit`.
pub(super) fn up_to(rest: &[u8], limit: u16, so_far: u16) -> &[u8] {
    rest.get(..usize::from(limit.saturating_sub(so_far)) + 1).unwrap_or(rest)
}
