//! The README's tables of settings are the ones that `--help` shows. `EXPECTORATE=overwrite` writes them anew.

use cairn_server_kit::config::settings_table;
use clap::CommandFactory;

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
const END: &str = "<!-- end -->";

#[test]
fn the_readme_lists_every_setting_as_it_is() {
    let mut readme = std::fs::read_to_string(README).unwrap();
    for command in [cairn_master::Config::command(), cairn_node::Config::command()] {
        let begin = format!("<!-- settings: {} -->\n", command.get_name());
        let (before, rest) = readme.split_once(&begin).unwrap();
        let (_, after) = rest.split_once(END).unwrap();
        readme = format!("{before}{begin}{}{END}{after}", settings_table(command));
    }
    expectorate::assert_contents(README, &readme);
}
