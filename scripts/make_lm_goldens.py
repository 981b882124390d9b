#!/usr/bin/env python3
"""Writes the goldens of tests/lm: tiny random models of every family with what the reference library says of them.

    python scripts/make_lm_goldens.py tests/lm/goldens [NAME…]

needs torch, safetensors and transformers: first with "transformers<5", which makes the models, then with "transformers>=5", which opens
them, holds its logits against the older library's and writes `newer.json`: of each model its config.json as the newer library saves it.

Each file holds a model's tensors under their own names, its config.json as the metadata
entry "config", and
    expected.input_ids (T) · expected.labels (of an encoder-decoder) · expected.logits (T, V) · expected.nll ()
    expected.grad.<tensor>, the gradient of that mean loss
    expected.hidden (T, H) · expected.along (T, H), of an encoder in the place of logits and loss: what the last block gives, and the slope of
    what is minimised there, times T
    expected.early (S, V), logits of the first S tokens alone, where texts so short have other rotary frequencies
all as f32. Every window is shorter than the text, and no parameter keeps the value it is initialised with.
"""
import json
import os
import sys
import tempfile

import torch
import transformers as tf
from safetensors import safe_open
from safetensors.torch import save_file

VOCAB = 41
TOKENS = 22
BASE = dict(vocab_size=VOCAB, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
            bos_token_id=1, eos_token_id=2, pad_token_id=0)
T5 = dict(vocab_size=VOCAB, d_model=16, d_ff=14, num_heads=3, relative_attention_num_buckets=8,
          relative_attention_max_distance=16, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=12, beta_fast=2.0, beta_slow=0.2)
SHORT = 9


def base(**changes):
    return {**BASE, **changes}


