//! Tasks by the names, prompts and numbers of EleutherAI's evaluation harness (its version 0.4), from files in the fields of their data sets.
//!
//! | task | context | continuations | right |
//! |---|---|---|---|
//! | `hellaswag` | `activity_label: ctx_a Ctx_b`, cleaned | `endings`, cleaned | `label` |
//! | `piqa` | `Question: goal⏎Answer:` | `sol1`, `sol2` | `label` |
//! | `arc_easy`, `arc_challenge` | `Question: question⏎Answer:` | `choices.text` | `answerKey` among `choices.label` |
//! | `boolq` | `passage⏎Question: question?⏎Answer:` | `no`, `yes` | `label`, or `answer` |
//! | `winogrande` | `sentence` up to `_`, with either option | what stands behind `_` | `answer`, 1 or 2 |
//! | `openbookqa` | `question_stem` | `choices.text` | `answerKey` among `choices.label` |
//! | `lambada` | `text` but for its last word | that word | |
//!
//! Prompts and measures are those of the harness's own files for `hellaswag`, `piqa`, `arc_easy`, `arc_challenge`, `boolq` (of SuperGLUE),
//! `winogrande`, `openbookqa` and `lambada_openai`, without examples. A space stands before each continuation, also where the context ends in
//! one or the continuation begins with one.
//!
//! Cleaned: ` [title]` is a full stop, what else stands in square brackets goes, two spaces are one. Accuracy is the share of items whose right
//! continuation has the largest log-likelihood, or the largest a character; errors are those of a mean, `√(p (1 − p) / (n − 1))`.

use super::choices::{Encoding, Joined, LastWord, Question, answer, guess, join};
use crate::{Error, Result};
use ndarray::Array2;
use serde::Serialize;
use serde_json::Value;

/// A task: how a line of its file becomes an item.
#[derive(Debug, Clone, Copy)]
pub struct Task {
    /// Its name, which is that of its file without `.jsonl`.
    pub name: &'static str,
    /// Whether the accuracy by log-likelihood a character is told.
    pub by_length: bool,
    item: fn(&Value) -> Result<TaskItem>,
}

/// An item of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskItem {
    /// Which continuation is likelier; `contexts` has one for each where they differ.
    Choice {
        /// The question.
        question: Question,
        /// A context for each continuation, in the place of the query.
        contexts: Option<Vec<String>>,
    },
    /// The end of a text.
    LastWord(LastWord),
}

/// What became of one item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TaskAnswer {
    /// Whether the right continuation was the likeliest, or the end what the model would have said.
    pub right: bool,
    /// Whether it was the likeliest a character.
    pub right_by_length: bool,
    /// -log p of an end, natural logarithm.
    pub nll: Option<f64>,
}

/// How a model did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskScore {
    /// The task.
    pub task: String,
    /// Items.
    pub items: usize,
    /// `acc` of the harness.
    pub accuracy: f64,
    /// Its standard error; none of one item.
    pub accuracy_stderr: Option<f64>,
    /// `acc_norm` of the harness, where it has one.
    pub accuracy_normalised: Option<f64>,
    /// Its standard error.
    pub accuracy_normalised_stderr: Option<f64>,
    /// `exp` of the mean -log p of the ends.
    pub perplexity: Option<f64>,
    /// Items that lost the first tokens of a context: see [`Joined::cut`].
    pub cut: usize,
}

const fn task(name: &'static str, by_length: bool, item: fn(&Value) -> Result<TaskItem>) -> Task {
    Task { name, by_length, item }
}

impl Task {
    /// All tasks.
    pub const ALL: [Task; 8] = [
        task("hellaswag", true, hellaswag),
        task("piqa", true, piqa),
        task("arc_easy", true, arc),
        task("arc_challenge", true, arc),
        task("boolq", false, boolq),
        task("winogrande", false, winogrande),
        task("openbookqa", true, openbookqa),
        task("lambada", false, lambada),
    ];

    /// A task by its name.
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the nearest name.
    pub fn of(name: &str) -> Result<Task> {
        let found = Task::ALL.into_iter().find(|task| task.name == name);
        found.ok_or_else(|| Error::unknown_name("task", name, Task::ALL.iter().map(|task| task.name)))
    }

