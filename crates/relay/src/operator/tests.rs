//! Who may reserve, and until when, by what a relay's process has heard.

use std::os::unix::fs::PermissionsExt;

use dawn_identity::{Authority, Keypair, Request, Role, Serial};

use super::*;

const NOW: UnixTime = UnixTime(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);
const SECOND: Duration = Duration::from_secs(1);

fn key(seed: u8) -> Keypair {
    Keypair::from_seed([seed; 32])
}

fn node(seed: u8) -> NodeId {
    key(seed).node_id()
}

fn root() -> Authority {
    Authority::Root { key: key(200) }
}

fn chain(by: &Authority, seed: u8, role: Role) -> CertificateChain {
    let request = Request {
        subject: node(seed),
        name: format!("node-{seed}").parse().unwrap(),
        roles: role.into(),
        admitted_at: NOW,
        not_before: NOW,
        expires: NOW + DAY,
        serial: Serial::from_bytes([seed; 16]),
    };
    by.issue(request, NOW).unwrap()
}

fn delegated(seed: u8, role: Role) -> Authority {
    Authority::Delegated {
        key: key(seed),
        chain: Box::new(chain(&root(), seed, role)),
    }
}

struct Relay {
    folder: tempfile::TempDir,
    operator: Operator,
}

impl Relay {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let operator = Operator::new(&config(&folder, "")).unwrap();
        Self { folder, operator }
    }

    fn reload(&self, rest: &str) {
        self.operator.reload(&config(&self.folder, rest)).unwrap();
    }

    fn show(&self, seed: u8, shown: Shown) -> Result<Grant, Denied> {
        match self.operator.shown(node(seed), shown, NOW)? {
            Verdict::Granted(grant) => Ok(*grant),
            verdict => panic!("{verdict:?}"),
        }
    }

    fn granted(&self, seed: u8, chain: CertificateChain) -> Grant {
        self.show(seed, Shown::Chain(Box::new(chain))).unwrap()
    }

    fn revoke(&self, by: &Authority, seed: u8) -> Result<Verdict, Denied> {
        let revocation = by.revoke(node(seed), NOW + SECOND).unwrap();
        self.operator
            .shown(node(9), Shown::Revocation(Box::new(revocation)), NOW + SECOND)
    }

    fn holds(&self, grant: &Grant) -> bool {
        self.operator.holds(grant, NOW + SECOND).is_some()
    }
}

fn config(folder: &tempfile::TempDir, rest: &str) -> Config {
    let path = folder.path().join("relay.toml");
    let network = root().network();
    std::fs::write(&path, format!("networks = [\"{network}\"]\n{rest}")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    Config::read(&path).unwrap()
}

fn entry(secret: &str, rest: &str) -> String {
    format!("[[token]]\nname = \"lab\"\nsecret = \"{secret}\"\n{rest}")
}

#[test]
fn another_secret_under_the_same_name_locks_the_old_one_out() {
    let relay = Relay::new();
    relay.reload(&entry("the first of secrets", ""));
    let grant = relay.show(1, Shown::Static("the first of secrets".into())).unwrap();
    assert!(relay.holds(&grant));
    relay.reload(&entry("the first of secrets", "circuits = 3\n"));
    assert_eq!(relay.operator.holds(&grant, NOW).unwrap().circuits, Some(3));
    relay.reload(&entry("the second of secrets", ""));
    assert!(!relay.holds(&grant));
}

#[test]
fn what_an_admin_signed_ends_with_its_revocation() {
    let relay = Relay::new();
    let admin = delegated(2, Role::Admin);
    let serial = Serial::from_bytes([7; 16]);
    let token = |by: &Authority| {
        let token = by.relay_token(node(1), RelayQuota::default(), NOW + 3650 * DAY, serial, NOW);
        Shown::Token(Box::new(token.unwrap()))
    };
    let by_admin = relay.show(1, token(&admin)).unwrap();
    assert_eq!(by_admin.expires, Some(NOW + DAY));
    let by_network = relay.show(1, token(&root())).unwrap();
    assert_eq!(by_network.expires, Some(NOW + 3650 * DAY));
    let member = relay.granted(3, chain(&admin, 3, Role::Member));
    let other = relay.granted(4, chain(&root(), 4, Role::Member));
    assert_eq!(relay.revoke(&root(), 2), Ok(Verdict::Noted));
    assert!(!relay.holds(&by_admin) && !relay.holds(&member));
    assert!(relay.holds(&by_network) && relay.holds(&other));
}

#[test]
fn an_issuer_puts_no_owner_off_the_relay_and_the_network_key_does() {
    let relay = Relay::new();
    let owner = relay.granted(1, chain(&root(), 1, Role::Owner));
    let admin = relay.granted(2, chain(&root(), 2, Role::Admin));
    let member = relay.granted(3, chain(&root(), 3, Role::Member));
    let issuer = delegated(4, Role::Issuer);
    for seed in [1, 2, 3] {
        assert_eq!(relay.revoke(&issuer, seed), Ok(Verdict::Noted));
    }
    assert!(relay.holds(&owner) && relay.holds(&admin) && !relay.holds(&member));
    assert_eq!(relay.revoke(&delegated(5, Role::Admin), 1), Ok(Verdict::Noted));
    assert!(relay.holds(&owner));
    assert_eq!(relay.revoke(&root(), 1), Ok(Verdict::Noted));
    assert!(!relay.holds(&owner));
}

#[test]
fn a_revocation_outlives_a_reload_and_a_restart_and_also_a_disk_that_was_full() {
    let relay = Relay::new();
    let member = relay.granted(3, chain(&root(), 3, Role::Member));
    // What cannot be written now is written at the next reload.
    let file = relay.folder.path().join("revocations");
    std::fs::create_dir(&file).unwrap();
    assert_eq!(relay.revoke(&root(), 3), Ok(Verdict::Noted));
    std::fs::remove_dir(&file).unwrap();
    relay.reload("");
    assert!(!relay.holds(&member));
    let again = Operator::new(&config(&relay.folder, "")).unwrap();
    assert!(again.holds(&member, NOW).is_none());
}

#[test]
fn a_kept_revocation_holds_whatever_the_clock_says() {
    let relay = Relay::new();
    let member = relay.granted(3, chain(&root(), 3, Role::Member));
    relay.revoke(&root(), 3).unwrap();
    let again = Operator::new(&config(&relay.folder, "")).unwrap();
    assert!(again.holds(&member, UnixTime(0)).is_none());
    let shown = again.shown(node(3), Shown::Chain(Box::new(chain(&root(), 3, Role::Member))), NOW);
    assert_eq!(shown.unwrap_err().code, "membership");
}

#[test]
fn a_revocation_that_is_known_is_not_looked_at_again() {
    let relay = Relay::new();
    assert_eq!(relay.revoke(&root(), 3), Ok(Verdict::Noted));
    assert_eq!(relay.revoke(&root(), 3), Ok(Verdict::Known));
    let lines = std::fs::read_to_string(relay.folder.path().join("revocations")).unwrap();
    assert_eq!(lines.lines().count(), 1);
    let foreign = Authority::Root { key: key(201) };
    assert_eq!(relay.revoke(&foreign, 3).unwrap_err().code, "revocation");
}
