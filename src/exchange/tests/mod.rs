//! Tests of calls end to end, against origins inside the test.
