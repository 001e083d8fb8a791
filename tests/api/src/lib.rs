//! Helpers of the tests against a real API server.
