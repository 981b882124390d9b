//! Language models in codes: what is written is what was computed, runs are taken up again to the same bits, masks stay.

use crate::common::*;
use crate::jobs::calibration;
use lacuna::io::{Dtype, Folder, FolderWriter, Packing, QuantLayout, repack};
use lacuna::job::{Event, Methods, Pipeline, PruneJob, QuantScheme, QuantizeJob, QuantizeMethod, QuantizeReport, Stage};
use lacuna::lm::{Config, init};
use lacuna::mask::Pattern;
use lacuna::prune::{CalibrationInputs, Sequential};
use lacuna::quantize::{Granularity, ScaleType};
use lacuna::rng::Seed;
use lacuna::solve::Order;
use lacuna::sparse::LinearOp;
use lacuna::{Error, Result};
use ndarray::Array2;
use std::ops::ControlFlow;
use std::path::Path;

/// A job on all layers in groups of eight.
fn job(m: &Model, method: QuantizeMethod) -> QuantizeJob {
    let ids = calibration(m, &tokens(20));
    let job = QuantizeJob::default().method(method).group(Granularity::Group(8)).samples(20).context(LENGTH);
    job.calibration(ids).model(&m.dir).out(m.out("out"))
}

fn run(job: &QuantizeJob) -> Result<QuantizeReport> {
    job.run(&mut |_| ControlFlow::Continue(()))
}

/// All files but record and page.
fn content(dir: &Path) -> Vec<(String, Vec<u8>)> {
    files(dir).into_iter().filter(|(name, _)| !name.starts_with("quantize.")).collect()
}

/// The logits of a folder's model.
fn logits(dir: &Path) -> Array2<f32> {
    model(dir).logits_from(&tokens(4), 1).unwrap()
}

#[test]
fn a_job_writes_codes_that_a_loaded_model_computes_with() {
    let m = Model::new(Dtype::BF16);
    let dense = logits(&m.dir);
    let far = |found: &Array2<f32>| {
        let (error, whole) = found.iter().zip(&dense).fold((0.0, 0.0), |(e, w), (a, b)| (e + (a - b) * (a - b), w + b * b));
        error / whole
    };
    let mut losses = Vec::new();
    for method in QuantizeMethod::ALL {
        for layout in QuantLayout::ALL {
            let bits = if layout == QuantLayout::IntQuantized { 8 } else { 4 };
            let out = m.out(&format!("{method}-{layout}"));
            let job = job(&m, method).bits(bits).layout(layout).out(&out);
            let report = run(&job).unwrap();
            assert_eq!((report.layers.len(), report.job.clone()), (21, job));
            let found = far(&logits(&out));
            assert!(found < if bits == 8 { 1e-3 } else { 0.2 }, "{method} {layout}: {found}");
            if layout == QuantLayout::CompressedTensors {
                losses.push((method, found));
            }
            // What is not in codes is as it was, but for norms into which scales were folded.
            let (before, after) = (Folder::open(&m.dir).unwrap(), Folder::open(&out).unwrap());
            assert_eq!(before.read("model.embed_tokens.weight").unwrap(), after.read("model.embed_tokens.weight").unwrap());
            let norm = "model.layers.1.input_layernorm.weight";
            let folded = method == QuantizeMethod::Awq
                && report.layers.iter().any(|l| l.block == 1 && l.layer.ends_with("q_proj") && l.exponent > Some(0.0));
            assert_eq!(before.read(norm).unwrap() == after.read(norm).unwrap(), !folded, "{method} {layout}");
            let page = std::fs::read_to_string(out.join("quantize.html")).unwrap();
            assert_eq!(page, report.page().unwrap());
            let record: QuantizeReport = serde_json::from_slice(&std::fs::read(out.join("quantize.json")).unwrap()).unwrap();
            assert_eq!(record, report);
        }
    }
    let of = |wanted: QuantizeMethod| losses.iter().find(|(method, _)| *method == wanted).unwrap().1;
    assert!(of(QuantizeMethod::Gptq) < of(QuantizeMethod::Rtn), "{losses:?}");
}

