//! A payer's purse and a payee's till.

use super::*;

const JOB: fn(u8) -> JobId = |number| JobId::from_bytes([number; 32]);

/// Accounts that a quorum of one keeps, and a payer (1) with 100 free.
struct Bank {
    accounts: Accounts,
    purse: Purse,
    till: Till,
}

impl Bank {
    fn new() -> Self {
        let mut bank = Self {
            accounts: Accounts::new(),
            purse: Purse::new(node(1), network()),
            till: Till::new(node(2)),
        };
        bank.till.reached(NOW);
        bank.certify(&open(1, Credits::whole(100)), NOW);
        bank
    }

    fn certify(&mut self, entry: &Entry, at: UnixTime) {
        let postings = self.accounts.apply(&certify(entry, 1)).unwrap();
        self.till.posted(&postings, &self.accounts, at);
        check_balances(&self.accounts);
    }

    fn sign(&mut self, author: u8, what: What, now: UnixTime) -> Entry {
        let entry = entry(author, what, now);
        self.purse.signed(&entry);
        self.till.signed(&entry);
        self.certify(&entry, now);
        entry
    }

    fn need(&mut self, job: u8, most: Credits) -> Need {
        self.purse.need(JOB(job), node(2), most, &self.accounts, NOW)
    }

    /// A hold for jobs of one credit: of sixteen.
    fn held(&mut self) -> EntryHash {
        let Need::Open(what) = self.need(0, Credits::whole(1)) else {
            panic!("there is a hold");
        };
        self.sign(1, what, NOW).hash()
    }

    fn pay(&mut self, job: u8, amount: Credits) -> Receipt {
        let result = (ResultId::from_bytes([job; 32]), Draw([job; 80]));
        self.purse
            .pay(&JOB(job), result, (Outcome::Plain, amount), &key(1), NOW)
            .unwrap()
    }

    fn take(&mut self, job: u8, hold: EntryHash, now: UnixTime) -> Result<(), Refused> {
        self.till
            .take(JOB(job), node(1), (hold, Credits::whole(1)), &self.accounts, now)
    }

    fn receive(&mut self, receipt: &Receipt, job: u8, now: UnixTime) -> Result<Paid, Refused> {
        let due = (&JOB(job), ResultId::from_bytes([job; 32]), Credits::whole(1));
        self.till.receive(receipt, due, &self.accounts, now)
    }

    /// A job from promise to receipt.
    fn work(&mut self, job: u8, hold: EntryHash) -> Receipt {
        assert_eq!(self.need(job, Credits::whole(1)), Need::Use(hold));
        self.take(job, hold, NOW).unwrap();
        let receipt = self.pay(job, Credits::whole(1));
        assert_eq!(self.receive(&receipt, job, NOW), Ok(Paid::Full));
        receipt
    }
}

#[test]
fn a_hold_is_for_sixteen_jobs_and_for_a_quarter_of_what_is_free_at_most() {
    let mut bank = Bank::new();
    let amount = |need| match need {
        Need::Open(What::Hold(hold)) => hold.amount.millionths(),
        other => panic!("{other:?}"),
    };
    assert_eq!(amount(bank.need(1, Credits::from_millionths(1))), 1_000_000);
    assert_eq!(amount(bank.need(1, Credits::whole(1))), 16_000_000);
    assert_eq!(amount(bank.need(1, Credits::whole(2))), 25_000_000);
    assert_eq!(amount(bank.need(1, Credits::whole(90))), 90_000_000);
    assert_eq!(bank.need(1, Credits::whole(101)), Need::Insufficient);
    assert_eq!(bank.need(1, Credits::ZERO), Need::Insufficient);
    assert_eq!(
        bank.purse.need(JOB(1), node(1), Credits::whole(1), &bank.accounts, NOW),
        Need::Insufficient
    );
    assert_eq!(
        Purse::new(node(3), network()).need(JOB(1), node(2), Credits::whole(1), &bank.accounts, NOW),
        Need::Insufficient
    );
}

