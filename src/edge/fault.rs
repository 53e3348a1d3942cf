//! What can be wrong with the bytes of a request.

use crate::refusal::{Reason, Refusal};

macro_rules! faults {
    ($($(#[$meta:meta])* $name:ident = $reason:ident, $detail:literal;)+) => {
        /// Why the bytes of a request are refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Fault { $($(#[$meta])* #[doc = $detail] $name),+ }

        impl Fault {
            /// Every fault.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The word for it in metrics and answers.
            pub const fn reason(self) -> Reason {
                match self { $(Self::$name => Reason::$reason),+ }
            }

            /// What exactly is wrong.
            pub const fn detail(self) -> &'static str {
                match self { $(Self::$name => $detail),+ }
            }
        }
    };
}

faults! {
    RequestLine = MalformedRequest, "The request line is not valid HTTP.";
    Target = MalformedRequest, "The request target is not valid; percent-encode what is not ASCII.";
    UriTooLong = UriTooLong, "The request line is longer than this gateway allows.";
    Version = MalformedRequest, "The request is neither HTTP/1.1 nor HTTP/1.0.";
    BareCr = MalformedRequest, "A carriage return stands without its line feed.";
    BareLf = MalformedRequest, "A line feed stands without its carriage return.";
    Folded = MalformedRequest, "A header is folded over several lines.";
    FieldName = MalformedRequest, "A header name is not valid, or is not followed by its colon at once.";
    FieldValue = MalformedRequest, "A header value contains a control character.";
    TooManyHeaders = HeadTooLarge, "The request has more headers than this gateway allows.";
    HeadTooLarge = HeadTooLarge, "The request line and headers together are larger than this gateway allows.";
    NoHost = MalformedRequest, "The request has no Host header.";
    TwoHosts = MalformedRequest, "The request has more than one Host header.";
    Host = MalformedRequest, "The Host header is not a host name.";
    Length = MalformedRequest, "Content-Length is not one decimal number.";
    TwoLengths = MalformedRequest, "The request has more than one Content-Length header.";
    Coding = MalformedRequest, "Transfer-Encoding is not exactly `chunked`, once, on HTTP/1.1.";
    LengthAndCoding = MalformedRequest, "The request has both Content-Length and Transfer-Encoding.";
    NotTls = MalformedRequest, "This port speaks HTTPS only.";
    TooManyConnections = TooManyConnections, "The gateway has as many connections open as it may.";
    Late = HeadTimeout, "The request head did not arrive in time.";
}

impl Fault {
    /// The refusal the caller gets.
    pub fn refusal(self) -> Refusal {
        Refusal::new(self.reason(), self.detail())
    }
}
