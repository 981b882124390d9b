#!/usr/bin/env bash
# Runs the notebooks from top to bottom with the kernel `evcxr`, or opens one. Installs what it needs, by name, and keeps it.
#
#     scripts/run_notebooks.sh [--save | --open] [NOTEBOOK…]      all six when none is named
#
#   (nothing)   outputs are cleared, every cell is run, and a cell that fails, or writes to standard error, fails the run; the files stay as they are
#   --save      and the outputs are written into the files
#   --open      Jupyter is started with the notebook
#
# The kernel is installed by `cargo install --locked evcxr_jupyter` where there is none (about 7 minutes on two cores), the runner by pip into a
# virtual environment. The library is built once for all notebooks. All of this lies in $LACUNA_NOTEBOOKS (target/notebooks if unset). The notebook of
# the language model wants the model that `scripts/fetch_data.sh smollm2` fetches; it is fetched if it is not there.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "run_notebooks: $*" >&2; }
fail() { say "$@"; exit 2; }

mode=run
names=()
for word in "$@"; do
    case $word in
    --save | --open) [ "$mode" = run ] || fail "--save and --open exclude one another"; mode=${word#--} ;;
    -h | --help) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) fail "$word: unknown; there are --save and --open" ;;
    *) names+=("$(basename "$word" .ipynb)") ;;
    esac
done
if [ ${#names[@]} -eq 0 ]; then
    for file in notebooks/*.ipynb; do names+=("$(basename "$file" .ipynb)"); done
fi
for name in "${names[@]}"; do
    [ -f "notebooks/$name.ipynb" ] || fail "$name: there are $(ls notebooks/*.ipynb | xargs -n1 basename -s .ipynb | paste -sd ' ')"
done
if [ "$mode" = open ] && [ ${#names[@]} -gt 1 ]; then fail "--open takes one notebook"; fi

place=$(realpath -m "${LACUNA_NOTEBOOKS:-target/notebooks}")
mkdir -p "$place"
export LACUNA_DATA=${LACUNA_DATA:-data}
LACUNA_DATA=$(realpath -m "$LACUNA_DATA")
case " ${names[*]} " in *" a_language_model "*) scripts/fetch_data.sh smollm2 ;; esac

command -v evcxr_jupyter >/dev/null || cargo install --locked evcxr_jupyter
if ! command -v evcxr_jupyter >/dev/null; then PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH; fi
venv=$place/venv
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
want=(nbclient nbformat)
if [ "$mode" = open ]; then want+=(jupyterlab); fi
for package in "${want[@]}"; do
    "$venv/bin/python" -c "import $package" 2>/dev/null || "$venv/bin/pip" install -q "$package"
done

# The kernel is made known to this run alone, and builds in one place for all notebooks: debug assertions would time the wrong products.
export JUPYTER_PATH=$place/jupyter
evcxr_jupyter --install >/dev/null
export EVCXR_TMPDIR=$place/build CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG_ASSERTIONS=false CARGO_PROFILE_DEV_OVERFLOW_CHECKS=false
mkdir -p "$EVCXR_TMPDIR"
if [ "$mode" = open ]; then exec "$venv/bin/jupyter" lab "notebooks/${names[0]}.ipynb"; fi
PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" scripts/run_notebooks.py "$mode" "${names[@]}"