#[test]
fn an_entry_of_the_account_is_signed_when_the_one_before_is_certified() {
    let mut bank = Bank::new();
    let Need::Open(what) = bank.need(1, Credits::whole(1)) else {
        panic!("there is a hold");
    };
    let first = entry(1, what, NOW);
    bank.purse.signed(&first);
    assert_eq!(bank.purse.pending(&bank.accounts), Some(&first));
    assert_eq!(bank.need(1, Credits::whole(1)), Need::Wait);
    bank.certify(&first, NOW);
    assert_eq!(bank.purse.pending(&bank.accounts), None);
    assert_eq!(bank.need(1, Credits::whole(1)), Need::Use(first.hash()));
    let other = bank.purse.need(JOB(2), node(3), Credits::whole(1), &bank.accounts, NOW);
    assert!(matches!(other, Need::Open(What::Hold(Hold { number: 2, .. }))));
}

#[test]
fn no_more_is_promised_than_is_held() {
    let mut bank = Bank::new();
    let hold = bank.held();
    for job in 1..=16 {
        assert_eq!(bank.need(job, Credits::whole(1)), Need::Use(hold));
    }
    assert!(matches!(bank.need(17, Credits::whole(1)), Need::Open(_)));
    bank.purse.release(&JOB(1));
    assert_eq!(bank.need(17, Credits::whole(1)), Need::Use(hold));
    // What is paid stays taken, what was promised above it comes free.
    bank.pay(2, Credits::from_millionths(400_000));
    assert!(matches!(bank.need(18, Credits::whole(1)), Need::Open(_)));
    assert_eq!(bank.need(18, Credits::from_millionths(600_000)), Need::Use(hold));
    let more = bank.purse.pay(
        &JOB(3),
        (ResultId::from_bytes([3; 32]), Draw([3; 80])),
        (Outcome::Plain, Credits::whole(2)),
        &key(1),
        NOW,
    );
    assert!(more.is_err());
}

#[test]
fn receipts_add_up_and_a_payee_closes_with_the_last() {
    let mut bank = Bank::new();
    let hold = bank.held();
    for job in 1..=12 {
        let receipt = bank.work(job, hold);
        assert_eq!(
            (receipt.said().count, receipt.said().total),
            (u64::from(job), Credits::whole(job.into()))
        );
        assert_eq!(bank.till.poll(&bank.accounts, NOW), None);
    }
    bank.work(13, hold);
    // Four fifths are used.
    let Some(What::Close { receipt, .. }) = bank.till.poll(&bank.accounts, NOW) else {
        panic!("it is to be closed");
    };
    assert_eq!(
        receipt.as_ref().map(Receipt::id),
        bank.purse.last(&hold, &node(2)).map(Receipt::id)
    );
    bank.sign(2, What::Close { hold, receipt }, NOW);
    assert_eq!(bank.accounts.free(&node(1)), Credits::whole(87));
    assert_eq!(bank.accounts.balance(&node(2)).immature, Credits::whole(13));
    assert_eq!(bank.take(14, hold, NOW), Err(Refused::UnknownHold(hold)));
    assert_eq!(bank.till.poll(&bank.accounts, NOW), None);
}

#[test]
fn a_receipt_from_a_hold_that_was_closed_pays_nothing() {
    let mut bank = Bank::new();
    let hold = bank.held();
    let first = bank.work(1, hold);
    assert_eq!(bank.need(2, Credits::whole(1)), Need::Use(hold));
    bank.take(2, hold, NOW).unwrap();
    let late = bank.pay(2, Credits::whole(1));
    let receipt = Some(first.clone());
    bank.sign(2, What::Close { hold, receipt }, NOW);
    assert_eq!(bank.receive(&late, 2, NOW), Err(Refused::UnknownHold(hold)));
    assert!(!bank.till.heard(&late, &bank.accounts));
    assert_eq!(bank.till.last(&hold).map(Receipt::id), Some(first.id()));
}

