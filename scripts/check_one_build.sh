#!/usr/bin/env bash
# Whether one build serves both the command and the programs of papers/ and examples/. Development dependencies are resolved with
# everything else once an example is built; a dependency whose features that changes is compiled again, and the library with it. So
# each package that `cargo build` compiles has to have the same features with and without them. Nothing is compiled here.
set -euo pipefail
cd "$(dirname "$0")/.."
features() { cargo tree --locked --workspace --prefix none --format '{p} features: {f}' --edges "$1" | sed 's/ (\*)$//' | sort -u; }
without=$(features normal,build)
with=$(features normal,build,dev)
again=$(comm -23 <(echo "$without") <(echo "$with"))
if [ -n "$again" ]; then
    echo "development dependencies change the features of:" >&2
    echo "$again" >&2
    echo "switch these on among the dependencies too, or leave them out of the development dependencies" >&2
    exit 1
fi
echo "one build serves the command, the papers and the examples"