#[test]
fn smoothing_moves_range_from_inputs_to_weights_and_the_config_says_so() {
    let m = Model::new(Dtype::F32);
    let (plain, smooth) = (m.out("plain"), m.out("smooth"));
    let job = job(&m, QuantizeMethod::Rtn).bits(8).group(Granularity::Row).layout(QuantLayout::IntQuantized);
    let _ = run(&job.clone().out(&plain)).unwrap();
    let report = run(&job.smooth(0.5).activation_bits(8).out(&smooth)).unwrap();
    // Norms are divided, and what reads them is multiplied: the model is as far from the dense one as without, up to rounding.
    let (dense, before, after) = (logits(&m.dir), logits(&plain), logits(&smooth));
    let far = |found: &Array2<f32>| (found - &dense).mapv(|e| e * e).sum() / dense.mapv(|d| d * d).sum();
    assert!(far(&before) < 1e-3 && far(&after) < 1e-3 && before != after, "{} {}", far(&before), far(&after));
    let (whole, folder) = (Folder::open(&m.dir).unwrap(), Folder::open(&smooth).unwrap());
    let exponents: Vec<Option<f64>> = report.layers.iter().map(|l| l.exponent).collect();
    let reads_norm = |l: &str| ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"].iter().any(|part| l.ends_with(part));
    for (layer, exponent) in report.layers.iter().zip(exponents) {
        assert_eq!(exponent, reads_norm(&layer.layer).then_some(0.5), "{}", layer.layer);
    }
    for norm in ["model.layers.0.input_layernorm.weight", "model.layers.2.post_attention_layernorm.weight"] {
        assert_ne!(whole.read(norm).unwrap(), folder.read(norm).unwrap(), "{norm}");
    }
    let said = &folder.config()["quantization_config"]["config_groups"]["group_0"];
    assert_eq!((&said["input_activations"]["num_bits"], &said["input_activations"]["strategy"]), (&8.into(), &"token".into()));
    let said =
        &Folder::open(&plain).unwrap().config()["quantization_config"]["config_groups"]["group_0"]["input_activations"].clone();
    assert!(said.is_null());
}

#[test]
fn the_record_runs_again_to_the_same_bytes() {
    let m = Model::new(Dtype::F32);
    let first = job(&m, QuantizeMethod::Gptq).order(Order::GroupAware).correct(1.0, 0.5);
    let _ = run(&first).unwrap();
    let again = QuantizeJob::read(m.out("out").join("quantize.json")).unwrap().out(m.out("again"));
    let _ = run(&again).unwrap();
    assert!(content(&m.out("again")) == content(&m.out("out")));
    let other = QuantizeJob::from_toml(&first.to_toml().unwrap()).unwrap();
    assert_eq!(other, first);
}