#[test]
fn a_payee_is_at_risk_of_one_job_of_a_new_payer_and_of_eight_of_one_that_paid() {
    let mut bank = Bank::new();
    let hold = bank.held();
    bank.take(1, hold, NOW).unwrap();
    assert_eq!(bank.take(2, hold, NOW), Err(Refused::Unpaid(1)));
    bank.till.release(&JOB(1));
    bank.work(3, hold);
    for job in 4..12 {
        bank.take(job, hold, NOW).unwrap();
    }
    assert_eq!(bank.take(12, hold, NOW), Err(Refused::Unpaid(8)));
}

#[test]
fn a_payee_takes_jobs_on_its_own_holds_with_room_and_time_and_a_quorum_in_reach() {
    let mut bank = Bank::new();
    let hold = bank.held();
    let unknown = EntryHash::from_bytes([1; 32]);
    assert_eq!(bank.take(1, unknown, NOW), Err(Refused::UnknownHold(unknown)));
    let mut others = Till::new(node(3));
    others.reached(NOW);
    let one = (hold, Credits::whole(1));
    assert_eq!(
        others.take(JOB(1), node(1), one, &bank.accounts, NOW),
        Err(Refused::NotYours(hold))
    );
    assert_eq!(
        bank.till.take(JOB(1), node(3), one, &bank.accounts, NOW),
        Err(Refused::NotYours(hold))
    );
    let late = NOW + MINUTE * 105;
    assert_eq!(bank.take(1, hold, late), Err(Refused::Expired(NOW + HOUR * 2)));
    assert_eq!(bank.take(1, hold, NOW + MINUTE * 11), Err(Refused::Alone));
    bank.till.reached(NOW + MINUTE * 5);
    let too_much = (hold, Credits::whole(17));
    let over = Err(Refused::OverHold(Credits::whole(16)));
    assert_eq!(bank.till.take(JOB(1), node(1), too_much, &bank.accounts, NOW), over);
    bank.take(1, hold, NOW + MINUTE * 11).unwrap();
    assert_eq!(
        Till::new(node(2)).take(JOB(1), node(1), one, &bank.accounts, NOW),
        Err(Refused::Alone)
    );
}

#[test]
fn a_payer_that_lost_its_receipts_goes_on_from_what_the_payee_shows() {
    let mut bank = Bank::new();
    let hold = bank.held();
    for job in 1..=3 {
        bank.work(job, hold);
    }
    let Need::Use(_) = bank.need(4, Credits::whole(1)) else {
        panic!("there is a hold");
    };
    bank.purse = Purse::new(node(1), network());
    bank.need(4, Credits::whole(1));
    bank.take(4, hold, NOW).unwrap();
    let early = bank.pay(4, Credits::whole(1));
    assert_eq!(early.said().count, 1);
    assert!(matches!(bank.receive(&early, 4, NOW), Err(Refused::OutOfChain(_))));
    let last = bank.till.last(&hold).unwrap().clone();
    assert!(bank.purse.resume(&last));
    assert!(!bank.purse.resume(&receipt(3, 2, Some(hold), 9, Credits::whole(9))));
    bank.need(4, Credits::whole(1));
    let right = bank.pay(4, Credits::whole(1));
    assert_eq!(right.follows(Some(&last)), Ok(()));
    assert_eq!(bank.receive(&right, 4, NOW), Ok(Paid::Full));
}

#[test]
fn a_payer_goes_on_from_what_the_payee_has_even_where_it_signed_as_much_itself() {
    let mut bank = Bank::new();
    let hold = bank.held();
    let first = bank.work(1, hold);
    let second = bank.work(2, hold);
    bank.purse = Purse::new(node(1), network());
    bank.purse.heard(&first);
    bank.need(3, Credits::whole(1));
    let void = bank.pay(3, Credits::whole(1));
    assert_eq!(
        (void.said().count, void.said().total),
        (second.said().count, second.said().total)
    );
    assert!(bank.purse.resume(&second));
    bank.need(4, Credits::whole(1));
    assert_eq!(bank.pay(4, Credits::whole(1)).follows(Some(&second)), Ok(()));
    // From the disk the greatest counts, in whatever order it comes.
    let mut purse = Purse::new(node(1), network());
    for receipt in [&first, &second, &first] {
        purse.heard(receipt);
    }
    assert_eq!(purse.last(&hold, &node(2)), Some(&second));
}