FAMILIES = {
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**base(
        hidden_size=18, num_attention_heads=3, num_key_value_heads=1, tie_word_embeddings=True, rope_theta=1e5))),
    "llama31": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**base(
        num_key_value_heads=2, tie_word_embeddings=False, max_position_embeddings=128, rope_theta=5e5, rope_scaling=LLAMA3,
        attention_bias=True, mlp_bias=True))),
    "mistral": lambda: tf.MistralForCausalLM(tf.MistralConfig(**base(
        head_dim=6, num_key_value_heads=2, sliding_window=5, rope_theta=1e6))),
    "gemma2": lambda: tf.Gemma2ForCausalLM(tf.Gemma2Config(**base(
        num_hidden_layers=3, head_dim=6, num_key_value_heads=2, sliding_window=5, query_pre_attn_scalar=9,
        attn_logit_softcapping=2.0, final_logit_softcapping=3.0, attn_implementation="eager"))),
    "phi2": lambda: tf.PhiForCausalLM(tf.PhiConfig(**base(partial_rotary_factor=0.5))),
    "phi3": lambda: tf.Phi3ForCausalLM(tf.Phi3Config(**base(num_key_value_heads=2, sliding_window=7))),
    "nemotron": lambda: tf.NemotronForCausalLM(tf.NemotronConfig(**base(num_key_value_heads=2, partial_rotary_factor=0.5))),
    "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(
        n_embd=16, n_layer=2, n_head=4, n_positions=24, vocab_size=VOCAB, bos_token_id=1, eos_token_id=2,
        scale_attn_by_inverse_layer_idx=True, attn_implementation="eager", attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)),
    "t5": lambda: tf.T5ForConditionalGeneration(tf.T5Config(
        d_kv=4, num_layers=1, num_decoder_layers=2, feed_forward_proj="relu", tie_word_embeddings=True, dropout_rate=0.0, **T5)),
    "t5v11": lambda: tf.T5ForConditionalGeneration(tf.T5Config(
        d_kv=4, num_layers=2, num_decoder_layers=1, feed_forward_proj="gated-gelu", tie_word_embeddings=False,
        dropout_rate=0.0, **T5)),
    "yarn": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**base(
        head_dim=8, num_key_value_heads=2, tie_word_embeddings=True, max_position_embeddings=48, rope_theta=1e3, rope_scaling=YARN))),
    "longrope": lambda: tf.Phi3ForCausalLM(tf.Phi3Config(**base(
        num_key_value_heads=2, sliding_window=None, max_position_embeddings=36, original_max_position_embeddings=SHORT,
        rope_scaling=dict(type="longrope", short_factor=[1.0, 1.25], long_factor=[1.5, 6.0])))),
    "phi_part": lambda: tf.PhiForCausalLM(tf.PhiConfig(**base(
        intermediate_size=12, num_hidden_layers=1, num_attention_heads=2, partial_rotary_factor=0.25))),
    "nemotron_part": lambda: tf.NemotronForCausalLM(tf.NemotronConfig(**base(
        intermediate_size=12, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, partial_rotary_factor=0.25))),
    "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**base(
        num_key_value_heads=2, tie_word_embeddings=True, rope_theta=1e6, use_sliding_window=True, sliding_window=5, max_window_layers=1))),
    "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**base(head_dim=6, num_key_value_heads=2, rope_theta=1e6))),
    "gemma": lambda: tf.GemmaForCausalLM(tf.GemmaConfig(**base(head_dim=6, num_key_value_heads=1))),
    "gemma3": lambda: tf.Gemma3ForCausalLM(tf.Gemma3TextConfig(**base(
        num_hidden_layers=3, head_dim=6, num_key_value_heads=1, sliding_window=5, query_pre_attn_scalar=9, rope_theta=1e4, rms_norm_eps=1e-8,
        rope_local_base_freq=1e2, rope_scaling=dict(rope_type="linear", factor=4.0), attn_implementation="eager",
        layer_types=["sliding_attention", "full_attention", "sliding_attention"]))),
    "smollm3": lambda: tf.SmolLM3ForCausalLM(tf.SmolLM3Config(**base(
        num_hidden_layers=3, num_key_value_heads=2, rope_theta=5e6, no_rope_layer_interval=2))),
    "olmo2": lambda: tf.Olmo2ForCausalLM(tf.Olmo2Config(**base(num_key_value_heads=2, rms_norm_eps=1e-8))),
    "phi4mini": lambda: tf.Phi3ForCausalLM(tf.Phi3Config(**base(
        num_attention_heads=2, num_key_value_heads=1, partial_rotary_factor=0.75, tie_word_embeddings=True))),
    "stablelm": lambda: tf.StableLmForCausalLM(tf.StableLmConfig(**base(
        num_attention_heads=2, num_key_value_heads=1, partial_rotary_factor=0.25, use_qkv_bias=True))),
    "stablelm_parallel": lambda: tf.StableLmForCausalLM(tf.StableLmConfig(**base(
        num_hidden_layers=1, num_key_value_heads=4, partial_rotary_factor=0.5, use_parallel_residual=True))),
    "opt": lambda: tf.OPTForCausalLM(tf.OPTConfig(
        hidden_size=16, ffn_dim=20, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=24, vocab_size=VOCAB,
        dropout=0.0, bos_token_id=1, eos_token_id=2, pad_token_id=0)),
    "opt_350m": lambda: tf.OPTForCausalLM(tf.OPTConfig(
        hidden_size=16, ffn_dim=20, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=24, vocab_size=VOCAB,
        word_embed_proj_dim=10, do_layer_norm_before=False, dropout=0.0, bos_token_id=1, eos_token_id=2, pad_token_id=0)),
    "pythia": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**base(rotary_pct=0.5))),
    "neox_serial": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**base(
        num_hidden_layers=1, num_attention_heads=2, rotary_pct=0.25, use_parallel_residual=False))),
    "bloom": lambda: tf.BloomForCausalLM(tf.BloomConfig(
        vocab_size=VOCAB, hidden_size=18, n_layer=2, n_head=6, bos_token_id=1, eos_token_id=2, pad_token_id=0)),
    "mixtral": lambda: tf.MixtralForCausalLM(tf.MixtralConfig(**base(
        intermediate_size=10, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, sliding_window=5))),
    "qwen2_moe": lambda: tf.Qwen2MoeForCausalLM(tf.Qwen2MoeConfig(**base(
        num_key_value_heads=2, moe_intermediate_size=6, shared_expert_intermediate_size=10, num_experts=4, num_experts_per_tok=2,
        decoder_sparse_step=2))),
    "qwen3_moe": lambda: tf.Qwen3MoeForCausalLM(tf.Qwen3MoeConfig(**base(
        head_dim=6, num_key_value_heads=2, moe_intermediate_size=6, num_experts=5, num_experts_per_tok=3, norm_topk_prob=True,
        mlp_only_layers=[1]))),
    "olmoe": lambda: tf.OlmoeForCausalLM(tf.OlmoeConfig(**base(
        intermediate_size=8, num_key_value_heads=2, num_experts=4, num_experts_per_tok=2, rms_norm_eps=1e-8))),
    "olmo3": lambda: tf.Olmo3ForCausalLM(tf.Olmo3Config(**base(
        num_key_value_heads=2, rms_norm_eps=1e-8, rope_theta=5e5, sliding_window=5,
        layer_types=["sliding_attention", "full_attention"]))),
    "bert": lambda: tf.BertModel(tf.BertConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=24,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=0), add_pooling_layer=False),
    # The other kind of head, and windows where the first of a family has none.
    "qwen2_untied": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**base(
        num_hidden_layers=1, num_key_value_heads=1, tie_word_embeddings=False, rope_theta=1e6))),
    "qwen3_window": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**base(
        num_attention_heads=2, num_key_value_heads=1, head_dim=6, tie_word_embeddings=True, use_sliding_window=True, sliding_window=5,
        max_window_layers=1))),
    "gemma3_untied": lambda: tf.Gemma3ForCausalLM(tf.Gemma3TextConfig(**base(
        num_attention_heads=2, num_key_value_heads=1, head_dim=6, sliding_window=5, query_pre_attn_scalar=9, tie_word_embeddings=False,
        attn_logit_softcapping=2.0, final_logit_softcapping=3.0,
        layer_types=["sliding_attention", "full_attention"], attn_implementation="eager"))),
    "smollm3_window": lambda: tf.SmolLM3ForCausalLM(tf.SmolLM3Config(**base(
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=False, use_sliding_window=True, sliding_window=5,
        no_rope_layer_interval=2))),
    "olmo2_tied": lambda: tf.Olmo2ForCausalLM(tf.Olmo2Config(**base(
        num_hidden_layers=1, num_key_value_heads=2, tie_word_embeddings=True, rms_norm_eps=1e-8))),
    "qwen3_moe_window": lambda: tf.Qwen3MoeForCausalLM(tf.Qwen3MoeConfig(**base(
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=6, moe_intermediate_size=6, num_experts=3,
        num_experts_per_tok=2, tie_word_embeddings=True, use_sliding_window=True, sliding_window=5))),
    # A bias of the head beside the embedding's weight.
    "phi_tied": lambda: tf.PhiForCausalLM(tf.PhiConfig(**base(
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, partial_rotary_factor=0.5, tie_word_embeddings=True))),
    "qwen2_moe_window": lambda: tf.Qwen2MoeForCausalLM(tf.Qwen2MoeConfig(**base(
        num_attention_heads=2, num_key_value_heads=1, moe_intermediate_size=6, shared_expert_intermediate_size=8, num_experts=3,
        num_experts_per_tok=2, tie_word_embeddings=True, use_sliding_window=True, sliding_window=5, max_window_layers=1,
        layer_types=["sliding_attention"] * 2))),
}


