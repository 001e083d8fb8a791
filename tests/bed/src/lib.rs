//! A Kubernetes cluster of bootc hosts in namespaces, for tests.
