//! The sample of a policy file: every rule with its default, commented out.

use crate::BUILTIN;

/// Returns the text of a policy file that changes nothing and shows everything that can be changed.
pub fn sample() -> String {
    let mut text = String::from(
        "# The policy: who may do what, in the language of oslo.policy.\n\
         # Take a rule's comment sign away to change it; what is not here keeps its default.\n\
         # The service reads this file again when it changes.\n",
    );
    for rule in BUILTIN {
        text.push_str(&format!("\n# {}\n#\"{}\": \"{}\"\n", rule.guards, rule.name, rule.default));
    }
    text
}
