#!/usr/bin/env python3
"""Cuts four texts of different kinds into a part to calibrate on and one to judge by: what `fetch_data.sh texts` calls on the folder that it has filled.

Of each text at most 1.2 million bytes are taken; the first six tenths, up to the end of a line, are for calibration.
"""
import sys
import zipfile
from pathlib import Path

from pydoc_data import topics

LARGEST = 1_200_000

folder = Path(sys.argv[1])
wheel = zipfile.ZipFile(next(folder.glob("*erkzeug-3.0.3-*.whl")))
modules = sorted(name for name in wheel.namelist() if name.endswith(".py"))
speeches = sorted(path for path in (folder / "package" / "data").glob("*.txt") if path.name[:4] >= "1961")
texts = {
    "bible": (folder / "bible" / "kjv.txt").read_text(encoding="utf-8"),
    "speeches": "\n\n".join(path.read_text(encoding="utf-8").strip() for path in speeches),
    "code": "\n\n".join(wheel.read(name).decode("utf-8").strip() for name in modules),
    "help": "\n".join(topics.topics[name] for name in sorted(topics.topics)),
}
for name, text in texts.items():
    data = text.encode("utf-8")[:LARGEST]
    data = data[: data.rindex(b"\n") + 1]
    cut = data.rindex(b"\n", 0, len(data) * 6 // 10) + 1
    (folder / f"{name}-calibration.txt").write_bytes(data[:cut])
    (folder / f"{name}-judge.txt").write_bytes(data[cut:])
