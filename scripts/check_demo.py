#!/usr/bin/env python3
"""Checks what `lacuna demo --json` printed: python3 scripts/check_demo.py FILE [SECONDS]"""
import json, sys

result = json.load(open(sys.argv[1]))
limit = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
rows = result["rows"]
one_shot = {(r["seed"], r["method"], r["sparsity"]): r for r in rows if not r["retrained"]}
seeds = sorted({r["seed"] for r in rows})
bad = []
for seed in seeds:
    for s in (0.2, 0.3, 0.4, 0.5, 0.6):
        obd, magnitude = (one_shot[seed, m, s]["measured_increase"] for m in ("obd", "magnitude"))
        if not obd < magnitude:
            bad.append(f"seed {seed}, sparsity {s}: OBD raises the loss by {obd}, magnitude by {magnitude}")
    for s in (0.1, 0.2, 0.3):
        row = one_shot[seed, "obd", s]
        ratio = row["predicted_increase"] / row["measured_increase"]
        if not 0.5 <= ratio <= 1.5:
            bad.append(f"seed {seed}, sparsity {s}: predicted / measured is {ratio:.2f}")
if len(seeds) < 3:
    bad.append(f"only {len(seeds)} seeds")
if max(c["difference"] for c in result["channels"]) > 1e-5:
    bad.append("a shrunk network differs from the masked one by more than 1e-5")
if result["seconds"] > limit:
    bad.append(f"took {result['seconds']:.1f} s, more than {limit:.0f}")
print("\n".join(bad) or f"demo: all claims hold on seeds {seeds}, {result['seconds']:.1f} s")
sys.exit(bool(bad))