#[test]
fn a_run_that_is_stopped_behind_a_block_goes_on_to_the_same_bits() {
    for dtype in [Dtype::F32, Dtype::BF16] {
        let m = Model::new(dtype);
        let jobs = [
            job(&m, QuantizeMethod::Rtn),
            job(&m, QuantizeMethod::Hqq),
            job(&m, QuantizeMethod::Gptq),
            job(&m, QuantizeMethod::Gptq).correct(1.0, 1.0).scheme(QuantScheme::Asymmetric),
            job(&m, QuantizeMethod::Gptq).pattern(Pattern::Nm { n: 2, m: 4 }),
            job(&m, QuantizeMethod::Gptq).inputs(CalibrationInputs::Dense).layout(QuantLayout::Gptq),
            job(&m, QuantizeMethod::Awq),
            job(&m, QuantizeMethod::Awq).skip(["v_proj", "layers.1.mlp.up_proj"]).layout(QuantLayout::Awq),
            job(&m, QuantizeMethod::Obr).sparsity(0.5).reconstruct_blocks(1),
            job(&m, QuantizeMethod::Rtn).reconstruct_blocks(1).reconstruct_rate(2e-3).scheme(QuantScheme::Asymmetric),
            job(&m, QuantizeMethod::Gptq).reconstruct_blocks(1).reconstruct_rate(2e-3).scheme(QuantScheme::Asymmetric),
        ];
        // Each in one of the dtypes.
        let skip = usize::from(dtype == Dtype::BF16);
        for (i, whole) in jobs.into_iter().enumerate().skip(skip).step_by(2) {
            let whole = whole.out(m.out(&format!("whole{i}")));
            let report = run(&whole).unwrap();
            for last in 1..=3 {
                let out = m.out(&format!("stopped{i}{last}"));
                let stopped = whole.clone().out(&out);
                let error = stopped.run(&mut |event| match event {
                    Event::Progress { stage: Stage::Blocks, done, .. } if *done == last => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                });
                assert!(matches!(error.unwrap_err(), Error::Unfinished { .. }));
                assert!(!out.exists() && FolderWriter::is_unfinished(&out).unwrap());
                if whole.reconstruct_blocks.is_some() {
                    // As a kill leaves it between the list of what is written and the records: the last block is done anew.
                    let path = FolderWriter::working_folder(&out).join(".records.json");
                    let text = std::fs::read_to_string(&path).unwrap();
                    let mut records: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
                    records.retain(|record| record["block"].as_u64() < Some(last as u64 - 1));
                    std::fs::write(&path, serde_json::to_string(&records).unwrap()).unwrap();
                }
                let other = stopped.clone().bits(8).resume(true);
                if whole.layout != QuantLayout::Awq {
                    let line = run(&other).unwrap_err().to_string();
                    assert!(line.starts_with("--bits: the unfinished run has 4, this one 8"), "{line}");
                }
                let mut resumed = run(&stopped.clone().resume(true)).unwrap();
                assert!(content(&out) == content(&m.out(&format!("whole{i}"))), "{dtype:?}, job {i}, stopped after block {last}");
                let timeless =
                    |r: &QuantizeReport| r.layers.iter().map(|l| (l.layer.clone(), l.error, l.moved)).collect::<Vec<_>>();
                assert_eq!(timeless(&resumed), timeless(&report));
                let done = run(&stopped.resume(true)).unwrap();
                resumed.already_finished = true;
                assert_eq!(resumed, done, "a finished run is known again");
            }
        }
    }
}

#[test]
fn masks_stay_beside_and_what_they_drop_stays_0() {
    let m = Model::new(Dtype::BF16);
    let ids = calibration(&m, &tokens(20));
    let prune = PruneJob::new("sparsegpt").sparsity(0.5).calibration(ids).samples(20).context(LENGTH).skip(["layers.0.mlp"]);
    let pruned = m.out("pruned");
    let _ = prune.model(&m.dir).out(&pruned).run(&Methods::standard(), &mut |_| ControlFlow::Continue(())).unwrap();
    for (i, method) in QuantizeMethod::ALL.into_iter().enumerate() {
        let out = m.out(&format!("both{i}"));
        let report = run(&job(&m, method).model(&pruned).out(&out).skip(["layers.2.self_attn"])).unwrap();
        let (before, after) = (Folder::open(&pruned).unwrap(), Folder::open(&out).unwrap());
        let mut masks = 0;
        for name in before.names() {
            let mask = before.mask(name).unwrap();
            assert_eq!(after.mask(name).unwrap(), mask, "{method}: {name}");
            if let Some(mask) = mask {
                assert_eq!(mask.dropped_nonzeros(&after.matrix(name, mask.dim()).unwrap()), 0, "{method}: {name}");
                masks += 1;
            }
        }
        assert_eq!((masks, report.layers.len()), (18, 17));
        let _ = model(&out);
    }
    // In one loop: the mask comes about on the way.
    let joint = m.out("joint");
    let report = run(&job(&m, QuantizeMethod::Gptq).sparsity(0.5).out(&joint)).unwrap();
    let kept: usize = report.layers.iter().filter_map(|l| l.kept).sum();
    assert_eq!(2 * kept, report.weights);
    let folder = Folder::open(&joint).unwrap();
    for layer in &report.layers {
        let name = format!("{}.weight", layer.layer);
        let mask = folder.mask(&name).unwrap().unwrap();
        assert_eq!((Some(mask.kept()), mask.dropped_nonzeros(&folder.matrix(&name, layer.shape).unwrap())), (layer.kept, 0));
    }
}

