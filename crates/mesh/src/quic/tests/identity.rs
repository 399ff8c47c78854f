//! Who is let in, and who is not.

use std::sync::Arc;

use libp2p::identity::Keypair;
use quinn::rustls::crypto::aws_lc_rs;
use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use quinn::rustls::sign::CertifiedKey;
use quinn::rustls::{self, CipherSuite, ClientConfig, ClientConnection, ServerConnection};

use super::super::tls::{Identity, Tls};
use super::super::{Settings, Transport, address};
use super::{DIAL, End, LOOPBACK, STREAMS, boxed, connected, key, ours};
use crate::nat::sockets::Sockets;

/// The extension that holds the peer's key.
const EXTENSION: &[u64] = &[1, 3, 6, 1, 4, 1, 53594, 1, 1];

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    None,
    /// The peer's key signed something else.
    NotSigned,
    /// Another peer's key is named than the one that signed.
    Claimed,
    /// It is not signed by itself.
    Broken,
    /// It names no peer.
    Nameless,
    Expired,
    /// It says something more that must be understood.
    Critical,
    /// Another comes with it.
    Two,
    /// It is somebody else's: the key that signs the handshake is not that of the certificate.
    Stolen,
}

const FLAWS: [Flaw; 8] = [
    Flaw::NotSigned,
    Flaw::Claimed,
    Flaw::Broken,
    Flaw::Nameless,
    Flaw::Expired,
    Flaw::Critical,
    Flaw::Two,
    Flaw::Stolen,
];

fn octets(bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 128, "short lengths only");
    [&[4, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

/// A certificate of a peer as the specification wants it, but for a flaw.
fn certified(keypair: &Keypair, flaw: Flaw) -> CertifiedKey {
    let own = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let prefix = if flaw == Flaw::NotSigned {
        "libp2p"
    } else {
        "libp2p-tls-handshake:"
    };
    let signature = keypair
        .sign(&[prefix.as_bytes(), &own.public_key_der()].concat())
        .unwrap();
    let named = if flaw == Flaw::Claimed {
        key(99)
    } else {
        keypair.clone()
    };
    let content = [octets(&named.public().encode_protobuf()), octets(&signature)].concat();
    let extension = [&[0x30, u8::try_from(content.len()).unwrap()], &content[..]].concat();
    let mut wanted = rcgen::CertificateParams::default();
    wanted.distinguished_name = rcgen::DistinguishedName::new();
    if flaw != Flaw::Nameless {
        let extension = rcgen::CustomExtension::from_oid_content(EXTENSION, extension);
        wanted.custom_extensions.push(extension);
    }
    if flaw == Flaw::Critical {
        let mut extension = rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 53594, 9, 9], vec![5, 0]);
        extension.set_criticality(true);
        wanted.custom_extensions.push(extension);
    }
    if flaw == Flaw::Expired {
        wanted.not_before = rcgen::date_time_ymd(2001, 1, 1);
        wanted.not_after = rcgen::date_time_ymd(2002, 1, 1);
    }
    let mut certificate = wanted.self_signed(&own).unwrap().der().to_vec();
    if flaw == Flaw::Broken {
        *certificate.last_mut().unwrap() ^= 1;
    }
    let signs = match flaw {
        Flaw::Stolen => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap(),
        _ => own,
    };
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signs.serialize_der()));
    let certificate = CertificateDer::from(certificate);
    let mut chain = vec![certificate.clone()];
    if flaw == Flaw::Two {
        chain.push(certificate);
    }
    CertifiedKey::new(chain, aws_lc_rs::sign::any_ecdsa_type(&private).unwrap())
}

fn flawed(seed: u8, flaw: Flaw) -> End {
    let keypair = key(seed);
    let tls = Tls::with(certified(&keypair, flaw), true);
    boxed(
        Transport::with(&keypair, tls, Settings::new(STREAMS), Sockets::default()).unwrap(),
        &keypair,
    )
}

#[tokio::test]
async fn a_certificate_as_the_specification_wants_it_is_taken() {
    connected(&mut ours(1), &mut flawed(2, Flaw::None)).await;
    connected(&mut flawed(1, Flaw::None), &mut ours(2)).await;
}

