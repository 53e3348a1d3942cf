//! One HTTP/2 connection shared by exchanges.
