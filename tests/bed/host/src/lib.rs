//! One host of the test bed.
