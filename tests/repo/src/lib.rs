//! The pages of this repository as its tests see them: links, headings and commands.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bed::paths;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use walkdir::WalkDir;

/// The languages of blocks whose lines are commands.
const SHELLS: [&str; 3] = ["console", "sh", "bash"];

/// A page of Markdown.
#[derive(Debug)]
pub struct Page {
    /// Where it is, from the root.
    pub path: PathBuf,
    /// The places that it links to, as they are written.
    pub links: Vec<String>,
    /// The fragments by which others link to its headings.
    pub anchors: Vec<String>,
    /// Commands, each one in a line: of blocks, and of `code` that begins like one.
    pub commands: Vec<String>,
    /// Its text.
    pub text: String,
}

/// Every page of the repository, by its path.
pub fn pages() -> Result<BTreeMap<PathBuf, Page>> {
    let root = paths::project();
    let mut pages = BTreeMap::new();
    let is_ours = |name: &str| !["target", ".git"].contains(&name);
    let walk = WalkDir::new(&root).into_iter();
    let walk = walk.filter_entry(|entry| entry.file_name().to_str().is_some_and(is_ours));
    for entry in walk {
        let path = entry?.into_path();
        if path.extension().is_some_and(|it| it == "md") {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let path = path.strip_prefix(&root)?.to_path_buf();
            pages.insert(path.clone(), Page::new(&path, text));
        }
    }
    Ok(pages)
}

impl Page {
    fn new(path: &Path, text: String) -> Self {
        let mut page = Self {
            path: path.to_path_buf(),
            links: Vec::new(),
            anchors: Vec::new(),
            commands: Vec::new(),
            text: String::new(),
        };
        let (mut heading, mut block) = (None::<String>, None::<String>);
        for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.to_string());
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    page.anchors
                        .extend(heading.take().map(|title| anchor(&title)));
                }
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language)))
                    if SHELLS.contains(&language.as_ref()) =>
                {
                    block = Some(String::new());
                }
                Event::End(TagEnd::CodeBlock) => {
                    page.commands
                        .extend(block.take().iter().flat_map(|block| lines(block)));
                }
                Event::Text(words) => {
                    if let Some(open) = heading.as_mut().or(block.as_mut()) {
                        open.push_str(&words);
                    }
                }
                Event::Code(words) => {
                    if let Some(open) = heading.as_mut() {
                        open.push_str(&words);
                    } else if ["cargo ", "kubectl "]
                        .iter()
                        .any(|it| words.starts_with(it))
                    {
                        page.commands.push(words.to_string());
                    }
                }
                _ => {}
            }
        }
        page.text = text;
        page
    }
}

/// The commands of a block: a line that ends with `\` goes on in the next one.
fn lines(block: &str) -> Vec<String> {
    let joined = block.replace("\\\n", " ");
    let lines = joined.lines().map(|line| line.trim_start_matches("$ "));
    // What follows `#` is for people.
    let lines = lines.map(|line| line.split("   #").next().unwrap_or_default().trim());
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(ToOwned::to_owned).collect()
}

/// The fragment that a heading gets on the forge: lower case, words joined by dashes.
fn anchor(title: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || *c == ' ' || *c == '-' || *c == '_';
    let kept: String = title.chars().filter(kept).collect();
    kept.trim().to_lowercase().replace(' ', "-")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_taken_apart() {
        let text = "# A `b`: c?\n\n[x](y.md#z) `cargo test -p fsm` `no command`\n\n\
            ```console\ncargo run \\\n  -p crd   # prints\n# a comment\n$ kubectl get bn\n```\n\n```json\n{}\n```\n";
        let page = Page::new(Path::new("a.md"), text.to_owned());
        assert_eq!(page.anchors, ["a-b-c"]);
        assert_eq!(page.links, ["y.md#z"]);
        let commands = ["cargo test -p fsm", "cargo run    -p crd", "kubectl get bn"];
        assert_eq!(page.commands, commands);
    }

    #[test]
    fn the_pages_are_found() {
        let pages = pages().unwrap();
        assert!(pages.contains_key(Path::new("README.md")));
        assert!(pages.contains_key(Path::new("deploy/docs/conditions.md")));
    }
}
