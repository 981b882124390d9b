//! Every decoder made smaller by the default method of the job, or refused in a line.

use crate::common::{ALL, Golden};
use crate::experts::{calibration, folder_of};
use lacuna::Error;
use lacuna::io::Folder;
use lacuna::job::{Event, ShrinkJob};
use lacuna::lm::{Config, LanguageModel};
use lacuna::prune::SizeAmount;
use std::ops::ControlFlow;

/// What stays of a golden's model by a job, and what the job says beside.
fn smaller(golden: &Golden, job: ShrinkJob) -> lacuna::Result<(LanguageModel, Config, Vec<String>)> {
    let above = tempfile::tempdir().unwrap();
    let above = above.path();
    let (dir, ids) = (folder_of(golden, above), calibration(golden, above));
    let (out, mut notes) = (above.join(format!("{} smaller", golden.name)), Vec::new());
    let job = job.model(&dir).out(&out).calibration(&ids).samples(4).context(golden.ids.len());
    let _ = job.run(&mut |event: &Event| {
        if let Event::Note(note) = event {
            notes.push(note.clone());
        }
        ControlFlow::Continue(())
    })?;
    let folder = Folder::open(&out).unwrap();
    let config = Config::of(&folder).unwrap();
    Ok((LanguageModel::load(&folder, config.clone()).unwrap(), config, notes))
}

#[test]
fn heads_features_and_layers_of_every_decoder_go_by_the_loss_or_are_refused_in_a_line() {
    let mut made = [0; 4];
    for golden in ALL.into_iter().map(Golden::read).filter(|g| g.config().is_decoder()) {
        let (config, widths) = (golden.config(), golden.config().widths(0));
        let share = widths.heads / widths.kv_heads;
        let heads = if share == 1 { widths.heads / 2 } else { widths.kv_heads * (share / 2).max(1) };
        let ways = [
            ShrinkJob::default().heads(heads.max(1)),
            ShrinkJob::default().intermediate(widths.intermediate / 2),
            ShrinkJob::default().layers((config.layers() - 1).max(1)),
            ShrinkJob::default().parameters(SizeAmount::Fraction(0.9)).per_layer(true).round(1),
        ];
        for (way, job) in ways.into_iter().enumerate() {
            match smaller(&golden, job) {
                Ok((model, left, notes)) => {
                    assert!(model.forward(&golden.ids).unwrap().iter().all(|z| z.is_finite()), "{} {way}", golden.name);
                    let alone = notes.iter().any(|n| n.contains("layer_widths, which this library alone reads"));
                    assert_eq!(alone, !left.has_plain_widths(), "{} {way}: {notes:?}", golden.name);
                    made[way] += 1;
                }
                Err(Error::InvalidOption { option, reason }) => {
                    let known = ["heads stay", "cannot stay", "nothing goes", "experts stand in their place", "cannot be met"];
                    assert!(known.iter().any(|k| reason.contains(k)), "{} {way}: {option}: {reason}", golden.name);
                }
                Err(e) => panic!("{} {way}: {e}", golden.name),
            }
        }
    }
    assert!(made[0] > 30 && made[1] > 25 && made[2] > 15 && made[3] > 15, "{made:?}");
}

#[test]
fn features_of_experts_are_refused_before_anything_is_measured_and_widths_that_no_key_says_are_not_padded() {
    let line = |name: &'static str, job: ShrinkJob| smaller(&Golden::read(name), job).map(|_| ()).unwrap_err().to_string();
    let says = "intermediate: 6 features cannot stay: the feed-forward layers are 4 experts, of which --experts leaves some out";
    assert_eq!(line("mixtral", ShrinkJob::default().intermediate(6)), says);
    let spread = || ShrinkJob::default().parameters(SizeAmount::Fraction(0.9)).per_layer(true).round(4);
    let says =
        "per-layer: chooses features of feed-forward layers, and experts stand in their place in every block: leave it out";
    assert_eq!(line("mixtral", spread()), says);
    assert_eq!(line("bloom", spread().pad(true)), "pad: a bloom has no keys for one width of all blocks: leave it out");
    let trained = |job: ShrinkJob| job.reconstruct_blocks(1);
    let says = "reconstruct-blocks: and fewer heads: queries and keys have norms over all heads, those that went among them";
    assert_eq!(line("olmo2", trained(ShrinkJob::default().heads(2))), says);
    // The heads of OLMoE follow from its hidden size, so that fewer of them are this library's alone.
    let (_, config, notes) = smaller(&Golden::read("olmoe"), ShrinkJob::default().heads(2)).unwrap();
    assert!(!config.has_plain_widths());
    let says =
        "config.json has the widths under layer_widths, which this library alone reads: olmoe has no keys for what is left";
    assert!(notes.iter().any(|n| n == says), "{notes:?}");
}
