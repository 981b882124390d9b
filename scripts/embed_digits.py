#!/usr/bin/env python3
"""Makes src/data/digits.bin.gz from the digits that scikit-learn ships.

    scripts/embed_digits.py [scikit_learn-….whl]

Without a wheel, one is downloaded with `pip download --no-deps scikit-learn`.
The output holds 65 bytes a sample, 64 pixels (0 to 16) and the digit, in the
order of the source; the same source gives the same bytes.
"""

import gzip
import io
import pathlib
import subprocess
import sys
import tempfile
import zipfile

SOURCE = "sklearn/datasets/data/digits.csv.gz"
OUTPUT = pathlib.Path(__file__).resolve().parent.parent / "src" / "io" / "digits.bin.gz"
COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def samples(wheel):
    with zipfile.ZipFile(wheel) as archive:
        text = gzip.decompress(archive.read(SOURCE)).decode("ascii")
    rows = [[int(float(value)) for value in line.split(",")] for line in text.splitlines()]
    if any(len(row) != 65 or not all(0 <= p <= 16 for p in row[:64]) for row in rows):
        sys.exit(f"{wheel}: a row of {SOURCE} is not 64 pixels from 0 to 16 and a digit")
    counts = [sum(row[64] == digit for row in rows) for digit in range(10)]
    if len(rows) != 1797 or counts != COUNTS:
        sys.exit(f"{wheel}: {len(rows)} rows, {counts} of each digit; expected 1797, {COUNTS}")
    return rows


def main():
    if len(sys.argv) > 2 or sys.argv[1:] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) == 2:
            wheel = sys.argv[1]
        else:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            subprocess.run([*pip, "--dest", folder, "scikit-learn"], check=True)
            wheel = next(pathlib.Path(folder).glob("*.whl"))
        rows = samples(wheel)
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as out:
        out.write(b"".join(bytes(row) for row in rows))
    OUTPUT.write_bytes(packed.getvalue())
    pixels = sum(sum(row[:64]) for row in rows)
    print(f"{OUTPUT.name}: {len(rows)} samples, pixels sum to {pixels}, {len(packed.getvalue())} bytes")


if __name__ == "__main__":
    main()