#[test]
fn a_payee_that_starts_again_knows_what_it_was_paid() {
    let mut bank = Bank::new();
    let hold = bank.held();
    let receipts: Vec<Receipt> = (1..=3).map(|job| bank.work(job, hold)).collect();
    bank.till = Till::new(node(2));
    for (receipt, is_news) in receipts.iter().rev().zip([true, false, false]) {
        assert_eq!(bank.till.heard(receipt, &bank.accounts), is_news);
    }
    assert_eq!(bank.till.last(&hold), receipts.last());
    // Of another payer, over what is held, without a hold.
    for wrong in [
        receipt(3, 2, Some(hold), 9, Credits::whole(9)),
        receipt(1, 2, Some(hold), 9, Credits::whole(17)),
        receipt(1, 2, None, 1, Credits::ZERO),
    ] {
        assert!(!bank.till.heard(&wrong, &bank.accounts));
    }
    bank.till.reached(NOW);
    bank.till
        .take(JOB(4), node(1), (hold, Credits::whole(13)), &bank.accounts, NOW)
        .unwrap();
    assert!(bank.take(5, hold, NOW).is_err());
}

#[test]
fn receipts_that_overtake_each_other_pay_in_the_end_and_one_for_another_job_does_not() {
    let mut bank = Bank::new();
    let hold = bank.held();
    bank.work(1, hold);
    let receipts = [2, 3].map(|job| {
        assert_eq!(bank.need(job, Credits::whole(1)), Need::Use(hold));
        bank.take(job, hold, NOW).unwrap();
        bank.pay(job, Credits::whole(1))
    });
    assert!(matches!(
        bank.receive(&receipts[1], 3, NOW),
        Err(Refused::OutOfChain(_))
    ));
    assert!(matches!(
        bank.receive(&receipts[0], 3, NOW),
        Err(Refused::OutOfChain(_))
    ));
    assert_eq!(bank.receive(&receipts[0], 2, NOW), Ok(Paid::Full));
    // Signed under a number that was used, as by a payer that forgot: it adds nothing to what is paid already.
    let twice = Said {
        result: ResultId::from_bytes([3; 32]),
        ..*receipts[0].said()
    };
    let twice = Receipt::sign(&key(1), network(), node(2), twice, NOW).unwrap();
    assert!(matches!(bank.receive(&twice, 3, NOW), Err(Refused::OutOfChain(_))));
    assert_eq!(bank.receive(&receipts[1], 3, NOW), Ok(Paid::Full));
    assert_eq!(bank.till.last(&hold), Some(&receipts[1]));
}

#[test]
fn a_receipt_for_less_is_short_and_one_for_nothing_is_a_denial() {
    let mut bank = Bank::new();
    let hold = bank.held();
    for job in 1..=2 {
        bank.need(job, Credits::whole(1));
    }
    bank.take(1, hold, NOW).unwrap();
    let less = bank.pay(1, Credits::from_millionths(300_000));
    let short = Paid::Short(Credits::from_millionths(700_000));
    assert_eq!(bank.receive(&less, 1, NOW), Ok(short));
    assert!(bank.receive(&less, 1, NOW).is_err());
    bank.take(2, hold, NOW).unwrap();
    let wrong = Outcome::Wrong(RecordId::from_bytes([5; 32]));
    let result = (ResultId::from_bytes([2; 32]), Draw([2; 80]));
    let denial = bank
        .purse
        .pay(&JOB(2), result, (wrong, Credits::ZERO), &key(1), NOW)
        .unwrap();
    assert_eq!(bank.receive(&denial, 2, NOW), Ok(Paid::Denied));
    assert_eq!(bank.till.last(&hold), Some(&denial));
}

