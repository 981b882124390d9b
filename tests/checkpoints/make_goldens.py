#!/usr/bin/env python3
"""Writes what the readers of GGUF are held to.

    python make_goldens.py [FAMILY…]  needs: pip install gguf==0.19.0 safetensors numpy sentencepiece tokenizers
                                                      torch==2.7.1 "transformers<5"

With names of families only these are written, and their lines of families.safetensors; what else is there stays.

quants.safetensors    random blocks of every type that is read, and the numbers that the gguf package finds in them. For each type
                      T: `T.bytes`, U8 (blocks, bytes of a block), and `T.values`, F32 (blocks, numbers of a block). The 16-bit
                      floats of a block are finite; everything else in it is any byte.
sentencepiece.json    a small BPE model trained by sentencepiece on the text below: pieces, scores, types as GGUF numbers them, and
                      the tokens that sentencepiece cuts some texts into.
bytelevel.json        a small byte-level BPE trained by tokenizers, digits cut apart: tokens, merges, texts and their tokens.
FAMILY.gguf           tiny random models in F16 under the names of the gguf package, with what llama.cpp does to their numbers.
families.safetensors  `FAMILY.ids` and, by transformers from the original, `FAMILY.logits`.
"""
import io
import json
import os
import sys

import gguf
import numpy as np
import sentencepiece
import tokenizers
from safetensors.numpy import load_file, save_file

only, here = sys.argv[1:], os.path.dirname(os.path.abspath(__file__))
if not only:
    SCALES = {  # where the 16-bit floats of a block stand
        "F16": [0], "BF16": [0], "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
        "Q2_K": [80, 82], "Q3_K": [108],
    }
    random = np.random.default_rng(4)
    tensors = {}
    for name, places in SCALES.items():
        kind = gguf.GGMLQuantizationType[name]
        numbers, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = {1: 64, 32: 12, 256: 3}[numbers]
        data = random.integers(0, 256, (blocks, size), dtype=np.uint8)
        for place in places:
            values = random.normal(size=blocks).astype(np.float32) * 10.0 ** random.integers(-6, 3, blocks).astype(np.float32)
            stored = values.astype(np.float16).view(np.uint16) if name != "BF16" else (values.view(np.uint32) >> 16).astype(np.uint16)
            data[:, place:place + 2] = stored.view(np.uint8).reshape(blocks, 2)
        tensors[f"{name}.bytes"] = data
        tensors[f"{name}.values"] = gguf.quants.dequantize(data, kind).astype(np.float32).reshape(blocks, numbers)
    save_file(tensors, os.path.join(here, "quants.safetensors"))
    os.chmod(os.path.join(here, "quants.safetensors"), 0o644)

    TEXT = """The weights that stay are ranked, never held against a threshold; of equal scores the first stays.
A mask is saved and not inferred from zeros. In 1989 the second derivatives of a network were computed by a pass of their own,
in 2023 the weights of a transformer were scored by the norms of their inputs. What is dropped stays dropped: 50 % of 134 515 008.
The longer the text, the more the merges; the more merges, the fewer tokens. Ein Wort für die Umlaute, un mot pour l'été."""
    TEXTS = [
        "The weights that stay are ranked.", "  two spaces, and a tab\t, and\n\nlines \n", "1989 was 34 years before 2023", "naïve 日本語 🙂 text", "a",
        "don't say it's the thresholds' networks", " leading", "trailing  ", "<s> is text </s>", "",
    ]
    lines = [line for line in TEXT.split("\n")] * 20
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=420, byte_fallback=True, character_coverage=0.98,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=True, split_digits=True, num_threads=1,
    )
    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    size = sp.get_piece_size()
    kind = lambda i: 2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 1
    golden = {
        "tokens": [sp.id_to_piece(i) for i in range(size)], "scores": [sp.get_score(i) for i in range(size)], "types": [kind(i) for i in range(size)],
        "bos": sp.bos_id(), "eos": sp.eos_id(), "unk": sp.unk_id(), "texts": [t for t in TEXTS if "<s>" not in t],
    }
    golden["ids"] = [[sp.bos_id()] + sp.encode(t) for t in golden["texts"]]
    json.dump(golden, open(os.path.join(here, "sentencepiece.json"), "w"), ensure_ascii=False)

    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bytes_ = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([tokenizers.pre_tokenizers.Digits(individual_digits=True), bytes_])
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>", "<s>", "</s>"], initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )
    bpe.train_from_iterator(lines, trainer)
    inside = json.loads(bpe.to_str())["model"]
    tokens = [t for t, _ in sorted(inside["vocab"].items(), key=lambda pair: pair[1])]
    golden = {"tokens": tokens, "merges": [" ".join(m) for m in inside["merges"]], "texts": TEXTS, "ids": [bpe.encode(t).ids for t in TEXTS]}
    json.dump(golden, open(os.path.join(here, "bytelevel.json"), "w"), ensure_ascii=False)

