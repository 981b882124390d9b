//! `FAMILIES.md`: what works for each family. Each entry is what this test finds; the page is written anew with `LACUNA_REDRAW=1`.

use crate::common::{ALL, Golden, Model, worst};
use crate::experts::{calibration, folder_of};
use lacuna::io::Folder;
use lacuna::io::gguf::comes_back_as;
use lacuna::job::{Methods, PruneJob, QuantizeJob, QuantizeMethod, ShrinkJob, ShrinkMethod, TrainJob};
use lacuna::lm::{Config, Family, Outline};
use lacuna::prune::ExpertScore;
use lacuna::quantize::Granularity;
use ndarray::Array2;
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::Path;

const HEAD: &str = "# Families

What works for the models of each family. `tests/lm/page.rs` finds it out on a tiny model of each and fails if this page says otherwise;
`LACUNA_REDRAW=1 cargo test --test lm page` writes it anew.

- **forward**, **gradients**: logits (of encoders hidden states) and the gradients of all parameters are the reference library's, on how many tiny models
- **GGUF**: `import` and `export`; a mistral comes back as what it is there, a llama. llama.cpp knows no OPT and no T5 of this kind; BERT is not read
- **prune**: by any method; where nothing can be measured, by weights alone
- **shrink**: what can be left out for good; where * stands, configs of the family have no key for what is left, and Lacuna alone reads it (`layer_widths`; heads of GPT-2
  stand in `pruned_heads` too, which transformers 4 reads); behind *not* stand the generations of transformers that refuse what is left, of the models that are
  named or of all
- **train**: `lacuna train`
- **quantise**: linear layers in codes of 4 bits by `lacuna quantize`, whose folder opens and gives nearly the same; where nothing can be measured, by rounding alone. Layouts of codes have
  no weights that are held (in, out), as GPT-2's are
- **transformers**: the generations of the reference library that open the model as it was, pruned, and made smaller but for what stands under shrink
  (`scripts/check_families.py`)

| family | `model_type` | forward | gradients | GGUF in | GGUF out | prune | shrink | train | quantise | transformers |
|---|---|---|---|---|---|---|---|---|---|---|
";

/// What a model gives: logits, or of an encoder hidden states.
fn given(model: &Model, golden: &Golden) -> Array2<f32> {
    match model {
        Model::Decoder(m) if m.config().is_encoder() => m.hidden_states(&golden.ids, golden.ids.len(), &mut ()).unwrap(),
        model => model.logits(golden),
    }
}

/// Whether a golden's model can be put into codes of 4 bits, and the folder opens to much the same model.
fn quantises(golden: &Golden, (folder, ids, out): (&Path, &Path, &Path), method: QuantizeMethod) -> bool {
    let config = golden.config();
    let divisor = |a: usize, b: usize| (1..=a.max(b)).rev().find(|d| a % d == 0 && b % d == 0).unwrap_or(1);
    let inputs = Outline::of(&Folder::open(folder).unwrap(), &config).unwrap().layers.iter().map(|l| l.shape.1).fold(0, divisor);
    let job = QuantizeJob::default().method(method).bits(4).group(Granularity::Group(inputs)).model(folder).out(out);
    let job = if method == QuantizeMethod::Rtn { job } else { job.calibration(ids).samples(2).context(golden.ids.len()) };
    if job.run(&mut |_| ControlFlow::Continue(())).is_err() {
        return false;
    }
    let coded = Folder::open(out).unwrap();
    let (whole, found) =
        (given(&golden.model(), golden), given(&Model::load(&coded, Config::of(&coded).unwrap()).unwrap(), golden));
    let squares = |x: Array2<f32>| x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
    let off = squares(&found - &whole) / squares(whole);
    // Never the same: the weights are on other grids.
    assert!(off > 1e-6, "{}: {off} of the squares", golden.name);
    off < 0.1
}

fn yes(holds: bool) -> String {
    if holds { "yes" } else { "-" }.to_string()
}

/// The generations of versions, `-` if there are none.
fn generations(versions: &Value) -> String {
    let major = |v: &Value| v.as_str().and_then(|v| v.split('.').next()).unwrap_or("?").to_string();
    let all: Vec<String> = versions.as_array().into_iter().flatten().map(major).collect();
    if all.is_empty() { "-".into() } else { all.join(", ") }
}

/// Which generations do not open which of so many models, by their names; nothing if all do.
fn refused(models: &Value, of: usize) -> String {
    let Some(models) = models.as_object() else { return String::new() };
    let found: Vec<(&String, String)> = models.iter().map(|(name, versions)| (name, generations(versions))).collect();
    match found.first() {
        None => String::new(),
        Some((_, same)) if found.len() == of && found.iter().all(|(_, g)| g == same) => format!(" (not {same})"),
        Some(_) => format!(" (not {})", found.iter().map(|(name, g)| format!("{name}: {g}")).collect::<Vec<_>>().join("; ")),
    }
}