#[test]
fn blocks_that_train_on_their_levels_are_nearer_to_the_dense_model_and_stay_codes() {
    let m = Model::new(Dtype::BF16);
    let ids = calibration(&m, &tokens(20));
    let prune = PruneJob::new("wanda").sparsity(0.5).calibration(ids).samples(20).context(LENGTH);
    let pruned = m.out("pruned");
    let _ = prune.model(&m.dir).out(&pruned).run(&Methods::standard(), &mut |_| ControlFlow::Continue(())).unwrap();
    for (i, (from, method, scheme)) in [
        (&m.dir, QuantizeMethod::Rtn, QuantScheme::Symmetric),
        (&m.dir, QuantizeMethod::Awq, QuantScheme::Asymmetric),
        (&pruned, QuantizeMethod::Obr, QuantScheme::Asymmetric),
    ]
    .into_iter()
    .enumerate()
    {
        let (plain, out) = (m.out(&format!("plain{i}")), m.out(&format!("trained{i}")));
        let plain_job = job(&m, method).model(from).scheme(scheme).bits(3).skip(["layers.1.mlp.up_proj"]);
        let _ = run(&plain_job.clone().out(&plain)).unwrap();
        let trained = plain_job.reconstruct_blocks(6).reconstruct_rate(2e-3).out(&out);
        let report = run(&trained).unwrap();
        let of_layers: Vec<(f64, f64)> = report.layers.iter().filter_map(|l| l.reconstructed).collect();
        assert_eq!(of_layers.len(), report.layers.len(), "every layer's half was trained");
        assert!(of_layers.iter().all(|(before, after)| after <= before), "{of_layers:?}");
        assert!(of_layers.iter().filter(|(before, after)| *after < 0.95 * before).count() * 2 > of_layers.len(), "{of_layers:?}");
        // What is written is the codes that were trained; the logits of the folder are those of the model that they make.
        let dense = logits(from);
        let far = |dir: &Path| (&logits(dir) - &dense).mapv(|e| f64::from(e * e)).sum();
        assert!(far(&out) < far(&plain), "{method}: {} {}", far(&out), far(&plain));
        let (before, after) = (Folder::open(from).unwrap(), Folder::open(&out).unwrap());
        for layer in &report.layers {
            let name = format!("{}.weight", layer.layer);
            let mask = before.mask(&name).unwrap();
            assert_eq!(after.mask(&name).unwrap(), mask);
            let weight = after.matrix(&name, layer.shape).unwrap();
            assert!(mask.is_none_or(|mask| mask.dropped_nonzeros(&weight) == 0), "{name}");
            let mut values: Vec<u32> = weight.row(0).iter().take(8).map(|w| w.to_bits() & 0x7fff_ffff).collect();
            values.sort_unstable();
            values.dedup();
            assert!(values.len() <= 8, "{name}: a group of 8 has the levels of 3 bits");
        }
        // The layer that is not in codes stays, and its half's norm moves.
        let whole = "model.layers.1.mlp.up_proj.weight";
        assert_eq!(before.read(whole).unwrap() == after.read(whole).unwrap(), method != QuantizeMethod::Awq, "{method}");
        let norm = "model.layers.1.post_attention_layernorm.weight";
        assert_ne!(before.read(norm).unwrap(), after.read(norm).unwrap());
        let again = QuantizeJob::read(out.join("quantize.json")).unwrap().out(m.out(&format!("again{i}")));
        let _ = run(&again).unwrap();
        assert!(content(&m.out(&format!("again{i}"))) == content(&out));
    }
}