import torch
import transformers as tf

common = dict(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
              max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)
families = {
    "llama": tf.LlamaForCausalLM(tf.LlamaConfig(**common, head_dim=6, rope_theta=5e4, tie_word_embeddings=False)),
    "gemma2": tf.Gemma2ForCausalLM(tf.Gemma2Config(**common, head_dim=6, sliding_window=4, query_pre_attn_scalar=6, attn_implementation="eager")),
    "phi2": tf.PhiForCausalLM(tf.PhiConfig(**common, partial_rotary_factor=0.5)),
    "phi3": tf.Phi3ForCausalLM(tf.Phi3Config(**common, sliding_window=None)),
    "nemotron": tf.NemotronForCausalLM(tf.NemotronConfig(**common, partial_rotary_factor=0.5)),
    "gpt2": tf.GPT2LMHeadModel(tf.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=2)),
    "qwen2": tf.Qwen2ForCausalLM(tf.Qwen2Config(**common, rope_theta=1e5, tie_word_embeddings=True)),
    "qwen3": tf.Qwen3ForCausalLM(tf.Qwen3Config(**common, head_dim=6, rope_theta=1e5, tie_word_embeddings=False)),
    "gemma": tf.GemmaForCausalLM(tf.GemmaConfig(**common, head_dim=6)),
    "gemma3": tf.Gemma3ForCausalLM(tf.Gemma3TextConfig(**common | dict(num_hidden_layers=7), head_dim=6, sliding_window=4, query_pre_attn_scalar=6,
                                                       rope_scaling=dict(rope_type="linear", factor=2.0), attn_implementation="eager")),
    "smollm3": tf.SmolLM3ForCausalLM(tf.SmolLM3Config(**common | dict(num_hidden_layers=5), rope_theta=1e5)),
    "olmo2": tf.Olmo2ForCausalLM(tf.Olmo2Config(**common)),
    "mixtral": tf.MixtralForCausalLM(tf.MixtralConfig(**common | dict(intermediate_size=10), head_dim=6, num_local_experts=4, num_experts_per_tok=2,
                                                      rope_theta=1e5)),
    "qwen2moe": tf.Qwen2MoeForCausalLM(tf.Qwen2MoeConfig(**common, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=6,
                                                         shared_expert_intermediate_size=10)),
    "qwen3moe": tf.Qwen3MoeForCausalLM(tf.Qwen3MoeConfig(**common, head_dim=6, num_experts=5, num_experts_per_tok=3, moe_intermediate_size=6,
                                                         norm_topk_prob=True)),
    "olmoe": tf.OlmoeForCausalLM(tf.OlmoeConfig(**common | dict(intermediate_size=8), num_experts=4, num_experts_per_tok=2)),
    "gptneox": tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**common, rotary_pct=0.25, rotary_emb_base=20000, use_parallel_residual=True)),
    "bloom": tf.BloomForCausalLM(tf.BloomConfig(vocab_size=40, hidden_size=16, n_layer=2, n_head=2, seq_length=64, bos_token_id=1, eos_token_id=2,
                                                pad_token_id=0)),
    "stablelm": tf.StableLmForCausalLM(tf.StableLmConfig(**common, use_qkv_bias=True, partial_rotary_factor=0.5)),
}
EXPERTS = {"w1": "gate", "w2": "down", "w3": "up", "gate_proj": "gate", "down_proj": "down", "up_proj": "up"}
expected = load_file(os.path.join(here, "families.safetensors")) if only else {}
for name, model in families.items():
    if only and name not in only:
        continue
    model, config = model.float().eval(), model.config.to_dict()
    torch.manual_seed(5)
    # The format has no name of its own for Mixtral.
    written = "llama" if name == "mixtral" else name
    arch = {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[written]
    heads = config.get("num_attention_heads") or config["n_head"]
    kv, hidden = config.get("num_key_value_heads", heads) if name != "gptneox" else heads, config.get("hidden_size") or config["n_embd"]
    head = config.get("head_dim") or hidden // heads
    shifted = name in ("gemma", "gemma2", "gemma3", "nemotron")
    blocks = config.get("num_hidden_layers") or config["n_layer"]
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.add_(torch.randn_like(p) * (0.15 if p.dim() == 1 else 0.3))
            # What stands in the file, 1 more or not, is a number of 16 bits.
            one = 1.0 if shifted and key.endswith("norm.weight") else 0.0
            p.copy_((p + one).half().float() - one)
        ids = torch.randint(3, 40, (1, 14))
        expected[f"{name}.ids"], expected[f"{name}.logits"] = ids.numpy(), model(ids).logits.numpy()
    names = gguf.get_tensor_name_map(arch, blocks)
    file = gguf.GGUFWriter(os.path.join(here, f"{name}.gguf"), written)
    file.add_block_count(blocks)
    file.add_context_length(64)
    file.add_embedding_length(hidden)
    file.add_feed_forward_length(config.get("intermediate_size") or 4 * hidden)
    file.add_head_count(heads)
    file.add_head_count_kv(kv)
    if name not in ("gpt2", "bloom"):
        file.add_rope_freq_base(config.get("rotary_emb_base") or config["rope_theta"])
        file.add_rope_dimension_count(int(head * (config.get("rotary_pct") or config.get("partial_rotary_factor", 1.0))))
    if name in ("gptneox", "stablelm"):
        file.add_parallel_residual(config["use_parallel_residual"])
    experts = config.get("num_local_experts") or config.get("num_experts")
    if experts:
        file.add_expert_count(experts)
        file.add_expert_used_count(config["num_experts_per_tok"])
    if config.get("moe_intermediate_size"):
        file.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if config.get("shared_expert_intermediate_size"):
        file.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])
    if config.get("head_dim"):
        file.add_key_length(head)
        file.add_value_length(head)
    if "rms_norm_eps" in config:
        file.add_layer_norm_rms_eps(config["rms_norm_eps"])
    else:
        file.add_layer_norm_eps(config.get("layer_norm_eps") or config.get("norm_eps") or config["layer_norm_epsilon"])
    if name == "gemma2":
        file.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        file.add_final_logit_softcapping(config["final_logit_softcapping"])
        file.add_sliding_window(config["sliding_window"])
    if name == "gemma3":
        file.add_sliding_window(config["sliding_window"])
        file.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        file.add_rope_scaling_factor(config["rope_scaling"]["factor"])
    tied = config["tie_word_embeddings"]
    stacks = {}
    for key, values in model.state_dict().items():
        if tied and key == "lm_head.weight":
            continue
        values = values.numpy()
        if ".experts." in key:
            front, number, part, _ = key.rsplit(".", 3)
            stacks.setdefault((front.split(".")[2], EXPERTS[part]), []).append(values)
            continue
        if name in ("gptneox", "bloom") and "query_key_value" in key:
            parts = values.reshape(heads, 3, head, -1)
            values = np.concatenate([parts[:, i].reshape(heads * head, -1) for i in range(3)]).reshape(values.shape)
        if key.endswith("shared_expert_gate.weight"):
            values = values.squeeze()
        if name in ("llama", "smollm3", "mixtral") and ("q_proj" in key or "k_proj" in key):
            n = heads if "q_proj" in key else kv
            values = values.reshape(n, 2, values.shape[0] // n // 2, -1).swapaxes(1, 2).reshape(values.shape)
        if shifted and key.endswith("norm.weight"):
            values = values + 1
        if name == "gpt2" and key.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            values = values.T
        # The format's own tools know BLOOM by the names of its first checkpoints.
        key = key.removeprefix("transformer.") if name == "bloom" else key
        file.add_tensor(names.get_name(key, try_suffixes=(".weight", ".bias")), np.ascontiguousarray(values.astype(np.float16)))
    for (block, part), values in stacks.items():
        file.add_tensor(f"blk.{block}.ffn_{part}_exps.weight", np.stack(values).astype(np.float16))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
save_file(expected, os.path.join(here, "families.safetensors"))
os.chmod(os.path.join(here, "families.safetensors"), 0o644)