/// The line of one family.
fn line(family: Family, goldens: &[&Golden], reopened: &Value, above: &Path) -> String {
    let golden = goldens[0];
    let config = golden.config();
    let (folder, ids) = (folder_of(golden, above), calibration(golden, above));
    let length = golden.ids.len();
    let go = &mut |_: &lacuna::job::Event| ControlFlow::Continue(());
    let mut runs = 0;
    let mut out = || {
        runs += 1;
        above.join(format!("{} {runs}", golden.name))
    };
    // Encoders have a test of their own, `tests/lm/encoders.rs`, that reads the same golden.
    let right =
        |g: &&Golden| config.is_encoder() || worst(&g.model().logits(g).into_dyn(), &g.matrix("logits").into_dyn(), 1e-4) < 0.5;
    let forward = goldens.iter().filter(|g| right(g)).count();
    let sloped = |g: &&Golden| g.weights.names().all(|tensor| g.expected.get(&format!("grad.{tensor}")).is_ok());
    let gradients = goldens.iter().filter(|g| sloped(g)).count();

    let prune = |method: &str, out: std::path::PathBuf| {
        let job = PruneJob::new(method).sparsity(0.5).model(&folder).out(out);
        let job = if method == "magnitude" { job } else { job.calibration(&ids).samples(2).context(length) };
        job.run(&Methods::standard(), &mut |_| ControlFlow::Continue(())).is_ok()
    };
    let pruned = match (prune("wanda", out()), prune("magnitude", out())) {
        (true, true) => "yes",
        (false, true) => "by weights",
        _ => "-",
    };
    let widths = config.widths(0);
    let job = || {
        let job = ShrinkJob::default().method(ShrinkMethod::Magnitude).samples(2).context(length);
        // Of an encoder-decoder nothing is measured.
        if config.is_encoder_decoder() { job } else { job.calibration(&ids) }
    };
    let ways = [
        ("features", job().intermediate(widths.intermediate / 2)),
        ("heads", job().heads((widths.heads / 2).max(widths.kv_heads * usize::from(widths.heads > widths.kv_heads)))),
        ("layers", job().layers((config.layers() - 1).max(1))),
        ("hidden", job().hidden(config.hidden() - widths.heads)),
        ("experts", job().experts(2).experts_by(ExpertScore::Random)),
    ];
    let mut shrinks = |(what, job): &(&str, ShrinkJob)| {
        let out = out();
        let _ = job.clone().model(&folder).out(&out).run(&mut |_| ControlFlow::Continue(())).ok()?;
        let config: Value = serde_json::from_slice(&std::fs::read(out.join("config.json")).unwrap()).unwrap();
        let elsewhere = &reopened[family.model_type()]["closed"][*what];
        Some(format!(
            "{what}{}",
            if config.get("layer_widths").is_some() { "*".into() } else { refused(elsewhere, goldens.len()) }
        ))
    };
    let left_out: Vec<String> = ways.iter().filter_map(&mut shrinks).collect();
    let quantised = match (
        quantises(golden, (&folder, &ids, &out()), QuantizeMethod::Gptq),
        quantises(golden, (&folder, &ids, &out()), QuantizeMethod::Rtn),
    ) {
        (true, true) => "yes",
        (false, true) => "by rounding",
        _ => "-",
    };
    let train = TrainJob::default().model(&folder).out(above.join(format!("{} trained", golden.name)));
    let trained = train.text([ids.clone()]).steps(1).context(length).batch(1).run(go).is_ok();
    let file = comes_back_as(family.model_type());
    let read = file.map_or("-".to_string(), |as_| if as_ == family.model_type() { "yes".into() } else { format!("as {as_}") });
    let opened = generations(&reopened[family.model_type()]["opens"]);
    let cells = [
        family.about().to_string(),
        format!("`{}`", family.model_type()),
        forward.to_string(),
        gradients.to_string(),
        read,
        yes(file.is_some()),
        pruned.to_string(),
        left_out.join(", "),
        yes(trained),
        quantised.to_string(),
        opened,
    ];
    format!("| {} |\n", cells.join(" | "))
}

#[test]
fn the_page_of_families_says_what_works() {
    // Many small runs, each of which is flushed to the disk: in memory, where the system has such a folder.
    let memory = Path::new("/dev/shm");
    let above = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let goldens: Vec<Golden> = ALL.into_iter().chain(["bert"]).map(Golden::read).collect();
    let reopened: Value = serde_json::from_str(include_str!("goldens/reopened.json")).unwrap();
    let mut page = HEAD.to_string();
    for family in Family::standard() {
        let mine: Vec<&Golden> = goldens.iter().filter(|g| g.json["model_type"] == family.model_type()).collect();
        assert!(!mine.is_empty(), "{family} has no golden");
        page += &line(family, &mine, &reopened, above.path());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("FAMILIES.md");
    if std::env::var_os("LACUNA_REDRAW").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let stands = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = stands.lines().zip(page.lines()).find(|(a, b)| a != b);
    assert!(stands == page, "FAMILIES.md says otherwise: {differs:?}");
}