#[test]
fn both_orders_and_a_file_at_the_end_are_stages_of_a_pipeline() {
    let m = Model::new(Dtype::BF16);
    let ids = calibration(&m, &tokens(20));
    let (ids, dir) = (ids.display(), m.dir.display());
    let of = |name: &str, stages: &str| {
        let text = format!("model = '{dir}'\nout = '{}'\n{stages}", m.out(name).display());
        Pipeline::from_toml(&text).and_then(|p| p.run(&Methods::standard(), &mut |_| ControlFlow::Continue(())))
    };
    let prune = format!(
        "[[stage]]\nprune = {{ method = 'sparsegpt', sparsity = 0.5, calibration = '{ids}', samples = 20, context = {LENGTH} }}\n"
    );
    let quantize =
        format!("[[stage]]\nquantize = {{ bits = 4, group = 8, calibration = '{ids}', samples = 20, context = {LENGTH} }}\n");
    let first = of("first", &format!("{prune}{quantize}")).unwrap();
    assert_eq!(first.stages.iter().map(|s| s.stage.as_str()).collect::<Vec<_>>(), ["before", "prune", "quantize"]);
    assert_eq!(first.stages[2].kept, first.stages[1].kept, "the mask is that of the pruning");
    let later = of("refused", &format!("{quantize}{prune}")).unwrap_err().to_string();
    assert!(later.contains("is in codes of 4 bits"), "{later}");
    let stages = format!("{quantize}[[stage]]\npack = {{ save = 'weights' }}\n{prune}{quantize}");
    let later = of("later", &stages).unwrap();
    assert_eq!(
        later.stages.iter().map(|s| s.stage.as_str()).collect::<Vec<_>>(),
        ["before", "quantize", "pack", "prune", "quantize"]
    );
    assert_eq!(later.stages[4].kept, later.stages[3].kept);
    let again = of("later", &stages).unwrap();
    assert_eq!(again, later, "what is done is passed over");
    let line = of("wrong", "[[stage]]\nquantize = { method = 'gptq', bits = 5 }").unwrap_err().to_string();
    assert!(line.starts_with("stage 1 (quantize): bits: 5 is none that the layout"), "{line}");
    let line = of("wrong", "[[stage]]\nexport = { type = 'q9_0' }").unwrap_err().to_string();
    assert!(line.contains("type: 'q9_0' is none of"), "{line}");
}