#[tokio::test]
async fn who_answers_with_a_flawed_certificate_is_refused() {
    for flaw in FLAWS {
        let (mut dialler, mut listener) = (ours(1), flawed(2, flaw));
        let address = listener.listen(LOOPBACK).await;
        // Whether or not a peer is asked for.
        for asked in [address.clone(), address.with_p2p(listener.peer).unwrap()] {
            let ((_, accepted), dialled) = futures::join!(listener.accept(), dialler.dial(asked, DIAL));
            assert!(dialled.is_err(), "{flaw:?}");
            assert!(accepted.is_err(), "{flaw:?}");
        }
    }
}

#[tokio::test]
async fn who_dials_with_a_flawed_certificate_is_refused() {
    for flaw in FLAWS {
        let (mut dialler, mut listener) = (flawed(1, flaw), ours(2));
        let address = listener.listen(LOOPBACK).await;
        // The dialler's part is done before the listener has seen its certificate; what counts is the listener's word.
        let ((_, accepted), _dialled) = futures::join!(listener.accept(), dialler.dial(address, DIAL));
        assert!(accepted.is_err(), "{flaw:?}");
    }
}

/// Connects with a TLS configuration that is not ours, and says whether the listener took it.
async fn is_taken(config: ClientConfig) -> bool {
    let mut listener = ours(2);
    let (to, _) = address::parse(&listener.listen(LOOPBACK).await).unwrap();
    let config = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint
        .connect_with(quinn::ClientConfig::new(Arc::new(config)), to, "l")
        .unwrap();
    let dial = async {
        // Kept open, so that the listener's word is its own.
        let dialled = connecting.await;
        std::future::pending::<()>().await;
        drop(dialled);
    };
    tokio::select! {
        (_, accepted) = listener.accept() => accepted.is_ok(),
        () = dial => unreachable!(),
    }
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Identity::any()))
}

#[tokio::test]
async fn who_shows_no_certificate_or_names_another_protocol_is_refused() {
    let mut nameless = builder().with_no_client_auth();
    nameless.alpn_protocols = vec![b"libp2p".to_vec()];
    assert!(!is_taken(nameless).await);
    for (protocol, taken) in [("libp2p", true), ("h3", false)] {
        let shown = rustls::sign::SingleCertAndKey::from(certified(&key(1), Flaw::None));
        let mut config = builder().with_client_cert_resolver(Arc::new(shown));
        config.alpn_protocols = vec![protocol.into()];
        assert_eq!(is_taken(config).await, taken, "{protocol}");
    }
}

/// The cipher that two nodes agree on, by whether each one's processor has instructions for AES.
fn agreed(dials: ClientConfig, listens: bool) -> CipherSuite {
    let listens = Tls::with(certified(&key(2), Flaw::None), listens).server().unwrap();
    let mut there = ServerConnection::new(Arc::new(listens)).unwrap();
    let name = ServerName::try_from("l").unwrap();
    let mut here = ClientConnection::new(Arc::new(dials), name).unwrap();
    while here.is_handshaking() || there.is_handshaking() {
        let mut bytes = Vec::new();
        here.write_tls(&mut bytes).unwrap();
        there.read_tls(&mut &bytes[..]).unwrap();
        there.process_new_packets().unwrap();
        bytes.clear();
        there.write_tls(&mut bytes).unwrap();
        here.read_tls(&mut &bytes[..]).unwrap();
        here.process_new_packets().unwrap();
    }
    here.negotiated_cipher_suite().unwrap().suite()
}

#[test]
fn aes_is_used_where_both_processors_have_instructions_for_it() {
    let (aes, chacha) = (
        CipherSuite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    );
    for (dials, listens, cipher) in [
        (true, true, aes),
        (true, false, chacha),
        (false, true, chacha),
        (false, false, chacha),
    ] {
        let tls = Tls::with(certified(&key(1), Flaw::None), dials);
        let config = tls.client(Arc::new(Identity::any())).unwrap();
        assert_eq!(agreed(config, listens), cipher, "{dials}, {listens}");
    }
    // Who prefers another gets it.
    let theirs = libp2p_tls::make_client_config(&key(1), None).unwrap();
    assert_eq!(agreed(theirs, true), chacha);
}
