//! "So many nodes": a count or a share of a pool, as `maxUnavailable` takes it.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use thiserror::Error;

/// A count of nodes, or a percentage of the pool's nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many nodes.
    Count(u32),
    /// So many percent of the pool's nodes, 0 to 100.
    Percent(u8),
}

/// Why an amount cannot be used. The schema refuses these; objects stored before it may hold them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AmountError {
    /// A negative count.
    #[error("{0} is negative: write a count of nodes (0 or more) or a percentage like \"25%\"")]
    Negative(i32),
    /// A string that is not `"0%"` to `"100%"`.
    #[error("{0:?} is neither a count of nodes nor a percentage from \"0%\" to \"100%\"")]
    NotPercent(String),
}

impl Amount {
    /// How many of `nodes` this is; a percentage is rounded up.
    #[must_use]
    pub fn of(self, nodes: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                let share = (u64::from(nodes) * u64::from(percent)).div_ceil(100);
                u32::try_from(share).unwrap_or(u32::MAX)
            }
        }
    }
}

impl TryFrom<&IntOrString> for Amount {
    type Error = AmountError;

    fn try_from(value: &IntOrString) -> Result<Self, AmountError> {
        match value {
            IntOrString::Int(count) => u32::try_from(*count)
                .map(Self::Count)
                .map_err(|_| AmountError::Negative(*count)),
            IntOrString::String(text) => percent(text)
                .map(Self::Percent)
                .ok_or_else(|| AmountError::NotPercent(text.clone())),
        }
    }
}

/// `"0%"` to `"100%"`, without sign, blanks or leading zeros.
fn percent(text: &str) -> Option<u8> {
    let digits = text.strip_suffix('%')?;
    let canonical = digits == "0" || !digits.starts_with(['0', '+']);
    digits
        .parse()
        .ok()
        .filter(|percent| canonical && *percent <= 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_percentages() {
        let string = |text: &str| Amount::try_from(&IntOrString::String(text.into()));
        assert_eq!(Amount::try_from(&IntOrString::Int(3)), Ok(Amount::Count(3)));
        assert_eq!(
            Amount::try_from(&IntOrString::Int(-1)),
            Err(AmountError::Negative(-1))
        );
        assert_eq!(string("0%"), Ok(Amount::Percent(0)));
        assert_eq!(string("100%"), Ok(Amount::Percent(100)));
        for bad in ["101%", "-1%", "+1%", "05%", "25", "%", "", "25 %", "300%"] {
            assert_eq!(string(bad), Err(AmountError::NotPercent(bad.into())));
        }
    }

    #[test]
    fn a_share_is_rounded_up() {
        assert_eq!(Amount::Percent(25).of(10), 3);
        assert_eq!(Amount::Percent(1).of(1), 1);
        assert_eq!(Amount::Percent(0).of(10), 0);
        assert_eq!(Amount::Percent(100).of(u32::MAX), u32::MAX);
        assert_eq!(Amount::Count(7).of(3), 7);
    }
}
