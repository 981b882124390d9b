//! Chat templates against the Hugging Face library (`make_chat_goldens.py`), and where a folder has one.

use lacuna::text::{ChatTemplate, Message, Tokenizer};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

fn messages(list: &Value) -> Vec<Message> {
    let one = |m: &Value| Message::new(m["role"].as_str().unwrap(), m["content"].as_str().unwrap());
    list.as_array().unwrap().iter().map(one).collect()
}

#[test]
fn templates_are_rendered_as_the_reference_library_renders_them() {
    let golden: Value = serde_json::from_str(include_str!("chat.json")).unwrap();
    let tokens = || golden["tokens"].as_object().unwrap().iter().map(|(name, text)| (name.as_str(), text.as_str().unwrap()));
    let today = ChatTemplate::new("{{ strftime_now('%d %b %Y') }}", tokens()).unwrap().render(&[], false).unwrap();
    let mut cases = 0;
    for template in golden["templates"].as_array().unwrap() {
        let (name, source) = (&template["name"], template["template"].as_str().unwrap());
        let compiled = ChatTemplate::new(source, tokens()).unwrap();
        for case in template["cases"].as_array().unwrap() {
            let found = compiled.render(&messages(&case["messages"]), case["answer"] == true);
            match case["text"].as_str() {
                Some(right) => assert_eq!(found.unwrap(), right.replace("@DATE@", &today), "{name}: {}", case["messages"]),
                None => {
                    let (line, says) = (found.unwrap_err().to_string(), case["error"].as_str().unwrap());
                    assert!(
                        line.starts_with("chat template: the chat template, line ") && line.ends_with(says),
                        "{name}: {line}"
                    );
                }
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 60);
}

fn of(folder: &Path) -> lacuna::Result<Option<String>> {
    Ok(ChatTemplate::open(folder)?.map(|t| t.render(&[Message::new("user", "hi")], true).unwrap()))
}

#[test]
fn a_folder_has_its_template_in_one_of_three_files() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    assert_eq!(of(folder.path()).unwrap(), None);
    write("chat_template.json", r#"{"chat_template": "processor {{ messages[0].content }}"}"#);
    assert_eq!(of(folder.path()).unwrap().unwrap(), "processor hi");
    write("tokenizer_config.json", r#"{"chat_template": null, "bos_token": {"content": "<b>"}, "eos_token": null}"#);
    assert_eq!(of(folder.path()).unwrap().unwrap(), "processor hi");
    let listed = json!({"bos_token": {"content": "<b>"}, "eos_token": null, "chat_template": [
        {"name": "tool_use", "template": "tools"}, {"name": "default", "template": "{{ bos_token }}{{ eos_token }}{{ pad_token }} listed"},
    ]});
    write("tokenizer_config.json", &listed.to_string());
    write("special_tokens_map.json", r#"{"bos_token": "<other>", "pad_token": "<p>"}"#);
    assert_eq!(of(folder.path()).unwrap().unwrap(), "<b><p> listed");
    write("chat_template.jinja", "{{ bos_token }} of its own\n");
    assert_eq!(of(folder.path()).unwrap().unwrap(), "<b> of its own");
}

#[test]
fn a_template_that_cannot_be_is_one_line_that_names_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let says = |template: &str, says: &str| {
        fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
        let line = match ChatTemplate::open(folder.path()) {
            Err(e) => e.to_string(),
            Ok(template) => template.unwrap().render(&[Message::new("user", "hi")], true).unwrap_err().to_string(),
        };
        assert!(line.contains("chat_template.jinja: the chat template") && line.lines().count() == 1, "{line}");
        assert!(line.contains(says), "{says}: {line}");
    };
    says("a\n{% if %}", "line 2");
    says("{{ messages | nonsense }}", "nonsense");
    says("{{ messages[0].content.nonsense() }}", "nonsense");
    says("{{ raise_exception('two\nlines') }}", "two\\nlines");
    says("{% include '/etc/hostname' %}", "include");
    // One that does not come to an end, and one that would fill the memory.
    says("{% for i in range(99999) %}{% for j in range(99999) %}{% set x = i * j %}{% endfor %}{% endfor %}", "fuel");
    says("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", "line 1");
    fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    for (file, says) in [
        (r#"{"chat_template": 3}"#, "'chat_template' is neither"),
        (r#"{"chat_template": [{"name": "x"}]}"#, "neither"),
        ("[", "JSON"),
    ] {
        fs::write(folder.path().join("tokenizer_config.json"), file).unwrap();
        let line = ChatTemplate::open(folder.path()).unwrap_err().to_string();
        assert!(line.contains("tokenizer_config.json") && line.contains(says), "{line}");
    }
}

/// The tokenizer of a tiny Llama, with these tokens before and behind every text.
fn around(before: &[&str], behind: &[&str]) -> (tempfile::TempDir, Tokenizer) {
    let (folder, out) = crate::byte_level_folder();
    let path = out.join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let tokens = |list: &[&str]| list.iter().map(|t| json!({"SpecialToken": {"id": t, "type_id": 0}})).collect::<Vec<_>>();
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let known =
        |text: &str| json["added_tokens"].as_array().unwrap().iter().find(|t| t["content"] == text).unwrap()["id"].clone();
    let special: serde_json::Map<String, Value> =
        before.iter().chain(behind).map(|t| (t.to_string(), json!({"id": t, "ids": [known(t)], "tokens": [t]}))).collect();
    let single = [tokens(before), vec![text.clone()], tokens(behind)].concat();
    json["post_processor"] = json!({
        "type": "TemplateProcessing", "single": single, "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": special,
    });
    fs::write(&path, json.to_string()).unwrap();
    let tokenizer = Tokenizer::open(&out).unwrap();
    (folder, tokenizer)
}

#[test]
fn a_text_that_goes_on_has_the_tokens_before_it_once_and_none_behind_it() {
    let bare = around(&[], &[]).1;
    let text = bare.encode("The weights", true).unwrap();
    assert_eq!(bare.first_special(), None);
    assert_eq!(bare.encode_open("The weights").unwrap(), text);
    let (begin, end) = (bare.id("<s>").unwrap(), bare.id("</s>").unwrap());
    for (before, behind) in
        [(&["<s>"][..], &[][..]), (&[], &["</s>"]), (&["<s>"], &["</s>"]), (&["<s>", "</s>"], &["</s>", "<s>"])]
    {
        let (_folder, tokenizer) = around(before, behind);
        let ids = |list: &[&str]| list.iter().map(|t| if *t == "<s>" { begin } else { end }).collect::<Vec<_>>();
        assert_eq!(tokenizer.encode("The weights", true).unwrap(), [ids(before), text.clone(), ids(behind)].concat());
        assert_eq!(tokenizer.encode_open("The weights").unwrap(), [ids(before), text.clone()].concat());
        assert_eq!(tokenizer.encode_open("").unwrap(), ids(before));
        // A text that has them itself has them once.
        assert_eq!(tokenizer.encode_open(&(before.concat() + "The weights")).unwrap(), [ids(before), text.clone()].concat());
        assert_eq!(tokenizer.first_special(), ids(before).first().copied());
    }
}

#[test]
fn the_tokens_that_begin_and_end_a_text_are_those_that_the_settings_name() {
    let (_folder, out) = crate::byte_level_folder();
    let with = |settings: &str, config: Value| {
        fs::write(out.join("tokenizer_config.json"), settings).unwrap();
        let tokenizer = Tokenizer::open(&out).unwrap();
        let config = config.as_object().unwrap();
        (tokenizer.bos(config), tokenizer.eos(config))
    };
    let config = json!({"bos_token_id": 7, "eos_token_id": [8, 9]});
    assert_eq!(with("{}", config.clone()), (Some(7), Some(8)));
    assert_eq!(with("{}", json!({})), (None, None));
    assert_eq!(with(r#"{"bos_token": null, "eos_token": "</s>"}"#, config.clone()), (None, Some(2)));
    assert_eq!(with(r#"{"bos_token": {"content": "<s>", "lstrip": false}}"#, config), (Some(1), Some(8)));
    let tokenizer = Tokenizer::open(&out).unwrap();
    assert_eq!((tokenizer.control("</s>"), tokenizer.control("e"), tokenizer.control("nonsense")), (Some(2), None, None));
}