#[test]
fn what_costs_nothing_has_receipts_of_a_chain_of_its_own() {
    let mut bank = Bank::new();
    bank.purse.need_nothing(JOB(1), node(2));
    bank.purse.need_nothing(JOB(2), node(2));
    let first = bank.pay(1, Credits::ZERO);
    let second = bank.pay(2, Credits::ZERO);
    assert_eq!((first.said().hold, second.follows(Some(&first))), (None, Ok(())));
}

#[test]
fn a_payee_closes_what_is_idle_wanted_back_or_near_its_end_but_not_what_is_owed() {
    let mut bank = Bank::new();
    let hold = bank.held();
    bank.work(1, hold);
    let closes = |bank: &Bank, now| matches!(bank.till.poll(&bank.accounts, now), Some(What::Close { .. }));
    assert!(!closes(&bank, NOW + MINUTE * 9));
    assert!(closes(&bank, NOW + MINUTE * 10));
    bank.till.wanted_back(hold, &bank.accounts, NOW);
    assert!(closes(&bank, NOW));
    bank.take(2, hold, NOW).unwrap();
    assert!(!closes(&bank, NOW + MINUTE * 60));
    assert!(closes(&bank, NOW + MINUTE * 105));
    // A hold that was never used is closed when its payer wants it back.
    let mut bank = Bank::new();
    let hold = bank.held();
    bank.till.wanted_back(hold, &bank.accounts, NOW);
    assert_eq!(
        bank.till.poll(&bank.accounts, NOW),
        Some(What::Close { hold, receipt: None })
    );
}

#[test]
fn a_payer_takes_back_what_was_not_closed_and_opens_the_next_hold_in_time() {
    let mut bank = Bank::new();
    let hold = bank.held();
    for job in 1..=11 {
        bank.work(job, hold);
    }
    bank.need(12, Credits::whole(1));
    assert_eq!(bank.purse.poll(&bank.accounts, NOW), None);
    bank.need(13, Credits::whole(1));
    let Some(next @ What::Hold(_)) = bank.purse.poll(&bank.accounts, NOW) else {
        panic!("three quarters are used");
    };
    let next = bank.sign(1, next, NOW).hash();
    assert_eq!(bank.purse.poll(&bank.accounts, NOW), None);
    let late = NOW + HOUR * 2 + MINUTE * 10;
    for _ in 0..2 {
        let Some(what @ What::Lapse { .. }) = bank.purse.poll(&bank.accounts, late) else {
            panic!("its time is over");
        };
        let lapse = entry(1, what, late);
        bank.purse.signed(&lapse);
        bank.certify(&lapse, late);
    }
    assert_eq!(bank.purse.poll(&bank.accounts, late), None);
    assert_eq!(bank.accounts.hold(&next).unwrap().end, Some(End::Lapsed));
    assert_eq!(bank.accounts.free(&node(1)), Credits::whole(100));
}

#[test]
fn a_payee_has_rewards_mature_when_their_time_has_come() {
    let mut bank = Bank::new();
    let hold = bank.held();
    bank.work(1, hold);
    let last = bank.till.last(&hold).cloned();
    bank.sign(2, What::Close { hold, receipt: last }, NOW);
    let head = bank.accounts.head(&node(1)).unwrap();
    let later = NOW + MINUTE;
    let second = hold_at(1, 2, head.1, 2, Credits::whole(5), later);
    bank.certify(&second, later);
    bank.certify(&close(1, 2, &second, 25, Credits::whole(2)), later);
    assert_eq!(bank.till.poll(&bank.accounts, NOW + MINUTE * 59), None);
    let Some(what) = bank.till.poll(&bank.accounts, NOW + HOUR) else {
        panic!("one is old enough");
    };
    assert_eq!(what, What::Mature { rewards: vec![hold] });
    bank.sign(2, what, NOW + HOUR);
    assert_eq!(bank.accounts.free(&node(2)), Credits::whole(1));
    assert_eq!(bank.till.poll(&bank.accounts, NOW + HOUR * 9), None);
}
