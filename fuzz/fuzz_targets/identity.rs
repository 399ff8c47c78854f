//! Certificates, revocations, admission messages and tickets: read within bounds or refused.
#![no_main]

use dawn_identity::admission::AdmissionMessage;
use dawn_identity::{CertificateChain, Revocation, Ticket};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(chain) = CertificateChain::decode(data) {
        assert!(CertificateChain::decode(&chain.encode()).is_ok());
    }
    let _ = Revocation::decode(data);
    let _ = AdmissionMessage::decode(data);
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(ticket) = text.parse::<Ticket>()
    {
        assert!(ticket.to_string().parse::<Ticket>().is_ok());
    }
});
