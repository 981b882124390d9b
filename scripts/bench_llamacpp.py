#!/usr/bin/env python3
"""Times llama.cpp and this library on one model, in turns: a GGUF file, and the folder that `lacuna import` made of it.

    python3 scripts/bench_llamacpp.py MODEL.gguf FOLDER [--threads 1] [--tokens 64] [--prompt 256] [--rounds 5] [--activation-bits 32,8]

needs one of: pip install xllamacpp          (llama.cpp prebuilt, AVX2 as a rule)
              pip install llama-cpp-python   (built on this machine, with all of its instructions)
Nothing else may run: llama.cpp's threads spin. Each turn is a process of its own, so that none of them spins in another's turn.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time


def by_xllamacpp(args):
    import xllamacpp as x

    params = x.CommonParams()
    params.model.path = args.gguf
    params.n_ctx = max(2048, args.prompt + args.tokens)
    params.n_parallel = 1
    params.cpuparams.n_threads = args.threads
    params.cpuparams_batch.n_threads = args.threads
    server = x.Server(params)

    def ask(**request):
        answer = server.handle_completions({"temperature": 0, "cache_prompt": False, **request})
        return (json.loads(answer) if isinstance(answer, str) else answer)["timings"]

    # Tokens by number, so that both read and write as many.
    words = [i * 7919 % 32000 for i in range(args.prompt)]
    ask(prompt=words[:8], n_predict=4, ignore_eos=True)
    decode = ask(prompt=words[:8], n_predict=args.tokens, ignore_eos=True)
    prefill = ask(prompt=words, n_predict=1)
    return {
        "decode": decode["predicted_per_second"],
        "prefill": prefill["prompt_per_second"],
        "built": x.get_system_info().strip(),
        "by": "xllamacpp",
    }


def by_llama_cpp_python(args):
    import llama_cpp

    model = llama_cpp.Llama(
        args.gguf,
        n_threads=args.threads,
        n_threads_batch=args.threads,
        n_ctx=max(2048, args.prompt + args.tokens),
        n_batch=args.prompt,
        verbose=False,
    )
    words = [i * 7919 % 32000 for i in range(max(args.prompt, args.tokens + 8))]
    model.eval(words[:8])
    model.reset()
    model.eval(words[:8])
    begun = time.perf_counter()
    for word in words[8 : 8 + args.tokens]:
        model.eval([word])
    decode = args.tokens / (time.perf_counter() - begun)
    model.reset()
    begun = time.perf_counter()
    model.eval(words[: args.prompt])
    prefill = args.prompt / (time.perf_counter() - begun)
    built = llama_cpp.llama_print_system_info().decode().strip()
    return {"decode": decode, "prefill": prefill, "built": built, "by": "llama-cpp-python"}


def llama(args):
    """A turn of llama.cpp, in this process."""
    for run in (by_llama_cpp_python, by_xllamacpp):
        try:
            return run(args)
        except ImportError:
            continue
    sys.exit("bench_llamacpp: neither llama_cpp nor xllamacpp is installed: pip install xllamacpp")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf")
    parser.add_argument("folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--activation-bits", default="32,8")
    parser.add_argument("--lacuna", default="target/release/lacuna")
    parser.add_argument("--only-llama", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only_llama:
        print("turn " + json.dumps(llama(args)))
        return
    common = ["--threads", str(args.threads), "--tokens", str(args.tokens), "--prompt", str(args.prompt)]
    turns = {}
    for _ in range(args.rounds):
        command = [sys.executable, __file__, args.gguf, args.folder, "--only-llama", *common]
        done = subprocess.run(command, capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("turn ")]
        if done.returncode != 0 or not lines:
            sys.exit(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "bench_llamacpp: llama.cpp gave no answer")
        theirs = json.loads(lines[0][5:])
        turns.setdefault("llama.cpp (" + theirs["by"] + ")", []).append(theirs)
        command = [args.lacuna, "bench", "model", args.folder, "--json", "--rounds", "1", "--activation-bits", args.activation_bits, *common]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stderr.strip())
        for line in done.stdout.splitlines():
            ours = json.loads(line)
            turn = {"decode": ours["decode"]["median"], "prefill": ours["prefill"]["median"]}
            turns.setdefault("lacuna, activations of " + ours["activation_bits"] + " bits", []).append(turn)
    base = next(iter(turns))
    print(turns[base][0]["built"])
    print(f"{'':40} {'decode tokens/s':>16} {'ratio':>6} {'prefill tokens/s':>17} {'ratio':>6}   medians of {args.rounds}, {args.threads} threads")
    for name, of in turns.items():
        # Ratios within rounds, of which the machine's moods meet both.
        cells = []
        for what in ("decode", "prefill"):
            ratios = [ours[what] / theirs[what] for ours, theirs in zip(of, turns[base])]
            cells += [statistics.median(t[what] for t in of), statistics.median(ratios)]
        print(f"{name:40} {cells[0]:16.1f} {cells[1]:6.2f} {cells[2]:17.1f} {cells[3]:6.2f}")


if __name__ == "__main__":
    main()