    /// An item out of a line of the task's file.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] naming the field that is missing or of another type.
    pub fn item(&self, line: &Value) -> Result<TaskItem> {
        (self.item)(line)
    }

    /// The score of these answers.
    pub fn score(&self, answers: &[TaskAnswer], joined: &[Vec<Joined>]) -> TaskScore {
        let n = answers.len() as f64;
        let share = |of: fn(&TaskAnswer) -> bool| answers.iter().filter(|a| of(a)).count() as f64 / n;
        let error = |p: f64| (answers.len() > 1).then(|| (p * (1.0 - p) / (n - 1.0)).sqrt());
        let (accuracy, normalised) = (share(|a| a.right), self.by_length.then(|| share(|a| a.right_by_length)));
        let losses: Option<Vec<f64>> = answers.iter().map(|a| a.nll).collect();
        TaskScore {
            task: self.name.to_string(),
            items: answers.len(),
            accuracy,
            accuracy_stderr: error(accuracy),
            accuracy_normalised: normalised,
            accuracy_normalised_stderr: normalised.and_then(error),
            perplexity: losses.filter(|l| !l.is_empty()).map(|l| (l.iter().sum::<f64>() / n).exp()),
            cut: joined.iter().filter(|all| all.iter().any(|j| j.cut > 0)).count(),
        }
    }
}

impl TaskItem {
    /// The tokens of every continuation behind its context.
    ///
    /// # Errors
    /// As [`Question::join`] and [`LastWord::join`].
    pub fn join(&self, encoding: &Encoding<'_>) -> Result<Vec<Joined>> {
        match self {
            TaskItem::LastWord(text) => Ok(vec![text.join(encoding)?]),
            // The space is there whatever stands beside it.
            TaskItem::Choice { question, contexts } => {
                question.check()?;
                let each = question.choices.iter().enumerate();
                let context = |i: usize| contexts.as_ref().map_or(&question.query, |contexts| &contexts[i]);
                each.map(|(i, choice)| join(encoding, context(i), &format!(" {choice}"))).collect()
            }
        }
    }

    /// What a model says of it. `joined` is what [`TaskItem::join`] gave; `nll` and `logits` are those of [`answer`] and [`guess`].
    ///
    /// # Errors
    /// As [`answer`] and [`guess`].
    pub fn answer(
        &self,
        joined: &[Joined],
        nll: impl FnMut(&[u32], usize) -> Result<Vec<f64>>,
        logits: impl FnMut(&[u32], usize) -> Result<Array2<f32>>,
    ) -> Result<TaskAnswer> {
        match (self, joined) {
            (TaskItem::Choice { question, .. }, joined) => {
                let (plain, by_length) = answer(question, joined, nll)?;
                Ok(TaskAnswer { right: plain == question.gold, right_by_length: by_length == question.gold, nll: None })
            }
            (TaskItem::LastWord(_), [text]) => {
                let (right, loss) = guess(text, logits)?;
                Ok(TaskAnswer { right, right_by_length: right, nll: Some(loss) })
            }
            (TaskItem::LastWord(_), other) => panic!("{} joined texts of one", other.len()),
        }
    }
}

fn wrong(field: &str, what: &str) -> Error {
    Error::invalid_option(field, format!("is not {what}"))
}

fn text<'v>(line: &'v Value, field: &str) -> Result<&'v str> {
    line[field].as_str().ok_or_else(|| wrong(field, "a text"))
}

fn texts(value: &Value, field: &str) -> Result<Vec<String>> {
    let list = value.as_array().ok_or_else(|| wrong(field, "a list of texts"))?;
    list.iter().map(|v| v.as_str().map(str::to_string).ok_or_else(|| wrong(field, "a list of texts"))).collect()
}

/// A number that may be written as a text.
fn number(line: &Value, field: &str) -> Result<usize> {
    let value = &line[field];
    let parsed = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
    parsed.map(|n| n as usize).ok_or_else(|| wrong(field, "a number from 0"))
}

fn choice(query: String, choices: Vec<String>, gold: usize) -> Result<TaskItem> {
    Ok(TaskItem::Choice { question: Question { query, choices, gold }, contexts: None })
}

