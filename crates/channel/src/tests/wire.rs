//! The bytes on the wire, from fixed keys and randomness: a change of a format shows here and nowhere else.

use data_encoding::HEXLOWER;

use super::*;
use crate::exchange::KeyRevocation;

/// Messages by name, each in hexadecimal lines of 32 bytes.
#[derive(Default)]
struct Record(String);

impl Record {
    fn add(&mut self, name: &str, bytes: &[u8]) {
        self.0.push_str(&format!("{name}:\n"));
        for line in bytes.chunks(32) {
            self.0.push_str(&format!("  {}\n", HEXLOWER.encode(line)));
        }
    }
}

#[test]
fn bindings_keep_their_bytes() {
    let mut record = Record::default();
    record.add("binding", &party(1).binding().encode());
    insta::assert_snapshot!("binding", record.0);
}

#[test]
fn envelopes_keep_their_bytes() {
    let mut record = Record::default();
    for (name, envelope) in envelope::envelopes(b"good morning") {
        record.add(name, envelope.bytes());
    }
    insta::assert_snapshot!("envelopes", record.0);
}

#[test]
fn key_exchanges_keep_their_bytes() {
    let mut record = Record::default();
    let names = ["request", "acceptance", "confirmation"];
    let [key, _] = exchange::exchange(None, |number, message| {
        record.add(names[number], &message);
        message
    })
    .unwrap();
    record.add("kept key", &key.to_bytes());
    let revocation = KeyRevocation::sign(&identity(1), &network(), key.id(), NOW).unwrap();
    record.add("revocation", revocation.bytes());
    exchange::exchange(Some(&exchange::pre_shared()), |number, message| {
        record.add(&format!("{} of a rotation", names[number]), &message);
        message
    })
    .unwrap();
    insta::assert_snapshot!("key_exchange", record.0);
}

#[test]
fn handshakes_keep_their_bytes() {
    for (how, name) in [(How::Ik, "ik"), (How::Xx, "xx")] {
        let [a, b] = [1, 2].map(|seed| Side::new(seed, Terms::default()));
        let mut record = Record::default();
        let channels = shake(how, &a, &b, b.party.known(), |number, message| {
            record.add(&format!("message {}", number + 1), &message);
            message
        });
        record.add("session", channels.unwrap().0.session().as_bytes());
        insta::assert_snapshot!(format!("handshake_{name}"), record.0);
    }
}

#[test]
fn frames_keep_their_bytes() {
    for (signing, name) in [(Signing::EachMessage, "signed"), (Signing::ChannelOnly, "unsigned")] {
        let [a, b] = [1, 2].map(|seed| {
            let delivery = Delivery::Ordered;
            Side::new(seed, Terms { delivery, signing })
        });
        let (mut a, mut b) = shake(How::Ik, &a, &b, b.party.known(), |_, message| message).unwrap();
        let mut record = Record::default();
        let hand_over = |record: &mut Record, name: &str, from: &mut Channel, to: &mut Channel| {
            let mut frame = from.poll_transmit(*START).unwrap();
            record.add(name, &frame);
            to.open(&mut frame, *START).unwrap();
        };
        hand_over(&mut record, "confirm", &mut a, &mut b);
        hand_over(&mut record, "done", &mut b, &mut a);
        let message = a.seal_message(b"good morning", *START).unwrap();
        record.add("message", &message);
        read(&mut b, &message).unwrap();
        let answer = b.seal_message(b"good evening", *START).unwrap();
        record.add("answer", &answer);
        read(&mut a, &answer).unwrap();
        a.start_rekey(*START);
        a.handle_timeout(*START, &mut rng(3));
        hand_over(&mut record, "rekey init", &mut a, &mut b);
        b.handle_timeout(*START, &mut rng(4));
        hand_over(&mut record, "rekey response", &mut b, &mut a);
        hand_over(&mut record, "rekey confirm", &mut a, &mut b);
        hand_over(&mut record, "rekey done", &mut b, &mut a);
        record.add("message after the rekey", &a.seal_message(b"", *START).unwrap());
        b.close(Close::new(CloseCode::GoingAway, "good night"));
        hand_over(&mut record, "close", &mut b, &mut a);
        insta::assert_snapshot!(format!("frames_{name}"), record.0);
    }
}