#[test]
fn every_setting_comes_back_from_a_recipe_and_what_is_wrong_is_named() {
    let all = QuantizeJob::default()
        .model("a b/c")
        .out("d")
        .method(QuantizeMethod::Awq)
        .bits(3)
        .group(Granularity::Row)
        .scheme(QuantScheme::Symmetric)
        .scale_type(ScaleType::BF16)
        .layout(QuantLayout::Gptq)
        .skip(["x"])
        .only(["y.*"])
        .calibration("e")
        .samples(2)
        .context(3)
        .inputs(CalibrationInputs::Dense)
        .sequential(Sequential::Block)
        .order(Order::GroupAware)
        .static_groups(true)
        .damping(0.5)
        .block_size(64)
        .clip(false)
        .smooth(0.25)
        .activation_bits(8)
        .correct(0.5, 0.25)
        .sparsity(0.75)
        .pattern(Pattern::Nm { n: 1, m: 2 })
        .reconstruct_blocks(3)
        .reconstruct_rate(0.25)
        .activations(7)
        .scratch("/tmp")
        .text("f")
        .windows(4)
        .bos(lacuna::data::Bos::Window);
    let (plain, changed) = (serde_json::to_value(QuantizeJob::default()).unwrap(), serde_json::to_value(&all).unwrap());
    for (name, value) in changed.as_object().unwrap() {
        assert_ne!(plain[name], *value, "{name} is as by default here");
    }
    let text = all.to_toml().unwrap();
    assert!(changed.as_object().unwrap().keys().all(|name| text.contains(name.as_str())), "{text}");
    assert_eq!(QuantizeJob::from_toml(&text).unwrap(), all);
    let line = |job: QuantizeJob| job.check().unwrap_err().to_string();
    let job = || QuantizeJob::default().calibration("a");
    for (job, begins) in [
        (QuantizeJob::default(), "calibration: this method measures inputs"),
        (job().bits(5), "bits: 5 is none that the layout compressed-tensors has: 2, 3, 4, 8"),
        (job().layout(QuantLayout::Awq).bits(3), "bits: 3 is none that the layout awq has: 4"),
        (job().layout(QuantLayout::Gptq).group(Granularity::Tensor), "group: tensor: the layout gptq has scales of rows"),
        (job().layout(QuantLayout::Awq).scale_type(ScaleType::F32), "scale-type: the layout awq has scales of f16"),
        (job().method(QuantizeMethod::Hqq).scheme(QuantScheme::Symmetric), "scheme: hqq finds zero points"),
        (job().method(QuantizeMethod::Rtn).sparsity(0.5), "sparsity: is for --method gptq or obr; rtn moves no weights"),
        (job().method(QuantizeMethod::Awq).sequential(Sequential::Layer), "turn: awq scales the inputs of whole blocks"),
        (job().method(QuantizeMethod::Rtn).smooth(1.5), "smooth: 1.5 is not in [0, 1]"),
        (job().method(QuantizeMethod::Awq).smooth(0.5), "smooth: is given beside --method awq"),
        (job().smooth(0.5).sequential(Sequential::Layer), "turn: smooth scales the inputs of whole blocks"),
        (QuantizeJob::default().method(QuantizeMethod::Rtn).smooth(0.5), "calibration: this method measures inputs"),
        (job().activation_bits(16), "activation-bits: '16' is neither 32 nor 8"),
        (job().activation_bits(8), "activation-bits: 8: the layout compressed-tensors is of weights alone"),
        (job().sparsity(0.5).pattern(Pattern::Nm { n: 2, m: 4 }), "sparsity: 0.5 given with pattern 2:4"),
        (job().correct(1.0, 0.0).sequential(Sequential::Block), "correct: layers make up for earlier ones only"),
        (job().damping(-1.0), "damping: -1 is not a finite number"),
        (job().sparsity(1.5), "sparsity: 1.5 is not in [0, 1)"),
        (job().reconstruct_blocks(0), "reconstruct-blocks: 0 is not at least 1"),
        (job().reconstruct_blocks(1).reconstruct_rate(0.0), "reconstruct-rate: 0 is not a finite number above 0"),
        (job().reconstruct_rate(1.0), "reconstruct-rate: is for --reconstruct-blocks"),
        (job().method(QuantizeMethod::Obr).order(Order::GroupAware), "order: is for --method gptq; obr has no use for it"),
        (job().method(QuantizeMethod::Awq).static_groups(true), "static-groups: is for --method gptq"),
        (job().method(QuantizeMethod::Obr).block_size(64), "block-size: is for --method gptq"),
        (job().reconstruct_blocks(1).inputs(CalibrationInputs::Dense), "reconstruct-blocks: blocks are trained on inputs"),
        (QuantizeJob::default().method(QuantizeMethod::Rtn).reconstruct_blocks(1), "calibration: blocks are trained on one"),
    ] {
        let line = line(job);
        assert!(line.starts_with(begins), "{line}");
    }
    let m = Model::new(Dtype::F32);
    let line = run(&self::job(&m, QuantizeMethod::Rtn).group(Granularity::Group(128))).unwrap_err().to_string();
    assert!(line.contains("model.layers.0.self_attn.q_proj: group: groups of 128 do not divide rows of 16 inputs"), "{line}");
    let line = run(&self::job(&m, QuantizeMethod::Rtn).bits(3).layout(QuantLayout::Gptq)).unwrap_err().to_string();
    assert!(line.contains("layout: gptq has inputs in multiples of 32, and this weight 16"), "{line}");
    let line = run(&self::job(&m, QuantizeMethod::Gptq).samples(1000)).unwrap_err().to_string();
    assert!(line.starts_with("calibration: ") && line.contains("fewer than the 1000 x 12 asked for"), "{line}");
    assert_eq!(std::fs::read_dir(m.folder.path()).unwrap().count(), 2, "nothing is half written");
}