def golden(make, seed):
    torch.manual_seed(seed)
    model = make().float().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * (0.2 if p.dim() == 1 else 0.15))
    ids = torch.randint(3, VOCAB, (1, TOKENS))
    expected = {"input_ids": ids[0].float()}
    if model.config.is_encoder_decoder:
        labels = torch.randint(3, VOCAB, (1, 9))
        expected["labels"] = labels[0].float()
    else:
        labels = ids
    if isinstance(model, tf.BertModel):
        hidden, along = model(input_ids=ids).last_hidden_state[0], torch.randn(TOKENS, model.config.hidden_size)
        ((hidden * along).sum() / TOKENS).backward()
        expected |= {"hidden": hidden.detach(), "along": along}
    else:
        out = model(input_ids=ids, labels=labels)
        out.loss.backward()
        expected |= {"logits": out.logits[0].detach(), "nll": out.loss.detach().reshape(())}
    if getattr(model.config, "original_max_position_embeddings", TOKENS) < TOKENS:
        expected["early"] = model(input_ids=ids[:, :SHORT]).logits[0].detach()
    named = dict(model.named_parameters())
    # An expert that no token meets has none.
    expected |= {f"grad.{name}": torch.zeros_like(p) if p.grad is None else p.grad for name, p in named.items()}
    tensors = {name: p.detach() for name, p in named.items()}
    tensors |= {f"expected.{name}": value for name, value in expected.items()}
    config = json.loads(model.config.to_json_string())
    return {name: t.contiguous().clone() for name, t in tensors.items()}, {"config": json.dumps(config, sort_keys=True)}


def newer(path):
    """The config of a golden as the newer library saves it, once that library has given the golden's logits."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        config = json.loads(file.metadata()["config"])
    with tempfile.TemporaryDirectory() as folder:
        save_file({n: t for n, t in tensors.items() if not n.startswith("expected.")}, os.path.join(folder, "model.safetensors"),
                  {"format": "pt"})
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(config, file)
        encoder = config["model_type"] == "bert"
        auto = tf.AutoModelForSeq2SeqLM if config.get("is_encoder_decoder") else tf.AutoModel if encoder else tf.AutoModelForCausalLM
        model = auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        ids = {"input_ids": tensors["expected.input_ids"].long()[None]}
        if model.config.is_encoder_decoder:
            ids["labels"] = tensors["expected.labels"].long()[None]
        with torch.no_grad():
            out = model(**ids)
            found, right = (out.last_hidden_state, "hidden") if encoder else (out.logits, "logits")
            off = float((found[0] - tensors[f"expected.{right}"]).abs().max())
        assert off < 1e-4, f"{path}: {off}"
        model.save_pretrained(folder)
        with open(os.path.join(folder, "config.json")) as file:
            return json.load(file)


def main():
    out, only = sys.argv[1], sys.argv[2:]
    os.makedirs(out, exist_ok=True)
    if int(tf.__version__.split(".")[0]) >= 5:
        configs = {name: newer(os.path.join(out, name + ".safetensors")) for name in FAMILIES}
        # An encoder has a test of its own.
        del configs["bert"]
        with open(os.path.join(out, "newer.json"), "w") as file:
            file.write("{\n" + ",\n".join(f"{json.dumps(n)}: {json.dumps(c, sort_keys=True)}" for n, c in configs.items()) + "\n}\n")
        return
    for seed, (name, make) in enumerate(FAMILIES.items()):
        if only and name not in only:
            continue
        tensors, metadata = golden(make, seed + 1)
        path = os.path.join(out, name + ".safetensors")
        save_file(tensors, path, metadata)
        print(f"{name:10s} {os.path.getsize(path):6d} bytes")


if __name__ == "__main__":
    main()
