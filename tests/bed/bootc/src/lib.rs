//! A stand-in for bootc on the hosts of the test bed.