#[test]
fn codes_behind_masks_are_packed_without_zeros_to_the_same_numbers() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let config = Config::parse(&serde_json::json!({
        "model_type": "llama", "vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2,
    }));
    init(&config.unwrap(), Seed(4), Dtype::F32, at("whole")).unwrap().finish().unwrap();
    let sparse = PruneJob::new("magnitude").model(at("whole")).out(at("sparse")).pattern(Pattern::Nm { n: 2, m: 4 });
    sparse.run(&Methods::standard(), &mut |_| ControlFlow::Continue(())).map(drop).unwrap();
    for (bits, codes) in [(4, "i4"), (8, "i8")] {
        let coded = at(&format!("coded-{bits}"));
        let job = QuantizeJob::default().method(QuantizeMethod::Rtn).bits(bits).group(Granularity::Group(32));
        run(&job.model(at("sparse")).out(&coded)).map(drop).unwrap();
        let (right, by) = (logits(&coded), Folder::open(&coded).unwrap());
        let bytes = |folder: &Folder| std::fs::metadata(folder.path().join("model.safetensors")).unwrap().len();
        for format in ["nm:2:4", "sell", "bitmask:64", "bsr:1x1"] {
            let out = at(&format!("{bits}-{format}"));
            repack(&by, &out, format.parse().unwrap(), |_, _| {}).unwrap().finish().unwrap();
            let packed = Folder::open(&out).unwrap();
            for name in by.names().filter(|name| name.ends_with("proj.weight")) {
                assert_eq!(packed.read(name).unwrap(), by.read(name).unwrap(), "{format}: {name}");
                assert_eq!(packed.mask(name).unwrap(), by.mask(name).unwrap(), "{format}: {name}");
                assert!(packed.has_codes(name) && !packed.is_coded(name), "{format}: {name}");
                let kept = packed.kept_codes(name).unwrap().unwrap();
                assert!(kept.precision().to_string().starts_with(codes), "{format}: {}", kept.precision());
                assert_eq!(kept.mask(), by.mask(name).unwrap().unwrap(), "{format}: {name}");
            }
            assert_eq!(logits(&out), right, "{format}");
            assert!(bits == 4 || bytes(&packed) < bytes(&by), "{format}: {} of {}", bytes(&packed), bytes(&by));
            // From one storage to another, and whole.
            let again = at(&format!("{bits}-{format}-again"));
            repack(&packed, &again, "sell".parse().unwrap(), |_, _| {}).unwrap().finish().unwrap();
            assert_eq!(logits(&again), right, "{format}");
            repack(&packed, at(&format!("{bits}-{format}-whole")), Packing::Whole, |_, _| {}).unwrap().finish().unwrap();
            assert_eq!(logits(&at(&format!("{bits}-{format}-whole"))), right, "{format}");
        }
        for format in ["csr", "sparse-bitmask", "bsr:2x2"] {
            let line = repack(&by, at("no"), format.parse().unwrap(), |_, _| {}).err().unwrap().to_string();
            assert!(line.contains("codes of a few bits") || line.contains("block2x2"), "{line}");
            assert!(!at("no").exists());
        }
    }
    // What was not pruned lies as densely as it can.
    let job = QuantizeJob::default().method(QuantizeMethod::Rtn).bits(4).group(Granularity::Group(32));
    run(&job.model(at("whole")).out(at("dense"))).map(drop).unwrap();
    let dense = Folder::open(at("dense")).unwrap();
    let line = repack(&dense, at("no"), "sell".parse().unwrap(), |_, _| {}).err().unwrap().to_string();
    assert!(line.contains("in codes of a few bits and not pruned, which sell:padded has not"), "{line}");
}

#[test]
fn recipes_among_the_examples_are_read_and_their_jobs_can_be_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "toml") {
            let pipeline = Pipeline::from_toml(&std::fs::read_to_string(&path).unwrap())
                .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert!(pipeline.stages.len() > 1, "{}", path.display());
            read += 1;
        }
    }
    assert!(read > 0, "there is a recipe");
}