fn hellaswag(line: &Value) -> Result<TaskItem> {
    let second = text(line, "ctx_b")?.to_lowercase();
    let mut letters = second.chars();
    let capital: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    let query = format!("{}: {} {capital}", text(line, "activity_label")?, text(line, "ctx_a")?);
    let endings = texts(&line["endings"], "endings")?;
    choice(clean(&query), endings.iter().map(|ending| clean(ending)).collect(), number(line, "label")?)
}

/// As the harness cleans texts that were taken from WikiHow.
fn clean(text: &str) -> String {
    let text = text.trim().replace(" [title]", ". ");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(open) = rest.find('[') {
        match rest[open..].find(']') {
            // A bracket of another line is none.
            Some(close) if !rest[open..open + close].contains('\n') => {
                out.push_str(&rest[..open]);
                rest = &rest[open + close + 1..];
            }
            _ => {
                out.push_str(&rest[..=open]);
                rest = &rest[open + 1..];
            }
        }
    }
    out.push_str(rest);
    out.replace("  ", " ")
}

fn piqa(line: &Value) -> Result<TaskItem> {
    let choices = vec![text(line, "sol1")?.to_string(), text(line, "sol2")?.to_string()];
    choice(format!("Question: {}\nAnswer:", text(line, "goal")?), choices, number(line, "label")?)
}

/// The texts of `choices`, and which of their labels is the answer.
fn labelled(line: &Value) -> Result<(Vec<String>, usize)> {
    let labels = texts(&line["choices"]["label"], "choices.label")?;
    let key = text(line, "answerKey")?.trim_start();
    let gold = labels.iter().position(|label| label == key);
    Ok((texts(&line["choices"]["text"], "choices.text")?, gold.ok_or_else(|| wrong("answerKey", "among choices.label"))?))
}

fn arc(line: &Value) -> Result<TaskItem> {
    let (choices, gold) = labelled(line)?;
    choice(format!("Question: {}\nAnswer:", text(line, "question")?), choices, gold)
}

fn openbookqa(line: &Value) -> Result<TaskItem> {
    let (choices, gold) = labelled(line)?;
    choice(text(line, "question_stem")?.to_string(), choices, gold)
}

fn boolq(line: &Value) -> Result<TaskItem> {
    let gold = match line["answer"].as_bool() {
        Some(yes) => usize::from(yes),
        None => number(line, "label")?,
    };
    let query = format!("{}\nQuestion: {}?\nAnswer:", text(line, "passage")?, text(line, "question")?);
    choice(query, vec!["no".into(), "yes".into()], gold)
}

fn winogrande(line: &Value) -> Result<TaskItem> {
    let Some((before, behind)) = text(line, "sentence")?.split_once('_') else {
        return Err(wrong("sentence", "a text with the mark _"));
    };
    let contexts = vec![format!("{before}{}", text(line, "option1")?), format!("{before}{}", text(line, "option2")?)];
    let gold = number(line, "answer")?.checked_sub(1).ok_or_else(|| wrong("answer", "1 or 2"))?;
    let choices = vec![behind.trim().to_string(); 2];
    Ok(TaskItem::Choice { question: Question { query: String::new(), choices, gold }, contexts: Some(contexts) })
}

