//! Certificates, revocations, admission messages and tickets: read within bounds or refused, and written again as they came.
#![no_main]

use std::time::Duration;

use dawn_identity::admission::AdmissionMessage;
use dawn_identity::{CertificateChain, Keypair, Revocation, Revocations, Ticket, UnixTime};
use libfuzzer_sys::fuzz_target;

const NOW: UnixTime = UnixTime(1_800_000_000);
const SKEW: Duration = Duration::from_secs(60);

fuzz_target!(|data: &[u8]| {
    let network = Keypair::from_seed([200; 32]).network_id();
    if let Ok(chain) = CertificateChain::decode(data) {
        assert_eq!(chain.encode(), data);
        let _ = chain.verify(&network, NOW, SKEW, &Revocations::new());
    }
    if let Ok(revocation) = Revocation::decode(data) {
        assert_eq!(revocation.encode(), data);
        let _ = revocation.verify(&network, NOW, SKEW);
    }
    if let Ok(message) = AdmissionMessage::decode(data)
        && let Ok(bytes) = message.encode()
    {
        assert_eq!(AdmissionMessage::decode(&bytes), Ok(message));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(ticket) = text.parse::<Ticket>()
    {
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
    }
});
