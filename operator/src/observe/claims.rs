//! Which pools claim which nodes: the one place where a selector meets labels.

use std::collections::{BTreeMap, BTreeSet};

use fsm::{PoolName, view::NodeView};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{ParseExpressionError, Selector, SelectorExt as _};

/// The nodes that a pool claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Those whose labels it matches.
    Matching(Selector),
    /// Those that it owns: its selector cannot be used, and not to know is not to let go.
    Owned,
}

/// Why a selector cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    /// It would select every node, the control plane too.
    #[error("it is empty and would select every node: name at least one label")]
    Empty,
    /// An operator that does not exist, or values that do not fit it.
    #[error(transparent)]
    Expression(#[from] ParseExpressionError),
}

impl Claim {
    /// The claim of a pool with this selector.
    pub(super) fn new(selector: &LabelSelector) -> Result<Self, Unusable> {
        let selector = Selector::try_from(selector.clone())?;
        if selector.selects_all() {
            Err(Unusable::Empty)
        } else {
            Ok(Self::Matching(selector))
        }
    }
}

/// The claims of all pools.
#[derive(Debug, Default)]
pub(super) struct Claims(BTreeMap<PoolName, Claim>);

impl Claims {
    /// Sets or ends a pool's claim, and says whether that changed anything.
    pub(super) fn set(&mut self, pool: &PoolName, claim: Option<&Claim>) -> bool {
        if self.0.get(pool) == claim {
            return false;
        }
        match claim {
            Some(claim) => self.0.insert(pool.clone(), claim.clone()),
            None => self.0.remove(pool),
        };
        true
    }

    /// The pools that claim a node with these labels which belongs to `owner`.
    pub(super) fn of(
        &self,
        labels: &BTreeMap<String, String>,
        owner: Option<&PoolName>,
    ) -> BTreeSet<PoolName> {
        let claimed = |(pool, claim): &(&PoolName, &Claim)| match claim {
            Claim::Matching(selector) => selector.matches(labels),
            Claim::Owned => owner == Some(*pool),
        };
        self.0
            .iter()
            .filter(claimed)
            .map(|(pool, _)| pool.clone())
            .collect()
    }

    /// Brings a node's facts up to date, and says whether that changed anything.
    pub(super) fn renew(
        &self,
        view: &mut NodeView,
        labels: &BTreeMap<String, String>,
        owner: Option<&PoolName>,
    ) -> bool {
        let claims = self.of(labels, owner);
        let changed = claims != view.claims;
        view.claims = claims;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(selector: Value) -> Result<Claim, Unusable> {
        Claim::new(&serde_json::from_value(selector).unwrap())
    }

    fn labels(labels: Value) -> BTreeMap<String, String> {
        serde_json::from_value(labels).unwrap()
    }

    #[test]
    fn selectors_match_as_the_api_says() {
        let node = labels(json!({ "role": "worker", "zone": "a", "gpu": "" }));
        let expression = |key: &str, operator: &str, values: &[&str]| json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
        for (selector, matches) in [
            (json!({ "matchLabels": { "role": "worker" } }), true),
            (
                json!({ "matchLabels": { "role": "worker", "zone": "b" } }),
                false,
            ),
            (json!({ "matchLabels": { "gpu": "" } }), true),
            (json!({ "matchLabels": { "absent": "" } }), false),
            (expression("zone", "In", &["a", "b"]), true),
            (expression("zone", "In", &["b"]), false),
            (expression("absent", "In", &["a"]), false),
            (expression("zone", "NotIn", &["a"]), false),
            (expression("absent", "NotIn", &["a"]), true),
            (expression("gpu", "Exists", &[]), true),
            (expression("absent", "Exists", &[]), false),
            (expression("gpu", "DoesNotExist", &[]), false),
            (expression("absent", "DoesNotExist", &[]), true),
        ] {
            let mut claims = Claims::default();
            let name = PoolName::from("p");
            claims.set(&name, Some(&claim(selector.clone()).unwrap()));
            assert_eq!(
                claims.of(&node, None).contains(&name),
                matches,
                "{selector}"
            );
        }
    }

    #[test]
    fn selectors_that_cannot_be_used_are_refused() {
        for selector in [
            json!({}),
            json!({ "matchLabels": {} }),
            json!({ "matchExpressions": [{ "key": "a", "operator": "Near", "values": ["b"] }] }),
        ] {
            assert!(claim(selector.clone()).is_err(), "{selector}");
        }
    }

    #[test]
    fn an_unusable_selector_keeps_the_pools_own_nodes_and_no_others() {
        let mut claims = Claims::default();
        let pool = PoolName::from("p");
        claims.set(&pool, Some(&Claim::Owned));
        let none = BTreeMap::new();
        assert!(claims.of(&none, Some(&pool)).contains(&pool));
        assert!(claims.of(&none, Some(&"q".into())).is_empty());
        assert!(claims.of(&none, None).is_empty());
    }

    #[test]
    fn only_a_claim_that_differs_is_a_change() {
        let mut claims = Claims::default();
        let pool = PoolName::from("p");
        let workers = claim(json!({ "matchLabels": { "role": "worker" } })).unwrap();
        assert!(claims.set(&pool, Some(&workers)));
        assert!(!claims.set(&pool, Some(&workers)));
        assert!(claims.set(&pool, Some(&Claim::Owned)));
        assert!(claims.set(&pool, None));
        assert!(!claims.set(&pool, None));
    }
}
