//! Which pool names which pull secret, and what was last seen of it.

use std::collections::{BTreeMap, BTreeSet};

use fsm::{Input, PoolName, view::SecretRef};

/// The pull secrets that pools name.
#[derive(Debug, Default)]
pub(super) struct PullSecrets {
    named: BTreeMap<PoolName, SecretRef>,
    seen: BTreeMap<SecretRef, Result<String, String>>,
}

impl PullSecrets {
    /// A pool names this secret now. Says what is known of it, if that is news to the pool.
    pub(super) fn name(&mut self, pool: &PoolName, secret: Option<&SecretRef>) -> Option<Input> {
        if self.named.get(pool) == secret {
            return None;
        }
        let Some(secret) = secret else {
            self.named.remove(pool);
            return None;
        };
        self.named.insert(pool.clone(), secret.clone());
        let result = self.seen.get(secret)?.clone();
        Some(Input::Secret {
            pool: pool.clone(),
            secret: secret.clone(),
            result,
        })
    }

    /// A secret was seen: every pool that names it is told.
    pub(super) fn see(
        &mut self,
        secret: &SecretRef,
        result: &Result<String, String>,
    ) -> Vec<Input> {
        let pools = self.named.iter().filter(|(_, named)| *named == secret);
        let told = |(pool, _): (&PoolName, _)| Input::Secret {
            pool: pool.clone(),
            secret: secret.clone(),
            result: result.clone(),
        };
        let inputs: Vec<Input> = pools.map(told).collect();
        if !inputs.is_empty() {
            self.seen.insert(secret.clone(), result.clone());
        }
        inputs
    }

    /// All secrets that are to be watched; what was seen of others is forgotten.
    pub(super) fn all(&mut self) -> BTreeSet<SecretRef> {
        let all: BTreeSet<_> = self.named.values().cloned().collect();
        self.seen.retain(|secret, _| all.contains(secret));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str) -> SecretRef {
        SecretRef {
            name: name.into(),
            namespace: "ns".into(),
        }
    }

    fn told(inputs: &[Input]) -> Vec<&str> {
        let pool = |input: &Input| match input {
            Input::Secret { pool, .. } => Some(pool.as_str().to_owned()),
            _ => None,
        };
        inputs
            .iter()
            .filter_map(pool)
            .map(|name| &*Box::leak(name.into_boxed_str()))
            .collect()
    }

    #[test]
    fn every_pool_that_names_a_secret_is_told_and_no_other() {
        let mut secrets = PullSecrets::default();
        secrets.name(&"p".into(), Some(&secret("a")));
        secrets.name(&"q".into(), Some(&secret("a")));
        secrets.name(&"r".into(), Some(&secret("b")));
        assert_eq!(
            told(&secrets.see(&secret("a"), &Ok("h".into()))),
            ["p", "q"]
        );
        assert_eq!(secrets.all(), [secret("a"), secret("b")].into());
    }

    #[test]
    fn a_pool_that_names_a_known_secret_is_told_at_once_and_once() {
        let mut secrets = PullSecrets::default();
        secrets.name(&"p".into(), Some(&secret("a")));
        secrets.see(&secret("a"), &Err("missing".into()));
        let input = secrets.name(&"q".into(), Some(&secret("a")));
        assert!(matches!(input, Some(Input::Secret { result: Err(_), .. })));
        assert_eq!(secrets.name(&"q".into(), Some(&secret("a"))), None);
    }

    #[test]
    fn a_secret_that_nobody_names_is_forgotten() {
        let mut secrets = PullSecrets::default();
        secrets.name(&"p".into(), Some(&secret("a")));
        secrets.see(&secret("a"), &Ok("h".into()));
        secrets.name(&"p".into(), None);
        assert!(secrets.all().is_empty());
        assert_eq!(
            secrets.name(&"p".into(), Some(&secret("a"))),
            None,
            "it is watched anew"
        );
        assert!(secrets.see(&secret("b"), &Ok("h".into())).is_empty());
    }
}
