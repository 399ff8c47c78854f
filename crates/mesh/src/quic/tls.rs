//! Who is at either end: the TLS 1.3 handshake of libp2p.
//!
//! Each end shows exactly one certificate, signed by itself, whose extension holds the peer's public key and that key's
//! signature of the certificate's. `libp2p-tls` makes and checks them, as it does for every libp2p peer; here is what
//! `rustls` asks of it, and the choice of the cipher.
//!
//! There are no session tickets, since a resumed session skips the certificates. Nor is a server name sent, as the
//! specification demands; and no keys are logged.

use std::sync::{Arc, OnceLock};

use libp2p::PeerId;
use libp2p::identity::Keypair;
use libp2p_tls::certificate;
use quinn::rustls::client::Resumption;
use quinn::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use quinn::rustls::crypto::CryptoProvider;
use quinn::rustls::crypto::aws_lc_rs::{self, cipher_suite};
use quinn::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use quinn::rustls::server::NoServerSessionStorage;
use quinn::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use quinn::rustls::sign::{CertifiedKey, SingleCertAndKey};
use quinn::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    SupportedCipherSuite, SupportedProtocolVersion,
};

use super::error::{Error, SetupError};

/// What both ends name as the protocol above TLS.
const ALPN: &[u8] = b"libp2p";
/// The specification allows nothing older.
const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
/// Signatures that a certificate's key may make in the handshake, the preferred first: those that `libp2p-tls` verifies.
const SCHEMES: [SignatureScheme; 9] = [
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA256,
];

/// The node's certificate, and how it does TLS.
#[derive(Clone)]
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    certificate: Arc<SingleCertAndKey>,
    is_aes_fast: bool,
}

impl Tls {
    /// A certificate for a node's key; a new one each time.
    pub(super) fn new(keypair: &Keypair) -> Result<Self, SetupError> {
        let (certificate, key) = certificate::generate(keypair)?;
        let key = aws_lc_rs::sign::any_ecdsa_type(&key)?;
        Ok(Self::with(CertifiedKey::new(vec![certificate], key), is_aes_fast()))
    }

    /// With a certificate, on a processor that has instructions for AES or has none.
    pub(super) fn with(certified: CertifiedKey, is_aes_fast: bool) -> Self {
        let provider = CryptoProvider {
            cipher_suites: suites(is_aes_fast),
            ..aws_lc_rs::default_provider()
        };
        Self {
            provider: Arc::new(provider),
            certificate: Arc::new(SingleCertAndKey::from(certified)),
            is_aes_fast,
        }
    }

    /// What a dial needs: with a peer named, no other is shown this node's certificate.
    pub(super) fn client(&self, peer: Arc<Identity>) -> Result<ClientConfig, SetupError> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(VERSIONS)?
            .dangerous()
            .with_custom_certificate_verifier(peer)
            .with_client_cert_resolver(Arc::clone(&self.certificate) as _);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// What a listener needs.
    pub(super) fn server(&self) -> Result<ServerConfig, SetupError> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(VERSIONS)?
            .with_client_cert_verifier(Arc::new(Identity::any()))
            .with_cert_resolver(Arc::clone(&self.certificate) as _);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        // AES only where both have instructions for it: who dials says by its order whether it has.
        config.ignore_client_order = !self.is_aes_fast;
        Ok(config)
    }
}

/// The ciphers of TLS 1.3, the one that this processor is fastest with first.
///
/// With instructions for AES, AES-128-GCM is the quickest of them; without, ChaCha20-Poly1305 is.
fn suites(is_aes_fast: bool) -> Vec<SupportedCipherSuite> {
    let aes = [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
    ];
    let mut suites = vec![cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
    let at = if is_aes_fast { 0 } else { 1 };
    suites.splice(at..at, aes);
    suites
}

/// Whether the processor has instructions for AES and for the multiplications of GCM.
fn is_aes_fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
    }
    #[cfg(target_arch = "aarch64")]
    {
        std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull")
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        false
    }
}

/// Who a peer is to be, and who it shows itself to be.
#[derive(Debug)]
pub(super) struct Identity {
    expected: Option<PeerId>,
    found: OnceLock<PeerId>,
}

impl Identity {
    /// This peer, or any where none is named.
    pub(super) fn of(expected: Option<PeerId>) -> Self {
        Self {
            expected,
            found: OnceLock::new(),
        }
    }

    /// Whoever it is.
    pub(super) fn any() -> Self {
        Self::of(None)
    }

    /// The other peer that was there, if it was that.
    pub(super) fn other(&self) -> Option<Error> {
        let (expected, found) = (self.expected?, *self.found.get()?);
        (expected != found).then_some(Error::WrongPeer { expected, found })
    }

    /// Checks the only certificate: that it is valid now, signed by itself, and that the peer's key signed its own.
    fn check(&self, certificate: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        if !others.is_empty() {
            return Err(rustls::Error::General("more than one certificate".into()));
        }
        let found = certificate::parse(certificate)?.peer_id();
        // The first one that was shown is told; it is one a handshake.
        let _ = self.found.set(found);
        if self.expected.is_some_and(|expected| expected != found) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(())
    }
}

/// Whether the certificate's key signed the handshake.
fn check_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    certificate::parse(certificate)?.verify_signature(signed.scheme, message, signed.signature())?;
    Ok(HandshakeSignatureValid::assertion())
}

fn too_old() -> rustls::Error {
    rustls::PeerIncompatible::Tls13RequiredForQuic.into()
}

impl ServerCertVerifier for Identity {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(certificate, others)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

impl ClientCertVerifier for Identity {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(certificate, others)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

/// Who is at the other end of a connection whose handshake is done.
pub(super) fn peer_of(connection: &quinn::Connection) -> Result<PeerId, Error> {
    let shown = connection.peer_identity().ok_or(Error::NoIdentity)?;
    let shown = shown.downcast::<Vec<CertificateDer<'static>>>();
    let shown = shown.map_err(|_| Error::NoIdentity)?;
    let [certificate] = shown.as_slice() else {
        return Err(Error::NoIdentity);
    };
    let certificate = certificate::parse(certificate).map_err(|_| Error::NoIdentity)?;
    Ok(certificate.peer_id())
}
