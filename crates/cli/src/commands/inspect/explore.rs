//! Trying an agent out: a person chooses from what it offers, is asked for each argument, and sees what comes back.

use std::collections::BTreeMap;

use dawn_identity::AgentAddress;
use serde_json::value::RawValue;

use super::schema::{Parameter, nearest};
use super::{Kind, Offer, list, template};
use crate::commands::arguments::Arguments;
use crate::commands::call::{self, Asked, What};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::ask::Lines;
use crate::output::{CAUTION, FAINT, Output, STRONG, styled, words};

/// Asks until the person leaves.
pub(super) fn run(context: &Context, address: &AgentAddress, offers: &[Offer]) -> Result<(), Failure> {
    let out = context.out;
    out.line(styled(
        FAINT,
        "\nA number or name tries it out (Tab completes), ? lists all again, an empty line leaves.",
    ))?;
    let names: Vec<String> = offers.iter().map(|offer| offer.name.clone()).collect();
    let (mut choices, mut values) = (Lines::new()?, Lines::new()?);
    loop {
        let Some(line) = choices.ask(&format!("{address}> "), &names)? else {
            return Ok(());
        };
        match line.trim() {
            "" => return Ok(()),
            "?" => list(context, offers, true)?,
            word => match chosen(offers, word) {
                Ok(offer) => attempt(context, address, offer, &mut values)?,
                Err(why) => out.line(styled(CAUTION, words::one_line(&why)))?,
            },
        }
    }
}

/// The offer of this number or name.
fn chosen<'a>(offers: &'a [Offer], word: &str) -> Result<&'a Offer, String> {
    let named: Vec<usize> = (0..offers.len())
        .filter(|at| offers.get(*at).is_some_and(|offer| offer.name == word))
        .collect();
    let numbered = word.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
    let at = match named.as_slice() {
        [one] => Some(*one),
        [] => numbered,
        several => {
            let numbers: Vec<String> = several.iter().map(|at| (at + 1).to_string()).collect();
            return Err(format!(
                "there are several of that name: choose {}",
                numbers.join(" or ")
            ));
        }
    };
    at.and_then(|at| offers.get(at)).ok_or_else(|| {
        let near = nearest(word, offers.iter().map(|offer| offer.name.as_str()));
        let near = near.map_or_else(
            || "? lists what there is".to_owned(),
            |near| format!("did you mean {near}?"),
        );
        format!("there is no {word}; {near}")
    })
}

/// Asks for the arguments, then the agent, and shows what it answers.
fn attempt(context: &Context, address: &AgentAddress, offer: &Offer, values: &mut Lines) -> Result<(), Failure> {
    let out = context.out;
    let what = if offer.what == offer.name {
        ""
    } else {
        offer.what.trim()
    };
    out.line(format!(
        "{}  {}",
        styled(STRONG, words::one_line(&offer.name)),
        styled(FAINT, words::clean(what))
    ))?;
    let mut arguments = Arguments::new();
    for parameter in &offer.parameters {
        match ask(out, parameter, values)? {
            Said::Value(value) => {
                arguments.insert(parameter.name.clone(), value);
            }
            Said::Nothing => {}
            Said::Back => return Ok(()),
        }
    }
    let uri;
    let (what, arguments) = match offer.kind {
        Kind::Tool => (What::Tool(&offer.name), arguments),
        Kind::Prompt => (What::Prompt(&offer.name), arguments),
        Kind::Resource => (What::Resource(&offer.name), arguments),
        Kind::Template => {
            let Some(filled) = filled(&offer.name, &arguments, values)? else {
                return Ok(());
            };
            uri = filled;
            (What::Resource(&uri), Arguments::new())
        }
    };
    let asked = Asked::new(address, what, arguments);
    let answered = context.client().and_then(|client| {
        context.wait(async {
            tokio::select! {
                answer = asked.of(&client, out) => answer.map(Some),
                // What is dropped is cancelled at the agent, too.
                _ = tokio::signal::ctrl_c() => Ok(None),
            }
        })
    });
    match answered {
        Ok(Some(answer)) => call::tell(out, &answer).map(|_| ()),
        Ok(None) => {
            out.note("cancelled");
            Ok(())
        }
        // The next attempt may work.
        Err(failure) => {
            out.failure(&failure);
            Ok(())
        }
    }
}

/// The address that a template and its variables make; the person types it where the template is too elaborate.
fn filled(name: &str, arguments: &Arguments, values: &mut Lines) -> Result<Option<String>, Failure> {
    if template::variables(name).is_some() {
        let text = |value: &RawValue| serde_json::from_str::<String>(value.get()).unwrap_or_default();
        let texts: BTreeMap<String, String> = arguments
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect();
        return Ok(Some(template::expand(name, &texts)));
    }
    let typed = values.ask("the whole address: ", &[])?;
    Ok(typed.map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()))
}

/// What a person said to a question.
enum Said {
    Value(Box<RawValue>),
    /// The argument is left out.
    Nothing,
    /// This is not to be tried out.
    Back,
}

/// Asks for one argument until it is one that the agent takes.
fn ask(out: Output, parameter: &Parameter, values: &mut Lines) -> Result<Said, Failure> {
    let what = words::one_line(&parameter.what);
    let rules = styled(FAINT, format!("({})", parameter.rules()));
    out.line(format!("  {rules}  {what}").trim_end())?;
    let question = format!("  {}: ", words::one_line(&parameter.name));
    loop {
        let Some(line) = values.ask(&question, &parameter.choices())? else {
            return Ok(Said::Back);
        };
        if line.trim().is_empty() {
            return match (parameter.is_required, &parameter.default) {
                (false, _) => Ok(Said::Nothing),
                (true, Some(default)) => Ok(serde_json::value::to_raw_value(default).map_or(Said::Back, Said::Value)),
                (true, None) => {
                    out.note(format!(
                        "nothing is called without {}",
                        words::one_line(&parameter.name)
                    ));
                    Ok(Said::Back)
                }
            };
        }
        match parameter.read(&line) {
            Ok(value) => return Ok(Said::Value(value)),
            Err(why) => out.line(format!("  {}", styled(CAUTION, words::one_line(&why))))?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_found_by_number_and_name_and_mistakes_get_a_hint() {
        let offer = |kind, name: &str| Offer {
            kind,
            name: name.to_owned(),
            what: String::new(),
            parameters: Vec::new(),
        };
        let offers = [
            offer(Kind::Tool, "echo"),
            offer(Kind::Tool, "review"),
            offer(Kind::Tool, "1"),
            offer(Kind::Prompt, "review"),
        ];
        let found = |word: &str| chosen(&offers, word).map(|offer| (offer.kind, offer.name.clone()));
        assert_eq!(found("echo"), Ok((Kind::Tool, "echo".to_owned())));
        assert_eq!(found("4"), Ok((Kind::Prompt, "review".to_owned())));
        assert_eq!(
            found("1"),
            Ok((Kind::Tool, "1".to_owned())),
            "a name goes before a number"
        );
        assert!(found("review").unwrap_err().contains("choose 2 or 4"));
        assert!(found("ecoh").unwrap_err().ends_with("did you mean echo?"));
        for nothing in ["0", "5", "zzz", "-1"] {
            assert!(found(nothing).unwrap_err().contains("? lists"), "{nothing}");
        }
    }
}
