//! Recomputes a ledger from its statements and says what is wrong first.

use std::collections::BTreeMap;

use crate::{Accounts, Certificate, EntryHash, Receipt, ReceiptId, Refused, Terms};

/// What is wrong with which statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A certificate that is none.
    #[error("entry {0}: {1}")]
    Entry(EntryHash, #[source] Refused),
    /// An entry that is certified and does not count: what it stands on is missing, or it could not have been certified.
    #[error("entry {0} does not count: what it stands on is missing, or is not as it says")]
    Unfounded(EntryHash),
    /// A receipt that its hold does not bear, or that does not follow.
    #[error("receipt {0}: {1}")]
    Receipt(ReceiptId, #[source] Refused),
    /// The accounts do not sum to zero.
    #[error("the accounts sum to {0} millionths of a credit, not to zero")]
    Sum(i128),
}

/// Recomputes everything: signatures, certificates, chains, sums, and receipts against their holds. Receipts of a chain may
/// begin anywhere; those after the first have to follow.
///
/// # Errors
/// [`Fault`]: the first thing that is wrong.
pub fn audit<'a>(
    certificates: impl IntoIterator<Item = &'a Certificate>,
    receipts: impl IntoIterator<Item = &'a Receipt>,
    terms: &Terms,
) -> Result<Accounts, Fault> {
    let mut accounts = Accounts::new();
    let mut taken = Vec::new();
    for certificate in certificates {
        let hash = certificate.entry().hash();
        let wrong = |refused| Fault::Entry(hash, refused);
        let certified = certificate.clone().verify(terms).map_err(wrong)?;
        accounts.apply(&certified).map_err(wrong)?;
        taken.push(certified);
    }
    if let Some(unfounded) = taken.iter().find(|certified| !accounts.counts(certified.entry())) {
        return Err(Fault::Unfounded(unfounded.entry().hash()));
    }
    if accounts.sum() != 0 {
        return Err(Fault::Sum(accounts.sum()));
    }
    let mut chains: BTreeMap<_, Vec<&Receipt>> = BTreeMap::new();
    for receipt in receipts {
        check_hold(receipt, &accounts, terms).map_err(|refused| Fault::Receipt(receipt.id(), refused))?;
        let chain = (receipt.said().hold, receipt.payer(), receipt.payee());
        chains.entry(chain).or_default().push(receipt);
    }
    for chain in chains.values_mut() {
        chain.sort_by_key(|receipt| receipt.said().count);
        for pair in chain.windows(2) {
            if let [before, receipt] = pair {
                receipt
                    .follows(Some(before))
                    .map_err(|refused| Fault::Receipt(receipt.id(), refused))?;
            }
        }
    }
    Ok(accounts)
}

fn check_hold(receipt: &Receipt, accounts: &Accounts, terms: &Terms) -> Result<(), Refused> {
    if receipt.network() != terms.network() {
        return Err(Refused::WrongNetwork(receipt.network()));
    }
    let Some(hash) = receipt.said().hold else {
        return Ok(());
    };
    let held = accounts.hold(&hash).ok_or(Refused::UnknownHold(hash))?;
    if (held.payer, held.hold.payee) != (receipt.payer(), receipt.payee()) {
        return Err(Refused::NotYours(hash));
    }
    if receipt.said().total > held.hold.amount {
        return Err(Refused::OverHold(held.hold.amount));
    }
    Ok(())
}