fn lambada(line: &Value) -> Result<TaskItem> {
    let Some((context, continuation)) = text(line, "text")?.rsplit_once(' ') else {
        return Err(wrong("text", "a text of several words"));
    };
    Ok(TaskItem::LastWord(LastWord { context: context.into(), continuation: format!(" {continuation}") }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn made(task: &str, line: Value) -> (Vec<String>, Vec<String>, usize) {
        match Task::of(task).unwrap().item(&line).unwrap() {
            TaskItem::Choice { question, contexts } => {
                let contexts = contexts.unwrap_or_else(|| vec![question.query.clone()]);
                (contexts, question.choices, question.gold)
            }
            TaskItem::LastWord(text) => (vec![text.context], vec![text.continuation], 0),
        }
    }

    #[test]
    fn items_have_the_prompts_of_the_harness() {
        let of = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let line = json!({"ctx_a": "A man sits [header] down.", "ctx_b": "HE", "activity_label": "Baking [title] cake",
            "endings": ["eats [substeps] it.", " stands  up."], "label": "1"});
        assert_eq!(made("hellaswag", line), (of(&["Baking. cake: A man sits down. He"]), of(&["eats it.", "stands up."]), 1));
        let line = json!({"goal": "open it", "sol1": "push", "sol2": "pull", "label": 0});
        assert_eq!(made("piqa", line), (of(&["Question: open it\nAnswer:"]), of(&["push", "pull"]), 0));
        let choices = json!({"text": ["iron", "air"], "label": ["A", "B"]});
        let line = json!({"question": "What rusts?", "choices": choices, "answerKey": "A"});
        assert_eq!(made("arc_easy", line), (of(&["Question: What rusts?\nAnswer:"]), of(&["iron", "air"]), 0));
        let line = json!({"question_stem": "What is breathed is", "choices": choices, "answerKey": " B"});
        assert_eq!(made("openbookqa", line), (of(&["What is breathed is"]), of(&["iron", "air"]), 1));
        let line = json!({"passage": "P.", "question": "is it", "answer": true});
        assert_eq!(made("boolq", line), (of(&["P.\nQuestion: is it?\nAnswer:"]), of(&["no", "yes"]), 1));
        let line = json!({"sentence": "The cup fell on the plate, so the _ broke.", "option1": "cup", "option2": "plate", "answer": "2"});
        let contexts = of(&["The cup fell on the plate, so the cup", "The cup fell on the plate, so the plate"]);
        assert_eq!(made("winogrande", line), (contexts, of(&["broke.", "broke."]), 1));
        assert_eq!(made("lambada", json!({"text": "it was his own"})), (of(&["it was his"]), of(&[" own"]), 0));
    }

    #[test]
    fn continuations_stand_behind_one_space_more_than_they_and_their_contexts_have() {
        let letters = |text: &str| Ok(text.chars().map(u32::from).collect::<Vec<_>>());
        let encoding = Encoding { open: &letters, bare: &letters, prefix: None, longest: None };
        let joined = |task: &str, line: Value| -> Vec<(String, String)> {
            let text = |ids: &[u32]| ids.iter().map(|id| char::from_u32(*id).unwrap()).collect::<String>();
            let item = Task::of(task).unwrap().item(&line).unwrap();
            item.join(&encoding).unwrap().iter().map(|j| (text(&j.ids[..j.from]), text(&j.ids[j.from..]))).collect()
        };
        let of = |list: &[(&str, &str)]| list.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect::<Vec<_>>();
        let line = json!({"goal": "g", "sol1": "push", "sol2": " pull", "label": 0});
        let context = "Question: g\nAnswer:";
        assert_eq!(joined("piqa", line), of(&[(context, " push"), (context, "  pull")]));
        let line = json!({"sentence": "It _ .", "option1": "is ", "option2": "was", "answer": "1"});
        assert_eq!(joined("winogrande", line), of(&[("It is", "  ."), ("It was", " .")]));
        assert_eq!(joined("lambada", json!({"text": "his  own"})), of(&[("his", "  own")]));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_named_by_its_field() {
        let e = |task: &str, line: Value| Task::of(task).unwrap().item(&line).unwrap_err().to_string();
        assert_eq!(e("piqa", json!({"goal": "x", "sol1": "a", "sol2": 3, "label": 0})), "sol2: is not a text");
        assert_eq!(e("lambada", json!({"text": "word"})), "text: is not a text of several words");
        let line = json!({"question": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "C"});
        assert_eq!(e("arc_challenge", line), "answerKey: is not among choices.label");
        assert!(Task::of("hellaswg").unwrap_err().to_string().contains("hellaswag"));
    }

    #[test]
    fn errors_are_those_of_a_mean() {
        let answer = |right| TaskAnswer { right, right_by_length: !right, nll: None };
        let answers = [answer(true), answer(true), answer(false), answer(true)];
        let score = Task::of("piqa").unwrap().score(&answers, &[]);
        assert_eq!((score.accuracy, score.accuracy_normalised, score.perplexity), (0.75, Some(0.25), None));
        // Deviations from 3/4 squared sum to 3/4; divided by 3, then by 4.
        assert!((score.accuracy_stderr.unwrap() - 0.25).abs() < 1e-15);
    }
}
