//! The decisions of a rollout, pure.
