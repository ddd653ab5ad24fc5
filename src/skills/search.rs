//! Finding skills by words.
//!
//! Every word of the query counts by itself; a skill that has any of them is found. The more of a place the word is,
//! the more it counts: a name is more than a tag, a tag more than a description.
//!
//! **Invariant**: pure; equal scores are ordered by name, so that the same question has the same answer everywhere.
//! **Bounds**: `WORDS_MAX` of a query.
//! Left out on purpose: typing errors, stems of words, other languages' word borders.

use crate::skills::manifest::Skill;

/// Words of a query that are looked at.
const WORDS_MAX: usize = 32;

/// The words of a query, lower case.
pub fn words(query: &str) -> Vec<String> {
    let words = query.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).take(WORDS_MAX).collect()
}

/// How well a skill fits: 0 if no word is in it.
pub fn score(skill: &Skill, words: &[String]) -> u32 {
    words.iter().map(|word| score_word(skill, word)).sum()
}

fn score_word(skill: &Skill, word: &str) -> u32 {
    let tools = &skill.tools;
    let best = |texts: &mut dyn Iterator<Item = &str>, weight: u32| {
        texts.map(|text| weight * fit(text, word)).max().unwrap_or(0)
    };
    let group_names = skill.groups.iter().map(|group| group.name.as_str());
    [
        best(&mut std::iter::once(skill.name.as_str()), 10),
        best(&mut skill.search_aliases.iter().map(String::as_str), 9),
        best(&mut tools.iter().map(|tool| tool.name.as_str()), 8),
        best(&mut tools.iter().flat_map(|tool| tool.search_aliases.iter().map(String::as_str)), 8),
        best(&mut tools.iter().filter_map(|tool| tool.title.as_deref()), 6),
        best(&mut skill.prompts.iter().map(|prompt| prompt.name.as_str()), 6),
        best(&mut skill.resources.resources.iter().map(|resource| resource.facts.name.as_str()), 4),
        best(&mut skill.search_hints.iter().map(String::as_str), 6),
        best(&mut skill.tags.iter().map(String::as_str), 5),
        best(&mut group_names.chain([skill.dcc.as_str()]), 4),
        best(&mut std::iter::once(skill.description.as_str()), 2),
        best(&mut tools.iter().filter_map(|tool| tool.description.as_deref()), 2),
    ]
    .into_iter()
    .sum()
}

/// 4: the text is the word; 3: one of its words is; 2: one of its words begins with it; 1: it is somewhere in it.
fn fit(text: &str, word: &str) -> u32 {
    let text = text.to_lowercase();
    if text == word {
        return 4;
    }
    let mut parts = text.split(|c: char| !c.is_alphanumeric());
    if !text.contains(word) {
        0
    } else if parts.clone().any(|part| part == word) {
        3
    } else if parts.any(|part| part.starts_with(word)) {
        2
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skills::manifest;
    use crate::skills::testing::Folder;

    #[test]
    fn names_come_before_tags_and_tags_before_descriptions() {
        let skill = |front: &str| {
            let folder = Folder::new();
            manifest::parse(folder.path(), &format!("---\n{front}\n---\n")).expect("the front matter is right")
        };
        let skills = [
            skill(
                "name: mesh-tools\ndescription: Inspects geometry\ntools: [{name: inspect_obj, search_aliases: [wavefront]}]",
            ),
            skill(
                "name: images\ndescription: Pictures of a mesh\ntags: [png, thumbnail]\nsearch-hint: resize, Überblick",
            ),
            skill("name: echo-skill\ndescription: Says things\ntools: [{name: echo, description: Says it again}]"),
        ];
        for (query, expected) in [
            ("mesh", &["mesh-tools", "images"][..]),
            ("MESH!", &["mesh-tools", "images"]),
            ("echo", &["echo-skill"]),
            ("wavefront", &["mesh-tools"]),
            ("inspect", &["mesh-tools"]),
            ("resize nothing", &["images"]),
            ("überblick", &["images"]),
            ("png inspect", &["mesh-tools", "images"]),
            ("again", &["echo-skill"]),
            ("houdini", &[]),
            ("", &[]),
            ("  ?! ", &[]),
        ] {
            let words = words(query);
            let mut hits: Vec<(u32, &str)> = skills
                .iter()
                .map(|skill| (score(skill, &words), skill.name.as_str()))
                .filter(|hit| hit.0 > 0)
                .collect();
            hits.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
            let names: Vec<&str> = hits.iter().map(|hit| hit.1).collect();
            assert_eq!(names, expected, "{query:?} {hits:?}");
        }
    }
}
