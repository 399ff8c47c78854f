//! Commitments and openings of single items.

use proptest::prelude::*;

use super::*;

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("text {number}")).collect()
}

#[test]
fn each_item_can_be_opened_and_is_what_was_committed_to() {
    for count in [1, 2, 3, 7, 8, 9, 64, 65] {
        let texts = texts(count);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let outputs = honest(&texts);
        let inputs = Commitment::to_inputs(input_salt(1), &texts).unwrap();
        let results = Commitment::to_outputs(output_salt(1), &texts, &outputs).unwrap();
        assert_eq!(
            results.units().input,
            texts.iter().map(|text| text.len() as u64).sum::<u64>()
        );
        for (at, (text, output)) in texts.iter().zip(&outputs).enumerate() {
            let index = at as u32;
            let (input, result) = (inputs.open(index).unwrap(), results.open(index).unwrap());
            assert_eq!(input.shows_input(text.as_bytes(), &inputs.committed()), Ok(()));
            assert_eq!(
                result.shows_output(text.as_bytes(), output, &results.committed()),
                Ok(())
            );
            let refused = Err(Refused::BadOpening);
            assert_eq!(input.shows_input(b"another", &inputs.committed()), refused);
            assert_eq!(result.shows_output(b"another", output, &results.committed()), refused);
            let mut more = output.clone();
            more.units.input += 1;
            assert_eq!(
                result.shows_output(text.as_bytes(), &more, &results.committed()),
                refused
            );
            let wrong = embedded("another");
            assert_eq!(
                result.shows_output(text.as_bytes(), &wrong, &results.committed()),
                refused
            );
            // What shows an output shows no input.
            assert_eq!(result.shows_input(text.as_bytes(), &results.committed()), refused);
        }
        assert_eq!(inputs.open(count as u32), None);
    }
}

#[test]
fn leaves_of_equal_items_differ() {
    let texts = ["the same", "the same"];
    let inputs = Commitment::to_inputs(input_salt(1), &texts).unwrap();
    // The path of the first is the leaf of the second: who guesses its text does not see it confirmed.
    let (first, second) = (inputs.open(0).unwrap(), inputs.open(1).unwrap());
    assert_ne!(first.path, second.path);
    assert_ne!(first.blind, second.blind);
    let unblinded = Opening {
        blind: first.blind,
        ..second
    };
    assert_eq!(
        unblinded.shows_input(b"the same", &inputs.committed()),
        Err(Refused::BadOpening)
    );
    assert_eq!(format!("{:?}", input_salt(1)), "Salt");
}

#[test]
fn nothing_is_committed_to_without_items_nor_beyond_the_bound() {
    let none: [&str; 0] = [];
    assert!(Commitment::to_inputs(input_salt(1), &none).is_err());
    assert!(Commitment::to_outputs(input_salt(1), &["a"], &[]).is_err());
    let many = vec![""; MAX_ITEMS as usize + 1];
    assert_eq!(
        Commitment::to_inputs(input_salt(1), &many).unwrap_err(),
        Refused::TooLarge
    );
    let most = Commitment::to_inputs(input_salt(1), &many[1..]).unwrap();
    assert_eq!(most.open(65_535).unwrap().path.len(), 16);
    let endless = Output {
        bytes: Vec::new(),
        units: Units {
            input: u64::MAX,
            output: 0,
        },
    };
    let outputs = [endless.clone(), endless];
    let refused = Commitment::to_outputs(input_salt(1), &["a", "b"], &outputs).unwrap_err();
    assert_eq!(refused, Refused::TooLarge);
}

proptest! {
    #[test]
    fn an_opening_fits_its_own_item_alone(
        items in prop::collection::vec("[a-c]{0,3}", 1..40),
        at: prop::sample::Index,
        place: prop::sample::Index,
        other in "[a-c]{0,3}",
    ) {
        let commitment = Commitment::to_inputs(input_salt(3), &items).unwrap();
        let (index, place) = (at.index(items.len()), place.index(items.len()));
        let opening = commitment.open(index as u32).unwrap();
        let shows = |opening: &Opening, item: &str| opening.shows_input(item.as_bytes(), &commitment.committed()).is_ok();
        prop_assert!(shows(&opening, &items[index]));
        prop_assert_eq!(shows(&opening, &other), other == items[index]);
        let moved = Opening { index: place as u32, ..opening };
        prop_assert_eq!(shows(&moved, &items[index]), place == index);
    }
}
